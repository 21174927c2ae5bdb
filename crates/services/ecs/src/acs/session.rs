//! One connection of one agent: what it is told, and what its answers mean. No I/O.
//!
//! What always holds: frames are numbered above everything sent to this container instance before;
//! within a session a task's payload is sent once for each desired status; a task that the node or
//! this file refuses is reported STOPPED with the reason, so it never hangs in PENDING.
//! What it leaves to others: the socket, the rows and the timers (`shell`).

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::acs::{
    DesiredStatus, ErrorMessage, Frame, FrameNumber, HeartbeatMessage, IamRoleCredentialsMessage,
    PayloadMessage, RoleCredentials, RoleType, TaskIdentifier, TaskManifestMessage,
    TaskStopVerificationAck,
};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use super::assignment::AssignedTask;

/// ECS sends one at least every minute.
pub const HEARTBEAT: Duration = Duration::from_secs(30);
/// An agent that has not even answered a heartbeat by then is gone.
pub const SILENCE: Duration = Duration::from_secs(90);

/// Whose session this is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster_arn: String,
    pub container_instance_arn: String,
}

#[derive(Clone, Debug)]
pub enum Input {
    /// The session's number is committed; these are all tasks of the container instance.
    Connected {
        tasks: Vec<AssignedTask>,
    },
    /// Rows changed: the task as it is now, or none where it is no longer this agent's.
    Changed(Vec<(TaskId, Option<AssignedTask>)>),
    Frame(Frame),
    /// The answer to [`Output::AssumeRole`].
    Role {
        task: TaskId,
        role: RoleType,
        credentials: Option<RoleCredentials>,
    },
    Timer(Timer),
    /// A later session of this container instance has begun.
    Superseded,
    /// The container instance was deregistered.
    Deregistered,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send(Frame),
    /// Get credentials for a role of a task. Answered by [`Input::Role`], also when there are none.
    AssumeRole {
        task: TaskId,
        role: RoleType,
        role_arn: String,
    },
    /// The task is over before it began: report it STOPPED, as its node would.
    ReportStopped {
        task_arn: String,
        reason: String,
    },
    SetTimer {
        timer: Timer,
        after: Duration,
    },
    Close {
        reason: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Heartbeat,
    Silence,
}

#[derive(Clone, Debug)]
pub struct AcsSession {
    identity: Identity,
    last_number: FrameNumber,
    tasks: BTreeMap<TaskId, Entry>,
    /// What is not acknowledged yet, by message id.
    unanswered: BTreeMap<String, TaskId>,
    heard: bool,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    task: AssignedTask,
    sent: Option<DesiredStatus>,
    refused: bool,
    roles: BTreeMap<RoleType, Role>,
}

#[derive(Clone, Debug)]
enum Role {
    Asked,
    Known(Option<RoleCredentials>),
}

impl AcsSession {
    /// `session` is the number that was committed for this connection.
    pub fn new(
        identity: Identity,
        session: u64,
    ) -> Result<AcsSession, gantry_api::acs::NumberExhausted> {
        Ok(AcsSession {
            identity,
            last_number: FrameNumber::start_of(session)?,
            tasks: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            heard: false,
            closed: false,
        })
    }

