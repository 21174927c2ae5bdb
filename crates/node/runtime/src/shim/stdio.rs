//! What a container's first process reads from and writes to, and the ends of it that the shim keeps.
//!
//! What always holds: without a terminal the output is two pipes, also where it goes nowhere, because libcontainer
//! opens a `/dev/null` again inside the container, for reading only, so that a program's writes to it would fail.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::container::Stdio;
use crate::logs::LogStream;
use crate::spec::ContainerSpec;

/// What the shim holds for the time that the container runs.
#[derive(Default)]
pub(super) struct Ends {
    /// Keeps standard input from being at its end.
    _stdin: Option<OwnedFd>,
    /// What the terminal comes through.
    terminal: Option<UnixStream>,
}

impl Ends {
    /// The terminal that the first process has made.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        let from = self.terminal.take()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(
            &from,
            &mut [io::IoSliceMut::new(&mut byte)],
            &mut ancillary,
            flags,
        )
        .ok()?;
        let terminal = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })?;
        rustix::io::ioctl_fionbio(&terminal, true).ok()?;
        Some(terminal)
    }
}

type Made = (Stdio, Ends, Vec<(LogStream, OwnedFd)>);

/// Makes what the container asks for.
pub(super) fn make(spec: &ContainerSpec) -> io::Result<Made> {
    let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    if spec.terminal {
        let (ours, theirs) = UnixStream::pair()?;
        let stdio = Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
            terminal: Some(theirs),
        };
        let ends = Ends {
            terminal: Some(ours),
            ..Ends::default()
        };
        return Ok((stdio, ends, Vec::new()));
    }
    let mut ends = Ends::default();
    let stdin = if spec.stdin_open {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        ends._stdin = Some(write);
        read
    } else {
        open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
    };
    let (out_read, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_read, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in [&out_read, &err_read] {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
        terminal: None,
    };
    let outputs = vec![(LogStream::Stdout, out_read), (LogStream::Stderr, err_read)];
    Ok((stdio, ends, outputs))
}
