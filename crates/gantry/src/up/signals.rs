//! Which signal means what for the tasks.

use gantry_agent::shell::Shutdown;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

/// How this process shall end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
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
    async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.interrupt.recv() => Ending::StopTasks,
            _ = self.terminate.recv() => Ending::LeaveTasks,
            _ = self.hang_up.recv() => Ending::LeaveTasks,
        }
    }

    /// Waits for a signal, tells the agent what it means for the tasks, and waits for the agent's end.
    /// A second signal leaves the tasks, whatever the first one was.
    pub async fn end(
        &mut self,
        agent: &mut JoinHandle<()>,
        shutdown: &watch::Sender<Shutdown>,
    ) -> Result<(), JoinError> {
        let mut ending = self.next().await;
        loop {
            shutdown.send_replace(match ending {
                Ending::StopTasks => Shutdown::StopTasks,
                Ending::LeaveTasks => Shutdown::LeaveTasks,
            });
            tokio::select! {
                ended = &mut *agent => return ended,
                _ = self.next() => {
                    tracing::warn!("tasks are left running");
                    ending = Ending::LeaveTasks;
                }
            }
        }
    }
}
