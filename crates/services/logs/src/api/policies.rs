//! Resource policies and account policies: documents that are kept and given back.
//!
//! Only those policies of an account are kept that ask for nothing beyond being kept: an index of
//! fields makes queries cheaper and changes no answer. One that would hide data, move it or expire it is
//! refused by name, because nothing here would do so.

use gantry_api::ApiError;
use gantry_api::logs::{self, LogsError};
use gantry_store::{Transaction, Versioned};

use super::{LogsService, View, bad_token, invalid};
use crate::page_token;
use crate::tables::{
    AccountPolicies, AccountPolicyRow, ResourcePolicies, ResourcePolicyRow, SEPARATOR,
};

const DEFAULT_PAGE: i32 = 50;
/// The most of one account and region, with AWS's value.
const MAX_RESOURCE_POLICIES: usize = 10;
const MAX_ACCOUNT_DOCUMENT_CHARS: usize = 30_720;

/// A policy's row: of the account by its name, of a resource by the resource.
fn row_name(resource: Option<&str>, name: &str) -> String {
    match resource {
        Some(resource) => format!("resource{SEPARATOR}{resource}"),
        None => format!("account{SEPARATOR}{name}"),
    }
}

fn check_document(document: &str) -> Result<(), LogsError> {
    let is_policy = serde_json::from_str::<serde_json::Value>(document)
        .is_ok_and(|value| value.get("Statement").is_some());
    match is_policy {
        true => Ok(()),
        false => Err(invalid("The policy document is not a policy in JSON.")),
    }
}

pub(super) fn put_resource(
    view: &View<'_>,
    input: &logs::PutResourcePolicyRequest,
) -> Result<(Transaction, logs::PutResourcePolicyResponse), LogsError> {
    let resource = input.resource_arn.as_deref();
    let name = match (&input.policy_name, resource) {
        (Some(name), None) => name.clone(),
        (None, Some(_)) => String::new(),
        (Some(_), Some(_)) => {
            return Err(invalid(
                "policyName and resourceArn are mutually exclusive parameters.",
            ));
        }
        (None, None) => {
            return Err(invalid(
                "Either a policyName or a resourceArn must be given.",
            ));
        }
    };
    if let Some(resource) = resource {
        view.group_by_arn(resource)?;
    }
    let document = input
        .policy_document
        .clone()
        .ok_or_else(|| invalid("A policyDocument must be given."))?;
    check_document(&document)?;
    let key = row_name(resource, &name);
    let existing = view
        .snapshot
        .read::<ResourcePolicies>(view.account, view.region, &key);
    check_revision(existing.as_ref(), input.expected_revision_id.as_deref())?;
    let row = ResourcePolicyRow {
        name,
        document,
        updated_at: view.now,
        resource_arn: resource.map(str::to_owned),
        revision: existing
            .as_ref()
            .map_or(1, |existing| existing.row.revision + 1),
    };
    let mut transaction = Transaction::new();
    match &existing {
        Some(existing) => transaction.update::<ResourcePolicies>(existing, &row),
        None => {
            let all =
                view.snapshot
                    .list_prefix::<ResourcePolicies>(view.account, view.region, "account");
            if resource.is_none() && all.len() >= MAX_RESOURCE_POLICIES {
                return Err(LogsError::limit_exceeded_exception(
                    "Resource limit exceeded.",
                ));
            }
            transaction.create::<ResourcePolicies>(view.account, view.region, &key, &row)
        }
    };
    let answer = logs::PutResourcePolicyResponse {
        revision_id: Some(row.revision.to_string()),
        resource_policy: Some(shown(&row)),
    };
    Ok((transaction, answer))
}

/// A caller that says which revision it changes must have seen the last one.
fn check_revision(
    existing: Option<&Versioned<ResourcePolicyRow>>,
    expected: Option<&str>,
) -> Result<(), LogsError> {
    let found = existing.map(|existing| existing.row.revision.to_string());
    match expected {
        Some(expected) if found.as_deref() != Some(expected) => {
            Err(LogsError::operation_aborted_exception(
                "The policy has changed since the revision that expectedRevisionId names.",
            ))
        }
        _ => Ok(()),
    }
}

pub(super) fn delete_resource(
    view: &View<'_>,
    input: &logs::DeleteResourcePolicyRequest,
) -> Result<(Transaction, ()), LogsError> {
    let name = input.policy_name.as_deref().unwrap_or_default();
    let key = row_name(input.resource_arn.as_deref(), name);
    let row = view
        .snapshot
        .read::<ResourcePolicies>(view.account, view.region, &key)
        .ok_or_else(|| {
            LogsError::resource_not_found_exception(format!(
                "Policy with name [{name}] does not exist."
            ))
        })?;
    check_revision(Some(&row), input.expected_revision_id.as_deref())?;
    let mut transaction = Transaction::new();
    transaction.expect_read(&row);
    transaction.delete(row.key.clone());
    Ok((transaction, ()))
}

fn shown(row: &ResourcePolicyRow) -> logs::ResourcePolicy {
    let scope = match row.resource_arn {
        Some(_) => logs::PolicyScope::Resource,
        None => logs::PolicyScope::Account,
    };
    logs::ResourcePolicy {
        policy_name: Some(row.name.clone()).filter(|name| !name.is_empty()),
        policy_document: Some(row.document.clone()),
        last_updated_time: Some(row.updated_at.as_millis()),
        policy_scope: Some(scope),
        resource_arn: row.resource_arn.clone(),
        revision_id: Some(row.revision.to_string()),
    }
}

