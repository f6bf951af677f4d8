//! Look-ups as one shard makes them: with what it has found lately at hand.

use super::database::Codes;
use super::{Databases, Outcome};
use crate::batch::AddressText;
use arc_swap::{ArcSwap, Cache};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Addresses at hand, each in a place of its own: 1 MiB. A look-up in a file of millions of networks waits for memory some twenty
/// times, and most addresses come again.
const PLACES: usize = 32_768;

/// See the module.
#[derive(Debug)]
pub struct Look {
    shown: Cache<Arc<ArcSwap<Databases>>, Arc<Databases>>,
    /// Of which databases the places are.
    generation: u64,
    places: Vec<Place>,
    codes: Codes,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    address: IpAddr,
    text: AddressText,
}

/// Never looked up, and so never found in a place by mistake.
const EMPTY: Place =
    Place { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), text: AddressText { as_number: 0, country: [0; 2] } };

impl Look {
    pub(in crate::enrich) fn new(databases: &Arc<ArcSwap<Databases>>) -> Self {
        Self {
            shown: Cache::new(Arc::clone(databases)),
            generation: 0,
            places: Vec::new(),
            codes: Codes::default(),
        }
    }

    /// Whether there is anything to look up in.
    pub(in crate::enrich) fn is_on(&self) -> bool {
        // What is shown may be older than what is there by one look-up: no harm is done.
        !self.shown.arc_swap().load().is_empty()
    }

    /// Where an address belongs; `None` if nothing is known of it.
    pub(in crate::enrich) fn up(&mut self, address: IpAddr) -> Option<AddressText> {
        let databases = self.shown.load();
        if databases.is_empty() {
            self.places = Vec::new();
            return None;
        }
        if self.generation != databases.generation || self.places.is_empty() {
            self.generation = databases.generation;
            self.places.clear();
            self.places.resize(PLACES, EMPTY);
            self.codes.clear();
        }
        let address = address.to_canonical();
        if is_special(address) {
            databases.count(Outcome::Special, Outcome::Special);
            return None;
        }
        let place = self.places.get_mut(place_of(address))?;
        if place.address != address {
            *place = Place { address, text: databases.look_up(address, &mut self.codes) };
        } else {
            databases.count_found(&place.text);
        }
        Some(place.text).filter(|text| *text != AddressText::default())
    }
}

fn place_of(address: IpAddr) -> usize {
    /// 2^64 divided by the golden ratio: spreads addresses that differ in their last bits.
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let bits = match address {
        IpAddr::V4(four) => u64::from(u32::from(four)),
        IpAddr::V6(six) => {
            let bits = u128::from(six);
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(32)
        }
    };
    (bits.wrapping_mul(SPREAD) >> (u64::BITS - PLACES.ilog2())) as usize
}

/// Addresses that mean something else in every network, or no host: no file has them.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_special_v4(four),
        IpAddr::V6(six) => is_special_v6(six),
    }
}

fn is_special_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // RFC 6890: this network, loopback, multicast and what is reserved; RFC 6598: shared between carrier and customers.
    matches!(first, 0 | 127 | 224..)
        || address.is_private()
        || address.is_link_local()
        || (first == 100 && second & 0xC0 == 64)
}

fn is_special_v6(address: Ipv6Addr) -> bool {
    address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_whole_internet_are_looked_up() {
        let special = [
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
        ];
        for address in special {
            assert!(is_special(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "192.169.0.1",
            "223.255.255.255",
            "2001:db8::1",
        ] {
            assert!(!is_special(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn places_are_spread_over_all() {
        let of = |n: u32| place_of(Ipv4Addr::from(0x0101_0000 + n).into());
        let places: std::collections::HashSet<_> = (0..PLACES as u32).map(of).collect();
        assert!(places.iter().all(|place| *place < PLACES));
        assert!(places.len() > PLACES / 2, "{}", places.len());
    }
}
