//! The managed policy that bounds what a user or a role can be allowed. Stored and counted, not evaluated.

use gantry_api::iam::{self, IamError};
use gantry_store::{Transaction, Versioned};

use super::holder::{self, Holder};
use super::policies::{self, Found};
use super::{Change, View};
use crate::tables::{Policies, PolicyRow, RoleRow, UserRow};

pub(super) fn put(
    view: &View<'_>,
    input: &iam::PutRolePermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    let boundary = Some(input.permissions_boundary.clone());
    let before = std::mem::replace(&mut row.permissions_boundary, boundary);
    write(
        view,
        &role,
        &row,
        before,
        row.permissions_boundary.as_deref(),
    )
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteRolePermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    let before = row.permissions_boundary.take();
    write(view, &role, &row, before, None)
}

pub(super) fn put_of_user(
    view: &View<'_>,
    input: &iam::PutUserPermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    let boundary = Some(input.permissions_boundary.clone());
    let before = std::mem::replace(&mut row.permissions_boundary, boundary);
    write(
        view,
        &user,
        &row,
        before,
        row.permissions_boundary.as_deref(),
    )
}

pub(super) fn delete_of_user(
    view: &View<'_>,
    input: &iam::DeleteUserPermissionsBoundaryRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    let before = row.permissions_boundary.take();
    write(view, &user, &row, before, None)
}

fn write<H: Holder>(
    view: &View<'_>,
    read: &Versioned<H>,
    row: &H,
    before: Option<String>,
    after: Option<&str>,
) -> Result<Change<()>, IamError> {
    let mut change = holder::write(read, row, ());
    if before.as_deref() != after {
        if let Some(after) = after {
            take_into_use(view, &mut change.transaction, after)?;
        }
        if let Some(before) = &before {
            give_up(view, &mut change.transaction, before);
        }
    }
    Ok(change)
}

pub(super) fn shown(arn: &str) -> iam::AttachedPermissionsBoundary {
    iam::AttachedPermissionsBoundary {
        permissions_boundary_type: Some("PermissionsBoundaryPolicy".into()),
        permissions_boundary_arn: Some(arn.to_owned()),
    }
}

/// Counts one more user or role that a policy bounds.
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

/// Counts one less.
pub(super) fn give_up(view: &View<'_>, transaction: &mut Transaction, arn: &str) {
    if let Some(policy) = policies::find_own(view, arn) {
        let mut counted = PolicyRow::clone(&policy);
        counted.boundary_uses = counted.boundary_uses.saturating_sub(1);
        transaction.update::<Policies>(&policy, &counted);
    }
}
