//! Why a task is pending, or why it stopped; why a placement was refused. In sentences, from rows.
//!
//! What always holds: pure, and only what the rows say: nothing here guesses.

mod service;

use gantry_env::Timestamp;
use gantry_store::Snapshot;

use crate::api::lookup::Rows;
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::model::task_view::TaskState;
use crate::tables::{
    ClusterRow, ContainerInstanceStatus, DesiredPhase, PlacementRejection, PlacementRejectionsRow,
    StopCode,
};

pub use service::{ServiceExplanation, service, service_counts};

/// What there is to say about one task.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    pub task_arn: String,
    pub last_status: String,
    pub desired_status: String,
    pub sentences: Vec<String>,
}

/// Explains a task, named by its id or ARN, in whatever cluster it is. `None`: there is no such
/// task, or no longer.
pub fn task(
    snapshot: &Snapshot,
    scope: &Scope,
    reference: &str,
    now: Timestamp,
) -> Option<Explanation> {
    let rows = Rows::new(snapshot, scope);
    let clusters = rows.list::<ClusterRow>("");
    let state = clusters.iter().find_map(|cluster| {
        let id = scope.task(&cluster.name, reference).ok()?;
        rows.task(&cluster.name, &id)
    })?;
    let sentences = match state.last_status() {
        status if status.is_stopped() => why_stopped(&state),
        LastStatus::Running => why_running(&rows, &state, now),
        LastStatus::Stopping => why_stopping(&rows, &state, now),
        _ => why_pending(&rows, &state, now),
    };
    Some(Explanation {
        task_arn: scope.task_arn(&state.spec.cluster, &state.spec.id),
        last_status: state.last_status().as_str().to_owned(),
        desired_status: crate::model::task_view::desired_text(state.desired_phase()).to_owned(),
        sentences,
    })
}

/// Which refused placements are asked for: those that match every member that is named.
#[derive(Debug, Clone, Default)]
pub struct PlacementFilter {
    /// A family, or a family and its revision.
    pub task_definition: Option<String>,
    pub started_by: Option<String>,
    pub group: Option<String>,
}

impl PlacementFilter {
    fn matches(&self, rejection: &PlacementRejection) -> bool {
        let definition = &rejection.task_definition;
        let family = definition.rsplit_once(':').map(|(family, _)| family);
        let same = |asked: &Option<String>, is: &Option<String>| asked.is_none() || asked == is;
        self.task_definition
            .as_deref()
            .is_none_or(|asked| asked == definition || Some(asked) == family)
            && same(&self.started_by, &rejection.started_by)
            && same(&self.group, &rejection.group)
    }
}

/// The latest placements in a cluster that found no place, newest first, and what spoke against
/// each container instance. Empty: none was refused, as far as they are kept. `None`: there is no such
/// cluster.
pub fn placements(
    snapshot: &Snapshot,
    scope: &Scope,
    cluster: &str,
    filter: &PlacementFilter,
    now: Timestamp,
) -> Option<Vec<String>> {
    let rows = Rows::new(snapshot, scope);
    rows.read::<ClusterRow>(cluster)?;
    let row = rows.read::<PlacementRejectionsRow>(cluster);
    let rejections = row.iter().flat_map(|row| &row.rejections);
    let sentences = rejections
        .filter(|rejection| filter.matches(rejection))
        .flat_map(|rejection| why_refused(rejection, now));
    Some(sentences.collect())
}

fn why_refused(rejection: &PlacementRejection, now: Timestamp) -> Vec<String> {
    let by = rejection.started_by.as_deref();
    let mut sentences = vec![format!(
        "{} ago, {} of {} tasks of {}{} found no place.",
        ago(rejection.at, now),
        rejection.unplaced,
        rejection.asked,
        rejection.task_definition,
        by.map(|by| format!(", started by {by},"))
            .unwrap_or_default()
    )];
    if rejection.instances > 1 {
        let counts: Vec<String> = rejection
            .counts
            .iter()
            .map(|(reason, count)| format!("{} on {count}", reason.trim_end_matches('.')))
            .collect();
        sentences.push(format!(
            "{} container instances were looked at: {}.",
            rejection.instances,
            counts.join(", ")
        ));
    }
    sentences.extend(rejection.reasons.iter().cloned());
    let kept = u32::try_from(rejection.reasons.len()).unwrap_or(u32::MAX);
    match rejection.instances.saturating_sub(kept) {
        0 => {}
        more => sentences.push(format!(
            "The reasons against {more} more container instances are only counted."
        )),
    }
    sentences
}

