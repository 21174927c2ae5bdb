//! A layer of 100 MiB into the registry and out of it, against Debian's docker-registry.
//!
//! Both keep blobs on the local disk and sync a blob before they acknowledge it. The client is curl,
//! with the requests that every pusher makes: begin an upload, send it, name its digest.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Bench;
use super::installation::{Installation, cpu_ticks, ticks_per_second};
use super::report::Report;
use crate::shell::{self, command, say};

const LAYER_BYTES: usize = 100 << 20;

/// Debian's docker-registry on a port and a folder of its own; dropping it ends it.
pub struct DockerRegistry {
    server: Child,
    endpoint: String,
}

impl DockerRegistry {
    pub fn start(folder: &Path) -> anyhow::Result<DockerRegistry> {
        const PROGRAM: &str = "/usr/bin/docker-registry";
        if !Path::new(PROGRAM).exists() {
            bail!("Debian's docker-registry is not installed");
        }
        std::fs::create_dir_all(folder)?;
        let port = super::free_port()?;
        let configuration = folder.join("config.yml");
        std::fs::write(
            &configuration,
            format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                folder.join("blobs").display()
            ),
        )?;
        let log = std::fs::File::create(folder.join("log"))?;
        let server = command(PROGRAM)
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let registry = DockerRegistry {
            server,
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("docker-registry does not answer after 30 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A registry as curl sees it.
struct Registry {
    endpoint: String,
    /// `user:password`, where one is asked for.
    login: Option<String>,
    pid: u32,
}

/// What one layer cost.
#[derive(Default)]
struct Cost {
    put_ms: Vec<f64>,
    get_ms: Vec<f64>,
    /// Of the server's processor time, for a push.
    cpu_ms: Vec<f64>,
}

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let peer = bench.peer("docker-registry", || {
        DockerRegistry::start(&bench.folder.join("docker-registry"))
    });
    let gantry = Installation::start(&bench.folder.join("registry"), &bench.release)?;
    gantry.load(&["repository", "--name", "bench"])?;
    let ours = Registry {
        endpoint: gantry.endpoint().to_owned(),
        login: Some(format!("AWS:{}", gantry.load(&["password"])?.trim())),
        pid: gantry.pid(),
    };
    let theirs = peer.as_ref().map(|peer| Registry {
        endpoint: peer.endpoint().to_owned(),
        login: None,
        pid: peer.pid(),
    });
    let rounds = bench.rounds.div_ceil(2).max(5);
    say(&format!("a layer of 100 MiB, {rounds} rounds"));
    let (mut our_cost, mut their_cost) = (Cost::default(), Cost::default());
    for _ in 0..rounds {
        let layer = Layer::random(&bench.folder)?;
        ours.push_and_pull(&layer, &mut our_cost)?;
        if let Some(theirs) = &theirs {
            theirs.push_and_pull(&layer, &mut their_cost)?;
        }
        std::fs::remove_file(&layer.path)?;
    }
    report.times(
        "PUT of a layer of 100 MiB, against docker-registry",
        &our_cost.put_ms,
        &their_cost.put_ms,
        1.5,
    );
    report.times(
        "GET of a layer of 100 MiB, against docker-registry",
        &our_cost.get_ms,
        &their_cost.get_ms,
        1.0,
    );
    report.times(
        "the server's processor time for a PUT of 100 MiB, against docker-registry",
        &our_cost.cpu_ms,
        &their_cost.cpu_ms,
        2.0,
    );
    gantry.stop()
}

/// Bytes that nobody has stored yet.
struct Layer {
    path: PathBuf,
    digest: String,
}

impl Layer {
    fn random(folder: &Path) -> anyhow::Result<Layer> {
        let path = folder.join("layer");
        let written = command("dd")
            .arg("if=/dev/urandom")
            .arg(format!("of={}", path.display()))
            .args([
                "bs=1M",
                &format!("count={}", LAYER_BYTES >> 20),
                "status=none",
            ])
            .status()?;
        anyhow::ensure!(written.success(), "dd failed");
        let sum = shell::output(command("sha256sum").arg(&path))?;
        let digest = sum.split_whitespace().next().context("sha256sum")?;
        Ok(Layer {
            digest: format!("sha256:{digest}"),
            path,
        })
    }
}

impl Registry {
    fn push_and_pull(&self, layer: &Layer, cost: &mut Cost) -> anyhow::Result<()> {
        let before = cpu_ticks(self.pid)?;
        cost.put_ms.push(self.put(layer)?);
        let ticks = cpu_ticks(self.pid)? - before;
        cost.cpu_ms
            .push(ticks as f64 / ticks_per_second()? * 1_000.0);
        cost.get_ms.push(self.get(layer)?);
        Ok(())
    }

    /// Begin an upload, then everything in one PUT.
    fn put(&self, layer: &Layer) -> anyhow::Result<f64> {
        let start = Instant::now();
        let begun = shell::output(
            self.curl()
                .args([
                    "-X",
                    "POST",
                    "-H",
                    "Content-Length: 0",
                    "-D",
                    "-",
                    "-o",
                    "/dev/null",
                ])
                .arg(format!("{}/v2/bench/blobs/uploads/", self.endpoint)),
        )?;
        let location = begun
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("location")
                    .then(|| value.trim().to_owned())
            })
            .with_context(|| format!("no upload was begun: {begun}"))?;
        let location = if location.starts_with('/') {
            format!("{}{location}", self.endpoint)
        } else {
            location
        };
        let joint = if location.contains('?') { '&' } else { '?' };
        shell::output(
            self.curl()
                .args([
                    "-H",
                    "Content-Type: application/octet-stream",
                    "-H",
                    "Expect:",
                    "-T",
                ])
                .arg(&layer.path)
                .arg(format!("{location}{joint}digest={}", layer.digest)),
        )?;
        Ok(start.elapsed().as_secs_f64() * 1_000.0)
    }

    fn get(&self, layer: &Layer) -> anyhow::Result<f64> {
        let start = Instant::now();
        shell::output(
            self.curl()
                .args(["-o", "/dev/null"])
                .arg(format!("{}/v2/bench/blobs/{}", self.endpoint, layer.digest)),
        )?;
        Ok(start.elapsed().as_secs_f64() * 1_000.0)
    }

    fn curl(&self) -> std::process::Command {
        let mut curl = command("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--location"]);
        if let Some(login) = &self.login {
            curl.args(["--user", login]);
        }
        curl
    }
}
