//! Runs inside containers, in tests: it tries what a container must not be able to do, by plain system calls, and
//! prints one line for each try: what it was, and the name of the error, or `DONE` where it worked.
//!
//! What always holds: a try that works by mistake harms nothing. What it leaves to others: what is expected (`escapes`).

#![allow(
    unsafe_code,
    reason = "system calls with arguments that no wrapper would pass on are what this is for"
)]
#![allow(clippy::print_stdout, reason = "what came of each try is the result")]

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

use libc::{c_long, c_void};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    match word(0) {
        "mounts" => mounts(),
        "masks" => masks(),
        "namespaces" => namespaces(),
        "join" => join(word(1)),
        "kernel" => kernel(),
        "keys" => keys(),
        "handles" => handles(),
        "devices" => devices(word(1)),
        "trace" => trace(word(1)),
        "limits" => limits(),
        "chroot" => leave_chroot(word(1)),
        "unknown" => unknown(),
        "write" => words[1..].iter().for_each(|path| write(path)),
        "read" => words[1..].iter().for_each(|path| read(path)),
        "descriptors" => descriptors(),
        // SAFETY: asks who this process acts as.
        "user" => println!("{}", unsafe { libc::geteuid() }),
        "wait" => {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
        other => panic!("unknown {other:?}"),
    }
}

/// One try: `tried` is what the kernel answered.
fn say(what: &str, tried: c_long) {
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let name = match (tried, error) {
        (0.., _) => "DONE",
        (_, libc::EPERM) => "EPERM",
        (_, libc::ENOSYS) => "ENOSYS",
        (_, libc::EACCES) => "EACCES",
        (_, libc::EROFS) => "EROFS",
        (_, libc::ENOENT) => "ENOENT",
        (_, libc::ESRCH) => "ESRCH",
        (_, libc::EINVAL) => "EINVAL",
        (_, libc::EBADF) => "EBADF",
        (_, libc::ETXTBSY) => "ETXTBSY",
        (_, libc::ENXIO) => "ENXIO",
        _ => "another error",
    };
    println!("{what}: {name}");
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

/// A call by number.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: the arguments are numbers, or point to what outlives the call.
        unsafe { libc::syscall($number $(, $argument)*) }
    };
}

const NOTHING: *const c_void = std::ptr::null();

fn mount(what: &str, source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) {
    let tried = call!(
        libc::SYS_mount,
        source.as_ptr(),
        target.as_ptr(),
        kind.as_ptr(),
        flags,
        NOTHING
    );
    say(what, tried);
}

fn mounts() {
    mount("mount tmpfs", c"tmpfs", c"/tmp", c"tmpfs", 0);
    mount("mount proc", c"proc", c"/tmp", c"proc", 0);
    mount("mount cgroup", c"cgroup", c"/tmp", c"cgroup", 0);
    mount("mount bind", c"/", c"/tmp", c"", libc::MS_BIND);
    let writable = libc::MS_REMOUNT | libc::MS_BIND;
    mount("remount /proc/sys", c"", c"/proc/sys", c"", writable);
    mount("remount /sys", c"", c"/sys", c"", writable);
    say("fsopen", call!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0));
    say(
        "open_tree",
        call!(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), 1),
    );
    say(
        "move_mount",
        call!(
            libc::SYS_move_mount,
            0,
            c"".as_ptr(),
            libc::AT_FDCWD,
            c"/tmp".as_ptr(),
            4
        ),
    );
    say(
        "mount_setattr",
        call!(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/sys".as_ptr(),
            0,
            NOTHING,
            0
        ),
    );
    say(
        "pivot_root",
        call!(libc::SYS_pivot_root, c"/".as_ptr(), c"/".as_ptr()),
    );
    say("swapon", call!(libc::SYS_swapon, c"/none".as_ptr(), 0));
}

