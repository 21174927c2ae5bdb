//! Time, network and faults between the two.

use std::collections::{BTreeMap, VecDeque};

use gantry_agent::core::step::{CallError, CallId, TaskStateChange};
use gantry_agent::core::{Input, Output, TaskStatus};
use gantry_api::acs::Frame;
use gantry_arn::TaskId;
use gantry_env::Timestamp;

use crate::chance::Chance;
use crate::node::Node;
use crate::plane::Plane;

const TASKS_MAX: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    None,
    Everything,
}

pub struct Scene {
    seed: u64,
    chance: Chance,
    now_ms: i64,
    plane: Plane,
    node: Node,
    /// The socket, if there is one: frames either way. Both queues go when it breaks.
    to_agent: VecDeque<Frame>,
    to_plane: VecDeque<Frame>,
    connecting: bool,
    calls: VecDeque<(CallId, TaskStateChange)>,
    replies: VecDeque<(CallId, Result<(), CallError>)>,
    /// The reports of this life of the agent, as they arrived.
    told: BTreeMap<TaskId, TaskStatus>,
}

impl Scene {
    pub fn new(seed: u64) -> Scene {
        Scene {
            seed,
            chance: Chance::seeded(seed),
            now_ms: 0,
            plane: Plane::new(),
            node: Node::new(),
            to_agent: VecDeque::new(),
            to_plane: VecDeque::new(),
            connecting: false,
            calls: VecDeque::new(),
            replies: VecDeque::new(),
            told: BTreeMap::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms)
    }

    /// One thing happens.
    pub fn step(&mut self, faults: Faults) {
        let all = faults == Faults::Everything;
        self.now_ms += self.chance.below(20) as i64;
        match self.chance.below(100) {
            0..=2 if self.plane.tasks.len() < TASKS_MAX => {
                let frames = self.plane.run_task(self.now(), &mut self.chance);
                self.to_agent.extend(frames);
            }
            3 => self.stop_some_task(),
            4..=5 if all => self.crash_agent(),
            6..=7 if all => self.break_socket(),
            // The control plane's process dies; its rows do not.
            8 if all => self.break_socket(),
            9..=10 if all => self.duplicate_frame(),
            11..=14 => self.fire_next_timer(),
            15..=29 => {
                let may_end = self.chance.one_in(3);
                self.node.live(self.now(), &mut self.chance, may_end);
            }
            30..=44 => self.node.work(self.now(), &mut self.chance, all),
            45..=59 => self.deliver_call(all),
            _ => self.deliver(),
        }
    }

    /// Faults stop; everything that is under way comes to its end.
    pub fn settle(&mut self) {
        let running: Vec<TaskId> = self.plane.tasks.keys().copied().collect();
        for _ in 0..200_000 {
            if self.node.core.is_none() {
                self.start_agent();
            }
            self.deliver();
            self.deliver_call(false);
            self.node.work(self.now(), &mut self.chance, false);
            self.node.live(self.now(), &mut self.chance, false);
            let quiet = self.node.is_quiet()
                && self.to_agent.is_empty()
                && self.to_plane.is_empty()
                && self.calls.is_empty()
                && self.replies.is_empty();
            if quiet {
                if self.is_settled(&running) {
                    return;
                }
                self.fire_next_timer();
            }
        }
        self.fail("it does not settle");
    }

    fn is_settled(&self, tasks: &[TaskId]) -> bool {
        self.plane.is_connected()
            && tasks.iter().all(|id| {
                let row = &self.plane.tasks[id];
                let stopped = row.status == Some(TaskStatus::Stopped);
                let known = self
                    .node
                    .core
                    .iter()
                    .any(|core| core.tasks().any(|(t, _)| t == id));
                if stopped {
                    !known
                } else {
                    known && !row.stop && !self.is_stuck(id)
                }
            })
    }

    /// A task that shall run and neither runs nor waits for a container of its own to end.
    fn is_stuck(&self, id: &TaskId) -> bool {
        let row = &self.plane.tasks[id];
        let any_runs = self.node.containers.keys().any(|(task, _)| task == id);
        row.status.is_none() && !any_runs
    }

    pub fn check_settled(&self) {
        for (id, row) in &self.plane.tasks {
            let stopped = row.status == Some(TaskStatus::Stopped);
            if row.stop && !stopped {
                self.fail(&format!("{id} shall stop and has not"));
            }
            let left = self.node.containers.keys().any(|(task, _)| task == id);
            if stopped && left {
                self.fail(&format!("{id} has stopped and left something behind"));
            }
        }
        for (task, _) in self.node.containers.keys() {
            if !self.plane.tasks.contains_key(task) {
                self.fail(&format!("{task} runs and nobody asked for it"));
            }
        }
    }

    /// Without faults nothing fails to start.
    pub fn check_all_ran(&self) {
        for (id, row) in &self.plane.tasks {
            let reason = row.reason.as_deref().unwrap_or_default();
            // What waits for a container that does not come to what is asked of it is right to fail.
            let waited = reason.contains("dependency graph: ");
            let failed = reason.contains("Cannot") || reason.contains("RuntimeError");
            let failed = failed && !waited;
            if failed {
                self.fail(&format!("{id} failed without a fault: {reason}"));
            }
        }
    }

