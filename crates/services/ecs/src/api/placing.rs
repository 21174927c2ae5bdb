//! The container instances of clusters as placements see them, derived from the rows and kept.
//!
//! What always holds: nothing here is stored, and nothing rests on it: a plan is committed with the
//! rows that it was made from as its condition, so at worst it is made again. Before each plan all
//! changes of the store are taken in. What a plan takes counts at once, before its commit, so that
//! plans made at the same time go to different instances instead of conflicting; a plan that can
//! only go where another is being committed waits until that one is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_arn::{ClusterName, ContainerInstanceId, TaskId};
use gantry_placement::{
    Candidate, Capacity, Constraint, Demand, Eligibility, InstanceIndex, LaunchType, Plan,
    Rejection, Request, Strategy, Unfit,
};
use gantry_store::{Change, Changes, Revision, Row, RowChange, Snapshot, Store, Table, Versioned};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::lookup::Rows;
use crate::model::attributes::EXTERNAL;
use crate::model::last_status::LastStatus;
use crate::model::reference::Scope;
use crate::model::resources::{Taken, number, ports};
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
    /// A plan has been committed, or given up.
    ended: Arc<Notify>,
}

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

/// What is known of one instance.
struct Known {
    row: Versioned<ContainerInstanceRow>,
    connected: bool,
    allocation: Option<Versioned<AllocationRow>>,
    /// Entries of the allocation that no longer count.
    over: BTreeSet<TaskId>,
    running: BTreeSet<TaskId>,
    /// Shares that are being committed.
    in_flight: BTreeMap<TaskId, Reserved>,
    /// All that follows from the instance's row alone.
    template: Candidate,
}

/// How an instance is chosen.
pub(super) enum Choice<'a> {
    Best {
        constraints: Vec<Constraint>,
        strategies: &'a [Strategy],
        seed: u64,
    },
    /// One task on each, because the caller says so.
    These(&'a [ContainerInstanceId]),
}

/// What is to be placed: a task for each id.
pub(super) struct Wanted<'a> {
    pub tasks: &'a [TaskId],
    pub demand: &'a Demand,
    pub reserved: &'a Reserved,
    pub choice: Choice<'a>,
}

pub(super) enum Planned {
    /// No instance of the launch type is registered.
    NoInstances,
    /// To be planned again once this is over.
    Wait(OwnedNotified),
    Reserved(Reservation),
}

/// A plan whose shares are taken here until it is dropped: by then it is committed, or it is not.
pub(super) struct Reservation {
    pub plan: Plan,
    /// The tasks that found a place.
    pub tasks: Vec<(TaskId, ContainerInstanceId)>,
    /// The instances of those tasks, as they are before this plan.
    pub instances: BTreeMap<ContainerInstanceId, Touched>,
    place: Place,
    placing: Arc<Placing>,
}

pub(super) struct Touched {
    pub row: Versioned<ContainerInstanceRow>,
    pub allocation: Option<Versioned<AllocationRow>>,
    over: BTreeSet<TaskId>,
}

