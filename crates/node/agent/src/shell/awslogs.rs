//! The awslogs driver: from a container's spool to CloudWatch Logs, nothing lost and nothing twice.
//!
//! What always holds: a batch says where in the spool it begins and ends, so the service knows a
//! repeat when it sees one; it begins where the last acknowledged one ended, and ends between lines.
//! The offset is saved only after the acknowledgement.
//! What it leaves to others: the bounded spool itself (`gantry_runtime`), storing (the Logs service).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_api::client::{Client, ClientError, backoff};
use gantry_api::logs;
use gantry_env::Env;
use gantry_runtime::{LogReader, LogRecord, LogStream};
use tracing::{debug, warn};

use crate::core::plan::AwsLogsPlan;

/// PutLogEvents' limits, with AWS's values.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_EVENTS_MAX: usize = 10_000;
const EVENT_OVERHEAD_BYTES: usize = 26;
/// A longer line is divided, as Docker's driver does.
const EVENT_BYTES_MAX: usize = 256 * 1024 - EVENT_OVERHEAD_BYTES;
/// The least time between two batches: the first line leaves at once, those that follow it together.
const LINGER: Duration = Duration::from_millis(100);
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often the making of a stream is tried before the task fails.
const PREPARE_ATTEMPTS: u32 = 8;
const READ_RECORDS_MAX: usize = 2_000;

/// Makes the stream, and the group where that is asked for. The error is the task's reason.
pub async fn prepare(client: &Client, plan: &AwsLogsPlan, env: &Env) -> Result<(), String> {
    if plan.create_group {
        let made = repeat(env, || {
            client.call::<logs::CreateLogGroup>(logs::CreateLogGroupRequest {
                log_group_name: plan.group.clone(),
                ..logs::CreateLogGroupRequest::default()
            })
        })
        .await;
        unless_there(made)
            .map_err(|error| reason("failed to create Cloudwatch log group", &error, plan))?;
    }
    let made = repeat(env, || {
        client.call::<logs::CreateLogStream>(logs::CreateLogStreamRequest {
            log_group_name: plan.group.clone(),
            log_stream_name: plan.stream.clone(),
        })
    })
    .await;
    unless_there(made)
        .map_err(|error| reason("failed to create Cloudwatch log stream", &error, plan))
}

fn reason(what: &str, error: &ClientError, plan: &AwsLogsPlan) -> String {
    format!(
        "ResourceInitializationError: failed to initialize logging driver: {what}: {error} (log group '{}', log stream '{}')",
        plan.group, plan.stream
    )
}

fn unless_there<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.code == "ResourceAlreadyExistsException" => Ok(()),
        Err(error) => Err(error),
    }
}

async fn repeat<T, F>(env: &Env, mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut attempt = 0;
    loop {
        match call().await {
            Err(error) if error.retryable && attempt + 1 < PREPARE_ATTEMPTS => {
                let wait = backoff(attempt, RETRY.0, RETRY.1, env.entropy.u64());
                attempt += 1;
                env.sleep(wait).await;
            }
            result => return result,
        }
    }
}

/// Where a container's log has been delivered to, on disk.
#[derive(Clone, Debug)]
pub struct SavedOffset {
    path: PathBuf,
}

impl SavedOffset {
    pub fn new(directory: &Path, task: &str, container: &str) -> SavedOffset {
        SavedOffset {
            path: directory.join(format!("{task}.{container}")),
        }
    }

