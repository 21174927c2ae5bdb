//! `cargo xtask codegen`: from AWS's service models to the types of `gantry_api`.
//!
//! Two steps. Models are taken from botocore at one pinned version, stripped to what is built
//! (see `strip`) and committed under `models/`; Rust is generated from the committed models
//! alone. So `--check` needs no network: it generates into memory and compares. The generated
//! code holds data and member tables only; everything that acts on them is written by hand.

mod botocore;
pub mod members;
mod model;
mod naming;
mod rust;
mod strip;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use model::Model;

/// What `models/operations.toml` says of one service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceChoice {
    /// Its folder in botocore.
    pub botocore: String,
    /// The Rust trait, and the prefix of its error enum.
    #[serde(rename = "trait")]
    pub trait_name: String,
    /// Whose words validation uses: `own`, `invalid-parameter`, or `front-end:CODE`.
    pub validation: String,
    pub operations: Vec<String>,
}

/// What `models/additions.toml` adds to the public models.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Additions {
    /// Members that clients send: service → shape → member → target.
    members: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    /// Members that are secrets, as `Shape.member`, per service.
    secrets: BTreeMap<String, Vec<String>>,
}

/// Refreshes models and generated code, or with `check` only tells whether they are current.
pub fn run(check: bool) -> anyhow::Result<()> {
    let root = root();
    let models = root.join("models");
    let choices: BTreeMap<String, ServiceChoice> = read_toml(&models.join("operations.toml"))?;
    let additions: Additions = read_toml(&models.join("additions.toml"))?;
    if !check {
        refresh_models(&models, &choices)?;
    }
    let mut files = BTreeMap::new();
    for (name, choice) in &choices {
        let path = models.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("{} is not there; run `cargo xtask codegen`", path.display())
        })?;
        let mut model = Model::parse(&text).with_context(|| format!("in {}", path.display()))?;
        model.add_members(additions.members.get(name))?;
        model.mark_secrets(additions.secrets.get(name))?;
        model.add_messages()?;
        model.check_operations(choice).with_context(|| {
            format!("models/{name}.json does not fit operations.toml; run `cargo xtask codegen`")
        })?;
        for (file, text) in rust::service(name, choice, &model)? {
            files.insert(PathBuf::from(name).join(file), format_rust(&text)?);
        }
    }
    files.insert(
        PathBuf::from("mod.rs"),
        format_rust(&rust::index(choices.keys()))?,
    );
    let target = root.join("crates/foundation/api/src/generated");
    if check {
        compare(&target, &files)?;
    } else {
        write(&target, &files)?;
    }
    members::run(check)
}

fn root() -> PathBuf {
    let mut here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.pop();
    here
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

fn refresh_models(models: &Path, choices: &BTreeMap<String, ServiceChoice>) -> anyhow::Result<()> {
    let botocore = botocore::Botocore::open()?;
    for (name, choice) in choices {
        let full = botocore.service_model(&choice.botocore)?;
        let stripped = strip::strip(&full, choice).with_context(|| format!("service {name}"))?;
        let mut text = serde_json::to_string_pretty(&stripped)?;
        text.push('\n');
        std::fs::write(models.join(format!("{name}.json")), text)?;
    }
    Ok(())
}

/// Generated code is formatted like any other, so that it can be read and its diffs are small.
fn format_rust(text: &str) -> anyhow::Result<String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("rustfmt is needed: `rustup component add rustfmt`")?;
    let mut stdin = child.stdin.take().context("rustfmt has no input")?;
    let text = text.to_owned();
    // Both pipes are pumped at once, because rustfmt may answer before it has read everything.
    let feeder = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    let fed = feeder
        .join()
        .map_err(|_| anyhow::anyhow!("feeding rustfmt panicked"))?;
    if !output.status.success() {
        bail!("rustfmt: {}", String::from_utf8_lossy(&output.stderr));
    }
    fed?;
    Ok(String::from_utf8(output.stdout)?)
}

fn write(target: &Path, files: &BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    for stale in stale(target, files)? {
        std::fs::remove_file(target.join(stale))?;
    }
    for (path, text) in files {
        let path = target.join(path);
        // An unchanged file keeps its time, so nothing is rebuilt for it.
        if std::fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
    }
    Ok(())
}

fn compare(target: &Path, files: &BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    let mut wrong: Vec<PathBuf> = stale(target, files)?;
    wrong.extend(
        files
            .iter()
            .filter(|(path, text)| {
                std::fs::read_to_string(target.join(path)).map_or(true, |old| old != **text)
            })
            .map(|(path, _)| path.clone()),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = wrong
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    bail!(
        "generated code is not current; run `cargo xtask codegen`: {}",
        list.join(", ")
    )
}

/// Files in the folder that are no longer generated.
fn stale(target: &Path, files: &BTreeMap<PathBuf, String>) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(target.join(&folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if !files.contains_key(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
