//! Sequence numbers: what is missing, late, there twice, or begun anew.
//!
//! | protocol | the number in a header is that of | so the next one is |
//! |---|---|---|
//! | NetFlow v5, v7 | the datagram's first flow | more by its flows |
//! | NetFlow v9 | the datagram | more by 1 |
//! | IPFIX | the message's first data record, options data among them | more by its data records |
//! | sFlow v5 | the datagram, by agent and sub-agent; the sample, by its source | more by 1 |
//!
//! | the number is | told as |
//! |---|---|
//! | the next one | nothing |
//! | ahead of it by at most [`FURTHEST`] | a gap of the difference |
//! | inside a gap of late | late: so much less is missing |
//! | behind it otherwise | a duplicate; the third in a row that follow each other is the exporter's new start |
//! | further away, or not the next one from an exporter that has started anew | a reset |
//! | always the same (some exporters send 0 for ever) | nothing at all: [`Sequence::stands_still`] |
//!
//! All differences are modulo 2^32. Nothing is ever dropped for its number: what is told here is an estimate of what
//! was lost on the way, and several processes that send as one make it a bad one.

use crate::proto::Protocol;
use std::fmt;

/// What a sequence number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// NetFlow v5 and v7.
    Flows,
    /// NetFlow v9 and sFlow's datagrams.
    Datagrams,
    /// IPFIX.
    Records,
    /// sFlow's samples of one source.
    Samples,
}

impl Unit {
    /// Every unit, for counters to be registered at start.
    pub const ALL: [Unit; 4] = [Unit::Flows, Unit::Datagrams, Unit::Records, Unit::Samples];

    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Unit::Flows => "flows",
            Unit::Datagrams => "datagrams",
            Unit::Records => "records",
            Unit::Samples => "samples",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What a sequence number says beside that all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many have not come, or not yet.
    Gap(u32),
    /// So many that were told as a gap have come after all.
    Late(u32),
    /// What came had come before.
    Duplicate,
    /// The exporter counts from another number on.
    Reset,
    /// So many samples the exporter has lost itself, as it says.
    Dropped(u32),
}

impl Step {
    /// How many of what is counted; 0 where it is no number of those.
    pub(super) fn amount(self) -> u32 {
        match self {
            Step::Gap(amount) | Step::Late(amount) | Step::Dropped(amount) => amount,
            Step::Duplicate | Step::Reset => 0,
        }
    }
}

/// The furthest ahead or behind that a number is taken for one of the same count.
const FURTHEST: u32 = 1 << 20;

/// What is missing between a datagram, of `last` number and so many records, and the `first` that comes much later; `None`
/// when nothing is, or nothing can be said.
pub fn missing_between(protocol: Protocol, (last, records): (u32, u32), first: u32) -> Option<(Unit, u32)> {
    let (unit, counted) = match protocol {
        Protocol::NetflowV5 | Protocol::NetflowV7 => (Unit::Flows, records),
        Protocol::NetflowV9 | Protocol::SflowV5 => (Unit::Datagrams, 1),
        Protocol::Ipfix => (Unit::Records, records),
        Protocol::NetflowV1 | Protocol::Unknown => return None,
    };
    let missing = first.wrapping_sub(last.wrapping_add(counted));
    (1..=FURTHEST).contains(&missing).then_some((unit, missing))
}

/// Gaps that are remembered; what belongs to an older one and comes late is told as a duplicate.
const GAPS: usize = 8;

/// Datagrams in a row with one number, from the first on, that make it one that never moves.
const STILL: u8 = 3;

/// The same for a number that has moved.
const MOVED_AND_STILL: u8 = 8;

/// Datagrams in a row that are behind and follow each other: the exporter has started anew.
const NEW_START: u8 = 3;

/// The same beside an uptime, which has not gone back: what comes twice in a row is then more likely.
const NEW_START_BESIDE_UPTIME: u8 = 64;

