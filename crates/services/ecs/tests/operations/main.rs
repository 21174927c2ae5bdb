//! ECS from outside in, on a memory store: what is asked and what is answered.

mod balancing;
mod blue_green;
mod clusters;
mod container_instances;
mod controllers;
mod crowds;
mod daemons;
mod ended_tasks;
mod explanations;
mod harness;
mod history;
mod interleavings;
mod overtaken;
mod placement;
mod ports;
mod registration_rules;
mod run_task;
mod service_explanations;
mod services;
mod settings;
mod state_changes;
mod states;
mod tags;
mod task_definitions;
