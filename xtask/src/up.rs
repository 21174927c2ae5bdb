//! `cargo xtask up`: from a fresh checkout to a running Gantry whose sample task has spoken.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::setup::{self, Wanted};
use crate::shell::{self, command, is_root, root, say};

/// What the user said on the command line.
pub struct Options {
    pub listen: String,
    pub data_dir: Option<PathBuf>,
    pub once: bool,
}

/// Installs, builds, starts, runs the sample; then stays until Gantry ends.
pub fn run(options: &Options) -> anyhow::Result<()> {
    setup::run(Wanted {
        sample: true,
        ..Wanted::default()
    })?;
    say("building Gantry (a first build takes some minutes)");
    shell::run(command("cargo").args(["build", "--release", "--package", "gantry"]))?;
    let gantry = target_directory()?.join("release/gantry");

    say("starting Gantry");
    let mut running = start(&gantry, options)?;
    let outcome = sample(&gantry, options);
    if let Err(error) = outcome {
        interrupt(&mut running)?;
        return Err(error);
    }
    next_steps(&gantry, options);
    if options.once {
        interrupt(&mut running)?;
    }
    let status = running.wait()?;
    if !status.success() {
        bail!("Gantry ended: {status}");
    }
    Ok(())
}

/// What Gantry logs unless the user says otherwise: not every request, so that the sample's own
/// lines can be read.
const QUIET_LOG: &str = "warn";

/// Runs `gantry` as root, since it makes namespaces, mounts and cgroups.
fn as_root(gantry: &PathBuf) -> Command {
    let log = std::env::var("GANTRY_LOG").unwrap_or_else(|_| QUIET_LOG.to_owned());
    if is_root() {
        let mut gantry = command(gantry);
        gantry.env("GANTRY_LOG", log);
        return gantry;
    }
    let mut sudo = command("sudo");
    sudo.arg(format!("GANTRY_LOG={log}")).arg(gantry);
    sudo
}

fn start(gantry: &PathBuf, options: &Options) -> anyhow::Result<Child> {
    let mut up = as_root(gantry);
    up.args(["up", "--listen", &options.listen])
        .stdout(Stdio::piped());
    if let Some(folder) = &options.data_dir {
        up.arg("--data-dir").arg(folder);
    }
    let mut child = up.spawn().context("could not start gantry")?;
    let stdout = child.stdout.take().context("gantry's output")?;
    let mut lines = BufReader::new(stdout).lines();
    // `gantry up` prints one line when it serves; if it cannot, its error is on the terminal already.
    match lines.next() {
        Some(line) => eprintln!("    {}", line?),
        None => bail!("Gantry did not start: {}", child.wait()?),
    }
    // What it may print later still goes to the terminal.
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .for_each(|line| eprintln!("    {line}"))
    });
    Ok(child)
}

fn sample(gantry: &PathBuf, options: &Options) -> anyhow::Result<()> {
    say("running the sample task");
    let mut sample = as_root(gantry);
    sample.arg("sample");
    if let Some(folder) = &options.data_dir {
        sample.arg("--data-dir").arg(folder);
    }
    shell::run(&mut sample)
}

/// SIGINT: Gantry stops its tasks and ends.
fn interrupt(running: &mut Child) -> anyhow::Result<()> {
    say("stopping Gantry");
    shell::run(command("kill").args(["-INT", &running.id().to_string()]))?;
    running.wait()?;
    Ok(())
}

fn next_steps(gantry: &std::path::Path, options: &Options) {
    let folder = options
        .data_dir
        .as_ref()
        .map(|d| format!(" --data-dir {}", d.display()))
        .unwrap_or_default();
    let gantry = gantry.strip_prefix(root()).unwrap_or(gantry).display();
    say("Gantry is running. In another terminal:");
    eprintln!(
        "    eval \"$({gantry} env{folder})\"\n    \
         aws ecs list-tasks --desired-status STOPPED\n    \
         aws logs tail /gantry/sample\n    \
         aws ecr create-repository --repository-name hello\n    \
         {gantry} --help\n\
         Ctrl-C here stops Gantry and its tasks; `{gantry} down{folder}` removes what it left."
    );
}

fn target_directory() -> anyhow::Result<PathBuf> {
    let metadata: serde_json::Value =
        serde_json::from_str(&shell::output(command("cargo").args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
        ]))?)?;
    Ok(PathBuf::from(
        metadata["target_directory"]
            .as_str()
            .context("cargo's target directory")?,
    ))
}
