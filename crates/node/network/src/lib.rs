//! The network of tasks in bridge mode: namespaces, veth pairs, addresses, host ports, nftables.
//!
//! Layer 3 only: there is no bridge. Each container has a network namespace with one `eth0`, whose other
//! end is on the host; an address of its own as a /32; a route to it on the host; and a link-local
//! gateway. `docs/networking.md` follows a packet through it.
//!
//! What always holds:
//! - Intent is on disk before the kernel is touched, so whatever a crash leaves is found again; and
//!   everything in the kernel carries the installation's id: the names of interfaces, of namespaces and of
//!   the nftables table, and the metric of the route. [`cleanup`] therefore leaves nothing, also when the
//!   state on disk is gone.
//! - A host port that a container was given is held by a bound socket of this process.
//! - A packet leaves a container only with that container's own address, so [`Network::owner_of`] can be
//!   believed.
//! - The kernel is not touched before the first container is attached.
//!
//! What it leaves to others: which containers there are (the agent), joining the namespace (the
//! runtime), and what is answered at 169.254.170.2 (whoever serves on [`Network::endpoint_listener`] and
//! [`Network::control_plane_listener`]).
//!
//! Calls block for as long as the kernel takes, a few milliseconds; async callers make them where blocking is fine.

#![forbid(unsafe_code)]

mod attachment;
mod carrier;
mod cleanup;
mod conntrack;
mod elements;
mod error;
mod files;
mod firewall;
mod forwarding;
mod installation;
mod namespace;
mod netlink;
mod network;
mod pool;
mod ports;
mod records;
mod requirements;
mod resolvers;
mod routing;
mod setup;
mod traffic;

pub use attachment::{
    AttachRequest, Attachment, Link, PortBinding, PortRangeRequest, PortRequest, Protocol,
};
pub use cleanup::{Removed, cleanup};
pub use error::NetworkError;
pub use installation::{Installation, InstallationError};
pub use network::{Network, Options};
pub use pool::{Pool, PoolError};
pub use requirements::{Requirement, requirements};
pub use traffic::Traffic;

/// Where containers reach the task metadata and credentials endpoints: port 80 of this.
pub const ENDPOINT: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 170, 2);

/// The port of [`ENDPOINT`] at which containers reach the control plane.
pub const CONTROL_PLANE_PORT: u16 = 4566;
