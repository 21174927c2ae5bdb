//! An agent's core, of which a test plays the machine and the control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_agent::core::step::{
    AdoptedContainer, AdoptedTask, CallId, Exit, PersistId, RuntimeCommand, RuntimeEvent,
    TaskStateChange, Timer,
};
use gantry_agent::core::{
    AgentCore, HealthStatus, Identity, Input, JournalRecord, Output, TaskStatus,
};
use gantry_api::acs::{Frame, PayloadMessage, Task};
use gantry_arn::TaskId;
use gantry_env::Timestamp;
use serde_json::{Value, json};

/// When every test begins.
pub const BEGIN: Timestamp = Timestamp::from_millis(1_000_000);

pub fn id() -> TaskId {
    TaskId::from_random([7; 16])
}

pub struct Agent {
    pub core: AgentCore,
    /// What came out and has not been looked at.
    pub out: Vec<Output>,
    pub number: i64,
    pub now: Timestamp,
    /// What is on its disk.
    pub disk: Vec<JournalRecord>,
    /// Its timers, and when they are due.
    pub timers: BTreeMap<Timer, Timestamp>,
}

impl Agent {
    pub fn new() -> Agent {
        let mut agent = Agent {
            core: core(),
            out: Vec::new(),
            number: 0,
            now: BEGIN,
            disk: Vec::new(),
            timers: BTreeMap::new(),
        };
        agent.step(Input::Loaded {
            records: Vec::new(),
            adopted: Vec::new(),
        });
        agent.step(Input::Connected);
        agent.out.clear();
        agent
    }

    /// `kill -9`, and a new agent that finds these containers.
    pub fn reborn(&mut self, containers: &[(&str, AdoptedContainer)]) {
        let containers = containers
            .iter()
            .map(|(name, found)| ((*name).to_owned(), found.clone()))
            .collect();
        let adopted = AdoptedTask {
            task: id(),
            containers,
            ports: BTreeMap::new(),
        };
        self.reborn_with(self.disk.clone(), adopted);
    }

    /// A new agent on this disk, with what was found of the task.
    pub fn reborn_with(&mut self, disk: Vec<JournalRecord>, adopted: AdoptedTask) {
        self.core = core();
        self.out.clear();
        self.timers.clear();
        self.step(Input::Loaded {
            records: disk,
            adopted: vec![adopted],
        });
    }

    /// A new agent on this disk, whose node is registered as this container instance, without tasks.
    pub fn reborn_as(&mut self, container_instance: &str, disk: Vec<JournalRecord>) {
        self.core = core_of(container_instance);
        self.out.clear();
        self.step(Input::Loaded {
            records: disk,
            adopted: Vec::new(),
        });
        self.step(Input::Connected);
        self.out.clear();
    }

    pub fn step(&mut self, input: Input) {
        for output in self.core.step(self.now, input) {
            if let Output::SetTimer { timer, after } = &output {
                self.timers.insert(timer.clone(), self.now + *after);
            }
            self.out.push(output);
        }
    }

