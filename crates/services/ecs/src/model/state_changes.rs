//! Events in EventBridge's form: what a task, a service or a deployment has become.
//!
//! What always holds: pure. The id of an event follows from what it tells of, so the same commit tried
//! again makes the same event. A task's event is made if and only if its `lastStatus` or its `desiredStatus`
//! is another than before, and carries the task's `version`, which grows with every change.
//! What it leaves to others: who writes them ([`write`] into the commit of the change), and for how long
//! they stay ([`crate::tables::StateChangesRow`]).

use gantry_api::ecs::{Container, SchedulingStrategy, Task};
use gantry_arn::{ClusterName, ServiceName};
use gantry_env::Timestamp;
use gantry_store::Transaction;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::absent::items;
use super::reference::Scope;
use super::task_view::TaskState;
use crate::api::identity::uuid_of;
use crate::tables::{
    ChangeKind, DeploymentState, Event, Rollout, ServiceRow, StateChange, StateChangesRow,
    state_changes_name,
};

/// Where service actions and deployments rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Info,
    Warn,
    Error,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// What a service is said to do or to suffer, in AWS's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceAction {
    SteadyState,
    /// Tasks of it stop again and again before they run.
    TaskStartImpaired,
    /// A task found no place: the reason of the API, such as `RESOURCE:CPU`.
    TaskPlacementFailure {
        reason: String,
    },
}

impl ServiceAction {
    fn rank_and_name(&self) -> (EventType, &'static str) {
        match self {
            Self::SteadyState => (EventType::Info, "SERVICE_STEADY_STATE"),
            Self::TaskStartImpaired => (EventType::Warn, "SERVICE_TASK_START_IMPAIRED"),
            Self::TaskPlacementFailure { .. } => {
                (EventType::Error, "SERVICE_TASK_PLACEMENT_FAILURE")
            }
        }
    }
}

/// Whether a task has become something else in a user's eyes.
pub fn has_changed(before: Option<&TaskState>, after: &TaskState) -> bool {
    before.is_none_or(|before| {
        before.last_status() != after.last_status()
            || before.desired_phase() != after.desired_phase()
    })
}

/// The event of a task. `task` is the task as DescribeTasks shows it after the change.
pub fn of_task(scope: &Scope, state: &TaskState, task: &Task, at: Timestamp) -> StateChange {
    let spec = &*state.spec;
    let version = task.version.unwrap_or_default();
    let name = spec.group.strip_prefix("service:");
    StateChange {
        id: derived(&format!("task/{}/{version}", spec.id)),
        at,
        kind: ChangeKind::Task,
        cluster: spec.cluster.clone(),
        service: name
            .filter(|_| spec.replica.is_some())
            .and_then(|name| name.parse().ok()),
        slot: spec.replica.as_ref().map(|replica| replica.slot),
        resource: scope.task_arn(&spec.cluster, &spec.id),
        detail: task_detail(task, at),
    }
}

/// EventBridge's detail of a task: DescribeTasks' members, with times as ISO 8601.
fn task_detail(task: &Task, at: Timestamp) -> Value {
    let mut detail = Map::new();
    let mut text = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            detail.insert(name.to_owned(), Value::String(value.clone()));
        }
    };
    text("availabilityZone", &task.availability_zone);
    text("clusterArn", &task.cluster_arn);
    text("containerInstanceArn", &task.container_instance_arn);
    text("cpu", &task.cpu);
    text("desiredStatus", &task.desired_status);
    text("group", &task.group);
    text("lastStatus", &task.last_status);
    text("memory", &task.memory);
    text("startedBy", &task.started_by);
    text("stoppedReason", &task.stopped_reason);
    text("taskArn", &task.task_arn);
    text("taskDefinitionArn", &task.task_definition_arn);
    let times = [
        ("connectivityAt", task.connectivity_at),
        ("createdAt", task.created_at),
        ("executionStoppedAt", task.execution_stopped_at),
        ("pullStartedAt", task.pull_started_at),
        ("pullStoppedAt", task.pull_stopped_at),
        ("startedAt", task.started_at),
        ("stoppedAt", task.stopped_at),
        ("stoppingAt", task.stopping_at),
        ("updatedAt", Some(at)),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            detail.insert(name.to_owned(), time.to_string().into());
        }
    }
    let words = [
        (
            "connectivity",
            task.connectivity.as_ref().map(|it| it.as_str()),
        ),
        (
            "launchType",
            task.launch_type.as_ref().map(|it| it.as_str()),
        ),
        ("stopCode", task.stop_code.as_ref().map(|it| it.as_str())),
    ];
    for (name, word) in words {
        if let Some(word) = word {
            detail.insert(name.to_owned(), word.into());
        }
    }
    let attributes = items(&task.attributes).iter();
    let attributes: Vec<Value> = attributes
        .map(|it| json!({ "name": it.name, "value": it.value }))
        .collect();
    let containers: Vec<Value> = items(&task.containers).iter().map(container).collect();
    let overrides = serde_json::to_value(&task.overrides).unwrap_or_default();
    let others = [
        ("attachments", json!([])),
        ("attributes", attributes.into()),
        ("containers", containers.into()),
        (
            "enableExecuteCommand",
            json!(task.enable_execute_command == Some(true)),
        ),
        ("overrides", overrides),
        ("version", json!(task.version)),
    ];
    detail.extend(others.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(detail)
}

