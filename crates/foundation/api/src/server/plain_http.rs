//! Who may speak without TLS, where there is TLS.
//!
//! What always holds: without anybody's word secrets never cross a wire unencrypted, because plain HTTP is answered
//! on this machine only. A network is named by whoever knows that its wires are this machine's own: of its
//! containers or of its network namespaces, say.

use std::net::IpAddr;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// Callers on this machine, and in the networks that are named.
    SameMachineAnd(Vec<Network>),
    Anybody,
}

impl PlainHttp {
    /// Whether the caller at `peer` may, who came to `local`.
    pub(super) fn admits(&self, peer: IpAddr, local: IpAddr) -> bool {
        let (peer, local) = (peer.to_canonical(), local.to_canonical());
        match self {
            Self::Anybody => true,
            Self::SameMachineAnd(networks) => {
                peer.is_loopback()
                    || peer == local
                    || networks.iter().any(|network| network.contains(peer))
            }
        }
    }
}

/// Addresses with the same first bits: `10.77.0.0/16`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    #[error("it is not an address and a number of bits, such as 10.77.0.0/16")]
    Form,
    #[error("it has an address within the network, and the network's own is {0}")]
    NotItsOwn(String),
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && first_bits(address, self.bits) == self.address
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, bits) = text.split_once('/').ok_or(InvalidNetwork::Form)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork::Form)?;
        let bits: u8 = bits.parse().map_err(|_| InvalidNetwork::Form)?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        if bits > length {
            return Err(InvalidNetwork::Form);
        }
        let own = first_bits(address, bits);
        if own != address {
            return Err(InvalidNetwork::NotItsOwn(format!("{own}/{bits}")));
        }
        Ok(Self { address, bits })
    }
}

/// The address with all bits but the first ones cleared.
fn first_bits(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_the_networks_that_are_named_are_let_in() {
        let networks = ["10.77.0.0/16", "192.0.2.7/32", "fd00:1::/32"];
        let named = networks.map(|text| text.parse().unwrap()).to_vec();
        let nobody = PlainHttp::SameMachineAnd(Vec::new());
        let some = PlainHttp::SameMachineAnd(named);
        for (peer, local, by_nobody, by_some) in [
            ("127.0.0.1", "127.0.0.1", true, true),
            ("127.9.9.9", "127.0.0.1", true, true),
            ("::1", "::1", true, true),
            ("10.9.0.1", "10.9.0.1", true, true),
            ("::ffff:10.9.0.1", "10.9.0.1", true, true),
            ("10.77.255.1", "10.77.0.1", false, true),
            ("::ffff:10.77.255.1", "::ffff:10.77.0.1", false, true),
            ("10.78.0.1", "10.77.0.1", false, false),
            ("192.0.2.7", "192.0.2.1", false, true),
            ("192.0.2.8", "192.0.2.1", false, false),
            ("fd00:1:2::3", "fd00:1::1", false, true),
            ("fd00:2::3", "fd00:1::1", false, false),
        ] {
            let (peer_ip, local) = (peer.parse().unwrap(), local.parse().unwrap());
            assert_eq!(nobody.admits(peer_ip, local), by_nobody, "{peer}");
            assert_eq!(some.admits(peer_ip, local), by_some, "{peer}");
            assert!(PlainHttp::Anybody.admits(peer_ip, local));
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.1".parse().unwrap()));
        assert!(
            !all.contains("fd00::1".parse().unwrap()),
            "IPv6 is another world"
        );
    }

    #[test]
    fn a_network_is_an_address_and_a_number_of_bits() {
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/-1",
            "x/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(InvalidNetwork::Form), "{bad}");
        }
        let inside = "10.77.3.1/24".parse::<Network>().unwrap_err();
        assert!(inside.to_string().contains("10.77.3.0/24"), "{inside}");
    }
}
