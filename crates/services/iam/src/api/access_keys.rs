//! Access keys of users: two at most, each good for signatures while it is active.
//!
//! What always holds: a key stands in its user's row and in a row of its own, and both change in one
//! transaction; a key that is inactive or deleted is refused by the next request already, because
//! the server looks keys up in these rows. The root user's key is the installation's and is shown
//! only.

use gantry_api::ApiError;
use gantry_api::iam::{self, IamError, StatusType};
use gantry_store::{Transaction, Versioned};

use super::{Change, View};
use crate::model::ids::{IdKind, secret_access_key};
use crate::tables::{
    AccessKeyRow, AccessKeys, HolderKeys, KeyHolder, LastUses, UserIds, UserRow, Users,
    installation,
};

/// AWS's quota, which cannot be raised there either.
pub(super) const MAX_KEYS: usize = 2;

pub(super) fn create(
    view: &View<'_>,
    input: &iam::CreateAccessKeyRequest,
) -> Result<Change<iam::CreateAccessKeyResponse>, IamError> {
    let user = owner(view, input.user_name.as_deref(), "CreateAccessKey")?;
    if user.access_keys.len() >= MAX_KEYS {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for AccessKeysPerUser: {MAX_KEYS}"
        )));
    }
    let mut random = [0; 40];
    view.env.entropy.fill(&mut random);
    let key = AccessKeyRow {
        holder: KeyHolder::User,
        account: *view.account,
        arn: user.arn.clone(),
        user_id: user.id.clone(),
        secret: secret_access_key(random),
        created_at: view.now,
        inactive: false,
    };
    let access_key_id = view.new_id(IdKind::LongTermAccessKey);
    let mut row = UserRow::clone(&user);
    row.access_keys.insert(access_key_id.clone());
    let (owner, region) = installation();
    let mut transaction = Transaction::new();
    transaction.update::<Users>(&user, &row);
    transaction.create::<AccessKeys>(&owner, &region, &access_key_id, &key);
    let output = iam::CreateAccessKeyResponse {
        access_key: iam::AccessKey {
            user_name: row.name,
            access_key_id,
            status: StatusType::Active,
            secret_access_key: key.secret,
            create_date: Some(key.created_at),
        },
    };
    Ok(Change::new(transaction, output))
}

pub(super) fn list(
    view: &View<'_>,
    input: &iam::ListAccessKeysRequest,
) -> Result<iam::ListAccessKeysResponse, IamError> {
    let (owner, region) = installation();
    let (name, id, key_ids) = match view.user_or_caller(input.user_name.as_deref())? {
        Some(user) => {
            let keys = user.access_keys.iter().cloned().collect();
            (Some(user.name.clone()), user.id.clone(), keys)
        }
        None => {
            let root =
                view.snapshot
                    .read::<HolderKeys>(&owner, &region, KeyHolder::Root.row_name());
            let keys = root.map(|held| held.access_key_id.clone());
            (
                None,
                "root".to_owned(),
                keys.into_iter().collect::<Vec<_>>(),
            )
        }
    };
    let keys = key_ids
        .into_iter()
        .filter_map(|key_id| {
            let key = view.snapshot.read::<AccessKeys>(&owner, &region, &key_id)?;
            let shown = iam::AccessKeyMetadata {
                user_name: name.clone(),
                access_key_id: Some(key_id.clone()),
                status: Some(match key.inactive {
                    true => StatusType::Inactive,
                    false => StatusType::Active,
                }),
                create_date: Some(key.created_at),
            };
            (key.account == *view.account).then_some((key_id, shown))
        })
        .collect();
    let scope = format!("access-keys/{id}");
    let page = view.page(keys, input.marker.as_deref(), input.max_items, &scope)?;
    Ok(iam::ListAccessKeysResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        access_key_metadata: page.items,
    })
}

pub(super) fn update(
    view: &View<'_>,
    input: &iam::UpdateAccessKeyRequest,
) -> Result<Change<()>, IamError> {
    let user = owner(view, input.user_name.as_deref(), "UpdateAccessKey")?;
    let key = key_of(view, &user, &input.access_key_id)?;
    let mut row = AccessKeyRow::clone(&key);
    row.inactive = match &input.status {
        StatusType::Active => false,
        StatusType::Inactive => true,
        other => {
            return Err(IamError::invalid_input_exception(format!(
                "The status of an access key can be set to Active or Inactive, and not to {}.",
                other.as_str()
            )));
        }
    };
    let mut transaction = Transaction::new();
    if row != *key.row {
        transaction.update::<AccessKeys>(&key, &row);
    }
    Ok(Change::new(transaction, ()))
}

pub(super) fn delete(
    view: &View<'_>,
    input: &iam::DeleteAccessKeyRequest,
) -> Result<Change<()>, IamError> {
    let user = owner(view, input.user_name.as_deref(), "DeleteAccessKey")?;
    let key = key_of(view, &user, &input.access_key_id)?;
    let mut row = UserRow::clone(&user);
    row.access_keys.remove(&input.access_key_id);
    let (owner, region) = installation();
    let mut transaction = Transaction::new();
    transaction.update::<Users>(&user, &row);
    transaction.expect_read(&key);
    transaction.delete(key.key.clone());
    transaction.remove::<LastUses>(&owner, &region, &input.access_key_id);
    Ok(Change::new(transaction, ()))
}

pub(super) fn last_used(
    view: &View<'_>,
    input: &iam::GetAccessKeyLastUsedRequest,
) -> Result<iam::GetAccessKeyLastUsedResponse, IamError> {
    let (owner, region) = installation();
    let user = view
        .snapshot
        .read::<AccessKeys>(&owner, &region, &input.access_key_id)
        .filter(|key| key.holder == KeyHolder::User && key.account == *view.account)
        .and_then(|key| {
            view.snapshot
                .read::<UserIds>(view.account, &view.region, &key.user_id)
        })
        .and_then(|id| {
            view.snapshot
                .read::<Users>(view.account, &view.region, &id.row.row)
        })
        .ok_or_else(|| no_such_key(&input.access_key_id))?;
    let used = view
        .snapshot
        .read::<LastUses>(&owner, &region, &input.access_key_id);
    let never = || "N/A".to_owned();
    Ok(iam::GetAccessKeyLastUsedResponse {
        user_name: Some(user.name.clone()),
        access_key_last_used: Some(iam::AccessKeyLastUsed {
            last_used_date: used.as_ref().map(|used| used.at),
            service_name: used
                .as_ref()
                .map_or_else(never, |used| used.service.clone()),
            region: used.as_ref().map_or_else(never, |used| used.region.clone()),
        }),
    })
}

/// The user whose keys a request changes.
fn owner(
    view: &View<'_>,
    name: Option<&str>,
    operation: &str,
) -> Result<Versioned<UserRow>, IamError> {
    view.user_or_caller(name)?
        .ok_or_else(|| ApiError::not_built("iam", &format!("{operation} for the root user")).into())
}

fn key_of(
    view: &View<'_>,
    user: &UserRow,
    access_key_id: &str,
) -> Result<Versioned<AccessKeyRow>, IamError> {
    let (owner, region) = installation();
    view.snapshot
        .read::<AccessKeys>(&owner, &region, access_key_id)
        .filter(|_| user.access_keys.contains(access_key_id))
        .ok_or_else(|| no_such_key(access_key_id))
}

fn no_such_key(access_key_id: &str) -> IamError {
    IamError::no_such_entity_exception(format!(
        "The Access Key with id {access_key_id} cannot be found."
    ))
}
