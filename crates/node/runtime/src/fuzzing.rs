//! Doors for the fuzz targets (`fuzz/`) to parsers that are private here. Nothing else uses them, and
//! nothing is promised of them.

use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;

use crate::container::user;
use crate::image::challenge::BearerChallenge;
use crate::image::digest::Digest;
use crate::image::layer_stream::{BlobReader, LayerError, unpack_layer};
use crate::image::manifest::{Configuration, ConfigurationError, Descriptor, Document};
use crate::image::platform::Platform;
use crate::image::tar_reader::TarReader;
use crate::image::unpack;
use crate::logs::record;
use crate::protocol;
use crate::{ImageConfig, LayerLimits, LogRecord};

/// Realm, service and scope of a `WWW-Authenticate` header.
pub type Challenge = (String, Option<String>, Option<String>);

pub fn challenge(value: &str) -> Option<Challenge> {
    BearerChallenge::parse(value).map(|c| (c.realm, c.service, c.scope))
}

/// Digests and sizes that a manifest or an index leads to, and whether it is an index.
pub fn manifest(bytes: &[u8]) -> Result<(bool, Vec<(String, u64)>), String> {
    let shown = |d: &Descriptor| (d.digest.to_string(), d.size);
    Ok(match Document::parse(bytes)? {
        Document::Index(index) => {
            let chosen = index.select(&Platform::of_this_machine()).transpose()?;
            (true, chosen.iter().map(shown).collect())
        }
        Document::Manifest(manifest) => {
            let all = std::iter::once(&manifest.config).chain(&manifest.layers);
            (false, all.map(shown).collect())
        }
    })
}

/// The configuration of an image with so many layers, and its diff ids.
pub fn configuration(bytes: &[u8], layers: usize) -> Result<(ImageConfig, Vec<String>), String> {
    match Configuration::parse(bytes, layers, &Platform::of_this_machine()) {
        Ok(found) => {
            let ids = found.diff_ids.iter().map(Digest::to_string).collect();
            Ok((found.config, ids))
        }
        Err(ConfigurationError::OtherPlatform(why) | ConfigurationError::Malformed(why)) => {
            Err(why)
        }
    }
}

/// User, group, further groups and home of who a process is to run as.
pub fn user(
    passwd: &str,
    group: &str,
    wanted: &str,
) -> Result<(u32, u32, Vec<u32>, String), String> {
    let user = user::resolve_in(passwd, group, wanted)?;
    Ok((user.uid, user.gid, user.additional_gids, user.home))
}

/// An entry's path, link and data.
pub type TarEntry = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Each entry; an error where the archive cannot be read on.
pub fn tar_entries(archive: &[u8]) -> io::Result<Vec<TarEntry>> {
    let mut reader = TarReader::new(archive);
    let mut entries = Vec::new();
    let mut buffer = [0; 4096];
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                got => data.extend_from_slice(&buffer[..got]),
            }
        }
        entries.push((entry.path, entry.link, data));
    }
    Ok(entries)
}

/// Unpacks an uncompressed layer.
pub fn unpack(stream: impl Read, folder: &Path, limits: &LayerLimits) -> io::Result<()> {
    unpack::unpack(stream, folder, limits).map(drop)
}

/// What a pull does with a blob that is what its manifest says, in two chunks. Its contents are never
/// those of the diff id, so this fails always; why is told.
pub fn layer(blob: &[u8], folder: &Path, limits: &LayerLimits) -> String {
    let (feed, chunks) = mpsc::channel(2);
    let (first, second) = blob.split_at(blob.len() / 2);
    for chunk in [first, second] {
        // The channel holds both.
        let _ = feed.try_send(Bytes::copy_from_slice(chunk));
    }
    drop(feed);
    let descriptor = Descriptor {
        digest: Digest::of(blob),
        size: blob.len() as u64,
    };
    let other = Digest::from_hash(sha2::Sha256::new_with_prefix(b"another layer"));
    let reader = BlobReader::new(None, chunks, descriptor.size);
    match unpack_layer(reader, &descriptor, &other, folder, limits) {
        Ok(()) => String::new(),
        Err(LayerError::Fed) => "fed".to_owned(),
        Err(LayerError::Refused(why)) => why,
    }
}

/// The frames of a shim's stream in JSON, each as it is written again, and what is left of it.
/// `None` where it is not such a stream.
pub fn shim_frames(mut stream: Vec<u8>) -> Option<(Vec<String>, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = protocol::take_frame(&mut stream).ok()? {
        if let Ok(request) = serde_json::from_slice::<protocol::Request>(&frame) {
            frames.push(serde_json::to_string(&request).ok()?);
        } else if let Ok(message) = serde_json::from_slice::<protocol::Message>(&frame) {
            frames.push(serde_json::to_string(&message).ok()?);
        } else if let Ok(other) = serde_json::from_slice::<protocol::UnknownRequest>(&frame) {
            frames.push(format!("{} {}", other.id, other.name()));
        }
    }
    Some((frames, stream))
}

/// A frame with its length before it.
pub fn shim_frame(json: &serde_json::Value) -> Vec<u8> {
    protocol::encode(json)
}

/// The record at the start of a spool's bytes.
pub fn record(bytes: &[u8], offset: u64) -> Option<LogRecord> {
    record::decode(bytes, offset)
}

pub fn write_record(record: &LogRecord) -> Vec<u8> {
    let mut out = Vec::new();
    record::encode(
        &mut out,
        record.at,
        record.stream,
        record.partial,
        record.dropped_before,
        &record.bytes,
    );
    out
}
