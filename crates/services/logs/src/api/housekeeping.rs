//! What is deleted without anybody asking at that moment: expired events, and what a deletion
//! that was cut off left behind.
//!
//! What always holds: it deletes only what no reader can see any more, so it may run at any time,
//! twice, or not at all. It is level-triggered: it looks at everything and remembers nothing.

use std::time::Duration;

use gantry_api::logs::LogsError;
use gantry_arn::{AccountId, Region};
use gantry_store::{Snapshot, Transaction, Versioned};

use super::{Group, LogsService, internal};
use crate::events::{ArchiveName, EVERY_STREAM, split_archive_name};
use crate::model::retention::retention;
use crate::tables::{LogGroups, LogStreams, MetricFilters, SEPARATOR, split_row_name, streams_of};

/// How often. AWS promises expiry within 72 hours.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Rows of one transaction: each is expected and deleted, which are two of its 100 operations.
const ROWS_AT_ONCE: usize = 48;
const STREAMS_AT_ONCE: usize = 500;

/// What one round has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub expired_events: u64,
    /// Streams of groups, and events of streams, that had been deleted before.
    pub orphaned_rows: u64,
    pub orphaned_streams: u64,
}

impl LogsService {
    /// Keeps house until it is dropped: at once, and then every hour.
    pub async fn keep_house(self) {
        loop {
            match self.keep_house_once().await {
                Ok(kept) if kept != Kept::default() => tracing::info!(?kept, "logs kept house"),
                Ok(_) => {}
                // The next round tries again.
                Err(error) => tracing::warn!(%error, "logs could not keep house"),
            }
            self.env.sleep(INTERVAL).await;
        }
    }

    /// One round.
    pub async fn keep_house_once(&self) -> Result<Kept, LogsError> {
        let orphaned_rows =
            self.delete_orphaned_rows().await? + self.delete_orphaned_filters().await?;
        let orphaned_streams = self.delete_orphaned_streams().await?;
        let expired_events = self.delete_expired_events().await?;
        Ok(Kept {
            expired_events,
            orphaned_rows,
            orphaned_streams,
        })
    }

    /// Deletes the streams of a group that has just ended, and their events.
    pub(super) async fn purge_group(
        &self,
        account: &AccountId,
        region: &Region,
        group: &Group,
    ) -> Result<(), LogsError> {
        let rows: Vec<_> = self
            .store
            .snapshot()
            .list_prefix::<LogStreams>(account, region, &streams_of(&group.name))
            .into_iter()
            .filter(|row| row.group_id == group.row.id)
            .collect();
        self.delete_rows(&rows).await?;
        let filters: Vec<_> = self
            .store
            .snapshot()
            .list_prefix::<MetricFilters>(account, region, &streams_of(&group.name))
            .into_iter()
            .filter(|row| row.group_id == group.row.id)
            .collect();
        self.delete_rows(&filters).await?;
        let prefix = crate::events::group_prefix(account, region, &group.name);
        self.delete_unowned(&prefix).await?;
        Ok(())
    }

    async fn delete_orphaned_rows(&self) -> Result<u64, LogsError> {
        let snapshot = self.store.snapshot();
        let orphans: Vec<_> = snapshot
            .list_everywhere::<LogStreams>()
            .into_iter()
            .filter(|row| !lives_in_a_group(&snapshot, row, &row.group_id))
            .collect();
        self.delete_rows(&orphans).await?;
        Ok(orphans.len() as u64)
    }

    async fn delete_orphaned_filters(&self) -> Result<u64, LogsError> {
        let snapshot = self.store.snapshot();
        let orphans: Vec<_> = snapshot
            .list_everywhere::<MetricFilters>()
            .into_iter()
            .filter(|row| !lives_in_a_group(&snapshot, row, &row.group_id))
            .collect();
        self.delete_rows(&orphans).await?;
        Ok(orphans.len() as u64)
    }

    async fn delete_orphaned_streams(&self) -> Result<u64, LogsError> {
        self.delete_unowned(EVERY_STREAM).await
    }

