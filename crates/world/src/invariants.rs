//! What must hold after every event.

use std::collections::BTreeMap;

use gantry_arn::{AccountId, Region};
use gantry_ecs::tables::{
    AllocationRow, ContainerInstanceRow, DesiredPhase, TaskDesiredRow, TaskReportRow, TaskRow,
};
use gantry_store::{RowChange, Snapshot};

use crate::machine::Machine;

/// What was seen before, as far as it must not be undone.
#[derive(Debug, Default)]
pub struct Invariants {
    reported: BTreeMap<String, gantry_ecs::model::last_status::LastStatus>,
    stopping: BTreeMap<String, DesiredPhase>,
    sessions: BTreeMap<String, u64>,
    seen: BTreeMap<usize, i64>,
}

impl Invariants {
    /// Checks everything that these changes can have broken.
    pub fn check(
        &mut self,
        snapshot: &Snapshot,
        (account, region): (&AccountId, &Region),
        changes: &[RowChange],
    ) {
        for change in changes {
            let name = change.key.name();
            match change.key.kind() {
                "allocation" => check_allocation(snapshot, account, region, name),
                "task-report" => {
                    if let Some(row) = snapshot.read::<TaskReportRow>(account, region, name) {
                        let before = self.reported.insert(name.to_owned(), row.status);
                        assert!(
                            before <= Some(row.status),
                            "the report of {name} went back: {before:?} to {:?}",
                            row.status
                        );
                    }
                }
                "task-desired" => {
                    if let Some(row) = snapshot.read::<TaskDesiredRow>(account, region, name) {
                        let before = self.stopping.insert(name.to_owned(), row.phase);
                        assert!(
                            before != Some(DesiredPhase::Stopped)
                                || row.phase == DesiredPhase::Stopped,
                            "{name} was to stop and is to run again"
                        );
                    }
                }
                "acs-session" => {
                    let row =
                        snapshot.read::<gantry_ecs::tables::AcsSessionRow>(account, region, name);
                    if let Some(row) = row {
                        let before = self
                            .sessions
                            .insert(name.to_owned(), row.session)
                            .unwrap_or(0);
                        assert!(row.session >= before, "the session of {name} went back");
                    }
                }
                _ => {}
            }
        }
    }

    /// What a machine may never do, whatever the control plane says.
    pub fn check_machine(&mut self, number: usize, machine: &Machine) {
        let doubled = machine.runtime().doubled();
        assert!(
            doubled.is_empty(),
            "machine {number} started containers twice: {doubled:?}"
        );
        let seen = machine.journal().seen;
        let before = self.seen.insert(number, seen).unwrap_or(i64::MIN);
        assert!(
            seen >= before,
            "machine {number} took something older after something newer"
        );
    }
}

/// Nothing is ever oversubscribed.
fn check_allocation(snapshot: &Snapshot, account: &AccountId, region: &Region, name: &str) {
    let Some(allocation) = snapshot.read::<AllocationRow>(account, region, name) else {
        return;
    };
    let Some(instance) = snapshot.read::<ContainerInstanceRow>(account, region, name) else {
        return;
    };
    let registered = |wanted: &str| {
        instance
            .registered_resources
            .iter()
            .find(|resource| resource.name.as_deref() == Some(wanted))
            .and_then(|resource| resource.integer_value)
            .map_or(0, i64::from)
    };
    let (cluster, _) = name.split_once('/').expect("cluster/instance");
    let (mut cpu, mut memory) = (0, 0);
    for (task, reserved) in &allocation.tasks {
        let task_name = format!("{cluster}/{task}");
        // An entry counts until the task's STOPPED report is durable.
        let stopped = snapshot
            .read::<TaskReportRow>(account, region, &task_name)
            .is_some_and(|report| {
                report.status >= gantry_ecs::model::last_status::LastStatus::Stopped
            });
        if !stopped
            && snapshot
                .read::<TaskRow>(account, region, &task_name)
                .is_some()
        {
            cpu += reserved.cpu;
            memory += reserved.memory;
        }
    }
    assert!(
        cpu <= registered("CPU"),
        "{name} is oversubscribed: {cpu} CPU units of {}",
        registered("CPU")
    );
    assert!(
        memory <= registered("MEMORY"),
        "{name} is oversubscribed: {memory} MiB of {}",
        registered("MEMORY")
    );
}
