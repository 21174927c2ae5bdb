//! An image's tag, and the reference by which a manifest is asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;
use super::digest::DigestError;

/// ECR's limit; the distribution specification's own is 128.
const LENGTH_MAX: usize = 300;

/// A tag: a letter, digit or `_`, then also `.` and `-`. It has no `:` `@` or `/`, so it can end
/// a row's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageTag(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an image tag has 1 to 300 letters, digits, '_', '.' and '-', and begins with none of the last two"
)]
pub struct InvalidTag;

impl ImageTag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageTag {
    type Err = InvalidTag;

    fn from_str(value: &str) -> Result<Self, InvalidTag> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = value.as_bytes();
        let valid = bytes.first().is_some_and(|b| word(*b))
            && bytes.len() <= LENGTH_MAX
            && bytes.iter().all(|b| word(*b) || *b == b'.' || *b == b'-');
        if valid {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidTag)
        }
    }
}

impl TryFrom<String> for ImageTag {
    type Error = InvalidTag;
    fn try_from(value: String) -> Result<Self, InvalidTag> {
        value.parse()
    }
}

impl From<ImageTag> for String {
    fn from(tag: ImageTag) -> Self {
        tag.0
    }
}

impl fmt::Display for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a manifest is named in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(ImageTag),
    Digest(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(value: &str) -> Result<Self, InvalidReference> {
        // A tag has no colon, so a colon always means that a digest was intended.
        if value.contains(':') {
            Ok(Self::Digest(value.parse()?))
        } else {
            Ok(Self::Tag(value.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_their_rule() {
        for good in ["latest", "v1.2-3", "_x", "A"] {
            assert!(good.parse::<ImageTag>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".x",
            "-x",
            "a/b",
            "a:b",
            "a@b",
            "..",
            "ä",
            &"a".repeat(301),
        ] {
            assert!(bad.parse::<ImageTag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_colon_means_a_digest() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.as_str().parse(), Ok(Reference::Digest(digest)));
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!("sha256:../x".parse::<Reference>().is_err());
    }
}