impl Touched {
    /// The allocation without the entries that no longer count.
    pub fn swept(&self) -> AllocationRow {
        let row = self.allocation.as_ref().map(|row| (*row.row).clone());
        let mut swept = row.unwrap_or_default();
        swept.tasks.retain(|task, _| !self.over.contains(task));
        swept
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.placing.end(&self.place, &self.tasks);
    }
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
            ended: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a place for each task and takes its share there, as the rows are now.
    pub(super) fn plan(
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
        let plan = match &wanted.choice {
            Choice::Best {
                constraints,
                strategies,
                seed,
            } => known.index.place(&Request {
                demand: wanted.demand,
                count: u32::try_from(wanted.tasks.len()).unwrap_or(u32::MAX),
                constraints,
                strategies,
                seed: *seed,
            }),
            Choice::These(instances) => known.place_on(instances, wanted.demand),
        };
        let touched: BTreeSet<ContainerInstanceId> = plan.placements.iter().copied().collect();
        let waits = touched.iter().any(|id| known.is_busy(id));
        let mut reservation = Reservation {
            tasks: wanted
                .tasks
                .iter()
                .copied()
                .zip(plan.placements.iter().copied())
                .collect(),
            instances: BTreeMap::new(),
            plan,
            place,
            placing: self.clone(),
        };
        if waits {
            // Made while nobody can end anything, so no end can be missed.
            let ended = self.ended.clone().notified_owned();
            for id in &touched {
                known.refresh(id);
            }
            reservation.tasks.clear();
            drop(inner);
            return Planned::Wait(ended);
        }
        for (task, id) in &reservation.tasks {
            known.take(task, id, wanted.reserved);
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
                }
            }
            for (_, id) in tasks {
                cluster.refresh(id);
            }
        }
        drop(inner);
        self.ended.notify_waiters();
    }
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

    fn is_busy(&self, id: &ContainerInstanceId) -> bool {
        self.instances
            .get(id)
            .is_some_and(|known| !known.in_flight.is_empty())
    }

    fn take(&mut self, task: &TaskId, id: &ContainerInstanceId, reserved: &Reserved) {
        if let Some(known) = self.instances.get_mut(id) {
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

    /// A task on each of these instances, if it fits. Those that are not there, or full, are
    /// rejected; the others are taken nevertheless.
    fn place_on(&mut self, instances: &[ContainerInstanceId], demand: &Demand) -> Plan {
        let mut plan = Plan::default();
        for id in instances {
            match self.index.against(id, demand, &[]) {
                Some(reasons) if reasons.is_empty() => {
                    self.index.take(id, demand);
                    plan.placements.push(*id);
                }
                reasons => {
                    plan.unplaced += 1;
                    let gone = self.instances.contains_key(id);
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
}

/// An instance as an expression sees it, as the rows are.
pub(super) fn candidate(
    rows: &Rows<'_>,
    cluster: &ClusterName,
    row: Versioned<ContainerInstanceRow>,
) -> Candidate {
    Known::load(rows, cluster, row).candidate()
}

impl Known {
    /// Everything that the rows say of an instance.
    fn load(rows: &Rows<'_>, cluster: &ClusterName, row: Versioned<ContainerInstanceRow>) -> Self {
        let allocation = rows.allocation(cluster, &row.id);
        let session = rows.session(cluster, &row.id);
        let mut known = Self::of(row);
        known.connected = session.is_some_and(|session| session.connected);
        known.over = allocation.over.iter().copied().collect();
        let running = allocation
            .tasks
            .iter()
            .filter(|task| task.last_status() == LastStatus::Running);
        known.running = running.map(|task| task.spec.id).collect();
        known.allocation = allocation.row;
        known
    }

    fn of(row: Versioned<ContainerInstanceRow>) -> Self {
        Self {
            template: Self::template(&row),
            row,
            connected: false,
            allocation: None,
            over: BTreeSet::new(),
            running: BTreeSet::new(),
            in_flight: BTreeMap::new(),
        }
    }

    fn template(row: &ContainerInstanceRow) -> Candidate {
        let resources = &row.registered_resources;
        let attributes: BTreeMap<String, Option<String>> = row
            .attributes
            .iter()
            .map(|attribute| (attribute.name.clone(), attribute.value.clone()))
            .collect();
        let version = row.version_info.as_ref();
        Candidate {
            launch_type: match attributes.contains_key(EXTERNAL) {
                true => LaunchType::External,
                false => LaunchType::Ec2,
            },
            free: Capacity {
                cpu: number(resources, "CPU").unwrap_or(0),
                memory: number(resources, "MEMORY").unwrap_or(0),
            },
            tcp_ports_taken: ports(resources, "PORTS"),
            udp_ports_taken: ports(resources, "PORTS_UDP"),
            attributes: Arc::new(attributes),
            agent_version: version
                .and_then(|version| version.agent_version.as_deref())
                .map(Arc::from),
            ec2_instance_id: Arc::from(row.ec2_instance_id.as_str()),
            registered_at_ms: (row.registered_at.as_epoch_seconds_f64() * 1000.0).round() as i64,
            ..Candidate::new(row.id)
        }
    }

    fn candidate(&self) -> Candidate {
        let mut taken = Taken::default();
        let mut tasks_by_group: BTreeMap<String, u32> = BTreeMap::new();
        let mut running_tasks = 0;
        let allocated = self.allocation.iter().flat_map(|row| &row.row.tasks);
        let counted = allocated.filter(|(task, _)| !self.over.contains(*task));
        // A share that is both in the row and still in flight counts once.
        let in_flight = self.in_flight.iter().filter(|(task, _)| {
            let row = self.allocation.as_ref();
            row.is_none_or(|row| !row.row.tasks.contains_key(*task))
        });
        for (task, reserved) in counted.chain(in_flight) {
            taken.add(reserved);
            running_tasks += u32::from(self.running.contains(task));
            match tasks_by_group.get_mut(&reserved.group) {
                Some(count) => *count += 1,
                None => {
                    tasks_by_group.insert(reserved.group.clone(), 1);
                }
            }
        }
        let mut candidate = self.template.clone();
        candidate.eligibility = match self.row.status {
            ContainerInstanceStatus::Active if self.connected => Eligibility::Eligible,
            ContainerInstanceStatus::Active => Eligibility::AgentDisconnected,
            _ => Eligibility::Inactive,
        };
        candidate.free.cpu -= taken.cpu;
        candidate.free.memory -= taken.memory;
        candidate.tcp_ports_taken.extend(&taken.tcp_ports);
        candidate.udp_ports_taken.extend(&taken.udp_ports);
        candidate.tasks_by_group = tasks_by_group;
        candidate.running_tasks = running_tasks;
        candidate.agent_connected = self.connected;
        candidate.busy = !self.in_flight.is_empty();
        candidate
    }
}