impl LogsService {
    pub(super) fn describe_resource_policies(
        &self,
        view: &View<'_>,
        input: &logs::DescribeResourcePoliciesRequest,
    ) -> Result<logs::DescribeResourcePoliciesResponse, LogsError> {
        let scope_name = match &input.policy_scope {
            Some(logs::PolicyScope::Resource) => "resource",
            _ => "account",
        };
        let wanted = input.resource_arn.as_deref();
        let prefix = match wanted {
            Some(resource) => row_name(Some(resource), ""),
            None => scope_name.to_owned(),
        };
        let scope = format!(
            "resource-policies/{}/{}/{prefix}",
            view.account, view.region
        );
        let key = self.store.incarnation();
        let after: Option<String> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let limit = usize::try_from(input.limit.unwrap_or(DEFAULT_PAGE)).unwrap_or(1);
        let mut rest = view
            .snapshot
            .list_prefix::<ResourcePolicies>(view.account, view.region, &prefix)
            .into_iter()
            .filter(|row| wanted.is_none_or(|_| row.name() == prefix))
            .filter(|row| after.as_deref().is_none_or(|after| row.name() > after));
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let next_token = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => Some(page_token::seal(&key, &scope, &last.name())),
            _ => None,
        };
        Ok(logs::DescribeResourcePoliciesResponse {
            resource_policies: Some(page.iter().map(|row| shown(row)).collect()),
            next_token,
        })
    }
}

pub(super) fn put_account(
    view: &View<'_>,
    input: &logs::PutAccountPolicyRequest,
) -> Result<(Transaction, logs::PutAccountPolicyResponse), LogsError> {
    if input.policy_type != logs::PolicyType::FieldIndexPolicy {
        let what = format!(
            "PutAccountPolicy with policyType {}",
            input.policy_type.as_str()
        );
        return Err(ApiError::not_built("logs", &what).into());
    }
    let is_json = serde_json::from_str::<serde_json::Value>(&input.policy_document)
        .is_ok_and(|value| value.get("Fields").is_some_and(serde_json::Value::is_array));
    if !is_json || input.policy_document.chars().count() > MAX_ACCOUNT_DOCUMENT_CHARS {
        return Err(invalid(
            "The policy document is not one of a field index policy: {\"Fields\": [...]}.",
        ));
    }
    if input.dry_run == Some(true) {
        return Err(invalid("dryRun is not built in Gantry yet."));
    }
    let kind = input.policy_type.as_str();
    let key = format!("{kind}{SEPARATOR}{}", input.policy_name);
    let row = AccountPolicyRow {
        name: input.policy_name.clone(),
        kind: kind.to_owned(),
        document: input.policy_document.clone(),
        selection_criteria: input.selection_criteria.clone(),
        updated_at: view.now,
    };
    let mut transaction = Transaction::new();
    match view
        .snapshot
        .read::<AccountPolicies>(view.account, view.region, &key)
    {
        Some(existing) => transaction.update::<AccountPolicies>(&existing, &row),
        None => transaction.create::<AccountPolicies>(view.account, view.region, &key, &row),
    };
    let answer = logs::PutAccountPolicyResponse {
        account_policy: Some(shown_of_account(view, &row)),
        ..Default::default()
    };
    Ok((transaction, answer))
}

pub(super) fn delete_account(
    view: &View<'_>,
    input: &logs::DeleteAccountPolicyRequest,
) -> Result<(Transaction, logs::DeleteAccountPolicyResponse), LogsError> {
    if input.dry_run == Some(true) {
        return Err(invalid("dryRun is not built in Gantry yet."));
    }
    let key = format!(
        "{}{SEPARATOR}{}",
        input.policy_type.as_str(),
        input.policy_name
    );
    let row = view
        .snapshot
        .read::<AccountPolicies>(view.account, view.region, &key)
        .ok_or_else(|| {
            LogsError::resource_not_found_exception("The specified account policy does not exist.")
        })?;
    let mut transaction = Transaction::new();
    transaction.expect_read(&row);
    transaction.delete(row.key.clone());
    Ok((transaction, logs::DeleteAccountPolicyResponse::default()))
}

pub(super) fn describe_account(
    view: &View<'_>,
    input: &logs::DescribeAccountPoliciesRequest,
) -> Result<logs::DescribeAccountPoliciesResponse, LogsError> {
    let others = input.account_identifiers.iter().flatten();
    if others
        .into_iter()
        .any(|account| account != view.account.as_str())
    {
        return Err(invalid(
            "accountIdentifiers: accounts that are linked are not built in Gantry yet.",
        ));
    }
    if input.next_token.is_some() {
        return Err(bad_token());
    }
    let prefix = format!("{}{SEPARATOR}", input.policy_type.as_str());
    let found = view
        .snapshot
        .list_prefix::<AccountPolicies>(view.account, view.region, &prefix)
        .into_iter()
        .filter(|row| {
            input
                .policy_name
                .as_ref()
                .is_none_or(|name| row.row.name == *name)
        })
        .map(|row| shown_of_account(view, &row))
        .collect();
    Ok(logs::DescribeAccountPoliciesResponse {
        account_policies: Some(found),
        next_token: None,
    })
}

fn shown_of_account(view: &View<'_>, row: &AccountPolicyRow) -> logs::AccountPolicy {
    logs::AccountPolicy {
        policy_name: Some(row.name.clone()),
        policy_document: Some(row.document.clone()),
        last_updated_time: Some(row.updated_at.as_millis()),
        policy_type: Some(logs::PolicyType::from(row.kind.as_str())),
        scope: Some(logs::Scope::All),
        selection_criteria: row.selection_criteria.clone(),
        account_id: Some(view.account.to_string()),
    }
}
