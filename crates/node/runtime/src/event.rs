//! What the runtime tells its agent about running containers.
//!
//! What always holds: an exit is written to disk by the shim before it is told here, so an event
//! that is lost with this process is found again by `Runtime::adopt`. Events of one container come in order.

use gantry_arn::TaskId;
use gantry_env::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::ContainerName;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell and Docker count it: 128 + the signal where a signal ended it.
    pub exit_code: i32,
    /// The signal that ended the container's first process.
    pub signal: Option<i32>,
    /// The kernel killed its first process for want of memory.
    pub out_of_memory: bool,
    pub at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// The container's first process runs.
    ContainerStarted {
        task: TaskId,
        container: ContainerName,
        pid: i32,
        at: Timestamp,
    },
    ContainerExited {
        task: TaskId,
        container: ContainerName,
        exit: Exit,
    },
    /// The task's shim is gone without having been told to go. Its containers have been killed by
    /// the time this is told; those that had not ended before have no exit code.
    ShimDied {
        task: TaskId,
        /// The containers that ran until then.
        containers: Vec<ContainerName>,
        at: Timestamp,
    },
}
