//! The table of a task definition's members: for people (`docs/task-definitions.md`) and for the code that
//! refuses (`acs/members/table.rs`), from `acs/members/members.toml`.
//!
//! What always holds: every member of the model has a row, and every row is of a member of the model;
//! every test that a row names is there. Otherwise nothing is generated, and `tidy` fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

const SOURCE: &str = "crates/services/ecs/src/acs/members/members.toml";
const TABLE: &str = "crates/services/ecs/src/acs/members/table.rs";
const DOCUMENT: &str = "docs/task-definitions.md";
const TESTS: &str = "crates/gantry/tests/end_to_end";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    task_definition: BTreeMap<String, Row>,
    overrides: BTreeMap<String, Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    works: Option<String>,
    note: Option<String>,
    refused: Option<String>,
    sample: Option<String>,
    at: Option<String>,
    not_applicable: Option<String>,
}

impl Row {
    fn covers_what_is_below(&self) -> bool {
        self.works.is_none()
    }
}

/// Writes both files, or with `check` fails if they are not what the source gives.
pub fn run(check: bool) -> anyhow::Result<()> {
    let root = super::root();
    let source: Source = super::read_toml(&root.join(SOURCE))?;
    let model: Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("models/ecs.json"))?)?;
    let tests = tests(&root.join(TESTS))?;
    let mut wrong = Vec::new();
    let mut sections = Vec::new();
    for (title, shape, rows) in [
        ("Task definition", "TaskDefinition", &source.task_definition),
        ("Overrides of a run", "TaskOverride", &source.overrides),
    ] {
        let mut members = Vec::new();
        walk(&model["shapes"], shape, "", &mut members)?;
        wrong.extend(problems(title, &members, rows, &tests));
        sections.push((title, members, rows));
    }
    if !wrong.is_empty() {
        bail!("{SOURCE}:\n  {}", wrong.join("\n  "));
    }
    let files = [
        (TABLE, super::format_rust(&table(&source))?),
        (DOCUMENT, document(&sections)),
    ];
    for (path, text) in files {
        let path: PathBuf = root.join(path);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            bail!("{} is not what {SOURCE} gives", path.display());
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Every member below a shape, by its path, in the model's order.
fn walk(shapes: &Value, shape: &str, prefix: &str, out: &mut Vec<String>) -> anyhow::Result<()> {
    let members = shapes[shape]["members"]
        .as_object()
        .with_context(|| format!("{shape} is not a structure of the model"))?;
    for (name, reference) in members {
        let path = format!("{prefix}{name}");
        out.push(path.clone());
        let mut target = reference["shape"].as_str().unwrap_or_default();
        while shapes[target]["type"] == "list" {
            target = shapes[target]["member"]["shape"]
                .as_str()
                .unwrap_or_default();
        }
        if shapes[target]["type"] == "structure" {
            walk(shapes, target, &format!("{path}."), out)?;
        }
    }
    Ok(())
}

/// The names of all end-to-end tests.
fn tests(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut is_test = false;
        for line in text.lines() {
            match line.trim().strip_prefix("fn ") {
                Some(rest) if is_test => {
                    names.extend(rest.split('(').next().map(str::to_owned));
                    is_test = false;
                }
                _ => is_test |= line.trim() == "#[test]",
            }
        }
    }
    Ok(names)
}

fn problems(
    title: &str,
    members: &[String],
    rows: &BTreeMap<String, Row>,
    tests: &BTreeSet<String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for member in members {
        if row_of(member, rows).is_none() {
            wrong.push(format!("{title}: member {member} of the model has no row"));
        }
    }
    for (key, row) in rows {
        let member = key.split(" | ").next().unwrap_or_default();
        if !members.iter().any(|known| known == member) {
            wrong.push(format!("{title}: the model has no member {member}"));
        }
        let kinds = [&row.works, &row.refused, &row.not_applicable];
        if kinds.iter().filter(|kind| kind.is_some()).count() != 1 {
            wrong.push(format!(
                "{title}: {key} is none or more than one of works, refused and not_applicable"
            ));
        }
        if row.refused.is_some() != row.sample.is_some() {
            wrong.push(format!(
                "{title}: {key} needs a sample exactly if it is refused"
            ));
        }
        if let Some(test) = &row.works
            && !tests.contains(test)
        {
            wrong.push(format!(
                "{title}: {key} names test {test}, which is not there"
            ));
        }
    }
    wrong
}

