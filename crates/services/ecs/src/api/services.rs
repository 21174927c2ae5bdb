//! CreateService, and what it has in common with UpdateService: asking for a deployment.
//!
//! What always holds: a service, its revision and its deployment come to be in one commit. What is
//! done for it afterwards is the service controller's ([`crate::controllers::Services`]).

use gantry_api::RequestContext;
use gantry_api::ecs::{
    AvailabilityZoneRebalancing, CreateServiceRequest, CreateServiceResponse, EcsError, LaunchType,
    PropagateTags, SchedulingStrategy, Service, SettingName,
};
use gantry_arn::{ClusterName, ServiceName};
use gantry_env::Env;
use gantry_store::{Transaction, Versioned};

use super::account_settings::effective_for_caller;
use super::describe_services::describe;
use super::identity::sha256;
use super::lookup::Rows;
use super::task_definitions::find;
use crate::model::reference::{Scope, TaskDefinitionReference};
use crate::model::refusal::{client, invalid};
use crate::model::service::view::{ServiceStatus, deployments};
use crate::model::service::{request, scheduling as rules};
use crate::model::state_changes::{self, OfService};
use crate::service::EcsService;
use crate::tables::{
    ClientTokenRow, LogDriverMode, RevisionReference, ServiceDeploymentRow, ServiceRevisionRow,
    ServiceRow, Target, TaskDefinitionRow, service_part_name, service_row_name,
};

pub(super) async fn create_service(
    service: &EcsService,
    ctx: &RequestContext,
    input: CreateServiceRequest,
) -> Result<CreateServiceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let name: ServiceName = match input.service_name.as_str() {
        "" => return Err(invalid("Service name can not be blank.")),
        name => name
            .parse()
            .map_err(|_| invalid("Service name contains invalid characters."))?,
    };
    request::validate_create(&input)?;
    let reference = scope.task_definition(input.task_definition.as_deref().unwrap_or_default())?;
    let scheduling = input
        .scheduling_strategy
        .clone()
        .unwrap_or(SchedulingStrategy::Replica);
    let given = input.deployment_configuration.as_ref();
    let configuration = request::configuration(&scheduling, None, given)?;
    let token = input.client_token.clone().filter(|it| !it.is_empty());
    let fingerprint = {
        let request = CreateServiceRequest {
            client_token: None,
            cluster: Some(cluster.to_string()),
            ..input.clone()
        };
        sha256(serde_json::to_vec(&request).unwrap_or_default())
    };
    let token = token.map(|text| format!("CreateService/{cluster}/{}", sha256(text)));
    let drawn = Drawn::new(&service.env);
    let described = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let active = rows.active_cluster(&cluster)?;
            let there = rows.service(&cluster, &name);
            if let Some(answer) =
                answered_before(&rows, there.as_ref(), token.as_deref(), &fingerprint)?
            {
                return Ok((Transaction::new(), answer));
            }
            let launch_type = input.launch_type.clone().unwrap_or(LaunchType::Ec2);
            let definition = runnable(&rows, &reference, &launch_type, &input)?;
            let mode = effective_for_caller(&rows, ctx, &SettingName::DefaultLogDriverMode)?;
            let mut row = ServiceRow {
                name: name.clone(),
                cluster: cluster.clone(),
                incarnation: drawn.incarnation.clone(),
                fingerprint: fingerprint.clone(),
                created_at: ctx.now,
                created_by: ctx.principal.arn.to_string(),
                desired_count: input
                    .desired_count
                    .and_then(|count| u32::try_from(count).ok())
                    .unwrap_or(0),
                scheduling_strategy: scheduling.clone(),
                launch_type,
                configuration: configuration.clone(),
                health_check_grace_period_seconds: input
                    .health_check_grace_period_seconds
                    .and_then(|seconds| u32::try_from(seconds).ok()),
                placement_constraints: input.placement_constraints.clone().unwrap_or_default(),
                placement_strategy: input.placement_strategy.clone().unwrap_or_default(),
                availability_zone_rebalancing: AvailabilityZoneRebalancing::Disabled,
                service_connect: input.service_connect_configuration.clone(),
                propagate_tags: input.propagate_tags.clone().unwrap_or(PropagateTags::None),
                enable_ecs_managed_tags: input.enable_ecs_managed_tags == Some(true),
                tags: input.tags.clone().unwrap_or_default(),
                default_log_driver_mode: match mode.as_str() {
                    "blocking" => LogDriverMode::Blocking,
                    _ => LogDriverMode::NonBlocking,
                },
                target: drawn.target(&reference, &definition, ctx),
                deleted_at: None,
            };
            let asked = input.availability_zone_rebalancing.as_ref();
            row.availability_zone_rebalancing = rules::rebalancing(&row, asked)?;
            let mut transaction = Transaction::new();
            // Neither the cluster may be deleted nor the definition deregistered meanwhile.
            transaction.expect_read(&active).expect_read(&definition);
            let (account, region) = (&scope.account, &scope.region);
            match &there {
                Some(read) => transaction.update::<ServiceRow>(read, &row),
                None => transaction.create::<ServiceRow>(
                    account,
                    region,
                    &service_row_name(&cluster, &name),
                    &row,
                ),
            };
            ask_for_deployment(&rows, &row, &mut transaction);
            tell_wish(&rows, ctx, &drawn, None, &row, &mut transaction);
            if let Some(token) = &token {
                let used = ClientTokenRow {
                    fingerprint: fingerprint.clone(),
                    created_at: ctx.now,
                    cluster: cluster.clone(),
                    container_instance: None,
                    tasks: Vec::new(),
                    failures: Vec::new(),
                };
                // The service that it made may have been deleted since.
                match rows.read::<ClientTokenRow>(token) {
                    Some(before) => transaction.update::<ClientTokenRow>(&before, &used),
                    None => transaction.create::<ClientTokenRow>(account, region, token, &used),
                };
            }
            Ok((transaction, describe(&rows, &row, true)))
        })
        .await?;
    Ok(CreateServiceResponse {
        service: Some(described),
    })
}

