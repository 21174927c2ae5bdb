//! Reading a stream in the order of time, though it is kept in the order of arrival.
//!
//! Batches usually arrive in order, but need not: clocks differ, and spools are sent late. A
//! stream remembers how far it ever was out of order ([`StreamOrder`], two numbers), and from
//! that a reader knows, at every record, what may still come. A [`PageCollector`] is offered
//! records in the order of arrival (or its reverse) and keeps those nearest to the cursor within
//! the limits of one page; it says when nothing that is still to come could belong to the page.
//! So a page of an orderly stream reads one page of records, a disorderly one as much more as it
//! was out of order, and memory is bounded by the page in both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::position::{Direction, Position};

/// How far a stream's arrival order departs from its time order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOrder {
    /// The most by which any event is older than one that arrived before it.
    pub disorder_ms: u64,
    /// One past the last event that is older than one before it. From here on, all is in order.
    pub late_end: u64,
}

impl StreamOrder {
    /// The order once a batch, itself in order, stands at `first_offset`. `last_time` is the
    /// latest time of anything that arrived before.
    pub fn after_batch(
        self,
        last_time: Option<i64>,
        first_offset: u64,
        timestamps: impl IntoIterator<Item = i64>,
    ) -> Self {
        let Some(last_time) = last_time else {
            return self;
        };
        let mut order = self;
        let late = timestamps.into_iter().take_while(|time| *time < last_time);
        for (offset, time) in (first_offset..).zip(late) {
            order.disorder_ms = order.disorder_ms.max(last_time.abs_diff(time));
            order.late_end = offset + 1;
        }
        order
    }

    /// Where a forward read from this cursor may begin in the order of arrival: before it stands
    /// nothing that is still to be read.
    pub fn first_offset_from(self, cursor: Position) -> u64 {
        if cursor.sequence > self.late_end {
            cursor.sequence
        } else {
            0
        }
    }
}

/// Where a page reads from and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    pub direction: Direction,
    pub cursor: Position,
    /// Only events at or after this time, in milliseconds.
    pub from_time: i64,
    /// Only events before this time.
    pub until_time: i64,
    pub max_events: usize,
    pub max_bytes: usize,
}

/// Whether the collector needs to see more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    More,
    /// Nothing that is still to be offered belongs to the page.
    Enough,
}

/// One page in the making.
#[derive(Debug)]
pub struct PageCollector<E> {
    limits: PageLimits,
    order: StreamOrder,
    kept: BTreeMap<Position, (usize, E)>,
    kept_bytes: usize,
    /// The nearest event that did not fit. Nothing beyond it belongs to the page.
    cut: Option<Position>,
    /// What the records seen so far say about those to come: see [`Self::horizon`].
    seen_any: Option<i64>,
    seen_after_late: Option<i64>,
}

impl<E> PageCollector<E> {
    pub fn new(limits: PageLimits, order: StreamOrder) -> Self {
        Self {
            limits,
            order,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            cut: None,
            seen_any: None,
            seen_after_late: None,
        }
    }

    /// Offers the next record: offsets grow when reading forward and shrink when reading backward.
    /// `event` is only made when the record is kept.
    pub fn offer(&mut self, place: Position, bytes: usize, event: impl FnOnce() -> E) -> Want {
        self.see(place);
        if self.belongs(place) {
            self.kept.insert(place, (bytes, event()));
            self.kept_bytes += bytes;
            self.trim();
        }
        self.want_after(place.sequence)
    }

    /// The page, in the order of time.
    pub fn finish(self) -> Vec<(Position, E)> {
        self.kept
            .into_iter()
            .map(|(place, (_, event))| (place, event))
            .collect()
    }

    fn see(&mut self, place: Position) {
        let further = |seen: Option<i64>| {
            let time = place.timestamp;
            Some(match (seen, self.limits.direction) {
                (None, _) => time,
                (Some(seen), Direction::Forward) => seen.max(time),
                (Some(seen), Direction::Backward) => seen.min(time),
            })
        };
        self.seen_any = further(self.seen_any);
        if place.sequence >= self.order.late_end {
            self.seen_after_late = further(self.seen_after_late);
        }
    }

