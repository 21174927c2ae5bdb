//! What a controller is, and what it plans.

use std::fmt;

use async_trait::async_trait;
use gantry_env::Timestamp;
use gantry_store::{Prefix, RowChange, Snapshot, Transaction};

/// Brings one kind of resource to where it should be. Pure: no I/O, clock or randomness.
pub trait Controller: Send + Sync {
    /// What it reconciles one at a time, a service or a task for instance.
    type Key: Ord + Clone + fmt::Debug + Send;

    /// For metrics and logs.
    fn name(&self) -> &'static str;

    /// The rows that it reads.
    fn watches(&self) -> Vec<Prefix>;

    /// The keys that a changed row concerns. A deleted row is in [`RowChange::latest`].
    fn keys_of(&self, change: &RowChange) -> Vec<Self::Key>;

    /// Every key there is: at start-up, at each resync, and when changes were lost.
    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Self::Key>;

    /// What to do about `key`. Run again on the rows that this leads to, it plans nothing, save
    /// for effects that cannot be seen yet.
    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Self::Key) -> Plan;

    /// The commit of the last plan for `key` was made or refused: what the controller set aside for
    /// it while that was open can be let go. Nothing may rest on being told.
    fn settled(&self, key: &Self::Key) {
        let _ = key;
    }
}

/// What a controller wants done, in one commit.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub transaction: Transaction,
    /// Handed out once the transaction is committed, and repeated until a plan has them no more.
    pub effects: Vec<Effect>,
    /// When to look at this key again even if no row changes.
    pub again_at: Option<Timestamp>,
    /// Rows that change before then are looked at together then, so that a key that is much to look
    /// at is not looked at for each of many changes.
    pub rests_until: Option<Timestamp>,
}

impl Plan {
    /// Nothing to do.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Nothing to do before `at`.
    pub fn wait_until(at: Timestamp) -> Self {
        Self {
            again_at: Some(at),
            ..Self::default()
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.transaction.is_empty() && self.effects.is_empty()
    }
}

impl From<Transaction> for Plan {
    fn from(transaction: Transaction) -> Self {
        Self {
            transaction,
            ..Self::default()
        }
    }
}

/// Something to be done by another service, through its API.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub token: EffectToken,
    /// Which operation of which service, such as `elasticloadbalancing:RegisterTargets`.
    pub operation: &'static str,
    /// The operation's input as JSON.
    pub input: serde_json::Value,
}

/// Names one effect for ever: whoever receives it twice does it once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectToken(String);

impl EffectToken {
    /// `generation` counts the versions of what the user asked for; `step` names the effect among
    /// those that one version needs.
    pub fn derive(resource: &str, generation: u64, step: &str) -> Self {
        Self(format!("{resource}#{generation}#{step}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EffectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Performs effects. An error need only be logged: what cannot be seen afterwards is handed out again.
#[async_trait]
pub trait EffectSink: Send + Sync {
    async fn perform(&self, effect: &Effect) -> Result<(), String>;
}
