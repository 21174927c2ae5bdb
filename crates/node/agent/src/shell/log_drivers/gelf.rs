//! The gelf driver: Graylog's format, over UDP with compression and chunks, or over TCP.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use gantry_env::Env;
use gantry_runtime::LogStream;
use serde_json::{Map, Value};

use super::lines::{Batch, Line};
use super::network::{Wire, host_name};
use super::{Retries, retry};
use crate::core::plan::{GelfCompression, GelfPlan};

/// What fits into a datagram that no network on the way divides.
const CHUNK_BYTES: usize = 1420;
const CHUNK_HEADER_BYTES: usize = 12;
const MAX_CHUNKS: usize = 128;

pub(super) struct Gelf {
    plan: GelfPlan,
    host: String,
    wire: tokio::sync::Mutex<Wire>,
}

impl Gelf {
    pub fn new(plan: GelfPlan) -> Self {
        Self {
            wire: tokio::sync::Mutex::new(Wire::to(plan.address.clone())),
            host: host_name(),
            plan,
        }
    }

    pub async fn deliver(&self, batch: &Batch, env: &Env) {
        retry(env, Retries::without_end(), "gelf", || {
            self.send(batch, env)
        })
        .await;
    }

    async fn send(&self, batch: &Batch, env: &Env) -> io::Result<()> {
        let mut wire = self.wire.lock().await;
        if !wire.is_datagram() {
            let mut all = Vec::new();
            for line in &batch.lines {
                all.extend(message(&self.plan, &self.host, line));
                // A byte of zero ends a message on a stream.
                all.push(0);
            }
            return wire.send(&all, env).await;
        }
        for line in &batch.lines {
            let message = compress(message(&self.plan, &self.host, line), self.plan.compression)?;
            for datagram in chunks(&message, env.entropy.u64()) {
                wire.send(&datagram, env).await?;
            }
        }
        Ok(())
    }
}

fn message(plan: &GelfPlan, host: &str, line: &Line) -> Vec<u8> {
    let source = &plan.source;
    let level = match line.stream {
        LogStream::Stdout => 6,
        LogStream::Stderr => 3,
    };
    let mut message = Map::new();
    let mut add = |name: &str, value: Value| message.insert(name.to_owned(), value);
    add("version", "1.1".into());
    add("host", host.into());
    add("short_message", line.message.as_str().into());
    add("timestamp", (line.at_ms as f64 / 1000.0).into());
    add("level", level.into());
    add("_container_id", source.container_id.as_str().into());
    add("_container_name", source.container_name.as_str().into());
    add("_image_name", source.image.as_str().into());
    add("_command", source.command.as_str().into());
    add("_tag", source.tag.as_str().into());
    for (name, value) in &source.attributes {
        add(&format!("_{name}"), value.as_str().into());
    }
    Value::Object(message).to_string().into_bytes()
}

fn compress(message: Vec<u8>, compression: GelfCompression) -> io::Result<Vec<u8>> {
    match compression {
        GelfCompression::None => Ok(message),
        GelfCompression::Gzip { level } => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&message)?;
            encoder.finish()
        }
        GelfCompression::Zlib { level } => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&message)?;
            encoder.finish()
        }
    }
}

/// One datagram, or as many as it takes; none for what is too much even for all of them, which no
/// line of ours is.
fn chunks(message: &[u8], id: u64) -> Vec<Vec<u8>> {
    if message.len() <= CHUNK_BYTES {
        return vec![message.to_vec()];
    }
    let pieces: Vec<&[u8]> = message.chunks(CHUNK_BYTES - CHUNK_HEADER_BYTES).collect();
    let Some(count) = u8::try_from(pieces.len())
        .ok()
        .filter(|count| usize::from(*count) <= MAX_CHUNKS)
    else {
        return Vec::new();
    };
    (0..count)
        .zip(pieces)
        .map(|(number, piece)| {
            let mut datagram = vec![0x1e, 0x0f];
            datagram.extend(id.to_be_bytes());
            datagram.extend([number, count]);
            datagram.extend(piece);
            datagram
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_a_datagram_goes_in_numbered_chunks() {
        assert_eq!(chunks(b"small", 7), [b"small"]);
        let message: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let all = chunks(&message, 7);
        assert!(all.iter().all(|datagram| datagram.len() <= CHUNK_BYTES));
        let mut whole: Vec<u8> = Vec::new();
        for (number, datagram) in all.iter().enumerate() {
            assert_eq!(&datagram[..2], [0x1e, 0x0f]);
            assert_eq!(&datagram[2..10], 7u64.to_be_bytes());
            assert_eq!(
                (datagram[10] as usize, datagram[11] as usize),
                (number, all.len())
            );
            whole.extend_from_slice(&datagram[12..]);
        }
        assert_eq!(whole, message);
        assert!(chunks(&vec![0; 1 << 20], 7).is_empty());
    }
}
