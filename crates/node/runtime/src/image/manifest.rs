//! What registries say about an image: indexes, manifests and configurations, in OCI's form and in
//! Docker's. Pure.
//!
//! What always holds: a document is one thing only; one that could be read as an index and as a
//! manifest is refused, so nobody is shown another image than the one that runs. Digests that come
//! out of here are well formed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImageConfig;
use super::digest::Digest;
use super::platform::Platform;

/// What a manifest request accepts.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index is rarely more than a few KiB; registries take at most 4 MiB.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Docker's own limit, and well under overlayfs' 500.
const LAYERS_MAX: usize = 127;

#[derive(Debug, Clone)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, Clone)]
pub(crate) struct Index(Vec<RawDescriptor>);

#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
}

/// A blob: its name and its exact size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub digest: Digest,
    pub size: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub config: ImageConfig,
    /// Bottom first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u32>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Document {
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|e| format!("the manifest is malformed: {e}"))?;
        if raw.schema_version == Some(1) {
            return Err("manifest schema 1 is not supported; push the image again".to_owned());
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(Index(manifests))),
            (None, Some(config), Some(layers)) => Manifest::new(config, layers).map(Self::Manifest),
            _ => Err("the manifest is neither an image nor an index of images".to_owned()),
        }
    }
}

impl Index {
    /// The entry for this machine; `None` where there is none. An entry that does not say what it
    /// is for is taken when nothing else fits, and then its configuration decides.
    pub fn select(&self, platform: &Platform) -> Option<Result<Descriptor, String>> {
        let fits = |entry: &&RawDescriptor| {
            entry
                .platform
                .as_ref()
                .is_some_and(|p| platform.runs(&p.os, &p.architecture))
        };
        let variant = |entry: &RawDescriptor| -> Option<String> {
            entry.platform.as_ref().and_then(|p| p.variant.clone())
        };
        let plain = |entry: &&RawDescriptor| {
            fits(entry)
                && variant(entry).is_none_or(|v| v.is_empty() || Some(&*v) == platform.variant)
        };
        let unsaid = |entry: &&RawDescriptor| entry.platform.is_none();
        self.0
            .iter()
            .find(plain)
            .or_else(|| self.0.iter().find(fits))
            .or_else(|| self.0.iter().find(unsaid))
            .map(Descriptor::try_from)
    }
}

