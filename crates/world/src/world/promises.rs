//! What the control plane and the agents owe each other, held against the rows as they are.
//!
//! What always holds: a broken promise is a panic that says which.
//! What it leaves to others: what follows from changes of rows alone (`invariants`).

use gantry_agent::core::TaskStatus;
use gantry_api::acs::{DesiredStatus, Frame};
use gantry_arn::TaskId;
use gantry_ecs::model::last_status::LastStatus;
use gantry_ecs::tables::{DesiredPhase, TaskDesiredRow, TaskReportRow};

use super::World;

impl World {
    /// A stop is sent as one.
    pub(super) fn check_sent(&self, frame: &Frame) {
        let Frame::Payload(payload) = frame else {
            return;
        };
        for task in &payload.tasks {
            let arn = task.arn.as_deref().unwrap_or_default();
            assert!(
                task.desired_status == Some(DesiredStatus::Stopped) || !self.shall_stop(arn),
                "{arn} shall stop, and is sent as {:?}",
                task.desired_status
            );
        }
    }

    /// What comes up whole and runs is stopped only because somebody wants it stopped.
    pub(super) fn check_wanted(&self, machine: usize, task: TaskId) {
        assert!(
            self.shall_stop(task.as_ref()),
            "machine {machine} stops {task}, and nobody wants that"
        );
    }

    /// A report that was acknowledged is in the rows.
    pub(super) fn check_durable(&self, (task, status): &(String, TaskStatus)) {
        let (account, region) = self.control.place();
        let name = row_name(task);
        let report = self
            .control
            .store()
            .snapshot()
            .read::<TaskReportRow>(account, region, &name);
        let told = match status {
            TaskStatus::Pending => LastStatus::Pending,
            TaskStatus::Running => LastStatus::Running,
            TaskStatus::Stopped => LastStatus::Stopped,
        };
        let known = report.map(|row| row.status);
        assert!(
            known >= Some(told),
            "{name} is reported {told}, which was acknowledged, and is {known:?}"
        );
    }

    fn shall_stop(&self, task: &str) -> bool {
        let (account, region) = self.control.place();
        self.control
            .store()
            .snapshot()
            .read::<TaskDesiredRow>(account, region, &row_name(task))
            .is_some_and(|row| row.phase == DesiredPhase::Stopped)
    }
}

/// Of a task by its id or its ARN. There is one cluster.
fn row_name(task: &str) -> String {
    format!("default/{}", task_of(task))
}

pub(super) fn task_of(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or_default().to_owned()
}
