//! StopTask: decides that a task shall end. Its node does the rest.

use gantry_api::RequestContext;
use gantry_api::ecs::{EcsError, StopTaskRequest, StopTaskResponse};
use gantry_store::Transaction;

use super::describe_tasks::{describe, task_event};
use super::lookup::Rows;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::state_changes;
use crate::service::EcsService;
use crate::tables::{DesiredPhase, StopCode, TaskDesiredRow, TaskReportRow, TaskRow, task_name};

const REASON_LENGTH_MAX: usize = 1024;

pub(super) async fn stop_task(
    service: &EcsService,
    ctx: &RequestContext,
    input: StopTaskRequest,
) -> Result<StopTaskResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(input.cluster.as_deref())?;
    if input
        .reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > REASON_LENGTH_MAX)
    {
        return Err(invalid(format!(
            "reason must have at most {REASON_LENGTH_MAX} characters."
        )));
    }
    let reason = input.reason.filter(|reason| !reason.is_empty());
    let task = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let id = scope.task(&cluster, &input.task)?;
            let name = task_name(&cluster, &id);
            let Some(spec) = rows.read::<TaskRow>(&name) else {
                return Err(invalid("The referenced task was not found."));
            };
            let mut state = rows.task_of(spec.row.clone(), &name);
            let mut transaction = Transaction::new();
            // What already ends, for whatever reason, keeps that reason.
            if state.stop().is_none() && !state.last_status().is_stopped() {
                let desired = TaskDesiredRow {
                    phase: DesiredPhase::Stopped,
                    stop_code: StopCode::UserInitiated,
                    stopped_reason: Some(
                        reason
                            .clone()
                            .unwrap_or_else(|| "Task stopped by user".to_owned()),
                    ),
                    since: ctx.now,
                    given_up_at: None,
                };
                let (account, region) = (&scope.account, &scope.region);
                transaction.expect_read(&spec);
                match rows.read::<TaskReportRow>(&name) {
                    Some(report) => transaction.expect_read(&report),
                    None => transaction.expect_absent::<TaskReportRow>(account, region, &name),
                };
                transaction.create::<TaskDesiredRow>(account, region, &name, &desired);
                let before = state.clone();
                state.desired = Some(desired.into());
                let told = task_event(&rows, Some(&before), &state, ctx.now);
                state_changes::write(
                    &scope,
                    ctx.now,
                    told.into_iter().collect(),
                    &mut transaction,
                );
                let mut task = describe(&rows, &state, true);
                // The answer shows the task as the stop found it, with the stop decided.
                task.last_status = Some(before.last_status().as_str().to_owned());
                return Ok((transaction, task));
            }
            Ok((transaction, describe(&rows, &state, true)))
        })
        .await?;
    Ok(StopTaskResponse { task: Some(task) })
}
