//! IAM's policy documents.

use gantry_iam::model::document::{DocumentKind, counted_len, url_encode, validate};

use crate::text;

/// What is accepted is one JSON object, whatever white space is around it; and a document comes back
/// from its encoded form as it was.
pub fn documents(data: &[u8]) {
    let Some(document) = text(data) else { return };
    for kind in [
        DocumentKind::Trust,
        DocumentKind::Managed,
        DocumentKind::Inline,
    ] {
        let found = validate(kind, document);
        assert_eq!(validate(kind, &format!(" \n{document}\t")), found);
        if found.is_ok() {
            let value: serde_json::Value = serde_json::from_str(document).expect("JSON");
            assert!(value.is_object());
        } else if let Err(error) = found {
            assert!(!error.0.is_empty());
        }
    }
    assert!(counted_len(document) <= document.len());
    let encoded = url_encode(document);
    assert!(
        encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b))
    );
    assert_eq!(decoded(&encoded), document.as_bytes());
}

fn decoded(encoded: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let hex = std::str::from_utf8(&rest[..2]).expect("two digits");
            bytes.push(u8::from_str_radix(hex, 16).expect("hexadecimal"));
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    bytes
}
