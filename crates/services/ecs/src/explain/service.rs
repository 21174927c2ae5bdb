//! What a service waits for, and why: its bounds, its deployments, the circuit breaker, what is put off until
//! when, which container instances have no room, which tasks fail and what their health checks saw.
//!
//! What always holds: pure, and only what the rows say. Whether a task finds a place is asked of the very
//! plan that the service's controller makes, on the rows as they are now.

mod standstill;

use gantry_api::ecs::{EcsError, SchedulingStrategy};
use gantry_arn::{ClusterName, ServiceName};
use gantry_env::Timestamp;
use gantry_placement::Rejection;
use gantry_store::Snapshot;
use std::collections::BTreeSet;
use std::time::Duration;

use super::{ago, why_pending, why_stopped, why_to_stop};
use crate::api::lookup::Rows;
use crate::api::service_instances::{ServiceInstances, desired_count};
use crate::api::service_tasks::Replicas;
use crate::model::absent::items;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::model::run_request::definition_constraints;
use crate::model::service::daemon::Standing;
use crate::model::service::replica::{Condition, condition};
use crate::model::service::request;
use crate::model::service::rolling::Bounds;
use crate::model::service::view::{Counts, ServiceStatus, deployments};
use crate::model::task_view::TaskState;
use crate::tables::{
    ContainerInstanceStatus, DeploymentState, DesiredPhase, HealthStatus, Rollout, ServiceRow,
    ServiceStateRow, TaskDefinitionRow,
};

/// How many tasks of a kind are told of one by one.
const TASKS_MAX: usize = 5;

/// How many container instances are told of one by one.
const INSTANCES_MAX: usize = 20;

/// What there is to say about one service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceExplanation {
    pub service_arn: String,
    pub status: String,
    pub desired_count: u32,
    pub running_count: usize,
    pub pending_count: usize,
    pub sentences: Vec<String>,
}

/// Explains a service, named by its name in a cluster or by its ARN.
pub fn service(
    snapshot: &Snapshot,
    scope: &Scope,
    cluster: Option<&str>,
    reference: &str,
    now: Timestamp,
) -> Result<ServiceExplanation, EcsError> {
    let (cluster, name) = scope.service_in(cluster, reference)?;
    let rows = Rows::new(snapshot, scope);
    if rows.cluster(&cluster).is_none() {
        return Err(EcsError::cluster_not_found_exception(format!(
            "There is no cluster {cluster} in {}; `aws ecs list-clusters` shows those there are.",
            scope.region
        )));
    }
    let Some(spec) = rows.service(&cluster, &name) else {
        return Err(EcsError::service_not_found_exception(missing(
            &rows, &cluster, &name,
        )));
    };
    let state = rows.service_state(&spec).map(|state| state.row);
    let looked = Look {
        rows: &rows,
        spec: &spec,
        state: state.as_deref(),
        tasks: rows.service_tasks(&spec),
        desired: desired_count(&rows, &spec),
        now,
    };
    let counts = Counts::of(&looked.tasks);
    Ok(ServiceExplanation {
        service_arn: scope.service_arn(&cluster, &name),
        status: ServiceStatus::of(&spec, state.as_deref())
            .as_str()
            .to_owned(),
        desired_count: looked.desired,
        running_count: counts.running,
        pending_count: counts.pending,
        sentences: looked.sentences(),
    })
}

/// How many of a service's tasks are meant to run, as DescribeServices counts them.
pub fn service_counts(snapshot: &Snapshot, scope: &Scope, service: &ServiceRow) -> Counts {
    let rows = Rows::new(snapshot, scope);
    Counts::of(&rows.service_tasks(service))
}

/// Who mistypes a name is told those that are there.
fn missing(rows: &Rows<'_>, cluster: &ClusterName, name: &ServiceName) -> String {
    let all = rows.list::<ServiceRow>(&crate::tables::cluster_prefix(cluster));
    let names: Vec<&str> = all
        .iter()
        .take(10)
        .map(|row| row.row.name.as_str())
        .collect();
    match names.is_empty() {
        true => format!("There is no service {name} in cluster {cluster}, nor any other."),
        false => format!(
            "There is no service {name} in cluster {cluster}. There are: {}.",
            names.join(", ")
        ),
    }
}

struct Look<'a> {
    rows: &'a Rows<'a>,
    spec: &'a ServiceRow,
    state: Option<&'a ServiceStateRow>,
    tasks: Vec<TaskState>,
    /// For a daemon, the number of instances that are meant.
    desired: u32,
    now: Timestamp,
}