fn why_pending(rows: &Rows<'_>, state: &TaskState, now: Timestamp) -> Vec<String> {
    let spec = &state.spec;
    let mut sentences = vec![format!(
        "The task was placed on container instance {} {} ago, which holds {} CPU units and {} MiB for it.",
        spec.container_instance,
        ago(spec.created_at, now),
        spec.reserved.cpu,
        spec.reserved.memory
    )];
    if state.desired_phase() == DesiredPhase::Stopped {
        sentences.push("It is to stop before it ever ran.".to_owned());
        sentences.extend(why_to_stop(state));
    }
    sentences.extend(the_agent(rows, state, now));
    match state.report.as_deref() {
        None => sentences.push("Its agent has reported nothing of it yet.".to_owned()),
        Some(report) => {
            match (report.pull_started_at, report.pull_stopped_at) {
                (Some(started), None) => sentences.push(format!(
                    "Its images have been pulling for {}.",
                    ago(started, now)
                )),
                (Some(_), Some(_)) => {
                    sentences
                        .push("Its images are there; its containers are being started.".to_owned());
                }
                _ => {}
            }
            for container in &report.containers {
                let why = container.reason.as_deref().map(|why| format!(": {why}"));
                sentences.push(format!(
                    "Container {} is {}{}.",
                    container.name,
                    container.status,
                    why.unwrap_or_default()
                ));
            }
        }
    }
    sentences
}

fn why_running(rows: &Rows<'_>, state: &TaskState, now: Timestamp) -> Vec<String> {
    let since = state.report.as_ref().and_then(|report| report.started_at);
    let mut sentences = vec![match since {
        Some(since) => format!("The task has been running for {}.", ago(since, now)),
        None => "The task is running.".to_owned(),
    }];
    sentences.extend(the_agent(rows, state, now));
    sentences
}

fn why_stopping(rows: &Rows<'_>, state: &TaskState, now: Timestamp) -> Vec<String> {
    let mut sentences = why_to_stop(state);
    let since = state.stop().map(|stop| ago(stop.since, now));
    sentences.push(format!(
        "Its containers have been told to stop {} ago; they have until their stop timeout.",
        since.unwrap_or_default()
    ));
    sentences.extend(the_agent(rows, state, now));
    sentences
}

fn why_stopped(state: &TaskState) -> Vec<String> {
    let mut sentences = why_to_stop(state);
    let given_up = state
        .desired
        .as_ref()
        .is_some_and(|desired| desired.given_up_at.is_some());
    if given_up
        && state
            .report
            .as_ref()
            .is_none_or(|report| report.stopped_at.is_none())
    {
        sentences.push(
            "Its container instance was deregistered, so nobody could report how its containers ended."
                .to_owned(),
        );
    }
    for container in state.report.iter().flat_map(|report| &report.containers) {
        let exit = match container.exit_code {
            Some(code) => format!("ended with exit code {code}{}", meaning(code)),
            None => "never ran".to_owned(),
        };
        // Mostly the task's reason is that of one of its containers, and was just told.
        let why = container.reason.as_deref();
        let why =
            why.filter(|why| state.stop().and_then(|stop| stop.reason).as_deref() != Some(*why));
        let told = match why {
            Some(why) => format!("{exit}: {why}"),
            None => exit,
        };
        sentences.push(sentence(&format!("Container {} {told}", container.name)));
    }
    sentences
}

/// Reasons come from many places, with and without a full stop.
fn sentence(text: &str) -> String {
    match text.ends_with(['.', '!', '?']) {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

/// Exit codes above 128 are signals, which few people know by number.
fn meaning(code: i32) -> &'static str {
    match code {
        137 => " (SIGKILL: killed, by a stop that took too long or for want of memory)",
        143 => " (SIGTERM: it was asked to stop and did)",
        139 => " (SIGSEGV: it crashed)",
        134 => " (SIGABRT: it aborted)",
        126 => " (its command could not be executed)",
        127 => " (its command was not found)",
        _ => "",
    }
}

fn why_to_stop(state: &TaskState) -> Vec<String> {
    let Some(stop) = state.stop() else {
        return vec!["Its node stopped it and gave no reason.".to_owned()];
    };
    let who = match stop.code {
        StopCode::TaskFailedToStart => "The task failed to start",
        StopCode::EssentialContainerExited => {
            "The task stopped because one of its essential containers ended"
        }
        StopCode::UserInitiated => "Somebody stopped the task",
        StopCode::ServiceSchedulerInitiated => "Its service stopped the task",
        StopCode::SpotInterruption => "Its capacity was taken back",
        StopCode::TerminationNotice => "Its container instance is being terminated",
        StopCode::InfrastructureHealth => "Its infrastructure was not healthy",
    };
    vec![match stop.reason {
        Some(reason) => format!("{who}: {}", sentence(&reason)),
        None => format!("{who}."),
    }]
}

/// Whether somebody is there to do anything for the task.
fn the_agent(rows: &Rows<'_>, state: &TaskState, now: Timestamp) -> Option<String> {
    let spec = &state.spec;
    let instance = rows.container_instance(&spec.cluster, &spec.container_instance);
    match instance.map(|row| row.status) {
        None | Some(ContainerInstanceStatus::Inactive) => {
            return Some("Its container instance was deregistered.".to_owned());
        }
        Some(ContainerInstanceStatus::Active | ContainerInstanceStatus::Draining) => {}
    }
    match rows.session(&spec.cluster, &spec.container_instance) {
        None => Some("The agent of its container instance has never connected.".to_owned()),
        Some(session) if !session.connected => Some(format!(
            "The agent of its container instance has been disconnected for {}.",
            session
                .since
                .map(|since| ago(since, now))
                .unwrap_or_default()
        )),
        Some(_) => None,
    }
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
