//! What is counted of datagrams and of addresses: the terms of the loss ledger that are an exporter's own.
//!
//! ```text
//! datagrams received = accepted + refused + limited + truncated + unreadable
//! sets               = decoded + held now + undecoded + unknown samples
//! records, options   = dropped before a number + in the open batch + handed to the spool
//! ```

use super::moment::Moment;
use crate::wire::{Fault, Step, Unit};
use std::net::IpAddr;

/// Numbers by what sequence numbers count, in the order of [`Unit::ALL`].
pub type ByUnit = [u64; 4];

/// What one datagram had, or a held set.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) records: u64,
    pub(super) options: u64,
    /// Nothing is allocated for a datagram without faults.
    pub(super) faults: Vec<Fault>,
    /// The header's sequence number.
    pub(super) sequence: u32,
    /// When the exporter started, by its header; 0 if that does not say.
    pub(super) boot_time: u64,
    /// The agent that its header names.
    pub(super) agent: Option<IpAddr>,
    /// By its header the exporter has started anew.
    pub(super) has_restarted: bool,
    /// The first two bytes of what could not be read at all.
    pub(super) version: u16,
    /// Its header was read; not so for a held set.
    pub(super) is_accepted: bool,
    /// It has no header that can be read, or reading it has panicked.
    pub(super) is_unreadable: bool,
    pub(super) sets: Sets,
    /// What is missing by its sequence numbers, and what came late of that.
    pub(super) missing: ByUnit,
    pub(super) late: ByUnit,
}

impl Share {
    /// Counts what a sequence number says.
    pub(super) fn step(&mut self, unit: Unit, step: Step) {
        let (by_unit, amount) = match step {
            Step::Gap(missing) => (&mut self.missing, missing),
            Step::Late(late) => (&mut self.late, late),
            Step::Duplicate | Step::Reset | Step::Dropped(_) => return,
        };
        if let Some(sum) = by_unit.get_mut(unit as usize) {
            *sum += u64::from(amount);
        }
    }
}

/// What became of sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// Sets that began.
    pub begun: u64,
    /// Sets read whole.
    pub decoded: u64,
    /// Sets that wait for their template now. Of one datagram, or of what came of a held set: by how many more.
    pub held: i64,
    /// Sets that could not be read whole.
    pub undecoded: u64,
    /// Samples of sFlow of kinds not known.
    pub unknown: u64,
}

impl Sets {
    fn add(&mut self, other: &Sets) {
        self.begun += other.begun;
        self.decoded += other.decoded;
        self.held += other.held;
        self.undecoded += other.undecoded;
        self.unknown += other.unknown;
    }

    /// Sets of a datagram that have begun and come to no end.
    pub(super) fn unended(&self) -> u64 {
        let ended = self.decoded + self.undecoded + self.unknown;
        self.begun.saturating_sub(ended.saturating_add_signed(self.held))
    }
}

/// What was counted of several senders together. Times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Datagrams received and looked at.
    pub datagrams: u64,
    /// Those of them whose header was read, and raw ones that were taken.
    pub accepted: u64,
    /// Those of them of which nothing could be read.
    pub unreadable: u64,
    /// Datagrams that were not looked at because the address may not send.
    pub refused: u64,
    /// Datagrams that were not taken because the address sends too much.
    pub limited: u64,
    /// Datagrams longer than the buffer.
    pub truncated: u64,
    /// What became of the sets in them.
    pub sets: Sets,
    /// Flow records decoded.
    pub records: u64,
    /// Options records decoded.
    pub options: u64,
    /// Datagrams taken to be forwarded unread.
    pub raw: u64,
    /// Records, and raw datagrams, that the spool's queue had no room for.
    pub dropped: u64,
    /// Datagrams, sets and templates that could not be read.
    pub faults: u64,
    /// What sequence numbers say has not come: an estimate, late ones among them.
    pub missing: ByUnit,
    /// What of the missing came late.
    pub late: ByUnit,
    /// What the sequence numbers on both sides of our start say was lost between: an estimate.
    pub restart_missing: ByUnit,
    /// When the first datagram came.
    pub first_seen: u64,
    /// When the last one did.
    pub last_seen: u64,
}

impl Totals {
    /// Marks shown by the wall clock.
    pub(super) fn shown(self, now: Moment) -> Totals {
        let (first_seen, last_seen) = (now.unix_of(self.first_seen), now.unix_of(self.last_seen));
        Totals { first_seen, last_seen, ..self }
    }

    /// Counts what a datagram or a held set had, but for the datagram itself.
    pub(super) fn add_share(&mut self, share: &Share) {
        self.accepted += u64::from(share.is_accepted);
        self.unreadable += u64::from(share.is_unreadable);
        self.sets.add(&share.sets);
        self.records += share.records;
        self.options += share.options;
        self.faults += share.faults.len() as u64;
        add_units(&mut self.missing, &share.missing);
        add_units(&mut self.late, &share.late);
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Totals) {
        let is_first = self.last_seen == 0;
        self.datagrams += other.datagrams;
        self.accepted += other.accepted;
        self.unreadable += other.unreadable;
        self.refused += other.refused;
        self.limited += other.limited;
        self.truncated += other.truncated;
        self.sets.add(&other.sets);
        self.records += other.records;
        self.options += other.options;
        self.raw += other.raw;
        self.dropped += other.dropped;
        self.faults += other.faults;
        add_units(&mut self.missing, &other.missing);
        add_units(&mut self.late, &other.late);
        add_units(&mut self.restart_missing, &other.restart_missing);
        self.first_seen = if is_first { other.first_seen } else { self.first_seen.min(other.first_seen) };
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}

/// Adds `more` to `sum`, unit by unit.
pub(super) fn add_units(sum: &mut ByUnit, more: &ByUnit) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}
