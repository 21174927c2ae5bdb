//! Gantry from outside: the aws CLI, boto3, skopeo and buildah on real containers.
//!
//! Each test has an installation of its own, on a free port and in a folder that goes with it, so
//! tests run side by side and twice at once. They need root (`cargo xtask test`).
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of real programs are in real time"
)]

mod adopt;
mod agent_protocol;
mod agents;
mod agents_external;
mod agents_namespaces;
mod boto3;
mod bridge;
mod commands;
mod containers;
mod ecr_api;
mod ecs_api;
mod faults;
mod faults_client;
mod faults_disk;
mod faults_guard;
mod faults_left;
mod faults_noise;
mod faults_registry;
mod faults_seeds;
mod faults_tasks;
mod first_light;
mod iam_identity;
mod image;
mod installation;
mod labs;
mod lifecycle;
mod log_drivers;
mod logs_search;
mod members_kernel;
mod members_names;
mod members_order;
mod members_sharing;
mod members_task;
mod placement;
mod refusals;
mod registry;
mod rehearse;
mod saml;
mod services;
mod services_blue_green;
mod services_fleet;
mod services_storm;
mod services_told;
mod task_control_plane;
mod task_endpoints;
mod terraform;
mod volumes;
mod web_identity;
