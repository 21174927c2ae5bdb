//! The container instances of a cluster, kept in the orders that placements ask for.
//!
//! A placement that looked at every instance would get slower with each one that joins. So for each
//! chain of strategies that is asked for, the instances stand in an order of their own (`order`),
//! which every change of an instance keeps up to date, and a placement takes the first that fits. Where
//! a chain counts the tasks of the group, all groups that are on few instances share an order; one that
//! is on many has its own.
//!
//! What always holds: an index answers as if it had looked at every instance, but for which of
//! several equally good ones it takes. Orders are derived, bounded in number, and made anew when
//! they are asked for again. Only where no instance fits, each is looked at: the reasons name them all.

use std::collections::BTreeMap;

use gantry_arn::ContainerInstanceId;

use crate::candidate::{Candidate, Capacity, Demand};
use crate::fit::{Rejection, Unfit, fits, unfit};
use crate::order::{Holders, LEVELS_MAX, Order, Search, Slot};
use crate::plan::{Constraint, Plan, Request};
use crate::strategy::{Strategy, default_chain, mix};

/// How many orders are kept, those that were used last: at least so many, and more of them as long
/// as all their entries together are not too many.
const ORDERS_MIN: usize = 16;
const ORDERS_MAX: usize = 256;
const ENTRIES_MAX: usize = 500_000;

/// On how many instances a group may be to be looked up one by one, beside an order that it shares.
const FEW: usize = 48;

/// What an order is for: tasks of one size, and where the chain counts tasks, of one group or of
/// any that is on few instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct OrderKey {
    chain: Vec<Strategy>,
    group: Option<String>,
    needs: Capacity,
}

#[derive(Debug)]
pub struct InstanceIndex {
    slots: Vec<Option<Candidate>>,
    free_slots: Vec<Slot>,
    by_id: BTreeMap<ContainerInstanceId, Slot>,
    orders: BTreeMap<OrderKey, Order>,
    /// Where the tasks of each group are.
    groups: BTreeMap<String, Holders>,
    few: usize,
    /// Counts the placements, to tell which order was used last.
    turn: u64,
    /// Orders equals differently in each index, so that two that know the same instances do not
    /// always want the same one.
    salt: u64,
}

impl Default for InstanceIndex {
    fn default() -> Self {
        Self::new(0)
    }
}

impl InstanceIndex {
    pub fn new(salt: u64) -> Self {
        Self {
            slots: Vec::new(),
            free_slots: Vec::new(),
            by_id: BTreeMap::new(),
            orders: BTreeMap::new(),
            groups: BTreeMap::new(),
            few: FEW,
            turn: 0,
            salt,
        }
    }

