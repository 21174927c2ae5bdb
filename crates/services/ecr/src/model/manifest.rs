//! What a manifest says: its media type, and what must be there before it can be.
//!
//! The bytes themselves are never changed: the digest is over them. This reads only what the
//! registry acts on, and refuses what would make two readers disagree about the media type.

use serde::{Deserialize, Serialize};

use super::Digest;

/// ECR's limit for one manifest, of any kind.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// More descriptors than any image has (a layer each; 127 is the most that overlayfs stacks),
/// and few enough for the image's row.
pub const DESCRIPTORS_MAX: usize = 1000;

pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is larger than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the manifest is not valid JSON of its kind: {0}")]
    Syntax(String),
    #[error("manifests of media type '{0}' are not supported")]
    Unsupported(String),
    #[error("the manifest says that its media type is '{inside}', the request says '{declared}'")]
    MediaTypeMismatch { inside: String, declared: String },
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    #[error("the manifest has both layers and manifests, so it has no one meaning")]
    Ambiguous,
    #[error("the manifest's media type is neither given nor said inside")]
    NoMediaType,
    #[error("the manifest has more than {DESCRIPTORS_MAX} descriptors")]
    TooManyDescriptors,
}

/// A reference from a manifest to bytes, as far as the registry needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestKind {
    /// One image or artifact. Layers that are fetched from elsewhere are left out.
    Image {
        config: Content,
        layers: Vec<Content>,
    },
    /// A list of manifests.
    Index { manifests: Vec<Content> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub media_type: String,
    pub kind: ManifestKind,
    /// The artifact's type, or else the configuration's media type, as ECR reports it.
    pub artifact_type: Option<String>,
    /// The image that this one is about: a signature's, say. It need not exist.
    pub subject: Option<Digest>,
    /// Kept for the referrers list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<serde_json::Value>,
}

impl Manifest {
    /// Reads a manifest. `declared` is the Content-Type of a push, or the member of PutImage.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| ManifestError::Syntax(error.to_string()))?;
        if document.schema_version != 2 {
            return Err(ManifestError::SchemaVersion);
        }
        let media_type = document.media_type(declared)?;
        let subject = document.subject.map(|subject| subject.digest);
        let annotations = document.annotations;
        let (kind, artifact_type) = match media_type.as_str() {
            OCI_IMAGE | DOCKER_IMAGE => {
                let config = document.config.ok_or_else(|| missing("config"))?;
                let layers = document.layers.ok_or_else(|| missing("layers"))?;
                if document.manifests.is_some() {
                    return Err(ManifestError::Ambiguous);
                }
                bounded(&layers)?;
                let artifact = document
                    .artifact_type
                    .unwrap_or_else(|| config.media_type.clone());
                let config = config.content();
                let stored = layers.into_iter().filter(|layer| !layer.is_foreign());
                let layers = stored.map(Descriptor::content).collect();
                (ManifestKind::Image { config, layers }, Some(artifact))
            }
            OCI_INDEX | DOCKER_LIST => {
                let manifests = document.manifests.ok_or_else(|| missing("manifests"))?;
                if document.layers.is_some() || document.config.is_some() {
                    return Err(ManifestError::Ambiguous);
                }
                bounded(&manifests)?;
                let manifests = manifests.into_iter().map(Descriptor::content).collect();
                (ManifestKind::Index { manifests }, document.artifact_type)
            }
            _ => return Err(ManifestError::Unsupported(shown(&media_type))),
        };
        Ok(Self {
            media_type,
            kind,
            artifact_type,
            subject,
            annotations,
        })
    }

    /// The blobs that must be in the repository first.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        let (config, layers) = match &self.kind {
            ManifestKind::Image { config, layers } => (Some(config), layers.as_slice()),
            ManifestKind::Index { .. } => (None, [].as_slice()),
        };
        config.into_iter().chain(layers)
    }

    /// The manifests that must be in the repository first.
    pub fn manifests(&self) -> &[Content] {
        match &self.kind {
            ManifestKind::Image { .. } => &[],
            ManifestKind::Index { manifests } => manifests,
        }
    }

    /// Bytes of configuration and layers, compressed as they are stored. A sum that a stranger
    /// made too large saturates.
    pub fn content_size(&self) -> u64 {
        self.blobs()
            .fold(0, |sum, content| sum.saturating_add(content.size))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<serde_json::Value>,
}

