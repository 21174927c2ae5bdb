//! What goes wrong, and how often.

use std::time::Duration;

use crate::chance::Chance;
use crate::network::Losses;

/// The rates of the faulty half.
#[derive(Clone, Debug)]
pub struct Faults {
    /// One fault each so often, about.
    pub every: Duration,
    pub losses: Losses,
    /// Slow writes of a machine's disk, of a thousand.
    pub slow_disk_per_mille: u32,
    /// Calls of anybody at whose end the control plane dies, between commit and answer, of a thousand.
    pub death_after_commit_per_mille: u32,
    /// Manifests in which a task is missing, of a thousand.
    pub gaps_per_mille: u32,
    /// A disk that says it has written and has not: nothing here can bear that. It shows that the
    /// world finds what it looks for.
    pub disks_lie: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            every: Duration::from_millis(800),
            losses: Losses {
                call_per_mille: 30,
                answer_per_mille: 30,
                break_per_mille: 5,
                slow_per_mille: 20,
            },
            slow_disk_per_mille: 20,
            death_after_commit_per_mille: 2,
            gaps_per_mille: 200,
            disks_lie: false,
        }
    }
}

impl Faults {
    pub const NONE: Faults = Faults {
        every: Duration::MAX,
        losses: Losses::NONE,
        slow_disk_per_mille: 0,
        death_after_commit_per_mille: 0,
        gaps_per_mille: 0,
        disks_lie: false,
    };
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// `kill -9` of an agent, which is started again after a while.
    AgentDies { back_after: Duration },
    /// A machine goes down and comes back.
    PowerCut { back_after: Duration },
    /// A connection breaks with its frames in flight, and both ends are told.
    ConnectionBreaks,
    /// A connection is dead, and nobody is told.
    ConnectionFreezes,
    /// Nothing passes to or from a machine.
    Partition { heals_after: Duration },
    /// `kill -9` of the control plane.
    ControlDies { back_after: Duration },
    /// Everybody's wall clock jumps, back or forth.
    ClockJumps { forth: bool, by: Duration },
    /// A frame of long ago is delivered once more.
    OldFrame,
}

impl Fault {
    pub fn draw(chance: &mut Chance) -> Fault {
        let seconds = |chance: &mut Chance, most: u64| {
            chance.duration(Duration::from_millis(50)..Duration::from_secs(most))
        };
        match chance.below(130) {
            0..=29 => Fault::AgentDies {
                back_after: seconds(chance, 20),
            },
            30..=44 => Fault::PowerCut {
                back_after: seconds(chance, 60),
            },
            45..=64 => Fault::ConnectionBreaks,
            65..=79 => Fault::ConnectionFreezes,
            80..=93 => Fault::Partition {
                heals_after: seconds(chance, 120),
            },
            94..=96 => Fault::ControlDies {
                back_after: seconds(chance, 20),
            },
            97..=99 => Fault::ClockJumps {
                forth: chance.per_mille(500),
                by: seconds(chance, 20),
            },
            _ => Fault::OldFrame,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Fault::AgentDies { .. } => "agent dies",
            Fault::PowerCut { .. } => "power cut",
            Fault::ConnectionBreaks => "connection breaks",
            Fault::ConnectionFreezes => "connection freezes",
            Fault::Partition { .. } => "partition",
            Fault::ControlDies { .. } => "control plane dies",
            Fault::ClockJumps { .. } => "clock jumps",
            Fault::OldFrame => "old frame",
        }
    }
}
