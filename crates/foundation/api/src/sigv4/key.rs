//! The chain of HMACs from a secret to a signature.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::TERMINATOR;

type HmacSha256 = Hmac<Sha256>;

fn mac(key: &[u8], data: &[u8]) -> HmacSha256 {
    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = HmacSha256::new_from_slice(key).expect("HMAC takes any key");
    mac.update(data);
    mac
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    mac(key, data).finalize().into_bytes().into()
}

/// The key of one day, region and service.
pub(super) fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let mut first = Vec::with_capacity(4 + secret.len());
    first.extend_from_slice(b"AWS4");
    first.extend_from_slice(secret.as_bytes());
    let date_key = hmac(&first, date.as_bytes());
    let region_key = hmac(&date_key, region.as_bytes());
    let service_key = hmac(&region_key, service.as_bytes());
    hmac(&service_key, TERMINATOR.as_bytes())
}

pub(super) fn signature(key: &[u8; 32], string_to_sign: &str) -> String {
    hex::encode(hmac(key, string_to_sign.as_bytes()))
}

/// Whether `presented` (hex) is the signature, without telling by its duration where it differs.
pub(super) fn matches(key: &[u8; 32], string_to_sign: &str, presented: &str) -> bool {
    let mut bytes = [0u8; 32];
    // AWS writes signatures in lower case and takes nothing else.
    if presented.bytes().any(|b| b.is_ascii_uppercase())
        || hex::decode_to_slice(presented, &mut bytes).is_err()
    {
        return false;
    }
    mac(key, string_to_sign.as_bytes())
        .verify_slice(&bytes)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of AWS's documentation on deriving a signing key.
    #[test]
    fn the_documented_key_is_derived() {
        let key = signing_key(
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "20150830",
            "us-east-1",
            "iam",
        );
        assert_eq!(
            hex::encode(key),
            "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
        );
    }

    #[test]
    fn only_the_exact_signature_matches() {
        let key = [7; 32];
        let right = signature(&key, "text");
        assert!(matches(&key, "text", &right));
        assert!(!matches(&key, "texT", &right));
        assert!(!matches(&key, "text", &right.to_uppercase()));
        assert!(!matches(&key, "text", &right[..62]));
        assert!(!matches(&key, "text", ""));
        assert!(!matches(&key, "text", "not hex"));
    }
}
