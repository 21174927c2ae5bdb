//! The history of services: what happened to each, for as long as the installation was told to keep it.
//!
//! What always holds:
//! - Every event of a service ([`StateChangesRow`]) is in its history once, in order. The events move from
//!   their rows into a stream of the archive, whose cursor says up to which revision they have; it is
//!   written with them, so a kill at any moment neither loses nor repeats one.
//! - Memory stays bounded however long the history is: rows stay an hour, the archive is on disk.
//! - A service that was deleted has its history still, and one of the same name goes on with it.
//!
//! What it leaves to others: making the events ([`crate::model::state_changes`]), and showing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use gantry_archive::{Append, Archive, ArchiveError, Read, Record};
use gantry_arn::{ClusterName, ServiceName};
use gantry_env::{Env, Timestamp};
use gantry_store::{Change, Changes, Key, Revision, Row, Snapshot, Store, Table};

use crate::model::reference::Scope;
use crate::tables::{StateChange, StateChangesRow};

/// What the names of all its streams begin with. No other user of the archive's names begins so.
const STREAMS: &str = "ecs-history\0";

/// How long events gather before they are written: one durable write is for all of them.
const GATHER: Duration = Duration::from_secs(1);

/// How long it waits after the archive has refused.
const RETRY: Duration = Duration::from_secs(10);

/// How often what is too old is deleted.
const HOUSEKEEPING: Duration = Duration::from_secs(60 * 60);

/// How many streams are looked at together.
const STREAMS_AT_ONCE: usize = 500;

/// How often events are written anew because somebody else had just written them.
const ATTEMPTS: usize = 8;

/// Keeps the history, and reads it. Cloning shares it.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
    archive: Archive,
    env: Env,
    keep: Duration,
}

impl History {
    pub fn new(store: Arc<dyn Store>, archive: Archive, env: Env, keep: Duration) -> Self {
        Self {
            store,
            archive,
            env,
            keep,
        }
    }

    pub fn keeps(&self) -> Duration {
        self.keep
    }

