//! Adding and removing elements of nftables sets and maps, over netlink.
//!
//! The table itself is read by `nft` once a process (`firewall`); what changes with every container
//! goes this way, because starting `nft` takes longer than all the rest of attaching a container.
//!
//! What always holds: the additions of one call happen all together or not at all, but for those of more than two thousand
//! ports, which whoever asked takes away again where they end half way.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols;

use crate::attachment::Protocol;
use crate::netlink::Netlink;

/// An element of one of the table's sets, which are described in `firewall`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    /// This interface may send with this address.
    Owner { link: String, address: Ipv4Addr },
    /// This address speaking to itself through a host port.
    SelfTraffic { address: Ipv4Addr },
    /// A host port and where it leads.
    Port {
        protocol: Protocol,
        host_port: u16,
        address: Ipv4Addr,
        container_port: u16,
    },
}

impl Element {
    pub fn set(&self) -> &'static str {
        match self {
            Self::Owner { .. } => "owners",
            Self::SelfTraffic { .. } => "selves",
            Self::Port { .. } => "ports",
        }
    }

    /// The parts of a key, each filled up to four bytes, as the kernel compares them.
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Owner { link, address } => {
                let mut key = link.as_bytes().to_vec();
                key.resize(16, 0);
                key.extend(address.octets());
                key
            }
            Self::SelfTraffic { address } => [address.octets(), address.octets()].concat(),
            Self::Port {
                protocol,
                host_port,
                ..
            } => {
                let [high, low] = host_port.to_be_bytes();
                vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
            }
        }
    }

    fn data(&self) -> Option<Vec<u8>> {
        match self {
            Self::Port {
                address,
                container_port,
                ..
            } => {
                let [high, low] = container_port.to_be_bytes();
                Some([address.octets(), [high, low, 0, 0]].concat())
            }
            _ => None,
        }
    }
}

const SUBSYSTEM: u16 = 10;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

const FAMILY_INET: u8 = 1;

/// Adds all of them, or none.
pub(crate) fn add(table: &str, elements: &[Element]) -> io::Result<()> {
    transact(&messages(NEW_ELEMENT, CREATE, table, elements))
}

/// Removes them. What is not there is no error.
pub(crate) fn remove(table: &str, elements: &[Element]) -> io::Result<()> {
    // The kernel waits for every packet under way, once a call: one call for all, unless one is missing.
    match transact(&messages(DELETE_ELEMENT, 0, table, elements)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    for element in elements {
        let message = message(DELETE_ELEMENT, 0, table, element.set(), &[element]);
        match transact(&[message]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// A range of ports is many elements: as many go into one message as its length can tell.
const ELEMENTS_A_MESSAGE: usize = 512;
/// What a netlink socket sends at once without being asked to grow; more go in several transactions.
const MESSAGES_A_TRANSACTION: usize = 4;

/// All elements, those of one set together.
fn messages(kind: u16, flags: u16, table: &str, elements: &[Element]) -> Vec<Vec<u8>> {
    let mut by_set: BTreeMap<&str, Vec<&Element>> = BTreeMap::new();
    for element in elements {
        by_set.entry(element.set()).or_default().push(element);
    }
    let of_set = |(set, elements): (&str, Vec<&Element>)| -> Vec<Vec<u8>> {
        elements
            .chunks(ELEMENTS_A_MESSAGE)
            .map(|some| message(kind, flags, table, set, some))
            .collect()
    };
    by_set.into_iter().flat_map(of_set).collect()
}

fn transact(messages: &[Vec<u8>]) -> io::Result<()> {
    let boundary = |kind| netlink_message(kind, REQUEST, &netfilter_header(0, SUBSYSTEM));
    for messages in messages.chunks(MESSAGES_A_TRANSACTION) {
        let mut batch = boundary(BATCH_BEGIN);
        batch.extend(messages.concat());
        batch.extend(boundary(BATCH_END));
        Netlink::open(protocols::NETLINK_NETFILTER)?.tell(&batch, messages.len())?;
    }
    Ok(())
}

fn message(kind: u16, flags: u16, table: &str, set: &str, elements: &[&Element]) -> Vec<u8> {
    let mut list = Vec::new();
    for element in elements {
        let mut inner = nested(1, &attribute(1, &element.key()));
        if let Some(data) = element.data().filter(|_| kind == NEW_ELEMENT) {
            inner.extend(nested(2, &attribute(1, &data)));
        }
        list.extend(nested(1, &inner));
    }
    let mut payload = netfilter_header(FAMILY_INET, 0);
    payload.extend(attribute(1, &c_string(table)));
    payload.extend(attribute(2, &c_string(set)));
    payload.extend(nested(3, &list));
    netlink_message(kind, REQUEST | ACK | flags, &payload)
}

/// The header that every message to netfilter begins with.
pub(crate) fn netfilter_header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

pub(crate) fn netlink_message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(16 + payload.len());
    message.extend((16 + payload.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port: answers are counted, and the socket is asked by nobody else.
    message.extend([0; 8]);
    message.extend(payload);
    message
}

pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(8 + value.len());
    attribute.extend((4 + value.len() as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

pub(crate) fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, value)
}

pub(crate) fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}
