//! Nodes: the tokens by which agents join, and the keys that they get for them.
//!
//! What always holds: a token is signed, ends, is good for a number of joins, and can be revoked; a join
//! that is repeated because its answer was lost counts once and gives the same key. A node's key stands
//! for one node of one cluster ([`NodePrincipal`]) and is durable before it is handed out. The agent
//! that runs inside `gantry up` has a key of the same kind.
//! What it leaves to others: what a node may do (`gantry_ecs::acs::permissions`), and the way a token
//! and an answer travel (the binary).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::Principal;
use gantry_api::auth::Credential;
use gantry_api::auth::node::NodePrincipal;
use gantry_arn::{AccountId, ClusterName, Region};
use gantry_env::{Env, Timestamp};
use gantry_store::{CommitError, Snapshot, Store, Table, Transaction};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::ids::{IdKind, secret_access_key, unique_id};
use crate::tables::{SERVICE, installation};

/// How long a token is good for when nobody says otherwise.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
pub const LONGEST_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// An ended token is still listed for a while, so that one sees what became of it.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// How many ended tokens one creation clears away: more than it adds, so none pile up.
const SWEEP: usize = 16;
const ATTEMPTS: usize = 32;
/// Longer than any token made here.
const TOKEN_BYTES_MAX: usize = 4096;
/// The least that an agent may draw to be known by when it asks again.
const NONCE_BYTES_MIN: usize = 16;
/// The node inside `gantry up`.
const LOCAL: &str = "local";
const SECRET: &str = "join-tokens";

macro_rules! table {
    ($table:ident, $row:ty, $kind:literal) => {
        #[derive(Clone, Copy, Debug)]
        struct $table;

        impl Table for $table {
            type Row = $row;
            const SERVICE: &'static str = SERVICE;
            const KIND: &'static str = $kind;
            const SCHEMA: u16 = 1;
        }
    };
}

// Named by the token's id.
table!(JoinTokens, JoinTokenRow, "join-token");
// Named by the access key id.
table!(NodeKeys, NodeKeyRow, "node-key");
// Which key a node has: named by the node's id, or `local`.
table!(NodeHolders, NodeHolderRow, "node-holder");
// What tokens are signed with. One row.
table!(Secrets, SecretRow, "node-secret");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct JoinTokenRow {
    account: AccountId,
    region: Region,
    cluster: ClusterName,
    created_at: Timestamp,
    expires_at: Timestamp,
    /// How many nodes may join with it, and how many have.
    uses: u32,
    used: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NodeKeyRow {
    node: String,
    account: AccountId,
    region: Region,
    cluster: ClusterName,
    secret: String,
    created_at: Timestamp,
    /// The token that it joined with; none for the node inside `gantry up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeHolderRow {
    access_key_id: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SecretRow {
    hex: String,
}

/// A join token as its maker sees it afterwards: everything but the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub id: String,
    pub region: Region,
    pub cluster: ClusterName,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub uses: u32,
    pub used: u32,
    pub revoked: bool,
}

/// What a node signs with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    pub node: String,
    pub account: AccountId,
    pub region: Region,
    pub cluster: ClusterName,
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey")
            .field("node", &self.node)
            .field("cluster", &self.cluster)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Why nobody joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("the token is not one of this installation's")]
    Invalid,
    #[error("the token has ended; `gantry token` makes a new one")]
    Expired,
    #[error("the token was revoked")]
    Revoked,
    #[error("as many nodes have joined with this token as it was made for")]
    Used,
    #[error("a node must draw at least {NONCE_BYTES_MIN} bytes to be known by")]
    Nonce,
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// What is inside a token, under its signature.
#[derive(Serialize, Deserialize)]
struct Claims {
    id: String,
    expires_at: Timestamp,
}

/// Makes tokens, takes them, and knows the keys. Cloning shares it.
#[derive(Clone)]
pub struct Nodes {
    store: Arc<dyn Store>,
    env: Env,
}

impl Nodes {
    pub fn new(store: Arc<dyn Store>, env: Env) -> Nodes {
        Nodes { store, env }
    }

    /// A token with which `uses` nodes may join a cluster until it ends.
    pub async fn create_token(
        &self,
        (account, region, cluster): (AccountId, Region, ClusterName),
        lifetime: Duration,
        uses: u32,
    ) -> Result<(String, JoinToken), CommitError> {
        let secret = self.secret().await?;
        let id = hex(&self.random::<8>());
        let now = self.env.now();
        let row = JoinTokenRow {
            account,
            region,
            cluster,
            created_at: now,
            expires_at: now + lifetime.min(LONGEST_TOKEN_LIFETIME),
            uses,
            used: 0,
            revoked_at: None,
        };
        let (owner, here) = installation();
        let mut transaction = Transaction::new();
        transaction.create::<JoinTokens>(&owner, &here, &id, &row);
        let snapshot = self.store.snapshot();
        let ended = snapshot
            .list_prefix::<JoinTokens>(&owner, &here, "")
            .into_iter()
            .filter(|token| now.since(token.expires_at) > REMEMBERED)
            .take(SWEEP);
        for token in ended {
            transaction.delete(token.key.clone());
        }
        self.store.commit(transaction).await?;
        let claims = Claims {
            id: id.clone(),
            expires_at: row.expires_at,
        };
        Ok((claims.token(&secret), listed(&id, &row)))
    }

