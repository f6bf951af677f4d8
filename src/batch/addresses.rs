//! The payload's table of addresses: where the records' sources and destinations belong, as far as that is known.

use super::builder::{ADDRESSES, Group, message};
use super::names::{AddressText, Names};
use super::room::Room;
use super::walk;
use crate::proto::{AddressSet, RecordKind};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Addresses that are asked for in a batch, and sets of them (batch.proto).
const MOST_ADDRESSES: usize = 131_072;
const MOST_SETS: usize = 65_536;

/// Places in the table of the latest, a power of two.
const LATEST: usize = 8_192;

/// What the tables keep from batch to batch.
const KEPT: usize = 32_768;

/// Sources and destinations; where a route leads next is not asked.
const ELEMENTS: [(u16, u16); 4] = [(8, 4), (12, 4), (27, 16), (28, 16)];

/// Octets of IPv4 and of IPv6 addresses, back to back.
type Octets = (Vec<u8>, Vec<u8>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// By hash; made once it is needed.
    latest: Vec<Option<IpAddr>>,
    seen: HashSet<IpAddr>,
    /// As they came.
    found: Vec<IpAddr>,
}

impl Addresses {
    /// Reads the addresses in the rows of a group.
    pub(super) fn read(&mut self, group: &Group) {
        if group.layout.kind() == RecordKind::Options {
            return;
        }
        let fields = group.layout.fields().iter().map(|placed| placed.field).enumerate();
        let is_end = |field: crate::flow::Field| {
            field.enterprise == 0 && ELEMENTS.contains(&(field.element, field.width))
        };
        let columns: Vec<usize> =
            fields.filter(|(_, field)| is_end(*field)).map(|(column, _)| column).collect();
        self.latest.resize(LATEST, None);
        walk::fields(group, &columns, |_, _, field| {
            let address = match <[u8; 4]>::try_from(field) {
                Ok(four) => Some(IpAddr::from(four)),
                Err(_) => {
                    <[u8; 16]>::try_from(field).ok().map(|sixteen| IpAddr::from(sixteen).to_canonical())
                }
            };
            if let Some(address) = address {
                self.note(address);
            }
        });
    }

    /// Most come again soon after: those are found without the hashing that a flood could not slow down.
    fn note(&mut self, address: IpAddr) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let bits = match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64 ^ address.to_bits() as u64,
        };
        let place = bits.wrapping_mul(SPREAD) >> (u64::BITS - LATEST.ilog2());
        match self.latest.get_mut(place as usize) {
            Some(latest) if *latest == Some(address) => return,
            Some(latest) => *latest = Some(address),
            None => {}
        }
        if self.found.len() < MOST_ADDRESSES && self.seen.insert(address) {
            self.found.push(address);
        }
    }

    /// Appends what is known of them.
    pub(super) fn encode(&self, names: &mut dyn Names, room: &mut Room, plain: &mut Vec<u8>) {
        let mut sets: Vec<AddressSet> = Vec::new();
        let mut octets: Vec<Octets> = Vec::new();
        let mut index: HashMap<(u32, [u8; 2]), usize> = HashMap::new();
        for address in &self.found {
            let Some(AddressText { as_number, country }) = names.address(*address) else { continue };
            let country = if country.iter().all(u8::is_ascii_uppercase) { country } else { [0; 2] };
            let key = (as_number, country);
            let known = index.get(&key).copied();
            let is_told = key != (0, [0; 2]) && (known.is_some() || sets.len() < MOST_SETS);
            let bytes = if address.is_ipv4() { 4 } else { 16 };
            // A set of its own costs some bytes more.
            let more = if known.is_some() { 0 } else { SET_BYTES };
            if !is_told || !room.take_part(bytes + more) {
                continue;
            }
            let place = known.unwrap_or_else(|| {
                let country = String::from_utf8_lossy(&country).trim_end_matches('\0').to_owned();
                sets.push(AddressSet { as_number, country, ..Default::default() });
                octets.push(Octets::default());
                index.insert(key, sets.len() - 1);
                sets.len() - 1
            });
            match (octets.get_mut(place), address) {
                (Some(set), IpAddr::V4(address)) => set.0.extend(address.octets()),
                (Some(set), IpAddr::V6(address)) => set.1.extend(address.octets()),
                (None, _) => {}
            }
        }
        for (set, (ipv4, ipv6)) in sets.into_iter().zip(octets) {
            message(ADDRESSES, &AddressSet { ipv4: ipv4.into(), ipv6: ipv6.into(), ..set }, plain);
        }
    }

    /// Begins the next batch.
    pub(super) fn clear(&mut self) {
        self.latest.clear();
        self.seen.clear();
        self.seen.shrink_to(KEPT);
        self.found.clear();
        self.found.shrink_to(KEPT);
    }
}

/// Bytes of a set beside its addresses, at most: its key and length, a number, a country, two more keys and lengths.
const SET_BYTES: usize = 32;
