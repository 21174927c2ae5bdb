//! The process that holds what containers of a task share: their process ids, their IPC, their `/dev/shm`.
//!
//! What always holds: whoever needs it first makes it, under a lock in the task's folder; it outlives every container of the
//! task and ends with the shim, or with the task's cgroup, in which it is. It sees an empty, read-only root, has no capability, no
//! descriptor and a filter, because containers that share process ids see it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use serde::{Deserialize, Serialize};

use super::confinement::Confinement;
use super::{cannot_create, first_process, mounts};
use crate::cgroup;
use crate::error::RuntimeError;
use crate::spec::{IpcMode, PidMode};
use crate::state::{ContainerFile, Durability, is_alive, read_json, start_ticks, write_json};

/// In the task's folder: who holds.
const HOLDER_FILE: &str = "holder.json";
const LOCK_FILE: &str = "holder.lock";
/// Below the task's cgroup. No container's name begins with a dot.
const CGROUP: &str = ".holder";
/// In the holder's own root.
const SHM: &str = "/shm";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct HolderFile {
    pid: i32,
    start_ticks: u64,
    shm_bytes: u64,
}

/// Shared namespaces, to be joined by their paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shared {
    pub pid: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
}

/// What the containers of this task share, made if it is not there. `dir` is the container's folder.
pub(super) fn shared(file: &ContainerFile, dir: &Path) -> Result<Shared, RuntimeError> {
    let (pids, ipc) = (
        file.task.pid_mode == PidMode::Task,
        file.task.ipc_mode == IpcMode::Task,
    );
    if !pids && !ipc {
        return Ok(Shared {
            pid: None,
            ipc: None,
        });
    }
    let failed = |error: io::Error| cannot_create("sharing the task's namespaces", error);
    let task_dir = dir.parent().and_then(Path::parent).ok_or_else(|| {
        failed(io::Error::other(
            "the container's folder is not in a task's",
        ))
    })?;
    let lock = File::create(task_dir.join(LOCK_FILE)).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let path = task_dir.join(HOLDER_FILE);
    let known: Option<HolderFile> = read_json(&path);
    let mut holder = match known.filter(|holder| is_alive(holder.pid, holder.start_ticks)) {
        Some(holder) => holder,
        None => {
            let holder = make(file, pids, ipc).map_err(failed)?;
            write_json(&path, &holder, Durability::Process).map_err(failed)?;
            holder
        }
    };
    if ipc {
        let wanted = mounts::shm_bytes(&file.spec);
        // The largest that a container asks for counts, whichever starts first.
        let grow = (wanted > holder.shm_bytes).then_some(wanted);
        take_shm(holder.pid, &dir.join(mounts::SHARED_SHM), grow).map_err(failed)?;
        if let Some(bytes) = grow {
            holder.shm_bytes = bytes;
            write_json(&path, &holder, Durability::Process).map_err(failed)?;
        }
    }
    let namespace = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", holder.pid));
    Ok(Shared {
        pid: pids.then(|| namespace("pid")),
        ipc: ipc.then(|| namespace("ipc")),
    })
}

/// Makes the holder: a child of a child, so that it can be the first of its process ids.
fn make(file: &ContainerFile, pids: bool, ipc: bool) -> io::Result<HolderFile> {
    let task_cgroup = Path::new(&file.cgroup).parent().and_then(Path::to_str);
    let task_cgroup = task_cgroup.ok_or_else(|| io::Error::other("no cgroup of the task"))?;
    let confinement = Confinement::of_nothing();
    let shm_bytes = mounts::shm_bytes(&file.spec);
    let shim = own_pidfd_of_parent()?;
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            drop(told);
            let made = begin(task_cgroup, pids, ipc).and_then(|()| {
                // SAFETY: this child has one thread.
                match unsafe { libc::fork() } {
                    -1 => Err(io::Error::last_os_error()),
                    0 => hold(&shim, &confinement, shm_bytes, ipc, &tell),
                    pid => Ok(pid),
                }
            });
            if let Err(error) = made {
                let _ = rustix::io::write(&tell, format!("!{error}").as_bytes());
            }
            // SAFETY: ends this child at once; its own child goes to the shim.
            unsafe { libc::_exit(0) }
        }
        between => {
            drop(tell);
            let mut status = 0;
            // SAFETY: our own child, and a place for its status.
            unsafe { libc::waitpid(between, &mut status, 0) };
        }
    }
    let mut words = String::new();
    io::Read::read_to_string(&mut File::from(told), &mut words)?;
    let pid: i32 = words
        .parse()
        .map_err(|_| io::Error::other(format!("no holder: {}", words.trim_start_matches('!'))))?;
    let start_ticks = start_ticks(pid).ok_or_else(|| io::Error::other("the holder died"))?;
    Ok(HolderFile {
        pid,
        start_ticks,
        shm_bytes,
    })
}

