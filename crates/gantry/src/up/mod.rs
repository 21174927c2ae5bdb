//! `gantry up`: every role in one process, in the foreground.
//!
//! Starts in the order in which the parts stand on one another (store, services, port, controllers, agent)
//! and prints its one line when the port serves. What tasks do is not its business: a shim each holds them, so
//! this process may end in any way at any moment.

mod control_plane;
mod explain_route;
mod history_route;
mod join_route;
mod node;
mod role_credentials;
mod rows_route;
mod signals;
mod tokens_route;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_agent::shell::Shutdown;
use gantry_api::auth;
use gantry_env::Env;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::UpOptions;
use crate::data_dir::{DataDir, RootCredentials};
use control_plane::ControlPlane;
pub use history_route::HISTORY_PATH;
pub use join_route::{JOIN_PATH, JoinRefusal, JoinRequest};
pub use node::shim as node_shim;
pub use rows_route::{ROWS_PATH, RowsAnswer};
pub use signals::Signals;
pub use tokens_route::{TOKENS_PATH, TokensAnswer};

/// Requests are short and the data is in memory: two threads serve a laptop, and idle ones cost memory.
const WORKER_THREADS: usize = 2;

const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// How long the first line waits for this machine to be a connected container instance, so that the
/// first RunTask finds it. Without it, Gantry serves all the same, and says so.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);

/// Starts everything and stays until a signal.
pub fn run(options: &UpOptions) -> anyhow::Result<()> {
    if !crate::machine::is_root() {
        bail!(
            "running containers needs root, because it makes namespaces, mounts and cgroups: start it again with `sudo gantry up`"
        );
    }
    if options.accept_any_credentials {
        auth::check_accept_any(options.listen).map_err(anyhow::Error::msg)?;
    }
    start_logging(options.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &UpOptions) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let env = Env::real();
    let dir = DataDir::create_or_open(&options.data_dir.data_dir, &*env.entropy)?;
    if let Some(other) = dir.running() {
        bail!(
            "{} is in use by the `gantry up` with process id {} (serving {}); give this one another --data-dir",
            dir.path().display(),
            other.pid,
            other.endpoint
        );
    }
    let listener = listen(options.listen, &env).await?;
    let address = listener.local_addr()?;
    let endpoint = endpoint_of(address);

    let control_plane = ControlPlane::open(&dir, &env, options).await?;
    dir.write_root_credentials(&RootCredentials {
        access_key_id: control_plane.keys().root.access_key_id.clone(),
        secret_access_key: control_plane.keys().root.secret_access_key.clone(),
        endpoint: endpoint.clone(),
        region: control_plane.region().to_string(),
    })?;
    if options.accept_any_credentials {
        tracing::warn!(
            "any credentials are accepted: every process on this machine, and every task in host network mode, is root of every account"
        );
    }

    let stop = watch::Sender::new(false);
    let shutdown = watch::Sender::new(Shutdown::No);
    let serving = control_plane.start(listener, &stop);
    dir.write_running(&endpoint)?;
    let mut agent = node::start(&dir, &env, &control_plane, address, shutdown.subscribe())?;
    tokio::select! {
        () = control_plane.agent_connected() => {}
        () = env.sleep(AGENT_PATIENCE) => tracing::warn!("this machine's agent has not connected yet; tasks wait for it"),
        error = control_plane.agent_health().failed() => bail!("this machine's agent could not start: {error}"),
    }
    announce(&endpoint);

    // The agent ends before the port does, because it reports through it.
    signals.end(&mut agent, &shutdown).await?;
    stop.send_replace(true);
    serving.await?;
    dir.clear_running();
    Ok(())
}

/// A process that was just killed keeps its port for a moment, and the next `up` must not fail for that.
async fn listen(address: SocketAddr, env: &Env) -> anyhow::Result<TcpListener> {
    let deadline = env.clock.monotonic() + PORT_PATIENCE;
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == ErrorKind::AddrInUse && env.clock.monotonic() < deadline =>
            {
                env.sleep(PORT_RETRY).await;
            }
            bound => {
                return bound.with_context(|| {
                    format!("could not listen on {address}; choose another with --listen")
                });
            }
        }
    }
}

/// The URL under which tools on this machine reach the port.
fn endpoint_of(address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

#[expect(
    clippy::print_stdout,
    reason = "this line is for whoever started Gantry"
)]
fn announce(endpoint: &str) {
    println!("Gantry serves on {endpoint}");
}

pub fn start_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GANTRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where the log is on a full disk, saying so on standard error would end the process.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
}