/// Numbers that have not come: `missing` of them, from `first` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gap {
    first: u32,
    missing: u32,
}

/// The sequence numbers of one count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// What comes next; `None` until something has come whose length is known.
    next: Option<u32>,
    /// The number that came last.
    last: u32,
    /// Datagrams that have come in a row with that number.
    same: u8,
    /// There have been two numbers that were not the same.
    moves: bool,
    /// An uptime comes with the numbers, and would tell of a new start.
    has_uptime: bool,
    /// Datagrams in a row that were behind, each following the one before, and what would be the next of those.
    behind: u8,
    after_behind: u32,
    gaps: [Gap; GAPS],
    /// The place in `gaps` of the next gap.
    turn: u8,
}

impl Sequence {
    /// Of numbers that come with an uptime.
    pub(super) fn beside_uptime() -> Sequence {
        Sequence { has_uptime: true, ..Sequence::default() }
    }

    /// The number is always the same and says nothing.
    pub fn stands_still(&self) -> bool {
        !self.moves && self.same >= STILL
    }

    /// Takes the number of what has come, and how many it counts: `None` if that is not known, since a set was not
    /// decoded. `restarted` says that the exporter has started anew since the last one.
    pub fn take(&mut self, number: u32, count: Option<u32>, restarted: bool) -> Option<Step> {
        // A message of templates counts nothing: its number rightly stays.
        if count != Some(0) && self.is_stuck(number) {
            return None;
        }
        let next = number.wrapping_add(count.unwrap_or(0));
        let Some(expected) = self.next else {
            self.next = count.map(|_| next);
            return None;
        };
        let ahead = number.wrapping_sub(expected);
        let step = match ahead {
            0 => None,
            _ if restarted => Some(Step::Reset),
            1..=FURTHEST => Some(Step::Gap(ahead)),
            _ if expected.wrapping_sub(number) > FURTHEST => Some(Step::Reset),
            _ => return self.take_behind(number, count),
        };
        match step {
            Some(Step::Reset) => self.gaps = [Gap::default(); GAPS],
            Some(_) => self.remember(Gap { first: expected, missing: ahead }),
            None => {}
        }
        self.behind = 0;
        self.next = count.map(|_| next);
        step
    }

    /// Notes whether the number moves. While it never has, it says nothing.
    fn is_stuck(&mut self, number: u32) -> bool {
        if self.same > 0 && number == self.last {
            self.same = self.same.saturating_add(1);
            self.moves &= self.same < MOVED_AND_STILL;
            return !self.moves;
        }
        if self.stands_still() {
            self.next = None;
        }
        self.moves = self.same > 0;
        self.last = number;
        self.same = 1;
        false
    }

    fn remember(&mut self, gap: Gap) {
        if let Some(oldest) = self.gaps.get_mut(usize::from(self.turn)) {
            *oldest = gap;
        }
        self.turn = (self.turn + 1) % GAPS as u8;
    }

    /// What is behind the expected number: late, there twice, or the first of a new count.
    fn take_behind(&mut self, number: u32, count: Option<u32>) -> Option<Step> {
        let count = count.filter(|count| *count > 0)?;
        if let Some(late) = self.fill(number, count) {
            return Some(Step::Late(late));
        }
        let follows = self.behind > 0 && number == self.after_behind;
        self.behind = if follows { self.behind + 1 } else { 1 };
        self.after_behind = number.wrapping_add(count);
        let new_start = if self.has_uptime { NEW_START_BESIDE_UPTIME } else { NEW_START };
        if self.behind < new_start {
            return Some(Step::Duplicate);
        }
        self.behind = 0;
        self.gaps = [Gap::default(); GAPS];
        self.next = Some(self.after_behind);
        Some(Step::Reset)
    }

