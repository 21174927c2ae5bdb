//! One call of the API, repeated over several connections for some seconds: what the benches compare with.
//!
//! The request is signed once and sent again and again, so that the client costs next to nothing
//! and the server's time is what is measured. It prints one line of JSON.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]
#![allow(clippy::print_stdout, reason = "the numbers are the result")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use gantry_api::sigv4::{Payload, Signing, SigningCredentials, SigningScope, sign};
use http::{HeaderMap, HeaderValue};

#[derive(Parser)]
struct Arguments {
    /// `http://HOST:PORT`.
    #[arg(long)]
    endpoint: String,
    /// An operation of ECS.
    #[arg(long)]
    operation: String,
    #[arg(long)]
    body: String,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    seconds: Option<u64>,
    /// Instead of a time: so many calls by each connection.
    #[arg(long)]
    calls: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let authority = arguments
        .endpoint
        .strip_prefix("http://")
        .context("an endpoint with http://")?;
    let address = authority.replace("localhost", "127.0.0.1");
    let request = request(&arguments, authority)?;
    let until = match (arguments.seconds, arguments.calls) {
        (Some(seconds), None) => Until::Elapsed(Duration::from_secs(seconds)),
        (None, Some(calls)) => Until::Called(calls),
        _ => bail!("either --seconds or --calls"),
    };
    let start = Instant::now();
    let workers: Vec<_> = (0..arguments.connections)
        .map(|_| {
            let (address, request) = (address.clone(), request.clone());
            std::thread::spawn(move || repeat(&address, &request, until))
        })
        .collect();
    let mut taken = Vec::new();
    for worker in workers {
        let worker = worker
            .join()
            .map_err(|_| anyhow::anyhow!("a worker panicked"))?;
        taken.extend(worker?);
    }
    let elapsed = start.elapsed();
    taken.sort();
    ensure!(!taken.is_empty(), "no call was answered");
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{}",
        serde_json::json!({
            "per_second": taken.len() as f64 / elapsed.as_secs_f64(),
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
        })
    );
    Ok(())
}

/// When it is enough.
#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    Called(usize),
}

/// The bytes of the request, signed now: good for as long as a signature is.
fn request(arguments: &Arguments, authority: &str) -> anyhow::Result<Vec<u8>> {
    let target = format!("AmazonEC2ContainerServiceV20141113.{}", arguments.operation);
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_str(authority)?);
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/x-amz-json-1.1"),
    );
    headers.insert("x-amz-target", HeaderValue::from_str(&target)?);
    let credentials = SigningCredentials {
        access_key_id: std::env::var("AWS_ACCESS_KEY_ID")?,
        secret: std::env::var("AWS_SECRET_ACCESS_KEY")?,
        session_token: None,
    };
    let signing = Signing {
        method: &http::Method::POST,
        path: "/",
        query: "",
        payload: Payload::of(arguments.body.as_bytes()),
        credentials: &credentials,
        scope: SigningScope {
            region: "us-east-1",
            service: "ecs",
        },
        now: gantry_env::Env::real().now(),
    };
    sign(&signing, &mut headers)?;
    let mut request = b"POST / HTTP/1.1\r\n".to_vec();
    for (name, value) in &headers {
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request
        .extend_from_slice(format!("content-length: {}\r\n\r\n", arguments.body.len()).as_bytes());
    request.extend_from_slice(arguments.body.as_bytes());
    Ok(request)
}

/// Calls until the time is over; how long each took. A server that closes is connected to again, and
/// that counts as part of the call, since it is what its clients see.
fn repeat(address: &str, request: &[u8], until: Until) -> anyhow::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut taken = Vec::new();
    let mut connection: Option<TcpStream> = None;
    let mut buffer = Vec::new();
    while match until {
        Until::Elapsed(length) => start.elapsed() < length,
        Until::Called(calls) => taken.len() < calls,
    } {
        let call = Instant::now();
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request)?;
        let keeps_open = answer(&mut stream, &mut buffer)?;
        taken.push(call.elapsed());
        connection = keeps_open.then_some(stream);
    }
    Ok(taken)
}

/// Reads one answer, which must be a 200; whether the connection can be used again.
fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<bool> {
    buffer.clear();
    let mut piece = [0; 64 << 10];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the server closed in the middle of an answer");
        buffer.extend_from_slice(&piece[..read]);
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") && !head.starts_with("http/1.0 200") {
            bail!("{}", String::from_utf8_lossy(buffer));
        }
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .context("an answer without a length")?
            .trim()
            .parse()?;
        if buffer.len() >= end + 4 + length {
            let closes = head.contains("connection: close") || head.starts_with("http/1.0");
            return Ok(!closes);
        }
    }
}
