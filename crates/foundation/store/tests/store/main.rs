//! The store's tests: one conformance suite for every backend, and what is SQLite's own.

mod backends;
mod conformance;
mod crash;
mod equivalence;
mod sqlite;
mod turns;
