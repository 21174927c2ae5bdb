//! The right to download one layer for a while, without a password: what the link of
//! GetDownloadUrlForLayer carries.

use gantry_arn::{AccountId, Region, RepositoryName};
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::Digest;
use super::token::{TokenError, TokenKey, opened, sealed};

/// The parameter of the link that holds it.
pub const PARAMETER: &str = "X-Gantry-Download";

const LABEL: &[u8] = b"gantry registry download 1\0";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadGrant {
    #[serde(rename = "a")]
    pub account: AccountId,
    #[serde(rename = "r")]
    pub region: Region,
    #[serde(rename = "n")]
    pub repository: RepositoryName,
    #[serde(rename = "d")]
    pub digest: Digest,
    #[serde(rename = "e")]
    pub expires_at: Timestamp,
}

impl DownloadGrant {
    pub fn token(&self, key: &TokenKey) -> Result<String, serde_json::Error> {
        sealed(LABEL, self, key)
    }

    pub fn verify(token: &str, key: &TokenKey, now: Timestamp) -> Result<Self, TokenError> {
        let grant: Self = opened(LABEL, token, key)?;
        if now >= grant.expires_at {
            return Err(TokenError::Expired);
        }
        Ok(grant)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::token::Grant;

    #[test]
    fn a_link_is_good_until_it_expires_and_is_never_a_password() {
        let now = Timestamp::from_millis(1_000_000);
        let grant = DownloadGrant {
            account: AccountId::default(),
            region: Region::default(),
            repository: RepositoryName::new("team/app").unwrap(),
            digest: Digest::of(b"layer"),
            expires_at: now + Duration::from_secs(60),
        };
        let key = [7; 64];
        let token = grant.token(&key).unwrap();
        assert_eq!(DownloadGrant::verify(&token, &key, now), Ok(grant.clone()));
        let late = DownloadGrant::verify(&token, &key, grant.expires_at);
        assert_eq!(late, Err(TokenError::Expired));
        let other_key = DownloadGrant::verify(&token, &[8; 64], now);
        assert_eq!(other_key, Err(TokenError::Invalid));
        assert_eq!(Grant::verify(&token, &key, now), Err(TokenError::Invalid));
        let password = Grant {
            account: AccountId::default(),
            region: Region::default(),
            principal: "arn:aws:iam::000000000000:root".to_owned(),
            expires_at: grant.expires_at,
        };
        let password = password.password(&key).unwrap();
        let taken = DownloadGrant::verify(&password, &key, now);
        assert_eq!(taken, Err(TokenError::Invalid));
    }
}
