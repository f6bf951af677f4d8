//! Where addresses belong, by address.

use super::{AddressText, Error};
use crate::proto::AddressSet;
use std::collections::HashMap;
use std::net::IpAddr;

/// Reads the sets, whose addresses `count` has counted; the first that has an address holds.
pub(super) fn read(sets: &[AddressSet]) -> Result<HashMap<IpAddr, AddressText>, Error> {
    let mut addresses = HashMap::new();
    for (place, set) in sets.iter().enumerate() {
        let text = AddressText { as_number: set.as_number, country: country(place, &set.country)? };
        let (four, odd_four) = set.ipv4.as_chunks::<4>();
        let (sixteen, odd_sixteen) = set.ipv6.as_chunks::<16>();
        if !odd_four.is_empty() || !odd_sixteen.is_empty() {
            return Err(Error::AddressSet { set: place });
        }
        let all = four.iter().map(|octets| IpAddr::from(*octets));
        let all = all.chain(sixteen.iter().map(|octets| IpAddr::from(*octets).to_canonical()));
        for address in all {
            addresses.entry(address).or_insert(text);
        }
    }
    Ok(addresses)
}

fn country(place: usize, text: &str) -> Result<[u8; 2], Error> {
    match *text.as_bytes() {
        [] => Ok([0; 2]),
        [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok([a, b]),
        _ => Err(Error::Country { set: place }),
    }
}
