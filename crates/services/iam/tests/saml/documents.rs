//! What xmlsec1 signed, with RSA keys of openssl's: `fixtures/make` made it. Here canonical form is somebody else's.

use gantry_env::Timestamp;
use gantry_iam::model::saml::{Metadata, Refused, read};

const METADATA: &str = include_str!("fixtures/metadata.xml");

/// Each is written in a way that canonical form must undo, and says who the subject is.
const SIGNED: [(&str, &str); 5] = [
    (include_str!("fixtures/assertion.xml"), "ann"),
    (include_str!("fixtures/response.xml"), "ann"),
    (include_str!("fixtures/both.xml"), "ann"),
    (include_str!("fixtures/odd.xml"), "ä & <b> \"c\" 'd'"),
    (include_str!("fixtures/prefixes.xml"), "ann"),
];

#[test]
fn what_another_implementation_signed_is_good() {
    let metadata = Metadata::read(METADATA).unwrap();
    for (signed, subject) in SIGNED {
        let assertion =
            read(signed, &metadata).unwrap_or_else(|refused| panic!("{refused}: {signed}"));
        assert_eq!(assertion.subject, subject);
        assert_eq!(assertion.issuer, "https://idp.example/metadata");
        assert_eq!(
            assertion.issued_at,
            Timestamp::from_epoch_seconds_f64(1_767_225_600.0)
        );
        assert_eq!(assertion.attributes["RoleSessionName"], ["ann"]);
        let other = signed.replacen("https://aws.amazon.com/SAML/Attributes/Role\"", "x\"", 1);
        assert!(matches!(
            read(&other, &metadata),
            Err(Refused::Signature(_))
        ));
    }
    let sha1 = include_str!("fixtures/sha1.xml");
    assert!(matches!(read(sha1, &metadata), Err(Refused::Algorithm(_))));
}
