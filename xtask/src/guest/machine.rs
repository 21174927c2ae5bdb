//! The emulated machine: started, listened to, and gone when it is done.
//!
//! Everything that the guest says stands in a file in the cache folder too. Nothing that a run writes to
//! its disks is kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::{Options, Outcome, root::System};
use crate::shell::{command, say};

/// Runs the guest to its end. The guest tells what it does in lines that begin with `guest-`.
pub fn boot(
    options: &Options,
    system: &System,
    payload: &Path,
    console: &Path,
) -> anyhow::Result<Vec<Outcome>> {
    let mut machine = machine(options, system, payload);
    if options.shell {
        say("booting; a shell comes in about a minute");
        let ended = machine.args(["-serial", "mon:stdio"]).status()?;
        if !ended.success() {
            bail!("qemu failed: {ended}");
        }
        return Ok(Vec::new());
    }
    say("booting; an emulated machine is ten times slower, so this takes a while");
    let mut guest = machine
        .args([
            "-chardev",
            "stdio,id=out,signal=off",
            "-serial",
            "chardev:out",
        ])
        .args(["-monitor", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("qemu")?;
    let shown = guest.stdout.take().context("the guest's console")?;
    let (outcomes, whole) = listen(shown, std::fs::File::create(console)?)?;
    guest.wait()?;
    if !whole {
        eprintln!(
            "the guest ended before its tests did; its console: {}",
            console.display()
        );
    }
    Ok(outcomes)
}

fn machine(options: &Options, system: &System, payload: &Path) -> Command {
    let mut append =
        "console=ttyS0 panic=-1 loglevel=3 root=/dev/vda rw init=/gantry-guest".to_owned();
    // What these prevent cannot happen in an emulated processor, and they cost it a third of its speed.
    append += " mitigations=off";
    // Others who work on this machine go first.
    let mut qemu = command("nice");
    qemu.args(["-n", "10", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi,tb-size=1024", "-M", "q35"])
        // A fifth level of page tables only makes every walk longer.
        .args(["-cpu", "max,la57=off"])
        .args(["-smp", &options.processors.to_string(), "-m", "6144"])
        .args(["-display", "none", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(&system.kernel)
        .arg("-initrd")
        .arg(&system.initrd)
        .args(["-append", &append]);
    // What is written goes to a file without a name, so what is synced need not reach any disk.
    let disk = |image: &Path| {
        format!(
            "file={},if=virtio,format=raw,snapshot=on,cache=unsafe",
            image.display()
        )
    };
    qemu.args(["-drive", &disk(&system.disk)]);
    qemu.args(["-drive", &disk(payload)]);
    qemu
}

/// Shows the console as it comes; what the guest said of its areas, and whether it came to its end.
fn listen(console: impl Read, mut copy: impl Write) -> anyhow::Result<(Vec<Outcome>, bool)> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut whole = false;
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        writeln!(copy, "{line}")?;
        if let Some(area) = line.strip_prefix("guest-tests: ") {
            say(&format!("testing {area} in the guest"));
            outcomes.push(Outcome {
                area: area.to_owned(),
                ..Outcome::default()
            });
            continue;
        }
        eprintln!("    {line}");
        if line == "guest-ends" {
            whole = true;
        }
        let Some(outcome) = outcomes.last_mut() else {
            continue;
        };
        if let Some(told) = line.strip_prefix("guest-tested: ") {
            let mut numbers = told.split(' ').skip(1);
            outcome.code = numbers.next().and_then(|code| code.parse().ok());
            let seconds = numbers.next().and_then(|seconds| seconds.parse().ok());
            outcome.took = Duration::from_secs(seconds.unwrap_or_default());
        } else if outcome.code.is_none() {
            let text = line.trim_start();
            // A later summary is the one that counts: a test's own output may look like one.
            if text.starts_with("Summary [") {
                outcome.summary.clear();
            }
            if text.starts_with("Summary [") || !outcome.summary.is_empty() {
                outcome.summary.push(text.to_owned());
            }
        }
    }
    Ok((outcomes, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_words_become_outcomes() {
        let console = "boot\r\nguest-tests: runtime\r\n   PASS [ 1s] a\r\n\
            \u{20}    Summary [ 9.0s] 2 tests run: 1 passed, 1 failed\r\n   FAIL [ 1s] b\r\n\
            guest-tested: runtime 100 9\r\nguest-tests: agent\r\n   PASS [ 1s] c\r\n";
        let mut copy = Vec::new();
        let (outcomes, whole) = listen(console.as_bytes(), &mut copy).unwrap();
        assert!(!whole, "the guest did not say that it ends");
        assert_eq!(outcomes.len(), 2);
        assert_eq!(outcomes[0].code, Some(100));
        assert_eq!(outcomes[0].took, Duration::from_secs(9));
        assert_eq!(outcomes[0].summary.len(), 2, "{:?}", outcomes[0].summary);
        assert_eq!(outcomes[1].code, None);
        assert!(String::from_utf8(copy).unwrap().contains("FAIL [ 1s] b"));
    }
}
