//! The container instances of clusters as placements see them, derived from the rows and kept: for
//! RunTask, for StartTask and for services alike.
//!
//! What always holds: nothing here is stored, and nothing rests on it: a plan is committed with the
//! rows that it was made from as its condition, so at worst it is made again. Before each plan all
//! changes of the store are taken in. What a plan takes counts at once, before its commit, so that
//! plans made at the same time go to different instances instead of conflicting; a plan that can
//! only go where another is being committed waits until that one is done.

mod known;
mod reservation;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::lock::Mutex as AsyncMutex;
use gantry_arn::{ClusterName, ContainerInstanceId, TaskId};
use gantry_placement::{
    Candidate, Constraint, Demand, InstanceIndex, LaunchType, Plan, Rejection, Request, Strategy,
    Unfit,
};
use gantry_store::{Change, Changes, Revision, Row, RowChange, Snapshot, Store, Table, Versioned};

use self::known::Known;
pub(crate) use self::reservation::Reservation;
pub(super) use self::reservation::Touched;
use self::reservation::{INSTANCE_OPERATIONS, TASK_OPERATIONS};
use super::lookup::Rows;
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::tables::{
    AcsSessionRow, AllocationRow, ClusterRow, ClusterStatus, ContainerInstanceRow,
    ContainerInstanceStatus, Reserved, TaskDesiredRow, TaskReportRow, TaskRow,
};

/// A cluster of one account and region.
type Place = (Scope, ClusterName);

/// Every cluster in which something was placed.
pub(crate) struct Placing {
    store: Arc<dyn Store>,
    inner: Mutex<Inner>,
}

/// Locked while a plan is being committed: who gets the lock knows that this is over.
pub(crate) type Committing = Arc<AsyncMutex<()>>;

struct Inner {
    changes: Changes,
    clusters: BTreeMap<Place, Cluster>,
    salt: u64,
}

#[derive(Default)]
struct Cluster {
    instances: BTreeMap<ContainerInstanceId, Known>,
    index: InstanceIndex,
    /// Where each task that holds a share is.
    tasks: BTreeMap<TaskId, ContainerInstanceId>,
    /// The rows that this was made from; changes up to there are in it.
    made_at: Revision,
}

/// How an instance is chosen.
pub(crate) enum Choice<'a> {
    Best {
        constraints: Vec<Constraint>,
        strategies: &'a [Strategy],
        seed: u64,
    },
    /// One task on each, because the caller says so.
    These(&'a [ContainerInstanceId]),
}

/// How much of what is wanted has to be planned at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All that finds a place: who asked is answered once.
    Whole,
    /// As much as a commit has this many operations left for, and as need not wait for another plan.
    AsFar { operations: usize },
}

/// What is to be placed: a task for each id.
pub(crate) struct Wanted<'a> {
    pub tasks: &'a [TaskId],
    pub demand: &'a Demand,
    pub reserved: &'a Reserved,
    pub choice: Choice<'a>,
    pub extent: Extent,
}

pub(crate) enum Planned {
    /// No instance of the launch type is registered.
    NoInstances,
    /// To be planned again once this is over.
    Wait(Committing),
    Reserved(Reservation),
}

