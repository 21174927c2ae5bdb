//! Signing a request, in its headers or in its query.
//!
//! What is signed is what AWS asks for: `host`, `content-type` and every `x-amz-` header. Headers
//! that a hop may add or change are left out, so a proxy between an agent and its endpoint does
//! not break the signature.

use std::fmt;

use gantry_env::Timestamp;
use http::{HeaderMap, HeaderValue, Method};

use super::canonical::{Payload, Signable, canonical_request, push_encoded, string_to_sign};
use super::moment::format_amz_date;
use super::{ALGORITHM, TERMINATOR, key};

/// What a caller signs with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningCredentials {
    pub access_key_id: String,
    pub secret: String,
    pub session_token: Option<String>,
}

/// The secret and the token never reach a log.
impl fmt::Debug for SigningCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Whom a signature is for.
#[derive(Clone, Copy, Debug)]
pub struct SigningScope<'a> {
    pub region: &'a str,
    pub service: &'a str,
}

/// A credential or host that no HTTP header can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} contains characters that an HTTP header cannot carry")]
pub struct UnsignableHeader(&'static str);

fn header(text: &str, what: &'static str) -> Result<HeaderValue, UnsignableHeader> {
    HeaderValue::from_str(text).map_err(|_| UnsignableHeader(what))
}

fn scope_text(amz_date: &str, scope: SigningScope<'_>) -> String {
    let date = amz_date.get(..8).unwrap_or_default();
    format!("{date}/{}/{}/{TERMINATOR}", scope.region, scope.service)
}

/// Everything that a signature needs beside the headers.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    pub method: &'a Method,
    /// As on the wire, percent-encoded.
    pub path: &'a str,
    pub query: &'a str,
    pub payload: Payload,
    pub credentials: &'a SigningCredentials,
    pub scope: SigningScope<'a>,
    pub now: Timestamp,
}

impl Signing<'_> {
    fn signature(&self, request: &Signable<'_>, signed_headers: &[&str], amz_date: &str) -> String {
        let canonical = canonical_request(request, signed_headers, self.payload);
        let text = string_to_sign(amz_date, &scope_text(amz_date, self.scope), &canonical);
        let date = amz_date.get(..8).unwrap_or_default();
        let SigningScope { region, service } = self.scope;
        key::signature(
            &key::signing_key(&self.credentials.secret, date, region, service),
            &text,
        )
    }
}

/// Adds `x-amz-date`, `x-amz-security-token` and `authorization` to `headers`, which must hold
/// `host` already.
pub fn sign(signing: &Signing<'_>, headers: &mut HeaderMap) -> Result<(), UnsignableHeader> {
    let amz_date = format_amz_date(signing.now);
    headers.insert("x-amz-date", header(&amz_date, "date")?);
    if let Some(token) = &signing.credentials.session_token {
        let mut value = header(token, "session token")?;
        value.set_sensitive(true);
        headers.insert("x-amz-security-token", value);
    }
    let mut signed: Vec<&str> = headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| matches!(*name, "host" | "content-type") || name.starts_with("x-amz-"))
        .collect();
    signed.sort_unstable();
    let Signing {
        method,
        path,
        query,
        ..
    } = *signing;
    let request = Signable {
        method,
        path,
        query,
        headers,
        authority: None,
    };
    let signature = signing.signature(&request, &signed, &amz_date);
    let authorization = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
        signing.credentials.access_key_id,
        scope_text(&amz_date, signing.scope),
        signed.join(";"),
    );
    headers.insert("authorization", header(&authorization, "access key id")?);
    Ok(())
}

/// The query of a presigned request to `host`: the given one with the signature's parameters
/// added. Only `host` is signed.
pub fn presign(signing: &Signing<'_>, host: &str, expires_s: u64) -> String {
    let amz_date = format_amz_date(signing.now);
    let mut full = signing.query.to_owned();
    let scope = scope_text(&amz_date, signing.scope);
    let credential = format!("{}/{scope}", signing.credentials.access_key_id);
    let mut add = |name: &str, value: &str| {
        if !full.is_empty() {
            full.push('&');
        }
        full.push_str(name);
        full.push('=');
        push_encoded(&mut full, value.as_bytes());
    };
    add("X-Amz-Algorithm", ALGORITHM);
    add("X-Amz-Credential", &credential);
    add("X-Amz-Date", &amz_date);
    add("X-Amz-Expires", &expires_s.to_string());
    add("X-Amz-SignedHeaders", "host");
    if let Some(token) = &signing.credentials.session_token {
        add("X-Amz-Security-Token", token);
    }
    let headers = HeaderMap::new();
    let Signing { method, path, .. } = *signing;
    let request = Signable {
        method,
        path,
        query: &full,
        headers: &headers,
        authority: Some(host),
    };
    let signature = signing.signature(&request, &["host"], &amz_date);
    full.push_str("&X-Amz-Signature=");
    full.push_str(&signature);
    full
}