/// The same request again gets the service that it made; another one under its name or its token is
/// refused.
fn answered_before(
    rows: &Rows<'_>,
    there: Option<&Versioned<ServiceRow>>,
    token: Option<&str>,
    fingerprint: &str,
) -> Result<Option<Service>, EcsError> {
    let used = token.and_then(|token| rows.read::<ClientTokenRow>(token));
    if used.is_some_and(|used| used.fingerprint != fingerprint) {
        return Err(invalid("Creation of service was not idempotent."));
    }
    let Some(there) = there else {
        return Ok(None);
    };
    let state = rows.service_state(there).map(|state| state.row);
    match ServiceStatus::of(there, state.as_deref()) {
        ServiceStatus::Active if there.fingerprint == fingerprint => {
            Ok(Some(describe(rows, there, true)))
        }
        ServiceStatus::Active => Err(invalid("Creation of service was not idempotent.")),
        ServiceStatus::Draining => {
            Err(invalid("Unable to Start a service that is still Draining."))
        }
        ServiceStatus::Inactive => Ok(None),
    }
}

/// The task definition, if the service can run it.
fn runnable(
    rows: &Rows<'_>,
    reference: &TaskDefinitionReference,
    launch_type: &LaunchType,
    input: &CreateServiceRequest,
) -> Result<Versioned<TaskDefinitionRow>, EcsError> {
    let definition = find(rows, reference).ok_or_else(|| client("TaskDefinition not found."))?;
    let network = input.network_configuration.clone();
    request::validate_with(launch_type, network, &definition.definition)?;
    Ok(definition)
}

/// All that is drawn for one deployment, before the first attempt: every attempt is the same request.
pub(super) struct Drawn {
    pub incarnation: String,
    service_deployment: String,
    revision: String,
    deployment: String,
}

impl Drawn {
    pub fn new(env: &Env) -> Self {
        Self {
            incarnation: hex::encode(env.entropy.bytes16()),
            service_deployment: hex::encode(env.entropy.bytes16()),
            revision: digits(env.entropy.u64()),
            deployment: deployment_id(env.entropy.u64()),
        }
    }

