//! `gantry down`: nothing of an installation is left on the machine, whether its `up` lives or not.

use std::time::Duration;

use anyhow::{Context, bail};
use gantry_env::Env;

use crate::cli::DownOptions;
use crate::data_dir::{DataDir, RunningUp, start_ticks};

/// How long a running `up` may take to end by itself; then it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ends a running `up`, then removes what it left.
pub fn run(options: &DownOptions) -> anyhow::Result<()> {
    let path = &options.data_dir.data_dir;
    if !path.join("installation.json").exists() {
        say(&format!(
            "there is no installation in {}, so there is nothing to remove",
            path.display()
        ));
        return Ok(());
    }
    if !crate::machine::is_root() {
        bail!("removing containers needs root: run it again with `sudo gantry down`");
    }
    let env = Env::real();
    let dir = DataDir::open(path)?;
    if let Some(running) = dir.running() {
        end(&running, &env)?;
        dir.clear_running();
    }
    let installation = dir
        .installation_id()
        .parse()
        .context("the installation id")?;
    let removed = gantry_runtime::cleanup(&dir.node(), &installation, &env)?;
    gantry_agent::shell::cleanup_volumes(&dir.node())?;
    // Only then the network, since whoever still ran in it could not be told whose it was.
    let network = gantry_network::cleanup(
        &dir.installation_id().parse()?,
        &gantry_agent::shell::network_dir(&dir.node()),
    )?;
    say(&format!(
        "removed {} tasks, {} shims, {} processes and {} network namespaces of {}",
        removed.tasks,
        removed.shims,
        removed.processes,
        network.namespaces,
        dir.path().display()
    ));
    if options.purge {
        std::fs::remove_dir_all(dir.path())
            .with_context(|| format!("deleting {}", dir.path().display()))?;
        say(&format!(
            "deleted {} with its images, logs, task definitions and keys",
            dir.path().display()
        ));
    }
    Ok(())
}

/// Asks the `up` to leave, and makes it.
fn end(running: &RunningUp, env: &Env) -> anyhow::Result<()> {
    let lives = || start_ticks(running.pid) == Some(running.started_at_ticks);
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(running.pid)?).context("the process id")?;
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        if !lives() {
            return Ok(());
        }
        // It may end between the look and the signal.
        let _ = rustix::process::kill_process(pid, signal);
        let deadline = env.clock.monotonic() + PATIENCE;
        while lives() && env.clock.monotonic() < deadline {
            gantry_env::pause_thread(LOOK_EVERY);
        }
    }
    if lives() {
        bail!(
            "the `gantry up` with process id {} does not end",
            running.pid
        );
    }
    Ok(())
}

fn say(text: &str) {
    eprintln!("gantry: {text}");
}