    /// Time passes, and whatever is due of this task's timers fires. Those of the socket do not.
    pub fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some((timer, at)) = self
            .timers
            .iter()
            .filter(|(timer, at)| timer.task().is_some() && **at <= until)
            .min_by_key(|(_, at)| **at)
            .map(|(timer, at)| (timer.clone(), *at))
        {
            self.now = self.now.max(at);
            self.timers.remove(&timer);
            self.step(Input::Timer(timer));
        }
        self.now = until;
    }

    pub fn payload(&mut self, desired: &str, containers: Value) {
        self.number += 1;
        let arn = format!("arn:aws:ecs:us-east-1:000000000000:task/default/{}", id());
        let mut containers = containers;
        for container in containers.as_array_mut().unwrap() {
            container["image"] = json!("localhost:4566/app");
            let mut docker = json!({"hostConfig": "{\"NetworkMode\":\"none\"}"});
            if let Some(check) = container.as_object_mut().unwrap().remove("healthCheck") {
                docker["config"] = json!(json!({"Healthcheck": check}).to_string());
                container["healthCheckType"] = json!("docker");
            }
            container["dockerConfig"] = docker;
        }
        let task: Task = serde_json::from_value(
            json!({"arn": arn, "desiredStatus": desired, "containers": containers}),
        )
        .unwrap();
        self.step(Input::Frame(Frame::Payload(PayloadMessage {
            message_id: Some(format!("m{}", self.number)),
            seq_num: Some(self.number),
            tasks: vec![task],
            ..PayloadMessage::default()
        })));
    }

    pub fn persist_all(&mut self) {
        let mut last: Option<PersistId> = None;
        let disk = &mut self.disk;
        self.out.retain(|o| match o {
            Output::Persist { id, records } => {
                disk.extend(records.iter().cloned());
                last = Some(*id);
                false
            }
            _ => true,
        });
        if let Some(last) = last {
            self.step(Input::Persisted(last));
        }
    }

    pub fn commands(&mut self) -> Vec<RuntimeCommand> {
        let taken = std::mem::take(&mut self.out);
        let (commands, rest): (Vec<_>, Vec<_>) = taken
            .into_iter()
            .partition(|o| matches!(o, Output::Runtime(_)));
        self.out = rest;
        commands
            .into_iter()
            .map(|o| match o {
                Output::Runtime(command) => command,
                _ => unreachable!(),
            })
            .collect()
    }

    pub fn names(&mut self) -> Vec<String> {
        self.commands()
            .into_iter()
            .map(|command| match command {
                RuntimeCommand::Pull { plan, .. } => format!("pull {}", plan.name),
                RuntimeCommand::Start { plan, .. } => format!("start {}", plan.name),
                RuntimeCommand::Stop { container, .. } => format!("stop {container}"),
                RuntimeCommand::Restart {
                    container,
                    restarts,
                    ..
                } => format!("restart {container} {restarts}"),
                RuntimeCommand::CheckHealth {
                    container,
                    restarts,
                    ..
                } => format!("check {container} {restarts}"),
                RuntimeCommand::Remove { .. } => "remove".to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    pub fn reports(&mut self) -> Vec<(CallId, TaskStateChange)> {
        let mut reports = Vec::new();
        self.out.retain(|o| match o {
            Output::Call { call, request } => {
                reports.push((*call, request.clone()));
                false
            }
            _ => true,
        });
        reports
    }

    /// Takes the one report that is due. An end is due only when it is on disk.
    pub fn acknowledge(&mut self) -> TaskStateChange {
        let mut reports = self.reports();
        if reports.is_empty() {
            self.persist_all();
            reports = self.reports();
        }
        assert_eq!(reports.len(), 1, "one report at a time");
        let (call, report) = reports.remove(0);
        self.step(Input::Reply {
            call,
            result: Ok(()),
        });
        report
    }

    pub fn pulled(&mut self, container: &str) {
        let digest = "sha256:1".to_owned();
        let container = container.to_owned();
        self.step(Input::Runtime(RuntimeEvent::Pulled {
            task: id(),
            container,
            digest,
        }));
    }

    pub fn started(&mut self, container: &str) {
        self.step(Input::Runtime(RuntimeEvent::Started {
            task: id(),
            container: container.to_owned(),
            runtime_id: format!("r-{container}"),
            at: self.now,
        }));
    }

    pub fn exited(&mut self, container: &str, exit_code: i32, out_of_memory: bool) {
        let exit = Exit {
            exit_code,
            out_of_memory,
            at: self.now,
        };
        self.step(Input::Runtime(RuntimeEvent::Exited {
            task: id(),
            container: container.to_owned(),
            runtime_id: format!("r-{container}"),
            exit,
        }));
    }

    pub fn acks(&mut self) -> Vec<String> {
        let mut acks = Vec::new();
        self.out.retain(|o| match o {
            Output::Send(Frame::Ack(ack)) => {
                acks.extend(ack.message_id.clone());
                false
            }
            _ => true,
        });
        acks
    }

    /// One container that runs and is reported as such.
    pub fn running() -> Agent {
        let mut agent = Agent::new();
        agent.payload("RUNNING", json!([{"name": "web"}]));
        agent.persist_all();
        agent.pulled("web");
        agent.started("web");
        assert_eq!(agent.acknowledge().status, TaskStatus::Running);
        agent.out.clear();
        agent
    }

    /// A task of these containers, of which every one that may has started.
    pub fn with(containers: Value, started: &[&str]) -> Agent {
        let mut agent = Agent::new();
        let names: Vec<String> = containers
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect();
        agent.payload("RUNNING", containers);
        agent.persist_all();
        for name in &names {
            agent.pulled(name);
        }
        for name in started {
            agent.started(name);
        }
        agent.persist_all();
        agent.names();
        agent
    }

    pub fn checked(&mut self, container: &str, restarts: u32, healthy: bool) {
        self.step(Input::Runtime(RuntimeEvent::HealthChecked {
            task: id(),
            container: container.to_owned(),
            restarts,
            healthy,
            output: format!("{container} says {healthy}"),
            at: self.now,
        }));
    }

    /// What was last put out about a container's health.
    pub fn health_of(&self, container: &str) -> Option<HealthStatus> {
        self.out.iter().rev().find_map(|o| match o {
            Output::Health { containers, .. } => Some(containers.get(container).map(|h| h.status)),
            _ => None,
        })?
    }

    /// The one task's reason for stopping, once it shall stop.
    pub fn reason(&self) -> Option<String> {
        let (_, machine) = self.core.tasks().next()?;
        machine.state.stopping.as_ref()?.reason.clone()
    }

    pub fn is_stopping(&self) -> bool {
        let (_, machine) = self.core.tasks().next().expect("a task");
        machine.state.stopping.is_some()
    }
}

fn core() -> AgentCore {
    core_of("i")
}

fn core_of(container_instance: &str) -> AgentCore {
    let identity = Identity {
        cluster_arn: "c".into(),
        container_instance_arn: container_instance.into(),
    };
    AgentCore::new(identity, 1)
}

pub fn adopted_running(name: &str, started_at: Timestamp, restarts: u32) -> AdoptedContainer {
    AdoptedContainer::Running {
        runtime_id: format!("r-{name}"),
        started_at,
        restarts,
    }
}

pub fn adopted_exited(
    name: &str,
    started_at: Timestamp,
    restarts: u32,
    (exit_code, at): (i32, Timestamp),
) -> AdoptedContainer {
    AdoptedContainer::Exited {
        runtime_id: format!("r-{name}"),
        started_at,
        restarts,
        exit: Exit {
            exit_code,
            out_of_memory: false,
            at,
        },
    }
}
