//! Host ports, each held by a bound socket, so that nobody else on the machine can have it.
//!
//! What always holds: a port that is given is held, and let go with its binding. No packet ever comes to
//! these sockets, because the firewall leads it away before.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use crate::attachment::{PortBinding, PortRequest, Protocol};
use crate::error::NetworkError;

/// Dynamic ports begin here, as ECS documents it.
const FIRST: u16 = 32768;
const LAST: u16 = 60999;
/// Ports of Docker's and the Amazon ECS agent's own, which that agent reserves on every instance.
const NEVER: [u16; 5] = [2375, 2376, 51678, 51679, 51680];

type Key = (Protocol, u16);

/// The ports that this process holds.
#[derive(Debug)]
pub(crate) struct Ports {
    held: BTreeMap<Key, OwnedFd>,
    next: u16,
    last: u16,
}

impl Ports {
    /// Installations begin at different places, so that they seldom try the same.
    pub fn new(seed: u32) -> Self {
        let last = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .and_then(|text| text.split_whitespace().nth(1)?.parse().ok())
            .filter(|last| *last > FIRST)
            .unwrap_or(LAST);
        let count = u32::from(last - FIRST) + 1;
        Self {
            held: BTreeMap::new(),
            next: FIRST + (seed % count) as u16,
            last,
        }
    }

    /// Holds a port for each request, or none at all.
    pub fn take(&mut self, requests: &[PortRequest]) -> Result<Vec<PortBinding>, NetworkError> {
        let mut bindings = Vec::with_capacity(requests.len());
        for request in requests {
            match self.take_one(request) {
                Ok(host_port) => bindings.push(PortBinding {
                    container_port: request.container_port,
                    host_port,
                    protocol: request.protocol,
                    bind_ip: Ipv4Addr::UNSPECIFIED,
                }),
                Err(error) => {
                    self.release(&bindings);
                    return Err(error);
                }
            }
        }
        Ok(bindings)
    }

    fn take_one(&mut self, request: &PortRequest) -> Result<u16, NetworkError> {
        let protocol = request.protocol;
        if let Some(port) = request.host_port.filter(|port| *port > 0) {
            return match self.hold((protocol, port)) {
                Ok(()) => Ok(port),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    Err(NetworkError::PortTaken { port, protocol })
                }
                Err(cause) => Err(NetworkError::Step {
                    what: format!("holding host port {port}/{protocol}"),
                    cause,
                }),
            };
        }
        for _ in FIRST..=self.last {
            let port = self.next;
            self.next = if port >= self.last { FIRST } else { port + 1 };
            if !NEVER.contains(&port) && self.hold((protocol, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(NetworkError::PortsExhausted {
            container_port: request.container_port,
            protocol,
            first: FIRST,
            last: self.last,
        })
    }

    /// Holds the ports of a binding from before, and gives back those that somebody else has by now.
    pub fn take_again(&mut self, bindings: &[PortBinding]) -> Vec<PortBinding> {
        let taken = |binding: &&PortBinding| {
            let key = (binding.protocol, binding.host_port);
            !self.held.contains_key(&key) && self.hold(key).is_err()
        };
        bindings.iter().filter(taken).copied().collect()
    }

    pub fn release(&mut self, bindings: &[PortBinding]) {
        for binding in bindings {
            self.held.remove(&(binding.protocol, binding.host_port));
        }
    }

    fn hold(&mut self, key: Key) -> io::Result<()> {
        if self.held.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = match (bind(key), key) {
            // Connections of somebody who served here a minute ago are still being buried.
            (Err(error), (Protocol::Tcp, port)) if error.kind() == io::ErrorKind::AddrInUse => {
                bind_among_the_dead(port)?
            }
            (result, _) => result?,
        };
        self.held.insert(key, socket);
        Ok(())
    }
}

fn socket(protocol: Protocol) -> io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    Ok(rustix::net::socket_with(
        AddressFamily::INET,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn everywhere(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)
}

fn bind((protocol, port): Key) -> io::Result<OwnedFd> {
    let socket = socket(protocol)?;
    rustix::net::bind(&socket, &everywhere(port))?;
    Ok(socket)
}

/// Binds as a server does that starts again. Listening for a moment makes sure that nobody else is
/// bound; afterwards nobody who asks in the same way is let in.
fn bind_among_the_dead(port: u16) -> io::Result<OwnedFd> {
    let socket = socket(Protocol::Tcp)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &everywhere(port))?;
    rustix::net::listen(&socket, 0)?;
    rustix::net::shutdown(&socket, Shutdown::Read)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn dynamic(protocol: Protocol) -> PortRequest {
        PortRequest {
            container_port: 80,
            host_port: None,
            protocol,
        }
    }

    fn fixed(port: u16) -> PortRequest {
        PortRequest {
            container_port: 80,
            host_port: Some(port),
            protocol: Protocol::Tcp,
        }
    }

    fn seed() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_dynamic_port_is_nobody_elses_until_it_is_let_go() {
        let mut ports = Ports::new(seed());
        let given = ports
            .take(&[dynamic(Protocol::Tcp), dynamic(Protocol::Udp)])
            .unwrap();
        assert!(given.iter().all(|binding| binding.host_port >= FIRST));
        let (tcp, udp) = (given[0].host_port, given[1].host_port);
        // The standard library binds with SO_REUSEADDR, as servers do.
        assert!(TcpListener::bind(("0.0.0.0", tcp)).is_err());
        assert!(TcpListener::bind(("127.0.0.1", tcp)).is_err());
        assert!(UdpSocket::bind(("0.0.0.0", udp)).is_err());
        assert!(matches!(
            Ports::new(0).take(&[fixed(tcp)]),
            Err(NetworkError::PortTaken { port, .. }) if port == tcp
        ));
        ports.release(&given);
        TcpListener::bind(("0.0.0.0", tcp)).unwrap();
        UdpSocket::bind(("0.0.0.0", udp)).unwrap();
    }

    #[test]
    fn what_cannot_be_had_whole_is_not_had_at_all() {
        let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = somebody.local_addr().unwrap().port();
        let mut ports = Ports::new(seed().wrapping_add(1000));
        assert!(ports.take(&[dynamic(Protocol::Tcp), fixed(taken)]).is_err());
        assert!(ports.held.is_empty());
    }

    #[test]
    fn a_port_whose_connections_are_being_buried_is_held_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        // Whoever closes first keeps the dead connection: the server's side.
        drop(server);
        drop(listener);
        drop(client);
        let mut ports = Ports::new(0);
        ports.take(&[fixed(port)]).unwrap();
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err());
        assert!(Ports::new(0).take(&[fixed(port)]).is_err());
    }
}
