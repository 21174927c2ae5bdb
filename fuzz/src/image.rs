//! What a registry and an image bring: references, manifests, configurations, challenges, users, tar
//! and whole layers; and what a shim writes beside them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_ecr::model::manifest::{Manifest, ManifestKind};
use gantry_runtime::{ImageReference, LayerLimits, fuzzing};

use crate::{first_line, text};

const LIMITS: LayerLimits = LayerLimits {
    entries_max: 500,
    bytes_max: 1 << 20,
};

/// A reference written in full means the same, and fits into a URL.
pub fn references(data: &[u8]) {
    let Some(Ok(reference)) = text(data).map(str::parse::<ImageReference>) else {
        return;
    };
    let full = reference.to_string();
    // Written in full it is longer, so it may be too long.
    if full.len() <= 1024 {
        assert_eq!(full.parse().as_ref(), Ok(&reference), "{full}");
    }
    let repository = reference.repository();
    assert!(
        !repository
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    );
    let (registry, selector) = (reference.registry(), reference.selector());
    let url = format!("https://{registry}/v2/{repository}/manifests/{selector}");
    let url: http::Uri = url.parse().expect("a URL");
    assert_eq!(url.authority().map(|a| a.as_str()), Some(registry));
    assert!(url.query().is_none());
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = reference.with_digest(&digest).expect("a digest");
    assert_eq!(
        (pinned.selector(), pinned.repository()),
        (digest.as_str(), repository)
    );
}

/// The registry and the runtime read a manifest alike, so nobody runs another image than was pushed.
pub fn manifests(data: &[u8]) {
    let pushed = Manifest::parse(data, None);
    if let Ok(pushed) = &pushed {
        assert_eq!(
            Manifest::parse(data, Some(&pushed.media_type)).as_ref(),
            Ok(pushed)
        );
        assert_eq!(
            pushed.blobs().count() == 0,
            !pushed.manifests().is_empty() || is_index(pushed)
        );
        pushed.content_size();
    }
    let Ok((pulled_index, blobs)) = fuzzing::manifest(data) else {
        return;
    };
    assert!(pulled_index || (1..=128).contains(&blobs.len()));
    if let Ok(pushed) = &pushed {
        assert_eq!(is_index(pushed), pulled_index);
        if let ManifestKind::Image { config, .. } = &pushed.kind {
            assert_eq!((config.digest.to_string(), config.size), blobs[0]);
        }
    }
}

fn is_index(manifest: &Manifest) -> bool {
    matches!(manifest.kind, ManifestKind::Index { .. })
}

pub fn configurations(data: &[u8]) {
    for layers in 0..3 {
        if let Ok((_, ids)) = fuzzing::configuration(data, layers) {
            assert_eq!(ids.len(), layers);
            assert!(ids.iter().all(|id| id.len() == 71));
        }
    }
}

/// Who is wanted, the lines of /etc/passwd, an empty line, the lines of /etc/group. A number is always
/// somebody, and where the files say nothing, it is that number.
pub fn users(data: &[u8]) {
    let (wanted, files) = first_line(data);
    let (Some(wanted), Some(files)) = (text(wanted), text(files)) else {
        return;
    };
    let (passwd, group) = files.split_once("\n\n").unwrap_or((files, ""));
    let found = fuzzing::user(passwd, group, wanted);
    assert_eq!(found, fuzzing::user(passwd, group, wanted));
    if let Ok(uid) = wanted.parse::<u32>() {
        let expected = (uid, 0, Vec::new(), "/".to_owned());
        assert_eq!(fuzzing::user("", "", wanted), Ok(expected));
        if let Ok((found, ..)) = found {
            assert_eq!(found, uid);
        }
    }
}

/// What is quoted comes out as it went in.
pub fn challenges(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some((realm, service, scope)) = fuzzing::challenge(text) {
        let quoted =
            |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut again = format!("Bearer realm={}", quoted(&realm));
        for (name, value) in [("service", &service), ("scope", &scope)] {
            if let Some(value) = value {
                again += &format!(",{name}={}", quoted(value));
            }
        }
        assert_eq!(
            fuzzing::challenge(&again),
            Some((realm, service, scope)),
            "{again}"
        );
    }
}

