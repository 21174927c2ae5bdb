//! The rows of IAM: all under the global region, because IAM has none.
//!
//! What always holds: a role row carries everything about the role (its trust policy, its
//! embedded policies, the ARNs attached to it), so each change of a role is one row and every
//! conflict is seen. A policy row counts where it is attached; attaching writes both rows, so a
//! policy that is in use cannot be deleted beside it. Names are kept in lower case in keys,
//! because IAM tells names apart without regard to case. AWS-managed policies are no rows.
//! Keys and sessions belong to the installation and stand under the default account, since a
//! request names its key before its account is known. [`RoleRow`] is published, read-only;
//! nothing outside this crate reads keys or sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gantry_arn::{AccountId, Arn, Region};
use gantry_env::Timestamp;
use gantry_store::Table;
use serde::{Deserialize, Serialize};

/// The service part of every key of this crate.
pub const SERVICE: &str = "iam";

macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $row:ty, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $table;

        impl Table for $table {
            type Row = $row;
            const SERVICE: &'static str = SERVICE;
            const KIND: &'static str = $kind;
            const SCHEMA: u16 = 1;
        }
    };
}

table!(
    /// Named by the role's name in lower case.
    Roles, RoleRow, "role"
);
table!(
    /// The customer's own managed policies, named by their names in lower case.
    Policies, PolicyRow, "policy"
);
table!(
    /// Named by the profile's name in lower case.
    InstanceProfiles, InstanceProfileRow, "instance-profile"
);
table!(
    /// Named by the user's name in lower case.
    Users, UserRow, "user"
);
table!(
    /// Which user has an id, named by the id: keys and sessions name their user by it, so they
    /// stay the user's when its name changes.
    UserIds, UserIdRow, "user-id"
);
table!(
    /// Named by the group's name in lower case.
    Groups, GroupRow, "group"
);
table!(
    /// Named by the provider's URL without its scheme.
    OidcProviders, OidcProviderRow, "oidc-provider"
);
table!(
    /// Named by the provider's name in lower case.
    SamlProviders, SamlProviderRow, "saml-provider"
);
table!(
    /// What an account has one of. One row.
    AccountSettings, AccountSettingsRow, "account"
);
table!(
    /// What became of service-linked roles that were to be deleted, named by the task's id.
    RoleDeletions, RoleDeletionRow, "role-deletion"
);
table!(
    /// When a user's key was last used, named by the access key id.
    LastUses, LastUseRow, "access-key-use"
);
table!(
    /// Long-term keys, named by the access key id.
    AccessKeys, AccessKeyRow, "access-key"
);
table!(
    /// Which long-term key a holder has, named by the holder: so two replicas that start at once
    /// cannot make two.
    HolderKeys, HolderKeyRow, "holder-key"
);
table!(
    /// Temporary keys, named by the access key id.
    Sessions, SessionRow, "session"
);

/// Where keys and sessions stand.
pub(crate) fn installation() -> (AccountId, Region) {
    (AccountId::default(), Region::global())
}

