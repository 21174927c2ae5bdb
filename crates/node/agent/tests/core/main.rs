//! The agent's core, one rule at a time.

mod plans;
mod tasks;
