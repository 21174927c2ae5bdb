//! What passes between machines and the control plane: connections, frames, calls and answers.
//!
//! What always holds: the frames of one connection arrive in order or not at all; calls arrive in any
//! order, or late, or never. What a machine that is cut off sends is lost.

use super::World;
use super::promises::task_of;
use crate::control::{self, ConnectionId};
use crate::event::Event;
use crate::faults::Fault;
use crate::machine::Incarnation;
use crate::network::Direction;
use gantry_agent::core::step::{CallError, CallId, TaskStateChange};
use gantry_api::acs::Frame;
use gantry_api::ecs;
use std::time::Duration;

impl World {
    /// What the control plane wants of the world.
    pub(super) fn grant_control(&mut self, wishes: Vec<control::Wish>) {
        for wish in wishes {
            match wish {
                control::Wish::Send {
                    connection,
                    mut frame,
                } => {
                    self.check_sent(&frame);
                    self.forget_some(&mut frame);
                    if self.chance.per_mille(self.faults.losses.break_per_mille) {
                        self.break_connection(connection);
                    } else {
                        self.deliver(
                            connection,
                            Direction::ToAgent,
                            Event::ToAgent { connection, frame },
                        );
                    }
                }
                control::Wish::Close { connection } => {
                    self.control.disconnected(connection);
                    if let Some(open) = self.network.get(connection) {
                        let (machine, incarnation) = (open.machine, open.incarnation);
                        let closed = Event::Closed {
                            machine,
                            incarnation,
                            connection,
                        };
                        self.deliver(connection, Direction::ToAgent, closed);
                    }
                }
                control::Wish::Timer {
                    connection,
                    after,
                    timer,
                    generation,
                } => {
                    self.after(
                        after,
                        Event::SessionTimer {
                            connection,
                            timer,
                            generation,
                        },
                    );
                }
            }
        }
    }

    pub(super) fn dial(&mut self, machine: usize, incarnation: Incarnation) {
        let connection = self.network.open(machine, incarnation);
        self.nodes[machine].socket = Some(connection);
        if self.nodes[machine].is_cut_off {
            self.network.close(connection);
            self.refuse(machine, incarnation, connection);
        } else {
            self.deliver(
                connection,
                Direction::ToControl,
                Event::Dialled { connection },
            );
        }
    }

