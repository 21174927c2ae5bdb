//! The users of the world: they run tasks under client tokens, stop some, and look.
//!
//! What always holds: a call whose answer was lost is made again with the same token, so what the users know
//! in the end is exactly what was asked for.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ecs;
use gantry_arn::TaskId;

use crate::chance::Chance;
use crate::control::ControlPlane;
use crate::founding::{Size, demand};

/// Whoever finds the cluster full does not ask again at once.
const PATIENCE: u32 = 10;

/// The order of statuses that a user may see.
const ORDER: [&str; 8] = [
    "PROVISIONING",
    "PENDING",
    "ACTIVATING",
    "RUNNING",
    "DEACTIVATING",
    "STOPPING",
    "DEPROVISIONING",
    "STOPPED",
];

/// A run that was asked for.
#[derive(Clone, Debug)]
struct Pending {
    token: String,
    count: i32,
    revision: u32,
    /// It may have been carried out before.
    repeated: bool,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    rank: usize,
    /// It is to stop.
    stops: bool,
    code: Option<ecs::TaskStopCode>,
    version: i64,
}

/// What the users asked for and what they have seen.
#[derive(Debug, Default)]
pub struct Users {
    /// A run whose answer is still missing: its token, how many tasks, and of which definition.
    pending: Option<Pending>,
    /// Acknowledged tasks, and what was last seen of each.
    seen: BTreeMap<String, Seen>,
    /// So many times something else is done first: the cluster was full.
    patience: u32,
    /// Tasks that could not be placed.
    pub unplaced: usize,
    acknowledged: BTreeSet<String>,
}

impl Users {
    /// One thing that a user does. `lost` says that the answer does not arrive. Gives the size of a
    /// task that found no place just now.
    pub fn act(&mut self, control: &ControlPlane, chance: &mut Chance, lost: bool) -> Option<Size> {
        match chance.below(80) {
            0..=31 if self.patience > 0 => self.patience -= 1,
            0..=31 => return self.run(control, chance, lost),
            32..=43 => self.stop(control, chance),
            44 => self.compare(control),
            _ => self.look(control, chance),
        }
        None
    }

    /// Asks once more for what was never answered.
    pub fn finish(&mut self, control: &ControlPlane, chance: &mut Chance) {
        while self.pending.is_some() {
            self.run(control, chance, false);
        }
    }

    pub fn tasks(&self) -> &BTreeSet<String> {
        &self.acknowledged
    }

    /// Stops about half of everything, and all of these.
    pub fn stop_half(&mut self, control: &ControlPlane, all_of: &[TaskId], chance: &mut Chance) {
        let all_of: BTreeSet<String> = all_of.iter().map(TaskId::to_string).collect();
        let half: Vec<String> = self
            .acknowledged
            .iter()
            .filter(|arn| {
                let id = arn.rsplit('/').next().unwrap_or_default();
                chance.per_mille(500) || all_of.contains(id)
            })
            .cloned()
            .collect();
        for arn in half {
            self.stop_one(control, arn);
        }
    }

    /// Tasks that are not STOPPED as far as anybody can see now.
    pub fn unstopped(&mut self, control: &ControlPlane) -> Vec<String> {
        let open: Vec<String> = self
            .acknowledged
            .iter()
            .filter(|arn| self.seen[*arn].rank + 1 < ORDER.len())
            .cloned()
            .collect();
        let mut unstopped = Vec::new();
        for some in open.chunks(100) {
            for task in self.describe(control, some.to_vec()) {
                if task.last_status.as_deref() != Some("STOPPED") {
                    unstopped.push(format!("{:?} {:?}", task.task_arn, task.last_status));
                }
            }
        }
        unstopped
    }

    /// Every task that is listed with this desired status.
    pub fn list(&self, control: &ControlPlane, desired: &str) -> Option<BTreeSet<String>> {
        let mut listed = BTreeSet::new();
        let mut next_token = None;
        loop {
            let request = ecs::ListTasksRequest {
                desired_status: Some(desired.into()),
                next_token,
                ..Default::default()
            };
            let answer =
                control.call(|ecs, ctx| async move { ecs.list_tasks(&ctx, request).await })?;
            let answer = answer.unwrap_or_else(|error| panic!("ListTasks was refused: {error:?}"));
            for arn in answer.task_arns.into_iter().flatten() {
                assert!(listed.insert(arn.clone()), "{arn} was listed twice");
            }
            next_token = answer.next_token;
            if next_token.is_none() {
                return Some(listed);
            }
        }
    }

    /// What is listed and what is described must agree.
    fn compare(&mut self, control: &ControlPlane) {
        let (Some(running), Some(stopped)) =
            (self.list(control, "RUNNING"), self.list(control, "STOPPED"))
        else {
            return;
        };
        assert!(
            running.is_disjoint(&stopped),
            "a task is listed as RUNNING and as STOPPED"
        );
        for arn in &self.acknowledged {
            assert!(
                running.contains(arn) || stopped.contains(arn),
                "{arn} is listed nowhere"
            );
        }
        let listed: Vec<String> = running.iter().chain(&stopped).cloned().collect();
        for some in listed.chunks(100) {
            for task in self.describe(control, some.to_vec()) {
                let arn = task.task_arn.expect("an ARN");
                let listed = if stopped.contains(&arn) {
                    "STOPPED"
                } else {
                    "RUNNING"
                };
                assert_eq!(
                    task.desired_status.as_deref(),
                    Some(listed),
                    "{arn} is listed as {listed}"
                );
            }
        }
    }

