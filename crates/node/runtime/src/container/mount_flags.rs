//! Flags of mounts that stand already, which rustix has no call for.
//!
//! What always holds: flags are only added, never taken away.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub(super) const READ_ONLY: u64 = 0x1;
pub(super) const NO_SET_USER_ID: u64 = 0x2;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The mount itself.
    One,
    /// With all that is mounted below it.
    All,
}

/// Adds `flags` to the mount whose root is open as `root`.
pub(super) fn add(root: impl AsFd, flags: u64, depth: Depth) -> io::Result<()> {
    let attributes = MountAttributes {
        set: flags,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    let how_deep = match depth {
        Depth::One => 0,
        Depth::All => libc::AT_RECURSIVE,
    };
    // SAFETY: the path ends with a NUL, and the attributes are as long as is said.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            root.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | how_deep,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if changed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