    pub(super) fn dialled(&mut self, connection: ConnectionId) {
        let Some(open) = self.network.get(connection) else {
            return;
        };
        let (machine, incarnation) = (open.machine, open.incarnation);
        let arn = self.nodes[machine].arn.clone();
        match self.control.connect(connection, &arn) {
            Some(wishes) => {
                self.deliver(connection, Direction::ToAgent, Event::Opened { connection });
                self.grant_control(wishes);
            }
            None => {
                self.network.close(connection);
                self.refuse(machine, incarnation, connection);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        machine: usize,
        incarnation: Incarnation,
        connection: ConnectionId,
    ) {
        let after = self
            .chance
            .duration(Duration::from_millis(1)..Duration::from_secs(5));
        self.after(
            after,
            Event::Closed {
                machine,
                incarnation,
                connection,
            },
        );
    }

    pub(super) fn hang_up(&mut self, machine: usize) {
        if let Some(connection) = self.nodes[machine].socket.take() {
            self.deliver(
                connection,
                Direction::ToControl,
                Event::HungUp { connection },
            );
        }
    }

    pub(super) fn send(&mut self, machine: usize, frame: Frame) {
        let Some(connection) = self.nodes[machine].socket else {
            return;
        };
        if self.chance.per_mille(self.faults.losses.break_per_mille) {
            self.break_connection(connection);
        } else {
            self.deliver(
                connection,
                Direction::ToControl,
                Event::ToControl { connection, frame },
            );
        }
    }

    /// How long something is under way.
    pub(super) fn delay(&mut self) -> Duration {
        self.faults.losses.delay(&mut self.chance)
    }

    /// After everything that was sent before it on this connection.
    pub(super) fn deliver(&mut self, connection: ConnectionId, direction: Direction, event: Event) {
        let at = self.monotonic() + self.delay();
        if let Some(arrival) = self.network.arrival(connection, direction, at) {
            self.schedule.at(arrival, event);
        }
    }

    /// What is in flight is lost, and both ends are told some time.
    pub(super) fn break_connection(&mut self, connection: ConnectionId) {
        let Some(open) = self.network.close(connection) else {
            return;
        };
        let (machine, incarnation) = (open.machine, open.incarnation);
        let (agent, control) = (self.delay(), self.delay());
        self.after(
            agent,
            Event::Closed {
                machine,
                incarnation,
                connection,
            },
        );
        self.after(control, Event::HungUp { connection });
    }

    pub(super) fn call(
        &mut self,
        machine: usize,
        incarnation: Incarnation,
        call: CallId,
        request: TaskStateChange,
    ) {
        let event = Event::Call {
            machine,
            incarnation,
            call,
            request: Box::new(request),
        };
        if self.nodes[machine].is_cut_off {
            return self.time_out(machine, incarnation, call);
        }
        if self.chance.per_mille(self.faults.losses.call_per_mille) {
            self.time_out(machine, incarnation, call);
            // Lost as far as the agent can tell; it may still arrive, after later ones.
            if self.chance.per_mille(500) {
                let late = self
                    .chance
                    .duration(Duration::from_secs(5)..Duration::from_secs(60));
                self.after(late, event);
            }
            return;
        }
        let after = self.delay();
        self.after(after, event);
    }

    pub(super) fn time_out(&mut self, machine: usize, incarnation: Incarnation, call: CallId) {
        let after = self
            .chance
            .duration(Duration::from_secs(1)..Duration::from_secs(10));
        let result = Err(CallError::Retry {
            message: "timed out".to_owned(),
        });
        self.after(
            after,
            Event::Reply {
                machine,
                incarnation,
                call,
                result,
            },
        );
    }

    pub(super) fn called(
        &mut self,
        machine: usize,
        incarnation: Incarnation,
        call: CallId,
        request: TaskStateChange,
    ) {
        let told = (task_of(&request.task_arn), request.status);
        let request = ecs::SubmitTaskStateChangeRequest::from(request);
        let answer = self
            .control
            .call(|ecs, ctx| async move { ecs.submit_task_state_change(&ctx, request).await });
        let Some(answer) = answer else {
            return self.time_out(machine, incarnation, call);
        };
        // Every task is kept for an hour, so there is no report that nobody wants.
        answer
            .unwrap_or_else(|error| panic!("a report of machine {machine} was refused: {error:?}"));
        self.check_durable(&told);
        if self
            .chance
            .per_mille(self.faults.death_after_commit_per_mille)
        {
            self.apply(Fault::ControlDies {
                back_after: Duration::from_secs(1),
            });
            return self.time_out(machine, incarnation, call);
        }
        if self.nodes[machine].is_cut_off
            || self.chance.per_mille(self.faults.losses.answer_per_mille)
        {
            return self.time_out(machine, incarnation, call);
        }
        let after = self.delay();
        self.after(
            after,
            Event::Reply {
                machine,
                incarnation,
                call,
                result: Ok(()),
            },
        );
    }

    /// The connection is dead; both ends find out by its silence. An attempt to connect times out.
    pub(super) fn freeze(&mut self, machine: usize) {
        let Some(connection) = self.nodes[machine].socket else {
            return;
        };
        if let Some(open) = self.network.close(connection) {
            let incarnation = open.incarnation;
            // A dial has its own time-out; an open socket is found dead at the latest by then.
            let after = self
                .chance
                .duration(Duration::from_secs(10)..Duration::from_secs(180));
            self.after(
                after,
                Event::Closed {
                    machine,
                    incarnation,
                    connection,
                },
            );
        }
    }
}
