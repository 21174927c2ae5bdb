//! Gantry under measurement: a release build on a free port and a folder of its own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::shell::{self, command};

/// What the processes cost when nothing happens.
pub struct AtRest {
    pub pss_mib: f64,
    /// Per cent of one core.
    pub cpu_percent: f64,
}

/// A running release build.
pub struct Installation {
    folder: PathBuf,
    release: PathBuf,
    endpoint: String,
    up: RefCell<Child>,
}

/// How long processor time is counted at rest.
const REST: Duration = Duration::from_secs(20);

impl Installation {
    /// Starts the build that lies in `release`.
    pub fn start(folder: &Path, release: &Path) -> anyhow::Result<Installation> {
        std::fs::create_dir_all(folder)?;
        let (up, endpoint, _) = spawn(release, folder)?;
        Ok(Installation {
            folder: folder.to_owned(),
            release: release.to_owned(),
            endpoint,
            up: RefCell::new(up),
        })
    }

    /// Where it serves; another after a restart.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn pid(&self) -> u32 {
        self.up.borrow().id()
    }

    /// `gantry env`, as pairs.
    pub fn exports(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut env = command(self.release.join("gantry"));
        env.arg("env").arg("--data-dir").arg(self.data_dir());
        Ok(shell::output(&mut env)?
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect())
    }

    /// Runs the load generator with further words; returns what it printed.
    pub fn load(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut load = command(self.release.join("examples/load"));
        load.arg("--data-dir").arg(self.data_dir()).args(words);
        shell::output(&mut load)
    }

    /// The same, where it prints one number.
    pub fn load_number(&self, words: &[&str]) -> anyhow::Result<f64> {
        let printed = self.load(words)?;
        printed
            .trim()
            .parse()
            .with_context(|| format!("the load generator printed {printed:?}"))
    }

    /// Memory and processor time of everything while nothing happens.
    pub fn at_rest(&self) -> anyhow::Result<AtRest> {
        let pid = self.up.borrow().id();
        let before = cpu_ticks(pid)?;
        std::thread::sleep(REST);
        let ticks = cpu_ticks(pid)? - before;
        let cpu_percent = ticks as f64 / ticks_per_second()? / REST.as_secs_f64() * 100.0;
        Ok(AtRest {
            pss_mib: pss_kib(pid)? as f64 / 1024.0,
            cpu_percent,
        })
    }

    /// The median memory of a shim, now.
    pub fn shim_pss_kib(&self) -> anyhow::Result<f64> {
        let data_dir = self.data_dir().display().to_string();
        let mut all = Vec::new();
        for process in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let pid = process.file_name().to_string_lossy().parse::<u32>();
            if let (Ok(pid), true) = (pid, line.contains("shim") && line.contains(&data_dir)) {
                all.push(pss_kib(pid)? as f64);
            }
        }
        if all.is_empty() {
            bail!("no shim runs");
        }
        Ok(super::report::median(&all))
    }

    /// Ends Gantry and starts it again `times` times; the milliseconds until it served.
    pub fn restarts(&self, times: usize) -> anyhow::Result<Vec<f64>> {
        let mut taken = Vec::new();
        for _ in 0..times {
            let mut up = self.up.borrow_mut();
            shell::run(command("kill").arg("-TERM").arg(up.id().to_string()))?;
            up.wait()?;
            let (again, _, ms) = spawn(&self.release, &self.folder)?;
            *up = again;
            taken.push(ms);
        }
        Ok(taken)
    }

    pub fn binary_mib(&self) -> anyhow::Result<f64> {
        Ok(std::fs::metadata(self.release.join("gantry"))?.len() as f64 / 1024.0 / 1024.0)
    }

    /// `gantry down`: nothing is left.
    pub fn stop(&self) -> anyhow::Result<()> {
        shell::run(
            command(self.release.join("gantry"))
                .arg("down")
                .arg("--data-dir")
                .arg(self.data_dir()),
        )?;
        self.up.borrow_mut().wait()?;
        Ok(())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        // After an error in the middle of a measurement; after `stop` there is nothing left to do.
        let mut down: Command = command(self.release.join("gantry"));
        let _ = down
            .arg("down")
            .arg("--data-dir")
            .arg(self.data_dir())
            .status();
        let _ = self.up.borrow_mut().kill();
        let _ = self.up.borrow_mut().wait();
    }
}

/// Starts `gantry up` and waits for its line; the endpoint in it, and the milliseconds that took.
fn spawn(release: &Path, folder: &Path) -> anyhow::Result<(Child, String, f64)> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("gantry.log"))?;
    let start = Instant::now();
    let mut up = command(release.join("gantry"))
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(up.stdout.take().context("stdout")?).read_line(&mut line)?;
    let taken_ms = start.elapsed().as_secs_f64() * 1_000.0;
    let Some(at) = line.find("http://") else {
        bail!(
            "gantry did not start: {}",
            std::fs::read_to_string(folder.join("gantry.log")).unwrap_or_default()
        );
    };
    Ok((up, line[at..].trim().to_owned(), taken_ms))
}

fn pss_kib(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    rollup
        .lines()
        .find_map(|line| {
            line.strip_prefix("Pss:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse()
                .ok()
        })
        .context("Pss in smaps_rollup")
}

pub fn ticks_per_second() -> anyhow::Result<f64> {
    Ok(shell::output(command("getconf").arg("CLK_TCK"))?
        .trim()
        .parse()?)
}

/// The processor time that a process has used, in the kernel's ticks.
pub fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("stat")?
        .1
        .split_whitespace()
        .collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