    pub fn target(
        &self,
        reference: &TaskDefinitionReference,
        definition: &TaskDefinitionRow,
        ctx: &RequestContext,
    ) -> Target {
        let revision = definition.definition.revision.unwrap_or_default();
        Target {
            service_deployment: self.service_deployment.clone(),
            deployment: self.deployment.clone(),
            revision: RevisionReference {
                id: self.revision.clone(),
                family: reference.family.clone(),
                task_definition: u32::try_from(revision).unwrap_or_default(),
            },
            at: ctx.now,
        }
    }
}

/// `ecs-svc/` and 19 digits.
pub(crate) fn deployment_id(drawn: u64) -> String {
    format!("ecs-svc/{}", digits(drawn))
}

/// Nineteen digits, of which the first is not 0.
fn digits(drawn: u64) -> String {
    const SMALLEST: u64 = 1_000_000_000_000_000_000;
    (SMALLEST + drawn % (9 * SMALLEST)).to_string()
}

/// Writes what a user asked for into the history.
pub(super) fn tell_wish(
    rows: &Rows<'_>,
    ctx: &RequestContext,
    drawn: &Drawn,
    before: Option<&ServiceRow>,
    after: &ServiceRow,
    transaction: &mut Transaction,
) {
    let of = OfService::of(rows.scope, after, ctx.now);
    let by = ctx.principal.arn.to_string();
    let asked = of.asked(&drawn.incarnation, before, after, &by);
    state_changes::write(
        rows.scope,
        ctx.now,
        asked.into_iter().collect(),
        transaction,
    );
}

/// Writes the revision and the deployment that the service's target names.
pub(super) fn ask_for_deployment(rows: &Rows<'_>, row: &ServiceRow, transaction: &mut Transaction) {
    let (account, region) = (&rows.scope.account, &rows.scope.region);
    let part = |id: &str| service_part_name(&row.cluster, &row.name, id);
    let target = &row.target;
    let revision = ServiceRevisionRow {
        reference: target.revision.clone(),
        service_deployment: target.service_deployment.clone(),
        launch_type: row.launch_type.clone(),
        service_connect: row.service_connect.clone(),
        created_at: target.at,
    };
    transaction.create::<ServiceRevisionRow>(
        account,
        region,
        &part(&target.revision.id),
        &revision,
    );
    let state = rows.service_state(row);
    let running = state
        .map(|state| deployments_taken_up(&state))
        .unwrap_or_default();
    let deployment = ServiceDeploymentRow {
        incarnation: row.incarnation.clone(),
        target: target.clone(),
        sources: running,
        configuration: row.configuration.clone(),
        rollback_requested_at: None,
        answers: Default::default(),
    };
    transaction.create::<ServiceDeploymentRow>(
        account,
        region,
        &part(&target.service_deployment),
        &deployment,
    );
}

fn deployments_taken_up(state: &crate::tables::ServiceStateRow) -> Vec<String> {
    let revisions = state.deployments.iter().map(|it| it.revision.id.clone());
    revisions.collect()
}

/// The revision that the service runs now, or is about to.
pub(super) fn current_revision(rows: &Rows<'_>, row: &ServiceRow) -> RevisionReference {
    let state = rows.service_state(row).map(|state| state.row);
    deployments(row, state.as_deref())
        .into_iter()
        .next()
        .map_or_else(|| row.target.revision.clone(), |primary| primary.revision)
}

/// A service that is there, and neither deleted nor being deleted.
pub(super) fn active_service(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    name: &ServiceName,
) -> Result<Versioned<ServiceRow>, EcsError> {
    let Some(row) = rows.service(cluster, name) else {
        return Err(EcsError::service_not_found_exception("Service not found."));
    };
    if row.deleted_at.is_some() {
        return Err(EcsError::service_not_active_exception(
            "Service was not ACTIVE.",
        ));
    }
    Ok(row)
}
