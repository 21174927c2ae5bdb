//! Memory and SQLite give the same answers to any sequence of transactions, and SQLite the same
//! rows again after it was closed and opened.

use gantry_env::VirtualEnv;
use gantry_store::{MemoryStore, Prefix, Revision, SqliteStore, Store, Transaction};
use proptest::prelude::*;

use crate::backends::{key, rows, run};

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    /// Expects the row as the present snapshot shows it.
    ExpectPresent(u8),
    /// Expects some revision that may be wrong.
    Expect(u8, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, any::<u8>()).prop_map(|(name, value)| Step::Put(name, value)),
        2 => (0..6u8).prop_map(Step::Delete),
        2 => (0..6u8).prop_map(Step::ExpectPresent),
        1 => (0..6u8, proptest::option::of(0..20u64)).prop_map(|(n, r)| Step::Expect(n, r)),
    ]
}

fn transaction(steps: &[Step], store: &dyn Store) -> Transaction {
    let snapshot = store.snapshot();
    let mut transaction = Transaction::new();
    for step in steps {
        let name = |number: &u8| key(&number.to_string());
        match step {
            Step::Put(number, value) => transaction.put(name(number), 1, value.to_string()),
            Step::Delete(number) => transaction.delete(name(number)),
            Step::ExpectPresent(number) => {
                let present = snapshot.get(&name(number)).map(|row| row.revision());
                transaction.expect(name(number), present)
            }
            Step::Expect(number, revision) => {
                transaction.expect(name(number), revision.map(Revision))
            }
        };
    }
    transaction
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_backend_answers_alike(
        sequence in prop::collection::vec(prop::collection::vec(step(), 0..6), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let open = || SqliteStore::open(directory.path(), VirtualEnv::seeded(3).env()).unwrap();
        let (memory, sqlite) = (MemoryStore::new(), open());
        let mut seen_in_memory = memory.watch(&Prefix::all(), Revision(1));
        let mut seen_in_sqlite = sqlite.watch(&Prefix::all(), Revision(1));
        for steps in &sequence {
            let in_memory = run(memory.commit(transaction(steps, &memory)));
            let in_sqlite = run(sqlite.commit(transaction(steps, &sqlite)));
            prop_assert_eq!(in_memory, in_sqlite);
            prop_assert_eq!(rows(&memory.snapshot()), rows(&sqlite.snapshot()));
            prop_assert_eq!(memory.snapshot().revision(), sqlite.snapshot().revision());
            prop_assert_eq!(seen_in_memory.try_next(), seen_in_sqlite.try_next());
        }
        drop(sqlite);
        let opened = open();
        prop_assert_eq!(rows(&memory.snapshot()), rows(&opened.snapshot()));
        prop_assert_eq!(memory.snapshot().revision(), opened.snapshot().revision());
    }
}
