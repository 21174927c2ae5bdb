//! Domain types and their rules. Pure: no store, no clock, no randomness.

pub mod absent;
pub mod enums;
pub mod last_status;
pub mod reference;
pub mod refusal;
pub mod size;
pub mod tags;
pub mod task_definition;