    /// Takes what has come out of the gap that it belongs to; tells how much.
    fn fill(&mut self, number: u32, count: u32) -> Option<u32> {
        let gap = self.gaps.iter_mut().find(|gap| number.wrapping_sub(gap.first) < gap.missing)?;
        let before = number.wrapping_sub(gap.first);
        let come = count.min(gap.missing - before);
        let after = Gap { first: number.wrapping_add(come), missing: gap.missing - before - come };
        gap.missing = before;
        if before == 0 {
            *gap = after;
        } else if after.missing > 0 {
            self.remember(after);
        }
        Some(come)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    /// What the steps of a stream come to: missing in the end, duplicates, resets.
    fn sum(sequence: &mut Sequence, stream: impl IntoIterator<Item = (u32, u32)>) -> (i64, u32, u32) {
        let mut sum = (0, 0, 0);
        for (number, count) in stream {
            match sequence.take(number, Some(count), false) {
                Some(Step::Gap(n)) => sum.0 += i64::from(n),
                Some(Step::Late(n)) => sum.0 -= i64::from(n),
                Some(Step::Duplicate) => sum.1 += 1,
                Some(Step::Reset) => sum.2 += 1,
                Some(Step::Dropped(_)) | None => {}
            }
        }
        sum
    }

    /// A stream of datagrams from `first` on, each with how much it counts.
    fn stream(rng: &mut StdRng, first: u32, most: u32, length: usize) -> Vec<(u32, u32)> {
        let mut next = first;
        let datagram = |_| {
            let (number, count) = (next, rng.random_range(1..=most));
            next = number.wrapping_add(count);
            (number, count)
        };
        (0..length).map(datagram).collect()
    }

    #[test]
    fn quirk_58_each_protocol_counts_its_own_things_and_wraps() {
        for (first, counts) in [(u32::MAX - 40, [30, 7, 30, 1]), (u32::MAX - 1, [1, 1, 1, 1])] {
            let mut sequence = Sequence::default();
            let mut next: u32 = first;
            for count in counts.iter().cycle().take(100) {
                assert_eq!(sequence.take(next, Some(*count), false), None);
                next = next.wrapping_add(*count);
            }
            assert_eq!(sequence.take(next.wrapping_add(5), Some(1), false), Some(Step::Gap(5)));
        }
    }

    #[test]
    fn quirk_58_templates_count_nothing_and_may_overtake() {
        let mut sequence = Sequence::default();
        assert_eq!(sum(&mut sequence, [(0, 0), (0, 5), (5, 0), (5, 0), (5, 3), (8, 2)]), (0, 0, 0));
        // A message of templates that was overtaken by data.
        assert_eq!(sum(&mut sequence, [(8, 0), (10, 1)]), (0, 0, 0));
    }

    #[test]
    fn after_what_was_not_decoded_there_is_no_gap() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(0, Some(10), false), None);
        assert_eq!(sequence.take(10, None, false), None);
        assert_eq!(sequence.take(25, Some(5), false), None);
        assert_eq!(sequence.take(30, Some(5), false), None);
        assert_eq!(sequence.take(36, None, false), Some(Step::Gap(1)), "before it there is");
    }

    #[test]
    fn quirk_59_a_number_that_never_moves_says_nothing() {
        let mut sequence = Sequence::default();
        assert_eq!(sum(&mut sequence, [(0, 1), (0, 1)]), (0, 0, 0));
        assert!(!sequence.stands_still());
        assert_eq!(sum(&mut sequence, (0..500).map(|_| (0, 1))), (0, 0, 0));
        assert!(sequence.stands_still());
        // It moves after all.
        assert_eq!(sum(&mut sequence, [(700, 1), (701, 1), (703, 1)]), (1, 0, 0));
        assert!(!sequence.stands_still());
        // And stops again: a few are duplicates, the rest is nothing.
        let (missing, duplicates, resets) = sum(&mut sequence, (0..500).map(|_| (704, 1)));
        assert_eq!((missing, resets), (0, 0));
        assert!(duplicates < 8 && sequence.stands_still());
    }

    #[test]
    fn the_first_datagram_twice_is_no_number_that_stands() {
        let mut sequence = Sequence::default();
        assert_eq!(sum(&mut sequence, [(40, 30), (40, 30), (70, 30), (130, 30)]), (30, 0, 0));
    }

    #[test]
    fn a_new_start_is_a_reset_and_no_gap() {
        let mut sequence = Sequence::default();
        assert_eq!(sum(&mut sequence, [(9_000, 30), (9_030, 30)]), (0, 0, 0));
        assert_eq!(sequence.take(30, Some(30), true), Some(Step::Reset), "its uptime went back");
        assert_eq!(sum(&mut sequence, [(60, 30), (90, 30)]), (0, 0, 0));
        assert_eq!(sequence.take(3_000_000_000, Some(1), false), Some(Step::Reset), "too far");
        assert_eq!(sequence.take(3_000_000_001, Some(1), false), None);
        // IPFIX has no uptime: what follows each other behind is a new count.
        assert_eq!(sum(&mut sequence, (2_999_000_000..2_999_000_100).map(|number| (number, 1))), (0, 2, 1));
    }

    #[test]
    fn quirk_59_two_processes_as_one_neither_panic_nor_stop_the_count() {
        let mut sequence = Sequence::default();
        let mixed = (0..1_000).flat_map(|i| [(1_000 + i, 1), (50_000 + i, 1)]);
        let (missing, ..) = sum(&mut sequence, mixed);
        assert!(missing <= 50_000, "{missing}");
    }

    #[test]
    fn what_comes_twice_in_a_row_is_no_new_start_where_the_uptime_goes_on() {
        for (mut sequence, expected) in
            [(Sequence::beside_uptime(), (0, 5, 0)), (Sequence::default(), (15, 2, 1))]
        {
            let (mut missing, mut duplicates, mut resets) = (0, 0, 0);
            for number in (1..20).chain(12..17).chain(20..30) {
                match sequence.take(number, Some(1), false) {
                    Some(Step::Gap(gap)) => missing += gap,
                    Some(Step::Late(late)) => missing -= late,
                    Some(Step::Duplicate) => duplicates += 1,
                    Some(Step::Reset) => resets += 1,
                    _ => {}
                }
            }
            assert_eq!((duplicates, resets), (expected.1, expected.2));
            assert_eq!(missing == 0, expected.0 == 0);
        }
    }

    proptest! {
        #[test]
        fn what_was_lost_late_or_there_twice_is_told_as_it_was(
            seed: u64,
            first: u32,
            most in prop_oneof![Just(1u32), Just(30), Just(200)],
            lost in 0.0..0.2,
            twice in 0.0..0.1,
            swapped in 0.0..0.3,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let sent = stream(&mut rng, first, most, 400);
            let mut got = Vec::new();
            let (mut missing, mut duplicates) = (0, 0);
            for (place, datagram) in sent.iter().enumerate() {
                // The ends always come: what is lost before the first or after the last cannot be told.
                if place > 2 && place < 396 && rng.random_bool(lost) {
                    missing += i64::from(datagram.1);
                    continue;
                }
                got.push(*datagram);
                if place > 2 && place < 396 && rng.random_bool(twice) {
                    duplicates += 1;
                    got.push(*datagram);
                }
            }
            for chunk in got.get_mut(3..).unwrap_or_default().chunks_mut(3) {
                if chunk.len() == 3 && rng.random_bool(swapped) {
                    chunk.shuffle(&mut rng);
                }
            }
            got.push((sent[399].0.wrapping_add(sent[399].1), 1));
            prop_assert_eq!(sum(&mut Sequence::default(), got), (missing, duplicates, 0));
        }

        #[test]
        fn any_numbers_at_all_are_taken(numbers: Vec<(u32, Option<u32>, bool)>) {
            let mut sequence = Sequence::default();
            for (number, count, restarted) in numbers {
                let _ = sequence.take(number, count, restarted);
            }
        }
    }
}
