//! RunTask: validates, places and creates tasks in one transaction.
//!
//! What always holds: the rest of what was asked for is answered as failures, one for each
//! container instance that was looked at. The same client token again gets the same answer.

use gantry_api::RequestContext;
use gantry_api::ecs::{EcsError, RunTaskRequest, RunTaskResponse};
use gantry_arn::ClusterName;
use gantry_placement::Plan;
use gantry_store::Transaction;

use super::describe_tasks::describe;
use super::identity::sha256;
use super::lookup::Rows;
use super::new_tasks::{Ground, NewTasks, Outcome, draw_ids};
use super::placements::{failures, keep_rejection};
use super::placing::Choice;
use crate::model::reference::Scope;
use crate::model::run_request;
use crate::service::EcsService;
use crate::tables::ClientTokenRow;

pub(super) async fn run_task(
    service: &EcsService,
    ctx: &RequestContext,
    input: RunTaskRequest,
) -> Result<RunTaskResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    run_request::validate(&input)?;
    let given_constraints = run_request::constraints(&input)?;
    let strategies = run_request::strategies(&input)?;
    let token = Token::of(&input, &cluster);
    let count = usize::try_from(input.count.unwrap_or(1)).unwrap_or(1);
    let seed = service.env.entropy.u64();
    let new = NewTasks {
        service,
        ctx,
        scope: &scope,
        cluster: &cluster,
        reference: scope.task_definition(&input.task_definition)?,
        ids: draw_ids(service, count),
        client_token: token.as_ref().map(|token| token.text.clone()),
        input: &input,
    };
    let outcome = new
        .create(
            |ground| {
                // Constraints of the definition and of the request hold together, as at AWS.
                let mut constraints =
                    run_request::definition_constraints(&ground.definition.definition)?;
                constraints.extend(given_constraints.iter().cloned());
                Ok(Choice::Best {
                    constraints,
                    strategies: &strategies,
                    seed,
                })
            },
            |rows| answered_before(rows, &cluster, token.as_ref()),
            |ground, outcome, transaction| {
                remember(ground, &cluster, token.as_ref(), outcome, ctx, transaction);
                if outcome.plan.unplaced > 0 {
                    keep_rejection(&new, ground, &outcome.plan, transaction);
                }
            },
        )
        .await?;
    Ok(RunTaskResponse {
        failures: Some(outcome_failures(&scope, &cluster, &outcome)),
        tasks: Some(outcome.tasks),
    })
}

fn outcome_failures(
    scope: &Scope,
    cluster: &ClusterName,
    outcome: &Outcome,
) -> Vec<gantry_api::ecs::Failure> {
    match &outcome.repeated {
        Some(failures) => failures.clone(),
        None => failures(scope, cluster, &outcome.plan),
    }
}

/// A client token, and a digest of the request that it stands for.
struct Token {
    name: String,
    text: String,
    fingerprint: String,
}

impl Token {
    fn of(input: &RunTaskRequest, cluster: &ClusterName) -> Option<Self> {
        let text = input
            .client_token
            .clone()
            .filter(|token| !token.is_empty())?;
        let request = RunTaskRequest {
            client_token: None,
            ..input.clone()
        };
        let fingerprint = sha256(serde_json::to_vec(&request).unwrap_or_default());
        let name = format!("RunTask/{cluster}/{}", sha256(&text));
        Some(Self {
            name,
            text,
            fingerprint,
        })
    }
}

/// The answer that this client token got, as its tasks are now.
fn answered_before(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    token: Option<&Token>,
) -> Result<Option<Outcome>, EcsError> {
    let Some(token) = token else {
        return Ok(None);
    };
    let Some(used) = rows.read::<ClientTokenRow>(&token.name) else {
        return Ok(None);
    };
    if used.fingerprint != token.fingerprint {
        let arns = used
            .tasks
            .iter()
            .map(|task| rows.scope.task_arn(cluster, task));
        return Err(EcsError::ConflictException(
            gantry_api::ecs::ConflictException {
                message: Some(
                    "The client token was used before with different parameters.".to_owned(),
                ),
                resource_ids: Some(arns.collect()),
            },
        ));
    }
    let states = used
        .tasks
        .iter()
        .filter_map(|task| rows.task(cluster, task));
    Ok(Some(Outcome {
        tasks: states.map(|state| describe(rows, &state, true)).collect(),
        ids: used.tasks.clone(),
        plan: Plan::default(),
        repeated: Some(used.failures.clone()),
    }))
}

fn remember(
    ground: &Ground<'_>,
    cluster: &ClusterName,
    token: Option<&Token>,
    outcome: &Outcome,
    ctx: &RequestContext,
    transaction: &mut Transaction,
) {
    // What placed nothing changed nothing, so it may be tried again under its token.
    let Some(token) = token.filter(|_| !outcome.ids.is_empty()) else {
        return;
    };
    let scope = ground.rows.scope;
    let row = ClientTokenRow {
        fingerprint: token.fingerprint.clone(),
        created_at: ctx.now,
        cluster: cluster.clone(),
        container_instance: None,
        tasks: outcome.ids.clone(),
        failures: failures(scope, cluster, &outcome.plan),
    };
    transaction.create::<ClientTokenRow>(&scope.account, &scope.region, &token.name, &row);
}