/// What has to be done before the second fork.
fn begin(task_cgroup: &str, pids: bool, ipc: bool) -> io::Result<()> {
    join_cgroup(&format!("{task_cgroup}/{CGROUP}"))?;
    let mut flags = UnshareFlags::NEWNS;
    if pids {
        flags |= UnshareFlags::NEWPID;
    }
    if ipc {
        flags |= UnshareFlags::NEWIPC;
    }
    // SAFETY: this process has one thread, so no other thread's view changes.
    unsafe { unshare_unsafe(flags) }?;
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?;
    Ok(())
}

/// Becomes the holder, says so, and stays until the shim is gone.
fn hold(shim: &OwnedFd, confinement: &Confinement, shm_bytes: u64, ipc: bool, tell: &OwnedFd) -> ! {
    let prepared = (|| {
        let pid = pid_outside()?;
        let blocked = first_process::block_all()?;
        // While there is a /proc to ask.
        first_process::hide("pause");
        own_root(shm_bytes, ipc)?;
        confinement.apply()?;
        Ok::<_, io::Error>((pid, blocked))
    })();
    match prepared {
        Ok((pid, _)) => {
            let _ = rustix::io::write(tell, pid.to_string().as_bytes());
        }
        Err(error) => {
            let _ = rustix::io::write(tell, format!("!{error}").as_bytes());
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(1) }
        }
    }
    // Nothing of the maker's stays open: the first three are nobody's any more either.
    let shim = shim.as_raw_fd();
    // SAFETY: moves the one descriptor that is needed to the place 0, and closes everything else.
    unsafe { libc::dup2(shim, 0) };
    first_process::close_from(1);
    // SAFETY: place 0 is open, and for nothing but this.
    let shim = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
    // SAFETY: the kernel itself takes the ends of orphans whose new parent does not want to hear of them.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        // Readable when the shim has ended.
        let mut wait = [PollFd::new(&shim, PollFlags::IN)];
        if matches!(poll(&mut wait, None), Ok(1..)) {
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Wherever it can: one hierarchy is enough to be found and killed with the task. cpuset, for one, takes nobody
/// before it is told of processors.
fn join_cgroup(cgroup: &str) -> io::Result<()> {
    let mut joined = Err(io::Error::other("no cgroup could be joined"));
    for hierarchy in cgroup::hierarchies() {
        let folder = hierarchy.join(cgroup.trim_start_matches('/'));
        let entered =
            fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("cgroup.procs"), "0"));
        match entered {
            Ok(()) => joined = Ok(()),
            Err(_) => {
                let _ = fs::remove_dir(&folder);
            }
        }
    }
    joined
}

/// An empty root, read-only, with nothing in it but the shared memory.
fn own_root(shm_bytes: u64, ipc: bool) -> io::Result<()> {
    let no_code = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Any folder will do: what it hides is not needed any more.
    let base = "/tmp";
    mount(
        "tmpfs",
        base,
        "tmpfs",
        no_code,
        c"size=4k,nr_inodes=8,mode=755",
    )?;
    rustix::process::chdir(base)?;
    if ipc {
        fs::create_dir("shm")?;
        let options = std::ffi::CString::new(format!("mode=1777,size={shm_bytes}"))?;
        mount("shm", "shm", "tmpfs", no_code, options.as_c_str())?;
    }
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | no_code, c"")?;
    Ok(())
}

/// Binds the holder's shared memory to `target`, in this process's own mounts.
fn take_shm(holder: i32, target: &Path, grow: Option<u64>) -> io::Result<()> {
    let open = |path: &str| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mine = open("/proc/self/ns/mnt")?;
    let its = open(&format!("/proc/{holder}/ns/mnt"))?;
    let here = std::env::current_dir()?;
    let enter = |namespace: &OwnedFd| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
    };
    enter(&its)?;
    let taken = (|| {
        if let Some(bytes) = grow {
            let options = std::ffi::CString::new(format!("size={bytes}"))?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount_remount(SHM, flags, options.as_c_str())?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok::<_, io::Error>(open_tree(rustix::fs::CWD, SHM, flags)?)
    })();
    // Back in any case: everything after this is about the host's files.
    enter(&mine)?;
    std::env::set_current_dir(here)?;
    fs::create_dir_all(target)?;
    move_mount(
        taken?,
        "",
        rustix::fs::CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// The shim is this process's parent.
fn own_pidfd_of_parent() -> io::Result<OwnedFd> {
    let parent = rustix::process::getppid().ok_or_else(|| io::Error::other("no parent"))?;
    Ok(pidfd_open(parent, PidfdFlags::empty())?)
}

/// This process's id as the host knows it, also where it is the first of its own: /proc is still the host's.
fn pid_outside() -> io::Result<i32> {
    let link = fs::read_link("/proc/self")?;
    link.to_str()
        .and_then(|pid| pid.parse().ok())
        .filter(|pid| Pid::from_raw(*pid).is_some())
        .ok_or_else(|| io::Error::other("no process id"))
}
