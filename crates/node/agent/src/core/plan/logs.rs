//! Where a container's output goes, from Docker's LogConfig.
//!
//! What always holds: an option that is not known here is a reason that names it.
//! What it leaves to others: shipping the lines (the shell), keeping them (the runtime's spool).

use gantry_api::acs::DockerLogConfig;

use super::size;
use super::unknown::not_built;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlan {
    None,
    AwsLogs(AwsLogsPlan),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsLogsPlan {
    pub group: String,
    pub stream: String,
    pub region: String,
    pub create_group: bool,
    pub mode: DeliveryMode,
    pub use_execution_role: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// A full spool stops reading the container's output.
    Blocking,
    /// A full spool drops, and counts what it drops.
    NonBlocking { max_buffer_bytes: u64 },
}

/// ECS's buffer in non-blocking mode.
const DEFAULT_MAX_BUFFER_BYTES: u64 = 10 << 20;

pub(super) fn log_plan(
    config: Option<DockerLogConfig>,
    auth_strategy: Option<&str>,
    container: &str,
    task_id: &str,
) -> Result<LogPlan, String> {
    let Some(DockerLogConfig { driver, options }) = config else {
        return Ok(LogPlan::None);
    };
    match driver.as_deref() {
        None | Some("" | "none") => return Ok(LogPlan::None),
        Some("awslogs") => {}
        Some(other) => return Err(not_built("logDriver", other, Some(container))),
    }
    let mut plan = AwsLogsPlan {
        group: String::new(),
        stream: String::new(),
        region: String::new(),
        create_group: false,
        // ECS's default since June 2025.
        mode: DeliveryMode::NonBlocking {
            max_buffer_bytes: DEFAULT_MAX_BUFFER_BYTES,
        },
        use_execution_role: auth_strategy == Some("ExecutionRole"),
    };
    let (mut prefix, mut blocking, mut max_buffer) = (None, false, DEFAULT_MAX_BUFFER_BYTES);
    for (option, value) in options {
        match option.as_str() {
            "awslogs-group" => plan.group = value,
            "awslogs-region" => plan.region = value,
            "awslogs-stream-prefix" => prefix = Some(value),
            // The server has resolved the prefix where the name is given whole.
            "awslogs-stream" => plan.stream = value,
            "awslogs-create-group" => plan.create_group = value == "true",
            "mode" => match value.as_str() {
                "blocking" => blocking = true,
                "non-blocking" => blocking = false,
                _ => return Err(bad_option(container, "mode", &value)),
            },
            "max-buffer-size" => {
                max_buffer =
                    size(&value).ok_or_else(|| bad_option(container, "max-buffer-size", &value))?;
            }
            other => return Err(not_built("log option", other, Some(container))),
        }
    }
    if blocking {
        plan.mode = DeliveryMode::Blocking;
    } else {
        plan.mode = DeliveryMode::NonBlocking {
            max_buffer_bytes: max_buffer,
        };
    }
    if plan.group.is_empty() {
        return Err(format!(
            "container '{container}': log driver awslogs requires option 'awslogs-group'"
        ));
    }
    if plan.stream.is_empty() {
        plan.stream = match prefix {
            Some(prefix) => format!("{prefix}/{container}/{task_id}"),
            // Docker names the stream by the container's id, which is drawn from the task's here.
            None => format!("{task_id}-{container}"),
        };
    }
    Ok(LogPlan::AwsLogs(plan))
}

fn bad_option(container: &str, option: &str, value: &str) -> String {
    format!("container '{container}': log option '{option}' has no meaning with value '{value}'")
}
