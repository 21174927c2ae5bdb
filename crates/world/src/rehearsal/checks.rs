//! What is wrong with a service before anything has happened: bounds that deadlock, ports that collide,
//! capacity that is not there, a circuit breaker that could never open.
//!
//! What always holds: pure. A finding says what is so, in numbers, and what could be done. They are told by
//! capacity alone: placement constraints are seen by the rehearsal itself, which asks the real placement.

use std::time::Duration;

use gantry_api::ecs::{DeploymentCircuitBreaker, ThresholdType};
use gantry_ecs::model::service::failures::{delay, threshold};
use gantry_ecs::model::service::rolling::Bounds;

/// A deployment that nothing has stopped for so long is one that nobody waits for.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// What can go wrong.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The minimum and the maximum leave nothing that may be started or stopped.
    BoundsDeadlock,
    /// Two tasks want the same host port on one container instance.
    PortsCollide,
    /// There is no room for what is asked for.
    NoCapacity,
    /// The circuit breaker cannot open, or only after longer than anybody waits.
    BreakerNeverOpens,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    pub wrong: Wrong,
    pub message: String,
}

/// A container instance that could take tasks, with what it has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    pub cpu: i64,
    pub memory: i64,
    /// The host ports of the task that are taken there by anything but this service.
    pub taken_ports: Vec<u16>,
    /// How many tasks of this service are there now.
    pub of_service: usize,
}

/// What the checks look at.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub desired: u32,
    pub minimum_percent: u32,
    pub maximum_percent: u32,
    /// What one task takes.
    pub cpu: i64,
    pub memory: i64,
    /// The host ports that every task of the service wants for itself, TCP and UDP.
    pub host_ports: Vec<u16>,
    /// Every ACTIVE container instance whose agent is connected.
    pub rooms: Vec<Room>,
    /// Tasks of the service are replaced: the change asks for a deployment, and some run.
    pub replaces: bool,
    pub breaker: Option<&'a DeploymentCircuitBreaker>,
    /// An essential container of the new revision has a health check.
    pub is_checked: bool,
}

/// All that is wrong.
pub fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(bounds_deadlock(facts));
    findings.extend(ports_collide(facts));
    findings.extend(no_capacity(facts));
    findings.extend(breaker_never_opens(facts));
    findings
}

fn bounds(facts: &Facts<'_>) -> Bounds {
    Bounds::of(facts.desired, facts.minimum_percent, facts.maximum_percent)
}

/// Nothing may be stopped first, and nothing may be started first.
fn bounds_deadlock(facts: &Facts<'_>) -> Option<Finding> {
    let bounds = bounds(facts);
    let stuck =
        bounds.desired > 0 && bounds.lower >= bounds.desired && bounds.upper <= bounds.desired;
    stuck.then(|| Finding {
        wrong: Wrong::BoundsDeadlock,
        message: format!(
            "minimumHealthyPercent {} of {} is {} (rounded up) and maximumPercent {} is {} (rounded down): while all {} run, a deployment may neither stop one nor start another. Raise the maximum or lower the minimum.",
            facts.minimum_percent,
            facts.desired,
            bounds.lower,
            facts.maximum_percent,
            bounds.upper,
            facts.desired
        ),
    })
}

