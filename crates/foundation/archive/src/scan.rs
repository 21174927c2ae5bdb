//! Looking through many streams as one, in the order of time, for the few records that are wanted.
//!
//! What always holds: records come by time, then by the order in which their streams were named,
//! then by offset; a page and the next one share no record and miss none that was there. Memory is
//! bounded by the page, a few blocks, and a catalogue entry for each chunk that may have something.
//! Blocks are read, decompressed and sifted on several threads at once, and most are thrown away
//! after one look at their bytes.
//! What it leaves to others: what is wanted ([`Sieve`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};
use gantry_env::Timestamp;
use rusqlite::params;

use crate::block;
use crate::catalog::{Chunk, Place};
use crate::{Archive, ArchiveError};

/// Decides over records, without knowing where they stand.
pub trait Sieve: Send + Sync {
    /// Whether a run of records may have anything that is wanted, by its bytes alone.
    fn may_have(&self, _block: &[u8]) -> bool {
        true
    }

    fn wants(&self, payload: &[u8]) -> bool;
}

/// A place among the records of all streams of a scan. Ordered as the scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScanPlace {
    pub timestamp: Timestamp,
    /// Which of the scan's streams.
    pub stream: usize,
    pub offset: u64,
}

/// What to look through.
#[derive(Debug, Clone)]
pub struct Scan {
    /// In the order that decides between records of one time.
    pub streams: Vec<String>,
    /// The end is not part of them.
    pub times: Range<Timestamp>,
    /// Only records behind this one.
    pub after: Option<ScanPlace>,
    pub limit_records: usize,
    /// How many bytes of payload a page has, with `record_overhead` for each record; one record is
    /// given in any case.
    pub limit_bytes: usize,
    pub record_overhead: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    pub place: ScanPlace,
    pub payload: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    pub records: Vec<FoundRecord>,
    /// Nothing more is there, for now.
    pub is_end: bool,
}

/// A run of records to be looked at.
#[derive(Clone)]
struct Work {
    stream: usize,
    chunk: Chunk,
    /// Only these offsets: the chunk may have been joined with others since it was listed.
    offsets: Range<u64>,
}

impl Work {
    /// No record of it stands before this.
    fn low(&self) -> ScanPlace {
        ScanPlace {
            timestamp: Timestamp::from_millis(self.chunk.min_time),
            stream: self.stream,
            offset: self.offsets.start,
        }
    }

    /// Whether every record of it stands at or before `after`.
    fn is_before(&self, after: ScanPlace) -> bool {
        let high = ScanPlace {
            timestamp: Timestamp::from_millis(self.chunk.max_time),
            stream: self.stream,
            offset: self.offsets.end.saturating_sub(1),
        };
        high <= after
    }
}

/// How many blocks are looked at together, at most.
const MAX_WORKERS: usize = 4;
/// How often a chunk is looked for again because it was sealed or compacted under the scan.
const ATTEMPTS: usize = 20;

impl Archive {
    /// One page of what a sieve wants of many streams. Streams that do not exist are empty.
    pub async fn scan(&self, scan: &Scan, sieve: Arc<dyn Sieve>) -> Result<ScanPage, ArchiveError> {
        let work = self.work_of(scan)?;
        let workers = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .min(MAX_WORKERS);
        let mut page = Collected::new(scan);
        // What is known to be beyond the page need not be begun, though some of it will have been.
        let lows: Vec<ScanPlace> = work.iter().map(Work::low).collect();
        let limits = Arc::new(Limits::of(scan));
        let mut sifted = stream::iter(work)
            .map(|work| {
                let (archive, sieve, limits) = (self.clone(), sieve.clone(), limits.clone());
                async move { archive.sift(work, &limits, sieve).await }
            })
            .buffered(workers);
        for low in lows {
            if page.is_beyond(low) {
                break;
            }
            let Some(found) = sifted.next().await else {
                break;
            };
            for record in found? {
                page.add(record);
            }
        }
        Ok(page.finish())
    }

    /// The chunks that may have something, in the order in which they must be looked at.
    fn work_of(&self, scan: &Scan) -> Result<Vec<Work>, ArchiveError> {
        let from = scan.after.map_or(scan.times.start, |after| {
            after.timestamp.max(scan.times.start)
        });
        let catalog = self.reader();
        let mut select = catalog.prepare_cached(
            "SELECT stream, first_offset, count, min_time, max_time, bytes, segment, at, length, x''
             FROM chunks
             WHERE stream = (SELECT id FROM streams WHERE name = ?1)
                AND max_time >= ?2 AND min_time < ?3",
        )?;
        let mut work = Vec::new();
        for (stream, name) in scan.streams.iter().enumerate() {
            let times = params![name, from.as_millis(), scan.times.end.as_millis()];
            for chunk in select.query_map(times, Chunk::read)? {
                let chunk = chunk?;
                let work_of_chunk = Work {
                    stream,
                    offsets: chunk.first_offset..chunk.first_offset + chunk.count,
                    chunk,
                };
                if scan
                    .after
                    .is_none_or(|after| !work_of_chunk.is_before(after))
                {
                    work.push(work_of_chunk);
                }
            }
        }
        work.sort_by_key(Work::low);
        Ok(work)
    }

