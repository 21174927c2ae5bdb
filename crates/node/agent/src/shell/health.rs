//! Health checks and restarts, carried out on real containers.
//!
//! What always holds: a check is answered, by its time-out at the latest, and with what it wrote; a
//! restart is done once, however often and by whomever it is asked for, and its start is told by the
//! runtime's own event.
//! What it leaves to others: when to check and what the results mean, and whether to restart (the core).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_runtime::{ContainerName, ExecSpec};

use super::driver::Driver;
use crate::core::plan::HealthCheckPlan;
use crate::core::step::RuntimeEvent;

/// What is kept of a check's output, as in Docker.
const OUTPUT_BYTES_MAX: usize = 4096;
/// How long the event of a restart that another agent had asked for may be under way.
const STARTED_PATIENCE: Duration = Duration::from_secs(2);
const STARTED_LOOK: Duration = Duration::from_millis(20);
/// A shim that does not answer is not waited for much longer than the check may take.
const EXEC_PATIENCE: Duration = Duration::from_secs(5);

/// How often each container has started, as the runtime told it.
#[derive(Default)]
pub struct Starts(Mutex<BTreeMap<(TaskId, String), u32>>);

impl Starts {
    /// What was found of a container that had started before.
    pub fn adopt(&self, task: TaskId, container: &str, restarts: u32) {
        self.lock()
            .insert((task, container.to_owned()), restarts + 1);
    }

    /// One more start; says whether it was one before.
    pub fn count(&self, task: TaskId, container: &str) -> bool {
        let mut starts = self.lock();
        let count = starts.entry((task, container.to_owned())).or_default();
        *count += 1;
        *count > 1
    }

    fn restarts(&self, task: TaskId, container: &str) -> u32 {
        let starts = self.lock();
        let count = starts.get(&(task, container.to_owned()));
        count.map_or(0, |count| count.saturating_sub(1))
    }

    pub fn forget(&self, task: TaskId) {
        self.lock().retain(|(of, _), _| *of != task);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TaskId, String), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    pub(super) async fn check_health(
        &self,
        task: TaskId,
        container: String,
        restarts: u32,
        check: HealthCheckPlan,
    ) {
        let (healthy, output) = match self.run_check(task, &container, &check).await {
            Ok(found) => found,
            Err(reason) => (false, reason),
        };
        self.tell(RuntimeEvent::HealthChecked {
            task,
            container,
            restarts,
            healthy,
            output,
            at: self.env().now(),
        });
    }

    async fn run_check(
        &self,
        task: TaskId,
        container: &str,
        check: &HealthCheckPlan,
    ) -> Result<(bool, String), String> {
        let (handle, name) = self.find(task, container)?;
        let exec = ExecSpec {
            args: check.command.clone(),
            environment: Vec::new(),
            user: None,
            timeout: check.timeout,
            output_bytes_max: OUTPUT_BYTES_MAX,
        };
        let result = tokio::select! {
            result = handle.exec(&name, exec) => result.map_err(|error| error.to_string())?,
            () = self.env().sleep(check.timeout + EXEC_PATIENCE) => {
                return Err("the task's shim did not answer".to_owned());
            }
        };
        if result.timed_out {
            return Ok((
                false,
                format!("Health check exceeded timeout ({:?})", check.timeout),
            ));
        }
        let output = String::from_utf8_lossy(&result.output).into_owned();
        Ok(judged(result.exit_code, output))
    }

    pub(super) async fn restart(&self, task: TaskId, container: String, restarts: u32) {
        let asked = match self.find(task, &container) {
            Ok((handle, name)) => {
                let asked = handle.restart_container(&name).await;
                asked.map(drop).map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason),
        };
        let Err(reason) = asked else { return };
        // It may have been refused because it has been done: an agent that died had asked for it. Then
        // its start was told, or is about to be.
        let env = self.env();
        let deadline = env.monotonic() + STARTED_PATIENCE;
        while self.starts().restarts(task, &container) < restarts {
            if env.monotonic() >= deadline {
                self.tell(RuntimeEvent::StartFailed {
                    task,
                    container,
                    reason,
                });
                return;
            }
            env.sleep(STARTED_LOOK).await;
        }
    }

    fn find(
        &self,
        task: TaskId,
        container: &str,
    ) -> Result<(gantry_runtime::TaskHandle, ContainerName), String> {
        self.handle(task)
            .zip(container.parse().ok())
            .ok_or_else(|| "ContainerRuntimeError: the task is not here any more".to_owned())
    }
}

/// Whoever reads why a container is UNHEALTHY wants the exit code too.
fn judged(exit_code: i32, output: String) -> (bool, String) {
    match (exit_code, output.trim_end()) {
        (0, _) => (true, output),
        (code, "") => (false, format!("exit code {code}")),
        (code, output) => (false, format!("exit code {code}: {output}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_tells_its_exit_code() {
        assert_eq!(judged(0, "fine\n".to_owned()), (true, "fine\n".to_owned()));
        assert_eq!(judged(7, String::new()), (false, "exit code 7".to_owned()));
        let told = "exit code 1: refused".to_owned();
        assert_eq!(judged(1, "refused\n".to_owned()), (false, told));
    }

    #[test]
    fn starts_are_counted_from_what_was_found() {
        let task = TaskId::from_random([1; 16]);
        let starts = Starts::default();
        assert_eq!(starts.restarts(task, "web"), 0);
        assert!(!starts.count(task, "web"), "the first start is none again");
        assert!(starts.count(task, "web"));
        assert_eq!(starts.restarts(task, "web"), 1);
        starts.adopt(task, "db", 4);
        assert!(starts.count(task, "db"));
        assert_eq!(starts.restarts(task, "db"), 5);
        starts.forget(task);
        assert_eq!(starts.restarts(task, "db"), 0);
    }
}
