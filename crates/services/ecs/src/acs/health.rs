//! The health of tasks: what agents tell over the telemetry socket becomes a row.
//!
//! What always holds: this is the only writer of [`TaskHealthRow`]; it writes only when a status
//! changes, so repeated findings cost nothing; an agent tells of the tasks of its own container
//! instance only; a task that has stopped keeps the health that it had.
//! What it leaves to others: showing it (DescribeTasks), and acting on it (deployments).

use std::sync::Arc;

use gantry_api::RequestContext;
use gantry_api::acs::{ContainerHealthStatus, TaskHealth};
use gantry_api::ecs::TaskDefinition;
use gantry_arn::{Arn, EcsResource};
use gantry_store::{CommitError, Snapshot, Store, Transaction, Versioned};

use super::instance::ConnectingInstance;
use crate::model::absent::items;
use crate::model::last_status::LastStatus;
use crate::tables::{
    HealthStatus, TaskDefinitionRow, TaskHealthRow, TaskReportRow, TaskRow, task_definition_name,
    task_name,
};

/// How often a commit that lost a race is tried again; the agent tells it again soon anyway.
const ATTEMPTS: u32 = 8;

/// How many characters of what a check saw are kept.
const FOUND_MAX: usize = 1024;

/// The row of a task, if it is one of this container instance.
pub fn task_of_instance(
    snapshot: &Snapshot,
    context: &RequestContext,
    instance: &ConnectingInstance,
    task_arn: &str,
) -> Option<Versioned<TaskRow>> {
    let arn: Arn = task_arn.parse().ok()?;
    let Some(EcsResource::Task(cluster, id)) = arn.ecs_resource() else {
        return None;
    };
    if cluster != instance.cluster {
        return None;
    }
    snapshot
        .read::<TaskRow>(&context.account, &context.region, &task_name(&cluster, &id))
        .filter(|task| task.container_instance == instance.id)
}

