//! Which numbered records have come: the demo's witness that none came twice.
//!
//! Pure. The generator numbers the records of each exporter from 0 (`generator::NUMBER_BITS`). Seen numbers are
//! bits in pages; a page that is full is only remembered as full, and forgotten once all before it are.
//!
//! | if | then |
//! |---|---|
//! | nothing is lost | about one page an exporter is kept, whatever the number of records |
//! | records are lost | their pages stay open, at most [`MAX_PAGES`] an exporter |
//! | there would be more | the oldest is given up: what still comes for it is [`Seen::Unknown`] |

use crate::generator::NUMBER_BITS;
use std::collections::{BTreeMap, BTreeSet};

const WORDS: usize = 64;
const PAGE_BITS: u64 = 64 * WORDS as u64;

/// Pages kept for one exporter, full ones included; an open one takes 512 bytes.
pub const MAX_PAGES: usize = 16_384;

/// What is known of a number that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It had not come before.
    First,
    /// It had.
    Again,
    /// It is not a number of this run, or too old to tell.
    Unknown,
}

/// The numbers of all exporters.
#[derive(Debug)]
pub struct Numbers {
    series: Vec<Series>,
}

impl Numbers {
    /// Nothing seen yet of so many exporters.
    pub fn new(exporters: usize) -> Numbers {
        Numbers { series: (0..exporters).map(|_| Series::default()).collect() }
    }

    /// Notes a record's number.
    pub fn see(&mut self, number: u64) -> Seen {
        let exporter = usize::try_from(number >> NUMBER_BITS).unwrap_or(usize::MAX);
        match self.series.get_mut(exporter) {
            Some(series) => series.see(number & ((1 << NUMBER_BITS) - 1)),
            None => Seen::Unknown,
        }
    }

    /// Whether a number has come. Those given up have not, as far as is known.
    pub fn has(&self, number: u64) -> bool {
        let exporter = usize::try_from(number >> NUMBER_BITS).unwrap_or(usize::MAX);
        let series = self.series.get(exporter);
        series.is_some_and(|series| series.has(number & ((1 << NUMBER_BITS) - 1)))
    }
}

#[derive(Debug, Default)]
struct Series {
    /// All pages before this one are full or given up.
    begin: u64,
    /// Numbers before this one were given up.
    unknown_below: u64,
    /// Pages after `begin` of which all has come.
    full: BTreeSet<u64>,
    open: BTreeMap<u64, Page>,
}

#[derive(Debug)]
struct Page {
    bits: [u64; WORDS],
    seen: u64,
}

impl Series {
    fn see(&mut self, number: u64) -> Seen {
        let (at, place) = (number / PAGE_BITS, number % PAGE_BITS);
        if number < self.unknown_below {
            return Seen::Unknown;
        }
        if at < self.begin || self.full.contains(&at) {
            return Seen::Again;
        }
        let page = self.open.entry(at).or_insert(Page { bits: [0; WORDS], seen: 0 });
        let mask = 1 << (place % 64);
        #[expect(clippy::indexing_slicing, reason = "place is below PAGE_BITS, which is 64 * WORDS")]
        let word = &mut page.bits[(place / 64) as usize];
        if *word & mask != 0 {
            return Seen::Again;
        }
        *word |= mask;
        page.seen += 1;
        if page.seen == PAGE_BITS {
            self.open.remove(&at);
            self.full.insert(at);
            self.forget_full();
        }
        if self.open.len() + self.full.len() > MAX_PAGES {
            self.give_up_oldest();
        }
        Seen::First
    }

    fn has(&self, number: u64) -> bool {
        let (at, place) = (number / PAGE_BITS, number % PAGE_BITS);
        if at < self.begin || self.full.contains(&at) {
            return number >= self.unknown_below;
        }
        let word = self.open.get(&at).and_then(|page| page.bits.get((place / 64) as usize));
        word.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn forget_full(&mut self) {
        while self.full.remove(&self.begin) {
            self.begin += 1;
        }
    }

    fn give_up_oldest(&mut self) {
        if let Some((at, _)) = self.open.pop_first() {
            self.full.retain(|full| *full > at);
            self.begin = at + 1;
            self.unknown_below = self.begin * PAGE_BITS;
            self.forget_full();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn agrees_with_a_set_in_any_order() {
        let mut numbers = Numbers::new(2);
        let mut model = HashSet::new();
        let mut state = 1u64;
        for n in 0..60_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let exporter = state >> 63;
            // Around a front that moves on, now and then far behind it.
            let number = (n + (state >> 40) % 9_000).saturating_sub(if n % 50 == 0 { 20_000 } else { 4_000 });
            let known = model.contains(&(exporter, number));
            assert_eq!(numbers.has(exporter << NUMBER_BITS | number), known);
            let expected = if model.insert((exporter, number)) { Seen::First } else { Seen::Again };
            assert_eq!(numbers.see(exporter << NUMBER_BITS | number), expected);
        }
    }

    #[test]
    fn keeps_next_to_nothing_when_all_comes() {
        let mut numbers = Numbers::new(1);
        for number in 0..20 * PAGE_BITS {
            assert_eq!(numbers.see(number ^ 7), Seen::First);
        }
        let series = &numbers.series[0];
        assert_eq!((series.begin, series.open.len(), series.full.len()), (20, 0, 0));
        assert_eq!(numbers.see(5), Seen::Again);
        assert!(numbers.has(5) && !numbers.has(20 * PAGE_BITS));
    }

    #[test]
    fn holes_are_bounded_and_said_to_be_unknown() {
        let mut numbers = Numbers::new(1);
        let pages = MAX_PAGES as u64 + 10;
        for page in 0..pages {
            assert_eq!(numbers.see(page * PAGE_BITS), Seen::First);
        }
        assert_eq!(numbers.series[0].open.len(), MAX_PAGES);
        assert_eq!(numbers.see(1), Seen::Unknown);
        assert!(!numbers.has(0) && numbers.has(11 * PAGE_BITS));
        assert_eq!(numbers.see(9 * PAGE_BITS + 1), Seen::Unknown);
        assert_eq!(numbers.see(10 * PAGE_BITS), Seen::Again);
        assert_eq!(numbers.see(10 * PAGE_BITS + 1), Seen::First);
    }

    #[test]
    fn foreign_numbers_are_unknown() {
        assert_eq!(Numbers::new(3).see(3 << NUMBER_BITS), Seen::Unknown);
        assert_eq!(Numbers::new(3).see(u64::MAX), Seen::Unknown);
    }
}
