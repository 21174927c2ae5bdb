//! Gantry's own program, as the process that makes containers runs it.
//!
//! What always holds: it is executed from a mount of its own that is read-only, which no container can change. A
//! container that brings Gantry to run itself inside it (`#!/proc/self/exe`) then holds a file that nobody can write, also
//! when nothing runs it any more.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const READ_ONLY: u64 = 0x1;
const NO_SET_USER_ID: u64 = 0x2;

/// A read-only view of the program at `path`: to be executed as `/proc/self/fd/<number>` while this is open.
pub(crate) fn sealed_program(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = open_tree(CWD, path, flags)?;
    let attributes = MountAttributes {
        set: READ_ONLY | NO_SET_USER_ID,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the path ends with a NUL, and the attributes are as long as is said.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if changed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_runs_and_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let sealed = sealed_program(&program).unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        assert!(
            std::process::Command::new(&path)
                .status()
                .unwrap()
                .success()
        );
        let written = std::fs::OpenOptions::new().write(true).open(&path);
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EROFS));
        // The file itself stays as it was, for its owner to replace.
        assert!(
            std::fs::OpenOptions::new()
                .write(true)
                .open(&program)
                .is_ok()
        );
    }
}
