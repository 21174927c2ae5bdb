//! Clock, Entropy and Timers, real and virtual: the only place that touches the time and chance.
//!
//! What always holds: everything else takes an [`Env`] (or a [`Timestamp`]) as an argument, so the
//! world can run weeks in seconds and replay any seed. Wall-clock time is for what people read;
//! deadlines are on the monotonic clock, which never jumps.
//! What it leaves to others: how long to wait. Every AWS interval is a named constant in the
//! crate that it belongs to.

#![forbid(unsafe_code)]

mod environment;
mod real;
mod timestamp;
mod virtual_env;

pub use environment::{Clock, Entropy, Env, Sleep, Timers};
pub use real::pause_thread;
pub use timestamp::Timestamp;
pub use virtual_env::VirtualEnv;
