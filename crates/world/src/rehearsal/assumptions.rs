//! What a rehearsal takes for granted, and where that comes from: measured on the real tasks where there are
//! any, and said by whoever rehearses otherwise.

use std::time::Duration;

use gantry_ecs::tables::TaskReportRow;
use gantry_store::Table;
use serde::Serialize;

use super::CopiedRow;

/// What becomes of the tasks of the new revision once they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They run, and pass their health checks.
    Run,
    /// They run, and fail their health checks.
    Unhealthy,
    /// They stop before they run.
    Fail,
    /// They run for a second and end with exit code 1.
    Exit,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assumptions {
    /// To pull the images of a task, on a container instance that did not have them.
    pub pull: Duration,
    /// From the images being there to RUNNING.
    pub start: Duration,
    /// From the stop being decided to STOPPED.
    pub stop: Duration,
    pub tasks: Fate,
    /// After so long it ends, whatever there is still to wait for.
    pub horizon: Duration,
    /// How many real tasks the times were measured on; 0: they were not.
    pub measured_on: usize,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            pull: Duration::from_secs(5),
            start: Duration::from_secs(1),
            stop: Duration::from_secs(1),
            tasks: Fate::Run,
            horizon: Duration::from_secs(60 * 60),
            measured_on: 0,
        }
    }
}

impl Assumptions {
    /// The medians of what the reports of the real tasks say, as far as they say anything.
    pub fn measured(rows: &[CopiedRow]) -> Self {
        let reports = rows.iter().filter(|row| row.kind == TaskReportRow::KIND);
        let reports: Vec<TaskReportRow> = reports
            .filter_map(|row| serde_json::from_str(&row.value).ok())
            .collect();
        let pulls = reports.iter().filter_map(|it| {
            let (from, to) = (it.pull_started_at?, it.pull_stopped_at?);
            Some(to.since(from))
        });
        let starts = reports.iter().filter_map(|it| {
            let (from, to) = (it.pull_stopped_at?, it.started_at?);
            Some(to.since(from))
        });
        let assumed = Self::default();
        let starts: Vec<Duration> = starts.collect();
        Self {
            // What was there already was pulled in no time: those that were not are meant.
            pull: median(
                pulls
                    .filter(|it| *it >= Duration::from_millis(20))
                    .collect(),
            )
            .unwrap_or(assumed.pull),
            measured_on: starts.len(),
            start: median(starts).unwrap_or(assumed.start),
            ..assumed
        }
    }
}

fn median(mut all: Vec<Duration>) -> Option<Duration> {
    all.sort();
    all.get(all.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pull: [i64; 2], started: i64) -> CopiedRow {
        CopiedRow {
            kind: TaskReportRow::KIND.to_owned(),
            name: "default/x".to_owned(),
            schema: TaskReportRow::SCHEMA,
            value: format!(
                r#"{{"status":"RUNNING","changes":1,"pull_started_at":{},"pull_stopped_at":{},"started_at":{started}}}"#,
                pull[0], pull[1]
            ),
        }
    }

    #[test]
    fn times_are_those_of_the_real_tasks_where_there_are_any() {
        assert_eq!(Assumptions::measured(&[]), Assumptions::default());
        let rows = [
            report([0, 3000], 3040),
            report([0, 1], 61),
            report([0, 2000], 2050),
        ];
        let measured = Assumptions::measured(&rows);
        assert_eq!(measured.pull, Duration::from_millis(3000));
        assert_eq!(measured.start, Duration::from_millis(50));
        assert_eq!(measured.measured_on, 3);
    }
}
