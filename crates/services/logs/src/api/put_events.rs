//! PutLogEvents: acknowledged means durable, and a batch that is sent again is stored once.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use gantry_api::RequestContext;
use gantry_api::logs::{self, LogsError};
use gantry_archive::{Append, ArchiveError, Record};
use gantry_env::Timestamp;

use super::{LogsService, WRITE_LOCKS, internal, invalid};
use crate::api::streams::plain_sequence_token;
use crate::events::{StreamState, archive_name, encode};
use crate::live::Origin;
use crate::model::batch::{Admission, EventShape, admit};
use crate::model::retention::retention;
use crate::model::spool::{SpoolDecision, SpoolToken, decide};

/// How often another process over the same archive may come first.
const ATTEMPTS: usize = 64;

impl LogsService {
    pub(super) async fn put_events(
        &self,
        ctx: &RequestContext,
        input: logs::PutLogEventsRequest,
    ) -> Result<logs::PutLogEventsResponse, LogsError> {
        let view = self.view(ctx);
        let group = view.group(&input.log_group_name)?;
        let (stream, row) = view.stream(&group, &input.log_stream_name)?;
        if input
            .log_events
            .iter()
            .any(|event| event.message.is_empty())
        {
            return Err(invalid("Log event message must not be empty."));
        }
        let shapes: Vec<EventShape> = input
            .log_events
            .iter()
            .map(|event| EventShape {
                timestamp: event.timestamp,
                message_bytes: event.message.len(),
            })
            .collect();
        let kept = group.row.retention_days.and_then(retention);
        let admission =
            admit(&shapes, ctx.now, kept).map_err(|error| invalid(error.to_string()))?;
        let token = input.sequence_token.as_deref().and_then(SpoolToken::parse);
        let records = archive_name(view.account, view.region, &group.name, &stream, &row);
        let (next, stored) = self
            .store_batch(
                &records,
                &input.log_events,
                &admission,
                token.as_ref(),
                ctx.now,
            )
            .await?;
        if stored && !self.followers.is_empty() {
            let origin = Origin {
                account: view.account,
                group_id: &group.row.id,
                group: &group.name,
                stream: &stream,
                ingestion: ctx.now,
            };
            let taken = admission.taken.clone();
            self.followers.tell(origin, &input.log_events[taken]);
        }
        Ok(logs::PutLogEventsResponse {
            next_sequence_token: Some(next),
            rejected_log_events_info: rejected(&admission),
            // Entities relate telemetry to applications, which nothing here does; saying so
            // leaves the events themselves untouched, as AWS does for an entity it cannot take.
            rejected_entity_info: input.entity.map(|_| logs::RejectedEntityInfo {
                error_type: "UnsupportedLogGroupType".into(),
            }),
        })
    }

    /// Appends what is new of a batch; gives the next sequence token.
    async fn store_batch(
        &self,
        stream: &str,
        events: &[logs::InputLogEvent],
        admission: &Admission,
        token: Option<&SpoolToken>,
        now: Timestamp,
    ) -> Result<(String, bool), LogsError> {
        let _one_at_a_time = self.writing[lock_of(stream)].lock().await;
        for _ in 0..ATTEMPTS {
            let info = self.archive.stream(stream).map_err(internal)?;
            let before = info.as_ref().and_then(|info| info.cursor.clone());
            let next_offset = info.as_ref().map_or(0, |info| info.next_offset);
            let mut state = StreamState::read(before.as_ref()).map_err(internal)?;

            let taken = admission.taken.clone();
            if let Some(token) = token {
                match decide(state.held_to(&token.spool), token) {
                    SpoolDecision::AlreadyHeld => return Ok((held_to(&state, token), false)),
                    SpoolDecision::Overlaps { held_to } => return Err(overlap(token, held_to)),
                    SpoolDecision::New => state.hold_to(&token.spool, token.end, now),
                }
            }
            if taken.is_empty() && token.is_none() {
                return Ok((plain_sequence_token(next_offset), false));
            }
            // Readers order events of one time by when they were taken in.
            state.last_ingestion = state.last_ingestion.max(now);
            let records: Vec<Record> = events[taken]
                .iter()
                .map(|event| {
                    let time = Timestamp::from_millis(event.timestamp);
                    Record::new(time, encode(state.last_ingestion, &event.message))
                })
                .collect();
            let count = records.len() as u64;
            let after = state.write().map_err(internal)?;
            let append = Append::new(stream, records).with_cursor(before, after);
            match self.archive.append(vec![append]).await {
                Ok(_) => {
                    let next = match token {
                        Some(token) => held_to(&state, token),
                        None => plain_sequence_token(next_offset + count),
                    };
                    return Ok((next, true));
                }
                Err(ArchiveError::CursorMoved { .. }) => {}
                // The disk is full or gone: nothing was taken in, and the client tries again.
                Err(error @ ArchiveError::Io { .. }) => {
                    tracing::error!(%error, "log events cannot be stored");
                    return Err(LogsError::service_unavailable_exception(
                        "The service cannot complete the request.",
                    ));
                }
                Err(error) => return Err(internal(error)),
            }
        }
        Err(LogsError::service_unavailable_exception(
            "The log stream is being written to by too many at once.",
        ))
    }
}

/// How far the spool is held now: what an agent may forget.
fn held_to(state: &StreamState, token: &SpoolToken) -> String {
    let end = state.held_to(&token.spool).unwrap_or(token.end);
    SpoolToken {
        spool: token.spool.clone(),
        start: None,
        end,
    }
    .to_string()
}

/// The sender must go on from what is held, which it learns as AWS told its clients once.
fn overlap(token: &SpoolToken, held_to: u64) -> LogsError {
    let expected = SpoolToken {
        spool: token.spool.clone(),
        start: None,
        end: held_to,
    }
    .to_string();
    let exception = logs::InvalidSequenceTokenException {
        expected_sequence_token: Some(expected.clone()),
        message: Some(format!(
            "The given sequenceToken is invalid. The next expected sequenceToken is: {expected}"
        )),
    };
    LogsError::InvalidSequenceTokenException(exception)
}

fn lock_of(stream: &str) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(stream);
    usize::try_from(hash % WRITE_LOCKS as u64).unwrap_or_default()
}

fn rejected(admission: &Admission) -> Option<logs::RejectedLogEventsInfo> {
    let index = |at: Option<usize>| at.and_then(|at| i32::try_from(at).ok());
    admission
        .rejects_any()
        .then(|| logs::RejectedLogEventsInfo {
            too_new_log_event_start_index: index(admission.too_new_start),
            too_old_log_event_end_index: index(admission.too_old_end),
            expired_log_event_end_index: index(admission.expired_end),
        })
}
