//! Domain types and their rules. Pure: no store, no clock, no randomness.

pub mod absent;
pub mod account_settings;
pub mod attributes;
pub mod enums;
pub mod last_status;
pub mod overrides;
pub mod page;
pub mod reference;
pub mod refusal;
pub mod report;
pub mod resources;
pub mod run_request;
pub mod service;
pub mod size;
pub mod state_changes;
pub mod tags;
pub mod task_definition;
pub mod task_view;
