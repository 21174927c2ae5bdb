//! Who calls: from the signature of a request to its [`RequestContext`].

use bytes::Bytes;
use gantry_arn::Region;
use http::request::Parts;

use super::RequestFacts;
use crate::auth::CredentialPolicy;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::sigv4::{Presented, Rejection, SecretOf, Signable, UnsignedPayload};
use gantry_env::Timestamp;

/// Verifies the request for `service` and says who its caller is.
pub(super) async fn authenticate(
    policy: &CredentialPolicy,
    presented: &Presented,
    parts: &Parts,
    body: &Bytes,
    service: &str,
    facts: &RequestFacts,
    now: Timestamp,
) -> Result<RequestContext, Rejection> {
    let access_key_id = presented.access_key_id.as_str();
    let (account, principal) = match policy.source().lookup(access_key_id).await {
        Some(credential) => {
            let request = Signable {
                method: &parts.method,
                path: parts.uri.path(),
                query: parts.uri.query().unwrap_or_default(),
                headers: &parts.headers,
                authority: Some(&facts.host),
            };
            let secret = SecretOf {
                secret: &credential.secret,
                session_token: credential.session_token.as_deref(),
                expiration: credential.expiration,
            };
            let payload = Presented::payload(&parts.headers, body, UnsignedPayload::Refused);
            presented
                .verify(&request, payload, secret, service, now)
                .inspect_err(|rejection| {
                    tracing::debug!(
                        access_key_id,
                        reason = rejection.message(),
                        "signature refused"
                    );
                })?;
            let source = policy.source();
            source.used(access_key_id, service, &presented.region).await;
            (credential.account, credential.principal)
        }
        None => policy
            .unknown_key(access_key_id)
            .ok_or(Rejection::UnknownClient)?,
    };
    // A verified scope has a valid region; one that was accepted unverified may not.
    let region: Region = presented.region.parse().map_err(|_| {
        Rejection::InvalidSignature("Credential should be scoped to a valid region. ".to_owned())
    })?;
    Ok(RequestContext {
        account,
        region,
        principal,
        request_id: facts.request_id.clone(),
        host: Some(facts.host.clone()),
        now,
    })
}

/// The error of a service that speaks `protocol`.
pub(super) fn rejection_error(rejection: &Rejection, protocol: &str) -> ApiError {
    let (code, status) = match protocol {
        "query" | "ec2" => rejection.query_code(),
        _ => rejection.json_code(),
    };
    let message = match rejection {
        Rejection::MissingToken if status == 400 => "Missing Authentication Token",
        other => other.message(),
    };
    ApiError::sender(code, message).with_status(status)
}
