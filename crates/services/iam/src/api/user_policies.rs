//! What a user may do: managed policies attached to it, and policies embedded in it.

use gantry_api::iam::{self, IamError};

use super::{Change, View, holder};

pub(super) fn attach(
    view: &View<'_>,
    input: &iam::AttachUserPolicyRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    holder::attach(view, &user, &input.policy_arn)
}

pub(super) fn detach(
    view: &View<'_>,
    input: &iam::DetachUserPolicyRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    holder::detach(view, &user, &input.policy_arn)
}

pub(super) fn list_attached(
    view: &View<'_>,
    input: &iam::ListAttachedUserPoliciesRequest,
) -> Result<iam::ListAttachedUserPoliciesResponse, IamError> {
    let user = view.user(&input.user_name)?;
    let page = holder::list_attached(
        view,
        &*user.row,
        input.path_prefix.as_deref(),
        input.marker.as_deref(),
        input.max_items,
    )?;
    Ok(iam::ListAttachedUserPoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        attached_policies: Some(page.items),
    })
}

pub(super) fn put_inline(
    view: &View<'_>,
    input: &iam::PutUserPolicyRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    holder::put_inline(&user, &input.policy_name, &input.policy_document)
}

pub(super) fn get_inline(
    view: &View<'_>,
    input: &iam::GetUserPolicyRequest,
) -> Result<iam::GetUserPolicyResponse, IamError> {
    let user = view.user(&input.user_name)?;
    Ok(iam::GetUserPolicyResponse {
        user_name: user.name.clone(),
        policy_name: input.policy_name.clone(),
        policy_document: holder::get_inline(&*user.row, &input.policy_name)?,
    })
}

pub(super) fn list_inline(
    view: &View<'_>,
    input: &iam::ListUserPoliciesRequest,
) -> Result<iam::ListUserPoliciesResponse, IamError> {
    let user = view.user(&input.user_name)?;
    let page = holder::list_inline(view, &*user.row, input.marker.as_deref(), input.max_items)?;
    Ok(iam::ListUserPoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        policy_names: page.items,
    })
}

pub(super) fn delete_inline(
    view: &View<'_>,
    input: &iam::DeleteUserPolicyRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    holder::delete_inline(&user, &input.policy_name)
}
