//! Connections to the tasks' endpoints.
//!
//! What always holds: whatever a container sends, it holds a bounded number of connections, each for a
//! bounded time and with bounded memory; each carries one request. A peer at 169.254.170.2 that is no
//! container's is not served.
//! What it leaves to others: what is answered (`answers`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_arn::TaskId;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::answers::{Answer, Answers};
use crate::endpoints::address::Door;

/// At one door, all tasks together.
const CONNECTIONS_MAX: usize = 512;
/// Of one container; at the loopback door nobody knows whose a connection is.
const CONNECTIONS_A_PEER_MAX: usize = 32;
/// From the first byte to the last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 16 << 10;
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves a door until it is dropped.
pub async fn serve(listener: TcpListener, door: Door, answers: Arc<Answers>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Peers::with(CONNECTIONS_A_PEER_MAX);
    loop {
        // At the limit new connections wait in the kernel's queue. The semaphore is never closed.
        let Ok(permit) = open.clone().acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let counted = match door {
                    Door::Link => peers.enter(peer.ip()).map(Some),
                    Door::Loopback => Some(None),
                };
                // One that holds too many is shown out.
                let Some(counted) = counted else { continue };
                let answers = answers.clone();
                tokio::spawn(async move {
                    connection(stream, peer.ip(), door, &answers).await;
                    drop::<(Option<Counted>, OwnedSemaphorePermit)>((counted, permit));
                });
            }
            Err(error) => {
                warn!(%error, "a connection to the tasks' endpoints could not be accepted");
                answers.env().sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, door: Door, answers: &Arc<Answers>) {
    let task = match door {
        Door::Link => match answers.task_at(peer).await {
            Some(task) => Some(task),
            None => return debug!(%peer, "no container has this address"),
        },
        Door::Loopback => None,
    };
    // Answers are small and whole; waiting to send them only adds latency.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| async move {
        Ok::<_, Infallible>(answer(request, door, task, answers).await)
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                debug!(%error, %peer, "a connection to the tasks' endpoints ended");
            }
        }
        () = answers.env().sleep(CONNECTION_TIMEOUT) => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    door: Door,
    task: Option<TaskId>,
    answers: &Answers,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    // Nothing here reads a body, but one that is left unread would reset the connection under the answer.
    let Answer { status, body } = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(_) => {
            answers
                .to(door, task, &parts.method, parts.uri.path())
                .await
        }
        Err(_) => Answer::too_large(),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// How many connections each peer holds.
#[derive(Clone)]
pub(super) struct Peers {
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    max: usize,
}

/// One connection of a peer, until it is dropped.
pub(super) struct Counted {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// Each may hold so many.
    pub fn with(max: usize) -> Peers {
        Peers {
            counts: Arc::default(),
            max,
        }
    }

    pub fn enter(&self, peer: IpAddr) -> Option<Counted> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        let peers = self.clone();
        Some(Counted { peers, peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self
            .peers
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_holds_so_many_connections_and_no_more() {
        let peers = Peers::with(CONNECTIONS_A_PEER_MAX);
        let peer = IpAddr::from([10, 0, 0, 1]);
        let mut held: Vec<_> = (0..CONNECTIONS_A_PEER_MAX)
            .map(|_| peers.enter(peer).unwrap())
            .collect();
        assert!(peers.enter(peer).is_none());
        assert!(peers.enter(IpAddr::from([10, 0, 0, 2])).is_some());
        held.pop();
        assert!(peers.enter(peer).is_some());
        drop(held);
        assert!(peers.counts.lock().unwrap().is_empty());
    }
}
