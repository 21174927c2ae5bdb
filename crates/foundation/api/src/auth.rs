//! Where the secrets behind access keys come from, and what is done with callers that have none.
//!
//! The server asks a [`CredentialSource`] for the secret of the access key that a request names
//! and verifies the signature with it; `services/iam` implements the trait over its rows.
//! `--accept-any-credentials` is [`CredentialPolicy::AcceptAny`]: keys that the source knows are
//! still verified, every other key is the account's root. Because that makes every local process
//! root, [`check_accept_any`] tells the binary whether an address may be served that way.

pub mod node;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_arn::{AccountId, Arn};
use gantry_env::Timestamp;

use crate::context::Principal;

/// What an access key stands for.
#[derive(Clone)]
pub struct Credential {
    pub secret: String,
    /// Present for temporary credentials: the request must carry exactly this token.
    pub session_token: Option<String>,
    /// When temporary credentials end. `None` is forever.
    pub expiration: Option<Timestamp>,
    pub account: AccountId,
    pub principal: Principal,
}

/// The secret and the token never reach a log.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("account", &self.account)
            .field("principal", &self.principal)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// `None` if no such key exists or it is inactive.
    async fn lookup(&self, access_key_id: &str) -> Option<Credential>;

    /// A key that was looked up has signed a request of this service and region, and the signature
    /// is good. Most sources do not keep that.
    async fn used(&self, access_key_id: &str, service: &str, region: &str) {
        let _ = (access_key_id, service, region);
    }
}

/// How callers are known.
#[derive(Clone)]
pub enum CredentialPolicy {
    /// Every signature is verified. The default and the only policy off loopback.
    Verify(Arc<dyn CredentialSource>),
    /// A key that `source` does not know is the root of an account: the one the key itself
    /// spells (twelve digits, as `test` tooling does to choose one) or `account`.
    AcceptAny {
        source: Arc<dyn CredentialSource>,
        account: AccountId,
    },
}

impl CredentialPolicy {
    pub(crate) fn source(&self) -> &dyn CredentialSource {
        match self {
            Self::Verify(source) | Self::AcceptAny { source, .. } => source.as_ref(),
        }
    }

    /// Who an unknown key is under this policy.
    pub(crate) fn unknown_key(&self, access_key_id: &str) -> Option<(AccountId, Principal)> {
        match self {
            Self::Verify(_) => None,
            Self::AcceptAny { account, .. } => {
                let account = access_key_id.parse().unwrap_or(*account);
                Some((account, root_principal(account, access_key_id)))
            }
        }
    }
}

/// The root user of an account, acting through one of its keys.
pub fn root_principal(account: AccountId, access_key_id: &str) -> Principal {
    Principal {
        arn: Arn::global("iam", &account, "root"),
        user_id: account.to_string(),
        access_key_id: access_key_id.to_owned(),
    }
}

/// Whether `--accept-any-credentials` may be used on this address; the error is a sentence for
/// the person who typed it.
pub fn check_accept_any(listen: SocketAddr) -> Result<(), String> {
    if listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "--accept-any-credentials makes everybody who can reach {listen} root of every account, so it is allowed on a loopback address only (127.0.0.1 or ::1)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_credentials_are_for_loopback_only() {
        for allowed in [
            "127.0.0.1:4566",
            "[::1]:4566",
            "127.8.8.8:1",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert_eq!(
                check_accept_any(allowed.parse().unwrap()),
                Ok(()),
                "{allowed}"
            );
        }
        for refused in [
            "0.0.0.0:4566",
            "[::]:4566",
            "192.168.1.4:4566",
            "[::ffff:10.0.0.1]:80",
        ] {
            assert!(
                check_accept_any(refused.parse().unwrap()).is_err(),
                "{refused}"
            );
        }
    }
}