    /// Deletes rows as they were read; one that was changed meanwhile belongs to somebody again.
    async fn delete_rows<R: Sync + Send>(&self, rows: &[Versioned<R>]) -> Result<(), LogsError> {
        for some in rows.chunks(ROWS_AT_ONCE) {
            let mut together = Transaction::new();
            for row in some {
                together.expect_read(row);
                together.delete(row.key.clone());
            }
            match self.store.commit(together).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() => self.delete_rows_singly(some).await?,
                Err(error) => return Err(internal(error)),
            }
        }
        Ok(())
    }

    async fn delete_rows_singly<R: Sync + Send>(
        &self,
        rows: &[Versioned<R>],
    ) -> Result<(), LogsError> {
        for row in rows {
            let mut transaction = Transaction::new();
            transaction.expect_read(row);
            transaction.delete(row.key.clone());
            match self.store.commit(transaction).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(internal(error)),
            }
        }
        Ok(())
    }

    /// Deletes from the archive the streams under `prefix` that no row names. They are listed
    /// before the rows are looked at, and a row is there before its first event is, so no stream
    /// that is in use can seem unowned.
    async fn delete_unowned(&self, prefix: &str) -> Result<u64, LogsError> {
        let mut deleted = 0;
        let mut after: Option<String> = None;
        loop {
            let infos = self
                .archive
                .streams(prefix, after.as_deref(), STREAMS_AT_ONCE)
                .map_err(internal)?;
            let Some(last) = infos.last().map(|info| info.name.clone()) else {
                return Ok(deleted);
            };
            let snapshot = self.store.snapshot();
            let unowned: Vec<String> = infos
                .into_iter()
                .map(|info| info.name)
                .filter(|name| split_archive_name(name).is_some_and(|n| !has_row(&snapshot, &n)))
                .collect();
            if !unowned.is_empty() {
                deleted += self
                    .archive
                    .delete_streams(unowned)
                    .await
                    .map_err(internal)?;
            }
            after = Some(last);
        }
    }

    async fn delete_expired_events(&self) -> Result<u64, LogsError> {
        let now = self.env.now();
        let mut deleted = 0;
        for group in self.store.snapshot().list_everywhere::<LogGroups>() {
            let Some(kept) = group.retention_days.and_then(retention) else {
                continue;
            };
            let Ok(name) = group.name().parse() else {
                continue;
            };
            let before = now - kept;
            let place = (group.key.account(), group.key.region());
            let prefix = crate::events::group_prefix(&place.0, &place.1, &name);
            let mut after: Option<String> = None;
            loop {
                let infos = self
                    .archive
                    .streams(&prefix, after.as_deref(), STREAMS_AT_ONCE)
                    .map_err(internal)?;
                let Some(last) = infos.last().map(|info| info.name.clone()) else {
                    break;
                };
                for info in infos {
                    if info.first_time.is_some_and(|first| first < before) {
                        deleted += self
                            .archive
                            .delete_before(&info.name, before)
                            .await
                            .map_err(internal)?;
                    }
                }
                after = Some(last);
            }
        }
        Ok(deleted)
    }
}

/// Whether the group's life that a stream or a filter was made in is still going on.
fn lives_in_a_group<R>(snapshot: &Snapshot, row: &Versioned<R>, group_id: &str) -> bool {
    let Some((group, _)) = split_row_name(row.name()) else {
        return false;
    };
    snapshot
        .read::<LogGroups>(&row.key.account(), &row.key.region(), group)
        .is_some_and(|group| group.id == group_id)
}

fn has_row(snapshot: &Snapshot, name: &ArchiveName<'_>) -> bool {
    let (Ok(account), Ok(region)) = (name.account.parse(), name.region.parse()) else {
        return false;
    };
    let row = format!("{}{SEPARATOR}{}", name.group, name.stream);
    snapshot
        .read::<LogStreams>(&account, &region, &row)
        .is_some_and(|row| row.id == name.id)
}
