//! `cargo xtask guest`: the same end-to-end tests on a machine whose cgroups are version 2 only.
//!
//! The machine is emulated (qemu with Debian's cloud kernel), so it runs anywhere and takes its time:
//! this is a chore of its own, not part of the tests. Its root file system is bootstrapped from Debian
//! once and kept in the user's cache folder; every run gets a throw-away copy of it, and a second disk
//! with the programs that were just built.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::setup::{self, Wanted};
use crate::shell::{self, command, is_root, say};

/// What the user said on the command line.
pub struct Options {
    /// Names of tests, or parts of them, as the test programs take them; all if there is none.
    pub filters: Vec<String>,
    /// Processors of the guest.
    pub processors: u32,
}

/// Debian packages of the guest, besides its minimal system.
const PACKAGES: &str = "linux-image-cloud-amd64,busybox-static,iproute2,nftables,procps,kmod,\
    ca-certificates,curl,skopeo,buildah,umoci,awscli,python3,python3-boto3,strace,findutils";

/// Packages that `debootstrap` leaves half configured, because it follows no alternatives.
const CONFIGURE: &str = "mount -t proc proc /proc; apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -f -y -qq --no-install-recommends; umount /proc";

/// A guest needs about this much longer for the same thing than the machine that emulates it.
const PATIENCE: u32 = 12;

/// The first process of the guest. The last line tells the host how it went.
const INIT: &str = r#"#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
modprobe -a overlay veth nf_tables 2>/dev/null
mkdir -p /payload
mount -o ro /dev/vdb /payload
bash /payload/run
echo "guest-tests-ended-with: $?"
busybox poweroff -f
"#;

/// Builds, boots, tests; an error unless every test program in the guest succeeded.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !is_root() {
        bail!("bootstrapping a root file system needs root: use `sudo -E cargo xtask guest`");
    }
    setup::run(Wanted {
        tests: true,
        guest: true,
        ..Wanted::default()
    })?;
    let cache = cache_folder()?.join("guest");
    let root = root_file_system(&cache)?;
    say("building the tests");
    let programs = test_programs()?;
    let scratch = shell::output(command("mktemp").args(["-d", "/tmp/gantry-guest-XXXXXX"]))?;
    let scratch = PathBuf::from(scratch.trim());
    let outcome = boot(options, &root, &programs, &scratch);
    std::fs::remove_dir_all(&scratch)?;
    outcome
}

fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME")?).join(".cache"),
    };
    Ok(cache.join("gantry"))
}

/// Where the guest's root file system lies, made if it is not there yet.
fn root_file_system(cache: &Path) -> anyhow::Result<PathBuf> {
    let root = cache.join("root");
    if root.exists() {
        return Ok(root);
    }
    say("bootstrapping Debian for the guest (once)");
    std::fs::create_dir_all(cache)?;
    let half = cache.join("root.half");
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    // What it says of packages that it leaves for apt-get is no error.
    let bootstrapped = command("debootstrap")
        .args(["--variant=minbase", &format!("--include={PACKAGES}")])
        .arg("bookworm")
        .arg(&half)
        .stdout(Stdio::null())
        .status()?;
    if !half.join("usr/bin/apt-get").exists() {
        bail!("debootstrap made no Debian ({bootstrapped})");
    }
    std::fs::copy("/etc/resolv.conf", half.join("etc/resolv.conf"))?;
    shell::run(
        command("chroot")
            .arg(&half)
            .args(["sh", "-c", CONFIGURE])
            .stdout(Stdio::null()),
    )?;
    let init = half.join("gantry-guest");
    std::fs::write(&init, INIT)?;
    shell::run(command("chmod").arg("+x").arg(&init))?;
    std::fs::rename(&half, &root)?;
    Ok(root)
}

/// The programs that the guest runs, in this order: what is nearest to the kernel first.
fn test_programs() -> anyhow::Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for package in ["gantry-runtime", "gantry"] {
        let built = shell::output(command("cargo").args([
            "test",
            "--no-run",
            "--quiet",
            "--message-format=json",
            "--package",
            package,
            "--tests",
            "--bins",
        ]))?;
        for line in built.lines() {
            let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            let kinds = message["target"]["kind"].to_string();
            if let (Some(program), true) = (message["executable"].as_str(), kinds.contains("test"))
            {
                programs.push(PathBuf::from(program));
            }
        }
    }
    Ok(programs)
}

