//! The Gantry binary: command line, data directory, wiring. No logic.
//!
//! The same executable is also the shim of each task (`gantry shim …`, not for people). That is decided
//! before anything else is touched, because a shim must stay small.

mod cli;
mod commands;
mod data_dir;
mod duration;
mod machine;
mod supervision;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, Explain, History};

/// The word that makes this process a shim.
const SHIM: &str = "shim";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == SHIM) {
        gantry_runtime::shim::main(arguments.collect());
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(options) => up::run(&options),
        Command::Agent(options) => commands::agent::run(&options),
        Command::Token(options) => commands::token::run(&options),
        Command::Down(options) => commands::down::run(&options),
        Command::Env(options) => commands::env::run(&options),
        Command::Doctor => commands::doctor::run(),
        Command::Coverage { service, all } => commands::coverage::run(service.as_deref(), all),
        Command::Explain {
            what:
                Explain::Task {
                    id,
                    cluster,
                    data_dir,
                },
        } => commands::explain::task(&id, cluster, &data_dir),
        Command::Explain {
            what:
                Explain::Service {
                    name,
                    cluster,
                    data_dir,
                },
        } => commands::explain::service(&name, cluster.as_deref(), &data_dir),
        Command::History {
            what: History::Service(options),
        } => commands::history::service(&options),
        Command::Explain {
            what:
                Explain::Placement {
                    cluster,
                    task_definition,
                    started_by,
                    group,
                    data_dir,
                },
        } => commands::explain::placement(
            &commands::explain::Refused {
                cluster,
                task_definition,
                started_by,
                group,
            },
            &data_dir,
        ),
        Command::Rehearse(options) => commands::rehearse::run(&options),
        Command::Sample(options) => commands::sample::run(&options),
        Command::Version => {
            commands::version::run();
            Ok(())
        }
    }
}
