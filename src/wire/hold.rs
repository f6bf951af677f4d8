//! Data sets whose template has not been heard: held until it comes, bounded by bytes and age.
//!
//! Exporters send their templates every few minutes, some every half hour; what they send before the first of them
//! after our start, or theirs, would be lost. What is held is counted as its bytes and [`SET_COST`]; when that is over
//! the limit the oldest set goes, and no exporter holds more than a quarter of it.

use super::cursor::Cursor;
use super::domain::DomainKey;
use super::{Arrival, Place};
use crate::flow::{Layout, Run};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// How much is held, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct HoldLimits {
    /// All held sets together.
    pub max_bytes: usize,
    /// Milliseconds that a set may wait; `u64::MAX` is for ever.
    pub max_age: u64,
}

impl Default for HoldLimits {
    fn default() -> HoldLimits {
        HoldLimits { max_bytes: 16 << 20, max_age: 35 * 60 * 1000 }
    }
}

/// What a held set costs beside its bytes, at most: its own, and a queue and the places in the tables if it is the only
/// one that waits for its template.
const SET_COST: usize = 1_024;

/// A part of all that one address may hold.
const SHARE: usize = 4;

/// A set that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) arrival: Arrival,
    /// What its datagram's header said.
    pub(super) run: Run,
    /// Where its content lay in the datagram.
    pub(super) at: usize,
    pub(super) content: Box<[u8]>,
    /// The template of another port that it did not fit.
    pub(super) unfit: Option<Arc<Layout>>,
    /// Counts what was ever held.
    serial: u64,
}

impl Held {
    fn cost(&self) -> usize {
        self.content.len() + SET_COST
    }

    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor::within(&self.content, self.at)
    }

    /// Where it lay in its datagram.
    pub(super) fn place(&self) -> Place {
        Place { offset: self.at, bytes: self.content.len() }
    }
}

/// What a set waits for.
pub(super) type Awaited = (DomainKey, u16);

/// All that waits.
#[derive(Debug)]
pub(super) struct Hold {
    limits: HoldLimits,
    waiting: HashMap<Awaited, VecDeque<Held>>,
    /// By serial number, so oldest first.
    order: BTreeMap<u64, Awaited>,
    by_address: HashMap<IpAddr, usize>,
    bytes: usize,
    serial: u64,
}

impl Hold {
    pub(super) fn new(limits: HoldLimits) -> Hold {
        Hold {
            limits,
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            by_address: HashMap::new(),
            bytes: 0,
            serial: 0,
        }
    }

    /// Takes a set, or says that there is no room for it.
    pub(super) fn put(
        &mut self,
        key: &DomainKey,
        arrival: &Arrival,
        run: &Run,
        at: usize,
        content: &[u8],
    ) -> bool {
        let cost = content.len() + SET_COST;
        let held = self.by_address.get(&key.exporter.address).copied().unwrap_or(0);
        if held + cost > self.limits.max_bytes / SHARE {
            return false;
        }
        self.serial += 1;
        let held = Held {
            arrival: *arrival,
            run: *run,
            at,
            content: content.into(),
            unfit: None,
            serial: self.serial,
        };
        self.bytes += cost;
        *self.by_address.entry(key.exporter.address).or_default() += cost;
        self.order.insert(self.serial, (*key, run.template));
        self.waiting.entry((*key, run.template)).or_default().push_back(held);
        true
    }

    /// Takes out the oldest set if there is too much, or it is too old at `elapsed` (see [`Arrival::elapsed`]).
    pub(super) fn overdue(&mut self, elapsed: u64) -> Option<(Held, Overdue)> {
        let (_, awaited) = self.order.first_key_value()?;
        let awaited = *awaited;
        let first = self.waiting.get(&awaited)?.front()?;
        let why = if self.bytes > self.limits.max_bytes {
            Overdue::Room
        } else if elapsed.saturating_sub(first.arrival.elapsed) >= self.limits.max_age {
            Overdue::Age
        } else {
            return None;
        };
        self.take_first(&awaited).map(|held| (held, why))
    }

