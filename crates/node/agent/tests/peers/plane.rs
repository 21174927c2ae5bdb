//! The control plane of the scene: its rows in memory, the real session core, and what it checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_agent::core::TaskStatus;
use gantry_agent::core::step::{CallError, TaskStateChange};
use gantry_api::acs::{
    Condition, Container, ContainerDependency, DockerConfig, DockerContainerConfig,
    DockerHostConfig, DockerLogConfig, Frame, Task,
};
use gantry_arn::TaskId;
use gantry_ecs::acs::{AcsSession, AssignedTask, Identity, Input, Output};
use gantry_env::Timestamp;

use crate::chance::Chance;

pub struct Plane {
    /// The rows: what survives everything.
    pub tasks: BTreeMap<TaskId, Row>,
    pub session_number: u64,
    session: Option<AcsSession>,
    /// Payloads that were sent in this session, by message id.
    sent: BTreeMap<String, TaskId>,
}

pub struct Row {
    pub payload: Arc<Task>,
    pub stop: bool,
    pub status: Option<TaskStatus>,
    pub reason: Option<String>,
    pub was_running: bool,
    /// The agent said that it holds the task.
    pub acknowledged: bool,
    /// A payload was refused here: no agent ever has it.
    pub refused: bool,
}

pub fn task_id(n: u32) -> TaskId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    TaskId::from_random(bytes)
}

fn arn(id: &TaskId) -> String {
    format!("arn:aws:ecs:us-east-1:000000000000:task/default/{id}")
}

impl Plane {
    pub fn new() -> Plane {
        Plane {
            tasks: BTreeMap::new(),
            session_number: 0,
            session: None,
            sent: BTreeMap::new(),
        }
    }

    pub fn run_task(&mut self, now: Timestamp, chance: &mut Chance) -> Vec<Frame> {
        let id = task_id(self.tasks.len() as u32 + 1);
        let payload = Arc::new(random_task(&id, chance));
        self.tasks.insert(
            id,
            Row {
                payload,
                stop: false,
                status: None,
                reason: None,
                was_running: false,
                acknowledged: false,
                refused: false,
            },
        );
        self.changed(now, id)
    }

    pub fn stop_task(&mut self, now: Timestamp, id: TaskId) -> Vec<Frame> {
        self.tasks.get_mut(&id).unwrap().stop = true;
        self.changed(now, id)
    }

    /// A new session: its number is committed before anything is sent.
    pub fn connect(&mut self, now: Timestamp) -> Vec<Frame> {
        self.session_number += 1;
        let identity = Identity {
            cluster_arn: "arn:aws:ecs:us-east-1:000000000000:cluster/default".into(),
            container_instance_arn: "instance".into(),
        };
        self.session = Some(AcsSession::new(identity, self.session_number).unwrap());
        self.sent.clear();
        let tasks = self
            .tasks
            .keys()
            .filter_map(|id| self.assigned(id))
            .collect();
        self.step(now, Input::Connected { tasks })
    }

    pub fn disconnect(&mut self) {
        self.session = None;
    }

    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    pub fn on_frame(&mut self, now: Timestamp, frame: Frame) -> Vec<Frame> {
        self.step(now, Input::Frame(frame))
    }

    pub fn on_timer(&mut self, now: Timestamp, timer: gantry_ecs::acs::Timer) -> Vec<Frame> {
        self.step(now, Input::Timer(timer))
    }

    /// Which task an acknowledgement is about.
    pub fn acknowledged(&mut self, frame: &Frame) -> Option<TaskId> {
        let Frame::Ack(ack) = frame else { return None };
        let id = *self.sent.get(ack.message_id.as_ref()?)?;
        self.tasks.get_mut(&id).unwrap().acknowledged = true;
        Some(id)
    }

    /// SubmitTaskStateChange: merged so that nothing goes back.
    pub fn submit(
        &mut self,
        now: Timestamp,
        change: &TaskStateChange,
    ) -> (Result<(), CallError>, Vec<Frame>) {
        let id: TaskId = change.task_arn.rsplit('/').next().unwrap().parse().unwrap();
        let row = self
            .tasks
            .get_mut(&id)
            .expect("a report about a task that never was");
        row.was_running |= change.status == TaskStatus::Running;
        if row.status < Some(change.status) {
            row.status = Some(change.status);
            row.reason = change.reason.clone();
        }
        (Ok(()), self.changed(now, id))
    }

    fn changed(&mut self, now: Timestamp, id: TaskId) -> Vec<Frame> {
        if self.session.is_none() {
            return Vec::new();
        }
        let task = self.assigned(&id);
        self.step(now, Input::Changed(vec![(id, task)]))
    }

    fn assigned(&self, id: &TaskId) -> Option<AssignedTask> {
        let row = &self.tasks[id];
        (row.status != Some(TaskStatus::Stopped)).then(|| AssignedTask {
            id: *id,
            arn: arn(id),
            cluster_arn: "arn:aws:ecs:us-east-1:000000000000:cluster/default".into(),
            stop: row.stop,
            reported: row.status.is_some(),
            payload: Ok(row.payload.clone()),
            roles: Vec::new(),
        })
    }

    fn step(&mut self, now: Timestamp, input: Input) -> Vec<Frame> {
        let Some(session) = &mut self.session else {
            return Vec::new();
        };
        let mut frames = Vec::new();
        let mut closed = false;
        for output in session.step(now, input) {
            match output {
                Output::Send(frame) => {
                    if let Frame::Payload(payload) = &frame {
                        let arn = payload.tasks[0].arn.clone().unwrap();
                        let id = arn.rsplit('/').next().unwrap().parse().unwrap();
                        self.sent.insert(payload.message_id.clone().unwrap(), id);
                    }
                    frames.push(frame);
                }
                Output::ReportStopped { task_arn, reason } => {
                    let id: TaskId = task_arn.rsplit('/').next().unwrap().parse().unwrap();
                    let row = self.tasks.get_mut(&id).unwrap();
                    row.status = Some(TaskStatus::Stopped);
                    row.reason = Some(reason);
                    row.refused = true;
                }
                Output::Close { .. } => closed = true,
                Output::SetTimer { .. } => {}
                Output::AssumeRole { .. } => unreachable!("no task here has a role"),
            }
        }
        if closed {
            self.session = None;
        }
        frames
    }
}

/// One to three containers, some of them waiting for others.
fn random_task(id: &TaskId, chance: &mut Chance) -> Task {
    let count = 1 + chance.below(3);
    let names = ["first", "second", "third"];
    let containers = (0..count)
        .map(|n| {
            let essential = n + 1 == count || chance.one_in(2);
            let depends_on = if n > 0 && chance.one_in(2) {
                let condition = [Condition::Start, Condition::Complete, Condition::Success];
                vec![ContainerDependency {
                    container_name: names[n - 1].to_owned(),
                    condition: condition[chance.below(3)].clone(),
                }]
            } else {
                Vec::new()
            };
            let host = DockerHostConfig {
                network_mode: Some("host".into()),
                log_config: chance.one_in(3).then(|| DockerLogConfig {
                    driver: Some("awslogs".into()),
                    options: BTreeMap::from([("awslogs-group".into(), "g".into())]),
                }),
                ..DockerHostConfig::default()
            };
            Container {
                name: Some(names[n].to_owned()),
                image: Some("localhost:4566/app".into()),
                essential: Some(essential),
                depends_on,
                docker_config: Some(DockerConfig::of(&DockerContainerConfig::default(), &host)),
                ..Container::default()
            }
        })
        .collect();
    Task {
        arn: Some(arn(id)),
        containers,
        ..Task::default()
    }
}
