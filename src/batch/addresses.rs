//! The payload's table of addresses: where the records' sources and destinations belong, as far as that is known.

use super::builder::{ADDRESSES, Group, message};
use super::names::{AddressText, Names};
use super::room::Room;
use super::walk;
use crate::proto::{AddressSet, RecordKind};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// Addresses that are asked for in a batch, and sets of them (batch.proto).
const MOST_ADDRESSES: usize = 131_072;
const MOST_SETS: usize = 65_536;

/// What the tables keep from batch to batch.
const KEPT: usize = 32_768;

/// Sources and destinations; where a route leads next is not asked.
const ELEMENTS: [(u16, u16); 4] = [(8, 4), (12, 4), (27, 16), (28, 16)];

/// Octets of IPv4 and of IPv6 addresses, back to back.
type Octets = (Vec<u8>, Vec<u8>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Addresses {
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
        walk::fields(group, &columns, |_, _, field| {
            let address = match <[u8; 4]>::try_from(field) {
                Ok(four) => Some(IpAddr::from(four)),
                Err(_) => {
                    <[u8; 16]>::try_from(field).ok().map(|sixteen| IpAddr::from(sixteen).to_canonical())
                }
            };
            if let Some(address) = address.filter(|_| self.found.len() < MOST_ADDRESSES)
                && self.seen.insert(address)
            {
                self.found.push(address);
            }
        });
    }

    /// Appends what is known of them.
    pub(super) fn encode(&self, names: &mut dyn Names, room: &mut Room, plain: &mut Vec<u8>) {
        let mut sets: BTreeMap<(u32, [u8; 2]), Octets> = BTreeMap::new();
        for address in &self.found {
            let Some(AddressText { as_number, country }) = names.address(*address) else { continue };
            let country = if country.iter().all(u8::is_ascii_uppercase) { country } else { [0; 2] };
            let key = (as_number, country);
            let is_told = key != (0, [0; 2]) && (sets.len() < MOST_SETS || sets.contains_key(&key));
            let bytes = match address {
                IpAddr::V4(_) => 4,
                IpAddr::V6(_) => 16,
            };
            // A set of its own costs some bytes more.
            let more = if sets.contains_key(&key) { 0 } else { SET_BYTES };
            if !is_told || !room.take_part(bytes + more) {
                continue;
            }
            let set = sets.entry(key).or_default();
            match address {
                IpAddr::V4(address) => set.0.extend(address.octets()),
                IpAddr::V6(address) => set.1.extend(address.octets()),
            }
        }
        for ((as_number, country), (ipv4, ipv6)) in sets {
            let country = String::from_utf8_lossy(&country).trim_end_matches('\0').to_owned();
            message(
                ADDRESSES,
                &AddressSet { as_number, country, ipv4: ipv4.into(), ipv6: ipv6.into() },
                plain,
            );
        }
    }

    /// Begins the next batch.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
        self.seen.shrink_to(KEPT);
        self.found.clear();
        self.found.shrink_to(KEPT);
    }
}

/// Bytes of a set beside its addresses, at most: its key and length, a number, a country, two more keys and lengths.
const SET_BYTES: usize = 32;