    /// Takes out the oldest set that waits for this.
    pub(super) fn take_first(&mut self, awaited: &Awaited) -> Option<Held> {
        self.take_next(awaited, &mut 0, |_| true)
    }

    /// Takes out the oldest set that waits for this and that `when` agrees to, of those from the place `at` on, to which
    /// the place of the next one is written.
    pub(super) fn take_next(
        &mut self,
        awaited: &Awaited,
        at: &mut usize,
        mut when: impl FnMut(&mut Held) -> bool,
    ) -> Option<Held> {
        let queue = self.waiting.get_mut(awaited)?;
        *at += queue.iter_mut().skip(*at).position(&mut when)?;
        let held = queue.remove(*at)?;
        if queue.is_empty() {
            self.waiting.remove(awaited);
        }
        self.order.remove(&held.serial);
        self.bytes -= held.cost();
        let address = awaited.0.exporter.address;
        if let Some(bytes) = self.by_address.get_mut(&address) {
            *bytes -= held.cost();
            if *bytes == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(held)
    }

    /// Takes out the oldest set of all.
    pub(super) fn take_any(&mut self) -> Option<Held> {
        let (_, awaited) = self.order.first_key_value()?;
        let awaited = *awaited;
        self.take_first(&awaited)
    }

    /// What is waited for: how many sets, and the arrival of the first of them.
    pub(super) fn awaited(&self) -> impl Iterator<Item = (&Awaited, usize, &Arrival)> {
        self.waiting
            .iter()
            .filter_map(|(awaited, queue)| Some((awaited, queue.len(), &queue.front()?.arrival)))
    }

    /// Sets held.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes that they count.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Why a set waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// It has waited for as long as it may.
    Age,
    /// Newer ones need its room.
    Room,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;
    use crate::proto::Protocol;

    fn key(host: u8) -> DomainKey {
        let exporter = Exporter { address: [192, 0, 2, host].into(), port: 2055 };
        DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 0 }
    }

    fn put(hold: &mut Hold, host: u8, template: u16, elapsed: u64, bytes: usize) -> bool {
        let arrival = Arrival { exporter: key(host).exporter, received: 0, elapsed, number: elapsed };
        let run = Run { template, ..arrival.run(Protocol::NetflowV9) };
        hold.put(&key(host), &arrival, &run, 24, &vec![7; bytes])
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much_or_it_is_too_old() {
        let mut hold = Hold::new(HoldLimits { max_bytes: 4 * (SET_COST + 100), max_age: 1_000 });
        for (place, host) in (1..=4).enumerate() {
            assert!(put(&mut hold, host, 256, place as u64, 100));
            assert!(!put(&mut hold, host, 256, place as u64, 100), "no more than a quarter for each");
        }
        assert!(hold.overdue(10).is_none());
        assert!(put(&mut hold, 5, 256, 4, 100));
        let (held, why) = hold.overdue(10).unwrap();
        assert_eq!((held.arrival.number, why), (0, Overdue::Room));
        assert!(hold.overdue(1_000).is_none());
        let (held, why) = hold.overdue(1_001).unwrap();
        assert_eq!((held.arrival.number, why), (1, Overdue::Age));
        assert_eq!((hold.len(), hold.bytes()), (3, 3 * (SET_COST + 100)));
        while hold.take_any().is_some() {}
        assert_eq!((hold.len(), hold.bytes(), hold.by_address.len(), hold.waiting.len()), (0, 0, 0, 0));
    }

    #[test]
    fn sets_of_one_template_come_out_in_order() {
        let mut hold = Hold::new(HoldLimits::default());
        for elapsed in 0..5 {
            put(&mut hold, 1, 256 + (elapsed % 2) as u16, elapsed, 10);
        }
        let (awaited, mut at) = ((key(1), 256), 0);
        let mut taken = Vec::new();
        while let Some(held) = hold.take_next(&awaited, &mut at, |held| held.arrival.elapsed > 0) {
            taken.push(held.arrival.number);
        }
        assert_eq!(taken, [2, 4]);
        assert_eq!(hold.take_first(&awaited).unwrap().arrival.number, 0);
        assert_eq!(hold.len(), 2);
    }
}
