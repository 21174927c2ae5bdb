//! Availability zone rebalancing: a service that is steady, and has two tasks more in one zone than in
//! another, moves one, and then looks again.
//!
//! What always holds:
//! - A move begins only while the service is steady and its bounds leave room for one more task. What
//!   is being moved stands in the service's state ([`BalanceStep`]), in the commit that starts it.
//! - The task in the richer zone goes when its successor is healthy, never before; the successor has
//!   its slot.
//! - Whatever else happens to the service comes first: then the successor is one task too many, or
//!   just the one that is needed, and the ordinary rules ([`rolling`]) have the word.
//! - A move that came to nothing is not tried again at once.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::ecs::AvailabilityZoneRebalancing;
use gantry_arn::TaskId;
use gantry_placement::Constraint;
use gantry_placement::query::{Comparison, Expression, Subject};

use super::pass::Pass;
use crate::api::placing::Choice;
use crate::api::service_instances::ServiceInstances;
use crate::model::run_request::definition_constraints;
use crate::model::service::replica::{Condition, Replica};
use crate::model::service::rolling::{self, Bounds, Stop, Why};
use crate::model::service::scale_in::{Order, in_order};
use crate::model::service::scheduling::ZONE_ATTRIBUTE;
use crate::model::service::zones::{self, Zone, Zones};
use crate::model::service::{events, request};
use crate::tables::BalanceStep;

/// What a move that is under way asks of this pass.
pub(super) enum Moving {
    /// Nothing is being moved.
    Nothing,
    /// The successor is not healthy yet: until then the service has one task more.
    Waits,
    /// The successor is healthy: this one goes.
    Leaves(Stop),
}

