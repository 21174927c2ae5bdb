//! How everything in the kernel is named, so that its owner is known from the name alone.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An installation's id: 8 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installation {
    text: String,
    number: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an installation id of 8 lower-case hexadecimal digits")]
pub struct InstallationError(String);

/// The host ends of every installation's veth pairs begin with this.
pub(crate) const LINK_PREFIX: &str = "gv";
/// Where `ip netns` looks for namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// The number that marks Gantry's routes as a routing protocol of its own (`ip route show proto 71`).
pub(crate) const ROUTE_PROTOCOL: u8 = 71;

impl Installation {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id as a number: the metric of the route that reserves the addresses.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn table(&self) -> String {
        format!("gantry-{}", self.text)
    }

    /// What the names of this installation's host ends begin with.
    pub(crate) fn link_prefix(&self) -> String {
        format!("{LINK_PREFIX}{}", self.text)
    }

    /// The host end of the veth pair of the container with the n-th address: at most 15 characters.
    pub(crate) fn link(&self, slot: u32) -> String {
        format!("{}{slot:x}", self.link_prefix())
    }

    pub(crate) fn namespace_prefix(&self) -> String {
        format!("gantry-{}-", self.text)
    }

    pub(crate) fn namespace(&self, slot: u32) -> PathBuf {
        PathBuf::from(NAMESPACES).join(format!("{}{slot:x}", self.namespace_prefix()))
    }
}

impl FromStr for Installation {
    type Err = InstallationError;

    fn from_str(text: &str) -> Result<Self, InstallationError> {
        let wrong = || InstallationError(text.chars().take(64).collect());
        let well_formed =
            text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            number: u32::from_str_radix(text, 16).map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_the_kernels_fifteen_characters() {
        let installation: Installation = "ffffffff".parse().unwrap();
        assert_eq!(installation.link(0xfffff).len(), 15);
        assert_eq!(installation.number(), u32::MAX);
    }

    #[test]
    fn other_words_are_no_ids() {
        for wrong in ["", "1234567", "123456789", "ABCDEF01", "+1234567"] {
            assert!(wrong.parse::<Installation>().is_err(), "{wrong}");
        }
    }
}
