//! A task as users see it: derived from its spec, its desired phase and the node's report.
//!
//! What always holds: nothing derived here is stored, so the three rows can never disagree with
//! what is shown; and as each row only moves forward, so does what is derived.

use std::sync::Arc;

use gantry_api::ecs;
use gantry_env::Timestamp;

use super::absent::items;
use super::last_status::LastStatus;
use super::reference::Scope;
use crate::tables::{
    AcsSessionRow, ContainerReport, DesiredPhase, HealthStatus, StopCode, TaskDefinitionRow,
    TaskDesiredRow, TaskHealthRow, TaskReportRow, TaskRow,
};

/// The rows of one task.
#[derive(Debug, Clone)]
pub struct TaskState {
    pub spec: Arc<TaskRow>,
    pub desired: Option<Arc<TaskDesiredRow>>,
    pub report: Option<Arc<TaskReportRow>>,
    pub health: Option<Arc<TaskHealthRow>>,
}

/// Why and since when a task is to end, whoever decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub code: StopCode,
    pub reason: Option<String>,
    pub since: Timestamp,
}

impl TaskState {
    /// A task that was just made.
    pub fn begin(spec: Arc<TaskRow>) -> Self {
        Self {
            spec,
            desired: None,
            report: None,
            health: None,
        }
    }

    pub fn last_status(&self) -> LastStatus {
        let reported = self
            .report
            .as_ref()
            .map_or(LastStatus::Pending, |report| report.status);
        let status = LastStatus::Pending.advance(reported);
        match self.desired.as_deref() {
            Some(desired) if desired.given_up_at.is_some() => LastStatus::Stopped,
            // Its containers have been told to end and have not been heard to have ended.
            Some(desired)
                if desired.phase == DesiredPhase::Stopped && status == LastStatus::Running =>
            {
                LastStatus::Stopping
            }
            _ => status,
        }
    }

    /// `RUNNING` or `STOPPED`. A task that ends by itself is not wanted to run any more.
    pub fn desired_phase(&self) -> DesiredPhase {
        let is_decided = self
            .desired
            .as_ref()
            .is_some_and(|desired| desired.phase == DesiredPhase::Stopped);
        let ends = self.report.as_ref().is_some_and(|it| it.ending.is_some());
        match is_decided || ends {
            true => DesiredPhase::Stopped,
            false => DesiredPhase::Running,
        }
    }

    pub fn stop(&self) -> Option<Stop> {
        let decided = self
            .desired
            .as_ref()
            .filter(|d| d.phase == DesiredPhase::Stopped);
        if let Some(desired) = decided {
            return Some(Stop {
                code: desired.stop_code,
                reason: desired.stopped_reason.clone(),
                since: desired.since,
            });
        }
        let ending = self
            .report
            .as_ref()
            .and_then(|report| report.ending.as_ref())?;
        Some(Stop {
            code: ending.stop_code,
            reason: Some(ending.reason.clone()),
            since: ending.at,
        })
    }

    pub fn stopped_at(&self) -> Option<Timestamp> {
        let reported = self.report.as_ref().and_then(|report| report.stopped_at);
        reported.or_else(|| {
            self.desired
                .as_ref()
                .and_then(|desired| desired.given_up_at)
        })
    }

    /// Grows by one with each change that a user can see.
    pub fn version(&self) -> i64 {
        let desired = self
            .desired
            .as_ref()
            .map_or(0, |desired| match desired.given_up_at {
                Some(_) => 2,
                None => 1,
            });
        let reported = self.report.as_ref().map_or(0, |report| report.changes);
        1 + desired + i64::try_from(reported).unwrap_or(i64::MAX - 3)
    }

