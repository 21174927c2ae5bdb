//! The one thread that writes the catalogue. Everything that waits shares one fsync.
//!
//! What always holds: an answer is given after its write is durable; within a batch, requests are
//! done in the order in which they came.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};

use gantry_env::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use crate::archive::Shared;
use crate::housekeeper::{Chore, Sealed};
use crate::{Append, ArchiveError, catalog};

const BATCH_REQUESTS: usize = 256;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, ArchiveError>>;

pub(crate) enum Request {
    Append(Vec<Append>, Reply<Vec<u64>>),
    DeleteStreams(Vec<String>, Reply<u64>),
    DeleteBefore(String, Timestamp, Reply<u64>),
    Seal(Sealed, Reply<()>),
}

pub(crate) struct Committer {
    connection: Connection,
    shared: Arc<Shared>,
    chores: std_mpsc::Sender<Chore>,
    seal_bytes: usize,
    /// What was appended since the last seal was asked for.
    fresh_bytes: usize,
}

/// An answer that is given once the batch is durable, or replaced by why it is not.
type Answer = Box<dyn FnOnce(Option<ArchiveError>)>;

/// What a batch has done, to be told once it is durable.
#[derive(Default)]
struct Done {
    answers: Vec<Answer>,
    /// The streams appended to, with their next offsets.
    moved: BTreeMap<String, u64>,
    fresh_bytes: usize,
    appended: u64,
    has_freed: bool,
    forgotten: Vec<u64>,
}

impl Committer {
    pub(crate) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        chores: std_mpsc::Sender<Chore>,
        seal_bytes: usize,
    ) -> rusqlite::Result<Self> {
        let query = "SELECT ifnull(sum(bytes), 0) FROM chunks WHERE segment IS NULL";
        let fresh_bytes = connection.query_row(query, [], |row| row.get(0))?;
        Ok(Self {
            connection,
            shared,
            chores,
            seal_bytes,
            fresh_bytes,
        })
    }

    /// Runs until nobody can hand anything in any more.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            while batch.len() < BATCH_REQUESTS
                && bytes < BATCH_BYTES
                && let Ok(request) = requests.try_recv()
            {
                bytes += request.bytes();
                batch.push(request);
            }
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Vec<Request>) {
        let mut done = Done::default();
        let written = self.write(batch, &mut done);
        if let Err(error) = &written {
            tracing::error!(%error, "the archive cannot write");
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "the archive cannot roll back");
            }
        } else {
            self.settle(&mut done);
        }
        let failed = written.err().map(ArchiveError::from);
        for answer in done.answers {
            answer(failed.clone());
        }
    }

    fn write(&self, batch: Vec<Request>, done: &mut Done) -> rusqlite::Result<()> {
        // Every request gets an answer, also those behind one at which the disk gave out.
        let mut outcome = self.connection.execute_batch("BEGIN IMMEDIATE");
        for request in batch {
            let written = outcome.is_ok();
            outcome = outcome.and(self.apply(request, done, written));
        }
        outcome?;
        if done.has_freed {
            done.forgotten = catalog::forget_segments(&self.connection)?;
        }
        self.connection.execute_batch("COMMIT")
    }

    fn apply(&self, request: Request, done: &mut Done, written: bool) -> rusqlite::Result<()> {
        let connection = &self.connection;
        match request {
            Request::Append(appends, reply) => {
                let moved = run(written, || catalog::moved_cursor(connection, &appends));
                if let Ok(Some(stream)) = moved {
                    done.answer(reply, Err(ArchiveError::CursorMoved { stream }));
                    return Ok(());
                }
                let offsets = moved.and_then(|_| {
                    appends
                        .iter()
                        .map(|append| catalog::append(connection, append))
                        .collect()
                });
                if let Ok(offsets) = &offsets {
                    let offsets: &Vec<u64> = offsets;
                    for (append, first) in appends.into_iter().zip(offsets) {
                        let records = append.records.len() as u64;
                        done.fresh_bytes += bytes_of(&append);
                        done.appended += records;
                        done.moved.insert(append.stream, first + records);
                    }
                }
                done.answer_with(reply, offsets)
            }
            Request::DeleteStreams(streams, reply) => {
                done.has_freed = true;
                let deleted = run(written, || {
                    streams.iter().try_fold(0, |count, stream| {
                        catalog::delete_stream(connection, stream).map(|it| count + u64::from(it))
                    })
                });
                done.moved
                    .extend(streams.into_iter().map(|stream| (stream, 0)));
                done.answer_with(reply, deleted)
            }
            Request::DeleteBefore(stream, before, reply) => {
                done.has_freed = true;
                let deleted = run(written, || {
                    catalog::delete_before(connection, &stream, before)
                });
                done.answer_with(reply, deleted)
            }
            Request::Seal(sealed, reply) => {
                done.has_freed = true;
                let moved = run(written, || sealed.record(connection));
                done.answer_with(reply, moved)
            }
        }
    }

    /// Tells those who wait, and the housekeeper, what has become durable.
    fn settle(&mut self, done: &mut Done) {
        let counters = &self.shared.counters;
        counters.syncs.fetch_add(1, Ordering::Relaxed);
        counters
            .appended
            .fetch_add(done.appended, Ordering::Relaxed);
        self.shared.tell_tails(std::mem::take(&mut done.moved));
        self.fresh_bytes += done.fresh_bytes;
        // The housekeeper ends only after everybody who could ask for anything.
        if self.fresh_bytes >= self.seal_bytes {
            self.fresh_bytes = 0;
            let _ = self.chores.send(Chore::Seal);
        }
        if done.has_freed {
            let forgotten = std::mem::take(&mut done.forgotten);
            let _ = self.chores.send(Chore::Freed(forgotten));
        }
    }
}

