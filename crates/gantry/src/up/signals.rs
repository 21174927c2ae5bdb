//! Which signal means what for the tasks.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How this process shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGINT: the tasks are stopped as well.
    StopTasks,
    /// SIGTERM and SIGHUP: the tasks run on, and the next `up` adopts them.
    LeaveTasks,
}

/// The three signals.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on, none of the three ends the process by itself.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::StopTasks,
            _ = self.terminate.recv() => Ending::LeaveTasks,
            _ = self.hang_up.recv() => Ending::LeaveTasks,
        }
    }
}
