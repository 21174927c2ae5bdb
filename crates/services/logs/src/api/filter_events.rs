//! FilterLogEvents: many streams as one, in the order of time. `aws logs tail` polls this.
//!
//! What always holds: events come by time, then by when they were taken in, then by stream and
//! place, and a token names the last one returned, so pages neither repeat nor miss what was there.
//! A stream is only opened when the merge has come to its first event, and each open stream holds
//! a small buffer whose size shrinks with the number of streams, so memory is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_api::ApiError;
use gantry_api::logs::{self, LogsError};
use gantry_archive::{Direction, Order, Read, StreamInfo};
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::get_events::{MAX_BYTES, MAX_EVENTS};
use super::streams::{Stream, streams_in};
use super::{Group, LogsService, View, bad_token, internal, invalid};
use crate::events::decode;
use crate::model::batch::EVENT_OVERHEAD_BYTES;
use crate::model::position::{Position, event_id};
use crate::page_token;

/// What all buffers of a merge may hold together, and each at least and at most.
const BUFFERS_BYTES: usize = 8 * 1024 * 1024;
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = 2 * 1024..=256 * 1024;
const BUFFER_EVENTS: usize = 512;

/// An event's place among those of all streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    timestamp: i64,
    ingestion: i64,
    stream: String,
    sequence: u64,
}

struct Event {
    place: Place,
    message: String,
}

/// One stream in the merge.
struct Source {
    name: String,
    records: String,
    buffer: VecDeque<Event>,
    /// Where the next buffer begins; `None` once the stream has no more.
    next: Option<Position>,
}

/// What is asked of every stream.
struct Wanted {
    from: Timestamp,
    until: Timestamp,
    after: Option<Place>,
    buffer_bytes: usize,
}

impl LogsService {
    pub(super) async fn filter_events(
        &self,
        view: View<'_>,
        input: &logs::FilterLogEventsRequest,
    ) -> Result<logs::FilterLogEventsResponse, LogsError> {
        if input
            .filter_pattern
            .as_deref()
            .is_some_and(|pattern| !pattern.trim().is_empty())
        {
            return Err(ApiError::not_built("logs", "FilterLogEvents with a filterPattern").into());
        }
        let group = view.group_by(
            input.log_group_name.as_deref(),
            input.log_group_identifier.as_deref(),
        )?;
        let scope = format!(
            "filter/{}/{:?}/{:?}/{:?}/{:?}",
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
        let asked_from = Timestamp::from_millis(input.start_time.unwrap_or(0).max(0));
        let resumed = after.as_ref().map_or(0, |place| place.timestamp);
        let from = asked_from
            .max(group.oldest_kept(view.now))
            .max(Timestamp::from_millis(resumed));
        // Unlike GetLogEvents, the end is part of the range.
        let until = input.end_time.unwrap_or(i64::MAX).saturating_add(1);
        let until = Timestamp::from_millis(until);

        let mut waiting = self.sources(&view, &group, input, from, until)?;
        let buffer_bytes = BUFFERS_BYTES / waiting.len().max(1);
        let wanted = Wanted {
            from,
            until,
            after,
            buffer_bytes: buffer_bytes.clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end()),
        };
        let limit = input
            .limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(MAX_EVENTS)
            .min(MAX_EVENTS);

        let mut open: BTreeMap<Place, Source> = BTreeMap::new();
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        let mut has_more = false;
        loop {
            // Open what may hold something before the next event that is known.
            while let Some((first_time, _)) = waiting.front()
                && open
                    .first_key_value()
                    .is_none_or(|(place, _)| *first_time <= place.timestamp)
            {
                if let Some((_, source)) = waiting.pop_front() {
                    self.open(source, &wanted, &mut open).await?;
                }
            }
            let Some((_, mut source)) = open.pop_first() else {
                break;
            };
            let Some(event) = source.buffer.pop_front() else {
                continue;
            };
            bytes += event.message.len() + EVENT_OVERHEAD_BYTES;
            if events.len() >= limit || (bytes > MAX_BYTES && !events.is_empty()) {
                has_more = true;
                break;
            }
            events.push(logs::FilteredLogEvent {
                event_id: Some(event_id(
                    &source.records,
                    Position {
                        timestamp: event.place.timestamp,
                        sequence: event.place.sequence,
                    },
                )),
                log_stream_name: Some(source.name.clone()),
                timestamp: Some(event.place.timestamp),
                ingestion_time: Some(event.place.ingestion),
                message: Some(event.message),
            });
            last = Some(event.place);
            self.open(source, &wanted, &mut open).await?;
        }
        Ok(logs::FilterLogEventsResponse {
            events: Some(events),
            searched_log_streams: Some(Vec::new()),
            next_token: last
                .filter(|_| has_more)
                .map(|last| page_token::seal(&key, &scope, &last)),
        })
    }

    /// The streams that may hold something, by the earliest time it can have.
    fn sources(
        &self,
        view: &View<'_>,
        group: &Group,
        input: &logs::FilterLogEventsRequest,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<VecDeque<(i64, Source)>, LogsError> {
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
            if last < from || first >= until {
                continue;
            }
            let source = Source {
                name: stream.name.to_string(),
                records,
                buffer: VecDeque::new(),
                next: Some(Position::at_time(first.max(from).as_millis())),
            };
            sources.push((first.max(from).as_millis(), source));
        }
        sources.sort_by_key(|(first, _)| *first);
        Ok(sources.into())
    }

    /// Puts a source where its next event stands, reading on if its buffer is empty. A source
    /// without a next event is dropped.
    async fn open(
        &self,
        mut source: Source,
        wanted: &Wanted,
        open: &mut BTreeMap<Place, Source>,
    ) -> Result<(), LogsError> {
        while source.buffer.is_empty()
            && let Some(next) = source.next
        {
            let page = self
                .archive
                .read(&Read {
                    stream: source.records.clone(),
                    order: Order::Time,
                    direction: Direction::Forward,
                    from: Some(next.in_archive()),
                    times: wanted.from..wanted.until,
                    limit_records: BUFFER_EVENTS,
                    limit_bytes: wanted.buffer_bytes,
                })
                .await
                .map_err(internal)?;
            source.next = match (page.is_end, page.records.last()) {
                (false, Some(record)) => Some(
                    Position {
                        timestamp: record.timestamp.as_millis(),
                        sequence: record.offset,
                    }
                    .behind(),
                ),
                _ => None,
            };
            for record in page.records {
                let Some((ingestion, message)) = decode(&record.payload) else {
                    continue;
                };
                let place = Place {
                    timestamp: record.timestamp.as_millis(),
                    ingestion: ingestion.as_millis(),
                    stream: source.name.clone(),
                    sequence: record.offset,
                };
                if wanted.after.as_ref().is_none_or(|after| place > *after) {
                    source.buffer.push_back(Event { place, message });
                }
            }
        }
        if let Some(first) = source.buffer.front() {
            open.insert(first.place.clone(), source);
        }
        Ok(())
    }
}
