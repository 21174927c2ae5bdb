//! What keeps a deployment where it is: bounds that deadlock, the stage of a blue/green deployment and who must
//! answer its hooks, the circuit breaker, tasks that are protected.

use gantry_api::ecs::DeploymentStrategy;

use super::{Look, TASKS_MAX, is_meant_to_run, named};
use crate::explain::ago;
use crate::model::service::failures::threshold;
use crate::model::service::hooks::{Hook, HookStatus};
use crate::model::service::request;
use crate::model::service::rolling::Bounds;
use crate::model::service::sides;
use crate::model::service::stages::{Course, Route, Stage};
use crate::model::service::view::Counts;
use crate::tables::{
    DeploymentState, Rollout, ServiceDeploymentRow, ServiceDeploymentStateRow, service_part_name,
};

impl Look<'_> {
    /// A deployment before the PRIMARY one: whether it stays, and for how long.
    pub(super) fn older(&self, deployment: &DeploymentState, primary: &DeploymentState) -> String {
        let counts = Counts::of(self.of(deployment));
        let revision = &deployment.revision;
        let course = self.course(primary);
        let staying = sides::staying(course.as_ref(), &primary.id);
        let what = match primary.rollout {
            Rollout::Failed if staying.contains(&deployment.id.as_str()) => {
                "is blue, and is kept up"
            }
            Rollout::Failed => "runs on",
            _ if staying.contains(&deployment.id.as_str()) => "is blue, and stays until CLEAN_UP",
            _ => "leaves",
        };
        format!(
            "Deployment {} of {}:{} {what}: {} of its tasks are RUNNING and {} PENDING.",
            deployment.id,
            revision.family,
            revision.task_definition,
            counts.running,
            counts.pending
        )
    }

    /// Bounds between which nothing can be replaced, where something is to be.
    pub(super) fn deadlock(&self, primary: &DeploymentState) -> Option<String> {
        let (least, most) = request::percents(&self.spec.configuration);
        let bounds = Bounds::of(self.desired, least, most);
        let is_rolling = self.spec.configuration.strategy != Some(DeploymentStrategy::BlueGreen);
        let older = self.tasks.iter().filter(|it| is_meant_to_run(it));
        let older = older.filter(|it| it.spec.started_by.as_deref() != Some(primary.id.as_str()));
        let waits = is_rolling && primary.rollout == Rollout::InProgress && older.count() > 0;
        (waits && bounds.desired > 0 && bounds.lower >= bounds.upper).then(|| {
            format!(
                "The minimum and the maximum deadlock: minimumHealthyPercent {least} of {} is {} (rounded up) and maximumPercent {most} is {} (rounded down), so no task may be stopped before its replacement runs, and none started beside it. Raise maximumPercent or lower minimumHealthyPercent.",
                bounds.desired, bounds.lower, bounds.upper
            )
        })
    }

    fn progress(&self, primary: &DeploymentState) -> Option<ServiceDeploymentStateRow> {
        let name = self.part(primary);
        let read = self.rows.read::<ServiceDeploymentStateRow>(&name)?;
        Some((*read.row).clone())
    }

    fn part(&self, primary: &DeploymentState) -> String {
        let (cluster, name) = (&self.spec.cluster, &self.spec.name);
        service_part_name(cluster, name, &primary.service_deployment)
    }

    /// The course of a blue/green deployment that is not completed.
    fn course(&self, primary: &DeploymentState) -> Option<Course> {
        let is_over = primary.rollout == Rollout::Completed;
        self.progress(primary).filter(|_| !is_over)?.course
    }

    /// Where a blue/green deployment is, and what it waits for there.
    pub(super) fn stage(&self, primary: &DeploymentState) -> Vec<String> {
        let Some(course) = self
            .progress(primary)
            .filter(|it| it.finished_at.is_none())
            .and_then(|it| it.course)
        else {
            return Vec::new();
        };
        let (stage, since) = (course.stage, ago(course.since, self.now));
        if course.given_up {
            let back = match course.blue {
                Some(_) => "blue is made whole and green leaves",
                None => "green leaves",
            };
            return vec![format!(
                "Its blue/green deployment was given up in stage {stage}: {back}."
            )];
        }
        let row = self.rows.read::<ServiceDeploymentRow>(&self.part(primary));
        let waits = match stage {
            Stage::ReconcileService => {
                " and waits until only tasks of the revision before are left".to_owned()
            }
            Stage::ScaleUp => " and waits until all of green's tasks are healthy".to_owned(),
            Stage::BakeTime => row
                .as_ref()
                .map(|row| course.since + Route::of(&row.configuration).bake_time)
                .map(|until| format!(" until {until}"))
                .unwrap_or_default(),
            Stage::CleanUp => " and waits until blue's tasks are gone".to_owned(),
            _ => String::new(),
        };
        let mut all = vec![format!(
            "Its blue/green deployment has been in stage {stage} for {since}{waits}."
        )];
        let arn = self.rows.scope.service_deployment_arn(
            &self.spec.cluster,
            &self.spec.name,
            &primary.service_deployment,
        );
        let is_open = |hook: &&Hook| {
            hook.status == HookStatus::AwaitingAction
                && row
                    .as_ref()
                    .is_none_or(|row| !row.answers.contains_key(&hook.id))
        };
        all.extend(course.hooks.iter().filter(is_open).map(|hook| {
            format!(
                "The pause hook {} holds it until {}, which then counts as {}, or until somebody answers: `aws ecs continue-service-deployment --service-deployment-arn {arn} --hook-id {} --action CONTINUE` (or ROLLBACK).",
                hook.id,
                hook.expires_at,
                hook.timeout_action.as_str(),
                hook.id
            )
        }));
        all
    }

    /// What the circuit breaker has counted, and what is left to do where it has opened.
    pub(super) fn breaker(&self, primary: &DeploymentState) -> Option<String> {
        let breaker = self.spec.configuration.deployment_circuit_breaker.as_ref();
        let breaker = breaker.filter(|it| it.enable);
        match (primary.rollout, breaker) {
            (Rollout::Completed, _) => return None,
            (Rollout::Failed, _) => {
                return Some(
                    "The deployment has failed: nothing of it is started or replaced any more, and what runs, runs on. An UpdateService with a task definition that works, or with forceNewDeployment, begins anew."
                        .to_owned(),
                );
            }
            (Rollout::InProgress, None) => {
                return Some(
                    "No circuit breaker is enabled, so a deployment that does not come up is tried for ever."
                        .to_owned(),
                );
            }
            (Rollout::InProgress, Some(_)) => {}
        }
        let breaker = breaker?;
        let completed = self.state.and_then(|it| it.completed.as_ref());
        let then = match (breaker.rollback, completed) {
            (false, _) => "then the deployment fails and starts nothing more".to_owned(),
            (true, _) if primary.is_rollback => {
                "then the rollback itself fails and starts nothing more".to_owned()
            }
            (true, Some(to)) => {
                format!("then it rolls back to {}:{}", to.family, to.task_definition)
            }
            (true, None) => {
                "then the deployment fails, because none was completed that it could roll back to"
                    .to_owned()
            }
        };
        Some(format!(
            "Its circuit breaker has counted {} of {} failed tasks; {then}.",
            primary.breaker_failures,
            threshold(Some(breaker), self.desired)
        ))
    }

    /// The protected tasks that would be stopped otherwise: of older deployments, of those that are too many, and
    /// of instances that drain.
    pub(super) fn protected(&self, primary: &DeploymentState) -> Vec<String> {
        let of_primary = Counts::of(self.of(primary));
        let excess = of_primary.running + of_primary.pending > self.spec_count();
        let live = self.rows.protected(self.spec).into_iter();
        let live = live.filter(|(_, until)| self.now < *until);
        let mut all = Vec::new();
        let mut more = 0;
        for (id, until) in live {
            let task = self.tasks.iter().find(|it| it.spec.id == id);
            let Some(task) = task.filter(|it| is_meant_to_run(it)) else {
                continue;
            };
            let is_older = task.spec.started_by.as_deref() != Some(primary.id.as_str());
            if !(is_older || excess || self.drains_instance_of(task)) {
                continue;
            }
            if all.len() == TASKS_MAX {
                more += 1;
                continue;
            }
            all.push(format!(
                "{} is protected until {until}, so it is not stopped before. UpdateTaskProtection ends that sooner.",
                named(task)
            ));
        }
        if more > 0 {
            all.push(format!("{more} more tasks are protected."));
        }
        all
    }

    fn spec_count(&self) -> usize {
        usize::try_from(self.desired).unwrap_or(usize::MAX)
    }
}
