//! What users, groups and roles have in common: managed policies attached to them, and policies
//! embedded in them.
//!
//! What always holds: both sides of an attachment change in one transaction, so the count of a
//! policy is the number of its holders. Whether a holder may be changed at all is the caller's
//! to ask first.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::iam::{self, IamError};
use gantry_store::{Table, Transaction, Versioned};

use super::policies::{self, Found};
use super::{Change, Page, View, policy_not_found};
use crate::model::document::{DocumentKind, counted_len, url_encode, validate};
use crate::model::managed;
use crate::tables::{
    GroupRow, Groups, Policies, PolicyRow, RoleRow, Roles, UserRow, Users, row_name,
};

/// AWS's default quota of managed policies on one holder.
pub(super) const MAX_ATTACHED: usize = 10;

pub(super) trait Holder: Clone + PartialEq + Send + Sync + 'static {
    type Rows: Table<Row = Self>;
    /// As AWS's messages call it.
    const NOUN: &'static str;
    const ATTACHED_QUOTA: &'static str;
    /// AWS's quota for the length of all embedded policies together.
    const MAX_INLINE: usize;
    fn name(&self) -> &str;
    fn id(&self) -> &str;
    fn attached(&self) -> &BTreeSet<String>;
    fn attached_mut(&mut self) -> &mut BTreeSet<String>;
    fn inline(&self) -> &BTreeMap<String, String>;
    fn inline_mut(&mut self) -> &mut BTreeMap<String, String>;
}

macro_rules! holder {
    ($row:ty, $rows:ty, $noun:literal, $quota:literal, $max_inline:literal) => {
        impl Holder for $row {
            type Rows = $rows;
            const NOUN: &'static str = $noun;
            const ATTACHED_QUOTA: &'static str = $quota;
            const MAX_INLINE: usize = $max_inline;

            fn name(&self) -> &str {
                &self.name
            }

            fn id(&self) -> &str {
                &self.id
            }

            fn attached(&self) -> &BTreeSet<String> {
                &self.attached
            }

            fn attached_mut(&mut self) -> &mut BTreeSet<String> {
                &mut self.attached
            }

            fn inline(&self) -> &BTreeMap<String, String> {
                &self.inline
            }

            fn inline_mut(&mut self) -> &mut BTreeMap<String, String> {
                &mut self.inline
            }
        }
    };
}

holder!(UserRow, Users, "user", "PoliciesPerUser", 2048);
holder!(GroupRow, Groups, "group", "PoliciesPerGroup", 5120);
holder!(RoleRow, Roles, "role", "PoliciesPerRole", 10_240);

/// Writes a holder on top of the one that was read; nothing if nothing changed.
pub(super) fn write<H: Holder, T>(read: &Versioned<H>, row: &H, output: T) -> Change<T> {
    let mut transaction = Transaction::new();
    if *row != *read.row {
        transaction.update::<H::Rows>(read, row);
    }
    Change::new(transaction, output)
}

pub(super) fn attach<H: Holder>(
    view: &View<'_>,
    holder: &Versioned<H>,
    policy_arn: &str,
) -> Result<Change<()>, IamError> {
    let found = policies::find(view, policy_arn).map_err(|_| {
        IamError::no_such_entity_exception(format!(
            "Policy {policy_arn} does not exist or is not attachable."
        ))
    })?;
    let mut row = H::clone(&holder.row);
    if !row.attached_mut().insert(policy_arn.to_owned()) {
        return Ok(write(holder, &row, ()));
    }
    if row.attached().len() > MAX_ATTACHED {
        return Err(IamError::limit_exceeded_exception(format!(
            "Cannot exceed quota for {}: {MAX_ATTACHED}",
            H::ATTACHED_QUOTA
        )));
    }
    let mut change = write(holder, &row, ());
    if let Found::Own(policy) = found {
        let mut counted = PolicyRow::clone(&policy);
        counted.attachments += 1;
        change.transaction.update::<Policies>(&policy, &counted);
    }
    Ok(change)
}

pub(super) fn detach<H: Holder>(
    view: &View<'_>,
    holder: &Versioned<H>,
    policy_arn: &str,
) -> Result<Change<()>, IamError> {
    let mut row = H::clone(&holder.row);
    if !row.attached_mut().remove(policy_arn) {
        return Err(policy_not_found(policy_arn));
    }
    let mut change = write(holder, &row, ());
    if let Some(policy) = policies::find_own(view, policy_arn) {
        let mut counted = PolicyRow::clone(&policy);
        counted.attachments = counted.attachments.saturating_sub(1);
        change.transaction.update::<Policies>(&policy, &counted);
    }
    Ok(change)
}

