//! Blue and green side by side, carried out step by step: what the strategy promises of the tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_arn::{ContainerInstanceId, TaskId};
use gantry_env::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::model::service::replica::Condition;
use crate::model::service::rolling::{self, Why};
use crate::model::service::scale_in::Order;
use crate::model::service::stages::{Outlook, Route, Sight};

/// A service of tasks that nobody runs: each is as healthy as the test says.
struct Service {
    bounds: Bounds,
    course: Course,
    primary: String,
    replicas: Vec<(String, Replica)>,
    protected: BTreeSet<TaskId>,
    made: u16,
    now_s: u64,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(0) + Duration::from_secs(seconds)
}

const BAKE_TIME_S: u64 = 60;

fn route() -> Route {
    Route {
        bake_time: Duration::from_secs(BAKE_TIME_S),
        hooks: Vec::new(),
    }
}

fn ids(stage: Stage, at: usize) -> String {
    format!("{stage}-{at}")
}

impl Service {
    /// With a whole blue, and `others` tasks of a deployment that was overtaken.
    fn new(desired: u32, minimum: u32, others: u32) -> Self {
        let revisions = if others > 0 { 2 } else { 1 };
        let mut service = Self {
            bounds: Bounds::of(desired, minimum, BOTH_SIDES_PERCENT),
            course: Course::begin(Some("blue".to_owned()), revisions, &route(), at(0), &ids),
            primary: "green".to_owned(),
            replicas: Vec::new(),
            protected: BTreeSet::new(),
            made: 0,
            now_s: 0,
        };
        (0..desired).for_each(|slot| service.make("blue", slot, Condition::Healthy));
        (0..others).for_each(|slot| service.make("other", slot, Condition::Running));
        service
    }

    fn make(&mut self, deployment: &str, slot: u32, condition: Condition) {
        self.made += 1;
        let mut id = [0; 16];
        id[..2].copy_from_slice(&self.made.to_be_bytes());
        let replica = Replica {
            id: TaskId::from_random(id),
            slot,
            is_primary: true,
            condition,
            is_draining: false,
            instance: ContainerInstanceId::from_random([(self.made % 3) as u8; 16]),
            zone: None,
            left_free: 0,
        };
        self.replicas.push((deployment.to_owned(), replica));
    }

    fn of(&self, deployment: &str) -> impl Iterator<Item = &Replica> {
        let mine = self.replicas.iter();
        mine.filter(move |(of, _)| of == deployment)
            .map(|(_, it)| it)
    }

    /// Those that serve, as the planner counts them.
    fn up(&self, staying: &[&str]) -> usize {
        let all = self.replicas.iter();
        all.filter(|(of, replica)| {
            let is_primary = staying.contains(&of.as_str());
            Replica {
                is_primary,
                ..replica.clone()
            }
            .is_up()
        })
        .count()
    }

    fn healthy(&self, deployment: &str) -> usize {
        self.of(deployment)
            .filter(|it| it.condition == Condition::Healthy)
            .count()
    }