impl Look<'_> {
    fn sentences(&self) -> Vec<String> {
        if let Some(since) = self.spec.deleted_at {
            return vec![self.drains(since)];
        }
        let deployments = deployments(self.spec, self.state);
        let mut all = vec![self.bounds()];
        if let Some((primary, others)) = deployments.split_first() {
            all.push(self.primary(primary));
            all.extend(others.iter().map(|it| self.older(it, primary)));
        }
        let is_taken_up = self
            .state
            .is_some_and(|it| it.handled == self.spec.target.service_deployment);
        if !is_taken_up {
            all.push("The deployment that was asked for last has not been begun yet.".to_owned());
        }
        if let Some(primary) = deployments.first() {
            all.extend(self.stage(primary));
            all.extend(self.deadlock(primary));
            all.extend(self.breaker(primary));
            all.extend(self.throttled(primary));
            all.extend(self.unplaced(primary));
            all.extend(self.failed(primary));
            all.extend(self.protected(primary));
        }
        all.extend(self.draining());
        all.extend(self.conditions(deployments.first()));
        if self.state.is_some_and(|it| it.steady) && is_taken_up {
            all.push("It is steady: it waits for nothing.".to_owned());
        }
        all
    }

    fn drains(&self, since: Timestamp) -> String {
        let left = self
            .tasks
            .iter()
            .filter(|it| !it.last_status().is_stopped());
        match left.count() {
            0 => format!(
                "It was deleted {} ago, and all of its tasks have stopped.",
                ago(since, self.now)
            ),
            left => format!(
                "It was deleted {} ago, and waits for {left} of its tasks to stop.",
                ago(since, self.now)
            ),
        }
    }

    fn bounds(&self) -> String {
        let (least, most) = request::percents(&self.spec.configuration);
        let bounds = Bounds::of(self.desired, least, most);
        let counts = Counts::of(&self.tasks);
        format!(
            "It shall have {} tasks and has {} RUNNING and {} PENDING. While tasks are replaced, at least {} stay up and at most {} are RUNNING or PENDING.",
            bounds.desired, counts.running, counts.pending, bounds.lower, bounds.upper
        )
    }

    fn primary(&self, deployment: &DeploymentState) -> String {
        let mine = self.of(deployment);
        let counts = Counts::of(mine);
        let revision = &deployment.revision;
        let definition = format!("{}:{}", revision.family, revision.task_definition);
        let (id, now) = (&deployment.id, self.now);
        let what = match deployment.is_rollback {
            true => "The deployment that it rolls back to",
            false => "Its PRIMARY deployment",
        };
        format!(
            "{what}, {id} of {definition}, is {} since {}: {} {} RUNNING and {} PENDING are of it; {} failed.",
            deployment.rollout.as_str(),
            ago(deployment.updated_at, now),
            deployment.reason,
            counts.running,
            counts.pending,
            deployment.failed_tasks
        )
    }

    fn of<'s>(&'s self, deployment: &'s DeploymentState) -> impl Iterator<Item = &'s TaskState> {
        self.tasks
            .iter()
            .filter(|task| task.spec.started_by.as_deref() == Some(deployment.id.as_str()))
    }

    fn throttled(&self, primary: &DeploymentState) -> Option<String> {
        let until = primary.throttled_until.filter(|until| self.now < *until)?;
        Some(format!(
            "Starts are put off until {until}, which is in {} s, because tasks stopped before they ran, {} times in a row. A new deployment ends that.",
            until.since(self.now).as_secs().max(1),
            primary.throttled
        ))
    }

    /// Why its next task finds no place, as far as that is what it waits for.
    fn unplaced(&self, primary: &DeploymentState) -> Vec<String> {
        let Some(unplaced) = self.state.and_then(|it| it.unplaced) else {
            return Vec::new();
        };
        let mut all = vec![format!(
            "A task has found no place, {} ago. It is tried again at {}, or when a task of the service has stopped.",
            ago(unplaced.tried_at, self.now),
            unplaced.again_at
        )];
        let Some(rejections) = self.rejections(primary) else {
            return all;
        };
        if rejections.is_empty() {
            let instances = self.rows.container_instances(&self.spec.cluster);
            let is_there = |status| status != ContainerInstanceStatus::Inactive;
            all.push(match instances.iter().any(|it| is_there(it.status)) {
                true => "By now there is a place for one.".to_owned(),
                false => format!(
                    "Cluster {} has no container instances: nobody has registered one.",
                    self.spec.cluster
                ),
            });
        }
        for rejection in rejections.iter().take(INSTANCES_MAX) {
            let reasons: Vec<String> = rejection.reasons.iter().map(|it| it.explain()).collect();
            all.push(format!(
                "Container instance {}: {}.",
                rejection.instance,
                reasons.join("; ")
            ));
        }
        match rejections.len().saturating_sub(INSTANCES_MAX) {
            0 => {}
            more => all.push(format!(
                "{more} more container instances have no room either."
            )),
        }
        all
    }

    /// What speaks against each container instance now; `None` where that cannot be planned, and empty
    /// where a task would find a place.
    fn rejections(&self, primary: &DeploymentState) -> Option<Vec<Rejection>> {
        let revision = &primary.revision;
        let definition = self
            .rows
            .task_definition(&revision.family, revision.task_definition)?;
        if self.spec.scheduling_strategy == SchedulingStrategy::Daemon {
            return self.against_daemon(&definition.row);
        }
        let mut constraints = definition_constraints(&definition.definition).ok()?;
        constraints.extend(request::constraints(&self.spec.placement_constraints).ok()?);
        let strategies = request::strategies(&self.spec.placement_strategy).ok()?;
        let replicas = Replicas {
            rows: self.rows,
            service: self.spec,
            deployment: primary,
            definition: &definition,
            now: self.now,
        };
        Some(replicas.rejections(&constraints, &strategies))
    }

    /// What speaks against a daemon on each of the instances that are meant and have none.
    fn against_daemon(&self, definition: &TaskDefinitionRow) -> Option<Vec<Rejection>> {
        let asks = ServiceInstances::of(self.rows, self.spec, definition)?;
        let there = self.tasks.iter().filter(|it| is_meant_to_run(it));
        let there: BTreeSet<_> = there.map(|it| it.spec.container_instance).collect();
        let standing = asks.standing().into_iter();
        let lacking = standing
            .filter(|(id, standing)| *standing == Standing::Meant && !there.contains(id))
            .map(|(instance, _)| Rejection {
                instance,
                reasons: asks.against(&instance),
            });
        Some(lacking.filter(|it| !it.reasons.is_empty()).collect())
    }

    /// The latest tasks that ended by themselves or were found unhealthy, since the deployment was asked
    /// for: also those of one that was rolled back, because that is still not what was asked for.
    fn failed(&self, primary: &DeploymentState) -> Vec<String> {
        let is_steady =
            primary.rollout == Rollout::Completed && self.state.is_some_and(|it| it.steady);
        if is_steady && !primary.is_rollback {
            return Vec::new();
        }
        let mut ended: Vec<(Timestamp, &TaskState)> = self
            .tasks
            .iter()
            .filter_map(|task| {
                let stop = task.stop()?;
                let reason = stop.reason.unwrap_or_default();
                let is_meant = reason.starts_with("Scaling activity");
                (!is_meant && stop.since >= self.spec.target.at).then_some((stop.since, task))
            })
            .collect();
        ended.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let latest = ended.iter().take(TASKS_MAX);
        let mut all: Vec<String> = latest
            .map(|(at, task)| {
                let why = match task.last_status().is_stopped() {
                    true => why_stopped(task),
                    false => why_to_stop(task),
                };
                let told = format!(
                    "{} ended {} ago. {} {}",
                    named(task),
                    ago(*at, self.now),
                    why.join(" "),
                    saw(task)
                );
                told.trim_end().to_owned()
            })
            .collect();
        match ended.len().saturating_sub(TASKS_MAX) {
            0 => {}
            more => all.push(format!("{more} more of its tasks ended before those.")),
        }
        all
    }

    fn draining(&self) -> Vec<String> {
        let on = self.tasks.iter().filter(|it| is_meant_to_run(it));
        let draining = on.filter(|it| self.drains_instance_of(it));
        let instances: BTreeSet<_> = draining.map(|it| it.spec.container_instance).collect();
        instances
            .into_iter()
            .map(|id| {
                format!(
                    "Container instance {id} drains or is gone: its tasks are replaced elsewhere."
                )
            })
            .collect()
    }

    fn drains_instance_of(&self, task: &TaskState) -> bool {
        let id = &task.spec.container_instance;
        let row = self.rows.container_instance(&self.spec.cluster, id);
        row.is_none_or(|row| row.status != ContainerInstanceStatus::Active)
    }

    /// The tasks that are not healthy, and what they wait for.
    fn conditions(&self, primary: Option<&DeploymentState>) -> Vec<String> {
        let failed = primary.filter(|it| it.rollout == Rollout::Failed);
        let grace = self.spec.health_check_grace_period_seconds.unwrap_or(0);
        let grace = Duration::from_secs(u64::from(grace));
        let (mut all, mut young) = (Vec::new(), Vec::new());
        let mut told = 0;
        for task in self.tasks.iter().filter(|it| is_meant_to_run(it)) {
            let spec = &task.spec;
            let Some(definition) = self.rows.task_definition(&spec.family, spec.revision) else {
                continue;
            };
            let (condition, changes_at) = condition(task, &definition.definition, grace, self.now);
            let seen = saw(task);
            let sentence = match (condition, changes_at) {
                (Condition::Healthy, _) => continue,
                (Condition::Pending, _) => format!(
                    "{} is not RUNNING yet. {}",
                    named(task),
                    why_pending(self.rows, task, self.now).join(" ")
                ),
                (Condition::Unhealthy, _)
                    if failed.is_some_and(|it| Some(&it.id) == spec.started_by.as_ref()) =>
                {
                    format!(
                        "{} is UNHEALTHY, and is not replaced because its deployment has failed. {seen}",
                        named(task)
                    )
                }
                (Condition::Unhealthy, _) => {
                    format!("{} is UNHEALTHY and will be replaced. {seen}", named(task))
                }
                (Condition::Running, Some(at)) if is_unhealthy(task) => format!(
                    "{} is UNHEALTHY, which counts from {at} on, when its grace period of {} s is over. {seen}",
                    named(task),
                    grace.as_secs()
                ),
                (Condition::Running, Some(at)) => {
                    young.push(at);
                    continue;
                }
                (Condition::Running, None) => {
                    let checks = checks_of(&definition.definition);
                    format!(
                        "{} runs and waits for the first result of its health check{checks}. {seen}",
                        named(task)
                    )
                }
            };
            told += 1;
            if told <= TASKS_MAX {
                all.push(sentence.trim_end().to_owned());
            }
        }
        if told > TASKS_MAX {
            all.push(format!(
                "{} more of its tasks are not healthy.",
                told - TASKS_MAX
            ));
        }
        if let Some(last) = young.iter().max() {
            all.push(format!(
                "{} of its tasks run, and nothing checks their health: they count as healthy when they have run for {} s, the last of them at {last}.",
                young.len(),
                crate::model::service::replica::HEALTHY_AFTER.as_secs()
            ));
        }
        all
    }
}

