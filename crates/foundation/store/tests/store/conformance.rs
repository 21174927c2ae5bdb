//! What every backend must do alike.

use std::sync::Arc;

use gantry_arn::{AccountId, Region};
use gantry_store::{
    Change, CommitError, MAX_BYTES, MAX_OPERATIONS, Prefix, Revision, Store, Table, Transaction,
};
use serde::{Deserialize, Serialize};

use crate::backends::{self, key, key_in, rows, run};

/// Makes one test a backend out of each function.
macro_rules! on_every_backend {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $test() {
                let backend = super::backends::memory();
                super::$test(backend.store.clone());
            })*
        }
        mod sqlite {
            $(#[test] fn $test() {
                let backend = super::backends::sqlite();
                super::$test(backend.store.clone());
            })*
        }
    };
}

on_every_backend!(
    a_new_store_has_an_incarnation_at_revision_one,
    a_commit_is_whole_and_takes_one_revision,
    a_transaction_that_changes_nothing_takes_no_revision,
    a_row_that_changed_is_a_conflict_and_nothing_is_written,
    a_row_that_must_not_exist_is_a_conflict,
    contradicting_expectations_never_hold,
    a_deleted_and_recreated_row_is_not_the_one_that_was_read,
    the_limits_hold_to_the_operation_and_the_byte,
    a_snapshot_never_changes,
    scans_are_ordered_and_stay_within_their_prefix,
    a_watcher_sees_each_change_once_and_in_order,
    a_watcher_sees_only_its_prefixes,
    a_watcher_is_woken_by_a_commit,
    a_slow_watcher_is_told_lost_and_reloads_at_one_revision,
    a_watch_from_a_future_revision_is_lost,
    typed_rows_are_read_listed_and_expected,
    rows_by_many_names_are_those_by_each_name,
    an_older_schema_is_upgraded_and_a_newer_one_refused,
    concurrent_increments_lose_nothing,
    any_text_is_a_name_and_any_bytes_are_a_value,
);

type AStore = Arc<dyn Store>;

fn put(name: &str, value: &str) -> Transaction {
    let mut transaction = Transaction::new();
    transaction.put(key(name), 1, value.to_owned());
    transaction
}

fn commit(store: &AStore, transaction: Transaction) -> Revision {
    run(store.commit(transaction)).unwrap()
}

fn a_new_store_has_an_incarnation_at_revision_one(store: AStore) {
    assert_eq!(store.snapshot().revision(), Revision(1));
    assert_eq!(store.snapshot().len(), 1);
    assert!(!store.incarnation().is_empty());
    assert_eq!(store.incarnation(), store.incarnation());
}

fn a_commit_is_whole_and_takes_one_revision(store: AStore) {
    let mut transaction = put("a", "1");
    transaction.put(key("b"), 7, "2");
    assert_eq!(commit(&store, transaction), Revision(2));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.revision(), Revision(2));
    let b = snapshot.get(&key("b")).unwrap();
    assert_eq!((b.schema(), b.revision()), (7, Revision(2)));
    assert_eq!(b.value().as_ref(), b"2");

    let mut transaction = put("a", "3");
    transaction.delete(key("b"));
    assert_eq!(commit(&store, transaction), Revision(3));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.get(&key("a")).unwrap().revision(), Revision(3));
    assert_eq!(snapshot.get(&key("b")), None);
}

fn a_transaction_that_changes_nothing_takes_no_revision(store: AStore) {
    assert_eq!(commit(&store, Transaction::new()), Revision(1));
    let mut transaction = Transaction::new();
    transaction
        .delete(key("never there"))
        .expect(key("nor this"), None);
    assert_eq!(commit(&store, transaction), Revision(1));
    // Writing the same bytes again is a change: its revision says when it was last written.
    assert_eq!(commit(&store, put("a", "1")), Revision(2));
    assert_eq!(commit(&store, put("a", "1")), Revision(3));
}

