//! The project's own chores: `cargo xtask setup | codegen | tidy | test | fuzz | bench | world | up`.
//!
//! Everything that a person or CI runs on a checkout is one of these, so the README
//! needs two lines. Each prints what it does as it does it. Nothing here is linked into Gantry.

use clap::{Parser, Subcommand};

mod bench;
mod codegen;
mod fuzz;
mod guest;
mod setup;
mod shell;
mod test;
mod tidy;
mod up;
mod world;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Gantry's chores", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what building (and, with --tests, testing) needs: Debian, Cargo and PyPI packages.
    Setup {
        /// Also install what the tests use: skopeo, buildah, busybox, nextest.
        #[arg(long)]
        tests: bool,
        /// Also install the peers that the benchmarks compare with: Debian's docker.io.
        #[arg(long)]
        bench: bool,
    },
    /// Generate the AWS wire types from the models under `models/`.
    Codegen {
        /// Change nothing; fail if the committed code is not what the committed models give.
        #[arg(long)]
        check: bool,
    },
    /// Generate only the table of a task definition's members: docs/task-definitions.md.
    Members,
    /// Check formats, arrows between crates, bans, generated code, lints and licences.
    Tidy {
        /// Leave out the slow part (clippy and cargo-deny).
        #[arg(long)]
        quick: bool,
    },
    /// Install what the tests need and run them all. Further words go to `cargo nextest run`.
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        nextest: Vec<String>,
    },
    /// Try the parsers with inputs that nobody thought of. Needs g++.
    Fuzz {
        /// The folder of its seeds under fuzz/seeds; all targets unless said.
        target: Option<String>,
        /// How long each target runs.
        #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
        seconds: Option<u64>,
        /// Run one input alone: hexadecimal digits, or a file.
        #[arg(long, requires = "target")]
        replay: Option<String>,
    },
    /// Measure speed and size against peers in the same run.
    Bench {
        /// What to measure; everything unless said.
        #[arg(value_enum)]
        suites: Vec<bench::Suite>,
        /// Leave the peers out, even where they can be had.
        #[arg(long)]
        no_peer: bool,
        /// How often each thing is measured.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
    },
    /// Run the node's tests and those from end to end in an emulated machine with cgroups version 2.
    /// Takes hours; needs root.
    Guest {
        /// What to test, in this order; everything unless said.
        #[arg(value_enum)]
        areas: Vec<guest::Area>,
        /// Only tests whose names contain this; may be given often.
        #[arg(long = "filter")]
        filters: Vec<String>,
        /// Processors of the guest.
        #[arg(long, default_value_t = 2)]
        processors: u32,
        /// How many times longer than usual a test may wait.
        #[arg(long, default_value_t = 12)]
        patience: u32,
        /// Open a shell in the guest, with the tests at hand, instead of running them.
        #[arg(long)]
        shell: bool,
    },
    /// Run the worlds of many seeds, with optimisation, until one fails.
    World {
        /// How many; a hundred, or as many as there is time for.
        #[arg(long)]
        seeds: Option<u64>,
        /// The first seed. Those below 100 are run by every test run.
        #[arg(long, default_value_t = 100)]
        from: u64,
        /// Begin no further seeds after so many minutes.
        #[arg(long)]
        minutes: Option<u64>,
    },
    /// Install what is missing, build, start Gantry and run a sample task until its log line is seen.
    Up {
        /// Address and port of the endpoint.
        #[arg(long, default_value = "127.0.0.1:4566")]
        listen: String,
        /// Where Gantry keeps its state.
        #[arg(long)]
        data_dir: Option<std::path::PathBuf>,
        /// Stop Gantry again once the sample task has run.
        #[arg(long)]
        once: bool,
    },
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Setup { tests, bench } => setup::run(setup::Wanted {
            sample: tests || bench,
            tests,
            bench,
            ..setup::Wanted::default()
        }),
        Chore::Codegen { check } => codegen::run(check),
        Chore::Members => codegen::members::run(false),
        Chore::Tidy { quick } => tidy::run(if quick {
            tidy::Depth::Quick
        } else {
            tidy::Depth::Full
        }),
        Chore::Test { nextest } => test::run_all(&nextest),
        Chore::Fuzz {
            target,
            seconds,
            replay,
        } => fuzz::run(&fuzz::Options {
            target,
            seconds,
            replay,
            is_repeatable: false,
        }),
        Chore::Bench {
            suites,
            no_peer,
            rounds,
        } => bench::run(&bench::Options {
            peer: !no_peer,
            rounds,
            suites,
        }),
        Chore::Guest {
            areas,
            filters,
            processors,
            patience,
            shell,
        } => guest::run(&guest::Options {
            areas,
            filters,
            processors,
            patience,
            shell,
        }),
        Chore::World {
            seeds,
            from,
            minutes,
        } => world::run_worlds(&world::Options {
            seeds,
            from,
            minutes,
        }),
        Chore::Up {
            listen,
            data_dir,
            once,
        } => up::run(&up::Options {
            listen,
            data_dir,
            once,
        }),
    }
}
