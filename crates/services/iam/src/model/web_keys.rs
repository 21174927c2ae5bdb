//! The public keys of an identity provider (a JSON Web Key Set), and tokens held against them.
//!
//! What always holds: a key verifies only the algorithms of its own kind, and only the one it names if it
//! names one, so nobody picks a weaker algorithm for it. A token without a key id is held against a set of one key
//! only. RSA keys have 2,048 bits at least.
//! What it leaves to others: where the set comes from and how old it may be.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::model::json::{Json, parse};
use crate::model::web_token::{Algorithm, WebToken, member, text_of};

/// AWS takes 100 RSA and 100 elliptic keys of a provider.
const MAX_KEYS: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub id: Option<String>,
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unverified {
    /// The provider may have made a new key since.
    NoSuchKey,
    BadSignature,
}

/// The keys of a set that can verify tokens here. Others may stand beside them; `None` if it is no set.
pub fn read(text: &str) -> Option<Vec<PublicKey>> {
    let Ok(Json::Object(members)) = parse(text) else {
        return None;
    };
    let Some(Json::Array(keys)) = member(&members, "keys") else {
        return None;
    };
    if keys.len() > MAX_KEYS {
        return None;
    }
    Some(keys.iter().filter_map(read_key).collect())
}

fn read_key(key: &Json) -> Option<PublicKey> {
    let Json::Object(members) = key else {
        return None;
    };
    let text = |name: &str| text_of(member(members, name));
    let bytes = |name: &str| {
        URL_SAFE_NO_PAD
            .decode(text(name)?.trim_end_matches('='))
            .ok()
    };
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let material = match text("kty")? {
        "RSA" => Material::Rsa {
            modulus: unsigned(bytes("n")?)?,
            exponent: unsigned(bytes("e")?)?,
        },
        "EC" => {
            let size = match text("crv")? {
                "P-256" => 32,
                "P-384" => 48,
                _ => return None,
            };
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != size || y.len() != size {
                return None;
            }
            let point = [&[4][..], &x, &y].concat();
            match size {
                32 => Material::P256(point),
                _ => Material::P384(point),
            }
        }
        _ => return None,
    };
    let algorithm = match text("alg") {
        None => None,
        Some(name) => Some(Algorithm::named(name)?),
    };
    Some(PublicKey {
        id: text("kid").map(str::to_owned),
        algorithm,
        material,
    })
}

/// Without the zeros in front that some providers write, which no number needs.
fn unsigned(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[first..].to_vec())
}

/// Holds a token against the keys of its provider.
pub fn verify(keys: &[PublicKey], token: &WebToken) -> Result<(), Unverified> {
    let key = match &token.key_id {
        Some(id) => {
            let mut named = keys.iter().filter(|key| key.id.as_ref() == Some(id));
            // Two keys of one name would let whoever adds the second one choose.
            match (named.next(), named.next()) {
                (Some(key), None) => key,
                _ => return Err(Unverified::NoSuchKey),
            }
        }
        None => match keys {
            [key] => key,
            _ => return Err(Unverified::NoSuchKey),
        },
    };
    if key.algorithm.is_some_and(|only| only != token.algorithm) {
        return Err(Unverified::BadSignature);
    }
    let message = token.signed.as_bytes();
    let good = match (&key.material, token.algorithm) {
        (Material::Rsa { modulus, exponent }, algorithm) => {
            let parameters = match algorithm {
                Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                Algorithm::Es256 | Algorithm::Es384 => return Err(Unverified::BadSignature),
            };
            let key = RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            };
            key.verify(parameters, message, &token.signature)
        }
        (Material::P256(point), Algorithm::Es256) => {
            UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                .verify(message, &token.signature)
        }
        (Material::P384(point), Algorithm::Es384) => {
            UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                .verify(message, &token.signature)
        }
        (Material::P256(_) | Material::P384(_), _) => return Err(Unverified::BadSignature),
    };
    good.map_err(|_| Unverified::BadSignature)
}