pub(super) fn list_attached<H: Holder>(
    view: &View<'_>,
    holder: &H,
    path_prefix: Option<&str>,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> Result<Page<iam::AttachedPolicy>, IamError> {
    let prefix = path_prefix.unwrap_or("/");
    let mut attached: Vec<_> = holder
        .attached()
        .iter()
        .filter_map(|arn| {
            let (path, shown) = shown_attached(arn)?;
            let owner = match managed::find(arn) {
                Some(_) => "aws",
                None => "own",
            };
            let name = row_name(shown.policy_name.as_deref()?);
            path.starts_with(prefix)
                .then(|| (format!("{name}/{owner}"), shown))
        })
        .collect();
    attached.sort_by(|(a, _), (b, _)| a.cmp(b));
    let scope = format!("attached/{}{prefix}", holder.id());
    view.page(attached, marker, max_items, &scope)
}

/// Every attached policy, for those who show a holder whole.
pub(super) fn all_attached<H: Holder>(holder: &H) -> Vec<iam::AttachedPolicy> {
    let attached = holder.attached().iter();
    attached
        .filter_map(|arn| shown_attached(arn).map(|(_, shown)| shown))
        .collect()
}

/// The path and the name of a policy, from its ARN.
fn shown_attached(arn: &str) -> Option<(&str, iam::AttachedPolicy)> {
    let (_, path_and_name) = arn.split_once(":policy")?;
    let (_, name) = path_and_name.rsplit_once('/')?;
    let shown = iam::AttachedPolicy {
        policy_name: Some(name.to_owned()),
        policy_arn: Some(arn.to_owned()),
    };
    Some((path_and_name, shown))
}

pub(super) fn put_inline<H: Holder>(
    holder: &Versioned<H>,
    policy_name: &str,
    document: &str,
) -> Result<Change<()>, IamError> {
    validate(DocumentKind::Inline, document)
        .map_err(|fault| IamError::malformed_policy_document_exception(fault.0))?;
    let mut row = H::clone(&holder.row);
    row.inline_mut()
        .insert(policy_name.to_owned(), document.to_owned());
    let total: usize = row
        .inline()
        .values()
        .map(|document| counted_len(document))
        .sum();
    if total > H::MAX_INLINE {
        return Err(IamError::limit_exceeded_exception(format!(
            "Maximum policy size of {} bytes exceeded for {} {}",
            H::MAX_INLINE,
            H::NOUN,
            row.name()
        )));
    }
    Ok(write(holder, &row, ()))
}

/// An embedded policy in the form in which documents are returned.
pub(super) fn get_inline<H: Holder>(holder: &H, policy_name: &str) -> Result<String, IamError> {
    holder
        .inline()
        .get(policy_name)
        .map(|document| url_encode(document))
        .ok_or_else(|| no_such_inline::<H>(policy_name))
}

pub(super) fn list_inline<H: Holder>(
    view: &View<'_>,
    holder: &H,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> Result<Page<String>, IamError> {
    let names = holder
        .inline()
        .keys()
        .map(|name| (name.clone(), name.clone()))
        .collect();
    let scope = format!("inline/{}", holder.id());
    view.page(names, marker, max_items, &scope)
}

pub(super) fn delete_inline<H: Holder>(
    holder: &Versioned<H>,
    policy_name: &str,
) -> Result<Change<()>, IamError> {
    let mut row = H::clone(&holder.row);
    row.inline_mut()
        .remove(policy_name)
        .ok_or_else(|| no_such_inline::<H>(policy_name))?;
    Ok(write(holder, &row, ()))
}

/// Every embedded policy, for those who show a holder whole.
pub(super) fn all_inline<H: Holder>(holder: &H) -> Vec<iam::PolicyDetail> {
    holder
        .inline()
        .iter()
        .map(|(name, document)| iam::PolicyDetail {
            policy_name: Some(name.clone()),
            policy_document: Some(url_encode(document)),
        })
        .collect()
}

/// What must be taken from a holder before it is deleted.
pub(super) fn must_hold_no_policies<H: Holder>(holder: &H) -> Result<(), IamError> {
    if !holder.attached().is_empty() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must detach all policies first.",
        ));
    }
    if !holder.inline().is_empty() {
        return Err(IamError::delete_conflict_exception(
            "Cannot delete entity, must delete policies first.",
        ));
    }
    Ok(())
}

fn no_such_inline<H: Holder>(name: &str) -> IamError {
    IamError::no_such_entity_exception(format!(
        "The {} policy with name {name} cannot be found.",
        H::NOUN
    ))
}
