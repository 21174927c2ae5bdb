//! The catalogue: which streams there are, and where each run of their records stands.
//!
//! What always holds: a chunk is either fresh (its bytes are in its row) or sealed (they are in a
//! segment); chunks of a stream follow each other without gap; a segment's row is there exactly as
//! long as a chunk refers to it. Every function here runs inside its caller's transaction.

use std::path::Path;

use bytes::Bytes;
use gantry_env::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{Append, ArchiveError, ExpectedCursor, block};

/// `GARC`: says whose file this is.
const APPLICATION_ID: i64 = 0x4741_5243;

const VERSION: i64 = 1;

const CREATE: &str = "
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        next_offset INTEGER NOT NULL,
        first_time INTEGER,
        last_time INTEGER,
        bytes INTEGER NOT NULL,
        cursor BLOB
    ) STRICT;
    CREATE TABLE chunks (
        stream INTEGER NOT NULL,
        first_offset INTEGER NOT NULL,
        count INTEGER NOT NULL,
        min_time INTEGER NOT NULL,
        max_time INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        segment INTEGER,
        at INTEGER NOT NULL DEFAULT 0,
        length INTEGER NOT NULL DEFAULT 0,
        body BLOB
    ) STRICT;
    CREATE UNIQUE INDEX chunks_by_offset ON chunks (stream, first_offset);
    CREATE INDEX fresh_chunks ON chunks (stream, first_offset) WHERE segment IS NULL;
    CREATE INDEX chunks_by_segment ON chunks (segment) WHERE segment IS NOT NULL;
    CREATE TABLE segments (number INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL) STRICT;
";

/// What is known of a stream without reading its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    pub name: String,
    /// The first record that is still there; equal to `next_offset` if there is none.
    pub first_offset: u64,
    /// Where the next record will stand.
    pub next_offset: u64,
    /// The earliest and the latest time of any record so far appended.
    pub first_time: Option<Timestamp>,
    pub last_time: Option<Timestamp>,
    /// The bytes of the payloads that are still there, with 12 for each record.
    pub bytes: u64,
    /// What came with the last append that had one.
    pub cursor: Option<Bytes>,
}

/// Where a run of records stands.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub stream: i64,
    pub first_offset: u64,
    pub count: u64,
    pub min_time: i64,
    pub max_time: i64,
    /// Before compression.
    pub bytes: usize,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Fresh(Bytes),
    Sealed { segment: u64, at: u64, length: u64 },
}

impl Chunk {
    pub(crate) const COLUMNS: &'static str =
        "stream, first_offset, count, min_time, max_time, bytes, segment, at, length, body";

    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let place = match row.get::<_, Option<u64>>(6)? {
            Some(segment) => Place::Sealed {
                segment,
                at: row.get(7)?,
                length: row.get(8)?,
            },
            None => Place::Fresh(row.get::<_, Vec<u8>>(9)?.into()),
        };
        Ok(Self {
            stream: row.get(0)?,
            first_offset: row.get(1)?,
            count: row.get(2)?,
            min_time: row.get(3)?,
            max_time: row.get(4)?,
            bytes: row.get(5)?,
            place,
        })
    }
}

/// Opens the catalogue, or makes it, for the one that writes.
pub(crate) fn open(path: &Path) -> Result<Connection, ArchiveError> {
    let connection = Connection::open(path)?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let is_new = match (application, version, tables) {
        (0, 0, 0) => true,
        (APPLICATION_ID, VERSION, _) => false,
        (APPLICATION_ID, found, _) => {
            return Err(ArchiveError::Refused {
                reason: format!(
                    "{} has archive version {found}, and this Gantry knows version {VERSION}: use the Gantry that wrote it, or a newer one",
                    path.display()
                ),
            });
        }
        _ => {
            return Err(ArchiveError::Refused {
                reason: format!("{} is a database of another program", path.display()),
            });
        }
    };
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;")?;
    if is_new {
        let stamp =
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};");
        connection.execute_batch(&format!("BEGIN; {CREATE} {stamp} COMMIT;"))?;
    }
    Ok(connection)
}

/// Another connection, for one that reads.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, ArchiveError> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -1024;")?;
    Ok(connection)
}

/// The first stream whose cursor is not as expected. To be asked before anything of the append is
/// written.
pub(crate) fn moved_cursor(
    connection: &Connection,
    appends: &[Append],
) -> rusqlite::Result<Option<String>> {
    for append in appends {
        if let ExpectedCursor::Is(expected) = &append.expected_cursor {
            let cursor: Option<Option<Vec<u8>>> = connection
                .prepare_cached("SELECT cursor FROM streams WHERE name = ?1")?
                .query_row([&append.stream], |row| row.get(0))
                .optional()?;
            if cursor.flatten().as_deref() != expected.as_deref() {
                return Ok(Some(append.stream.clone()));
            }
        }
    }
    Ok(None)
}

