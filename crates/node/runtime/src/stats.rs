//! What containers have used of the machine, as their cgroups count it.
//!
//! What always holds: every number is the kernel's own count; what a machine's cgroups do not count is `None`
//! or absent, never zero in place of a measurement.

use std::collections::BTreeMap;

use gantry_env::Timestamp;

/// What a container, or a whole task, has used so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStats {
    pub at: Timestamp,
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub pids: PidsStats,
    pub block_io: Vec<BlockIoEntry>,
}

/// Times in nanoseconds since the cgroup was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub total_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// One a processor; empty on cgroup v2, which does not count it.
    pub per_cpu_ns: Vec<u64>,
    /// The time of all processors of the machine since it booted, what they idled included, as Docker counts it.
    pub machine_ns: u64,
    pub online_cpus: u32,
    /// Periods in which a hard limit was in force, those in which it was reached, and the time lost by it.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub usage_bytes: u64,
    /// The most it ever was, where the kernel keeps it.
    pub max_usage_bytes: Option<u64>,
    /// Its own limit or the task's, whichever is lower.
    pub limit_bytes: Option<u64>,
    /// Of the usage, what the kernel can take back: its copies of files.
    pub cache_bytes: u64,
    /// How often the limit was reached.
    pub limit_reached: u64,
    pub out_of_memory_kills: u64,
    /// The kernel's `memory.stat`, by its own names.
    pub details: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    pub current: u64,
    pub limit: Option<u64>,
}

/// What was read from or written to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u32,
    pub minor: u32,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`, as Docker names them.
    pub operation: String,
    pub bytes: u64,
    pub operations: u64,
}
