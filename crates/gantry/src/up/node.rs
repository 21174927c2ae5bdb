//! This machine as a container instance of its own control plane, over the same port and protocol as any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use gantry_agent::shell::{AgentConfig, Shutdown};
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;
use gantry_runtime::ShimCommand;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::control_plane::ControlPlane;
use crate::data_dir::DataDir;
use crate::supervision;

/// Starts the agent, with a node key like any other's: it may do what an agent must and no more.
pub fn start(
    dir: &DataDir,
    env: &Env,
    control_plane: &ControlPlane,
    address: SocketAddr,
    shutdown: watch::Receiver<Shutdown>,
) -> anyhow::Result<JoinHandle<()>> {
    let key = control_plane.node_key();
    let config = AgentConfig {
        data_dir: dir.node(),
        endpoint: format!("http://{}", reachable(address)),
        region: key.region.clone(),
        cluster: key.cluster.to_string(),
        credentials: Arc::new(SigningCredentials {
            access_key_id: key.access_key_id.clone(),
            secret: key.secret_access_key.clone(),
            session_token: None,
        }),
        installation: dir
            .installation_id()
            .parse()
            .context("the installation id")?,
        shim: shim()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        resources: None,
        attributes: Vec::new(),
    };
    let health = control_plane.agent_health().clone();
    Ok(supervision::keep_running(config, env, shutdown, health))
}

/// This executable, as the shim of each task.
pub fn shim() -> anyhow::Result<ShimCommand> {
    Ok(ShimCommand {
        exe: std::env::current_exe().context("the path of this executable")?,
        args: vec![crate::SHIM.to_owned()],
    })
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
