//! Whatever is appended, sealed, opened again and paged through: it is what a list would give.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_archive::{
    Append, Archive, Direction, Order, Position, Read, Record, Scan, Sieve, StoredRecord,
};
use gantry_env::Timestamp;
use proptest::prelude::*;

use crate::{open, read_all, run};

#[derive(Debug, Clone)]
enum Step {
    /// To which stream, and the time and length of each record.
    Append(u8, Vec<(i64, usize)>),
    Reopen,
    Delete(u8),
    DeleteBefore(u8, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let records = prop::collection::vec((0..100i64, 0..900usize), 0..12);
    prop_oneof![
        12 => (0..3u8, records).prop_map(|(stream, records)| Step::Append(stream, records)),
        1 => Just(Step::Reopen),
        1 => (0..3u8).prop_map(Step::Delete),
        1 => (0..3u8, 0..100i64).prop_map(|(stream, before)| Step::DeleteBefore(stream, before)),
    ]
}

#[derive(Debug, Clone)]
struct Query {
    stream: u8,
    order: Order,
    direction: Direction,
    from: Option<(i64, u64)>,
    times: (i64, i64),
    limit_records: usize,
    limit_bytes: usize,
}

fn query() -> impl Strategy<Value = Query> {
    (
        0..3u8,
        prop_oneof![Just(Order::Offset), Just(Order::Time)],
        prop_oneof![Just(Direction::Forward), Just(Direction::Backward)],
        proptest::option::of((0..100i64, 0..60u64)),
        prop_oneof![3 => Just((i64::MIN, i64::MAX)), 1 => (0..50i64, 50..100i64)],
        1..9usize,
        1..3000usize,
    )
        .prop_map(
            |(stream, order, direction, from, times, limit_records, limit_bytes)| Query {
                stream,
                order,
                direction,
                from,
                times,
                limit_records,
                limit_bytes,
            },
        )
}

impl Query {
    fn read(&self) -> Read {
        let at = Timestamp::from_millis;
        let from = self.from.map(|(ms, offset)| Position {
            timestamp: at(ms),
            offset,
        });
        Read {
            stream: self.stream.to_string(),
            order: self.order,
            direction: self.direction,
            from,
            times: at(self.times.0)..at(self.times.1),
            limit_records: self.limit_records,
            limit_bytes: self.limit_bytes,
        }
    }

    /// What it must give.
    fn expected(&self, stored: &[StoredRecord]) -> Vec<StoredRecord> {
        let key = |ms: i64, offset| match self.order {
            Order::Offset => (0, offset),
            Order::Time => (ms, offset),
        };
        let key_of = |record: &StoredRecord| key(record.timestamp.as_millis(), record.offset);
        let mut found: Vec<_> = stored
            .iter()
            .filter(|record| {
                let is_within = match (
                    self.from.map(|(ms, offset)| key(ms, offset)),
                    self.direction,
                ) {
                    (None, _) => true,
                    (Some(from), Direction::Forward) => key_of(record) >= from,
                    (Some(from), Direction::Backward) => key_of(record) < from,
                };
                is_within && (self.times.0..self.times.1).contains(&record.timestamp.as_millis())
            })
            .cloned()
            .collect();
        found.sort_by_key(key_of);
        if self.direction == Direction::Backward {
            found.reverse();
        }
        found
    }
}

/// A stream as a list.
#[derive(Default)]
struct Model {
    records: Vec<StoredRecord>,
    next_offset: u64,
    /// Whether retention may have taken records of the front away, block by block.
    deleted_before: Option<i64>,
}

/// Odd offsets only; a block without an odd one is never refused as a whole, which would be found.
struct Odd;

impl Sieve for Odd {
    fn may_have(&self, block: &[u8]) -> bool {
        block.iter().any(|byte| b"13579".contains(byte))
    }

