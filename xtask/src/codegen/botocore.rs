//! botocore at one pinned version: where AWS publishes its models for everyone.
//!
//! The wheel is fetched once with pip into the user's cache folder and unpacked there. Only
//! refreshing models needs it; checking and building never do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// Models of this version are under `models/`. Raising it is a change to review like any other.
pub const VERSION: &str = "1.44.5";

pub struct Botocore {
    folder: PathBuf,
}

impl Botocore {
    /// Fetches and unpacks botocore unless that was done before.
    pub fn open() -> anyhow::Result<Self> {
        let cache = match std::env::var_os("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => {
                PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache")
            }
        };
        let folder = cache.join("gantry").join(format!("botocore-{VERSION}"));
        if !folder.join("botocore/data").is_dir() {
            eprintln!("fetching botocore {VERSION} from PyPI");
            fetch(&folder)?;
        }
        Ok(Self { folder })
    }

    /// The newest version of a service's model.
    pub fn service_model(&self, service: &str) -> anyhow::Result<Value> {
        let versions = self.folder.join("botocore/data").join(service);
        let mut found: Vec<PathBuf> = std::fs::read_dir(&versions)
            .with_context(|| format!("botocore has no service {service}"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()?;
        found.sort();
        let newest = found
            .pop()
            .with_context(|| format!("botocore has no versions of {service}"))?;
        let packed = newest.join("service-2.json.gz");
        let output = Command::new("gzip").arg("-dc").arg(&packed).output()?;
        if !output.status.success() {
            bail!("could not unpack {}", packed.display());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn fetch(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps"])
        .args(["--only-binary", ":all:", "--dest"])
        .arg(folder)
        .arg(format!("botocore=={VERSION}")))?;
    let wheel = folder.join(format!("botocore-{VERSION}-py3-none-any.whl"));
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(folder))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
