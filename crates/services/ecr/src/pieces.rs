//! Reading an object piece by piece, as fast as whoever asked for it takes the pieces.
//!
//! What always holds: what the kernel has in memory is copied right where it is asked for, and only
//! what has to come from the disk goes to a thread that may wait; the large pieces of all readers
//! together take at most [`LARGE_BYTES_MAX`], and beyond them every piece is a small one, so many
//! slow readers cost little each.
//! What it leaves to others: which object is read and how much of it; it never changes meanwhile.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use rustix::io::{ReadWriteFlags, preadv2};

/// Few system calls a layer, and what was read is still in the processor's cache when it is sent.
const LARGE_BYTES: usize = 256 * 1024;
/// What readers get while the large pieces are all taken.
const SMALL_BYTES: usize = 16 * 1024;
/// Of all large pieces together.
const LARGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Large pieces that are kept for the next reader: fresh memory costs as much as reading into it.
const SPARE_MAX: usize = 4;

/// The memory that all readers of one store share.
#[derive(Default)]
pub struct Pieces {
    large_lent: AtomicUsize,
    spare: Mutex<Vec<Box<[u8]>>>,
}

impl Pieces {
    fn lend(self: &Arc<Self>) -> Piece {
        let lent = |lent: usize| (lent < LARGE_BYTES_MAX / LARGE_BYTES).then_some(lent + 1);
        let order = Ordering::Relaxed;
        if self.large_lent.fetch_update(order, order, lent).is_err() {
            return Piece {
                bytes: vec![0; SMALL_BYTES].into(),
                filled: 0,
                home: None,
            };
        }
        let spare = self.spare().pop();
        Piece {
            bytes: spare.unwrap_or_else(|| vec![0; LARGE_BYTES].into()),
            filled: 0,
            home: Some(self.clone()),
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory on loan; a large one goes back when the last byte of it was sent.
struct Piece {
    bytes: Box<[u8]>,
    filled: usize,
    home: Option<Arc<Pieces>>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut spare = home.spare();
            if spare.len() < SPARE_MAX {
                spare.push(std::mem::take(&mut self.bytes));
            }
            home.large_lent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The bytes of a part of a file, in order.
pub fn read(
    pieces: Arc<Pieces>,
    file: File,
    part: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let reader = Reader {
        pieces,
        file: Arc::new(file),
        left: part,
    };
    futures_util::stream::try_unfold(reader, async |mut reader| {
        let piece = reader.next().await?;
        Ok(piece.map(|piece| (piece, reader)))
    })
}

struct Reader {
    pieces: Arc<Pieces>,
    file: Arc<File>,
    left: Range<u64>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let mut piece = self.pieces.lend();
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let (want, at) = (left.min(piece.bytes.len()), self.left.start);
        let into = piece.bytes.get_mut(..want).unwrap_or_default();
        piece.filled = match read_from_memory(&self.file, into, at) {
            Some(read) => read,
            None => {
                let file = self.file.clone();
                let from_disk = tokio::task::spawn_blocking(move || {
                    let into = piece.bytes.get_mut(..want).unwrap_or_default();
                    let read = file.read_at(into, at)?;
                    Ok::<_, io::Error>((piece, read))
                });
                let read;
                (piece, read) = from_disk.await.map_err(io::Error::other)??;
                read
            }
        };
        if piece.filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left.start += piece.filled as u64;
        Ok(Some(Bytes::from_owner(piece)))
    }
}

/// What the kernel can give without waiting; `None` where it would have to wait, or cannot tell, or
/// failed: then the ordinary read says what there is to say.
fn read_from_memory(file: &File, into: &mut [u8], at: u64) -> Option<usize> {
    preadv2(
        file,
        &mut [IoSliceMut::new(into)],
        at,
        ReadWriteFlags::NOWAIT,
    )
    .ok()
    .filter(|read| *read > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::StreamExt as _;

    use super::*;

    /// A file of `size` bytes in which no two pieces are alike.
    fn file(size: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..size).map(|at| (at / 251 + at * 7) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    async fn all(stream: impl Stream<Item = io::Result<Bytes>>) -> Vec<u8> {
        stream.map(|piece| piece.unwrap().to_vec()).concat().await
    }

    #[tokio::test]
    async fn any_part_comes_as_it_is_on_the_disk() {
        let (file, bytes) = file(3 * LARGE_BYTES + 17);
        let pieces = Arc::new(Pieces::default());
        for part in [0..bytes.len(), 5..6, 100..LARGE_BYTES + 100, 7..7] {
            let asked = part.start as u64..part.end as u64;
            let stream = read(pieces.clone(), file.try_clone().unwrap(), asked);
            assert!(all(stream).await == bytes[part.clone()], "{part:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_shorter_than_its_row_says_is_an_error_and_not_an_end() {
        let (file, _) = file(10);
        let stream = read(Arc::default(), file, 0..11);
        let seen: Vec<_> = stream.collect().await;
        assert_eq!(seen[0].as_ref().unwrap().len(), 10);
        let error = seen[1].as_ref().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Readers that took a piece each and then stopped reading hold no more than the budget and a
    /// small piece each; once they go on, everybody gets everything, and the memory is given back.
    #[tokio::test]
    async fn many_slow_readers_hold_little_memory_and_lose_nothing() {
        const READERS: usize = 300;
        let (file, bytes) = file(LARGE_BYTES + SMALL_BYTES);
        let pieces = Arc::new(Pieces::default());
        let mut slow = Vec::new();
        for _ in 0..READERS {
            let file = file.try_clone().unwrap();
            let mut stream = Box::pin(read(pieces.clone(), file, 0..bytes.len() as u64));
            let first = stream.next().await.unwrap().unwrap();
            slow.push((first, stream));
        }
        let held: usize = slow.iter().map(|(first, _)| first.len()).sum();
        assert!(
            held <= LARGE_BYTES_MAX + READERS * SMALL_BYTES,
            "{held} bytes are held"
        );
        for (first, stream) in slow {
            let mut whole = first.to_vec();
            drop(first);
            whole.extend(all(stream).await);
            assert!(whole == bytes);
        }
        assert_eq!(pieces.large_lent.load(Ordering::Relaxed), 0);
        assert!(pieces.spare().len() <= SPARE_MAX);
        let fast = read(pieces, file, 0..bytes.len() as u64);
        let first = std::pin::pin!(fast).next().await.unwrap().unwrap();
        assert_eq!(first.len(), LARGE_BYTES, "large pieces are lent again");
    }
}
