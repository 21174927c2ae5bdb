//! What can go wrong, in words that a user of ECS reads as the reason of a stopped task.

use std::io;

use crate::attachment::Protocol;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("Bind for 0.0.0.0:{port}/{protocol} failed: port is already allocated")]
    PortTaken { port: u16, protocol: Protocol },
    #[error(
        "no host port is left between {first} and {last} for container port {container_port}/{protocol}"
    )]
    PortsExhausted {
        container_port: u16,
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    #[error(
        "no consecutive host ports are left between {first} and {last} for container ports {first_container_port}-{last_container_port}/{protocol}"
    )]
    PortRangesExhausted {
        first_container_port: u16,
        last_container_port: u16,
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    #[error("all addresses of {pool} are taken")]
    AddressesExhausted { pool: String },
    #[error(
        "every range that containers could have collides with a route of this machine; name a free one"
    )]
    NoFreeRange,
    #[error("the range {pool} for containers collides with this machine's route to {route}")]
    RangeTaken { pool: String, route: String },
    #[error("the link to container '{0}' is to itself or to no container of the task")]
    Link(String),
    #[error("'{member}' has the value {value:?}, which is not {expected}")]
    Value {
        member: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("nft could not be run: {0}; install the package nftables")]
    NftMissing(io::Error),
    #[error("nft refused {what}: {message}")]
    Nft { what: &'static str, message: String },
    /// The kernel or the disk refused a step.
    #[error("{what}: {cause}")]
    Step { what: String, cause: io::Error },
}

/// Says what was being done when an I/O error came.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, NetworkError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, NetworkError> {
        self.map_err(|cause| NetworkError::Step {
            what: what(),
            cause,
        })
    }
}