    fn deliver(&mut self) {
        if self.node.core.is_none() {
            self.start_agent();
            return;
        }
        match self.chance.below(5) {
            0 => {
                if let Some(input) = self.node.write_one() {
                    self.agent(input);
                }
            }
            1 => {
                if let Some(event) = self.node.events.pop_front() {
                    self.agent(Input::Runtime(event));
                }
            }
            2 => {
                if let Some(frame) = self.to_agent.pop_front() {
                    self.agent(Input::Frame(frame));
                }
            }
            3 => {
                if let Some(frame) = self.to_plane.pop_front() {
                    self.plane_hears(frame);
                }
            }
            _ => {
                if self.connecting {
                    self.connecting = false;
                    self.to_agent.clear();
                    self.to_plane.clear();
                    let hello = self.plane.connect(self.now());
                    self.agent(Input::Connected);
                    self.to_agent.extend(hello);
                } else if let Some((call, result)) = self.replies.pop_front() {
                    self.agent(Input::Reply { call, result });
                }
            }
        }
    }

    fn plane_hears(&mut self, frame: Frame) {
        if let Some(task) = self.plane.acknowledged(&frame)
            && !self.node.journal_knows(task)
        {
            self.fail(&format!("{task} was acknowledged and is not on disk"));
        }
        let answers = self.plane.on_frame(self.now(), frame);
        self.to_agent.extend(answers);
    }

    fn deliver_call(&mut self, faults: bool) {
        let Some((call, change)) = self.calls.pop_front() else {
            return;
        };
        let lost = || {
            Err(CallError::Retry {
                message: "lost".into(),
            })
        };
        if faults && self.chance.one_in(10) {
            self.replies.push_back((call, lost()));
            return;
        }
        let id: TaskId = change.task_arn.rsplit('/').next().unwrap().parse().unwrap();
        let before = self.told.insert(id, change.status);
        if before.is_some_and(|before| before > change.status) {
            self.fail(&format!(
                "{id} was told back from {before:?} to {:?}",
                change.status
            ));
        }
        let (result, frames) = self.plane.submit(self.now(), &change);
        self.to_agent.extend(frames);
        // The report arrived and the answer did not.
        let result = if faults && self.chance.one_in(10) {
            lost()
        } else {
            result
        };
        self.replies.push_back((call, result));
    }

    fn agent(&mut self, input: Input) {
        for output in self.node.step(self.now(), input) {
            self.carry_out(output);
        }
    }

    fn start_agent(&mut self) {
        for output in self.node.start(self.now()) {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect => self.connecting = true,
            Output::Disconnect => {
                self.connecting = false;
                self.to_agent.clear();
                self.to_plane.clear();
                self.plane.disconnect();
            }
            Output::Send(frame) => {
                if self.plane.is_connected() {
                    self.to_plane.push_back(frame);
                }
            }
            Output::Call { call, request } => self.calls.push_back((call, request)),
            Output::Credentials { .. } | Output::Health { .. } => {}
            Output::Runtime(_) | Output::SetTimer { .. } | Output::Persist { .. } => {
                unreachable!("the node keeps these")
            }
        }
    }

    fn stop_some_task(&mut self) {
        let ids: Vec<TaskId> = self.plane.tasks.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.chance.below(ids.len())];
            let frames = self.plane.stop_task(self.now(), id);
            self.to_agent.extend(frames);
        }
    }

    fn crash_agent(&mut self) {
        self.node.crash(&mut self.chance);
        self.connecting = false;
        self.to_agent.clear();
        self.to_plane.clear();
        self.plane.disconnect();
        // Reports that had left may still arrive; their answers go nowhere.
        while let Some((_, change)) = self.calls.pop_front() {
            if self.chance.one_in(2) {
                let (_lost, _frames) = self.plane.submit(self.now(), &change);
            }
        }
        self.replies.clear();
        self.told.clear();
    }

    fn break_socket(&mut self) {
        if self.plane.is_connected() {
            self.plane.disconnect();
            self.to_agent.clear();
            self.to_plane.clear();
            self.agent(Input::Disconnected {
                reason: "broken".into(),
            });
        } else if self.connecting {
            self.connecting = false;
            self.agent(Input::Disconnected {
                reason: "refused".into(),
            });
        }
    }

    fn duplicate_frame(&mut self) {
        if !self.to_agent.is_empty() {
            let frame = self.to_agent[self.chance.below(self.to_agent.len())].clone();
            self.to_agent.push_back(frame);
        }
    }

    /// Time goes on to whatever waits for it.
    fn fire_next_timer(&mut self) {
        let next = self.node.timers.iter().min_by_key(|(_, at)| **at);
        let Some((timer, at)) = next.map(|(timer, at)| (timer.clone(), *at)) else {
            return;
        };
        self.now_ms = self.now_ms.max(at);
        self.node.timers.remove(&timer);
        if self.plane.is_connected() {
            // The other end's heartbeat is never slower than this one's patience.
            let frames = self
                .plane
                .on_timer(self.now(), gantry_ecs::acs::Timer::Heartbeat);
            for frame in frames {
                self.agent(Input::Frame(frame));
            }
        }
        self.agent(Input::Timer(timer));
    }

    fn fail(&self, what: &str) -> ! {
        let rows: Vec<String> = self
            .plane
            .tasks
            .iter()
            .map(|(id, row)| {
                format!(
                    "{id}: stop {} status {:?} reason {:?}",
                    row.stop, row.status, row.reason
                )
            })
            .collect();
        panic!(
            "seed {} at {} ms: {what}\ncontrol plane:\n{}\nagent: {:#?}",
            self.seed,
            self.now_ms,
            rows.join("\n"),
            self.node.core
        );
    }
}
