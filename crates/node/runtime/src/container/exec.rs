//! Running a program beside a container's own: in its namespaces, its cgroup, and as confined as it.
//!
//! What always holds: this runs in a child of the shim and ends with the program, by its wait status. It does not
//! go through libcontainer, whose way of joining a container leaves out its seccomp filter. The child joins
//! the cgroups before it joins anything else, so that whatever is started can be found and killed, and it
//! cannot be looked into from the container until it has become the program. It dies with the shim.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rustix::thread::{CapabilitySets, capabilities as current, set_capabilities};

use super::confinement::Confinement;
use super::executor::execute;
use super::{cannot_create, error_chain, lsm, user};
use crate::error::RuntimeError;
use crate::spec::ExecSpec;
use crate::state::ContainerFile;

/// In this order: what comes last hides the host's files.
const NAMESPACES: [&str; 7] = ["user", "cgroup", "ipc", "uts", "net", "pid", "mnt"];

/// As a shell counts them.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What the program is given.
pub(crate) struct Beside<'a> {
    pub file: &'a ContainerFile,
    pub dir: &'a Path,
    /// The container's first process.
    pub first: i32,
    pub exec: &'a ExecSpec,
    /// The cgroup folders that it belongs into, one a hierarchy.
    pub groups: Vec<PathBuf>,
    /// What it writes, on both streams.
    pub output: OwnedFd,
}

/// Runs it to its end; gives its wait status.
pub(crate) fn run(beside: Beside<'_>) -> Result<i32, RuntimeError> {
    let failed = |doing: &'static str| move |error: io::Error| cannot_create(doing, error);
    // SAFETY: sets two properties of this process. What is not dumpable cannot be opened through /proc by the
    // container; executing the program ends that.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    let own = std::process::id().to_string();
    for group in &beside.groups {
        fs::write(group.join("cgroup.procs"), &own).map_err(failed("joining the cgroup"))?;
    }
    let spec = Spec::load(beside.dir.join("config.json"))
        .map_err(|error| cannot_create("the container's configuration", error_chain(&error)))?;
    let process = spec
        .process()
        .clone()
        .ok_or_else(|| cannot_create("the container's configuration", "it has no process"))?;
    let confinement = Confinement::of(&beside.file.spec)?;
    label(&process, lsm::selinux_label(&beside.file.spec)?)
        .map_err(failed("the security label"))?;
    let nothing = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed("/dev/null"))?;
    join(beside.first).map_err(failed("joining the container"))?;
    // SAFETY: this process has one thread. The child is the first that is in the pid namespace.
    match unsafe { libc::fork() } {
        -1 => Err(cannot_create("forking", io::Error::last_os_error())),
        0 => become_program(&beside, &process, &confinement, &nothing),
        child => {
            drop(beside.output);
            let mut status = 0;
            // SAFETY: waits for this process's own child; the pointer is to a local.
            while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(cannot_create("waiting for the program", error));
                }
            }
            Ok(status)
        }
    }
}

/// What the kernel's security modules are to call the program, told while `/proc` is still the host's.
fn label(process: &Process, selinux: Option<&str>) -> io::Result<()> {
    if let Some(profile) = process.apparmor_profile().as_deref()
        && !profile.is_empty()
    {
        let new = Path::new("/proc/self/attr/apparmor/exec");
        let old = Path::new("/proc/self/attr/exec");
        let file = if new.exists() { new } else { old };
        fs::write(file, format!("exec {profile}"))?;
    }
    if let Some(label) = selinux {
        fs::write("/proc/self/attr/exec", label)?;
    }
    Ok(())
}

