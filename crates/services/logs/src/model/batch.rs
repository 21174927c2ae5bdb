//! Which events of a PutLogEvents batch are taken, by AWS's rules.
//!
//! A batch that breaks a rule of form (too large, out of order, too wide a span) is
//! refused whole. Single events that are too old or too new are left out and
//! reported by index while the rest is kept. Because a batch is in chronological
//! order, what is left out is always a head and a tail, so the taken events are one
//! range. Nothing here stores anything.

use std::ops::Range;
use std::time::Duration;

use gantry_env::Timestamp;

/// Every limit of PutLogEvents, with AWS's value.
pub const MAX_BATCH_BYTES: usize = 1_048_576;
pub const MAX_BATCH_EVENTS: usize = 10_000;
/// What each event adds to the size of a batch beyond its message.
pub const EVENT_OVERHEAD_BYTES: usize = 26;
pub const MAX_EVENT_BYTES: usize = 1_048_576;
pub const MAX_BATCH_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
pub const MAX_EVENT_AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
pub const MAX_EVENT_LEAD: Duration = Duration::from_secs(2 * 60 * 60);

/// What this module needs to know of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventShape {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub message_bytes: usize,
}

/// The outcome for a batch of good form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    pub taken: Range<usize>,
    /// One past the last event that is older than 14 days.
    pub too_old_end: Option<usize>,
    /// One past the last event that the group's retention has already expired.
    pub expired_end: Option<usize>,
    /// The first event that is more than two hours ahead.
    pub too_new_start: Option<usize>,
}

impl Admission {
    pub fn rejects_any(&self) -> bool {
        self.too_old_end.is_some() || self.expired_end.is_some() || self.too_new_start.is_some()
    }
}

/// Why a whole batch is refused: the message of InvalidParameterException.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefused {
    #[error("Log events in a single PutLogEvents request must be in chronological order.")]
    OutOfOrder,
    #[error(
        "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
    )]
    SpanTooWide,
    #[error("Upload too large: {0} bytes exceeds limit of {MAX_BATCH_BYTES}")]
    BatchTooLarge(usize),
    #[error("Log event too large: {0} bytes exceeds limit of {MAX_EVENT_BYTES}")]
    EventTooLarge(usize),
    #[error(
        "1 validation error detected: Value at 'logEvents' failed to satisfy constraint: Member \
         must have length less than or equal to 10000"
    )]
    TooManyEvents,
    #[error(
        "1 validation error detected: Value at 'logEvents' failed to satisfy constraint: Member \
         must have length greater than or equal to 1"
    )]
    Empty,
}

/// Decides over one batch. `retention` is the group's, where it has one.
pub fn admit(
    events: &[EventShape],
    now: Timestamp,
    retention: Option<Duration>,
) -> Result<Admission, BatchRefused> {
    check_form(events)?;
    let first_at_least = |limit: i64| events.partition_point(|event| event.timestamp < limit);
    let oldest = (now - MAX_EVENT_AGE).as_millis();
    let too_old = first_at_least(oldest);
    let expired = retention.map_or(0, |kept| first_at_least((now - kept).as_millis()));
    let newest = (now + MAX_EVENT_LEAD).as_millis();
    let too_new = first_at_least(newest.saturating_add(1));

    let taken = too_old.max(expired).min(too_new)..too_new;
    if let (Some(first), Some(last)) = (events[taken.clone()].first(), events[taken.clone()].last())
        && u128::from(last.timestamp.abs_diff(first.timestamp)) > MAX_BATCH_SPAN.as_millis()
    {
        return Err(BatchRefused::SpanTooWide);
    }
    Ok(Admission {
        taken,
        too_old_end: (too_old > 0).then_some(too_old),
        expired_end: (expired > 0).then_some(expired),
        too_new_start: (too_new < events.len()).then_some(too_new),
    })
}

fn check_form(events: &[EventShape]) -> Result<(), BatchRefused> {
    if events.is_empty() {
        return Err(BatchRefused::Empty);
    }
    if events.len() > MAX_BATCH_EVENTS {
        return Err(BatchRefused::TooManyEvents);
    }
    let size = |event: &EventShape| event.message_bytes + EVENT_OVERHEAD_BYTES;
    if let Some(large) = events.iter().map(size).find(|s| *s > MAX_EVENT_BYTES) {
        return Err(BatchRefused::EventTooLarge(large));
    }
    let total: usize = events.iter().map(size).sum();
    if total > MAX_BATCH_BYTES {
        return Err(BatchRefused::BatchTooLarge(total));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(BatchRefused::OutOfOrder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
    const HOUR_MS: i64 = 60 * 60 * 1000;

    fn at(offsets_h: &[i64]) -> Vec<EventShape> {
        offsets_h
            .iter()
            .map(|h| EventShape {
                timestamp: NOW.as_millis() + h * HOUR_MS,
                message_bytes: 1,
            })
            .collect()
    }

    #[test]
    fn head_and_tail_are_left_out_and_the_middle_is_taken() {
        let events = at(&[-24 * 15, -24 * 8, -3, 0, 2, 3]);
        let week = Some(Duration::from_secs(7 * 24 * 3600));
        assert_eq!(
            admit(&events, NOW, week),
            Ok(Admission {
                taken: 2..5,
                too_old_end: Some(1),
                expired_end: Some(2),
                too_new_start: Some(5),
            })
        );
    }

    #[test]
    fn limits_are_exact() {
        let at_limits = at(&[-24 * 14]);
        assert!(!admit(&at_limits, NOW, None).unwrap().rejects_any());
        let at_lead = at(&[2]);
        assert!(!admit(&at_lead, NOW, None).unwrap().rejects_any());
        let mut beyond = at(&[2]);
        beyond[0].timestamp += 1;
        let admission = admit(&beyond, NOW, None).unwrap();
        assert_eq!((admission.taken, admission.too_new_start), (0..0, Some(0)));

        assert!(admit(&at(&[-24, 0]), NOW, None).is_ok());
        let mut wide = at(&[-24, 0]);
        wide[1].timestamp += 1;
        assert_eq!(admit(&wide, NOW, None), Err(BatchRefused::SpanTooWide));
        // Only valid events count towards the span.
        assert!(admit(&at(&[-24 * 20, 0]), NOW, None).is_ok());
    }

    #[test]
    fn batches_of_bad_form_are_refused_in_the_words_of_aws() {
        assert_eq!(admit(&[], NOW, None), Err(BatchRefused::Empty));
        assert_eq!(
            admit(&at(&[0, -1]), NOW, None).unwrap_err().to_string(),
            "Log events in a single PutLogEvents request must be in chronological order."
        );
        assert_eq!(
            admit(&at(&[0; MAX_BATCH_EVENTS + 1]), NOW, None),
            Err(BatchRefused::TooManyEvents)
        );
        let sized = |message_bytes| EventShape {
            timestamp: NOW.as_millis(),
            message_bytes,
        };
        let largest = MAX_BATCH_BYTES - EVENT_OVERHEAD_BYTES;
        assert!(admit(&[sized(largest)], NOW, None).is_ok());
        assert_eq!(
            admit(&[sized(largest + 1)], NOW, None),
            Err(BatchRefused::EventTooLarge(MAX_BATCH_BYTES + 1))
        );
        assert_eq!(
            admit(&[sized(largest), sized(1)], NOW, None)
                .unwrap_err()
                .to_string(),
            "Upload too large: 1048603 bytes exceeds limit of 1048576"
        );
    }
}
