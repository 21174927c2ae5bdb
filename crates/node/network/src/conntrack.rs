//! Forgetting connections that lead to a container which is gone, or past one that has just come.
//!
//! The kernel translates the packets of a connection as it did the first one. A peer that goes on
//! sending UDP to a host port would therefore be sent to a container's old address for ever.
//!
//! New kernels forget by what they are told of a connection. Older ones, Debian 12's for instance, refuse that and forget
//! only a connection whose both ends they are told, so there they are asked for the connections first.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols;
use rustix::io::Errno;

use crate::attachment::{PortBinding, Protocol};
use crate::elements::{attribute, nested, netfilter_header, netlink_message};
use crate::netlink::{HEADER, Netlink};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const REQUEST_ACK: u16 = 1 | 4;
const REQUEST_DUMP: u16 = 1 | 0x300;
const FAMILY_IPV4: u8 = 2;
/// What precedes the attributes of a message of netfilter's.
const NETFILTER_HEADER: usize = 4;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// Parts of a tuple, and of these.
const ADDRESSES: u16 = 1;
const SOURCE: u16 = 1;
const TRANSPORT: u16 = 2;
const PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// Which parts of a tuple count.
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;
/// The part of an attribute's kind that is no flag.
const KIND: u16 = 0x3fff;

/// Forgets every connection that a container with this address answered.
pub(crate) fn forget_answers_of(address: Ipv4Addr) -> io::Result<()> {
    forget(&Which::AnsweredBy(address))
}

/// Forgets every UDP flow to a host port that has just been given away.
pub(crate) fn forget_flows_to(binding: &PortBinding) -> io::Result<()> {
    if binding.protocol != Protocol::Udp {
        return Ok(());
    }
    forget(&Which::To {
        protocol: binding.protocol.number(),
        port: binding.host_port.to_be_bytes(),
    })
}

/// Which connections are meant.
enum Which {
    AnsweredBy(Ipv4Addr),
    To { protocol: u8, port: [u8; 2] },
}

impl Which {
    /// In the kernel's words: a part of a tuple, and that only this part counts.
    fn filter(&self) -> Vec<u8> {
        match self {
            Self::AnsweredBy(address) => {
                let ip = nested(ADDRESSES, &attribute(SOURCE, &address.octets()));
                let filter = [flags(1, 0), flags(2, BY_SOURCE)].concat();
                [nested(TUPLE_REPLY, &ip), nested(FILTER, &filter)].concat()
            }
            Self::To { protocol, port } => {
                let parts = [
                    attribute(PROTOCOL, &[*protocol]),
                    attribute(DESTINATION_PORT, port),
                ];
                let transport = nested(TRANSPORT, &parts.concat());
                let filter = [flags(1, BY_PROTOCOL | BY_DESTINATION_PORT), flags(2, 0)].concat();
                [nested(TUPLE_ORIGINAL, &transport), nested(FILTER, &filter)].concat()
            }
        }
    }

    /// The same of a connection that the kernel told, because a kernel that knows no filters tells all.
    fn holds(&self, connection: &[u8]) -> bool {
        let holds = || match self {
            Self::AnsweredBy(address) => {
                let reply = value(connection, TUPLE_REPLY)?;
                let source = value(value(reply, ADDRESSES)?, SOURCE)?;
                Some(source == address.octets())
            }
            Self::To { protocol, port } => {
                let transport = value(value(connection, TUPLE_ORIGINAL)?, TRANSPORT)?;
                let is_protocol = value(transport, PROTOCOL)? == [*protocol];
                Some(is_protocol && value(transport, DESTINATION_PORT)? == port)
            }
        };
        holds().unwrap_or(false)
    }
}

fn flags(kind: u16, flags: u32) -> Vec<u8> {
    attribute(kind, &flags.to_ne_bytes())
}

fn forget(which: &Which) -> io::Result<()> {
    let netlink = Netlink::open(protocols::NETLINK_NETFILTER)?;
    // Version 1 asks that the family counts when many are deleted.
    let refused = match delete(&netlink, 1, &which.filter()) {
        Err(error) => error,
        done => return done,
    };
    match Errno::from_io_error(&refused) {
        Some(Errno::INVAL | Errno::OPNOTSUPP) => {}
        _ => return Err(refused),
    }
    let mut connections = Vec::new();
    let question = [netfilter_header(FAMILY_IPV4, 0), which.filter()].concat();
    netlink.list(&netlink_message(GET, REQUEST_DUMP, &question), |message| {
        let connection = message.get(HEADER + NETFILTER_HEADER..).unwrap_or_default();
        if which.holds(connection) {
            connections.push(name(connection));
        }
    })?;
    for name in connections {
        delete(&netlink, 0, &name)?;
    }
    Ok(())
}

/// Deletes what the attributes name. What is not there is no error.
fn delete(netlink: &Netlink, version: u8, attributes: &[u8]) -> io::Result<()> {
    let mut payload = netfilter_header(FAMILY_IPV4, 0);
    payload[1] = version;
    payload.extend(attributes);
    match netlink.tell(&netlink_message(DELETE, REQUEST_ACK, &payload), 1) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// What names one connection and no later one between the same ends.
fn name(connection: &[u8]) -> Vec<u8> {
    attributes(connection)
        .filter(|(kind, _, _)| [TUPLE_ORIGINAL, ID, ZONE].contains(kind))
        .flat_map(|(_, whole, _)| whole.to_vec())
        .collect()
}

fn value(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, _, value)| (kind == wanted).then_some(value))
}

/// Each attribute's kind, its bytes as they came, and its value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & KIND;
        let value = bytes.get(4..length)?;
        let end = length.next_multiple_of(4).min(bytes.len());
        let whole;
        (whole, bytes) = bytes.split_at(end);
        Some((kind, whole, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(kind: u16, source: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let addresses = nested(ADDRESSES, &attribute(SOURCE, &source));
        let transport = [
            attribute(PROTOCOL, &[protocol]),
            attribute(DESTINATION_PORT, &port.to_be_bytes()),
        ];
        let transport = nested(TRANSPORT, &transport.concat());
        nested(kind, &[addresses, transport].concat())
    }

    #[test]
    fn only_the_connections_that_are_meant_are_told_from_what_the_kernel_tells() {
        let connection = [
            tuple(TUPLE_ORIGINAL, [192, 0, 2, 9], 17, 5353),
            tuple(TUPLE_REPLY, [10, 0, 0, 2], 17, 40_000),
            attribute(3, &[0; 4]),
            attribute(ID, &[1, 2, 3, 4]),
        ]
        .concat();
        let to = |protocol, port: u16| Which::To {
            protocol,
            port: port.to_be_bytes(),
        };
        assert!(to(17, 5353).holds(&connection));
        assert!(!to(6, 5353).holds(&connection));
        assert!(!to(17, 40_000).holds(&connection));
        let by = |address: [u8; 4]| Which::AnsweredBy(address.into());
        assert!(by([10, 0, 0, 2]).holds(&connection));
        assert!(!by([192, 0, 2, 9]).holds(&connection));
        let named = [
            tuple(TUPLE_ORIGINAL, [192, 0, 2, 9], 17, 5353),
            attribute(ID, &[1, 2, 3, 4]),
        ];
        assert_eq!(name(&connection), named.concat());
        // Nothing that is cut off anywhere is anything that is meant, or a panic.
        for end in 0..60 {
            assert!(!by([10, 0, 0, 2]).holds(&connection[..end]), "{end}");
        }
    }
}
