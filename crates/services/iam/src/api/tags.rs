//! Tags of users, roles, policies and the rest: at most 50, their keys told apart without regard to case.

use std::collections::BTreeMap;

use gantry_api::iam::{self, IamError, Tag};

use super::holder::write;
use super::{Change, Page, View, policies};
use crate::tables::{PolicyRow, RoleRow, UserRow};

const MAX_TAGS: usize = 50;

/// The tags of a new resource.
pub(super) fn new_tags(given: &[Tag]) -> Result<BTreeMap<String, String>, IamError> {
    let mut tags = BTreeMap::new();
    add(&mut tags, given)?;
    Ok(tags)
}

/// Adds tags; one with a key that is there already takes its place.
pub(super) fn add(tags: &mut BTreeMap<String, String>, given: &[Tag]) -> Result<(), IamError> {
    let mut seen = std::collections::BTreeSet::new();
    for tag in given {
        if !seen.insert(tag.key.to_lowercase()) {
            return Err(IamError::invalid_input_exception(
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(IamError::invalid_input_exception(
                "Tag keys starting with aws: are reserved for system use.",
            ));
        }
        tags.retain(|key, _| key.to_lowercase() != tag.key.to_lowercase());
        tags.insert(tag.key.clone(), tag.value.clone());
    }
    if tags.len() > MAX_TAGS {
        return Err(IamError::limit_exceeded_exception(
            "The number of tags has reached the maximum limit.",
        ));
    }
    Ok(())
}

pub(super) fn remove(tags: &mut BTreeMap<String, String>, keys: &[String]) {
    for gone in keys {
        tags.retain(|key, _| key.to_lowercase() != gone.to_lowercase());
    }
}

pub(super) fn shown(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}

/// Tags with a name each for paging: a key may be too long to stand in a marker, its number not.
fn numbered(tags: &BTreeMap<String, String>) -> Vec<(String, Tag)> {
    shown(tags)
        .into_iter()
        .enumerate()
        .map(|(number, tag)| (format!("{number:02}"), tag))
        .collect()
}

/// One page of the tags of `owner`: an id or an ARN.
pub(super) fn page(
    view: &View<'_>,
    tags: &BTreeMap<String, String>,
    owner: &str,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> Result<Page<Tag>, IamError> {
    view.page(numbered(tags), marker, max_items, &format!("tags/{owner}"))
}

pub(super) fn tag_user(
    view: &View<'_>,
    input: &iam::TagUserRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    add(&mut row.tags, &input.tags)?;
    Ok(write(&user, &row, ()))
}

pub(super) fn untag_user(
    view: &View<'_>,
    input: &iam::UntagUserRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    remove(&mut row.tags, &input.tag_keys);
    Ok(write(&user, &row, ()))
}

pub(super) fn list_user_tags(
    view: &View<'_>,
    input: &iam::ListUserTagsRequest,
) -> Result<iam::ListUserTagsResponse, IamError> {
    let user = view.user(&input.user_name)?;
    let marker = input.marker.as_deref();
    let page = page(view, &user.tags, &user.id, marker, input.max_items)?;
    Ok(iam::ListUserTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}

pub(super) fn tag_role(
    view: &View<'_>,
    input: &iam::TagRoleRequest,
) -> Result<Change<()>, IamError> {
    let role = view.role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    add(&mut row.tags, &input.tags)?;
    Ok(write(&role, &row, ()))
}

pub(super) fn untag_role(
    view: &View<'_>,
    input: &iam::UntagRoleRequest,
) -> Result<Change<()>, IamError> {
    let role = view.role(&input.role_name)?;
    let mut row = RoleRow::clone(&role);
    remove(&mut row.tags, &input.tag_keys);
    Ok(write(&role, &row, ()))
}

pub(super) fn list_role_tags(
    view: &View<'_>,
    input: &iam::ListRoleTagsRequest,
) -> Result<iam::ListRoleTagsResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let marker = input.marker.as_deref();
    let page = page(view, &role.tags, &role.id, marker, input.max_items)?;
    Ok(iam::ListRoleTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}

pub(super) fn tag_policy(
    view: &View<'_>,
    input: &iam::TagPolicyRequest,
) -> Result<Change<()>, IamError> {
    let policy = policies::own(view, &input.policy_arn)?;
    let mut row = PolicyRow::clone(&policy);
    add(&mut row.tags, &input.tags)?;
    Ok(policies::write(&policy, &row, ()))
}

pub(super) fn untag_policy(
    view: &View<'_>,
    input: &iam::UntagPolicyRequest,
) -> Result<Change<()>, IamError> {
    let policy = policies::own(view, &input.policy_arn)?;
    let mut row = PolicyRow::clone(&policy);
    remove(&mut row.tags, &input.tag_keys);
    Ok(policies::write(&policy, &row, ()))
}

pub(super) fn list_policy_tags(
    view: &View<'_>,
    input: &iam::ListPolicyTagsRequest,
) -> Result<iam::ListPolicyTagsResponse, IamError> {
    let tags = match policies::find(view, &input.policy_arn)? {
        policies::Found::Own(policy) => policy.tags.clone(),
        policies::Found::Aws(_) => BTreeMap::new(),
    };
    let marker = input.marker.as_deref();
    let page = page(view, &tags, &input.policy_arn, marker, input.max_items)?;
    Ok(iam::ListPolicyTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}
