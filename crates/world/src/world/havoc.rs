//! Faults, carried out.

use super::World;
use crate::event::Event;
use crate::faults::Fault;

impl World {
    pub(super) fn fault(&mut self) {
        let fault = Fault::draw(&mut self.chance);
        self.apply(fault);
    }

    pub(super) fn apply(&mut self, fault: Fault) {
        let machine = self.chance.below(self.nodes.len());
        self.trace.note(
            self.monotonic(),
            format!("fault on machine {machine}: {fault:?}"),
        );
        *self.happened.entry(fault.name()).or_default() += 1;
        match fault {
            Fault::AgentDies { back_after } => {
                if self.nodes[machine].machine.has_agent() {
                    // The kernel closes its socket, after what was sent.
                    self.hang_up(machine);
                    self.nodes[machine].machine.kill_agent(&mut self.chance);
                    self.after(back_after, Event::AgentStarts { machine });
                }
            }
            Fault::PowerCut { back_after } => {
                if let Some(connection) = self.nodes[machine].socket.take() {
                    self.network.close(connection);
                }
                self.nodes[machine].machine.power_cut(&mut self.chance);
                self.after(back_after, Event::AgentStarts { machine });
            }
            Fault::ConnectionBreaks => {
                if let Some(connection) = self.nodes[machine].socket {
                    self.break_connection(connection);
                }
            }
            Fault::ConnectionFreezes => self.freeze(machine),
            Fault::Partition { heals_after } => {
                self.freeze(machine);
                self.nodes[machine].is_cut_off = true;
                self.after(heals_after, Event::PartitionHeals { machine });
            }
            Fault::ControlDies { back_after } => {
                if self.control.is_up() {
                    self.control.kill();
                    for connection in self.network.all() {
                        self.break_connection(connection);
                    }
                    self.after(back_after, Event::ControlStarts);
                }
            }
            Fault::ClockJumps { forth, by } => {
                let now = self.venv.now();
                let behind =
                    gantry_env::Timestamp::from_millis(now.as_millis() - by.as_millis() as i64);
                self.venv
                    .set_wall_clock(if forth { now + by } else { behind });
            }
        }
    }
}
