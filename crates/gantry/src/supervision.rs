//! Keeps the agent of this process running: one that ends with an error is started again.
//!
//! What always holds: tasks run on while the agent does not, because a shim each holds them; the wait
//! before a new start grows while starts fail, and what went wrong can be read in `/_gantry/health`.
//! What it leaves to others: what the agent does, and when it shall end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_agent::shell::{Agent, AgentConfig, Shutdown};
use gantry_env::Env;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// An agent that ran for so long has started well: its next failure is a first one.
const STEADY_AFTER: Duration = Duration::from_secs(120);

/// How the agent is doing. Cloning shares it.
#[derive(Clone, Debug)]
pub struct AgentHealth {
    state: Arc<Mutex<State>>,
    failures: watch::Sender<u32>,
}

#[derive(Clone, Debug, Default)]
struct State {
    running: bool,
    restarts: u32,
    last_error: Option<String>,
}

impl AgentHealth {
    pub fn new() -> AgentHealth {
        AgentHealth {
            state: Arc::default(),
            failures: watch::Sender::new(0),
        }
    }

    /// What `/_gantry/health` says of it.
    pub fn members(&self) -> Map<String, Value> {
        let state = self.lock();
        let status = if state.running {
            "running"
        } else {
            "restarting"
        };
        let mut agent = Map::from_iter([
            ("status".to_owned(), json!(status)),
            ("restarts".to_owned(), json!(state.restarts)),
        ]);
        if let Some(error) = &state.last_error {
            agent.insert("lastError".to_owned(), json!(error));
        }
        Map::from_iter([("agent".to_owned(), Value::Object(agent))])
    }

    /// Ends with the error of the first start that failed.
    pub async fn failed(&self) -> String {
        // The sender lives as long as this.
        let _ = self.failures.subscribe().wait_for(|n| *n > 0).await;
        self.lock().last_error.clone().unwrap_or_default()
    }

    fn starts(&self) {
        self.lock().running = true;
    }

    fn fails(&self, error: &str) {
        let mut state = self.lock();
        state.running = false;
        state.restarts += 1;
        state.last_error = Some(error.to_owned());
        drop(state);
        self.failures.send_modify(|n| *n += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the agent until `shutdown` says otherwise.
pub fn keep_running(
    config: AgentConfig,
    env: &Env,
    mut shutdown: watch::Receiver<Shutdown>,
    health: AgentHealth,
) -> JoinHandle<()> {
    let env = env.clone();
    tokio::spawn(async move {
        let mut attempt = 0;
        loop {
            health.starts();
            let started = env.monotonic();
            let run = Agent::run(config.clone(), env.clone(), shutdown.clone());
            let Err(error) = run.await else { return };
            let error = error.to_string();
            health.fails(&error);
            if env.monotonic().saturating_sub(started) > STEADY_AFTER {
                attempt = 0;
            }
            attempt += 1;
            let (first, last) = BACK_OFF;
            let wait = gantry_api::client::backoff(attempt, first, last, env.entropy.u64());
            tracing::error!(
                error,
                ?wait,
                "the agent ended; tasks run on, and it is started again"
            );
            tokio::select! {
                () = env.sleep(wait) => {}
                _ = shutdown.wait_for(|asked| *asked != Shutdown::No) => return,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_tells_what_went_wrong() {
        let health = AgentHealth::new();
        health.starts();
        assert_eq!(health.members()["agent"]["status"], "running");
        health.fails("the journal cannot be written");
        let members = health.members();
        assert_eq!(members["agent"]["status"], "restarting");
        assert_eq!(members["agent"]["restarts"], 1);
        assert_eq!(
            members["agent"]["lastError"],
            "the journal cannot be written"
        );
        health.starts();
        assert_eq!(health.members()["agent"]["status"], "running");
        assert_eq!(health.members()["agent"]["restarts"], 1);
    }
}
