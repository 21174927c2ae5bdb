//! Responses and metadata of SAML identity providers.

use std::sync::OnceLock;

use gantry_iam::model::saml::{Assertion, Metadata, read};

use crate::text;

macro_rules! signed {
    ($($name:literal),*) => {
        [$(include_str!(concat!("../../crates/services/iam/tests/saml/fixtures/", $name))),*]
    };
}

/// Whoever made these threw the key away, so nothing else is signed with it.
const HONEST: [&str; 5] = signed!(
    "assertion.xml",
    "response.xml",
    "both.xml",
    "odd.xml",
    "prefixes.xml"
);
const METADATA: &str = include_str!("../../crates/services/iam/tests/saml/fixtures/metadata.xml");

fn known() -> &'static (Metadata, Vec<Assertion>) {
    static KNOWN: OnceLock<(Metadata, Vec<Assertion>)> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let metadata = Metadata::read(METADATA).expect("metadata");
        let read = |text: &&str| read(text, &metadata).expect("an honest response");
        let assertions = HONEST.iter().map(read).collect();
        (metadata, assertions)
    })
}

/// The input is a response. Whatever was made of an honest one, what is believed is what was signed.
pub fn responses(data: &[u8]) {
    let Some(response) = text(data) else { return };
    let (metadata, honest) = known();
    if let Ok(assertion) = read(response, metadata) {
        assert!(honest.contains(&assertion), "{assertion:?}");
    }
    let nobody = Metadata::read("");
    assert!(nobody.is_none());
}

/// The input is a provider's metadata. Read twice they say the same, and honest responses are of other keys.
pub fn metadata(data: &[u8]) {
    let Some(document) = text(data) else { return };
    let Some(other) = Metadata::read(document) else {
        return;
    };
    assert_eq!(Metadata::read(document).as_ref(), Some(&other));
    if other != known().0 && other.entity != known().0.entity {
        assert!(
            HONEST
                .iter()
                .all(|response| read(response, &other).is_err())
        );
    }
}
