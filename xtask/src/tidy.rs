//! `cargo xtask tidy`: what the compiler cannot check of the house.
//!
//! The arrows between crates, the bans of the design (clock, randomness, tokio, hash order and
//! `unsafe` where they may not be), generated code that is current, formats, lints, licences.
//! Every rule is a table here; a violation names the file, the line and the rule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::shell::{command, has, output, root, run as run_command, say};

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What takes seconds.
    Quick,
    /// Clippy, rustfmt and cargo-deny too.
    Full,
}

/// Who may use whom among Gantry's own crates. A crate that is not listed may use none.
const ARROWS: &[(&str, &[&str])] = &[
    ("gantry-arn", &[]),
    ("gantry-env", &["arn"]),
    ("gantry-api", &["arn", "env"]),
    ("gantry-store", &["arn", "env"]),
    ("gantry-archive", &["arn", "env", "store"]),
    ("gantry-reconcile", &["arn", "env", "store"]),
    ("gantry-placement", &["arn"]),
    (
        "gantry-ecs",
        &[
            "arn",
            "env",
            "api",
            "store",
            "archive",
            "reconcile",
            "placement",
        ],
    ),
    (
        "gantry-ecr",
        &["arn", "env", "api", "store", "archive", "reconcile"],
    ),
    (
        "gantry-logs",
        &["arn", "env", "api", "store", "archive", "reconcile"],
    ),
    (
        "gantry-iam",
        &["arn", "env", "api", "store", "archive", "reconcile"],
    ),
    ("gantry-runtime", &["arn", "env"]),
    ("gantry-network", &["arn", "env"]),
    ("gantry-agent", &["arn", "env", "api", "runtime", "network"]),
    (
        "gantry-world",
        &[
            "arn",
            "env",
            "api",
            "store",
            "reconcile",
            "placement",
            "ecs",
            "agent",
        ],
    ),
];

/// A word that may not stand in the code of some folders.
struct Ban {
    words: &'static [&'static str],
    folders: &'static [&'static str],
    except: &'static [&'static str],
    why: &'static str,
}

/// Cores and rules: what the world must be able to replay.
const PURE: &[&str] = &[
    "crates/foundation/arn/src",
    "crates/foundation/reconcile/src",
    "crates/services/placement/src",
    "crates/services/ecs/src",
    "crates/services/logs/src/model",
    "crates/services/ecr/src/model",
    "crates/services/iam/src/model",
    "crates/node/agent/src/core",
    "crates/world/src",
];

/// The thin shells inside those folders, which pump the cores with tokio.
const SHELLS: &[&str] = &[
    "crates/foundation/reconcile/src/shell.rs",
    "crates/services/ecs/src/acs/shell.rs",
    "crates/services/ecs/src/acs/shell/",
];

const BANS: &[Ban] = &[
    Ban {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "thread::sleep",
            "getrandom::",
            "rand::rng",
            "thread_rng",
        ],
        folders: &["crates"],
        except: &[
            "crates/foundation/env/src",
            "crates/node/runtime/src/shim",
            "/tests/",
            "/benches/",
            "/examples/",
        ],
        why: "only foundation/env touches the clock, randomness and timers",
    },
    Ban {
        // `std::thread::panicking` is no I/O, and tells whether a test has failed.
        words: &[
            "tokio::",
            "std::thread;",
            "thread::spawn",
            "thread::sleep",
            "thread::scope",
            "thread::park",
            "thread::Builder",
            "std::net::",
            "std::fs::",
        ],
        folders: PURE,
        except: SHELLS,
        why: "cores do no I/O and know no runtime, so that the world can pump them",
    },
    Ban {
        words: &["HashMap", "HashSet"],
        folders: PURE,
        except: SHELLS,
        why: "hash order would make a seed replay differently; use BTreeMap and BTreeSet",
    },
    Ban {
        words: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        folders: &["crates", "xtask"],
        except: &["crates/node/runtime/", "xtask/src/tidy.rs"],
        why: "unsafe code lives in node/runtime only",
    },
];

/// Runs every check and lists all that is wrong, not only the first.
pub fn run(depth: Depth) -> anyhow::Result<()> {
    say("tidy: arrows between crates, bans, generated code");
    let mut wrong = arrows()?;
    wrong.extend(bans()?);
    wrong.extend(dependencies_say_why()?);
    if let Err(error) = crate::codegen::run(true) {
        wrong.push(format!(
            "generated code is not current (run `cargo xtask codegen`): {error:#}"
        ));
    }
    if !wrong.is_empty() {
        bail!(
            "tidy found {} things:\n  {}",
            wrong.len(),
            wrong.join("\n  ")
        );
    }
    run_command(command("cargo").args(["fmt", "--all", "--check"]))?;
    if depth == Depth::Full {
        say("tidy: clippy");
        run_command(command("cargo").args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))?;
        licences()?;
    }
    Ok(())
}

fn arrows() -> anyhow::Result<Vec<String>> {
    let metadata: serde_json::Value = serde_json::from_str(&output(command("cargo").args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--offline",
    ]))?)?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        // The binary wires everything, and so do the fuzz targets; the chores are not part of the house.
        if matches!(name, "gantry" | "gantry-fuzz" | "xtask") {
            continue;
        }
        let allowed = allowed.get(name).copied().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let in_tests_only = dependency["kind"].as_str() == Some("dev");
            let Some(short) = used.strip_prefix("gantry-") else {
                continue;
            };
            if !in_tests_only && !allowed.contains(&short) {
                wrong.push(format!(
                    "{name} uses {used}, which stands on another floor (ARCHITECTURE.md)"
                ));
            }
        }
    }
    Ok(wrong)
}

fn bans() -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for file in output(command("git").args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?
    .lines()
    {
        let path = root().join(file);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for ban in BANS {
            let inside = ban.folders.iter().any(|folder| file.starts_with(folder));
            let excepted = ban.except.iter().any(|part| file.contains(part));
            if inside && !excepted {
                wrong.extend(banned_lines(file, &text, ban));
            }
        }
    }
    Ok(wrong)
}

fn banned_lines(file: &str, text: &str, ban: &Ban) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        // Tests at the end of a file may do as they like.
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        if line.starts_with("//") {
            continue;
        }
        // tokio's channels need no runtime, so the world can poll them by hand.
        let line = line.replace("tokio::sync", "");
        if let Some(word) = ban.words.iter().find(|word| line.contains(**word)) {
            found.push(format!("{file}:{}: `{word}`: {}", number + 1, ban.why));
        }
    }
    found
}

/// Each dependency from outside is a decision: the line above it says why.
fn dependencies_say_why() -> anyhow::Result<Vec<String>> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let mut wrong = Vec::new();
    let mut inside = false;
    let mut explained = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if line.starts_with('#') {
            explained = true;
        } else if line.trim().is_empty() {
            explained = false;
        } else if inside && line.contains('=') && !line.starts_with("gantry-") && !explained {
            wrong.push(format!(
                "Cargo.toml: `{line}` has no comment above it that says why"
            ));
        }
    }
    Ok(wrong)
}

/// Licences, bans and sources of every dependency, by cargo-deny. Advisories need a database from elsewhere.
fn licences() -> anyhow::Result<()> {
    if !has("cargo-deny") && !cargo_home().join("bin/cargo-deny").exists() {
        say("installing cargo-deny (once)");
        run_command(command("cargo").args(["install", "--locked", "--quiet", "cargo-deny"]))?;
    }
    say("tidy: licences, bans and sources of dependencies");
    run_command(command("cargo").args([
        "deny",
        "--all-features",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .unwrap_or_default()
}
