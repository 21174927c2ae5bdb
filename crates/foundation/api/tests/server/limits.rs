//! Bounds: on size, and on patience. Time is virtual, so nobody waits.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::auth::CredentialPolicy;
use gantry_api::server::Limits;
use gantry_env::VirtualEnv;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::toy::{Keys, Raw, Toy, read_answer, within};

async fn virtual_toy(limits: Limits) -> (Toy, VirtualEnv) {
    let world = VirtualEnv::seeded(7);
    let policy = CredentialPolicy::Verify(Arc::new(Keys));
    let toy = Toy::start_with(world.env(), policy, |it| it.limits(limits)).await;
    (toy, world)
}

/// Lets time pass, a second at a time, until the server has answered or closed.
async fn passing_time<T>(world: &VirtualEnv, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let pass = async {
        loop {
            world.advance(Duration::from_secs(1));
            // Real sockets need real turns of the runtime between two steps of virtual time.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    };
    within(async {
        tokio::select! {
            done = &mut work => done,
            () = pass => unreachable!("time never stops"),
        }
    })
    .await
}

#[tokio::test]
async fn a_large_body_is_refused_with_an_answer() {
    let toy = Toy::start().await;
    let mut large = Raw::json("ListClusters");
    large.body = vec![b' '; 10_000_000];
    let answer = toy.send(&large).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestEntityTooLargeException")
    );
    let mut large = Raw::query("GetCallerIdentity");
    large.body = vec![b'a'; 2_000_000];
    let answer = toy.send(&large).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestEntityTooLarge")
    );
    // The same without an announced length: 40 chunks of 64 KiB.
    let mut chunked = Raw::json("ListClusters").with("transfer-encoding", "chunked");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    chunked.other_body = Some([chunk.repeat(40), b"0\r\n\r\n".to_vec()].concat());
    let answer = toy.send(&chunked).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (413, "RequestEntityTooLargeException")
    );
    // Who waits for "100 Continue" is told before anything was sent.
    let mut polite = Raw::json("ListClusters").with("expect", "100-continue");
    polite
        .unsigned_headers
        .push(("content-length", "10000000".to_owned()));
    polite.other_body = Some(Vec::new());
    assert_eq!(toy.send(&polite).await.status, 413);
    toy.stopped().await;
}

#[tokio::test]
async fn a_client_that_expects_continue_gets_it() {
    let toy = Toy::start().await;
    let bytes = Raw::json("ListClusters")
        .with("expect", "100-continue")
        .bytes(toy.env.now());
    let mut stream = toy.connect().await;
    let (head, body) = bytes.split_at(bytes.len() - 2);
    stream.write_all(head).await.unwrap();
    let mut interim = [0u8; 25];
    within(stream.read_exact(&mut interim)).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    toy.stopped().await;
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => rest.is_empty(),
        Err(_) => true,
    }
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let (toy, world) = virtual_toy(Limits::default()).await;
    for sent in [b"".as_slice(), b"POST / HTTP/1.1\r\nHost: localh"] {
        let mut stream = toy.connect().await;
        stream.write_all(sent).await.unwrap();
        let before = world.monotonic();
        assert!(
            passing_time(&world, is_closed(&mut stream)).await,
            "{sent:?}"
        );
        assert!(
            world.monotonic() - before >= Duration::from_secs(9),
            "not at once"
        );
    }
    passing_time(&world, toy.stopped()).await;
}

#[tokio::test]
async fn idle_connections_are_closed_later_than_slow_headers() {
    let (toy, world) = virtual_toy(Limits::default()).await;
    let mut stream = toy.connect().await;
    let request = Raw::get("/_gantry/health").with("connection", "keep-alive");
    for round in 0..2 {
        stream
            .write_all(&request.bytes(toy.env.now()))
            .await
            .unwrap();
        let mut buffer = vec![0u8; 4096];
        let read = within(stream.read(&mut buffer)).await.unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "round {round}");
    }
    let before = world.monotonic();
    assert!(passing_time(&world, is_closed(&mut stream)).await);
    let idle = world.monotonic() - before;
    let expected = Limits::default().idle_timeout;
    assert!(idle >= expected - Duration::from_secs(2), "{idle:?}");
    // A second request that stops in its headers is cut off as a first one is.
    let mut stream = toy.connect().await;
    stream
        .write_all(&request.bytes(toy.env.now()))
        .await
        .unwrap();
    let mut buffer = vec![0u8; 4096];
    within(stream.read(&mut buffer)).await.unwrap();
    stream.write_all(b"GET /_gan").await.unwrap();
    let before = world.monotonic();
    assert!(passing_time(&world, is_closed(&mut stream)).await);
    assert!(world.monotonic() - before < Duration::from_secs(30));
    passing_time(&world, toy.stopped()).await;
}

#[tokio::test]
async fn slow_bodies_are_cut_off() {
    let (toy, world) = virtual_toy(Limits::default()).await;
    let bytes = Raw::json("ListClusters").bytes(toy.env.now());
    let mut stream = toy.connect().await;
    stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    let answer = passing_time(&world, read_answer(&mut stream)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (408, "RequestTimeoutException")
    );
    passing_time(&world, toy.stopped()).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let (toy, world) = virtual_toy(Limits::default()).await;
    let mut stream = toy.connect().await;
    stream
        .write_all(&Raw::get("/v2/endless").bytes(toy.env.now()))
        .await
        .unwrap();
    let metrics = toy.server.metrics();
    let gone = async {
        while !metrics.render().contains("gantry_connections 0\n") {
            tokio::task::yield_now().await;
        }
    };
    // The connection has to be seen open first.
    within(async {
        while !metrics.render().contains("gantry_connections 1\n") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    passing_time(&world, gone).await;
    drop(stream);
    passing_time(&world, toy.stopped()).await;
}

#[tokio::test]
async fn too_many_requests_are_throttled_and_too_many_connections_wait() {
    let limits = Limits {
        requests: 1,
        connections: 2,
        ..Limits::default()
    };
    let (toy, _) = virtual_toy(limits).await;
    let mut first = toy.connect().await;
    first
        .write_all(&Raw::json("DescribeClusters").bytes(toy.env.now()))
        .await
        .unwrap();
    within(toy.begun.notified()).await;
    let second = toy.send(&Raw::json("ListClusters")).await;
    assert_eq!(second.code(), "ThrottlingException", "{second:?}");
    // One connection is in work; a second idle one fills the limit, so a third waits.
    let idle = toy.connect().await;
    let health = Raw::get("/_gantry/health");
    let third = toy.send(&health);
    let released = async {
        within(async {
            while !toy
                .server
                .metrics()
                .render()
                .contains("gantry_connections 2\n")
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(idle);
    };
    let (third, ()) = tokio::join!(third, released);
    assert_eq!(third.status, 200);
    toy.gate.notify_one();
    assert_eq!(read_answer(&mut first).await.status, 200);
    toy.stopped().await;
}

#[tokio::test]
async fn a_shutdown_lets_requests_finish() {
    let mut toy = Toy::start().await;
    let mut stream = toy.connect().await;
    let request = Raw::json("DescribeClusters").with("connection", "keep-alive");
    stream
        .write_all(&request.bytes(toy.env.now()))
        .await
        .unwrap();
    within(toy.begun.notified()).await;
    toy.ask_to_stop();
    // Once the listener is gone, the shutdown has begun.
    within(async { while TcpStream::connect(toy.address).await.is_ok() {} }).await;
    toy.gate.notify_one();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    toy.stopped().await;
}
