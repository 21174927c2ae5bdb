//! Roles and their trust policies.

use gantry_api::iam::{self, IamError};
use gantry_arn::Arn;
use gantry_store::Transaction;

use super::holder::{must_hold_no_policies, write};
use super::{Change, View, path_of, permissions_boundaries, tags};
use crate::model::document::{DocumentKind, counted_len, url_encode, validate};
use crate::model::ids::IdKind;
use crate::service_linked;
use crate::tables::{InstanceProfiles, RoleRow, Roles, row_name};

/// AWS's default quota for the length of a trust policy.
const MAX_TRUST_POLICY: usize = 2048;
const DEFAULT_SESSION_S: i32 = 3600;
/// Paths under which only services make roles.
const RESERVED_PATH: &str = "/aws-service-role/";

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateRoleRequest,
) -> Result<Change<iam::CreateRoleResponse>, IamError> {
    let path = path_of(input.path.clone());
    if path.starts_with(RESERVED_PATH) {
        return Err(IamError::invalid_input_exception(format!(
            "Path {path} is reserved for service-linked roles."
        )));
    }
    check_trust_policy(&input.assume_role_policy_document)?;
    let tags = tags::new_tags(input.tags.as_deref().unwrap_or_default())?;
    if let Some(taken) = view.find_role(&input.role_name) {
        return Err(already_exists(&taken.name));
    }
    let mut transaction = Transaction::new();
    if let Some(boundary) = &input.permissions_boundary {
        permissions_boundaries::take_into_use(view, &mut transaction, boundary)?;
    }
    let row = RoleRow {
        arn: Arn::global(
            "iam",
            view.account,
            format!("role{path}{}", input.role_name),
        ),
        name: input.role_name.clone(),
        path,
        id: view.new_id(IdKind::Role),
        created_at: view.now,
        trust_policy: input.assume_role_policy_document.clone(),
        description: input.description.clone().filter(|text| !text.is_empty()),
        max_session_duration_s: input.max_session_duration.unwrap_or(DEFAULT_SESSION_S),
        permissions_boundary: input.permissions_boundary.clone(),
        tags,
        attached: Default::default(),
        inline: Default::default(),
        linked_to: None,
    };
    transaction.create::<Roles>(view.account, &view.region, &row_name(&row.name), &row);
    let role = shown(&row, Detail::Full);
    Ok(Change::new(transaction, iam::CreateRoleResponse { role }))
}

pub(super) fn create_service_linked(
    view: &View<'_>,
    input: &iam::CreateServiceLinkedRoleRequest,
) -> Result<Change<iam::CreateServiceLinkedRoleResponse>, IamError> {
    let Some(linked) = service_linked::find(&input.aws_service_name) else {
        return Err(IamError::invalid_input_exception(format!(
            "Gantry does not know the service-linked role of {}.",
            input.aws_service_name
        )));
    };
    let row = linked.row(
        view.account,
        input.custom_suffix.as_deref(),
        input.description.clone().filter(|text| !text.is_empty()),
        view.env,
    );
    if view.find_role(&row.name).is_some() {
        return Err(IamError::invalid_input_exception(format!(
            "Service role name {} has been taken in this account, please try a different suffix.",
            row.name
        )));
    }
    let mut transaction = Transaction::new();
    transaction.create::<Roles>(view.account, &view.region, &row_name(&row.name), &row);
    let output = iam::CreateServiceLinkedRoleResponse {
        role: Some(shown(&row, Detail::Full)),
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetRoleRequest,
) -> Result<iam::GetRoleResponse, IamError> {
    let role = view.role(&input.role_name)?;
    Ok(iam::GetRoleResponse {
        role: shown(&role, Detail::Full),
    })
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListRolesRequest,
) -> Result<iam::ListRolesResponse, IamError> {
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let roles = view
        .snapshot
        .list::<Roles>(view.account, &view.region)
        .into_iter()
        .filter(|role| role.path.starts_with(prefix))
        .map(|role| (role.name().to_owned(), shown(&role, Detail::Listed)))
        .collect();
    let scope = format!("roles{prefix}");
    let page = view.page(roles, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListRolesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        roles: page.items,
    })
}

pub(super) fn update(
    view: &View<'_>,
    input: &iam::UpdateRoleRequest,
) -> Result<Change<iam::UpdateRoleResponse>, IamError> {
    // How long its sessions are is the service's own business, and what the role says of itself is not.
    let role = match input.max_session_duration {
        Some(_) => view.changeable_role(&input.role_name)?,
        None => view.role(&input.role_name)?,
    };
    let mut row = RoleRow::clone(&role);
    if let Some(description) = &input.description {
        row.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    if let Some(duration) = input.max_session_duration {
        row.max_session_duration_s = duration;
    }
    Ok(write(&role, &row, iam::UpdateRoleResponse::default()))
}

pub(super) fn update_description(
    view: &View<'_>,
    input: &iam::UpdateRoleDescriptionRequest,
) -> Result<Change<iam::UpdateRoleDescriptionResponse>, IamError> {
    let role = view.role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    row.description = Some(input.description.clone()).filter(|text| !text.is_empty());
    let output = iam::UpdateRoleDescriptionResponse {
        role: Some(shown(&row, Detail::Full)),
    };
    Ok(write(&role, &row, output))
}

pub(super) fn update_trust_policy(
    view: &View<'_>,
    input: &iam::UpdateAssumeRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    check_trust_policy(&input.policy_document)?;
    let mut row = RoleRow::clone(&role);
    row.trust_policy = input.policy_document.clone();
    Ok(write(&role, &row, ()))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteRoleRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut transaction = Transaction::new();
    let profiles = view
        .snapshot
        .list::<InstanceProfiles>(view.account, &view.region);
    if profiles
        .iter()
        .any(|profile| profile.role.as_deref() == Some(role.name.as_str()))
    {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    must_hold_no_policies(&*role.row)?;
    if let Some(boundary) = &role.permissions_boundary {
        permissions_boundaries::give_up(view, &mut transaction, boundary);
    }
    transaction.expect_read(&role);
    transaction.delete(role.key.clone());
    Ok(Change::new(transaction, ()))
}

fn already_exists(name: &str) -> IamError {
    IamError::entity_already_exists_exception(format!("Role with name {name} already exists."))
}

fn check_trust_policy(document: &str) -> Result<(), IamError> {
    validate(DocumentKind::Trust, document)
        .map_err(|fault| IamError::malformed_policy_document_exception(fault.0))?;
    if counted_len(document) > MAX_TRUST_POLICY {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for ACLSizePerRole: {MAX_TRUST_POLICY}"
        )));
    }
    Ok(())
}

/// How much of a role is shown: lists leave out tags, boundary and last use, as at AWS.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Full,
    Listed,
}

pub(super) fn shown(row: &RoleRow, detail: Detail) -> iam::Role {
    let full = detail == Detail::Full;
    iam::Role {
        path: row.path.clone(),
        role_name: row.name.clone(),
        role_id: row.id.clone(),
        arn: row.arn.to_string(),
        create_date: row.created_at,
        assume_role_policy_document: Some(url_encode(&row.trust_policy)),
        description: row.description.clone(),
        max_session_duration: Some(row.max_session_duration_s),
        permissions_boundary: row
            .permissions_boundary
            .as_deref()
            .filter(|_| full)
            .map(permissions_boundaries::shown),
        tags: (full && !row.tags.is_empty()).then(|| tags::shown(&row.tags)),
        role_last_used: full.then(iam::RoleLastUsed::default),
        ..Default::default()
    }
}
