//! What an agent asks for: a task, and the containers in it.
//!
//! What always holds: these are written to disk as they are before anything is made, so every
//! member has a serde form that an older or newer build reads (new members have defaults).
//! Sizes are bytes and times are `Duration` or milliseconds, named so.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gantry_arn::TaskId;
use serde::{Deserialize, Serialize};

/// Marks everything in the kernel and on disk that belongs to one data directory: 8 lower-case
/// hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstallationId(String);

impl InstallationId {
    /// The id that four random bytes make.
    pub fn from_random(bytes: [u8; 4]) -> Self {
        Self(hex::encode(bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name that cannot be used in a path or a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct NameError {
    value: String,
    expected: &'static str,
}

impl FromStr for InstallationId {
    type Err = NameError;

    fn from_str(value: &str) -> Result<Self, NameError> {
        if value.len() == 8
            && value
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            Ok(Self(value.to_owned()))
        } else {
            Err(NameError {
                value: value.chars().take(64).collect(),
                expected: "an installation id of 8 lower-case hexadecimal digits",
            })
        }
    }
}

/// A container's name within its task: 1 to 255 letters, digits, `-`, `_` or `.`, as in a task
/// definition. A restarted container needs a name of its own, because its state and log are kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = NameError;

    fn from_str(value: &str) -> Result<Self, NameError> {
        let well_formed = (1..=255).contains(&value.len())
            && !value.starts_with('.')
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if well_formed {
            Ok(Self(value.to_owned()))
        } else {
            Err(NameError {
                value: value.chars().take(64).collect(),
                expected: "a container name of 1 to 255 letters, digits, hyphens and underscores",
            })
        }
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(value: String) -> Result<Self, NameError> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

text_form!(InstallationId);
text_form!(ContainerName);

/// A task: what its containers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub id: TaskId,
    pub network: NetworkMode,
    /// What every container's `/etc/hosts` gets besides the host's own lines: (name, address).
    #[serde(default)]
    pub extra_hosts: Vec<(String, String)>,
    /// Kept with the task and given back by `adopt`: whatever lets the agent know it again.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The host's own network.
    Host,
    /// A network namespace with nothing but loopback.
    None,
}

/// A container to start. `None` in an override means what the image says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: ContainerName,
    /// The manifest's digest as `PulledImage::digest` gave it: the image must have been pulled.
    pub image: String,
    /// Replaces the image's ENTRYPOINT, and then its CMD no longer counts, as in Docker.
    #[serde(default)]
    pub entry_point: Option<Vec<String>>,
    /// Replaces the image's CMD.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Added to the image's environment; the same name replaces. In this order.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    #[serde(default)]
    pub working_directory: Option<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, …, looked up in the image's own files.
    #[serde(default)]
    pub user: Option<String>,
    /// The machine's name where the network is not the host's; otherwise the host's name is shown.
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub readonly_root_filesystem: bool,
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
    /// Capabilities besides Docker's default set, such as `NET_ADMIN` or `CAP_NET_ADMIN`.
    #[serde(default)]
    pub capabilities_add: Vec<String>,
    #[serde(default)]
    pub capabilities_drop: Vec<String>,
    pub logs: LogSpec,
}

impl ContainerSpec {
    /// A container that does what its image says, with its output thrown away.
    pub fn new(name: ContainerName, image: impl Into<String>) -> Self {
        Self {
            name,
            image: image.into(),
            entry_point: None,
            command: None,
            environment: Vec::new(),
            working_directory: None,
            user: None,
            hostname: None,
            readonly_root_filesystem: false,
            resources: Resources::default(),
            ulimits: Vec::new(),
            tmpfs: Vec::new(),
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            logs: LogSpec::None,
        }
    }
}

/// What a container may take of the machine. `None` is no limit, apart from the processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 1/1024 of a vCPU; a weight, not a limit. Below 2 counts as 2.
    #[serde(default)]
    pub cpu_shares: Option<u64>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The soft limit, which counts when the machine is short of memory.
    #[serde(default)]
    pub memory_reservation_bytes: Option<u64>,
    /// Processes and threads; a default keeps a fork bomb inside.
    #[serde(default)]
    pub pids: Option<u64>,
}

/// A resource limit by its name in a task definition (`nofile`, `nproc`, …).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: Rlimit,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rlimit {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub path: PathBuf,
    pub size_bytes: u64,
    /// Mount options as tmpfs and mount(8) name them.
    #[serde(default)]
    pub options: Vec<String>,
}

/// Where a container's output goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSpec {
    /// Nowhere.
    None,
    /// Into a bounded file that a `LogReader` empties.
    Spool { mode: LogMode, bytes_max: u64 },
}

/// What happens when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogMode {
    /// The container waits when it writes: nothing is lost.
    Blocking,
    /// New lines are dropped and counted.
    NonBlocking,
}

/// How long a container has after its stop signal until it is killed, where nobody says.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
