//! The guest's own disk: a minimal Debian with its kernel and the clients that tests use.
//!
//! It is made once, kept in the cache folder, and made again when what it is made of changes. It knows
//! nothing of Gantry: its first process hands over to the program on the second disk.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::shell::{self, command, say};

/// What the guest needs besides a minimal system.
const PACKAGES: &str = "linux-image-cloud-amd64 busybox-static iproute2 nftables procps kmod ca-certificates \
    curl openssl skopeo buildah umoci awscli docker-registry xmlsec1 python3 python3-venv strace findutils e2fsprogs \
    util-linux";

/// Debian's AWS clients know no AWS_ENDPOINT_URL, so those from PyPI come before them on the PATH. Its `aws` stays
/// for `aws logs tail`, which PyPI's has not.
const CLIENTS: &str = "awscli boto3";

/// What of that `debootstrap` can follow the dependencies of; the rest comes through apt-get.
const FIRST: &str = "ca-certificates,kmod";

/// In a mount namespace of its own, so that what it mounts goes with it.
const INSTALL: &str = "set -e; mount -t proc proc /proc; export DEBIAN_FRONTEND=noninteractive; \
    apt-get update -qq; apt-get install -f -y -qq --no-install-recommends; \
    apt-get install -y -qq --no-install-recommends PACKAGES; apt-get clean; \
    python3 -m venv /opt/clients; /opt/clients/bin/pip install --quiet --no-cache-dir CLIENTS";

/// How this machine reaches names, Debian and PyPI, and whom it trusts.
const SURROUNDINGS: &[&str] = &[
    "etc/resolv.conf",
    "etc/pip.conf",
    "etc/ssl/certs/ca-certificates.crt",
];

/// The first process of the guest.
const INIT: &str = "#!/bin/sh
export PATH=/opt/clients/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mkdir -p /payload
mount -o ro /dev/vdb /payload
exec bash /payload/init
";

/// What a guest is started from.
pub struct System {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// The system in the cache folder, made if it is not there or made of something else.
pub fn disk(cache: &Path) -> anyhow::Result<System> {
    let root = cache.join("root");
    let disk = cache.join("root.img");
    let stamp = cache.join("root.made-of");
    let made_of = format!("{PACKAGES}\n{CLIENTS}\n{INSTALL}\n{INIT}");
    let fresh = std::fs::read_to_string(&stamp).is_ok_and(|was| was == made_of);
    if !fresh || !disk.exists() {
        bootstrap(cache, &root)?;
        install(&root)?;
        say("making the guest's disk");
        disk_of(&root, &disk, "12G")?;
        std::fs::write(&stamp, made_of)?;
    }
    Ok(System {
        kernel: newest(&root.join("boot"), "vmlinuz-")?,
        initrd: newest(&root.join("boot"), "initrd.img-")?,
        disk,
    })
}

/// An ext4 file system in a file, with what lies in a folder.
pub fn disk_of(folder: &Path, image: &Path, size: &str) -> anyhow::Result<()> {
    let half = image.with_extension("img.half");
    let _ = std::fs::remove_file(&half);
    let made = command("mke2fs")
        .args(["-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d"])
        .arg(folder)
        .arg(&half)
        .arg(size)
        .stdout(Stdio::null())
        .status()?;
    if !made.success() {
        bail!("mke2fs failed: {made}");
    }
    std::fs::rename(&half, image)?;
    Ok(())
}

fn bootstrap(cache: &Path, root: &Path) -> anyhow::Result<()> {
    if root.exists() {
        return Ok(());
    }
    say("bootstrapping Debian for the guest (once)");
    let half = cache.join("root.half");
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    // What it says of packages that it leaves for apt-get is no error.
    let bootstrapped = command("debootstrap")
        .args(["--variant=minbase", &format!("--include={FIRST}")])
        .arg("bookworm")
        .arg(&half)
        .stdout(Stdio::null())
        .status()?;
    if !half.join("usr/bin/apt-get").exists() {
        bail!("debootstrap made no Debian ({bootstrapped})");
    }
    std::fs::rename(&half, root)?;
    Ok(())
}

fn install(root: &Path) -> anyhow::Result<()> {
    say("installing in the guest what the tests use");
    for file in SURROUNDINGS {
        let (from, to) = (Path::new("/").join(file), root.join(file));
        if from.exists() {
            std::fs::create_dir_all(to.parent().context("a folder")?)?;
            std::fs::copy(from, to)?;
        }
    }
    let install = INSTALL
        .replace("PACKAGES", PACKAGES)
        .replace("CLIENTS", CLIENTS);
    shell::run(
        command("unshare")
            .args(["--mount", "chroot"])
            .arg(root)
            .args(["sh", "-c", &install])
            .stdout(Stdio::null()),
    )?;
    let init = root.join("gantry-guest");
    std::fs::write(&init, INIT)?;
    shell::run(command("chmod").arg("+x").arg(&init))
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
