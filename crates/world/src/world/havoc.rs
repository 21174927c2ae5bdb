//! Faults, carried out.

use super::World;
use crate::event::Event;
use crate::faults::Fault;
use crate::network::Direction;
use gantry_api::acs::Frame;

/// Of each machine.
const FRAMES_KEPT: usize = 30;

impl World {
    pub(super) fn fault(&mut self) {
        let fault = Fault::draw(&mut self.chance);
        self.apply(fault);
    }

    pub(super) fn apply(&mut self, fault: Fault) {
        let machine = self.chance.below(self.nodes.len());
        self.apply_on(machine, fault);
    }

    pub(crate) fn apply_on(&mut self, machine: usize, fault: Fault) {
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
            Fault::OldFrame => self.deliver_again(machine),
            Fault::ClockJumps { forth, by } => {
                let now = self.venv.now();
                let behind =
                    gantry_env::Timestamp::from_millis(now.as_millis() - by.as_millis() as i64);
                self.venv
                    .set_wall_clock(if forth { now + by } else { behind });
            }
        }
    }

    /// Something that was delivered long ago comes once more, on whatever connection there is now.
    fn deliver_again(&mut self, machine: usize) {
        let node = &self.nodes[machine];
        // What the disk does not know yet may be news to an agent that comes after a crash.
        let known = node.machine.journal().seen;
        let old: Vec<&Frame> = node
            .delivered
            .iter()
            .filter(|frame| number_of(frame).is_some_and(|number| number <= known))
            .collect();
        let frame = old.get(self.chance.below(old.len())).copied().cloned();
        if let (Some(connection), Some(frame)) = (node.socket, frame) {
            let again = Event::ToAgent { connection, frame };
            self.deliver(connection, Direction::ToAgent, again);
        }
    }

    /// Keeps what may come again.
    pub(super) fn keep(&mut self, machine: usize, frame: &Frame) {
        if number_of(frame).is_some() {
            let delivered = &mut self.nodes[machine].delivered;
            delivered.push_back(frame.clone());
            if delivered.len() > FRAMES_KEPT {
                delivered.pop_front();
            }
        }
    }

    /// A control plane that read old rows: one of its tasks is missing in a manifest.
    pub(super) fn forget_some(&mut self, frame: &mut Frame) {
        if let Frame::TaskManifest(manifest) = frame
            && !manifest.tasks.is_empty()
            && self.chance.per_mille(self.faults.gaps_per_mille)
        {
            let missing = self.chance.below(manifest.tasks.len());
            manifest.tasks.remove(missing);
            *self.happened.entry("manifest with a gap").or_default() += 1;
        }
    }
}

fn number_of(frame: &Frame) -> Option<i64> {
    match frame {
        Frame::Payload(payload) => payload.seq_num,
        Frame::TaskManifest(manifest) => manifest.timeline,
        _ => None,
    }
}
