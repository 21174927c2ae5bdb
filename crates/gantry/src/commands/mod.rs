//! The commands beside `up`, one a file.

pub mod agent;
pub mod coverage;
pub mod doctor;
pub mod down;
pub mod env;
pub mod explain;
pub mod history;
pub mod question;
pub mod rehearse;
pub mod sample;
pub mod token;
pub mod version;
