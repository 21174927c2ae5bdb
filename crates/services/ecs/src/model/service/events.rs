//! What a service says, in AWS's words: the last hundred events, newest first.

use std::time::Duration;

use gantry_arn::{ContainerInstanceId, ServiceName, TaskId};
use gantry_env::Timestamp;
use gantry_placement::{Rejection, Unfit};

use super::zones::Zones;
use crate::tables::Event;

pub const EVENTS_MAX: usize = 100;

/// For how long the same message is not said again, if nothing else was said since.
pub const SUPPRESSED_FOR: Duration = Duration::from_secs(6 * 60 * 60);

/// How many tasks one event names.
const NAMED_MAX: usize = 100;

/// Adds what happened, unless it is what was said last. True if it was added.
pub fn add(
    events: &mut Vec<Event>,
    now: Timestamp,
    id: impl FnOnce() -> String,
    message: String,
) -> bool {
    let repeats = events
        .first()
        .is_some_and(|last| last.message == message && now.since(last.at) < SUPPRESSED_FOR);
    if repeats {
        return false;
    }
    events.insert(
        0,
        Event {
            id: id(),
            at: now,
            message,
        },
    );
    events.truncate(EVENTS_MAX);
    true
}

pub fn started(service: &ServiceName, tasks: &[TaskId]) -> String {
    format!(
        "(service {service}) has started {} tasks: {}.",
        tasks.len(),
        named(tasks)
    )
}

pub fn stopped(service: &ServiceName, tasks: &[TaskId]) -> String {
    format!(
        "(service {service}) has stopped {} running tasks: {}.",
        tasks.len(),
        named(tasks)
    )
}

/// How many tasks are in which zone, before and after they are moved.
pub fn not_balanced(service: &ServiceName, zones: &Zones) -> String {
    let each = zones.iter().enumerate().map(|(at, (name, zone))| match at {
        0 => format!("{} tasks in {name}", zone.tasks),
        _ => format!("{} in {name}", zone.tasks),
    });
    format!(
        "(service {service}) is not AZ balanced with {}. AZ Rebalancing in progress.",
        listed(each.collect())
    )
}

pub fn balanced(service: &ServiceName, zones: &Zones) -> String {
    let each = zones
        .iter()
        .map(|(name, zone)| format!("{} tasks in {name}", zone.tasks));
    format!(
        "(service {service}) is AZ balanced with {}.",
        listed(each.collect())
    )
}

pub fn started_to_balance(service: &ServiceName, zone: &str, tasks: &[TaskId]) -> String {
    format!(
        "(service {service}) has started {} tasks in {zone} to AZ Rebalance: {}.",
        tasks.len(),
        named(tasks)
    )
}

pub fn stopped_to_balance(service: &ServiceName, zone: &str, tasks: &[TaskId]) -> String {
    format!(
        "(service {service}) has stopped {} running tasks in {zone} due to AZ rebalancing: {}.",
        tasks.len(),
        named(tasks)
    )
}

pub fn unplaced_in_zone(service: &ServiceName, zone: &str) -> String {
    format!(
        "(service {service}) is unable to place a task in {zone} because no container instance met all of its requirements."
    )
}

fn listed(mut parts: Vec<String>) -> String {
    match parts.pop() {
        Some(last) if parts.len() > 1 => format!("{}, and {last}", parts.join(", ")),
        Some(last) if !parts.is_empty() => format!("{} and {last}", parts.join(", ")),
        last => last.unwrap_or_default(),
    }
}

pub fn completed(service: &ServiceName, deployment: &str) -> String {
    format!("(service {service}) (deployment {deployment}) deployment completed.")
}

pub fn failed(service: &ServiceName, deployment: &str, why: &str) -> String {
    format!("(service {service}) (deployment {deployment}) deployment failed: {why}.")
}

pub fn rolling_back(service: &ServiceName, deployment: &str, to: &str) -> String {
    format!(
        "(service {service}) rolling back to deployment {to} because (deployment {deployment}) failed."
    )
}

pub fn steady(service: &ServiceName) -> String {
    format!("(service {service}) has reached a steady state.")
}

