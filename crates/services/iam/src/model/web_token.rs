//! JSON Web Tokens of identity providers: what they claim, and what stands there for the signature.
//!
//! What always holds: a token that was read has every claim that AWS asks for, each in its form; no member of
//! it stands twice; it names one of the algorithms that Gantry verifies (never `none`, never a shared
//! secret). **Reading proves nothing**: a claim may be believed after [`super::web_keys::verify`] only.
//! What it leaves to others: keys, clocks, and which provider and audience are registered.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::json::{Json, parse};

/// Where AWS looks for a session's tags and its source identity.
const TAGS_CLAIM: &str = "https://aws.amazon.com/tags";
const SOURCE_IDENTITY_CLAIM: &str = "https://aws.amazon.com/source_identity";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
}

impl Algorithm {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            _ => None,
        }
    }
}

/// Why a token cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
    )]
    NotAToken,
    #[error("Missing a required claim: {0}")]
    Missing(&'static str),
    #[error("The claim {0} of the ID Token provided is not in its form")]
    Malformed(&'static str),
    #[error(
        "The ID Token provided is signed with {0}. RS256, RS384, RS512, ES256 and ES384 can be verified"
    )]
    Algorithm(String),
}

/// A token, its signature not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebToken {
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    pub claims: Claims,
    /// What was signed: the first two parts as they came.
    pub signed: String,
    pub signature: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    pub authorized_party: Option<String>,
    pub issued_at_s: i64,
    pub expires_at_s: i64,
    pub not_before_s: Option<i64>,
    pub methods: Vec<String>,
    pub email: Option<String>,
    pub source_identity: Option<String>,
    pub tags: Vec<(String, String)>,
    pub transitive: Vec<String>,
}

pub fn read(text: &str) -> Result<WebToken, Unreadable> {
    let not_a_token = || Unreadable::NotAToken;
    let (signed, signature) = text.rsplit_once('.').ok_or_else(not_a_token)?;
    let (header, claims) = signed.split_once('.').ok_or_else(not_a_token)?;
    let header = object(header)?;
    // An extension that must be understood is one that is not understood here.
    if member(&header, "crit").is_some() {
        return Err(Unreadable::NotAToken);
    }
    let named = text_of(member(&header, "alg")).ok_or_else(not_a_token)?;
    let algorithm = Algorithm::named(named)
        .ok_or_else(|| Unreadable::Algorithm(named.chars().take(16).collect()))?;
    let key_id = match member(&header, "kid") {
        None => None,
        Some(id) => Some(text_of(Some(id)).ok_or_else(not_a_token)?.to_owned()),
    };
    Ok(WebToken {
        algorithm,
        key_id,
        claims: read_claims(&object(claims)?)?,
        signed: signed.to_owned(),
        signature: URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| not_a_token())?,
    })
}

fn read_claims(members: &[(String, Json)]) -> Result<Claims, Unreadable> {
    let (tags, transitive) = match member(members, TAGS_CLAIM) {
        None => Default::default(),
        Some(claim) => read_tags(claim).ok_or(Unreadable::Malformed(TAGS_CLAIM))?,
    };
    let authorized_party = optional_text(members, "azp")?;
    let audiences = match member(members, "aud") {
        None if authorized_party.is_none() => return Err(Unreadable::Missing("aud")),
        None => Vec::new(),
        Some(claim) => texts(claim).ok_or(Unreadable::Malformed("aud"))?,
    };
    Ok(Claims {
        issuer: required_text(members, "iss")?,
        subject: required_text(members, "sub")?,
        audiences,
        authorized_party,
        issued_at_s: moment(members, "iat")?.ok_or(Unreadable::Missing("iat"))?,
        expires_at_s: moment(members, "exp")?.ok_or(Unreadable::Missing("exp"))?,
        not_before_s: moment(members, "nbf")?,
        methods: match member(members, "amr") {
            None => Vec::new(),
            Some(claim) => texts(claim).ok_or(Unreadable::Malformed("amr"))?,
        },
        email: optional_text(members, "email")?,
        source_identity: optional_text(members, SOURCE_IDENTITY_CLAIM)?,
        tags,
        transitive,
    })
}

type Tags = (Vec<(String, String)>, Vec<String>);

/// `{"principal_tags": {"Team": ["blue"]}, "transitive_tag_keys": ["Team"]}`: each tag has one value.
fn read_tags(claim: &Json) -> Option<Tags> {
    let Json::Object(members) = claim else {
        return None;
    };
    let mut tags = Vec::new();
    if let Some(given) = member(members, "principal_tags") {
        let Json::Object(given) = given else {
            return None;
        };
        for (key, values) in given {
            match texts(values)?.as_slice() {
                [value] => tags.push((key.clone(), value.clone())),
                _ => return None,
            }
        }
    }
    let transitive = match member(members, "transitive_tag_keys") {
        None => Vec::new(),
        Some(keys) => texts(keys)?,
    };
    Some((tags, transitive))
}

fn object(part: &str) -> Result<Vec<(String, Json)>, Unreadable> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.and_then(|text| parse(&text).ok()) {
        Some(Json::Object(members)) => Ok(members),
        _ => Err(Unreadable::NotAToken),
    }
}

