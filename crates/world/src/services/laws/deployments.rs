//! What may become of a service's deployments: completed, failed, rolled back, and the stages of blue/green ones.

use std::collections::{BTreeMap, BTreeSet};

use gantry_ecs::model::service::stages::{Course, Stage};
use gantry_ecs::tables::{DeploymentState, Rollout};
use gantry_env::Timestamp;

use super::ServiceLaws;
use crate::services::mirror::Watched;
use crate::services::replicas::Replica;
use crate::services::shape::{Shape, threshold};

impl ServiceLaws {
    /// What may become of a service's deployments.
    pub(super) fn check_state(
        &mut self,
        name: &str,
        before: &Watched,
        courses_before: &BTreeMap<String, Course>,
        now: Timestamp,
    ) {
        let Some(watched) = self.mirror.services.get(name).cloned() else {
            return;
        };
        let (Some(state), spec) = (&watched.state, &watched.spec) else {
            return;
        };
        let ids: BTreeSet<&str> = state.deployments.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(
            ids.len(),
            state.deployments.len(),
            "{name} has a deployment twice"
        );
        let Some(primary) = state.deployments.first() else {
            assert!(spec.deleted_at.is_some(), "{name} has no deployment");
            return;
        };
        let look = self.look(name, now);
        // What is stopped in the very commit that begins it speaks against it.
        let known = self.failed_before.get(&primary.id).copied().unwrap_or(0);
        self.had_failed.entry(begun(primary)).or_insert(known);
        if look
            .iter()
            .any(|it| it.deployment == primary.id && it.is_healthy)
        {
            let breaker = spec.configuration.deployment_circuit_breaker.as_ref();
            if breaker.and_then(|it| it.reset_on_healthy_task) != Some(false) {
                self.had_reset.insert(begun(primary));
            }
        }
        let previous = before.state.as_ref();
        let was =
            previous.and_then(|state| state.deployments.iter().find(|it| it.id == primary.id));
        let before_primary = previous.and_then(|state| state.deployments.first());
        let shape = Shape::of(&self.mirror, name).expect("a service");
        if primary.is_rollback && before_primary.is_none_or(|it| !it.is_rollback) {
            self.rolled_back += 1;
            // To blue, where there is one; otherwise to what was completed last.
            let course = courses_before.get(&format!("{name}/{}", primary.service_deployment));
            let blue = course.and_then(|course| course.blue.as_ref());
            let mut known = previous.iter().flat_map(|state| &state.deployments);
            let blue = known.find(|it| Some(&it.id) == blue);
            let completed = previous
                .and_then(|state| Some((state.completed.as_ref()?, &state.completed_digests)));
            let back = blue
                .map(|it| (&it.revision, &it.digests))
                .or(completed)
                .unwrap_or_else(|| panic!("{name} rolls back to nothing"));
            assert_eq!(
                (&primary.revision, &primary.digests),
                back,
                "{name} rolls back to what was good, and to its images"
            );
        }
        self.check_course(name, courses_before, primary, before_primary);
        // Whoever has become steady may begin to move a task in the same commit.
        let newcomer = state.balance.step.as_ref();
        let newcomer = newcomer.map(|step| step.newcomer.to_string());
        let is_newcomer = |it: &&Replica| newcomer.as_ref().is_some_and(|id| it.name.ends_with(id));
        let others: Vec<&Replica> = look.iter().filter(|it| !is_newcomer(it)).collect();
        let count_is_right = match (shape.is_daemon, shape.is_constrained) {
            (true, true) => true,
            _ => others.len() == shape.desired,
        };
        let is_there = count_is_right && others.iter().all(|it| it.stays() && it.is_healthy);
        let was_completed = was.is_some_and(|it| {
            it.rollout == Rollout::Completed && it.created_at == primary.created_at
        });
        if primary.rollout == Rollout::Completed && !was_completed {
            self.completed += 1;
            assert!(is_there, "{name} is completed, and has {look:?}");
            assert_eq!(state.deployments.len(), 1, "{name} is completed");
        }
        if state.steady && previous.is_none_or(|it| !it.steady) {
            assert!(is_there, "{name} is steady, and has {look:?}");
        }
        let deployment = format!("{name}/{}", primary.service_deployment);
        let opened = self.mirror.triggered.get(&deployment) == Some(&true);
        // What just opened it is the one that was PRIMARY before.
        if let Some(judged) = before_primary
            && judged.rollout == Rollout::InProgress
            && judged.service_deployment == primary.service_deployment
            && (primary.id != judged.id || primary.rollout == Rollout::Failed)
            && opened
        {
            let failures = self.failures_of(judged);
            let breaker = spec.configuration.deployment_circuit_breaker.as_ref();
            let needed = threshold(breaker, shape.desired);
            let by_user = state
                .deployments
                .iter()
                .any(|it| it.reason.contains("user's request"));
            let is_unknown = shape.is_daemon && shape.is_constrained;
            assert!(
                failures >= needed || by_user || is_unknown,
                "the circuit breaker of {name} opened after {failures} of {needed} failures"
            );
        }
    }

