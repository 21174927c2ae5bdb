//! Repositories, images and the OCI registry.

#![forbid(unsafe_code)]

pub mod model;
pub mod tables;
