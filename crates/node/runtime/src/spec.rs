//! What an agent asks for: a task, and the containers in it.
//!
//! What always holds: these are written to disk as they are before anything is made, so every
//! member has a serde form that an older or newer build reads (new members have defaults).
//! Sizes are bytes and times are `Duration` or milliseconds, named so.

use std::collections::BTreeMap;
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
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub limits: TaskLimits,
    #[serde(default)]
    pub pid_mode: PidMode,
    #[serde(default)]
    pub ipc_mode: IpcMode,
}

impl TaskSpec {
    /// A task without limits whose containers share nothing but their network.
    pub fn new(id: TaskId, network: NetworkMode) -> Self {
        Self {
            id,
            network,
            extra_hosts: Vec::new(),
            labels: BTreeMap::new(),
            limits: TaskLimits::default(),
            pid_mode: PidMode::default(),
            ipc_mode: IpcMode::default(),
        }
    }
}

/// What all containers of a task may take together. They lie on the task's own cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// 1/1024 of a vCPU; a hard limit.
    #[serde(default)]
    pub cpu_units: Option<u64>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

impl TaskLimits {
    pub fn is_none(&self) -> bool {
        self.cpu_units.is_none() && self.memory_bytes.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The host's own network.
    Host,
    /// A network namespace with nothing but loopback.
    None,
    /// Each container names the namespace that it joins (`ContainerSpec::network_namespace`).
    Namespaces,
}

/// Which processes a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// Its own.
    #[default]
    Container,
    /// Those of every container of the task.
    Task,
    /// Those of the host.
    Host,
}

/// With whom a container shares System V IPC, message queues and `/dev/shm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// With nobody.
    #[default]
    Container,
    /// With every container of the task.
    Task,
    /// With the host.
    Host,
    /// With nobody, and without a `/dev/shm`.
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
    /// A pinned network namespace to join, with `NetworkMode::Namespaces`.
    #[serde(default)]
    pub network_namespace: Option<PathBuf>,
    /// Nothing but a loopback interface, whatever the task's network is.
    #[serde(default)]
    pub network_disabled: bool,
    /// The whole of `/etc/hosts`; `None` is what the network mode gives.
    #[serde(default)]
    pub hosts: Option<String>,
    /// The whole of `/etc/resolv.conf`; `None` is what the network mode gives.
    #[serde(default)]
    pub resolv_conf: Option<String>,
    #[serde(default)]
    pub mounts: Vec<BindMount>,
    /// Targets of `mounts` whose source, where it is an empty folder, first gets what the image has there.
    #[serde(default)]
    pub copy_up: Vec<PathBuf>,
    #[serde(default)]
    pub shm_size_bytes: Option<u64>,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(default)]
    pub privileged: bool,
    /// A small first process that passes signals on and takes the ends of orphans.
    #[serde(default)]
    pub init_process: bool,
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    #[serde(default)]
    pub no_new_privileges: bool,
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    #[serde(default)]
    pub selinux_label: Option<String>,
    /// Standard input, output and error are one pseudo-terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Standard input stays open, with nothing in it, instead of being at its end.
    #[serde(default)]
    pub stdin_open: bool,
    /// Memory and swap together, as in Docker; -1 is no limit of swap.
    #[serde(default)]
    pub memory_swap_bytes: Option<i64>,
    /// 0 to 100.
    #[serde(default)]
    pub memory_swappiness: Option<u64>,
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
            network_namespace: None,
            network_disabled: false,
            hosts: None,
            resolv_conf: None,
            mounts: Vec::new(),
            copy_up: Vec::new(),
            shm_size_bytes: None,
            devices: Vec::new(),
            privileged: false,
            init_process: false,
            sysctls: BTreeMap::new(),
            no_new_privileges: false,
            apparmor_profile: None,
            selinux_label: None,
            terminal: false,
            stdin_open: false,
            memory_swap_bytes: None,
            memory_swappiness: None,
        }
    }
}

impl ContainerSpec {
    /// Whether a shim of the first protocol, which knows nothing of later members, starts just this.
    pub(crate) fn is_of_the_first_protocol(&self) -> bool {
        // Only what the first build knew is taken over, so whatever else is asked for makes a difference.
        let mut known = ContainerSpec::new(self.name.clone(), self.image.clone());
        known.entry_point.clone_from(&self.entry_point);
        known.command.clone_from(&self.command);
        known.environment.clone_from(&self.environment);
        known.working_directory.clone_from(&self.working_directory);
        known.user.clone_from(&self.user);
        known.hostname.clone_from(&self.hostname);
        known.readonly_root_filesystem = self.readonly_root_filesystem;
        known.resources = self.resources.clone();
        known.ulimits.clone_from(&self.ulimits);
        known.tmpfs.clone_from(&self.tmpfs);
        known.capabilities_add.clone_from(&self.capabilities_add);
        known.capabilities_drop.clone_from(&self.capabilities_drop);
        known.logs = self.logs.clone();
        *self == known
    }
}

/// A folder or file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    pub target: PathBuf,
    #[serde(default)]
    pub read_only: bool,
}

/// A device of the host that a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Of `r`, `w` and `m` (mknod).
    pub permissions: String,
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

/// A program to run beside a container's own, in its namespaces, its cgroup and under its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to the container's environment; the same name replaces.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// `None` is the container's own.
    #[serde(default)]
    pub user: Option<String>,
    /// After this it is killed, and whatever it started with it.
    pub timeout: Duration,
    /// Of standard output and error together, the first so many bytes are kept.
    pub output_bytes_max: usize,
}

/// How such a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// 128 + the signal where a signal ended it.
    pub exit_code: i32,
    pub output: Vec<u8>,
    pub timed_out: bool,
}

/// How long a container has after its stop signal until it is killed, where nobody says.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_build_wrote_is_read_with_defaults() {
        let task = r#"{"id":"0123456789abcdef0123456789abcdef","network":"host"}"#;
        let task: TaskSpec = serde_json::from_str(task).unwrap();
        assert_eq!(task, TaskSpec::new(task.id, NetworkMode::Host));
        let container = r#"{"name":"app","image":"sha256:1","logs":"none"}"#;
        let container: ContainerSpec = serde_json::from_str(container).unwrap();
        let new = ContainerSpec::new("app".parse().unwrap(), "sha256:1");
        assert_eq!(container, new);
    }

    #[test]
    fn an_older_shim_is_not_asked_for_what_it_would_leave_out() {
        let mut spec = ContainerSpec::new("app".parse().unwrap(), "sha256:1");
        spec.user = Some("app".to_owned());
        spec.resources.memory_bytes = Some(1);
        assert!(spec.is_of_the_first_protocol());
        spec.no_new_privileges = true;
        assert!(!spec.is_of_the_first_protocol());
    }
}