fn container(container: &Container) -> Value {
    let bindings = items(&container.network_bindings);
    let mut all = json!({
        "containerArn": container.container_arn,
        "taskArn": container.task_arn,
        "name": container.name,
        "image": container.image,
        "imageDigest": container.image_digest,
        "runtimeId": container.runtime_id,
        "lastStatus": container.last_status,
        "exitCode": container.exit_code,
        "reason": container.reason,
        "cpu": container.cpu,
        "memory": container.memory,
        "memoryReservation": container.memory_reservation,
        "networkBindings": serde_json::to_value(bindings).unwrap_or_default(),
        "networkInterfaces": [],
    });
    if let Value::Object(members) = &mut all {
        members.retain(|_, value| !value.is_null());
    }
    all
}

/// What the events of one service have in common.
#[derive(Clone, Copy)]
pub struct OfService<'a> {
    pub scope: &'a Scope,
    pub cluster: &'a ClusterName,
    pub service: &'a ServiceName,
    pub at: Timestamp,
}

impl<'a> OfService<'a> {
    pub fn of(scope: &'a Scope, row: &'a ServiceRow, at: Timestamp) -> Self {
        Self {
            scope,
            cluster: &row.cluster,
            service: &row.name,
            at,
        }
    }

    /// `id` is a UUID that is this event's alone.
    pub fn action(&self, id: String, action: &ServiceAction) -> StateChange {
        let (rank, name) = action.rank_and_name();
        let mut detail = json!({
            "eventType": rank.as_str(),
            "eventName": name,
            "clusterArn": self.scope.cluster_arn(self.cluster),
            "createdAt": self.at.to_string(),
        });
        if let ServiceAction::TaskPlacementFailure { reason } = action {
            detail["reason"] = reason.as_str().into();
        }
        self.change(id, ChangeKind::ServiceAction, detail)
    }

    /// A deployment has begun, is completed, or has failed.
    pub fn deployment(&self, deployment: &DeploymentState) -> StateChange {
        let (rank, name) = match deployment.rollout {
            Rollout::InProgress => (EventType::Info, "SERVICE_DEPLOYMENT_IN_PROGRESS"),
            Rollout::Completed => (EventType::Info, "SERVICE_DEPLOYMENT_COMPLETED"),
            Rollout::Failed => (EventType::Error, "SERVICE_DEPLOYMENT_FAILED"),
        };
        let detail = json!({
            "eventType": rank.as_str(),
            "eventName": name,
            "deploymentId": deployment.id,
            "updatedAt": self.at.to_string(),
            "reason": deployment.reason,
        });
        // A deployment that a rollback returns to begins once more, so its time is part of the name.
        let named = format!("{}/{name}/{}", deployment.id, deployment.updated_at);
        self.change(derived(&named), ChangeKind::Deployment, detail)
    }

    pub fn message(&self, event: &Event) -> StateChange {
        let detail = json!({ "message": event.message });
        self.change(event.id.clone(), ChangeKind::ServiceMessage, detail)
    }

    /// `drawn` makes it one of its own.
    pub fn request(&self, drawn: &str, message: String, by: &str) -> StateChange {
        let id = derived(&format!("request/{drawn}"));
        let detail = json!({ "message": message, "by": by });
        self.change(id, ChangeKind::Request, detail)
    }

    /// What a user asked for, if it is anything new.
    pub fn asked(
        &self,
        drawn: &str,
        before: Option<&ServiceRow>,
        after: &ServiceRow,
        by: &str,
    ) -> Option<StateChange> {
        let message = wish(before, after)?;
        Some(self.request(drawn, message, by))
    }

    fn change(&self, id: String, kind: ChangeKind, detail: Value) -> StateChange {
        StateChange {
            id,
            at: self.at,
            kind,
            cluster: self.cluster.clone(),
            service: Some(self.service.clone()),
            slot: None,
            resource: self.scope.service_arn(self.cluster, self.service),
            detail,
        }
    }
}