    /// Writes down what happens, until it is dropped. It may be dropped at any moment.
    pub async fn run(self) {
        let prefix = StateChangesRow::everywhere();
        let mut changes = self.store.watch(&prefix, Revision::default());
        let snapshot = changes.reload();
        self.catch_up_or_say(&snapshot).await;
        let mut swept = None::<Duration>;
        loop {
            if swept.is_none_or(|at| self.env.monotonic() >= at + HOUSEKEEPING) {
                swept = Some(self.env.monotonic());
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "the history of services could not be cleaned");
                }
            }
            if !self.hears_of(&mut changes).await {
                continue;
            }
            self.env.sleep(GATHER).await;
            let (mut rows, mut is_lost) = (Vec::new(), false);
            while let Some(change) = changes.try_next() {
                match change {
                    Change::Rows(changed) => {
                        rows.extend(changed.into_iter().filter_map(|it| it.row))
                    }
                    Change::Lost => {
                        changes.reload();
                        is_lost = true;
                    }
                }
            }
            let outcome = match is_lost {
                true => self.catch_up(&self.store.snapshot()).await,
                false => self.keep(&rows).await,
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "the history of services could not be written, and will be");
                self.env.sleep(RETRY).await;
                self.catch_up_or_say(&self.store.snapshot()).await;
            }
        }
    }

    /// Waits for something to write down; false when it is time to keep house.
    async fn hears_of(&self, changes: &mut Changes) -> bool {
        let news = std::pin::pin!(changes.ready());
        let heard = select(news, self.env.sleep(HOUSEKEEPING)).await;
        matches!(heard, Either::Left(_))
    }

    async fn catch_up_or_say(&self, snapshot: &Snapshot) {
        if let Err(error) = self.catch_up(snapshot).await {
            tracing::warn!(%error, "the history of services lags behind");
        }
    }

    /// Writes down every event that has a row and is not written down yet.
    pub async fn catch_up(&self, snapshot: &Snapshot) -> Result<(), ArchiveError> {
        let prefix = StateChangesRow::everywhere();
        let mut rows: Vec<Row> = snapshot.scan(&prefix).cloned().collect();
        rows.sort_by_key(Row::revision);
        self.keep(&rows).await
    }

    /// Writes down these rows, which are in order.
    async fn keep(&self, rows: &[Row]) -> Result<(), ArchiveError> {
        for _ in 0..ATTEMPTS {
            match self.try_keep(rows).await {
                // Whoever asks for the history writes down as well what there is.
                Err(ArchiveError::CursorMoved { .. }) => {}
                other => return other,
            }
        }
        self.try_keep(rows).await
    }

    async fn try_keep(&self, rows: &[Row]) -> Result<(), ArchiveError> {
        let mut streams: BTreeMap<String, Kept> = BTreeMap::new();
        for row in rows {
            // Not decoded into the row itself, which would hold it in memory for an hour.
            let Ok(decoded) = serde_json::from_slice::<StateChangesRow>(row.value()) else {
                tracing::error!(row = %row.key(), "events cannot be read, and are left out of the history");
                continue;
            };
            for event in decoded.events {
                let Some(service) = &event.service else {
                    continue;
                };
                let name = stream_of(row.key(), &event.cluster, service);
                if !streams.contains_key(&name) {
                    let cursor = self.archive.stream(&name)?.and_then(|info| info.cursor);
                    streams.insert(name.clone(), Kept::begin(cursor));
                }
                if let Some(kept) = streams.get_mut(&name) {
                    kept.add(row.revision(), &event);
                }
            }
        }
        let appends = streams
            .into_iter()
            .filter_map(|(name, kept)| kept.append(name));
        let appends: Vec<Append> = appends.collect();
        match appends.is_empty() {
            true => Ok(()),
            false => self.archive.append(appends).await.map(drop),
        }
    }

    /// Deletes what is older than the history is kept.
    pub async fn sweep(&self) -> Result<(), ArchiveError> {
        let before = self.env.now() - self.keep;
        let mut after = None::<String>;
        loop {
            let streams = self
                .archive
                .streams(STREAMS, after.as_deref(), STREAMS_AT_ONCE)?;
            for stream in &streams {
                match stream.last_time {
                    Some(last) if last >= before => {
                        self.archive.delete_before(&stream.name, before).await?;
                    }
                    // Its cursor goes too. It is needed no more: the rows that it tells of are long gone.
                    _ => {
                        self.archive
                            .delete_streams(vec![stream.name.clone()])
                            .await?;
                    }
                }
            }
            match streams.last() {
                Some(last) if streams.len() == STREAMS_AT_ONCE => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Whether there ever was such a service, as far as the history goes back.
    pub async fn is_known(
        &self,
        scope: &Scope,
        cluster: &ClusterName,
        service: &ServiceName,
    ) -> Result<bool, ArchiveError> {
        self.catch_up(&self.store.snapshot()).await?;
        let stream = self.archive.stream(&stream_name(scope, cluster, service))?;
        Ok(stream.is_some())
    }

    /// One page of a service's history, oldest first, and where the next begins if there is more.
    pub async fn page(
        &self,
        scope: &Scope,
        cluster: &ClusterName,
        service: &ServiceName,
        since: Timestamp,
        from_offset: u64,
    ) -> Result<(Vec<StateChange>, Option<u64>), ArchiveError> {
        let mut read = Read::forward(stream_name(scope, cluster, service)).from_offset(from_offset);
        // The archive deletes in runs: a little of what is too old may still be there.
        read.times.start = since.max(self.env.now() - self.keep);
        let page = self.archive.read(&read).await?;
        let next = page.next.filter(|_| !page.is_end);
        let records = page.records.iter();
        let events = records.filter_map(|record| serde_json::from_slice(&record.payload).ok());
        Ok((events.collect(), next.map(|next| next.offset)))
    }
}

fn stream_of(row: &Key, cluster: &ClusterName, service: &ServiceName) -> String {
    let scope = Scope {
        account: row.account(),
        region: row.region(),
    };
    stream_name(&scope, cluster, service)
}

fn stream_name(scope: &Scope, cluster: &ClusterName, service: &ServiceName) -> String {
    let (account, region) = (&scope.account, &scope.region);
    format!("{STREAMS}{account}\0{region}\0{cluster}\0{service}")
}

/// What is to be appended to one stream.
struct Kept {
    before: Option<Bytes>,
    /// The revision up to which the stream has its events.
    until: u64,
    records: Vec<Record>,
    newest: u64,
}

impl Kept {
    fn begin(cursor: Option<Bytes>) -> Self {
        let text = cursor.as_ref().and_then(|it| std::str::from_utf8(it).ok());
        let until = text.and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            before: cursor,
            until,
            records: Vec::new(),
            newest: until,
        }
    }

    fn add(&mut self, revision: Revision, event: &StateChange) {
        if revision.0 <= self.until {
            return;
        }
        if let Ok(payload) = serde_json::to_vec(event) {
            self.records.push(Record::new(event.at, payload));
            self.newest = self.newest.max(revision.0);
        }
    }

    fn append(self, stream: String) -> Option<Append> {
        let cursor = Bytes::from(self.newest.to_string());
        (!self.records.is_empty())
            .then(|| Append::new(stream, self.records).with_cursor(self.before, cursor))
    }
}
