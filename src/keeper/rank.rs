//! What goes first when there is more than may be kept.
//!
//! ```text
//! goes first                                                                                          goes last
//! beyond its address's share < never decoded a record < given up by its shard < in use for a short time < for long
//! ```
//!
//! A template is told for nothing, from any address; to be used for long takes an exporter. So no number of addresses
//! that tell once, and no address that tells much, pushes out one in use. Among those in use for as long, what began
//! last goes first: the use is noted every few hours only, and a flood is younger than what it meets.

use crate::wire::KeyBytes;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Domains of one address that are ranked by their worth; the others go before all else.
const SHARE: usize = 256;

/// A domain, as far as its rank goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ranked {
    pub(super) key: KeyBytes,
    /// When it last decoded a record, in hours since 1970; 0 if it never has.
    pub(super) used: u32,
    /// When it first did.
    pub(super) since: u32,
    /// Its shard has given it up.
    pub(super) is_left: bool,
}

impl Ranked {
    /// More is better.
    fn worth(&self) -> impl Ord + use<> {
        let length = self.used.saturating_sub(self.since);
        (self.used != 0, !self.is_left, length, Reverse(self.since), self.key)
    }

    fn address(&self) -> Option<[u8; 16]> {
        self.key.first_chunk().copied()
    }
}

/// Puts what goes first in front.
pub(super) fn sort(domains: Vec<Ranked>) -> Vec<Ranked> {
    let mut domains = domains;
    domains.sort_unstable_by_key(|domain| Reverse(domain.worth()));
    let mut of_address: HashMap<_, usize> = HashMap::new();
    let (mut within, mut beyond) = (Vec::with_capacity(domains.len()), Vec::new());
    for domain in domains {
        let count = of_address.entry(domain.address()).or_default();
        *count += 1;
        if *count > SHARE { beyond.push(domain) } else { within.push(domain) }
    }
    within.append(&mut beyond);
    within.reverse();
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(address: u16, number: u8, used: u32, since: u32, is_left: bool) -> Ranked {
        let mut key = [0; 23];
        key[14..16].copy_from_slice(&address.to_be_bytes());
        key[22] = number;
        Ranked { key, used, since, is_left }
    }

    #[test]
    fn what_is_used_for_long_goes_last() {
        let order = [
            domain(1, 0, 0, 0, false),
            domain(2, 0, 500, 100, true),
            domain(3, 0, 205, 205, false),
            domain(4, 0, 200, 200, false),
            domain(5, 0, 200, 100, false),
        ];
        let mut mixed = order.to_vec();
        mixed.rotate_left(2);
        assert_eq!(sort(mixed), order);
    }

    #[test]
    fn an_address_has_a_share() {
        let many = (0..=255).map(|number| domain(1, number, 900, 100, false));
        let more = (0..100).map(|number| Ranked { since: 200, ..domain(1, number, 900, 100, false) });
        let one = domain(2, 0, 0, 0, false);
        let sorted = sort(many.chain(more).chain([one]).collect());
        assert!(sorted[..100].iter().all(|domain| domain.since == 200));
        assert_eq!(sorted[100], one);
    }
}
