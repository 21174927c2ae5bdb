//! `cargo xtask guest`: the tests of the node, and those from end to end, on a machine whose cgroups are
//! version 2 only.
//!
//! The machine is emulated (qemu with Debian's cloud kernel), so it runs anywhere and takes its time:
//! this is a chore of its own, not part of the tests. Its disk is bootstrapped from Debian once and kept
//! in the user's cache folder; a run writes to a throw-away layer above it, and reads what was just built
//! from a second disk. The tests are those of `cargo xtask test`, run by nextest in the guest area by area.
//! Deadlines are multiplied there by `GANTRY_TEST_PATIENCE`; none is left out.

mod machine;
mod payload;
mod root;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::setup::{self, Wanted};
use crate::shell::{is_root, say};

/// What the user said on the command line.
pub struct Options {
    /// All of them, in their order, if none is named.
    pub areas: Vec<Area>,
    /// Parts of tests' names, as nextest takes them; all tests if there is none.
    pub filters: Vec<String>,
    /// Processors of the guest.
    pub processors: u32,
    /// How many times longer than usual a test may wait.
    pub patience: u32,
    /// A shell in the guest instead of the tests.
    pub shell: bool,
}

/// What is tested together, in the order of how near it is to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Area {
    /// Containers, images and the shim.
    Runtime,
    /// Namespaces, addresses and host ports.
    Network,
    /// The agent's core and shell.
    Agent,
    /// The user's commands on whole installations.
    EndToEnd,
}

impl Area {
    fn package(self) -> &'static str {
        match self {
            Self::Runtime => "gantry-runtime",
            Self::Network => "gantry-network",
            Self::Agent => "gantry-agent",
            Self::EndToEnd => "gantry",
        }
    }

    /// The tests of the area, in nextest's words.
    fn tests(self) -> String {
        let package = format!("package(={})", self.package());
        match self {
            // Terraform is no Debian package, and its provider comes over the network, which the guest has not.
            Self::EndToEnd => format!("{package} and not test(/^terraform::/)"),
            _ => package,
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("no area is hidden");
        value.get_name().to_owned()
    }
}

/// How the tests of one area went, as the guest told it.
#[derive(Default)]
struct Outcome {
    area: String,
    code: Option<i32>,
    took: Duration,
    /// From nextest's summary to its end: the counts and each test that failed.
    summary: Vec<String>,
}

/// Builds, boots, tests; an error unless every area was tested in the guest and succeeded.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !is_root() {
        bail!("bootstrapping a root file system needs root: use `sudo -E cargo xtask guest`");
    }
    setup::run(Wanted {
        tests: true,
        guest: true,
        ..Wanted::default()
    })?;
    let cache = cache_folder()?.join("guest");
    std::fs::create_dir_all(&cache)?;
    let lock = std::fs::File::create(cache.join("lock"))?;
    lock.try_lock()
        .context("another `cargo xtask guest` runs")?;

    let areas = areas(options);
    let system = root::disk(&cache)?;
    let payload = payload::disk(&cache, options, &areas)?;
    let outcomes = machine::boot(options, &system, &payload, &cache.join("console"))?;
    if options.shell {
        return Ok(());
    }
    report(&areas, &outcomes)
}

fn areas(options: &Options) -> Vec<Area> {
    if options.areas.is_empty() {
        return Area::value_variants().to_vec();
    }
    let mut areas = options.areas.clone();
    areas.sort();
    areas.dedup();
    areas
}

fn report(areas: &[Area], outcomes: &[Outcome]) -> anyhow::Result<()> {
    say("in the guest");
    let mut failed = Vec::new();
    let mut tests = 0;
    for area in areas {
        let name = area.name();
        let Some(outcome) = outcomes.iter().find(|o| o.area == name) else {
            eprintln!("    {name}: not run");
            failed.push(name);
            continue;
        };
        let ended = match outcome.code {
            Some(0) => "succeeded",
            Some(_) => "FAILED",
            None => "did not end",
        };
        eprintln!("    {name}: {ended} after {} s", outcome.took.as_secs());
        for line in &outcome.summary {
            eprintln!("      {line}");
        }
        tests += outcome.summary.first().map_or(0, |line| tests_of(line));
        if outcome.code != Some(0) {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed in the guest: {}", failed.join(", "));
    }
    if tests == 0 {
        bail!("no test has such a name");
    }
    Ok(())
}

/// How many tests ran, from a line such as `Summary [ 40.1s] 91 tests run: 91 passed, 0 skipped`.
fn tests_of(summary: &str) -> u64 {
    let after = summary.split(']').nth(1).unwrap_or_default();
    // What a run that was broken off had to do stands behind a stroke.
    let number = after
        .trim()
        .split(['/', ' '])
        .next()
        .and_then(|number| number.parse().ok());
    number.unwrap_or(0)
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME")?).join(".cache"),
    };
    Ok(cache.join("gantry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tests_is_read_from_nextests_summary() {
        assert_eq!(
            tests_of("Summary [  40.1s] 91 tests run: 91 passed, 3 skipped"),
            91
        );
        assert_eq!(
            tests_of("Summary [ 1.0s] 5/9 tests run: 4 passed, 1 failed"),
            5
        );
        assert_eq!(
            tests_of("Summary [ 0.0s] 0 tests run: 0 passed, 7 skipped"),
            0
        );
    }

    #[test]
    fn an_area_that_was_not_run_or_not_ended_is_a_failure() {
        let outcome = |code| Outcome {
            area: "runtime".to_owned(),
            code,
            took: Duration::from_secs(1),
            summary: vec!["Summary [ 1.0s] 3 tests run: 3 passed".to_owned()],
        };
        assert!(report(&[Area::Runtime], &[outcome(Some(0))]).is_ok());
        assert!(report(&[Area::Runtime], &[outcome(Some(100))]).is_err());
        assert!(report(&[Area::Runtime], &[outcome(None)]).is_err());
        assert!(report(&[Area::Runtime, Area::Agent], &[outcome(Some(0))]).is_err());
    }
}