fn run<T>(written: bool, write: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    match written {
        true => write(),
        // Another request of the batch has failed, and this one falls with it.
        false => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

fn bytes_of(append: &Append) -> usize {
    append
        .records
        .iter()
        .map(|record| record.payload.len() + 12)
        .sum()
}

impl Request {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append(appends, _) => appends.iter().map(bytes_of).sum(),
            _ => 0,
        }
    }
}

impl Done {
    /// Remembers the answer; passes an error on, so that the batch is given up.
    fn answer_with<T: 'static>(
        &mut self,
        reply: Reply<T>,
        outcome: rusqlite::Result<T>,
    ) -> rusqlite::Result<()> {
        match outcome {
            Ok(value) => {
                self.answer(reply, Ok(value));
                Ok(())
            }
            Err(error) => {
                self.answer(reply, Err(ArchiveError::io(&error)));
                Err(error)
            }
        }
    }

    fn answer<T: 'static>(&mut self, reply: Reply<T>, outcome: Result<T, ArchiveError>) {
        self.answers.push(Box::new(move |failed| {
            // Whoever asked may have gone; what was done stands.
            let _ = reply.send(failed.map_or(outcome, Err));
        }));
    }
}

impl Sealed {
    /// Puts the blocks of a segment in the place of the chunks that they were made from. A block
    /// of which a chunk has been deleted meanwhile is left out: its bytes in the segment are dead.
    fn record(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT INTO segments (number, bytes) VALUES (?1, ?2)")?
            .execute(params![self.number, self.bytes])?;
        let range = "stream = ?1 AND first_offset >= ?2 AND first_offset < ?3 AND segment IS ?4";
        let mut count =
            connection.prepare_cached(&format!("SELECT count(*) FROM chunks WHERE {range}"))?;
        let mut delete = connection.prepare_cached(&format!("DELETE FROM chunks WHERE {range}"))?;
        let mut insert = connection.prepare_cached(
            "INSERT INTO chunks (stream, first_offset, count, min_time, max_time, bytes, segment, at, length)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        for block in &self.blocks {
            let end = block.first_offset + block.count;
            let from = params![block.stream, block.first_offset, end, self.from];
            let present: usize = count.query_row(from, |row| row.get(0))?;
            if present != block.sources {
                continue;
            }
            delete.execute(from)?;
            insert.execute(params![
                block.stream,
                block.first_offset,
                block.count,
                block.min_time,
                block.max_time,
                block.bytes,
                self.number,
                block.at,
                block.length,
            ])?;
        }
        Ok(())
    }
}
