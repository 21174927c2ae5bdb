//! What an account has one of: its alias, its password policy, and the numbers of what is in it.
//!
//! What always holds: a number is counted from the rows, and a quota that is shown is one that is
//! kept. There are no passwords, so the password policy is stored and has nothing to apply to.

use std::collections::BTreeMap;

use gantry_api::ApiError;
use gantry_api::iam::{self, IamError};
use gantry_store::{Table, Transaction, Versioned};

use super::{Change, View, access_keys, groups, holder, users};
use crate::tables::{
    AccountSettings, AccountSettingsRow, Groups, InstanceProfiles, OidcProviders,
    PasswordPolicyRow, Policies, Roles, SamlProviders, Users,
};

const ROW: &str = "account";
const SHORTEST_PASSWORD: i32 = 6;

pub(super) fn settings(view: &View<'_>) -> Option<Versioned<AccountSettingsRow>> {
    view.snapshot
        .read::<AccountSettings>(view.account, &view.region, ROW)
}

fn change(view: &View<'_>, edit: impl FnOnce(&mut AccountSettingsRow)) -> Change<()> {
    let mut transaction = Transaction::new();
    match settings(view) {
        Some(read) => {
            let mut row = AccountSettingsRow::clone(&read);
            edit(&mut row);
            transaction.update::<AccountSettings>(&read, &row);
        }
        None => {
            let mut row = AccountSettingsRow::default();
            edit(&mut row);
            transaction.create::<AccountSettings>(view.account, &view.region, ROW, &row);
        }
    }
    Change::new(transaction, ())
}

/// An account has one alias; another takes its place.
pub(super) fn create_alias(
    view: &View<'_>,
    input: &iam::CreateAccountAliasRequest,
) -> Result<Change<()>, IamError> {
    let alias = &input.account_alias;
    if !may_be_an_alias(alias) {
        return Err(ApiError::sender(
            "ValidationError",
            format!(
                "1 validation error detected: Value '{alias}' at 'accountAlias' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-z0-9]([a-z0-9]|-(?!-)){{1,61}}[a-z0-9]$"
            ),
        )
        .into());
    }
    if alias_of(view).as_ref() == Some(alias) {
        return Err(IamError::entity_already_exists_exception(format!(
            "The account alias {alias} already exists."
        )));
    }
    Ok(change(view, |row| row.alias = Some(alias.clone())))
}

/// The model's pattern looks ahead, which the dispatcher's engine cannot, so it is checked here.
fn may_be_an_alias(alias: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = alias.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| plain(*byte))
        && bytes.last().is_some_and(|byte| plain(*byte))
        && !alias.contains("--")
}

pub(super) fn delete_alias(
    view: &View<'_>,
    input: &iam::DeleteAccountAliasRequest,
) -> Result<Change<()>, IamError> {
    let alias = &input.account_alias;
    if alias_of(view).as_ref() != Some(alias) {
        return Err(IamError::no_such_entity_exception(format!(
            "The account alias {alias} cannot be found."
        )));
    }
    Ok(change(view, |row| row.alias = None))
}

pub(super) fn list_aliases(
    view: &View<'_>,
    input: &iam::ListAccountAliasesRequest,
) -> Result<iam::ListAccountAliasesResponse, IamError> {
    let aliases = alias_of(view)
        .map(|alias| (alias.clone(), alias))
        .into_iter()
        .collect();
    let page = view.page(
        aliases,
        input.marker.as_deref(),
        input.max_items,
        "account-aliases",
    )?;
    Ok(iam::ListAccountAliasesResponse {
        is_truncated: page.is_truncated(),
        marker: page.marker,
        account_aliases: page.items,
    })
}

fn alias_of(view: &View<'_>) -> Option<String> {
    settings(view)?.alias.clone()
}

/// What is not given goes back to its default, as at AWS.
pub(super) fn update_password_policy(
    view: &View<'_>,
    input: &iam::UpdateAccountPasswordPolicyRequest,
) -> Result<Change<()>, IamError> {
    let policy = PasswordPolicyRow {
        minimum_length: input.minimum_password_length.unwrap_or(SHORTEST_PASSWORD),
        symbols: input.require_symbols.unwrap_or(false),
        numbers: input.require_numbers.unwrap_or(false),
        uppercase: input.require_uppercase_characters.unwrap_or(false),
        lowercase: input.require_lowercase_characters.unwrap_or(false),
        users_may_change: input.allow_users_to_change_password.unwrap_or(false),
        max_age_days: input.max_password_age,
        reuse_prevention: input.password_reuse_prevention,
        hard_expiry: input.hard_expiry,
    };
    Ok(change(view, |row| row.password_policy = Some(policy)))
}

