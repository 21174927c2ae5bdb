//! A task of the journal, brought together with what the runtime found of it after a restart.
//!
//! What always holds: what the runtime found is newer than the journal; nothing that was started is
//! started anew, and what was being started again is not started again twice.
//! What it leaves to others: going on from there (`drive`).

use gantry_api::acs;
use gantry_arn::TaskId;

use super::super::journal::TaskState;
use super::super::step::{AdoptedContainer, AdoptedTask, Output, RuntimeCommand};
use super::super::{ContainerStatus, TaskStatus};
use super::TaskMachine;
use super::restart::Restarting;

impl TaskMachine {
    pub fn loaded(
        id: TaskId,
        cluster: String,
        payload: acs::Task,
        state: TaskState,
        adopted: Option<&AdoptedTask>,
        out: &mut Vec<Output>,
    ) -> TaskMachine {
        let mut machine = TaskMachine::new(id, cluster, payload);
        let mut containers = std::mem::take(&mut machine.state.containers);
        for (name, known) in state.containers.clone() {
            containers.insert(name, known);
        }
        machine.state = TaskState {
            containers,
            ..state
        };
        machine.durable = true;
        machine.stopping_durable = machine.state.stopping.is_some();
        machine.stop_durable = machine.state.status == TaskStatus::Stopped;
        let names: Vec<String> = machine.state.containers.keys().cloned().collect();
        for name in names {
            let found = adopted.and_then(|task| task.containers.get(&name));
            if let Some(ports) = adopted.and_then(|task| task.ports.get(&name)) {
                machine
                    .container_mut(&name)
                    .network_bindings
                    .clone_from(ports);
            }
            machine.adopt_container(&name, found, out);
        }
        machine.dirty = true;
        machine
    }

    fn adopt_container(
        &mut self,
        name: &str,
        found: Option<&AdoptedContainer>,
        out: &mut Vec<Output>,
    ) {
        let log = self.log_of(name);
        let known = self.container_mut(name).status;
        match found {
            Some(AdoptedContainer::Running {
                runtime_id,
                started_at,
                restarts,
            }) => {
                self.started(name, runtime_id, *started_at);
                self.adopt_run(name, *restarts, *started_at);
            }
            Some(AdoptedContainer::Exited {
                runtime_id,
                started_at,
                restarts,
                exit,
            }) => {
                self.started(name, runtime_id, *started_at);
                self.adopt_run(name, *restarts, *started_at);
                self.exited(name, exit);
            }
            Some(AdoptedContainer::Starting { restarts }) => {
                self.container_mut(name)
                    .status
                    .advance(ContainerStatus::Created);
                if *restarts > 0 {
                    self.asked_mut(name).restart = Restarting::Asked {
                        restarts: *restarts,
                        last: None,
                    };
                }
                out.push(self.start_timer(name));
            }
            Some(AdoptedContainer::Lost { reason }) => self.failed(name, reason.clone()),
            // It ran when it was last seen, and the runtime has nothing of it: it was not removed by
            // this agent, which removes only what is reported.
            None if known == ContainerStatus::Running => self.failed(
                name,
                "ContainerRuntimeError: the container was lost while its agent was away".to_owned(),
            ),
            // What the last process had pulled or asked for is asked for again.
            None if known < ContainerStatus::Running => {
                self.container_mut(name).status = ContainerStatus::None;
                return;
            }
            None => return,
        }
        let asked = self.asked_mut(name);
        asked.pull = true;
        asked.start = true;
        if let (Some(log), false) = (log, asked.log) {
            asked.log = true;
            asked.log_ready = true;
            let (task, container) = (self.id, name.to_owned());
            out.push(Output::Runtime(RuntimeCommand::ResumeLog {
                task,
                container,
                log,
            }));
        }
    }
}
