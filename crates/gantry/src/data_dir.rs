//! The data directory of one installation: its layout, its identity and who is running on it.
//!
//! ```text
//! installation.json   who this is: installation id, layout version. Made once
//! up.json             the `gantry up` that runs now: process, start time, endpoint
//! root-credentials    the root access key, for `gantry env` (0600)
//! store/              rows
//! archive/            log events
//! registry/           image blobs
//! node/               the agent's journal, images and tasks
//! tls/                Gantry's own certificate authority
//! node-credentials    of a `gantry agent` only: the key with which it joined (0600)
//! join-nonce          of a `gantry agent` only: what it is known by when it joins again (0600)
//! ```
//! A directory whose layout version this build does not know is refused, never converted by guess.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use gantry_env::Entropy;
use serde::{Deserialize, Serialize};

/// Where an installation lives when nothing else is said.
pub const DEFAULT: &str = "/var/lib/gantry";

const LAYOUT_VERSION: u32 = 1;

/// A data directory that exists and whose layout is known.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    installation: Installation,
}

/// `installation.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Installation {
    layout_version: u32,
    /// Eight hexadecimal digits that mark everything of this installation in the kernel.
    installation_id: String,
}

/// `up.json`: the running `gantry up`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningUp {
    pub pid: u32,
    /// In clock ticks since boot, as the kernel tells it: a pid alone may have been used again.
    pub started_at_ticks: u64,
    /// `http://127.0.0.1:4566`.
    pub endpoint: String,
}

/// The root access key, as `gantry env` prints it.
#[derive(Clone, Serialize, Deserialize)]
pub struct RootCredentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub endpoint: String,
    pub region: String,
}

impl DataDir {
    /// Opens a data directory, making it on first use.
    pub fn create_or_open(path: &Path, entropy: &dyn Entropy) -> anyhow::Result<DataDir> {
        fs::create_dir_all(path)
            .with_context(|| format!("could not make the data directory {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
        let path = path.canonicalize()?;
        if !path.join("installation.json").exists() {
            let mut bytes = [0u8; 4];
            entropy.fill(&mut bytes);
            let installation = Installation {
                layout_version: LAYOUT_VERSION,
                installation_id: bytes.iter().map(|b| format!("{b:02x}")).collect(),
            };
            write_atomically(
                &path.join("installation.json"),
                &serde_json::to_vec_pretty(&installation)?,
                0o644,
            )?;
        }
        DataDir::open(&path)
    }

    /// Opens a data directory that an `up` has made before.
    pub fn open(path: &Path) -> anyhow::Result<DataDir> {
        let file = path.join("installation.json");
        let bytes = fs::read(&file).with_context(|| {
            format!(
                "{} is not a data directory of Gantry; `gantry up --data-dir {}` makes one",
                path.display(),
                path.display()
            )
        })?;
        let installation: Installation = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", file.display()))?;
        if installation.layout_version != LAYOUT_VERSION {
            bail!(
                "{} has layout version {}, and this gantry knows version {LAYOUT_VERSION}: use the gantry that made it",
                path.display(),
                installation.layout_version
            );
        }
        Ok(DataDir {
            path: path.canonicalize()?,
            installation,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn installation_id(&self) -> &str {
        &self.installation.installation_id
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    pub fn archive(&self) -> PathBuf {
        self.path.join("archive")
    }

    pub fn registry(&self) -> PathBuf {
        self.path.join("registry")
    }

    pub fn node(&self) -> PathBuf {
        self.path.join("node")
    }

    pub fn tls(&self) -> PathBuf {
        self.path.join("tls")
    }

    /// Keeps every other process off this directory for as long as the answer lives. (An `up` needs
    /// none: its store is locked.)
    pub fn lock(&self) -> anyhow::Result<fs::File> {
        let file = fs::File::open(self.path.join("installation.json"))?;
        file.try_lock().with_context(|| {
            format!(
                "{} is in use by another agent; give this one another --data-dir",
                self.path.display()
            )
        })?;
        Ok(file)
    }

    /// Says that this process serves on `endpoint` from now on.
    pub fn write_running(&self, endpoint: &str) -> anyhow::Result<()> {
        let pid = std::process::id();
        let running = RunningUp {
            pid,
            started_at_ticks: start_ticks(pid)
                .context("could not read this process's start time from /proc")?,
            endpoint: endpoint.to_owned(),
        };
        write_atomically(
            &self.path.join("up.json"),
            &serde_json::to_vec_pretty(&running)?,
            0o644,
        )
    }

    /// Says that nothing serves any more.
    pub fn clear_running(&self) {
        // A file that stays behind does no harm: it names a process that is gone.
        let _ = fs::remove_file(self.path.join("up.json"));
    }

    /// The `gantry up` that is alive on this directory now, if one is.
    pub fn running(&self) -> Option<RunningUp> {
        let bytes = fs::read(self.path.join("up.json")).ok()?;
        let running: RunningUp = serde_json::from_slice(&bytes).ok()?;
        (start_ticks(running.pid) == Some(running.started_at_ticks)).then_some(running)
    }

    /// Keeps the root key where `gantry env` finds it; under sudo the caller gets a private copy.
    pub fn write_root_credentials(&self, credentials: &RootCredentials) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(credentials)?;
        write_atomically(&self.path.join("root-credentials"), &bytes, 0o600)?;
        if let Some(caller) = SudoCaller::detect() {
            caller
                .write_copy(&self.path, &bytes)
                .context("could not give the user behind sudo a copy of the root credentials")?;
        }
        Ok(())
    }

    /// The root key of the installation at `path`: from the directory itself, or from the copy made for this user.
    pub fn read_root_credentials(path: &Path) -> anyhow::Result<RootCredentials> {
        let own = fs::read(path.join("root-credentials"));
        let bytes = match own {
            Ok(bytes) => bytes,
            Err(error) => {
                let home = std::env::var_os("HOME")
                    .map(PathBuf::from)
                    .unwrap_or_default();
                let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                fs::read(copy_path(&home, &resolved)).with_context(|| match error.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        format!("the root key in {} belongs to root; run `sudo gantry env` or start Gantry through sudo", path.display())
                    }
                    _ => format!("no installation in {}; `gantry up --data-dir {}` makes one", path.display(), path.display()),
                })?
            }
        };
        serde_json::from_slice(&bytes).context("the root credentials are damaged")
    }
}

/// The user who ran `sudo gantry up`.
struct SudoCaller {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl SudoCaller {
    fn detect() -> Option<SudoCaller> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let uid = number("SUDO_UID").filter(|uid| *uid != 0)?;
        let gid = number("SUDO_GID")?;
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let home = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse::<u32>().ok()? == uid)
                .then(|| PathBuf::from(fields.get(5).copied().unwrap_or_default()))
        })?;
        Some(SudoCaller { uid, gid, home })
    }

