//! Brings services to what their users want: their count, their deployments, their health.
//!
//! What always holds:
//! - Reads only the snapshot and the time, and places are proposed by the index of the cluster that
//!   RunTask uses; run twice, it plans nothing the second time. What must be unique (ids of tasks, of
//!   events, of rollbacks) is derived from the service's incarnation and a number that only grows,
//!   never drawn.
//! - One pass is one commit of bounded size: what does not fit is left to the next pass, which is due
//!   at once. What is decided stands in the rows. All that is remembered here is which rows belong
//!   to which service ([`index`]), which only wakes; in which zones there are container instances
//!   ([`known_clusters`]), which only spares work; and what a plan takes until its commit is over
//!   ([`open`]), which only keeps other plans away.
//! - Every pass does the same steps in the same order ([`pass`]): take up the deployment that was
//!   asked for last, count what failed, judge the deployment, take it a stage on, let go of deployments without tasks,
//!   start and stop, say what has come to be.
//!
//! A service of daemons differs in what it starts and stops ([`daemon`]); a steady service of replicas
//! is kept in balance over availability zones ([`balancing`]).
//!
//! What a deployment may do is decided in [`crate::model::service`]; making and placing tasks is
//! [`crate::api::service_tasks`].

mod acting;
mod balancing;
mod courses;
mod daemon;
mod derived;
mod index;
mod judging;
mod known_clusters;
mod open;
mod pass;
mod telling;
mod writing;

use std::sync::{Arc, Mutex};

use gantry_env::Timestamp;
use gantry_reconcile::{Controller, Plan};
use gantry_store::{Key, Prefix, RowChange, Snapshot, Table};

use self::index::ServiceIndex;
use self::open::Open;
pub use self::writing::INACTIVE_SERVICE_RETENTION;
use crate::api::placing::Placing;
use crate::service::EcsService;
use crate::tables::{
    AcsSessionRow, ContainerInstanceRow, ServiceDeploymentRow, ServiceRow, TaskDesiredRow,
    TaskHealthRow, TaskProtectionRow, TaskReportRow,
};

/// Looks at one service: by the key of its row.
pub struct Services {
    index: Mutex<ServiceIndex>,
    placing: Arc<Placing>,
    open: Mutex<Open>,
}

impl Services {
    /// With the index of places that `ecs` keeps for its RunTask.
    pub fn of(ecs: &EcsService) -> Self {
        Self {
            index: Mutex::default(),
            placing: ecs.placing.clone(),
            open: Mutex::default(),
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn index(&self) -> std::sync::MutexGuard<'_, ServiceIndex> {
        self.index
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Controller for Services {
    type Key = Key;

    fn name(&self) -> &'static str {
        "ecs-services"
    }

    fn watches(&self) -> Vec<Prefix> {
        vec![
            ServiceRow::everywhere(),
            ServiceDeploymentRow::everywhere(),
            TaskReportRow::everywhere(),
            TaskDesiredRow::everywhere(),
            TaskHealthRow::everywhere(),
            TaskProtectionRow::everywhere(),
            ContainerInstanceRow::everywhere(),
            AcsSessionRow::everywhere(),
        ]
    }

    fn keys_of(&self, change: &RowChange) -> Vec<Key> {
        self.index().concerned(change)
    }

    fn all_keys(&self, snapshot: &Snapshot) -> Vec<Key> {
        let all = snapshot.list_everywhere::<ServiceRow>();
        let instances = snapshot.list_everywhere::<ContainerInstanceRow>();
        self.index().begin_anew(&all, &instances);
        all.into_iter().map(|row| row.key).collect()
    }

    fn reconcile(&self, snapshot: &Snapshot, now: Timestamp, key: &Key) -> Plan {
        // Of a plan that was never heard of again.
        self.settled(key);
        let zones = self.index().zones(key);
        let passed = pass::reconcile(&self.placing, snapshot, now, key, zones);
        let mut plan = passed.plan;
        let waits = self.open().note(key, passed.reservation, passed.waits);
        if let Some(wait) = waits {
            let at = now + wait;
            plan.again_at = Some(plan.again_at.map_or(at, |before| before.min(at)));
        }
        plan
    }

    fn settled(&self, key: &Key) {
        // Let go after the lock, which nobody who plans needs then.
        let reservation = self.open().settled(key);
        drop(reservation);
    }
}
