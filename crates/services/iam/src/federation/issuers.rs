//! The keys of identity providers, kept for a while.
//!
//! What always holds: keys are an hour old at most when a token is held against them. A token whose key is not
//! among them makes the provider be asked again, once in half a minute; a failure is answered for five seconds
//! without asking. Keys are remembered for the thumbprints they were fetched under, so new ones count at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_env::Env;
use serde::Deserialize;

use super::{Fetch, FetchError};
use crate::model::web_keys::{self, PublicKey, Unverified};
use crate::model::web_token::WebToken;

const KEYS_GOOD_FOR: Duration = Duration::from_secs(60 * 60);
const BETWEEN_LOOKS_FOR_A_KEY: Duration = Duration::from_secs(30);
const FAILURE_GOOD_FOR: Duration = Duration::from_secs(5);
/// More providers than this are not remembered at once.
const MAX_ISSUERS: usize = 1000;

/// Why a token is not known to be its provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeysError {
    Fetch(FetchError),
    BadSignature,
}

type Slot = Arc<tokio::sync::Mutex<Issuer>>;

/// What is known of one provider. Whoever holds it is the only one to ask.
#[derive(Default)]
struct Issuer {
    keys: Vec<PublicKey>,
    /// On the monotonic clock, like all moments here.
    fetched_at: Option<Duration>,
    failed: Option<(Duration, FetchError)>,
}

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Issuers {
    fetch: Arc<dyn Fetch>,
    env: Env,
    known: Arc<Mutex<BTreeMap<String, Slot>>>,
}

impl Issuers {
    pub fn new(fetch: Arc<dyn Fetch>, env: Env) -> Self {
        Self {
            fetch,
            env,
            known: Arc::default(),
        }
    }

    /// Holds a token against the keys of the provider at `url`, which has no scheme.
    pub async fn verify(
        &self,
        url: &str,
        thumbprints: &[String],
        token: &WebToken,
    ) -> Result<(), KeysError> {
        let slot = self.slot(url, thumbprints);
        let mut issuer = slot.lock().await;
        let age = |issuer: &Issuer| {
            let now = self.env.monotonic();
            issuer.fetched_at.map(|at| now.saturating_sub(at))
        };
        if age(&issuer).is_none_or(|age| age >= KEYS_GOOD_FOR) {
            self.renew(url, thumbprints, &mut issuer).await?;
        }
        let mut outcome = web_keys::verify(&issuer.keys, token);
        let may_look_again = age(&issuer).is_some_and(|age| age >= BETWEEN_LOOKS_FOR_A_KEY);
        if outcome == Err(Unverified::NoSuchKey) && may_look_again {
            self.renew(url, thumbprints, &mut issuer).await?;
            outcome = web_keys::verify(&issuer.keys, token);
        }
        outcome.map_err(|unverified| match unverified {
            Unverified::BadSignature => KeysError::BadSignature,
            Unverified::NoSuchKey => KeysError::Fetch(FetchError::Refused(format!(
                "https://{url} has no key that the token names"
            ))),
        })
    }

    /// Accounts that registered one issuer under different thumbprints do not share what was fetched, nor do
    /// they make each other's be fetched again.
    fn slot(&self, url: &str, thumbprints: &[String]) -> Slot {
        let name = format!("{url} {}", thumbprints.join(" "));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_ISSUERS && !known.contains_key(&name) {
            known.clear();
        }
        known.entry(name).or_default().clone()
    }

    async fn renew(
        &self,
        url: &str,
        thumbprints: &[String],
        issuer: &mut Issuer,
    ) -> Result<(), KeysError> {
        if let Some((at, error)) = &issuer.failed
            && self.env.monotonic().saturating_sub(*at) < FAILURE_GOOD_FOR
        {
            return Err(KeysError::Fetch(error.clone()));
        }
        match self.keys_of(url, thumbprints).await {
            Ok(keys) => {
                issuer.keys = keys;
                issuer.fetched_at = Some(self.env.monotonic());
                issuer.failed = None;
                Ok(())
            }
            Err(error) => {
                tracing::info!(issuer = url, %error, "the keys of an identity provider were not fetched");
                issuer.failed = Some((self.env.monotonic(), error.clone()));
                Err(KeysError::Fetch(error))
            }
        }
    }

    async fn keys_of(
        &self,
        url: &str,
        thumbprints: &[String],
    ) -> Result<Vec<PublicKey>, FetchError> {
        let at = format!(
            "https://{}/.well-known/openid-configuration",
            url.trim_end_matches('/')
        );
        let refused = |why: &str| FetchError::Refused(format!("{at}: {why}"));
        let document = self.fetch.get(&at, thumbprints).await?;
        let Discovery { issuer, jwks_uri } = serde_json::from_slice(&document)
            .map_err(|_| refused("it is no configuration of OpenID Connect"))?;
        if issuer != format!("https://{url}") {
            return Err(refused("it is of another issuer"));
        }
        if !jwks_uri.starts_with("https://") {
            return Err(refused("its jwks_uri is no https URL"));
        }
        let keys = self.fetch.get(&jwks_uri, thumbprints).await?;
        String::from_utf8(keys)
            .ok()
            .and_then(|keys| web_keys::read(&keys))
            .ok_or_else(|| FetchError::Refused(format!("{jwks_uri}: it is no set of keys")))
    }
}

/// What is read of a provider's configuration.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}
