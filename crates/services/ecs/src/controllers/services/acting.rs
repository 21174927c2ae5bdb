//! What a pass starts and stops.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_env::Timestamp;
use gantry_placement::{Plan, Rejection, Resource};

use super::balancing::Moving;
use super::derived::Derived;
use super::pass::Pass;
use crate::api::placing::{Choice, Planned};
use crate::api::service_tasks::{NewReplica, Replicas};
use crate::model::absent::items;
use crate::model::resources::number;
use crate::model::run_request::definition_constraints;
use crate::model::service::failures::RESTART_PACE;
use crate::model::service::replica::{Condition, Replica};
use crate::model::service::rolling::{self, Bounds, Stop, Why};
use crate::model::service::scale_in::{Order, packed};
use crate::model::service::sides;
use crate::model::service::{events, request};
use crate::model::state_changes::ServiceAction;
use crate::model::task_view::TaskState;
use crate::tables::{
    DeploymentState, DesiredPhase, Rollout, StopCode, TaskDesiredRow, TaskReportRow, TaskRow,
    Unplaced, task_name,
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
        if self.is_daemon() {
            return self.act_as_daemon();
        }
        let Some(primary) = self.primary().map(|it| it.id.clone()) else {
            return;
        };
        let staying = self.staying();
        // All but a blue/green deployment on its way has one side: there is nothing to be dealt out.
        let has_tried = match staying == [primary.as_str()] {
            true => self.act_on_one(&primary),
            false => self.act_on_sides(&staying),
        };
        if !has_tried {
            self.state.unplaced = None;
        }
    }

    fn act_on_one(&mut self, primary: &str) -> bool {
        let mut bounds = self.bounds();
        let all = self.replicas();
        let moving = self.go_on_moving(&bounds, &all);
        let mut replicas = all.clone();
        match &moving {
            Moving::Nothing => {}
            Moving::Waits => bounds.desired += 1,
            Moving::Leaves(stop) => {
                Rc::make_mut(&mut replicas).retain(|replica| replica.id != stop.task);
            }
        }
        let (has_tried, mut stops) = self.act_on(primary, &bounds, replicas);
        if let Moving::Leaves(stop) = moving {
            stops.push(stop);
        }
        self.carry_out(stops, &all);
        has_tried
    }

    fn act_on_sides(&mut self, staying: &[String]) -> bool {
        if self.state.balance.step.is_some() {
            self.end_move(false);
        }
        let staying: Vec<&str> = staying.iter().map(String::as_str).collect();
        let all = self.replicas_by_deployment();
        let mut has_tried = false;
        for side in sides::deal(&staying, &self.bounds(), &all) {
            let replicas = Rc::new(side.replicas);
            let (tried, stops) = self.act_on(&side.deployment, &side.bounds, replicas.clone());
            has_tried |= tried;
            self.carry_out(stops, &replicas);
        }
        has_tried
    }

    /// Starts what one side lacks, and answers what it stops. True if there are slots that a task should be
    /// started in.
    fn act_on(
        &mut self,
        deployment: &str,
        bounds: &Bounds,
        mut replicas: Rc<Vec<Replica>>,
    ) -> (bool, Vec<Stop>) {
        let lacking = rolling::lacking(bounds, &replicas);
        let due = self.due(deployment, lacking);
        let room = rolling::room(bounds, &replicas).min(due.len());
        let slots = due.get(..room).unwrap_or_default();
        // One side starts tasks in a pass: another plan would not know of its places.
        if !slots.is_empty() && self.reservation.is_some() {
            self.look_again(self.now);
            return (true, Vec::new());
        }
        let unplaced = match slots.is_empty() || self.waits {
            true => 0,
            false => self.start(deployment, slots),
        };
        let put_off = due.len() - room + unplaced;
        let order = self.order(bounds, &mut replicas);
        let protected = self.protected(&replicas);
        let stops = rolling::stops(bounds, &replicas, put_off, &protected, order);
        (!slots.is_empty(), stops)
    }

    /// Who goes first, and for that, where a scale-in is due under a binpack, what each instance has
    /// left.
    fn order(&self, bounds: &Bounds, replicas: &mut Rc<Vec<Replica>>) -> Order {
        let strategies = request::strategies(&self.spec.placement_strategy).unwrap_or_default();
        if let Some(resource) = packed(&strategies)
            && rolling::excess(bounds, replicas) > 0
        {
            let mut known: BTreeMap<ContainerInstanceId, i64> = BTreeMap::new();
            for replica in Rc::make_mut(replicas) {
                let left = known.entry(replica.instance);
                let left = left.or_insert_with(|| self.left_free(&replica.instance, resource));
                replica.left_free = *left;
            }
        }
        Order::of(&strategies)
    }

    fn left_free(&self, id: &ContainerInstanceId, resource: Resource) -> i64 {
        let cluster = &self.spec.cluster;
        let Some(instance) = self.rows.container_instance(cluster, id) else {
            return 0;
        };
        let taken = self.rows.allocation(cluster, id).taken;
        let registered = |name| number(&instance.registered_resources, name).unwrap_or(0);
        match resource {
            Resource::Cpu => registered("CPU") - taken.cpu,
            Resource::Memory => registered("MEMORY") - taken.memory,
        }
    }

    /// Those of the slots in which a task may be started now.
    fn due(&mut self, deployment: &str, lacking: Vec<u32>) -> Vec<u32> {
        if lacking.is_empty() || !self.may_start(deployment) {
            return Vec::new();
        }
        self.unpaced(deployment, lacking, |task| {
            task.replica.as_ref().map_or(0, |replica| replica.slot)
        })
    }

    /// Whether the deployment starts tasks at all: it has not failed, and is not throttled.
    pub(super) fn may_start(&mut self, deployment: &str) -> bool {
        let Some(deployment) = self.deployment(deployment) else {
            return false;
        };
        let (rollout, throttled) = (deployment.rollout, deployment.throttled_until);
        let throttled = throttled.filter(|until| self.now < *until);
        if let Some(until) = throttled.filter(|_| rollout != Rollout::Failed) {
            self.look_again(until);
        }
        rollout != Rollout::Failed && throttled.is_none()
    }

    /// Without the places whose last task ended by itself too soon to be followed at once.
    pub(super) fn unpaced<K: Ord + Copy>(
        &mut self,
        deployment: &str,
        lacking: Vec<K>,
        place: impl Fn(&TaskRow) -> K,
    ) -> Vec<K> {
        // Who ended by himself, in which place, and when.
        let mut paced: BTreeMap<K, Timestamp> = BTreeMap::new();
        for task in &self.tasks {
            let ended = task
                .stop()
                .is_some_and(|stop| stop.code == StopCode::EssentialContainerExited);
            if ended && task.spec.started_by.as_deref() == Some(deployment) {
                let until = task.spec.created_at + RESTART_PACE;
                let known = paced.entry(place(&task.spec)).or_insert(until);
                *known = (*known).max(until);
            }
        }
        let waits = |place: &K| paced.get(place).copied().filter(|until| self.now < *until);
        let next = lacking.iter().filter_map(waits).min();
        let due = lacking
            .iter()
            .copied()
            .filter(|place| waits(place).is_none())
            .collect();
        if let Some(at) = next {
            self.look_again(at);
        }
        due
    }

    /// Starts tasks of a deployment in these slots. Answers how many found no place.
    fn start(&mut self, deployment: &str, slots: &[u32]) -> usize {
        let now = self.now;
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
        let Some(deployment) = self.deployment(deployment).cloned() else {
            return 0;
        };
        let Some(definition) = self.definition(&deployment) else {
            return slots.len();
        };
        let spec = self.spec.clone();
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
        let Some((plan, started)) = self.place(&deployment, slots, choice) else {
            return 0;
        };
        if !started.is_empty() {
            self.say(events::started(&spec.name, &started));
        }
        let left = slots.len() - started.len();
        let unplaced = usize::try_from(plan.unplaced).unwrap_or(usize::MAX);
        if unplaced == 0 {
            self.state.unplaced = None;
            if left > 0 {
                self.look_again(now);
            }
            return 0;
        }
        self.note_unplaced(&plan.rejections, !started.is_empty());
        left
    }

    /// Says that tasks found no place, and sees to it that they are tried again.
    pub(super) fn note_unplaced(&mut self, rejections: &[Rejection], has_started: bool) {
        let now = self.now;
        let tries = match self.state.unplaced {
            Some(before) if !has_started => before.tries.saturating_add(1),
            _ => 0,
        };
        let again_at = now + RETRY.0.saturating_mul(1 << tries.min(8)).min(RETRY.1);
        self.state.unplaced = Some(Unplaced {
            tries,
            tried_at: now,
            again_at,
        });
        self.look_again(again_at);
        if self.say(events::unplaced(&self.spec.name.clone(), rejections)) {
            let reason = events::placement_reason(rejections);
            self.tell_action(&ServiceAction::TaskPlacementFailure { reason });
        }
    }

    /// Finds places for as many as this commit has room for, and writes the tasks that got one. None
    /// where another plan is being committed and this one has to wait for it.
    pub(super) fn place(
        &mut self,
        deployment: &DeploymentState,
        slots: &[u32],
        choice: Choice<'_>,
    ) -> Option<(Plan, Vec<TaskId>)> {
        let definition = self.definition(deployment)?;
        let spec = self.spec.clone();
        let replicas = Replicas {
            rows: self.rows,
            service: &spec,
            deployment,
            definition: &definition,
            now: self.now,
        };
        let incarnation = spec.incarnation.clone();
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
        for made in replicas.write(&reservation, new.collect(), &mut self.transaction) {
            self.tell_of(None, TaskState::begin(made));
        }
        // Its shares are taken until the commit is over.
        self.reservation = Some(reservation);
        Some((plan, started))
    }

    /// Stops these of the replicas, says so, and counts those that were ill.
    pub(super) fn carry_out(&mut self, stops: Vec<Stop>, replicas: &[Replica]) {
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
            let name = self.spec.name.clone();
            self.say(match &self.state.balance.step {
                Some(step) if named == [step.leaver] => {
                    events::stopped_to_balance(&name, &step.from, &named)
                }
                _ => events::stopped(&name, &named),
            });
        }
        let unhealthy = stopped.iter().filter(|stop| stop.why == Why::Unhealthy);
        let unhealthy: Vec<TaskId> = unhealthy
            .map(|stop| stop.task)
            .filter(|id| found(replicas, id).is_some_and(|it| it.is_primary))
            .collect();
        for id in unhealthy {
            let task = self.tasks.iter().find(|task| task.spec.id == id);
            let of = task.and_then(|task| task.spec.started_by.clone());
            let mut all = self.state.deployments.iter_mut();
            if let Some(mine) = all.find(|it| Some(&it.id) == of.as_ref()) {
                mine.failed_tasks = mine.failed_tasks.saturating_add(1);
                mine.breaker_failures = mine.breaker_failures.saturating_add(1);
                mine.updated_at = self.now;
                self.look_again(self.now);
            }
        }
    }

    /// The replicas that are left alone, until the first of them no longer is.
    pub(super) fn protected(&mut self, replicas: &[Replica]) -> BTreeSet<TaskId> {
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
        let before = self.rows.task_of(spec.row.clone(), &name);
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
        let after = TaskState {
            desired: Some(desired.into()),
            ..before.clone()
        };
        self.tell_of(Some(&before), after);
    }
}

/// One of the replicas, which are in the order of their ids.
fn found<'a>(replicas: &'a [Replica], id: &TaskId) -> Option<&'a Replica> {
    let at = replicas
        .binary_search_by_key(id, |replica| replica.id)
        .ok()?;
    replicas.get(at)
}
