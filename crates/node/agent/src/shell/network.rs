//! Containers of tasks in bridge mode: from a plan to a namespace with an address and ports.
//!
//! What always holds: a container has its network before it is made, and keeps it until its whole task
//! is removed, so it is the same when it is started again, by this agent or by the next.
//! What it leaves to others: the kernel (`gantry_network`), joining the namespace (`gantry_runtime`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_arn::TaskId;
use gantry_env::Env;
use gantry_network::{
    AttachRequest, Attachment, Installation, Link, Network, NetworkError, Options, PortBinding,
    PortRangeRequest, PortRequest, Protocol, Traffic,
};
use gantry_runtime::{ContainerSpec, InstallationId};
use tracing::warn;

use crate::core::plan::{self, ContainerPlan, LinkPlan, NamesPlan};
use crate::core::step::NetworkBinding;

/// A task that the control plane counts as stopped may still be being removed here, and hold a port
/// that has been promised to the next. That takes moments.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
const PORT_RETRY: Duration = Duration::from_millis(20);
/// How often a port is tried again that somebody took while no agent ran.
const LOST_PORT_RETRY: Duration = Duration::from_secs(5);
/// When a namespace that is still there is held by somebody who should not.
const SWEEP_AFTER: Duration = Duration::from_secs(2);

/// Where what the kernel was told is written down, in the agent's data directory.
pub fn network_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("network")
}

/// Cloning shares it.
#[derive(Clone)]
pub(super) struct Networks {
    network: Network,
    env: Env,
}

/// What a container got.
pub(super) struct Attached {
    attachment: Attachment,
    pub ports: Vec<NetworkBinding>,
}

impl Networks {
    /// Reads what the last agent left. Blocks for a moment if it left containers.
    pub fn open(
        installation: &InstallationId,
        data_dir: &Path,
        env: Env,
    ) -> Result<Self, NetworkError> {
        let installation: Installation =
            installation
                .as_str()
                .parse()
                .map_err(|error| NetworkError::Step {
                    what: "the installation's id".to_owned(),
                    cause: std::io::Error::other(error),
                })?;
        let network = Network::open(Options::new(installation, network_dir(data_dir)))?;
        Ok(Self { network, env })
    }

    /// Removes the networks of all tasks but these, and holds the ports of these again.
    pub async fn keep_only(&self, tasks: &[TaskId]) {
        let (network, known) = (self.network.clone(), tasks.iter().copied().collect());
        let kept = blocking(move || network.adopt(&known)).await;
        if let Err(reason) = kept {
            // What could not be removed now is tried again by the next agent, or by `gantry down`.
            warn!(reason, "what is left of a network could not be removed");
        }
        if !self.network.hold_again() {
            let networks = self.clone();
            tokio::spawn(async move {
                while !networks.network.hold_again() {
                    networks.env.sleep(LOST_PORT_RETRY).await;
                }
            });
        }
    }

    /// What containers reach at 169.254.170.2.
    pub fn endpoint_listener(&self) -> Result<TcpListener, NetworkError> {
        self.network.endpoint_listener()
    }

    /// Whose address this is. Blocks for as long as the network is being changed, as do the next two.
    pub fn owner_of(&self, peer: IpAddr) -> Option<(TaskId, String)> {
        self.network.owner_of(peer)
    }

    pub fn address(&self, task: TaskId, container: &str) -> Option<Ipv4Addr> {
        let attachment = self.network.attachment(task, container)?;
        Some(attachment.address)
    }

    /// What went through containers' interfaces; nothing where the kernel does not say.
    pub fn traffic(&self) -> BTreeMap<(TaskId, String), Traffic> {
        self.network.traffic().unwrap_or_default()
    }

