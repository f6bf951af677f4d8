//! What exporters tell of names in options data, handed to the book that all shards look into.

use super::moment::Moment;
use crate::enrich::Book;
use crate::enrich::options::{Clocks, Told};
use crate::wire::{Decoder, DomainKey, DomainState};
use std::collections::{HashSet, VecDeque};

/// Names handed over in one go: what is packed for it delays the next read.
const MOST_A_TICK: usize = 20_000;

/// How long names of a domain stay that is gone, in milliseconds: batches that have its last records are still open.
const LAST_TIME: u64 = 10_000;

const HOUR_MS: u64 = 3_600_000;

/// The way to the book.
#[derive(Debug)]
pub(super) struct Naming {
    book: Book,
    /// Domains of which the book has to be told.
    marked: HashSet<DomainKey>,
    /// Domains that are gone, and when that was seen, by the clock that is never set.
    gone: VecDeque<(u64, DomainKey)>,
}

impl Naming {
    pub(super) fn new(book: Book) -> Naming {
        Naming { book, marked: HashSet::new(), gone: VecDeque::new() }
    }

    /// Hands over what a shard's one decoder has learned. What is too much for once waits for the next call, about a
    /// second later.
    pub(super) fn hand_over(&mut self, decoder: &mut Decoder, now: Moment) {
        self.give(decoder, now, MOST_A_TICK);
        self.forget(now, |key| has_names(decoder, key));
    }

    /// Hands over all that a decoder has learned, and waits for who is changing the book.
    pub(super) fn hand_over_all(&mut self, decoder: &mut Decoder, now: Moment) {
        while !self.give(decoder, now, usize::MAX) {
            std::thread::yield_now();
        }
    }

    /// A decoder is given up, and what it knows with it.
    pub(super) fn ended(&mut self, decoder: &Decoder, now: Moment) {
        let named = decoder.domains().keys().filter(|key| has_names(decoder, key));
        self.gone.extend(named.map(|key| (now.elapsed_ms, *key)));
    }

    /// Takes the names of those out that are gone for so long that no open batch has records of theirs.
    pub(super) fn forget(&mut self, now: Moment, has_names: impl Fn(&DomainKey) -> bool) {
        while let Some((at, key)) = self.gone.front().copied()
            && at + LAST_TIME <= now.elapsed_ms
        {
            if !has_names(&key) && !self.book.set_options(key.exporter, (key.protocol, key.domain), None) {
                return;
            }
            self.gone.pop_front();
        }
    }

    /// Gives no more than some; false if somebody else is changing the book, and the rest has to wait.
    fn give(&mut self, decoder: &mut Decoder, now: Moment, most: usize) -> bool {
        self.marked.extend(decoder.take_named());
        self.book.count_renamed(decoder.take_renamed());
        let mut names = 0;
        while names < most
            && let Some(key) = self.marked.iter().next().copied()
        {
            let Some(state) = decoder.state(&key) else {
                self.marked.remove(&key);
                self.gone.push_back((now.elapsed_ms, key));
                continue;
            };
            names += 1 + state.interfaces.len() + state.applications.len();
            let kept_ms = u64::from(decoder.domains().last_used(&key)) * HOUR_MS;
            let clocks = Clocks { unix_ms: now.unix_ms, elapsed_ms: now.elapsed_ms, kept_ms };
            let told = state.has_names().then(|| Told::new(key.protocol, key.domain, state, clocks));
            if !self.book.set_options(key.exporter, (key.protocol, key.domain), told) {
                return false;
            }
            self.marked.remove(&key);
        }
        true
    }
}

/// Whether the decoder knows names of this domain.
pub(super) fn has_names(decoder: &Decoder, key: &DomainKey) -> bool {
    decoder.state(key).is_some_and(DomainState::has_names)
}
