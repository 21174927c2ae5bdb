//! What DescribeServices says, held against ListTasks and against what it said before.
//!
//! What always holds: whenever it is asked, for each service that has changed, the counts agree, there is exactly
//! one PRIMARY deployment, and the events are the last hundred, newest first, without repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_api::ecs;

use crate::control::ControlPlane;

/// A repeated event is not said again for so long.
const SUPPRESSED_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// What was seen of each service.
#[derive(Debug, Default)]
pub struct Shown {
    /// The ids of deployments that were completed, by service.
    ended: BTreeMap<String, BTreeSet<String>>,
}

impl Shown {
    /// Looks at services by the names of their rows.
    pub fn check(&mut self, control: &ControlPlane, services: &BTreeSet<String>) {
        for name in services {
            let name = name.rsplit('/').next().unwrap_or_default();
            if let Some(service) = describe(control, name) {
                let tasks = list(control, name);
                check_counts(name, &service, tasks.len());
                check_events(name, &service);
                self.check_deployments(name, &service);
            }
        }
    }

    fn check_deployments(&mut self, name: &str, service: &ecs::Service) {
        let deployments = service.deployments.as_deref().unwrap_or_default();
        if service.status.as_deref() != Some("ACTIVE") {
            return;
        }
        let of = |status: &str| {
            let all = deployments.iter();
            all.filter(|it| it.status.as_deref() == Some(status))
                .count()
        };
        assert_eq!(of("PRIMARY"), 1, "{name} has {deployments:?}");
        assert_eq!(
            of("PRIMARY") + of("ACTIVE"),
            deployments.len(),
            "{name} has {deployments:?}"
        );
        assert_eq!(
            deployments[0].status.as_deref(),
            Some("PRIMARY"),
            "the first deployment of {name}"
        );
        // What has ended in one way never ends in another while it is the same deployment.
        let known = self.ended.entry(name.to_owned()).or_default();
        for deployment in deployments {
            let (Some(state), Some(at)) = (&deployment.rollout_state, deployment.created_at) else {
                panic!("{name}: a deployment without a state: {deployment:?}");
            };
            let id = deployment.id.as_deref().unwrap_or_default();
            let key = |state: &str| format!("{id} {at:?} {state}");
            let now = state.as_str();
            for other in ["COMPLETED", "FAILED"] {
                assert!(
                    other == now || !known.contains(&key(other)),
                    "{name}: {id} was {other} and is {now}"
                );
            }
            if now != "IN_PROGRESS" {
                known.insert(key(now));
            }
        }
    }
}

fn check_counts(name: &str, service: &ecs::Service, listed: usize) {
    let (running, pending) = (service.running_count, service.pending_count);
    let shown = running.unwrap_or(0) + pending.unwrap_or(0);
    assert_eq!(
        usize::try_from(shown).ok(),
        Some(listed),
        "{name} says it has {running:?} running and {pending:?} pending, and lists {listed}"
    );
    let deployments = service.deployments.as_deref().unwrap_or_default();
    let sum = |of: fn(&ecs::Deployment) -> Option<i32>| -> i32 {
        deployments.iter().filter_map(of).sum()
    };
    if service.status.as_deref() == Some("ACTIVE") {
        assert_eq!(
            (
                Some(sum(|it| it.running_count)),
                Some(sum(|it| it.pending_count))
            ),
            (running, pending),
            "the counts of {name} and of its deployments: {deployments:?}"
        );
    }
    if service.status.as_deref() == Some("INACTIVE") {
        assert_eq!(listed, 0, "{name} is INACTIVE and has tasks");
    }
}

fn check_events(name: &str, service: &ecs::Service) {
    let events = service.events.as_deref().unwrap_or_default();
    assert!(events.len() <= 100, "{name} has {} events", events.len());
    let ids: BTreeSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), events.len(), "the ids of the events of {name}");
    for pair in events.windows(2) {
        let (Some(newer), Some(older)) = (pair[0].created_at, pair[1].created_at) else {
            panic!("{name}: an event without a time");
        };
        assert!(
            pair[0].message != pair[1].message || newer.since(older) >= SUPPRESSED_FOR,
            "{name} says twice: {:?}",
            pair[0].message
        );
    }
}

pub fn describe(control: &ControlPlane, name: &str) -> Option<ecs::Service> {
    let request = ecs::DescribeServicesRequest {
        services: vec![name.to_owned()],
        ..Default::default()
    };
    let answer =
        control.call(|ecs, ctx| async move { ecs.describe_services(&ctx, request).await })?;
    let answer = answer.unwrap_or_else(|error| panic!("DescribeServices was refused: {error:?}"));
    answer.services.into_iter().flatten().next()
}

/// The tasks of a service that are meant to run.
pub fn list(control: &ControlPlane, name: &str) -> Vec<String> {
    let mut listed = Vec::new();
    let mut next_token = None;
    loop {
        let request = ecs::ListTasksRequest {
            service_name: Some(name.to_owned()),
            next_token,
            ..Default::default()
        };
        let answer = control.call(|ecs, ctx| async move { ecs.list_tasks(&ctx, request).await });
        let Some(answer) = answer else { return listed };
        let answer = answer.unwrap_or_else(|error| panic!("ListTasks was refused: {error:?}"));
        listed.extend(answer.task_arns.into_iter().flatten());
        next_token = answer.next_token;
        if next_token.is_none() {
            return listed;
        }
    }
}
