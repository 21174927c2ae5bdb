//! What a task can ask of the container instance that runs it: addresses, documents and limits.
//!
//! What always holds: no I/O; the shapes and names are those that AWS documents for task metadata
//! version 3 and 4, for the credentials of a task's role, and Docker's for stats. What is not known is
//! left out, as AWS leaves it out.
//! What it leaves to others: sockets, and who may ask what (`shell::endpoints`).

pub mod address;
pub mod allowance;
pub mod metadata;
pub mod stats;