    fn wants(&self, payload: &[u8]) -> bool {
        let text = std::str::from_utf8(payload).unwrap();
        let first = text.split(' ').next().unwrap();
        first.parse::<u64>().is_ok_and(|offset| offset % 2 == 1)
    }
}

/// All pages of a scan through all streams, and what they must be.
async fn scans(
    archive: &Archive,
    query: &Query,
    model: &BTreeMap<u8, Model>,
) -> (Vec<(i64, u8, u64)>, Vec<(i64, u8, u64)>) {
    let at = Timestamp::from_millis;
    let mut scan = Scan {
        streams: (0..3).map(|stream: u8| stream.to_string()).collect(),
        times: at(query.times.0)..at(query.times.1),
        after: None,
        limit_records: query.limit_records,
        limit_bytes: query.limit_bytes,
        record_overhead: 5,
    };
    let mut found = Vec::new();
    loop {
        let page = archive.scan(&scan, Arc::new(Odd)).await.unwrap();
        assert!(page.records.len() <= query.limit_records);
        for record in &page.records {
            let place = record.place;
            found.push((
                place.timestamp.as_millis(),
                place.stream as u8,
                place.offset,
            ));
        }
        scan.after = page.records.last().map(|last| last.place);
        if page.is_end {
            break;
        }
    }
    let mut expected: Vec<_> = model
        .iter()
        .flat_map(|(stream, model)| model.records.iter().map(|record| (*stream, record)))
        .map(|(stream, record)| (record.timestamp.as_millis(), stream, record))
        .filter(|(ms, _, record)| {
            (query.times.0..query.times.1).contains(ms) && Odd.wants(&record.payload)
        })
        .map(|(ms, stream, record)| (ms, stream, record.offset))
        .collect();
    expected.sort_unstable();
    (found, expected)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_read_gives_what_a_list_would(
        steps in prop::collection::vec(step(), 1..40),
        queries in prop::collection::vec(query(), 1..20),
    ) {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let mut archive = open(directory.path()).await;
            let mut model: BTreeMap<u8, Model> = BTreeMap::new();
            for step in &steps {
                match step {
                    Step::Append(stream, records) => {
                        let model = model.entry(*stream).or_default();
                        let first = model.next_offset;
                        let mut append = Append::new(stream.to_string(), Vec::new());
                        for (ms, length) in records {
                            let offset = model.next_offset;
                            let timestamp = Timestamp::from_millis(*ms);
                            let text = format!("{offset} ").repeat(*length / 2);
                            append.records.push(Record::new(timestamp, text.clone()));
                            model.records.push(StoredRecord { offset, timestamp, payload: text.into() });
                            model.next_offset += 1;
                        }
                        prop_assert_eq!(archive.append(vec![append]).await.unwrap(), [first]);
                    }
                    Step::Reopen => {
                        drop(archive);
                        archive = open(directory.path()).await;
                    }
                    Step::Delete(stream) => {
                        let was_there = u64::from(model.remove(stream).is_some());
                        let deleted = archive.delete_streams(vec![stream.to_string()]).await.unwrap();
                        prop_assert_eq!(deleted, was_there);
                    }
                    Step::DeleteBefore(stream, ms) => {
                        let name = stream.to_string();
                        let before = Timestamp::from_millis(*ms);
                        archive.delete_before(&name, before).await.unwrap();
                        if let Some(model) = model.get_mut(stream) {
                            model.deleted_before = Some(model.deleted_before.map_or(*ms, |x| x.max(*ms)));
                            // How much went depends on what was sealed together; what went must be
                            // a run at the front, all of it old.
                            let first = archive.stream(&name).unwrap().unwrap().first_offset;
                            let gone = model.records.iter().filter(|record| record.offset < first);
                            for record in gone {
                                prop_assert!(record.timestamp.as_millis() < model.deleted_before.unwrap());
                            }
                            model.records.retain(|record| record.offset >= first);
                        }
                    }
                }
            }
            for (stream, model) in &model {
                let info = archive.stream(&stream.to_string()).unwrap().unwrap();
                prop_assert_eq!(info.next_offset, model.next_offset);
                let bytes: usize = model.records.iter().map(|record| record.payload.len() + 12).sum();
                prop_assert_eq!(info.bytes, bytes as u64);
            }
            for query in &queries {
                let (found, expected) = scans(&archive, query, &model).await;
                prop_assert_eq!(found, expected, "{:?}", query);
                let none = Vec::new();
                let stored = model.get(&query.stream).map_or(&none, |model| &model.records);
                let found = read_all(&archive, query.read()).await;
                prop_assert_eq!(found, query.expected(stored), "{:?}", query);
                let page = archive.read(&query.read()).await.unwrap();
                prop_assert!(page.records.len() <= query.limit_records);
            }
            Ok(())
        })?;
    }
}
