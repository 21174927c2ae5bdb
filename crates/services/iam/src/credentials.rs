//! Keys: made once, looked up on every request, and lent to tasks for a while.
//!
//! What always holds: a key that was handed out is durable, so it survives a restart; its secret
//! is found from the store's in-memory copy without I/O. A session ends at its expiry and with its
//! role. Expired sessions are deleted when new ones are issued, so their number is bounded by
//! how many are alive.
//! What it leaves to others: whether a role's trust policy lets the caller in (`api::sts`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::Principal;
use gantry_api::auth::{Credential, CredentialSource};
use gantry_arn::{AccountId, Arn, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{CommitError, Snapshot, Store, Transaction};

use crate::model::ids::{IdKind, secret_access_key, unique_id};
use crate::nodes::Nodes;
use crate::service_linked;
use crate::sessions::{caller_of, find_session, find_user};
use crate::tables::{
    AccessKeyRow, AccessKeys, HolderKeyRow, HolderKeys, KeyHolder, LastUseRow, LastUses, RoleRow,
    Roles, Sessions, installation, row_name,
};

/// How long a task's credentials are good for when nobody says otherwise: as at ECS.
pub const TASK_SESSION: Duration = Duration::from_secs(6 * 60 * 60);
/// The least and the most that AWS allows.
pub const SHORTEST_SESSION: Duration = Duration::from_secs(15 * 60);
pub const LONGEST_SESSION: Duration = Duration::from_secs(12 * 60 * 60);

/// How far the last use of a key that is shown may lie behind.
const LAST_USE_COARSENESS: Duration = Duration::from_secs(15 * 60);
/// How many expired sessions one issue clears away: more than it adds, so none pile up.
const SWEEP: usize = 32;
/// How many roles one commit has room for.
pub const MAX_SESSIONS_AT_ONCE: usize = 16;
/// How often a commit that meets another one is tried again.
pub(crate) const ATTEMPTS: usize = 32;

/// A long-term key.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub arn: Arn,
}

/// The keys that an installation has from its first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallationKeys {
    pub root: AccessKey,
    pub node: AccessKey,
}

