//! A connection to a receiver of logs, made when it is needed and made again when it is lost.
//!
//! What always holds: no wait is without end; a connection whose other end has closed it is noticed
//! before it is written to, where the other end has said so.

use std::io;
use std::time::Duration;

use gantry_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

use crate::core::plan::Address;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Wire {
    address: Address,
    socket: Option<Socket>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}

/// Whether somebody is there who would take a connection. Nobody can tell of datagrams.
pub(super) async fn try_connect(address: &Address, env: &Env) -> io::Result<()> {
    within(env, CONNECT_TIMEOUT, Socket::connect(address)).await?;
    Ok(())
}

/// A future that has so long and no longer.
pub(super) async fn within<T>(
    env: &Env,
    timeout: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::select! {
        done = work => done,
        () = env.sleep(timeout) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {timeout:?}"),
        )),
    }
}

impl Wire {
    pub fn to(address: Address) -> Self {
        Self {
            address,
            socket: None,
        }
    }

    pub fn is_datagram(&self) -> bool {
        matches!(
            self.address,
            Address::Udp { .. } | Address::UnixDatagram { .. }
        )
    }

    /// Sends bytes of a stream, or one datagram. After an error the next call connects anew.
    pub async fn send(&mut self, bytes: &[u8], env: &Env) -> io::Result<()> {
        let mut socket = match self.socket.take().filter(|socket| !socket.is_closed()) {
            Some(socket) => socket,
            None => within(env, CONNECT_TIMEOUT, Socket::connect(&self.address)).await?,
        };
        within(env, SEND_TIMEOUT, socket.send(bytes)).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Reads exactly so many bytes of an answer.
    pub async fn receive(&mut self, bytes: &mut [u8], env: &Env) -> io::Result<()> {
        let mut socket = self.socket.take().ok_or(io::ErrorKind::NotConnected)?;
        let read = async {
            match &mut socket {
                Socket::Tcp(stream) => stream.read_exact(bytes).await.map(|_| ()),
                Socket::Unix(stream) => stream.read_exact(bytes).await.map(|_| ()),
                Socket::Udp(_) | Socket::UnixDatagram(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        within(env, SEND_TIMEOUT, read).await?;
        self.socket = Some(socket);
        Ok(())
    }

    /// What comes next is sent on a new connection.
    pub fn disconnect(&mut self) {
        self.socket = None;
    }
}

impl Socket {
    async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix { path } => UnixStream::connect(path).await.map(Self::Unix),
            Address::Udp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in tokio::net::lookup_host((host.as_str(), *port)).await? {
                    let local = if address.is_ipv4() {
                        "0.0.0.0:0"
                    } else {
                        "[::]:0"
                    };
                    let socket = UdpSocket::bind(local).await?;
                    match socket.connect(address).await {
                        Ok(()) => return Ok(Self::Udp(socket)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Address::UnixDatagram { path } => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Self::UnixDatagram(socket))
            }
        }
    }

    /// Whether the other end has closed it. What it sends unasked is thrown away.
    fn is_closed(&self) -> bool {
        let mut bytes = [0; 64];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut bytes),
            Self::Unix(stream) => stream.try_read(&mut bytes),
            Self::Udp(_) | Self::UnixDatagram(_) => return false,
        };
        match read {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
            // Nobody listens, which a datagram is not told of but once: it counts as sent.
            Self::Udp(socket) => match socket.send(bytes).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    socket.send(bytes).await.map(|_| ())
                }
                sent => sent.map(|_| ()),
            },
            Self::UnixDatagram(socket) => socket.send(bytes).await.map(|_| ()),
        }
    }
}

/// This machine's name.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
