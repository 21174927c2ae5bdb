//! One agent that is connected: frames in, frames out, never waiting for it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::protocol::{Message, Request, encode, take_frame};
use crate::spec::ContainerName;

/// An agent that reads so slowly is cut off; it finds everything on disk when it connects again.
const OUT_BYTES_MAX: usize = 4 << 20;

pub(super) struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Whom it wants to hear of, once the spool is longer than this.
    pub watched_logs: BTreeMap<ContainerName, u64>,
    pub is_gone: bool,
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

    pub fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes in what is there; whole requests come out.
    pub fn receive(&mut self) -> Vec<Request> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => {
                    self.is_gone = true;
                    break;
                }
                Ok(read) => self.incoming.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        loop {
            match take_frame(&mut self.incoming) {
                Ok(Some(frame)) => match serde_json::from_slice(&frame) {
                    Ok(request) => requests.push(request),
                    // A verb of a newer agent: it gets no answer and must not count on one.
                    Err(_) => continue,
                },
                Ok(None) => break,
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        requests
    }

    pub fn send(&mut self, message: &Message) {
        self.outgoing.extend(encode(message));
        if self.outgoing.len() > OUT_BYTES_MAX {
            self.is_gone = true;
        }
        self.flush();
    }

    pub fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => {
                    self.outgoing.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}