fn a_row_that_changed_is_a_conflict_and_nothing_is_written(store: AStore) {
    let read = commit(&store, put("a", "1"));
    commit(&store, put("a", "2"));
    let mut transaction = put("b", "x");
    transaction
        .expect(key("a"), Some(read))
        .put(key("a"), 1, "3");
    let before = rows(&store.snapshot());
    let refused = run(store.commit(transaction)).unwrap_err();
    assert_eq!(refused, CommitError::Conflict { key: key("a") });
    assert!(refused.is_conflict());
    assert_eq!(rows(&store.snapshot()), before);
    assert_eq!(store.snapshot().revision(), Revision(3));
}

fn a_row_that_must_not_exist_is_a_conflict(store: AStore) {
    let create = |value: &str| {
        let mut transaction = put("a", value);
        transaction.expect(key("a"), None);
        run(store.commit(transaction))
    };
    assert_eq!(create("1"), Ok(Revision(2)));
    assert!(create("2").unwrap_err().is_conflict());
    let mut transaction = Transaction::new();
    transaction.expect(key("missing"), Some(Revision(1)));
    assert!(run(store.commit(transaction)).unwrap_err().is_conflict());
}

fn contradicting_expectations_never_hold(store: AStore) {
    let revision = commit(&store, put("a", "1"));
    let mut transaction = put("b", "1");
    transaction
        .expect(key("a"), Some(revision))
        .expect(key("a"), None);
    assert!(run(store.commit(transaction)).unwrap_err().is_conflict());
    // The same expectation twice is one.
    let mut transaction = put("b", "1");
    transaction
        .expect(key("a"), Some(revision))
        .expect(key("a"), Some(revision));
    assert_eq!(transaction.len(), 2);
    assert!(run(store.commit(transaction)).is_ok());
}

fn a_deleted_and_recreated_row_is_not_the_one_that_was_read(store: AStore) {
    let read = commit(&store, put("a", "1"));
    let mut transaction = Transaction::new();
    transaction.delete(key("a"));
    commit(&store, transaction);
    commit(&store, put("a", "1"));
    let mut transaction = put("b", "1");
    transaction.expect(key("a"), Some(read));
    assert!(run(store.commit(transaction)).unwrap_err().is_conflict());
}

fn the_limits_hold_to_the_operation_and_the_byte(store: AStore) {
    let of = |operations: usize| {
        let mut transaction = Transaction::new();
        for number in 0..operations {
            // Expectations count like writes.
            match number % 2 {
                0 => transaction.put(key(&format!("{number:03}")), 1, "1"),
                _ => transaction.expect(key(&format!("{number:03}")), None),
            };
        }
        transaction
    };
    assert!(run(store.commit(of(MAX_OPERATIONS))).is_ok());
    let before = store.snapshot().revision();
    assert_eq!(
        run(store.commit(of(MAX_OPERATIONS + 1))),
        Err(CommitError::TooLarge {
            unit: "operations",
            limit: MAX_OPERATIONS,
            actual: MAX_OPERATIONS + 1
        })
    );

    let empty = put("big", "").bytes();
    let big = |bytes: usize| put("big", &"x".repeat(bytes - empty));
    assert!(run(store.commit(big(MAX_BYTES))).is_ok());
    let refused = run(store.commit(big(MAX_BYTES + 1))).unwrap_err();
    assert!(
        matches!(refused, CommitError::TooLarge { unit: "bytes", .. }),
        "{refused}"
    );
    assert_eq!(store.snapshot().revision().0, before.0 + 1);
}

fn a_snapshot_never_changes(store: AStore) {
    commit(&store, put("a", "1"));
    let snapshot = store.snapshot();
    let seen = rows(&snapshot);
    let mut transaction = put("b", "2");
    transaction.delete(key("a"));
    commit(&store, transaction);
    assert_eq!(rows(&snapshot), seen);
    assert_eq!(rows(&snapshot.clone()), seen);
    assert_ne!(rows(&store.snapshot()), seen);
}

