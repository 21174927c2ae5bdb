//! Groups and who is in them.
//!
//! What always holds: membership stands in the user's row, by the group's id, and every change of it
//! conflicts with a change of the group; so a group that has members is not deleted beside a user that
//! joins it.

use gantry_api::iam::{self, IamError};
use gantry_arn::{AccountId, Arn};
use gantry_store::{Transaction, Versioned};

use super::holder::{must_hold_no_policies, write};
use super::{Change, View, path_of, users};
use crate::model::ids::IdKind;
use crate::tables::{GroupRow, Groups, UserRow, Users, row_name};

/// AWS's default quotas.
pub(super) const MAX_GROUPS: usize = 300;
pub(super) const MAX_GROUPS_OF_USER: usize = 10;

impl View<'_> {
    pub fn find_group(&self, name: &str) -> Option<Versioned<GroupRow>> {
        self.snapshot
            .read::<Groups>(self.account, &self.region, &row_name(name))
    }

    pub fn group(&self, name: &str) -> Result<Versioned<GroupRow>, IamError> {
        self.find_group(name).ok_or_else(|| {
            IamError::no_such_entity_exception(format!(
                "The group with name {name} cannot be found."
            ))
        })
    }
}

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateGroupRequest,
) -> Result<Change<iam::CreateGroupResponse>, IamError> {
    if view.find_group(&input.group_name).is_some() {
        return Err(already_exists(&input.group_name));
    }
    if view
        .snapshot
        .list::<Groups>(view.account, &view.region)
        .len()
        >= MAX_GROUPS
    {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for GroupsPerAccount: {MAX_GROUPS}"
        )));
    }
    let path = path_of(input.path.clone());
    let row = GroupRow {
        arn: group_arn(view.account, &path, &input.group_name),
        name: input.group_name.clone(),
        path,
        id: view.new_id(IdKind::Group),
        created_at: view.now,
        attached: Default::default(),
        inline: Default::default(),
    };
    let mut transaction = Transaction::new();
    transaction.create::<Groups>(view.account, &view.region, &row_name(&row.name), &row);
    let group = shown(&row);
    Ok(Change::new(transaction, iam::CreateGroupResponse { group }))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetGroupRequest,
) -> Result<iam::GetGroupResponse, IamError> {
    let group = view.group(&input.group_name)?;
    let members = members(view, &group)
        .map(|user| (user.name().to_owned(), users::shown(&user, false)))
        .collect();
    let scope = format!("members/{}", group.id);
    let page = view.page(members, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::GetGroupResponse {
        group: shown(&group),
        is_truncated: page.is_truncated(),
        marker: page.marker,
        users: page.items,
    })
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListGroupsRequest,
) -> Result<iam::ListGroupsResponse, IamError> {
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let groups = all(view, |group| group.path.starts_with(prefix));
    let scope = format!("groups{prefix}");
    let page = view.page(groups, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListGroupsResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        groups: page.items,
    })
}

pub(super) fn list_for_user(
    view: &View<'_>,
    input: &iam::ListGroupsForUserRequest,
) -> Result<iam::ListGroupsForUserResponse, IamError> {
    let user = view.user(&input.user_name)?;
    let groups = all(view, |group| user.groups.contains(&group.id));
    let scope = format!("groups-of/{}", user.id);
    let page = view.page(groups, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListGroupsForUserResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        groups: page.items,
    })
}

pub(super) fn update(
    view: &View<'_>,
    input: &iam::UpdateGroupRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    let mut row = GroupRow::clone(&group);
    if let Some(name) = &input.new_group_name {
        row.name.clone_from(name);
    }
    if let Some(path) = &input.new_path {
        row.path.clone_from(path);
    }
    row.arn = group_arn(view.account, &row.path, &row.name);
    let key = row_name(&row.name);
    if key == group.name() {
        return Ok(write(&group, &row, ()));
    }
    if view.find_group(&row.name).is_some() {
        return Err(already_exists(&row.name));
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(&group);
    transaction.delete(group.key.clone());
    transaction.create::<Groups>(view.account, &view.region, &key, &row);
    Ok(Change::new(transaction, ()))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteGroupRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    if members(view, &group).next().is_some() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must remove users from group first.",
        ));
    }
    must_hold_no_policies(&*group.row)?;
    let mut transaction = Transaction::new();
    transaction.expect_read(&group);
    transaction.delete(group.key.clone());
    Ok(Change::new(transaction, ()))
}

pub(super) fn add_user(
    view: &View<'_>,
    input: &iam::AddUserToGroupRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    if !row.groups.insert(group.id.clone()) {
        return Ok(Change::new(Transaction::new(), ()));
    }
    if row.groups.len() > MAX_GROUPS_OF_USER {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for GroupsPerUser: {MAX_GROUPS_OF_USER}"
        )));
    }
    Ok(membership(&group, &user, &row))
}

pub(super) fn remove_user(
    view: &View<'_>,
    input: &iam::RemoveUserFromGroupRequest,
) -> Result<Change<()>, IamError> {
    let group = view.group(&input.group_name)?;
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    if !row.groups.remove(&group.id) {
        return Err(IamError::no_such_entity_exception(format!(
            "User {} not in group {}",
            user.name, group.name
        )));
    }
    Ok(membership(&group, &user, &row))
}

/// The group is rewritten as it is, so that deleting it at the same moment conflicts.
fn membership(group: &Versioned<GroupRow>, user: &Versioned<UserRow>, row: &UserRow) -> Change<()> {
    let mut transaction = Transaction::new();
    transaction.update::<Groups>(group, &group.row);
    transaction.update::<Users>(user, row);
    Change::new(transaction, ())
}

fn members(view: &View<'_>, group: &GroupRow) -> impl Iterator<Item = Versioned<UserRow>> {
    let users = view.snapshot.list::<Users>(view.account, &view.region);
    users
        .into_iter()
        .filter(|user| user.groups.contains(&group.id))
}

fn all(view: &View<'_>, wanted: impl Fn(&GroupRow) -> bool) -> Vec<(String, iam::Group)> {
    view.snapshot
        .list::<Groups>(view.account, &view.region)
        .iter()
        .filter(|group| wanted(group))
        .map(|group| (group.name().to_owned(), shown(group)))
        .collect()
}

fn group_arn(account: &AccountId, path: &str, name: &str) -> Arn {
    Arn::global("iam", account, format!("group{path}{name}"))
}

fn already_exists(name: &str) -> IamError {
    IamError::entity_already_exists_exception(format!("Group with name {name} already exists."))
}

fn shown(row: &GroupRow) -> iam::Group {
    iam::Group {
        path: row.path.clone(),
        group_name: row.name.clone(),
        group_id: row.id.clone(),
        arn: row.arn.to_string(),
        create_date: row.created_at,
    }
}