/// The member's own row, or that of the nearest member above it that covers what is below.
fn row_of<'a>(member: &str, rows: &'a BTreeMap<String, Row>) -> Option<&'a Row> {
    if let Some(row) = rows.get(member) {
        return Some(row);
    }
    let (above, _) = member.rsplit_once('.')?;
    row_of(above, rows).filter(|row| row.covers_what_is_below())
}

/// What the code that refuses says, and the samples that its test tries.
fn table(source: &Source) -> String {
    let mut text = String::from(
        "//! What is refused, and in which words. Made by `cargo xtask codegen` from `members.toml`; do not edit.\n\n\
         use super::Refused;\n\npub(super) const REFUSED: &[Refused] = &[\n",
    );
    for (prefix, rows) in [
        ("", &source.task_definition),
        ("overrides.", &source.overrides),
    ] {
        for (key, row) in rows {
            let (Some(reason), Some(sample)) = (&row.refused, &row.sample) else {
                continue;
            };
            let at_run_task = row.at.as_deref() == Some("RunTask");
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "Refused {{ member: {:?}, reason: {reason:?}, sample: {sample:?}, at_run_task: {at_run_task} }},",
                format!("{prefix}{key}"),
            );
        }
    }
    text.push_str("];\n");
    text
}

fn document(sections: &[(&str, Vec<String>, &BTreeMap<String, Row>)]) -> String {
    let mut text = String::from(
        "# Task definitions, member by member\n\n\
         <!-- Made by `cargo xtask codegen` from crates/services/ecs/src/acs/members/members.toml; do not edit. -->\n\n\
         Every member that ECS has, nested ones too, and what becomes of it. Nothing is ignored in silence:\n\n\
         - **works**: as in ECS. The test beside it shows it on real containers (`crates/gantry/tests/end_to_end`).\n\
         - **refused**: the task stops with this reason (`stoppedReason`), or RunTask answers with it where it says so.\n\
         - **not applicable**: nothing follows from it, and why.\n\n\
         Members that break a rule of ECS are refused by RegisterTaskDefinition in ECS's own words.\n",
    );
    for (title, members, rows) in sections {
        let _ = write!(text, "\n## {title}\n\n| member | | how |\n|---|---|---|\n");
        for member in members {
            if let Some(row) = row_of(member, rows) {
                line(&mut text, &format!("`{member}`"), row);
            }
            for (key, row) in *rows {
                if let Some((of, case)) = key.split_once(" | ")
                    && of == member
                {
                    line(&mut text, &format!("`{member}`: {case}"), row);
                }
            }
        }
    }
    text
}

fn line(text: &mut String, member: &str, row: &Row) {
    let shown = |reason: &str| {
        reason
            .replace("{container}", "NAME")
            .replace("{value}", "VALUE")
            .replace('|', "\\|")
    };
    let (what, how) = match (&row.works, &row.refused, &row.not_applicable) {
        (Some(test), _, _) => {
            let note = row
                .note
                .as_ref()
                .map(|note| format!("{note} "))
                .unwrap_or_default();
            ("works", format!("{note}`{test}`"))
        }
        (_, Some(reason), _) => {
            let at = row
                .at
                .as_ref()
                .map(|at| format!("{at}: "))
                .unwrap_or_default();
            ("refused", format!("{at}{}", shown(reason)))
        }
        (_, _, why) => ("not applicable", shown(why.as_deref().unwrap_or_default())),
    };
    let _ = writeln!(text, "| {member} | {what} | {how} |");
}
