//! The archive as its users see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use gantry_env::{Env, Timestamp};
use gantry_store::DirectoryLock;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::catalog::Chunk;
use crate::committer::{Committer, Request};
use crate::housekeeper::{Chore, Housekeeper};
use crate::read::{self, BlockCache};
use crate::segments::Segments;
use crate::{Append, ArchiveError, MAX_APPEND_BYTES, Page, Read, StreamInfo, catalog};

/// How many requests may wait before callers wait to hand theirs in.
const QUEUE: usize = 256;

/// How many bytes of records stay uncompressed before a segment is made of them.
const SEAL_BYTES: usize = 4 * 1024 * 1024;

/// Cloning shares it. It is closed when the last clone is dropped.
#[derive(Clone)]
pub struct Archive {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) segments: Segments,
    pub(crate) blocks: BlockCache,
    shared: Arc<Shared>,
    reader: Mutex<Connection>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    chores: std_mpsc::Sender<Chore>,
    threads: Vec<JoinHandle<()>>,
    _lock: DirectoryLock,
}

/// What the threads share with those who call.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    tails: Mutex<BTreeMap<String, watch::Sender<u64>>>,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sealed: AtomicU64,
}

/// What the archive has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveCounters {
    pub appended_records: u64,
    /// Durable writes, each shared by all that waited for it.
    pub syncs: u64,
    pub sealed_segments: u64,
}

impl Archive {
    /// Opens the archive in `directory`, or makes one there.
    pub async fn open(directory: impl AsRef<Path>, env: Env) -> Result<Self, ArchiveError> {
        Self::open_with(directory.as_ref(), env, SEAL_BYTES).await
    }

    /// Seals after so many bytes, for tests that want segments without writing much.
    pub async fn open_with(
        directory: &Path,
        env: Env,
        seal_bytes: usize,
    ) -> Result<Self, ArchiveError> {
        let began = env.monotonic();
        let lock = DirectoryLock::take(directory).map_err(|error| ArchiveError::Refused {
            reason: error.to_string(),
        })?;
        let path = directory.join("catalog.sqlite");
        let writer = catalog::open(&path)?;
        let segments = Segments::open(&directory.join("segments"))?;
        segments.delete_orphans(&named_segments(&writer)?).await?;

        let shared = Arc::new(Shared::default());
        let (requests, waiting) = mpsc::channel(QUEUE);
        let (chores, to_do) = std_mpsc::channel();
        let committer = Committer::new(writer, shared.clone(), chores.clone(), seal_bytes)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let housekeeper = Housekeeper {
            catalog: catalog::open_reader(&path)?,
            segments: segments.clone(),
            shared: shared.clone(),
            requests: requests.clone(),
            runtime: runtime.map_err(ArchiveError::io)?,
        };
        let threads = vec![
            spawn("archive-housekeeper", move || housekeeper.run(&to_do))?,
            spawn("archive-committer", move || committer.run(waiting))?,
        ];
        tracing::debug!(took = ?(env.monotonic() - began), "the archive is open");
        Ok(Self {
            inner: Arc::new(Inner {
                segments,
                blocks: BlockCache::new(),
                shared,
                reader: Mutex::new(catalog::open_reader(&path)?),
                requests: Some(requests),
                chores,
                threads,
                _lock: lock,
            }),
        })
    }