    /// One pass, as the controller does it.
    fn step(&mut self) {
        let sight = Sight {
            now: at(self.now_s),
            others_are_gone: self.of("other").all(|it| self.protected.contains(&it.id)),
            green_is_up: self.healthy("green") >= self.bounds.desired,
        };
        let before = self.course.stage;
        let outlook = self
            .course
            .advance(&route(), &sight, &BTreeMap::new(), &ids);
        assert!(matches!(outlook, Outlook::Waits(_)) && self.course.stage >= before);
        let primary = self.primary.clone();
        let course = self.course.clone();
        let staying = staying(Some(&course), &primary);
        let there = self.replicas.len();
        let before = self.up(&staying);
        let mut has_started = false;
        for side in deal(&staying, &self.bounds, &self.replicas) {
            let lacking = rolling::lacking(&side.bounds, &side.replicas);
            let room = rolling::room(&side.bounds, &side.replicas).min(lacking.len());
            if room > 0 && has_started {
                continue;
            }
            has_started |= room > 0;
            for slot in &lacking[..room] {
                self.make(&side.deployment, *slot, Condition::Pending);
            }
            let put_off = lacking.len() - room;
            let stops = rolling::stops(
                &side.bounds,
                &side.replicas,
                put_off,
                &self.protected,
                Order::Spread,
            );
            for stop in stops {
                assert!(!self.protected.contains(&stop.task));
                let of = self.replicas.iter().find(|(_, it)| it.id == stop.task);
                let is_blue = of.is_some_and(|(of, _)| of == "blue");
                // A task that was replaced because it was unhealthy may have recovered: then it is one too many.
                let blue = self
                    .of("blue")
                    .filter(|it| it.condition != Condition::Unhealthy);
                let is_one_too_many = blue.count() > self.bounds.desired;
                let may_stop = course.stage == Stage::CleanUp || course.given_up || is_one_too_many;
                assert!(
                    !is_blue || may_stop || stop.why == Why::Unhealthy,
                    "{stop:?} {course:?}"
                );
                self.replicas.retain(|(_, it)| it.id != stop.task);
            }
        }
        let least = before.min(self.bounds.lower);
        assert!(
            self.up(&staying) >= least,
            "below the minimum: {:?}",
            self.replicas
        );
        assert!(
            self.replicas.len() <= self.bounds.upper.max(there),
            "{:?}",
            self.replicas
        );
    }

    /// Steps, with everything becoming healthy, until nothing changes.
    fn converge(&mut self) {
        for _ in 0..60 {
            self.step();
            for (_, replica) in &mut self.replicas {
                replica.condition = Condition::Healthy;
            }
            self.now_s += BAKE_TIME_S / 4;
        }
    }
}

#[test]
fn green_comes_up_whole_beside_blue_and_only_then_replaces_it() {
    let mut service = Service::new(3, 100, 0);
    service.step();
    assert_eq!(
        (service.of("blue").count(), service.of("green").count()),
        (3, 3)
    );
    service.converge();
    assert_eq!(
        (service.of("blue").count(), service.of("green").count()),
        (0, 3)
    );
}

#[test]
fn a_protected_task_of_blue_stays_alone() {
    let mut service = Service::new(3, 100, 0);
    let protected = service.of("blue").next().unwrap().id;
    service.protected.insert(protected);
    service.converge();
    assert_eq!(
        (service.of("blue").count(), service.of("green").count()),
        (1, 3)
    );
    service.protected.clear();
    service.converge();
    assert_eq!(service.of("blue").count(), 0);
}

proptest! {
    #[test]
    fn nothing_of_blue_stops_before_clean_up_and_a_rollback_ends_with_blue_whole(
        desired in 0..6_u32, minimum in 0..=100_u32, others in 0..4_u32,
        steps in prop::collection::vec(
            (prop::collection::vec(0..5_u8, 12), prop::collection::vec(any::<bool>(), 12), 0..40_u64), 0..12),
        protected in prop::collection::btree_set(0..8_usize, 0..3),
        rolls_back in any::<bool>(),
    ) {
        let mut service = Service::new(desired, minimum, others);
        for at in protected {
            if let Some((_, replica)) = service.replicas.get(at) {
                service.protected.insert(replica.id);
            }
        }
        for (conditions, ends, passes) in steps {
            service.step();
            for ((_, replica), condition) in service.replicas.iter_mut().zip(&conditions) {
                replica.condition = match condition {
                    0 => Condition::Unhealthy,
                    1 => Condition::Running,
                    2 => continue,
                    _ => Condition::Healthy,
                };
            }
            // Tasks end by themselves too.
            let mut ends = ends.into_iter();
            let protected = service.protected.clone();
            service.replicas.retain(|(_, it)| {
                ends.next() != Some(true) || it.condition == Condition::Healthy || protected.contains(&it.id)
            });
            service.now_s += passes;
        }
        if rolls_back {
            service.course.give_up();
            service.primary = "blue".to_owned();
        }
        service.converge();
        service.protected.clear();
        service.converge();
        let desired = service.bounds.desired;
        let (stays, leaves) = if rolls_back { ("blue", "green") } else { ("green", "blue") };
        prop_assert_eq!(service.healthy(stays), desired);
        prop_assert_eq!(service.of(leaves).count() + service.of("other").count(), 0);
    }
}
