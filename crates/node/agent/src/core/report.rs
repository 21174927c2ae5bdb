//! What the control plane is told about a task, in order, until it says that it knows.
//!
//! What always holds: a task's reports leave one at a time and oldest first, so RUNNING is never
//! overtaken by STOPPED; a report stays in the task's state until it is acknowledged or refused for
//! good. A report of STOPPED is the last, and leaves only when the end is on disk.
//! What it leaves to others: carrying it (`Output::Call`) and the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_arn::TaskId;

use super::chance::Chance;
use super::journal::TaskState;
use super::step::{CallError, CallId, ContainerStateChange, Output, TaskStateChange, Timer};
use super::task::TaskMachine;
use super::{ContainerStatus, TaskStatus};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The reports under way.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    next_call: u64,
    in_flight: BTreeMap<CallId, TaskId>,
    tasks: BTreeMap<TaskId, Delivery>,
}

#[derive(Clone, Debug, Default)]
struct Delivery {
    call: Option<CallId>,
    waiting: bool,
    failures: u32,
    /// What was last put into the queue, so that nothing is told twice.
    told: Option<(TaskStatus, Vec<ContainerStatus>)>,
}

impl Reports {
    /// Puts into the task's queue what changed since the last report.
    pub fn note(&mut self, machine: &mut TaskMachine) {
        let statuses: Vec<ContainerStatus> = machine
            .state
            .containers
            .values()
            .map(|c| c.status)
            .collect();
        let status = machine.state.status;
        let delivery = self.tasks.entry(machine.id).or_default();
        let told_running = delivery
            .told
            .as_ref()
            .map(|(told, _)| *told)
            .or_else(|| last_queued(&machine.state));
        if status == TaskStatus::Pending || machine.state.stop_acknowledged {
            return;
        }
        if told_running == Some(TaskStatus::Stopped) {
            return;
        }
        let ran = machine
            .state
            .containers
            .values()
            .all(|c| c.runtime_id.is_some());
        if status == TaskStatus::Stopped && told_running.is_none() && ran {
            // It ran and ended between two looks: first things first.
            let running = running_before_stop(machine);
            machine.state.reports.push(running);
        }
        let now = (status, statuses);
        let news = match &delivery.told {
            // On the way down only the end is news.
            Some(told) if told.0 == now.0 => told.1 != now.1 && machine.state.stopping.is_none(),
            _ => true,
        };
        if news {
            let report = change(machine, status);
            // One that has not left yet and says RUNNING as well is replaced, so that a queue has an
            // end however long nobody takes it.
            let queued = &mut machine.state.reports;
            let has_left = queued.len() == 1 && delivery.call.is_some();
            match queued.last_mut() {
                Some(last) if last.status == status && !has_left => *last = report,
                _ => queued.push(report),
            }
            delivery.told = Some(now);
            machine.dirty = true;
        }
    }

    /// Sends the oldest report of a task, unless one is under way or waits for its retry.
    pub fn send(&mut self, machine: &TaskMachine, out: &mut Vec<Output>) {
        let delivery = self.tasks.entry(machine.id).or_default();
        let Some(request) = machine.state.reports.first() else {
            return;
        };
        if delivery.call.is_some() || delivery.waiting {
            return;
        }
        // An agent that dies before it has written down the end would start the task again.
        if request.status == TaskStatus::Stopped && !machine.stop_durable {
            return;
        }
        self.next_call += 1;
        let call = CallId(self.next_call);
        delivery.call = Some(call);
        self.in_flight.insert(call, machine.id);
        out.push(Output::Call {
            call,
            request: request.clone(),
        });
    }

    /// Whose report this call carried.
    pub fn task_of(&self, call: CallId) -> Option<TaskId> {
        self.in_flight.get(&call).copied()
    }

    pub fn answered(
        &mut self,
        call: CallId,
        result: Result<(), CallError>,
        machine: &mut TaskMachine,
        chance: &mut Chance,
        out: &mut Vec<Output>,
    ) {
        self.in_flight.remove(&call);
        let delivery = self.tasks.entry(machine.id).or_default();
        if delivery.call != Some(call) {
            return;
        }
        delivery.call = None;
        match result {
            Ok(()) | Err(CallError::Refused { .. }) => {
                delivery.failures = 0;
                if !machine.state.reports.is_empty() {
                    let report = machine.state.reports.remove(0);
                    machine.state.stop_acknowledged |= report.status == TaskStatus::Stopped;
                    machine.dirty = true;
                }
            }
            Err(CallError::Retry { .. }) => {
                let after = chance.back_off(FIRST_RETRY, LAST_RETRY, delivery.failures);
                delivery.failures += 1;
                delivery.waiting = true;
                out.push(Output::SetTimer {
                    timer: Timer::Report(machine.id),
                    after,
                });
            }
        }
    }

    /// The time to try again has come, or the control plane has just been heard of.
    pub fn retry(&mut self, task: TaskId) {
        if let Some(delivery) = self.tasks.get_mut(&task) {
            delivery.waiting = false;
        }
    }

    pub fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
        self.in_flight.retain(|_, of| *of != task);
    }
}

fn last_queued(state: &TaskState) -> Option<TaskStatus> {
    state.reports.last().map(|report| report.status)
}

fn change(machine: &TaskMachine, status: TaskStatus) -> TaskStateChange {
    let state = &machine.state;
    let stopped = status == TaskStatus::Stopped;
    TaskStateChange {
        cluster: machine.cluster.clone(),
        task_arn: machine.payload.arn.clone().unwrap_or_default(),
        status,
        reason: state
            .stopping
            .as_ref()
            .filter(|_| stopped)
            .and_then(|s| s.reason.clone()),
        containers: state
            .containers
            .iter()
            .map(|(name, container)| ContainerStateChange {
                name: name.clone(),
                status: container.status,
                runtime_id: container.runtime_id.clone(),
                image_digest: container.image_digest.clone(),
                exit_code: container.exit_code,
                reason: container.reason.clone(),
                network_bindings: if container.runtime_id.is_some() {
                    machine.bindings_of(name)
                } else {
                    Vec::new()
                },
            })
            .collect(),
        pull_started_at: state.pull_started_at,
        pull_stopped_at: state.pull_stopped_at,
        execution_stopped_at: state.execution_stopped_at.filter(|_| stopped),
    }
}

/// The report that was due while every container still ran.
fn running_before_stop(machine: &TaskMachine) -> TaskStateChange {
    let mut report = change(machine, TaskStatus::Running);
    for container in &mut report.containers {
        container.status = ContainerStatus::Running;
        container.exit_code = None;
        container.reason = None;
    }
    report
}