fn scans_are_ordered_and_stay_within_their_prefix(store: AStore) {
    let regions = ["ap-south-1", "eu-west-1", "us-east-1"].map(|name| Region::new(name).unwrap());
    for region in &regions {
        let mut transaction = Transaction::new();
        for name in ["b", "a", "a/2", "a/1", "ab"] {
            transaction.put(key_in(region, "task", name), 1, "1");
            transaction.put(key_in(region, "task-report", name), 1, "1");
        }
        commit(&store, transaction);
    }
    let snapshot = store.snapshot();
    let names = |prefix: Prefix| -> Vec<String> {
        snapshot
            .scan(&prefix)
            .map(|row| row.key().name().to_owned())
            .collect()
    };
    let account = AccountId::default();
    assert_eq!(
        names(Prefix::kind(&account, &regions[1], "ecs", "task")),
        ["a", "a/1", "a/2", "ab", "b"]
    );
    assert_eq!(
        names(Prefix::names(&account, &regions[1], "ecs", "task", "a/")),
        ["a/1", "a/2"]
    );
    assert_eq!(names(Prefix::everywhere("ecs", "task")).len(), 15);
    assert_eq!(
        names(Prefix::service(&account, &regions[0], "ecs")).len(),
        10
    );
    assert_eq!(
        names(Prefix::region(&account, &Region::new("eu-west-2").unwrap())).len(),
        0
    );
    // With the incarnation's own.
    assert_eq!(names(Prefix::all()).len(), 31);
    assert_eq!(snapshot.places().len(), 4);
    for prefix in [
        Prefix::everywhere("ecs", "task-report"),
        Prefix::account(&account),
    ] {
        let keys: Vec<_> = snapshot
            .scan(&prefix)
            .map(|row| row.key().clone())
            .collect();
        assert!(keys.is_sorted() && keys.iter().all(|key| prefix.matches(key)));
    }
}

fn a_watcher_sees_each_change_once_and_in_order(store: AStore) {
    let mut changes = store.watch(&Prefix::all(), store.snapshot().revision());
    assert_eq!(changes.try_next(), None);
    for number in 0..10 {
        commit(&store, put("a", &number.to_string()));
    }
    let mut transaction = Transaction::new();
    transaction.delete(key("a"));
    commit(&store, transaction);
    let Some(Change::Rows(seen)) = changes.try_next() else {
        panic!("nothing seen")
    };
    assert_eq!(changes.try_next(), None);
    assert_eq!(seen.len(), 11);
    assert!(seen.is_sorted_by_key(|change| change.revision));
    for (number, change) in seen[..10].iter().enumerate() {
        assert_eq!(
            change.row.as_ref().unwrap().value(),
            number.to_string().as_str()
        );
    }
    // Each says what was there before.
    assert_eq!(seen[0].previous, None);
    assert_eq!(seen[5].previous, seen[4].row);
    assert_eq!((&seen[10].row, &seen[10].previous), (&None, &seen[9].row));
    assert_eq!(seen[10].latest(), seen[9].row.as_ref());
    // A second watcher from the middle sees the rest.
    let mut changes = store.watch(&Prefix::all(), seen[6].revision);
    assert_eq!(changes.try_next(), Some(Change::Rows(seen[7..].to_vec())));
}

