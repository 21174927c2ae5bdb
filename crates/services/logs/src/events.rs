//! Log events as records of the archive.
//!
//! What always holds: a record is one event, its payload the time it was taken in (8 bytes) and
//! the message; an event's sequence is its record's offset. The cursor that the archive keeps
//! beside a stream holds [`StreamState`], written with the events and only on top of the state
//! that it was decided from, so events and the marks of what was taken in never come apart.
//! Times of taking in never go back within a stream.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use gantry_arn::{AccountId, LogGroupName, LogStreamName, Region};
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use crate::tables::{LogStreamRow, SEPARATOR};

/// The spools that a stream remembers. A container has one; more come only from restarts of a
/// container whose stream keeps its name.
const MAX_SPOOLS: usize = 32;

/// What is kept beside a stream's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    pub last_ingestion: Timestamp,
    /// How far each agent's spool is held, and when it was last heard of.
    #[serde(default)]
    spools: BTreeMap<String, Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    end: u64,
    at: Timestamp,
}

impl StreamState {
    /// Reads the archive's cursor. A stream without one has taken nothing in.
    pub fn read(cursor: Option<&Bytes>) -> Result<Self, serde_json::Error> {
        cursor.map_or_else(
            || Ok(Self::default()),
            |bytes| serde_json::from_slice(bytes),
        )
    }

    pub fn write(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// How far a spool is held.
    pub fn held_to(&self, spool: &str) -> Option<u64> {
        self.spools.get(spool).map(|held| held.end)
    }

    /// Moves a spool's mark, forgetting the one that was silent for longest if there are many.
    pub fn hold_to(&mut self, spool: &str, end: u64, now: Timestamp) {
        let held = Held { end, at: now };
        self.spools.insert(spool.to_owned(), held);
        while self.spools.len() > MAX_SPOOLS {
            let silent = self.spools.iter().min_by_key(|(_, held)| held.at);
            let Some(silent) = silent.map(|(name, _)| name.clone()) else {
                return;
            };
            self.spools.remove(&silent);
        }
    }
}

/// The payload of an event's record.
pub fn encode(ingestion: Timestamp, message: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(INGESTION_BYTES + message.len());
    payload.put_i64_le(ingestion.as_millis());
    payload.put_slice(message.as_bytes());
    payload.freeze()
}

/// The time of taking in and the message; `None` for a record that is not an event's.
pub fn decode(payload: &[u8]) -> Option<(Timestamp, String)> {
    let (ingestion, message) = payload.split_first_chunk::<INGESTION_BYTES>()?;
    let message = String::from_utf8(message.to_vec()).ok()?;
    let ingestion = Timestamp::from_millis(i64::from_le_bytes(*ingestion));
    Some((ingestion, message))
}

pub(crate) const INGESTION_BYTES: usize = 8;

/// What the archive's names of all streams of Logs begin with.
pub(crate) const EVERY_STREAM: &str = "logs\u{1f}";

/// What the archive's names of one group's streams begin with.
pub(crate) fn group_prefix(account: &AccountId, region: &Region, group: &LogGroupName) -> String {
    let s = SEPARATOR;
    format!("{EVERY_STREAM}{account}{s}{region}{s}{group}{s}")
}

/// The archive's name of a stream, which another life of the same stream does not share.
pub(crate) fn archive_name(
    account: &AccountId,
    region: &Region,
    group: &LogGroupName,
    stream: &LogStreamName,
    row: &LogStreamRow,
) -> String {
    let s = SEPARATOR;
    let prefix = group_prefix(account, region, group);
    format!("{prefix}{stream}{s}{}", row.id)
}

/// A stream's name in the archive, taken apart.
pub(crate) struct ArchiveName<'a> {
    pub account: &'a str,
    pub region: &'a str,
    pub group: &'a str,
    pub stream: &'a str,
    pub id: &'a str,
}

pub(crate) fn split_archive_name(name: &str) -> Option<ArchiveName<'_>> {
    let mut parts = name.strip_prefix(EVERY_STREAM)?.split(SEPARATOR);
    let mut part = || parts.next();
    Some(ArchiveName {
        account: part()?,
        region: part()?,
        group: part()?,
        stream: part()?,
        id: part()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_names_round_trip() {
        let at = Timestamp::from_millis(1_767_225_600_123);
        assert_eq!(decode(&encode(at, "grüß")), Some((at, "grüß".to_owned())));
        assert_eq!(decode(b"short"), None);
        let row = LogStreamRow {
            id: "0a".into(),
            group_id: "g".into(),
            created_at: at,
        };
        let name = archive_name(
            &AccountId::default(),
            &Region::default(),
            &"/ecs/app".parse().unwrap(),
            &"web/1 ü".parse().unwrap(),
            &row,
        );
        let parts = split_archive_name(&name).unwrap();
        assert_eq!(
            (parts.group, parts.stream, parts.id),
            ("/ecs/app", "web/1 ü", "0a")
        );
        assert_eq!((parts.account, parts.region), ("000000000000", "us-east-1"));
    }

    #[test]
    fn the_spool_that_was_silent_for_longest_is_forgotten() {
        let mut state = StreamState::default();
        for n in 0..=MAX_SPOOLS as i64 {
            state.hold_to(
                &format!("s{n}"),
                7,
                Timestamp::from_millis(100 - (n % 2) * n),
            );
        }
        assert_eq!(state.spools.len(), MAX_SPOOLS);
        assert!(state.held_to("s31").is_none() && state.held_to("s32") == Some(7));
        let again = StreamState::read(Some(&state.write().unwrap())).unwrap();
        assert_eq!(again, state);
    }
}
