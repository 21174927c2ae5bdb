//! What nodes report: SubmitTaskStateChange, SubmitContainerStateChange and
//! SubmitAttachmentStateChanges.
//!
//! What always holds: an acknowledgment means that the report is durable. The same report again is
//! acknowledged again and changes nothing; a late one takes nothing back. These operations are the
//! only writers of a task's report row. A STOPPED report releases what the task took of its
//! instance by being there, so the allocation row is not touched. Host ports that the node chose become part of
//! what the task holds there, in the commit that reports them: no placement is made beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, SubmitAttachmentStateChangesRequest, SubmitAttachmentStateChangesResponse,
    SubmitContainerStateChangeRequest, SubmitContainerStateChangeResponse,
    SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse,
};
use gantry_arn::ClusterName;
use gantry_store::Transaction;

use super::describe_tasks::task_event;
use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::{client, invalid};
use crate::model::report::{Report, host_ports, merge};
use crate::model::state_changes;
use crate::model::task_view::TaskState;
use crate::service::EcsService;
use crate::tables::{
    AllocationRow, DesiredPhase, TaskDesiredRow, TaskReportRow, TaskRow, container_instance_name,
    task_name,
};

const ACKNOWLEDGMENT: &str = "ACK";

pub(super) async fn submit_task_state_change(
    service: &EcsService,
    ctx: &RequestContext,
    mut input: SubmitTaskStateChangeRequest,
) -> Result<SubmitTaskStateChangeResponse, EcsError> {
    let (cluster, task) = (input.cluster.take(), input.task.take());
    let report = Report::of_task(input)?;
    submit(service, ctx, cluster, task, &report).await?;
    Ok(SubmitTaskStateChangeResponse {
        acknowledgment: Some(ACKNOWLEDGMENT.to_owned()),
    })
}

pub(super) async fn submit_container_state_change(
    service: &EcsService,
    ctx: &RequestContext,
    mut input: SubmitContainerStateChangeRequest,
) -> Result<SubmitContainerStateChangeResponse, EcsError> {
    let (cluster, task) = (input.cluster.take(), input.task.take());
    let report = Report::of_container(input)?;
    submit(service, ctx, cluster, task, &report).await?;
    Ok(SubmitContainerStateChangeResponse {
        acknowledgment: Some(ACKNOWLEDGMENT.to_owned()),
    })
}

async fn submit(
    service: &EcsService,
    ctx: &RequestContext,
    cluster: Option<String>,
    task: Option<String>,
    report: &Report,
) -> Result<(), EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(cluster.as_deref())?;
    let task = scope.task(&cluster, &task.unwrap_or_default())?;
    let name = task_name(&cluster, &task);
    service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(spec) = rows.read::<TaskRow>(&name) else {
                return Err(invalid("The referenced task was not found."));
            };
            let Some(definition) = rows.task_definition(&spec.family, spec.row.revision) else {
                return Err(client("TaskDefinition not found."));
            };
            let desired = rows.read::<TaskDesiredRow>(&name);
            let before = rows.read::<TaskReportRow>(&name);
            let stop_decided = desired
                .as_ref()
                .is_some_and(|row| row.phase == DesiredPhase::Stopped);
            let after = merge(
                before.as_ref().map(|row| &*row.row),
                report,
                &definition.definition,
                stop_decided,
                ctx.now,
            );
            let mut transaction = Transaction::new();
            let Some(after) = after else {
                return Ok((transaction, ()));
            };
            let (account, region) = (&scope.account, &scope.region);
            // The task must still be there, and nobody may decide a stop at the same moment: a
            // task ends for one reason.
            transaction.expect_read(&spec);
            match &desired {
                Some(desired) => transaction.expect_read(desired),
                None => transaction.expect_absent::<TaskDesiredRow>(account, region, &name),
            };
            match &before {
                Some(before) => transaction.update::<TaskReportRow>(before, &after),
                None => transaction.create::<TaskReportRow>(account, region, &name, &after),
            };
            let was = TaskState {
                spec: spec.row.clone(),
                desired: desired.as_ref().map(|row| row.row.clone()),
                report: before.as_ref().map(|row| row.row.clone()),
                health: None,
            };
            let is = TaskState {
                report: Some(Arc::new(after.clone())),
                ..was.clone()
            };
            let told = task_event(&rows, Some(&was), &is, ctx.now);
            state_changes::write(
                &scope,
                ctx.now,
                told.into_iter().collect(),
                &mut transaction,
            );
            if !after.status.is_stopped() {
                hold_bound_ports(&rows, &cluster, &spec.row, &after, &mut transaction);
            }
            Ok((transaction, ()))
        })
        .await
}

/// Adds the host ports that the node chose to the task's share of its instance.
fn hold_bound_ports(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    task: &TaskRow,
    report: &TaskReportRow,
    transaction: &mut Transaction,
) {
    let bound = |protocol: &str, named: &[u16]| -> Vec<u16> {
        let containers = report.containers.iter();
        let ports = containers.flat_map(|container| host_ports(container, protocol));
        let ports: BTreeSet<u16> = ports.filter(|port| !named.contains(port)).collect();
        ports.into_iter().collect()
    };
    let (tcp, udp) = (
        bound("tcp", &task.reserved.tcp_ports),
        bound("udp", &task.reserved.udp_ports),
    );
    let name = container_instance_name(cluster, &task.container_instance);
    let Some(row) = rows.read::<AllocationRow>(&name) else {
        return;
    };
    let mut allocation = (*row.row).clone();
    let Some(share) = allocation.tasks.get_mut(&task.id) else {
        return;
    };
    if (&share.bound_tcp_ports, &share.bound_udp_ports) != (&tcp, &udp) {
        share.bound_tcp_ports = tcp;
        share.bound_udp_ports = udp;
        transaction.update::<AllocationRow>(&row, &allocation);
    }
}

/// Attachments belong to awsvpc and EBS volumes, which are refused when a task is run: an agent can
/// have none to report. An empty report is acknowledged, as the protocol wants.
pub(super) async fn submit_attachment_state_changes(
    _service: &EcsService,
    ctx: &RequestContext,
    input: SubmitAttachmentStateChangesRequest,
) -> Result<SubmitAttachmentStateChangesResponse, EcsError> {
    Scope::of(ctx).cluster(input.cluster.as_deref())?;
    if let Some(attachment) = input.attachments.first() {
        return Err(invalid(format!(
            "The referenced attachment {} was not found.",
            attachment.attachment_arn
        )));
    }
    Ok(SubmitAttachmentStateChangesResponse {
        acknowledgment: Some(ACKNOWLEDGMENT.to_owned()),
    })
}
