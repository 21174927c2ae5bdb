//! The rules of log groups, streams and events, without I/O.

pub mod batch;
pub mod names;
pub mod pattern;
pub mod position;
pub mod retention;
pub mod spool;
