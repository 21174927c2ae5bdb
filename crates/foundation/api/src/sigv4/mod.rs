//! AWS Signature Version 4, both ends of it: [`sign`] and [`presign`] for callers, [`Presented`]
//! for the server.
//!
//! What always holds: both ends build the canonical request with the same code, so they cannot
//! drift apart; nothing here does I/O or asks for the time; nothing a stranger sent can make it
//! panic; signatures are compared in constant time. Errors ([`Rejection`]) carry AWS's words and
//! become AWS's codes per protocol in the server.
//! What it leaves to others: finding the secret of a key (`auth`), reading bodies (`server`),
//! and payloads signed in chunks (only S3 uses them).

mod canonical;
mod key;
mod moment;
mod rejection;
mod sign;
mod verify;

pub use canonical::{Payload, Signable};
pub(crate) use canonical::{percent_decoded, push_encoded};
pub use moment::{format_amz_date, parse_amz_date};
pub use rejection::Rejection;
pub use sign::{Signing, SigningCredentials, SigningScope, UnsignableHeader, presign, sign};
pub use verify::{CLOCK_SKEW_MAX, Presented, SecretOf, UnsignedPayload};

/// The only algorithm that is spoken here.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The last element of every credential scope.
pub const TERMINATOR: &str = "aws4_request";
/// The longest life of a presigned request: a week, as at AWS.
pub const PRESIGNED_EXPIRES_MAX_S: u64 = 604_800;
