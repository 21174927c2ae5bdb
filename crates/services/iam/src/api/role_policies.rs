//! What a role may do: managed policies attached to it, and policies embedded in it.

use gantry_api::iam::{self, IamError};

use super::policies::{self, Found};
use super::{Change, View, policy_not_found, roles};
use crate::model::document::{DocumentKind, counted_len, url_encode, validate};
use crate::model::managed;
use crate::tables::{Policies, PolicyRow, RoleRow, row_name};

/// AWS's default quotas.
const MAX_ATTACHED: usize = 10;
const MAX_INLINE: usize = 10_240;

pub(super) fn attach(
    view: &View<'_>,
    input: &iam::AttachRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let found = policies::find(view, &input.policy_arn).map_err(|_| {
        IamError::no_such_entity_exception(format!(
            "Policy {} does not exist or is not attachable.",
            input.policy_arn
        ))
    })?;
    let mut row = RoleRow::clone(&role);
    if !row.attached.insert(input.policy_arn.clone()) {
        return Ok(roles::write(&role, &row, ()));
    }
    if row.attached.len() > MAX_ATTACHED {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for PoliciesPerRole: {MAX_ATTACHED}"
        )));
    }
    let mut change = roles::write(&role, &row, ());
    if let Found::Own(policy) = found {
        let mut counted = PolicyRow::clone(&policy);
        counted.attachments += 1;
        change.transaction.update::<Policies>(&policy, &counted);
    }
    Ok(change)
}

pub(super) fn detach(
    view: &View<'_>,
    input: &iam::DetachRolePolicyRequest,
) -> Result<Change<()>, IamError> {
    let role = view.changeable_role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    if !row.attached.remove(&input.policy_arn) {
        return Err(policy_not_found(&input.policy_arn));
    }
    let mut change = roles::write(&role, &row, ());
    if let Some(policy) = policies::find_own(view, &input.policy_arn) {
        let mut counted = PolicyRow::clone(&policy);
        counted.attachments = counted.attachments.saturating_sub(1);
        change.transaction.update::<Policies>(&policy, &counted);
    }
    Ok(change)
}

pub(super) fn list_attached(
    view: &View<'_>,
    input: &iam::ListAttachedRolePoliciesRequest,
) -> Result<iam::ListAttachedRolePoliciesResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let mut attached: Vec<_> = role
        .attached
        .iter()
        .filter_map(|arn| {
            let (_, path_and_name) = arn.split_once(":policy")?;
            let (_, name) = path_and_name.rsplit_once('/')?;
            let owner = match managed::find(arn) {
                Some(_) => "aws",
                None => "own",
            };
            let shown = iam::AttachedPolicy {
                policy_name: Some(name.to_owned()),
                policy_arn: Some(arn.clone()),
            };
            path_and_name
                .starts_with(prefix)
                .then(|| (format!("{}/{owner}", row_name(name)), shown))
        })
        .collect();
    attached.sort_by(|(a, _), (b, _)| a.cmp(b));
    let scope = format!("attached/{}{prefix}", role.id);
    let page = view.page(attached, input.marker.as_deref(), input.max_items, &scope)?;
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
    validate(DocumentKind::Inline, &input.policy_document)
        .map_err(|fault| IamError::malformed_policy_document_exception(fault.0))?;
    let mut row = RoleRow::clone(&role);
    row.inline
        .insert(input.policy_name.clone(), input.policy_document.clone());
    let total: usize = row
        .inline
        .values()
        .map(|document| counted_len(document))
        .sum();
    if total > MAX_INLINE {
        return Err(IamError::limit_exceeded_exception(format!(
            "Maximum policy size of {MAX_INLINE} bytes exceeded for role {}",
            role.name
        )));
    }
    Ok(roles::write(&role, &row, ()))
}

pub(super) fn get_inline(
    view: &View<'_>,
    input: &iam::GetRolePolicyRequest,
) -> Result<iam::GetRolePolicyResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let document = role
        .inline
        .get(&input.policy_name)
        .ok_or_else(|| no_such_inline(&input.policy_name))?;
    Ok(iam::GetRolePolicyResponse {
        role_name: role.name.clone(),
        policy_name: input.policy_name.clone(),
        policy_document: url_encode(document),
    })
}

pub(super) fn list_inline(
    view: &View<'_>,
    input: &iam::ListRolePoliciesRequest,
) -> Result<iam::ListRolePoliciesResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let names = role
        .inline
        .keys()
        .map(|name| (name.clone(), name.clone()))
        .collect();
    let scope = format!("inline/{}", role.id);
    let page = view.page(names, input.marker.as_deref(), input.max_items, &scope)?;
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
    let mut row = RoleRow::clone(&role);
    row.inline
        .remove(&input.policy_name)
        .ok_or_else(|| no_such_inline(&input.policy_name))?;
    Ok(roles::write(&role, &row, ()))
}

fn no_such_inline(name: &str) -> IamError {
    IamError::no_such_entity_exception(format!("The role policy with name {name} cannot be found."))
}
