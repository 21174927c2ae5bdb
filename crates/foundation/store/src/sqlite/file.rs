//! The one table, and how a batch of commits is written into it.
//!
//! What always holds: rows and the revision they stand at change in one SQLite transaction. The
//! revision is itself a row, with empty account, region, service and kind, that nobody else sees.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::OpenError;
use crate::replica::Staged;
use crate::{Key, Revision, Row, Snapshot, Transaction};

/// `GANT`: says whose file this is.
const APPLICATION_ID: i64 = 0x4741_4E54;

/// The version of the file's form, refused by every Gantry that does not know it.
const VERSION: i64 = 1;

/// An ordinary rowid table: in one without, rows of 1 KiB and more would be cut into overflow
/// pages, because SQLite keeps at least four of them on a page of its index.
const CREATE: &str = "
    CREATE TABLE rows (
        account TEXT NOT NULL,
        region TEXT NOT NULL,
        service TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        schema INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (account, region, service, kind, name)
    ) STRICT;
    INSERT INTO rows VALUES ('', '', '', '', 'revision', 0, 0, '');
";

const PUT: &str = "
    INSERT INTO rows (account, region, service, kind, name, schema, revision, value)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, CAST(?8 AS TEXT))
    ON CONFLICT DO UPDATE SET schema = ?6, revision = ?7, value = CAST(?8 AS TEXT)";

const DELETE: &str = "
    DELETE FROM rows
    WHERE account = ?1 AND region = ?2 AND service = ?3 AND kind = ?4 AND name = ?5";

const SET_REVISION: &str = "
    UPDATE rows SET revision = ?1
    WHERE account = '' AND region = '' AND service = '' AND kind = '' AND name = 'revision'";

const GET_REVISION: &str = "
    SELECT revision FROM rows
    WHERE account = '' AND region = '' AND service = '' AND kind = '' AND name = 'revision'";

pub(super) struct RowFile {
    connection: Connection,
}

impl RowFile {
    /// Opens the file, or makes one whose first commit is `first`.
    pub(super) fn open(
        path: &Path,
        first: impl FnOnce() -> Transaction,
    ) -> Result<Self, OpenError> {
        let failed = |error: rusqlite::Error| OpenError::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let connection = Connection::open(path).map_err(failed)?;
        let mut file = Self { connection };
        // Before anything is written, even the journal mode: a file of somebody else, or of a
        // newer Gantry, stays as it is.
        let is_new = file.identify(path)?;
        file.configure().map_err(failed)?;
        if is_new {
            file.create(&first()).map_err(failed)?;
        }
        Ok(file)
    }

    /// Whether the file is empty; an error if it is not one this program may write to.
    fn identify(&self, path: &Path) -> Result<bool, OpenError> {
        let not_a_store = |error: rusqlite::Error| OpenError::NotAStore {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let pragma = |name| {
            let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            self.connection.pragma_query_value(None, name, read)
        };
        let application = pragma("application_id").map_err(not_a_store)?;
        let version = pragma("user_version").map_err(not_a_store)?;
        let tables: i64 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(not_a_store)?;
        match (application, version, tables) {
            (0, 0, 0) => Ok(true),
            (APPLICATION_ID, VERSION, _) => Ok(false),
            (APPLICATION_ID, found, _) => Err(OpenError::UnknownVersion {
                path: path.to_owned(),
                found,
                known: VERSION,
            }),
            _ => Err(OpenError::NotAStore {
                path: path.to_owned(),
                reason: "it is a database of another program".to_owned(),
            }),
        }
    }

    fn configure(&self) -> rusqlite::Result<()> {
        let mode: String = self
            .connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            let reason = format!("its journal mode stays {mode:?}, a write-ahead log is needed");
            return Err(rusqlite::Error::ToSqlConversionFailure(reason.into()));
        }
        // Checkpoints never run inside a commit: see the checkpointer.
        self.connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -2048;",
        )
    }

    fn create(&mut self, first: &Transaction) -> rusqlite::Result<()> {
        let mut rows = Snapshot::empty();
        let staged = first
            .stage(&mut rows)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.connection.execute_batch(CREATE)?;
        self.connection
            .pragma_update(None, "application_id", APPLICATION_ID)?;
        self.connection
            .pragma_update(None, "user_version", VERSION)?;
        self.write_rows(staged.as_slice(), rows.revision())?;
        self.connection.execute_batch("COMMIT")
    }

    /// Every row, at the revision they stand at.
    pub(super) fn load(&self) -> rusqlite::Result<Snapshot> {
        let mut snapshot = Snapshot::empty();
        let mut select = self.connection.prepare(
            "SELECT account, region, service, kind, name, schema, revision, value FROM rows
             WHERE account <> ''",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let text = |index| Ok::<_, rusqlite::Error>(row.get_ref(index)?.as_str()?);
            let key = Key::from_parts([text(0)?, text(1)?, text(2)?, text(3)?, text(4)?]);
            let value = Bytes::copy_from_slice(row.get_ref(7)?.as_bytes()?);
            let revision = Revision(row.get(6)?);
            snapshot.insert(Row::new(key, row.get(5)?, value, revision));
        }
        snapshot.set_revision(self.revision()?);
        Ok(snapshot)
    }

    /// The revision on disk.
    pub(super) fn revision(&self) -> rusqlite::Result<Revision> {
        let read = self
            .connection
            .prepare_cached(GET_REVISION)?
            .query_row([], |row| row.get(0))
            .optional()?;
        read.map(Revision)
            .ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// Writes all commits or none, durably.
    pub(super) fn write(&mut self, commits: &[Staged], revision: Revision) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let written = self
            .write_rows(commits, revision)
            .and_then(|()| self.connection.execute_batch("COMMIT"));
        if written.is_err() && !self.connection.is_autocommit() {
            // SQLite has usually rolled back by itself; if not, nothing of this may stay.
            self.connection.execute_batch("ROLLBACK")?;
        }
        written
    }

    /// For a checkpoint by the thread that writes.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn write_rows(&self, commits: &[Staged], revision: Revision) -> rusqlite::Result<()> {
        let mut put = self.connection.prepare_cached(PUT)?;
        let mut delete = self.connection.prepare_cached(DELETE)?;
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            let part = |index| change.key.part(index);
            let (account, region, service) = (part(0), part(1), part(2));
            let (kind, name) = (part(3), part(4));
            match &change.row {
                Some(row) => put.execute(params![
                    account,
                    region,
                    service,
                    kind,
                    name,
                    row.schema(),
                    change.revision.0,
                    // Bound as a blob, so that a value is checked by nobody and kept as it is.
                    &row.value()[..],
                ])?,
                None => delete.execute(params![account, region, service, kind, name])?,
            };
        }
        let mut set = self.connection.prepare_cached(SET_REVISION)?;
        set.execute(params![revision.0]).map(drop)
    }
}
