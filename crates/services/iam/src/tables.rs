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
    /// How many roles it is attached to.
    pub attachments: u32,
    /// How many roles have it for their permissions boundary.
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

/// Who a long-term key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHolder {
    /// The account's root user: what `gantry env` prints.
    Root,
    /// The agent of this machine.
    Node,
}

impl KeyHolder {
    /// The name of its row in [`HolderKeys`].
    pub(crate) fn row_name(self) -> &'static str {
        match self {
            KeyHolder::Root => "root",
            KeyHolder::Node => "node",
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
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    pub account: AccountId,
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`
    pub arn: Arn,
    /// `AROA…:SESSION`
    pub user_id: String,
    /// The row of the role that was assumed, and the id it had: a session does not outlive its
    /// role, even when another role of that name is made.
    pub role_row: String,
    pub role_id: String,
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
