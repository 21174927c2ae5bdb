//! One connection of one agent: what it is told, and what its answers mean. No I/O.
//!
//! What always holds: frames are numbered above everything sent to this container instance before;
//! within a session a task's payload is sent once for each desired status; a task that the node or
//! this file refuses is reported STOPPED with the reason, so it never hangs in PENDING. A task is not
//! sent before the credentials of its roles are there, and gets new ones before they end.
//! What it leaves to others: the socket, the rows and the timers (`shell`).

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_api::acs::{
    CloseMessage, DesiredStatus, ErrorMessage, Frame, FrameNumber, HeartbeatMessage,
    IamRoleCredentialsMessage, PayloadMessage, RoleCredentials, RoleType, TaskIdentifier,
    TaskManifestMessage, TaskStopVerificationAck,
};
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use super::assignment::AssignedTask;
use super::roles::{Renewals, RoleRefusal, TaskRoles};

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
        credentials: Result<RoleCredentials, RoleRefusal>,
    },
    /// What the agent sent is not a frame.
    Malformed {
        cause: String,
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
    /// Asked for again before what was got ends.
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
    /// Credentials are to be asked for again.
    Roles,
}

#[derive(Clone, Debug)]
pub struct AcsSession {
    identity: Identity,
    last_number: FrameNumber,
    tasks: BTreeMap<TaskId, Entry>,
    renewals: Renewals,
    /// What is not acknowledged yet, by message id.
    unanswered: BTreeMap<String, (TaskId, DesiredStatus)>,
    heard: bool,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    task: AssignedTask,
    sent: Option<DesiredStatus>,
    refused: bool,
    roles: TaskRoles,
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
            renewals: Renewals::default(),
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
            Input::Timer(timer) => self.on_timer(now, timer, &mut out),
            Input::Malformed { cause } => {
                out.push(Output::Send(Frame::Error(ErrorMessage {
                    message: Some(cause),
                })));
                self.close("the agent sent what is not a frame", &mut out);
            }
            Input::Superseded => self.close("a later session has begun", &mut out),
            Input::Deregistered => {
                out.push(Output::Send(Frame::InactiveInstance(ErrorMessage {
                    message: Some("The container instance is not active".to_owned()),
                })));
                self.closed = true;
                out.push(Output::Close {
                    reason: "the container instance was deregistered",
                });
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
            for (role, role_arn) in entry.roles.begin(&entry.task.roles) {
                out.push(Output::AssumeRole {
                    task: id,
                    role,
                    role_arn,
                });
            }
            if entry.task.reported || entry.roles.is_waiting() {
                return;
            }
        }
        entry.sent = Some(desired.clone());
        let mut task = (*payload).clone();
        task.desired_status = Some(desired.clone());
        if desired == DesiredStatus::Running {
            task.execution_role_credentials = entry.roles.credentials(&RoleType::TaskExecution);
            task.role_credentials = entry.roles.credentials(&RoleType::TaskApplication);
        }
        let cluster_arn = entry.task.cluster_arn.clone();
        let Some(number) = self.number(out) else {
            return;
        };
        let message_id = number.to_string();
        self.unanswered
            .insert(message_id.clone(), (id, desired.clone()));
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
        answer: Result<RoleCredentials, RoleRefusal>,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = self.tasks.get_mut(&id) else {
            return;
        };
        let again_at = entry.roles.answered(now, &role, &answer);
        let begun = entry.task.reported || entry.sent.is_some();
        if answer == Err(RoleRefusal::Unassumable) && !begun && !entry.task.stop {
            entry.refused = true;
            out.push(Output::ReportStopped {
                task_arn: entry.task.arn.clone(),
                reason: unassumable(entry.roles.arn(&role)),
            });
            return;
        }
        if let Some(at) = again_at {
            self.renewals.add(at, id, role.clone());
            self.set_role_timer(now, out);
        }
        if let (Ok(credentials), true) = (answer, begun) {
            self.send_credentials(id, role, credentials, out);
        }
        self.bring_up_to_date(now, id, out);
    }

    /// New credentials of a task that the agent has already.
    fn send_credentials(
        &mut self,
        id: TaskId,
        role: RoleType,
        credentials: RoleCredentials,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = self.tasks.get(&id).filter(|entry| !entry.task.stop) else {
            return;
        };
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

    fn set_role_timer(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if let Some(after) = self.renewals.timer(now) {
            out.push(Output::SetTimer {
                timer: Timer::Roles,
                after,
            });
        }
    }

    fn renew_roles(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for (at, task, role) in self.renewals.take_due(now) {
            let entry = self.tasks.get_mut(&task);
            let Some(entry) = entry.filter(|entry| !entry.task.stop && !entry.refused) else {
                continue;
            };
            if let Some(role_arn) = entry.roles.again(&role, at) {
                out.push(Output::AssumeRole {
                    task,
                    role,
                    role_arn,
                });
            }
        }
        self.set_role_timer(now, out);
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
                // A refused stop does not say that the task is over: the next session's manifest
                // names it again.
                let refused = refused.filter(|(_, desired)| *desired == DesiredStatus::Running);
                let entry = refused.and_then(|(task, _)| self.tasks.get_mut(&task));
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

    fn on_timer(&mut self, now: Timestamp, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Roles => self.renew_roles(now, out),
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
        out.push(Output::Send(Frame::Close(CloseMessage {
            message: Some(reason.to_owned()),
        })));
        out.push(Output::Close { reason });
    }
}

/// ECS's own words.
fn unassumable(role_arn: &str) -> String {
    format!(
        "ECS was unable to assume the role '{role_arn}' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
    )
}

impl Entry {
    fn of(task: AssignedTask) -> Entry {
        Entry {
            task,
            sent: None,
            refused: false,
            roles: TaskRoles::default(),
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
