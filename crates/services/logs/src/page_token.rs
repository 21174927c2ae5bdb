//! Tokens of lists: where a list goes on, bound to the list it came from.
//!
//! A token carries the last item that was returned and a proof over it and the list's scope
//! (operation, place and filters). A changed token, or one of another list, is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;

const PROOF_LEN: usize = 12;

fn proof(key: &str, scope: &str, last: &[u8]) -> [u8; PROOF_LEN] {
    let mut short = [0; PROOF_LEN];
    // HMAC takes a key of any length, so this cannot fail.
    if let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key.as_bytes()) {
        mac.update(scope.as_bytes());
        mac.update(&[0]);
        mac.update(last);
        short.copy_from_slice(&mac.finalize().into_bytes()[..PROOF_LEN]);
    }
    short
}

pub(crate) fn seal(key: &str, scope: &str, last: &impl Serialize) -> String {
    // Positions are names and numbers, which always can be written.
    let last = serde_json::to_vec(last).unwrap_or_default();
    let mut bytes = proof(key, scope, &last).to_vec();
    bytes.extend_from_slice(&last);
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn open<T: DeserializeOwned>(key: &str, scope: &str, token: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (given, last) = bytes.split_at_checked(PROOF_LEN)?;
    (proof(key, scope, last) == given).then_some(())?;
    serde_json::from_slice(last).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let token = seal("key", "groups/", &("a", 7));
        assert_eq!(open("key", "groups/", &token), Some(("a".to_owned(), 7)));
        for (key, scope, token) in [
            ("other", "groups/", token.as_str()),
            ("key", "streams/", &token),
            ("key", "groups/", &token[2..]),
            ("key", "groups/", ""),
            ("key", "groups/", "ü"),
        ] {
            assert_eq!(open::<(String, i32)>(key, scope, token), None);
        }
    }
}
