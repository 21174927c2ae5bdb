//! Markers: where a list goes on, bound to the list it came from.
//!
//! A marker names the last item that was returned, so a list that changes between two pages
//! neither repeats nor skips what was there all along. It carries a proof over the list's scope
//! (operation, account and filters) keyed by the store's incarnation: a changed marker, or one of
//! another list, is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PROOF_LEN: usize = 9;

fn proof(key: &[u8], scope: &str, last: &str) -> [u8; PROOF_LEN] {
    let mut short = [0; PROOF_LEN];
    // HMAC takes a key of any length, so this cannot fail.
    if let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) {
        mac.update(scope.as_bytes());
        mac.update(&[0]);
        mac.update(last.as_bytes());
        short.copy_from_slice(&mac.finalize().into_bytes()[..PROOF_LEN]);
    }
    short
}

pub(crate) fn seal(key: &[u8], scope: &str, last: &str) -> String {
    let mut bytes = proof(key, scope, last).to_vec();
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn open(key: &[u8], scope: &str, marker: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(marker).ok()?;
    let (given, last) = bytes.split_at_checked(PROOF_LEN)?;
    let last = std::str::from_utf8(last).ok()?;
    (proof(key, scope, last) == given).then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_good_for_its_own_list_only() {
        let marker = seal(b"key", "roles/", "web");
        assert_eq!(open(b"key", "roles/", &marker).as_deref(), Some("web"));
        assert_eq!(open(b"key", "policies/", &marker), None);
        assert_eq!(open(b"other", "roles/", &marker), None);
        assert_eq!(open(b"key", "roles/", &marker[1..]), None);
        assert_eq!(open(b"key", "roles/", ""), None);
        assert_eq!(open(b"key", "roles/", "ü"), None);
    }
}