fn is_meant_to_run(task: &TaskState) -> bool {
    task.desired_phase() == DesiredPhase::Running && !task.last_status().is_stopped()
}

fn is_unhealthy(task: &TaskState) -> bool {
    let status = task.health.as_ref().map(|health| health.status);
    status == Some(HealthStatus::Unhealthy)
}

fn named(task: &TaskState) -> String {
    let slot = task.spec.replica.as_ref().map_or(0, |replica| replica.slot);
    format!("Task {} (slot {slot})", task.spec.id)
}

/// Which health checks failed, and what they saw.
fn saw(task: &TaskState) -> String {
    let Some(health) = &task.health else {
        return String::new();
    };
    let failing = health
        .containers
        .iter()
        .filter(|(_, status)| **status == HealthStatus::Unhealthy);
    let each = failing.map(|(name, _)| match health.found.get(name) {
        Some(found) => format!(
            "The health check of container {name} failed: {}",
            found.trim()
        ),
        None => format!("The health check of container {name} failed and wrote nothing."),
    });
    each.collect::<Vec<_>>().join(" ")
}

/// The commands of the checks that decide.
fn checks_of(definition: &gantry_api::ecs::TaskDefinition) -> String {
    let containers = items(&definition.container_definitions).iter();
    let checks: Vec<String> = containers
        .filter(|it| it.essential != Some(false))
        .filter_map(|it| Some((it.name.as_deref()?, it.health_check.as_ref()?)))
        .map(|(name, check)| {
            let every = check.interval.unwrap_or(30);
            format!("{name}: {} every {every} s", check.command.join(" "))
        })
        .collect();
    match checks.is_empty() {
        true => String::new(),
        false => format!(" ({})", checks.join("; ")),
    }
}

impl Scope {
    /// A service's name, in the cluster that is named or in `default`; or its ARN, which names its cluster.
    pub fn service_in(
        &self,
        cluster: Option<&str>,
        text: &str,
    ) -> Result<(ClusterName, ServiceName), EcsError> {
        let named = match self.own_arn(text)? {
            Some(gantry_arn::EcsResource::Service(own, _)) if cluster.is_none() => own,
            Some(gantry_arn::EcsResource::Service(..)) | None => self.cluster(cluster)?,
            Some(_) => return Err(invalid("That is not the ARN of a service.")),
        };
        let service = self.service(&named, text)?;
        Ok((named, service))
    }
}
