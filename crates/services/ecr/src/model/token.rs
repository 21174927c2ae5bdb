//! The password that GetAuthorizationToken hands out.
//!
//! It carries who asked, for which registry, and until when, under an HMAC, so a registry
//! request needs no row but the key's. Nobody without the key can make or change one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_arn::{AccountId, Region};
use gantry_env::Timestamp;
use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Longer than any password made here, short enough to be verified for free.
const PASSWORD_BYTES_MAX: usize = 4096;

/// As long as HMAC-SHA-256's block, so it is used as it is.
pub type TokenKey = [u8; 64];

/// Who may use the registry, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(rename = "a")]
    pub account: AccountId,
    #[serde(rename = "r")]
    pub region: Region,
    /// The ARN of the caller of GetAuthorizationToken.
    #[serde(rename = "p")]
    pub principal: String,
    #[serde(rename = "e")]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the password is not one of this registry's")]
    Invalid,
    #[error("Your authorization token has expired. Reauthenticate and try again.")]
    Expired,
}

impl Grant {
    /// Whether the agent of a node asked for it.
    pub fn is_a_nodes(&self) -> bool {
        self.principal
            .parse()
            .is_ok_and(|arn| gantry_api::auth::node::is_node(&arn))
    }

    pub fn password(&self, key: &TokenKey) -> Result<String, serde_json::Error> {
        sealed(GRANT, self, key)
    }

    pub fn verify(password: &str, key: &TokenKey, now: Timestamp) -> Result<Self, TokenError> {
        let grant: Self = opened(GRANT, password, key)?;
        if now >= grant.expires_at {
            return Err(TokenError::Expired);
        }
        Ok(grant)
    }
}

/// Each kind of token has a label, so that one of another kind under the same key is never taken
/// for it.
const GRANT: &[u8] = b"gantry registry grant 1\0";

/// A value as a text that only the key's holder can make.
pub(super) fn sealed<T: Serialize>(
    label: &[u8],
    value: &T,
    key: &TokenKey,
) -> Result<String, serde_json::Error> {
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(value)?);
    let signature = mac(label, key, &payload).finalize().into_bytes();
    Ok(format!("{payload}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Reads what [`sealed`] made with the same label and key.
pub(super) fn opened<T: DeserializeOwned>(
    label: &[u8],
    text: &str,
    key: &TokenKey,
) -> Result<T, TokenError> {
    if text.len() > PASSWORD_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let (payload, signature) = text.split_once('.').ok_or(TokenError::Invalid)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| TokenError::Invalid)?;
    // `verify_slice` compares in constant time.
    mac(label, key, payload)
        .verify_slice(&signature)
        .map_err(|_| TokenError::Invalid)?;
    let json = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_| TokenError::Invalid)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Invalid)
}

fn mac(label: &[u8], key: &TokenKey, payload: &str) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new(key.into())
        .chain_update(label)
        .chain_update(payload.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_the_untouched_password_of_its_key_is_good_until_it_expires() {
        let now = Timestamp::from_millis(1_000_000);
        let grant = Grant {
            account: "123456789012".parse().unwrap(),
            region: Region::default(),
            principal: "arn:aws:iam::123456789012:root".to_owned(),
            expires_at: now + Duration::from_secs(60),
        };
        let password = grant.password(&[7; 64]).unwrap();
        assert_eq!(Grant::verify(&password, &[7; 64], now), Ok(grant.clone()));
        assert_eq!(
            Grant::verify(&password, &[8; 64], now),
            Err(TokenError::Invalid)
        );
        let late = now + Duration::from_secs(60);
        assert_eq!(
            Grant::verify(&password, &[7; 64], late),
            Err(TokenError::Expired)
        );

        let other = Grant {
            account: AccountId::default(),
            ..grant
        };
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&other).unwrap());
        let forged = format!("{forged}.{}", password.split_once('.').unwrap().1);
        assert_eq!(
            Grant::verify(&forged, &[7; 64], now),
            Err(TokenError::Invalid)
        );
        for bad in ["", ".", "a.b", &"a".repeat(5000)] {
            assert_eq!(Grant::verify(bad, &[7; 64], now), Err(TokenError::Invalid));
        }
    }
}
