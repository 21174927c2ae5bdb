//! Keys: made once, looked up on every request, and lent to tasks for a while.
//!
//! What always holds: a key that was handed out is durable, so it survives a restart; its secret
//! is found from the store's in-memory copy without I/O. A session ends at its expiry and with its
//! role. Expired sessions are deleted when new ones are issued, so their number is bounded by
//! how many are alive. Whether a role's trust policy lets the caller assume it is not looked at
//! yet (`docs/security.md`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_api::Principal;
use gantry_api::auth::{Credential, CredentialSource};
use gantry_arn::{AccountId, Arn, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{CommitError, Snapshot, Store, Transaction};

use crate::model::ids::{IdKind, secret_access_key, unique_id};
use crate::nodes::Nodes;
use crate::service_linked;
use crate::tables::{
    AccessKeyRow, AccessKeys, HolderKeyRow, HolderKeys, KeyHolder, RoleRow, Roles, SessionRow,
    Sessions, installation, row_name,
};

/// How long a task's credentials are good for when nobody says otherwise: as at ECS.
pub const TASK_SESSION: Duration = Duration::from_secs(6 * 60 * 60);
/// The least and the most that AWS allows.
pub const SHORTEST_SESSION: Duration = Duration::from_secs(15 * 60);
pub const LONGEST_SESSION: Duration = Duration::from_secs(12 * 60 * 60);

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
    store: Arc<dyn Store>,
    env: Env,
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

    /// Issues credentials of one role. See [`Credentials::issue_role_sessions`].
    pub async fn issue_role_session(
        &self,
        role_arn: &str,
        session_name: &str,
        duration: Duration,
    ) -> Result<RoleSession, RoleSessionError> {
        let request = RoleSessionRequest {
            role_arn: role_arn.to_owned(),
            session_name: session_name.to_owned(),
            duration,
        };
        let mut sessions = self.issue_role_sessions(&[request]).await?;
        sessions
            .pop()
            .ok_or_else(|| RoleSessionError::NoSuchRole(role_arn.to_owned()))
    }

    /// Issues credentials of several roles (a task's own and its execution role) in one commit,
    /// in the order asked for; all or none. At most [`MAX_SESSIONS_AT_ONCE`].
    pub async fn issue_role_sessions(
        &self,
        requests: &[RoleSessionRequest],
    ) -> Result<Vec<RoleSession>, RoleSessionError> {
        let (owner, region) = installation();
        let mut attempts = 0;
        loop {
            let snapshot = self.store.snapshot();
            let mut transaction = Transaction::new();
            let mut sessions = Vec::with_capacity(requests.len());
            for request in requests {
                let row = self.session(&snapshot, &mut transaction, request)?;
                let access_key_id = unique_id(IdKind::TemporaryAccessKey, self.random());
                transaction.create::<Sessions>(&owner, &region, &access_key_id, &row);
                sessions.push(RoleSession {
                    access_key_id,
                    secret_access_key: row.secret,
                    session_token: row.token,
                    expiration: row.expires_at,
                    arn: row.arn,
                    assumed_role_id: row.user_id,
                });
            }
            self.sweep(&snapshot, &mut transaction);
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(sessions),
                // A role was changed at the same moment; it may still be there.
                Err(error) if error.is_conflict() && attempts < ATTEMPTS => attempts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn session(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        request: &RoleSessionRequest,
    ) -> Result<SessionRow, RoleSessionError> {
        if !is_session_name(&request.session_name) {
            return Err(RoleSessionError::SessionName(request.session_name.clone()));
        }
        let (account, name) = role_of_arn(&request.role_arn)
            .ok_or_else(|| RoleSessionError::NotARole(request.role_arn.clone()))?;
        let role = snapshot
            .read::<Roles>(&account, &Region::global(), &row_name(&name))
            .filter(|role| role.arn.to_string() == request.role_arn)
            .ok_or_else(|| RoleSessionError::NoSuchRole(request.role_arn.clone()))?;
        let duration = request.duration.clamp(SHORTEST_SESSION, LONGEST_SESSION);
        transaction.expect_read(&role);
        Ok(SessionRow {
            account,
            arn: assumed_role_arn(&account, &role.name, &request.session_name),
            user_id: format!("{}:{}", role.id, request.session_name),
            role_row: row_name(&role.name),
            role_id: role.id.clone(),
            secret: secret_access_key(self.random()),
            token: STANDARD.encode(self.random::<96>()),
            expires_at: self.env.now() + duration,
        })
    }

    /// Deletes some sessions that have ended.
    fn sweep(&self, snapshot: &Snapshot, transaction: &mut Transaction) {
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

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.entropy.fill(&mut bytes);
        bytes
    }

    /// Whether a role of exactly this ARN exists: what RunTask may ask before it takes a task.
    pub fn role_exists(&self, role_arn: &str) -> bool {
        find_role(&self.store.snapshot(), role_arn).is_some()
    }

    fn find(&self, access_key_id: &str) -> Option<Credential> {
        let (owner, region) = installation();
        let snapshot = self.store.snapshot();
        let principal = |arn: &Arn, user_id: &str| Principal {
            arn: arn.clone(),
            user_id: user_id.to_owned(),
            access_key_id: access_key_id.to_owned(),
        };
        if access_key_id.starts_with(IdKind::TemporaryAccessKey.prefix()) {
            let session = snapshot.read::<Sessions>(&owner, &region, access_key_id)?;
            let role =
                snapshot.read::<Roles>(&session.account, &Region::global(), &session.role_row)?;
            if role.id != session.role_id {
                return None;
            }
            return Some(Credential {
                secret: session.secret.clone(),
                session_token: Some(session.token.clone()),
                // The server compares this with the clock, and answers ExpiredToken.
                expiration: Some(session.expires_at),
                account: session.account,
                principal: principal(&session.arn, &session.user_id),
            });
        }
        let Some(key) = snapshot.read::<AccessKeys>(&owner, &region, access_key_id) else {
            return Nodes::find(&snapshot, access_key_id);
        };
        Some(Credential {
            secret: key.secret.clone(),
            session_token: None,
            expiration: None,
            account: key.account,
            principal: principal(&key.arn, &key.user_id),
        })
    }
}

#[async_trait]
impl CredentialSource for Credentials {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        self.find(access_key_id)
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

fn is_session_name(name: &str) -> bool {
    (2..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
}
