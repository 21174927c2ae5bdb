//! What a specification may ask for that no container gets yet.
//!
//! What always holds: nothing is ignored in silence; a member is here, by its name, until it is honoured.

use crate::error::{ErrorKind, RuntimeError};
use crate::spec::{ContainerSpec, IpcMode, NetworkMode, PidMode, TaskSpec};

/// Refuses the first member that is not honoured.
pub(super) fn refuse(task: &TaskSpec, spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let asked = [
        (
            task.network == NetworkMode::Namespaces,
            "a network namespace of its own",
        ),
        (task.pid_mode != PidMode::Container, "pidMode"),
        (task.ipc_mode != IpcMode::Container, "ipcMode"),
        (
            spec.network_namespace.is_some(),
            "a network namespace of its own",
        ),
        (spec.hosts.is_some(), "an /etc/hosts of its own"),
        (spec.resolv_conf.is_some(), "an /etc/resolv.conf of its own"),
        (!spec.mounts.is_empty(), "mountPoints"),
        (spec.shm_size_bytes.is_some(), "sharedMemorySize"),
        (!spec.devices.is_empty(), "devices"),
        (spec.privileged, "privileged"),
        (spec.init_process, "initProcessEnabled"),
        (!spec.sysctls.is_empty(), "systemControls"),
        (spec.no_new_privileges, "no-new-privileges"),
        (spec.apparmor_profile.is_some(), "an AppArmor profile"),
        (spec.selinux_label.is_some(), "an SELinux label"),
        (spec.terminal, "pseudoTerminal"),
        (spec.stdin_open, "interactive"),
        (spec.memory_swap_bytes.is_some(), "maxSwap"),
        (spec.memory_swappiness.is_some(), "swappiness"),
    ];
    match asked.into_iter().find(|(is_asked, _)| *is_asked) {
        None => Ok(()),
        Some((_, member)) => Err(RuntimeError::new(
            ErrorKind::CannotCreateContainer,
            format!("this agent does not support {member} yet"),
        )),
    }
}
