//! Making one container: its root file system, its OCI configuration, its first process.
//!
//! What always holds: this runs in a process of its own that ends right afterwards, so what it
//! changes of itself (mount namespace, network namespace, working directory) touches nobody, and its
//! memory is given back. Mounts are made in that process's mount namespace: they end with the container.
//! What it leaves to others: watching the process that it started (`shim`).

mod oci;
mod program;
mod root;
mod seccomp;
mod user;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use crate::error::{ErrorKind, RuntimeError};
use crate::spec::NetworkMode;
use crate::state::ContainerFile;

/// What a container's first process reads from and writes to.
pub(crate) struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// The folder below a container's own that libcontainer keeps its state in.
const LIBCONTAINER_STATE: &str = "state";
/// libcontainer's name of the container; its state folder is ours alone, so one name serves all.
const LIBCONTAINER_ID: &str = "c";

/// Makes and starts the container of `dir`; gives the id of its first process.
pub(crate) fn create(file: &ContainerFile, dir: &Path, stdio: Stdio) -> Result<i32, RuntimeError> {
    root::own_mount_namespace()?;
    if file.task.network == NetworkMode::None {
        root::own_network_namespace()?;
    }
    let rootfs = root::mount(file, dir)?;
    let root = File::open(&rootfs)
        .map_err(|error| cannot_create("opening the root file system", error))?;
    let user = user::resolve(&root, file.spec.user.as_deref().unwrap_or(&file.image.user))?;
    let process = program::of(file, &user);
    root::make_working_directory(&root, &process.cwd)?;
    program::check(&root, &process)?;
    root::write_network_files(file, dir)?;

    let spec = oci::spec(file, dir, &rootfs, &process, &user)?;
    spec.save(dir.join("config.json"))
        .map_err(|error| cannot_create("writing the container's configuration", error))?;
    let failed = |error: libcontainer::error::LibcontainerError| {
        RuntimeError::new(ErrorKind::CannotStartContainer, error_chain(&error))
    };
    let mut container = ContainerBuilder::new(LIBCONTAINER_ID.to_owned(), SyscallType::default())
        .with_root_path(dir.join(LIBCONTAINER_STATE))
        .map_err(failed)?
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .as_init(dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(failed)?;
    container.start().map_err(failed)?;
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| {
        RuntimeError::new(
            ErrorKind::CannotStartContainer,
            "the container has no first process",
        )
    })
}

fn cannot_create(doing: &str, error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::new(
        ErrorKind::CannotCreateContainer,
        format!("{doing}: {error}"),
    )
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
