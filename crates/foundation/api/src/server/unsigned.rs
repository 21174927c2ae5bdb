//! The calls that AWS takes without a signature: what vouches for their callers stands in their input.
//!
//! What always holds: only the operations of [`UNSIGNED`] run for a caller that nobody knows; a request without a
//! signature for any other is refused as before. Its body counts against the same budget as a signed one, and may
//! be no larger than such a call needs.
//! What it leaves to others: whether the input proves anything (`services/iam`).

use bytes::Bytes;
use gantry_arn::{AccountId, Arn, Region};
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::RequestFacts;
use crate::context::{Principal, RequestContext};
use crate::protocol::{self, Call};
use gantry_env::Timestamp;

/// Service and operation.
const UNSIGNED: [(&str, &str); 2] = [
    ("sts", "AssumeRoleWithSAML"),
    ("sts", "AssumeRoleWithWebIdentity"),
];

/// A SAML assertion of 100,000 characters, percent-encoded, is the largest thing in one.
pub(super) const BODY_BYTES: usize = 384 * 1024;

/// Whether the body may be looked at: these calls are forms, and their form may stand in the query too.
pub(super) fn may_be(parts: &Parts) -> bool {
    let form = parts.headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    form || parts
        .uri
        .query()
        .is_some_and(|query| query.contains("Action="))
}

/// The call, if it is one of these.
pub(super) fn detect(parts: &Parts, body: &Bytes) -> Option<Call> {
    let call = protocol::detect(parts, body, Some("sts")).ok()?;
    let named = (call.service.name, call.operation.as_str());
    UNSIGNED.contains(&named).then_some(call)
}

/// A caller that nobody knows, in no account of its own.
pub(super) fn context(facts: &RequestFacts, now: Timestamp) -> RequestContext {
    let account = AccountId::default();
    RequestContext {
        account,
        region: Region::default(),
        principal: Principal {
            arn: Arn::global("sts", &account, "anonymous"),
            user_id: "anonymous".to_owned(),
            access_key_id: String::new(),
        },
        request_id: facts.request_id.clone(),
        host: Some(facts.host.clone()),
        now,
    }
}
