//! The thin shell, on tokio and real time, over a store in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gantry_env::Env;
use gantry_reconcile::{
    Driver, Effect, EffectSink, LeaseKeeper, LeaseTimes, Limits, run, run_lease,
};
use gantry_store::{MemoryStore, Store, Table, Transaction};
use tokio::sync::oneshot;

use crate::{Counting, Present, place, present, want};

/// The other service: it does what it is asked, now and then not at the first time.
struct Announcer {
    store: Arc<dyn Store>,
    asked: Mutex<u32>,
}

#[async_trait]
impl EffectSink for Announcer {
    async fn perform(&self, effect: &Effect) -> Result<(), String> {
        *self.asked.lock().unwrap() += 1;
        if *self.asked.lock().unwrap() == 1 {
            return Err("not now".to_owned());
        }
        let (account, region) = place();
        let read = self
            .store
            .snapshot()
            .read::<Present>(&account, &region, "a")
            .unwrap();
        let row = Present {
            announced: effect.input["count"].as_u64().unwrap(),
            ..(*read.row).clone()
        };
        let mut transaction = Transaction::new();
        transaction.update::<Present>(&read, &row);
        self.store
            .commit(transaction)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

#[test]
fn the_shell_does_what_the_core_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let env = Env::real();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let keeper = LeaseKeeper::new("test", 0, "one", LeaseTimes::default());
        let limits = Limits {
            effect_delay: (Duration::from_millis(5), Duration::from_millis(50)),
            ..Limits::default()
        };
        let driver = Driver::new(
            Counting { announces: true },
            store.clone(),
            keeper.handle(),
            limits,
        );
        let sink = Arc::new(Announcer {
            store: store.clone(),
            asked: Mutex::new(0),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (stop_lease, lease_stopped) = oneshot::channel::<()>();
        let leasing = tokio::spawn(run_lease(store.clone(), keeper, env.clone(), async {
            let _ = lease_stopped.await;
        }));
        let driving = tokio::spawn(run(
            store.clone(),
            vec![Box::new(driver)],
            sink,
            env,
            async {
                let _ = stopped.await;
            },
        ));

        let mut changes = store.watch(&Present::everywhere(), store.snapshot().revision());
        want(&*store, "a", 3);
        let (account, region) = place();
        let announced = || {
            let row = store.snapshot().read::<Present>(&account, &region, "a");
            row.map_or(0, |row| row.announced)
        };
        while announced() < 3 {
            tokio::time::timeout(Duration::from_secs(20), changes.next())
                .await
                .unwrap();
        }
        assert_eq!(present(&*store, "a"), Some(3));

        let _ = stop.send(());
        driving.await.unwrap();
        let _ = stop_lease.send(());
        leasing.await.unwrap();
        let lease = store
            .snapshot()
            .list_everywhere::<gantry_reconcile::Lease>();
        assert_eq!(lease[0].owner, "");
    });
}
