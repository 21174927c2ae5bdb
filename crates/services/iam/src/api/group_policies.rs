//! What the members of a group may do: managed policies attached to it, and policies embedded in it.

use gantry_api::iam::{self, IamError};

use super::{Change, View, holder};

pub(super) fn attach(
    view: &View<'_>,
    input: &iam::AttachGroupPolicyRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    holder::attach(view, &group, &input.policy_arn)
}

pub(super) fn detach(
    view: &View<'_>,
    input: &iam::DetachGroupPolicyRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    holder::detach(view, &group, &input.policy_arn)
}

pub(super) fn list_attached(
    view: &View<'_>,
    input: &iam::ListAttachedGroupPoliciesRequest,
) -> Result<iam::ListAttachedGroupPoliciesResponse, IamError> {
    let group = view.group(&input.group_name)?;
    let page = holder::list_attached(
        view,
        &*group.row,
        input.path_prefix.as_deref(),
        input.marker.as_deref(),
        input.max_items,
    )?;
    Ok(iam::ListAttachedGroupPoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        attached_policies: Some(page.items),
    })
}

pub(super) fn put_inline(
    view: &View<'_>,
    input: &iam::PutGroupPolicyRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    holder::put_inline(&group, &input.policy_name, &input.policy_document)
}

pub(super) fn get_inline(
    view: &View<'_>,
    input: &iam::GetGroupPolicyRequest,
) -> Result<iam::GetGroupPolicyResponse, IamError> {
    let group = view.group(&input.group_name)?;
    Ok(iam::GetGroupPolicyResponse {
        group_name: group.name.clone(),
        policy_name: input.policy_name.clone(),
        policy_document: holder::get_inline(&*group.row, &input.policy_name)?,
    })
}

pub(super) fn list_inline(
    view: &View<'_>,
    input: &iam::ListGroupPoliciesRequest,
) -> Result<iam::ListGroupPoliciesResponse, IamError> {
    let group = view.group(&input.group_name)?;
    let page = holder::list_inline(view, &*group.row, input.marker.as_deref(), input.max_items)?;
    Ok(iam::ListGroupPoliciesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        policy_names: page.items,
    })
}

pub(super) fn delete_inline(
    view: &View<'_>,
    input: &iam::DeleteGroupPolicyRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    holder::delete_inline(&group, &input.policy_name)
}