pub fn cannot_start(service: &ServiceName) -> String {
    format!("(service {service}) is unable to consistently start tasks successfully.")
}

/// Why a task found no place: what spoke against the instance that came closest.
pub fn unplaced(service: &ServiceName, rejections: &[Rejection]) -> String {
    let Some((closest, reason)) = closest(rejections) else {
        return format!(
            "(service {service}) was unable to place a task. Reason: No Container Instances were found in your cluster."
        );
    };
    format!(
        "(service {service}) was unable to place a task because no container instance met all of its requirements. The closest matching {}",
        against(closest, reason)
    )
}

/// The same in the API's words: what spoke against the instance that came closest.
pub fn placement_reason(rejections: &[Rejection]) -> String {
    let reason = closest(rejections).map(|(_, reason)| reason.api_reason());
    reason
        .unwrap_or("No Container Instances were found in your cluster.")
        .to_owned()
}

fn closest(rejections: &[Rejection]) -> Option<(ContainerInstanceId, &Unfit)> {
    let closest = rejections
        .iter()
        .filter(|rejection| !rejection.reasons.is_empty())
        .min_by_key(|rejection| (rejection.reasons.len(), rejection.instance))?;
    Some((closest.instance, closest.reasons.first()?))
}

fn against(instance: ContainerInstanceId, reason: &Unfit) -> String {
    let why = match reason {
        Unfit::Cpu { .. } => "has insufficient CPU units available",
        Unfit::Memory { .. } => "has insufficient memory available",
        Unfit::Ports { .. } => "is already using a port required by your task",
        Unfit::Attributes { .. } => "is missing an attribute required by your task",
        Unfit::Agent => "has the agent disconnected",
        Unfit::Inactive => "is not in the ACTIVE state",
        Unfit::MemberOf { .. } => "encountered error \"MemberOf constraint unsatisfied.\"",
        Unfit::NotDistinct => {
            "encountered error \"distinctInstance placement constraint unsatisfied.\""
        }
    };
    format!("(container-instance {instance}) {why}.")
}

fn named(tasks: &[TaskId]) -> String {
    let names: Vec<String> = tasks
        .iter()
        .take(NAMED_MAX)
        .map(|task| format!("(task {task})"))
        .collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_last_hundred_events_are_kept_newest_first() {
        let mut events = Vec::new();
        for n in 0..150 {
            assert!(add(
                &mut events,
                at(n),
                || n.to_string(),
                format!("event {n}")
            ));
        }
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(events[0].message, "event 149");
        assert_eq!(events[99].message, "event 50");
    }

    #[test]
    fn a_repeated_event_is_suppressed_for_six_hours() {
        let mut events = Vec::new();
        let six_hours = 6 * 60 * 60;
        let mut say =
            |second: i64, text: &str| add(&mut events, at(second), String::new, text.to_owned());
        assert!(say(0, "a"));
        assert!(!say(1, "a"));
        assert!(!say(six_hours - 1, "a"));
        assert!(say(six_hours, "a"));
        assert!(say(six_hours + 1, "b"));
        assert!(say(six_hours + 2, "a"));
    }

    #[test]
    fn the_words_are_those_of_aws() {
        let web = ServiceName::new("web").unwrap();
        let (one, two) = (TaskId::from_random([1; 16]), TaskId::from_random([2; 16]));
        assert_eq!(
            started(&web, &[one, two]),
            format!("(service web) has started 2 tasks: (task {one}) (task {two}).")
        );
        assert_eq!(
            stopped(&web, &[one]),
            format!("(service web) has stopped 1 running tasks: (task {one}).")
        );
        let instance = ContainerInstanceId::from_random([3; 16]);
        let rejection = Rejection {
            instance,
            reasons: vec![Unfit::Cpu { needed: 2, free: 1 }],
        };
        assert_eq!(
            unplaced(&web, &[rejection]),
            format!(
                "(service web) was unable to place a task because no container instance met all of its requirements. The closest matching (container-instance {instance}) has insufficient CPU units available."
            )
        );
    }
}
