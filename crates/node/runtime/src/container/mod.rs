//! Making one container: its root file system, its OCI configuration, its first process.
//!
//! What always holds: this runs in a process of its own that ends right afterwards, so what it
//! changes of itself (mount namespace, network namespace, working directory) touches nobody, and its
//! memory is given back. Mounts are made in that process's mount namespace: they end with the container.
//! What it leaves to others: watching the process that it started (`shim`).

mod capabilities;
mod confinement;
mod device_filter;
mod devices;
mod first_process;
mod holder;
mod layers;
mod limits;
mod lsm;
mod mounts;
mod oci;
mod program;
mod root;
mod seccomp;
mod sysctls;
mod unsupported;
mod user;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::get_executor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use self::confinement::Confinement;
use self::devices::Devices;
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
    unsupported::refuse(&file.spec)?;
    root::own_mount_namespace()?;
    let shared = holder::shared(file, dir)?;
    let rootfs = layers::mount(file, dir)?;
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

    let confinement = Confinement::of(&file.spec)?;
    let devices = Devices::of(&file.spec)?;
    let spec = oci::spec(&oci::Parts {
        file,
        dir,
        rootfs: &rootfs,
        process: &process,
        user: &user,
        devices: &devices,
        shared: &shared,
    })?;
    spec.save(dir.join("config.json"))
        .map_err(|error| cannot_create("writing the container's configuration", error))?;
    let failed = |error: libcontainer::error::LibcontainerError| {
        RuntimeError::new(ErrorKind::CannotStartContainer, error_chain(&error))
    };
    let (mut reasons, reason) = std::io::pipe().map_err(|error| cannot_create("a pipe", error))?;
    let executor = ExecOrSay {
        reason: std::rc::Rc::new(reason),
        confinement,
        selinux_label: lsm::selinux_label(&file.spec)?.map(str::to_owned),
        own_network: file.task.network == NetworkMode::None,
        init_process: file.spec.init_process,
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

/// The cgroup's rules of devices, as far as libcontainer does not make them. The program does not run yet.
fn bound_devices(cgroup: &str, devices: &Devices) -> Result<(), RuntimeError> {
    if devices.all {
        return Ok(());
    }
    let failed = |error: std::io::Error| cannot_create("bounding the container's devices", error);
    let folder = |hierarchy: &str| {
        Path::new("/sys/fs/cgroup")
            .join(hierarchy)
            .join(cgroup.trim_start_matches('/'))
    };
    if limits::cgroup_is_v2() {
        return device_filter::attach(&folder(""), &devices.rules).map_err(failed);
    }
    // libcontainer lets everybody have the device that makes network interfaces; Docker's runtime no longer does.
    if devices.allows(TUN.0, TUN.1) {
        return Ok(());
    }
    std::fs::write(
        folder("devices").join("devices.deny"),
        format!("c {}:{} rwm", TUN.0, TUN.1),
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

/// Executes the program as libcontainer does, and says in Docker's words where the kernel refuses:
/// only then is it known that a program is for another kind of machine, or lacks its interpreter.
#[derive(Clone)]
struct ExecOrSay {
    reason: std::rc::Rc<std::io::PipeWriter>,
    confinement: Confinement,
    selinux_label: Option<String>,
    /// A network with nothing in it but a loopback interface, which is down.
    own_network: bool,
    init_process: bool,
}

impl ExecOrSay {
    /// The last steps before the program, inside the container.
    fn prepare(&self) -> Result<(), String> {
        if self.own_network {
            root::bring_loopback_up()
                .map_err(|error| format!("bringing up the loopback interface: {error}"))?;
        }
        if let Some(label) = &self.selinux_label {
            std::fs::write("/proc/thread-self/attr/exec", label)
                .map_err(|error| format!("SELinux label \"{label}\": {error}"))?;
        }
        self.confinement
            .apply()
            .map_err(|error| format!("confining the container: {error}"))?;
        if self.init_process {
            first_process::stay_behind()
                .map_err(|error| format!("the container's init process: {error}"))?;
        }
        Ok(())
    }
}

impl Executor for ExecOrSay {
    fn exec(&self, spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let args = process
            .and_then(|process| process.args().clone())
            .unwrap_or_default();
        let env = process
            .and_then(|process| process.env().clone())
            .unwrap_or_default();
        if let Err(text) = self.prepare() {
            let _ = self.reason.as_ref().write_all(text.as_bytes());
            return Err(ExecutorError::Other(text));
        }
        let why = match execute(&args, &env).raw_os_error() {
            Some(libc::ENOEXEC) => "exec format error".to_owned(),
            Some(libc::EACCES) => "permission denied".to_owned(),
            Some(libc::ENOENT) => "no such file or directory".to_owned(),
            error => format!("error {}", error.unwrap_or_default()),
        };
        let program = args.first().map_or("", String::as_str);
        let text = format!("exec {program}: {why}: unknown");
        // Without anybody to tell, the exit code says it.
        let _ = self.reason.as_ref().write_all(text.as_bytes());
        Err(ExecutorError::Other(text))
    }

    fn validate(&self, spec: &oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        get_executor().validate(spec)
    }
}

/// Becomes the program; comes back only with the reason why not. Not execvp, which hands what the
/// kernel does not know to a shell: a program for another kind of machine would then be a script.
fn execute(args: &[String], env: &[String]) -> std::io::Error {
    let c = |text: &str| std::ffi::CString::new(text).unwrap_or_default();
    let Some(program) = args.first() else {
        return std::io::Error::from_raw_os_error(libc::ENOENT);
    };
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        let path = env
            .iter()
            .find_map(|variable| variable.strip_prefix("PATH="))
            .unwrap_or_default();
        path.split(':')
            .map(|folder| format!("{folder}/{program}"))
            .collect()
    };
    let words: Vec<_> = args.iter().map(|arg| c(arg)).collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let mut worst = std::io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let path = c(&candidate);
        // SAFETY: the path and the words end with a NUL and outlive the call; the array ends with a
        // null pointer. Where it succeeds, nothing of this process goes on.
        unsafe {
            libc::execv(path.as_ptr(), pointers.as_ptr());
        }
        let error = std::io::Error::last_os_error();
        // What is elsewhere in the path is looked for there; any other reason is worth telling.
        if error.kind() != std::io::ErrorKind::NotFound {
            worst = error;
        }
    }
    worst
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
