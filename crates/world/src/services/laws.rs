//! What must hold of every commit that concerns services.
//!
//! What always holds: each commit is looked at alone, in order, on the rows as they were then; a broken law is
//! a panic that says which. Time does not pass within an event, so `now` is when it was decided.
//! What it leaves to others: what users see (`shown`), and what must hold in the end (`world::rest`).

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ecs::{DeploymentCircuitBreaker, ThresholdType};
use gantry_ecs::tables::{
    DeploymentState, HealthStatus, Rollout, ServiceDeploymentStateRow, ServiceEventsRow,
    ServiceRow, ServiceStateRow, StopCode, TaskDesiredRow, TaskReportRow, TaskRow,
};
use gantry_env::Timestamp;
use gantry_store::{RowChange, Table};

use super::mirror::{Mirror, Watched, now as row_now};
use super::replicas::{self, Replica};

/// The laws, and what was seen so far as far as they need it.
#[derive(Debug, Default)]
pub struct ServiceLaws {
    pub mirror: Mirror,
    /// How many tasks of each deployment have failed, and how many had when it began (once more).
    failed: BTreeMap<String, usize>,
    had_failed: BTreeMap<(String, Timestamp), usize>,
    counted: BTreeSet<String>,
    /// Deployments of which a task was healthy once.
    had_healthy: BTreeSet<(String, Timestamp)>,
    /// Services that a commit has touched since it was last asked.
    touched: BTreeSet<String>,
    /// Commits that say something about services, but for what retention takes away.
    pub writes: u64,
    /// How often a circuit breaker opened, a deployment was completed, a rollback was begun.
    pub opened: u64,
    pub completed: u64,
    pub rolled_back: u64,
}

/// What one commit does to one service.
#[derive(Debug, Default)]
struct Deed {
    created: Vec<std::sync::Arc<TaskRow>>,
    /// Tasks that the scheduler stops, and why.
    stopped: BTreeMap<String, String>,
}

impl ServiceLaws {
    /// Checks commit by commit.
    pub fn check(&mut self, changes: &[RowChange], now: Timestamp) {
        for commit in changes.chunk_by(|one, other| one.revision == other.revision) {
            self.check_commit(commit, now);
        }
    }

