//! Reading a stream, forwards and backwards, in the order of appending or of time.
//!
//! What always holds: a page and the next one share no record and miss none, whatever is appended,
//! sealed or compacted meanwhile. A position stands before the record of its name.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use gantry_env::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::block::{self, Record};
use crate::catalog::{Chunk, Place};
use crate::{ArchiveError, archive::Inner};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    /// The newest first.
    Backward,
}

/// What the records of a page are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Offset,
    /// By time, and by offset where times are equal: late records come where they belong.
    Time,
}

/// A place between two records. Ordered by offset, only the offset counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub timestamp: Timestamp,
    pub offset: u64,
}

/// What to read.
#[derive(Debug, Clone)]
pub struct Read {
    pub stream: String,
    pub order: Order,
    pub direction: Direction,
    /// Forwards, the records at and after it; backwards, those before it. `None` is the beginning
    /// or the end.
    pub from: Option<Position>,
    /// Only records of these times; the end is not part of them.
    pub times: Range<Timestamp>,
    pub limit_records: usize,
    /// About how many bytes of payload; one record is given in any case.
    pub limit_bytes: usize,
}

impl Read {
    /// Everything from the beginning, in the order of appending.
    pub fn forward(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            order: Order::Offset,
            direction: Direction::Forward,
            from: None,
            times: Timestamp::from_millis(i64::MIN)..Timestamp::MAX,
            limit_records: 10_000,
            limit_bytes: 1024 * 1024,
        }
    }

    pub fn backward(stream: impl Into<String>) -> Self {
        Self {
            direction: Direction::Backward,
            ..Self::forward(stream)
        }
    }

    pub fn by_time(mut self) -> Self {
        self.order = Order::Time;
        self
    }

    pub fn from_offset(mut self, offset: u64) -> Self {
        let timestamp = Timestamp::from_millis(i64::MIN);
        self.from = Some(Position { timestamp, offset });
        self
    }

    /// The record's place in this read's order.
    fn key(&self, timestamp: i64, offset: u64) -> (i64, u64) {
        match self.order {
            Order::Offset => (0, offset),
            Order::Time => (timestamp, offset),
        }
    }

    /// The places of the first and last record that the chunk may have.
    fn span(&self, chunk: &Chunk) -> ((i64, u64), (i64, u64)) {
        match self.order {
            Order::Offset => (
                (0, chunk.first_offset),
                (0, chunk.first_offset + chunk.count - 1),
            ),
            Order::Time => ((chunk.min_time, 0), (chunk.max_time, u64::MAX)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub offset: u64,
    pub timestamp: Timestamp,
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the direction of the read: backwards, the newest first.
    pub records: Vec<StoredRecord>,
    /// Where the next page in this direction begins. `None` if nothing was read and none was given.
    pub next: Option<Position>,
    /// Nothing more is there in this direction, for now.
    pub is_end: bool,
}

/// How many catalogue entries are looked at together.
const CHUNKS_A_QUERY: usize = 64;

/// How often a read begins anew because chunks were sealed under it.
const ATTEMPTS: usize = 20;

impl Inner {
    pub(crate) async fn page(&self, read: &Read) -> Result<Page, ArchiveError> {
        for _ in 0..ATTEMPTS {
            if let Some(page) = self.try_page(read).await? {
                return Ok(page);
            }
        }
        Err(ArchiveError::io(
            "the stream keeps changing while it is read",
        ))
    }

    /// `None` if a chunk has moved since the catalogue was read.
    async fn try_page(&self, read: &Read) -> Result<Option<Page>, ArchiveError> {
        let forward = read.direction == Direction::Forward;
        let mut page = Collector::new(read);
        let mut after = None;
        loop {
            let chunks = self.chunks(read, after)?;
            let is_last = chunks.len() < CHUNKS_A_QUERY;
            for chunk in chunks {
                let (low, high) = read.span(&chunk);
                page.emit(|key| if forward { key < low } else { key > high });
                if page.is_full() {
                    return Ok(Some(page.finish()));
                }
                after = Some(Seen::of(read, &chunk));
                let Some(records) = self.records(&chunk).await? else {
                    return Ok(None);
                };
                page.add(chunk.first_offset, records);
            }
            if is_last {
                page.emit(|_| true);
                return Ok(Some(page.finish()));
            }
        }
    }

    /// Some of the chunks that may have what is asked for, in the order of the read.
    fn chunks(&self, read: &Read, after: Option<Seen>) -> Result<Vec<Chunk>, ArchiveError> {
        let forward = read.direction == Direction::Forward;
        let (low, high) = match read.order {
            Order::Offset => ("first_offset", "first_offset"),
            Order::Time => ("min_time", "max_time"),
        };
        let (sort, compare, order) = match forward {
            true => (low, ">", "ASC"),
            false => (high, "<", "DESC"),
        };
        let reach = match (read.order, forward) {
            // The chunk in which the offset falls, and those after it.
            (Order::Offset, true) => {
                "first_offset >= ifnull((SELECT max(first_offset) FROM chunks
                    WHERE stream = (SELECT id FROM streams WHERE name = ?1) AND first_offset <= ?3), 0)
                 AND ?2 IS NOT NULL"
            }
            (Order::Offset, false) => "first_offset < ?3 AND ?2 IS NOT NULL",
            (Order::Time, true) => "max_time >= ?2 AND ?3 IS NOT NULL",
            (Order::Time, false) => "min_time <= ?2 AND ?3 IS NOT NULL",
        };
        let query = format!(
            "SELECT stream, first_offset, count, min_time, max_time, bytes, segment, at, length, x''
             FROM chunks
             WHERE stream = (SELECT id FROM streams WHERE name = ?1) AND {reach}
                AND max_time >= ?4 AND min_time < ?5
                AND (?6 IS NULL OR ({sort}, first_offset) {compare} (?6, ?7))
             ORDER BY {sort} {order}, first_offset {order} LIMIT {CHUNKS_A_QUERY}"
        );
        let (timestamp, offset) = match read.from {
            Some(from) => (from.timestamp.as_millis(), from.offset),
            None if forward => (i64::MIN, 0),
            None => (i64::MAX, u64::MAX),
        };
        let catalog = self.reader();
        let mut select = catalog.prepare_cached(&query)?;
        let found = select.query_map(
            params![
                read.stream,
                timestamp,
                i64::try_from(offset).unwrap_or(i64::MAX),
                read.times.start.as_millis(),
                read.times.end.as_millis(),
                after.map(|seen| seen.sort),
                after.map(|seen| seen.first_offset),
            ],
            Chunk::read,
        )?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    async fn records(&self, chunk: &Chunk) -> Result<Option<Vec<Record>>, ArchiveError> {
        let Place::Sealed {
            segment,
            at,
            length,
        } = chunk.place
        else {
            return match fresh_body(&self.reader(), chunk)? {
                Some(body) => block::decode(body.into()).map(Some),
                None => Ok(None),
            };
        };
        let records = match self.blocks.get((segment, at)) {
            Some(records) => records,
            None => {
                let Some(compressed) = self.segments.get(segment, at, length).await? else {
                    return Ok(None);
                };
                let records = block::decompress(&compressed, chunk.bytes)?;
                self.blocks.put((segment, at), records.clone());
                records
            }
        };
        block::decode(records).map(Some)
    }
}

/// The last chunk that was looked at.
#[derive(Clone, Copy)]
struct Seen {
    sort: i64,
    first_offset: u64,
}

impl Seen {
    fn of(read: &Read, chunk: &Chunk) -> Self {
        let sort = match (read.order, read.direction) {
            (Order::Offset, _) => i64::try_from(chunk.first_offset).unwrap_or(i64::MAX),
            (Order::Time, Direction::Forward) => chunk.min_time,
            (Order::Time, Direction::Backward) => chunk.max_time,
        };
        Self {
            sort,
            first_offset: chunk.first_offset,
        }
    }
}

pub(crate) fn fresh_body(catalog: &Connection, chunk: &Chunk) -> rusqlite::Result<Option<Vec<u8>>> {
    catalog
        .prepare_cached(
            "SELECT body FROM chunks
             WHERE stream = ?1 AND first_offset = ?2 AND count = ?3 AND segment IS NULL",
        )?
        .query_row(
            params![chunk.stream, chunk.first_offset, chunk.count],
            |row| row.get(0),
        )
        .optional()
}

/// Puts a page together. What is read but may still be preceded by something waits.
struct Collector<'a> {
    read: &'a Read,
    waiting: BTreeMap<(i64, u64), StoredRecord>,
    records: Vec<StoredRecord>,
    bytes: usize,
}

