//! Forgetting connections that lead to a container which is gone, or past one that has just come.
//!
//! The kernel translates the packets of a connection as it did the first one. A peer that goes on
//! sending UDP to a host port would therefore be sent to a container's old address for ever.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols;

use crate::attachment::{PortBinding, Protocol};
use crate::elements::{attribute, nested, netfilter_header, netlink_message};
use crate::netlink::Netlink;

const DELETE: u16 = 1 << 8 | 2;
const REQUEST_ACK: u16 = 1 | 4;
const FAMILY_IPV4: u8 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const FILTER: u16 = 25;
/// Which parts of a tuple count.
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Forgets every connection that a container with this address answered.
pub(crate) fn forget_answers_of(address: Ipv4Addr) -> io::Result<()> {
    let ip = nested(1, &attribute(1, &address.octets()));
    let filter = [flags(1, 0), flags(2, BY_SOURCE)].concat();
    delete(&[nested(TUPLE_REPLY, &ip), nested(FILTER, &filter)])
}

/// Forgets every UDP flow to a host port that has just been given away.
pub(crate) fn forget_flows_to(binding: &PortBinding) -> io::Result<()> {
    if binding.protocol != Protocol::Udp {
        return Ok(());
    }
    let transport = [
        attribute(1, &[binding.protocol.number()]),
        attribute(3, &binding.host_port.to_be_bytes()),
    ]
    .concat();
    let filter = [flags(1, BY_PROTOCOL | BY_DESTINATION_PORT), flags(2, 0)].concat();
    delete(&[
        nested(TUPLE_ORIGINAL, &nested(2, &transport)),
        nested(FILTER, &filter),
    ])
}

fn flags(kind: u16, flags: u32) -> Vec<u8> {
    attribute(kind, &flags.to_ne_bytes())
}

fn delete(attributes: &[Vec<u8>]) -> io::Result<()> {
    let mut payload = netfilter_header(FAMILY_IPV4, 0);
    // Version 1 asks that the family counts when many are deleted.
    payload[1] = 1;
    payload.extend(attributes.concat());
    let message = netlink_message(DELETE, REQUEST_ACK, &payload);
    match Netlink::open(protocols::NETLINK_NETFILTER)?.tell(&message, 1) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
