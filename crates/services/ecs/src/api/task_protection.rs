//! UpdateTaskProtection and GetTaskProtection: tasks of services that scale-in and deployments leave
//! alone for a while. StopTask and the deletion of the service heed no protection, at AWS neither.

use std::time::Duration;

use gantry_api::RequestContext;
use gantry_api::ecs::{
    EcsError, Failure, GetTaskProtectionRequest, GetTaskProtectionResponse, ProtectedTask,
    UpdateTaskProtectionRequest, UpdateTaskProtectionResponse,
};
use gantry_arn::{ClusterName, TaskId};
use gantry_store::Transaction;

use super::lookup::Rows;
use crate::model::absent::items;
use crate::model::reference::Scope;
use crate::model::refusal::invalid;
use crate::service::EcsService;
use crate::tables::{DesiredPhase, TaskProtectionRow, cluster_prefix, task_name};

const UPDATED_MAX: usize = 10;
const SHOWN_MAX: usize = 100;

/// How long a protection lasts, in minutes: by default, at least and at most.
const MINUTES: i32 = 120;
const MINUTES_MIN: i32 = 1;
const MINUTES_MAX: i32 = 48 * 60;

pub(super) async fn update_task_protection(
    service: &EcsService,
    ctx: &RequestContext,
    input: UpdateTaskProtectionRequest,
) -> Result<UpdateTaskProtectionResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(Some(&input.cluster))?;
    if !(1..=UPDATED_MAX).contains(&input.tasks.len()) {
        return Err(invalid(format!(
            "tasks must have between 1 and {UPDATED_MAX} elements."
        )));
    }
    let minutes = input.expires_in_minutes.unwrap_or(MINUTES);
    if !(MINUTES_MIN..=MINUTES_MAX).contains(&minutes) {
        return Err(invalid(format!(
            "expiresInMinutes must be between {MINUTES_MIN} and {MINUTES_MAX}."
        )));
    }
    let seconds = u64::try_from(minutes).unwrap_or_default() * 60;
    let row = TaskProtectionRow {
        until: ctx.now + Duration::from_secs(seconds),
    };
    service
        .transact(|snapshot| {
            let rows = Rows::new(snapshot, &scope);
            rows.active_cluster(&cluster)?;
            let (account, region) = (&scope.account, &scope.region);
            let mut transaction = Transaction::new();
            let (mut protected, mut failures) = (Vec::new(), Vec::new());
            for text in &input.tasks {
                let id = scope.task(&cluster, text)?;
                if let Err(failure) = of_service(&rows, &cluster, &id) {
                    failures.push(failure);
                    continue;
                }
                let name = task_name(&cluster, &id);
                match input.protection_enabled {
                    true => {
                        transaction.write::<TaskProtectionRow>(account, region, &name, &row);
                    }
                    false => {
                        transaction.remove::<TaskProtectionRow>(account, region, &name);
                    }
                }
                let until = input.protection_enabled.then_some(row.until);
                protected.push(shown(&scope, &cluster, &id, until));
            }
            let answer = UpdateTaskProtectionResponse {
                protected_tasks: Some(protected),
                failures: Some(failures),
            };
            Ok((transaction, answer))
        })
        .await
}

pub(super) async fn get_task_protection(
    service: &EcsService,
    ctx: &RequestContext,
    input: GetTaskProtectionRequest,
) -> Result<GetTaskProtectionResponse, EcsError> {
    let scope = Scope::of(ctx);
    let cluster = scope.cluster(Some(&input.cluster))?;
    let snapshot = service.snapshot();
    let rows = Rows::new(&snapshot, &scope);
    rows.active_cluster(&cluster)?;
    let asked = items(&input.tasks);
    if asked.len() > SHOWN_MAX {
        return Err(invalid(format!(
            "tasks must have at most {SHOWN_MAX} elements."
        )));
    }
    let mut ids = Vec::new();
    for text in asked {
        ids.push(scope.task(&cluster, text)?);
    }
    if ids.is_empty() {
        // Without any named: those of the cluster that are protected.
        let protected = rows.list::<TaskProtectionRow>(&cluster_prefix(&cluster));
        let live = protected.iter().filter(|row| row.until > ctx.now);
        let name = |name: &str| name.rsplit('/').next().and_then(|id| id.parse().ok());
        ids = live.filter_map(|row| name(row.name())).collect();
        ids.truncate(SHOWN_MAX);
    }
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for id in &ids {
        if let Err(failure) = of_service(&rows, &cluster, id) {
            failures.push(failure);
            continue;
        }
        let row = rows.read::<TaskProtectionRow>(&task_name(&cluster, id));
        let until = row.map(|row| row.until).filter(|until| *until > ctx.now);
        protected.push(shown(&scope, &cluster, id, until));
    }
    Ok(GetTaskProtectionResponse {
        protected_tasks: Some(protected),
        failures: Some(failures),
    })
}

/// Only a task of a service, and one that is meant to run, can be protected.
fn of_service(rows: &Rows<'_>, cluster: &ClusterName, id: &TaskId) -> Result<(), Failure> {
    let failure = |reason: &str| Failure {
        arn: Some(rows.scope.task_arn(cluster, id)),
        reason: Some(reason.to_owned()),
        detail: None,
    };
    let task = rows.task(cluster, id).ok_or_else(|| failure("MISSING"))?;
    if task.spec.replica.is_none() || task.desired_phase() != DesiredPhase::Running {
        return Err(failure("TASK_NOT_VALID"));
    }
    Ok(())
}

fn shown(
    scope: &Scope,
    cluster: &ClusterName,
    id: &TaskId,
    until: Option<gantry_env::Timestamp>,
) -> ProtectedTask {
    ProtectedTask {
        task_arn: Some(scope.task_arn(cluster, id)),
        protection_enabled: Some(until.is_some()),
        expiration_date: until,
    }
}
