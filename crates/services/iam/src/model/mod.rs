//! IAM's own rules, without I/O: ids, documents, and the policies AWS ships.

pub mod document;
pub mod ids;
mod json;
pub mod managed;
