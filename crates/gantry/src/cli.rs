//! The command line: names, help and defaults. Stable: scripts stand on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gantry_api::server::Network;

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
                  gantry explain service NAME         # what a service waits for\n  \
                  gantry history service NAME         # what happened to it\n  \
                  gantry rehearse FILE                # what a change of a service would do\n  \
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
    /// Show what happened, for as long as `gantry up --history` keeps it.
    History {
        #[command(subcommand)]
        what: History,
    },
    /// Try a CreateService or UpdateService call on a copy of the real state, and say what would happen.
    ///
    /// FILE has the call's input as JSON, as `aws ecs update-service --cli-input-json` takes it. The real operation,
    /// controllers and placement run on the copy, in virtual time; container instances are simulated. Says what speaks
    /// against the change beforehand (a minimum and maximum that deadlock, host ports that collide, capacity that is
    /// not there, a circuit breaker that could never open), what would happen when, and how it would end. Nothing real
    /// is changed. Fails unless the service would become steady.
    ///
    ///   echo '{"service": "web", "taskDefinition": "web:3"}' >change.json
    ///   gantry rehearse change.json                    # if all goes well
    ///   gantry rehearse change.json --tasks unhealthy  # would it roll back, and after how long?
    #[command(verbatim_doc_comment)]
    Rehearse(RehearseOptions),
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
    /// Networks whose callers are answered without TLS, as this machine's own are: 10.77.0.0/24. For network namespaces
    /// and containers on this machine; what crosses such a network can be read and repeated on it.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    pub plain_http_from: Vec<Network>,
    /// How long `gantry history` goes back: 12h, 30d. At least an hour. It is kept on disk.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    pub history: String,
    /// How long DescribeTasks and ListTasks show a stopped task: 1h, 2d. At least an hour, as at AWS. Each takes a few
    /// KiB of memory and makes looking at its service a little slower.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub stopped_tasks: String,
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
    /// Be an external container instance, as those of ECS Anywhere are: it takes tasks of the launch type EXTERNAL, and
    /// no others. What it once was it stays.
    #[arg(long)]
    pub external: bool,
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
    /// Why a task is pending, or why it stopped; or why tasks of a task definition found no place.
    Task {
        /// The task's id or ARN. Or, because a task that found no place has neither, the task definition of tasks
        /// that were asked for: FAMILY or FAMILY:REVISION.
        id: String,
        /// The cluster of tasks that found no place.
        #[arg(long, default_value = "default")]
        cluster: String,
        #[command(flatten)]
        data_dir: DataDirOption,
    },
    /// What a service waits for: its deployments, its circuit breaker, what is put off until when, which container
    /// instances have no room, which tasks failed and what their health checks saw.
    Service {
        /// The service's name or ARN.
        name: String,
        /// The cluster's name or ARN; `default` unless the service is named by its ARN.
        #[arg(long)]
        cluster: Option<String>,
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

/// `gantry history`.
#[derive(Debug, Subcommand)]
pub enum History {
    /// What happened to a service: what was asked of it, its deployments, its tasks with their slots and why they
    /// stopped, and all of its events, of which DescribeServices shows a hundred. Oldest first.
    ///
    /// A service that was deleted still has its history. With --output json each entry has the whole event, as
    /// EventBridge would be told it.
    Service(HistoryOptions),
}

/// `gantry history service`.
#[derive(Debug, Args)]
pub struct HistoryOptions {
    /// The service's name or ARN.
    pub name: String,
    /// The cluster's name or ARN; `default` unless the service is named by its ARN.
    #[arg(long)]
    pub cluster: Option<String>,
    /// Only what happened so long ago at most: 30m, 12h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,
    #[command(flatten)]
    pub data_dir: DataDirOption,
}

/// `gantry rehearse`.
#[derive(Debug, Args)]
pub struct RehearseOptions {
    /// The input of the call as JSON.
    pub file: PathBuf,
    /// Which call it is the input of, where its members do not say (`serviceName` or `service`).
    #[arg(long = "as", value_enum, value_name = "CALL")]
    pub kind: Option<RehearseAs>,
    /// What becomes of the tasks of the new revision.
    #[arg(long, value_enum, default_value_t = RehearsedTasks::Run)]
    pub tasks: RehearsedTasks,
    /// How long pulling a task's images takes where they are not there yet; measured on the real tasks if not said.
    #[arg(long, value_name = "TIME")]
    pub pull: Option<String>,
    /// How long a task takes to run once its images are there; measured on the real tasks if not said.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// How long a task takes to stop; a second if not said.
    #[arg(long, value_name = "TIME")]
    pub stop: Option<String>,
    /// How much virtual time it may take.
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    pub horizon: String,
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,
    #[command(flatten)]
    pub data_dir: DataDirOption,
}

/// The calls that can be rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RehearseAs {
    Create,
    Update,
}

/// What may become of tasks in a rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RehearsedTasks {
    /// They run and pass their health checks.
    Run,
    /// They run and fail their health checks.
    Unhealthy,
    /// They stop before they run.
    Fail,
    /// They end with exit code 1 after a second.
    Exit,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