    /// The services that changed since this was asked last.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    fn check_commit(&mut self, commit: &[RowChange], now: Timestamp) {
        let before: BTreeMap<String, Watched> = commit
            .iter()
            .filter(|change| change.key.kind() == ServiceStateRow::KIND)
            .filter_map(|change| {
                let name = change.key.name().to_owned();
                Some((name.clone(), self.mirror.services.get(&name)?.clone()))
            })
            .collect();
        let opened_before = self.mirror.triggered.clone();
        for change in commit {
            self.note_write(change);
            self.mirror.take_wishes(change);
        }
        let deeds = self.deeds(commit);
        let looks: BTreeMap<String, Vec<Replica>> = deeds
            .keys()
            .map(|name| (name.clone(), self.look(name, now)))
            .collect();
        for change in commit {
            self.mirror.take_tasks(change);
            self.note_task(change);
        }
        for (name, deed) in &deeds {
            let after = self.look(name, now);
            self.check_starts(name, deed, &looks[name], now);
            self.check_stops(name, deed, &looks[name], &after, now);
        }
        for (name, before) in &before {
            self.check_state(name, before, now);
        }
        for (name, opened) in &self.mirror.triggered {
            if *opened && opened_before.get(name) != Some(&true) {
                self.opened += 1;
            }
        }
    }

    fn primary(&self, service: &str) -> Option<&DeploymentState> {
        let state = self.mirror.services.get(service)?.state.as_ref()?;
        state.deployments.first()
    }

    fn look(&self, service: &str, now: Timestamp) -> Vec<Replica> {
        let Some(watched) = self.mirror.services.get(service) else {
            return Vec::new();
        };
        let primary = self.primary(service).map_or("", |it| it.id.as_str());
        replicas::of(&self.mirror, &watched.spec, primary, now)
    }

    /// What the commit starts and stops, by service.
    fn deeds(&self, commit: &[RowChange]) -> BTreeMap<String, Deed> {
        let mut deeds: BTreeMap<String, Deed> = BTreeMap::new();
        for change in commit.iter().filter(|change| change.previous.is_none()) {
            match change.key.kind() {
                TaskRow::KIND => {
                    let Some(task) = row_now::<TaskRow>(change).filter(|it| it.replica.is_some())
                    else {
                        continue;
                    };
                    let service = self.mirror.service_of(&task);
                    let service =
                        service.unwrap_or_else(|| panic!("{} is of no service", change.key.name()));
                    deeds.entry(service).or_default().created.push(task);
                }
                TaskDesiredRow::KIND => {
                    let Some(desired) = row_now::<TaskDesiredRow>(change) else {
                        continue;
                    };
                    let task = self.mirror.tasks.get(change.key.name());
                    if let Some(task) = task
                        && desired.stop_code == StopCode::ServiceSchedulerInitiated
                        && let Some(service) = self.mirror.service_of(&task.spec)
                    {
                        let reason = desired.stopped_reason.clone().unwrap_or_default();
                        let stopped = &mut deeds.entry(service).or_default().stopped;
                        stopped.insert(change.key.name().to_owned(), reason);
                    }
                }
                _ => {}
            }
        }
        deeds
    }

    /// Counts what is written about services, and remembers which are concerned.
    fn note_write(&mut self, change: &RowChange) {
        let name = change.key.name();
        match change.key.kind() {
            ServiceRow::KIND => {
                self.touched.insert(name.to_owned());
            }
            ServiceStateRow::KIND => {
                self.touched.insert(name.to_owned());
                let previous = change.previous.as_ref();
                let previous = previous.and_then(|row| row.decode::<ServiceStateRow>().ok());
                let after = row_now::<ServiceStateRow>(change);
                if let (Some(before), Some(after)) = (previous, after) {
                    // What failed is counted as long as it is there: that much is retention.
                    let (mut before, mut after) = ((*before).clone(), (*after).clone());
                    for it in before.deployments.iter_mut().chain(&mut after.deployments) {
                        it.counted.clear();
                    }
                    self.writes += u64::from(before != after);
                }
            }
            ServiceEventsRow::KIND | ServiceDeploymentStateRow::KIND => {
                self.writes += u64::from(change.row.is_some());
            }
            TaskRow::KIND | TaskDesiredRow::KIND => {
                self.writes += u64::from(change.previous.is_none());
                self.touch_service_of(name);
            }
            TaskReportRow::KIND => self.touch_service_of(name),
            _ => {}
        }
    }

    fn touch_service_of(&mut self, task: &str) {
        if let Some(task) = self.mirror.tasks.get(task)
            && let Some(service) = self.mirror.service_of(&task.spec)
        {
            self.touched.insert(service);
        }
    }

    /// Remembers each task that failed, once, and which deployments had a healthy one.
    fn note_task(&mut self, change: &RowChange) {
        let name = change.key.name();
        if !matches!(
            change.key.kind(),
            TaskReportRow::KIND | TaskDesiredRow::KIND
        ) {
            return;
        }
        let Some(task) = self.mirror.tasks.get(name) else {
            return;
        };
        let Some(stop) = task.stop() else { return };
        let has_failed = match stop.code {
            StopCode::TaskFailedToStart => true,
            StopCode::ServiceSchedulerInitiated => {
                stop.reason.as_deref() == Some("Task failed container health checks")
            }
            StopCode::EssentialContainerExited => {
                let health = task.health.as_ref().map(|health| health.status);
                self.mirror.is_checked(&task.spec) && health != Some(HealthStatus::Healthy)
            }
            _ => false,
        };
        if has_failed && self.counted.insert(name.to_owned()) {
            let by = task.spec.started_by.clone().unwrap_or_default();
            *self.failed.entry(by).or_default() += 1;
        }
    }

    fn check_starts(&self, name: &str, deed: &Deed, before: &[Replica], now: Timestamp) {
        if deed.created.is_empty() {
            return;
        }
        let spec = &self.mirror.services[name].spec;
        assert_eq!(spec.deleted_at, None, "{name} is deleted, and starts tasks");
        let (_, upper) = bounds(spec);
        let (there, begun) = (before.len(), deed.created.len());
        assert!(
            there + begun <= upper,
            "{name} starts {begun} beside {there}, and may have {upper} at most"
        );
        let staying: Vec<&Replica> = before.iter().filter(|it| it.stays()).collect();
        let desired = spec.desired_count as usize;
        assert!(
            staying.len() + begun <= desired,
            "{name} starts {begun} beside {} that stay, and wants {desired}",
            staying.len()
        );
        let primary = self.primary(name).expect("a deployment");
        assert_ne!(
            primary.rollout,
            Rollout::Failed,
            "{name} starts tasks of a deployment that failed"
        );
        if let Some(until) = primary.throttled_until {
            assert!(now >= until, "{name} starts tasks before {until:?}");
        }
        let mut taken: BTreeSet<u32> = staying.iter().map(|it| it.slot).collect();
        for task in &deed.created {
            let id = &task.id;
            assert_eq!(
                task.started_by.as_deref(),
                Some(primary.id.as_str()),
                "{name} starts {id} for another deployment than the PRIMARY one"
            );
            assert_eq!(
                (&task.family, task.revision),
                (&primary.revision.family, primary.revision.task_definition),
                "{name} starts {id} of another revision"
            );
            let slot = task.replica.as_ref().map(|replica| replica.slot);
            let slot = slot.expect("a slot");
            assert!(
                taken.insert(slot),
                "{name} starts {id} in slot {slot}, which is taken"
            );
        }
    }

    fn check_stops(
        &self,
        name: &str,
        deed: &Deed,
        before: &[Replica],
        after: &[Replica],
        now: Timestamp,
    ) {
        let watched = &self.mirror.services[name];
        if deed.stopped.is_empty() || watched.spec.deleted_at.is_some() {
            return;
        }
        for task in deed.stopped.keys() {
            let until = self.mirror.protected.get(task);
            assert!(
                until.is_none_or(|until| *until <= now),
                "{name} stops {task}, which is protected until {until:?}"
            );
        }
        let (lower, upper) = bounds(&watched.spec);
        let desired = watched.spec.desired_count as usize;
        let up = |of: &[Replica]| of.iter().filter(|it| it.is_up()).count();
        let stay = |of: &[Replica]| of.iter().filter(|it| it.stays()).count();
        let (up_before, up_after) = (up(before), up(after));
        assert!(
            up_after >= lower.min(up_before),
            "{name} needs {lower} that are up, and stops {:?}: {up_after} are left of {up_before}",
            deed.stopped
        );
        let old: Vec<Replica> = after
            .iter()
            .filter(|it| before.iter().any(|known| known.name == it.name))
            .cloned()
            .collect();
        assert!(
            stay(&old) >= desired.min(stay(before)),
            "{name} wants {desired}, and stops {:?} of those that stay",
            deed.stopped
        );
        // Replaced first where the maximum and the cluster have room, and stopped first only otherwise.
        let unplaced = watched
            .state
            .as_ref()
            .is_some_and(|it| it.unplaced.is_some());
        let has_room = before.len() + deed.created.len() < upper && !unplaced;
        let healthy = old.iter().filter(|it| it.stays() && it.is_healthy).count();
        for replica in before
            .iter()
            .filter(|it| deed.stopped.contains_key(&it.name) && has_room)
        {
            let is_replaced = match (replica.is_unhealthy, replica.is_up()) {
                (true, _) if !replica.leaves() => healthy >= desired,
                (_, true) if replica.leaves() => up_after >= desired.min(up_before),
                _ => true,
            };
            assert!(
                is_replaced,
                "{name} stops {} before it is replaced, and has room for both: {before:?}",
                replica.name
            );
        }
        for (task, reason) in &deed.stopped {
            let replica = before.iter().find(|it| it.name == *task);
            let replica =
                replica.unwrap_or_else(|| panic!("{name} stops {task}, which is over already"));
            let for_health = reason == "Task failed container health checks";
            assert_eq!(
                for_health, replica.is_unhealthy,
                "{name} stops {task} because of: {reason}"
            );
        }
    }

    /// What may become of a service's deployments.
    fn check_state(&mut self, name: &str, before: &Watched, now: Timestamp) {
        let Some(watched) = self.mirror.services.get(name).cloned() else {
            return;
        };
        let (Some(state), spec) = (&watched.state, &watched.spec) else {
            return;
        };
        let ids: BTreeSet<&str> = state.deployments.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(
            ids.len(),
            state.deployments.len(),
            "{name} has a deployment twice"
        );
        let Some(primary) = state.deployments.first() else {
            assert!(spec.deleted_at.is_some(), "{name} has no deployment");
            return;
        };
        let look = self.look(name, now);
        let known = self.failed.get(&primary.id).copied().unwrap_or(0);
        self.had_failed.entry(begun(primary)).or_insert(known);
        if look.iter().any(|it| it.is_primary && it.is_healthy) {
            self.had_healthy.insert(begun(primary));
        }
        let previous = before.state.as_ref();
        let was =
            previous.and_then(|state| state.deployments.iter().find(|it| it.id == primary.id));
        let before_primary = previous.and_then(|state| state.deployments.first());
        if primary.is_rollback && before_primary.is_none_or(|it| !it.is_rollback) {
            self.rolled_back += 1;
            let known = previous.and_then(|state| state.completed.clone());
            assert_eq!(
                Some(&primary.revision),
                known.as_ref(),
                "{name} rolls back to what was completed last"
            );
            assert_eq!(
                previous.map(|state| &state.completed_digests),
                Some(&primary.digests),
                "{name} rolls back to the images that were good"
            );
        }
        let is_there = look.len() == spec.desired_count as usize
            && look.iter().all(|it| it.stays() && it.is_healthy);
        let was_completed = was.is_some_and(|it| {
            it.rollout == Rollout::Completed && it.created_at == primary.created_at
        });
        if primary.rollout == Rollout::Completed && !was_completed {
            self.completed += 1;
            assert!(is_there, "{name} is completed, and has {look:?}");
            assert_eq!(state.deployments.len(), 1, "{name} is completed");
        }
        if state.steady && previous.is_none_or(|it| !it.steady) {
            assert!(is_there, "{name} is steady, and has {look:?}");
        }
        let deployment = format!("{name}/{}", primary.service_deployment);
        let opened = self.mirror.triggered.get(&deployment) == Some(&true);
        // What just opened it is the one that was PRIMARY before.
        if let Some(judged) = before_primary
            && judged.rollout == Rollout::InProgress
            && judged.service_deployment == primary.service_deployment
            && (primary.id != judged.id || primary.rollout == Rollout::Failed)
            && opened
        {
            let failures = self.failures_of(judged);
            let breaker = spec.configuration.deployment_circuit_breaker.as_ref();
            let needed = threshold(breaker, spec.desired_count);
            let by_user = state
                .deployments
                .iter()
                .any(|it| it.reason.contains("user's request"));
            assert!(
                failures >= needed || by_user,
                "the circuit breaker of {name} opened after {failures} of {needed} failures"
            );
        }
    }

    /// How many tasks of a deployment failed since it began.
    fn failures_of(&self, deployment: &DeploymentState) -> usize {
        let all = self.failed.get(&deployment.id).copied().unwrap_or(0);
        all - self
            .had_failed
            .get(&begun(deployment))
            .copied()
            .unwrap_or(0)
    }

    /// A deployment whose tasks fail is not carried on beyond the documented number, where the
    /// controllers drive and everything has been taken in.
    pub fn check_breakers(&self, services: &BTreeSet<String>) {
        for name in services {
            let (Some(watched), Some(primary)) =
                (self.mirror.services.get(name), self.primary(name))
            else {
                continue;
            };
            let spec = &watched.spec;
            let breaker = spec.configuration.deployment_circuit_breaker.as_ref();
            let Some(breaker) = breaker.filter(|it| it.enable) else {
                continue;
            };
            let resets = breaker.reset_on_healthy_task != Some(false);
            if primary.rollout != Rollout::InProgress
                || spec.deleted_at.is_some()
                || (resets
                    && (primary.healthy_start.is_some()
                        || self.had_healthy.contains(&begun(primary))))
            {
                continue;
            }
            let (failures, needed) = (
                self.failures_of(primary),
                threshold(Some(breaker), spec.desired_count),
            );
            assert!(
                failures < needed,
                "{name} goes on after {failures} failures, and {needed} are too many"
            );
        }
    }
}

