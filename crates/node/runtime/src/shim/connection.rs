//! One agent that is connected: frames in, frames out, never waiting for it.
//!
//! What always holds: an agent that does not read is not read from either, until it has taken in what waits
//! for it. So what is kept for it is bounded without ever being cut off, which it would take for this shim's death.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::protocol::{Message, Request, UnknownRequest, encode, take_frame};
use crate::spec::ContainerName;

/// With so much to tell, nothing more is asked.
const OUT_BYTES_HIGH: usize = 256 << 10;
/// What is read at a time, so that one agent cannot keep the others waiting.
const IN_BYTES_A_TURN: usize = 64 << 10;

pub(super) struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Whom it wants to hear of, once the spool is longer than this.
    pub watched_logs: BTreeMap<ContainerName, u64>,
    pub is_gone: bool,
}

/// What an agent asked for.
pub(super) enum Asked {
    Known(Request),
    /// By a newer agent.
    Unknown(UnknownRequest),
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            watched_logs: BTreeMap::new(),
            is_gone: false,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub fn wants_to_read(&self) -> bool {
        self.outgoing.len() < OUT_BYTES_HIGH
    }

    pub fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes in what is there; whole requests come out.
    pub fn receive(&mut self) -> Vec<Asked> {
        let mut piece = [0; 4096];
        let mut taken = 0;
        while self.wants_to_read() && taken < IN_BYTES_A_TURN {
            match self.stream.read(&mut piece) {
                Ok(0) => {
                    self.is_gone = true;
                    break;
                }
                Ok(read) => {
                    taken += read;
                    self.incoming.extend_from_slice(&piece[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        let mut asked = Vec::new();
        loop {
            let frame = match take_frame(&mut self.incoming) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            };
            if let Ok(request) = serde_json::from_slice(&frame) {
                asked.push(Asked::Known(request));
            } else if let Ok(unknown) = serde_json::from_slice(&frame) {
                asked.push(Asked::Unknown(unknown));
            } else {
                // Without a number there is nothing to answer: whoever this is speaks something else.
                self.is_gone = true;
                break;
            }
        }
        asked
    }

    pub fn send(&mut self, message: &Message) {
        self.outgoing.extend(encode(message));
        self.flush();
    }

    pub fn flush(&mut self) {
        let mut written_bytes = 0;
        while written_bytes < self.outgoing.len() {
            match self.stream.write(&self.outgoing[written_bytes..]) {
                Ok(written) => written_bytes += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        self.outgoing.drain(..written_bytes);
        if self.outgoing.is_empty() {
            // What one long answer took is not kept for ever.
            self.outgoing.shrink_to(4096);
        }
    }
}