    /// One that gives groups orders of their own sooner, for tests with few instances.
    #[doc(hidden)]
    pub fn with_few(salt: u64, few: usize) -> Self {
        Self {
            few,
            ..Self::new(salt)
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

    /// Every change of an instance but what a placement takes goes through here, so neither the
    /// orders nor the groups can miss one.
    fn set(&mut self, slot: Slot, candidate: Option<Candidate>) {
        for order in self.orders.values_mut() {
            order.change(slot, candidate.as_ref());
        }
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let before = std::mem::replace(place, candidate);
        let none = BTreeMap::new();
        let was = before.as_ref().map_or(&none, |it| &it.tasks_by_group);
        let is = place.as_ref().map_or(&none, |it| &it.tasks_by_group);
        for group in was.keys().filter(|group| !is.contains_key(*group)) {
            if let Some(holders) = self.groups.get_mut(group) {
                holders.remove(&slot);
                if holders.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
        for (group, count) in is.iter().filter(|(group, n)| was.get(*group) != Some(n)) {
            hold(&mut self.groups, group, slot, *count);
        }
    }

    /// Places the tasks one after the other, each seeing what those before it took. What the plan
    /// takes is taken of the instances here: a caller who does not carry it out puts them back as
    /// they are.
    pub fn place(&mut self, request: &Request<'_>) -> Plan {
        self.place_while(request, |_| true)
    }

    /// [`InstanceIndex::place`], until `goes_on` says of the instance for the next task that the plan
    /// shall end before it. The tasks that are left then are neither placed nor unplaced.
    pub fn place_while(
        &mut self,
        request: &Request<'_>,
        mut goes_on: impl FnMut(&ContainerInstanceId) -> bool,
    ) -> Plan {
        let mut keys = OrderKeys::of(request);
        let mut plan = Plan::default();
        for n in 0..request.count {
            let seed = mix(request.seed.wrapping_add(u64::from(n)));
            let Some(slot) = self.best(&mut keys, request, seed) else {
                // Equal tasks: what does not fit now will not fit for the rest of them either.
                plan.unplaced = request.count - n;
                break;
            };
            let candidate = self.slots.get(slot as usize).and_then(Option::as_ref);
            let Some(id) = candidate.map(|it| it.id).filter(|id| goes_on(id)) else {
                break;
            };
            self.take_at(slot, request.demand);
            plan.placements.push(id);
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
        if let Some(slot) = self.by_id.get(id).copied() {
            self.take_at(slot, demand);
        }
    }

    fn take_at(&mut self, slot: Slot, demand: &Demand) {
        let Some(Some(candidate)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        candidate.take(demand);
        for order in self.orders.values_mut() {
            order.change(slot, Some(candidate));
        }
        let count = candidate.tasks_of(&demand.group);
        hold(&mut self.groups, &demand.group, slot, count);
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

    fn best(&mut self, keys: &mut OrderKeys, request: &Request<'_>, seed: u64) -> Option<Slot> {
        let few = self.few;
        let group = self.groups.get(&request.demand.group);
        // A group that has an order of its own keeps it, and one that is on many gets one.
        let is_own = keys.own.as_ref().is_some_and(|own| {
            group.is_some_and(|group| group.len() > few) || self.orders.contains_key(own)
        });
        let key = match (&keys.own, is_own) {
            (Some(own), true) => own,
            _ => &keys.shared,
        };
        if keys.kept != Some(is_own) {
            keys.kept = Some(is_own);
            self.keep_order(key);
        }
        let candidate = |slot: Slot| self.slots.get(slot as usize)?.as_ref();
        let fits = |slot: Slot| {
            candidate(slot).is_some_and(|it| fits(it, request.demand, request.constraints))
        };
        let busy = |slot: Slot| candidate(slot).is_some_and(|it| it.busy);
        let search = Search {
            fits: &fits,
            busy: &busy,
            seed,
        };
        let order = self.orders.get(key)?;
        match self.groups.get(&request.demand.group) {
            Some(holders) if keys.own.is_some() && !is_own => order.first_beside(holders, &search),
            _ => order.first(&search),
        }
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
        let mut order = Order::new(key.chain.clone(), key.group.clone(), key.needs, self.salt);
        for (slot, candidate) in self.slots.iter().enumerate() {
            order.change(slot as Slot, candidate.as_ref());
        }
        order.used = self.turn;
        self.orders.insert(key.clone(), order);
    }
}

/// The instance holds so many tasks of the group.
fn hold(groups: &mut BTreeMap<String, Holders>, group: &str, slot: Slot, count: u32) {
    match groups.get_mut(group) {
        Some(holders) => holders.insert(slot, count),
        None => groups
            .entry(group.to_owned())
            .or_default()
            .insert(slot, count),
    };
}

/// The orders in which the places of a request may be looked up.
struct OrderKeys {
    shared: OrderKey,
    /// Where the chain counts tasks: the one of the group alone.
    own: Option<OrderKey>,
    /// Which of them was seen to be kept: the group's own, or the shared one.
    kept: Option<bool>,
}

impl OrderKeys {
    fn of(request: &Request<'_>) -> Self {
        let chain = chain_of(request);
        let counts = |strategy: &Strategy| {
            matches!(
                strategy,
                Strategy::SpreadByInstance | Strategy::SpreadByAttribute(_)
            )
        };
        let own = chain.iter().any(counts).then(|| OrderKey {
            chain: chain.clone(),
            group: Some(request.demand.group.clone()),
            needs: request.demand.needs,
        });
        Self {
            shared: OrderKey {
                chain,
                group: None,
                needs: request.demand.needs,
            },
            own,
            kept: None,
        }
    }
}

/// The strategies that decide, after what the constraints decide first.
fn chain_of(request: &Request<'_>) -> Vec<Strategy> {
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
    chain
}
