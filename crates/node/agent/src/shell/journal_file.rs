//! The journal on disk: append, sync, and only then say so.
//!
//! What always holds: records are on disk in the order in which they were given, and a batch is told
//! as written after one sync that covers it and all before it; batches that wait together share that
//! sync. A line that cannot be read belongs to a write that was never acknowledged, so it and what
//! follows are dropped. Rewriting the journal replaces it by one rename.
//! What it leaves to others: what records mean (`core::journal`).

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use tracing::warn;

use crate::core::step::PersistId;
use crate::core::{Journal, JournalRecord};

/// A journal smaller than this is never rewritten.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
/// It is rewritten once it has grown to this many times its last rewritten size.
const REWRITE_FACTOR: u64 = 4;

/// A thread that writes. Dropping it ends the thread once all that was given is on disk.
pub struct JournalWriter {
    batches: mpsc::Sender<(PersistId, Vec<JournalRecord>)>,
}

impl JournalWriter {
    /// Opens the journal in `directory`, reads it, and starts writing behind what was read.
    /// `written` is called on the writer's thread; an error means that nothing more is written.
    pub fn open(
        directory: &Path,
        written: impl Fn(io::Result<PersistId>) + Send + 'static,
    ) -> io::Result<(JournalWriter, Vec<JournalRecord>)> {
        std::fs::create_dir_all(directory)?;
        let (file, records) = JournalFile::open(directory)?;
        let (batches, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("agent-journal".to_owned())
            .spawn(move || write_all(file, &queue, &written))?;
        Ok((JournalWriter { batches }, records))
    }

    pub fn append(&self, id: PersistId, records: Vec<JournalRecord>) {
        // A writer that has failed has said so; nothing after it is acknowledged.
        let _ = self.batches.send((id, records));
    }
}

fn write_all(
    mut file: JournalFile,
    queue: &mpsc::Receiver<(PersistId, Vec<JournalRecord>)>,
    written: &dyn Fn(io::Result<PersistId>),
) {
    while let Ok((mut id, mut records)) = queue.recv() {
        while let Ok((next, more)) = queue.try_recv() {
            id = next;
            records.extend(more);
        }
        let result = file.append(&records);
        let failed = result.is_err();
        written(result.map(|()| id));
        if failed {
            return;
        }
    }
}

struct JournalFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rewrite_at: u64,
    /// What the records so far amount to.
    state: Journal,
}

impl JournalFile {
    fn open(directory: &Path) -> io::Result<(JournalFile, Vec<JournalRecord>)> {
        let path = directory.join("journal");
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)?;
        let (records, good_bytes) = read(&mut file)?;
        if good_bytes < file.metadata()?.len() {
            warn!(journal = %path.display(), "dropping the end of the journal, which was never acknowledged");
            file.set_len(good_bytes)?;
        }
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        let state = Journal::of(&records);
        let journal = JournalFile {
            path,
            file,
            bytes: good_bytes,
            rewrite_at: REWRITE_BYTES_MIN,
            state,
        };
        Ok((journal, records))
    }

    fn append(&mut self, records: &[JournalRecord]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let bytes = encode(records)?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.bytes += bytes.len() as u64;
        for record in records {
            self.state.apply(record);
        }
        if self.bytes >= self.rewrite_at {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = encode(&self.state.compacted())?;
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.bytes = bytes.len() as u64;
        self.rewrite_at = REWRITE_BYTES_MIN.max(self.bytes * REWRITE_FACTOR);
        Ok(())
    }
}

/// The records up to the first line that is none, and how many bytes they take.
fn read(file: &mut File) -> io::Result<(Vec<JournalRecord>, u64)> {
    let mut reader = BufReader::new(file);
    let (mut records, mut good_bytes) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((records, good_bytes));
        }
        let Ok(record) = serde_json::from_slice(&line) else {
            return Ok((records, good_bytes));
        };
        records.push(record);
        good_bytes += read as u64;
    }
}

fn encode(records: &[JournalRecord]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: i64) -> JournalRecord {
        JournalRecord::Seen {
            number,
            container_instance: None,
        }
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, records) = JournalFile::open(directory.path()).unwrap();
        assert!(records.is_empty());
        journal.append(&[seen(1), seen(2)]).unwrap();
        journal.append(&[seen(3)]).unwrap();
        let path = directory.path().join("journal");
        let whole = std::fs::read(&path).unwrap();
        for torn in [
            &b"{\"record\":\"se"[..],
            b"{\"record\":\"nothing known\"}\n",
            b"\0\0\0\n",
        ] {
            let mut bytes = whole.clone();
            bytes.extend(torn);
            std::fs::write(&path, bytes).unwrap();
            let (mut journal, records) = JournalFile::open(directory.path()).unwrap();
            assert_eq!(records, [seen(1), seen(2), seen(3)]);
            journal.append(&[seen(4)]).unwrap();
            let (_, records) = JournalFile::open(directory.path()).unwrap();
            assert_eq!(records.last(), Some(&seen(4)));
        }
    }

    #[test]
    fn a_rewritten_journal_gives_the_same_state() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = JournalFile::open(directory.path()).unwrap();
        for number in 0..100 {
            journal.rewrite_at = 200;
            journal.append(&[seen(number)]).unwrap();
        }
        assert!(journal.bytes < 2000);
        let (journal, records) = JournalFile::open(directory.path()).unwrap();
        assert_eq!(Journal::of(&records).seen, 99);
        assert_eq!(journal.state.seen, 99);
    }

    #[test]
    fn batches_are_told_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (told_in, told) = mpsc::channel();
        let (writer, _) = JournalWriter::open(directory.path(), move |result| {
            told_in.send(result.unwrap()).unwrap();
        })
        .unwrap();
        for id in 1..=50 {
            writer.append(PersistId(id), vec![seen(id as i64)]);
        }
        drop(writer);
        let told: Vec<PersistId> = told.iter().collect();
        assert!(told.is_sorted());
        assert_eq!(told.last(), Some(&PersistId(50)));
        let (_, records) = JournalFile::open(directory.path()).unwrap();
        assert_eq!(records.len(), 50);
    }
}
