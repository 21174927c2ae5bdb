//! Images to root file systems, the shim, containers, cgroups. The only `unsafe`.
//!
//! What always holds:
//! - Intent is on disk before anything is made in the kernel, so whatever a crash leaves can be
//!   found again: by the state files in a task's directory, by its cgroup, and by pid and start time.
//! - A task's containers are held by a shim of their own and outlive this process. The shim alone
//!   writes a task's state once it runs; this process only reads it.
//! - What the runtime mounts lives in the mount namespaces of the containers, never in the host's, so it
//!   ends with the last process that used it. (A tmpfs volume is the agent's mount, on the host.)
//! - An image counts only when all of it is on disk under its digest.
//!
//! What it leaves to others: which task runs and when (the agent), what a task's reasons and
//! statuses are called in ECS's API beyond the prefix of an error, and where log lines go.

#![allow(
    unsafe_code,
    reason = "this is the one crate that calls the kernel where no safe wrapper exists; each use says why it is sound"
)]

mod cgroup;
mod cleanup;
mod container;
mod error;
mod event;
mod found;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod image;
pub mod image_builder;
mod images;
mod logs;
mod protocol;
mod requirements;
mod runtime;
pub mod shim;
mod spec;
mod state;
mod stats;
mod task;

pub use cleanup::{Removed, cleanup};
pub use error::{ErrorKind, RuntimeError};
pub use event::{Exit, RuntimeEvent};
pub use handle::{StartedContainer, TaskHandle};
pub use image::{
    Collected, CollectionPolicy, HeldImage, ImageConfig, ImageReference, ImageStore,
    ImageStoreOptions, LayerLimits, PulledImage, ReferenceError, RegistryAccess,
};
pub use logs::{LogReader, LogRecord, LogStream};
pub use requirements::{Requirement, requirements};
pub use runtime::{AdoptedContainer, AdoptedTask, Runtime, RuntimeOptions, ShimCommand};
pub use spec::{
    BindMount, ContainerName, ContainerSpec, Device, ExecResult, ExecSpec, InstallationId, IpcMode,
    LogMode, LogSpec, NameError, NetworkMode, PidMode, Resources, Rlimit, STOP_TIMEOUT, TaskLimits,
    TaskSpec, Tmpfs, Ulimit,
};
pub use stats::{BlockIoEntry, ContainerStats, CpuStats, MemoryStats, PidsStats};
