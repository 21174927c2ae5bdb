//! Which kernel parameters a container may set: those that are its own.
//!
//! What always holds: a parameter that would change the host, or another container, is refused by its name, in
//! the words of Docker's runtime. What it leaves to others: writing them (libcontainer, before the program runs).

use std::collections::BTreeMap;

use super::refused;
use crate::error::RuntimeError;
use crate::spec::{IpcMode, NetworkMode, TaskSpec};

/// Of the IPC namespace; and all below `fs.mqueue.`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses the first that this container cannot have for itself.
pub(super) fn check(
    sysctls: &BTreeMap<String, String>,
    task: &TaskSpec,
) -> Result<(), RuntimeError> {
    for name in sysctls.keys() {
        let dotted = name.replace('/', ".");
        if dotted.split('.').any(str::is_empty) {
            return Err(refused(format!("sysctl \"{name}\" is not a name")));
        }
        if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            if task.ipc_mode == IpcMode::Host {
                return Err(refused(format!(
                    "sysctl \"{dotted}\" is not allowed in the host's IPC namespace (ipcMode host)"
                )));
            }
        } else if dotted.starts_with("net.") {
            if task.network == NetworkMode::Host {
                return Err(refused(format!(
                    "sysctl \"{dotted}\" is not allowed in the host's network namespace (networkMode host)"
                )));
            }
        } else {
            return Err(refused(format!(
                "sysctl \"{dotted}\" is not in a separate kernel namespace"
            )));
        }
    }
    Ok(())
}

/// What libcontainer says of a failed start, with the parameters that it leaves out.
pub(super) fn named(said: String, sysctls: &BTreeMap<String, String>) -> String {
    let why = if said.contains("failed to set sysctl") {
        "the kernel refuses the value"
    } else if said.contains("open subpath in procfs failed") {
        "the kernel has no such parameter that a container may set"
    } else {
        return said;
    };
    let asked: Vec<String> = sysctls
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match asked.as_slice() {
        [] => said,
        [one] => format!("systemControls \"{one}\": {why}"),
        // It does not say at which of them it failed.
        many => format!("one of systemControls \"{}\": {why}", many.join("\", \"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_the_kernel_refuses_is_named() {
        let one = BTreeMap::from([("net.core.somaxconn".to_owned(), "abc".to_owned())]);
        let said = "exec process failed with error error in executing process : ";
        let text = named(format!("{said}failed to set sysctl"), &one);
        assert_eq!(
            text,
            "systemControls \"net.core.somaxconn=abc\": the kernel refuses the value"
        );
        let mut two = one.clone();
        two.insert("net.nothing".to_owned(), "1".to_owned());
        let text = named(format!("{said}open subpath in procfs failed"), &two);
        assert!(
            text.starts_with("one of") && text.contains("net.nothing=1"),
            "{text}"
        );
        // Whatever else goes wrong is told as it is, also where there are parameters.
        assert_eq!(named("no space".to_owned(), &one), "no space");
        assert_eq!(
            named(format!("{said}failed to set sysctl"), &BTreeMap::new()),
            format!("{said}failed to set sysctl")
        );
    }

    #[test]
    fn only_what_is_namespaced_is_allowed() {
        let id = gantry_arn::TaskId::from_random([7; 16]);
        let mut task = TaskSpec::new(id, NetworkMode::None);
        let verdict = |task: &TaskSpec, name: &str| {
            check(&BTreeMap::from([(name.to_owned(), "1".to_owned())]), task)
                .map_err(|error| error.message)
        };
        for name in [
            "net.core.somaxconn",
            "net/ipv4/ip_forward",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
        ] {
            assert_eq!(verdict(&task, name), Ok(()), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "kernel.hostname",
            "..",
            "",
        ] {
            assert!(
                verdict(&task, name).unwrap_err().contains("sysctl"),
                "{name}"
            );
        }
        task.network = NetworkMode::Host;
        task.ipc_mode = IpcMode::Host;
        assert!(
            verdict(&task, "net.core.somaxconn")
                .unwrap_err()
                .contains("network")
        );
        assert!(verdict(&task, "kernel.shmmax").unwrap_err().contains("IPC"));
    }
}
