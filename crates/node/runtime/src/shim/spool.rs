//! The writing end of a spool: bytes from a container's pipes in, records in segments out.
//!
//! What always holds: no more than `bytes_max` and one read's worth is kept; what a reader has not
//! trimmed is never deleted; in blocking mode nothing is ever lost while this process lives.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use gantry_env::Timestamp;

use crate::logs::LogStream;
use crate::logs::record;
use crate::logs::segment::{self, Segment};
use crate::spec::LogMode;

/// A longer line is cut, and its pieces marked as partial, as Docker does.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Segments are an eighth of the spool, so that trimming frees space in good time.
const SEGMENTS: u64 = 8;
const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub(super) struct Spool {
    dir: PathBuf,
    mode: LogMode,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    file: Option<File>,
    /// The begun lines, of stdout and of stderr.
    begun: [Vec<u8>; 2],
    /// Lines dropped since the last record.
    dropped: u64,
    /// Records that the disk did not take. They are tried again before anything else is read.
    refused: Vec<u8>,
}

impl Spool {
    pub(super) fn create(dir: PathBuf, mode: LogMode, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            mode,
            bytes_max,
            segments: VecDeque::new(),
            file: None,
            begun: [Vec::new(), Vec::new()],
            dropped: 0,
            refused: Vec::new(),
        })
    }

    pub(super) fn end(&self) -> u64 {
        self.segments.back().map_or(0, Segment::end)
    }

    fn used(&self) -> u64 {
        self.end() - self.segments.front().map_or(0, |first| first.start)
    }

    /// Whether the pipes may be read now.
    pub(super) fn accepts(&self) -> bool {
        match self.mode {
            LogMode::Blocking => self.refused.is_empty() && self.used() < self.bytes_max,
            LogMode::NonBlocking => true,
        }
    }

    /// Whether the disk refused something that should be tried again.
    pub(super) fn is_stalled(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn retry(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        if !refused.is_empty() {
            self.append(refused);
        }
    }

    /// Takes what a pipe gave.
    pub(super) fn write(&mut self, at: Timestamp, stream: LogStream, bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len() + 4 * record::HEAD);
        let side = stream as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE_BYTES_MAX - self.begun[side].len();
            let look = &rest[..rest.len().min(room)];
            match look.iter().position(|byte| *byte == b'\n') {
                Some(feed) => {
                    self.finish_line(&mut out, at, stream, &rest[..feed], false);
                    rest = &rest[feed + 1..];
                }
                None if look.len() == room => {
                    self.finish_line(&mut out, at, stream, look, true);
                    rest = &rest[room..];
                }
                None => {
                    self.begun[side].extend_from_slice(look);
                    rest = &[];
                }
            }
        }
        if !out.is_empty() {
            self.append(out);
        }
    }

    /// The pipe has ended: a last line without a line feed counts as well.
    pub(super) fn end_stream(&mut self, at: Timestamp, stream: LogStream) {
        if !self.begun[stream as usize].is_empty() {
            let mut out = Vec::new();
            self.finish_line(&mut out, at, stream, b"", false);
            if !out.is_empty() {
                self.append(out);
            }
        }
    }

    fn finish_line(
        &mut self,
        out: &mut Vec<u8>,
        at: Timestamp,
        stream: LogStream,
        tail: &[u8],
        partial: bool,
    ) {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        let whole;
        let line = if begun.is_empty() {
            tail
        } else {
            whole = [begun.as_slice(), tail].concat();
            whole.as_slice()
        };
        let size = (out.len() + record::HEAD + line.len()) as u64;
        let full = self.mode == LogMode::NonBlocking
            && (self.is_stalled() || self.used() + size > self.bytes_max);
        if full {
            self.dropped += 1;
            return;
        }
        record::encode(out, at, stream, partial, self.dropped, line);
        self.dropped = 0;
    }

    /// Writes whole records, into a new segment when this one is long enough.
    fn append(&mut self, records: Vec<u8>) {
        if !self.refused.is_empty() {
            self.refused.extend(records);
            return;
        }
        if let Err(error) = self.try_append(&records) {
            super::note(&format!("cannot write to {}: {error}", self.dir.display()));
            // A record that is half on disk would be taken for the end of all.
            if let (Some(file), Some(last)) = (&self.file, self.segments.back()) {
                let _ = file.set_len(last.length);
            }
            match self.mode {
                LogMode::Blocking => self.refused = records,
                LogMode::NonBlocking => self.dropped += count_records(&records),
            }
        }
    }

    fn try_append(&mut self, records: &[u8]) -> io::Result<()> {
        let segment_max = (self.bytes_max / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let rotate = self
            .segments
            .back()
            .is_none_or(|last| last.length >= segment_max);
        if rotate || self.file.is_none() {
            let start = self.end();
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(segment::path(&self.dir, start))?;
            self.file = Some(file);
            if self
                .segments
                .back()
                .is_none_or(|last| last.end() != start || last.length > 0)
            {
                self.segments.push_back(Segment { start, length: 0 });
            }
        }
        if let (Some(file), Some(last)) = (&mut self.file, self.segments.back_mut()) {
            file.write_all(records)?;
            last.length += records.len() as u64;
        }
        Ok(())
    }

    /// Frees what lies before `offset`. A segment goes as a whole.
    pub(super) fn trim(&mut self, offset: u64) {
        while let Some(first) = self.segments.front().copied() {
            let is_last = self.segments.len() == 1;
            if first.end() > offset || first.length == 0 {
                break;
            }
            if is_last {
                // Its successor is made first, because the end must outlive the file.
                let start = first.end();
                match OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(segment::path(&self.dir, start))
                {
                    Ok(file) => {
                        self.file = Some(file);
                        self.segments.push_back(Segment { start, length: 0 });
                    }
                    Err(_) => break,
                }
            }
            if fs::remove_file(segment::path(&self.dir, first.start)).is_err() {
                // It is gone or cannot go; either way it must not stop the container for ever.
                super::note("a segment could not be removed");
            }
            self.segments.pop_front();
        }
    }
}