    /// Zero where nothing was saved: the service then knows what it holds already.
    pub fn load(&self) -> u64 {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Not synced: a killed process loses nothing of it, and a lost one is only a repeat.
    fn save(&self, offset: u64) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, offset.to_string())?;
        std::fs::rename(&fresh, &self.path)
    }

    pub fn remove(&self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Delivers everything a container writes. Ends when it has ended and all of it is delivered.
pub async fn forward(
    client: impl Fn() -> Result<Client, ClientError>,
    mut reader: LogReader,
    plan: AwsLogsPlan,
    saved: SavedOffset,
    env: Env,
) {
    let spool = reader.spool_id().to_owned();
    let mut lines = Lines::starting_at(saved.load());
    let mut last_sent = None;
    loop {
        let records = match reader.next_batch(READ_RECORDS_MAX).await {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, stream = plan.stream, "a container's log cannot be read any further");
                return;
            }
        };
        let ended = records.is_empty();
        for record in records {
            lines.push(record);
        }
        if ended {
            lines.end();
        }
        while let Some(batch) = lines.batch() {
            let end = batch.end;
            deliver(&client, &plan, &spool, batch, &env).await;
            if let Err(error) = saved.save(end) {
                warn!(%error, "a log's offset could not be saved; its last lines may be sent again");
            }
            if let Err(error) = reader.trim(end).await {
                debug!(%error, "a log's spool could not be trimmed");
            }
        }
        if ended {
            return;
        }
        // What is written meanwhile goes together with the next batch.
        let now = env.monotonic();
        if last_sent.is_some_and(|at| now < at + LINGER) {
            env.sleep(LINGER).await;
        }
        last_sent = Some(env.monotonic());
    }
}

