//! A small first process, for a container that asks for one: it passes signals on to the program and takes the
//! ends of orphans. The holder of a task's shared namespaces (`holder`) is another one, without a program.
//!
//! What always holds: it has no descriptor but its standard ones, and nobody in the container can look into it or learn what it
//! was made from, because it is not dumpable and its command line is overwritten.

use std::io;
use std::os::fd::RawFd;

/// What `ps` shows.
const NAME: &str = "init";

/// Forks; comes back in the child, which is to become the program. The parent stays, as this container's first process.
pub(super) fn stay_behind() -> io::Result<()> {
    let all = block_all()?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: this process's own group, terminal and signals. Without a terminal the second call changes
            // nothing; the signal that it may raise is still blocked.
            unsafe {
                libc::setpgid(0, 0);
                libc::tcsetpgrp(0, libc::getpgrp());
                libc::sigprocmask(libc::SIG_SETMASK, &all.before, std::ptr::null_mut());
            }
            Ok(())
        }
        program => {
            hide(NAME);
            close_from(3);
            pass_on(program, &all.set)
        }
    }
}

/// Takes ends and passes signals on until the program ends, and then ends as it did.
fn pass_on(program: libc::pid_t, signals: &libc::sigset_t) -> ! {
    loop {
        if let Some(status) = reap(program) {
            let code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            // SAFETY: ends this process; nothing is to be run before.
            unsafe { libc::_exit(code) }
        }
        // SAFETY: waits for one of the signals, which are blocked; nothing but its number is asked for.
        let signal = unsafe { libc::sigwaitinfo(signals, std::ptr::null_mut()) };
        if signal > 0 && signal != libc::SIGCHLD {
            // SAFETY: the program is our child and not reaped, so the pid is its own.
            unsafe { libc::kill(program, signal) };
        }
    }
}

/// Takes the ends of all that have ended; the status of `program`, if it was among them.
fn reap(program: libc::pid_t) -> Option<i32> {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: a place for the status.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            pid if pid > 0 => {
                if pid == program {
                    ended = Some(status);
                }
            }
            _ => return ended,
        }
    }
}

pub(super) struct Blocked {
    pub set: libc::sigset_t,
    before: libc::sigset_t,
}

/// No signal interrupts from here on; they are waited for.
pub(super) fn block_all() -> io::Result<Blocked> {
    // SAFETY: sets of signals that are filled before they are read, for this process only.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        if libc::sigprocmask(libc::SIG_SETMASK, &set, &mut before) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Blocked { set, before })
    }
}

pub(super) fn close_from(first: RawFd) {
    // SAFETY: nothing in this process uses any of them any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

/// From here on nobody with the same rights can trace this process, or follow its links in /proc.
pub(super) fn hide(name: &str) {
    // SAFETY: changes this process only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if let Ok(short) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&short);
    }
    overwrite_command_line(name);
}

/// The words that this process was started with tell of the host's folders.
fn overwrite_command_line(name: &str) {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    // The name may hold anything, so fields are counted from after it: the words are from field 48 to field 49.
    let after = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    let mut fields = after.split_ascii_whitespace().skip(45);
    let mut address = || fields.next()?.parse::<usize>().ok();
    let (Some(from), Some(to)) = (address(), address()) else {
        return;
    };
    if from == 0 || to <= from {
        return;
    }
    // SAFETY: the kernel says that the words lie there: memory of this process, writable, and its own copy since
    // it was forked. Nobody reads them any more.
    unsafe {
        let words = from as *mut u8;
        std::ptr::write_bytes(words, 0, to - from);
        let length = name.len().min(to - from - 1);
        std::ptr::copy_nonoverlapping(name.as_ptr(), words, length);
    }
}
