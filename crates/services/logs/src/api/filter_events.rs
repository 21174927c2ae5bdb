//! FilterLogEvents: many streams as one, in the order of time. `aws logs tail` polls this.
//!
//! What always holds: events come by time, then by the name of their stream, then by the order in
//! which they were taken in; a token names the last one returned, so pages neither repeat nor miss
//! what was there, before and after a restart. Memory is bounded by a page: see the archive's scan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_api::logs::{self, LogsError};
use gantry_archive::{Scan, ScanPlace, Sieve, StreamInfo};
use gantry_env::Timestamp;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::get_events::{MAX_BYTES, MAX_EVENTS};
use super::streams::{Stream, streams_in};
use super::{Group, LogsService, View, bad_token, internal, invalid, metric_filters};
use crate::events::{INGESTION_BYTES, decode};
use crate::model::batch::EVENT_OVERHEAD_BYTES;
use crate::model::pattern::FilterPattern;
use crate::model::position::{Position, event_id};
use crate::page_token;

/// The last event of a page, in a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    timestamp: i64,
    stream: String,
    sequence: u64,
}

/// A stream that may hold something, and its name in the archive.
struct Source {
    name: String,
    records: String,
}

impl LogsService {
    pub(super) async fn filter_events(
        &self,
        view: View<'_>,
        input: &logs::FilterLogEventsRequest,
    ) -> Result<logs::FilterLogEventsResponse, LogsError> {
        let group = view.group_by(
            input.log_group_name.as_deref(),
            input.log_group_identifier.as_deref(),
        )?;
        if input.start_from_head == Some(false) {
            return Err(invalid(
                "startFromHead: reading from the tail is not built in Gantry yet.",
            ));
        }
        let text = input.filter_pattern.as_deref().unwrap_or_default();
        let pattern = metric_filters::pattern(text)?;
        let scope = format!(
            "filter/{}/{:?}/{:?}/{:?}/{:?}/{text}",
            group.row.id,
            input.log_stream_names,
            input.log_stream_name_prefix,
            input.start_time,
            input.end_time
        );
        let key = self.store.incarnation();
        let after: Option<Place> = match &input.next_token {
            Some(token) => Some(page_token::open(&key, &scope, token).ok_or_else(bad_token)?),
            None => None,
        };
        let from = Timestamp::from_millis(input.start_time.unwrap_or(0).max(0));
        // Unlike GetLogEvents, the end is part of the range.
        let until = input.end_time.unwrap_or(i64::MAX).saturating_add(1);
        let times = from.max(group.oldest_kept(view.now))..Timestamp::from_millis(until);
        let limit = input
            .limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(MAX_EVENTS)
            .min(MAX_EVENTS);

        let sources = self.sources(&view, &group, input, &times)?;
        let scan = Scan {
            streams: sources.iter().map(|it| it.records.clone()).collect(),
            times,
            after: after.map(|place| place_among(&sources, place)),
            limit_records: limit,
            limit_bytes: MAX_BYTES + INGESTION_BYTES * limit,
            record_overhead: EVENT_OVERHEAD_BYTES,
        };
        let page = self
            .archive
            .scan(&scan, Arc::new(EventSieve::new(pattern)))
            .await
            .map_err(internal)?;
        let last = page.records.last().filter(|_| !page.is_end);
        let next_token = last.map(|last| {
            let place = Place {
                timestamp: last.place.timestamp.as_millis(),
                stream: sources[last.place.stream].name.clone(),
                sequence: last.place.offset,
            };
            page_token::seal(&key, &scope, &place)
        });
        let events = page.records.iter().filter_map(|record| {
            let (ingestion, message) = decode(&record.payload)?;
            let source = &sources[record.place.stream];
            let position = Position {
                timestamp: record.place.timestamp.as_millis(),
                sequence: record.place.offset,
            };
            Some(logs::FilteredLogEvent {
                event_id: Some(event_id(&source.records, position)),
                log_stream_name: Some(source.name.clone()),
                timestamp: Some(position.timestamp),
                ingestion_time: Some(ingestion.as_millis()),
                message: Some(message),
            })
        });
        Ok(logs::FilterLogEventsResponse {
            events: Some(events.collect()),
            searched_log_streams: Some(Vec::new()),
            next_token,
        })
    }

