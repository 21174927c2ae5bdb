//! A container's process on a simulated machine, and how it fares.
//!
//! What always holds: how long it lives and how it ends is drawn when it begins; it knows by itself
//! what its health checks have shown in this run, whatever an agent makes of it.
//! What it leaves to others: when things happen.

use std::time::Duration;

use gantry_agent::core::step::Exit;
use gantry_env::Timestamp;

use crate::chance::Chance;

#[derive(Clone, Debug)]
pub struct Process {
    pub runtime_id: String,
    /// Of this run.
    pub started_at: Timestamp,
    pub exit: Option<Exit>,
    /// The power went while it ran: that it was started is all that is left of it.
    pub lost: bool,
    pub restarts: u32,
    /// It has ended and is being started again.
    pub begins_again: bool,
    /// What checks of this run have shown to an agent.
    pub succeeded_checks: u32,
    pub failed_checks: u32,
    /// It ends only when it is told to.
    pub endless: bool,
}

/// Longer than any world.
pub const ENDLESS: Duration = Duration::from_secs(24 * 60 * 60);

impl Process {
    pub fn new(runtime_id: String, started_at: Timestamp) -> Process {
        Process {
            runtime_id,
            started_at,
            exit: None,
            lost: false,
            restarts: 0,
            begins_again: false,
            succeeded_checks: 0,
            failed_checks: 0,
            endless: false,
        }
    }

    /// The same container once more.
    pub fn again(&self, started_at: Timestamp) -> Process {
        Process {
            restarts: self.restarts + 1,
            ..Process::new(self.runtime_id.clone(), started_at)
        }
    }

    pub fn runs(&self) -> bool {
        self.exit.is_none() && !self.lost
    }

    pub fn is_over(&self) -> bool {
        !self.runs() && !self.begins_again
    }
}

/// How long a process lives, and its exit code. One that prepares something does so quickly.
pub fn fate(container: &str, calm: bool, chance: &mut Chance) -> (Duration, i32) {
    let most = match (container, calm) {
        ("init", _) => Duration::from_secs(3),
        (_, false) => Duration::from_secs(150),
        // Shorter than any restart policy asks for, so that the world comes to its end.
        (_, true) => Duration::from_secs(50),
    };
    // Many of those that may start again live just long enough for it.
    let may_again = matches!(container, "db" | "side") && !calm && chance.per_mille(500);
    let endless = container == "main" && !calm && chance.per_mille(150);
    let lives = match may_again {
        _ if endless => ENDLESS,
        true => chance.duration(Duration::from_secs(60)..Duration::from_secs(70)),
        false => chance.duration(Duration::from_millis(5)..most),
    };
    let exit_code = match chance.below(10) {
        0..=7 => 0,
        8 => 1,
        _ => 3,
    };
    (lives, exit_code)
}
