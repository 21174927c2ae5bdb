//! What a service of replicas starts and stops.

use std::collections::{BTreeMap, BTreeSet};

use gantry_ecs::tables::Rollout;

use super::{Deed, ServiceLaws, Sight};
use crate::services::mirror::Watched;
use crate::services::replicas::Replica;

impl ServiceLaws {
    pub(super) fn check_starts(&self, sight: &Sight<'_>, deed: &Deed) {
        if deed.created.is_empty() {
            return;
        }
        let Sight { name, shape, .. } = *sight;
        let (there, begun) = (sight.before.len(), deed.created.len());
        assert!(
            there + begun <= shape.upper,
            "{name} starts {begun} beside {there}, and may have {} at most",
            shape.upper
        );
        self.check_beginnings(sight, deed);
        // While a task is moved to another zone, there is one more, and it shares a slot.
        let moves = self.mirror.services[name].state.as_ref();
        let moves = moves.and_then(|state| state.balance.step.clone());
        for side in &shape.staying {
            let mine = deed.created.iter();
            let mine: Vec<_> = mine
                .filter(|it| it.started_by.as_ref() == Some(side))
                .collect();
            if mine.is_empty() {
                continue;
            }
            let staying = sight.before.iter();
            let staying: Vec<&Replica> = staying
                .filter(|it| it.stays() && it.deployment == *side)
                .collect();
            let desired = shape.desired + usize::from(moves.is_some());
            assert!(
                staying.len() + mine.len() <= desired,
                "{name} starts {} of {side} beside {} that stay, and wants {desired}",
                mine.len(),
                staying.len()
            );
            let leaver = moves.as_ref().map(|step| step.leaver.to_string());
            let is_leaver =
                |it: &&&Replica| leaver.as_ref().is_some_and(|id| it.name.ends_with(id));
            let mut taken: BTreeSet<u32> = staying
                .iter()
                .filter(|it| !is_leaver(it))
                .map(|it| it.slot)
                .collect();
            for task in mine {
                let slot = task.replica.as_ref().map(|replica| replica.slot);
                let slot = slot.expect("a slot");
                assert!(
                    taken.insert(slot),
                    "{name} starts {} in slot {slot}, which is taken",
                    task.id
                );
            }
        }
    }

    /// Whatever a service starts is of a deployment that may start tasks now, and pinned to its images.
    pub(super) fn check_beginnings(&self, sight: &Sight<'_>, deed: &Deed) {
        let name = sight.name;
        let watched = &self.mirror.services[name];
        for task in &deed.created {
            let id = &task.id;
            assert_eq!(
                watched.spec.deleted_at, None,
                "{name} is deleted, and starts {id}"
            );
            let by = task.started_by.clone().unwrap_or_default();
            assert!(
                sight.shape.staying.contains(&by),
                "{name} starts {id} for {by}, and of {:?} the tasks stay",
                sight.shape.staying
            );
            let state = watched.state.as_ref().expect("a state");
            let deployment = state.deployments.iter().find(|it| it.id == by);
            let deployment =
                deployment.unwrap_or_else(|| panic!("{name} starts {id} for {by}, which is over"));
            assert_ne!(
                deployment.rollout,
                Rollout::Failed,
                "{name} starts {id} of a deployment that failed"
            );
            if let Some(until) = deployment.throttled_until {
                assert!(
                    sight.now >= until,
                    "{name} starts {id} of {by} before {until:?}"
                );
            }
            assert_eq!(
                (&task.family, task.revision),
                (
                    &deployment.revision.family,
                    deployment.revision.task_definition
                ),
                "{name} starts {id} of another revision"
            );
            let pinned = task.replica.as_ref().map(|replica| &replica.digests);
            assert_eq!(
                pinned,
                Some(&deployment.digests),
                "{name} starts {id} of other images"
            );
        }
    }

    pub(super) fn check_protection(&self, sight: &Sight<'_>, deed: &Deed) {
        for task in deed.stopped.keys() {
            let until = self.mirror.protected.get(task);
            assert!(
                until.is_none_or(|until| *until <= sight.now),
                "{} stops {task}, which is protected until {until:?}",
                sight.name
            );
        }
    }