/// A deployment that is returned to begins once more.
fn begun(deployment: &DeploymentState) -> (String, Timestamp) {
    (deployment.id.clone(), deployment.created_at)
}

/// At least so many up, rounded up; at most so many RUNNING or PENDING, rounded down.
pub fn bounds(spec: &ServiceRow) -> (usize, usize) {
    let percent = |value: Option<i32>, default| value.unwrap_or(default) as usize;
    let least = percent(spec.configuration.minimum_healthy_percent, 100);
    let most = percent(spec.configuration.maximum_percent, 200);
    let desired = spec.desired_count as usize;
    ((desired * least).div_ceil(100), desired * most / 100)
}

/// After so many failed tasks a deployment fails, by AWS's documentation.
pub fn threshold(breaker: Option<&DeploymentCircuitBreaker>, desired: u32) -> usize {
    let given = breaker.and_then(|breaker| breaker.threshold_configuration.as_ref());
    let share = |percent: i32| (desired as usize * percent as usize).div_ceil(100);
    match given.map(|given| (&given.r#type, given.value)) {
        Some((ThresholdType::Count, count)) => count as usize,
        Some((ThresholdType::UnboundedPercent, percent)) => share(percent).max(1),
        Some((_, percent)) => share(percent).clamp(3, 200),
        None => share(50).clamp(3, 200),
    }
}
