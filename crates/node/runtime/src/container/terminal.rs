//! A container's terminal, opened by its first process right before it becomes the program.
//!
//! What always holds: it is one of the container's own `/dev/pts`, so it has a name there, and belongs to the
//! container's user.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Makes a pseudo-terminal, stands in front of it, and hands its other end to the shim.
pub(super) fn open_terminal(shim: &UnixStream) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = open("/dev/ptmx", flags, Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the calls act on descriptors that are open here; the new one is owned at once; replacing the
    // standard three closes what libcontainer put there, which nothing in this process owns.
    let slave = unsafe {
        check(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlocked,
        ))?;
        let slave = check(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        ))?;
        let slave = OwnedFd::from_raw_fd(slave);
        // libcontainer has made this process the leader of a session.
        check(libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        for standard in 0..3 {
            check(libc::dup2(slave.as_raw_fd(), standard))?;
        }
        slave
    };
    drop(slave);
    let ends = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&ends));
    let byte = [io::IoSlice::new(b"t")];
    sendmsg(shim, &byte, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
