//! What a pass starts and stops.

use std::collections::{BTreeMap, BTreeSet};

use gantry_arn::TaskId;
use gantry_env::Timestamp;
use gantry_placement::Plan;
use std::time::Duration;

use super::derived::Derived;
use super::pass::Pass;
use crate::api::placing::{Choice, Planned};
use crate::api::service_tasks::{NewReplica, Replicas};
use crate::model::absent::items;
use crate::model::run_request::definition_constraints;
use crate::model::service::failures::RESTART_PACE;
use crate::model::service::replica::{Condition, Replica};
use crate::model::service::rolling::{self, Why};
use crate::model::service::{events, request};
use crate::tables::{
    DesiredPhase, Rollout, StopCode, TaskDesiredRow, TaskReportRow, TaskRow, Unplaced, task_name,
};

/// Of a transaction's hundred operations, how many starts and stops may take: the rest is for the
/// rows of the service itself.
const OPERATIONS_MAX: usize = 80;

/// A stop takes so many.
const STOP_OPERATIONS: usize = 4;

/// How long a service waits that found no place for a task, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

impl Pass<'_> {
    pub(super) fn act(&mut self) {
        let bounds = self.bounds();
        let replicas = self.replicas();
        let lacking = rolling::lacking(&bounds, &replicas);
        let due = self.due(lacking);
        let room = rolling::room(&bounds, &replicas).min(due.len());
        let unplaced = match due.get(..room) {
            Some(slots) if !slots.is_empty() => self.start(slots),
            _ => {
                self.state.unplaced = None;
                0
            }
        };
        let put_off = due.len() - room + unplaced;
        self.stop(&bounds, &replicas, put_off);
    }

    /// Those of the slots in which a task may be started now.
    fn due(&mut self, lacking: Vec<u32>) -> Vec<u32> {
        let Some(primary) = self.primary().cloned() else {
            return Vec::new();
        };
        if lacking.is_empty() || primary.rollout == Rollout::Failed {
            return Vec::new();
        }
        if let Some(until) = primary.throttled_until
            && self.now < until
        {
            self.look_again(until);
            return Vec::new();
        }
        // Who ended by himself, in which slot, and when.
        let mut paced: BTreeMap<u32, Timestamp> = BTreeMap::new();
        for task in &self.tasks {
            let ended = task
                .stop()
                .is_some_and(|stop| stop.code == StopCode::EssentialContainerExited);
            if ended && task.spec.started_by.as_ref() == Some(&primary.id) {
                let slot = task.spec.replica.as_ref().map_or(0, |replica| replica.slot);
                let until = task.spec.created_at + RESTART_PACE;
                let known = paced.entry(slot).or_insert(until);
                *known = (*known).max(until);
            }
        }
        let waits = |slot: &u32| paced.get(slot).copied().filter(|until| self.now < *until);
        let next = lacking.iter().filter_map(waits).min();
        let due = lacking
            .iter()
            .copied()
            .filter(|slot| waits(slot).is_none())
            .collect();
        if let Some(at) = next {
            self.look_again(at);
        }
        due
    }

    /// Starts tasks in these slots. Answers how many found no place.
    fn start(&mut self, slots: &[u32]) -> usize {
        let (now, rows) = (self.now, self.rows);
        if let Some(unplaced) = self.state.unplaced {
            let freed = self
                .tasks
                .iter()
                .filter_map(|task| task.stopped_at())
                .any(|at| at > unplaced.tried_at);
            if now < unplaced.again_at && !freed {
                self.look_again(unplaced.again_at);
                return slots.len();
            }
        }
        let Some(primary) = self.primary().cloned() else {
            return 0;
        };
        let Some(definition) = self.definition(&primary) else {
            return slots.len();
        };
        let spec = self.spec.clone();
        let replicas = Replicas {
            rows,
            service: &spec,
            deployment: &primary,
            definition: &definition,
            now,
        };
        // Both were checked when they were stored; what cannot be read places nothing.
        let constraints = definition_constraints(&definition.definition).and_then(|mut all| {
            all.extend(request::constraints(&spec.placement_constraints)?);
            Ok(all)
        });
        let strategies = request::strategies(&spec.placement_strategy);
        let (Ok(constraints), Ok(strategies)) = (constraints, strategies) else {
            return slots.len();
        };
        let choice = Choice::Best {
            constraints,
            strategies: &strategies,
            seed: self.state.next_number,
        };
        let Some((plan, started)) = self.place(&replicas, slots, choice) else {
            return 0;
        };
        let left = slots.len() - started.len();
        let unplaced = usize::try_from(plan.unplaced).unwrap_or(usize::MAX);
        if unplaced == 0 {
            self.state.unplaced = None;
            if left > 0 {
                self.look_again(now);
            }
            return 0;
        }
        let tries = match self.state.unplaced {
            Some(before) if started.is_empty() => before.tries.saturating_add(1),
            _ => 0,
        };
        let again_at = now + RETRY.0.saturating_mul(1 << tries.min(8)).min(RETRY.1);
        self.state.unplaced = Some(Unplaced {
            tries,
            tried_at: now,
            again_at,
        });
        self.look_again(again_at);
        self.say(events::unplaced(&spec.name, &plan.rejections));
        left
    }

    /// Finds places for as many as this commit has room for, and writes the tasks that got one. None
    /// where another plan is being committed and this one has to wait for it.
    fn place(
        &mut self,
        replicas: &Replicas<'_>,
        slots: &[u32],
        choice: Choice<'_>,
    ) -> Option<(Plan, Vec<TaskId>)> {
        let incarnation = self.spec.incarnation.clone();
        let mut next = self.state.next_number;
        let mut derived = Derived {
            incarnation: &incarnation,
            next: &mut next,
        };
        let tried = slots.iter().take(OPERATIONS_MAX);
        let ids: Vec<TaskId> = tried.map(|_| derived.task()).collect();
        let operations = OPERATIONS_MAX.saturating_sub(self.transaction.len());
        let mut reservation = match replicas.plan(self.placing, &ids, choice, operations) {
            Planned::Reserved(reservation) => reservation,
            Planned::Wait(_) => {
                self.waits = true;
                return None;
            }
            Planned::NoInstances => {
                let plan = Plan {
                    unplaced: u32::try_from(ids.len()).unwrap_or(u32::MAX),
                    ..Plan::default()
                };
                return Some((plan, Vec::new()));
            }
        };
        let started: Vec<TaskId> = reservation.tasks.iter().map(|(id, _)| *id).collect();
        let plan = std::mem::take(&mut reservation.plan);
        if started.is_empty() {
            return Some((plan, started));
        }
        // The numbers of tasks that found no place are not used up.
        self.state.next_number += u64::try_from(started.len()).unwrap_or(0);
        let mut derived = Derived {
            incarnation: &incarnation,
            next: &mut self.state.next_number,
        };
        let containers = items(&replicas.definition.definition.container_definitions);
        let new = started.iter().zip(slots).map(|(id, slot)| {
            let replica = NewReplica {
                slot: *slot,
                container_ids: containers.iter().map(|_| derived.uuid()).collect(),
            };
            (*id, replica)
        });
        replicas.write(&reservation, new.collect(), &mut self.transaction);
        self.say(events::started(&self.spec.name.clone(), &started));
        // Its shares are taken until the commit is over.
        self.reservation = Some(reservation);
        Some((plan, started))
    }

    fn stop(&mut self, bounds: &rolling::Bounds, replicas: &[Replica], put_off: usize) {
        let protected = self.protected(replicas);
        let spreads = !self
            .spec
            .placement_strategy
            .iter()
            .any(|it| it.r#type == Some(gantry_api::ecs::PlacementStrategyType::Binpack));
        let stops = rolling::stops(bounds, replicas, put_off, &protected, spreads);
        let primary = self.primary().map(|it| it.id.clone()).unwrap_or_default();
        let all = stops.len();
        let mut stopped = Vec::new();
        for stop in stops {
            if self.transaction.len() + STOP_OPERATIONS > OPERATIONS_MAX {
                break;
            }
            let reason = match stop.why {
                Why::Unhealthy => "Task failed container health checks".to_owned(),
                Why::Scaling | Why::Draining => {
                    format!("Scaling activity initiated by (deployment {primary})")
                }
            };
            self.write_stop(&stop.task, reason);
            stopped.push(stop);
        }
        if all > stopped.len() {
            self.look_again(self.now);
        }
        let running = |id: &TaskId| {
            let replica = found(replicas, id);
            replica.is_some_and(|replica| replica.condition > Condition::Pending)
        };
        let named: Vec<TaskId> = stopped
            .iter()
            .map(|stop| stop.task)
            .filter(|id| running(id))
            .collect();
        if !named.is_empty() {
            self.say(events::stopped(&self.spec.name.clone(), &named));
        }
        let unhealthy = stopped.iter().filter(|stop| stop.why == Why::Unhealthy);
        let unhealthy: Vec<TaskId> = unhealthy
            .map(|stop| stop.task)
            .filter(|id| found(replicas, id).is_some_and(|it| it.is_primary))
            .collect();
        if let Some(primary) = self.state.deployments.first_mut()
            && !unhealthy.is_empty()
        {
            let count = u32::try_from(unhealthy.len()).unwrap_or(u32::MAX);
            primary.failed_tasks = primary.failed_tasks.saturating_add(count);
            primary.breaker_failures = primary.breaker_failures.saturating_add(count);
            primary.updated_at = self.now;
            self.look_again(self.now);
        }
    }

    /// The replicas that are left alone, until the first of them no longer is.
    fn protected(&mut self, replicas: &[Replica]) -> BTreeSet<TaskId> {
        let live: Vec<_> = self
            .rows
            .protected(&self.spec)
            .into_iter()
            .filter(|(id, until)| self.now < *until && found(replicas, id).is_some())
            .collect();
        if let Some(first) = live.iter().map(|(_, until)| *until).min() {
            self.look_again(first);
        }
        live.into_iter().map(|(id, _)| id).collect()
    }

    /// Stops everything, because the service is deleted.
    pub(super) fn stop_all(&mut self) {
        let alive: Vec<TaskId> = self
            .tasks
            .iter()
            .filter(|task| {
                task.desired_phase() == DesiredPhase::Running && !task.last_status().is_stopped()
            })
            .map(|task| task.spec.id)
            .collect();
        let primary = self.primary().map(|it| it.id.clone());
        let primary = primary.unwrap_or_else(|| self.spec.target.deployment.clone());
        for id in &alive {
            if self.transaction.len() + STOP_OPERATIONS > OPERATIONS_MAX {
                self.look_again(self.now);
                break;
            }
            let reason = format!("Scaling activity initiated by (deployment {primary})");
            self.write_stop(id, reason);
        }
    }

    fn write_stop(&mut self, id: &TaskId, reason: String) {
        let (account, region) = (&self.rows.scope.account, &self.rows.scope.region);
        let name = task_name(&self.spec.cluster, id);
        let Some(spec) = self.rows.read::<TaskRow>(&name) else {
            return;
        };
        // A task ends for one reason: what it reports at the same moment comes first.
        self.transaction.expect_read(&spec);
        match self.rows.read::<TaskReportRow>(&name) {
            Some(report) => self.transaction.expect_read(&report),
            None => self
                .transaction
                .expect_absent::<TaskReportRow>(account, region, &name),
        };
        let desired = TaskDesiredRow {
            phase: DesiredPhase::Stopped,
            stop_code: StopCode::ServiceSchedulerInitiated,
            stopped_reason: Some(reason),
            since: self.now,
            given_up_at: None,
        };
        self.transaction
            .create::<TaskDesiredRow>(account, region, &name, &desired);
    }
}

/// One of the replicas, which are in the order of their ids.
fn found<'a>(replicas: &'a [Replica], id: &TaskId) -> Option<&'a Replica> {
    let at = replicas
        .binary_search_by_key(id, |replica| replica.id)
        .ok()?;
    replicas.get(at)
}