    fn belongs(&self, place: Position) -> bool {
        let limits = &self.limits;
        let in_time = (limits.from_time..limits.until_time).contains(&place.timestamp);
        let (on_side, before_cut) = match limits.direction {
            Direction::Forward => (
                place >= limits.cursor,
                self.cut.is_none_or(|cut| place < cut),
            ),
            Direction::Backward => (
                place < limits.cursor,
                self.cut.is_none_or(|cut| place > cut),
            ),
        };
        in_time && on_side && before_cut
    }

    /// Gives up what is furthest from the cursor until the rest fits. One event always fits.
    fn trim(&mut self) {
        while self.kept.len() > self.limits.max_events
            || (self.kept_bytes > self.limits.max_bytes && self.kept.len() > 1)
        {
            let furthest = match self.limits.direction {
                Direction::Forward => self.kept.pop_last(),
                Direction::Backward => self.kept.pop_first(),
            };
            let Some((place, (bytes, _))) = furthest else {
                return;
            };
            self.kept_bytes -= bytes;
            self.cut = Some(place);
        }
    }

    /// The nearest that any record after (before) this offset can be.
    fn horizon(&self, offset: u64) -> Option<Position> {
        let disorder = i64::try_from(self.order.disorder_ms).unwrap_or(i64::MAX);
        match self.limits.direction {
            Direction::Forward => {
                let seen = self.seen_any?;
                let timestamp = if offset + 1 >= self.order.late_end {
                    seen
                } else {
                    seen.saturating_sub(disorder)
                };
                Some(Position {
                    timestamp,
                    sequence: offset + 1,
                })
            }
            Direction::Backward => {
                let loose = self.seen_any?.saturating_add(disorder);
                let timestamp = self.seen_after_late.map_or(loose, |tight| tight.min(loose));
                Some(Position {
                    timestamp,
                    sequence: offset.checked_sub(1)?,
                })
            }
        }
    }

