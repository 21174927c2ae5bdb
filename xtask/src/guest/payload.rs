//! The second disk: what was just built, at the paths it was built for, nextest, and what to run.
//!
//! The tests come as a nextest archive, so that what runs in the guest is exactly what nextest would run
//! here: the same programs, filters and configuration (its profile `guest`), without cargo or a compiler.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{Area, Options, root};
use crate::shell::{self, command, say};

/// Mounts what a Debian machine has mounted, cgroups as systemd does, and runs the tests. It says what
/// the host must know in lines that begin with `guest-`.
const INIT: &str = "\
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
hostname guest
modprobe -a overlay veth nf_tables fuse loop tun 2>/dev/null
ulimit -n 65536
";

/// Builds the tests of the areas and puts them on a disk in the cache folder.
pub fn disk(cache: &Path, options: &Options, areas: &[Area]) -> anyhow::Result<PathBuf> {
    let folder = cache.join("payload");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    say("building the tests");
    let target = tests(cache, &folder, areas)?;
    // Where the tests were built and what they read there; the target folder may stand inside.
    let workspace = folder.join("workspace");
    sources(&workspace)?;
    if let Ok(inside) = target.strip_prefix(shell::root()) {
        std::fs::create_dir_all(workspace.join(inside))?;
    }
    std::fs::copy(nextest()?, folder.join("cargo-nextest"))?;
    std::fs::write(folder.join("init"), init(options, areas, &target))?;
    say("making the disk of the tests");
    let image = cache.join("payload.img");
    root::disk_of(&folder, &image, "4G")?;
    std::fs::remove_dir_all(&folder)?;
    Ok(image)
}

/// The archive of the tests, unpacked and without debug information; the folder they were built in.
fn tests(cache: &Path, folder: &Path, areas: &[Area]) -> anyhow::Result<PathBuf> {
    let archive = cache.join("tests.tar.zst");
    let mut build = command("cargo");
    build.args(["nextest", "archive", "--archive-file"]);
    build.arg(&archive);
    for area in areas {
        build.args(["--package", area.package()]);
    }
    shell::run(&mut build)?;
    shell::output(
        command("cargo")
            .args(["nextest", "list", "--archive-file"])
            .arg(&archive)
            .arg("--extract-to")
            .arg(folder),
    )?;
    std::fs::remove_file(&archive)?;
    for place in ["target/debug", "target/debug/deps"] {
        for entry in std::fs::read_dir(folder.join(place))?.flatten() {
            if entry.file_type()?.is_file() && entry.path().extension().is_none() {
                shell::run(command("objcopy").arg("--strip-debug").arg(entry.path()))?;
            }
        }
    }
    let metadata = std::fs::read(folder.join("target/nextest/cargo-metadata.json"))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata)?;
    let target = metadata["target_directory"].as_str();
    Ok(target
        .context("the target directory of the archive")?
        .into())
}

/// A copy of the checkout's own files, without what was built from them.
fn sources(workspace: &Path) -> anyhow::Result<()> {
    let listed = shell::output(command("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]))?;
    for name in listed.split_terminator('\0') {
        let from = shell::root().join(name);
        // A file that was removed and not yet committed is still listed.
        if !from.is_file() {
            continue;
        }
        let to = workspace.join(name);
        std::fs::create_dir_all(to.parent().context("a folder")?)?;
        std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// The program of nextest, which runs in the guest as it is: both are Debian.
fn nextest() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    folders.extend(cargo.map(|cargo| cargo.join("bin")));
    let mut programs = folders.iter().map(|folder| folder.join("cargo-nextest"));
    match programs.find(|program| program.is_file()) {
        Some(program) => Ok(program),
        None => bail!("cargo-nextest is not on the PATH"),
    }
}

fn init(options: &Options, areas: &[Area], target: &Path) -> String {
    let workspace = shell::root();
    let mut script = INIT.to_owned();
    for (from, to) in [("workspace", workspace.as_path()), ("target", target)] {
        let to = quoted(&to.display().to_string());
        script += &format!("mkdir -p {to}; mount --bind /payload/{from} {to}\n");
    }
    script += &format!(
        "cd {}\nexport GANTRY_TEST_PATIENCE={}\n",
        quoted(&workspace.display().to_string()),
        options.patience
    );
    if options.shell {
        script += "echo 'the tests: /payload/cargo-nextest; `exit` ends the guest'\n\
            setsid -c bash -i </dev/ttyS0 >/dev/ttyS0 2>&1\n";
        return script + "busybox poweroff -f\n";
    }
    for area in areas {
        script += &tests_of(options, *area);
    }
    script + "echo guest-ends\nbusybox poweroff -f\n"
}

/// What runs the tests of one area. Its output goes through a pipe, for a console is no place for a
/// progress bar.
fn tests_of(options: &Options, area: Area) -> String {
    let name = area.name();
    let metadata = "/payload/target/nextest";
    let mut run = format!(
        "echo guest-tests: {name}\nbegun=$SECONDS\n\
         /payload/cargo-nextest nextest run --profile guest --color never --no-fail-fast --no-tests pass \
         --cargo-metadata {metadata}/cargo-metadata.json --binaries-metadata {metadata}/binaries-metadata.json \
         --test-threads {} -E {}",
        options.processors,
        quoted(&area.tests()),
    );
    for filter in &options.filters {
        run += &format!(" {}", quoted(filter));
    }
    run + &format!(
        " </dev/null 2>&1 | cat\necho guest-tested: {name} ${{PIPESTATUS[0]}} $((SECONDS - begun))\n"
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reaches_nextest_as_one_word_whatever_is_in_it() {
        let options = Options {
            areas: Vec::new(),
            filters: vec!["it's; reboot".to_owned()],
            processors: 1,
            patience: 12,
            shell: false,
        };
        let run = tests_of(&options, Area::EndToEnd);
        assert!(run.contains(
            r"'package(=gantry) and not test(/^terraform::/)' 'it'\''s; reboot' </dev/null"
        ));
    }
}
