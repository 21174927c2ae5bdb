//! Gantry's own program, as the process that makes containers runs it.
//!
//! What always holds: it is executed from a mount of its own that is read-only, which no container can change. A
//! container that brings Gantry to run itself inside it (`#!/proc/self/exe`) then holds a file that nobody can write, also
//! when nothing runs it any more.

use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mount_flags::{self, Depth, NO_SET_USER_ID, READ_ONLY};

/// The view that shims are started from, made once: giving one up makes the kernel wait for all processors. It is made
/// anew when the file has been replaced, so that an upgrade is what runs next.
#[derive(Debug, Default)]
pub(crate) struct ShimProgram(Mutex<Option<Sealed>>);

#[derive(Debug)]
struct Sealed {
    /// The file that it is a view of.
    file: (u64, u64),
    view: Arc<OwnedFd>,
}

impl ShimProgram {
    /// To be executed as `/proc/self/fd/<number>` while this is open.
    pub(crate) fn at(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        let identity = |file: Metadata| (file.dev(), file.ino());
        let found = std::fs::metadata(path).map(identity);
        let mut sealed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match (found, &*sealed) {
            // One that was deleted is still to be had from its view.
            (Err(_), Some(known)) => return Ok(known.view.clone()),
            (Ok(file), Some(known)) if known.file == file => return Ok(known.view.clone()),
            (found, _) => found?,
        };
        let view = Arc::new(sealed_program(path)?);
        *sealed = Some(Sealed {
            file,
            view: view.clone(),
        });
        Ok(view)
    }
}

/// A read-only view of the program at `path`.
fn sealed_program(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = open_tree(CWD, path, flags)?;
    mount_flags::add(&view, READ_ONLY | NO_SET_USER_ID, Depth::One)?;
    Ok(view)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_what_runs_next() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let runs = |shim: &ShimProgram| {
            let view = shim.at(&program).unwrap();
            let path = format!("/proc/self/fd/{}", view.as_raw_fd());
            let status = std::process::Command::new(path).status().unwrap();
            (view.as_raw_fd(), status.success())
        };
        std::fs::copy("/bin/true", &program).unwrap();
        let shim = ShimProgram::default();
        let first = runs(&shim);
        assert!(first.1);
        assert_eq!(runs(&shim), first, "the same view");
        std::fs::copy("/bin/false", folder.path().join("new")).unwrap();
        std::fs::rename(folder.path().join("new"), &program).unwrap();
        let second = runs(&shim);
        assert!(!second.1);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(runs(&shim), second, "what was deleted");
    }

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