pub fn tar_entries(data: &[u8]) {
    let Ok(entries) = fuzzing::tar_entries(data) else {
        return;
    };
    let read: usize = entries.iter().map(|(_, _, data)| data.len()).sum();
    assert!(read <= data.len());
    for (path, link, _) in entries {
        assert!(path.len() <= 4096 && link.len() <= 4096);
    }
}

pub fn layers(data: &[u8]) {
    contained(data, |folder| {
        let unpacked = fuzzing::unpack(data, folder, &LIMITS);
        assert!(!unpacked.is_err_and(|error| error.to_string().is_empty()));
    });
}

/// As a blob comes: a tar, or one in gzip or zstd.
pub fn compressed_layers(data: &[u8]) {
    contained(data, |folder| {
        assert!(!fuzzing::layer(data, folder, &LIMITS).is_empty());
    });
}

/// Unpacks into a folder beside others that nothing of the layer may touch.
fn contained(data: &[u8], unpack: impl FnOnce(&Path)) {
    // A tar is in blocks of 512 bytes; less is no entry, and is not worth a folder.
    if data.len() < 64 {
        return;
    }
    let outside = tempfile::tempdir().expect("a temporary folder");
    let folder = outside.path().join("layer");
    let other = outside.path().join("other");
    fs::create_dir(&folder).expect("a folder");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("file"), b"not of the layer").expect("a file");
    let before = look(outside.path(), &other);
    unpack(&folder);
    assert_eq!(
        look(outside.path(), &other),
        before,
        "something outside has changed"
    );
    assert!(bytes_in(&folder) <= LIMITS.bytes_max);
}

/// Everything that there is to see of what stands outside.
fn look(outside: &Path, other: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    for path in [other.to_owned(), other.join("file")] {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        let attributes = (
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.nlink(),
            stat.len(),
        );
        seen.push(format!(
            "{path:?} {attributes:?} {} {}",
            stat.mtime(),
            stat.mtime_nsec()
        ));
    }
    seen.push(format!("{:?}", fs::read(other.join("file"))));
    for folder in [outside, other] {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        seen.push(format!("{names:?}"));
    }
    seen
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(stat) if stat.is_dir() => bytes_in(&entry.path()),
            Ok(stat) if stat.is_file() => stat.len() / stat.nlink().max(1),
            _ => 0,
        })
        .sum()
}

/// A stream of frames: none is longer than what came, and each that is understood is written to the same.
pub fn shim_frames(data: &[u8]) {
    let Some((frames, rest)) = fuzzing::shim_frames(data.to_vec()) else {
        return;
    };
    assert!(rest.len() <= data.len());
    for frame in frames {
        let json: serde_json::Value = match serde_json::from_str(&frame) {
            Ok(json @ serde_json::Value::Object(_)) => json,
            _ => continue,
        };
        let (again, rest) = fuzzing::shim_frames(fuzzing::shim_frame(&json)).expect("a frame");
        assert!(rest.is_empty());
        let again: serde_json::Value = serde_json::from_str(&again[0]).expect("JSON");
        assert!(
            crate::same_but_for_rounding(&json, &again),
            "{json}\n{again}"
        );
    }
}

/// Records follow each other without gaps and read back as they were written.
pub fn spool_records(data: &[u8]) {
    let mut at = 0;
    while let Some(record) = fuzzing::record(&data[at..], at as u64) {
        assert_eq!(record.offset, at as u64);
        assert!(record.end_offset > record.offset && record.end_offset <= data.len() as u64);
        let written = fuzzing::write_record(&record);
        assert_eq!(
            fuzzing::record(&written, record.offset).as_ref(),
            Some(&record)
        );
        for torn in [written.len() - 1, written.len() / 2] {
            assert!(fuzzing::record(&written[..torn], 0).is_none());
        }
        at = record.end_offset as usize;
    }
}
