//! Carries a blue/green deployment through its stages: looks at the service, asks the course what comes
//! next ([`crate::model::service::stages`]), and writes down how far it has come.
//!
//! What is started and stopped in a stage follows from the course alone ([`super::acting`]).

use std::collections::BTreeSet;

use gantry_api::ecs::{DeploymentStrategy, ServiceDeploymentStatus as Status};

use super::derived::hook_id;
use super::pass::Pass;
use crate::model::service::replica::Condition;
use crate::model::service::sides;
use crate::model::service::stages::{Course, Outlook, RolledBackBy, Route, Sight, Stage};
use crate::model::service::{events, view};
use crate::tables::{
    DeploymentState, DesiredPhase, Rollout, ServiceDeploymentRow, ServiceDeploymentStateRow,
    service_part_name,
};

impl Pass<'_> {
    /// The course of the PRIMARY deployment, until that is completed. A rolling one has none.
    pub(super) fn course(&self) -> Option<Course> {
        let primary = self.primary()?;
        if primary.rollout == Rollout::Completed {
            return None;
        }
        let id = &primary.service_deployment;
        match self.progress.get(id) {
            Some(progress) => progress.after.course.clone(),
            None => {
                let name = service_part_name(&self.spec.cluster, &self.spec.name, id);
                let row = self.rows.read::<ServiceDeploymentStateRow>(&name)?;
                row.course.clone()
            }
        }
    }

    /// The deployments that have all of their replicas, or are brought to them.
    pub(super) fn staying(&self) -> Vec<String> {
        let Some(primary) = self.primary() else {
            return Vec::new();
        };
        let course = self.course();
        let staying = sides::staying(course.as_ref(), &primary.id);
        staying.into_iter().map(str::to_owned).collect()
    }

    /// The course of the deployment that is taken up, if its strategy has one. What runs now is not yet
    /// overtaken.
    pub(super) fn begin_course(&self, service_deployment: &str) -> Option<Course> {
        let asked = self.asked(service_deployment)?;
        if asked.configuration.strategy != Some(DeploymentStrategy::BlueGreen) {
            return None;
        }
        let running: Vec<&DeploymentState> = self
            .state
            .deployments
            .iter()
            .filter(|deployment| self.has_tasks(deployment))
            .collect();
        // One that only cleans up has proved itself. Otherwise it is the last one that was completed, and where
        // that does not run, what there is. Of several that were never completed none is blue: to bring the
        // service to one of them first could take for ever, so all of them leave for green.
        let has_won = self
            .course()
            .is_some_and(|course| !course.given_up && course.stage == Stage::CleanUp);
        let completed = self.state.completed.as_ref();
        let mut all = self.state.deployments.iter();
        let blue = self
            .primary()
            .filter(|_| has_won)
            .or_else(|| all.find(|it| Some(&it.revision) == completed))
            .or_else(|| running.first().copied().filter(|_| running.len() == 1))
            .filter(|blue| blue.rollout != Rollout::Failed)
            .map(|blue| blue.id.clone());
        let ids = self.hook_ids(service_deployment);
        let route = Route::of(&asked.configuration);
        let revisions = if blue.is_some() { running.len() } else { 0 };
        Some(Course::begin(blue, revisions, &route, self.now, &ids))
    }

    /// Takes a blue/green deployment as far as it can go now.
    pub(super) fn go_on(&mut self) {
        let primary = self
            .primary()
            .filter(|primary| primary.rollout == Rollout::InProgress && !primary.is_rollback);
        let Some(primary) = primary.cloned() else {
            return;
        };
        let (Some(before), Some(asked)) = (self.course(), self.asked(&primary.service_deployment))
        else {
            return;
        };
        let mut course = before.clone();
        let sight = self.sight(&primary, &course);
        let ids = self.hook_ids(&primary.service_deployment);
        let route = Route::of(&asked.configuration);
        let outlook = course.advance(&route, &sight, &asked.answers, &ids);
        if course != before {
            // An answer at the same moment comes first, and is seen.
            self.transaction.expect_read(&asked);
            self.progress(&primary.service_deployment).course = Some(course);
        }
        match outlook {
            Outlook::Waits(until) => {
                if let Some(until) = until {
                    self.look_again(until);
                }
            }
            Outlook::RollsBack(by) => {
                let name = self.spec.name.clone();
                let why = "hook execution failure(s) detected";
                self.say(events::failed(&name, &primary.id, why));
                let reason = match by {
                    RolledBackBy::Answer => {
                        "Service deployment rolled back because a pause hook was answered with ROLLBACK."
                    }
                    RolledBackBy::TimeOut => {
                        "Service deployment rolled back because a pause hook timed out."
                    }
                };
                self.roll_back(&primary, reason, false);
            }
        }
    }

    fn sight(&mut self, primary: &DeploymentState, course: &Course) -> Sight {
        let all = self.replicas_by_deployment();
        let replicas: Vec<_> = all.iter().map(|(_, replica)| replica.clone()).collect();
        let protected = self.protected(&replicas);
        let is_known = |of: &String| *of == primary.id || Some(of) == course.blue.as_ref();
        let green = all.iter().filter(|(of, replica)| {
            *of == primary.id && !replica.is_draining && replica.condition == Condition::Healthy
        });
        let desired = usize::try_from(self.spec.desired_count).unwrap_or(usize::MAX);
        Sight {
            now: self.now,
            others_are_gone: all
                .iter()
                .all(|(of, replica)| is_known(of) || protected.contains(&replica.id)),
            green_is_up: green.count() >= desired,
        }
    }

    /// A service deployment as it was asked for.
    pub(super) fn asked(&self, id: &str) -> Option<gantry_store::Versioned<ServiceDeploymentRow>> {
        let name = service_part_name(&self.spec.cluster, &self.spec.name, id);
        self.rows.read::<ServiceDeploymentRow>(&name)
    }

    /// Whether any of the deployment's tasks is meant to run.
    pub(super) fn has_tasks(&self, deployment: &DeploymentState) -> bool {
        self.tasks.iter().any(|task| {
            task.desired_phase() == DesiredPhase::Running
                && task.spec.started_by.as_deref() == Some(deployment.id.as_str())
        })
    }

    fn hook_ids(&self, service_deployment: &str) -> impl Fn(Stage, usize) -> String + use<> {
        let incarnation = self.spec.incarnation.clone();
        let deployment = service_deployment.to_owned();
        move |stage, at| hook_id(&incarnation, &deployment, stage.as_str(), at)
    }

    /// A service deployment is over: from now on it shows the tasks that its revisions had at this moment.
    pub(super) fn end(&mut self, service_deployment: &str, status: Status) {
        let staying: BTreeSet<String> = self.staying().into_iter().collect();
        let desired = self.desired();
        let deployments = &self.state.deployments;
        let counts = view::revision_counts(deployments, &staying, desired, &self.tasks);
        let now = self.now;
        let progress = self.progress(service_deployment);
        progress.status = status;
        progress.finished_at = Some(now);
        progress.ended_with = counts;
        if let Some(course) = &mut progress.course {
            course.stop_asking();
        }
    }
}