/// What a user wants of a service that he did not want before, in one sentence.
fn wish(before: Option<&ServiceRow>, after: &ServiceRow) -> Option<String> {
    let revision = &after.target.revision;
    let definition = format!("{}:{}", revision.family, revision.task_definition);
    let Some(before) = before else {
        return Some(match after.scheduling_strategy {
            SchedulingStrategy::Daemon => format!("created as a DAEMON of {definition}"),
            _ => format!(
                "created with desired count {} of {definition}",
                after.desired_count
            ),
        });
    };
    if before.deleted_at != after.deleted_at {
        return Some("deleted".to_owned());
    }
    let mut parts = Vec::new();
    if before.desired_count != after.desired_count {
        let (from, to) = (before.desired_count, after.desired_count);
        parts.push(format!("desired count {from} → {to}"));
    }
    if before.target != after.target {
        parts.push(format!("a deployment of {definition}"));
    }
    let rest = ServiceRow {
        desired_count: after.desired_count,
        target: after.target.clone(),
        ..before.clone()
    };
    if rest != *after {
        parts.push("other settings changed".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What became of a service's deployments between two states of it: those that began, in the order of
/// beginning, and those that were completed. Failures are told where they are decided, because what
/// fails may be let go in the same commit.
pub fn deployments_changed(
    before: &[DeploymentState],
    after: &[DeploymentState],
) -> (Vec<DeploymentState>, Vec<DeploymentState>) {
    let known = |id: &str| before.iter().find(|it| it.id == id);
    let became = |rollout: Rollout| {
        let those = after.iter().rev().filter(move |it| {
            it.rollout == rollout && known(&it.id).is_none_or(|before| before.rollout != rollout)
        });
        those.cloned().collect()
    };
    (became(Rollout::InProgress), became(Rollout::Completed))
}

/// The messages that were added, oldest first. Both lists have the newest first.
pub fn messages_added<'a>(before: &[Event], after: &'a [Event]) -> Vec<&'a Event> {
    let last = before.first().map(|event| event.id.as_str());
    let added = after
        .iter()
        .take_while(|event| Some(event.id.as_str()) != last);
    let mut added: Vec<&Event> = added.collect();
    added.reverse();
    added
}

/// Writes the events of one commit, if there are any.
pub fn write(
    scope: &Scope,
    at: Timestamp,
    events: Vec<StateChange>,
    transaction: &mut Transaction,
) {
    let Some(first) = events.first() else {
        return;
    };
    let name = state_changes_name(at, &first.id);
    let row = StateChangesRow { events };
    transaction.write::<StateChangesRow>(&scope.account, &scope.region, &name, &row);
}

impl StateChange {
    /// The whole event as EventBridge delivers it; `None` for what it is never told.
    pub fn envelope(&self, scope: &Scope) -> Option<Value> {
        // EventBridge's times are whole seconds.
        let time = Timestamp::from_millis(self.at.as_epoch_seconds() * 1000).to_string();
        Some(json!({
            "version": "0",
            "id": self.id,
            "detail-type": self.kind.detail_type()?,
            "source": "aws.ecs",
            "account": scope.account.as_str(),
            "time": time.replace(".000Z", "Z"),
            "region": scope.region.as_str(),
            "resources": [self.resource],
            "detail": self.detail,
        }))
    }
}

fn derived(text: &str) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(text)[..16]);
    uuid_of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Event {
        Event {
            id: id.to_owned(),
            at: Timestamp::EPOCH,
            message: format!("message {id}"),
        }
    }

    #[test]
    fn the_messages_that_were_added_come_oldest_first() {
        let (before, after) = (["b", "a"].map(event), ["d", "c", "b", "a"].map(event));
        let ids = |before: &[Event], after: &[Event]| -> Vec<String> {
            let added = messages_added(before, after);
            added.into_iter().map(|it| it.id.clone()).collect()
        };
        assert_eq!(ids(&before, &after), ["c", "d"]);
        assert_eq!(ids(&[], &before), ["a", "b"]);
        assert!(ids(&after, &after).is_empty());
    }

    #[test]
    fn the_envelope_is_eventbridges_and_what_is_never_delivered_has_none() {
        let scope = Scope {
            account: Default::default(),
            region: Default::default(),
        };
        let (cluster, service) = (ClusterName::default(), "web".parse().unwrap());
        let at = Timestamp::from_millis(1_575_069_193_087);
        let of = OfService {
            scope: &scope,
            cluster: &cluster,
            service: &service,
            at,
        };
        let reason = "RESOURCE:CPU".to_owned();
        let action = ServiceAction::TaskPlacementFailure { reason };
        let told = of.action("id".to_owned(), &action);
        let envelope = told.envelope(&scope).unwrap();
        assert_eq!(envelope["time"], "2019-11-29T23:13:13Z");
        assert_eq!(envelope["detail-type"], "ECS Service Action");
        assert_eq!(envelope["source"], "aws.ecs");
        assert_eq!(
            envelope["resources"],
            json!([scope.service_arn(&cluster, &service)])
        );
        let detail = &envelope["detail"];
        assert_eq!(detail["eventType"], "ERROR");
        assert_eq!(detail["eventName"], "SERVICE_TASK_PLACEMENT_FAILURE");
        assert_eq!(detail["reason"], "RESOURCE:CPU");
        assert_eq!(detail["createdAt"], "2019-11-29T23:13:13.087Z");
        assert_eq!(of.message(&event("a")).envelope(&scope), None);
    }
}
