//! `gantry explain`: why a task is pending, why it stopped, why tasks found no place, and what a service waits for.

use anyhow::{Context, bail};
use serde::Deserialize;

use super::question;
use crate::cli::DataDirOption;

const PATH: &str = "/_gantry/explain/task";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    task_arn: String,
    last_status: String,
    desired_status: String,
    sentences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceExplanation {
    service_arn: String,
    status: String,
    desired_count: u32,
    running_count: usize,
    pending_count: usize,
    sentences: Vec<String>,
}

/// Asks the running Gantry and prints its sentences.
#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
pub fn task(id: &str, cluster: String, options: &DataDirOption) -> anyhow::Result<()> {
    if !names_a_task(id) {
        return never_made(id, cluster, options);
    }
    // A task's ARN says its region; an id is of the installation's own.
    let explanation: Explanation =
        serde_json::from_str(&ask(options, id, &[("task", id)])?).context("the explanation")?;
    println!("{}", explanation.task_arn);
    println!(
        "last status {}, desired status {}",
        explanation.last_status, explanation.desired_status
    );
    for sentence in explanation.sentences {
        println!("- {sentence}");
    }
    Ok(())
}

/// Ids are 32 hexadecimal digits, which no family is likely to be.
fn names_a_task(text: &str) -> bool {
    text.starts_with("arn:") || (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A task that found no place has no id, so it is asked for by its task definition.
fn never_made(
    task_definition: &str,
    cluster: String,
    options: &DataDirOption,
) -> anyhow::Result<()> {
    let refused = Refused {
        cluster,
        task_definition: Some(task_definition.to_owned()),
        started_by: None,
        group: None,
    };
    let sentences = refusals(&refused, options)?;
    if sentences.is_empty() {
        bail!(
            "'{task_definition}' is no task's id, and no task of such a task definition was refused a place in the cluster {}, as far as they are kept",
            refused.cluster
        );
    }
    print(&sentences);
    Ok(())
}

/// Which refused placements are asked for.
pub struct Refused {
    pub cluster: String,
    pub task_definition: Option<String>,
    pub started_by: Option<String>,
    pub group: Option<String>,
}

/// Asks the running Gantry why tasks found no place, and prints its sentences.
#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
pub fn placement(refused: &Refused, options: &DataDirOption) -> anyhow::Result<()> {
    let sentences = refusals(refused, options)?;
    if sentences.is_empty() {
        println!("No such placement was refused, as far as they are kept.");
    }
    print(&sentences);
    Ok(())
}

fn refusals(refused: &Refused, options: &DataDirOption) -> anyhow::Result<Vec<String>> {
    let mut query = vec![("placement", refused.cluster.as_str())];
    let members = [
        ("taskDefinition", &refused.task_definition),
        ("startedBy", &refused.started_by),
        ("group", &refused.group),
    ];
    for (name, value) in members {
        query.extend(value.as_deref().map(|value| (name, value)));
    }
    serde_json::from_str(&ask(options, &refused.cluster, &query)?).context("the explanation")
}

#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
fn print(sentences: &[String]) {
    for sentence in sentences {
        println!("- {sentence}");
    }
}

/// Asks the running Gantry what a service waits for, and prints its sentences.
#[expect(
    clippy::print_stdout,
    reason = "the explanation is this command's result"
)]
pub fn service(name: &str, cluster: Option<&str>, options: &DataDirOption) -> anyhow::Result<()> {
    let mut query = vec![("service", name)];
    query.extend(cluster.map(|cluster| ("cluster", cluster)));
    let told: ServiceExplanation =
        serde_json::from_str(&ask(options, name, &query)?).context("the explanation")?;
    println!("{}", told.service_arn);
    println!(
        "{}: desired {}, running {}, pending {}",
        told.status, told.desired_count, told.running_count, told.pending_count
    );
    for sentence in told.sentences {
        println!("- {sentence}");
    }
    Ok(())
}

/// One question and its answer.
fn ask(options: &DataDirOption, named: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut answer = None;
    question::ask(options, PATH, named, query, |text| {
        answer = Some(text.to_owned());
        Ok(())
    })?;
    answer.context("Gantry said nothing")
}
