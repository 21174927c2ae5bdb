//! The driver on virtual time: a small controller, pumped by hand.

mod driving;
mod leases;
mod shell;

use std::sync::Arc;
use std::time::Duration;

use gantry_arn::{AccountId, Region};
use gantry_env::{Timestamp, VirtualEnv};
use gantry_reconcile::{
    Controller, Drive, Driver, Effect, EffectToken, LeaseHandle, LeaseKeeper, LeaseTimes, Limits,
    Plan, Step, Ticket,
};
use gantry_store::{
    CommitError, MemoryStore, Prefix, Revision, RowChange, Snapshot, Store, Table, Transaction,
};
use serde::{Deserialize, Serialize};

/// How many of something the user wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub count: u64,
}

/// How many there are. Its writer is the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Present {
    pub count: u64,
    /// Seen by the controller when another service has done what it was asked.
    pub announced: u64,
}

impl Table for Wanted {
    type Row = Self;
    const SERVICE: &'static str = "test";
    const KIND: &'static str = "wanted";
    const SCHEMA: u16 = 1;
}

impl Table for Present {
    type Row = Self;
    const SERVICE: &'static str = "test";
    const KIND: &'static str = "present";
    const SCHEMA: u16 = 1;
}

/// Brings `present` to `wanted` one at a time, and has the result announced.
pub struct Counting {
    pub announces: bool,
}

impl Controller for Counting {
    type Key = String;

    fn name(&self) -> &'static str {
        "counting"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![Wanted::everywhere(), Present::everywhere()]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<String> {
        vec![change.key.name().to_owned()]
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<String> {
        let all = snapshot.list_everywhere::<Wanted>();
        all.iter().map(|row| row.name().to_owned()).collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &String) -> Plan {
        let (account, region) = place();
        let Some(wanted) = snapshot.read::<Wanted>(&account, &region, key) else {
            return Plan::nothing();
        };
        assert_ne!(wanted.count, 13, "the test's poison");
        if wanted.count == 77 {
            return Plan::wait_until(now + Duration::from_secs(10));
        }
        if wanted.count >= 1000 {
            // Much to look at.
            return Plan {
                rests_until: Some(now + Duration::from_secs(5)),
                ..Plan::nothing()
            };
        }
        let present = snapshot.read::<Present>(&account, &region, key);
        let mut plan = Plan::nothing();
        match &present {
            None => {
                let row = Present {
                    count: 0,
                    announced: 0,
                };
                plan.transaction
                    .create::<Present>(&account, &region, key, &row);
            }
            Some(present) if present.count < wanted.count => {
                let row = Present {
                    count: present.count + 1,
                    ..(*present.row).clone()
                };
                plan.transaction.update::<Present>(present, &row);
            }
            Some(present) if self.announces && present.announced < present.count => {
                plan.effects.push(Effect {
                    token: EffectToken::derive(key, present.count, "announce"),
                    operation: "test:Announce",
                    input: serde_json::json!({ "count": present.count }),
                });
            }
            Some(_) => {}
        }
        plan
    }
}

pub fn place() -> (AccountId, Region) {
    (AccountId::default(), Region::default())
}

pub fn want(store: &dyn Store, name: &str, count: u64) {
    let (account, region) = place();
    let mut transaction = Transaction::new();
    transaction.write::<Wanted>(&account, &region, name, &Wanted { count });
    now_or_never(store.commit(transaction)).unwrap();
}

pub fn present(store: &dyn Store, name: &str) -> Option<u64> {
    let (account, region) = place();
    let row = store.snapshot().read::<Present>(&account, &region, name);
    row.map(|row| row.count)
}

/// A commit to a store in memory is done when it is first polled.
pub fn now_or_never<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("a store in memory never waits"),
    }
}

/// One replica: a keeper and a driver on a shared store, with time moved by hand.
pub struct Replica {
    pub store: Arc<dyn Store>,
    pub world: VirtualEnv,
    pub keeper: LeaseKeeper,
    pub driver: Box<dyn Drive>,
    pub effects: Vec<Effect>,
}

impl Replica {
    pub fn new(store: &Arc<dyn Store>, world: &VirtualEnv, owner: &str) -> Self {
        Self::with(store, world, owner, Counting { announces: false })
    }

    pub fn with(
        store: &Arc<dyn Store>,
        world: &VirtualEnv,
        owner: &str,
        controller: Counting,
    ) -> Self {
        let keeper = LeaseKeeper::new("test", 0, owner, LeaseTimes::default());
        let handle: LeaseHandle = keeper.handle();
        let driver = Driver::new(controller, store.clone(), handle, Limits::default());
        Self {
            store: store.clone(),
            world: world.clone(),
            keeper,
            driver: Box::new(driver),
            effects: Vec::new(),
        }
    }

    pub fn keep_lease(&mut self) {
        let now = self.world.now();
        while let Some(transaction) = self.keeper.step(&self.store.snapshot(), now) {
            let outcome = now_or_never(self.store.commit(transaction));
            self.keeper.committed(now, &outcome);
        }
    }

    /// The next commit the driver wants at this moment.
    pub fn plan(&mut self) -> Option<(Ticket, Transaction)> {
        match self.driver.step(self.world.now()) {
            Step::Commit(ticket, transaction) => Some((ticket, transaction)),
            Step::Idle(_) => None,
        }
    }

    pub fn finish(&mut self, ticket: Ticket, outcome: Result<Revision, CommitError>) {
        let effects = self.driver.committed(self.world.now(), ticket, outcome);
        self.effects.extend(effects);
    }

    /// Works until there is nothing to do at this moment; gives how many commits that took.
    pub fn work(&mut self) -> usize {
        self.keep_lease();
        let mut commits = 0;
        while let Some((ticket, transaction)) = self.plan() {
            let outcome = now_or_never(self.store.commit(transaction));
            self.finish(ticket, outcome);
            commits += 1;
            assert!(commits < 10_000, "it never comes to rest");
        }
        commits
    }

    /// When the driver wants to be stepped again.
    pub fn idle_until(&mut self) -> Timestamp {
        match self.driver.step(self.world.now()) {
            Step::Idle(until) => until,
            Step::Commit(..) => panic!("there is something to do"),
        }
    }

    pub fn advance(&mut self, seconds: u64) {
        self.world.advance(Duration::from_secs(seconds));
    }
}

pub fn one_replica() -> Replica {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    Replica::new(&store, &VirtualEnv::seeded(1), "one")
}
