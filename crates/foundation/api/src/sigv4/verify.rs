//! Reading the signature that a request presents, and verifying it.
//!
//! Two steps, because between them the caller finds the secret: [`Presented::read`] takes the
//! request apart and needs no secret; [`Presented::verify`] decides. The order of checks is
//! AWS's: form, key, token, scope, time, signature.

use std::time::Duration;

use base64::Engine;
use gantry_arn::Region;
use gantry_env::Timestamp;
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::canonical::{
    Payload, Signable, UNSIGNED_PAYLOAD, canonical_request, percent_decoded, string_to_sign,
};
use super::moment::{format_amz_date, parse_amz_date};
use super::rejection::Rejection;
use super::{ALGORITHM, PRESIGNED_EXPIRES_MAX_S, TERMINATOR, key};

/// How far a caller's clock may be off.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// Credentials as a request presents them: well formed, and not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    pub access_key_id: String,
    pub session_token: Option<String>,
    pub region: String,
    pub service: String,
    scope_date: String,
    terminator: String,
    signed_headers: Vec<String>,
    signature: String,
    amz_date: String,
    signed_at: Timestamp,
    /// How long a presigned request lives; `None` for a signature in headers.
    presigned_expires: Option<Duration>,
}

/// What is known of the access key that a request names.
#[derive(Clone, Copy)]
pub struct SecretOf<'a> {
    pub secret: &'a str,
    pub session_token: Option<&'a str>,
    pub expiration: Option<Timestamp>,
}

impl Presented {
    /// Takes the signature out of the `Authorization` header, or out of the query of a presigned
    /// request.
    pub fn read(headers: &HeaderMap, query: &str) -> Result<Self, Rejection> {
        if let Some(authorization) = headers.get("authorization") {
            let text = authorization
                .to_str()
                .map_err(|_| Rejection::MissingToken)?;
            return Self::read_header(headers, text);
        }
        if query.contains("X-Amz-") {
            return Self::read_query(query);
        }
        Err(Rejection::MissingToken)
    }

