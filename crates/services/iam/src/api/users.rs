//! Users: their names, tags and boundaries, and when they may be deleted.
//!
//! What always holds: a user's id never changes, and its keys, its sessions and its groups know it
//! by that id, so a new name or path takes effect everywhere at once.

use gantry_api::ApiError;
use gantry_api::iam::{self, IamError};
use gantry_arn::{AccountId, Arn};
use gantry_store::{Transaction, Versioned};

use super::holder::{must_hold_no_policies, write};
use super::{Change, View, account, path_of, permissions_boundaries, tags};
use crate::model::ids::IdKind;
use crate::tables::{
    AccessKeys, HolderKeys, KeyHolder, UserIdRow, UserIds, UserRow, Users, installation, row_name,
};

/// AWS's default quota.
pub(super) const MAX_USERS: usize = 5000;

impl View<'_> {
    pub fn find_user(&self, name: &str) -> Option<Versioned<UserRow>> {
        self.snapshot
            .read::<Users>(self.account, &self.region, &row_name(name))
    }

    pub fn user(&self, name: &str) -> Result<Versioned<UserRow>, IamError> {
        self.find_user(name).ok_or_else(|| no_such_user(name))
    }

    /// The user that a request is about: the one it names, or else the caller. `None` is the
    /// account's root user.
    pub fn user_or_caller(
        &self,
        name: Option<&str>,
    ) -> Result<Option<Versioned<UserRow>>, IamError> {
        if let Some(name) = name {
            return self.user(name).map(Some);
        }
        let caller = &self.caller.arn.resource;
        if caller == "root" {
            return Ok(None);
        }
        match caller
            .strip_prefix("user/")
            .and_then(|rest| rest.rsplit('/').next())
        {
            Some(name) => self.user(name).map(Some),
            None => Err(ApiError::sender(
                "ValidationError",
                "Must specify userName when calling with non-User credentials",
            )
            .into()),
        }
    }
}

fn no_such_user(name: &str) -> IamError {
    IamError::no_such_entity_exception(format!("The user with name {name} cannot be found."))
}

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateUserRequest,
) -> Result<Change<iam::CreateUserResponse>, IamError> {
    let tags = tags::new_tags(input.tags.as_deref().unwrap_or_default())?;
    if view.find_user(&input.user_name).is_some() {
        return Err(already_exists(&input.user_name));
    }
    if view
        .snapshot
        .list::<Users>(view.account, &view.region)
        .len()
        >= MAX_USERS
    {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for UsersPerAccount: {MAX_USERS}"
        )));
    }
    let mut transaction = Transaction::new();
    if let Some(boundary) = &input.permissions_boundary {
        permissions_boundaries::take_into_use(view, &mut transaction, boundary)?;
    }
    let path = path_of(input.path.clone());
    let row = UserRow {
        arn: user_arn(view.account, &path, &input.user_name),
        name: input.user_name.clone(),
        path,
        id: view.new_id(IdKind::User),
        created_at: view.now,
        permissions_boundary: input.permissions_boundary.clone(),
        tags,
        attached: Default::default(),
        inline: Default::default(),
        groups: Default::default(),
        access_keys: Default::default(),
    };
    let key = row_name(&row.name);
    let id = UserIdRow { row: key.clone() };
    transaction.create::<Users>(view.account, &view.region, &key, &row);
    transaction.create::<UserIds>(view.account, &view.region, &row.id, &id);
    let user = Some(shown(&row, true));
    Ok(Change::new(transaction, iam::CreateUserResponse { user }))
}

pub(super) fn get(
    view: &View<'_>,
    input: &iam::GetUserRequest,
) -> Result<iam::GetUserResponse, IamError> {
    let user = match view.user_or_caller(input.user_name.as_deref())? {
        Some(user) => shown(&user, true),
        None => root(view),
    };
    Ok(iam::GetUserResponse { user })
}

/// The account's root user, which is no row: it is as old as its key.
fn root(view: &View<'_>) -> iam::User {
    let (owner, region) = installation();
    let key = view
        .snapshot
        .read::<HolderKeys>(&owner, &region, KeyHolder::Root.row_name())
        .and_then(|held| {
            view.snapshot
                .read::<AccessKeys>(&owner, &region, &held.access_key_id)
        });
    let alias = account::settings(view).and_then(|settings| settings.alias.clone());
    iam::User {
        path: "/".to_owned(),
        user_name: alias.unwrap_or_else(|| view.account.to_string()),
        user_id: view.account.to_string(),
        arn: Arn::global("iam", view.account, "root").to_string(),
        create_date: key.map_or(view.now, |key| key.created_at),
        ..Default::default()
    }
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListUsersRequest,
) -> Result<iam::ListUsersResponse, IamError> {
    let prefix = input.path_prefix.as_deref().unwrap_or("/");
    let users = view
        .snapshot
        .list::<Users>(view.account, &view.region)
        .into_iter()
        .filter(|user| user.path.starts_with(prefix))
        .map(|user| (user.name().to_owned(), shown(&user, false)))
        .collect();
    let scope = format!("users{prefix}");
    let page = view.page(users, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListUsersResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        users: page.items,
    })
}

pub(super) fn update(
    view: &View<'_>,
    input: &iam::UpdateUserRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    let mut row = UserRow::clone(&user);
    if let Some(name) = &input.new_user_name {
        row.name.clone_from(name);
    }
    if let Some(path) = &input.new_path {
        row.path.clone_from(path);
    }
    row.arn = user_arn(view.account, &row.path, &row.name);
    let key = row_name(&row.name);
    if key == user.name() {
        return Ok(write(&user, &row, ()));
    }
    if view.find_user(&row.name).is_some() {
        return Err(already_exists(&row.name));
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(&user);
    transaction.delete(user.key.clone());
    transaction.create::<Users>(view.account, &view.region, &key, &row);
    let id = UserIdRow { row: key };
    transaction.write::<UserIds>(view.account, &view.region, &row.id, &id);
    Ok(Change::new(transaction, ()))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteUserRequest,
) -> Result<Change<()>, IamError> {
    let user = view.user(&input.user_name)?;
    if !user.access_keys.is_empty() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must delete access keys first.",
        ));
    }
    if !user.groups.is_empty() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must remove users from group first.",
        ));
    }
    must_hold_no_policies(&*user.row)?;
    let mut transaction = Transaction::new();
    if let Some(boundary) = &user.permissions_boundary {
        permissions_boundaries::give_up(view, &mut transaction, boundary);
    }
    transaction.expect_read(&user);
    transaction.delete(user.key.clone());
    transaction.remove::<UserIds>(view.account, &view.region, &user.id);
    Ok(Change::new(transaction, ()))
}

fn user_arn(account: &AccountId, path: &str, name: &str) -> Arn {
    Arn::global("iam", account, format!("user{path}{name}"))
}

fn already_exists(name: &str) -> IamError {
    IamError::entity_already_exists_exception(format!("User with name {name} already exists."))
}

/// Lists leave out boundary and tags, as at AWS.
pub(super) fn shown(row: &UserRow, with_details: bool) -> iam::User {
    iam::User {
        path: row.path.clone(),
        user_name: row.name.clone(),
        user_id: row.id.clone(),
        arn: row.arn.to_string(),
        create_date: row.created_at,
        password_last_used: None,
        permissions_boundary: row
            .permissions_boundary
            .as_deref()
            .filter(|_| with_details)
            .map(permissions_boundaries::shown),
        tags: (with_details && !row.tags.is_empty()).then(|| tags::shown(&row.tags)),
    }
}
