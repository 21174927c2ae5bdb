//! Ids and digests that operations draw or compute.

use gantry_env::Env;
use sha2::{Digest, Sha256};

/// A random UUID (version 4), the last part of a container's ARN.
pub(super) fn uuid(env: &Env) -> String {
    uuid_of(env.entropy.bytes16())
}

/// The UUID that sixteen bytes make.
pub(crate) fn uuid_of(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

pub(super) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}
