//! The process that holds a task's containers: their stdio, their ends, their exit codes.
//!
//! What always holds:
//! - It has one thread and never runs libcontainer itself: each container is made in a forked child that
//!   ends right after, so a shim stays as small as it was when it started.
//! - An exit is on disk before anybody is told. What it was told to do goes on when its agent dies.
//! - It goes when it is told to, and stays for as long as its task is open.
//!
//! What it leaves to others: what to run, and everything after the containers' ends (the agent's side).

mod clock;
mod connection;
mod container;
mod exec;
mod maker;
mod oom;
mod requests;
mod spool;
mod stdio;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

/// What `gantry shim …` does. `args` are the words after `shim`: the task's folder.
pub fn main(args: Vec<OsString>) -> ! {
    // Otherwise the number of the descriptor that it was executed from.
    let _ = rustix::thread::set_name(c"gantry-shim");
    let code = match args.first() {
        Some(folder) => match watch::run(&PathBuf::from(folder)) {
            Ok(()) => 0,
            Err(error) => {
                note(&error.to_string());
                1
            }
        },
        None => 64,
    };
    std::process::exit(code)
}

/// Into the shim's own log in the task's folder, for whoever looks into what went wrong. On a full disk it says nothing:
/// a shim goes on where `eprintln!` would end it.
fn note(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "shim: {text}");
}
