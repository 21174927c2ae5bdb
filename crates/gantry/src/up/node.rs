//! This machine as a container instance of its own control plane, over the same port and protocol as any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use gantry_agent::shell::{Agent, AgentConfig, Shutdown};
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;
use gantry_runtime::ShimCommand;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control_plane::ControlPlane;
use crate::data_dir::DataDir;

/// Starts the agent.
pub fn start(
    dir: &DataDir,
    env: &Env,
    control_plane: &ControlPlane,
    address: SocketAddr,
    shutdown: watch::Receiver<Shutdown>,
) -> anyhow::Result<JoinHandle<()>> {
    let key = &control_plane.keys().node;
    let config = AgentConfig {
        data_dir: dir.node(),
        endpoint: format!("http://{}", reachable(address)),
        region: control_plane.region().clone(),
        cluster: "default".to_owned(),
        credentials: Arc::new(SigningCredentials {
            access_key_id: key.access_key_id.clone(),
            secret: key.secret_access_key.clone(),
            session_token: None,
        }),
        installation: dir
            .installation_id()
            .parse()
            .context("the installation id")?,
        shim: ShimCommand {
            exe: std::env::current_exe().context("the path of this executable")?,
            args: vec![crate::SHIM.to_owned()],
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        resources: None,
    };
    let env = env.clone();
    Ok(tokio::spawn(async move {
        if let Err(error) = Agent::run(config, env, shutdown).await {
            tracing::error!(%error, "the agent ended; tasks run on, and the next `gantry up` adopts them");
        }
    }))
}

/// The address as this machine itself reaches it. An address, not a name, so that nothing is looked up.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