pub(super) fn get_password_policy(
    view: &View<'_>,
    (): &(),
) -> Result<iam::GetAccountPasswordPolicyResponse, IamError> {
    let policy = settings(view)
        .and_then(|settings| settings.password_policy.clone())
        .ok_or_else(|| no_password_policy(view))?;
    Ok(iam::GetAccountPasswordPolicyResponse {
        password_policy: iam::PasswordPolicy {
            minimum_password_length: Some(policy.minimum_length),
            require_symbols: Some(policy.symbols),
            require_numbers: Some(policy.numbers),
            require_uppercase_characters: Some(policy.uppercase),
            require_lowercase_characters: Some(policy.lowercase),
            allow_users_to_change_password: Some(policy.users_may_change),
            expire_passwords: Some(policy.max_age_days.is_some()),
            max_password_age: policy.max_age_days,
            password_reuse_prevention: policy.reuse_prevention,
            hard_expiry: policy.hard_expiry,
        },
    })
}

pub(super) fn delete_password_policy(view: &View<'_>, (): &()) -> Result<Change<()>, IamError> {
    if settings(view).is_none_or(|settings| settings.password_policy.is_none()) {
        return Err(no_password_policy(view));
    }
    Ok(change(view, |row| row.password_policy = None))
}

fn no_password_policy(view: &View<'_>) -> IamError {
    IamError::no_such_entity_exception(format!(
        "The Password Policy with domain name {} cannot be found.",
        view.account
    ))
}

pub(super) fn summary(
    view: &View<'_>,
    (): &(),
) -> Result<iam::GetAccountSummaryResponse, IamError> {
    fn count<T: Table>(view: &View<'_>) -> usize {
        view.snapshot.list::<T>(view.account, &view.region).len()
    }
    let policies = view.snapshot.list::<Policies>(view.account, &view.region);
    let versions: usize = policies.iter().map(|policy| policy.versions.len()).sum();
    let providers = count::<OidcProviders>(view) + count::<SamlProviders>(view);
    let numbers: BTreeMap<String, i32> = [
        ("Users", count::<Users>(view)),
        ("Groups", count::<Groups>(view)),
        ("Roles", count::<Roles>(view)),
        ("Policies", policies.len()),
        ("PolicyVersionsInUse", versions),
        ("InstanceProfiles", count::<InstanceProfiles>(view)),
        ("Providers", providers),
        // None of these can be made here, and the root user has one key.
        ("ServerCertificates", 0),
        ("MFADevices", 0),
        ("MFADevicesInUse", 0),
        ("AccountMFAEnabled", 0),
        ("AccountPasswordPresent", 0),
        ("AccountSigningCertificatesPresent", 0),
        ("AccountAccessKeysPresent", 1),
        ("UsersQuota", users::MAX_USERS),
        ("GroupsQuota", groups::MAX_GROUPS),
        ("GroupsPerUserQuota", groups::MAX_GROUPS_OF_USER),
        ("AccessKeysPerUserQuota", access_keys::MAX_KEYS),
        ("AttachedPoliciesPerUserQuota", holder::MAX_ATTACHED),
        ("AttachedPoliciesPerGroupQuota", holder::MAX_ATTACHED),
        ("AttachedPoliciesPerRoleQuota", holder::MAX_ATTACHED),
        ("UserPolicySizeQuota", 2048),
        ("GroupPolicySizeQuota", 5120),
        ("RolePolicySizeQuota", 10_240),
        ("AssumeRolePolicySizeQuota", 2048),
        ("PolicySizeQuota", 6144),
        ("VersionsPerPolicyQuota", 5),
    ]
    .into_iter()
    .map(|(name, number)| (name.to_owned(), i32::try_from(number).unwrap_or(i32::MAX)))
    .collect();
    Ok(iam::GetAccountSummaryResponse {
        summary_map: Some(numbers),
    })
}

#[cfg(test)]
mod tests {
    use super::may_be_an_alias;

    #[test]
    fn an_alias_has_single_hyphens_inside_only() {
        for good in ["abc", "a-b", "0-a-9", &"a".repeat(63)] {
            assert!(may_be_an_alias(good), "{good}");
        }
        for bad in [
            "",
            "ab",
            "-ab",
            "ab-",
            "a--b",
            "aBc",
            "a_b",
            &"a".repeat(64),
        ] {
            assert!(!may_be_an_alias(bad), "{bad}");
        }
    }
}
