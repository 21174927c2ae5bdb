//! Which system calls a container may make, and why.
//!
//! What always holds: this is a list of what is allowed; whatever is on no list is refused. Each group is
//! allowed to everybody, or only to a container with the capability that the kernel would ask for anyway, so a
//! bug in what a container cannot use is out of its reach. It allows no more than Docker's default profile.
//! A call that the kernel learned after `numbers` was written answers ENOSYS, so that a C library falls back.
//! Words in one text rather than a list of pointers, because each process of Gantry would have its own copy of those.
//! What it leaves to others: numbers (`numbers`) and the program that the kernel runs (`filter`).

use rustix::thread::CapabilitySet;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Errno(u16),
    /// Allowed where one argument, of which the lower half is looked at, passes.
    AllowIf(Check),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// None of these bits is set in the argument of this number.
    NoneOf { argument: u8, bits: u32 },
    /// The argument is one of these.
    OneOf {
        argument: u8,
        values: &'static [u32],
    },
    /// The argument is not this.
    Not { argument: u8, value: u32 },
}

/// The kernel's version, as far as rules depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kernel {
    pub major: u32,
    pub minor: u32,
}

pub(super) const EPERM: u16 = 1;
pub(super) const ENOSYS: u16 = 38;

/// `CLONE_NEWNS`, `…CGROUP`, `…UTS`, `…IPC`, `…USER`, `…PID`, `…NET` together.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// Sockets to the hypervisor: they know no network namespaces.
const AF_VSOCK: u32 = 40;
/// Linux, 32-bit Linux, each with and without the old layout of addresses, and "what am I?".
const PERSONALITIES: &[u32] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Since then a tracer cannot change a call after the filter has looked at it.
const PTRACE_IS_FILTERED: Kernel = Kernel { major: 4, minor: 8 };

/// Files by path or descriptor: the container's own root and permissions hold a program back.
const FILES: &str = "\
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 \
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown \
    fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 \
    fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown lchown32 link \
    linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat \
    open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 \
    splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee \
    truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice \
    write writev";

/// Extended attributes; `trusted.` and `security.` ask for capabilities of their own.
const ATTRIBUTES: &str = "\
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr \
    lremovexattr lsetxattr removexattr setxattr getxattrat listxattrat removexattrat setxattrat";

/// Waiting for descriptors, and being told of changes to files.
const EVENTS: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd \
    signalfd4";

/// The old asynchronous I/O. io_uring is on no list: it does file and network calls past every filter.
const ASYNCHRONOUS_IO: &str = "\
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit";

/// Sockets of the container's own network; `socket` itself has a rule of its own.
const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall \
    socketpair";

/// A process's own memory. `userfaultfd` is on no list: it stops the kernel in the middle of a copy, which is
/// what races against the kernel are won with.
const MEMORY: &str = "\
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock \
    mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc \
    pkey_free pkey_mprotect remap_file_pages";

/// Starting, ending and waiting for processes; `clone` has rules of its own.
const PROCESSES: &str = "\
    execve execveat exit exit_group fork getpgid getpgrp getpid getppid getsid gettid kill pause \
    pidfd_open pidfd_send_signal prctl process_mrelease restart_syscall setpgid setsid tgkill \
    tkill uname vfork wait4 waitid waitpid";

/// Threads and the locks between them.
const THREADS: &str = "\
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list \
    get_thread_area rseq set_robust_list set_thread_area set_tid_address";

/// Who a process is: changes ask for SETUID, SETGID and SETPCAP.
const IDENTITY: &str = "\
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid \
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 \
    setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const SIGNALS: &str = "\
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn";

/// Reading clocks and sleeping. `adjtimex` and `clock_adjtime` read; what they change asks for SYS_TIME.
const CLOCKS: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep \
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 times";

/// Priorities and limits: lowering them is anybody's right, raising them asks for SYS_NICE or SYS_RESOURCE.
const LIMITS: &str = "\
    getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_getaffinity \
    sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield setpriority setrlimit sysinfo ugetrlimit";

/// System V and POSIX queues, semaphores and shared memory of the container's own IPC namespace.
const IPC: &str = "\
    ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop \
    semtimedop_time64 shmat shmctl shmdt shmget";

/// Means to give up rights.
const SANDBOXES: &str = "\
    getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp";

/// What only one kind of processor has; `numbers` knows where they exist.
const PROCESSOR: &str = "\
    arch_prctl arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush modify_ldt set_tls";

#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    FILES, ATTRIBUTES, EVENTS, ASYNCHRONOUS_IO, SOCKETS, MEMORY, PROCESSES, THREADS, IDENTITY,
    SIGNALS, CLOCKS, LIMITS, IPC, SANDBOXES, PROCESSOR,
];

/// Reading and writing other processes of the same user: debuggers, and crash reporters.
const TRACING: &str = "\
    process_vm_readv process_vm_writev ptrace";

/// What a capability adds.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        CapabilitySet::SYS_ADMIN,
        "\
         bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount umount2 unshare",
    ),
    (CapabilitySet::SYS_BOOT, "reboot"),
    (CapabilitySet::SYS_CHROOT, "chroot"),
    (CapabilitySet::SYS_MODULE, "delete_module finit_module init_module"),
    (CapabilitySet::SYS_PACCT, "acct"),
    (
        CapabilitySet::SYS_PTRACE,
        "\
         kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (CapabilitySet::SYS_RAWIO, "ioperm iopl"),
    (CapabilitySet::SYS_TIME, "clock_settime clock_settime64 settimeofday stime"),
    (CapabilitySet::SYS_TTY_CONFIG, "vhangup"),
    (CapabilitySet::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (CapabilitySet::SYSLOG, "syslog"),
    (CapabilitySet::BPF, "bpf"),
    (CapabilitySet::PERFMON, "perf_event_open"),
];

/// What becomes of every call that a container with these capabilities may make in some way; of any other
/// call, `Errno(EPERM)`. A later entry for a name replaces an earlier one.
pub(super) fn rules(
    capabilities: CapabilitySet,
    kernel: Kernel,
) -> impl Iterator<Item = (&'static str, Verdict)> {
    let everybody = ALLOWED.iter().flat_map(|group| group.split_whitespace());
    let tracing = TRACING
        .split_whitespace()
        .filter(move |_| kernel >= PTRACE_IS_FILTERED);
    let with_arguments = [
        (
            "clone",
            Verdict::AllowIf(Check::NoneOf {
                argument: 0,
                bits: NEW_NAMESPACES,
            }),
        ),
        // Its flags are behind a pointer that a filter cannot read; programs fall back to clone.
        ("clone3", Verdict::Errno(ENOSYS)),
        (
            "personality",
            Verdict::AllowIf(Check::OneOf {
                argument: 0,
                values: PERSONALITIES,
            }),
        ),
        (
            "socket",
            Verdict::AllowIf(Check::Not {
                argument: 0,
                value: AF_VSOCK,
            }),
        ),
    ];
    let added = WITH_CAPABILITY
        .iter()
        .filter(move |(capability, _)| capabilities.contains(*capability))
        .flat_map(|(_, names)| names.split_whitespace());
    let allow = |name: &'static str| (name, Verdict::Allow);
    everybody
        .chain(tracing)
        .map(allow)
        .chain(with_arguments)
        .chain(added.map(allow))
}