    /// The streams that may hold something, in the order of their names.
    fn sources(
        &self,
        view: &View<'_>,
        group: &Group,
        input: &logs::FilterLogEventsRequest,
        times: &std::ops::Range<Timestamp>,
    ) -> Result<Vec<Source>, LogsError> {
        let streams: Vec<Stream> = match (&input.log_stream_names, &input.log_stream_name_prefix) {
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "logStreamNames and logStreamNamePrefix are mutually exclusive parameters.",
                ));
            }
            (Some(names), None) => names
                .iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|name| {
                    let (name, row) = view.stream(group, name)?;
                    Ok(Stream { name, row })
                })
                .collect::<Result<_, LogsError>>()?,
            (None, prefix) => streams_in(view, group, prefix.as_deref().unwrap_or("")).collect(),
        };
        let mut infos: BTreeMap<String, StreamInfo> = BTreeMap::new();
        if input.log_stream_names.is_none() {
            let all = self.infos_of_group(view, group)?;
            infos.extend(all.into_iter().map(|info| (info.name.clone(), info)));
        }
        let mut sources = Vec::new();
        for stream in streams {
            let records = self.records_of(view, group, &stream);
            let info = match infos.remove(&records) {
                None if input.log_stream_names.is_some() => {
                    self.archive.stream(&records).map_err(internal)?
                }
                found => found,
            };
            let Some((first, last)) = info.and_then(|info| info.first_time.zip(info.last_time))
            else {
                continue;
            };
            if last >= times.start && first < times.end {
                sources.push(Source {
                    name: stream.name.to_string(),
                    records,
                });
            }
        }
        Ok(sources)
    }
}

/// Where a place of an earlier page is among the streams of this one, of which some may be new and
/// some gone.
fn place_among(sources: &[Source], place: Place) -> ScanPlace {
    let timestamp = Timestamp::from_millis(place.timestamp);
    match sources.binary_search_by(|it| it.name.as_str().cmp(&place.stream)) {
        Ok(stream) => ScanPlace {
            timestamp,
            stream,
            offset: place.sequence,
        },
        // Everything of the streams before it, and nothing of those behind it.
        Err(0) => ScanPlace {
            timestamp: Timestamp::from_millis(place.timestamp - 1),
            stream: usize::MAX,
            offset: u64::MAX,
        },
        Err(next) => ScanPlace {
            timestamp,
            stream: next - 1,
            offset: u64::MAX,
        },
    }
}

/// A pattern over the records of events. Most blocks are refused by one search for a text that the
/// pattern needs, without being taken apart.
struct EventSieve {
    pattern: FilterPattern,
    needle: Option<memmem::Finder<'static>>,
    or_backslash: bool,
}

impl EventSieve {
    fn new(pattern: FilterPattern) -> Self {
        let prefilter = pattern.prefilter();
        let needle = prefilter.needle.as_deref();
        Self {
            needle: needle.map(|needle| memmem::Finder::new(needle).into_owned()),
            or_backslash: prefilter.or_backslash,
            pattern,
        }
    }
}

impl Sieve for EventSieve {
    fn may_have(&self, bytes: &[u8]) -> bool {
        self.needle.as_ref().is_none_or(|needle| {
            needle.find(bytes).is_some()
                || (self.or_backslash && memchr::memchr(b'\\', bytes).is_some())
        })
    }

    fn wants(&self, payload: &[u8]) -> bool {
        if matches!(self.pattern, FilterPattern::Everything) {
            return true;
        }
        let message = payload.get(INGESTION_BYTES..).unwrap_or_default();
        self.may_have(message)
            && std::str::from_utf8(message).is_ok_and(|message| self.pattern.matches(message))
    }
}
