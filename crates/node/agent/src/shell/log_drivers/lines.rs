//! From the records of a spool to lines, and from lines to batches.
//!
//! What always holds: a batch begins where the one before it ended, and ends between lines of both
//! streams, so that whoever goes on from its end misses nothing; times never go back.

use std::collections::VecDeque;
use std::time::Duration;

use gantry_runtime::{LogRecord, LogStream};
use tracing::debug;

use super::multiline::Multiline;
use crate::core::plan::AwsLogsPlan;

/// PutLogEvents' limits, with AWS's values.
pub(super) const EVENTS_MAX: usize = 10_000;
pub(super) const EVENT_OVERHEAD_BYTES: usize = 26;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A longer line is divided, as Docker's driver does.
pub(super) const EVENT_BYTES_MAX: usize = 256 * 1024 - EVENT_OVERHEAD_BYTES;
/// What Docker reads of a line at a time for its other drivers.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What batches and lines look like for a driver.
#[derive(Debug)]
pub(super) struct Shape {
    pub line_bytes: usize,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub flush_after: Duration,
    pub multiline: Option<Multiline>,
    /// Lines of nothing are left out.
    pub skips_empty: bool,
}

impl Shape {
    pub fn of_events(plan: &AwsLogsPlan) -> Self {
        let begins = plan.begins_event.as_deref();
        Self {
            line_bytes: EVENT_BYTES_MAX,
            batch_bytes: BATCH_BYTES_MAX,
            linger: Duration::ZERO,
            flush_after: plan.flush_after,
            multiline: begins.and_then(|begins| Multiline::new(begins, EVENT_BYTES_MAX)),
            // CloudWatch takes no empty event, and Docker's driver sends none either.
            skips_empty: true,
        }
    }

    pub fn of_lines() -> Self {
        Self {
            line_bytes: LINE_BYTES_MAX,
            batch_bytes: BATCH_BYTES_MAX,
            linger: Duration::ZERO,
            flush_after: Duration::from_secs(1),
            multiline: None,
            skips_empty: false,
        }
    }
}

/// Whole lines of one stretch of the spool.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub start: u64,
    pub end: u64,
    pub lines: Vec<Line>,
}

impl Batch {
    /// Takes away what the receiver already holds.
    pub fn skip_to(&mut self, held_to: u64) {
        self.lines.retain(|line| line.end > held_to);
        self.start = held_to;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub message: String,
    pub at_ms: i64,
    pub stream: LogStream,
    /// The line goes on in the next one.
    pub partial: bool,
    /// Where the record ends that made it whole.
    pub end: u64,
    /// No other line was open when this one ended: a batch may end here.
    pub clean: bool,
}

/// Puts records together to lines and lines to batches.
#[derive(Debug)]
pub(super) struct Lines {
    shape: Shape,
    /// Where the next batch starts.
    start: u64,
    whole: VecDeque<Line>,
    stdout: Pending,
    stderr: Pending,
    latest_ms: i64,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    at_ms: i64,
    end: u64,
}

impl Lines {
    pub fn new(start: u64, shape: Shape) -> Lines {
        Lines {
            shape,
            start,
            whole: VecDeque::new(),
            stdout: Pending::default(),
            stderr: Pending::default(),
            latest_ms: 0,
        }
    }

    pub fn push(&mut self, record: LogRecord) {
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
        let bytes_max = self.shape.line_bytes;
        let pending = self.pending(stream);
        if pending.bytes.is_empty() {
            pending.at_ms = at.as_millis();
        }
        pending.bytes.extend(bytes);
        pending.end = end_offset;
        if !partial || pending.bytes.len() >= bytes_max {
            let pending = std::mem::take(pending);
            self.line(stream, pending, partial);
        }
    }

    fn pending(&mut self, stream: LogStream) -> &mut Pending {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }

    /// Nothing follows: what is open is a line.
    pub fn end(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let pending = std::mem::take(self.pending(stream));
            if !pending.bytes.is_empty() {
                self.line(stream, pending, false);
            }
        }
        self.close_event();
    }

    /// Whether an event waits for its next line.
    pub fn is_open(&self) -> bool {
        let multiline = self.shape.multiline.as_ref();
        multiline.is_some_and(Multiline::is_open)
    }

    /// What is open of an event is all of it.
    pub fn close_event(&mut self) {
        let open = self.shape.multiline.as_mut().and_then(Multiline::close);
        self.whole.extend(open);
    }

    fn line(&mut self, stream: LogStream, pending: Pending, goes_on: bool) {
        let Pending { bytes, at_ms, end } = pending;
        // PutLogEvents takes events in chronological order only; the clock may have jumped.
        self.latest_ms = self.latest_ms.max(at_ms);
        let clean = self.stdout.bytes.is_empty() && self.stderr.bytes.is_empty();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let mut pieces = split(text, self.shape.line_bytes).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = pieces.peek().is_none();
            let line = Line {
                message: piece.to_owned(),
                at_ms: self.latest_ms,
                stream,
                partial: goes_on || !is_last,
                end,
                clean: clean && is_last,
            };
            match &mut self.shape.multiline {
                Some(multiline) => self.whole.extend(multiline.push(line)),
                None => self.whole.push_back(line),
            }
        }
    }

    /// The next batch: from where the last one ended to the last place between lines that fits.
    pub fn batch(&mut self) -> Option<Batch> {
        let (mut bytes, mut lines, mut clean_lines) = (0, 0, 0);
        for line in &self.whole {
            bytes += line.message.len() + EVENT_OVERHEAD_BYTES;
            if lines == EVENTS_MAX || (bytes > self.shape.batch_bytes && lines > 0) {
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
        let mut taken: Vec<Line> = self.whole.drain(..take).collect();
        let ends = taken.iter().map(|line| line.end);
        let end = ends.max().unwrap_or(self.start);
        let start = std::mem::replace(&mut self.start, end);
        if self.shape.skips_empty {
            taken.retain(|line| !line.message.is_empty());
        }
        Some(Batch {
            start,
            end,
            lines: taken,
        })
    }
}

/// Pieces of at most so many bytes, never within a character. At least one, even of nothing.
fn split(text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        if text.len() <= bytes_max {
            rest = None;
            return Some(text);
        }
        let mut at = bytes_max;
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
            self.0 += text.len() as u64 + 32;
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

    fn events(begins: Option<&str>) -> Lines {
        let plan = AwsLogsPlan {
            group: String::new(),
            stream: String::new(),
            region: String::new(),
            create_group: false,
            use_execution_role: false,
            begins_event: begins.map(str::to_owned),
            flush_after: Duration::from_secs(5),
        };
        Lines::new(0, Shape::of_events(&plan))
    }

    fn messages(batch: &Batch) -> Vec<&str> {
        batch
            .lines
            .iter()
            .map(|line| line.message.as_str())
            .collect()
    }

    #[test]
    fn batches_end_between_lines_of_both_streams() {
        let mut spool = Spool(0);
        let mut lines = events(None);
        lines.push(spool.record(LogStream::Stdout, "one", false, 5));
        let boundary = spool.0;
        lines.push(spool.record(LogStream::Stdout, "tw", true, 6));
        lines.push(spool.record(LogStream::Stderr, "err", false, 4));
        let batch = lines.batch().unwrap();
        assert_eq!((batch.start, batch.end), (0, boundary));
        assert_eq!(messages(&batch), ["one"]);
        assert!(lines.batch().is_none(), "a line of stdout is still open");
        lines.push(spool.record(LogStream::Stdout, "o\r", false, 7));
        let batch = lines.batch().unwrap();
        assert_eq!((batch.start, batch.end), (boundary, spool.0));
        assert_eq!(messages(&batch), ["err", "two"]);
        assert!(batch.lines.is_sorted_by_key(|line| line.at_ms));
    }

    #[test]
    fn the_end_of_the_container_ends_its_last_line() {
        let mut spool = Spool(0);
        let mut lines = events(None);
        lines.push(spool.record(LogStream::Stdout, "no line feed", true, 1));
        assert!(lines.batch().is_none());
        lines.end();
        assert_eq!(messages(&lines.batch().unwrap()), ["no line feed"]);
    }

    #[test]
    fn long_lines_are_divided_and_batches_stay_within_the_limits() {
        let mut spool = Spool(0);
        let mut lines = events(None);
        let long = "é".repeat(EVENT_BYTES_MAX);
        lines.push(spool.record(LogStream::Stdout, &long, false, 1));
        for n in 0..30_000 {
            lines.push(spool.record(LogStream::Stdout, &n.to_string(), false, 2));
        }
        let (mut end, mut text, mut events) = (0, String::new(), 0);
        while let Some(batch) = lines.batch() {
            assert_eq!(batch.start, end);
            assert!(batch.lines.len() <= EVENTS_MAX);
            let size = |line: &Line| line.message.len() + EVENT_OVERHEAD_BYTES;
            assert!(batch.lines.iter().map(size).sum::<usize>() <= BATCH_BYTES_MAX);
            end = batch.end;
            events += batch.lines.len();
            for line in &batch.lines {
                assert!(line.message.len() <= EVENT_BYTES_MAX);
                if line.at_ms == 1 {
                    text.push_str(&line.message);
                }
            }
        }
        assert_eq!(text, long);
        assert_eq!(end, spool.0);
        assert!(events > 30_000);
    }

    #[test]
    fn a_line_that_matches_begins_an_event_and_silence_ends_it() {
        let mut spool = Spool(0);
        let mut lines = events(Some("^[0-9]+ "));
        for text in ["1 a", "  at b", "", "  at c", "2 d"] {
            lines.push(spool.record(LogStream::Stdout, text, false, 1));
        }
        assert_eq!(messages(&lines.batch().unwrap()), ["1 a\n  at b\n\n  at c"]);
        assert!(lines.is_open() && lines.batch().is_none());
        lines.push(spool.record(LogStream::Stderr, "e", false, 1));
        lines.close_event();
        let batch = lines.batch().unwrap();
        assert_eq!((messages(&batch), batch.end), (vec!["2 d\ne"], spool.0));
        assert!(!lines.is_open());
        // What comes before the first line that matches is an event as well, and so is the last.
        lines.push(spool.record(LogStream::Stdout, "x", false, 1));
        lines.push(spool.record(LogStream::Stdout, "3 y", false, 1));
        lines.end();
        assert_eq!(messages(&lines.batch().unwrap()), ["x", "3 y"]);
    }

    #[test]
    fn an_event_of_too_many_lines_is_divided_between_them() {
        let mut spool = Spool(0);
        let mut lines = events(Some("^begin"));
        let text = "x".repeat(100_000);
        for _ in 0..5 {
            lines.push(spool.record(LogStream::Stdout, &text, false, 1));
        }
        lines.end();
        let mut sizes = Vec::new();
        while let Some(batch) = lines.batch() {
            sizes.extend(batch.lines.iter().map(|line| line.message.len()));
        }
        assert_eq!(sizes, [200_001, 200_001, 100_000]);
    }

    #[test]
    fn what_the_receiver_holds_is_taken_away() {
        let mut spool = Spool(100);
        let mut lines = Lines::new(100, Shape::of_lines());
        lines.push(spool.record(LogStream::Stdout, "a", false, 1));
        let held = spool.0;
        lines.push(spool.record(LogStream::Stdout, "b", false, 1));
        let mut batch = lines.batch().unwrap();
        batch.skip_to(held);
        assert_eq!((batch.start, messages(&batch)), (held, vec!["b"]));
    }
}
