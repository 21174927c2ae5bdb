//! Layers and images to pull, well made and ill.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar written byte for byte as the test wants it, with names that a polite writer refuses.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn entry(
        &mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        data: &[u8],
    ) -> &mut Self {
        self.owned(kind, name, link, mode, data, (0, 0), 0)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the header's fields")]
    pub fn owned(
        &mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        mode: u32,
        data: &[u8],
        (uid, gid): (u64, u64),
        mtime: u64,
    ) -> &mut Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(mtime);
        header.set_size(data.len() as u64);
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(&mut self, name: &str, data: &[u8]) -> &mut Self {
        self.entry(EntryType::Regular, name, "", 0o644, data)
    }

    pub fn folder(&mut self, name: &str) -> &mut Self {
        self.entry(EntryType::Directory, name, "", 0o755, b"")
    }

    pub fn link(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Symlink, name, target, 0o777, b"")
    }

    pub fn hard_link(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(EntryType::Link, name, target, 0o644, b"")
    }

    /// Extends the next entry.
    pub fn pax(&mut self, key: &str, value: &[u8]) -> &mut Self {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let mut record = format!("{length} {key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        self.entry(EntryType::XHeader, "pax", "", 0o644, &record)
    }

    pub fn end(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.extend_from_slice(&[0; 1024]);
        bytes
    }
}

#[derive(Clone)]
pub struct Layer {
    pub blob: Bytes,
    pub diff_id: String,
    pub media_type: &'static str,
}

impl Layer {
    pub fn plain(tar: &[u8]) -> Self {
        Self {
            blob: tar.to_vec().into(),
            diff_id: digest(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar",
        }
    }

    pub fn gzip(tar: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        Self {
            blob: gzip.finish().unwrap().into(),
            diff_id: digest(tar),
            media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }

    pub fn zstd(tar: &[u8]) -> Self {
        Self {
            blob: zstd::encode_all(tar, 1).unwrap().into(),
            diff_id: digest(tar),
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

pub struct Image {
    pub config: Bytes,
    pub manifest: Bytes,
    pub layers: Vec<Layer>,
}

pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// In Docker's form, for this machine.
pub fn image(layers: &[Layer]) -> Image {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Cmd": ["/x"], "Env": null },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = Bytes::from(config.to_string());
    let layer_list: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({ "mediaType": layer.media_type, "digest": digest(&layer.blob), "size": layer.blob.len() })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": digest(&config),
            "size": config.len(),
        },
        "layers": layer_list,
    });
    Image {
        config,
        manifest: manifest.to_string().into(),
        layers: layers.to_vec(),
    }
}

impl Image {
    pub fn put(&self, registry: &crate::registry::TestRegistry, repository: &str, tag: &str) {
        registry.put_blob(repository, &self.config);
        for layer in &self.layers {
            registry.put_blob(repository, &layer.blob);
        }
        registry.put_manifest(repository, tag, &self.manifest);
    }
}
