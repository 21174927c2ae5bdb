//! What a user does about a service deployment that is under way: StopServiceDeployment rolls it back, and
//! ContinueServiceDeployment answers one of its pause hooks.
//!
//! What always holds: both write down what was asked and decide nothing else; the service controller acts on
//! it. An answer is taken only while its hook awaits one, and the same answer again is no error.

use gantry_api::RequestContext;
use gantry_api::ecs::{
    ConflictException, ContinueServiceDeploymentRequest, ContinueServiceDeploymentResponse,
    EcsError, ServiceDeploymentStatus as Status, StopServiceDeploymentRequest,
    StopServiceDeploymentResponse, StopServiceDeploymentStopType,
};
use gantry_store::Transaction;

use super::lookup::Rows;
use super::service_deployments::{Joined, deployment_of};
use crate::model::reference::Scope;
use crate::model::refusal::{invalid, not_built};
use crate::model::service::hooks::{Action, HookStatus};
use crate::service::EcsService;
use crate::tables::ServiceDeploymentRow;

pub(super) async fn stop_service_deployment(
    service: &EcsService,
    ctx: &RequestContext,
    input: StopServiceDeploymentRequest,
) -> Result<StopServiceDeploymentResponse, EcsError> {
    let scope = Scope::of(ctx);
    if input.stop_type == Some(StopServiceDeploymentStopType::Abort) {
        return Err(not_built("stopType ABORT of StopServiceDeployment"));
    }
    let (cluster, name, id) = deployment_of(&scope, &input.service_deployment_arn)?;
    let arn = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(joined) = Joined::read(&rows, &cluster, &name, &id) else {
                return Err(EcsError::service_deployment_not_found_exception(
                    "The service deployment was not found.",
                ));
            };
            let mut transaction = Transaction::new();
            match joined.status() {
                Status::Pending | Status::InProgress => {
                    let mut row = (*joined.row.row).clone();
                    row.rollback_requested_at = Some(ctx.now);
                    transaction.update::<ServiceDeploymentRow>(&joined.row, &row);
                    let what = "its deployment to be stopped and rolled back".to_owned();
                    joined.tell_wish(ctx, what, &mut transaction);
                }
                Status::RollbackRequested | Status::RollbackInProgress => {}
                over => {
                    return Err(EcsError::ConflictException(ConflictException {
                        message: Some(format!(
                            "The service deployment cannot be stopped because its status is {over}."
                        )),
                        resource_ids: Some(vec![joined.arn()]),
                    }));
                }
            }
            Ok((transaction, joined.arn()))
        })
        .await?;
    Ok(StopServiceDeploymentResponse {
        service_deployment_arn: Some(arn),
    })
}

pub(super) async fn continue_service_deployment(
    service: &EcsService,
    ctx: &RequestContext,
    input: ContinueServiceDeploymentRequest,
) -> Result<ContinueServiceDeploymentResponse, EcsError> {
    let scope = Scope::of(ctx);
    let (cluster, name, id) = deployment_of(&scope, &input.service_deployment_arn)?;
    let action = input.action.as_ref().map_or(Action::Continue, Action::of);
    let arn = service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            let Some(joined) = Joined::read(&rows, &cluster, &name, &id) else {
                return Err(EcsError::service_deployment_not_found_exception(
                    "The service deployment was not found.",
                ));
            };
            let mut transaction = Transaction::new();
            if joined.row.answers.get(&input.hook_id) == Some(&action) {
                return Ok((transaction, joined.arn()));
            }
            let status = joined.status();
            if status != Status::InProgress {
                return Err(invalid(format!(
                    "The service deployment cannot be continued because its status is {status}."
                )));
            }
            let course = joined.state.as_ref().and_then(|it| it.course.as_ref());
            let mut hooks = course.iter().flat_map(|course| &course.hooks);
            let Some(hook) = hooks.find(|hook| hook.id == input.hook_id) else {
                return Err(invalid(format!(
                    "The lifecycle hook {} was not found in the service deployment.",
                    input.hook_id
                )));
            };
            let mut hook = joined.hook(hook);
            hook.settle(None, ctx.now);
            if hook.status != HookStatus::AwaitingAction {
                return Err(invalid(format!(
                    "The lifecycle hook {} does not await an action: its status is {}.",
                    hook.id,
                    hook.status.as_str()
                )));
            }
            let mut row = (*joined.row.row).clone();
            let (answer, stage) = (action.as_str(), hook.stage);
            let what = format!("{answer}, at the pause hook {} in {stage}", hook.id);
            joined.tell_wish(ctx, what, &mut transaction);
            row.answers.insert(hook.id, action);
            transaction.update::<ServiceDeploymentRow>(&joined.row, &row);
            // The hook may be settled by its time at this moment.
            if let Some(state) = &joined.state {
                transaction.expect_read(state);
            }
            Ok((transaction, joined.arn()))
        })
        .await?;
    Ok(ContinueServiceDeploymentResponse {
        service_deployment_arn: Some(arn),
    })
}
