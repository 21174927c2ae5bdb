//! Host ports, each held by a bound socket, so that nobody else on the machine can have it.
//!
//! What always holds: a port that is given is held, and let go with its binding. No packet ever comes to
//! these sockets, because the firewall leads it away before.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use crate::attachment::{PortBinding, PortRangeRequest, PortRequest, Protocol};
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

    /// Holds a port for each request, and consecutive ones for each range, or none at all. What is expected to be asked
    /// for by number is not chosen.
    pub fn take(
        &mut self,
        requests: &[PortRequest],
        ranges: &[PortRangeRequest],
        is_expected: &dyn Fn(&Key) -> bool,
    ) -> Result<Vec<PortBinding>, NetworkError> {
        let mut bindings = Vec::with_capacity(requests.len());
        let taken = self.take_all(requests, ranges, is_expected, &mut bindings);
        if let Err(error) = taken {
            self.release(&bindings);
            return Err(error);
        }
        Ok(bindings)
    }

    fn take_all(
        &mut self,
        requests: &[PortRequest],
        ranges: &[PortRangeRequest],
        is_expected: &dyn Fn(&Key) -> bool,
        bindings: &mut Vec<PortBinding>,
    ) -> Result<(), NetworkError> {
        // Those that are named come first, or another one of the same container might be given their port.
        let (named, any): (Vec<_>, Vec<_>) = requests
            .iter()
            .partition(|request| request.host_port.is_some_and(|port| port > 0));
        for request in named.into_iter().chain(any) {
            let host_port = self.take_one(request, is_expected)?;
            bindings.push(PortBinding {
                container_port: request.container_port,
                host_port,
                protocol: request.protocol,
                bind_ip: Ipv4Addr::UNSPECIFIED,
                range: None,
            });
        }
        for range in ranges {
            let first = self.take_range(range, is_expected)?;
            bindings.extend((0..range.len()).map(|n| PortBinding {
                container_port: range.first_container_port + n,
                host_port: first + n,
                protocol: range.protocol,
                bind_ip: Ipv4Addr::UNSPECIFIED,
                range: Some(range.first_container_port),
            }));
        }
        Ok(())
    }

    /// The first of consecutive ports that are all held from now on.
    fn take_range(
        &mut self,
        range: &PortRangeRequest,
        is_expected: &dyn Fn(&Key) -> bool,
    ) -> Result<u16, NetworkError> {
        let (protocol, count) = (range.protocol, range.len());
        let exhausted = NetworkError::PortRangesExhausted {
            first_container_port: range.first_container_port,
            last_container_port: range.last_container_port,
            protocol,
            first: FIRST,
            last: self.last,
        };
        if count > self.last - FIRST + 1 {
            return Err(exhausted);
        }
        let last_start = self.last - (count - 1);
        let mut start = if self.next > last_start {
            FIRST
        } else {
            self.next
        };
        let (mut held, mut looked_at) = (0, 0);
        // Every start is tried once at most, and a port that is taken rules out all starts up to it.
        while looked_at <= u32::from(last_start - FIRST) {
            let port = start + held;
            let key = (protocol, port);
            let taken = if NEVER.contains(&port) || is_expected(&key) {
                Err(io::ErrorKind::AddrInUse.into())
            } else {
                self.hold(key)
            };
            match taken {
                Ok(()) if held + 1 == count => {
                    self.next = if port >= self.last { FIRST } else { port + 1 };
                    return Ok(start);
                }
                Ok(()) => held += 1,
                Err(error) => {
                    for port in start..port {
                        self.held.remove(&(protocol, port));
                    }
                    if error.kind() != io::ErrorKind::AddrInUse {
                        return Err(cannot_hold(key, error));
                    }
                    looked_at += u32::from(held.min(last_start - start)) + 1;
                    held = 0;
                    start = if port >= last_start { FIRST } else { port + 1 };
                }
            }
        }
        Err(exhausted)
    }

    fn take_one(
        &mut self,
        request: &PortRequest,
        is_expected: &dyn Fn(&Key) -> bool,
    ) -> Result<u16, NetworkError> {
        let protocol = request.protocol;
        if let Some(port) = request.host_port.filter(|port| *port > 0) {
            return match self.hold((protocol, port)) {
                Ok(()) => Ok(port),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    Err(NetworkError::PortTaken { port, protocol })
                }
                Err(cause) => Err(cannot_hold((protocol, port), cause)),
            };
        }
        for _ in FIRST..=self.last {
            let port = self.next;
            self.next = if port >= self.last { FIRST } else { port + 1 };
            if NEVER.contains(&port) || is_expected(&(protocol, port)) {
                continue;
            }
            match self.hold((protocol, port)) {
                Ok(()) => return Ok(port),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(cause) => return Err(cannot_hold((protocol, port), cause)),
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
        let bound = match bind(key) {
            // Each port takes a descriptor, and a range takes many.
            Err(error) if error.raw_os_error() == Some(EMFILE) && allow_more_files() => bind(key),
            bound => bound,
        };
        let socket = match (bound, key) {
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

/// "Too many open files", for this process.
const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();

/// Whether this process may open more files than it could. Containers have limits of their own.
fn allow_more_files() -> bool {
    let files = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(files);
    let more = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    limit != more && rustix::process::setrlimit(files, more).is_ok()
}

fn cannot_hold((protocol, port): Key, cause: io::Error) -> NetworkError {
    NetworkError::Step {
        what: format!("holding host port {port}/{protocol}"),
        cause,
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

    fn nothing(_: &Key) -> bool {
        false
    }

    fn range(first: u16, last: u16, protocol: Protocol) -> PortRangeRequest {
        PortRangeRequest {
            first_container_port: first,
            last_container_port: last,
            protocol,
        }
    }

    fn seed() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_dynamic_port_is_nobody_elses_until_it_is_let_go() {
        let mut ports = Ports::new(seed());
        let given = ports
            .take(
                &[dynamic(Protocol::Tcp), dynamic(Protocol::Udp)],
                &[],
                &nothing,
            )
            .unwrap();
        assert!(given.iter().all(|binding| binding.host_port >= FIRST));
        let (tcp, udp) = (given[0].host_port, given[1].host_port);
        // The standard library binds with SO_REUSEADDR, as servers do.
        assert!(TcpListener::bind(("0.0.0.0", tcp)).is_err());
        assert!(TcpListener::bind(("127.0.0.1", tcp)).is_err());
        assert!(UdpSocket::bind(("0.0.0.0", udp)).is_err());
        assert!(matches!(
            Ports::new(0).take(&[fixed(tcp)], &[], &nothing),
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
        assert!(
            ports
                .take(&[dynamic(Protocol::Tcp), fixed(taken)], &[], &nothing)
                .is_err()
        );
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
        ports.take(&[fixed(port)], &[], &nothing).unwrap();
        assert!(TcpListener::bind(("0.0.0.0", port)).is_err());
        assert!(Ports::new(0).take(&[fixed(port)], &[], &nothing).is_err());
    }

    #[test]
    fn a_range_is_consecutive_and_keeps_away_from_what_is_held_or_expected() {
        let mut ports = Ports::new(seed().wrapping_add(2000));
        let single = ports
            .take(&[dynamic(Protocol::Tcp)], &[], &nothing)
            .unwrap();
        // Somebody sits in the middle of where the range would begin.
        let next = single[0].host_port + 1;
        let expected = |key: &Key| *key == (Protocol::Tcp, next + 7);
        let ranges = [
            range(8000, 8009, Protocol::Tcp),
            range(9000, 9001, Protocol::Udp),
        ];
        let given = ports.take(&[], &ranges, &expected).unwrap();
        assert_eq!(given.len(), 12);
        let (tcp, udp) = given.split_at(10);
        for (n, binding) in tcp.iter().enumerate() {
            assert_eq!(binding.container_port, 8000 + n as u16);
            assert_eq!(binding.host_port, tcp[0].host_port + n as u16);
            assert_eq!(binding.range, Some(8000));
            assert!(TcpListener::bind(("0.0.0.0", binding.host_port)).is_err());
        }
        let span = tcp[0].host_port..=tcp[9].host_port;
        assert!(!span.contains(&(next + 7)) && !span.contains(&single[0].host_port));
        assert!(NEVER.iter().all(|never| !span.contains(never)));
        assert!(UdpSocket::bind(("0.0.0.0", udp[1].host_port)).is_err());
        ports.release(&given);
        assert_eq!(ports.held.len(), 1);
        TcpListener::bind(("0.0.0.0", tcp[0].host_port)).unwrap();
    }

    #[test]
    fn a_range_that_cannot_be_had_leaves_nothing_held() {
        let mut ports = Ports::new(seed().wrapping_add(3000));
        let too_long = range(1, 65535, Protocol::Tcp);
        let refused = ports.take(&[dynamic(Protocol::Udp)], &[too_long], &nothing);
        assert!(matches!(
            refused,
            Err(NetworkError::PortRangesExhausted { .. })
        ));
        // Whichever one of them is expected by somebody else, it is not had.
        let every_third = |(_, port): &Key| port % 3 == 0;
        let refused = ports.take(&[], &[range(1, 3, Protocol::Tcp)], &every_third);
        assert!(matches!(
            refused,
            Err(NetworkError::PortRangesExhausted { .. })
        ));
        assert!(ports.held.is_empty());
        let two = ports.take(&[], &[range(1, 2, Protocol::Tcp)], &every_third);
        assert_eq!(two.unwrap()[0].host_port % 3, 1);
    }

    #[test]
    fn a_port_that_somebody_will_ask_for_is_not_chosen() {
        let mut ports = Ports::new(seed().wrapping_add(4000));
        let next = ports.next;
        let expected = |key: &Key| *key == (Protocol::Tcp, next);
        let given = ports.take(&[dynamic(Protocol::Tcp)], &[], &expected);
        assert_ne!(given.unwrap()[0].host_port, next);
        ports.take(&[fixed(next)], &[], &expected).unwrap();
    }
}
