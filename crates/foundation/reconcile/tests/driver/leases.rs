//! Who may write: taking, renewing, losing, and writing too late.

use std::sync::Arc;
use std::time::Duration;

use gantry_env::VirtualEnv;
use gantry_store::{CommitError, MemoryStore, Store};

use crate::{Replica, now_or_never, present, want};

fn two() -> (Arc<dyn Store>, VirtualEnv, Replica, Replica) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = VirtualEnv::seeded(1);
    let one = Replica::new(&store, &world, "one");
    let two = Replica::new(&store, &world, "two");
    (store, world, one, two)
}

#[test]
fn of_two_owners_one_holds_the_lease_and_only_that_one_works() {
    let (store, world, mut one, mut two) = two();
    want(&*store, "a", 3);
    one.keep_lease();
    two.keep_lease();
    assert!(one.keeper.is_held() && !two.keeper.is_held());
    assert_eq!(two.work(), 0);
    assert_eq!(two.driver.counters().reconciled, 0);
    one.work();
    assert_eq!(present(&*store, "a"), Some(3));
    // Renewed in time, it is never lost, however long this goes on.
    for _ in 0..100 {
        world.advance(Duration::from_secs(10));
        one.keep_lease();
        two.keep_lease();
        assert!(one.keeper.is_held() && !two.keeper.is_held());
    }
}

#[test]
fn both_may_try_at_once_and_one_gets_it() {
    let (store, world, mut one, mut two) = two();
    let snapshot = store.snapshot();
    let mine = one.keeper.step(&snapshot, world.now()).unwrap();
    let theirs = two.keeper.step(&snapshot, world.now()).unwrap();
    let theirs = now_or_never(store.commit(theirs));
    let mine = now_or_never(store.commit(mine));
    assert!(theirs.is_ok() && mine.as_ref().unwrap_err().is_conflict());
    one.keeper.committed(world.now(), &mine);
    two.keeper.committed(world.now(), &theirs);
    one.keep_lease();
    assert!(!one.keeper.is_held() && two.keeper.is_held());
}

#[test]
fn an_owner_that_falls_silent_is_succeeded_and_can_no_longer_write() {
    let (store, world, mut one, mut two) = two();
    want(&*store, "a", 2);
    one.keep_lease();
    two.keep_lease();
    let (ticket, late) = one.plan().unwrap();
    // The first stands still, in the middle of a commit, for longer than its lease.
    world.advance(Duration::from_secs(61));
    two.work();
    assert!(two.keeper.is_held());
    assert_eq!(present(&*store, "a"), Some(2));
    // What it had planned conflicts on the lease, whatever else it would have written.
    let before = store.snapshot().revision();
    let outcome = now_or_never(store.commit(late));
    let Err(CommitError::Conflict { key }) = &outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((key.kind(), key.name()), ("lease", "test/0"));
    one.finish(ticket, outcome);
    assert_eq!(store.snapshot().revision(), before);
    // Nor does it plan anything more, even before its keeper has noticed.
    want(&*store, "b", 1);
    assert!(one.plan().is_none());
    one.keep_lease();
    assert!(!one.keeper.is_held());
    two.work();
    assert_eq!(present(&*store, "b"), Some(1));
}

#[test]
fn a_new_owner_looks_at_everything() {
    let (store, world, mut one, mut two) = two();
    one.work();
    two.keep_lease();
    // While nobody works, something is wanted; the second one's watch began long before.
    want(&*store, "a", 1);
    world.advance(Duration::from_secs(61));
    two.work();
    assert_eq!(present(&*store, "a"), Some(1));
}

#[test]
fn a_lease_that_is_given_up_is_taken_at_once() {
    let (store, world, mut one, mut two) = two();
    one.keep_lease();
    two.keep_lease();
    let release = one.keeper.release(&store.snapshot(), world.now()).unwrap();
    now_or_never(store.commit(release)).unwrap();
    assert!(!one.keeper.is_held());
    // As soon as the second looks again.
    world.advance(two.keeper.next_step() - world.now());
    two.keep_lease();
    assert!(two.keeper.is_held());
    assert!(one.keeper.release(&store.snapshot(), world.now()).is_none());
}

#[test]
fn an_owner_that_cannot_renew_stops_by_itself() {
    let (store, world, mut one, _) = two();
    one.keep_lease();
    let full = || {
        Err(CommitError::Io {
            reason: "the disk is full".into(),
        })
    };
    for _ in 0..120 {
        world.advance(Duration::from_secs(1));
        if one.keeper.step(&store.snapshot(), world.now()).is_some() {
            one.keeper.committed(world.now(), &full());
        }
    }
    assert!(!one.keeper.is_held());
    want(&*store, "a", 1);
    assert!(one.plan().is_none());
    // The disk takes writes again: so does it.
    world.advance(Duration::from_secs(1));
    one.work();
    assert_eq!(present(&*store, "a"), Some(1));
}

#[test]
fn a_process_that_restarts_under_its_name_fences_the_one_before() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = VirtualEnv::seeded(1);
    let mut before = Replica::new(&store, &world, "one");
    want(&*store, "a", 1);
    before.keep_lease();
    let (_, late) = before.plan().unwrap();
    let mut after = Replica::new(&store, &world, "one");
    after.work();
    assert!(after.keeper.is_held());
    assert!(now_or_never(store.commit(late)).unwrap_err().is_conflict());
    assert!(before.plan().is_none());
}

/// Two owners with pauses of any length: never do both write in one term, and every write is made
/// by the one whose term the row shows.
#[test]
fn however_they_are_paused_only_one_writes_at_a_time() {
    for seed in 0..50 {
        let (store, world, one, two) = two();
        let chance = VirtualEnv::seeded(seed).env().entropy;
        let mut replicas = [one, two];
        let mut late: [Option<_>; 2] = [None, None];
        for round in 0..200 {
            want(&*store, &(chance.u64() % 5).to_string(), round);
            let which = (chance.u64() % 2) as usize;
            match chance.u64() % 4 {
                0 => replicas[which].keep_lease(),
                1 if late[which].is_none() => late[which] = replicas[which].plan(),
                2 => {
                    if let Some((ticket, transaction)) = late[which].take() {
                        let holder_before =
                            replicas.each_ref().map(|replica| replica.keeper.is_held());
                        let outcome = now_or_never(store.commit(transaction));
                        let fenced = !holder_before[which];
                        assert!(
                            !(fenced && outcome.is_ok()),
                            "seed {seed}: written without a lease"
                        );
                        replicas[which].finish(ticket, outcome);
                    }
                }
                _ => world.advance(Duration::from_secs(chance.u64() % 40)),
            }
        }
        // The faults stop: it converges.
        for _ in 0..10 {
            for (which, replica) in replicas.iter_mut().enumerate() {
                if let Some((ticket, transaction)) = late[which].take() {
                    let outcome = now_or_never(store.commit(transaction));
                    replica.finish(ticket, outcome);
                }
                replica.work();
            }
            world.advance(Duration::from_secs(30));
        }
        let wanted = store.snapshot().list_everywhere::<crate::Wanted>();
        for row in wanted {
            assert_eq!(present(&*store, row.name()), Some(row.count), "seed {seed}");
        }
    }
}