/// Temporary credentials of a role.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleSession {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: String,
    pub expiration: Timestamp,
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`
    pub arn: Arn,
    /// `AROA…:SESSION`
    pub assumed_role_id: String,
}

/// What is asked for, one role at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSessionRequest {
    pub role_arn: String,
    pub session_name: String,
    pub duration: Duration,
}

/// Why no credentials were issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleSessionError {
    #[error("{0} is not the ARN of a role (arn:aws:iam::ACCOUNT:role/NAME)")]
    NotARole(String),
    #[error("the role {0} does not exist")]
    NoSuchRole(String),
    #[error("the trust policy of the role {0} does not let the caller in")]
    NotTrusted(String),
    #[error("the session name {0:?} is not 2 to 64 letters, digits and + = , . @ _ -")]
    SessionName(String),
    #[error(transparent)]
    Store(#[from] CommitError),
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("access_key_id", &self.access_key_id)
            .field("arn", &self.arn)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RoleSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleSession")
            .field("access_key_id", &self.access_key_id)
            .field("arn", &self.arn)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// Issues keys and knows them. Cloning shares it.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Env,
}

impl Credentials {
    pub fn new(store: Arc<dyn Store>, env: Env) -> Self {
        Self { store, env }
    }

    /// Makes what every installation has (the root key, this machine's node key and the
    /// service-linked roles of `account`) if it is not there, and returns the keys. Safe to
    /// repeat, and safe when two replicas start at once.
    pub async fn bootstrap(&self, account: &AccountId) -> Result<InstallationKeys, CommitError> {
        let mut attempts = 0;
        loop {
            let snapshot = self.store.snapshot();
            let mut transaction = Transaction::new();
            let node_role_id =
                service_linked::create_missing(&snapshot, &mut transaction, account, &self.env);
            let root_arn = Arn::global("iam", account, "root");
            let node_arn = assumed_role_arn(account, service_linked::NODE_ROLE, NODE_SESSION);
            let node_id = format!("{node_role_id}:{NODE_SESSION}");
            let keys = InstallationKeys {
                root: self.ensure_key(
                    &snapshot,
                    &mut transaction,
                    KeyHolder::Root,
                    (*account, root_arn, account.to_string()),
                ),
                node: self.ensure_key(
                    &snapshot,
                    &mut transaction,
                    KeyHolder::Node,
                    (*account, node_arn, node_id),
                ),
            };
            if !transaction.has_writes() {
                return Ok(keys);
            }
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(keys),
                Err(error) if error.is_conflict() && attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn ensure_key(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        holder: KeyHolder,
        (account, arn, user_id): (AccountId, Arn, String),
    ) -> AccessKey {
        let (owner, region) = installation();
        if let Some(held) = snapshot.read::<HolderKeys>(&owner, &region, holder.row_name())
            && let Some(key) = snapshot.read::<AccessKeys>(&owner, &region, &held.access_key_id)
        {
            return AccessKey {
                access_key_id: held.access_key_id.clone(),
                secret_access_key: key.secret.clone(),
                arn: key.arn.clone(),
            };
        }
        let access_key_id = unique_id(IdKind::LongTermAccessKey, self.random());
        let row = AccessKeyRow {
            holder,
            account,
            arn,
            user_id,
            secret: secret_access_key(self.random()),
            created_at: self.env.now(),
            inactive: false,
        };
        transaction.create::<AccessKeys>(&owner, &region, &access_key_id, &row);
        let held = HolderKeyRow {
            access_key_id: access_key_id.clone(),
        };
        transaction.create::<HolderKeys>(&owner, &region, holder.row_name(), &held);
        AccessKey {
            access_key_id,
            secret_access_key: row.secret,
            arn: row.arn,
        }
    }

    /// Deletes some sessions that have ended.
    pub(crate) fn sweep(&self, snapshot: &Snapshot, transaction: &mut Transaction) {
        let (owner, region) = installation();
        let now = self.env.now();
        // Walking every session on every issue would make a busy cluster quadratic. One first
        // character in 32 is looked at each time, so what has ended stays a small part of all.
        let random = unique_id(IdKind::TemporaryAccessKey, self.random());
        let ended = snapshot
            .list_prefix::<Sessions>(&owner, &region, &random[..5])
            .into_iter()
            .filter(|session| session.expires_at <= now)
            .take(SWEEP);
        for session in ended {
            transaction.delete(session.key.clone());
        }
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.entropy.fill(&mut bytes);
        bytes
    }

    /// Whether a role of exactly this ARN exists: what RunTask may ask before it takes a task.
    pub fn role_exists(&self, role_arn: &str) -> bool {
        find_role(&self.store.snapshot(), role_arn).is_some()
    }

    /// The account of a key that this installation made, active or not.
    pub(crate) fn account_of(&self, access_key_id: &str) -> Option<AccountId> {
        let (owner, region) = installation();
        let snapshot = self.store.snapshot();
        find_session(&snapshot, access_key_id)
            .map(|session| session.account)
            .or_else(|| {
                let key = snapshot.read::<AccessKeys>(&owner, &region, access_key_id)?;
                Some(key.account)
            })
    }

    fn find(&self, access_key_id: &str) -> Option<Credential> {
        let (owner, region) = installation();
        let snapshot = self.store.snapshot();
        let principal = |arn: &Arn, user_id: &str| Principal {
            arn: arn.clone(),
            user_id: user_id.to_owned(),
            access_key_id: access_key_id.to_owned(),
        };
        if let Some(session) = find_session(&snapshot, access_key_id) {
            let (arn, user_id) = caller_of(&snapshot, &session)?;
            return Some(Credential {
                secret: session.secret.clone(),
                session_token: Some(session.token.clone()),
                // The server compares this with the clock, and answers ExpiredToken.
                expiration: Some(session.expires_at),
                account: session.account,
                principal: principal(&arn, &user_id),
            });
        }
        let Some(key) = snapshot.read::<AccessKeys>(&owner, &region, access_key_id) else {
            return Nodes::find(&snapshot, access_key_id);
        };
        let arn = match key.holder {
            KeyHolder::User if key.inactive => return None,
            KeyHolder::User => find_user(&snapshot, &key.account, &key.user_id)?
                .arn
                .clone(),
            KeyHolder::Root | KeyHolder::Node => key.arn.clone(),
        };
        Some(Credential {
            secret: key.secret.clone(),
            session_token: None,
            expiration: None,
            account: key.account,
            principal: principal(&arn, &key.user_id),
        })
    }
}

#[async_trait]
impl CredentialSource for Credentials {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        self.find(access_key_id)
    }

    /// Remembers the last use of a user's key, at most once in [`LAST_USE_COARSENESS`].
    async fn used(&self, access_key_id: &str, service: &str, region: &str) {
        let (owner, place) = installation();
        let snapshot = self.store.snapshot();
        let is_users = snapshot
            .read::<AccessKeys>(&owner, &place, access_key_id)
            .is_some_and(|key| key.holder == KeyHolder::User);
        if !is_users {
            return;
        }
        let now = self.env.now();
        let last = snapshot.read::<LastUses>(&owner, &place, access_key_id);
        if last
            .as_ref()
            .is_some_and(|last| now < last.at + LAST_USE_COARSENESS)
        {
            return;
        }
        let row = LastUseRow {
            at: now,
            service: service.to_owned(),
            region: region.to_owned(),
        };
        let mut transaction = Transaction::new();
        match &last {
            Some(last) => transaction.update::<LastUses>(last, &row),
            None => transaction.create::<LastUses>(&owner, &place, access_key_id, &row),
        };
        // Another request of the same moment may have written it, which is as good. Any other
        // failure is the store's, and the request itself will meet it.
        if let Err(error) = self.store.commit(transaction).await {
            tracing::debug!(access_key_id, %error, "the use of a key was not recorded");
        }
    }
}

/// The session of the node key, as an instance id is of an instance role's.
const NODE_SESSION: &str = "local";

pub(crate) fn assumed_role_arn(account: &AccountId, role: &str, session: &str) -> Arn {
    Arn::global("sts", account, format!("assumed-role/{role}/{session}"))
}

/// The account and the name in a role's ARN, whatever its path.
pub(crate) fn role_of_arn(text: &str) -> Option<(AccountId, String)> {
    let arn: Arn = text.parse().ok()?;
    let path_and_name = arn.resource.strip_prefix("role/")?;
    if arn.service != "iam" {
        return None;
    }
    let name = path_and_name.rsplit('/').next()?;
    (!name.is_empty()).then_some(())?;
    Some((arn.account_id()?, name.to_owned()))
}

/// The role of exactly this ARN.
pub fn find_role(snapshot: &Snapshot, role_arn: &str) -> Option<Arc<RoleRow>> {
    let (account, name) = role_of_arn(role_arn)?;
    let role = snapshot.read::<Roles>(&account, &Region::global(), &row_name(&name))?;
    (role.arn.to_string() == role_arn).then(|| role.row.clone())
}
