//! Repositories, images and the OCI registry.

#![forbid(unsafe_code)]

mod blobs;
mod collection;
mod error;
mod images;
mod layers;
pub mod model;
mod registry_state;
pub mod tables;
mod uploads;
