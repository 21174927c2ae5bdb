//! The agent's core, one rule at a time.

mod dependencies;
mod health;
mod plans;
mod ports;
mod properties;
mod restarts;
mod scripted;
mod tasks;
