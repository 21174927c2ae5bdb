//! Making sure that an interface which is up also sends.
//!
//! The kernel opens the end of a pair that came up first a moment after the other, in work of its own, and
//! drops what is sent before: a container's first question to a resolver, say, which is asked again only
//! after seconds. Asking for the state of the link has the kernel do that work at once.

use std::io;

use netlink_sys::protocols;

use crate::elements::{attribute, c_string, nested, netlink_message};
use crate::netlink::{ERROR, HEADER, Netlink};

const REQUEST: u16 = 1;
const REQUEST_ACK: u16 = 1 | 4;
/// The family that knows the others.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const GET_LINK_STATE: u8 = 6;

/// Asks about links of the namespace in which it was opened.
pub(crate) struct Carrier(Netlink);

impl Carrier {
    pub fn open() -> io::Result<Self> {
        Netlink::open(protocols::NETLINK_GENERIC).map(Self)
    }

    /// Returns once the interface sends what it is given.
    pub fn settle(&self, link: &str) -> io::Result<()> {
        let name = nested(1, &attribute(2, &c_string(link)));
        let message = generic(self.family()?, REQUEST_ACK, GET_LINK_STATE, &name);
        self.0.tell(&message, 1)
    }

    /// The number of the family `ethtool`, which the kernel draws at its start.
    fn family(&self) -> io::Result<u16> {
        let name = attribute(2, &c_string("ethtool"));
        let mut family = None;
        self.0.ask(
            &generic(CONTROL, REQUEST, GET_FAMILY, &name),
            |kind, message| {
                if kind != ERROR {
                    family = number(message);
                }
                Ok(true)
            },
        )?;
        family.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn generic(family: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let payload = [&[command, 1, 0, 0], attributes].concat();
    netlink_message(family, flags, &payload)
}

/// The attribute 1 of an answer.
fn number(message: &[u8]) -> Option<u16> {
    let mut rest = message.get(HEADER + 4..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        if kind == 1 {
            return Some(u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}
