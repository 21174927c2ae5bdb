//! Pulling and unpacking an image of about 150 MiB in five layers, against containerd's `ctr images pull`.
//!
//! Both pull from the same docker-registry on this machine, in turns, into folders that are new each time, and
//! each is as durable as it is: Gantry syncs the file system before an image counts. The layers are files of
//! this machine's `/usr`, compressed with gzip as every pusher does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Bench;
use super::registry::DockerRegistry;
use super::report::Report;
use crate::shell::{self, command, say};

const LAYERS: usize = 5;
const LAYER_BYTES: u64 = 30 << 20;
/// At most 0.7 times as long as containerd.
const FACTOR: f64 = 1.0 / 0.7;
const PATIENCE: Duration = Duration::from_secs(30);

pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let registry = bench.peer("docker-registry", || {
        DockerRegistry::start(&bench.folder.join("pull-registry"))
    });
    let Some(registry) = registry else {
        say("pulls are not measured without a registry");
        return Ok(());
    };
    let authority = registry
        .endpoint()
        .strip_prefix("http://")
        .context("the registry's address")?;
    let image = format!("{authority}/bench:1");
    say("making an image of 150 MiB in five layers");
    push(&bench.folder.join("pull-image"), &image)?;
    let has_containerd = bench
        .peer("containerd", || {
            for program in ["/usr/bin/containerd", "/usr/bin/ctr"] {
                if !Path::new(program).exists() {
                    bail!("Debian's containerd is not installed");
                }
            }
            Ok(())
        })
        .is_some();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds.max(3) {
        ours.push(pull(bench, &image, round)?);
        if has_containerd {
            theirs.push(
                Containerd::start(&bench.folder.join(format!("containerd-{round}")))?
                    .pull(&image)?,
            );
        }
    }
    report.times(
        "a pull of 150 MiB in five layers, against containerd",
        &ours,
        &theirs,
        FACTOR,
    );
    Ok(())
}

/// With Gantry's runtime, into a new folder.
fn pull(bench: &Bench, image: &str, round: usize) -> anyhow::Result<f64> {
    let folder = bench.folder.join(format!("pulled-{round}"));
    let said = shell::output(
        command(bench.release.join("examples/pull"))
            .arg(image)
            .arg(&folder),
    )?;
    std::fs::remove_dir_all(&folder)?;
    said.trim().parse().context("the time of a pull")
}

/// Makes an image of files of `/usr` and pushes it.
fn push(folder: &Path, image: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let layout = folder.join("layout");
    let tagged = format!("{}:1", layout.display());
    shell::run(command("umoci").args(["init", "--layout"]).arg(&layout))?;
    shell::run(command("umoci").args(["new", "--image", &tagged]))?;
    for (at, files) in layers_of_usr()?.iter().enumerate() {
        let (list, tar) = (folder.join("files"), folder.join(format!("{at}.tar")));
        std::fs::write(&list, files)?;
        shell::run(
            command("tar")
                .args(["--create", "--directory=/", "--no-recursion"])
                .arg(format!("--files-from={}", list.display()))
                .arg(format!("--file={}", tar.display())),
        )?;
        shell::run(
            command("umoci")
                .args(["raw", "add-layer", "--image", &tagged])
                .arg(&tar),
        )?;
        std::fs::remove_file(tar)?;
    }
    shell::run(command("skopeo").args([
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &format!("oci:{tagged}"),
        &format!("docker://{image}"),
    ]))
}

/// Lists of files, each of about the size of a layer.
fn layers_of_usr() -> anyhow::Result<Vec<String>> {
    let found = shell::output(command("find").args([
        "/usr/bin",
        "/usr/lib",
        "/usr/share",
        "-xdev",
        "-type",
        "f",
        "-size",
        "-8M",
        "-printf",
        "%s %p\\n",
    ]))?;
    let mut layers = Vec::new();
    let (mut files, mut bytes) = (String::new(), 0);
    for line in found.lines() {
        let Some((size, path)) = line.split_once(" /") else {
            continue;
        };
        writeln!(files, "{path}")?;
        bytes += size.parse::<u64>().unwrap_or(0);
        if bytes >= LAYER_BYTES {
            layers.push(std::mem::take(&mut files));
            bytes = 0;
        }
        if layers.len() == LAYERS {
            return Ok(layers);
        }
    }
    bail!("this machine has less than 150 MiB of files in /usr")
}

/// A containerd with folders and a socket of its own; dropping it ends it.
struct Containerd {
    daemon: Child,
    folder: PathBuf,
    address: PathBuf,
}

impl Containerd {
    fn start(folder: &Path) -> anyhow::Result<Containerd> {
        std::fs::create_dir_all(folder)?;
        let configuration = folder.join("config.toml");
        std::fs::write(
            &configuration,
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )?;
        let address = folder.join("socket");
        let daemon = command("/usr/bin/containerd")
            .arg("--config")
            .arg(&configuration)
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--address")
            .arg(&address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log"))?)
            .spawn()?;
        let containerd = Containerd {
            daemon,
            folder: folder.to_owned(),
            address,
        };
        let start = Instant::now();
        while shell::output(containerd.ctr().arg("version")).is_err() {
            if start.elapsed() > PATIENCE {
                bail!("containerd does not answer after {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(containerd)
    }

    fn pull(&self, image: &str) -> anyhow::Result<f64> {
        let start = Instant::now();
        shell::output(self.ctr().args(["images", "pull", "--plain-http", image]))?;
        Ok(start.elapsed().as_secs_f64() * 1_000.0)
    }

    fn ctr(&self) -> std::process::Command {
        let mut ctr = command("/usr/bin/ctr");
        ctr.arg("--address").arg(&self.address);
        ctr
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
