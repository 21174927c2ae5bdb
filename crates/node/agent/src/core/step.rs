//! What goes into the agent's core and what comes out of it: plain data, nothing else.
//!
//! What always holds: whoever pumps the core (the shell on a machine, the world in a test) needs only
//! these types. Everything that was put out but not carried out when the process dies may be lost;
//! the core makes it again from what was loaded.
//! What it leaves to others: doing it.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::acs::{Frame, RoleCredentials, RoleType};
use gantry_arn::TaskId;
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::HealthStatus;
use super::journal::JournalRecord;
use super::plan::{ContainerPlan, HealthCheckPlan, ShippedLog, TaskPlan};

#[derive(Clone, Debug)]
pub enum Input {
    /// The first input after a start: every journal record in order, and what still runs.
    Loaded {
        records: Vec<JournalRecord>,
        adopted: Vec<AdoptedTask>,
    },
    /// The socket asked for by [`Output::Connect`] is open.
    Connected,
    /// It is closed, or could not be opened.
    Disconnected {
        reason: String,
    },
    Frame(Frame),
    /// The answer to an [`Output::Call`].
    Reply {
        call: CallId,
        result: Result<(), CallError>,
    },
    Runtime(RuntimeEvent),
    Timer(Timer),
    /// The records of an [`Output::Persist`] are on disk.
    Persisted(PersistId),
    /// Stop every task: whoever runs this agent ends it together with its tasks.
    StopAll {
        reason: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open the ACS socket (discovering its address first). At most one is open at a time.
    Connect,
    /// Close the socket; no [`Input::Disconnected`] is expected for it.
    Disconnect,
    Send(Frame),
    Call {
        call: CallId,
        request: TaskStateChange,
    },
    Runtime(RuntimeCommand),
    /// Sets a timer, instead of the same one if it is set already.
    SetTimer {
        timer: Timer,
        after: Duration,
    },
    Persist {
        id: PersistId,
        records: Vec<JournalRecord>,
    },
    /// Credentials of a task's role; the newest are the ones to use.
    Credentials {
        task: TaskId,
        role: RoleType,
        credentials: RoleCredentials,
    },
    /// The health of a task's containers that have a check and run, whenever it has changed and once
    /// after a start. Without containers: nothing is to be told of this task any more.
    Health {
        task: TaskId,
        containers: BTreeMap<String, ContainerHealth>,
    },
}

/// What a container's checks have shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerHealth {
    pub status: HealthStatus,
    pub since: Timestamp,
    /// Of the check that made the status, cut where it is long.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersistId(pub u64);

/// Why a call failed, as far as it matters for what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Not reached, throttled or a server's fault: the same call later may succeed.
    Retry { message: String },
    /// The control plane will never take this report (it has forgotten the task, say).
    Refused { message: String },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Connect again after a failure.
    Reconnect,
    /// The socket has lived long enough.
    Renew,
    /// Was anything heard since this timer was set?
    Silence,
    /// Repeat the report at the head of a task's queue.
    Report(TaskId),
    /// A container that has not started by now has failed to.
    StartTimeout { task: TaskId, container: String },
    /// Those that wait for this container to end or to be healthy give up.
    DependencyTimeout { task: TaskId, container: String },
    /// The next health check is due.
    HealthCheck { task: TaskId, container: String },
}

impl Timer {
    /// The task that this is about, if it is about one.
    pub fn task(&self) -> Option<TaskId> {
        match self {
            Timer::Reconnect | Timer::Renew | Timer::Silence => None,
            Timer::Report(task)
            | Timer::StartTimeout { task, .. }
            | Timer::DependencyTimeout { task, .. }
            | Timer::HealthCheck { task, .. } => Some(*task),
        }
    }
}

