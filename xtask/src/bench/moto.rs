//! The peer of the API: moto's server from PyPI, in a Python environment of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::shell::{self, command, say};

/// A moto server of our own; dropping it ends it.
pub struct Moto {
    server: Child,
    endpoint: String,
    scratch: PathBuf,
}

impl Moto {
    pub fn start(folder: &Path) -> anyhow::Result<Moto> {
        std::fs::create_dir_all(folder)?;
        let program = installed()?;
        let log = std::fs::File::create(folder.join("moto.log"))?;
        let port = super::free_port()?;
        let server = command(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut moto = Moto {
            server,
            endpoint: format!("http://127.0.0.1:{port}"),
            scratch: folder.to_owned(),
        };
        moto.wait_until_up(port)?;
        Ok(moto)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `aws …` against it; the JSON that it answers.
    pub fn aws(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut aws = command("aws");
        aws.args(["--endpoint-url", &self.endpoint, "--output", "json"])
            .args(words)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_PAGER", "");
        Ok(serde_json::from_str(&shell::output(&mut aws)?)?)
    }

    fn wait_until_up(&mut self, port: u16) -> anyhow::Result<()> {
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.server.try_wait()? {
                let log = std::fs::read_to_string(self.scratch.join("moto.log"))?;
                bail!("moto ended ({status}): {log}");
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("moto does not answer after a minute");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// moto's server, installed from PyPI into the user's cache folder if it is not there yet.
fn installed() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME")?).join(".cache"),
    };
    let environment = cache.join("gantry/moto");
    let server = environment.join("bin/moto_server");
    if !server.exists() {
        say("installing moto[server] from PyPI");
        shell::run(command("python3").args(["-m", "venv"]).arg(&environment))?;
        shell::run(command(environment.join("bin/pip")).args([
            "install",
            "--quiet",
            "moto[server]",
        ]))?;
    }
    Ok(server)
}
