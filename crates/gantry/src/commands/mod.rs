//! The commands beside `up`, one a file.

pub mod coverage;
pub mod doctor;
pub mod down;
pub mod env;
pub mod explain;
pub mod sample;
pub mod version;