/// Each container instance has a host port once.
fn ports_collide(facts: &Facts<'_>) -> Option<Finding> {
    if facts.host_ports.is_empty() {
        return None;
    }
    let ports = facts
        .host_ports
        .iter()
        .map(u16::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let free = facts
        .rooms
        .iter()
        .filter(|room| room.taken_ports.is_empty())
        .count();
    let bounds = bounds(facts);
    let message = if bounds.desired > free {
        let taken = facts.rooms.len() - free;
        let others = match taken {
            0 => String::new(),
            taken => format!(", and on {taken} others they are taken"),
        };
        format!(
            "every task wants host port {ports} for itself, and {free} container instances have it free{others}: {} of {} tasks find no place.",
            bounds.desired - free,
            bounds.desired
        )
    } else if facts.replaces && bounds.desired == free && bounds.lower >= bounds.desired {
        format!(
            "every task wants host port {ports} for itself, and all {free} container instances that could have it are taken by the tasks that run: none may be stopped first (minimumHealthyPercent {}), and none can be started beside it. Lower the minimum, or let the host port be chosen (hostPort 0, in bridge mode).",
            facts.minimum_percent
        )
    } else {
        return None;
    };
    Some(Finding {
        wrong: Wrong::PortsCollide,
        message,
    })
}

/// How many more tasks find room, by what is left.
fn more(facts: &Facts<'_>) -> usize {
    let times = |free: i64, needed: i64| match needed {
        needed if needed <= 0 => usize::MAX,
        needed => usize::try_from(free.max(0) / needed).unwrap_or(0),
    };
    let each = facts.rooms.iter().map(|room| {
        let by_size = times(room.cpu, facts.cpu).min(times(room.memory, facts.memory));
        match facts.host_ports.is_empty() {
            true => by_size,
            false if room.taken_ports.is_empty() && room.of_service == 0 => by_size.min(1),
            false => 0,
        }
    });
    each.fold(0, usize::saturating_add)
}

fn no_capacity(facts: &Facts<'_>) -> Option<Finding> {
    let bounds = bounds(facts);
    let there: usize = facts.rooms.iter().map(|room| room.of_service).sum();
    let needed = bounds.desired.saturating_sub(there);
    let more = more(facts);
    let needs = format!(
        "a task takes {} CPU units and {} MiB",
        facts.cpu, facts.memory
    );
    let message = if facts.rooms.is_empty() && bounds.desired > 0 {
        "no container instance is ACTIVE with its agent connected.".to_owned()
    } else if needed > more {
        // Ports are told of in words of their own.
        if !facts.host_ports.is_empty() && by_size_alone(facts) >= needed {
            return None;
        }
        format!(
            "{needed} more tasks are to be placed and there is room for {more}: {needs}, and the {} container instances have {} CPU units and {} MiB free in all.",
            facts.rooms.len(),
            facts.rooms.iter().map(|room| room.cpu.max(0)).sum::<i64>(),
            facts
                .rooms
                .iter()
                .map(|room| room.memory.max(0))
                .sum::<i64>()
        )
    } else if facts.replaces
        && more == 0
        && bounds.lower >= bounds.desired
        && facts.host_ports.is_empty()
    {
        format!(
            "there is room for none beside those that run ({needs}), and none of them may be stopped first (minimumHealthyPercent {}): the deployment waits for capacity.",
            facts.minimum_percent
        )
    } else {
        return None;
    };
    Some(Finding {
        wrong: Wrong::NoCapacity,
        message,
    })
}

fn by_size_alone(facts: &Facts<'_>) -> usize {
    more(&Facts {
        host_ports: Vec::new(),
        ..facts.clone()
    })
}

fn breaker_never_opens(facts: &Facts<'_>) -> Option<Finding> {
    let finding = |message: String| {
        Some(Finding {
            wrong: Wrong::BreakerNeverOpens,
            message,
        })
    };
    let breaker = facts.breaker.filter(|it| it.enable)?;
    let bounds = bounds(facts);
    if bounds.desired == 0 {
        return finding(
            "the circuit breaker is enabled, but with a desired count of 0 no task is started that could fail."
                .to_owned(),
        );
    }
    let needed = threshold(Some(breaker), facts.desired);
    // So many are tried at once; each time all of them fail, the next try is put off for longer.
    let at_once = match facts.replaces {
        true => bounds.upper.saturating_sub(bounds.lower).max(1),
        false => bounds.desired.min(bounds.upper).max(1),
    };
    let tries = usize::try_from(needed)
        .unwrap_or(usize::MAX)
        .div_ceil(at_once);
    let takes = (1..tries).fold(Duration::ZERO, |sum, times| {
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        sum.saturating_add(delay(times))
    });
    if takes > FOR_EVER {
        let form = breaker
            .threshold_configuration
            .as_ref()
            .map(|it| &it.r#type);
        let how = match form {
            Some(ThresholdType::Count) => "a threshold of type COUNT has no upper limit",
            Some(ThresholdType::UnboundedPercent) => {
                "a threshold of type UNBOUNDED_PERCENT has no upper limit"
            }
            _ => "few tasks fail at a time",
        };
        return finding(format!(
            "the circuit breaker opens after {needed} failed tasks, of which at most {at_once} fail at a time ({how}); as starts are put off for up to 27 minutes, that takes {} hours.",
            takes.as_secs() / 3600
        ));
    }
    if !facts.is_checked {
        return finding(
            "the circuit breaker counts tasks that do not start and tasks whose health check fails. No essential container has a health check, so a revision that starts and then ends or hangs is never counted. Add a healthCheck."
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::ecs::ThresholdConfiguration;

    fn facts(desired: u32, minimum_percent: u32, maximum_percent: u32) -> Facts<'static> {
        Facts {
            desired,
            minimum_percent,
            maximum_percent,
            cpu: 256,
            memory: 512,
            host_ports: Vec::new(),
            rooms: vec![room(4096, 8192); 2],
            replaces: true,
            breaker: None,
            is_checked: true,
        }
    }

    fn room(cpu: i64, memory: i64) -> Room {
        Room {
            cpu,
            memory,
            ..Room::default()
        }
    }

    fn wrongs(facts: &Facts<'_>) -> Vec<Wrong> {
        check(facts).into_iter().map(|it| it.wrong).collect()
    }

    #[test]
    fn bounds_that_leave_nothing_to_start_and_nothing_to_stop_deadlock() {
        assert_eq!(wrongs(&facts(4, 100, 100)), [Wrong::BoundsDeadlock]);
        // Rounding makes it so for a single task, though the percentages look roomy.
        assert_eq!(wrongs(&facts(1, 50, 150)), [Wrong::BoundsDeadlock]);
        for fine in [(4, 100, 200), (4, 50, 100), (2, 50, 150), (0, 100, 100)] {
            assert_eq!(wrongs(&facts(fine.0, fine.1, fine.2)), [], "{fine:?}");
        }
    }

    #[test]
    fn a_host_port_is_there_once_an_instance() {
        let mut three = facts(3, 100, 200);
        three.host_ports = vec![80];
        assert_eq!(wrongs(&three), [Wrong::PortsCollide]);
        assert!(
            check(&three)[0]
                .message
                .contains("1 of 3 tasks find no place")
        );
        let mut taken = facts(2, 50, 200);
        taken.host_ports = vec![80];
        assert_eq!(wrongs(&taken), []);
        taken.rooms[1].taken_ports = vec![80];
        assert_eq!(wrongs(&taken), [Wrong::PortsCollide]);
        // All places are taken by the tasks that are to be replaced.
        let mut full = facts(2, 100, 200);
        full.host_ports = vec![80];
        full.rooms.iter_mut().for_each(|room| room.of_service = 1);
        assert_eq!(wrongs(&full), [Wrong::PortsCollide]);
        full.minimum_percent = 50;
        assert_eq!(wrongs(&full), []);
    }

    #[test]
    fn capacity_that_is_not_there_is_counted_by_instance() {
        let mut few = facts(40, 100, 200);
        few.replaces = false;
        // 32 fit: 16 by CPU and by memory on each.
        assert_eq!(wrongs(&few), [Wrong::NoCapacity]);
        assert!(
            check(&few)[0]
                .message
                .contains("40 more tasks are to be placed and there is room for 32")
        );
        few.desired = 32;
        assert_eq!(wrongs(&few), []);
        // Two halves make no whole.
        few.desired = 1;
        few.rooms = vec![room(200, 8192), room(200, 8192)];
        assert_eq!(wrongs(&few), [Wrong::NoCapacity]);
        few.rooms.clear();
        assert!(check(&few)[0].message.contains("no container instance"));
        let mut full = facts(2, 100, 200);
        full.rooms = vec![Room {
            of_service: 2,
            ..room(100, 100)
        }];
        assert_eq!(wrongs(&full), [Wrong::NoCapacity]);
        full.minimum_percent = 50;
        assert_eq!(wrongs(&full), []);
    }

    #[test]
    fn a_breaker_that_could_never_open_is_told_with_the_reason() {
        let breaker =
            |kind: Option<(ThresholdType, i32)>, rollback: bool| DeploymentCircuitBreaker {
                enable: true,
                rollback,
                threshold_configuration: kind.map(|(kind, value)| ThresholdConfiguration {
                    r#type: kind,
                    value,
                }),
                ..Default::default()
            };
        let says = |facts: &Facts<'_>| {
            let found = check(facts);
            let of = found.iter().find(|it| it.wrong == Wrong::BreakerNeverOpens);
            of.map(|it| it.message.clone())
        };
        let plain = breaker(None, true);
        let mut fine = facts(4, 100, 200);
        fine.breaker = Some(&plain);
        assert_eq!(says(&fine), None);
        let unchecked = Facts {
            is_checked: false,
            ..fine.clone()
        };
        assert!(
            says(&unchecked)
                .unwrap()
                .contains("No essential container has a health check")
        );
        let none = Facts {
            desired: 0,
            ..fine.clone()
        };
        assert!(says(&none).unwrap().contains("desired count of 0"));
        let counting = breaker(Some((ThresholdType::Count, 500)), true);
        let slow = Facts {
            breaker: Some(&counting),
            ..fine.clone()
        };
        assert!(says(&slow).unwrap().contains("type COUNT"));
        let reachable = breaker(Some((ThresholdType::Count, 5)), true);
        assert_eq!(
            says(&Facts {
                breaker: Some(&reachable),
                ..fine.clone()
            }),
            None
        );
        let off = DeploymentCircuitBreaker::default();
        assert_eq!(
            says(&Facts {
                breaker: Some(&off),
                ..none
            }),
            None
        );
    }
}
