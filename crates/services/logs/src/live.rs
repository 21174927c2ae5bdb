//! Who follows new events, and what waits for each of them.
//!
//! What always holds: a session sees an event only after it is durable; what waits for one is
//! bounded however slowly it is read, by keeping every second, fourth, … event of the moment and
//! saying that it was so; nobody who follows costs those who write more than a look.
//! What it leaves to others: the pace of the answers and their form (`api::live_tail`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_api::logs::{InputLogEvent, LiveTailSessionLogEvent};
use gantry_arn::{AccountId, LogGroupName, LogStreamName, Region};
use gantry_env::Timestamp;

use crate::model::pattern::FilterPattern;

/// The events of one update, with AWS's value.
pub(crate) const UPDATE_EVENTS: usize = 500;
/// What may wait for one session, until it is thinned out.
const WAITING_EVENTS: usize = 2 * UPDATE_EVENTS;
const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// The most sessions of an account in a region, with AWS's value.
const MAX_SESSIONS: usize = 15;

/// What a session wants to see.
#[derive(Clone, Debug)]
pub(crate) struct Interest {
    pub account: AccountId,
    pub region: Region,
    /// The lives of the groups.
    pub group_ids: Vec<String>,
    pub streams: Streams,
    pub pattern: FilterPattern,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Streams {
    #[default]
    All,
    Named(Vec<String>),
    Prefixed(Vec<String>),
}

/// Where events come from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub account: &'a AccountId,
    pub group_id: &'a str,
    pub group: &'a LogGroupName,
    pub stream: &'a LogStreamName,
    pub ingestion: Timestamp,
}

/// All sessions of this process. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followers {
    sessions: Arc<Mutex<Sessions>>,
}

#[derive(Debug, Default)]
struct Sessions {
    next: u64,
    open: BTreeMap<u64, Arc<Session>>,
}

#[derive(Debug)]
struct Session {
    interest: Interest,
    waiting: Mutex<Waiting>,
}

/// What waits, thinned out so that one in `stride` is kept.
#[derive(Debug)]
struct Waiting {
    events: VecDeque<LiveTailSessionLogEvent>,
    bytes: usize,
    seen: u64,
    stride: u64,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            seen: 0,
            stride: 1,
        }
    }
}

/// A session that is followed until this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    followers: Followers,
    number: u64,
    session: Arc<Session>,
}

impl Followers {
    /// `None` if the account has as many sessions as it may have.
    pub fn follow(&self, interest: Interest) -> Option<Follower> {
        let mut sessions = lock(&self.sessions);
        let of_account = sessions.open.values().filter(|session| {
            session.interest.account == interest.account
                && session.interest.region == interest.region
        });
        if of_account.count() >= MAX_SESSIONS {
            return None;
        }
        let number = sessions.next;
        sessions.next += 1;
        let session = Arc::new(Session {
            interest,
            waiting: Mutex::default(),
        });
        sessions.open.insert(number, session.clone());
        Some(Follower {
            followers: self.clone(),
            number,
            session,
        })
    }

    /// Tells of events that have become durable.
    pub fn tell(&self, origin: Origin<'_>, events: &[InputLogEvent]) {
        let interested: Vec<Arc<Session>> = {
            let sessions = lock(&self.sessions);
            let wanted = |session: &&Arc<Session>| session.interest.wants(origin);
            sessions.open.values().filter(wanted).cloned().collect()
        };
        for session in interested {
            for event in events {
                if session.interest.pattern.matches(&event.message) {
                    lock(&session.waiting).push(origin, event);
                }
            }
        }
    }

    /// Whether anybody follows at all.
    pub fn is_empty(&self) -> bool {
        lock(&self.sessions).open.is_empty()
    }
}

impl Interest {
    fn wants(&self, origin: Origin<'_>) -> bool {
        let stream = origin.stream.as_str();
        self.group_ids.iter().any(|id| id == origin.group_id)
            && match &self.streams {
                Streams::All => true,
                Streams::Named(names) => names.iter().any(|name| name == stream),
                Streams::Prefixed(prefixes) => prefixes.iter().any(|it| stream.starts_with(it)),
            }
    }
}

impl Waiting {
    fn push(&mut self, origin: Origin<'_>, event: &InputLogEvent) {
        let is_kept = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !is_kept {
            return;
        }
        self.bytes += event.message.len();
        self.events.push_back(LiveTailSessionLogEvent {
            log_stream_name: Some(origin.stream.to_string()),
            log_group_identifier: Some(format!("{}:{}", origin.account, origin.group)),
            message: Some(event.message.clone()),
            timestamp: Some(event.timestamp),
            ingestion_time: Some(origin.ingestion.as_millis()),
        });
        while self.events.len() > 1
            && (self.events.len() > WAITING_EVENTS || self.bytes > WAITING_BYTES)
        {
            self.thin_out();
        }
    }