pub(super) fn member<'a>(members: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    let mut found = members.iter().filter(|(known, _)| known == name);
    found.next().map(|(_, value)| value)
}

pub(super) fn text_of(value: Option<&Json>) -> Option<&str> {
    match value {
        Some(Json::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn required_text(members: &[(String, Json)], name: &'static str) -> Result<String, Unreadable> {
    optional_text(members, name)?.ok_or(Unreadable::Missing(name))
}

fn optional_text(
    members: &[(String, Json)],
    name: &'static str,
) -> Result<Option<String>, Unreadable> {
    match member(members, name) {
        None => Ok(None),
        value => match text_of(value) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Unreadable::Malformed(name)),
        },
    }
}

/// One text, or a list of texts.
fn texts(value: &Json) -> Option<Vec<String>> {
    let items = match value {
        Json::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let texts = items.iter();
    texts
        .map(|item| text_of(Some(item)).map(str::to_owned))
        .collect()
}

/// Seconds since 1970, which may have a fraction.
fn moment(members: &[(String, Json)], name: &'static str) -> Result<Option<i64>, Unreadable> {
    match member(members, name) {
        None => Ok(None),
        Some(Json::Number(text)) => match text.parse::<f64>() {
            // Conversion saturates, so a moment beyond every calendar stays beyond it.
            Ok(seconds) if seconds.is_finite() => Ok(Some(seconds.floor() as i64)),
            _ => Err(Unreadable::Malformed(name)),
        },
        Some(_) => Err(Unreadable::Malformed(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(header), part(claims), part("signature"))
    }

    const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"JWT"}"#;
    const CLAIMS: &str = r#"{"iss":"https://i.example","sub":"s","aud":["a","b"],"azp":"a","iat":1.5,"exp":2e9,
        "amr":["authenticated"],"https://aws.amazon.com/source_identity":"ann",
        "https://aws.amazon.com/tags":{"principal_tags":{"Team":["blue"]},"transitive_tag_keys":["Team"]}}"#;

    #[test]
    fn a_token_is_read_whole() {
        let read = read(&token(HEADER, CLAIMS)).unwrap();
        assert_eq!(read.algorithm, Algorithm::Es256);
        assert_eq!(read.key_id.as_deref(), Some("k1"));
        assert_eq!(read.signature, b"signature");
        let claims = read.claims;
        assert_eq!(
            (claims.issued_at_s, claims.expires_at_s),
            (1, 2_000_000_000)
        );
        assert_eq!(claims.audiences, ["a", "b"]);
        assert_eq!(claims.source_identity.as_deref(), Some("ann"));
        assert_eq!(claims.tags, [("Team".to_owned(), "blue".to_owned())]);
        assert_eq!(claims.transitive, ["Team"]);
    }

    #[test]
    fn what_is_not_a_token_of_ours_is_refused_with_its_reason() {
        let not = Unreadable::NotAToken;
        for text in [
            "",
            "a",
            "a.b",
            "a.b.c",
            "....",
            "ya29.an-access-token",
            "e30.e30.e30.e30.e30",
        ] {
            assert_eq!(read(text), Err(not.clone()), "{text:?}");
        }
        let minimal = r#"{"iss":"i","sub":"s","aud":"a","iat":1,"exp":2}"#;
        read(&token(HEADER, minimal)).unwrap();
        for header in [
            "[]",
            "{}",
            r#"{"alg":1}"#,
            r#"{"alg":"RS256","alg":"none"}"#,
            r#"{"alg":"RS256","kid":7}"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
        ] {
            assert_eq!(read(&token(header, minimal)), Err(not.clone()), "{header}");
        }
        for algorithm in ["none", "None", "HS256", "rs256", "ES512", "PS256"] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            let expected = Err(Unreadable::Algorithm(algorithm.into()));
            assert_eq!(read(&token(&header, minimal)), expected);
        }
        for (claims, reason) in [
            (
                r#"{"sub":"s","aud":"a","iat":1,"exp":2}"#,
                Unreadable::Missing("iss"),
            ),
            (
                r#"{"iss":"i","aud":"a","iat":1,"exp":2}"#,
                Unreadable::Missing("sub"),
            ),
            (
                r#"{"iss":"i","sub":"s","iat":1,"exp":2}"#,
                Unreadable::Missing("aud"),
            ),
            (
                r#"{"iss":"i","sub":"s","aud":"a","exp":2}"#,
                Unreadable::Missing("iat"),
            ),
            (
                r#"{"iss":"i","sub":"s","aud":"a","iat":1}"#,
                Unreadable::Missing("exp"),
            ),
            (
                r#"{"iss":"i","sub":"s","aud":"a","iat":1,"exp":"2"}"#,
                Unreadable::Malformed("exp"),
            ),
            (
                r#"{"iss":"i","sub":"s","aud":[1],"iat":1,"exp":2}"#,
                Unreadable::Malformed("aud"),
            ),
            (
                r#"{"iss":"i","sub":"","aud":"a","iat":1,"exp":2}"#,
                Unreadable::Malformed("sub"),
            ),
            (
                r#"{"iss":"i","iss":"j","sub":"s","aud":"a","iat":1,"exp":2}"#,
                not.clone(),
            ),
        ] {
            assert_eq!(read(&token(HEADER, claims)), Err(reason), "{claims}");
        }
    }
}