/// What the runtime shall do. Each is answered by an event, also when it has been done before.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeCommand {
    /// Answered by `Pulled` or `PullFailed`.
    Pull {
        task: TaskId,
        plan: Box<ContainerPlan>,
    },
    /// The container's log stream, made before the container. Answered by `LogReady` or `LogFailed`.
    PrepareLog {
        task: TaskId,
        container: String,
        log: ShippedLog,
    },
    /// Create and start, and the task's own parts if this is its first container. Answered by
    /// `Started` or `StartFailed`, then by `Exited`.
    Start {
        task: TaskId,
        task_plan: Box<TaskPlan>,
        plan: Box<ContainerPlan>,
    },
    /// Start the same container again after it ended: for the `restarts`th time. Doing it once is
    /// enough however often it is asked for. Answered by `Started` or `StartFailed`.
    Restart {
        task: TaskId,
        container: String,
        restarts: u32,
    },
    /// Run the check's command in the container, for its timeout at most. Answered by
    /// `HealthChecked`, also where the container has ended.
    CheckHealth {
        task: TaskId,
        container: String,
        /// Of the container, to tell a check of an earlier run by.
        restarts: u32,
        check: HealthCheckPlan,
    },
    /// SIGTERM or the image's signal, after the grace SIGKILL. Answered by `Exited`.
    Stop {
        task: TaskId,
        container: String,
        grace: Duration,
    },
    /// Goes on forwarding the logs of an adopted container. Not answered.
    ResumeLog {
        task: TaskId,
        container: String,
        log: ShippedLog,
    },
    /// Sends what is left of the logs, then removes everything of the task. Answered by `Removed`.
    Remove { task: TaskId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    Pulled {
        task: TaskId,
        container: String,
        digest: String,
    },
    PullFailed {
        task: TaskId,
        container: String,
        reason: String,
    },
    LogReady {
        task: TaskId,
        container: String,
    },
    LogFailed {
        task: TaskId,
        container: String,
        reason: String,
    },
    /// The host ports that lead into a container, before it starts.
    PortsBound {
        task: TaskId,
        container: String,
        bindings: Vec<NetworkBinding>,
    },
    Started {
        task: TaskId,
        container: String,
        runtime_id: String,
        at: Timestamp,
    },
    StartFailed {
        task: TaskId,
        container: String,
        reason: String,
    },
    /// Also where its start was never told of.
    Exited {
        task: TaskId,
        container: String,
        runtime_id: String,
        exit: Exit,
    },
    HealthChecked {
        task: TaskId,
        container: String,
        /// As the command said.
        restarts: u32,
        healthy: bool,
        /// What the command wrote, or why it could not be run.
        output: String,
        at: Timestamp,
    },
    /// The task's shim is gone and with it every container of the task.
    ShimDied {
        task: TaskId,
        reason: String,
    },
    Removed {
        task: TaskId,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 128 and the signal's number where a signal ended it.
    pub exit_code: i32,
    /// The kernel killed it for its memory.
    pub out_of_memory: bool,
    pub at: Timestamp,
}

/// What the runtime found of a task after a restart. A task that it does not name was never started,
/// or has been removed.
#[derive(Clone, Debug, PartialEq)]
pub struct AdoptedTask {
    pub task: TaskId,
    pub containers: BTreeMap<String, AdoptedContainer>,
    /// The host ports that lead into its containers, where they have any of their own.
    pub ports: BTreeMap<String, Vec<NetworkBinding>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AdoptedContainer {
    Running {
        runtime_id: String,
        started_at: Timestamp,
        /// How often it was started again.
        restarts: u32,
    },
    Exited {
        runtime_id: String,
        /// Of the run that ended.
        started_at: Timestamp,
        restarts: u32,
        exit: Exit,
    },
    /// It is being made, or made again: `Started` or `StartFailed` follows.
    Starting {
        /// How often it will have been started again when it has.
        restarts: u32,
    },
    Lost {
        reason: String,
    },
}

/// SubmitTaskStateChange, before it is on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskStateChange {
    pub cluster: String,
    pub task_arn: String,
    pub status: super::TaskStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub containers: Vec<ContainerStateChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerStateChange {
    pub name: String,
    pub status: super::ContainerStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_bindings: Vec<NetworkBinding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: String,
    /// Of a range: as many ports of the host follow as of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_container_port: Option<u16>,
}

impl NetworkBinding {
    /// The last host port, of a range or of one.
    pub fn last_host_port(&self) -> u16 {
        let more = self.last_container_port.unwrap_or(self.container_port);
        let more = more.saturating_sub(self.container_port);
        self.host_port.saturating_add(more)
    }
}
