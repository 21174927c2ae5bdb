//! StartLiveTail: new events as they come, in an update every second, for three hours at most.

use std::time::Duration;

use futures_util::stream;
use gantry_api::event_stream::{Event, EventStream};
use gantry_api::logs::{self, LogsError};
use gantry_api::{ApiError, RequestContext};
use gantry_env::Env;

use super::{LogsService, View, invalid, metric_filters};
use crate::live::{Follower, Interest, Streams};

/// Both with AWS's values.
const UPDATE_EVERY: Duration = Duration::from_secs(1);
const SESSION: Duration = Duration::from_secs(3 * 60 * 60);

impl LogsService {
    pub(super) fn start_tail(
        &self,
        ctx: &RequestContext,
        input: logs::StartLiveTailRequest,
    ) -> Result<EventStream, LogsError> {
        let interest = interest(&self.view(ctx), &input)?;
        let follower = self.followers.follow(interest).ok_or_else(|| {
            LogsError::limit_exceeded_exception(
                "The account has as many Live Tail sessions as it may have at a time.",
            )
        })?;
        let start = logs::LiveTailSessionStart {
            request_id: Some(ctx.request_id.clone()),
            session_id: Some(self.random_id()),
            log_group_identifiers: Some(input.log_group_identifiers),
            log_stream_names: input.log_stream_names,
            log_stream_name_prefixes: input.log_stream_name_prefixes,
            log_event_filter_pattern: input.log_event_filter_pattern,
        };
        let session = Session {
            follower,
            env: self.env.clone(),
            until: self.env.monotonic().saturating_add(SESSION),
            start: Some(start),
        };
        Ok(EventStream::new(stream::unfold(session, next)))
    }
}

fn interest(view: &View<'_>, input: &logs::StartLiveTailRequest) -> Result<Interest, LogsError> {
    let group_ids = input
        .log_group_identifiers
        .iter()
        .map(|identifier| Ok(view.group_by_identifier(identifier)?.row.id.clone()))
        .collect::<Result<Vec<_>, LogsError>>()?;
    let streams = match (&input.log_stream_names, &input.log_stream_name_prefixes) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "logStreamNames and logStreamNamePrefixes are mutually exclusive parameters.",
            ));
        }
        (None, None) => Streams::All,
        _ if group_ids.len() > 1 => {
            return Err(invalid(
                "Log streams can be named only where logGroupIdentifiers has exactly one log group.",
            ));
        }
        (Some(names), None) => Streams::Named(names.clone()),
        (None, Some(prefixes)) => Streams::Prefixed(prefixes.clone()),
    };
    Ok(Interest {
        account: *view.account,
        region: view.region.clone(),
        group_ids,
        streams,
        pattern: metric_filters::pattern(input.log_event_filter_pattern.as_deref().unwrap_or(""))?,
    })
}

struct Session {
    follower: Follower,
    env: Env,
    /// On the monotonic clock.
    until: Duration,
    /// Until it has been sent.
    start: Option<logs::LiveTailSessionStart>,
}

async fn next(mut session: Session) -> Option<(Result<Event, ApiError>, Session)> {
    if let Some(start) = session.start.take() {
        return Some((Ok(Event::new("sessionStart", start)), session));
    }
    session.env.sleep(UPDATE_EVERY).await;
    if session.env.monotonic() >= session.until {
        let error = ApiError::sender(
            "SessionTimeoutException",
            "The session has lasted three hours.",
        );
        return Some((Err(error), session));
    }
    let (events, sampled) = session.follower.take();
    let update = logs::LiveTailSessionUpdate {
        session_metadata: Some(logs::LiveTailSessionMetadata {
            sampled: Some(sampled),
        }),
        session_results: Some(events),
    };
    Some((Ok(Event::new("sessionUpdate", update)), session))
}
