//! The last steps of a container's first process: from libcontainer's code to the program.
//!
//! What always holds: whatever goes wrong is told to whoever waits for the start, in Docker's words; the program is never
//! Gantry itself. What it leaves to others: everything before (libcontainer, from `oci`).

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use libcontainer::workload::default::get_executor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use super::cgroup_mounts::CgroupMounts;
use super::confinement::Confinement;
use super::{first_process, root, terminal};

/// A script's interpreter may be a script, so often; the kernel follows no further either.
const INTERPRETERS_MAX: usize = 5;
/// As much of a first line as the kernel reads.
const FIRST_LINE_BYTES: u64 = 256;

/// Executes the program as libcontainer does, and says in Docker's words where the kernel refuses:
/// only then is it known that a program is for another kind of machine, or lacks its interpreter.
#[derive(Clone)]
pub(super) struct ExecOrSay {
    pub reason: std::rc::Rc<std::io::PipeWriter>,
    pub confinement: Confinement,
    pub selinux_label: Option<String>,
    /// A network with nothing in it but a loopback interface, which is down.
    pub own_network: bool,
    pub cgroups: CgroupMounts,
    pub init_process: bool,
    /// Where the other end of a terminal goes, for a container that has one.
    pub terminal: Option<std::rc::Rc<UnixStream>>,
}

impl ExecOrSay {
    /// The last steps before the program, inside the container.
    fn prepare(&self) -> Result<(), String> {
        if let Some(shim) = &self.terminal {
            terminal::open_terminal(shim)
                .map_err(|error| format!("opening a terminal: {error}"))?;
        }
        if self.own_network {
            root::bring_loopback_up()
                .map_err(|error| format!("bringing up the loopback interface: {error}"))?;
        }
        self.cgroups
            .finish()
            .map_err(|error| format!("mounting cgroups: {error}"))?;
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
pub(super) fn execute(args: &[String], env: &[String]) -> std::io::Error {
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
    let variables: Vec<_> = env.iter().map(|variable| c(variable)).collect();
    let mut variable_pointers: Vec<_> = variables.iter().map(|v| v.as_ptr()).collect();
    variable_pointers.push(std::ptr::null());
    let mut worst = std::io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        if runs_ourselves(&candidate) {
            return std::io::Error::from_raw_os_error(libc::EACCES);
        }
        let path = c(&candidate);
        // SAFETY: the path and the words end with a NUL and outlive the call; the arrays end with a
        // null pointer. Where it succeeds, nothing of this process goes on.
        unsafe {
            libc::execve(path.as_ptr(), pointers.as_ptr(), variable_pointers.as_ptr());
        }
        let error = std::io::Error::last_os_error();
        // What is elsewhere in the path is looked for there; any other reason is worth telling.
        if error.kind() != std::io::ErrorKind::NotFound {
            worst = error;
        }
    }
    worst
}

/// Whether this program, or a script's interpreter, is the executable of this very process: an image may name it as
/// `/proc/self/exe`. What changes after this look finds it read-only (`sealed`).
fn runs_ourselves(program: &str) -> bool {
    let Ok(own) = std::fs::metadata("/proc/self/exe") else {
        return false;
    };
    let mut path = program.to_owned();
    for _ in 0..=INTERPRETERS_MAX {
        match std::fs::metadata(&path) {
            Ok(meta) if (meta.dev(), meta.ino()) == (own.dev(), own.ino()) => return true,
            Ok(meta) if meta.is_file() => {}
            _ => return false,
        }
        let mut line = Vec::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(FIRST_LINE_BYTES).read_to_end(&mut line));
        // What the user may execute but not read is no script that the kernel could run either.
        let Some(rest) = read.ok().and_then(|_| line.strip_prefix(b"#!")) else {
            return false;
        };
        let words =
            String::from_utf8_lossy(rest.split(|byte| *byte == b'\n').next().unwrap_or(rest));
        match words.split_whitespace().next() {
            Some(interpreter) => path = interpreter.to_owned(),
            None => return false,
        }
    }
    false
}
