//! A directory that one process at a time may use.
//!
//! The lock is the kernel's (`flock`), so it ends with the process however that ends. The lock
//! file also says who holds it, for the message that a second process gives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Holds a directory until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{directory} is in use by {holder}. Stop that process, or choose another directory", directory = .directory.display())]
    InUse { directory: PathBuf, holder: String },
    #[error("{directory} cannot be used: {source}", directory = .directory.display())]
    Io {
        directory: PathBuf,
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Makes `directory` if it is missing, closes it to every other user, since what is kept in it
    /// (keys in rows, what tasks log) is nobody else's, and takes it.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            directory: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::InUse {
                    directory: directory.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Only for people: without it, say on a full disk, the lock holds all the same.
        let _ = name_holder(&mut file);
        Ok(Self { _file: file })
    }
}

fn name_holder(file: &mut File) -> io::Result<()> {
    let command: Vec<String> = std::env::args_os()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let text = format!("process {} ({})\n", std::process::id(), command.join(" "));
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // A foreign file could be of any size; a line of who is enough.
    let read = file.take(1024).read_to_string(&mut text);
    let line = text.lines().next().unwrap_or_default();
    match read {
        Ok(_) if !line.is_empty() => line.to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it_until_it_is_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(directory.path()).unwrap();
        let refused = DirectoryLock::take(directory.path())
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        DirectoryLock::take(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_taken_is_closed_to_other_users() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let _held = DirectoryLock::take(&directory).unwrap();
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