    /// The whole task, without its tags.
    pub fn describe(
        &self,
        scope: &Scope,
        definition: &TaskDefinitionRow,
        session: Option<&AcsSessionRow>,
    ) -> ecs::Task {
        let spec = &*self.spec;
        let report = self.report.as_deref();
        let stop = self.stop();
        let connectivity = session.map(|session| match session.connected {
            true => ecs::Connectivity::Connected,
            false => ecs::Connectivity::Disconnected,
        });
        ecs::Task {
            attachments: Some(Vec::new()),
            attributes: Some(spec.attributes.clone()),
            availability_zone: spec.availability_zone.clone(),
            cluster_arn: Some(scope.cluster_arn(&spec.cluster)),
            connectivity,
            // A task cannot have been connected before there was one.
            connectivity_at: session
                .and_then(|s| s.since)
                .map(|at| at.max(spec.created_at)),
            container_instance_arn: Some(
                scope.container_instance_arn(&spec.cluster, &spec.container_instance),
            ),
            containers: Some(self.containers(scope, definition)),
            cpu: Some(spec.cpu.clone()),
            created_at: Some(spec.created_at),
            desired_status: Some(desired_text(self.desired_phase()).to_owned()),
            enable_execute_command: Some(spec.enable_execute_command),
            execution_stopped_at: report.and_then(|report| report.execution_stopped_at),
            group: Some(spec.group.clone()),
            health_status: Some(self.health(|health| Some(health.status))),
            inference_accelerators: Some(Vec::new()),
            last_status: Some(self.last_status().as_str().to_owned()),
            launch_type: Some(spec.launch_type.clone()),
            memory: Some(spec.memory.clone()),
            overrides: Some(spec.overrides.clone()),
            pull_started_at: report.and_then(|report| report.pull_started_at),
            pull_stopped_at: report.and_then(|report| report.pull_stopped_at),
            started_at: report.and_then(|report| report.started_at),
            started_by: spec.started_by.clone(),
            stop_code: stop
                .as_ref()
                .map(|stop| ecs::TaskStopCode::from(stop.code.as_str())),
            stopped_at: self.stopped_at(),
            stopped_reason: stop.as_ref().and_then(|stop| stop.reason.clone()),
            stopping_at: stop.map(|stop| stop.since),
            tags: Some(Vec::new()),
            task_arn: Some(scope.task_arn(&spec.cluster, &spec.id)),
            task_definition_arn: Some(scope.task_definition_arn(&spec.family, spec.revision)),
            version: Some(self.version()),
            ..ecs::Task::default()
        }
    }

    fn containers(&self, scope: &Scope, definition: &TaskDefinitionRow) -> Vec<ecs::Container> {
        let spec = &*self.spec;
        let definitions = items(&definition.definition.container_definitions);
        let container = |container: &crate::tables::TaskContainer| {
            let defined = definitions
                .iter()
                .find(|d| d.name.as_deref() == Some(container.name.as_str()));
            let overridden = items(&spec.overrides.container_overrides)
                .iter()
                .find(|o| o.name.as_deref() == Some(container.name.as_str()));
            let report = self.container_report(&container.name);
            let text = |number: Option<i32>| number.map(|number| number.to_string());
            ecs::Container {
                container_arn: Some(scope.container_arn(&spec.cluster, &spec.id, &container.id)),
                task_arn: Some(scope.task_arn(&spec.cluster, &spec.id)),
                name: Some(container.name.clone()),
                image: defined.and_then(|d| d.image.clone()),
                image_digest: report.and_then(|r| r.image_digest.clone()),
                runtime_id: report.and_then(|r| r.runtime_id.clone()),
                last_status: Some(self.container_status(report).as_str().to_owned()),
                exit_code: report.and_then(|r| r.exit_code),
                reason: report.and_then(|r| r.reason.clone()),
                network_bindings: Some(
                    report
                        .map(|r| r.network_bindings.clone())
                        .unwrap_or_default(),
                ),
                network_interfaces: Some(Vec::new()),
                health_status: Some(
                    self.health(|health| health.containers.get(&container.name).copied()),
                ),
                cpu: text(
                    overridden
                        .and_then(|o| o.cpu)
                        .or(defined.and_then(|d| d.cpu))
                        .or(Some(0)),
                ),
                memory: text(
                    overridden
                        .and_then(|o| o.memory)
                        .or(defined.and_then(|d| d.memory)),
                ),
                memory_reservation: text(
                    overridden
                        .and_then(|o| o.memory_reservation)
                        .or(defined.and_then(|d| d.memory_reservation)),
                ),
                ..ecs::Container::default()
            }
        };
        spec.containers.iter().map(container).collect()
    }

    /// What was told of a task that has stopped says nothing any more.
    fn health(&self, of: impl FnOnce(&TaskHealthRow) -> Option<HealthStatus>) -> ecs::HealthStatus {
        let told = self
            .health
            .as_deref()
            .filter(|_| !self.last_status().is_stopped());
        let status = told.and_then(of).unwrap_or_default();
        ecs::HealthStatus::from(status.as_str())
    }

    fn container_report(&self, name: &str) -> Option<&ContainerReport> {
        self.report
            .as_ref()?
            .containers
            .iter()
            .find(|report| report.name == name)
    }

    /// Nothing of a stopped task runs, whether its node said so of each container or not.
    fn container_status(&self, report: Option<&ContainerReport>) -> LastStatus {
        if self.last_status().is_stopped() {
            return LastStatus::Stopped;
        }
        report.map_or(LastStatus::Pending, |report| report.status)
    }
}

pub fn desired_text(phase: DesiredPhase) -> &'static str {
    match phase {
        DesiredPhase::Running => "RUNNING",
        DesiredPhase::Stopped => "STOPPED",
    }
}