fn a_watcher_sees_only_its_prefixes(store: AStore) {
    let (account, region) = (AccountId::default(), Region::default());
    let start = store.snapshot().revision();
    let only = |kind: &str| Prefix::kind(&account, &region, "ecs", kind);
    let mut one = store.watch(&only("task"), start);
    let mut two = store
        .watch(&only("cluster"), start)
        .also(&Prefix::everywhere("ecs", "task"));
    let mut transaction = put("a", "1");
    transaction.put(key_in(&region, "cluster", "a"), 1, "1");
    transaction.put(key_in(&region, "family", "a"), 1, "1");
    commit(&store, transaction);
    let count = |changes: &mut gantry_store::Changes| match changes.try_next() {
        Some(Change::Rows(rows)) => rows.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((count(&mut one), count(&mut two)), (1, 2));
    assert_eq!((one.try_next(), two.try_next()), (None, None));
}

fn a_watcher_is_woken_by_a_commit(store: AStore) {
    let mut changes = store.watch(&Prefix::everywhere("ecs", "task"), Revision(1));
    let writer = store.clone();
    let committing = std::thread::spawn(move || {
        for number in 0..100 {
            commit(&writer, put("a", &number.to_string()));
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 100 {
        match run(changes.next()) {
            Change::Rows(rows) => seen.extend(rows),
            Change::Lost => panic!("lost"),
        }
    }
    committing.join().unwrap();
    let revisions: Vec<_> = seen.iter().map(|change| change.revision.0).collect();
    assert_eq!(revisions, (2..102).collect::<Vec<_>>());
}

fn a_slow_watcher_is_told_lost_and_reloads_at_one_revision(store: AStore) {
    let mut changes = store.watch(&Prefix::all(), store.snapshot().revision());
    // More than any backend keeps: each of these rows is 256 KiB.
    for number in 0..40 {
        commit(&store, put("a", &number.to_string().repeat(256 * 1024)));
    }
    assert_eq!(changes.try_next(), Some(Change::Lost));
    // It stays lost until it has loaded again.
    assert_eq!(changes.try_next(), Some(Change::Lost));
    let loaded = changes.reload();
    assert_eq!(loaded.revision(), store.snapshot().revision());
    assert_eq!(changes.try_next(), None);
    let next = commit(&store, put("b", "1"));
    let Some(Change::Rows(seen)) = changes.try_next() else {
        panic!("nothing seen")
    };
    assert_eq!(
        seen.iter()
            .map(|change| change.revision)
            .collect::<Vec<_>>(),
        [next]
    );
}

fn a_watch_from_a_future_revision_is_lost(store: AStore) {
    // A store that was restored from an older copy knows nothing of that revision.
    let mut changes = store.watch(&Prefix::all(), Revision(99));
    assert_eq!(run(changes.next()), Change::Lost);
    // And one from before the store's first commit that is kept.
    let mut changes = store.watch(&Prefix::all(), Revision(0));
    assert!(matches!(
        changes.try_next(),
        Some(Change::Lost | Change::Rows(_))
    ));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl Table for Counter {
    type Row = Self;
    const SERVICE: &'static str = "test";
    const KIND: &'static str = "counter";
    const SCHEMA: u16 = 2;

    fn upgrade(from: u16, value: &[u8]) -> Result<Self, String> {
        // The first form was the bare number.
        assert_eq!(from, 1);
        let count = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        Ok(Self { count })
    }
}

fn rows_by_many_names_are_those_by_each_name(store: AStore) {
    let (account, region) = (AccountId::default(), Region::default());
    let name = |n: u64| format!("c/{n:03}");
    // With gaps that are walked over and gaps that are not.
    let there: Vec<u64> = (0..90).filter(|n| n % 7 != 3 || n / 30 == 1).collect();
    for some in there.chunks(40) {
        let mut transaction = Transaction::new();
        for n in some {
            transaction.create::<Counter>(&account, &region, &name(*n), &Counter { count: *n });
        }
        commit(&store, transaction);
    }
    // A neighbour in another table.
    commit(&store, put("c/000", "1"));
    let snapshot = store.snapshot();
    for asked in [
        (0..100).collect::<Vec<u64>>(),
        vec![3, 4, 40, 41, 60, 89, 95],
        vec![99],
        vec![],
    ] {
        let names: Vec<String> = asked.iter().map(|n| name(*n)).collect();
        let rows = snapshot.read_in_order::<Counter>(&account, &region, &names);
        let counts: Vec<Option<u64>> = rows.iter().map(|row| Some(row.as_ref()?.count)).collect();
        let known = |n: &u64| there.contains(n).then_some(*n);
        assert_eq!(counts, asked.iter().map(known).collect::<Vec<_>>());
    }
    let each: Vec<(String, u64)> = snapshot
        .each::<Counter>(&account, &region, "c/00")
        .map(|(name, row)| (name.to_owned(), row.count))
        .collect();
    let expected = there.iter().filter(|n| **n < 10);
    assert_eq!(each, expected.map(|n| (name(*n), *n)).collect::<Vec<_>>());
}

fn typed_rows_are_read_listed_and_expected(store: AStore) {
    let (account, region) = (AccountId::default(), Region::default());
    let mut transaction = Transaction::new();
    for (name, count) in [("a", 1), ("b/1", 2), ("b/2", 3)] {
        transaction.create::<Counter>(&account, &region, name, &Counter { count });
    }
    commit(&store, transaction);
    let snapshot = store.snapshot();
    let read = snapshot.read::<Counter>(&account, &region, "a").unwrap();
    assert_eq!((read.name(), read.count), ("a", 1));
    assert!(snapshot.read::<Counter>(&account, &region, "z").is_none());
    let counts = |rows: Vec<gantry_store::Versioned<Counter>>| -> Vec<u64> {
        rows.iter().map(|row| row.count).collect()
    };
    assert_eq!(
        counts(snapshot.list::<Counter>(&account, &region)),
        [1, 2, 3]
    );
    assert_eq!(
        counts(snapshot.list_prefix::<Counter>(&account, &region, "b/")),
        [2, 3]
    );
    assert_eq!(counts(snapshot.list_everywhere::<Counter>()), [1, 2, 3]);
    // What was decoded once is not decoded again.
    let again = snapshot.read::<Counter>(&account, &region, "a").unwrap();
    assert!(Arc::ptr_eq(&read.row, &again.row));

    let update = || {
        let mut transaction = Transaction::new();
        transaction.update::<Counter>(&read, &Counter { count: 5 });
        run(store.commit(transaction))
    };
    assert!(update().is_ok());
    assert!(update().unwrap_err().is_conflict());
    let mut transaction = Transaction::new();
    transaction
        .expect_absent::<Counter>(&account, &region, "c")
        .remove::<Counter>(&account, &region, "a");
    commit(&store, transaction);
    assert!(
        store
            .snapshot()
            .read::<Counter>(&account, &region, "a")
            .is_none()
    );
}

fn an_older_schema_is_upgraded_and_a_newer_one_refused(store: AStore) {
    let (account, region) = (AccountId::default(), Region::default());
    let mut transaction = Transaction::new();
    transaction.put(Counter::key(&account, &region, "old"), 1, "41");
    commit(&store, transaction);
    let snapshot = store.snapshot();
    assert_eq!(
        snapshot
            .read::<Counter>(&account, &region, "old")
            .unwrap()
            .count,
        41
    );
    snapshot.check::<Counter>().unwrap();

    let mut transaction = Transaction::new();
    transaction.put(Counter::key(&account, &region, "new"), 3, "{}");
    commit(&store, transaction);
    let refused = store.snapshot().check::<Counter>().unwrap_err().to_string();
    assert!(
        refused.contains("test/counter/new") && refused.contains("newer Gantry"),
        "{refused}"
    );
}

fn concurrent_increments_lose_nothing(store: AStore) {
    let (account, region) = (AccountId::default(), Region::default());
    let mut transaction = Transaction::new();
    transaction.create::<Counter>(&account, &region, "n", &Counter { count: 0 });
    commit(&store, transaction);
    let increment = |store: &AStore| loop {
        let read = store
            .snapshot()
            .read::<Counter>(&account, &region, "n")
            .unwrap();
        let mut transaction = Transaction::new();
        transaction.update::<Counter>(
            &read,
            &Counter {
                count: read.count + 1,
            },
        );
        match run(store.commit(transaction)) {
            Ok(_) => return,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| increment(&store)));
        }
    });
    assert_eq!(
        store
            .snapshot()
            .read::<Counter>(&account, &region, "n")
            .unwrap()
            .count,
        100
    );
    assert_eq!(store.snapshot().revision(), Revision(102));
}

fn any_text_is_a_name_and_any_bytes_are_a_value(store: AStore) {
    let names = ["", "a\0b", "ü/💧", "'; DROP TABLE rows; --", "%", "*"];
    let mut transaction = Transaction::new();
    for name in names {
        transaction.put(key(name), 1, vec![0, 0xff, b'"', 0]);
    }
    commit(&store, transaction);
    let snapshot = store.snapshot();
    for name in names {
        let row = snapshot.get(&key(name)).unwrap();
        assert_eq!(
            (row.key().name(), row.value().as_ref()),
            (name, &[0, 0xff, b'"', 0][..])
        );
    }
}
