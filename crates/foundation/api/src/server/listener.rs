//! Accepting connections, telling TLS from plain HTTP, and letting them end in order.
//!
//! A TLS connection begins with the byte of its handshake record, which no HTTP method begins
//! with, so one peek at the first byte decides.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::paced_io::{Pace, PacedIo};
use super::{Shared, dispatch};

/// The content type of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// After an accept failed (no descriptors are left, say): time for others to be closed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const PLAIN_HTTP_REFUSED: &[u8] = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 104\r\n\r\nFrom another machine this endpoint speaks TLS only, but from the networks that --plain-http-from names.\n";

/// What is known of a client connection. It counts as open until the last holder drops it.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    pub(super) pace: Arc<Pace>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.metrics.connections.dec();
    }
}

pub(super) async fn run(
    shared: Arc<Shared>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let open = Arc::new(Semaphore::new(shared.limits.connections));
    let http = Arc::new(http_builder(&shared));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            // Ended tasks are taken away, or they would be kept until the shutdown.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&shared, &listener, &open) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else {
            continue;
        };
        connections.spawn(connection(
            shared.clone(),
            http.clone(),
            stream,
            peer,
            permit,
        ));
    }
    drop(listener);
    shared.stopping.send_replace(true);
    let grace = shared.env.sleep(shared.limits.shutdown_grace);
    let drained = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = grace => tracing::warn!("connections were still open at the end of the grace period"),
        () = drained => {}
    }
}

/// Ends when the server was asked to stop.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn accept(
    shared: &Shared,
    listener: &TcpListener,
    open: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // At the limit new connections wait in the kernel's queue. The semaphore is never closed.
    let permit = open.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            shared.env.sleep(ACCEPT_RETRY).await;
            None
        }
    }
}

fn http_builder(shared: &Shared) -> auto::Builder<TokioExecutor> {
    let limits = &shared.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Slow headers are `PacedIo`'s business: hyper's own timeout would also end idle connections.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes);
    builder
        .http2()
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024);
    builder
}

async fn connection(
    shared: Arc<Shared>,
    http: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    // Answers are small and whole; waiting to send them only adds latency.
    let _ = stream.set_nodelay(true);
    shared.metrics.connections.inc();
    let mut connection = Connection {
        peer,
        secure: false,
        pace: Arc::default(),
        shared: shared.clone(),
        _permit: permit,
    };
    let mut stopping = shared.stopping.subscribe();
    let opened = tokio::select! {
        opened = open(&shared, stream, peer) => opened,
        () = shared.env.sleep(shared.limits.header_read_timeout) => return,
        () = stopped(&mut stopping) => return,
    };
    let socket = match opened {
        Ok(Some(socket)) => socket,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(%error, %peer, "the connection was not opened");
            return;
        }
    };
    connection.secure = matches!(socket, Socket::Tls(_));
    let io = PacedIo::new(
        socket,
        shared.env.clone(),
        connection.pace.clone(),
        &shared.limits,
    );
    let connection = Arc::new(connection);
    let service = service_fn(|request| {
        let work = dispatch::answer(shared.clone(), connection.clone(), request);
        async move { Ok::<_, Infallible>(work.await) }
    });
    let mut serving = pin!(http.serve_connection_with_upgrades(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "the connection ended");
    }
}

/// `None` if the client went away, or may not speak here without TLS.
async fn open(
    shared: &Shared,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<Socket>> {
    let Some(tls) = &shared.tls else {
        return Ok(Some(Socket::Plain(stream)));
    };
    let mut first = [0u8; 1];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] == TLS_HANDSHAKE {
        let tls = TlsAcceptor::from(tls.clone()).accept(stream).await?;
        return Ok(Some(Socket::Tls(Box::new(tls))));
    }
    let local = stream.local_addr()?;
    if shared.plain_http.admits(peer.ip(), local.ip()) {
        return Ok(Some(Socket::Plain(stream)));
    }
    stream.write_all(PLAIN_HTTP_REFUSED).await?;
    stream.shutdown().await?;
    Ok(None)
}

/// Both kinds of connection under one type, so the HTTP code is compiled once.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! on_socket {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Plain(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Socket::Tls(stream) => {
                let $inner = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_socket!(self, inner => inner.poll_read(context, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, inner => inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, inner => inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, inner => inner.poll_shutdown(context))
    }
}