/// The form of a name in a key.
pub(crate) fn row_name(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRow {
    pub name: String,
    pub path: String,
    pub id: String,
    pub arn: Arn,
    pub created_at: Timestamp,
    /// Who may assume it: the document as it was given.
    pub trust_policy: String,
    pub description: Option<String>,
    pub max_session_duration_s: i32,
    pub permissions_boundary: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// ARNs of managed policies.
    #[serde(default)]
    pub attached: BTreeSet<String>,
    /// Documents of embedded policies, by name.
    #[serde(default)]
    pub inline: BTreeMap<String, String>,
    /// The service that owns a service-linked role, which only that service changes.
    #[serde(default)]
    pub linked_to: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    pub name: String,
    pub path: String,
    pub id: String,
    pub arn: Arn,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub description: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub default_version: u32,
    /// Numbers of versions are never used again.
    pub next_version: u32,
    pub versions: BTreeMap<u32, PolicyVersionRow>,
    /// How many users, groups and roles it is attached to.
    pub attachments: u32,
    /// How many users and roles have it for their permissions boundary.
    pub boundary_uses: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersionRow {
    pub document: String,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceProfileRow {
    pub name: String,
    pub path: String,
    pub id: String,
    pub arn: Arn,
    pub created_at: Timestamp,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The name of its one role.
    pub role: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    pub name: String,
    pub path: String,
    pub id: String,
    pub arn: Arn,
    pub created_at: Timestamp,
    #[serde(default)]
    pub permissions_boundary: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    pub attached: BTreeSet<String>,
    #[serde(default)]
    pub inline: BTreeMap<String, String>,
    /// Ids of the groups it is in: a group keeps its members when its name changes.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Ids of its keys, which therefore cannot become more than two beside each other.
    #[serde(default)]
    pub access_keys: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIdRow {
    /// The name of its row in [`Users`].
    pub row: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    pub name: String,
    pub path: String,
    pub id: String,
    pub arn: Arn,
    pub created_at: Timestamp,
    #[serde(default)]
    pub attached: BTreeSet<String>,
    #[serde(default)]
    pub inline: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcProviderRow {
    pub arn: Arn,
    /// Without its scheme, as it is shown.
    pub url: String,
    pub created_at: Timestamp,
    #[serde(default)]
    pub client_ids: Vec<String>,
    #[serde(default)]
    pub thumbprints: Vec<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamlProviderRow {
    pub arn: Arn,
    pub name: String,
    pub created_at: Timestamp,
    pub metadata: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettingsRow {
    #[serde(default)]
    pub alias: Option<String>,
    #[serde(default)]
    pub password_policy: Option<PasswordPolicyRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordPolicyRow {
    pub minimum_length: i32,
    pub symbols: bool,
    pub numbers: bool,
    pub uppercase: bool,
    pub lowercase: bool,
    pub users_may_change: bool,
    pub max_age_days: Option<i32>,
    pub reuse_prevention: Option<i32>,
    pub hard_expiry: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleDeletionRow {
    pub at: Timestamp,
    /// Why the role is still there, if it is.
    pub refused: Option<String>,
}

/// Who a long-term key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHolder {
    /// The account's root user: what `gantry env` prints.
    Root,
    /// The agent of this machine.
    Node,
    /// The user whose id stands in the key's row.
    User,
}

impl KeyHolder {
    /// The name of its row in [`HolderKeys`].
    pub(crate) fn row_name(self) -> &'static str {
        match self {
            KeyHolder::Root => "root",
            KeyHolder::Node => "node",
            // A user's keys stand in the user's own row; there may be two.
            KeyHolder::User => "user",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderKeyRow {
    pub access_key_id: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRow {
    pub holder: KeyHolder,
    pub account: AccountId,
    pub arn: Arn,
    pub user_id: String,
    pub secret: String,
    pub created_at: Timestamp,
    /// An inactive key is nobody's until it is made active again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inactive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastUseRow {
    pub at: Timestamp,
    pub service: String,
    pub region: String,
}

/// Whose session it is, which decides when it ends and what it may not call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionOwner {
    /// Of the role in the session's row.
    #[default]
    Role,
    /// Of the user with this id: as itself, or as somebody it vouches for.
    User { id: String, federated: bool },
    /// Of the account's root user.
    Root { federated: bool },
}

/// What was said of a session when it began. Kept, and not evaluated yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTerms {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Keys of the tags that go on to the sessions that this one begins.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub transitive: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    pub account: AccountId,
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`, or `federated-user/NAME`
    pub arn: Arn,
    /// `AROA…:SESSION`, or `ACCOUNT:NAME`
    pub user_id: String,
    /// The row of the role that was assumed, and the id it had: a session does not outlive its
    /// role, even when another role of that name is made.
    #[serde(default)]
    pub role_row: String,
    #[serde(default)]
    pub role_id: String,
    #[serde(default)]
    pub owner: SessionOwner,
    #[serde(default)]
    pub terms: SessionTerms,
    pub secret: String,
    pub token: String,
    pub expires_at: Timestamp,
}

/// Secrets and tokens never reach a log.
impl fmt::Debug for AccessKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeyRow")
            .field("holder", &self.holder)
            .field("arn", &self.arn)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRow")
            .field("arn", &self.arn)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
