//! A layer on its way from the network to the disk: compressed bytes in, verified tar out.
//!
//! What always holds: both digests cover every byte, the compressed ones up to exactly the size that the
//! manifest gave and the tar's up to the limit; memory is a few buffers. It blocks, so it runs on a thread of
//! its own; when whoever feeds it goes away, it ends with an error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::digest::Digest;
use super::manifest::Descriptor;
use super::unpack::{LayerLimits, unpack};

const BUFFER_BYTES: usize = 64 << 10;
/// 64 MiB: more than the highest levels in use ask for, and all that a hostile frame can take.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// Why a layer is not on disk.
#[derive(Debug)]
pub(crate) enum LayerError {
    /// Whoever fed the stream gave up, and knows why.
    Fed,
    /// What came is not what was promised, or could not be written.
    Refused(String),
}

/// Reads a blob, decompresses and unpacks it into `folder`, and checks both digests.
pub(crate) fn unpack_layer(
    reader: BlobReader<'_>,
    blob: &Descriptor,
    diff_id: &Digest,
    folder: &Path,
    limits: &LayerLimits,
) -> Result<(), LayerError> {
    let mut compressed = BufReader::with_capacity(BUFFER_BYTES, reader);
    let result = unpack_verified(&mut compressed, diff_id, folder, limits)
        .and_then(|()| compressed.get_mut().finish(&blob.digest));
    match result {
        Ok(()) => Ok(()),
        Err(_) if compressed.get_ref().gave_up => Err(LayerError::Fed),
        Err(error) => Err(LayerError::Refused(error.to_string())),
    }
}

fn unpack_verified(
    compressed: &mut BufReader<BlobReader<'_>>,
    diff_id: &Digest,
    folder: &Path,
    limits: &LayerLimits,
) -> io::Result<()> {
    // By its first bytes, as everybody does: media types lie too often.
    let first = compressed.fill_buf()?;
    let tar: Box<dyn Read + '_> = if first.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(compressed))
    } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(first) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Box::new(decoder)
    } else {
        Box::new(compressed)
    };
    let tar = HashingReader {
        inner: tar,
        hash: Sha256::new(),
        left: limits.bytes_max,
    };
    let mut rest = unpack(BufReader::with_capacity(BUFFER_BYTES, tar), folder, limits)?;
    // Padding after the archive's end is part of what the digests cover.
    loop {
        let length = rest.fill_buf()?.len();
        if length == 0 {
            break;
        }
        rest.consume(length);
    }
    let tar = rest.into_inner();
    let actual = Digest::from_hash(tar.hash);
    if actual != *diff_id {
        return Err(io::Error::other(format!(
            "the layer's contents are {actual}, not {diff_id}"
        )));
    }
    Ok(())
}

/// A zstd stream may begin with one, as those with a table of contents do.
fn is_skippable_frame(first: &[u8]) -> bool {
    matches!(first, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A blob's bytes: first those that are on disk, then those that come, which are kept as well.
pub(crate) struct BlobReader<'f> {
    before: Option<io::Take<&'f File>>,
    kept: Option<&'f File>,
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    hash: Sha256,
    size: u64,
    left: u64,
    gave_up: bool,
}

impl<'f> BlobReader<'f> {
    pub fn new(
        partial: Option<(io::Take<&'f File>, &'f File)>,
        chunks: mpsc::Receiver<Bytes>,
        size: u64,
    ) -> Self {
        let (before, kept) = partial.unzip();
        Self {
            before,
            kept,
            chunks,
            current: Bytes::new(),
            hash: Sha256::new(),
            size,
            left: size,
            gave_up: false,
        }
    }

    fn finish(&mut self, digest: &Digest) -> io::Result<()> {
        // Bytes after the end of the compressed stream.
        let mut sink = vec![0; BUFFER_BYTES];
        while self.read(&mut sink)? > 0 {}
        let actual = Digest::from_hash(std::mem::take(&mut self.hash));
        if actual != *digest {
            return Err(io::Error::other(format!("the blob's digest is {actual}")));
        }
        Ok(())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let Some(chunk) = self.chunks.blocking_recv() else {
            self.gave_up = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let length = chunk.len() as u64;
        if length > self.left {
            return Err(io::Error::other(format!(
                "the blob is longer than {} bytes",
                self.size
            )));
        }
        if let Some(kept) = &mut self.kept {
            kept.write_all(&chunk)?;
        }
        self.left -= length;
        self.hash.update(&chunk);
        self.current = chunk;
        Ok(())
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(before) = self.before.as_mut().filter(|before| before.limit() > 0) {
            let length = before.read(buffer)?;
            if length == 0 {
                return Err(io::Error::other("what was kept of the blob is cut off"));
            }
            self.hash.update(&buffer[..length]);
            self.left -= length as u64;
            return Ok(length);
        }
        if self.current.is_empty() && self.left > 0 {
            self.next_chunk()?;
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::other("the layer is larger than the limit when unpacked"))?;
        Ok(length)
    }
}
