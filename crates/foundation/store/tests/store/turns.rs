//! Many requests at one row: everybody gets there, in order, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gantry_store::{
    Changes, CommitError, Key, MemoryStore, Prefix, Revision, Row, Snapshot, Store, Transaction,
    Turns,
};

use crate::backends::key;

/// Lets everybody who is ready look before the first of them commits.
struct Hesitant {
    store: MemoryStore,
    refused: AtomicUsize,
}

#[async_trait]
impl Store for Hesitant {
    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        tokio::task::yield_now().await;
        let outcome = self.store.commit(transaction).await;
        self.refused
            .fetch_add(usize::from(outcome.is_err()), Ordering::Relaxed);
        outcome
    }

    fn watch(&self, prefix: &Prefix, after: Revision) -> Changes {
        self.store.watch(prefix, after)
    }
}

fn hesitant() -> Arc<Hesitant> {
    Arc::new(Hesitant {
        store: MemoryStore::new(),
        refused: AtomicUsize::new(0),
    })
}

fn count(rows: &Snapshot, key: &Key) -> usize {
    let value = rows.get(key).map(|row| row.value().to_vec());
    value.map_or(0, |value| {
        String::from_utf8(value).unwrap().parse().unwrap()
    })
}

/// Adds one to each row, deciding anew until that stands; answers how many attempts it took.
async fn add_one(store: &Hesitant, turns: &Turns, keys: &[Key]) -> usize {
    let mut turn = turns.request();
    for attempt in 1.. {
        turn.come().await;
        let rows = store.snapshot();
        let mut transaction = Transaction::new();
        for key in keys {
            let next = (count(&rows, key) + 1).to_string();
            transaction
                .expect(key.clone(), rows.get(key).map(Row::revision))
                .put(key.clone(), 1, next.into_bytes());
        }
        match turn.commit(store, transaction).await {
            Ok(_) => return attempt,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    unreachable!("attempts have no end")
}

async fn all_add(store: &Arc<Hesitant>, turns: &Arc<Turns>, rows: &[&[Key]]) -> Vec<usize> {
    let mut adding = Vec::new();
    for keys in rows {
        let (store, turns, keys) = (store.clone(), turns.clone(), keys.to_vec());
        adding.push(tokio::spawn(
            async move { add_one(&store, &turns, &keys).await },
        ));
    }
    let mut attempts = Vec::new();
    for one in adding {
        attempts.push(one.await.unwrap());
    }
    attempts
}

/// Without turns the last of two hundred would need two hundred attempts.
#[tokio::test]
async fn a_crowd_at_one_row_is_served_with_few_attempts_each() {
    const CROWD: usize = 200;
    let (store, turns, row) = (hesitant(), Arc::new(Turns::default()), key("row"));
    let attempts = all_add(&store, &turns, &vec![std::slice::from_ref(&row); CROWD]).await;
    assert_eq!(count(&store.snapshot(), &row), CROWD);
    assert!(attempts.iter().max() <= Some(&3), "{attempts:?}");
    assert!(store.refused.load(Ordering::Relaxed) < 2 * CROWD);
}

/// Everybody wants two of three rows, each pair in another order of need.
#[tokio::test]
async fn rows_wanted_crosswise_hold_nobody_up_for_ever() {
    let [a, b, c] = ["a", "b", "c"].map(key);
    let pairs = [
        [a.clone(), b.clone()],
        [b.clone(), c.clone()],
        [c.clone(), a.clone()],
    ];
    let crowd: Vec<&[Key]> = (0..90).map(|at| &pairs[at % 3][..]).collect();
    let (store, turns) = (hesitant(), Arc::new(Turns::default()));
    let attempts = all_add(&store, &turns, &crowd).await;
    for key in [&a, &b, &c] {
        assert_eq!(count(&store.snapshot(), key), 60);
    }
    assert!(attempts.iter().max() <= Some(&8), "{attempts:?}");
}

/// Who gives up while it waits, and who gives up with the turn in its hand, stands in nobody's way.
#[tokio::test]
async fn a_request_that_goes_away_passes_its_turn_on() {
    let (store, turns, row) = (hesitant(), Arc::new(Turns::default()), key("row"));
    let mut gone = Vec::new();
    for _ in 0..20 {
        let (store, turns, row) = (store.clone(), turns.clone(), row.clone());
        gone.push(tokio::spawn(async move {
            add_one(&store, &turns, &[row]).await
        }));
    }
    // Some have committed by now, one has the turn, and the others wait.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for one in &gone {
        one.abort();
    }
    for one in gone {
        let _ = one.await;
    }
    let before = count(&store.snapshot(), &row);
    assert!(before < 20, "nobody was left to go away");
    let attempts = all_add(&store, &turns, &[std::slice::from_ref(&row)]).await;
    assert_eq!(attempts, [1], "the row is still in dispute");
    assert_eq!(count(&store.snapshot(), &row), before + 1);
}
