//! `gantry rehearse`: a CreateService or UpdateService call, tried on a copy of the real state.
//!
//! The copy is fetched from the running Gantry and the rehearsal happens here, in this process, so it takes
//! nothing from what it rehearses for.

use std::time::Duration;

use anyhow::{Context, bail};
use gantry_arn::{AccountId, Region};
use gantry_env::Timestamp;
use gantry_world::rehearsal::{Assumptions, Change, CopiedRow, Fate, Outcome, Rehearsal, Report};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::history::told;
use super::question;
use crate::cli::{OutputFormat, RehearseAs, RehearseOptions, RehearsedTasks};
use crate::duration::parse;
use crate::up::{ROWS_PATH, RowsAnswer};

/// How many steps are told from the beginning and from the end.
const TOLD_MAX: (usize, usize) = (60, 20);

/// Rehearses and prints what would happen. An error where that is anything but a steady state.
#[expect(clippy::print_stdout, reason = "the report is this command's result")]
pub fn run(options: &RehearseOptions) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&options.file)
        .with_context(|| format!("reading {}", options.file.display()))?;
    let change = change(&text, options.kind)
        .with_context(|| format!("the input in {}", options.file.display()))?;
    let named = named(&change);
    let copy = Copy::fetch(options, &named)?;
    let assumptions = assumptions(options, &copy.rows)?;
    let rehearsal = Rehearsal::of(
        copy.rows,
        copy.account,
        copy.region,
        copy.now,
        assumptions.clone(),
    );
    let rehearsal = rehearsal.map_err(anyhow::Error::msg)?;
    let report = rehearsal.run(change);
    let report = match report {
        Ok(report) => report,
        Err(error) => bail!("it would be refused: {}: {}", error.code, error.message),
    };
    match options.output {
        OutputFormat::Json => println!("{}", json(&assumptions, &report)?),
        OutputFormat::Text => print!("{}", words(&assumptions, &report)),
    }
    match &report.outcome {
        Outcome::Steady => Ok(()),
        Outcome::RolledBack => bail!("the change would be rolled back"),
        Outcome::Failed => bail!("the deployment would fail"),
        Outcome::Waits(_) => bail!("the service would not become steady"),
    }
}

/// The call: which one it is stands in its members, unless somebody says.
fn change(text: &str, kind: Option<RehearseAs>) -> anyhow::Result<Change> {
    let input: Value = serde_json::from_str(text).context("it is not JSON")?;
    let has = |name: &str| input.get(name).is_some();
    let kind = match kind {
        Some(kind) => kind,
        None if has("serviceName") && !has("service") => RehearseAs::Create,
        None if has("service") && !has("serviceName") => RehearseAs::Update,
        None => bail!(
            "a CreateService names its service in `serviceName` and an UpdateService in `service`; this has both or none. Say which it is with --as"
        ),
    };
    Ok(match kind {
        RehearseAs::Create => Change::Create(Box::new(request(&input, "CreateService")?)),
        RehearseAs::Update => Change::Update(Box::new(request(&input, "UpdateService")?)),
    })
}

/// A member that the operation does not have would be ignored in silence otherwise.
fn request<T: DeserializeOwned + Serialize>(input: &Value, operation: &str) -> anyhow::Result<T> {
    let request: T = serde_json::from_value(input.clone())
        .with_context(|| format!("it is no input of {operation}"))?;
    let understood = serde_json::to_value(&request)?;
    let given = input.as_object().into_iter().flatten();
    let strange = given.filter(|(name, value)| !value.is_null() && understood.get(name).is_none());
    let strange: Vec<&str> = strange.map(|(name, _)| name.as_str()).collect();
    if !strange.is_empty() {
        bail!("{operation} has no member {}", strange.join(", "));
    }
    Ok(request)
}

/// What says the region, where the service or the cluster is named by its ARN.
fn named(change: &Change) -> String {
    let (service, cluster) = match change {
        Change::Create(input) => (input.service_name.clone(), input.cluster.clone()),
        Change::Update(input) => (input.service.clone(), input.cluster.clone()),
    };
    match service.starts_with("arn:") {
        true => service,
        false => cluster.unwrap_or_default(),
    }
}

struct Copy {
    account: AccountId,
    region: Region,
    now: Timestamp,
    rows: Vec<CopiedRow>,
}

impl Copy {
    fn fetch(options: &RehearseOptions, named: &str) -> anyhow::Result<Self> {
        let (mut copy, mut is_whole) = (None, false);
        question::ask(&options.data_dir, ROWS_PATH, named, &[], |text| {
            let answer = serde_json::from_str(text).context("a part of the copy")?;
            match (answer, &mut copy) {
                (
                    RowsAnswer::Of {
                        account,
                        region,
                        now_ms,
                    },
                    None,
                ) => {
                    copy = Some(Self {
                        account: account.parse().context("the account")?,
                        region: region.parse().context("the region")?,
                        now: Timestamp::from_millis(now_ms),
                        rows: Vec::new(),
                    });
                }
                (RowsAnswer::Rows(rows), Some(copy)) => copy.rows.extend(rows),
                (RowsAnswer::End, Some(_)) => is_whole = true,
                _ => bail!("the copy came in a strange order"),
            }
            Ok(())
        })?;
        copy.filter(|_| is_whole)
            .context("Gantry ended before the copy of its state was whole")
    }
}

