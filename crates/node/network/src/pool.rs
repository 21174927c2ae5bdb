//! The range of addresses that an installation's containers have, and which one is free.
//!
//! What always holds: a chosen range overlaps with no route of the host, and so with no other
//! installation's, because each reserves its own by a route. The first address is the one that a
//! container sees where the host itself spoke to it; containers begin at the second.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network, such as `10.216.16.0/20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pool {
    network: u32,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network of 12 to 29 bits, such as 10.216.16.0/20")]
pub struct PoolError(String);

/// Where ranges are looked for, in this order: seldom used parts of the private networks, away from
/// what Docker, Podman, Kubernetes and AWS's default VPC take by themselves.
const CANDIDATES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 216, 0, 0), 13),
    (Ipv4Addr::new(10, 160, 0, 0), 13),
    (Ipv4Addr::new(172, 24, 0, 0), 14),
];
/// 4094 containers.
const PREFIX: u8 = 20;

impl Pool {
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self, PoolError> {
        let pool = Self {
            network: network.to_bits(),
            prefix,
        };
        // Five hexadecimal digits of the interface's name are left for the address, so 20 bits.
        if !(12..=29).contains(&prefix) || pool.network & !pool.mask() != 0 {
            return Err(PoolError(format!("{network}/{prefix}")));
        }
        Ok(pool)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    pub(crate) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The host, as containers see it.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + 1)
    }

    pub(crate) fn address(self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network + slot)
    }

    /// Which of the pool's addresses this is.
    pub(crate) fn slot(self, address: Ipv4Addr) -> Option<u32> {
        (address.to_bits() & self.mask() == self.network).then(|| address.to_bits() - self.network)
    }

    /// The next free slot after the last that was given, so that an address rests before it is used again.
    pub(crate) fn next_slot(self, last: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
        let (first, end) = (2, (1u32 << (32 - u32::from(self.prefix))) - 1);
        let start = if (first..end - 1).contains(&last) {
            last + 1
        } else {
            first
        };
        (start..end).chain(first..start).find(|slot| is_free(*slot))
    }

    pub(crate) fn overlaps(self, other: Network) -> bool {
        let shorter = self.prefix.min(other.prefix);
        let mask = u32::MAX
            .checked_shl(32 - u32::from(shorter))
            .unwrap_or_default();
        self.network & mask == other.address.to_bits() & mask
    }

    /// A range that none of `taken` overlaps. Installations begin to look at different places, so that
    /// two that start together seldom want the same.
    pub(crate) fn choose(taken: &[Network], seed: u32) -> Option<Self> {
        CANDIDATES.into_iter().find_map(|(network, prefix)| {
            let count = 1u32 << (PREFIX - prefix);
            (0..count)
                .map(|n| Self {
                    network: network.to_bits()
                        + ((seed.wrapping_add(n)) % count) * (1 << (32 - u32::from(PREFIX))),
                    prefix: PREFIX,
                })
                .find(|pool| !taken.iter().any(|route| pool.overlaps(*route)))
        })
    }
}

/// Any network that the host has a route to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let wrong = || PoolError(text.chars().take(64).collect());
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        Self::new(
            network.parse().map_err(|_| wrong())?,
            prefix.parse().map_err(|_| wrong())?,
        )
        .map_err(|_| wrong())
    }
}

impl TryFrom<String> for Pool {
    type Error = PoolError;

    fn try_from(text: String) -> Result<Self, PoolError> {
        text.parse()
    }
}

impl From<Pool> for String {
    fn from(pool: Pool) -> String {
        pool.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn a_range_avoids_every_route() {
        let taken = [network("10.216.0.0/13"), network("10.160.0.0/14")];
        let pool = Pool::choose(&taken, 7).unwrap();
        assert!(taken.iter().all(|route| !pool.overlaps(*route)), "{pool}");
        assert_eq!(
            Pool::choose(&[network("0.0.0.0/1"), network("128.0.0.0/1")], 7),
            None
        );
    }

    #[test]
    fn an_address_rests_before_it_is_used_again() {
        let pool: Pool = "10.0.0.0/29".parse().unwrap();
        assert_eq!(pool.next_slot(0, |_| true), Some(2));
        assert_eq!(pool.next_slot(2, |_| true), Some(3));
        // The last address of a network is nobody's.
        assert_eq!(pool.next_slot(6, |_| true), Some(2));
        assert_eq!(pool.next_slot(4, |slot| slot == 4), Some(4));
        assert_eq!(pool.next_slot(4, |_| false), None);
    }

    proptest! {
        #[test]
        fn every_slot_is_found_and_has_its_own_address(prefix in 22u8..=29, last in 0u32..2000) {
            let pool = Pool::new(Ipv4Addr::new(10, 0, 0, 0), prefix).unwrap();
            let mut given = std::collections::BTreeSet::new();
            let mut last = last;
            while let Some(slot) = pool.next_slot(last, |slot| !given.contains(&slot)) {
                prop_assert_eq!(pool.slot(pool.address(slot)), Some(slot));
                given.insert(slot);
                last = slot;
            }
            // All but the network, the host and the broadcast address.
            prop_assert_eq!(given.len(), (1usize << (32 - prefix)) - 3);
        }

        #[test]
        fn a_range_is_read_as_it_was_written(network in any::<u32>(), prefix in 12u8..=29) {
            let network = Ipv4Addr::from_bits(network & (u32::MAX << (32 - prefix)));
            let pool = Pool::new(network, prefix).unwrap();
            prop_assert_eq!(pool.to_string().parse(), Ok(pool));
        }
    }
}
