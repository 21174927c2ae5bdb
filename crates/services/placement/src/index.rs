//! The container instances of a cluster, kept in the orders that placements ask for.
//!
//! A placement that looked at every instance would get slower with each one that joins. So for each
//! chain of strategies that is asked for, the instances stand in an order of their own (`order`),
//! which every change of an instance keeps up to date, and a placement takes the first that fits.
//!
//! What always holds: an index answers as if it had looked at every instance, but for which of
//! several equally good ones it takes. Orders are derived, bounded in number, and made anew when
//! they are asked for again. Only where no instance fits, each is looked at: the reasons name them all.

use std::collections::BTreeMap;

use gantry_arn::ContainerInstanceId;

use crate::candidate::{Candidate, Capacity, Demand};
use crate::fit::{Rejection, Unfit, fits, unfit};
use crate::order::{LEVELS_MAX, Order, Search, Slot};
use crate::plan::{Constraint, Plan, Request};
use crate::strategy::{Strategy, default_chain, mix};

/// How many orders are kept, those that were used last: at least so many, and more of them as long
/// as all their entries together are not too many.
const ORDERS_MIN: usize = 16;
const ORDERS_MAX: usize = 256;
const ENTRIES_MAX: usize = 500_000;

/// What an order is for: tasks of one size. Chains that count tasks do so by group, so each group
/// has its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct OrderKey {
    chain: Vec<Strategy>,
    group: Option<String>,
    needs: Capacity,
}

#[derive(Debug, Default)]
pub struct InstanceIndex {
    slots: Vec<Option<Candidate>>,
    free_slots: Vec<Slot>,
    by_id: BTreeMap<ContainerInstanceId, Slot>,
    orders: BTreeMap<OrderKey, Order>,
    /// Counts the placements, to tell which order was used last.
    turn: u64,
    /// Orders equals differently in each index, so that two that know the same instances do not
    /// always want the same one.
    salt: u64,
}

impl InstanceIndex {
    pub fn new(salt: u64) -> Self {
        Self {
            salt,
            ..Self::default()
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn get(&self, id: &ContainerInstanceId) -> Option<&Candidate> {
        let slot = *self.by_id.get(id)?;
        self.slots.get(slot as usize)?.as_ref()
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.by_id
            .values()
            .filter_map(|slot| self.slots.get(*slot as usize)?.as_ref())
    }

    /// Adds an instance, or replaces all that was known of it.
    pub fn put(&mut self, candidate: Candidate) {
        let slot = match self.by_id.get(&candidate.id) {
            Some(slot) => *slot,
            None => {
                let slot = self.free_slots.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    (self.slots.len() - 1) as Slot
                });
                self.by_id.insert(candidate.id, slot);
                slot
            }
        };
        self.set(slot, Some(candidate));
    }

    pub fn remove(&mut self, id: &ContainerInstanceId) {
        if let Some(slot) = self.by_id.remove(id) {
            self.set(slot, None);
            self.free_slots.push(slot);
        }
    }

    /// Every change of an instance goes through here, so the orders cannot miss one.
    fn set(&mut self, slot: Slot, candidate: Option<Candidate>) {
        for order in self.orders.values_mut() {
            order.change(slot, candidate.as_ref());
        }
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = candidate;
        }
    }

    /// Places the tasks one after the other, each seeing what those before it took. What the plan
    /// takes is taken of the instances here: a caller who does not carry it out puts them back as
    /// they are.
    pub fn place(&mut self, request: &Request<'_>) -> Plan {
        let key = order_key(request);
        self.keep_order(&key);
        let mut plan = Plan::default();
        for n in 0..request.count {
            let seed = mix(request.seed.wrapping_add(u64::from(n)));
            let Some(slot) = self.best(&key, request, seed) else {
                // Equal tasks: what does not fit now will not fit for the rest of them either.
                plan.unplaced = request.count - n;
                break;
            };
            let taken = self.slots.get_mut(slot as usize).and_then(Option::take);
            let Some(mut candidate) = taken else { break };
            candidate.take(request.demand);
            plan.placements.push(candidate.id);
            self.set(slot, Some(candidate));
        }
        if plan.unplaced > 0 {
            plan.rejections = self.rejections(request);
        }
        plan
    }

    /// What speaks against placing a task on this very instance. Empty: it fits.
    pub fn against(
        &self,
        id: &ContainerInstanceId,
        demand: &Demand,
        constraints: &[Constraint],
    ) -> Option<Vec<Unfit>> {
        self.get(id).map(|it| unfit(it, demand, constraints))
    }

    /// Gives a task its share of an instance that somebody else chose.
    pub fn take(&mut self, id: &ContainerInstanceId, demand: &Demand) {
        if let Some(candidate) = self.get(id) {
            let mut candidate = candidate.clone();
            candidate.take(demand);
            self.put(candidate);
        }
    }

    fn rejections(&self, request: &Request<'_>) -> Vec<Rejection> {
        let rejection = |candidate: &Candidate| Rejection {
            instance: candidate.id,
            reasons: unfit(candidate, request.demand, request.constraints),
        };
        self.iter()
            .filter(|candidate| candidate.launch_type == request.demand.launch_type)
            .map(rejection)
            .collect()
    }

    fn best(&self, key: &OrderKey, request: &Request<'_>, seed: u64) -> Option<Slot> {
        let candidate = |slot: Slot| self.slots.get(slot as usize)?.as_ref();
        let fits = |slot: Slot| {
            candidate(slot).is_some_and(|it| fits(it, request.demand, request.constraints))
        };
        let busy = |slot: Slot| candidate(slot).is_some_and(|it| it.busy);
        self.orders.get(key)?.first(&Search {
            fits: &fits,
            busy: &busy,
            seed,
        })
    }

    fn keep_order(&mut self, key: &OrderKey) {
        self.turn += 1;
        if let Some(order) = self.orders.get_mut(key) {
            order.used = self.turn;
            return;
        }
        let kept = ENTRIES_MAX / self.slots.len().max(1);
        if self.orders.len() >= kept.clamp(ORDERS_MIN, ORDERS_MAX) {
            let oldest = self.orders.iter().min_by_key(|(_, order)| order.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.orders.remove(&oldest);
            }
        }
        let group = key.group.clone().unwrap_or_default();
        let mut order = Order::new(key.chain.clone(), group, key.needs, self.salt);
        for (slot, candidate) in self.slots.iter().enumerate() {
            order.change(slot as Slot, candidate.as_ref());
        }
        order.used = self.turn;
        self.orders.insert(key.clone(), order);
    }
}

fn order_key(request: &Request<'_>) -> OrderKey {
    let mut chain = match request.strategies {
        [] => default_chain(),
        given => given.to_vec(),
    };
    // Nothing is left equal by chance, so nothing after it decides anything.
    if let Some(at) = chain.iter().position(|s| *s == Strategy::Random) {
        chain.truncate(at + 1);
    }
    // All that can be taken under this constraint are the instances without a task of the group:
    // they stand together and first.
    if request.constraints.contains(&Constraint::DistinctInstance) {
        chain.insert(0, Strategy::SpreadByInstance);
    }
    chain.truncate(LEVELS_MAX);
    let counts = |strategy: &Strategy| {
        matches!(
            strategy,
            Strategy::SpreadByInstance | Strategy::SpreadByAttribute(_)
        )
    };
    let group = chain
        .iter()
        .any(counts)
        .then(|| request.demand.group.clone());
    OrderKey {
        chain,
        group,
        needs: request.demand.needs,
    }
}
