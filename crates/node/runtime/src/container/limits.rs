//! What a container may take: its resource limits, and the numbers of its cgroup.
//!
//! What always holds: a default is lowered to what this machine allows; what a definition names itself is given as it is,
//! or refused by name. What it leaves to others: devices (`devices`), and the task's own cgroup.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::{capabilities, refused};
use crate::error::RuntimeError;
use crate::spec::{ContainerSpec, Rlimit};

/// The kernel's floor for shares.
const CPU_SHARES_MIN: u64 = 2;
/// Keeps a fork bomb inside its own container.
const PIDS_DEFAULT: u64 = 4096;
/// The soft limit of open files that programs expect; the hard one is the machine's.
const NOFILE_SOFT: u64 = 1024;

/// A name as ECS has it, the OCI's, and the kernel's.
fn known(limit: Rlimit) -> (&'static str, &'static str, Resource) {
    match limit {
        Rlimit::Core => ("core", "RLIMIT_CORE", Resource::Core),
        Rlimit::Cpu => ("cpu", "RLIMIT_CPU", Resource::Cpu),
        Rlimit::Data => ("data", "RLIMIT_DATA", Resource::Data),
        Rlimit::Fsize => ("fsize", "RLIMIT_FSIZE", Resource::Fsize),
        Rlimit::Locks => ("locks", "RLIMIT_LOCKS", Resource::Locks),
        Rlimit::Memlock => ("memlock", "RLIMIT_MEMLOCK", Resource::Memlock),
        Rlimit::Msgqueue => ("msgqueue", "RLIMIT_MSGQUEUE", Resource::Msgqueue),
        Rlimit::Nice => ("nice", "RLIMIT_NICE", Resource::Nice),
        Rlimit::Nofile => ("nofile", "RLIMIT_NOFILE", Resource::Nofile),
        Rlimit::Nproc => ("nproc", "RLIMIT_NPROC", Resource::Nproc),
        Rlimit::Rss => ("rss", "RLIMIT_RSS", Resource::Rss),
        Rlimit::Rtprio => ("rtprio", "RLIMIT_RTPRIO", Resource::Rtprio),
        Rlimit::Rttime => ("rttime", "RLIMIT_RTTIME", Resource::Rttime),
        Rlimit::Sigpending => ("sigpending", "RLIMIT_SIGPENDING", Resource::Sigpending),
        Rlimit::Stack => ("stack", "RLIMIT_STACK", Resource::Stack),
    }
}

/// The limits in the OCI's form.
pub(super) fn rlimits(spec: &ContainerSpec) -> Result<Vec<Value>, RuntimeError> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let mut limits = vec![("RLIMIT_NOFILE", NOFILE_SOFT.min(hard), hard)];
    for ulimit in &spec.ulimits {
        let (name, oci_name, resource) = known(ulimit.name);
        if ulimit.soft > ulimit.hard {
            return Err(refused(format!(
                "ulimit {name}: the soft limit {} is above the hard limit {}",
                ulimit.soft, ulimit.hard
            )));
        }
        if let Some(most) = most_that_can_be_set(ulimit.name, resource)
            && ulimit.hard > most
        {
            return Err(refused(format!(
                "ulimit {name}: {} is above this machine's hard limit of {most}",
                ulimit.hard
            )));
        }
        limits.retain(|(known, _, _)| *known != oci_name);
        limits.push((oci_name, ulimit.soft, ulimit.hard));
    }
    Ok(limits
        .into_iter()
        .map(|(name, soft, hard)| json!({"type": name, "soft": soft, "hard": hard}))
        .collect())
}

/// `None` is no bound: this process may raise the limit as it likes.
fn most_that_can_be_set(limit: Rlimit, resource: Resource) -> Option<u64> {
    let may_raise =
        capabilities::held().is_ok_and(|held| held.contains(CapabilitySet::SYS_RESOURCE));
    if !may_raise {
        return getrlimit(resource).maximum;
    }
    // The kernel's own bound of open files holds for everybody.
    (limit == Rlimit::Nofile)
        .then(|| std::fs::read_to_string("/proc/sys/fs/nr_open").ok())
        .flatten()?
        .trim()
        .parse()
        .ok()
}

