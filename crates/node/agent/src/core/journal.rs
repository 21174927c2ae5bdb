//! What the agent must know after it was killed.
//!
//! What always holds: applying the records in order gives the state; a record can be applied twice;
//! the records of one [`Journal::compacted`] give the same state again. Credentials are never in it.
//! What it leaves to others: writing records so that a crash loses none that was said to be written.

use std::collections::BTreeMap;

use gantry_api::acs;
use gantry_arn::TaskId;
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use super::step::{NetworkBinding, TaskStateChange};
use super::{ContainerStatus, HealthState, TaskStatus};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum JournalRecord {
    /// The highest frame number that had an effect, of those that this container instance was sent. Each
    /// container instance has numbers of its own.
    Seen {
        number: i64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container_instance: Option<String>,
    },
    /// A task was taken from a payload.
    Accepted {
        task_id: TaskId,
        cluster: String,
        payload: Box<acs::Task>,
    },
    /// Everything about a task that changes.
    Progress {
        task_id: TaskId,
        state: Box<TaskState>,
    },
    /// The control plane has the task's last report and the runtime has nothing left of it.
    Forgotten { task_id: TaskId },
}

/// A task's changing half.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    pub status: TaskStatus,
    /// Why it shall stop, once it shall. There is no way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
    /// By name.
    pub containers: BTreeMap<String, ContainerState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    /// Reports that the control plane has not acknowledged, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<TaskStateChange>,
    /// The control plane has acknowledged STOPPED.
    #[serde(default)]
    pub stop_acknowledged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// What the report says. None where the control plane knows better, because it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub status: ContainerStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the run that is or was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// Of a container that has a health check and has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// The host ports that lead into it, where the network chose them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_bindings: Vec<NetworkBinding>,
}

/// The state that a journal's records give.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    pub seen: i64,
    /// Whose number that is.
    pub container_instance: Option<String>,
    pub tasks: BTreeMap<TaskId, JournalledTask>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JournalledTask {
    pub cluster: String,
    pub payload: acs::Task,
    pub state: TaskState,
}

impl Journal {
    pub fn of(records: &[JournalRecord]) -> Journal {
        let mut journal = Journal::default();
        for record in records {
            journal.apply(record);
        }
        journal
    }

    pub fn apply(&mut self, record: &JournalRecord) {
        match record {
            JournalRecord::Seen {
                number,
                container_instance,
            } => {
                let is_same = self.container_instance == *container_instance;
                self.seen = if is_same {
                    self.seen.max(*number)
                } else {
                    *number
                };
                self.container_instance.clone_from(container_instance);
            }
            JournalRecord::Accepted {
                task_id,
                cluster,
                payload,
            } => {
                self.tasks
                    .entry(*task_id)
                    .or_insert_with(|| JournalledTask {
                        cluster: cluster.clone(),
                        payload: (**payload).clone(),
                        state: TaskState::default(),
                    });
            }
            JournalRecord::Progress { task_id, state } => {
                if let Some(task) = self.tasks.get_mut(task_id) {
                    task.state = (**state).clone();
                }
            }
            JournalRecord::Forgotten { task_id } => {
                self.tasks.remove(task_id);
            }
        }
    }

    /// The highest frame number that had an effect for this container instance. A node that has
    /// registered anew is another one, and is sent frames from the first number on.
    pub fn seen_by(&self, container_instance: &str) -> i64 {
        match &self.container_instance {
            Some(own) if own == container_instance => self.seen,
            _ => 0,
        }
    }

    /// Whether a container may have been about to start when the last record was written.
    pub fn has_starts_under_way(&self) -> bool {
        self.tasks.values().any(|task| {
            task.state.status < TaskStatus::Running
                && (task.state.containers.is_empty()
                    || task
                        .state
                        .containers
                        .values()
                        .any(|container| container.status < ContainerStatus::Running))
        })
    }

    /// The fewest records that give this state.
    pub fn compacted(&self) -> Vec<JournalRecord> {
        let mut records = vec![JournalRecord::Seen {
            number: self.seen,
            container_instance: self.container_instance.clone(),
        }];
        for (task_id, task) in &self.tasks {
            records.push(JournalRecord::Accepted {
                task_id: *task_id,
                cluster: task.cluster.clone(),
                payload: Box::new(task.payload.clone()),
            });
            records.push(JournalRecord::Progress {
                task_id: *task_id,
                state: Box::new(task.state.clone()),
            });
        }
        records
    }
}

/// A payload's task without its secrets, as it goes into the journal. Where the task's own role is
/// found stays, because a container that starts after a restart of the agent is told the address.
pub fn without_credentials(task: &acs::Task) -> acs::Task {
    let role = task.role_credentials.as_ref();
    acs::Task {
        execution_role_credentials: None,
        role_credentials: role.map(|role| acs::RoleCredentials {
            credentials_id: role.credentials_id.clone(),
            role_arn: role.role_arn.clone(),
            ..acs::RoleCredentials::default()
        }),
        ..task.clone()
    }
}