    fn want_after(&self, offset: u64) -> Want {
        let Some(horizon) = self.horizon(offset) else {
            return Want::More;
        };
        let full = self.kept.len() >= self.limits.max_events;
        let done = match self.limits.direction {
            Direction::Forward => {
                let last_kept = self.kept.last_key_value().map(|(place, _)| *place);
                let threshold = self.cut.or(last_kept.filter(|_| full));
                horizon.timestamp >= self.limits.until_time
                    || threshold.is_some_and(|threshold| horizon >= threshold)
            }
            Direction::Backward => {
                let first_kept = self.kept.first_key_value().map(|(place, _)| *place);
                let threshold = self.cut.or(first_kept.filter(|_| full));
                horizon.timestamp < self.limits.from_time
                    || threshold.is_some_and(|threshold| horizon <= threshold)
            }
        };
        if done { Want::Enough } else { Want::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Batches in order within themselves, about as far out of order among each other as given.
    fn stream(batches: &[(i64, Vec<u8>)]) -> (Vec<Position>, StreamOrder) {
        let mut places: Vec<Position> = Vec::new();
        let mut order = StreamOrder::default();
        for (start, steps) in batches {
            let mut time = *start;
            let times: Vec<i64> = steps
                .iter()
                .map(|step| {
                    time += i64::from(*step % 3);
                    time
                })
                .collect();
            let last = places.iter().map(|place| place.timestamp).max();
            let first = places.len() as u64;
            order = order.after_batch(last, first, times.iter().copied());
            places.extend((first..).zip(times).map(|(sequence, timestamp)| Position {
                timestamp,
                sequence,
            }));
        }
        (places, order)
    }

    /// One page, and how many records had to be looked at.
    fn page(places: &[Position], order: StreamOrder, limits: PageLimits) -> (Vec<Position>, usize) {
        let mut collector = PageCollector::new(limits, order);
        let start = match limits.direction {
            Direction::Forward => order.first_offset_from(limits.cursor) as usize,
            Direction::Backward => 0,
        };
        let mut looked_at = 0;
        let mut offer = |place: &Position| {
            looked_at += 1;
            collector.offer(*place, 10, || *place)
        };
        let mut records = places[start.min(places.len())..].iter();
        match limits.direction {
            Direction::Forward => while records.next().is_some_and(|p| offer(p) == Want::More) {},
            Direction::Backward => {
                while records.next_back().is_some_and(|p| offer(p) == Want::More) {}
            }
        }
        let page = collector.finish().into_iter().map(|(place, _)| place);
        (page.collect(), looked_at)
    }

    fn batches() -> impl Strategy<Value = Vec<(i64, Vec<u8>)>> {
        prop::collection::vec((0i64..60, prop::collection::vec(any::<u8>(), 1..12)), 0..12)
    }

    proptest! {
        #[test]
        fn paging_either_way_visits_each_event_once_in_order(
            batches in batches(),
            max_events in 1usize..9,
            max_bytes in 5usize..60,
            from_time in 0i64..40,
            length in 0i64..80,
        ) {
            let (places, order) = stream(&batches);
            let until_time = from_time + length;
            let mut expected: Vec<Position> = places
                .iter()
                .copied()
                .filter(|place| (from_time..until_time).contains(&place.timestamp))
                .collect();
            expected.sort();
            let limits = |direction, cursor| PageLimits {
                direction, cursor, from_time, until_time, max_events, max_bytes,
            };

            let mut forward = Vec::new();
            let mut cursor = Position::START;
            loop {
                let (events, _) = page(&places, order, limits(Direction::Forward, cursor));
                let Some(last) = events.last() else { break };
                prop_assert!(events.len() <= max_events);
                prop_assert!(events.len() == 1 || events.len() * 10 <= max_bytes);
                cursor = last.behind();
                forward.extend(events);
            }
            prop_assert_eq!(&forward, &expected);

            // And back again from where that ended.
            let mut backward = Vec::new();
            loop {
                let (events, _) = page(&places, order, limits(Direction::Backward, cursor));
                let Some(first) = events.first() else { break };
                cursor = *first;
                backward.extend(events.into_iter().rev());
            }
            backward.reverse();
            prop_assert_eq!(&backward, &expected);
        }
    }

    #[test]
    fn an_orderly_stream_is_read_only_where_the_page_is() {
        let batches: Vec<_> = (0..100).map(|n| (n * 100, vec![1; 10])).collect();
        let (places, order) = stream(&batches);
        assert_eq!(order, StreamOrder::default());
        for direction in [Direction::Forward, Direction::Backward] {
            let limits = PageLimits {
                direction,
                cursor: match direction {
                    Direction::Forward => places[499].behind(),
                    Direction::Backward => Position::at_time(i64::MAX),
                },
                from_time: 0,
                until_time: i64::MAX,
                max_events: 20,
                max_bytes: 1 << 20,
            };
            let (events, looked_at) = page(&places, order, limits);
            assert_eq!((events.len(), looked_at), (20, 20), "{direction:?}");
        }
    }

    #[test]
    fn one_late_batch_does_not_slow_what_comes_after_it() {
        let mut batches: Vec<_> = (0..50).map(|n| (1000 + n * 100, vec![1; 10])).collect();
        batches.insert(10, (0, vec![1; 10]));
        let (places, order) = stream(&batches);
        assert_eq!(order.late_end, 110);
        let limits = PageLimits {
            direction: Direction::Forward,
            cursor: places[299].behind(),
            from_time: 0,
            until_time: i64::MAX,
            max_events: 20,
            max_bytes: 1 << 20,
        };
        assert_eq!(page(&places, order, limits).1, 20);
    }
}