/// Joins every namespace in which the container is apart from this process.
fn join(first: i32) -> io::Result<()> {
    let mut apart = Vec::new();
    for name in NAMESPACES {
        let theirs = match File::open(format!("/proc/{first}/ns/{name}")) {
            // A kernel without this kind has nothing to be apart in.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "cgroup" => continue,
            opened => opened?,
        };
        let own = fs::metadata(format!("/proc/self/ns/{name}"))?;
        if theirs.metadata()?.ino() != own.ino() {
            apart.push(theirs);
        }
    }
    for namespace in apart {
        // SAFETY: this process has one thread, so nothing else's view of the machine changes.
        if unsafe { libc::setns(namespace.as_raw_fd(), 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn become_program(
    beside: &Beside<'_>,
    process: &Process,
    confinement: &Confinement,
    nothing: &File,
) -> ! {
    let (code, why) = match prepare(beside, process, confinement, nothing) {
        Ok(env) => match execute(&beside.exec.args, &env) {
            error if error.kind() == io::ErrorKind::NotFound => (NOT_FOUND, error.to_string()),
            error => (NOT_EXECUTABLE, error.to_string()),
        },
        Err(error) => (NOT_EXECUTABLE, error.to_string()),
    };
    let program = beside.exec.args.first().map_or("", String::as_str);
    // Standard error is the output by now, or nobody is there to be told.
    let _ = writeln!(io::stderr(), "exec {program:?}: {why}");
    // SAFETY: ends this child without running what the shim has registered for its own end.
    unsafe { libc::_exit(code) }
}

/// Becomes as the container's own process is, but for the program; gives the environment.
fn prepare(
    beside: &Beside<'_>,
    process: &Process,
    confinement: &Confinement,
    nothing: &File,
) -> Result<Vec<String>, RuntimeError> {
    let failed = |doing: &'static str| move |error: io::Error| cannot_create(doing, error);
    let mut who = user::User {
        uid: process.user().uid(),
        gid: process.user().gid(),
        additional_gids: process.user().additional_gids().clone().unwrap_or_default(),
        home: String::new(),
    };
    if let Some(wanted) = &beside.exec.user {
        let root = File::open("/").map_err(failed("opening the root file system"))?;
        who = user::resolve(&root, wanted)?;
    }
    rustix::fs::fchown(
        &beside.output,
        Some(rustix::fs::Uid::from_raw(who.uid)),
        None,
    )
    .map_err(|error| cannot_create("giving the output to the user", error))?;
    // SAFETY: plain calls on open descriptors. Replacing the standard three closes the shim's, of which this
    // child holds copies only.
    unsafe {
        libc::setsid();
        for (from, standard) in [
            (nothing.as_raw_fd(), 0),
            (beside.output.as_raw_fd(), 1),
            (beside.output.as_raw_fd(), 2),
        ] {
            check(libc::dup2(from, standard)).map_err(failed("the standard streams"))?;
        }
        libc::umask(process.user().umask().unwrap_or(0o022));
    }
    set_limits(process).map_err(failed("the limits"))?;
    std::env::set_current_dir(process.cwd()).map_err(failed("the working directory"))?;
    become_user(&who).map_err(failed("becoming the user"))?;
    if beside.file.spec.no_new_privileges {
        // SAFETY: sets a property of this process.
        unsafe { check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) }
            .map_err(failed("no_new_privs"))?;
    }
    confinement
        .apply()
        .map_err(failed("confining the program"))?;
    // SAFETY: sets a property of this process: changing the user has taken it back.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    Ok(environment(process, &who, beside.exec))
}

fn set_limits(process: &Process) -> io::Result<()> {
    for limit in process.rlimits().iter().flatten() {
        let Some(resource) = rlimit(&limit.typ().to_string()) else {
            continue;
        };
        let value = libc::rlimit64 {
            rlim_cur: limit.soft(),
            rlim_max: limit.hard(),
        };
        // SAFETY: the pointer is to a local.
        check(unsafe { libc::setrlimit64(resource, &value) })?;
    }
    Ok(())
}

fn rlimit(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

/// Keeps the capabilities, which the confinement then takes.
fn become_user(who: &user::User) -> io::Result<()> {
    // SAFETY: plain calls; the list of groups outlives its call. The system calls themselves, because the C
    // library's functions would speak to threads that are not there.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        let groups = &who.additional_gids;
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) as libc::c_int)?;
        check(libc::syscall(libc::SYS_setresgid, who.gid, who.gid, who.gid) as libc::c_int)?;
        check(libc::syscall(libc::SYS_setresuid, who.uid, who.uid, who.uid) as libc::c_int)?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
    }
    // Another user than root has kept them without being able to use them.
    let kept = current(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept.permitted,
            ..kept
        },
    )?;
    Ok(())
}

/// The container's own, and what this program is given besides.
fn environment(process: &Process, who: &user::User, exec: &ExecSpec) -> Vec<String> {
    let mut env = process.env().clone().unwrap_or_default();
    let mut set = |name: &str, value: &str| {
        let start = format!("{name}=");
        env.retain(|variable| !variable.starts_with(&start));
        env.push(format!("{name}={value}"));
    };
    if !who.home.is_empty() {
        set("HOME", &who.home);
    }
    for (name, value) in &exec.environment {
        set(name, value);
    }
    env
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
