//! The peer: Debian's Docker, in a network namespace and folders of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::shell::{self, command};

/// A dockerd of our own. Dropping it ends it and removes its network namespace.
pub struct Docker {
    daemon: Child,
    socket: String,
    namespace: String,
    folder: PathBuf,
}

const IMAGE: &str = "peer:1";
const SERVICE: &str = "many";

impl Docker {
    /// Starts dockerd and gives it an image with busybox.
    pub fn start(folder: &Path) -> anyhow::Result<Docker> {
        if !Path::new("/usr/sbin/dockerd").exists() {
            bail!("Debian's docker.io is not installed");
        }
        std::fs::create_dir_all(folder)?;
        let namespace = format!("gantry-bench-{}", std::process::id());
        shell::run(command("ip").args(["netns", "add", &namespace]))?;
        let net = format!("--net=/run/netns/{namespace}");
        // nsenter, not `ip netns exec`: that would hide the cgroup mounts.
        shell::run(
            command("nsenter")
                .arg(&net)
                .args(["ip", "link", "set", "lo", "up"]),
        )?;
        let socket = format!("unix://{}", folder.join("docker.sock").display());
        let log = std::fs::File::create(folder.join("dockerd.log"))?;
        let daemon = command("nsenter")
            .arg(&net)
            .args([
                "/usr/sbin/dockerd",
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
            ])
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .args(["--host", &socket])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut docker = Docker {
            daemon,
            socket,
            namespace,
            folder: folder.to_owned(),
        };
        docker.wait_until_up()?;
        let tar = docker.folder.join("image.tar");
        let root = docker.folder.join("root/bin");
        std::fs::create_dir_all(&root)?;
        std::fs::copy("/bin/busybox", root.join("true"))?;
        std::fs::copy("/bin/busybox", root.join("sleep"))?;
        shell::run(
            command("tar")
                .arg("-C")
                .arg(docker.folder.join("root"))
                .arg("-cf")
                .arg(&tar)
                .arg("."),
        )?;
        shell::run(
            docker
                .cli()
                .arg("import")
                .arg(&tar)
                .arg(IMAGE)
                .stdout(Stdio::null()),
        )?;
        Ok(docker)
    }

    /// `docker run --rm --network none IMAGE /bin/true`, in milliseconds.
    pub fn run_true(&self) -> anyhow::Result<f64> {
        let start = Instant::now();
        shell::run(
            self.cli()
                .args(["run", "--rm", "--network", "none", IMAGE, "/bin/true"]),
        )?;
        Ok(start.elapsed().as_secs_f64() * 1_000.0)
    }

    /// Makes this daemon a swarm of one.
    pub fn swarm(&self) -> anyhow::Result<()> {
        let address = "127.0.0.1";
        shell::output(self.cli().args([
            "swarm",
            "init",
            "--advertise-addr",
            address,
            "--listen-addr",
            "127.0.0.1:2377",
        ]))?;
        Ok(())
    }

    /// A service from nothing to `count` running replicas on the host's network, in milliseconds; removed afterwards.
    pub fn scale_to_many(&self, count: usize) -> anyhow::Result<f64> {
        let taken = self.create_service(count)?;
        self.remove_service()?;
        Ok(taken)
    }

    /// A service with so many replicas on the host's network: milliseconds from the call to all running.
    pub fn create_service(&self, count: usize) -> anyhow::Result<f64> {
        let start = Instant::now();
        shell::output(
            self.cli()
                .args([
                    "service",
                    "create",
                    "--detach",
                    "--quiet",
                    "--name",
                    SERVICE,
                    "--network",
                    "host",
                ])
                // As long as a task of Gantry is given.
                .args(["--stop-grace-period", "2s"])
                .args([
                    "--replicas",
                    &count.to_string(),
                    IMAGE,
                    "/bin/sleep",
                    "1000",
                ]),
        )?;
        self.wait_for_replicas(count, start)
    }

    /// The service to another number of replicas: milliseconds from the call to all running, or with
    /// none, to no container left.
    pub fn scale_service(&self, count: usize) -> anyhow::Result<f64> {
        let start = Instant::now();
        let wanted = format!("{SERVICE}={count}");
        shell::output(self.cli().args(["service", "scale", "--detach", &wanted]))?;
        if count > 0 {
            return self.wait_for_replicas(count, start);
        }
        self.wait_for_no_containers(start)?;
        Ok(start.elapsed().as_secs_f64() * 1_000.0)
    }

    /// The next measurement begins when its containers are gone.
    pub fn remove_service(&self) -> anyhow::Result<()> {
        shell::output(self.cli().args(["service", "rm", SERVICE]))?;
        self.wait_for_no_containers(Instant::now())
    }

    fn wait_for_replicas(&self, count: usize, start: Instant) -> anyhow::Result<f64> {
        let wanted = format!("{count}/{count}");
        loop {
            let seen =
                shell::output(
                    self.cli()
                        .args(["service", "ls", "--format", "{{.Replicas}}"]),
                )?;
            if seen.starts_with(&wanted) {
                return Ok(start.elapsed().as_secs_f64() * 1_000.0);
            }
            if start.elapsed() > Duration::from_secs(120) {
                bail!(
                    "Docker's service has {} replicas after two minutes",
                    seen.trim()
                );
            }
        }
    }

    fn wait_for_no_containers(&self, start: Instant) -> anyhow::Result<()> {
        while !shell::output(self.cli().args(["ps", "--quiet"]))?
            .trim()
            .is_empty()
        {
            if start.elapsed() > Duration::from_secs(240) {
                bail!("Docker's containers do not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn cli(&self) -> Command {
        // Debian's own client: another one on the PATH may be of another version.
        let mut docker = command("/usr/bin/docker");
        docker.args(["--host", &self.socket]);
        docker
    }

    fn wait_until_up(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.daemon.try_wait()? {
                let log =
                    std::fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
                bail!(
                    "dockerd ended ({status}): {}",
                    log.lines().last().unwrap_or_default()
                );
            }
            if shell::output(self.cli().arg("version")).is_ok() {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(30) {
                bail!("dockerd does not answer after 30 s");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let swarm = self
            .cli()
            .args(["swarm", "leave", "--force"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let ended = swarm
            .context("docker swarm leave")
            .and_then(|_| shell::run(command("kill").arg(self.daemon.id().to_string())));
        if ended.is_err() || self.daemon.wait().is_err() {
            let _ = self.daemon.kill();
        }
        let _ = shell::run(command("ip").args(["netns", "del", &self.namespace]));
        // Docker leaves its network namespace file mounted.
        let _ = command("umount")
            .args(["-q", "-R"])
            .arg(self.folder.join("exec/netns/default"))
            .status();
    }
}
