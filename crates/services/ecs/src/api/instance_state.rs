//! The life of a container instance after its registration: Deregister, UpdateState, and where its
//! agent finds its sockets.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DeregisterContainerInstanceRequest, DeregisterContainerInstanceResponse,
    DiscoverPollEndpointRequest, DiscoverPollEndpointResponse, EcsError, Failure,
    UpdateContainerAgentRequest, UpdateContainerAgentResponse,
    UpdateContainerInstancesStateRequest, UpdateContainerInstancesStateResponse,
};
use gantry_store::Transaction;

use super::container_instances::{describe, missing};
use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::{client, invalid};
use crate::service::EcsService;
use crate::tables::{ContainerInstanceRow, ContainerInstanceStatus};

const UPDATED_AT_ONCE_MAX: usize = 10;

pub(super) async fn deregister_container_instance(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeregisterContainerInstanceRequest,
) -> Result<DeregisterContainerInstanceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let id = scope.container_instance(&cluster, &input.container_instance)?;
    let instance = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let Some(read) = rows.container_instance(&cluster, &id) else {
                return Err(invalid("The referenced container instance was not found."));
            };
            let mut transaction = Transaction::new();
            if read.status == ContainerInstanceStatus::Inactive {
                return Ok((transaction, describe(&rows, &read, true)));
            }
            let allocation = rows.allocation(&cluster, &id);
            if input.force != Some(true) && !allocation.tasks.is_empty() {
                return Err(invalid("Found running tasks on the instance."));
            }
            // A placement that commits meanwhile changes the allocation, and this is decided anew.
            if let Some(allocated) = &allocation.row {
                transaction.expect_read(allocated);
            }
            let mut row = (*read.row).clone();
            row.status = ContainerInstanceStatus::Inactive;
            row.deregistered_at = Some(ctx.now);
            row.version += 1;
            transaction.update::<ContainerInstanceRow>(&read, &row);
            Ok((transaction, describe(&rows, &row, true)))
        })
        .await?;
    Ok(DeregisterContainerInstanceResponse {
        container_instance: Some(instance),
    })
}

pub(super) async fn update_container_instances_state(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateContainerInstancesStateRequest,
) -> Result<UpdateContainerInstancesStateResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let status = match input.status.as_str() {
        "ACTIVE" => ContainerInstanceStatus::Active,
        "DRAINING" => ContainerInstanceStatus::Draining,
        other => {
            return Err(invalid(format!(
                "Container instance status should be one of [ACTIVE, DRAINING], not {other}."
            )));
        }
    };
    if input.container_instances.is_empty() {
        return Err(invalid("Container instances cannot be empty."));
    }
    if input.container_instances.len() > UPDATED_AT_ONCE_MAX {
        return Err(invalid(format!(
            "Container instances cannot have more than {UPDATED_AT_ONCE_MAX} elements."
        )));
    }
    let (instances, failures) = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let mut transaction = Transaction::new();
            let (mut instances, mut failures) = (Vec::new(), Vec::new());
            for text in &input.container_instances {
                let id = scope.container_instance(&cluster, text)?;
                match rows.container_instance(&cluster, &id) {
                    None => failures.push(missing(&scope, &cluster, &id)),
                    Some(read) if read.status == ContainerInstanceStatus::Inactive => {
                        failures.push(Failure {
                            arn: Some(scope.container_instance_arn(&cluster, &id)),
                            reason: Some("INACTIVE".to_owned()),
                            detail: None,
                        });
                    }
                    Some(read) => {
                        let mut row = (*read.row).clone();
                        if row.status != status {
                            row.status = status;
                            row.version += 1;
                            transaction.update::<ContainerInstanceRow>(&read, &row);
                        }
                        instances.push(describe(&rows, &row, true));
                    }
                }
            }
            Ok((transaction, (instances, failures)))
        })
        .await?;
    Ok(UpdateContainerInstancesStateResponse {
        container_instances: Some(instances),
        failures: Some(failures),
    })
}

/// No agent is updated from here: Gantry's own is part of its binary, and the Amazon ECS agent is
/// whatever the machine's owner installed. AWS answers the same two ways: an agent that does not say
/// its version cannot be updated, and for every other one there is no update.
pub(super) async fn update_container_agent(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateContainerAgentRequest,
) -> Result<UpdateContainerAgentResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let id = scope.container_instance(&cluster, &input.container_instance)?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let instance = rows
        .container_instance(&cluster, &id)
        .filter(|row| row.status != ContainerInstanceStatus::Inactive)
        .ok_or_else(|| invalid("The referenced container instance was not found."))?;
    let version = instance.version_info.as_ref();
    let said = |text: Option<&String>| text.is_some_and(|text| !text.is_empty());
    // The Amazon ECS agent names the Docker that it runs on; a custom agent has none to name.
    let known = version.is_some_and(|version| {
        said(version.agent_version.as_ref()) && said(version.docker_version.as_ref())
    });
    if !known {
        return Err(EcsError::missing_version_exception(
            "Amazon ECS is unable to determine the current version of the Amazon ECS container agent on the container instance and does not have enough information to proceed with an update. This could be because the agent running on the container instance is a previous or custom version that does not use our version information.",
        ));
    }
    Err(EcsError::no_update_available_exception(
        "There is no update available for this Amazon ECS container agent. This could be because the agent is already running the latest version or because it is so far behind that there is no update path to the current version.",
    ))
}

/// The agent appends `/ws` to both endpoints, and speaks WebSocket wherever it reads HTTP.
pub(super) async fn discover_poll_endpoint(
    service: &EcsService,
    ctx: &RequestContext,
    input: DiscoverPollEndpointRequest,
) -> Result<DiscoverPollEndpointResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if let Some(instance) = input
        .container_instance
        .as_deref()
        .filter(|text| !text.is_empty())
    {
        scope.container_instance(&cluster, instance)?;
    }
    let base = match (&service.options.poll_endpoint, &ctx.host) {
        (Some(configured), _) => configured.trim_end_matches('/').to_owned(),
        (None, Some(host)) => format!("http://{host}"),
        (None, None) => return Err(client("The request names no host to come back to.")),
    };
    Ok(DiscoverPollEndpointResponse {
        endpoint: Some(format!("{base}/acs")),
        telemetry_endpoint: Some(format!("{base}/tcs")),
        ..DiscoverPollEndpointResponse::default()
    })
}