impl Placing {
    pub fn new(store: Arc<dyn Store>, salt: u64) -> Self {
        let after = store.snapshot().revision();
        let changes = store
            .watch(&AllocationRow::everywhere(), after)
            .also(&ContainerInstanceRow::everywhere())
            .also(&AcsSessionRow::everywhere())
            .also(&TaskReportRow::everywhere())
            .also(&TaskDesiredRow::everywhere())
            .also(&TaskRow::everywhere())
            .also(&ClusterRow::everywhere());
        Self {
            store,
            inner: Mutex::new(Inner {
                changes,
                clusters: BTreeMap::new(),
                salt,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a place for each task and takes its share there, as the rows are now.
    pub(crate) fn plan(
        self: &Arc<Self>,
        scope: &Scope,
        cluster: &ClusterName,
        wanted: &Wanted<'_>,
    ) -> Planned {
        let place = (scope.clone(), cluster.clone());
        let mut inner = self.lock();
        inner.catch_up(&*self.store);
        let known = inner.cluster(&*self.store, &place);
        if !known.serves(wanted.demand.launch_type) {
            return Planned::NoInstances;
        }
        let Draft {
            plan,
            touched,
            waits_for,
        } = known.draft(wanted);
        let waits_for = waits_for.filter(|_| match wanted.extent {
            Extent::Whole => true,
            Extent::AsFar { .. } => plan.placements.is_empty(),
        });
        if let Some(committing) = waits_for {
            for id in &touched {
                known.refresh(id);
            }
            return Planned::Wait(committing);
        }
        let committing = Committing::default();
        let tasks = wanted.tasks.iter().copied();
        let mut reservation = Reservation {
            tasks: tasks.zip(plan.placements.iter().copied()).collect(),
            instances: BTreeMap::new(),
            plan,
            place,
            placing: self.clone(),
            _committing: committing.try_lock_owned(),
        };
        for (task, id) in &reservation.tasks {
            known.take(task, id, wanted.reserved, &committing);
        }
        for id in touched {
            known.refresh(&id);
            reservation.instances.extend(known.touched(&id));
        }
        drop(inner);
        Planned::Reserved(reservation)
    }

    /// The shares are in the rows by now, or will never be.
    fn end(&self, place: &Place, tasks: &[(TaskId, ContainerInstanceId)]) {
        if tasks.is_empty() {
            return;
        }
        let mut inner = self.lock();
        inner.catch_up(&*self.store);
        if let Some(cluster) = inner.clusters.get_mut(place) {
            for (task, id) in tasks {
                if let Some(known) = cluster.instances.get_mut(id) {
                    known.in_flight.remove(task);
                    if known.in_flight.is_empty() {
                        known.committing = None;
                    }
                }
            }
            for (_, id) in tasks {
                cluster.refresh(id);
            }
        }
    }
}

/// A plan of which nothing is set aside yet.
struct Draft {
    plan: Plan,
    /// The instances that the index no longer shows as they are.
    touched: BTreeSet<ContainerInstanceId>,
    /// The plan ended early, because the next task would go where another plan is being committed.
    waits_for: Option<Committing>,
}

impl Inner {
    fn catch_up(&mut self, store: &dyn Store) {
        while let Some(change) = self.changes.try_next() {
            match change {
                Change::Rows(rows) => {
                    // At least as new as the changes; a task only ever moves forward.
                    let snapshot = store.snapshot();
                    rows.iter().for_each(|row| self.apply(row, &snapshot));
                }
                Change::Lost => {
                    self.changes.reload();
                    self.clusters.clear();
                }
            }
        }
    }

    fn cluster(&mut self, store: &dyn Store, place: &Place) -> &mut Cluster {
        let salt = self.salt;
        self.clusters
            .entry(place.clone())
            .or_insert_with(|| Cluster::of(&store.snapshot(), place, salt))
    }

    fn apply(&mut self, change: &RowChange, snapshot: &Snapshot) {
        // A task's spec says nothing here, but for its end.
        let is_task = TaskRow::holds(&change.key);
        if self.clusters.is_empty() || (is_task && change.row.is_some()) {
            return;
        }
        let (cluster, name) = match change.key.name().split_once('/') {
            Some(parts) => parts,
            None => (change.key.name(), ""),
        };
        let Ok(cluster) = cluster.parse::<ClusterName>() else {
            return;
        };
        let scope = Scope {
            account: change.key.account(),
            region: change.key.region(),
        };
        let place = (scope, cluster);
        if name.is_empty() {
            let row = change.row.as_ref().and_then(read::<ClusterRow>);
            if row.is_none_or(|row| row.status == ClusterStatus::Inactive) {
                self.clusters.remove(&place);
            }
            return;
        }
        if let Some(known) = self.clusters.get_mut(&place)
            && change.revision > known.made_at
        {
            let rows = Rows::new(snapshot, &place.0);
            known.apply(change, name, &rows, &place.1);
        }
    }
}

/// A row that cannot be read is one that a newer Gantry wrote: it is not this one's to place on.
fn read<T: Table>(row: &Row) -> Option<Versioned<T::Row>> {
    Some(Versioned {
        key: row.key().clone(),
        revision: row.revision(),
        row: row.decode::<T>().ok()?,
    })
}

impl Cluster {
    fn of(snapshot: &Snapshot, (scope, cluster): &Place, salt: u64) -> Self {
        let rows = Rows::new(snapshot, scope);
        let mut made = Self {
            index: InstanceIndex::new(salt),
            made_at: snapshot.revision(),
            ..Self::default()
        };
        for row in rows.container_instances(cluster) {
            let id = row.id;
            made.load(&rows, cluster, row);
            made.refresh(&id);
        }
        made
    }

    /// Everything that the rows say of an instance.
    fn load(
        &mut self,
        rows: &Rows<'_>,
        cluster: &ClusterName,
        row: Versioned<ContainerInstanceRow>,
    ) {
        let id = row.id;
        let known = Known::load(rows, cluster, row);
        let tasks = known.allocation.iter().flat_map(|row| row.row.tasks.keys());
        self.tasks.extend(tasks.map(|task| (*task, id)));
        self.instances.insert(id, known);
    }

    fn apply(&mut self, change: &RowChange, name: &str, rows: &Rows<'_>, cluster: &ClusterName) {
        let changed = match change.key.kind() {
            AllocationRow::KIND => self.allocated(change, name),
            ContainerInstanceRow::KIND => self.registered(change, rows, cluster, name),
            AcsSessionRow::KIND => self.connected(change, name),
            _ => self.task_changed(rows, cluster, name),
        };
        if let Some(id) = changed {
            self.refresh(&id);
        }
    }

    fn allocated(&mut self, change: &RowChange, name: &str) -> Option<ContainerInstanceId> {
        let id: ContainerInstanceId = name.parse().ok()?;
        let known = self.instances.get_mut(&id)?;
        if let Some(before) = &known.allocation {
            for task in before.tasks.keys() {
                self.tasks.remove(task);
            }
        }
        known.allocation = change.row.as_ref().and_then(read::<AllocationRow>);
        let tasks = known.allocation.as_ref().map(|row| &row.row.tasks);
        let holds = |task: &TaskId| tasks.is_some_and(|tasks| tasks.contains_key(task));
        known.over.retain(holds);
        known.running.retain(holds);
        for task in tasks.into_iter().flat_map(|tasks| tasks.keys()) {
            self.tasks.insert(*task, id);
        }
        Some(id)
    }

    fn registered(
        &mut self,
        change: &RowChange,
        rows: &Rows<'_>,
        cluster: &ClusterName,
        name: &str,
    ) -> Option<ContainerInstanceId> {
        let id: ContainerInstanceId = name.parse().ok()?;
        let Some(row) = change.row.as_ref().and_then(read::<ContainerInstanceRow>) else {
            self.instances.remove(&id);
            self.index.remove(&id);
            return None;
        };
        let template = Known::template(&row);
        match self.instances.get_mut(&id) {
            Some(known) => {
                known.row = row;
                known.template = template;
            }
            // Its other rows may have come before it, in the same commit.
            None => self.load(rows, cluster, row),
        }
        Some(id)
    }

    fn connected(&mut self, change: &RowChange, name: &str) -> Option<ContainerInstanceId> {
        let id: ContainerInstanceId = name.parse().ok()?;
        let session = change.row.as_ref().and_then(read::<AcsSessionRow>);
        let known = self.instances.get_mut(&id)?;
        let connected = session.is_some_and(|session| session.connected);
        let changed = known.connected != connected;
        known.connected = connected;
        changed.then_some(id)
    }

    /// Whether the task still holds its share, and whether it runs.
    fn task_changed(
        &mut self,
        rows: &Rows<'_>,
        cluster: &ClusterName,
        name: &str,
    ) -> Option<ContainerInstanceId> {
        let task: TaskId = name.parse().ok()?;
        let id = *self.tasks.get(&task)?;
        let known = self.instances.get_mut(&id)?;
        let status = rows.task(cluster, &task).map(|state| state.last_status());
        let over = status.is_none_or(LastStatus::is_stopped);
        let changed = match status == Some(LastStatus::Running) {
            true => known.running.insert(task),
            false => known.running.remove(&task),
        };
        let changed = (over && known.over.insert(task)) || changed;
        changed.then_some(id)
    }

    /// Tells the index how an instance is now.
    fn refresh(&mut self, id: &ContainerInstanceId) {
        match self.instances.get(id) {
            // Deregistered ones are not looked at any more.
            Some(known) if known.row.status != ContainerInstanceStatus::Inactive => {
                self.index.put(known.candidate());
            }
            _ => self.index.remove(id),
        }
    }

    fn serves(&self, launch_type: LaunchType) -> bool {
        self.index.iter().any(|it| it.launch_type == launch_type)
    }

    fn draft(&mut self, wanted: &Wanted<'_>) -> Draft {
        let operations_max = match wanted.extent {
            Extent::Whole => usize::MAX,
            Extent::AsFar { operations } => operations,
        };
        let (mut touched, mut waits_for, mut operations) = (BTreeSet::new(), None, 0);
        let instances = &self.instances;
        let mut goes_on = |id: &ContainerInstanceId| {
            waits_for = instances.get(id).and_then(|known| known.committing.clone());
            if waits_for.is_some() {
                return false;
            }
            let is_new = !touched.contains(id);
            operations += TASK_OPERATIONS + if is_new { INSTANCE_OPERATIONS } else { 0 };
            let goes_on = operations <= operations_max;
            if goes_on {
                touched.insert(*id);
            }
            goes_on
        };
        let plan = match &wanted.choice {
            Choice::Best {
                constraints,
                strategies,
                seed,
            } => self.index.place_while(
                &Request {
                    demand: wanted.demand,
                    count: u32::try_from(wanted.tasks.len()).unwrap_or(u32::MAX),
                    constraints,
                    strategies,
                    seed: *seed,
                },
                goes_on,
            ),
            Choice::These(ids) => {
                place_on(&mut self.index, instances, ids, wanted.demand, &mut goes_on)
            }
        };
        Draft {
            plan,
            touched,
            waits_for,
        }
    }

    fn take(
        &mut self,
        task: &TaskId,
        id: &ContainerInstanceId,
        reserved: &Reserved,
        committing: &Committing,
    ) {
        if let Some(known) = self.instances.get_mut(id) {
            known.committing = Some(committing.clone());
            known.in_flight.insert(*task, reserved.clone());
        }
    }

    fn touched(&self, id: &ContainerInstanceId) -> Option<(ContainerInstanceId, Touched)> {
        let known = self.instances.get(id)?;
        Some((
            *id,
            Touched {
                row: known.row.clone(),
                allocation: known.allocation.clone(),
                over: known.over.clone(),
            },
        ))
    }
}

/// A task on each of these instances, if it fits. Those that are not there, or full, are rejected;
/// the others are taken nevertheless.
fn place_on(
    index: &mut InstanceIndex,
    known: &BTreeMap<ContainerInstanceId, Known>,
    instances: &[ContainerInstanceId],
    demand: &Demand,
    goes_on: &mut dyn FnMut(&ContainerInstanceId) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    for id in instances {
        match index.against(id, demand, &[]) {
            Some(reasons) if reasons.is_empty() => {
                if !goes_on(id) {
                    break;
                }
                index.take(id, demand);
                plan.placements.push(*id);
            }
            reasons => {
                plan.unplaced += 1;
                let gone = known.contains_key(id);
                let reasons = reasons.unwrap_or_else(|| match gone {
                    true => vec![Unfit::Inactive],
                    false => Vec::new(),
                });
                plan.rejections.push(Rejection {
                    instance: *id,
                    reasons,
                });
            }
        }
    }
    plan
}

/// An instance as an expression sees it, as the rows are.
pub(super) fn candidate(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    row: Versioned<ContainerInstanceRow>,
) -> Candidate {
    Known::load(rows, cluster, row).candidate()
}

/// The same, as if the tasks of a group were not there.
pub(super) fn candidate_without(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    row: Versioned<ContainerInstanceRow>,
    group: &str,
) -> Candidate {
    let mut known = Known::load(rows, cluster, row);
    let tasks = known.allocation.iter().flat_map(|row| &row.row.tasks);
    let of_group: Vec<TaskId> = tasks
        .filter(|(_, reserved)| reserved.group == group)
        .map(|(task, _)| *task)
        .collect();
    known.over.extend(of_group);
    known.candidate()
}

/// An instance as its own row has it: empty, and whether its agent is connected is not known.
pub(super) fn template(row: &ContainerInstanceRow) -> Candidate {
    Known::template(row)
}
