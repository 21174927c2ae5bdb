//! Random tasks on a random machine: what must hold whatever happens, and whenever the agent dies.

use std::collections::BTreeMap;

use gantry_agent::core::step::{AdoptedContainer, RuntimeCommand};
use gantry_agent::core::{ContainerStatus, Input, TaskStatus};
use gantry_env::Timestamp;
use serde_json::{Value, json};

use crate::scripted::{Agent, adopted_exited, adopted_running};

const SEEDS: u64 = 300;
const STEPS: usize = 120;

/// A container as it really is.
#[derive(Clone, Debug, Default)]
struct Truth {
    runs: bool,
    exit: Option<(i32, Timestamp)>,
    started_at: Option<Timestamp>,
    restarts: u32,
    was_healthy: bool,
    stop_asked: bool,
    checked: Option<u32>,
}

struct Machine {
    chance: u64,
    containers: Value,
    truth: BTreeMap<String, Truth>,
    seen: BTreeMap<String, ContainerStatus>,
    task: TaskStatus,
}

impl Machine {
    fn below(&mut self, limit: usize) -> usize {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.chance >> 33).unwrap_or(0) % limit
    }

    fn new(seed: u64) -> Machine {
        let mut machine = Machine {
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            containers: json!([]),
            truth: BTreeMap::new(),
            seen: BTreeMap::new(),
            task: TaskStatus::Pending,
        };
        let count = 2 + machine.below(4);
        let mut containers = Vec::new();
        for n in 0..count {
            // Only on earlier ones, so that there is no cycle; the order of the payload is another.
            let mut depends = Vec::new();
            for on in 0..n {
                if machine.below(3) > 0 {
                    continue;
                }
                let condition = ["START", "COMPLETE", "SUCCESS", "HEALTHY"][machine.below(4)];
                depends.push(json!({"containerName": format!("c{on}"), "condition": condition}));
            }
            let check = json!({"Test": ["CMD", "x"], "Interval": 5_000_000_000_u64, "Retries": 2});
            let mut container = json!({"name": format!("c{n}"), "essential": machine.below(3) == 0,
                "dependsOn": depends, "healthCheck": check});
            if machine.below(2) == 0 {
                container["restartPolicy"] =
                    json!({"enabled": true, "ignoredExitCodes": [3], "restartAttemptPeriod": 60});
            }
            machine.truth.insert(format!("c{n}"), Truth::default());
            containers.push(container);
        }
        containers.reverse();
        machine.containers = json!(containers);
        machine
    }

    fn definition(&self, name: &str) -> Value {
        let all = self.containers.as_array().unwrap();
        all.iter().find(|c| c["name"] == name).unwrap().clone()
    }

    /// Carries out what the agent asks for, and holds it against what must be so.
    fn carry_out(&mut self, agent: &mut Agent) {
        for command in agent.commands() {
            match command {
                RuntimeCommand::Pull { plan, .. } => agent.pulled(&plan.name),
                RuntimeCommand::Start { plan, .. } => {
                    for on in self.definition(&plan.name)["dependsOn"].as_array().unwrap() {
                        let other = &self.truth[on["containerName"].as_str().unwrap()];
                        let holds = match on["condition"].as_str().unwrap() {
                            "START" => other.started_at.is_some(),
                            "COMPLETE" => other.exit.is_some(),
                            "SUCCESS" => other.exit.is_some_and(|(code, _)| code == 0),
                            _ => other.was_healthy,
                        };
                        assert!(holds, "{} starts in spite of {on}: {other:?}", plan.name);
                    }
                    let now = agent.now;
                    let truth = self.truth.get_mut(&plan.name).unwrap();
                    assert!(truth.started_at.is_none(), "{} starts twice", plan.name);
                    (truth.runs, truth.started_at) = (true, Some(now));
                    agent.started(&plan.name);
                }
                RuntimeCommand::Restart {
                    container,
                    restarts,
                    ..
                } => {
                    let now = agent.now;
                    let truth = self.truth.get_mut(&container).unwrap();
                    let (code, at) = truth.exit.expect("it has ended");
                    let ran = at.since(truth.started_at.unwrap()).as_secs();
                    assert!(
                        !truth.stop_asked && code != 3 && ran >= 60,
                        "{container}: {truth:?}"
                    );
                    assert_eq!(restarts, truth.restarts + 1);
                    *truth = Truth {
                        runs: true,
                        started_at: Some(now),
                        restarts,
                        was_healthy: truth.was_healthy,
                        ..Truth::default()
                    };
                    agent.started(&container);
                }
                RuntimeCommand::CheckHealth {
                    container,
                    restarts,
                    ..
                } => {
                    let truth = self.truth.get_mut(&container).unwrap();
                    assert!(!truth.stop_asked, "{container} is checked while it stops");
                    assert_eq!(
                        truth.checked.replace(restarts),
                        None,
                        "two checks at a time"
                    );
                }
                RuntimeCommand::Stop { container, .. } => {
                    for other in self.containers.as_array().unwrap() {
                        let depends = other["dependsOn"].as_array().unwrap();
                        if depends
                            .iter()
                            .any(|on| on["containerName"] == container.as_str())
                        {
                            let other = other["name"].as_str().unwrap();
                            assert!(!self.truth[other].runs, "{container} stops before {other}");
                        }
                    }
                    self.truth.get_mut(&container).unwrap().stop_asked = true;
                }
                RuntimeCommand::Remove { .. } => {
                    assert!(
                        self.truth.values().all(|truth| !truth.runs),
                        "removed while it runs"
                    );
                }
                RuntimeCommand::PrepareLog { .. } | RuntimeCommand::ResumeLog { .. } => {}
            }
        }
        self.check_statuses(agent);
    }

    fn check_statuses(&mut self, agent: &Agent) {
        for (_, machine) in agent.core.tasks() {
            assert!(machine.state.status >= self.task, "the task went back");
            self.task = machine.state.status;
            for (name, state) in &machine.state.containers {
                let before = self.seen.insert(name.clone(), state.status);
                assert!(
                    before.is_none_or(|before| before <= state.status),
                    "{name} went back"
                );
            }
        }
    }

    /// One thing happens to one container.
    fn live(&mut self, agent: &mut Agent) {
        let name = format!("c{}", self.below(self.truth.len()));
        let may_end = self.below(4) == 0;
        let (code, healthy) = ([0, 0, 1, 3][self.below(4)], self.below(3) > 0);
        let now = agent.now;
        let truth = self.truth.get_mut(&name).unwrap();
        if let Some(restarts) = truth.checked.take() {
            let healthy = healthy && truth.runs && restarts == truth.restarts;
            truth.was_healthy |= healthy;
            agent.checked(&name, restarts, healthy);
        } else if truth.runs && (may_end || truth.stop_asked) {
            (truth.runs, truth.exit) = (false, Some((code, now)));
            agent.exited(&name, code, false);
        }
    }

    /// `kill -9`: what was persisted is known, what runs is found.
    fn crash(&mut self, agent: &mut Agent) {
        let found: Vec<(String, AdoptedContainer)> = self
            .truth
            .iter_mut()
            .filter_map(|(name, truth)| {
                truth.checked = None;
                let started_at = truth.started_at?;
                let found = match truth.exit {
                    Some(exit) => adopted_exited(name, started_at, truth.restarts, exit),
                    None => adopted_running(name, started_at, truth.restarts),
                };
                Some((name.clone(), found))
            })
            .collect();
        let found: Vec<(&str, AdoptedContainer)> = found
            .iter()
            .map(|(name, found)| (name.as_str(), found.clone()))
            .collect();
        agent.reborn(&found);
        agent.step(Input::Connected);
        // What was not on the disk yet is seen anew.
        self.seen.clear();
        self.task = TaskStatus::Pending;
    }
}