fn masks() {
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
        "/proc/sys",
        "/sys/fs/cgroup",
        "/dev/shm",
        "/etc/hosts",
    ] {
        say(
            &format!("umount {path}"),
            call!(libc::SYS_umount2, c(path).as_ptr(), libc::MNT_DETACH),
        );
    }
}

const KINDS: [(&str, libc::c_int); 8] = [
    ("mount", libc::CLONE_NEWNS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("user", libc::CLONE_NEWUSER),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("time", 0x80),
];

fn namespaces() {
    for (name, flag) in KINDS {
        say(&format!("unshare {name}"), call!(libc::SYS_unshare, flag));
        if name != "time" {
            let tried = call!(
                libc::SYS_clone,
                c_long::from(flag | libc::SIGCHLD),
                0,
                0,
                0,
                0
            );
            if tried == 0 {
                std::process::exit(0);
            }
            say(&format!("clone {name}"), tried);
        }
    }
    let mut arguments = [0_u64; 11];
    arguments[0] = libc::CLONE_NEWUSER as u64;
    arguments[4] = libc::SIGCHLD as u64;
    let tried = call!(
        libc::SYS_clone3,
        arguments.as_ptr(),
        size_of_val(&arguments)
    );
    if tried == 0 {
        std::process::exit(0);
    }
    say("clone3", tried);
}

/// The namespaces of another process.
fn join(pid: &str) {
    for (file, flag) in [
        ("mnt", libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWPID),
        ("user", libc::CLONE_NEWUSER),
    ] {
        let path = c(&format!("/proc/{pid}/ns/{file}"));
        let opened = call!(
            libc::SYS_openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDONLY
        );
        say(&format!("open {file} of another"), opened);
        say(
            &format!("setns {file}"),
            call!(libc::SYS_setns, opened, flag),
        );
    }
    let opened = call!(libc::SYS_pidfd_open, pid.parse::<i32>().unwrap_or(0), 0);
    say(
        "setns by pidfd",
        call!(libc::SYS_setns, opened, libc::CLONE_NEWNS),
    );
}

fn kernel() {
    let mut space = [0_u64; 64];
    let space = space.as_mut_ptr();
    say("bpf", call!(libc::SYS_bpf, 0, space, 128));
    say(
        "perf_event_open",
        call!(libc::SYS_perf_event_open, space, 0, -1, -1, 0),
    );
    say("io_uring_setup", call!(libc::SYS_io_uring_setup, 8, space));
    say("userfaultfd", call!(libc::SYS_userfaultfd, 0));
    say("kexec_load", call!(libc::SYS_kexec_load, 0, 0, NOTHING, 0));
    say(
        "kexec_file_load",
        call!(libc::SYS_kexec_file_load, -1, -1, 0, NOTHING, 0),
    );
    // A command that does not exist: not even a container that may call it restarts anything.
    say("reboot", call!(libc::SYS_reboot, 0, 0, 0, NOTHING));
    say(
        "init_module",
        call!(libc::SYS_init_module, NOTHING, 0, c"".as_ptr()),
    );
    say(
        "finit_module",
        call!(libc::SYS_finit_module, -1, c"".as_ptr(), 0),
    );
    say(
        "delete_module",
        call!(libc::SYS_delete_module, c"none".as_ptr(), 0),
    );
    say("syslog", call!(libc::SYS_syslog, 10, NOTHING, 0));
    say("acct", call!(libc::SYS_acct, NOTHING));
    say(
        "settimeofday",
        call!(libc::SYS_settimeofday, NOTHING, NOTHING),
    );
    say(
        "sethostname",
        call!(libc::SYS_sethostname, c"x".as_ptr(), 1),
    );
    say(
        "quotactl",
        call!(libc::SYS_quotactl, 0, NOTHING, 0, NOTHING),
    );
    #[cfg(target_arch = "x86_64")]
    say("iopl", call!(libc::SYS_iopl, 3));
    // ADDR_NO_RANDOMIZE
    say("personality", call!(libc::SYS_personality, 0x4_0000));
    say("vsock", call!(libc::SYS_socket, 40, libc::SOCK_STREAM, 0));
    // The ways around that Docker knows of.
    say(
        "socket",
        call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
    );
    say("getpid", call!(libc::SYS_getpid));
}

fn keys() {
    say("keyctl", call!(libc::SYS_keyctl, 0, -3, 0, 0, 0));
    say(
        "add_key",
        call!(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"x".as_ptr(),
            c"y".as_ptr(),
            1,
            -3
        ),
    );
    say(
        "request_key",
        call!(
            libc::SYS_request_key,
            c"user".as_ptr(),
            c"x".as_ptr(),
            NOTHING,
            -3
        ),
    );
}

/// Opening any file of a disk by its number, from a handle of one that may be opened.
fn handles() {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        name: [u8; 8],
    }
    // The number of the root folder on most file systems.
    let handle = Handle {
        bytes: 8,
        kind: 1,
        name: [2, 0, 0, 0, 0, 0, 0, 0],
    };
    let mount = call!(
        libc::SYS_openat,
        libc::AT_FDCWD,
        c"/etc/hosts".as_ptr(),
        libc::O_RDONLY
    );
    let tried = call!(
        libc::SYS_open_by_handle_at,
        mount,
        &raw const handle,
        libc::O_RDONLY
    );
    say("open_by_handle_at", tried);
}

