//! The payload's table of interfaces: those that the batch's records name, each once, as far as they are known.
//!
//! Which those are is read from the rows when the batch is laid out. Few numbers come again and again: most are found
//! in a small table of the latest ones, before any hashing that a flood could not slow down.

use super::builder::{Group, INTERFACES, message};
use super::names::Names;
use super::room::Room;
use super::senders::Senders;
use super::walk;
use crate::flow::interface::{End, Special};
use crate::flow::json::unsigned_64;
use crate::proto::RecordKind;
use prost::Message;
use std::collections::HashSet;

/// Interfaces that are asked for in a batch (batch.proto).
const MOST_INTERFACES: usize = 65_536;

/// Places in the table of the latest, a power of two.
const LATEST: usize = 256;

/// What the tables keep from batch to batch.
const KEPT: usize = 4_096;

/// No interface: a sender's place is below 65,536.
const NONE: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Interfaces {
    /// By hash: (sender's place, ifIndex) as one number.
    latest: [u64; LATEST],
    seen: HashSet<u64>,
    /// As they came.
    found: Vec<u64>,
    /// Most interfaces of one record.
    ends: usize,
}

impl Default for Interfaces {
    fn default() -> Interfaces {
        Interfaces { latest: [NONE; LATEST], seen: HashSet::new(), found: Vec::new(), ends: 0 }
    }
}

impl Interfaces {
    /// Reads the numbers in the rows of a group. Records about the exporter name no interface that a flow came by.
    pub(super) fn read(&mut self, group: &Group) {
        let kind = group.layout.kind();
        let fields = || group.layout.fields().iter().map(|placed| placed.field);
        // As the reader counts: records of options that have an end count too.
        self.ends = self.ends.max(End::count(fields()));
        if kind == RecordKind::Options {
            return;
        }
        // Where a format stands beside them, the numbers of all records are something else.
        let has = |key: (u32, u16)| fields().any(|field| (field.enterprise, field.element) == key);
        let is_special = |end: &End| end.format().is_some_and(has) && Special::of(kind, 1, Some(1)).is_some();
        let special = [End::Ingress, End::Egress].map(|end| Some(end).filter(is_special));
        let is_index = |end: End| !special.contains(&Some(end));
        let columns = fields().enumerate().filter(|(_, field)| End::of(*field).is_some_and(is_index));
        let columns: Vec<usize> = columns.map(|(column, _)| column).collect();
        walk::fields(group, &columns, |sender, _, field| {
            if let Some(index) =
                number(field).filter(|index| Special::of(kind, u64::from(*index), None).is_none())
            {
                self.note(u64::from(sender) << 32 | u64::from(index));
            }
        });
    }

    fn note(&mut self, key: u64) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let place = key.wrapping_mul(SPREAD) >> (u64::BITS - LATEST.ilog2());
        match self.latest.get_mut(place as usize) {
            Some(latest) if *latest == key => return,
            Some(latest) => *latest = key,
            None => {}
        }
        if self.found.len() < MOST_INTERFACES && self.seen.insert(key) {
            self.found.push(key);
        }
    }

    /// Most interfaces that a record has.
    pub(super) fn ends(&self) -> usize {
        self.ends
    }

    /// Appends what is known of them.
    pub(super) fn encode(
        &self,
        senders: &Senders,
        names: &mut dyn Names,
        room: &mut Room,
        plain: &mut Vec<u8>,
    ) {
        for key in &self.found {
            let (place, index) = ((key >> 32) as u32, *key as u32);
            let Some(text) = senders.get(place).and_then(|sender| names.interface(sender, index)) else {
                continue;
            };
            let interface = room.interface(place, index, &text);
            if room.take(interface.encoded_len()) {
                message(INTERFACES, &interface, plain);
            }
        }
    }

    /// Begins the next batch.
    pub(super) fn clear(&mut self) {
        self.latest = [NONE; LATEST];
        self.seen.clear();
        self.seen.shrink_to(KEPT);
        self.found.clear();
        self.found.shrink_to(KEPT);
        self.ends = 0;
    }
}

/// The number in a field of any width; `None` if it can be no ifIndex.
fn number(field: &[u8]) -> Option<u32> {
    match *field {
        [a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d])),
        [a, b] => Some(u32::from(u16::from_be_bytes([a, b]))),
        _ => unsigned_64(field).and_then(|number| u32::try_from(number).ok()),
    }
}
