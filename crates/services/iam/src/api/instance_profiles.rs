//! Instance profiles: the name under which a role is given to an instance. One role each.

use gantry_api::iam::{self, IamError};
use gantry_arn::Arn;
use gantry_store::{Transaction, Versioned};

use super::{Change, View, path_of, roles, tags};
use crate::model::ids::IdKind;
use crate::tables::{InstanceProfileRow, InstanceProfiles, row_name};

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateInstanceProfileRequest,
) -> Result<Change<iam::CreateInstanceProfileResponse>, IamError> {
    let name = &input.instance_profile_name;
    if find(view, name).is_ok() {
        return Err(IamError::entity_already_exists_exception(format!(
            "Instance Profile {name} already exists."
        )));
    }
    let path = path_of(input.path.clone());
    let row = InstanceProfileRow {
        arn: Arn::global("iam", view.account, format!("instance-profile{path}{name}")),
        name: name.clone(),
        path,
        id: view.new_id(IdKind::InstanceProfile),
        created_at: view.now,
        tags: tags::new_tags(input.tags.as_deref().unwrap_or_default())?,
        role: None,
    };
    let mut transaction = Transaction::new();
    transaction.create::<InstanceProfiles>(view.account, &view.region, &row_name(name), &row);
    let output = iam::CreateInstanceProfileResponse {
        instance_profile: shown(view, &row),
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetInstanceProfileRequest,
) -> Result<iam::GetInstanceProfileResponse, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    Ok(iam::GetInstanceProfileResponse {
        instance_profile: shown(view, &profile),
    })
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListInstanceProfilesRequest,
) -> Result<iam::ListInstanceProfilesResponse, IamError> {
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let profiles = all(view, |profile| profile.path.starts_with(prefix));
    let scope = format!("instance-profiles{prefix}");
    let page = view.page(profiles, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListInstanceProfilesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        instance_profiles: page.items,
    })
}

pub(super) fn list_for_role(
    view: &View<'_>,
    input: &iam::ListInstanceProfilesForRoleRequest,
) -> Result<iam::ListInstanceProfilesForRoleResponse, IamError> {
    let role = view.role(&input.role_name)?;
    let profiles = all(view, |profile| profile.role.as_ref() == Some(&role.name));
    let scope = format!("instance-profiles-of/{}", role.id);
    let page = view.page(profiles, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListInstanceProfilesForRoleResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        instance_profiles: page.items,
    })
}

pub(super) fn add_role(
    view: &View<'_>,
    input: &iam::AddRoleToInstanceProfileRequest,
) -> Result<Change<()>, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    let role = view.role(&input.role_name)?;
    if profile.role.is_some() {
        return Err(IamError::limit_exceeded_exception(
            "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1",
        ));
    }
    let mut row = InstanceProfileRow::clone(&profile);
    row.role = Some(role.name.clone());
    let mut transaction = Transaction::new();
    // The role is rewritten as it is, so that deleting it at the same moment conflicts.
    transaction.update::<crate::tables::Roles>(&role, &role.row);
    transaction.update::<InstanceProfiles>(&profile, &row);
    Ok(Change::new(transaction, ()))
}

pub(super) fn remove_role(
    view: &View<'_>,
    input: &iam::RemoveRoleFromInstanceProfileRequest,
) -> Result<Change<()>, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    let role = view.role(&input.role_name)?;
    if profile.role.as_ref() != Some(&role.name) {
        return Err(IamError::no_such_entity_exception(format!(
            "The role with name {} cannot be found in instance profile {}.",
            role.name, profile.name
        )));
    }
    let mut row = InstanceProfileRow::clone(&profile);
    row.role = None;
    let mut transaction = Transaction::new();
    transaction.update::<InstanceProfiles>(&profile, &row);
    Ok(Change::new(transaction, ()))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteInstanceProfileRequest,
) -> Result<Change<()>, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    if profile.role.is_some() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must remove roles from instance profile first.",
        ));
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(&profile);
    transaction.delete(profile.key.clone());
    Ok(Change::new(transaction, ()))
}

/// The profiles that hold a role, for those who show the role whole.
pub(super) fn of_role(view: &View<'_>, role: &str) -> Vec<iam::InstanceProfile> {
    let profiles = all(view, |profile| profile.role.as_deref() == Some(role));
    profiles.into_iter().map(|(_, profile)| profile).collect()
}

pub(super) fn tag(
    view: &View<'_>,
    input: &iam::TagInstanceProfileRequest,
) -> Result<Change<()>, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    let mut row = InstanceProfileRow::clone(&profile);
    tags::add(&mut row.tags, &input.tags)?;
    Ok(write(&profile, &row))
}

pub(super) fn untag(
    view: &View<'_>,
    input: &iam::UntagInstanceProfileRequest,
) -> Result<Change<()>, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    let mut row = InstanceProfileRow::clone(&profile);
    tags::remove(&mut row.tags, &input.tag_keys);
    Ok(write(&profile, &row))
}

pub(super) fn list_tags(
    view: &View<'_>,
    input: &iam::ListInstanceProfileTagsRequest,
) -> Result<iam::ListInstanceProfileTagsResponse, IamError> {
    let profile = find(view, &input.instance_profile_name)?;
    let marker = input.marker.as_deref();
    let page = tags::page(view, &profile.tags, &profile.id, marker, input.max_items)?;
    Ok(iam::ListInstanceProfileTagsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        tags: page.items,
    })
}

fn write(read: &Versioned<InstanceProfileRow>, row: &InstanceProfileRow) -> Change<()> {
    let mut transaction = Transaction::new();
    if *row != *read.row {
        transaction.update::<InstanceProfiles>(read, row);
    }
    Change::new(transaction, ())
}

fn find(view: &View<'_>, name: &str) -> Result<Versioned<InstanceProfileRow>, IamError> {
    view.snapshot
        .read::<InstanceProfiles>(view.account, &view.region, &row_name(name))
        .ok_or_else(|| {
            IamError::no_such_entity_exception(format!("Instance Profile {name} cannot be found."))
        })
}

fn all(
    view: &View<'_>,
    wanted: impl Fn(&InstanceProfileRow) -> bool,
) -> Vec<(String, iam::InstanceProfile)> {
    view.snapshot
        .list::<InstanceProfiles>(view.account, &view.region)
        .iter()
        .filter(|profile| wanted(profile))
        .map(|profile| (profile.name().to_owned(), shown(view, profile)))
        .collect()
}

fn shown(view: &View<'_>, row: &InstanceProfileRow) -> iam::InstanceProfile {
    let role = row.role.as_deref().and_then(|name| view.find_role(name));
    iam::InstanceProfile {
        path: row.path.clone(),
        instance_profile_name: row.name.clone(),
        instance_profile_id: row.id.clone(),
        arn: row.arn.to_string(),
        create_date: row.created_at,
        roles: role
            .map(|role| roles::shown(&role, roles::Detail::Listed))
            .into_iter()
            .collect(),
        tags: Some(tags::shown(&row.tags)),
    }
}