    /// Every token that is remembered, the newest last.
    pub fn tokens(&self) -> Vec<JoinToken> {
        let (owner, here) = installation();
        let rows = self
            .store
            .snapshot()
            .list_prefix::<JoinTokens>(&owner, &here, "");
        let mut tokens: Vec<JoinToken> = rows.iter().map(|row| listed(row.name(), row)).collect();
        tokens.sort_by_key(|token| token.created_at);
        tokens
    }

    /// Nobody joins with this token any more. `with_nodes` also ends the keys of those who have. The
    /// answer is how many keys that were; `None` where there is no such token.
    pub async fn revoke(&self, id: &str, with_nodes: bool) -> Result<Option<usize>, CommitError> {
        let (owner, here) = installation();
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot();
            let Some(read) = snapshot.read::<JoinTokens>(&owner, &here, id) else {
                return Ok(None);
            };
            let mut row = (*read.row).clone();
            row.revoked_at.get_or_insert(self.env.now());
            let mut transaction = Transaction::new();
            transaction.update::<JoinTokens>(&read, &row);
            match self.store.commit(transaction).await {
                Ok(_) => break,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        if !with_nodes {
            return Ok(Some(0));
        }
        // Nobody joins any more, so these are all. One commit each, because there may be many.
        let keys = self
            .store
            .snapshot()
            .list_prefix::<NodeKeys>(&owner, &here, "");
        let mut ended = 0;
        for key in keys.iter().filter(|key| key.token.as_deref() == Some(id)) {
            let mut transaction = Transaction::new();
            transaction.delete(key.key.clone());
            if let Some(holder) = self
                .store
                .snapshot()
                .read::<NodeHolders>(&owner, &here, &key.node)
            {
                transaction.delete(holder.key.clone());
            }
            match self.store.commit(transaction).await {
                Ok(_) => ended += 1,
                // Somebody else ends it.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(ended))
    }

    /// A node joins. `nonce` is what its agent drew: the same one again is the same node.
    pub async fn join(&self, token: &str, nonce: &[u8]) -> Result<NodeKey, JoinError> {
        if nonce.len() < NONCE_BYTES_MIN {
            return Err(JoinError::Nonce);
        }
        let claims = Claims::of(token, &self.secret().await?)?;
        let node = node_of(nonce);
        let (owner, here) = installation();
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot();
            let Some(read) = snapshot.read::<JoinTokens>(&owner, &here, &claims.id) else {
                return Err(JoinError::Invalid);
            };
            if read.revoked_at.is_some() {
                return Err(JoinError::Revoked);
            }
            if self.env.now() >= claims.expires_at {
                return Err(JoinError::Expired);
            }
            if let Some(key) = held(&snapshot, &node) {
                return Ok(key);
            }
            if read.used >= read.uses {
                return Err(JoinError::Used);
            }
            let mut row = (*read.row).clone();
            row.used += 1;
            let mut transaction = Transaction::new();
            transaction.update::<JoinTokens>(&read, &row);
            let place = (row.account, row.region, row.cluster);
            let key = self.new_key(
                &mut transaction,
                &node,
                node.clone(),
                place,
                Some(&claims.id),
            );
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(key),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(JoinError::Used)
    }

    /// The key of the node inside `gantry up`, made if it is not there.
    pub async fn local(
        &self,
        place: (AccountId, Region, ClusterName),
    ) -> Result<NodeKey, CommitError> {
        loop {
            if let Some(key) = held(&self.store.snapshot(), LOCAL) {
                return Ok(key);
            }
            let mut transaction = Transaction::new();
            let node = hex(&self.random::<8>());
            let key = self.new_key(&mut transaction, LOCAL, node, place.clone(), None);
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(key),
                // Another one was faster; its key is the one.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn new_key(
        &self,
        transaction: &mut Transaction,
        holder: &str,
        node: String,
        (account, region, cluster): (AccountId, Region, ClusterName),
        token: Option<&str>,
    ) -> NodeKey {
        let (owner, here) = installation();
        let access_key_id = unique_id(IdKind::LongTermAccessKey, self.random());
        let row = NodeKeyRow {
            node,
            account,
            region,
            cluster,
            secret: secret_access_key(self.random()),
            created_at: self.env.now(),
            token: token.map(str::to_owned),
        };
        let held_by = NodeHolderRow {
            access_key_id: access_key_id.clone(),
        };
        transaction.create::<NodeKeys>(&owner, &here, &access_key_id, &row);
        transaction.create::<NodeHolders>(&owner, &here, holder, &held_by);
        key_of(access_key_id, row)
    }

    /// What an access key stands for, if it is a node's.
    pub(crate) fn find(snapshot: &Snapshot, access_key_id: &str) -> Option<Credential> {
        let (owner, here) = installation();
        let row = snapshot.read::<NodeKeys>(&owner, &here, access_key_id)?;
        let node = NodePrincipal {
            account: row.account,
            region: row.region.clone(),
            cluster: row.cluster.clone(),
            node: row.node.clone(),
        };
        Some(Credential {
            secret: row.secret.clone(),
            session_token: None,
            expiration: None,
            account: row.account,
            principal: Principal {
                arn: node.arn(),
                user_id: format!("AROAGANTRYNODE:{}", row.node),
                access_key_id: access_key_id.to_owned(),
            },
        })
    }

    /// A name that only this installation can make out of `what`: the same each time, and not to be
    /// guessed. The address where a container gets its credentials is made of one.
    pub async fn unguessable(&self, what: &str) -> Result<String, CommitError> {
        let secret = self.secret().await?;
        let mac = mac(&secret, b"gantry name 1\0", what.as_bytes());
        let name = hex(&mac.finalize().into_bytes()[..16]);
        // In the form of a UUID, as at AWS.
        Ok(format!(
            "{}-{}-{}-{}-{}",
            &name[..8],
            &name[8..12],
            &name[12..16],
            &name[16..20],
            &name[20..]
        ))
    }

    async fn secret(&self) -> Result<String, CommitError> {
        let (owner, here) = installation();
        loop {
            let snapshot = self.store.snapshot();
            if let Some(row) = snapshot.read::<Secrets>(&owner, &here, SECRET) {
                return Ok(row.hex.clone());
            }
            let row = SecretRow {
                hex: hex(&self.random::<32>()),
            };
            let mut transaction = Transaction::new();
            transaction.create::<Secrets>(&owner, &here, SECRET, &row);
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(row.hex),
                // Another one was faster; its secret is the one.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.entropy.fill(&mut bytes);
        bytes
    }
}

impl Claims {
    fn token(&self, secret: &str) -> String {
        // Two texts and a number always encode.
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default());
        let signature = mac(secret, b"gantry join 1\0", claims.as_bytes()).finalize();
        format!(
            "gj1.{claims}.{}",
            URL_SAFE_NO_PAD.encode(signature.into_bytes())
        )
    }

    fn of(token: &str, secret: &str) -> Result<Claims, JoinError> {
        let read = || {
            if token.len() > TOKEN_BYTES_MAX {
                return None;
            }
            let (claims, signature) = token.trim().strip_prefix("gj1.")?.split_once('.')?;
            let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
            // `verify_slice` compares in constant time.
            mac(secret, b"gantry join 1\0", claims.as_bytes())
                .verify_slice(&signature)
                .ok()?;
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
        };
        read().ok_or(JoinError::Invalid)
    }
}

/// For `fuzzing`: a join token that no row knows of.
pub(crate) fn sealed(id: &str, expires_at: Timestamp, secret: &str) -> String {
    let id = id.to_owned();
    Claims { id, expires_at }.token(secret)
}

/// For `fuzzing`: the id in a join token of this secret.
pub(crate) fn opened(token: &str, secret: &str) -> Option<String> {
    Claims::of(token, secret).ok().map(|claims| claims.id)
}

fn mac(secret: &str, label: &[u8], text: &[u8]) -> Hmac<Sha256> {
    // As long as a block, so that any secret is a key. The label keeps what was signed for one purpose
    // from being taken for another.
    let mut key = [0; 64];
    let bytes = secret.as_bytes();
    let length = bytes.len().min(key.len());
    key[..length].copy_from_slice(&bytes[..length]);
    <Hmac<Sha256> as Mac>::new(&key.into())
        .chain_update(label)
        .chain_update(text)
}

/// The node of what an agent drew. The nonce itself is nowhere kept.
fn node_of(nonce: &[u8]) -> String {
    let digest = Sha256::new()
        .chain_update(b"gantry node 1\0")
        .chain_update(nonce)
        .finalize();
    hex(&digest[..8])
}

fn held(snapshot: &Snapshot, holder: &str) -> Option<NodeKey> {
    let (owner, here) = installation();
    let held = snapshot.read::<NodeHolders>(&owner, &here, holder)?;
    let row = snapshot.read::<NodeKeys>(&owner, &here, &held.access_key_id)?;
    Some(key_of(held.access_key_id.clone(), (*row.row).clone()))
}

fn key_of(access_key_id: String, row: NodeKeyRow) -> NodeKey {
    NodeKey {
        node: row.node,
        account: row.account,
        region: row.region,
        cluster: row.cluster,
        access_key_id,
        secret_access_key: row.secret,
    }
}

fn listed(id: &str, row: &JoinTokenRow) -> JoinToken {
    JoinToken {
        id: id.to_owned(),
        region: row.region.clone(),
        cluster: row.cluster.clone(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        uses: row.uses,
        used: row.used,
        revoked: row.revoked_at.is_some(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
