//! The one driver of every controller.
//!
//! What always holds:
//! - A controller is level-triggered: it is given a key and a snapshot, never an event. One path
//!   serves start-up, a change, and the periodic resync.
//! - Each commit reads its lease row, so an owner that has lost its lease cannot write.
//! - Effects are handed out only after the commit they belong to, and again until the plan no
//!   longer has them. A process that dies in between plans them again when it is back.
//!
//! What it leaves to others: what to plan (controllers, which are pure), performing effects (an
//! [`EffectSink`]), and time: the core is told what time it is, so the world can pump it by hand.

#![forbid(unsafe_code)]

mod controller;
mod driver;
mod lease;
mod queue;
mod shell;

pub use controller::{Controller, Effect, EffectSink, EffectToken, Plan};
pub use driver::{Drive, Driver, DriverCounters, Limits, Step, Ticket};
pub use lease::{Lease, LeaseHandle, LeaseKeeper, LeaseRow, LeaseTimes};
pub use shell::{run, run_lease};