fn assumptions(options: &RehearseOptions, rows: &[CopiedRow]) -> anyhow::Result<Assumptions> {
    let measured = Assumptions::measured(rows);
    let or = |given: &Option<String>, measured: Duration| match given {
        Some(text) => parse(text),
        None => Ok(measured),
    };
    Ok(Assumptions {
        pull: or(&options.pull, measured.pull)?,
        start: or(&options.start, measured.start)?,
        stop: or(&options.stop, measured.stop)?,
        horizon: parse(&options.horizon)?,
        tasks: match options.tasks {
            RehearsedTasks::Run => Fate::Run,
            RehearsedTasks::Unhealthy => Fate::Unhealthy,
            RehearsedTasks::Fail => Fate::Fail,
            RehearsedTasks::Exit => Fate::Exit,
        },
        ..measured
    })
}

fn json(assumptions: &Assumptions, report: &Report) -> anyhow::Result<String> {
    let mut all = serde_json::to_value(report)?;
    all["assumptions"] = serde_json::json!({
        "pullMs": assumptions.pull.as_millis(),
        "startMs": assumptions.start.as_millis(),
        "stopMs": assumptions.stop.as_millis(),
        "tasks": assumptions.tasks,
        "measuredOn": assumptions.measured_on,
    });
    Ok(serde_json::to_string_pretty(&all)?)
}

fn words(assumptions: &Assumptions, report: &Report) -> String {
    let mut lines = vec![assumed(assumptions), String::new()];
    match report.findings.is_empty() {
        true => lines.push("Nothing speaks against it beforehand.".to_owned()),
        false => lines.push("What would go wrong:".to_owned()),
    }
    let findings = report.findings.iter();
    lines.extend(findings.map(|it| format!("- {}: {}", name(it.wrong), it.message)));
    lines.extend([String::new(), "What would happen:".to_owned()]);
    let told = report.steps.iter().filter_map(|step| {
        let (who, what) = told(&step.event)?;
        Some(format!("{:>10}  {who:<13} {what}", seconds(step.after_ms)))
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() {
        lines.push("Nothing: it is as it shall be.".to_owned());
    }
    lines.extend(folded(told));
    lines.push(String::new());
    let after = seconds(report.ended_after_ms);
    match &report.outcome {
        Outcome::Steady => lines.push(format!("After {after} the service is steady.")),
        Outcome::RolledBack => lines.push(format!(
            "After {after} the service is steady again, rolled back."
        )),
        Outcome::Failed => lines.push(format!("After {after} the deployment has failed.")),
        Outcome::Waits(because) => {
            lines.push(format!(
                "After {after} it is not over. The service then says:"
            ));
            lines.extend(because.iter().map(|it| format!("- {it}")));
        }
    }
    lines.push(format!(
        "At no time were fewer than {} of its tasks RUNNING, or more than {} RUNNING or PENDING.",
        report.least_running, report.most_tasks
    ));
    lines.join("\n") + "\n"
}

/// A program that ends over and over does so thousands of times in an hour: the beginning and the end tell it.
fn folded(mut told: Vec<String>) -> Vec<String> {
    let (first, last) = TOLD_MAX;
    if told.len() <= first + last + 1 {
        return told;
    }
    let rest = told.split_off(told.len() - last);
    let more = told.split_off(first).len();
    told.push(format!(
        "{:>10}  {more} more steps, which `--output json` has",
        "..."
    ));
    told.extend(rest);
    told
}

fn assumed(assumptions: &Assumptions) -> String {
    let millis = |it: Duration| seconds(u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
    let measured = match assumptions.measured_on {
        0 => "assumed, because no task has run yet".to_owned(),
        1 => "as measured on the one task that is known".to_owned(),
        many => format!("as measured on the {many} tasks that are known"),
    };
    let tasks = match assumptions.tasks {
        Fate::Run => "run and pass their health checks",
        Fate::Unhealthy => "run and fail their health checks",
        Fate::Fail => "stop before they run",
        Fate::Exit => "end with exit code 1 after a second",
    };
    format!(
        "On these assumptions: images are pulled within {} where they are not there yet, a task runs {} after that ({measured}, unless --pull and --start say otherwise), and stops within {}; tasks of the new revision {tasks} (--tasks).",
        millis(assumptions.pull),
        millis(assumptions.start),
        millis(assumptions.stop),
    )
}

fn name(wrong: gantry_world::rehearsal::Wrong) -> &'static str {
    use gantry_world::rehearsal::Wrong;
    match wrong {
        Wrong::BoundsDeadlock => "the minimum and the maximum deadlock",
        Wrong::PortsCollide => "host ports collide",
        Wrong::NoCapacity => "capacity is not there",
        Wrong::BreakerNeverOpens => "the circuit breaker may never open",
    }
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_thousands_of_steps_the_first_and_the_last_are_told() {
        let steps = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        let (first, last) = TOLD_MAX;
        assert_eq!(folded(steps(first + last + 1)), steps(first + last + 1));
        let told = folded(steps(5000));
        assert_eq!(told.len(), first + 1 + last);
        assert_eq!(told[..first], steps(first));
        let more = 5000 - first - last;
        assert!(
            told[first].contains(&format!("{more} more steps")),
            "{}",
            told[first]
        );
        assert_eq!(told.last().map(String::as_str), Some("4999"));
    }

    #[test]
    fn which_call_it_is_stands_in_its_members() {
        let create = change(r#"{"serviceName":"web","taskDefinition":"web"}"#, None);
        assert!(matches!(create, Ok(Change::Create(_))));
        let update = change(r#"{"service":"web","desiredCount":3}"#, None);
        assert!(matches!(update, Ok(Change::Update(_))));
        let neither = change(r#"{"desiredCount":3}"#, None).unwrap_err();
        assert!(neither.to_string().contains("--as"), "{neither}");
        let strange = change(r#"{"service":"web","desiredCuont":3}"#, None).unwrap_err();
        assert!(
            strange.to_string().contains("no member desiredCuont"),
            "{strange}"
        );
        assert!(change("{", None).is_err());
    }
}
