//! An image's name as people write it: `[registry/]repository[:tag][@digest]`.
//!
//! What always holds: without a registry it is Docker's (`docker.io`, and `library/` for one word), as
//! everywhere; with neither tag nor digest the tag is `latest`. Display writes it in full.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {value:?}: {problem}")]
pub struct ReferenceError {
    value: String,
    problem: &'static str,
}

impl ImageReference {
    /// `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:` and 64 hexadecimal digits. Where there is one, the tag does not count.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What stands after `/manifests/` in a request.
    pub fn selector(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// The same image, pinned to what its tag stood for.
    pub fn with_digest(&self, digest: &str) -> Result<Self, ReferenceError> {
        check_digest(digest).map_err(|problem| ReferenceError {
            value: digest.chars().take(256).collect(),
            problem,
        })?;
        Ok(Self {
            digest: Some(digest.to_owned()),
            ..self.clone()
        })
    }

    fn parse(value: &str) -> Result<Self, &'static str> {
        if value.len() > 1024 {
            return Err("it is longer than 1024 characters");
        }
        let (rest, digest) = match value.split_once('@') {
            Some((rest, digest)) => {
                check_digest(digest)?;
                (rest, Some(digest.to_owned()))
            }
            None => (value, None),
        };
        // A colon after the last slash starts a tag; before it, it belongs to a port.
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') => {
                let tag = &rest[colon + 1..];
                check_tag(tag)?;
                (&rest[..colon], Some(tag.to_owned()))
            }
            _ => (rest, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':']) || first == "localhost" || has_upper(first) =>
            {
                check_registry(first)?;
                (first.to_owned(), path.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), name.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{name}")),
        };
        check_repository(&repository)?;
        let tag = match (&tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            _ => tag,
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(value: &str) -> Result<Self, ReferenceError> {
        Self::parse(value).map_err(|problem| ReferenceError {
            value: value.chars().take(256).collect(),
            problem,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ReferenceError;

    fn try_from(value: String) -> Result<Self, ReferenceError> {
        value.parse()
    }
}

impl From<ImageReference> for String {
    fn from(reference: ImageReference) -> String {
        reference.to_string()
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.rsplit_once(':') {
        // A colon between brackets belongs to an address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !port.is_none_or(is_port) {
        return Err("the registry's port is not a number up to 65535");
    }
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        }
    };
    if host_ok {
        Ok(())
    } else {
        Err("the registry is not a host name")
    }
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if has_upper(repository) {
        return Err("repository name must be lowercase");
    }
    let part_ok = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !part.contains("..")
    };
    if repository.len() <= 255 && repository.split('/').all(part_ok) {
        Ok(())
    } else {
        Err("the repository's name is not well formed")
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let ok = (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if ok {
        Ok(())
    } else {
        Err("the tag is not well formed")
    }
}

fn check_digest(digest: &str) -> Result<(), &'static str> {
    match digest.strip_prefix("sha256:") {
        Some(hex)
            if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Ok(())
        }
        _ => Err("the digest is not sha256: and 64 lower-case hexadecimal digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_forms_mean_docker() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:4566/team/app:v1", "localhost:4566/team/app:v1"),
            ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
            (
                "1.dkr.ecr.eu-west-1.example.org/app",
                "1.dkr.ecr.eu-west-1.example.org/app:latest",
            ),
        ];
        for (written, full) in cases {
            let reference: ImageReference = written.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<ImageReference>().unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference: ImageReference = format!("localhost:5/a:1@{digest}").parse().unwrap();
        assert_eq!(reference.selector(), digest);
        assert_eq!(reference.tag(), Some("1"));
        let pinned = "a".parse::<ImageReference>().unwrap();
        assert_eq!(pinned.with_digest(&digest).unwrap().selector(), digest);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "A",
            "a//b",
            "a/../b",
            "localhost:99999/a",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a b",
            "/a",
            "a/",
            "-a",
            "localhost:4566/",
            "a@md5:00",
            // None of these hosts can stand in a URL.
            "a:b:80/x",
            "a]b.c/x",
            "[a.b]/x",
            "a.b:+80/x",
            "a.b:/x",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad:?} was taken");
        }
    }
}