    /// The session is over; nothing more is sent.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.closed {
            return out;
        }
        match input {
            Input::Connected { tasks } => self.hello(now, tasks, &mut out),
            Input::Changed(changes) => self.on_changed(now, changes, &mut out),
            Input::Frame(frame) => self.on_frame(now, frame, &mut out),
            Input::Role {
                task,
                role,
                credentials,
            } => {
                self.on_role(now, task, role, credentials, &mut out);
            }
            Input::Timer(timer) => self.on_timer(timer, &mut out),
            Input::Superseded => self.close("a later session has begun", &mut out),
            Input::Deregistered => {
                out.push(Output::Send(Frame::InactiveInstance(ErrorMessage {
                    message: Some("The container instance is not active".to_owned()),
                })));
                self.close("the container instance was deregistered", &mut out);
            }
        }
        out
    }

    fn hello(&mut self, now: Timestamp, tasks: Vec<AssignedTask>, out: &mut Vec<Output>) {
        out.push(Output::SetTimer {
            timer: Timer::Heartbeat,
            after: HEARTBEAT,
        });
        out.push(Output::SetTimer {
            timer: Timer::Silence,
            after: SILENCE,
        });
        self.tasks = tasks
            .into_iter()
            .map(|task| (task.id, Entry::of(task)))
            .collect();
        let Some(number) = self.number(out) else {
            return;
        };
        let manifest = TaskManifestMessage {
            cluster_arn: Some(self.identity.cluster_arn.clone()),
            container_instance_arn: Some(self.identity.container_instance_arn.clone()),
            generated_at: Some(now.as_millis()),
            message_id: Some(number.to_string()),
            tasks: self
                .tasks
                .values()
                .map(|entry| identifier(&entry.task))
                .collect(),
            timeline: Some(number.as_i64()),
        };
        out.push(Output::Send(Frame::TaskManifest(manifest)));
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            self.bring_up_to_date(now, id, out);
        }
    }

    fn on_changed(
        &mut self,
        now: Timestamp,
        changes: Vec<(TaskId, Option<AssignedTask>)>,
        out: &mut Vec<Output>,
    ) {
        for (id, task) in changes {
            match (task, self.tasks.get_mut(&id)) {
                (None, _) => {
                    self.tasks.remove(&id);
                }
                (Some(task), Some(entry)) => {
                    // What was built first stays: the spec of a task never changes.
                    entry.task.stop |= task.stop;
                    entry.task.reported |= task.reported;
                }
                (Some(task), None) => {
                    self.tasks.insert(id, Entry::of(task));
                }
            }
            self.bring_up_to_date(now, id, out);
        }
    }

    /// Sends what the agent does not know about this task.
    fn bring_up_to_date(&mut self, now: Timestamp, id: TaskId, out: &mut Vec<Output>) {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return;
        };
        let payload = match &entry.task.payload {
            Ok(payload) => payload.clone(),
            Err(reason) => {
                if !std::mem::replace(&mut entry.refused, true) {
                    let (task_arn, reason) = (entry.task.arn.clone(), reason.clone());
                    out.push(Output::ReportStopped { task_arn, reason });
                }
                return;
            }
        };
        let desired = if entry.task.stop {
            DesiredStatus::Stopped
        } else {
            DesiredStatus::Running
        };
        if entry.refused || entry.sent.as_ref() == Some(&desired) {
            return;
        }
        // A task that runs needs its roles; one that stops needs nothing.
        if desired == DesiredStatus::Running {
            for (role, role_arn) in entry.task.roles.clone() {
                if !entry.roles.contains_key(&role) {
                    entry.roles.insert(role.clone(), Role::Asked);
                    out.push(Output::AssumeRole {
                        task: id,
                        role,
                        role_arn,
                    });
                }
            }
            if entry.task.reported || entry.roles.values().any(|r| matches!(r, Role::Asked)) {
                return;
            }
        }
        entry.sent = Some(desired.clone());
        let mut task = (*payload).clone();
        task.desired_status = Some(desired.clone());
        if desired == DesiredStatus::Running {
            task.execution_role_credentials = entry.credentials(&RoleType::TaskExecution);
            task.role_credentials = entry.credentials(&RoleType::TaskApplication);
        }
        let cluster_arn = entry.task.cluster_arn.clone();
        let Some(number) = self.number(out) else {
            return;
        };
        let message_id = number.to_string();
        self.unanswered.insert(message_id.clone(), id);
        out.push(Output::Send(Frame::Payload(PayloadMessage {
            cluster_arn: Some(cluster_arn),
            container_instance_arn: Some(self.identity.container_instance_arn.clone()),
            generated_at: Some(now.as_millis()),
            message_id: Some(message_id),
            seq_num: Some(number.as_i64()),
            tasks: vec![task],
            timeline: None,
        })));
    }

    fn on_role(
        &mut self,
        now: Timestamp,
        id: TaskId,
        role: RoleType,
        credentials: Option<RoleCredentials>,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return;
        };
        entry
            .roles
            .insert(role.clone(), Role::Known(credentials.clone()));
        if let (Some(credentials), true) = (credentials, entry.task.reported && !entry.task.stop) {
            let (task_arn, cluster) = (entry.task.arn.clone(), entry.task.cluster_arn.clone());
            let Some(number) = self.number(out) else {
                return;
            };
            out.push(Output::Send(Frame::IamRoleCredentials(
                IamRoleCredentialsMessage {
                    message_id: Some(number.to_string()),
                    role_credentials: Some(credentials),
                    role_type: Some(role),
                    task_arn: Some(task_arn),
                    task_cluster_arn: Some(cluster),
                },
            )));
        }
        self.bring_up_to_date(now, id, out);
    }

    fn on_frame(&mut self, now: Timestamp, frame: Frame, out: &mut Vec<Output>) {
        self.heard = true;
        match frame {
            Frame::Ack(ack) => {
                if let Some(message_id) = ack.message_id {
                    self.unanswered.remove(&message_id);
                }
            }
            Frame::Nack(nack) => {
                let refused = nack.message_id.and_then(|id| self.unanswered.remove(&id));
                let entry = refused.and_then(|task| self.tasks.get_mut(&task));
                if let Some(entry) = entry {
                    entry.refused = true;
                    let why = nack
                        .reason
                        .unwrap_or_else(|| "no reason was given".to_owned());
                    out.push(Output::ReportStopped {
                        task_arn: entry.task.arn.clone(),
                        reason: format!(
                            "ResourceInitializationError: the agent refused the task: {why}"
                        ),
                    });
                }
            }
            Frame::TaskStopVerification(message) => {
                // Only what these rows do not want any more. The agent asks again after the next
                // manifest, so a doubt is always for the task.
                let stop_tasks = message
                    .stop_candidates
                    .into_iter()
                    .filter(|candidate| !self.wants(candidate))
                    .collect();
                out.push(Output::Send(Frame::TaskStopVerificationAck(
                    TaskStopVerificationAck {
                        generated_at: Some(now.as_millis()),
                        message_id: message.message_id,
                        stop_tasks,
                    },
                )));
            }
            // Being heard is all that these mean; the rest is for agents, or newer than this.
            Frame::HeartbeatAck(_)
            | Frame::IamRoleCredentialsAck(_)
            | Frame::Payload(_)
            | Frame::TaskManifest(_)
            | Frame::TaskStopVerificationAck(_)
            | Frame::Heartbeat(_)
            | Frame::IamRoleCredentials(_)
            | Frame::Close(_)
            | Frame::Error(_)
            | Frame::InactiveInstance(_)
            | Frame::Unknown { .. } => {}
        }
    }

    /// Whether this task shall run on. What cannot be read is none of ours to stop.
    fn wants(&self, candidate: &TaskIdentifier) -> bool {
        let id = candidate
            .task_arn
            .as_deref()
            .and_then(|arn| arn.rsplit('/').next());
        match id.and_then(|id| id.parse::<TaskId>().ok()) {
            Some(id) => self.tasks.get(&id).is_some_and(|entry| !entry.task.stop),
            None => true,
        }
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Heartbeat => {
                let Some(number) = self.number(out) else {
                    return;
                };
                out.push(Output::Send(Frame::Heartbeat(HeartbeatMessage {
                    message_id: Some(number.to_string()),
                    healthy: Some(true),
                })));
                out.push(Output::SetTimer {
                    timer: Timer::Heartbeat,
                    after: HEARTBEAT,
                });
            }
            Timer::Silence => {
                if std::mem::take(&mut self.heard) {
                    out.push(Output::SetTimer {
                        timer: Timer::Silence,
                        after: SILENCE,
                    });
                } else {
                    self.close("the agent is silent", out);
                }
            }
        }
    }

    /// The next frame's number. A session without numbers left is closed; the next one has more.
    fn number(&mut self, out: &mut Vec<Output>) -> Option<FrameNumber> {
        match self.last_number.next() {
            Ok(number) => {
                self.last_number = number;
                Some(number)
            }
            Err(_) => {
                self.close("the session has used all its frame numbers", out);
                None
            }
        }
    }

    fn close(&mut self, reason: &'static str, out: &mut Vec<Output>) {
        self.closed = true;
        out.push(Output::Close { reason });
    }
}

impl Entry {
    fn of(task: AssignedTask) -> Entry {
        Entry {
            task,
            sent: None,
            refused: false,
            roles: BTreeMap::new(),
        }
    }

    fn credentials(&self, role: &RoleType) -> Option<RoleCredentials> {
        match self.roles.get(role) {
            Some(Role::Known(credentials)) => credentials.clone(),
            _ => None,
        }
    }
}

fn identifier(task: &AssignedTask) -> TaskIdentifier {
    TaskIdentifier {
        desired_status: Some(if task.stop {
            DesiredStatus::Stopped
        } else {
            DesiredStatus::Running
        }),
        task_arn: Some(task.arn.clone()),
        task_cluster_arn: Some(task.cluster_arn.clone()),
    }
}