    fn read_header(headers: &HeaderMap, authorization: &str) -> Result<Self, Rejection> {
        let text = authorization.trim();
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            // Another scheme altogether is no AWS credential; another AWS scheme is a wrong one.
            return Err(if algorithm.starts_with("AWS") {
                Rejection::Incomplete(format!(
                    "Unsupported AWS 'algorithm': '{}'.",
                    shown(algorithm)
                ))
            } else {
                Rejection::MissingToken
            });
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split([',', ' ']).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(Rejection::Incomplete(format!(
                    "'{}' not a valid key=value pair (missing equal-sign) in Authorization header{}",
                    shown(part),
                    hashed(authorization),
                )));
            };
            match name {
                "Credential" => credential = Some(value),
                "SignedHeaders" => signed_headers = Some(value),
                "Signature" => signature = Some(value),
                _ => {}
            }
        }
        let amz_date = headers
            .get("x-amz-date")
            .or_else(|| headers.get("date"))
            .map(|value| value.to_str().unwrap_or_default().trim());
        let mut missing = String::new();
        for (name, value) in [
            ("Credential", credential),
            ("Signature", signature),
            ("SignedHeaders", signed_headers),
        ] {
            if value.is_none_or(str::is_empty) {
                missing.push_str(&format!(
                    "Authorization header requires '{name}' parameter. "
                ));
            }
        }
        if amz_date.is_none() {
            missing.push_str(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
            );
        }
        let (Some(credential), Some(signed_headers), Some(signature), Some(amz_date), true) = (
            credential,
            signed_headers,
            signature,
            amz_date,
            missing.is_empty(),
        ) else {
            let missing = missing.trim_end();
            return Err(Rejection::Incomplete(format!(
                "{missing}{}",
                hashed(authorization)
            )));
        };
        let session_token = headers
            .get("x-amz-security-token")
            .map(|value| value.to_str().unwrap_or_default().to_owned());
        Self::assemble(
            credential,
            signed_headers,
            signature,
            amz_date,
            session_token,
            None,
        )
    }

    fn read_query(query: &str) -> Result<Self, Rejection> {
        let parameter = |wanted: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| String::from_utf8_lossy(&percent_decoded(value)).into_owned())
                .filter(|value| !value.is_empty())
        };
        let mut missing = String::new();
        let mut required = |name: &str| {
            parameter(name).unwrap_or_else(|| {
                missing.push_str(&format!(
                    "AWS query-string parameters must include '{name}'. "
                ));
                String::new()
            })
        };
        let algorithm = required("X-Amz-Algorithm");
        let credential = required("X-Amz-Credential");
        let signature = required("X-Amz-Signature");
        let signed_headers = required("X-Amz-SignedHeaders");
        let amz_date = required("X-Amz-Date");
        if !missing.is_empty() {
            missing.push_str("Re-examine the query-string parameters.");
            return Err(Rejection::Incomplete(missing));
        }
        if algorithm != ALGORITHM {
            return Err(Rejection::Incomplete(format!(
                "Unsupported AWS 'algorithm': '{}'.",
                shown(&algorithm)
            )));
        }
        // Without the parameter a presigned request lives as long as one signed in its headers.
        let expires = match parameter("X-Amz-Expires") {
            None => CLOCK_SKEW_MAX,
            Some(text) => match text.parse::<u64>() {
                Ok(seconds) if seconds <= PRESIGNED_EXPIRES_MAX_S => Duration::from_secs(seconds),
                Ok(_) => {
                    return Err(Rejection::Incomplete(format!(
                        "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than {PRESIGNED_EXPIRES_MAX_S} seconds"
                    )));
                }
                Err(_) => {
                    return Err(Rejection::Incomplete(
                        "X-Amz-Expires should be a number".to_owned(),
                    ));
                }
            },
        };
        let token = parameter("X-Amz-Security-Token");
        Self::assemble(
            &credential,
            &signed_headers,
            &signature,
            &amz_date,
            token,
            Some(expires),
        )
    }

    fn assemble(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        amz_date: &str,
        session_token: Option<String>,
        presigned_expires: Option<Duration>,
    ) -> Result<Self, Rejection> {
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, scope_date, region, service, terminator] = parts[..] else {
            return Err(Rejection::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                shown(credential)
            )));
        };
        let Some(signed_at) = parse_amz_date(amz_date) else {
            return Err(Rejection::Incomplete(format!(
                "Date must be in ISO-8601 'basic format'. Got '{}'. See http://en.wikipedia.org/wiki/ISO_8601",
                shown(amz_date)
            )));
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            session_token,
            region: region.to_owned(),
            service: service.to_owned(),
            scope_date: scope_date.to_owned(),
            terminator: terminator.to_owned(),
            signed_headers: signed_headers
                .split(';')
                .map(str::to_ascii_lowercase)
                .collect(),
            signature: signature.to_owned(),
            amz_date: amz_date.to_owned(),
            signed_at,
            presigned_expires,
        })
    }

    /// The payload to verify against. A body is always hashed here, whatever its header claims;
    /// only where the operation allows an unsigned one is that word of the caller taken.
    pub fn payload(headers: &HeaderMap, body: &[u8], unsigned: UnsignedPayload) -> Payload {
        let claimed = headers
            .get("x-amz-content-sha256")
            .map(|value| value.as_bytes());
        if unsigned == UnsignedPayload::Allowed && claimed == Some(UNSIGNED_PAYLOAD.as_bytes()) {
            return Payload::Unsigned;
        }
        Payload::of(body)
    }

    /// Whether the request was signed with `secret`, for `service`, about now.
    pub fn verify(
        &self,
        request: &Signable<'_>,
        payload: Payload,
        secret: SecretOf<'_>,
        service: &str,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        self.check_token(secret, now)?;
        self.check_scope(service)?;
        self.check_time(now)?;
        if !self.signed_headers.iter().any(|name| name == "host") {
            return Err(Rejection::InvalidSignature(
                "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
                    .to_owned(),
            ));
        }
        let signed: Vec<&str> = self.signed_headers.iter().map(String::as_str).collect();
        let canonical = canonical_request(request, &signed, payload);
        let scope = format!(
            "{}/{}/{}/{}",
            self.scope_date, self.region, self.service, self.terminator
        );
        let text = string_to_sign(&self.amz_date, &scope, &canonical);
        let key = key::signing_key(secret.secret, &self.scope_date, &self.region, &self.service);
        if key::matches(&key, &text, &self.signature) {
            Ok(())
        } else {
            Err(Rejection::mismatch())
        }
    }

    fn check_token(&self, secret: SecretOf<'_>, now: Timestamp) -> Result<(), Rejection> {
        let same = match (&self.session_token, secret.session_token) {
            (None, None) => true,
            // Digests are compared, so that the time it takes tells nothing of the token.
            (Some(given), Some(right)) => Sha256::digest(given) == Sha256::digest(right),
            _ => false,
        };
        if !same {
            return Err(Rejection::UnknownClient);
        }
        match secret.expiration {
            Some(end) if end <= now => Err(Rejection::ExpiredToken),
            _ => Ok(()),
        }
    }

    fn check_scope(&self, service: &str) -> Result<(), Rejection> {
        let mut wrong = Vec::new();
        if self.region.parse::<Region>().is_err() {
            wrong.push("Credential should be scoped to a valid region. ".to_owned());
        }
        if self.service != service {
            wrong.push(format!(
                "Credential should be scoped to correct service: '{service}'. "
            ));
        }
        if self.terminator != TERMINATOR {
            wrong.push(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}', not '{}'. ",
                shown(&self.terminator)
            ));
        }
        let day = self.amz_date.get(..8).unwrap_or_default();
        if self.scope_date != day {
            wrong.push(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{day}', from '{}'. ",
                shown(&self.scope_date),
                self.amz_date
            ));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Rejection::InvalidSignature(wrong.concat()))
        }
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Rejection> {
        let allowed = self.presigned_expires.unwrap_or(CLOCK_SKEW_MAX);
        let (signed, now_text) = (&self.amz_date, format_amz_date(now));
        let span = |allowed: Duration| match allowed.as_secs() {
            seconds if seconds % 60 == 0 => format!("{} min.", seconds / 60),
            seconds => format!("{seconds} sec."),
        };
        if self.signed_at + allowed < now {
            let earliest = format_amz_date(now - allowed);
            return Err(Rejection::InvalidSignature(format!(
                "Signature expired: {signed} is now earlier than {earliest} ({now_text} - {})",
                span(allowed)
            )));
        }
        if now + CLOCK_SKEW_MAX < self.signed_at {
            let latest = format_amz_date(now + CLOCK_SKEW_MAX);
            return Err(Rejection::InvalidSignature(format!(
                "Signature not yet current: {signed} is still later than {latest} ({now_text} + {})",
                span(CLOCK_SKEW_MAX)
            )));
        }
        Ok(())
    }
}

/// Whether an operation may be called with a body that the signature does not cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsignedPayload {
    Refused,
    Allowed,
}

/// A stranger's text, cut to what is safe to show in a message.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// AWS names the header it could not read by its digest instead of repeating it.
fn hashed(authorization: &str) -> String {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(authorization));
    format!(" (Hashed with SHA-256 and encoded with Base64) Authorization={digest}")
}