    fn run(&mut self, control: &ControlPlane, chance: &mut Chance, lost: bool) -> Option<Size> {
        let made_up = || Pending {
            token: chance.token(),
            count: 1 + chance.below(4) as i32,
            revision: 1 + chance.below(3) as u32,
            repeated: false,
        };
        let pending = self.pending.get_or_insert_with(made_up).clone();
        let request = ecs::RunTaskRequest {
            task_definition: format!("work:{}", pending.revision),
            count: Some(pending.count),
            client_token: Some(pending.token),
            ..Default::default()
        };
        let answer = control.call(|ecs, ctx| async move { ecs.run_task(&ctx, request).await });
        // No answer is no knowledge: the same again, later.
        let Some(answer) = answer.filter(|_| !lost) else {
            self.pending.iter_mut().for_each(|p| p.repeated = true);
            return None;
        };
        let answer = answer.unwrap_or_else(|error| panic!("RunTask was refused: {error:?}"));
        self.pending = None;
        let tasks = answer.tasks.unwrap_or_default();
        let unplaced = usize::try_from(pending.count)
            .unwrap_or_default()
            .saturating_sub(tasks.len());
        for task in tasks {
            let arn = task.task_arn.clone().expect("an ARN");
            self.saw(&task);
            self.acknowledged.insert(arn);
        }
        self.unplaced += unplaced;
        if unplaced == 0 {
            return None;
        }
        self.patience = PATIENCE;
        // What was carried out before tells nothing of how the cluster is now.
        (!pending.repeated).then(|| demand("work", pending.revision))
    }

    fn stop(&mut self, control: &ControlPlane, chance: &mut Chance) {
        if let Some(arn) = self.any(chance) {
            self.stop_one(control, arn);
        }
    }

    fn stop_one(&mut self, control: &ControlPlane, arn: String) {
        let request = ecs::StopTaskRequest {
            task: arn.clone(),
            reason: Some("enough".to_owned()),
            ..Default::default()
        };
        if let Some(answer) =
            control.call(|ecs, ctx| async move { ecs.stop_task(&ctx, request).await })
        {
            let answer =
                answer.unwrap_or_else(|error| panic!("StopTask of {arn} was refused: {error:?}"));
            let task = answer.task.expect("a task");
            assert_eq!(
                task.desired_status.as_deref(),
                Some("STOPPED"),
                "{arn} was told to stop"
            );
            self.saw(&task);
        }
    }

    fn look(&mut self, control: &ControlPlane, chance: &mut Chance) {
        let arns: BTreeSet<String> = (0..8).filter_map(|_| self.any(chance)).collect();
        if !arns.is_empty() {
            self.describe(control, arns.into_iter().collect());
        }
    }

    /// Describes tasks; every one must be known, and none may have gone back.
    pub fn describe(&mut self, control: &ControlPlane, arns: Vec<String>) -> Vec<ecs::Task> {
        let request = ecs::DescribeTasksRequest {
            tasks: arns,
            ..Default::default()
        };
        let Some(answer) =
            control.call(|ecs, ctx| async move { ecs.describe_tasks(&ctx, request).await })
        else {
            return Vec::new();
        };
        let answer = answer.unwrap_or_else(|error| panic!("DescribeTasks was refused: {error:?}"));
        assert!(
            answer.failures.iter().flatten().next().is_none(),
            "a task was forgotten: {:?}",
            answer.failures
        );
        let tasks = answer.tasks.unwrap_or_default();
        for task in &tasks {
            self.saw(task);
        }
        tasks
    }

    fn any(&self, chance: &mut Chance) -> Option<String> {
        self.acknowledged
            .iter()
            .nth(chance.below(self.acknowledged.len()))
            .cloned()
    }

    fn saw(&mut self, task: &ecs::Task) {
        let arn = task.task_arn.clone().expect("an ARN");
        let status = task.last_status.as_deref().expect("a status");
        let rank = ORDER
            .iter()
            .position(|known| *known == status)
            .unwrap_or_else(|| panic!("{arn} is {status}"));
        let now = Seen {
            rank,
            stops: task.desired_status.as_deref() == Some("STOPPED"),
            code: task.stop_code.clone(),
            version: task.version.unwrap_or_default(),
        };
        let before = self.seen.entry(arn.clone()).or_default();
        assert!(
            rank >= before.rank,
            "{arn} went back from {} to {status}",
            ORDER[before.rank]
        );
        assert!(
            now.stops || !before.stops,
            "{arn} was to stop and is to run again"
        );
        assert!(
            before.code.is_none() || before.code == now.code,
            "{arn} ended for two reasons: {:?} and {:?}",
            before.code,
            now.code
        );
        // An answer to StopTask shows the status that the stop found, so others come without a change.
        let is_new = rank > before.rank && matches!(status, "RUNNING" | "STOPPED");
        assert!(
            now.version >= before.version + i64::from(is_new),
            "{arn} is {status}, and its version is {} after {}",
            now.version,
            before.version
        );
        *before = now;
    }
}
