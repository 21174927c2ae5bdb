//! What nodes report: SubmitTaskStateChange, SubmitContainerStateChange and
//! SubmitAttachmentStateChanges.
//!
//! What always holds: an acknowledgment means that the report is durable. The same report again is
//! acknowledged again and changes nothing; a late one takes nothing back. These operations are the
//! only writers of a task's report row. A STOPPED report releases what the task took of its
//! instance by being there, so the allocation row is not touched.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, SubmitAttachmentStateChangesRequest, SubmitAttachmentStateChangesResponse,
    SubmitContainerStateChangeRequest, SubmitContainerStateChangeResponse,
    SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse,
};
use gantry_store::Transaction;

use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::{client, invalid};
use crate::model::report::{Report, merge};
use crate::service::EcsService;
use crate::tables::{DesiredPhase, TaskDesiredRow, TaskReportRow, TaskRow, task_name};

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
            Ok((transaction, ()))
        })
        .await
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
