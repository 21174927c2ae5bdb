//! Where a container's log has been delivered to, on disk.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct SavedOffset {
    path: PathBuf,
}

impl SavedOffset {
    pub fn new(directory: &Path, task: &str, container: &str) -> SavedOffset {
        SavedOffset {
            path: directory.join(format!("{task}.{container}")),
        }
    }

    /// Zero where nothing was saved: the service then knows what it holds already.
    pub fn load(&self) -> u64 {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Not synced: a killed process loses nothing of it, and a lost one is only a repeat.
    pub fn save(&self, offset: u64) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, offset.to_string())?;
        std::fs::rename(&fresh, &self.path)
    }

    pub fn remove(&self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.path);
    }
}