    /// Looks through a chunk, wherever it is by now.
    async fn sift(
        self,
        work: Work,
        limits: &Arc<Limits>,
        sieve: Arc<dyn Sieve>,
    ) -> Result<Vec<FoundRecord>, ArchiveError> {
        if let Some(found) = self.sift_once(&work, limits, &sieve).await? {
            return Ok(found);
        }
        for _ in 0..ATTEMPTS {
            let mut all = Vec::new();
            let mut moved = false;
            for chunk in self.chunks_with(&work)? {
                let part = Work {
                    stream: work.stream,
                    chunk,
                    offsets: work.offsets.clone(),
                };
                match self.sift_once(&part, limits, &sieve).await? {
                    Some(found) => all.extend(found),
                    None => moved = true,
                }
            }
            if !moved {
                return Ok(all);
            }
        }
        Err(ArchiveError::io(
            "the stream keeps changing while it is read",
        ))
    }

    /// Where some offsets of a stream are now; nothing once they have been deleted.
    fn chunks_with(&self, work: &Work) -> Result<Vec<Chunk>, ArchiveError> {
        let catalog = self.reader();
        let mut select = catalog.prepare_cached(
            "SELECT stream, first_offset, count, min_time, max_time, bytes, segment, at, length, x''
             FROM chunks
             WHERE stream = ?1 AND first_offset < ?3 AND first_offset >= ifnull(
                (SELECT max(first_offset) FROM chunks WHERE stream = ?1 AND first_offset <= ?2), 0)",
        )?;
        let range = params![work.chunk.stream, work.offsets.start, work.offsets.end];
        let chunks = select.query_map(range, Chunk::read)?;
        Ok(chunks.collect::<Result<_, _>>()?)
    }

    /// `None` if the chunk is not there any more.
    async fn sift_once(
        &self,
        work: &Work,
        limits: &Arc<Limits>,
        sieve: &Arc<dyn Sieve>,
    ) -> Result<Option<Vec<FoundRecord>>, ArchiveError> {
        let source = match work.chunk.place {
            Place::Fresh(_) => match self.fresh_body(&work.chunk)? {
                Some(body) => Source::Plain(body),
                None => return Ok(None),
            },
            Place::Sealed {
                segment,
                at,
                length,
            } => match self.cached_block(segment, at) {
                Some(body) => Source::Plain(body),
                None => match self.segment_block(segment, at, length).await? {
                    Some(block) => Source::Compressed(block),
                    None => return Ok(None),
                },
            },
        };
        let (work, limits, sieve) = (work.clone(), limits.clone(), sieve.clone());
        let sifting = tokio::task::spawn_blocking(move || {
            let block = match source {
                Source::Plain(block) => block,
                Source::Compressed(block) => block::decompress(&block, work.chunk.bytes)?,
            };
            sift(&work, block, &limits, sieve.as_ref())
        });
        let found = sifting.await.map_err(ArchiveError::io)??;
        Ok(Some(found))
    }
}

enum Source {
    Plain(Bytes),
    Compressed(Bytes),
}

/// Which records of a scan count at all.
struct Limits {
    times: Range<Timestamp>,
    after: Option<ScanPlace>,
}

impl Limits {
    fn of(scan: &Scan) -> Self {
        Self {
            times: scan.times.clone(),
            after: scan.after,
        }
    }
}

fn sift(
    work: &Work,
    mut block: Bytes,
    limits: &Limits,
    sieve: &dyn Sieve,
) -> Result<Vec<FoundRecord>, ArchiveError> {
    let mut found = Vec::new();
    if !sieve.may_have(&block) {
        return Ok(found);
    }
    let mut offset = work.chunk.first_offset;
    while block.has_remaining() {
        let (timestamp, length) = block::header(&mut block)?;
        let place = ScanPlace {
            timestamp,
            stream: work.stream,
            offset,
        };
        offset += 1;
        let counts = limits.times.contains(&timestamp)
            && work.offsets.contains(&place.offset)
            && limits.after.is_none_or(|after| place > after);
        if counts && sieve.wants(&block[..length]) {
            // A copy, so that one line does not keep a whole block in memory.
            let payload = Bytes::copy_from_slice(&block[..length]);
            found.push(FoundRecord { place, payload });
        }
        block.advance(length);
    }
    Ok(found)
}

/// The first records of all that were found, as many as go into a page.
struct Collected<'a> {
    scan: &'a Scan,
    records: BTreeMap<ScanPlace, Bytes>,
    bytes: usize,
    /// The first place that is known not to go into the page.
    beyond: Option<ScanPlace>,
}

impl<'a> Collected<'a> {
    fn new(scan: &'a Scan) -> Self {
        Self {
            scan,
            records: BTreeMap::new(),
            bytes: 0,
            beyond: None,
        }
    }

    fn is_beyond(&self, place: ScanPlace) -> bool {
        self.beyond.is_some_and(|beyond| place >= beyond)
    }

    fn add(&mut self, record: FoundRecord) {
        if self.is_beyond(record.place) {
            return;
        }
        self.bytes += record.payload.len() + self.scan.record_overhead;
        self.records.insert(record.place, record.payload);
        while self.records.len() > self.scan.limit_records
            || (self.bytes > self.scan.limit_bytes && self.records.len() > 1)
        {
            let Some((place, payload)) = self.records.pop_last() else {
                return;
            };
            self.bytes -= payload.len() + self.scan.record_overhead;
            self.beyond = Some(place);
        }
    }

    fn finish(self) -> ScanPage {
        let records = self.records.into_iter();
        ScanPage {
            is_end: self.beyond.is_none(),
            records: records
                .map(|(place, payload)| FoundRecord { place, payload })
                .collect(),
        }
    }
}
