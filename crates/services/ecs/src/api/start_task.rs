//! StartTask: a task on each of the container instances that the caller names.
//!
//! What always holds: nothing is chosen here, so placement constraints and strategies play no part;
//! but a task that does not fit on its instance, or lacks an attribute there, is a failure.

use gantry_api::RequestContext;
use gantry_api::ecs::{EcsError, LaunchType, RunTaskRequest, StartTaskRequest, StartTaskResponse};
use gantry_arn::{ClusterName, ContainerInstanceId};

use super::lookup::Rows;
use super::new_tasks::{NewTasks, draw_ids};
use super::placements::{failures, keep_rejection};
use super::placing::Choice;
use crate::model::attributes::EXTERNAL;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::run_request;
use crate::service::EcsService;

const INSTANCES_MAX: usize = 10;

pub(super) async fn start_task(
    service: &EcsService,
    ctx: &RequestContext,
    input: StartTaskRequest,
) -> Result<StartTaskResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input.container_instances.is_empty() {
        return Err(invalid("Container instances cannot be empty."));
    }
    if input.container_instances.len() > INSTANCES_MAX {
        return Err(invalid(format!(
            "Container instances cannot have more than {INSTANCES_MAX} elements."
        )));
    }
    let instances: Vec<ContainerInstanceId> = input
        .container_instances
        .iter()
        .map(|text| scope.container_instance(&cluster, text))
        .collect::<Result<_, _>>()?;
    let mut input = as_run(input);
    input.launch_type = Some(launch_type(service, &scope, &cluster, &instances)?);
    run_request::validate(&input)?;
    let new = NewTasks {
        service,
        ctx,
        scope: &scope,
        cluster: &cluster,
        reference: scope.task_definition(&input.task_definition)?,
        ids: draw_ids(service, instances.len()),
        client_token: None,
        input: &input,
    };
    let outcome = new
        .create(
            |_| Ok(Choice::These(&instances)),
            |_| Ok(None),
            |ground, outcome, transaction| {
                if outcome.plan.unplaced > 0 {
                    keep_rejection(&new, ground, &outcome.plan, transaction);
                }
            },
        )
        .await?;
    Ok(StartTaskResponse {
        failures: Some(failures(&scope, &cluster, &outcome.plan)),
        tasks: Some(outcome.tasks),
    })
}

/// All that StartTask has, RunTask has as well.
fn as_run(input: StartTaskRequest) -> RunTaskRequest {
    let StartTaskRequest {
        cluster,
        container_instances: _,
        enable_ecs_managed_tags,
        enable_execute_command,
        group,
        network_configuration,
        overrides,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        task_definition,
        volume_configurations,
    } = input;
    RunTaskRequest {
        cluster,
        enable_ecs_managed_tags,
        enable_execute_command,
        group,
        network_configuration,
        overrides,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        task_definition,
        volume_configurations,
        ..RunTaskRequest::default()
    }
}

/// The launch type is the instances'. Those that are not there are failures later.
fn launch_type(
    service: &EcsService,
    scope: &Scope,
    cluster: &ClusterName,
    instances: &[ContainerInstanceId],
) -> Result<LaunchType, EcsError> {
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, scope);
    let registered = instances
        .iter()
        .filter_map(|id| rows.container_instance(cluster, id));
    let external: Vec<bool> = registered
        .map(|row| row.attributes.iter().any(|a| a.name == EXTERNAL))
        .collect();
    if external.iter().any(|it| *it) && !external.iter().all(|it| *it) {
        return Err(invalid(
            "The container instances are of different launch types: start tasks on EC2 and on EXTERNAL instances one after the other.",
        ));
    }
    Ok(match external.first() {
        Some(true) => LaunchType::External,
        _ => LaunchType::Ec2,
    })
}
