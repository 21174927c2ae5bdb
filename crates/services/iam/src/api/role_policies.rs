//! What a role may do: managed policies attached to it, and policies embedded in it.

use gantry_api::iam::{self, IamError};

use super::{Change, View, holder};

pub(super) fn attach(
    view: &View<'_>,
    input: &iam::AttachRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    holder::attach(view, &role, &input.policy_arn)
}

pub(super) fn detach(
    view: &View<'_>,
    input: &iam::DetachRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    holder::detach(view, &role, &input.policy_arn)
}

pub(super) fn list_attached(
    view: &View<'_>,
    input: &iam::ListAttachedRolePoliciesRequest,
) -> Result<iam::ListAttachedRolePoliciesResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let page = holder::list_attached(
        view,
        &*role.row,
        input.path_prefix.as_deref(),
        input.marker.as_deref(),
        input.max_items,
    )?;
    Ok(iam::ListAttachedRolePoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        attached_policies: Some(page.items),
    })
}

pub(super) fn put_inline(
    view: &View<'_>,
    input: &iam::PutRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    holder::put_inline(&role, &input.policy_name, &input.policy_document)
}

pub(super) fn get_inline(
    view: &View<'_>,
    input: &iam::GetRolePolicyRequest,
) -> Result<iam::GetRolePolicyResponse, IamError> {
    let role = view.role(&input.role_name)?;
    Ok(iam::GetRolePolicyResponse {
        role_name: role.name.clone(),
        policy_name: input.policy_name.clone(),
        policy_document: holder::get_inline(&*role.row, &input.policy_name)?,
    })
}

pub(super) fn list_inline(
    view: &View<'_>,
    input: &iam::ListRolePoliciesRequest,
) -> Result<iam::ListRolePoliciesResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let page = holder::list_inline(view, &*role.row, input.marker.as_deref(), input.max_items)?;
    Ok(iam::ListRolePoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        policy_names: page.items,
    })
}

pub(super) fn delete_inline(
    view: &View<'_>,
    input: &iam::DeleteRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    holder::delete_inline(&role, &input.policy_name)
}
