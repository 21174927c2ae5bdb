//! What a container asks of the network, and what it gets.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The transport of a port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// As the IP header says it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of a container that the host shall answer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub container_port: u16,
    /// `None` is any that is free, from 32768 upward.
    pub host_port: Option<u16>,
    #[serde(default)]
    pub protocol: Protocol,
}

/// Consecutive ports of a container that the host shall answer on, at as many consecutive ports that are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRangeRequest {
    pub first_container_port: u16,
    /// Not less than the first.
    pub last_container_port: u16,
    #[serde(default)]
    pub protocol: Protocol,
}

impl PortRangeRequest {
    pub(crate) fn len(&self) -> u16 {
        self.last_container_port
            .saturating_sub(self.first_container_port)
            .saturating_add(1)
    }
}

/// A port of the host that leads into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: Protocol,
    pub bind_ip: Ipv4Addr,
    /// The first container port of the range that it was asked for in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u16>,
}

/// Another container of the same task, and the name under which this one wants to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub container: String,
    pub alias: String,
}

/// What a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    #[serde(default)]
    pub port_ranges: Vec<PortRangeRequest>,
    /// The container's own name; `None` is one that is drawn from its address.
    #[serde(default)]
    pub hostname: Option<String>,
    #[serde(default)]
    pub links: Vec<Link>,
    /// (name, address), as in a task definition.
    #[serde(default)]
    pub extra_hosts: Vec<(String, String)>,
    /// Empty is the host's.
    #[serde(default)]
    pub dns_servers: Vec<String>,
    /// Empty is the host's.
    #[serde(default)]
    pub dns_search_domains: Vec<String>,
    /// Nothing but loopback, as with `disableNetworking`.
    #[serde(default)]
    pub is_isolated: bool,
}

/// What it got. The same is given again, also by a later process, until the container is detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// A pinned network namespace to join.
    pub namespace: PathBuf,
    pub address: Ipv4Addr,
    pub hostname: String,
    pub bindings: Vec<PortBinding>,
    /// The whole of `/etc/hosts`.
    pub hosts: String,
    /// The whole of `/etc/resolv.conf`.
    pub resolv_conf: String,
}
