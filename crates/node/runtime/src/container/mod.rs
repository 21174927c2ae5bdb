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
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::get_executor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

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
    if user.uid != 0 {
        give_output_to(user.uid, &stdio)?;
    }

    let spec = oci::spec(file, dir, &rootfs, &process, &user)?;
    spec.save(dir.join("config.json"))
        .map_err(|error| cannot_create("writing the container's configuration", error))?;
    let failed = |error: libcontainer::error::LibcontainerError| {
        RuntimeError::new(ErrorKind::CannotStartContainer, error_chain(&error))
    };
    let (mut reasons, reason) = std::io::pipe().map_err(|error| cannot_create("a pipe", error))?;
    let executor = ExecOrSay { reason: std::rc::Rc::new(reason) };
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
    container.start().map_err(failed)?;
    // Ends when the program runs, because the pipe closes on exec, or with the reason why it does not.
    let mut why = String::new();
    let _ = reasons.read_to_string(&mut why);
    if !why.is_empty() {
        return Err(RuntimeError::new(ErrorKind::CannotStartContainer, why));
    }
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| {
        RuntimeError::new(
            ErrorKind::CannotStartContainer,
            "the container has no first process",
        )
    })
}

/// A pipe that is reopened through `/dev/stdout` is checked like a file, and ours belong to root.
fn give_output_to(uid: u32, stdio: &Stdio) -> Result<(), RuntimeError> {
    for end in [&stdio.stdout, &stdio.stderr] {
        rustix::fs::fchown(end, Some(rustix::fs::Uid::from_raw(uid)), None)
            .map_err(|error| cannot_create("giving the output to the user", error))?;
    }
    Ok(())
}

/// Executes the program as libcontainer does, and says in Docker's words where the kernel refuses:
/// only then is it known that a program is for another kind of machine, or lacks its interpreter.
#[derive(Clone)]
struct ExecOrSay {
    reason: std::rc::Rc<std::io::PipeWriter>,
}

impl Executor for ExecOrSay {
    fn exec(&self, spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        let refused = get_executor().exec(spec);
        if let Err(error) = &refused {
            let text = error_chain(error);
            let args = spec.process().as_ref().and_then(|process| process.args().as_ref());
            let program = args.and_then(|args| args.first()).map_or("", String::as_str);
            let known = [
                ("ENOEXEC", "exec format error"),
                ("EACCES", "permission denied"),
                ("ENOENT", "no such file or directory"),
            ];
            let why = known.iter().find(|(code, _)| text.contains(code)).map_or(text.as_str(), |(_, why)| *why);
            // Without anybody to tell, the exit code says it.
            let _ = self.reason.as_ref().write_all(format!("exec {program}: {why}: unknown").as_bytes());
        }
        refused
    }

    fn validate(&self, spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        get_executor().validate(spec)
    }
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
