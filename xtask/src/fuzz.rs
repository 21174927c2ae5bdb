//! `cargo xtask fuzz`: the parsers against inputs that nobody thought of.
//!
//! What always holds: libFuzzer starts from the committed seeds (`fuzz/seeds/TARGET/`) and, by hand, from
//! what earlier runs found, which is in the user's cache folder; the checkout is not written to. The brief
//! runs of `cargo xtask test` do not depend on what was run before. An input that fails is printed in
//! hexadecimal with the command that replays it, and the other targets still run.
//! What it leaves to others: the targets and their laws (`fuzz/`), and the flags that ask LLVM for coverage
//! (`fuzz/instrument`; docs/decisions/0006-fuzzing-on-stable-rust.md).

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, bail};

use crate::shell::{command, root, run as run_command, say};

/// How long each target runs in `cargo xtask test`.
pub const BRIEFLY_S: u64 = 2;
const BY_HAND_S: u64 = 60;
/// The target itself fails after a second; this is for what never comes back.
const HANGS_AFTER_S: u64 = 10;
const MEMORY_MIB_MAX: u64 = 1024;
/// Longer inputs are replayed from their file instead of the command line.
const REPLAYED_BYTES_MAX: usize = 2048;

#[derive(Default)]
pub struct Options {
    /// All of them without one.
    pub target: Option<String>,
    /// For each target.
    pub seconds: Option<u64>,
    /// Tries the same inputs whenever nothing has changed: from the committed seeds alone, and from one number.
    pub is_repeatable: bool,
    /// Runs this input alone: hexadecimal digits, or a file.
    pub replay: Option<String>,
}

/// Builds the fuzzer and runs every target that is asked for, on every core.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let known = targets()?;
    let wanted: Vec<String> = match &options.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "there is no target {target}; there are {}",
            known.join(", ")
        ),
    };
    let program = build()?;
    let cache = cache_folder()?;
    if let Some(input) = &options.replay {
        let [target] = &wanted[..] else {
            bail!("name the target that the input is for");
        };
        return replay(&program, &cache, target, input);
    }
    let seconds = options.seconds.unwrap_or(BY_HAND_S);
    say(&format!(
        "fuzzing {} targets, {seconds} s each",
        wanted.len()
    ));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut waiting = wanted.iter();
    let mut running = Vec::new();
    let mut inputs = 0;
    let mut failed = Vec::new();
    loop {
        while running.len() < workers
            && let Some(target) = waiting.next()
        {
            let child = start(&program, &cache, target, seconds, options.is_repeatable)?;
            running.push((target, child));
        }
        if running.is_empty() {
            break;
        }
        let (target, child) = running.remove(0);
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        inputs += number_of(&said, "stat::number_of_executed_units:");
        if !done.status.success() {
            tell(target, &said)?;
            failed.push(target.as_str());
        }
    }
    if options.is_repeatable {
        std::fs::remove_dir_all(brief_folder(&cache))?;
    }
    if !failed.is_empty() {
        bail!("failing inputs were found for {}", failed.join(", "));
    }
    say(&format!(
        "{inputs} inputs to {} targets, and none broke a law",
        wanted.len()
    ));
    Ok(())
}

/// Every target has a folder of seeds; a test holds the two lists to each other.
fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(seeds())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn seeds() -> PathBuf {
    root().join("fuzz/seeds")
}

/// What runs have found: `$XDG_CACHE_HOME/gantry/fuzz`.
fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME")?).join(".cache"),
    };
    Ok(cache.join("gantry/fuzz"))
}

/// Gantry's own crates with coverage, in the folder and with the dependencies of every other build.
fn build() -> anyhow::Result<PathBuf> {
    say("building the fuzz targets");
    run_command(
        command("cargo")
            .args(["build", "--quiet", "--package", "gantry-fuzz"])
            .args(["--features", "engine", "--bin", "gantry-fuzz"])
            .env("RUSTC_WORKSPACE_WRAPPER", root().join("fuzz/instrument"))
            .env("CARGO_INCREMENTAL", "0"),
    )?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("debug/gantry-fuzz"))
}

fn start(
    program: &Path,
    cache: &Path,
    target: &str,
    seconds: u64,
    is_repeatable: bool,
) -> anyhow::Result<Child> {
    let failures = cache.join("failures");
    std::fs::create_dir_all(&failures)?;
    let mut fuzzer = command(program);
    if is_repeatable {
        // A folder of seeds that is the only one would be written to.
        let brief = brief_folder(cache).join(target);
        std::fs::create_dir_all(&brief)?;
        fuzzer.arg("-seed=1").arg(brief);
    } else {
        let found = cache.join("found").join(target);
        std::fs::create_dir_all(&found)?;
        fuzzer.arg(found);
    }
    fuzzer
        .env("GANTRY_FUZZ_TARGET", target)
        .arg(seeds().join(target))
        // It ends when so many whole seconds are over and one more has begun.
        .arg(format!("-max_total_time={}", (seconds - 1).max(1)))
        .arg(format!("-timeout={HANGS_AFTER_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", failures.display()))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", program.display()))
}

/// What a repeatable run finds, until it ends. Another one may run at the same time.
fn brief_folder(cache: &Path) -> PathBuf {
    cache.join(format!("brief-{}", std::process::id()))
}

fn number_of(said: &str, label: &str) -> u64 {
    said.lines()
        .filter_map(|line| line.strip_prefix(label))
        .filter_map(|number| number.trim().parse::<u64>().ok())
        .sum()
}

/// What failed, the input, and how to see it again.
fn tell(target: &str, said: &str) -> anyhow::Result<()> {
    eprintln!("\n{target}:");
    let is_noise = |line: &&str| {
        line.starts_with('#') || line.starts_with("INFO:") || line.starts_with("stat::")
    };
    let lines: Vec<&str> = said.lines().filter(|line| !is_noise(line)).collect();
    for line in &lines[lines.len().saturating_sub(40)..] {
        let cut: String = line.chars().take(1000).collect();
        eprintln!("  {cut}");
    }
    let Some(file) = said
        .lines()
        .find_map(|line| line.split_once("Test unit written to "))
        .map(|(_, file)| file.trim())
    else {
        return Ok(());
    };
    let input = std::fs::read(file).with_context(|| file.to_owned())?;
    let digits = hexadecimal(&input);
    eprintln!("the input, in hexadecimal: {digits}");
    let again = if input.len() > REPLAYED_BYTES_MAX {
        file
    } else {
        &digits
    };
    eprintln!("replay it with `cargo xtask fuzz {target} --replay {again}`");
    Ok(())
}

fn replay(program: &Path, cache: &Path, target: &str, input: &str) -> anyhow::Result<()> {
    let file = match bytes_of(input) {
        Some(bytes) => {
            std::fs::create_dir_all(cache)?;
            let file = cache.join(format!("replayed-{target}"));
            std::fs::write(&file, bytes)?;
            file
        }
        // Relative to where the chore was called.
        None => std::path::absolute(input)?,
    };
    run_command(
        command(program)
            .env("GANTRY_FUZZ_TARGET", target)
            .arg(format!("-timeout={HANGS_AFTER_S}"))
            .arg(format!("-artifact_prefix={}/", cache.display()))
            .arg(file),
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let is_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hexadecimal && digits.len().is_multiple_of(2)).then(|| {
        digits
            .as_bytes()
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    })
}