/// The second disk: the programs at the paths that they were built for, and what to run.
fn payload(options: &Options, programs: &[PathBuf], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Every program that the tests start was built beside them.
    let debug = programs
        .first()
        .and_then(|program| program.parent()?.parent())
        .context("the folder of the build")?;
    let mut script = format!("mkdir -p {0}/deps\n", debug.display());
    let mut started = vec![debug.join("gantry")];
    started.extend(programs.iter().cloned());
    for entry in std::fs::read_dir(debug)?.flatten() {
        let path = entry.path();
        let is_helper = path.extension().is_none() && path.is_file();
        if is_helper && !started.contains(&path) && path.file_name().is_some_and(|n| n != "xtask") {
            started.push(path);
        }
    }
    for (number, program) in started.iter().enumerate() {
        let copy = folder.join(number.to_string());
        shell::run(
            command("objcopy")
                .arg("--strip-debug")
                .arg(program)
                .arg(&copy),
        )?;
        script += &format!("ln -sf /payload/{number} {}\n", program.display());
    }
    script += &format!("export GANTRY_TEST_PATIENCE={PATIENCE}\nworst=0\n");
    for program in programs {
        script += &format!(
            "echo; echo {0}; {0} --test-threads {1} --skip terraform {2} || worst=1\n",
            program.display(),
            options.processors,
            options.filters.join(" "),
        );
    }
    script += "exit $worst\n";
    std::fs::write(folder.join("run"), script)?;
    Ok(())
}

fn boot(
    options: &Options,
    root: &Path,
    programs: &[PathBuf],
    scratch: &Path,
) -> anyhow::Result<()> {
    say("making the guest's disks");
    let folder = scratch.join("payload");
    payload(options, programs, &folder)?;
    let disk = |from: &Path, name: &str, size: &str| {
        let image = scratch.join(name);
        let made = command("mke2fs")
            .args(["-q", "-t", "ext4", "-d"])
            .arg(from)
            .arg(&image)
            .arg(size)
            .status()?;
        anyhow::ensure!(made.success(), "mke2fs failed");
        Ok(format!("file={},if=virtio,format=raw", image.display()))
    };
    let root_disk = disk(root, "root.img", "8G")?;
    let payload_disk = disk(&folder, "payload.img", "3G")?;
    let kernel = newest(&root.join("boot"), "vmlinuz-")?;
    let initrd = newest(&root.join("boot"), "initrd.img-")?;
    say("booting; an emulated machine is ten times slower, so this takes a while");
    let console = scratch.join("console");
    let mut qemu = command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max"])
        .args(["-smp", &options.processors.to_string(), "-m", "6144"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-drive", &root_disk, "-drive", &payload_disk])
        .args(["-chardev", "stdio,id=out,signal=off"])
        .args(["-serial", "chardev:out", "-monitor", "none"])
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet root=/dev/vda rw init=/gantry-guest",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut guest = qemu.spawn().context("qemu")?;
    let shown = guest.stdout.take().context("the guest's console")?;
    let verdict = relay(shown, &console)?;
    guest.wait()?;
    match verdict {
        Some(0) => Ok(()),
        Some(code) => bail!("tests failed in the guest (exit code {code})"),
        None => bail!("the guest ended before its tests did"),
    }
}

/// Shows the console as it comes; the exit code that the guest's first process told at its end.
fn relay(console: impl std::io::Read, copy: &Path) -> anyhow::Result<Option<i32>> {
    use std::io::{BufRead, BufReader, Write};
    let mut copy = std::fs::File::create(copy)?;
    let mut verdict = None;
    for line in BufReader::new(console).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        writeln!(copy, "{line}")?;
        eprintln!("    {line}");
        if let Some(code) = line.strip_prefix("guest-tests-ended-with: ") {
            verdict = code.trim().parse().ok();
        }
    }
    Ok(verdict)
}

fn newest(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    found
        .pop()
        .with_context(|| format!("no {prefix}… in {}", folder.display()))
}