/// The statuses in which a task of this seed ends, with or without the agent's dying on the way.
fn run(seed: u64, crashes: bool) {
    let mut machine = Machine::new(seed);
    let mut agent = Agent::new();
    agent.payload("RUNNING", machine.containers.clone());
    for step in 0..STEPS {
        if machine.below(3) > 0 || crashes && machine.below(6) > 0 {
            agent.persist_all();
        }
        machine.carry_out(&mut agent);
        machine.live(&mut agent);
        machine.carry_out(&mut agent);
        let seconds = [0, 1, 5, 20][machine.below(4)];
        agent.pass(seconds);
        machine.carry_out(&mut agent);
        if crashes && machine.below(8) == 0 && agent.disk.len() > 1 {
            machine.crash(&mut agent);
            machine.carry_out(&mut agent);
        }
        if step == STEPS / 2 && machine.below(2) == 0 {
            agent.payload("STOPPED", json!([]));
        }
    }
    // In the end everything that runs is told to stop, does, and is over.
    agent.payload("STOPPED", json!([]));
    for _ in 0..200 {
        agent.persist_all();
        machine.carry_out(&mut agent);
        machine.live(&mut agent);
        agent.pass(1);
    }
    machine.carry_out(&mut agent);
    assert_eq!(
        machine.task,
        TaskStatus::Stopped,
        "seed {seed}: {:?}",
        machine.truth
    );
    assert!(
        machine.truth.values().all(|truth| !truth.runs),
        "seed {seed}"
    );
}

#[test]
fn whatever_happens_containers_keep_their_order() {
    for seed in 0..SEEDS {
        run(seed, false);
    }
}

#[test]
fn the_same_holds_whenever_the_agent_dies() {
    for seed in 0..SEEDS {
        run(seed, true);
    }
}