    pub(super) fn check_stops(&self, sight: &Sight<'_>, deed: &Deed) {
        let Sight {
            name,
            shape,
            before,
            after,
            ..
        } = *sight;
        let watched = &self.mirror.services[name];
        if deed.stopped.is_empty() || watched.spec.deleted_at.is_some() {
            return;
        }
        self.check_protection(sight, deed);
        let (up_before, up_after) = (up(before), up(after));
        assert!(
            up_after >= shape.lower.min(up_before),
            "{name} needs {} that are up, and stops {:?}: {up_after} are left of {up_before}",
            shape.lower,
            deed.stopped
        );
        let old: Vec<Replica> = after
            .iter()
            .filter(|it| before.iter().any(|known| known.name == it.name))
            .cloned()
            .collect();
        for side in &shape.staying {
            assert!(
                stay(&old, side) >= shape.desired.min(stay(before, side)),
                "{name} wants {} of {side}, and stops {:?} of those that stay",
                shape.desired,
                deed.stopped
            );
        }
        // Replaced first where the maximum and the cluster have room, and stopped first only otherwise.
        let unplaced = watched
            .state
            .as_ref()
            .is_some_and(|it| it.unplaced.is_some());
        let has_room = before.len() + deed.created.len() < shape.upper && !unplaced;
        let has_room = has_room && !shape.has_two_sides();
        let healthy = old.iter().filter(|it| it.stays() && it.is_healthy).count();
        for replica in before
            .iter()
            .filter(|it| deed.stopped.contains_key(&it.name) && has_room)
        {
            let is_replaced = match (replica.is_unhealthy, replica.is_up()) {
                (true, _) if !replica.leaves() => healthy >= shape.desired,
                (_, true) if replica.leaves() => up_after >= shape.desired.min(up_before),
                _ => true,
            };
            assert!(
                is_replaced,
                "{name} stops {} before it is replaced, and has room for both: {before:?}",
                replica.name
            );
        }
        for (task, reason) in &deed.stopped {
            let replica = before.iter().find(|it| it.name == *task);
            let replica =
                replica.unwrap_or_else(|| panic!("{name} stops {task}, which is over already"));
            let for_health = reason == "Task failed container health checks";
            assert_eq!(
                for_health, replica.is_unhealthy,
                "{name} stops {task} because of: {reason}"
            );
        }
        self.check_scale_in(sight, deed);
    }

    /// A service that is scaled in, and nothing else, keeps its zones in balance: the zone that loses a task has,
    /// with what it loses, at least as many as any that loses none.
    fn check_scale_in(&self, sight: &Sight<'_>, deed: &Deed) {
        let spec = &self.mirror.services[sight.name].spec;
        let first = spec.placement_strategy.first();
        let is_spread = first
            .and_then(|it| it.r#type.as_ref())
            .is_none_or(|kind| *kind == gantry_api::ecs::PlacementStrategyType::Spread);
        let is_plain = sight.before.iter().all(|it| it.stays() && it.is_healthy)
            && self.mirror.protected.is_empty()
            && deed.created.is_empty();
        if !is_spread || !is_plain {
            return;
        }
        let zones = |of: &[Replica]| {
            let mut zones: BTreeMap<Option<String>, usize> = BTreeMap::new();
            for replica in of {
                *zones.entry(replica.zone.clone()).or_default() += 1;
            }
            zones
        };
        let (had, has) = (zones(sight.before), zones(sight.after));
        for (zone, had) in &had {
            let has_now = has.get(zone).copied().unwrap_or(0);
            let most = has.values().max().copied().unwrap_or(0);
            assert!(
                has_now == *had || has_now + 1 >= most,
                "{} stops {:?} in {zone:?}, where {has_now} of {had} are left, and elsewhere {most}",
                sight.name,
                deed.stopped
            );
        }
    }

    /// A task is moved to another zone only by a service that is as it was asked for, only where that brings balance,
    /// and it goes only when its successor is healthy.
    pub(super) fn check_move(&self, sight: &Sight<'_>, deed: &Deed, before: Option<&Watched>) {
        let name = sight.name;
        let step = |watched: &Watched| watched.state.as_ref()?.balance.step.clone();
        let (was, is) = (before.and_then(step), step(&self.mirror.services[name]));
        let find = |of: &[Replica], id: &gantry_arn::TaskId| -> Option<Replica> {
            let id = id.to_string();
            of.iter().find(|it| it.name.ends_with(&id)).cloned()
        };
        if let Some(is) = is.filter(|is| was.as_ref() != Some(is)) {
            assert!(
                sight.before.len() == sight.shape.desired
                    && sight.before.iter().all(|it| it.stays() && it.is_healthy),
                "{name} moves a task, and has {:?}",
                sight.before
            );
            let newcomer = find(sight.after, &is.newcomer).expect("a newcomer");
            let leaver = find(sight.before, &is.leaver).expect("a leaver");
            let of = |zone: &Option<String>| {
                let there = sight.before.iter();
                there.filter(|it| it.zone == *zone).count()
            };
            assert!(
                of(&newcomer.zone) + 2 <= of(&leaver.zone),
                "{name} moves {leaver:?} to {newcomer:?}"
            );
        }
        let Some(was) = was else { return };
        let leaver = find(sight.before, &was.leaver);
        let is_asked_to_go = leaver
            .as_ref()
            .is_some_and(|it| deed.stopped.contains_key(&it.name) && it.stays());
        let is_scaled_in = stay_all(sight.before) > sight.shape.desired + 1;
        if is_asked_to_go && !is_scaled_in && !sight.shape.has_two_sides() {
            let newcomer = find(sight.before, &was.newcomer);
            assert!(
                newcomer
                    .as_ref()
                    .is_none_or(|it| it.is_healthy || !it.stays()),
                "{name} stops {leaver:?} before {newcomer:?} is healthy"
            );
        }
    }
}

fn up(of: &[Replica]) -> usize {
    of.iter().filter(|it| it.is_up()).count()
}

fn stay_all(of: &[Replica]) -> usize {
    of.iter().filter(|it| it.stays()).count()
}

fn stay(of: &[Replica], side: &str) -> usize {
    of.iter()
        .filter(|it| it.stays() && it.deployment == side)
        .count()
}