impl Document {
    fn media_type(&self, declared: Option<&str>) -> Result<String, ManifestError> {
        // Parameters such as a charset say nothing about the kind.
        let declared = declared.map(|d| d.split(';').next().unwrap_or_default().trim());
        let declared = declared.filter(|d| !d.is_empty() && *d != "application/json");
        match (self.media_type.as_deref(), declared) {
            (Some(inside), Some(declared)) if inside != declared => {
                Err(ManifestError::MediaTypeMismatch {
                    inside: shown(inside),
                    declared: shown(declared),
                })
            }
            (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type.to_owned()),
            // Only OCI's own documents may leave it out.
            (None, None) if self.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
            (None, None) if self.layers.is_some() => Ok(OCI_IMAGE.to_owned()),
            (None, None) => Err(ManifestError::NoMediaType),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Descriptor {
    /// Layers that their owners do not let registries hold.
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }

    fn content(self) -> Content {
        Content {
            digest: self.digest,
            size: self.size,
            media_type: self.media_type,
        }
    }
}

fn bounded(descriptors: &[Descriptor]) -> Result<(), ManifestError> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(ManifestError::TooManyDescriptors);
    }
    Ok(())
}

fn missing(member: &str) -> ManifestError {
    ManifestError::Syntax(format!("it has no '{member}'"))
}

/// A stranger's text, cut to a length that an answer can carry.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(byte: u8, media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": Digest::of(&[byte]).as_str(), "size": 10})
    }

    fn image() -> serde_json::Value {
        json!({"schemaVersion": 2, "mediaType": OCI_IMAGE,
            "config": descriptor(0, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(1, "application/vnd.oci.image.layer.v1.tar+gzip"),
                       descriptor(2, "application/vnd.oci.image.layer.nondistributable.v1.tar")]})
    }

    fn parse(value: &serde_json::Value, declared: Option<&str>) -> Result<Manifest, ManifestError> {
        Manifest::parse(value.to_string().as_bytes(), declared)
    }

    #[test]
    fn an_image_needs_its_own_blobs_only() {
        let manifest = parse(&image(), Some(OCI_IMAGE)).unwrap();
        assert_eq!(manifest.blobs().count(), 2);
        assert_eq!(manifest.content_size(), 20);
        assert_eq!(
            manifest.artifact_type.as_deref(),
            Some("application/vnd.oci.image.config.v1+json")
        );
    }

    #[test]
    fn the_media_type_has_one_meaning() {
        let mut document = image();
        assert!(matches!(
            parse(&document, Some(DOCKER_IMAGE)),
            Err(ManifestError::MediaTypeMismatch { .. })
        ));
        document.as_object_mut().unwrap().remove("mediaType");
        assert_eq!(parse(&document, None).unwrap().media_type, OCI_IMAGE);
        let declared = format!("{DOCKER_IMAGE}; charset=utf-8");
        assert_eq!(
            parse(&document, Some(&declared)).unwrap().media_type,
            DOCKER_IMAGE
        );
        document["manifests"] = json!([]);
        assert_eq!(
            parse(&document, Some(OCI_IMAGE)),
            Err(ManifestError::Ambiguous)
        );
        assert_eq!(parse(&document, None), Err(ManifestError::Ambiguous));
        assert!(matches!(
            parse(
                &image(),
                Some("application/vnd.docker.distribution.manifest.v1+json")
            ),
            Err(ManifestError::MediaTypeMismatch { .. })
        ));
    }

    #[test]
    fn an_index_names_manifests() {
        let index = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST,
            "manifests": [descriptor(1, DOCKER_IMAGE)]});
        let manifest = parse(&index, None).unwrap();
        assert_eq!(
            (manifest.manifests().len(), manifest.blobs().count()),
            (1, 0)
        );
    }

    #[test]
    fn what_is_not_a_manifest_is_refused() {
        let hostile = json!({"schemaVersion": 2, "mediaType": OCI_IMAGE, "layers": [],
            "config": {"digest": "sha256:../../x", "size": 1}});
        assert!(matches!(
            parse(&hostile, None),
            Err(ManifestError::Syntax(_))
        ));
        assert!(matches!(
            Manifest::parse(b"{", None),
            Err(ManifestError::Syntax(_))
        ));
        assert_eq!(
            parse(&json!({"schemaVersion": 1}), None),
            Err(ManifestError::SchemaVersion)
        );
        assert_eq!(
            parse(&json!({"schemaVersion": 2}), None),
            Err(ManifestError::NoMediaType)
        );
        let huge = vec![b' '; MANIFEST_BYTES_MAX + 1];
        assert_eq!(Manifest::parse(&huge, None), Err(ManifestError::TooLarge));
        let many: Vec<_> = (0..=DESCRIPTORS_MAX)
            .map(|_| descriptor(1, OCI_IMAGE))
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": many});
        assert_eq!(parse(&index, None), Err(ManifestError::TooManyDescriptors));
        let deep = "[".repeat(100_000);
        assert!(Manifest::parse(deep.as_bytes(), None).is_err());
    }
}
