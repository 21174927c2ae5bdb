//! `gantry history`: what happened to a service, as a line of time.

use anyhow::{Context, bail};
use gantry_ecs::tables::{ChangeKind, StateChange};
use gantry_env::{Env, Timestamp};
use serde_json::{Value, json};

use super::question;
use crate::cli::{HistoryOptions, OutputFormat};
use crate::up::HISTORY_PATH;

/// Asks the running Gantry and prints what happened, oldest first.
#[expect(clippy::print_stdout, reason = "the history is this command's result")]
pub fn service(options: &HistoryOptions) -> anyhow::Result<()> {
    let since = match &options.since {
        Some(since) => (Env::real().now() - crate::duration::parse(since)?).as_millis(),
        None => 0,
    };
    let since = since.to_string();
    let mut query = vec![("service", options.name.as_str()), ("since", &since)];
    query.extend(options.cluster.as_deref().map(|it| ("cluster", it)));
    let mut all: Vec<StateChange> = Vec::new();
    question::ask(
        &options.data_dir,
        HISTORY_PATH,
        &options.name,
        &query,
        |page| {
            let page: Page = serde_json::from_str(page).context("a page of the history")?;
            match page {
                Page::Events(events) => all.extend(events),
                Page::Failed(why) => bail!(why),
            }
            Ok(())
        },
    )?;
    match options.output {
        OutputFormat::Json => {
            let all: Vec<Value> = all.iter().map(whole).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        OutputFormat::Text if all.is_empty() => {
            println!("Nothing happened to it in that time.");
        }
        OutputFormat::Text => all.iter().filter_map(line).for_each(|it| println!("{it}")),
    }
    Ok(())
}

/// What the route answers, page after page.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Page {
    Events(Vec<StateChange>),
    Failed(String),
}

fn whole(change: &StateChange) -> Value {
    json!({
        "id": change.id,
        "at": change.at.to_string(),
        "kind": change.kind,
        "slot": change.slot,
        "resource": change.resource,
        "detailType": change.kind.detail_type(),
        "detail": change.detail,
    })
}

/// One line; none for what another line says in better words.
fn line(change: &StateChange) -> Option<String> {
    let (who, what) = told(change)?;
    Some(format!("{}  {who:<13} {what}", clock(change.at)))
}

/// Who tells what, in words.
pub fn told(change: &StateChange) -> Option<(String, String)> {
    let detail = &change.detail;
    let text = |name: &str| detail[name].as_str().unwrap_or_default().to_owned();
    let (who, what) = match change.kind {
        // Each comes with a message of the service's own.
        ChangeKind::ServiceAction => return None,
        ChangeKind::Request => (
            "asked".to_owned(),
            format!("{} (by {})", text("message"), text("by")),
        ),
        ChangeKind::ServiceMessage => ("service".to_owned(), message(&text("message"))),
        ChangeKind::Deployment => {
            let state = text("eventName").replace("SERVICE_DEPLOYMENT_", "");
            (
                "deployment".to_owned(),
                format!("{} {state}: {}", text("deploymentId"), text("reason")),
            )
        }
        ChangeKind::Task => {
            let slot = change.slot.map(|slot| format!(" slot {slot}"));
            (format!("task{}", slot.unwrap_or_default()), task(change))
        }
    };
    Some((who, what))
}

/// A message without the service that everybody knows it is of.
fn message(text: &str) -> String {
    match text
        .strip_prefix("(service ")
        .and_then(|rest| rest.split_once(") "))
    {
        Some((_, rest)) => rest.to_owned(),
        None => text.to_owned(),
    }
}

fn task(change: &StateChange) -> String {
    let detail = &change.detail;
    let text = |name: &str| detail[name].as_str().unwrap_or_default();
    let last = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
    let id = last(&change.resource);
    match text("lastStatus") {
        "PENDING" if text("desiredStatus") == "RUNNING" => format!(
            "{id} PENDING: {} on {}, by {}",
            last(text("taskDefinitionArn")),
            last(text("containerInstanceArn")),
            text("startedBy")
        ),
        status if text("desiredStatus") == "STOPPED" => {
            let containers = detail["containers"].as_array();
            let exits: Vec<String> = containers
                .into_iter()
                .flatten()
                .filter_map(|it| {
                    let name = it["name"].as_str()?;
                    match (it["exitCode"].as_i64(), it["reason"].as_str()) {
                        (Some(code), Some(why)) => Some(format!("{name} ended with {code}: {why}")),
                        (Some(code), None) => Some(format!("{name} ended with {code}")),
                        (None, Some(why)) => Some(format!("{name}: {why}")),
                        (None, None) => None,
                    }
                })
                .collect();
            let exits = match exits.is_empty() {
                true => String::new(),
                false => format!(" ({})", exits.join("; ")),
            };
            format!(
                "{id} {status}: {} {}{exits}",
                text("stopCode"),
                text("stoppedReason")
            )
        }
        status => format!("{id} {status}"),
    }
}

/// A moment as a line begins with it.
fn clock(at: Timestamp) -> String {
    at.to_string().replace('T', " ").replace('Z', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ChangeKind, detail: Value) -> StateChange {
        StateChange {
            id: "id".to_owned(),
            at: Timestamp::from_millis(1_575_069_193_087),
            kind,
            cluster: Default::default(),
            service: Some("web".parse().unwrap()),
            slot: Some(2),
            resource: "arn:aws:ecs:us-east-1:1:task/default/abc".to_owned(),
            detail,
        }
    }

    #[test]
    fn a_task_that_ended_says_how_and_in_which_slot() {
        let told = change(
            ChangeKind::Task,
            json!({
                "lastStatus": "STOPPED", "desiredStatus": "STOPPED",
                "stopCode": "EssentialContainerExited",
                "stoppedReason": "Essential container in task exited",
                "containers": [{ "name": "web", "exitCode": 3 }, { "name": "side" }],
            }),
        );
        assert_eq!(
            line(&told).unwrap(),
            "2019-11-29 23:13:13.087  task slot 2   abc STOPPED: EssentialContainerExited Essential container in task exited (web ended with 3)"
        );
    }

    #[test]
    fn a_message_is_shown_once_and_without_the_services_name() {
        let said = change(
            ChangeKind::ServiceMessage,
            json!({ "message": "(service web) has reached a steady state." }),
        );
        assert!(
            line(&said)
                .unwrap()
                .ends_with("service       has reached a steady state.")
        );
        let action = change(
            ChangeKind::ServiceAction,
            json!({ "eventName": "SERVICE_STEADY_STATE" }),
        );
        assert_eq!(line(&action), None);
    }
}
