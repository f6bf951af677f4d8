//! Which domain makes room when there are too many of them, or too many fields.
//!
//! An exporter with a handful of templates keeps them under a flood, as long as it has been read:
//!
//! | who fills the table | who makes room |
//! |---|---|
//! | addresses that are heard and not read: forged ones come once | one of those, while they have more than a quarter of the table |
//! | a few addresses, each with many domains or fields | the address that has most, if that is more than a [`FLOOR`]th of the table |
//! | many, with few each | the domain used longest ago |
//!
//! Within an address it is the domain used longest ago, too. Each look takes as long as the logarithm of the table.

use super::DomainKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A part of the table that is for those who are heard and not read, whatever the others need.
const NEW: usize = 4;

/// A part of the table up to which an address is like any other: a router with many line cards has many domains.
const FLOOR: usize = 64;

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarce {
    Domains,
    Fields,
}

/// A domain's place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seat {
    /// Grows with each use that is noted.
    pub(super) turn: u64,
    /// It has been read.
    pub(super) is_read: bool,
    /// What it counts.
    pub(super) fields: usize,
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Room {
    new: Class,
    read: Class,
    turn: u64,
}

impl Room {
    /// What all domains count.
    pub(super) fn fields(&self) -> usize {
        self.new.fields + self.read.fields
    }

    /// A place for a domain that is new.
    pub(super) fn enter(&mut self, key: DomainKey) -> Seat {
        self.turn += 1;
        let seat = Seat { turn: self.turn, is_read: false, fields: 0 };
        self.new.enter(key, seat);
        seat
    }

    /// The domain is gone.
    pub(super) fn leave(&mut self, key: DomainKey, seat: Seat) {
        self.class(seat).leave(key, seat);
    }

    /// Notes that the domain is used.
    pub(super) fn touch(&mut self, key: DomainKey, seat: &mut Seat) {
        if seat.turn == self.turn {
            return; // It was the last one, too.
        }
        self.turn += 1;
        let (turn, before) = (self.turn, std::mem::replace(&mut seat.turn, self.turn));
        self.class(*seat).touch(key, before, turn);
    }

    /// Notes that the domain has been read.
    pub(super) fn is_read(&mut self, key: DomainKey, seat: &mut Seat) {
        self.leave(key, *seat);
        seat.is_read = true;
        self.class(*seat).enter(key, *seat);
    }

    /// Notes what the domain counts now.
    pub(super) fn weigh(&mut self, key: DomainKey, seat: &mut Seat, fields: usize) {
        if seat.fields != fields {
            self.class(*seat).weigh(key.exporter.address, 0, seat.fields, fields);
            seat.fields = fields;
        }
    }

    /// Who makes room.
    pub(super) fn first(&self, scarce: Scarce, limit: usize) -> Option<DomainKey> {
        let is_new = self.new.amount(scarce) > limit / NEW || self.read.order.is_empty();
        let class = if is_new { &self.new } else { &self.read };
        class.first(scarce, limit / FLOOR)
    }

    fn class(&mut self, seat: Seat) -> &mut Class {
        if seat.is_read { &mut self.read } else { &mut self.new }
    }
}

/// Domains, by use and by address.
#[derive(Debug, Default)]
struct Class {
    /// By turn, so those used longest ago first.
    order: BTreeMap<u64, DomainKey>,
    addresses: HashMap<IpAddr, Part>,
    /// Addresses by what they have: the last has most.
    by_domains: BTreeSet<(usize, IpAddr)>,
    by_fields: BTreeSet<(usize, IpAddr)>,
    fields: usize,
}

/// Those of one address.
#[derive(Debug, Default)]
struct Part {
    order: BTreeMap<u64, DomainKey>,
    fields: usize,
}

impl Class {
    fn amount(&self, scarce: Scarce) -> usize {
        match scarce {
            Scarce::Domains => self.order.len(),
            Scarce::Fields => self.fields,
        }
    }

    fn enter(&mut self, key: DomainKey, seat: Seat) {
        let address = key.exporter.address;
        self.order.insert(seat.turn, key);
        self.addresses.entry(address).or_default().order.insert(seat.turn, key);
        self.weigh(address, 1, 0, seat.fields);
    }

    fn touch(&mut self, key: DomainKey, before: u64, turn: u64) {
        let part = self.addresses.get_mut(&key.exporter.address).map(|part| &mut part.order);
        for order in part.into_iter().chain([&mut self.order]) {
            order.insert(turn, key);
            order.remove(&before);
        }
    }

    fn leave(&mut self, key: DomainKey, seat: Seat) {
        let address = key.exporter.address;
        self.order.remove(&seat.turn);
        if let Some(part) = self.addresses.get_mut(&address) {
            part.order.remove(&seat.turn);
        }
        self.weigh(address, -1, seat.fields, 0);
    }

    /// Ranks an address anew, of which one domain counted `before` and counts `after`, and which has `more` domains
    /// than it is ranked by.
    fn weigh(&mut self, address: IpAddr, more: isize, before: usize, after: usize) {
        let Some(part) = self.addresses.get_mut(&address) else { return };
        self.fields = self.fields + after - before;
        let (domains, fields) = (part.order.len(), part.fields);
        part.fields = fields + after - before;
        self.by_fields.remove(&(fields, address));
        if domains > 0 {
            self.by_fields.insert((part.fields, address));
        }
        if more != 0 {
            self.by_domains.remove(&(domains.saturating_add_signed(-more), address));
            if domains > 0 {
                self.by_domains.insert((domains, address));
            } else {
                self.addresses.remove(&address);
            }
        }
    }

    fn first(&self, scarce: Scarce, floor: usize) -> Option<DomainKey> {
        let ranked = match scarce {
            Scarce::Domains => &self.by_domains,
            Scarce::Fields => &self.by_fields,
        };
        let most = ranked.last().filter(|(amount, _)| *amount > floor);
        let part = most.and_then(|(_, address)| self.addresses.get(address));
        let order = part.map_or(&self.order, |part| &part.order);
        order.first_key_value().map(|(_, key)| *key)
    }
}
