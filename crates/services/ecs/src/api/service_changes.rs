//! UpdateService and DeleteService.
//!
//! What always holds: an update that changes what tasks are, or that forces it, asks for a deployment,
//! and one that does not changes the service alone. An update during a deployment, or during a
//! rollback, has one outcome: the newest deployment that was asked for is the one that is carried out,
//! and all tasks of others leave.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    DeleteServiceRequest, DeleteServiceResponse, EcsError, SchedulingStrategy,
    UpdateServiceRequest, UpdateServiceResponse,
};
use gantry_store::Transaction;

use super::describe_services::describe;
use super::lookup::Rows;
use super::services::{Drawn, active_service, ask_for_deployment, current_revision, tell_wish};
use super::task_definitions::find;
use crate::model::reference::{Scope, TaskDefinitionReference};
use crate::model::refusal::{client, invalid};
use crate::model::service::{request, scheduling};
use crate::service::EcsService;
use crate::tables::{RevisionReference, ServiceRow};

pub(super) async fn update_service(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateServiceRequest,
) -> Result<UpdateServiceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let name = scope.service(&cluster, &input.service)?;
    request::validate_update(&input)?;
    let asked = input.task_definition.as_deref();
    let asked = asked.map(|text| scope.task_definition(text)).transpose()?;
    let drawn = Drawn::new(&service.env);
    let described = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let read = active_service(&rows, &cluster, &name)?;
            let mut row = (*read.row).clone();
            change(&mut row, &input)?;
            let mut transaction = Transaction::new();
            let current = current_revision(&rows, &row);
            let reference = asked.clone().unwrap_or_else(|| same(&current));
            let definition =
                find(&rows, &reference).ok_or_else(|| client("TaskDefinition not found."))?;
            let is_new = definition.definition.revision
                != i32::try_from(current.task_definition).ok()
                || reference.family != current.family;
            if asked.is_some() {
                let network = input.network_configuration.clone();
                request::validate_with(&row.launch_type, network, &definition.definition)?;
                transaction.expect_read(&definition);
            } else if input.network_configuration.is_some() {
                request::validate_with(
                    &row.launch_type,
                    input.network_configuration.clone(),
                    &definition.definition,
                )?;
            }
            if is_new || input.force_new_deployment == Some(true) {
                row.target = drawn.target(&reference, &definition, ctx);
                ask_for_deployment(&rows, &row, &mut transaction);
            }
            if row != *read.row {
                transaction.update::<ServiceRow>(&read, &row);
                tell_wish(&rows, ctx, &drawn, Some(&read), &row, &mut transaction);
            }
            Ok((transaction, describe(&rows, &row, true)))
        })
        .await?;
    Ok(UpdateServiceResponse {
        service: Some(described),
    })
}

fn same(current: &RevisionReference) -> TaskDefinitionReference {
    TaskDefinitionReference {
        family: current.family.clone(),
        revision: Some(current.task_definition),
    }
}

/// What a request says, and nothing else, is changed.
fn change(row: &mut ServiceRow, input: &UpdateServiceRequest) -> Result<(), EcsError> {
    if row.scheduling_strategy == SchedulingStrategy::Daemon {
        scheduling::validate_daemon(input.desired_count, input.placement_strategy.as_deref())?;
    }
    if let Some(count) = input.desired_count {
        row.desired_count = u32::try_from(count).unwrap_or(0);
    }
    let given = input.deployment_configuration.as_ref();
    let before = Some(&row.configuration);
    row.configuration = request::configuration(&row.scheduling_strategy, before, given)?;
    if let Some(seconds) = input.health_check_grace_period_seconds {
        row.health_check_grace_period_seconds = u32::try_from(seconds).ok();
    }
    if let Some(constraints) = &input.placement_constraints {
        row.placement_constraints.clone_from(constraints);
    }
    if let Some(strategy) = &input.placement_strategy {
        row.placement_strategy = scheduling::placement_strategy(strategy);
    }
    if input.service_connect_configuration.is_some() {
        let kept = &mut row.service_connect;
        kept.clone_from(&input.service_connect_configuration);
    }
    if let Some(propagate) = &input.propagate_tags {
        row.propagate_tags = propagate.clone();
    }
    if let Some(managed) = input.enable_ecs_managed_tags {
        row.enable_ecs_managed_tags = managed;
    }
    // What was there stays, unless something else that is changed rules it out.
    let asked = input.availability_zone_rebalancing.as_ref();
    let asked = asked.unwrap_or(&row.availability_zone_rebalancing);
    row.availability_zone_rebalancing = scheduling::rebalancing(row, Some(asked))?;
    Ok(())
}

pub(super) async fn delete_service(
    service: &EcsService,
    ctx: &RequestContext,
    input: DeleteServiceRequest,
) -> Result<DeleteServiceResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    let name = scope.service(&cluster, &input.service)?;
    let drawn = Drawn::new(&service.env);
    let described = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let Some(read) = rows.service(&cluster, &name) else {
                return Err(EcsError::service_not_found_exception("Service not found."));
            };
            let mut row = (*read.row).clone();
            let mut transaction = Transaction::new();
            if row.deleted_at.is_none() {
                let is_scaled_up =
                    row.scheduling_strategy == SchedulingStrategy::Replica && row.desired_count > 0;
                if is_scaled_up && input.force != Some(true) {
                    return Err(invalid(
                        "The service cannot be stopped while it is scaled above 0.",
                    ));
                }
                row.deleted_at = Some(ctx.now);
                transaction.update::<ServiceRow>(&read, &row);
                tell_wish(&rows, ctx, &drawn, Some(&read), &row, &mut transaction);
            }
            Ok((transaction, describe(&rows, &row, true)))
        })
        .await?;
    Ok(DeleteServiceResponse {
        service: Some(described),
    })
}
