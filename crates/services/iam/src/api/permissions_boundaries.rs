//! The managed policy that bounds what a role can be allowed. Stored and counted, not evaluated.

use gantry_api::iam::{self, IamError};
use gantry_store::Transaction;

use super::policies::{self, Found};
use super::{Change, View, roles};
use crate::tables::{Policies, PolicyRow, RoleRow};

pub(super) fn put(
    view: &View<'_>,
    input: &iam::PutRolePermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    let before = row
        .permissions_boundary
        .replace(input.permissions_boundary.clone());
    let mut change = roles::write(&role, &row, ());
    if before != row.permissions_boundary {
        take_into_use(view, &mut change.transaction, &input.permissions_boundary)?;
        if let Some(before) = before {
            give_up(view, &mut change.transaction, &before);
        }
    }
    Ok(change)
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteRolePermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    let before = row.permissions_boundary.take();
    let mut change = roles::write(&role, &row, ());
    if let Some(before) = before {
        give_up(view, &mut change.transaction, &before);
    }
    Ok(change)
}

/// Counts one more role that a policy bounds.
pub(super) fn take_into_use(
    view: &View<'_>,
    transaction: &mut Transaction,
    arn: &str,
) -> Result<(), IamError> {
    let found = policies::find(view, arn).map_err(|_| {
        IamError::no_such_entity_exception(format!(
            "Scope ARN: {arn} does not exist or is not attachable."
        ))
    })?;
    if let Found::Own(policy) = found {
        let mut counted = PolicyRow::clone(&policy);
        counted.boundary_uses += 1;
        transaction.update::<Policies>(&policy, &counted);
    }
    Ok(())
}

/// Counts one role less.
pub(super) fn give_up(view: &View<'_>, transaction: &mut Transaction, arn: &str) {
    if let Some(policy) = policies::find_own(view, arn) {
        let mut counted = PolicyRow::clone(&policy);
        counted.boundary_uses = counted.boundary_uses.saturating_sub(1);
        transaction.update::<Policies>(&policy, &counted);
    }
}
