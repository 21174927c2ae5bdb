//! How fast PutLogEvents takes lines in, and how long FilterLogEvents looks for a rare one.
//!
//! One process is both ends, over real HTTP on loopback with signatures, on a durable archive in a
//! directory of its own. Processor time is that of both ends together. Prints one object of JSON:
//! `cargo run --release -p gantry-logs --example logs_load -- [MiB to look through] [writers]`.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]
#![allow(clippy::print_stdout, reason = "the numbers are the result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gantry_api::auth::{Credential, CredentialPolicy, CredentialSource, root_principal};
use gantry_api::client::{Client, ClientError, ClientLimits};
use gantry_api::logs;
use gantry_api::server::Server;
use gantry_api::sigv4::SigningCredentials;
use gantry_archive::Archive;
use gantry_arn::{AccountId, Region};
use gantry_env::Env;
use gantry_logs::LogsService;
use gantry_store::MemoryStore;
use tokio::net::TcpListener;

const KEY: &str = "AKIAGANTRYLOADKEY000";
const SECRET: &str = "the load's own secret";
const GROUP: &str = "load";
const MIB: usize = 1 << 20;
/// What PutLogEvents takes at most, with 26 bytes for each event.
const BATCH_BYTES: usize = MIB;
/// It is in one line of each part of the load.
const RARE: &str = "needle_in_a_haystack";
const ROUNDS: usize = 5;

struct OneKey;

#[async_trait]
impl CredentialSource for OneKey {
    async fn lookup(&self, access_key_id: &str) -> Option<Credential> {
        (access_key_id == KEY).then(|| Credential {
            secret: SECRET.into(),
            session_token: None,
            expiration: None,
            account: AccountId::default(),
            principal: root_principal(AccountId::default(), KEY),
        })
    }
}

#[tokio::main]
async fn main() {
    let mut words = std::env::args().skip(1);
    let mut number = |default: usize| words.next().map_or(default, |word| word.parse().unwrap());
    let (target_mib, writers) = (number(1024), number(2));

    let env = Env::real();
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::open(directory.path(), env.clone()).await.unwrap();
    let logs = LogsService::new(
        Arc::new(MemoryStore::with_env(&env)),
        archive.clone(),
        env.clone(),
    );
    let server = Server::builder(env.clone(), CredentialPolicy::Verify(Arc::new(OneKey)))
        .service(logs::service(Arc::new(logs)))
        .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    let limits = ClientLimits {
        call_timeout: Duration::from_secs(120),
        ..ClientLimits::default()
    };
    let client = client(&endpoint, &env, limits);

    call::<logs::CreateLogGroup>(
        &client,
        logs::CreateLogGroupRequest {
            log_group_name: GROUP.into(),
            ..Default::default()
        },
    )
    .await;
    for writer in 0..writers {
        call::<logs::CreateLogStream>(
            &client,
            logs::CreateLogStreamRequest {
                log_group_name: GROUP.into(),
                log_stream_name: writer.to_string(),
            },
        )
        .await;
    }

    let (started, cpu_before) = (Instant::now(), processor_seconds());
    let each = target_mib * MIB / writers;
    let mut writing = Vec::new();
    for writer in 0..writers {
        let (client, env) = (client.clone(), env.clone());
        writing.push(tokio::spawn(write(client, env, writer, each)));
    }
    let (mut bytes, mut events) = (0, 0);
    for writer in writing {
        let (its_bytes, its_events) = writer.await.unwrap();
        bytes += its_bytes;
        events += its_events;
    }
    let wall = started.elapsed().as_secs_f64();
    let processor = processor_seconds() - cpu_before;
    let mib = bytes as f64 / MIB as f64;

    let rare = timed(&client, RARE).await;
    let json = timed(&client, "{ $.request = \"needle_in_a_haystack\" }").await;
    let expression = timed(&client, "%needle_in_[a-z]+_haystack%").await;
    let nowhere = timed(&client, "nowhere_to_be_found").await;
    let result = serde_json::json!({
        "put_mib": mib,
        "put_events": events,
        "put_wall_s": wall,
        "put_mib_per_wall_s": mib / wall,
        "put_processor_s": processor,
        "put_mib_per_core_s": mib / processor,
        "filter_mib": mib,
        "filter_term_s": rare.0,
        "filter_term_found": rare.1,
        "filter_json_s": json.0,
        "filter_json_found": json.1,
        "filter_regex_s": expression.0,
        "filter_regex_found": expression.1,
        "filter_absent_s": nowhere.0,
        "resident_peak_kib": status("VmHWM:"),
    });
    println!("{result}");
}