impl Manifest {
    fn new(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Self, String> {
        let is_image = matches!(
            config.media_type.as_str(),
            "application/vnd.oci.image.config.v1+json"
                | "application/vnd.docker.container.image.v1+json"
        );
        if !is_image {
            return Err(format!(
                "it is not a container image but has a configuration of type {:?}",
                shorten(&config.media_type)
            ));
        }
        if layers.len() > LAYERS_MAX {
            return Err(format!(
                "it has {} layers; at most {LAYERS_MAX} are supported",
                layers.len()
            ));
        }
        for layer in &layers {
            let known = matches!(
                layer.media_type.as_str(),
                "application/vnd.oci.image.layer.v1.tar"
                    | "application/vnd.oci.image.layer.v1.tar+gzip"
                    | "application/vnd.oci.image.layer.v1.tar+zstd"
                    | "application/vnd.docker.image.rootfs.diff.tar"
                    | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                    | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            );
            let kind = layer.media_type.as_str();
            if kind.contains(".nondistributable.") || kind.contains(".foreign.") {
                return Err(format!(
                    "its layer {} is of type {:?}, which registries do not hand on, and layers from elsewhere are not fetched",
                    shorten(&layer.digest),
                    shorten(kind)
                ));
            }
            if !known {
                return Err(format!(
                    "layers of type {:?} are not supported",
                    shorten(&layer.media_type)
                ));
            }
        }
        Ok(Self {
            config: Descriptor::try_from(&config)?,
            layers: layers
                .iter()
                .map(Descriptor::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&RawDescriptor> for Descriptor {
    type Error = String;

    fn try_from(raw: &RawDescriptor) -> Result<Self, String> {
        let digest = Digest::parse(&raw.digest)
            .ok_or_else(|| format!("the digest {:?} is not supported", shorten(&raw.digest)))?;
        Ok(Self {
            digest,
            size: raw.size,
        })
    }
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Why a configuration is of no use here.
#[derive(Debug)]
pub(crate) enum ConfigurationError {
    OtherPlatform(String),
    Malformed(String),
}

impl Configuration {
    /// Reads the configuration of an image with so many layers.
    pub fn parse(
        bytes: &[u8],
        layers: usize,
        platform: &Platform,
    ) -> Result<Self, ConfigurationError> {
        use ConfigurationError::{Malformed, OtherPlatform};
        let raw: RawConfiguration = serde_json::from_slice(bytes)
            .map_err(|e| Malformed(format!("the image's configuration is malformed: {e}")))?;
        if !platform.runs(&raw.os, &raw.architecture) {
            let other = format!("{}/{}", raw.os, raw.architecture);
            return Err(OtherPlatform(shorten(&other)));
        }
        let diff_ids = raw
            .rootfs
            .diff_ids
            .unwrap_or_default()
            .iter()
            .map(|id| {
                Digest::parse(id).ok_or_else(|| {
                    Malformed(format!("the diff id {:?} is not supported", shorten(id)))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if diff_ids.len() != layers {
            return Err(Malformed(format!(
                "the image has {layers} layers but {} diff ids",
                diff_ids.len()
            )));
        }
        let config = raw.config.unwrap_or_default();
        Ok(Self {
            diff_ids,
            config: ImageConfig {
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
                env: config.env.unwrap_or_default(),
                working_dir: config.working_dir.unwrap_or_default(),
                user: config.user.unwrap_or_default(),
                stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
                volumes: config.volumes.unwrap_or_default().into_keys().collect(),
                labels: config.labels.unwrap_or_default(),
            },
        })
    }
}

/// What a stranger wrote, short enough to stand in a task's stopped reason.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd64() -> Platform {
        Platform {
            os: "linux",
            architecture: "amd64",
            variant: None,
        }
    }

    fn digest(of: char) -> String {
        format!("sha256:{}", String::from(of).repeat(64))
    }

    fn entry(of: char, platform: serde_json::Value) -> serde_json::Value {
        serde_json::json!({ "digest": digest(of), "size": 1, "platform": platform })
    }

    fn select(entries: Vec<serde_json::Value>) -> Option<String> {
        let bytes = serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string();
        let Document::Index(index) = Document::parse(bytes.as_bytes()).unwrap() else {
            panic!("it is an index")
        };
        Some(index.select(&amd64())?.unwrap().digest.to_string())
    }

    #[test]
    fn the_plain_entry_for_this_machine_is_taken() {
        let other = entry(
            'a',
            serde_json::json!({"os": "linux", "architecture": "arm64"}),
        );
        let newer = entry(
            'b',
            serde_json::json!({"os": "linux", "architecture": "amd64", "variant": "v3"}),
        );
        let plain = entry(
            'c',
            serde_json::json!({"os": "linux", "architecture": "amd64"}),
        );
        let unsaid = entry('d', serde_json::Value::Null);
        let all = vec![unsaid.clone(), other.clone(), newer.clone(), plain];
        assert_eq!(select(all), Some(digest('c')));
        assert_eq!(select(vec![other.clone(), newer]), Some(digest('b')));
        assert_eq!(select(vec![other.clone(), unsaid]), Some(digest('d')));
        assert_eq!(select(vec![other]), None);
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let config = serde_json::json!({
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest('a'), "size": 1,
        });
        let both = serde_json::json!({ "manifests": [], "config": config, "layers": [] });
        for bad in [
            both.to_string(),
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            serde_json::json!({ "config": { "mediaType": "application/x", "digest": digest('a'), "size": 1 },
                "layers": [] })
            .to_string(),
            serde_json::json!({ "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "sha256:../../x", "size": 1 }, "layers": [] })
            .to_string(),
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn nulls_of_docker_are_nothing() {
        let bytes = br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":null},
            "config":{"Entrypoint":null,"Cmd":["x"],"Env":null,"Volumes":{"/v":{}},"Labels":null,"StopSignal":""}}"#;
        let parsed = Configuration::parse(bytes, 0, &amd64()).unwrap();
        assert_eq!(parsed.config.cmd, ["x"]);
        assert_eq!(parsed.config.volumes, ["/v"]);
        assert_eq!(parsed.config.stop_signal, None);
        assert!(Configuration::parse(bytes, 1, &amd64()).is_err());
    }
}