/// `disk` is the number of the disk below the host's root, as `major:minor`.
fn devices(disk: &str) {
    let (major, minor) = disk.split_once(':').expect("major:minor");
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let tries = [
        ("disk", libc::S_IFBLK, number(major), number(minor)),
        ("mem", libc::S_IFCHR, 1, 1),
        ("kmsg", libc::S_IFCHR, 1, 11),
        ("tun", libc::S_IFCHR, 10, 200),
        ("fuse", libc::S_IFCHR, 10, 229),
        ("kvm", libc::S_IFCHR, 10, 232),
        ("null", libc::S_IFCHR, 1, 3),
    ];
    for (name, kind, major, minor) in tries {
        let path = c(&format!("/tmp-{name}"));
        let device = libc::makedev(major, minor);
        say(
            &format!("mknod {name}"),
            call!(
                libc::SYS_mknodat,
                libc::AT_FDCWD,
                path.as_ptr(),
                kind | 0o600,
                device
            ),
        );
        for (what, flags) in [("read", libc::O_RDONLY), ("write", libc::O_WRONLY)] {
            let tried = call!(
                libc::SYS_openat,
                libc::AT_FDCWD,
                path.as_ptr(),
                flags | libc::O_NONBLOCK
            );
            say(&format!("{what} {name}"), tried);
        }
    }
}

/// Looking into another process.
fn trace(pid: &str) {
    let id = pid.parse::<i32>().expect("a pid");
    say(
        "ptrace",
        call!(libc::SYS_ptrace, libc::PTRACE_SEIZE, id, NOTHING, NOTHING),
    );
    let mut space = [0_u8; 8];
    let mine = libc::iovec {
        iov_base: space.as_mut_ptr().cast(),
        iov_len: 8,
    };
    let its = libc::iovec {
        iov_base: 0x1000 as *mut c_void,
        iov_len: 8,
    };
    say(
        "process_vm_readv",
        call!(
            libc::SYS_process_vm_readv,
            id,
            &raw const mine,
            1,
            &raw const its,
            1,
            0_usize
        ),
    );
    say(
        "process_vm_writev",
        call!(
            libc::SYS_process_vm_writev,
            id,
            &raw const mine,
            1,
            &raw const its,
            1,
            0_usize
        ),
    );
    let pidfd = call!(libc::SYS_pidfd_open, id, 0);
    say("pidfd_getfd", call!(libc::SYS_pidfd_getfd, pidfd, 0, 0));
    say("kcmp", call!(libc::SYS_kcmp, id, id, 0, 0, 0));
    for file in ["root/etc/passwd", "cwd", "exe", "mem", "environ", "fd/0"] {
        read(&format!("/proc/{pid}/{file}"));
    }
    for file in ["root/gantry-was-here", "mem", "exe"] {
        write(&format!("/proc/{pid}/{file}"));
    }
}

