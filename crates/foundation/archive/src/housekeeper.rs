//! Moves fresh records into compressed segments, and gives back what was deleted.
//!
//! What always holds: it changes nothing by itself; it writes an object, then asks the committer to
//! put the object's blocks in the place of chunks. Whatever is killed in between leaves an orphan.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as std_mpsc};

use bytes::BytesMut;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{mpsc, oneshot};

use crate::archive::Shared;
use crate::catalog::{Chunk, Place};
use crate::committer::Request;
use crate::segments::{MAGIC, Segments};
use crate::{ArchiveError, block};

/// About how many bytes of records go into one segment.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// About how many bytes of one stream are compressed together: more saves little, and a read of
/// one record has to decompress its whole block.
const BLOCK_BYTES: usize = 256 * 1024;

pub(crate) enum Chore {
    /// Enough fresh records have come together.
    Seal,
    /// Chunks were deleted, and with them these segments.
    Freed(Vec<u64>),
    Stop,
}

/// A segment that has been written, and what its blocks take the place of.
pub(crate) struct Sealed {
    pub number: u64,
    pub bytes: usize,
    /// Where the chunks were: in a segment, or fresh.
    pub from: Option<u64>,
    pub blocks: Vec<Block>,
}

pub(crate) struct Block {
    pub stream: i64,
    pub first_offset: u64,
    pub count: u64,
    pub min_time: i64,
    pub max_time: i64,
    pub bytes: usize,
    pub at: usize,
    pub length: usize,
    /// How many chunks it was made from.
    pub sources: usize,
}

