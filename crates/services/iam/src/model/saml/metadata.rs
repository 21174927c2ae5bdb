//! What an identity provider says of itself: its name, and the keys that it signs with.

use gantry_api::protocol::timestamp;
use gantry_env::Timestamp;

use super::certificate::SigningKey;
use super::xml::{self, METADATA, SIGNATURE};

/// The metadata of one provider, as far as assertions are held against them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Who issues the assertions.
    pub entity: Option<String>,
    pub valid_until: Option<Timestamp>,
    pub(crate) keys: Vec<SigningKey>,
}

impl Metadata {
    /// `None` if the document describes nobody who signs in users.
    pub fn read(document: &str) -> Option<Self> {
        let parsed = xml::parse(document.trim_start_matches('\u{feff}').trim())?;
        let root = xml::root(&parsed)?;
        root.is(METADATA, "EntityDescriptor").then_some(())?;
        let descriptors = root.children(METADATA, "IDPSSODescriptor");
        (!descriptors.is_empty()).then_some(())?;
        let described = descriptors
            .iter()
            .flat_map(|descriptor| descriptor.children(METADATA, "KeyDescriptor"));
        let keys = described
            .filter(|key| key.attribute("use") != Some("encryption"))
            .flat_map(|key| key.children(SIGNATURE, "KeyInfo"))
            .flat_map(|info| info.children(SIGNATURE, "X509Data"))
            .flat_map(|data| data.children(SIGNATURE, "X509Certificate"))
            .filter_map(|certificate| xml::base64(&certificate.text()?))
            .filter_map(|der| SigningKey::of_certificate(&der))
            .collect();
        Some(Self {
            entity: root.attribute("entityID").map(str::to_owned),
            valid_until: root.attribute("validUntil").and_then(timestamp::parse),
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"<?xml version="1.0"?><!-- a > b -->
<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="urn:idp" validUntil="2030-01-02T03:04:05Z">
<md:IDPSSODescriptor/></md:EntityDescriptor>"#;

    #[test]
    fn metadata_are_told_from_other_documents() {
        let read = Metadata::read(METADATA).unwrap();
        assert_eq!(read.entity.as_deref(), Some("urn:idp"));
        assert_eq!(read.valid_until, timestamp::parse("2030-01-02T03:04:05Z"));
        assert_eq!(read.keys, []);
        let twice = METADATA.replace("entityID=", "entityID=\"urn:other\" entityID=");
        let typed = METADATA.replace("<!-- a > b -->", "<!DOCTYPE a [<!ENTITY b \"c\">]>");
        for other in [
            "",
            "<",
            "<?xml",
            "no metadata",
            "<a/>",
            "<EntityDescriptor/>",
            "<EntityDescriptor><IDPSSODescriptor/></EntityDescriptor>",
            "x<EntityDescriptor><IDPSSODescriptor/></EntityDescriptor>",
            "<a><EntityDescriptor><IDPSSODescriptor/></EntityDescriptor></a>",
            twice.as_str(),
            typed.as_str(),
        ] {
            assert_eq!(Metadata::read(other), None, "{other:?}");
        }
    }
}
