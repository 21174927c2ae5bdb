//! `gantry agent`: a container instance of a cluster elsewhere, in the foreground.
//!
//! What always holds: it joins once, with a token, and keeps its node key in its data directory; so it is
//! the same container instance after every start, and adopts the tasks that ran on without it, as `up`
//! does. Several on one machine share nothing but the machine: each registers what it is given.
//! What it leaves to others: the agent itself, and being started again (`supervision`).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use gantry_agent::shell::{AgentConfig, MachineResources, Shutdown};
use gantry_api::client::{Client, backoff};
use gantry_api::ecs;
use gantry_api::sigv4::SigningCredentials;
use gantry_env::Env;
use gantry_iam::NodeKey;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cli::AgentOptions;
use crate::data_dir::{DataDir, write_atomically};
use crate::supervision::{self, AgentHealth};
use crate::up::{JOIN_PATH, JoinRefusal, JoinRequest, Signals, node_shim, start_logging};

/// Where the node key is kept, and what was drawn to get it.
const KEY_FILE: &str = "node-credentials";
const NONCE_FILE: &str = "join-nonce";
/// How long a control plane that is not there yet is waited for.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// `node-credentials`.
#[derive(Clone, Serialize, Deserialize)]
struct Joined {
    endpoint: String,
    key: NodeKey,
}

/// Joins if need be, runs the agent, and stays until a signal.
pub fn run(options: &AgentOptions) -> anyhow::Result<()> {
    if !crate::machine::is_root() {
        bail!(
            "running containers needs root, because it makes namespaces, mounts and cgroups: start it again with `sudo gantry agent`"
        );
    }
    let resources = resources(options)?;
    let mut attributes = attributes(&options.attributes)?;
    if options.external {
        attributes.push((EXTERNAL.to_owned(), String::new()));
    }
    start_logging(options.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()?;
    runtime.block_on(serve(options, resources, attributes))
}

async fn serve(
    options: &AgentOptions,
    resources: MachineResources,
    attributes: Vec<(String, String)>,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let env = Env::real();
    let dir = DataDir::create_or_open(&options.data_dir, &*env.entropy)?;
    // Held as long as this process lives: two agents in one directory would end each other's tasks.
    let _lock = dir.lock()?;
    if let Some(other) = dir.running() {
        bail!(
            "{} is in use by the process {}; give this agent another --data-dir",
            dir.path().display(),
            other.pid
        );
    }
    if dir.store().exists() {
        bail!(
            "{} is the data directory of a `gantry up`; give this agent another --data-dir",
            dir.path().display()
        );
    }
    let joined = joined(options, &dir, &env).await?;
    if let Some(cluster) = &options.cluster
        && *cluster != joined.key.cluster.as_str()
    {
        bail!(
            "this agent has joined the cluster {}, not {cluster}: use another --data-dir and a token of that cluster",
            joined.key.cluster
        );
    }
    dir.write_running(&joined.endpoint)?;
    let shutdown = watch::Sender::new(Shutdown::No);
    let config = AgentConfig {
        data_dir: dir.node(),
        endpoint: joined.endpoint.clone(),
        region: joined.key.region.clone(),
        cluster: joined.key.cluster.to_string(),
        credentials: Arc::new(signing(&joined.key)),
        installation: dir
            .installation_id()
            .parse()
            .context("the installation id")?,
        shim: node_shim()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        resources: Some(resources),
        attributes,
    };
    let health = AgentHealth::new();
    let mut agent = supervision::keep_running(config, &env, shutdown.subscribe(), health);
    announce(&joined);

    signals.end(&mut agent, &shutdown).await?;
    dir.clear_running();
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "this line is for whoever started the agent"
)]
fn announce(joined: &Joined) {
    println!(
        "Gantry agent: node {} of cluster {} at {}",
        joined.key.node, joined.key.cluster, joined.endpoint
    );
}

/// The node key of this directory, got with the token where there is none, or where it was revoked.
async fn joined(options: &AgentOptions, dir: &DataDir, env: &Env) -> anyhow::Result<Joined> {
    let file = dir.path().join(KEY_FILE);
    let endpoint = options.endpoint.trim_end_matches('/').to_owned();
    if !endpoint.starts_with("http://") {
        bail!("joining over anything but http:// is not built yet");
    }
    if let Some(joined) = read_key(&file)? {
        let joined = Joined {
            endpoint: endpoint.clone(),
            ..joined
        };
        if still_known(&joined, env).await? {
            return Ok(joined);
        }
        if options.token.is_none() {
            bail!("the key of this node was revoked; join again with --token");
        }
        tracing::warn!("the key of this node was revoked; joining again");
        // A new node: what it was known by would only bring the old key back.
        fs::remove_file(dir.path().join(NONCE_FILE)).ok();
    }
    let token = options.token.as_deref().context(
        "this directory has not joined a cluster yet: make a token with `gantry token` where the control plane runs, and give it as --token",
    )?;
    let nonce = nonce(&dir.path().join(NONCE_FILE), env)?;
    let key = join(&endpoint, token, &nonce, env).await?;
    let joined = Joined { endpoint, key };
    write_atomically(&file, &serde_json::to_vec_pretty(&joined)?, 0o600)?;
    Ok(joined)
}