pub(crate) struct Housekeeper {
    pub(crate) catalog: Connection,
    pub(crate) segments: Segments,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Housekeeper {
    pub(crate) fn run(mut self, chores: &std_mpsc::Receiver<Chore>) {
        while let Ok(chore) = chores.recv() {
            let done = match chore {
                Chore::Stop => return,
                Chore::Seal => self.seal(),
                Chore::Freed(segments) => self.delete(segments).and_then(|()| self.compact()),
            };
            if let Err(error) = done {
                // Nothing is lost: the records stay where they are, and it is tried again.
                tracing::warn!(%error, "the archive could not be tidied");
            }
        }
    }

    /// Seals all that is fresh.
    fn seal(&mut self) -> Result<(), ArchiveError> {
        // A stream's next chunk may be fresh for long; each pass takes what is there when it begins.
        while self.seal_once()? >= SEGMENT_BYTES {}
        Ok(())
    }

    /// One segment of fresh records; gives how many bytes of them it took.
    fn seal_once(&mut self) -> Result<usize, ArchiveError> {
        let mut segment = SegmentWriter::new(self.next_number()?, None);
        let mut taken = 0;
        {
            let query = format!(
                "SELECT {} FROM chunks WHERE segment IS NULL ORDER BY stream, first_offset",
                Chunk::COLUMNS
            );
            let mut select = self.catalog.prepare_cached(&query)?;
            let mut rows = select.query([])?;
            while taken < SEGMENT_BYTES
                && let Some(row) = rows.next()?
            {
                let chunk = Chunk::read(row)?;
                taken += chunk.bytes;
                segment.add(chunk)?;
            }
        }
        if taken > 0 {
            self.finish(segment)?;
            self.shared.counters.sealed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Writes segments anew of which less than half is still referred to.
    fn compact(&mut self) -> Result<(), ArchiveError> {
        while let Some(number) = self.sparse_segment()? {
            let query = format!(
                "SELECT {} FROM chunks WHERE segment = ?1 ORDER BY stream, first_offset",
                Chunk::COLUMNS
            );
            let chunks: Vec<Chunk> = self
                .catalog
                .prepare_cached(&query)?
                .query_map([number], Chunk::read)?
                .collect::<Result<_, _>>()?;
            let mut segment = SegmentWriter::new(self.next_number()?, Some(number));
            for chunk in chunks {
                let Place::Sealed { at, length, .. } = chunk.place else {
                    continue;
                };
                let read = self.segments.get(number, at, length);
                let compressed = self.runtime.block_on(read)?;
                let compressed =
                    compressed.ok_or_else(|| ArchiveError::io("a segment is missing"))?;
                segment.add_compressed(&chunk, &compressed);
            }
            self.finish(segment)?;
        }
        Ok(())
    }

    fn sparse_segment(&self) -> Result<Option<u64>, ArchiveError> {
        let query = "
            SELECT number FROM segments
            WHERE (SELECT sum(length) FROM chunks WHERE segment = number) * 2 < bytes
            LIMIT 1";
        let found = self
            .catalog
            .prepare_cached(query)?
            .query_row([], |row| row.get(0));
        Ok(found.optional()?)
    }

    fn delete(&mut self, numbers: Vec<u64>) -> Result<(), ArchiveError> {
        for number in numbers {
            self.runtime.block_on(self.segments.delete(number))?;
        }
        Ok(())
    }

    fn finish(&mut self, mut segment: SegmentWriter) -> Result<(), ArchiveError> {
        segment.close_block()?;
        let sealed = Sealed {
            number: segment.number,
            bytes: segment.bytes.len(),
            from: segment.from,
            blocks: segment.blocks,
        };
        let put = self.segments.put(segment.number, segment.bytes);
        self.runtime.block_on(put)?;
        let (reply, answer) = oneshot::channel();
        let stopped = || ArchiveError::io("it has been closed");
        let request = Request::Seal(sealed, reply);
        self.requests
            .blocking_send(request)
            .map_err(|_| stopped())?;
        answer.blocking_recv().map_err(|_| stopped())?
    }

    /// The number of the next segment. Only this thread makes any, and none is used twice.
    fn next_number(&self) -> Result<u64, ArchiveError> {
        let query =
            "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'segments'), 0) + 1";
        Ok(self.catalog.query_row(query, [], |row| row.get(0))?)
    }
}

/// Puts a segment together, chunk by chunk, those of one stream joined into larger blocks.
struct SegmentWriter {
    number: u64,
    from: Option<u64>,
    bytes: Vec<u8>,
    blocks: Vec<Block>,
    open: Option<(Block, BytesMut)>,
}

impl SegmentWriter {
    fn new(number: u64, from: Option<u64>) -> Self {
        Self {
            number,
            from,
            bytes: MAGIC.to_vec(),
            blocks: Vec::new(),
            open: None,
        }
    }

    fn add(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        let Place::Fresh(body) = &chunk.place else {
            return Ok(());
        };
        if let Some((block, records)) = &mut self.open {
            let follows = block.stream == chunk.stream
                && block.first_offset + block.count == chunk.first_offset;
            if follows && records.len() < BLOCK_BYTES {
                records.extend_from_slice(body);
                block.count += chunk.count;
                block.min_time = block.min_time.min(chunk.min_time);
                block.max_time = block.max_time.max(chunk.max_time);
                block.bytes += chunk.bytes;
                block.sources += 1;
                return Ok(());
            }
        }
        self.close_block()?;
        self.open = Some((Block::of(&chunk), BytesMut::from(&body[..])));
        Ok(())
    }

    fn add_compressed(&mut self, chunk: &Chunk, compressed: &[u8]) {
        self.place(Block::of(chunk), compressed);
    }

    fn close_block(&mut self) -> Result<(), ArchiveError> {
        if let Some((block, records)) = self.open.take() {
            let compressed = block::compress(&records)?;
            self.place(block, &compressed);
        }
        Ok(())
    }

    fn place(&mut self, mut block: Block, compressed: &[u8]) {
        block.at = self.bytes.len();
        block.length = compressed.len();
        self.bytes.extend_from_slice(compressed);
        self.blocks.push(block);
    }
}

impl Block {
    fn of(chunk: &Chunk) -> Self {
        Self {
            stream: chunk.stream,
            first_offset: chunk.first_offset,
            count: chunk.count,
            min_time: chunk.min_time,
            max_time: chunk.max_time,
            bytes: chunk.bytes,
            at: 0,
            length: 0,
            sources: 1,
        }
    }
}