/// Sends one batch until the service has it, or says that it never will.
async fn deliver(
    client: &impl Fn() -> Result<Client, ClientError>,
    plan: &AwsLogsPlan,
    spool: &str,
    mut batch: Batch,
    env: &Env,
) {
    let mut attempt = 0;
    while !batch.events.is_empty() {
        let request = logs::PutLogEventsRequest {
            log_group_name: plan.group.clone(),
            log_stream_name: plan.stream.clone(),
            sequence_token: Some(format!("gantry:{spool}:{}-{}", batch.start, batch.end)),
            log_events: batch
                .events
                .iter()
                .map(|(event, _)| event.clone())
                .collect(),
            ..logs::PutLogEventsRequest::default()
        };
        let result = match client() {
            Ok(client) => client.call::<logs::PutLogEvents>(request).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let error = match result {
            Ok(()) => return,
            Err(error) => error,
        };
        match error.code.as_str() {
            // The service holds a part of it and says how far.
            "InvalidSequenceTokenException" => match held_to(&error.message, spool) {
                Some(held_to) if held_to > batch.start => batch.skip_to(held_to),
                _ => {
                    warn!(%error, lines = batch.events.len(), "log lines are given up");
                    return;
                }
            },
            "ResourceNotFoundException" | "InvalidParameterException" | "ValidationException" => {
                warn!(%error, stream = plan.stream, lines = batch.events.len(), "log lines are given up");
                return;
            }
            _ => {
                let wait = backoff(attempt, RETRY.0, RETRY.1, env.entropy.u64());
                attempt = attempt.saturating_add(1);
                debug!(%error, ?wait, "log lines wait");
                env.sleep(wait).await;
            }
        }
    }
}

/// The end of `gantry:SPOOL:END` in the service's words.
fn held_to(message: &str, spool: &str) -> Option<u64> {
    let (_, rest) = message.rsplit_once(&format!("gantry:{spool}:"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whole lines with where each ends in the spool.
#[derive(Debug, Default)]
struct Batch {
    start: u64,
    end: u64,
    events: Vec<(logs::InputLogEvent, u64)>,
}

impl Batch {
    /// Takes away what the service already holds.
    fn skip_to(&mut self, held_to: u64) {
        self.events.retain(|(_, end)| *end > held_to);
        self.start = held_to;
    }
}

/// Puts records together to lines and lines to batches.
#[derive(Debug)]
struct Lines {
    /// Where the next batch starts.
    start: u64,
    /// Lines that are whole, with where the record ends that made them so.
    whole: std::collections::VecDeque<Line>,
    stdout: Pending,
    stderr: Pending,
    latest_ms: i64,
}

#[derive(Debug)]
struct Line {
    event: logs::InputLogEvent,
    end: u64,
    /// No other line was open when this one ended: a batch may end here.
    clean: bool,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    at_ms: i64,
    end: u64,
}

impl Lines {
    fn starting_at(start: u64) -> Lines {
        Lines {
            start,
            whole: std::collections::VecDeque::new(),
            stdout: Pending::default(),
            stderr: Pending::default(),
            latest_ms: 0,
        }
    }

    fn push(&mut self, record: LogRecord) {
        let LogRecord {
            offset: _,
            end_offset,
            at,
            stream,
            partial,
            dropped_before,
            bytes,
        } = record;
        if dropped_before > 0 {
            debug!(
                dropped_before,
                "log lines were dropped, because the buffer was full"
            );
        }
        let pending = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        if pending.bytes.is_empty() {
            pending.at_ms = at.as_millis();
        }
        pending.bytes.extend(bytes);
        pending.end = end_offset;
        let full = pending.bytes.len() >= EVENT_BYTES_MAX;
        if !partial || full {
            let Pending { bytes, at_ms, end } = std::mem::take(pending);
            self.line(bytes, at_ms, end);
        }
    }

    /// Nothing follows: what is open is a line.
    fn end(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let pending = match stream {
                LogStream::Stdout => &mut self.stdout,
                LogStream::Stderr => &mut self.stderr,
            };
            if !pending.bytes.is_empty() {
                let Pending { bytes, at_ms, end } = std::mem::take(pending);
                self.line(bytes, at_ms, end);
            }
        }
    }

    fn line(&mut self, bytes: Vec<u8>, at_ms: i64, end: u64) {
        // PutLogEvents takes events in chronological order only; the clock may have jumped.
        self.latest_ms = self.latest_ms.max(at_ms);
        let clean = self.stdout.bytes.is_empty() && self.stderr.bytes.is_empty();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let text = text.strip_suffix('\r').map(str::to_owned).unwrap_or(text);
        let mut pieces = split(&text).peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            // CloudWatch takes no empty event, and Docker's driver sends none either.
            let message = if piece.is_empty() {
                String::new()
            } else {
                piece.to_owned()
            };
            let event = logs::InputLogEvent {
                message,
                timestamp: self.latest_ms,
            };
            self.whole.push_back(Line {
                event,
                end,
                clean: clean && last,
            });
        }
    }

    /// The next batch: from where the last one ended to the last place between lines that fits.
    fn batch(&mut self) -> Option<Batch> {
        let (mut bytes, mut lines, mut clean_lines) = (0, 0, 0);
        for line in &self.whole {
            bytes += line.event.message.len() + EVENT_OVERHEAD_BYTES;
            if lines == BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX {
                break;
            }
            lines += 1;
            if line.clean {
                clean_lines = lines;
            }
        }
        let full = lines < self.whole.len();
        // One endless line next to another stream's must not hold everything up.
        let take = if clean_lines == 0 && full {
            lines
        } else {
            clean_lines
        };
        if take == 0 {
            return None;
        }
        let taken: Vec<Line> = self.whole.drain(..take).collect();
        let end = taken
            .iter()
            .map(|line| line.end)
            .max()
            .unwrap_or(self.start);
        let start = std::mem::replace(&mut self.start, end);
        let events = taken
            .into_iter()
            .filter(|line| !line.event.message.is_empty())
            .map(|line| (line.event, line.end))
            .collect();
        Some(Batch { start, end, events })
    }
}

/// Pieces of at most one event's size, never within a character. At least one, even of nothing.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= EVENT_BYTES_MAX {
            rest = None;
            return Some(text);
        }
        let mut at = EVENT_BYTES_MAX;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let (piece, more) = text.split_at(at);
        rest = Some(more);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_env::Timestamp;

    struct Spool(u64);

    impl Spool {
        fn record(&mut self, stream: LogStream, text: &str, partial: bool, ms: i64) -> LogRecord {
            let offset = self.0;
            self.0 += text.len() as u64 + 16;
            LogRecord {
                offset,
                end_offset: self.0,
                at: Timestamp::from_millis(ms),
                stream,
                partial,
                dropped_before: 0,
                bytes: text.as_bytes().to_vec(),
            }
        }
    }

    fn messages(batch: &Batch) -> Vec<&str> {
        batch
            .events
            .iter()
            .map(|(event, _)| event.message.as_str())
            .collect()
    }

    #[test]
    fn batches_join_without_a_gap_and_end_between_lines() {
        let mut spool = Spool(0);
        let mut lines = Lines::starting_at(0);
        lines.push(spool.record(LogStream::Stdout, "one", false, 10));
        lines.push(spool.record(LogStream::Stdout, "tw", true, 20));
        let boundary = 3 + 16;
        let batch = lines.batch().unwrap();
        assert_eq!(
            (batch.start, batch.end, messages(&batch)),
            (0, boundary, vec!["one"])
        );
        assert!(lines.batch().is_none());
        lines.push(spool.record(LogStream::Stderr, "err", false, 15));
        // The open line on the other stream began before: a batch may not end here.
        assert!(lines.batch().is_none());
        lines.push(spool.record(LogStream::Stdout, "o", false, 30));
        let batch = lines.batch().unwrap();
        assert_eq!((batch.start, batch.end), (boundary, spool.0));
        assert_eq!(messages(&batch), ["err", "two"]);
        let times: Vec<i64> = batch
            .events
            .iter()
            .map(|(event, _)| event.timestamp)
            .collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn the_end_of_the_container_ends_its_last_line() {
        let mut spool = Spool(0);
        let mut lines = Lines::starting_at(0);
        lines.push(spool.record(LogStream::Stdout, "no line feed", true, 1));
        assert!(lines.batch().is_none());
        lines.end();
        assert_eq!(messages(&lines.batch().unwrap()), ["no line feed"]);
    }

    #[test]
    fn long_lines_are_divided_and_batches_stay_within_the_limits() {
        let mut spool = Spool(0);
        let mut lines = Lines::starting_at(0);
        let long = "é".repeat(EVENT_BYTES_MAX);
        lines.push(spool.record(LogStream::Stdout, &long, false, 1));
        for n in 0..30_000 {
            lines.push(spool.record(LogStream::Stdout, &n.to_string(), false, 2));
        }
        let (mut end, mut text, mut events) = (0, String::new(), 0);
        while let Some(batch) = lines.batch() {
            assert_eq!(batch.start, end);
            assert!(batch.events.len() <= BATCH_EVENTS_MAX);
            let bytes: usize = batch
                .events
                .iter()
                .map(|(e, _)| e.message.len() + EVENT_OVERHEAD_BYTES)
                .sum();
            assert!(bytes <= BATCH_BYTES_MAX);
            end = batch.end;
            events += batch.events.len();
            for (event, _) in &batch.events {
                assert!(event.message.len() <= EVENT_BYTES_MAX);
                if event.timestamp == 1 {
                    text.push_str(&event.message);
                }
            }
        }
        assert_eq!(text, long);
        assert_eq!(end, spool.0);
        assert!(events > 30_000);
    }

    #[test]
    fn what_the_service_holds_is_taken_away() {
        let message = "The next expected sequenceToken is: gantry:0a1b:120";
        assert_eq!(held_to(message, "0a1b"), Some(120));
        assert_eq!(held_to(message, "ffff"), None);
        let event = |text: &str| logs::InputLogEvent {
            message: text.into(),
            timestamp: 1,
        };
        let mut batch = Batch {
            start: 100,
            end: 140,
            events: vec![(event("a"), 120), (event("b"), 140)],
        };
        batch.skip_to(120);
        assert_eq!((batch.start, messages(&batch)), (120, vec!["b"]));
    }
}
