//! Queue, retries, resync and effects.

use std::sync::Arc;
use std::time::Duration;

use gantry_env::VirtualEnv;
use gantry_store::{CommitError, MemoryStore, Store, Table, Transaction};
use proptest::prelude::*;

use crate::{Counting, Present, Replica, now_or_never, one_replica, place, present, want};

#[test]
fn what_is_wanted_comes_to_be_and_then_nothing_is_planned() {
    let mut one = one_replica();
    want(&*one.store, "a", 3);
    one.work();
    assert_eq!(present(&*one.store, "a"), Some(3));
    let revision = one.store.snapshot().revision();

    // A change while it runs, seen by the watch.
    want(&*one.store, "b", 1);
    assert_eq!(one.work(), 2);
    assert_eq!(present(&*one.store, "b"), Some(1));

    // Run twice, it changes nothing: neither at once nor at the next resync.
    let settled = one.store.snapshot().revision();
    assert!(settled > revision);
    assert_eq!(one.work(), 0);
    one.advance(60);
    let before = one.driver.counters();
    one.keep_lease();
    let held = one.store.snapshot().revision();
    assert_eq!(one.work(), 0);
    let after = one.driver.counters();
    assert_eq!(after.resyncs, before.resyncs + 1);
    assert_eq!(after.reconciled, before.reconciled + 2);
    assert_eq!(one.store.snapshot().revision(), held);
}

#[test]
fn a_key_that_rests_is_looked_at_once_for_all_that_changed_meanwhile() {
    let mut one = one_replica();
    one.work();
    want(&*one.store, "big", 1000);
    one.work();
    let looks = one.driver.counters().reconciled;
    for count in 1001..1010 {
        want(&*one.store, "big", count);
        one.work();
    }
    // Another key does not rest with it.
    want(&*one.store, "small", 1);
    one.work();
    assert_eq!(present(&*one.store, "small"), Some(1));
    let of_small = one.driver.counters().reconciled - looks;
    let rested = one.world.now() + Duration::from_secs(5);
    assert_eq!(one.idle_until(), rested);
    one.advance(5);
    one.work();
    assert_eq!(one.driver.counters().reconciled, looks + of_small + 1);
    // Then it is at rest, and the next change finds it.
    one.advance(5);
    want(&*one.store, "big", 1);
    one.work();
    assert_eq!(present(&*one.store, "big"), Some(1));
}

#[test]
fn a_start_finds_what_a_dead_process_left() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = VirtualEnv::seeded(1);
    want(&*store, "a", 2);
    let mut first = Replica::new(&store, &world, "one");
    first.keep_lease();
    let (_, transaction) = first.plan().unwrap();
    now_or_never(store.commit(transaction)).unwrap();
    drop(first);
    // The same name: it need not wait for the lease of the dead one to expire.
    let mut second = Replica::new(&store, &world, "one");
    second.work();
    assert_eq!(present(&*store, "a"), Some(2));
}

#[test]
fn a_conflict_is_planned_again_from_a_fresh_snapshot() {
    let mut one = one_replica();
    want(&*one.store, "a", 1);
    one.work();
    want(&*one.store, "a", 2);
    let (ticket, transaction) = one.plan().unwrap();
    // Somebody else writes the row in between.
    let (account, region) = place();
    let mut theirs = Transaction::new();
    let row = Present {
        count: 5,
        announced: 0,
    };
    theirs.write::<Present>(&account, &region, "a", &row);
    now_or_never(one.store.commit(theirs)).unwrap();

    let outcome = now_or_never(one.store.commit(transaction));
    assert!(outcome.as_ref().unwrap_err().is_conflict());
    one.finish(ticket, outcome);
    assert_eq!(one.driver.counters().conflicts, 1);
    one.world.advance(Duration::from_millis(1));
    assert_eq!(one.work(), 0);
    assert_eq!(present(&*one.store, "a"), Some(5));
}

#[test]
fn a_failing_key_waits_longer_each_time_and_others_go_on() {
    let mut one = one_replica();
    one.work();
    want(&*one.store, "a", 1);
    let mut waits = Vec::new();
    let (mut ticket, _) = one.plan().unwrap();
    for _ in 0..10 {
        let full = CommitError::Io {
            reason: "the disk is full".into(),
        };
        one.finish(ticket, Err(full));
        let failed_at = one.world.now();
        // A change of the failing key does not cut its wait short; another key is done at once.
        want(&*one.store, "a", 1);
        want(&*one.store, "other", 1);
        assert!(one.work() <= 2);
        ticket = loop {
            one.world.advance(Duration::from_millis(100));
            one.keep_lease();
            if let Some((ticket, _)) = one.plan() {
                break ticket;
            }
        };
        waits.push((one.world.now() - failed_at).as_millis());
    }
    let outcome = Err(CommitError::Io {
        reason: "for the last time".into(),
    });
    one.finish(ticket, outcome);
    one.advance(30);
    assert_eq!(
        waits[..8],
        [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600]
    );
    assert_eq!(waits[8..], [30_000, 30_000]);
    assert_eq!(present(&*one.store, "other"), Some(1));
    // Once the disk takes it, the key is healthy again and its wait begins anew.
    one.work();
    assert_eq!(present(&*one.store, "a"), Some(1));
    assert_eq!(one.driver.counters().errors, 11);
}

#[test]
fn a_controller_that_panics_on_one_key_still_serves_the_others() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut one = one_replica();
    want(&*one.store, "poison", 13);
    want(&*one.store, "z", 1);
    one.work();
    assert_eq!(present(&*one.store, "z"), Some(1));
    assert_eq!(one.driver.counters().panics, 1);
    let _ = std::panic::take_hook();
    want(&*one.store, "poison", 1);
    one.world.advance(Duration::from_secs(1));
    one.work();
    assert_eq!(present(&*one.store, "poison"), Some(1));
}