    /// Drops every second event.
    fn thin_out(&mut self) {
        let mut index = 0usize;
        self.events.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        self.stride = self.stride.saturating_mul(2);
        let text = |event: &LiveTailSessionLogEvent| event.message.as_ref().map_or(0, String::len);
        self.bytes = self.events.iter().map(text).sum();
    }
}

impl Follower {
    /// What has come since the last call, and whether some of it was left out.
    pub fn take(&self) -> (Vec<LiveTailSessionLogEvent>, bool) {
        let mut waiting = std::mem::take(&mut *lock(&self.session.waiting));
        if waiting.events.len() > UPDATE_EVENTS {
            waiting.thin_out();
        }
        let sampled = waiting.stride > 1;
        (waiting.events.into(), sampled)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        lock(&self.followers.sessions).open.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(streams: Streams, pattern: &str) -> Interest {
        Interest {
            account: AccountId::default(),
            region: Region::default(),
            group_ids: vec!["g".into()],
            streams,
            pattern: FilterPattern::parse(pattern).unwrap(),
        }
    }

    fn tell(followers: &Followers, group: &str, stream: &str, messages: &[String]) {
        let events: Vec<InputLogEvent> = messages
            .iter()
            .map(|message| InputLogEvent {
                timestamp: 7,
                message: message.clone(),
            })
            .collect();
        let origin = Origin {
            account: &AccountId::default(),
            group_id: group,
            group: &"/ecs/app".parse().unwrap(),
            stream: &stream.parse().unwrap(),
            ingestion: Timestamp::from_millis(8),
        };
        followers.tell(origin, &events);
    }

    #[test]
    fn a_session_sees_what_it_asked_for_and_nothing_after_it_has_ended() {
        let followers = Followers::default();
        assert!(followers.is_empty());
        let all = followers.follow(interest(Streams::All, "")).unwrap();
        let named = Streams::Named(vec!["web".into()]);
        let named = followers.follow(interest(named, "ERROR")).unwrap();
        let prefixed = Streams::Prefixed(vec!["we".into()]);
        let prefixed = followers.follow(interest(prefixed, "")).unwrap();
        tell(&followers, "g", "web", &["ERROR 1".into(), "fine".into()]);
        tell(&followers, "g", "other", &["ERROR 2".into()]);
        tell(&followers, "h", "web", &["ERROR 3".into()]);
        let texts = |follower: &Follower| -> Vec<String> {
            let (events, sampled) = follower.take();
            assert!(!sampled);
            events.into_iter().filter_map(|it| it.message).collect()
        };
        assert_eq!(texts(&all), ["ERROR 1", "fine", "ERROR 2"]);
        assert_eq!(texts(&named), ["ERROR 1"]);
        assert_eq!(texts(&prefixed), ["ERROR 1", "fine"]);
        assert!(texts(&all).is_empty());
        drop((all, named, prefixed));
        assert!(followers.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_says_so() {
        let followers = Followers::default();
        let follower = followers.follow(interest(Streams::All, "")).unwrap();
        let many: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        tell(&followers, "g", "web", &many);
        let (events, sampled) = follower.take();
        assert!(
            sampled && (100..=UPDATE_EVENTS).contains(&events.len()),
            "{}",
            events.len()
        );
        let numbers: Vec<u32> = events
            .iter()
            .filter_map(|event| event.message.as_ref()?.parse().ok())
            .collect();
        assert!(numbers.is_sorted() && numbers[numbers.len() / 2].abs_diff(50_000) < 10_000);
        // The next second begins anew.
        tell(&followers, "g", "web", &many[..3]);
        assert_eq!(follower.take().0.len(), 3);
        let large: Vec<String> = (0..40).map(|_| "x".repeat(1 << 20)).collect();
        tell(&followers, "g", "web", &large);
        let (events, sampled) = follower.take();
        assert!(sampled && events.len() <= 5, "{}", events.len());
    }

    #[test]
    fn an_account_has_so_many_sessions() {
        let followers = Followers::default();
        let open: Vec<_> = (0..MAX_SESSIONS)
            .map(|_| followers.follow(interest(Streams::All, "")).unwrap())
            .collect();
        assert!(followers.follow(interest(Streams::All, "")).is_none());
        drop(open);
        assert!(followers.follow(interest(Streams::All, "")).is_some());
    }
}
