//! Domain types and their rules. Pure: no store, no clock, no randomness.

pub mod last_status;