/// The cgroup's numbers in the OCI's form; `devices` are its rules.
pub(super) fn resources(spec: &ContainerSpec, devices: &[Value]) -> Result<Value, RuntimeError> {
    let wanted = &spec.resources;
    let mut resources = json!({
        "devices": devices,
        "pids": {"limit": wanted.pids.unwrap_or(PIDS_DEFAULT)},
    });
    if let Some(shares) = wanted.cpu_shares {
        resources["cpu"] = json!({"shares": shares.max(CPU_SHARES_MIN)});
    }
    let mut memory = serde_json::Map::new();
    if let Some(limit) = wanted.memory_bytes {
        memory.insert("limit".to_owned(), json!(limit));
    }
    if let Some(reservation) = wanted.memory_reservation_bytes {
        memory.insert("reservation".to_owned(), json!(reservation));
    }
    if let Some(swap) = spec.memory_swap_bytes {
        let limit = wanted.memory_bytes.ok_or_else(|| {
            refused("maxSwap needs a hard limit of memory: without one, swap cannot be bounded")
        })?;
        if swap != -1 && swap < 0 || swap >= 0 && swap.unsigned_abs() < limit {
            return Err(refused(format!(
                "memory and swap together ({swap}) must be at least the memory ({limit}), or -1"
            )));
        }
        memory.insert("swap".to_owned(), json!(swap));
    }
    if let Some(swappiness) = spec.memory_swappiness {
        if swappiness > 100 {
            return Err(refused(format!(
                "swappiness {swappiness} is not within 0 to 100"
            )));
        }
        if cgroup_is_v2() {
            return Err(refused(
                "swappiness does not exist on cgroup v2: leave it out on this machine",
            ));
        }
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if !memory.is_empty() {
        resources["memory"] = Value::Object(memory);
    }
    Ok(resources)
}

/// Where v2 keeps how much a cgroup may swap, which v1 counts together with its memory.
const SWAP_MAX: &str = "memory.swap.max";
const SWAP_MAX_V1: &str = "memory.memsw.limit_in_bytes";

/// libcontainer takes no swap at all for no limit on v2, and leaves it as large as the machine's.
pub(super) fn bound_swap(cgroup: &Path, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let memory = spec.resources.memory_bytes.map(i64::try_from);
    let (Some(swap), Some(Ok(memory))) = (spec.memory_swap_bytes, memory) else {
        return Ok(());
    };
    if swap != memory {
        return Ok(());
    }
    std::fs::write(cgroup.join(SWAP_MAX), "0")
        .map_err(|error| refused(no_swap(&format!("{SWAP_MAX}: {error}"))))
}

/// The member by its name, if what libcontainer says of a failed start is about swap.
pub(super) fn swap_refused(said: &str, spec: &ContainerSpec) -> Option<RuntimeError> {
    let is_swap = said.contains(SWAP_MAX) || said.contains(SWAP_MAX_V1);
    (spec.memory_swap_bytes.is_some() && is_swap).then(|| refused(no_swap(said)))
}

fn no_swap(why: &str) -> String {
    format!("maxSwap cannot be had, because this machine's kernel does not account for swap: {why}")
}

/// One hierarchy for everything.
pub(super) fn cgroup_is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(memory: u64, swap: Option<i64>) -> ContainerSpec {
        let mut spec = ContainerSpec::new("c".parse().unwrap(), "image");
        spec.resources.memory_bytes = Some(memory);
        spec.memory_swap_bytes = swap;
        spec
    }

    #[test]
    fn no_swap_is_none_and_not_all_there_is() {
        let cgroup = tempfile::tempdir().unwrap();
        let file = cgroup.path().join(SWAP_MAX);
        for (swap, written) in [(64, "0"), (96, "max"), (-1, "max")] {
            std::fs::write(&file, "max").unwrap();
            bound_swap(cgroup.path(), &spec(64, Some(swap))).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), written, "{swap}");
        }
        bound_swap(cgroup.path(), &spec(64, None)).unwrap();
    }

    #[test]
    fn a_kernel_that_does_not_account_for_swap_is_told_of_by_the_members_name() {
        let nowhere = Path::new("/nowhere");
        let error = bound_swap(nowhere, &spec(64, Some(64))).unwrap_err();
        assert!(error.message.contains("maxSwap"), "{}", error.message);
        let said = format!("writing /sys/fs/cgroup/memory/x/{SWAP_MAX_V1}: no such file");
        let error = swap_refused(&said, &spec(64, Some(96))).unwrap();
        assert!(error.message.contains("maxSwap"), "{}", error.message);
        assert!(swap_refused(&said, &spec(64, None)).is_none());
        assert!(swap_refused("something else", &spec(64, Some(96))).is_none());
    }
}
