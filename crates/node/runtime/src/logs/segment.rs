//! The files of a spool: one a segment, named by the offset it begins at.
//!
//! What always holds: segments follow on each other, and a record lies in one segment.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a segment begins and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub start: u64,
    pub length: u64,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.length
    }
}

pub(crate) fn path(spool: &Path, start: u64) -> PathBuf {
    spool.join(format!("{start:020}.log"))
}

/// What is on disk, oldest first.
pub(crate) fn list(spool: &Path) -> Vec<Segment> {
    let mut segments: Vec<Segment> = fs::read_dir(spool)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let start = name.to_str()?.strip_suffix(".log")?.parse().ok()?;
            let length = entry.metadata().ok()?.len();
            Some(Segment { start, length })
        })
        .collect();
    segments.sort_by_key(|segment| segment.start);
    segments
}