    /// The ports of a task's containers, as far as they have a network.
    pub fn ports_of<'a>(
        &self,
        task: TaskId,
        containers: impl Iterator<Item = &'a String>,
    ) -> BTreeMap<String, Vec<NetworkBinding>> {
        containers
            .filter_map(|name| {
                let attachment = self.network.attachment(task, name)?;
                let ports = told(&attachment.bindings);
                (!ports.is_empty()).then(|| (name.clone(), ports))
            })
            .collect()
    }

    /// A port that the container names is from now on chosen for no other.
    pub fn expect_ports(&self, task: TaskId, plan: &ContainerPlan) {
        // Where a protocol is unknown, the container will not start.
        if let Ok(ports) = ports(plan) {
            self.network.expect_ports(task, &ports);
        }
    }

    /// What containers reach at 169.254.170.2:4566.
    pub fn control_plane_listener(&self) -> Result<TcpListener, NetworkError> {
        self.network.control_plane_listener()
    }

    pub async fn attach(&self, task: TaskId, plan: &ContainerPlan) -> Result<Attached, String> {
        let request = request(plan)?;
        let deadline = self.env.monotonic() + PORT_PATIENCE;
        loop {
            let (network, name, request) =
                (self.network.clone(), plan.name.clone(), request.clone());
            let attached =
                tokio::task::spawn_blocking(move || network.attach(task, &name, &request))
                    .await
                    .map_err(|error| format!("CannotStartContainerError: {error}"))?;
            match attached {
                Ok(attachment) => {
                    return Ok(Attached {
                        ports: told(&attachment.bindings),
                        attachment,
                    });
                }
                Err(NetworkError::PortTaken { port, protocol })
                    if self.network.holds(port, protocol) && self.env.monotonic() < deadline =>
                {
                    self.env.sleep(PORT_RETRY).await;
                }
                Err(error) => return Err(format!("CannotStartContainerError: {error}")),
            }
        }
    }

    pub async fn detach(&self, task: TaskId) {
        let network = self.network.clone();
        if let Err(reason) = blocking(move || network.detach_task(task)).await {
            warn!(%task, reason, "a task's network could not be removed");
        }
        let networks = self.clone();
        tokio::spawn(async move {
            networks.env.sleep(SWEEP_AFTER).await;
            let network = networks.network.clone();
            if let Err(reason) = blocking(move || network.sweep()).await {
                warn!(reason, "what is left of a network could not be removed");
            }
        });
    }
}

impl Attached {
    /// Puts the container into it.
    pub fn join(self, spec: &mut ContainerSpec) {
        let Attachment {
            namespace,
            address: _,
            hostname,
            bindings: _,
            hosts,
            resolv_conf,
        } = self.attachment;
        spec.network_namespace = Some(namespace);
        spec.hosts = Some(hosts);
        spec.resolv_conf = Some(resolv_conf);
        spec.hostname.get_or_insert(hostname);
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), NetworkError> + Send + 'static,
) -> Result<(), String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn request(plan: &ContainerPlan) -> Result<AttachRequest, String> {
    let NamesPlan {
        extra_hosts,
        dns_servers,
        dns_search_domains,
    } = plan.names.clone();
    let links = plan.links.iter().map(|LinkPlan { container, alias }| Link {
        container: container.clone(),
        alias: alias.clone(),
    });
    Ok(AttachRequest {
        ports: ports(plan)?,
        port_ranges: plan
            .port_ranges
            .iter()
            .map(|range| {
                Ok(PortRangeRequest {
                    first_container_port: range.first,
                    last_container_port: range.last,
                    protocol: protocol(&range.protocol, range.first)?,
                })
            })
            .collect::<Result<_, String>>()?,
        hostname: plan.hostname.clone(),
        links: links.collect(),
        extra_hosts,
        dns_servers,
        dns_search_domains,
        is_isolated: plan.network_disabled,
    })
}

fn ports(plan: &ContainerPlan) -> Result<Vec<PortRequest>, String> {
    let port = |binding: &plan::PortBinding| {
        Ok(PortRequest {
            container_port: binding.container_port,
            host_port: Some(binding.host_port).filter(|port| *port > 0),
            protocol: protocol(&binding.protocol, binding.container_port)?,
        })
    };
    plan.ports.iter().map(port).collect()
}

fn protocol(text: &str, container_port: u16) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(format!(
            "CannotStartContainerError: port {container_port}: there is no protocol '{other}'"
        )),
    }
}

/// The ports of a range, which stand together, are told as one.
fn told(bindings: &[PortBinding]) -> Vec<NetworkBinding> {
    let mut told = Vec::new();
    let same_range = |a: &PortBinding, b: &PortBinding| {
        a.range.is_some() && a.range == b.range && a.protocol == b.protocol
    };
    for of_one in bindings.chunk_by(same_range) {
        let ends = of_one.first().zip(of_one.last());
        told.extend(ends.map(|(first, last)| NetworkBinding {
            container_port: first.container_port,
            host_port: first.host_port,
            protocol: first.protocol.as_str().to_owned(),
            last_container_port: first.range.map(|_| last.container_port),
        }));
    }
    told
}
