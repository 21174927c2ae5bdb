//! The key in an X.509 certificate.
//!
//! What it leaves to others: everything else that a certificate says. As at AWS, metadata that somebody registered
//! are trusted for the keys in them, and neither the expiry nor the issuer of their certificates means anything.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
/// The explicit tag of a version.
const VERSION: u8 = 0xa0;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ELLIPTIC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

/// A key that a provider signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigningKey {
    kind: Kind,
    /// As ring takes it: PKCS #1, or a point.
    bytes: Vec<u8>,
}

/// How a text was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    RsaSha256,
    RsaSha384,
    RsaSha512,
    EcdsaSha256,
    EcdsaSha384,
}

impl Algorithm {
    pub fn of(uri: &str) -> Option<Self> {
        match uri.strip_prefix("http://www.w3.org/2001/04/xmldsig-more#")? {
            "rsa-sha256" => Some(Self::RsaSha256),
            "rsa-sha384" => Some(Self::RsaSha384),
            "rsa-sha512" => Some(Self::RsaSha512),
            "ecdsa-sha256" => Some(Self::EcdsaSha256),
            "ecdsa-sha384" => Some(Self::EcdsaSha384),
            _ => None,
        }
    }
}

impl SigningKey {
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (certificate, _) = expect(der, SEQUENCE)?;
        let (mut rest, _) = expect(certificate, SEQUENCE)?;
        if rest.first() == Some(&VERSION) {
            (_, rest) = expect(rest, VERSION)?;
        }
        // Serial number, signature, issuer, validity and subject.
        for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
            (_, rest) = expect(rest, tag)?;
        }
        let (info, _) = expect(rest, SEQUENCE)?;
        let (algorithm, key) = expect(info, SEQUENCE)?;
        let (algorithm, parameters) = expect(algorithm, OBJECT_ID)?;
        let kind = match algorithm {
            RSA => Kind::Rsa,
            ELLIPTIC => match expect(parameters, OBJECT_ID)?.0 {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return None,
            },
            _ => return None,
        };
        match expect(key, BIT_STRING)?.0 {
            [0, bytes @ ..] => Some(Self {
                kind,
                bytes: bytes.to_vec(),
            }),
            _ => None,
        }
    }

    pub(super) fn signed(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let verify: &'static dyn VerificationAlgorithm = match (self.kind, algorithm) {
            (Kind::Rsa, Algorithm::RsaSha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, Algorithm::RsaSha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, Algorithm::RsaSha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Kind::P256, Algorithm::EcdsaSha256) => &signature::ECDSA_P256_SHA256_FIXED,
            (Kind::P384, Algorithm::EcdsaSha384) => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return false,
        };
        UnparsedPublicKey::new(verify, &self.bytes)
            .verify(text, signature)
            .is_ok()
    }
}

/// The contents of the value of this tag that `input` begins with, and what follows it.
fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Up to four bytes of length; a length that is not told is not DER.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = bytes
                .iter()
                .fold(0, |len: usize, b| len << 8 | usize::from(*b));
            (len, rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_certificates_of_each_kind() {
        for (algorithm, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Kind::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Kind::P384),
        ] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::new(vec!["idp".into()])
                .unwrap()
                .self_signed(&pair)
                .unwrap();
            let key = SigningKey::of_certificate(certificate.der()).unwrap();
            assert_eq!(key.kind, kind);
            assert_eq!(key.bytes, rcgen::PublicKeyData::der_bytes(&pair));
            // Whatever is cut off it, nothing is found and nothing panics.
            for end in 0..certificate.der().len() - 100 {
                SigningKey::of_certificate(&certificate.der()[..end]);
            }
            assert_eq!(SigningKey::of_certificate(&certificate.der()[..40]), None);
        }
        for bad in [
            &b""[..],
            b"\x30",
            b"\x30\x80\x30\x80",
            b"\x30\x84\xff\xff\xff\xff\x30",
        ] {
            assert_eq!(SigningKey::of_certificate(bad), None);
        }
    }
}
