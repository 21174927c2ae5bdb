//! Health checks and restart policies.
//!
//! What always holds: a plan is complete; what the task definition leaves open has ECS's default.
//! What it leaves to others: when a check runs and what follows from it (`task`).

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_api::acs::{self, DockerHealthcheck};

use super::unknown::not_built;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_RESTART_ATTEMPT_PERIOD: Duration = Duration::from_secs(300);

/// How to find out whether a container is healthy. Every member is set: ECS's defaults are filled in
/// by who writes the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckPlan {
    /// As the runtime executes it: a shell is part of it where one was asked for.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// So many failures in a row make a container unhealthy.
    pub retries: u32,
    /// Failures before the first success do not count for so long after the start.
    pub start_period: Duration,
}

/// When a container that ended is started again. One whose policy is not enabled has no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartPlan {
    pub ignored_exit_codes: BTreeSet<i32>,
    /// A container that ran for less than this is not started again.
    pub attempt_period: Duration,
}

pub(super) fn health_check(
    kind: Option<&str>,
    check: Option<&DockerHealthcheck>,
    name: &str,
) -> Result<Option<HealthCheckPlan>, String> {
    match kind {
        // Without it the check is Docker's own affair, of which ECS hears nothing.
        None | Some("") => return Ok(None),
        Some("docker") => {}
        Some(other) => return Err(not_built("healthCheckType", other, Some(name))),
    }
    let Some(DockerHealthcheck {
        test,
        interval,
        timeout,
        retries,
        start_period,
    }) = check
    else {
        return Ok(None);
    };
    let command = match test.split_first() {
        None => return Ok(None),
        Some((word, [])) if word == "NONE" => return Ok(None),
        Some((word, words)) if word == "CMD" && !words.is_empty() => words.to_vec(),
        Some((word, [line])) if word == "CMD-SHELL" => {
            vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()]
        }
        // Docker hands further words to the shell as its arguments.
        Some((word, [line, more @ ..])) if word == "CMD-SHELL" => ["/bin/sh", "-c", line]
            .into_iter()
            .map(str::to_owned)
            .chain(more.iter().cloned())
            .collect(),
        Some((word, _)) => return Err(not_built("healthCheck command", word, Some(name))),
    };
    let nanoseconds = |value: &Option<i64>| {
        value
            .and_then(|ns| u64::try_from(ns).ok())
            .filter(|ns| *ns > 0)
            .map(Duration::from_nanos)
    };
    Ok(Some(HealthCheckPlan {
        command,
        interval: nanoseconds(interval).unwrap_or(DEFAULT_INTERVAL),
        timeout: nanoseconds(timeout).unwrap_or(DEFAULT_TIMEOUT),
        retries: retries
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(DEFAULT_RETRIES),
        start_period: nanoseconds(start_period).unwrap_or_default(),
    }))
}

pub(super) fn restart_policy(policy: Option<&acs::RestartPolicy>) -> Option<RestartPlan> {
    let acs::RestartPolicy {
        enabled,
        ignored_exit_codes,
        restart_attempt_period,
    } = policy?;
    (*enabled == Some(true)).then(|| RestartPlan {
        ignored_exit_codes: ignored_exit_codes.iter().copied().collect(),
        attempt_period: super::seconds(*restart_attempt_period)
            .unwrap_or(DEFAULT_RESTART_ATTEMPT_PERIOD),
    })
}
