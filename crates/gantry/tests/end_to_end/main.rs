//! Gantry from outside: the aws CLI, boto3, skopeo and buildah on real containers.
//!
//! Each test has an installation of its own, on a free port and in a folder that goes with it, so
//! tests run side by side and twice at once. They need root (`cargo xtask test`).
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of real programs are in real time"
)]

mod adopt;
mod commands;
mod containers;
mod faults;
mod first_light;
mod image;
mod installation;
mod refusals;
mod registry;