/// Writes down what is new of one task.
pub async fn keep_health(
    store: &Arc<dyn Store>,
    context: &RequestContext,
    instance: &ConnectingInstance,
    told: &TaskHealth,
) -> Result<(), CommitError> {
    let (account, region) = (&context.account, &context.region);
    let mut attempt = 0;
    loop {
        let snapshot = store.snapshot();
        let task_arn = told.task_arn.as_deref().unwrap_or_default();
        let Some(task) = task_of_instance(&snapshot, context, instance, task_arn) else {
            return Ok(());
        };
        let name = task.name();
        let stopped = snapshot
            .read::<TaskReportRow>(account, region, name)
            .is_some_and(|report| report.status >= LastStatus::Stopped);
        let definition = snapshot.read::<TaskDefinitionRow>(
            account,
            region,
            &task_definition_name(&task.family, task.row.revision),
        );
        let (false, Some(definition)) = (stopped, definition) else {
            return Ok(());
        };
        let before = snapshot.read::<TaskHealthRow>(account, region, name);
        let known = before.as_ref().map(|row| &*row.row);
        let Some(after) = merged(known, told, &definition.definition) else {
            return Ok(());
        };
        let mut transaction = Transaction::new();
        transaction.expect_read(&task);
        match &before {
            Some(before) => transaction.update::<TaskHealthRow>(before, &after),
            None => transaction.create::<TaskHealthRow>(account, region, name, &after),
        };
        attempt += 1;
        match store.commit(transaction).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict { .. }) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// The row with what was told in it, or `None` if that is nothing new.
fn merged(
    before: Option<&TaskHealthRow>,
    told: &TaskHealth,
    definition: &TaskDefinition,
) -> Option<TaskHealthRow> {
    let mut after = before.cloned().unwrap_or(TaskHealthRow {
        status: HealthStatus::Unknown,
        containers: Default::default(),
        found: Default::default(),
    });
    let containers = items(&definition.container_definitions);
    for container in &told.containers {
        let (Some(name), Some(status)) = (&container.container_name, &container.health_status)
        else {
            continue;
        };
        if containers.iter().any(|c| c.name.as_ref() == Some(name)) {
            let was = after.containers.insert(name.clone(), status_of(status));
            if was == Some(status_of(status)) {
                continue;
            }
            match &container.status_message {
                Some(found) => after.found.insert(name.clone(), cut(found)),
                None => after.found.remove(name),
            };
        }
    }
    // Only essential containers count, and of them those that have a check.
    let checked: Vec<HealthStatus> = containers
        .iter()
        .filter(|c| c.essential != Some(false) && c.health_check.is_some())
        .map(|c| {
            let name = c.name.as_deref().unwrap_or_default();
            after.containers.get(name).copied().unwrap_or_default()
        })
        .collect();
    after.status = if checked.contains(&HealthStatus::Unhealthy) {
        HealthStatus::Unhealthy
    } else if checked.is_empty() || checked.contains(&HealthStatus::Unknown) {
        HealthStatus::Unknown
    } else {
        HealthStatus::Healthy
    };
    (before != Some(&after) && !after.containers.is_empty()).then_some(after)
}

/// An agent may tell much, and this is a row.
fn cut(found: &str) -> String {
    found.chars().take(FOUND_MAX).collect()
}

fn status_of(told: &ContainerHealthStatus) -> HealthStatus {
    match told {
        ContainerHealthStatus::Healthy => HealthStatus::Healthy,
        ContainerHealthStatus::Unhealthy => HealthStatus::Unhealthy,
        ContainerHealthStatus::Unknown(_) => HealthStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use gantry_api::acs::ContainerHealth;
    use gantry_api::ecs::{ContainerDefinition, HealthCheck};

    use super::*;

    fn definition(containers: &[(&str, bool, bool)]) -> TaskDefinition {
        let container = |(name, essential, checked): &(&str, bool, bool)| ContainerDefinition {
            name: Some((*name).to_owned()),
            essential: Some(*essential),
            health_check: checked.then(HealthCheck::default),
            ..ContainerDefinition::default()
        };
        TaskDefinition {
            container_definitions: Some(containers.iter().map(container).collect()),
            ..TaskDefinition::default()
        }
    }

    fn told(containers: &[(&str, ContainerHealthStatus)]) -> TaskHealth {
        let container = |(name, status): &(&str, ContainerHealthStatus)| ContainerHealth {
            container_name: Some((*name).to_owned()),
            health_status: Some(status.clone()),
            ..ContainerHealth::default()
        };
        TaskHealth {
            containers: containers.iter().map(container).collect(),
            ..TaskHealth::default()
        }
    }

    #[test]
    fn essential_containers_with_a_check_decide() {
        use ContainerHealthStatus::{Healthy, Unhealthy};
        let definition = definition(&[
            ("web", true, true),
            ("db", true, true),
            ("side", false, true),
            ("plain", true, false),
        ]);
        let first = merged(None, &told(&[("web", Healthy)]), &definition).unwrap();
        assert_eq!(first.status, HealthStatus::Unknown);
        let second = told(&[
            ("db", Healthy),
            ("side", Unhealthy),
            ("stranger", Unhealthy),
        ]);
        let second = merged(Some(&first), &second, &definition).unwrap();
        assert_eq!(second.status, HealthStatus::Healthy);
        assert_eq!(second.containers.len(), 3);
        // The same again is no news.
        assert_eq!(
            merged(Some(&second), &told(&[("web", Healthy)]), &definition),
            None
        );
        let third = merged(Some(&second), &told(&[("db", Unhealthy)]), &definition).unwrap();
        assert_eq!(third.status, HealthStatus::Unhealthy);
    }

    #[test]
    fn what_the_check_saw_is_kept_from_the_change_that_it_made() {
        use ContainerHealthStatus::{Healthy, Unhealthy};
        let definition = definition(&[("web", true, true)]);
        let saying = |status: ContainerHealthStatus, what: Option<&str>| {
            let mut told = told(&[("web", status)]);
            told.containers[0].status_message = what.map(str::to_owned);
            told
        };
        let first = saying(Unhealthy, Some("exit code 7: refused"));
        let first = merged(None, &first, &definition).unwrap();
        assert_eq!(first.found["web"], "exit code 7: refused");
        // What later checks of the same status say is no news, so that it costs no commit.
        let again = saying(Unhealthy, Some("exit code 8"));
        assert_eq!(merged(Some(&first), &again, &definition), None);
        let better = merged(Some(&first), &saying(Healthy, None), &definition).unwrap();
        assert!(better.found.is_empty());
    }

    #[test]
    fn without_an_essential_check_nothing_is_known() {
        use ContainerHealthStatus::Unhealthy;
        let definition = definition(&[("web", true, false), ("side", false, true)]);
        let row = merged(None, &told(&[("side", Unhealthy)]), &definition).unwrap();
        assert_eq!(row.status, HealthStatus::Unknown);
        assert_eq!(
            merged(None, &told(&[("stranger", Unhealthy)]), &definition),
            None
        );
    }
}
