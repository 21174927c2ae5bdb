//! What a `deploymentConfiguration` says of its strategy: AWS's rules for blue/green, its bake time and its hooks.
//!
//! What always holds: bake time and hooks belong to BLUE_GREEN. A service that turns to another strategy
//! loses them.

use gantry_api::ecs::{
    DeploymentConfiguration, DeploymentLifecycleHook, DeploymentLifecycleHookTargetType,
    DeploymentStrategy, EcsError, SchedulingStrategy,
};

use super::stages::Stage;
use crate::model::absent::items;
use crate::model::refusal::{invalid, not_built};

/// A day.
const BAKE_TIME_MINUTES_MAX: i32 = 24 * 60;

/// Two weeks.
const HOOK_MINUTES_MAX: i32 = 14 * 24 * 60;

/// How many hooks a configuration has at most: the limit is Gantry's.
const HOOKS_MAX: usize = 20;

/// Where a pause hook may stand.
const PAUSES_AT: [Stage; 6] = [
    Stage::ReconcileService,
    Stage::PreScaleUp,
    Stage::PostScaleUp,
    Stage::PostTestTrafficShift,
    Stage::PreProductionTrafficShift,
    Stage::PostProductionTrafficShift,
];

/// Takes into `merged`, which is what the service had, what is given of the strategy.
pub fn merge(
    merged: &mut DeploymentConfiguration,
    scheduling: &SchedulingStrategy,
    given: &DeploymentConfiguration,
) -> Result<(), EcsError> {
    let had = merged
        .strategy
        .clone()
        .unwrap_or(DeploymentStrategy::Rolling);
    let wanted = given.strategy.clone().unwrap_or_else(|| had.clone());
    merged.strategy = Some(wanted.clone());
    match wanted {
        DeploymentStrategy::Rolling => {
            let parts = [
                (
                    "bakeTimeInMinutes",
                    given.bake_time_in_minutes.unwrap_or(0) != 0,
                ),
                ("lifecycleHooks", !items(&given.lifecycle_hooks).is_empty()),
            ];
            if let Some((part, _)) = parts.iter().find(|(_, is_asked_for)| *is_asked_for) {
                return Err(not_built(&format!(
                    "{part} of a deploymentConfiguration with the strategy ROLLING"
                )));
            }
            merged.bake_time_in_minutes = Some(0);
            merged.lifecycle_hooks = None;
        }
        DeploymentStrategy::BlueGreen if *scheduling == SchedulingStrategy::Daemon => {
            return Err(not_built(
                "Deployment strategy BLUE_GREEN of a service with the DAEMON scheduling strategy",
            ));
        }
        DeploymentStrategy::BlueGreen => {
            let bake_time = given
                .bake_time_in_minutes
                .or(merged.bake_time_in_minutes.filter(|_| had == wanted));
            let Some(bake_time) = bake_time else {
                return Err(invalid(
                    "bakeTimeInMinutes must be specified with the deployment strategy BLUE_GREEN.",
                ));
            };
            if !(0..=BAKE_TIME_MINUTES_MAX).contains(&bake_time) {
                return Err(invalid(format!(
                    "bakeTimeInMinutes must be between 0 and {BAKE_TIME_MINUTES_MAX}."
                )));
            }
            merged.bake_time_in_minutes = Some(bake_time);
            if given.lifecycle_hooks.is_some() {
                hooks(items(&given.lifecycle_hooks))?;
                merged.lifecycle_hooks.clone_from(&given.lifecycle_hooks);
            }
        }
        other => return Err(not_built(&format!("Deployment strategy {other}"))),
    }
    Ok(())
}

fn hooks(given: &[DeploymentLifecycleHook]) -> Result<(), EcsError> {
    if given.len() > HOOKS_MAX {
        return Err(invalid(format!(
            "lifecycleHooks cannot have more than {HOOKS_MAX} elements."
        )));
    }
    given.iter().try_for_each(hook)
}

fn hook(given: &DeploymentLifecycleHook) -> Result<(), EcsError> {
    let target = given.target_type.as_ref();
    // AWS_LAMBDA is also what a hook is that does not say.
    match target.unwrap_or(&DeploymentLifecycleHookTargetType::AwsLambda) {
        DeploymentLifecycleHookTargetType::Pause => {}
        DeploymentLifecycleHookTargetType::AwsLambda => {
            return Err(not_built("A lifecycle hook with the targetType AWS_LAMBDA"));
        }
        other => {
            return Err(invalid(format!(
                "The targetType {other} of a lifecycle hook is not valid. Valid values are AWS_LAMBDA and PAUSE."
            )));
        }
    }
    let foreign = [
        ("hookTargetArn", given.hook_target_arn.is_some()),
        ("roleArn", given.role_arn.is_some()),
        ("hookDetails", given.hook_details.is_some()),
    ];
    if let Some((member, _)) = foreign.iter().find(|(_, is_given)| *is_given) {
        return Err(invalid(format!(
            "{member} is not applicable to a PAUSE lifecycle hook."
        )));
    }
    let stages = items(&given.lifecycle_stages);
    if stages.is_empty() {
        return Err(invalid(
            "lifecycleStages of a lifecycle hook must not be empty.",
        ));
    }
    for stage in stages {
        let known = Stage::named(stage.as_str());
        if !known.is_some_and(|known| PAUSES_AT.contains(&known)) {
            return Err(invalid(format!(
                "A PAUSE lifecycle hook cannot be configured at the stage {stage}."
            )));
        }
    }
    let timeout = given.timeout_configuration.as_ref();
    let minutes = timeout.and_then(|it| it.timeout_in_minutes);
    if minutes.is_some_and(|minutes| !(1..=HOOK_MINUTES_MAX).contains(&minutes)) {
        return Err(invalid(format!(
            "timeoutInMinutes of a lifecycle hook must be between 1 and {HOOK_MINUTES_MAX}."
        )));
    }
    let action = timeout
        .and_then(|it| it.action.as_ref())
        .map(|it| it.as_str());
    if action.is_some_and(|action| !["CONTINUE", "ROLLBACK"].contains(&action)) {
        return Err(invalid(
            "The action of a lifecycle hook's timeoutConfiguration must be CONTINUE or ROLLBACK.",
        ));
    }
    Ok(())
}
