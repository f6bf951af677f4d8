//! Puts fragmented datagrams together again (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! | if | then |
//! |---|---|
//! | a fragment comes again, the same | left out |
//! | one comes where another with other bytes is | the id is of a later datagram now: the one before is given up, and it begins |
//! | one overlaps another, or is past the end | the datagram so far is refused (RFC 5722), and one may begin with the fragment |
//! | one is of no datagram: past 65,535 bytes, no multiple of 8 bytes, cut by the capture | its datagram is refused, with what is yet to come of it: up to the next first fragment |
//! | it is not whole 30 s of the capture after its first fragment | given up |
//! | more than 1,024 of them are open, or 16 MiB | the oldest is given up |

use super::ip::{Ends, Fragment};
use std::collections::{BTreeMap, HashMap};

const MAX_OPEN: usize = 1_024;
const MAX_BYTES: usize = 16 << 20;
const MAX_DATAGRAM_BYTES: usize = 65_535;
const PATIENCE_MS: u64 = 30_000;
/// What a fragment counts beside its bytes.
const FRAGMENT_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    ends: Ends,
    id: u32,
    protocol: u8,
}

/// A payload that is whole again.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) protocol: u8,
    pub(super) bytes: Vec<u8>,
}

/// What came of a datagram so far.
#[derive(Debug, Default)]
struct Open {
    /// Its place in the order begun.
    number: u64,
    /// By offset, without overlaps.
    pieces: Vec<(usize, Vec<u8>)>,
    bytes: usize,
    total: Option<usize>,
    is_refused: bool,
    /// Its first fragment came, be it refused.
    has_first: bool,
}

/// Why a fragment is not one of the datagram so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    /// It can be of none.
    Unsound,
    /// Another datagram of the same id has begun.
    Later,
    /// It overlaps others, or is past the end.
    Overlap,
}

/// All datagrams of which fragments are missing.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    open: HashMap<Key, Open>,
    /// In the order begun, with the time of the first fragment.
    begun: BTreeMap<u64, (Key, u64)>,
    bytes: usize,
    number: u64,
    incomplete: u64,
    refused: u64,
}

impl Fragments {
    /// Given up for want of fragments.
    pub(super) fn incomplete(&self) -> u64 {
        self.incomplete
    }

    /// Refused because fragments overlapped or can be of no datagram.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Datagrams of which fragments are missing.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes a fragment that was captured at `time` (milliseconds since 1970); gives the payload that it completes.
    pub(super) fn add(&mut self, fragment: &Fragment<'_>, time: u64) -> Option<Whole> {
        self.expire(time);
        let key = Key { ends: fragment.ends, id: fragment.id, protocol: fragment.protocol };
        if let Some(misfit) = self.open.get(&key).and_then(|open| open.ended_by(fragment)) {
            if let Some(open) = self.open.get_mut(&key) {
                open.is_refused |= misfit == Misfit::Overlap;
            }
            self.give_up(&key);
        }
        if !self.open.contains_key(&key) {
            self.begin(key, time);
        }
        let open = self.open.get_mut(&key)?;
        let before = open.cost();
        open.add(fragment);
        self.bytes = self.bytes + open.cost() - before;
        if !open.is_whole() {
            self.make_room(MAX_OPEN, MAX_BYTES);
            return None;
        }
        let open = self.close(&key)?;
        let bytes = open.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect();
        Some(Whole { protocol: fragment.protocol, bytes })
    }

    fn begin(&mut self, key: Key, time: u64) {
        self.number += 1;
        self.begun.insert(self.number, (key, time));
        self.open.insert(key, Open { number: self.number, ..Open::default() });
    }

    fn close(&mut self, key: &Key) -> Option<Open> {
        let open = self.open.remove(key)?;
        self.begun.remove(&open.number);
        self.bytes -= open.cost();
        Some(open)
    }

    /// The file has ended: what is open stays so.
    pub(super) fn end(&mut self) {
        self.make_room(0, 0);
    }

    fn expire(&mut self, now: u64) {
        while let Some((_, &(key, time))) = self.begun.first_key_value()
            && time + PATIENCE_MS < now
        {
            self.give_up(&key);
        }
    }

    fn make_room(&mut self, open: usize, bytes: usize) {
        while let Some((_, &(key, _))) = self.begun.first_key_value()
            && (self.open.len() > open || self.bytes > bytes)
        {
            self.give_up(&key);
        }
    }

    fn give_up(&mut self, key: &Key) {
        match self.close(key) {
            Some(open) if open.is_refused => self.refused += 1,
            Some(_) => self.incomplete += 1,
            None => {}
        }
    }
}

impl Open {
    /// What it counts against the limit.
    fn cost(&self) -> usize {
        self.bytes + self.pieces.len() * FRAGMENT_BYTES
    }

    fn is_whole(&self) -> bool {
        // Without overlaps, as many bytes as there should be are all of them.
        !self.is_refused && self.total == Some(self.bytes)
    }

    /// The fragment is of another datagram, which takes this one's place.
    fn ended_by(&self, fragment: &Fragment<'_>) -> Option<Misfit> {
        if self.is_refused {
            return (self.has_first && fragment.offset == 0).then_some(Misfit::Later);
        }
        self.place(fragment).err().filter(|misfit| *misfit != Misfit::Unsound)
    }

    /// Adds a fragment, or refuses the datagram for it.
    fn add(&mut self, fragment: &Fragment<'_>) {
        self.has_first |= fragment.offset == 0;
        if self.is_refused {
            return;
        }
        match self.place(fragment) {
            Ok(Some(place)) => {
                if fragment.is_last {
                    self.total = Some(fragment.offset + fragment.bytes.len());
                }
                self.bytes += fragment.bytes.len();
                self.pieces.insert(place, (fragment.offset, fragment.bytes.to_vec()));
            }
            Ok(None) => {}
            Err(_) => {
                self.is_refused = true;
                self.bytes = 0;
                self.pieces.clear();
            }
        }
    }

    /// Where a fragment's place among the pieces is; `None` if it is there already.
    fn place(&self, fragment: &Fragment<'_>) -> Result<Option<usize>, Misfit> {
        let (offset, length) = (fragment.offset, fragment.bytes.len());
        let end = offset + length;
        let is_sound = length > 0 && end <= MAX_DATAGRAM_BYTES && !fragment.is_cut;
        if !is_sound || !(fragment.is_last || length.is_multiple_of(8)) {
            return Err(Misfit::Unsound);
        }
        let place = self.pieces.partition_point(|(start, _)| *start < offset);
        let after = self.pieces.get(place);
        if let Some((_, bytes)) = after.filter(|(start, _)| *start == offset) {
            return if bytes == fragment.bytes { Ok(None) } else { Err(Misfit::Later) };
        }
        let before = place.checked_sub(1).and_then(|place| self.pieces.get(place));
        let overlaps = after.is_some_and(|(start, _)| *start < end)
            || before.is_some_and(|(start, bytes)| start + bytes.len() > offset);
        let furthest = self.pieces.last().map_or(0, |(start, bytes)| start + bytes.len());
        let contradicts = match (fragment.is_last, self.total) {
            (true, Some(total)) => total != end,
            (true, None) => furthest > end,
            (false, Some(total)) => end > total,
            (false, None) => false,
        };
        if overlaps || contradicts { Err(Misfit::Overlap) } else { Ok(Some(place)) }
    }
}
