//! Deleting a service-linked role: a task that has an outcome, which is remembered for a day.
//!
//! What always holds: the roles that Gantry itself works as are never deleted; the task says so.

use gantry_api::iam::{self, DeletionTaskStatusType, IamError};
use gantry_store::Transaction;
use std::time::Duration;

use super::{Change, View};
use crate::service_linked;
use crate::tables::{RoleDeletionRow, RoleDeletions};

/// How long the outcome can be asked for.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteServiceLinkedRoleRequest,
) -> Result<Change<iam::DeleteServiceLinkedRoleResponse>, IamError> {
    let role = view.role(&input.role_name)?;
    let Some(service) = &role.linked_to else {
        return Err(IamError::invalid_input_exception(format!(
            "The role {} is not a service-linked role.",
            role.name
        )));
    };
    let mut random = [0; 16];
    view.env.entropy.fill(&mut random);
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    );
    let task = format!("task/aws-service-role/{service}/{}/{uuid}", role.name);
    let refused = service_linked::is_from_the_start(service)
        .then(|| "Gantry works as this role, so it stays.".to_owned());
    let mut transaction = Transaction::new();
    for past in view
        .snapshot
        .list::<RoleDeletions>(view.account, &view.region)
        .iter()
        .filter(|past| past.at + REMEMBERED <= view.now)
    {
        transaction.delete(past.key.clone());
    }
    if refused.is_none() {
        transaction.expect_read(&role);
        transaction.delete(role.key.clone());
    }
    let row = RoleDeletionRow {
        at: view.now,
        refused,
    };
    transaction.create::<RoleDeletions>(view.account, &view.region, &task, &row);
    let output = iam::DeleteServiceLinkedRoleResponse {
        deletion_task_id: task,
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn status(
    view: &View<'_>,
    input: &iam::GetServiceLinkedRoleDeletionStatusRequest,
) -> Result<iam::GetServiceLinkedRoleDeletionStatusResponse, IamError> {
    let task = view
        .snapshot
        .read::<RoleDeletions>(view.account, &view.region, &input.deletion_task_id)
        .ok_or_else(|| {
            IamError::no_such_entity_exception(format!(
                "The deletion task {} cannot be found.",
                input.deletion_task_id
            ))
        })?;
    Ok(iam::GetServiceLinkedRoleDeletionStatusResponse {
        status: match task.refused {
            None => DeletionTaskStatusType::Succeeded,
            Some(_) => DeletionTaskStatusType::Failed,
        },
        reason: task
            .refused
            .clone()
            .map(|reason| iam::DeletionTaskFailureReasonType {
                reason: Some(reason),
                role_usage_list: None,
            }),
    })
}
