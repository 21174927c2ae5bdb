//! kill -9 in the middle of uploads: what was acknowledged is there, and nothing else is.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gantry_ecr::model::Digest;
use gantry_ecr::tables::BlobRow;
use gantry_env::Env;
use gantry_store::{SqliteStore, Store};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::process::Served;

/// One request on a connection of its own; `None` if the server died under it.
async fn call(
    address: SocketAddr,
    credentials: &str,
    method: &str,
    path: &str,
    body: Bytes,
) -> Option<(u16, String, Bytes)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header(
            "authorization",
            format!("Basic {}", STANDARD.encode(credentials)),
        )
        .body(Full::new(body))
        .unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let location = response.headers().get("location");
    let location = location.map_or(String::new(), |l| l.to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, location, body))
}

fn content(round: usize, worker: usize, n: usize) -> Bytes {
    // Large enough to be in the middle of something most of the time.
    let seed = (round * 31 + worker * 17 + n) as u64;
    (0..900_000u64)
        .map(|i| (i.wrapping_mul(seed + 1) >> 3) as u8)
        .collect()
}

/// Pushes blobs until the server is gone.
async fn push_until_killed(
    address: SocketAddr,
    credentials: String,
    round: usize,
    worker: usize,
    acknowledged: Arc<Mutex<BTreeSet<Digest>>>,
) {
    let send = async |method: &str, path: &str, body: Bytes| {
        call(address, &credentials, method, path, body).await
    };
    for n in 0.. {
        let bytes = content(round, worker, n);
        let digest = Digest::of(&bytes);
        let Some((202, location, _)) = send("POST", "/v2/app/blobs/uploads/", Bytes::new()).await
        else {
            return;
        };
        if send("PATCH", &location, bytes).await.is_none() {
            return;
        }
        match send("PUT", &format!("{location}?digest={digest}"), Bytes::new()).await {
            Some((201, ..)) => acknowledged.lock().unwrap().insert(digest),
            _ => return,
        };
    }
}

/// The files of uploads that were under way.
fn unfinished(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory.join("blobs")).unwrap();
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains('#')
        })
        .count()
}

fn check_directory(directory: &Path) {
    let store = SqliteStore::open(directory.join("rows"), Env::real()).unwrap();
    let blobs = store.snapshot().list_everywhere::<BlobRow>();
    let known: BTreeSet<String> = blobs.iter().map(|blob| blob.object.clone()).collect();
    let entries = std::fs::read_dir(directory.join("blobs")).unwrap();
    let files: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_it_keeps_what_it_acknowledged_and_nothing_else() {
    const ROUNDS: usize = 6;
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("rows")).unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let served = Served::start(directory.path());
        let before = acknowledged.lock().unwrap().len();
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let (address, credentials) = (served.address, served.credentials.clone());
                let acknowledged = acknowledged.clone();
                tokio::spawn(push_until_killed(
                    address,
                    credentials,
                    round,
                    worker,
                    acknowledged,
                ))
            })
            .collect();
        // Some are through and the others are anywhere.
        while acknowledged.lock().unwrap().len() < before + 3 + round {
            tokio::task::yield_now().await;
        }
        served.kill();
        for worker in workers {
            worker.await.unwrap();
        }
        interrupted += unfinished(directory.path());
    }
    // Otherwise nothing was tried.
    assert!(interrupted > 0);
    let served = Served::start(directory.path());
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= 3 * ROUNDS);
    for digest in &acknowledged {
        let path = format!("/v2/app/blobs/{digest}");
        let (status, _, body) = call(
            served.address,
            &served.credentials,
            "GET",
            &path,
            Bytes::new(),
        )
        .await
        .unwrap();
        assert_eq!((status, Digest::of(&body)), (200, digest.clone()));
    }
    served.kill();
    check_directory(directory.path());
}
