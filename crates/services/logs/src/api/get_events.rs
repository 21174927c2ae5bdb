//! GetLogEvents: one stream, page by page, forward and back.
//!
//! What always holds: the token of a page leads to what comes right after (before) it; a token
//! that leads nowhere further is returned again, which is how clients know that they are at the
//! end; events of one page are in the order of time in either direction.

use gantry_api::logs::{self, LogsError};
use gantry_archive::{Direction, Order, Read};
use gantry_env::Timestamp;

use super::{LogsService, View, bad_token, internal};
use crate::events::{INGESTION_BYTES, archive_name, decode};
use crate::model::batch::EVENT_OVERHEAD_BYTES;
use crate::model::position::{self, Position};

/// The most of one page, with AWS's values.
pub(super) const MAX_EVENTS: usize = 10_000;
pub(super) const MAX_BYTES: usize = 1_048_576;

impl LogsService {
    pub(super) async fn get_events(
        &self,
        view: View<'_>,
        input: &logs::GetLogEventsRequest,
    ) -> Result<logs::GetLogEventsResponse, LogsError> {
        let group = view.group_by(
            input.log_group_name.as_deref(),
            input.log_group_identifier.as_deref(),
        )?;
        let (name, row) = view.stream(&group, &input.log_stream_name)?;
        let secret = row.id.as_bytes();
        let start = input.start_time.unwrap_or(0).max(0);
        let until = input.end_time.unwrap_or(i64::MAX);
        let (direction, cursor) = match &input.next_token {
            Some(token) => {
                let (direction, cursor) = position::open(token, secret).ok_or_else(bad_token)?;
                (direction, Some(cursor))
            }
            None if input.start_from_head == Some(true) => (Direction::Forward, None),
            None => (Direction::Backward, None),
        };
        let limit = input.limit.and_then(|limit| usize::try_from(limit).ok());
        let from_time = Timestamp::from_millis(start).max(group.oldest_kept(view.now));
        let read = Read {
            stream: archive_name(view.account, view.region, &group.name, &name, &row),
            order: Order::Time,
            direction,
            from: cursor.map(Position::in_archive),
            times: from_time..Timestamp::from_millis(until),
            limit_records: limit.unwrap_or(MAX_EVENTS).min(MAX_EVENTS),
            limit_bytes: MAX_BYTES,
        };
        let page = self.archive.read(&read).await.map_err(internal)?;

        let mut events = Vec::new();
        let mut bytes = 0;
        for record in page.records {
            // The archive stops after the record that goes over; a page stops before it.
            bytes += record.payload.len() - INGESTION_BYTES.min(record.payload.len())
                + EVENT_OVERHEAD_BYTES;
            if bytes > MAX_BYTES && !events.is_empty() {
                break;
            }
            let Some((ingestion, message)) = decode(&record.payload) else {
                continue;
            };
            let place = Position {
                timestamp: record.timestamp.as_millis(),
                sequence: record.offset,
            };
            let event = logs::OutputLogEvent {
                timestamp: Some(place.timestamp),
                message: Some(message),
                ingestion_time: Some(ingestion.as_millis()),
            };
            events.push((place, event));
        }
        if direction == Direction::Backward {
            events.reverse();
        }
        let at = cursor.unwrap_or(Position::at_time(start));
        let (back, ahead) = match (events.first(), events.last()) {
            (Some((first, _)), Some((last, _))) => (*first, last.behind()),
            // Nothing was read, so both tokens stay where this one stood.
            _ => (at, at),
        };
        Ok(logs::GetLogEventsResponse {
            events: Some(events.into_iter().map(|(_, event)| event).collect()),
            next_forward_token: Some(position::seal(Direction::Forward, ahead, secret)),
            next_backward_token: Some(position::seal(Direction::Backward, back, secret)),
        })
    }
}