fn client(endpoint: &str, env: &Env, limits: ClientLimits) -> Client {
    let credentials = SigningCredentials {
        access_key_id: KEY.into(),
        secret: SECRET.into(),
        session_token: None,
    };
    Client::with(
        endpoint,
        Region::default(),
        Arc::new(credentials),
        env.clone(),
        None,
        limits,
    )
    .unwrap()
}

async fn call<O: gantry_api::Operation>(client: &Client, input: O::Input) -> O::Output {
    let answer: Result<O::Output, ClientError> = client.call::<O>(input).await;
    answer.unwrap_or_else(|error| panic!("{}: {error}", O::NAME))
}

/// Writes batches as large as they may be, one after the other; gives the bytes of messages.
async fn write(client: Client, env: Env, writer: usize, target: usize) -> (usize, usize) {
    let mut lines = Lines(0x9E37_79B9_7F4A_7C15 ^ writer as u64);
    let (mut written, mut events, mut rare) = (0, 0, false);
    while written < target {
        let now = env.now().as_millis();
        let (mut batch, mut size) = (Vec::new(), 0);
        while batch.len() < 10_000 {
            // One line in the middle of what this writer writes.
            let is_rare = !rare && written > target / 2;
            let message = lines.next(is_rare);
            if size + message.len() + 26 > BATCH_BYTES {
                break;
            }
            rare |= is_rare;
            size += message.len() + 26;
            written += message.len();
            batch.push(logs::InputLogEvent {
                timestamp: now,
                message,
            });
        }
        events += batch.len();
        let request = logs::PutLogEventsRequest {
            log_group_name: GROUP.into(),
            log_stream_name: writer.to_string(),
            log_events: batch,
            ..Default::default()
        };
        call::<logs::PutLogEvents>(&client, request).await;
    }
    (written, events)
}

/// Lines as services write them, with what differs from line to line: ids, addresses, numbers.
struct Lines(u64);

impl Lines {
    fn random(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn next(&mut self, is_rare: bool) -> String {
        let (a, b, c) = (self.random(), self.random(), self.random());
        let level = ["INFO", "DEBUG", "WARN", "ERROR"][(a % 4) as usize];
        let path = ["orders", "carts", "users", "payments", "health"][(b % 5) as usize];
        let request = if is_rare {
            RARE.to_owned()
        } else {
            format!("{a:016x}{c:016x}")
        };
        format!(
            r#"{{"level":"{level}","request":"{request}","path":"/api/v1/{path}/{}","status":{},"bytes":{},"ms":{}.{},"peer":"10.{}.{}.{}","message":"handled {path} for customer {}"}}"#,
            b % 100_000,
            200 + c % 5,
            c % 65_536,
            a % 900,
            b % 1000,
            a % 256,
            b % 256,
            c % 256,
            c % 1_000_000,
        )
    }
}

/// The best of some rounds, over as many pages as it takes; and how many were found.
async fn timed(client: &Client, pattern: &str) -> (f64, usize) {
    let (mut best, mut found) = (f64::MAX, 0);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        (found, best) = (0, best);
        let mut next_token = None;
        loop {
            let request = logs::FilterLogEventsRequest {
                log_group_name: Some(GROUP.into()),
                filter_pattern: Some(pattern.into()),
                next_token,
                ..Default::default()
            };
            let page = call::<logs::FilterLogEvents>(client, request).await;
            found += page.events.map_or(0, |events| events.len());
            next_token = page.next_token;
            if next_token.is_none() {
                break;
            }
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    (best, found)
}

/// User and system time of this process so far.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u64>().unwrap())
        .sum();
    // Linux tells user space of hundredths of a second, whatever it counts in.
    ticks as f64 / 100.0
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