fn read_key(file: &Path) -> anyhow::Result<Option<Joined>> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged", file.display()))
            .map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn signing(key: &NodeKey) -> SigningCredentials {
    SigningCredentials {
        access_key_id: key.access_key_id.clone(),
        secret: key.secret_access_key.clone(),
        session_token: None,
    }
}

/// Whether the control plane still takes this key. One that cannot be asked will be asked by the agent.
async fn still_known(joined: &Joined, env: &Env) -> anyhow::Result<bool> {
    let client = Client::new(
        &joined.endpoint,
        joined.key.region.clone(),
        Arc::new(signing(&joined.key)),
        env.clone(),
    )?;
    // Any call that every node may make would do.
    let request = ecs::DiscoverPollEndpointRequest {
        cluster: Some(joined.key.cluster.to_string()),
        ..ecs::DiscoverPollEndpointRequest::default()
    };
    let answer = client.call::<ecs::DiscoverPollEndpoint>(request).await;
    Ok(!matches!(answer, Err(error) if error.code == "UnrecognizedClientException"))
}

/// What this node is known by when it asks to join again because an answer was lost.
fn nonce(file: &Path, env: &Env) -> anyhow::Result<String> {
    match fs::read_to_string(file) {
        Ok(nonce) if nonce.len() == 64 => return Ok(nonce),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    }
    let mut bytes = [0; 32];
    env.entropy.fill(&mut bytes);
    let nonce: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_atomically(file, nonce.as_bytes(), 0o600)?;
    Ok(nonce)
}

async fn join(endpoint: &str, token: &str, nonce: &str, env: &Env) -> anyhow::Result<NodeKey> {
    let http: legacy::Client<HttpConnector, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let body = Bytes::from(serde_json::to_vec(&JoinRequest {
        token: token.to_owned(),
        nonce: nonce.to_owned(),
    })?);
    let deadline = env.monotonic() + JOIN_PATIENCE;
    let mut attempt = 0;
    loop {
        let request = Request::post(format!("{endpoint}{JOIN_PATH}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        let cause = match http.request(request).await {
            Ok(answer) => {
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
                let bytes = body
                    .collect()
                    .await
                    .map_err(anyhow::Error::from_boxed)?
                    .to_bytes();
                if status == StatusCode::OK {
                    return serde_json::from_slice(&bytes)
                        .with_context(|| format!("{endpoint} is not a Gantry of this version"));
                }
                let why = serde_json::from_slice(&bytes)
                    .map_or_else(|_| status.to_string(), |said: JoinRefusal| said.message);
                if !status.is_server_error() {
                    bail!("{endpoint} refused this node: {why}");
                }
                why
            }
            Err(error) => error.to_string(),
        };
        attempt += 1;
        let wait = backoff(attempt, RETRY.0, RETRY.1, env.entropy.u64());
        if env.monotonic() + wait > deadline {
            bail!("{endpoint} could not be joined: {cause}");
        }
        tracing::warn!(cause, ?wait, "joining again");
        env.sleep(wait).await;
    }
}

/// What is said, and of the rest what the machine has.
fn resources(options: &AgentOptions) -> anyhow::Result<MachineResources> {
    let machine = MachineResources::of_this_machine().context("what this machine has")?;
    let given = MachineResources {
        cpu_units: options.cpu.unwrap_or(machine.cpu_units),
        memory_mib: options.memory.unwrap_or(machine.memory_mib),
    };
    if given.cpu_units < 1 || given.memory_mib < 1 {
        bail!(
            "an agent needs some --cpu (1024 a core) and some --memory (in MiB) to give to tasks"
        );
    }
    Ok(given)
}

/// What an external container instance is known by. It has no value.
const EXTERNAL: &str = "ecs.capability.external";

/// The one of ECS's own attributes that an agent may be told.
const ZONE: &str = "ecs.availability-zone";

fn attributes(given: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    given
        .iter()
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .with_context(|| format!("'{pair}' is not an attribute like rack=7"))?;
            // Where its machine is, nobody knows but who starts it.
            let is_zone = name == ZONE;
            if is_zone && value.is_empty() {
                bail!("'{pair}' names no availability zone");
            }
            let is_own = !name.starts_with("ecs.") && !name.starts_with("com.amazonaws");
            if name.is_empty() || !(is_own || is_zone) {
                bail!("'{name}' is not a name that an attribute of one's own may have");
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}
