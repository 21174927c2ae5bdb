//! Small images made in memory: what the sample runs, and what tests pull. No I/O.
//!
//! What always holds: the same calls give the same bytes, so the same digests. Files belong to root and
//! are from the epoch. What it leaves to others: pushing it anywhere.

use std::collections::BTreeMap;
use std::io;
use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use serde_json::json;
use tar::{EntryType, Header};

use crate::image::digest::Digest;
use crate::image::platform::Platform;

/// Bytes and their name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    pub bytes: Bytes,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes).to_string(),
            bytes: bytes.into(),
        }
    }
}

/// An image of one layer, in OCI's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// `application/vnd.oci.image.config.v1+json`
    pub config: Blob,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    pub layer: Blob,
    /// `application/vnd.oci.image.manifest.v1+json`
    pub manifest: Blob,
}

#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Link(String),
    Folder,
}

#[derive(Debug, Clone)]
struct Item {
    path: String,
    mode: u32,
    content: Content,
}

/// An image for this machine's platform, unless [`ImageBuilder::architecture`] says otherwise.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    items: Vec<Item>,
    architecture: String,
    environment: Vec<String>,
    entry_point: Vec<String>,
    command: Vec<String>,
    user: String,
    working_directory: String,
    stop_signal: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    pub fn new() -> Self {
        Self {
            items: Vec::new(),
            architecture: Platform::of_this_machine().architecture.to_owned(),
            environment: Vec::new(),
            entry_point: Vec::new(),
            command: Vec::new(),
            user: String::new(),
            working_directory: String::new(),
            stop_signal: None,
            labels: BTreeMap::new(),
        }
    }

    /// Folders above it need not be named; they are made with mode 755.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.item(path, mode, Content::File(bytes.into()))
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.item(path, 0o777, Content::Link(target.to_owned()))
    }

    pub fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.item(path, mode, Content::Folder)
    }

    fn item(&mut self, path: &str, mode: u32, content: Content) -> &mut Self {
        let path = path.trim_matches('/').to_owned();
        self.items.push(Item {
            path,
            mode,
            content,
        });
        self
    }

    /// `NAME=value`.
    pub fn environment(&mut self, variable: &str) -> &mut Self {
        self.environment.push(variable.to_owned());
        self
    }

    pub fn entry_point<S: Into<String>>(
        &mut self,
        words: impl IntoIterator<Item = S>,
    ) -> &mut Self {
        self.entry_point = words.into_iter().map(Into::into).collect();
        self
    }

    pub fn command<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    pub fn user(&mut self, user: &str) -> &mut Self {
        user.clone_into(&mut self.user);
        self
    }

    pub fn working_directory(&mut self, path: &str) -> &mut Self {
        path.clone_into(&mut self.working_directory);
        self
    }

    pub fn stop_signal(&mut self, signal: &str) -> &mut Self {
        self.stop_signal = Some(signal.to_owned());
        self
    }

    pub fn label(&mut self, name: &str, value: &str) -> &mut Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// In OCI's words: `amd64`, `arm64`.
    pub fn architecture(&mut self, architecture: &str) -> &mut Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    pub fn build(&self) -> io::Result<BuiltImage> {
        let tar = self.tar()?;
        let diff_id = Digest::of(&tar).to_string();
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::fast());
        gzip.write_all(&tar)?;
        let layer = Blob::new(gzip.finish()?);
        let config = Blob::new(serde_json::to_vec(&json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config(),
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        }))?);
        let manifest = Blob::new(serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest,
                "size": config.bytes.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": layer.digest,
                "size": layer.bytes.len(),
            }],
        }))?);
        Ok(BuiltImage {
            config,
            layer,
            manifest,
        })
    }

    fn config(&self) -> serde_json::Value {
        let mut config = serde_json::Map::new();
        let mut put = |name: &str, is_empty: bool, value: serde_json::Value| {
            if !is_empty {
                config.insert(name.to_owned(), value);
            }
        };
        put("Env", self.environment.is_empty(), json!(self.environment));
        put(
            "Entrypoint",
            self.entry_point.is_empty(),
            json!(self.entry_point),
        );
        put("Cmd", self.command.is_empty(), json!(self.command));
        put("User", self.user.is_empty(), json!(self.user));
        put(
            "WorkingDir",
            self.working_directory.is_empty(),
            json!(self.working_directory),
        );
        put(
            "StopSignal",
            self.stop_signal.is_none(),
            json!(self.stop_signal),
        );
        put("Labels", self.labels.is_empty(), json!(self.labels));
        config.into()
    }

    fn tar(&self) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders: Vec<String> = Vec::new();
        for item in &self.items {
            for (at, _) in item.path.match_indices('/') {
                let folder = &item.path[..at];
                if !folders.iter().any(|known| known == folder) {
                    append(&mut tar, folder, 0o755, &Content::Folder)?;
                    folders.push(folder.to_owned());
                }
            }
            append(&mut tar, &item.path, item.mode, &item.content)?;
            if matches!(item.content, Content::Folder) {
                folders.push(item.path.clone());
            }
        }
        tar.into_inner()
    }
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    content: &Content,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    match content {
        Content::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, target)
        }
        Content::Folder => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_has_the_same_digests() {
        let build = || {
            let mut builder = ImageBuilder::new();
            builder
                .file("bin/x", 0o755, *b"x")
                .symlink("bin/y", "x")
                .directory("tmp", 0o1777);
            builder
                .environment("A=b")
                .entry_point(["/bin/x"])
                .command(["y"])
                .label("l", "v");
            builder.build().unwrap()
        };
        assert_eq!(build(), build());
        assert_eq!(
            build().manifest.digest,
            Digest::of(&build().manifest.bytes).to_string()
        );
    }
}