    fn write_copy(&self, data_dir: &Path, bytes: &[u8]) -> anyhow::Result<()> {
        let file = copy_path(&self.home, data_dir);
        let folder = file.parent().context("the folder of the copy")?;
        fs::create_dir_all(folder)?;
        std::os::unix::fs::chown(folder, Some(self.uid), Some(self.gid))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        write_atomically(&file, bytes, 0o600)?;
        std::os::unix::fs::chown(&file, Some(self.uid), Some(self.gid))?;
        Ok(())
    }
}

fn copy_path(home: &Path, data_dir: &Path) -> PathBuf {
    let name = data_dir
        .to_string_lossy()
        .trim_matches('/')
        .replace('/', "-");
    home.join(".gantry").join(format!("{name}.json"))
}

/// Writes a file so that a reader, also after a crash, sees the old content or the new one.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .with_context(|| format!("could not write {}", temporary.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    Ok(())
}

/// When a process started, in clock ticks since boot; `None` if there is none, or only its parent has yet to notice.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything, so fields are counted after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_installation_id() {
        let folder = tempfile::tempdir().unwrap();
        let entropy = gantry_env::Env::real().entropy;
        let first = DataDir::create_or_open(folder.path(), &*entropy).unwrap();
        let second = DataDir::create_or_open(folder.path(), &*entropy).unwrap();
        assert_eq!(first.installation_id(), second.installation_id());
        assert_eq!(first.installation_id().len(), 8);
    }

    #[test]
    fn an_unknown_layout_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("installation.json"),
            r#"{"layout_version":99,"installation_id":"00000000"}"#,
        )
        .unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("layout version 99"), "{refused}");
    }

    #[test]
    fn only_a_live_process_counts_as_running() {
        let folder = tempfile::tempdir().unwrap();
        let dir =
            DataDir::create_or_open(folder.path(), &*gantry_env::Env::real().entropy).unwrap();
        assert!(dir.running().is_none());
        dir.write_running("http://127.0.0.1:1").unwrap();
        assert_eq!(dir.running().unwrap().pid, std::process::id());
        let gone = r#"{"pid":1,"started_at_ticks":12345678901,"endpoint":"x"}"#;
        fs::write(folder.path().join("up.json"), gone).unwrap();
        assert!(dir.running().is_none());
    }
}
