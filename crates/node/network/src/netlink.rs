//! Asking the kernel over a netlink socket, and waiting for what it says to each message.
//!
//! What always holds: a call returns once every message of it is answered, and with the first refusal.
//! A socket stays in the network namespace in which it was opened, whoever uses it.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};

pub(crate) const HEADER: usize = 16;
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Interfaces, addresses, neighbours and routes.
pub(crate) struct Routes(Netlink);

impl Routes {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        Netlink::open(protocols::NETLINK_ROUTE).map(Self)
    }

    /// Each message with its flags, carried out in this order.
    pub fn tell(&self, messages: Vec<(RouteNetlinkMessage, u16)>) -> io::Result<()> {
        let mut bytes = Vec::new();
        let count = messages.len();
        for (n, (message, flags)) in messages.into_iter().enumerate() {
            encode(message, NLM_F_REQUEST | NLM_F_ACK | flags, n, &mut bytes);
        }
        self.0.tell(&bytes, count)
    }

    /// One thing, by what names it.
    pub fn get(&self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        encode(message, NLM_F_REQUEST, 0, &mut bytes);
        let mut found = None;
        self.0.ask(&bytes, |kind, message| {
            if kind == ERROR {
                return refusal(message).map_or(Ok(true), Err);
            }
            found = Some(decode(message)?);
            Ok(true)
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Everything of a kind.
    pub fn list(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        encode(message, NLM_F_REQUEST | NLM_F_DUMP, 0, &mut bytes);
        // What this build cannot read is nothing that it made.
        let mut found = Vec::new();
        self.0
            .list(&bytes, |message| found.extend(decode(message).ok()))?;
        Ok(found)
    }
}

fn encode(message: RouteNetlinkMessage, flags: u16, sequence: usize, into: &mut Vec<u8>) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence as u32;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = into.len();
    into.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut into[start..]);
}

fn decode(message: &[u8]) -> io::Result<RouteNetlinkMessage> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
        .map_err(|error| io::Error::other(error.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
    }
}

/// A netlink socket that speaks any protocol.
pub(crate) struct Netlink(Socket);

impl Netlink {
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends messages of which `answers` ask for one, and waits for them all. The first refusal is returned.
    pub fn tell(&self, bytes: &[u8], answers: usize) -> io::Result<()> {
        let (mut answered, mut refused) = (0, None);
        self.ask(bytes, |kind, message| {
            if kind == ERROR {
                answered += 1;
                refused = refused.take().or_else(|| refusal(message));
            }
            Ok(answered == answers)
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Sends a message that asks for everything of a kind, and gives each thing to `take`.
    pub fn list(&self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(bytes, |kind, message| match kind {
            DONE => Ok(true),
            ERROR => refusal(message).map_or(Ok(true), Err),
            _ => {
                take(message);
                Ok(false)
            }
        })
    }

    /// Gives each message that comes to `take`, until it says that it was the last.
    pub fn ask(
        &self,
        bytes: &[u8],
        mut take: impl FnMut(u16, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        self.0.send(bytes, 0)?;
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((kind, length)) = header(rest) {
                if take(kind, &rest[..length])? {
                    return Ok(());
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A message's type and length, if a whole one is there.
fn header(bytes: &[u8]) -> Option<(u16, usize)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER && length <= bytes.len()).then_some((kind, length))
}

/// What an answer of the kind ERROR refuses; zero is consent.
fn refusal(message: &[u8]) -> Option<io::Error> {
    let code = message.get(HEADER..HEADER + 4)?;
    match i32::from_ne_bytes(code.try_into().ok()?) {
        0 => None,
        code => Some(io::Error::from_raw_os_error(-code)),
    }
}