    /// Appends to one or several streams, durably and all or nothing. Gives the offset of the first
    /// record of each. Dropping the future does not take it back.
    pub async fn append(&self, appends: Vec<Append>) -> Result<Vec<u64>, ArchiveError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Append(appends, reply);
        let actual = request.bytes();
        if actual > MAX_APPEND_BYTES {
            return Err(ArchiveError::TooLarge { actual });
        }
        self.inner.ask(request, answer).await
    }

    /// One page of a stream. A stream that does not exist is empty.
    pub async fn read(&self, read: &Read) -> Result<Page, ArchiveError> {
        self.inner.page(read).await
    }

    /// What is known of a stream; `None` if nothing was ever appended to it.
    pub fn stream(&self, stream: &str) -> Result<Option<StreamInfo>, ArchiveError> {
        Ok(catalog::info(&self.inner.reader(), stream)?)
    }

    /// The streams whose names begin with `prefix`, in order, after the one named `after`.
    pub fn streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamInfo>, ArchiveError> {
        Ok(catalog::list(&self.inner.reader(), prefix, after, limit)?)
    }

    /// The bytes of all streams whose names begin with `prefix`, as [`StreamInfo::bytes`] has them.
    pub fn bytes(&self, prefix: &str) -> Result<u64, ArchiveError> {
        Ok(catalog::bytes(&self.inner.reader(), prefix)?)
    }

    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        self.inner.reader()
    }

    pub(crate) fn fresh_body(&self, chunk: &Chunk) -> Result<Option<Bytes>, ArchiveError> {
        let body = read::fresh_body(&self.inner.reader(), chunk)?;
        Ok(body.map(Bytes::from))
    }

    pub(crate) fn cached_block(&self, segment: u64, at: u64) -> Option<Bytes> {
        self.inner.blocks.get((segment, at))
    }

    pub(crate) async fn segment_block(
        &self,
        segment: u64,
        at: u64,
        length: u64,
    ) -> Result<Option<Bytes>, ArchiveError> {
        self.inner.segments.get(segment, at, length).await
    }

    /// Deletes streams with all of their records; gives how many of them there were.
    pub async fn delete_streams(&self, streams: Vec<String>) -> Result<u64, ArchiveError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::DeleteStreams(streams, reply);
        self.inner.ask(request, answer).await
    }

    /// Deletes from the front of a stream what is older than `before`, in whole runs of records: a
    /// few older ones may stay until their neighbours are old as well. Gives how many went.
    pub async fn delete_before(
        &self,
        stream: &str,
        before: Timestamp,
    ) -> Result<u64, ArchiveError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::DeleteBefore(stream.to_owned(), before, reply);
        self.inner.ask(request, answer).await
    }

    /// Follows a stream, which need not exist yet.
    pub fn tail(&self, stream: &str) -> Tail {
        let mut tails = self.inner.shared.tails();
        let sender = tails.entry(stream.to_owned()).or_default();
        Tail {
            next_offset: sender.subscribe(),
        }
    }

    pub fn counters(&self) -> ArchiveCounters {
        let counters = &self.inner.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ArchiveCounters {
            appended_records: read(&counters.appended),
            syncs: read(&counters.syncs),
            sealed_segments: read(&counters.sealed),
        }
    }
}

/// Tells when records were appended to a stream, after they can be read.
#[derive(Debug)]
pub struct Tail {
    next_offset: watch::Receiver<u64>,
}

impl Tail {
    /// Waits for an append since the last call, or since this was made. To miss nothing: make the
    /// tail, read to the end, then wait.
    pub async fn changed(&mut self) {
        if self.next_offset.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether something was appended that [`Tail::changed`] has not told of yet.
    pub fn has_changed(&self) -> bool {
        self.next_offset.has_changed().unwrap_or(false)
    }
}

impl Shared {
    pub(crate) fn tell_tails(&self, moved: BTreeMap<String, u64>) {
        let mut tails = self.tails();
        if tails.is_empty() {
            return;
        }
        for (stream, next_offset) in moved {
            if let Some(tail) = tails.get(&stream) {
                tail.send_replace(next_offset);
            }
        }
        // Nobody says that he has stopped following; this is when it is noticed.
        tails.retain(|_, tail| tail.receiver_count() > 0);
    }

    fn tails(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<u64>>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(
        &self,
        request: Request,
        answer: oneshot::Receiver<Result<T, ArchiveError>>,
    ) -> Result<T, ArchiveError> {
        let stopped = || ArchiveError::io("it has been closed");
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// The housekeeper is told to end, since it can hand in work itself; the committer then ends by
/// itself once everything handed in is done.
impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.chores.send(Chore::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the archive has panicked");
            }
        }
    }
}

fn named_segments(catalog: &Connection) -> Result<BTreeSet<u64>, ArchiveError> {
    let mut select = catalog.prepare("SELECT number FROM segments")?;
    let numbers = select.query_map([], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ArchiveError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(ArchiveError::io)
}