impl<'a> Collector<'a> {
    fn new(read: &'a Read) -> Self {
        Self {
            read,
            waiting: BTreeMap::new(),
            records: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, first_offset: u64, records: Vec<Record>) {
        let from = self
            .read
            .from
            .map(|from| self.read.key(from.timestamp.as_millis(), from.offset));
        for (offset, record) in (first_offset..).zip(records) {
            let key = self.read.key(record.timestamp.as_millis(), offset);
            let is_beyond = match (from, self.read.direction) {
                (None, _) => false,
                (Some(from), Direction::Forward) => key < from,
                (Some(from), Direction::Backward) => key >= from,
            };
            if is_beyond || !self.read.times.contains(&record.timestamp) {
                continue;
            }
            let record = StoredRecord {
                offset,
                timestamp: record.timestamp,
                payload: record.payload,
            };
            self.waiting.insert(key, record);
        }
    }

    /// Moves waiting records into the page, as long as nothing unread can come before them.
    fn emit(&mut self, is_safe: impl Fn((i64, u64)) -> bool) {
        while !self.is_full() {
            let first = match self.read.direction {
                Direction::Forward => self.waiting.first_entry(),
                Direction::Backward => self.waiting.last_entry(),
            };
            match first {
                Some(entry) if is_safe(*entry.key()) => {
                    let record = entry.remove();
                    self.bytes += record.payload.len();
                    self.records.push(record);
                }
                _ => return,
            }
        }
    }

    fn is_full(&self) -> bool {
        self.records.len() >= self.read.limit_records || self.bytes >= self.read.limit_bytes
    }

    fn finish(self) -> Page {
        let next = self.records.last().map(|last| Position {
            timestamp: last.timestamp,
            offset: match self.read.direction {
                Direction::Forward => last.offset + 1,
                Direction::Backward => last.offset,
            },
        });
        Page {
            next: next.or(self.read.from),
            is_end: self.waiting.is_empty() && !(self.is_full()),
            records: self.records,
        }
    }
}

/// The blocks that were decompressed last.
pub(crate) struct BlockCache {
    blocks: Mutex<VecDeque<((u64, u64), Bytes)>>,
}

/// Up to about 2 MiB, enough for a few who page through a stream at once.
const CACHED_BLOCKS: usize = 8;

impl BlockCache {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Mutex::new(VecDeque::new()),
        }
    }

    pub(crate) fn get(&self, place: (u64, u64)) -> Option<Bytes> {
        let blocks = self.lock();
        let found = blocks.iter().find(|(cached, _)| *cached == place);
        found.map(|(_, block)| block.clone())
    }

    fn put(&self, place: (u64, u64), block: Bytes) {
        let mut blocks = self.lock();
        if blocks.len() == CACHED_BLOCKS {
            blocks.pop_front();
        }
        blocks.push_back((place, block));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<((u64, u64), Bytes)>> {
        self.blocks
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
