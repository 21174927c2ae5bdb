//! Sessions: temporary credentials of roles, of users, and of those whom users vouch for.
//!
//! What always holds: a session names who it is of by an id, so it ends with its role or user even
//! when another of that name is made, and a user's session follows the user to a new name. What was
//! said when it began (its policies, tags and source identity) is kept with it.
//! What it leaves to others: how long a session may be (`api::sts`), and what it may do.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gantry_arn::{AccountId, Arn, Region};
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::credentials::{
    ATTEMPTS, Credentials, LONGEST_SESSION, RoleSession, RoleSessionError, RoleSessionRequest,
    SHORTEST_SESSION, assumed_role_arn, role_of_arn,
};
use crate::model::ids::{IdKind, secret_access_key, unique_id};
use crate::tables::{
    RoleRow, Roles, SessionOwner, SessionRow, SessionTerms, Sessions, UserIds, UserRow, Users,
    installation, row_name,
};

/// A session of a user or of the root user, or of somebody it vouches for.
pub(crate) struct OwnSession {
    pub owner: SessionOwner,
    pub account: AccountId,
    pub arn: Arn,
    pub user_id: String,
    pub duration: Duration,
    pub terms: SessionTerms,
}

impl Credentials {
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
        self.issue_role_session_on(&request, &SessionTerms::default())
            .await
    }

    /// Issues credentials of one role on terms that are kept with them.
    pub(crate) async fn issue_role_session_on(
        &self,
        request: &RoleSessionRequest,
        terms: &SessionTerms,
    ) -> Result<RoleSession, RoleSessionError> {
        self.issue_role_session_if(request, terms, |_| true).await
    }

    /// The same, if the role is one that `permit` lets the caller have. The role that was asked is
    /// the one whose session is issued, or none is.
    pub(crate) async fn issue_role_session_if(
        &self,
        request: &RoleSessionRequest,
        terms: &SessionTerms,
        permit: impl Fn(&RoleRow) -> bool + Send + Sync,
    ) -> Result<RoleSession, RoleSessionError> {
        let mut sessions = self
            .issue(|snapshot, transaction| {
                let row = self.role_session(snapshot, transaction, request, terms, &permit)?;
                Ok(vec![row])
            })
            .await?;
        sessions
            .pop()
            .ok_or_else(|| RoleSessionError::NoSuchRole(request.role_arn.clone()))
    }

    /// Issues credentials of several roles (a task's own and its execution role) in one commit,
    /// in the order asked for; all or none. At most [`crate::MAX_SESSIONS_AT_ONCE`].
    pub async fn issue_role_sessions(
        &self,
        requests: &[RoleSessionRequest],
    ) -> Result<Vec<RoleSession>, RoleSessionError> {
        self.issue(|snapshot, transaction| {
            requests
                .iter()
                .map(|request| {
                    let terms = SessionTerms::default();
                    self.role_session(snapshot, transaction, request, &terms, &|_| true)
                })
                .collect()
        })
        .await
    }

    /// Issues credentials of who is its own to vouch for. `None` if that user is no more.
    pub(crate) async fn issue_own_session(
        &self,
        asked: &OwnSession,
    ) -> Result<Option<RoleSession>, RoleSessionError> {
        let mut sessions = self
            .issue(|snapshot, transaction| {
                if let SessionOwner::User { id, .. } = &asked.owner {
                    let Some(user) = find_user(snapshot, &asked.account, id) else {
                        return Ok(Vec::new());
                    };
                    transaction.expect_read(&user);
                }
                Ok(vec![SessionRow {
                    account: asked.account,
                    arn: asked.arn.clone(),
                    user_id: asked.user_id.clone(),
                    role_row: String::new(),
                    role_id: String::new(),
                    owner: asked.owner.clone(),
                    terms: asked.terms.clone(),
                    secret: secret_access_key(self.random()),
                    token: STANDARD.encode(self.random::<96>()),
                    expires_at: self.env.now() + asked.duration,
                }])
            })
            .await?;
        Ok(sessions.pop())
    }

    async fn issue(
        &self,
        decide: impl Fn(&Snapshot, &mut Transaction) -> Result<Vec<SessionRow>, RoleSessionError>
        + Send
        + Sync,
    ) -> Result<Vec<RoleSession>, RoleSessionError> {
        let (owner, region) = installation();
        let mut attempts = 0;
        loop {
            let snapshot = self.store.snapshot();
            let mut transaction = Transaction::new();
            let mut sessions = Vec::new();
            for row in decide(&snapshot, &mut transaction)? {
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

    fn role_session(
        &self,
        snapshot: &Snapshot,
        transaction: &mut Transaction,
        request: &RoleSessionRequest,
        terms: &SessionTerms,
        permit: &dyn Fn(&RoleRow) -> bool,
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
        if !permit(&role) {
            return Err(RoleSessionError::NotTrusted(request.role_arn.clone()));
        }
        let duration = request.duration.clamp(SHORTEST_SESSION, LONGEST_SESSION);
        transaction.expect_read(&role);
        Ok(SessionRow {
            account,
            arn: assumed_role_arn(&account, &role.name, &request.session_name),
            user_id: format!("{}:{}", role.id, request.session_name),
            role_row: row_name(&role.name),
            role_id: role.id.clone(),
            owner: SessionOwner::Role,
            terms: terms.clone(),
            secret: secret_access_key(self.random()),
            token: STANDARD.encode(self.random::<96>()),
            expires_at: self.env.now() + duration,
        })
    }
}

/// The session of a temporary key.
pub(crate) fn find_session(snapshot: &Snapshot, access_key_id: &str) -> Option<Arc<SessionRow>> {
    if !access_key_id.starts_with(IdKind::TemporaryAccessKey.prefix()) {
        return None;
    }
    let (owner, region) = installation();
    snapshot
        .read::<Sessions>(&owner, &region, access_key_id)
        .map(|session| session.row)
}

/// The user with this id.
pub(crate) fn find_user(
    snapshot: &Snapshot,
    account: &AccountId,
    id: &str,
) -> Option<Versioned<UserRow>> {
    let region = Region::global();
    let named = snapshot.read::<UserIds>(account, &region, id)?;
    snapshot
        .read::<Users>(account, &region, &named.row.row)
        .filter(|user| user.id == id)
}

/// Who a session is now: nobody, once its role or user is gone.
pub(crate) fn caller_of(snapshot: &Snapshot, session: &SessionRow) -> Option<(Arn, String)> {
    let arn = match &session.owner {
        SessionOwner::Role => {
            let role =
                snapshot.read::<Roles>(&session.account, &Region::global(), &session.role_row)?;
            (role.id == session.role_id).then_some(())?;
            session.arn.clone()
        }
        SessionOwner::User { id, federated } => {
            let user = find_user(snapshot, &session.account, id)?;
            match federated {
                true => session.arn.clone(),
                false => user.arn.clone(),
            }
        }
        SessionOwner::Root { .. } => session.arn.clone(),
    };
    Some((arn, session.user_id.clone()))
}

pub(crate) fn is_session_name(name: &str) -> bool {
    (2..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
}