    /// How many tasks of a deployment failed since it began.
    fn failures_of(&self, deployment: &DeploymentState) -> usize {
        let all = self.failed.get(&deployment.id).copied().unwrap_or(0);
        all - self
            .had_failed
            .get(&begun(deployment))
            .copied()
            .unwrap_or(0)
    }

    /// A deployment whose tasks fail is not carried on beyond the documented number, where the
    /// controllers drive and everything has been taken in.
    pub fn check_breakers(&self, services: &BTreeSet<String>) {
        for name in services {
            let (Some(watched), Some(primary)) =
                (self.mirror.services.get(name), self.primary(name))
            else {
                continue;
            };
            let spec = &watched.spec;
            let breaker = spec.configuration.deployment_circuit_breaker.as_ref();
            let Some(breaker) = breaker.filter(|it| it.enable) else {
                continue;
            };
            let resets = breaker.reset_on_healthy_task != Some(false);
            if primary.rollout != Rollout::InProgress
                || spec.deleted_at.is_some()
                || (resets && primary.healthy_start.is_some())
                || self.had_reset.contains(&begun(primary))
            {
                continue;
            }
            let Some(shape) = Shape::of(&self.mirror, name) else {
                continue;
            };
            if shape.is_daemon && shape.is_constrained {
                continue;
            }
            let (failures, needed) = (
                self.failures_of(primary),
                threshold(Some(breaker), shape.desired),
            );
            assert!(
                failures < needed,
                "{name} goes on after {failures} failures, and {needed} are too many"
            );
        }
    }

    /// A course only goes forward, is given up for good, and is completed only from its last stage.
    fn check_course(
        &self,
        name: &str,
        courses_before: &BTreeMap<String, Course>,
        primary: &DeploymentState,
        before_primary: Option<&DeploymentState>,
    ) {
        let row = format!("{name}/{}", primary.service_deployment);
        let Some(course) = self.mirror.courses.get(&row) else {
            return;
        };
        if let Some(before) = courses_before.get(&row) {
            assert!(
                before.stage <= course.stage && before.given_up <= course.given_up,
                "{name} goes back from {before:?} to {course:?}"
            );
            assert_eq!(before.blue, course.blue, "{name} has another blue");
        }
        let was_completed = before_primary.is_some_and(|it| it.rollout == Rollout::Completed);
        if primary.rollout == Rollout::Completed && !was_completed {
            assert!(
                course.given_up || course.stage == Stage::CleanUp,
                "{name} is completed in {course:?}"
            );
        }
    }
}

/// A deployment that is returned to begins once more.
fn begun(deployment: &DeploymentState) -> (String, Timestamp) {
    (deployment.id.clone(), deployment.created_at)
}