fn count_records(mut records: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(record) = record::decode(records, 0) {
        count += 1;
        records = &records[record.end_offset as usize..];
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::LogRecord;

    fn read_all(dir: &std::path::Path) -> Vec<LogRecord> {
        let mut records = Vec::new();
        for part in segment::list(dir) {
            let bytes = fs::read(segment::path(dir, part.start)).unwrap();
            let mut offset = part.start;
            while let Some(record) =
                record::decode(&bytes[(offset - part.start) as usize..], offset)
            {
                offset = record.end_offset;
                records.push(record);
            }
        }
        records
    }

    const NOW: Timestamp = Timestamp::from_millis(5);

    #[test]
    fn lines_come_out_as_they_went_in_however_they_are_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path().to_owned(), LogMode::Blocking, 1 << 20).unwrap();
        spool.write(NOW, LogStream::Stdout, b"one\ntw");
        spool.write(NOW, LogStream::Stderr, b"err\n");
        spool.write(NOW, LogStream::Stdout, b"o\n\nlast");
        spool.end_stream(NOW, LogStream::Stdout);
        let lines: Vec<_> = read_all(dir.path())
            .into_iter()
            .map(|r| (r.stream, String::from_utf8(r.bytes).unwrap()))
            .collect();
        let out = |line: &str| (LogStream::Stdout, line.to_owned());
        assert_eq!(
            lines,
            [
                out("one"),
                (LogStream::Stderr, "err".to_owned()),
                out("two"),
                out(""),
                out("last")
            ]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_join_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path().to_owned(), LogMode::Blocking, 1 << 20).unwrap();
        let long = vec![b'x'; LINE_BYTES_MAX * 2 + 5];
        spool.write(NOW, LogStream::Stdout, &long);
        spool.write(NOW, LogStream::Stdout, b"\n");
        let records = read_all(dir.path());
        let partial: Vec<_> = records.iter().map(|r| r.partial).collect();
        assert_eq!(partial, [true, true, false]);
        assert_eq!(
            records
                .iter()
                .flat_map(|r| r.bytes.clone())
                .collect::<Vec<_>>(),
            long
        );
    }

    #[test]
    fn blocking_waits_for_a_trim_and_offsets_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path().to_owned(), LogMode::Blocking, 4096).unwrap();
        let mut lines = 0;
        while spool.accepts() {
            spool.write(NOW, LogStream::Stdout, format!("line {lines}\n").as_bytes());
            lines += 1;
        }
        let end = spool.end();
        assert_eq!(read_all(dir.path()).len(), lines);
        spool.trim(end);
        assert!(spool.accepts());
        assert_eq!(spool.end(), end);
        spool.write(NOW, LogStream::Stdout, b"after\n");
        let records = read_all(dir.path());
        assert_eq!((records.len(), records[0].offset), (1, end));
    }

    #[test]
    fn non_blocking_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path().to_owned(), LogMode::NonBlocking, 4096).unwrap();
        for line in 0..1000 {
            assert!(spool.accepts());
            spool.write(NOW, LogStream::Stdout, format!("line {line}\n").as_bytes());
        }
        let kept = read_all(dir.path()).len() as u64;
        assert!(kept > 10 && kept < 1000);
        spool.trim(spool.end());
        spool.write(NOW, LogStream::Stdout, b"after\n");
        let records = read_all(dir.path());
        assert_eq!(records[0].dropped_before, 1000 - kept);
    }
}
