//! The way from containers in bridge mode to the control plane: 169.254.170.2:4566.
//!
//! What always holds: only a container of this agent's own tasks is let in, known by the address that it sends from; whoever
//! else reaches the listener, which is on this machine's loopback alone, is shown out before a byte is read. What a
//! container sends arrives unchanged, so the control plane verifies its signatures as it does everybody's: coming this way
//! gives no right. A container holds a bounded number of connections, and one that is gone holds them no longer than a minute.
//! What it leaves to others: leading the packets here (`gantry_network`), telling SDKs of it (`Endpoints::join`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use gantry_env::Env;
use http::Uri;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use super::super::network::Networks;
use super::listener::Peers;
use crate::endpoints::address::is_plain;

/// Of all containers together. Each takes two descriptors.
const CONNECTIONS_MAX: usize = 1024;
/// SDKs keep up to ten or fifty a client.
const CONNECTIONS_A_CONTAINER_MAX: usize = 128;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A container that is gone does not close its connections: nobody is there to do so.
const SILENCE_BEFORE_PROBE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const UNANSWERED_PROBES_MAX: u32 = 3;
const UNACKNOWLEDGED_MAX_MS: u32 = 60_000;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const HTTP_PORT: u16 = 80;

/// Open for as long as this is held.
pub(in crate::shell) struct ControlPlaneDoor(JoinHandle<()>);

struct Forwarder {
    networks: Networks,
    /// Host and port of the control plane.
    target: (String, u16),
    peers: Peers,
    env: Env,
}

impl ControlPlaneDoor {
    /// Opens the door to the endpoint that the agent joined. There is none to one that needs TLS, whose authority
    /// containers do not know.
    pub fn open(
        joined: &str,
        networks: &Networks,
        env: &Env,
    ) -> Result<Option<ControlPlaneDoor>, gantry_network::NetworkError> {
        let Some(target) = target(joined) else {
            info!(
                joined,
                "tasks in bridge mode are given no way to this endpoint, because it is not plain HTTP"
            );
            return Ok(None);
        };
        let forwarder = Arc::new(Forwarder {
            networks: networks.clone(),
            target,
            peers: Peers::with(CONNECTIONS_A_CONTAINER_MAX),
            env: env.clone(),
        });
        let listener = networks.control_plane_listener()?;
        Ok(Some(ControlPlaneDoor(tokio::spawn(async move {
            if let Err(error) = serve(listener, forwarder).await {
                warn!(%error, "tasks in bridge mode do not reach the control plane");
            }
        }))))
    }
}

impl Drop for ControlPlaneDoor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn target(endpoint: &str) -> Option<(String, u16)> {
    if !is_plain(endpoint) {
        return None;
    }
    let uri: Uri = endpoint.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some((host, uri.port_u16().unwrap_or(HTTP_PORT)))
}

async fn serve(listener: TcpListener, forwarder: Arc<Forwarder>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // All end with the door.
    let mut connections = JoinSet::new();
    loop {
        // At the limit new connections wait in the kernel's queue. The semaphore is never closed.
        let Ok(permit) = open.clone().acquire_owned().await else {
            return Ok(());
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let forwarder = forwarder.clone();
                connections.spawn(async move {
                    if let Err(error) = forwarder.forward(stream, peer).await {
                        debug!(%error, %peer, "a connection to the control plane ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "a connection to the control plane could not be accepted");
                forwarder.env.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

impl Forwarder {
    async fn forward(&self, mut container: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let refused = |why: &str| Err(io::Error::other(why.to_owned()));
        let (networks, address) = (self.networks.clone(), peer.ip());
        let owner = tokio::task::spawn_blocking(move || networks.owner_of(address));
        if owner.await.map_err(io::Error::other)?.is_none() {
            return refused("no container has this address");
        }
        let Some(_counted) = self.peers.enter(address) else {
            return refused("the container holds too many connections");
        };
        let (host, port) = &self.target;
        let mut control_plane = tokio::select! {
            connected = TcpStream::connect((host.as_str(), *port)) => connected?,
            () = self.env.sleep(CONNECT_TIMEOUT) => return refused("the control plane does not answer"),
        };
        for stream in [&container, &control_plane] {
            stream.set_nodelay(true)?;
        }
        find_out_when_it_is_gone(&container)?;
        tokio::io::copy_bidirectional(&mut container, &mut control_plane).await?;
        Ok(())
    }
}

fn find_out_when_it_is_gone(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE_BEFORE_PROBE)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, UNANSWERED_PROBES_MAX)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX_MS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let of = |endpoint: &str| target(endpoint).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(
            of("http://127.0.0.1:4566").as_deref(),
            Some("127.0.0.1 4566")
        );
        assert_eq!(of("http://plane.lan/base").as_deref(), Some("plane.lan 80"));
        assert_eq!(of("http://[::1]:99").as_deref(), Some("::1 99"));
        assert_eq!(of("https://127.0.0.1:4566"), None);
    }
}