#[test]
fn a_key_is_looked_at_again_when_its_plan_says() {
    let mut one = one_replica();
    want(&*one.store, "a", 77);
    assert_eq!(one.work(), 0);
    let (now, until) = (one.world.now(), one.idle_until());
    assert_eq!(until - now, Duration::from_secs(10));
    let before = one.driver.counters().reconciled;
    one.world.advance(Duration::from_millis(9_999));
    one.work();
    assert_eq!(one.driver.counters().reconciled, before);
    one.world.advance(Duration::from_millis(1));
    one.work();
    assert_eq!(one.driver.counters().reconciled, before + 1);
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_wait() {
    let mut one = one_replica();
    want(&*one.store, "a", 77);
    one.work();
    let before = one.driver.counters().reconciled;
    one.world
        .set_wall_clock(one.world.now() - Duration::from_secs(3600));
    one.work();
    assert!(one.driver.counters().reconciled > before);
    assert!(one.idle_until() - one.world.now() <= Duration::from_secs(10));
}

#[test]
fn lost_changes_are_made_good_by_looking_at_everything() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_history(10));
    let mut one = Replica::new(&store, &VirtualEnv::seeded(1), "one");
    one.work();
    for number in 0..30 {
        want(&*store, &format!("{number:02}"), 1);
    }
    one.work();
    assert_eq!(one.driver.counters().lost, 1);
    for number in 0..30 {
        assert_eq!(
            present(&*store, &format!("{number:02}")),
            Some(1),
            "{number}"
        );
    }
}

#[test]
fn a_change_during_a_commit_is_not_forgotten() {
    let mut one = one_replica();
    one.work();
    want(&*one.store, "a", 1);
    let (ticket, transaction) = one.plan().unwrap();
    // Wanted more while the commit is under way; the key is not planned twice at once.
    want(&*one.store, "a", 2);
    assert!(one.plan().is_none());
    let outcome = now_or_never(one.store.commit(transaction));
    // What the commit itself changed is seen before its answer has come back.
    assert!(one.plan().is_none());
    one.finish(ticket, outcome);
    one.work();
    assert_eq!(present(&*one.store, "a"), Some(2));
}

#[test]
fn an_effect_is_repeated_until_it_is_seen() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let announcing = Counting { announces: true };
    let mut one = Replica::with(&store, &VirtualEnv::seeded(1), "one", announcing);
    want(&*store, "a", 1);
    one.work();
    assert_eq!(one.effects.len(), 1);
    assert_eq!(one.effects[0].token.as_str(), "a#1#announce");
    // Not before its delay, which doubles; always with the same token.
    for seconds in [1, 2, 4] {
        let at_once = one.work();
        assert_eq!(at_once, 0);
        one.advance(seconds);
        one.work();
    }
    assert_eq!(one.effects.len(), 4);
    assert!(one.effects.iter().all(|effect| *effect == one.effects[0]));
    // Seen, it is never asked for again.
    let (account, region) = place();
    let mut seen = Transaction::new();
    let row = Present {
        count: 1,
        announced: 1,
    };
    seen.write::<Present>(&account, &region, "a", &row);
    now_or_never(store.commit(seen)).unwrap();
    for _ in 0..10 {
        one.work();
        one.advance(30);
    }
    assert_eq!(one.effects.len(), 4);
}

#[test]
fn an_effect_is_not_performed_if_its_commit_failed() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let announcing = Counting { announces: true };
    let mut one = Replica::with(&store, &VirtualEnv::seeded(1), "one", announcing);
    let (account, region) = place();
    let mut transaction = Transaction::new();
    let row = Present {
        count: 1,
        announced: 0,
    };
    transaction.write::<Present>(&account, &region, "a", &row);
    now_or_never(store.commit(transaction)).unwrap();
    want(&*store, "a", 1);
    one.keep_lease();
    let (ticket, transaction) = one.plan().unwrap();
    assert!(!transaction.has_writes());
    one.finish(
        ticket,
        Err(CommitError::Conflict {
            key: Present::key(&account, &region, "a"),
        }),
    );
    assert_eq!(one.effects, []);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is wanted, in whatever order, with commits that fail now and then: once faults
    /// stop, what is wanted is there, and a further run plans nothing.
    #[test]
    fn it_converges(
        steps in prop::collection::vec((0..4u8, 0..5u64, 0..4u8, 0..40u64), 1..60),
    ) {
        let mut one = one_replica();
        let mut wanted = std::collections::BTreeMap::new();
        for (name, count, fault, seconds) in steps {
            let name = name.to_string();
            let highest = wanted.entry(name.clone()).or_insert(0);
            *highest = count.max(*highest);
            want(&*one.store, &name, *highest);
            one.keep_lease();
            if let Some((ticket, transaction)) = one.plan() {
                match fault {
                    0 => one.finish(ticket, Err(CommitError::Io { reason: "fault".into() })),
                    // Committed, but the answer is an error.
                    1 => {
                        let _ = now_or_never(one.store.commit(transaction));
                        one.finish(ticket, Err(CommitError::Io { reason: "fault".into() }));
                    }
                    _ => {
                        let outcome = now_or_never(one.store.commit(transaction));
                        one.finish(ticket, outcome);
                    }
                }
            }
            one.advance(seconds);
        }
        for _ in 0..5 {
            one.work();
            one.advance(60);
        }
        for (name, count) in wanted {
            prop_assert_eq!(present(&*one.store, &name), Some(count));
        }
        one.keep_lease();
        prop_assert_eq!(one.work(), 0);
    }
}
