//! Which of an image's variants this machine runs.

use std::fmt;

/// Operating system and architecture, in the words of OCI (which are Go's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub os: &'static str,
    pub architecture: &'static str,
    /// The variant that an index may name and this machine runs.
    pub variant: Option<&'static str>,
}

impl Platform {
    pub fn of_this_machine() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            os: "linux",
            architecture,
            variant,
        }
    }

    pub fn runs(&self, os: &str, architecture: &str) -> bool {
        os == self.os && architecture == self.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
