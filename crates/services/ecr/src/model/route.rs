//! The paths of the distribution API, read from the right, because a repository's name has
//! slashes and may itself contain words such as `blobs`.

use gantry_arn::RepositoryName;

use super::digest::DigestError;
use super::tag::InvalidReference;
use super::upload::UploadId;
use super::{Digest, Reference};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: does this speak the API, and am I let in?
    Base,
    /// `/v2/_catalog`: which repositories are there? Not of the specification, and older than it.
    Catalog,
    Blob {
        repository: RepositoryName,
        digest: Digest,
    },
    Uploads {
        repository: RepositoryName,
    },
    Upload {
        repository: RepositoryName,
        upload: UploadId,
    },
    Manifest {
        repository: RepositoryName,
        reference: Reference,
    },
    Tags {
        repository: RepositoryName,
    },
    Referrers {
        repository: RepositoryName,
        digest: Digest,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("the path is none of the distribution API's")]
    Unknown,
    #[error("invalid repository name")]
    Name,
    #[error("{0}")]
    Digest(DigestError),
    #[error("{0}")]
    Reference(InvalidReference),
    #[error("the upload is unknown")]
    Upload,
}

impl Route {
    pub fn parse(path: &str) -> Result<Self, RouteError> {
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::Unknown)?,
            None => return Err(RouteError::Unknown),
        };
        let decoded: Option<Vec<String>> = rest.split('/').map(percent_decoded).collect();
        let segments = decoded.ok_or(RouteError::Unknown)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            // No repository's name begins with an underscore.
            ["_catalog"] => Ok(Self::Catalog),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads {
                    repository: repository(name)?,
                })
            }
            [name @ .., "blobs", "uploads", upload] => Ok(Self::Upload {
                repository: repository(name)?,
                upload: upload.parse().map_err(|_| RouteError::Upload)?,
            }),
            [name @ .., "blobs", digest] => Ok(Self::Blob {
                repository: repository(name)?,
                digest: parsed(digest)?,
            }),
            [name @ .., "manifests", reference] => Ok(Self::Manifest {
                repository: repository(name)?,
                reference: reference.parse().map_err(RouteError::Reference)?,
            }),
            [name @ .., "tags", "list"] => Ok(Self::Tags {
                repository: repository(name)?,
            }),
            [name @ .., "referrers", digest] => Ok(Self::Referrers {
                repository: repository(name)?,
                digest: parsed(digest)?,
            }),
            _ => Err(RouteError::Unknown),
        }
    }
}

fn repository(segments: &[&str]) -> Result<RepositoryName, RouteError> {
    // A segment may have been decoded to one with a slash; joined it would name another
    // repository than the path seems to, so it is refused.
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(RouteError::Name);
    }
    RepositoryName::new(segments.join("/")).map_err(|_| RouteError::Name)
}

fn parsed(digest: &str) -> Result<Digest, RouteError> {
    digest.parse().map_err(RouteError::Digest)
}

/// The value of a query's parameter, the first one where it is repeated.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query?
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(key, _)| *key == name);
    values
        .next()
        .and_then(|(_, value)| percent_decoded(&value.replace('+', " ")))
}

/// A text as a query's value: all but the unreserved characters escaped.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `None` where an escape is broken or what comes out is not text.
fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let escape = rest.get(..2)?;
            bytes.extend(hex::decode(escape).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::new(text).unwrap()
    }

    #[test]
    fn a_name_may_contain_the_words_of_the_api() {
        let digest = Digest::of(b"");
        assert_eq!(
            Route::parse(&format!("/v2/blobs/uploads/manifests/blobs/{digest}")),
            Ok(Route::Blob {
                repository: name("blobs/uploads/manifests"),
                digest
            })
        );
        assert_eq!(
            Route::parse("/v2/tags/list/tags/list"),
            Ok(Route::Tags {
                repository: name("tags/list")
            })
        );
        assert_eq!(Route::parse("/v2"), Ok(Route::Base));
        assert_eq!(Route::parse("/v2/_catalog"), Ok(Route::Catalog));
        assert_eq!(
            Route::parse("/v2/a/b/blobs/uploads/"),
            Ok(Route::Uploads {
                repository: name("a/b")
            })
        );
    }

    #[test]
    fn no_path_leaves_its_repository() {
        for (path, expected) in [
            ("/v2/../etc/manifests/latest", RouteError::Name),
            ("/v2/a%2F..%2Fb/manifests/latest", RouteError::Name),
            ("/v2/ab%2Fcd/manifests/latest", RouteError::Name),
            ("/v2/ab/blobs/uploads/../../x", RouteError::Unknown),
            ("/v2/ab/blobs/uploads/..%2fx", RouteError::Upload),
            ("/v2/manifests/latest", RouteError::Name),
            ("/v2/ab/other", RouteError::Unknown),
            ("/v2/ab/_catalog", RouteError::Unknown),
            ("/v2/_catalog/", RouteError::Unknown),
            ("/v1/", RouteError::Unknown),
            ("/v2x", RouteError::Unknown),
            ("/v2/ab/blobs/%zz", RouteError::Unknown),
        ] {
            assert_eq!(Route::parse(path), Err(expected), "{path}");
        }
        assert!(matches!(
            Route::parse("/v2/ab/blobs/sha256:..%2f..%2fetc"),
            Err(RouteError::Digest(_))
        ));
    }

    #[test]
    fn escaped_digests_are_read() {
        let digest = Digest::of(b"");
        let query = format!("mount={}&from=a%2Fb", digest.as_str().replace(':', "%3A"));
        assert_eq!(
            parameter(Some(&query), "mount").as_deref(),
            Some(digest.as_str())
        );
        assert_eq!(parameter(Some(&query), "from").as_deref(), Some("a/b"));
        assert_eq!(parameter(Some(&query), "digest"), None);
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in "\\PC{0,40}") {
            let query = format!("a={}&b=c", percent_encoded(&text));
            prop_assert_eq!(parameter(Some(&query), "a"), Some(text));
        }

        #[test]
        fn any_path_is_read_or_refused(path in "/v2/[a-z%0-9./:_\\-]{0,60}") {
            let _ = Route::parse(&path);
        }
    }
}
