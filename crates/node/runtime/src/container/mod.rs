//! Making one container: its root file system, its OCI configuration, its first process.
//!
//! What always holds: this runs in a process of its own that ends right afterwards, so what it
//! changes of itself (mount namespace, network namespace, working directory) touches nobody, and its
//! memory is given back. Mounts are made in that process's mount namespace: they end with the container.
//! What it leaves to others: watching the process that it started (`shim`).

mod base_mounts;
mod capabilities;
mod cgroup_mounts;
mod confinement;
mod copy_up;
mod detached;
mod device_filter;
mod devices;
pub(crate) mod exec;
mod executor;
mod first_process;
mod holder;
mod layers;
mod limits;
mod lsm;
mod mount_flags;
mod mounts;
mod oci;
mod program;
mod root;
mod sealed;
mod seccomp;
mod sysctls;
mod terminal;
pub(crate) mod user;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use self::cgroup_mounts::CgroupMounts;
use self::confinement::Confinement;
use self::devices::Devices;
use self::executor::ExecOrSay;
use self::root::Target;
pub(crate) use self::sealed::ShimProgram;
use crate::error::{ErrorKind, RuntimeError};
use crate::spec::NetworkMode;
use crate::state::ContainerFile;

/// What a container's first process reads from and writes to.
pub(crate) struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Where the other end of a terminal goes. The three above are then replaced by that.
    pub terminal: Option<UnixStream>,
}

/// The folder below a container's own that libcontainer keeps its state in.
const LIBCONTAINER_STATE: &str = "state";
/// libcontainer's name of the container; its state folder is ours alone, so one name serves all.
const LIBCONTAINER_ID: &str = "c";

/// Makes and starts the container of `dir`; gives the id of its first process, which `before_start` is told
/// of while it waits. What an earlier run of the container wrote into its root stays.
pub(crate) fn create(
    file: &ContainerFile,
    dir: &Path,
    stdio: Stdio,
    before_start: impl FnOnce(i32) -> Result<(), RuntimeError>,
) -> Result<i32, RuntimeError> {
    match std::fs::remove_dir_all(dir.join(LIBCONTAINER_STATE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(cannot_create("the state of an earlier run", error));
        }
        _ => {}
    }
    root::own_mount_namespace()?;
    let shared = holder::shared(file, dir)?;
    let rootfs = layers::mount(file, dir)?;
    let root = File::open(&rootfs)
        .map_err(|error| cannot_create("opening the root file system", error))?;
    let user = user::resolve(&root, file.spec.user.as_deref().unwrap_or(&file.image.user))?;
    let process = program::of(file, &user);
    root::make_target(&root, &process.cwd, Target::Folder)?;
    // Before any mount hides what the image has.
    copy_up::fill(&root, &file.spec)?;
    root::write_network_files(file, dir)?;
    let own = mounts::own_targets(&file.spec)?;
    base_mounts::mount(&root, file, dir, &own, lsm::selinux_label(&file.spec)?)?;
    mounts::make_targets(&root, &file.spec)?;
    program::check(&root, &process)?;
    if user.uid != 0 {
        give_output_to(user.uid, &stdio)?;
    }

    let confinement = Confinement::of(&file.spec)?;
    let devices = Devices::of(&file.spec)?;
    let cgroups = CgroupMounts::of(limits::cgroup_is_v2(), file.spec.privileged, &own);
    let spec = oci::spec(&oci::Parts {
        file,
        rootfs: &rootfs,
        process: &process,
        user: &user,
        devices: &devices,
        shared: &shared,
        cgroups,
    })?;
    spec.save(dir.join("config.json"))
        .map_err(|error| cannot_create("writing the container's configuration", error))?;
    let failed = |error: libcontainer::error::LibcontainerError| {
        let said = sysctls::named(error_chain(&error), &file.spec.sysctls);
        limits::swap_refused(&said, &file.spec)
            .unwrap_or_else(|| RuntimeError::new(ErrorKind::CannotStartContainer, said))
    };
    let (mut reasons, reason) = std::io::pipe().map_err(|error| cannot_create("a pipe", error))?;
    let executor = ExecOrSay {
        reason: std::rc::Rc::new(reason),
        confinement,
        selinux_label: lsm::selinux_label(&file.spec)?.map(str::to_owned),
        own_network: file.task.network == NetworkMode::None || file.spec.network_disabled,
        cgroups,
        init_process: file.spec.init_process,
        terminal: stdio.terminal.map(std::rc::Rc::new),
    };
    let mut container = ContainerBuilder::new(LIBCONTAINER_ID.to_owned(), SyscallType::default())
        .with_root_path(dir.join(LIBCONTAINER_STATE))
        .map_err(failed)?
        .with_executor(executor)
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .as_init(dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(failed)?;
    bound_devices(&file.cgroup, &devices)?;
    if limits::cgroup_is_v2() {
        limits::bound_swap(&cgroup_folder("", &file.cgroup), &file.spec)?;
    }
    let first = container.pid().map(|pid| pid.as_raw()).ok_or_else(|| {
        RuntimeError::new(
            ErrorKind::CannotStartContainer,
            "the container has no first process",
        )
    })?;
    before_start(first)?;
    container.start().map_err(failed)?;
    // Ends when the program runs, because the pipe closes on exec, or with the reason why it does not.
    let mut why = String::new();
    let _ = reasons.read_to_string(&mut why);
    if !why.is_empty() {
        return Err(RuntimeError::new(ErrorKind::CannotStartContainer, why));
    }
    Ok(first)
}

/// The hierarchy of v2 has no name.
fn cgroup_folder(hierarchy: &str, cgroup: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup")
        .join(hierarchy)
        .join(cgroup.trim_start_matches('/'))
}

/// The cgroup's rules of devices, as far as libcontainer does not make them. The program does not run yet.
fn bound_devices(cgroup: &str, devices: &Devices) -> Result<(), RuntimeError> {
    if devices.all {
        return Ok(());
    }
    let failed = |error: std::io::Error| cannot_create("bounding the container's devices", error);
    if limits::cgroup_is_v2() {
        let folder = cgroup_folder("", cgroup);
        return device_filter::attach(&folder, &devices.rules).map_err(failed);
    }
    // libcontainer lets everybody have the device that makes network interfaces; Docker's runtime no longer does.
    let refused = devices.refused(TUN.0, TUN.1);
    if refused.is_empty() {
        return Ok(());
    }
    std::fs::write(
        cgroup_folder("devices", cgroup).join("devices.deny"),
        format!("c {}:{} {refused}", TUN.0, TUN.1),
    )
    .map_err(failed)
}

/// The numbers of `/dev/net/tun`.
const TUN: (u32, u32) = (10, 200);

/// A pipe that is reopened through `/dev/stdout` is checked like a file, and ours belong to root.
fn give_output_to(uid: u32, stdio: &Stdio) -> Result<(), RuntimeError> {
    for end in [&stdio.stdout, &stdio.stderr] {
        rustix::fs::fchown(end, Some(rustix::fs::Uid::from_raw(uid)), None)
            .map_err(|error| cannot_create("giving the output to the user", error))?;
    }
    Ok(())
}

fn cannot_create(doing: &str, error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::new(
        ErrorKind::CannotCreateContainer,
        format!("{doing}: {error}"),
    )
}

/// What this container asks for cannot be had; `message` names it.
fn refused(message: impl Into<String>) -> RuntimeError {
    RuntimeError::new(ErrorKind::CannotCreateContainer, message.into())
}

/// An error with what caused it: libcontainer's outer errors say little.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
