//! The registry's domain types and their rules.
//!
//! What always holds: everything here is pure, and a value that exists has been checked, so no
//! name or digest that a stranger sent reaches a row key or a path unseen.
//! What it leaves to others: rows (`tables`), bytes (`blobs`), both of the wires.

pub mod digest;
pub mod download;
pub mod immutability;
pub mod lifecycle;
pub mod manifest;
pub mod page;
pub mod policy;
pub mod range;
pub mod route;
pub mod settings;
pub mod tag;
pub mod token;
pub mod upload;

pub use digest::Digest;
pub use tag::{ImageTag, Reference};