impl Pass<'_> {
    fn is_rebalanced(&self) -> bool {
        self.spec.availability_zone_rebalancing == AvailabilityZoneRebalancing::Enabled
    }

    /// Goes on with a move that is under way, or gives it up.
    pub(super) fn go_on_moving(&mut self, bounds: &Bounds, replicas: &[Replica]) -> Moving {
        let Some(step) = self.state.balance.step.clone() else {
            return Moving::Nothing;
        };
        let find = |id: TaskId| replicas.iter().find(|replica| replica.id == id);
        let newcomer = find(step.newcomer).filter(|newcomer| newcomer.stays());
        let Some(newcomer) = newcomer.filter(|_| self.is_rebalanced()) else {
            self.end_move(false);
            return Moving::Nothing;
        };
        if find(step.leaver).is_none_or(|leaver| !leaver.stays()) {
            // It has gone, as it should or by itself: the newcomer is in its place.
            self.end_move(true);
            return Moving::Nothing;
        }
        let serving = replicas.iter().filter(|replica| replica.is_up()).count();
        if newcomer.condition != Condition::Healthy || serving <= bounds.lower {
            return Moving::Waits;
        }
        if self.protected(replicas).contains(&step.leaver) {
            self.end_move(false);
            return Moving::Nothing;
        }
        Moving::Leaves(Stop {
            task: step.leaver,
            why: Why::Scaling,
        })
    }

    pub(super) fn end_move(&mut self, came_true: bool) {
        let balance = &mut self.state.balance;
        balance.step = None;
        if came_true {
            (balance.failures, balance.again_at) = (0, None);
        } else {
            balance.failures = balance.failures.saturating_add(1);
            balance.again_at = Some(self.now + zones::pause(balance.failures));
        }
    }

    /// Whether the service is as it should be but for the task that is being moved.
    pub(super) fn is_only_moving(&mut self, replicas: &[Replica]) -> bool {
        let Some(step) = &self.state.balance.step else {
            return false;
        };
        let others = replicas
            .iter()
            .filter(|replica| replica.id != step.newcomer);
        let others: Vec<Replica> = others.cloned().collect();
        rolling::is_steady(&self.bounds(), &others) && self.state.deployments.len() == 1
    }

    /// Begins to move a task, if one zone of the steady service has too many.
    pub(super) fn rebalance(&mut self, replicas: &[Replica]) {
        if !self.is_rebalanced() {
            self.state.balance = Default::default();
            return;
        }
        let mut by_zone: BTreeMap<&str, usize> = BTreeMap::new();
        for zone in replicas
            .iter()
            .filter_map(|replica| replica.zone.as_deref())
        {
            *by_zone.entry(zone).or_default() += 1;
        }
        // Nothing can be too much where no zone has two. It costs nothing to know.
        let most = by_zone.values().max().copied().unwrap_or(0);
        if most < 2 && !self.state.balance.announced {
            return;
        }
        if !self.state.balance.announced && self.is_even_over_all(&by_zone) {
            return;
        }
        let protected = self.protected(replicas);
        let zones = self.zones(replicas, &protected, false);
        let name = self.spec.name.clone();
        if zones::is_balanced(&zones) {
            // A zone whose agents are away for a moment is waited for: without it nothing can be said.
            if self.state.balance.announced
                && zones::is_balanced(&self.zones(replicas, &protected, true))
            {
                self.state.balance = Default::default();
                self.say(events::balanced(&name, &zones));
            }
            return;
        }
        if let Some(at) = self.state.balance.again_at.filter(|at| self.now < *at) {
            self.look_again(at);
            return;
        }
        let bounds = self.bounds();
        // A maximum that leaves no room for one more, or a minimum that would not let the other go.
        if rolling::room(&bounds, replicas) == 0 || bounds.lower > bounds.desired {
            return;
        }
        let Some(step) = zones::next_move(&zones) else {
            return;
        };
        if !self.state.balance.announced {
            self.state.balance.announced = true;
            self.say(events::not_balanced(&name, &zones));
        }
        let all: Vec<&Replica> = replicas.iter().collect();
        let givers: Vec<&Replica> = replicas
            .iter()
            .filter(|it| it.zone.as_ref() == Some(&step.from) && !protected.contains(&it.id))
            .collect();
        let Some(leaver) = in_order(&all, &givers, 1, Order::Spread).first().copied() else {
            return;
        };
        for to in &step.to {
            if let Some(newcomer) = self.start_in(to, leaver.slot) {
                self.say(events::started_to_balance(&name, to, &[newcomer]));
                self.state.balance.step = Some(BalanceStep {
                    newcomer,
                    leaver: leaver.id,
                    from: step.from.clone(),
                });
                return;
            }
            if self.waits {
                return;
            }
            self.say(events::unplaced_in_zone(&name, to));
        }
        self.end_move(false);
        if let Some(at) = self.state.balance.again_at {
            self.look_again(at);
        }
    }

    /// Whether the tasks are balanced over all zones of the cluster, as far as is known without
    /// looking at every instance. Then they are over those that the service's constraints mean.
    fn is_even_over_all(&self, by_zone: &BTreeMap<&str, usize>) -> bool {
        let Some(known) = &self.known_zones else {
            return false;
        };
        let all = known.iter().map(|name| {
            let tasks = by_zone.get(name.as_str()).copied().unwrap_or(0);
            (
                name.clone(),
                Zone {
                    tasks,
                    movable: tasks,
                    takes: true,
                },
            )
        });
        let elsewhere = by_zone.iter().filter(|(name, _)| !known.contains(**name));
        let elsewhere = elsewhere.map(|(name, tasks)| {
            (
                (*name).to_owned(),
                Zone {
                    tasks: *tasks,
                    movable: *tasks,
                    takes: false,
                },
            )
        });
        zones::is_balanced(&all.chain(elsewhere).collect())
    }

    /// What each zone has. Those whose agents are all away take nothing, unless they are looked at as if they were there.
    fn zones(
        &self,
        replicas: &[Replica],
        protected: &BTreeSet<TaskId>,
        as_if_there: bool,
    ) -> Zones {
        let definition = self.primary().and_then(|primary| self.definition(primary));
        let asks = definition
            .as_ref()
            .and_then(|it| ServiceInstances::of(self.rows, &self.spec, it));
        let takers = asks.map(|asks| asks.zones()).unwrap_or_default();
        let mut zones: Zones = takers
            .into_iter()
            .filter(|(_, is_connected)| *is_connected || as_if_there)
            .map(|(name, _)| {
                (
                    name,
                    Zone {
                        takes: true,
                        ..Zone::default()
                    },
                )
            })
            .collect();
        for replica in replicas {
            let Some(name) = &replica.zone else { continue };
            let zone = zones.entry(name.clone()).or_default();
            zone.tasks += 1;
            zone.movable += usize::from(!protected.contains(&replica.id));
        }
        zones
    }

    /// Starts a task of the PRIMARY deployment in this zone, if there is room for one.
    fn start_in(&mut self, zone: &str, slot: u32) -> Option<TaskId> {
        let primary = self.primary().cloned()?;
        let definition = self.definition(&primary)?;
        let there = Expression::Comparison(
            Subject::Attribute(ZONE_ATTRIBUTE.to_owned()),
            Comparison::Equals(zone.to_owned()),
        );
        let mut constraints = definition_constraints(&definition.definition).ok()?;
        constraints.extend(request::constraints(&self.spec.placement_constraints).ok()?);
        constraints.push(Constraint::MemberOf(there));
        let strategies = request::strategies(&self.spec.placement_strategy).ok()?;
        let choice = Choice::Best {
            constraints,
            strategies: &strategies,
            seed: self.state.next_number,
        };
        let (_, started) = self.place(&primary, &[slot], choice)?;
        started.first().copied()
    }
}