fn limits() {
    for (name, resource) in [
        ("nofile", libc::RLIMIT_NOFILE),
        ("core", libc::RLIMIT_CORE),
        ("nproc", libc::RLIMIT_NPROC),
        ("memlock", libc::RLIMIT_MEMLOCK),
    ] {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: a place for the limit.
        unsafe { libc::getrlimit(resource, &mut limit) };
        if limit.rlim_max == libc::RLIM_INFINITY {
            println!("{name}: no limit");
            continue;
        }
        limit.rlim_max += 1;
        // SAFETY: reads the limit.
        let tried = unsafe { libc::setrlimit(resource, &limit) };
        say(&format!("raise {name}"), c_long::from(tried));
    }
    say(
        "nice",
        call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -5),
    );
    write("/proc/self/oom_score_adj=-1000");
}

/// The classic way out of a chroot; out of a root that was pivoted to there is none. `mark` is a file of the host's.
fn leave_chroot(mark: &str) {
    let _ = std::fs::create_dir("/cage");
    let root: RawFd = call!(
        libc::SYS_openat,
        libc::AT_FDCWD,
        c"/".as_ptr(),
        libc::O_DIRECTORY
    ) as RawFd;
    say("chroot", call!(libc::SYS_chroot, c"/cage".as_ptr()));
    call!(libc::SYS_fchdir, root);
    for _ in 0..64 {
        call!(libc::SYS_chdir, c"..".as_ptr());
    }
    say("chroot again", call!(libc::SYS_chroot, c".".as_ptr()));
    println!("container: {}", std::path::Path::new("/intruder").exists());
    println!("host: {}", std::path::Path::new(mark).exists());
}

/// Calls that are newer than the filter, or another architecture's.
fn unknown() {
    for number in [480, 999, 0x4000_0000_i64, 0x4000_0027] {
        say(&format!("call {number}"), call!(number));
    }
    // A hole in the table.
    #[cfg(target_arch = "x86_64")]
    say("call 400", call!(400_i64));
}

/// `path` or `path=text`; what is written is the text, or nothing at all.
fn write(target: &str) {
    let (path, text) = target.split_once('=').unwrap_or((target, ""));
    let name = c(path);
    let flags = libc::O_WRONLY
        | if path.ends_with("was-here") {
            libc::O_CREAT
        } else {
            0
        };
    let opened = call!(
        libc::SYS_openat,
        libc::AT_FDCWD,
        name.as_ptr(),
        flags,
        0o600
    );
    let tried = if opened >= 0 && !text.is_empty() {
        call!(libc::SYS_write, opened, text.as_ptr(), text.len())
    } else {
        opened
    };
    say(&format!("write {}", relative(path)), tried);
}

fn read(path: &str) {
    let name = c(path);
    let opened = call!(
        libc::SYS_openat,
        libc::AT_FDCWD,
        name.as_ptr(),
        libc::O_RDONLY | libc::O_NONBLOCK
    );
    let mut byte = [0_u8; 64];
    let tried = if opened >= 0 && !path.ends_with("cwd") {
        call!(libc::SYS_read, opened, byte.as_mut_ptr(), byte.len())
    } else {
        opened
    };
    match tried {
        0 => println!("read {}: empty", relative(path)),
        _ => say(&format!("read {}", relative(path)), tried),
    }
}

/// A process's number differs from run to run.
fn relative(path: &str) -> String {
    let below = path
        .strip_prefix("/proc/")
        .and_then(|rest| rest.split_once('/'));
    match below {
        Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => rest.to_owned(),
        _ => path.to_owned(),
    }
}

fn descriptors() {
    for number in 0..4096 {
        if let Ok(target) = std::fs::read_link(format!("/proc/self/fd/{number}")) {
            println!("{number} {}", target.display());
        }
    }
}
