//! The command line: names, help and defaults. Stable: scripts stand on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::data_dir;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "gantry",
    version,
    about = "Amazon ECS that you own: the AWS APIs of ECS and what it leans on, with real containers.",
    long_about = "Gantry serves the AWS APIs of ECS, ECR, CloudWatch Logs, IAM and STS on one port and runs the \
                  containers on this machine. The aws CLI, the SDKs and Terraform use it unmodified.\n\n\
                  A first session:\n  \
                  sudo gantry up                      # serves on 127.0.0.1:4566, in the foreground\n  \
                  eval \"$(gantry env)\"                # in another terminal: point the AWS tools at it\n  \
                  aws ecs list-clusters\n  \
                  gantry explain task ID              # why a task waits, or why it stopped\n  \
                  gantry explain placement            # why tasks found no place\n  \
                  sudo gantry down                    # stop everything and leave the machine clean",
    after_help = "Log detail is chosen with GANTRY_LOG (error, warn, info, debug; info by default).",
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What Gantry can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the APIs and run containers, in the foreground, until a signal.
    ///
    /// SIGINT (Ctrl-C) stops the tasks as well; a second one leaves them running. SIGTERM and SIGHUP
    /// leave them running, and so does a crash: the next `up` on the same data directory adopts them.
    Up(UpOptions),
    /// Run containers for a Gantry that runs elsewhere, in the foreground, until a signal.
    ///
    /// Joins a cluster with a token that `gantry token` makes, once; its data directory remembers that.
    /// Signals mean what they mean to `up`. Several agents on one machine need a data directory each, and
    /// register what --cpu and --memory give them: nobody divides the machine for them.
    Agent(AgentOptions),
    /// Make, list and revoke the tokens with which agents join a cluster.
    Token(TokenOptions),
    /// Stop and remove everything that an `up` or an `agent` on this data directory left on the machine.
    ///
    /// Ends a running one, its tasks, and their mounts, namespaces and cgroups; also when that `up` was
    /// killed. State (images, logs, task definitions) stays in the data directory unless --purge is given.
    Down(DownOptions),
    /// Print shell exports that point the AWS tools at this installation: eval "$(gantry env)".
    Env(DataDirOption),
    /// Say what this machine lacks to run containers, and how to get it.
    Doctor,
    /// Print which operations of each AWS service are built and which are not.
    Coverage {
        /// One service only: ecs, ecr, logs, iam or sts.
        service: Option<String>,
        /// Name every operation, not only the counts.
        #[arg(long)]
        all: bool,
    },
    /// Say why something is as it is.
    Explain {
        #[command(subcommand)]
        what: Explain,
    },
    /// Push a tiny image, run it as a task and wait for its log line: a check of the whole way.
    Sample(DataDirOption),
    /// Print the version.
    Version,
}

/// `gantry up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Address and port that every API is served on.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4566")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub data_dir: DataDirOption,
    /// Serve requests signed with any key, as the account's root. Only on a loopback address: every local process,
    /// and every task in host network mode, is root then.
    #[arg(long)]
    pub accept_any_credentials: bool,
    /// Logs as JSON, one object a line.
    #[arg(long)]
    pub log_json: bool,
}

/// `gantry agent`.
#[derive(Debug, Args)]
pub struct AgentOptions {
    /// Where the control plane serves: http://127.0.0.1:4566.
    #[arg(long, value_name = "URL")]
    pub endpoint: String,
    /// What `gantry token` printed. Needed once for each data directory.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "GANTRY_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Where this agent keeps its key, its journal, its images and its tasks.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The cluster that it shall be in; the token says which one it can be.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Attributes of its container instance, which placement constraints can ask for: rack=7,disk=ssd; with
    /// ecs.availability-zone=NAME its zone.
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    pub attributes: Vec<String>,
    /// What it gives to tasks: CPU units, 1024 a core. All of the machine if not said.
    #[arg(long, value_name = "UNITS")]
    pub cpu: Option<i32>,
    /// What it gives to tasks: MiB of memory. All of the machine if not said.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<i32>,
    /// Logs as JSON, one object a line.
    #[arg(long)]
    pub log_json: bool,
}

/// `gantry token`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TokenOptions {
    #[command(subcommand)]
    pub action: Option<TokenAction>,
    /// The cluster that can be joined with it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub cluster: String,
    /// How long it is good for: 30m, 1h, 7d.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub expires: String,
    /// How many agents can join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    #[command(flatten)]
    pub data_dir: DataDirOption,
}

/// What else is done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Show the tokens there are and how often they were used.
    List(DataDirOption),
    /// Let nobody join with a token any more.
    Revoke {
        /// The token's id, as `gantry token list` shows it.
        id: String,
        /// Also end the keys of the agents that joined with it.
        #[arg(long)]
        nodes: bool,
        #[command(flatten)]
        data_dir: DataDirOption,
    },
}

/// `gantry down`.
#[derive(Debug, Args)]
pub struct DownOptions {
    #[command(flatten)]
    pub data_dir: DataDirOption,
    /// Delete the data directory too: images, logs, task definitions and keys.
    #[arg(long)]
    pub purge: bool,
}

/// Which installation is meant.
#[derive(Debug, Args, Clone)]
pub struct DataDirOption {
    /// Where the installation keeps its state.
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR", default_value = data_dir::DEFAULT)]
    pub data_dir: PathBuf,
}

/// `gantry explain`.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// Why a task is pending, or why it stopped.
    Task {
        /// The task's id or ARN.
        id: String,
        #[command(flatten)]
        data_dir: DataDirOption,
    },
    /// Why tasks that were asked for found no place: the latest refusals of a cluster.
    ///
    /// A task that found no place was never made, so it has no id to ask for.
    Placement {
        /// The cluster's name or ARN.
        #[arg(long, default_value = "default")]
        cluster: String,
        /// Only of this family, or family:revision.
        #[arg(long)]
        task_definition: Option<String>,
        /// Only what was asked for with this startedBy.
        #[arg(long)]
        started_by: Option<String>,
        /// Only what was asked for with this group.
        #[arg(long)]
        group: Option<String>,
        #[command(flatten)]
        data_dir: DataDirOption,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
