//! `cargo xtask test`: everything that must hold, in the order in which a failure is cheapest.
//!
//! The target directory and the downloads live in the user's cache folder when `CI` is set, so
//! that a clean clone does not build everything again.

use crate::fuzz;
use crate::setup::{self, Wanted};
use crate::shell::{command, run, say};
use crate::tidy::{self, Depth};

/// Runs all tests; `nextest` are further words for `cargo nextest run`, a filter for instance.
pub fn run_all(nextest: &[String]) -> anyhow::Result<()> {
    setup::run(Wanted {
        tests: true,
        ..Wanted::default()
    })?;
    if nextest.is_empty() {
        tidy::run(Depth::Quick)?;
    }
    say("building");
    run(command("cargo").args(["build", "--workspace", "--tests", "--bins", "--quiet"]))?;
    say("testing");
    let mut tests = command("cargo");
    tests
        .args(["nextest", "run", "--workspace", "--no-fail-fast"])
        .args(nextest);
    run(&mut tests)?;
    if nextest.is_empty() {
        fuzz::run(&fuzz::Options {
            seconds: Some(fuzz::BRIEFLY_S),
            is_repeatable: true,
            ..fuzz::Options::default()
        })?;
    }
    Ok(())
}