/// Writes one append; gives the stream's next offset before it.
pub(crate) fn append(connection: &Connection, append: &Append) -> rusqlite::Result<u64> {
    let times = || {
        append
            .records
            .iter()
            .map(|record| record.timestamp.as_millis())
    };
    let (min, max) = (times().min(), times().max());
    let body = block::encode(&append.records);
    let count = append.records.len() as u64;
    let mut upsert = connection.prepare_cached(
        "INSERT INTO streams (name, next_offset, first_time, last_time, bytes, cursor)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO UPDATE SET
            next_offset = next_offset + ?2,
            first_time = min(ifnull(first_time, ?3), ifnull(?3, first_time)),
            last_time = max(ifnull(last_time, ?4), ifnull(?4, last_time)),
            bytes = bytes + ?5,
            cursor = ifnull(?6, cursor)
         RETURNING id, next_offset",
    )?;
    let values = params![
        append.stream,
        count,
        min,
        max,
        body.len(),
        append.cursor.as_deref()
    ];
    let (stream, next): (i64, u64) =
        upsert.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let first = next - count;
    if let (Some(min), Some(max)) = (min, max) {
        connection
            .prepare_cached(
                "INSERT INTO chunks (stream, first_offset, count, min_time, max_time, bytes, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                stream,
                first,
                count,
                min,
                max,
                body.len(),
                &body[..]
            ])?;
    }
    Ok(first)
}

const INFO: &str = "
    SELECT name, next_offset, first_time, last_time, bytes, cursor,
        (SELECT first_offset FROM chunks WHERE stream = id ORDER BY first_offset LIMIT 1)
    FROM streams";

fn read_info(row: &Row<'_>) -> rusqlite::Result<StreamInfo> {
    let time = |index| {
        let ms: Option<i64> = row.get(index)?;
        Ok::<_, rusqlite::Error>(ms.map(Timestamp::from_millis))
    };
    let next_offset = row.get(1)?;
    Ok(StreamInfo {
        name: row.get(0)?,
        first_offset: row.get::<_, Option<u64>>(6)?.unwrap_or(next_offset),
        next_offset,
        first_time: time(2)?,
        last_time: time(3)?,
        bytes: row.get(4)?,
        cursor: row.get::<_, Option<Vec<u8>>>(5)?.map(Bytes::from),
    })
}

pub(crate) fn info(connection: &Connection, stream: &str) -> rusqlite::Result<Option<StreamInfo>> {
    connection
        .prepare_cached(&format!("{INFO} WHERE name = ?1"))?
        .query_row([stream], read_info)
        .optional()
}

/// The streams whose names begin with `prefix` and come after `after`.
pub(crate) fn list(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<StreamInfo>> {
    let query = format!("{INFO} WHERE name >= ?1 AND name > ?2 ORDER BY name LIMIT ?3");
    let mut select = connection.prepare_cached(&query)?;
    // The empty text stands before every name.
    let from = after.unwrap_or("");
    let found = select.query_map(params![prefix, from, limit], read_info)?;
    let mut streams = Vec::new();
    for info in found {
        let info = info?;
        if !info.name.starts_with(prefix) {
            break;
        }
        streams.push(info);
    }
    Ok(streams)
}

/// The sum over the streams whose names begin with `prefix`.
pub(crate) fn bytes(connection: &Connection, prefix: &str) -> rusqlite::Result<u64> {
    // No name begins with the prefix and comes after the prefix followed by the last character.
    let end = format!("{prefix}{}", char::MAX);
    connection
        .prepare_cached("SELECT ifnull(sum(bytes), 0) FROM streams WHERE name >= ?1 AND name < ?2")?
        .query_row([prefix, &end], |row| row.get(0))
}

/// Deletes a stream with its records; false if there was none.
pub(crate) fn delete_stream(connection: &Connection, stream: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "DELETE FROM chunks WHERE stream = (SELECT id FROM streams WHERE name = ?1)",
        )?
        .execute([stream])?;
    let deleted = connection
        .prepare_cached("DELETE FROM streams WHERE name = ?1")?
        .execute([stream])?;
    Ok(deleted > 0)
}

/// Deletes the chunks at the front of a stream of which every record is older than `before`.
/// Stops at the first that is not, so that what is left has no gap.
pub(crate) fn delete_before(
    connection: &Connection,
    stream: &str,
    before: Timestamp,
) -> rusqlite::Result<u64> {
    let Some(id) = connection
        .prepare_cached("SELECT id FROM streams WHERE name = ?1")?
        .query_row([stream], |row| row.get::<_, i64>(0))
        .optional()?
    else {
        return Ok(0);
    };
    let (records, bytes): (u64, u64) = connection
        .prepare_cached(
            "DELETE FROM chunks WHERE stream = ?1 AND first_offset < ifnull(
                (SELECT min(first_offset) FROM chunks WHERE stream = ?1 AND max_time >= ?2),
                9223372036854775807)
             RETURNING count, bytes",
        )?
        .query_map(params![id, before.as_millis()], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?))
        })?
        .try_fold((0, 0), |sum, row| {
            row.map(|(count, bytes)| (sum.0 + count, sum.1 + bytes))
        })?;
    connection
        .prepare_cached("UPDATE streams SET bytes = bytes - ?2 WHERE id = ?1")?
        .execute(params![id, bytes])?;
    Ok(records)
}

/// Forgets the segments that nothing refers to any more; their objects may then be deleted.
pub(crate) fn forget_segments(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    connection
        .prepare_cached(
            "DELETE FROM segments
             WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE chunks.segment = segments.number)
             RETURNING number",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}
