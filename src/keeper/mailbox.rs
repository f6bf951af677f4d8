//! Between the shards and the keeper: the newest state of each domain that has changed, bounded. Who puts something in
//! never waits for the disk.
//!
//! There are two lanes. What has decoded records takes the quick one, which is small and is written at every interval;
//! all else takes the other one, which is written as often as the disk is to bear (`pace`). So a flood of templates,
//! however large, neither fills the lane of those in use nor makes them wait.

use crate::wire::{DomainKey, Saved};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Domains in the slow lane.
const MOST_DOMAINS: usize = 10_000;
/// Bytes of their saved forms; one that is larger has it for itself.
const MOST_BYTES: usize = 16 << 20;
/// Domains in the quick lane, and bytes of their saved forms: what a transaction may write at every interval.
const QUICK_DOMAINS: usize = 1_000;
const QUICK_BYTES: usize = 256 << 10;

/// What is to be written: a domain's state, or `None` for one that is forgotten.
pub(super) type Batch = HashMap<DomainKey, Option<Saved>>;

/// What waits, and how much it is.
#[derive(Debug)]
struct Lane {
    batch: Batch,
    bytes: usize,
    most_domains: usize,
    most_bytes: usize,
}

fn size(saved: &Option<Saved>) -> usize {
    saved.as_ref().map_or(0, |saved| saved.bytes.len())
}

impl Lane {
    fn new(most_domains: usize, most_bytes: usize) -> Lane {
        Lane { batch: Batch::new(), bytes: 0, most_domains, most_bytes }
    }

    /// Is there room for so many bytes of the domain, in the place of what is there of it?
    fn has_room(&self, key: &DomainKey, new: usize) -> bool {
        let before = self.batch.get(key);
        let bytes = self.bytes - before.map_or(0, size) + new;
        let domains = self.batch.len() + usize::from(before.is_none());
        (bytes <= self.most_bytes && domains <= self.most_domains) || domains == 1
    }

    fn remove(&mut self, key: &DomainKey) {
        self.bytes -= self.batch.remove(key).as_ref().map_or(0, size);
    }

    fn insert(&mut self, key: DomainKey, saved: Option<Saved>) {
        self.bytes += size(&saved);
        self.bytes -= self.batch.insert(key, saved).as_ref().map_or(0, size);
    }

    fn take(&mut self) -> Batch {
        self.bytes = 0;
        std::mem::take(&mut self.batch)
    }
}

#[derive(Debug)]
struct Content {
    quick: Lane,
    slow: Lane,
    senders: usize,
    /// A sender is about to end: what is here is not to wait for more.
    hurries: bool,
    /// Counts the databases that were begun anew: see [`Sender::season`].
    season: u64,
}

#[derive(Debug)]
struct Shared {
    content: Mutex<Content>,
    changed: Condvar,
}

impl Content {
    fn is_empty(&self) -> bool {
        self.quick.batch.is_empty() && self.slow.batch.is_empty()
    }
}

impl Shared {
    /// Held for a look-up, or the exchange of a table, at the longest.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's side.
#[derive(Clone, Debug)]
pub(super) struct Mailbox(Arc<Shared>);

impl Mailbox {
    pub(super) fn new(season: u64) -> Mailbox {
        let (quick, slow) = (Lane::new(QUICK_DOMAINS, QUICK_BYTES), Lane::new(MOST_DOMAINS, MOST_BYTES));
        let content = Content { quick, slow, senders: 0, hurries: false, season };
        Mailbox(Arc::new(Shared { content: Mutex::new(content), changed: Condvar::new() }))
    }

    /// Waits until there is something, and then an interval more; or, when there is still something to do, the
    /// interval only, or no longer once a sender hurries. True, at once, when the last sender is gone.
    pub(super) fn wait(&self, busy: bool, interval: Duration) -> bool {
        let mut content = self.0.lock();
        while !busy && content.is_empty() && content.senders > 0 {
            content = self.0.changed.wait(content).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + interval;
        while content.senders > 0 {
            let left = until.saturating_duration_since(Instant::now());
            // What could not be written is not tried faster.
            if left.is_zero() || (content.hurries && !busy && !content.is_empty()) {
                return false;
            }
            let waited = self.0.changed.wait_timeout(content, left);
            content = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Takes what is in the quick lane; of the other one too when that is due, or there is little time.
    pub(super) fn take(&self, is_due: bool) -> (Batch, Batch) {
        let mut content = self.0.lock();
        let is_due = is_due || content.hurries || content.senders == 0;
        let slow = if is_due { content.slow.take() } else { Batch::new() };
        (content.quick.take(), slow)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(super) fn set_season(&self, season: u64) {
        self.0.lock().season = season;
    }
}

/// Hands changed domains over to the keeper. Clones are senders of their own; when the last one is gone, the keeper
/// writes what is left and ends.
#[derive(Debug)]
pub struct Sender(Mailbox);

impl Sender {
    pub(super) fn new(mailbox: Mailbox) -> Sender {
        mailbox.0.lock().senders += 1;
        Sender(mailbox)
    }

    /// Hands over a domain's newest state; `None` when it is forgotten. False if there is no room: nothing was taken,
    /// and it is to be tried again later. Never waits.
    #[must_use]
    pub fn put(&self, key: DomainKey, saved: Option<Saved>) -> bool {
        let shared = &self.0.0;
        let mut content = shared.lock();
        let bytes = size(&saved);
        let is_used = saved.as_ref().is_some_and(|saved| saved.used != 0);
        let is_quick = is_used && bytes <= QUICK_BYTES && content.quick.has_room(&key, bytes);
        if !is_quick && !content.slow.has_room(&key, bytes) {
            return false;
        }
        let Content { quick, slow, .. } = &mut *content;
        let (lane, other) = if is_quick { (quick, slow) } else { (slow, quick) };
        other.remove(&key);
        lane.insert(key, saved);
        shared.changed.notify_all();
        true
    }

    /// Has what is put in from now on written at once: there is more to come than there is room for, and little time.
    pub fn hurry(&self) {
        self.0.0.lock().hurries = true;
        self.0.0.changed.notify_all();
    }

    /// Changes when the database was begun anew: then what has not changed is to be handed over, too.
    pub fn season(&self) -> u64 {
        self.0.0.lock().season
    }
}

impl Clone for Sender {
    fn clone(&self) -> Sender {
        Sender::new(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let shared = &self.0.0;
        shared.lock().senders -= 1;
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Exporter;
    use crate::proto::Protocol;

    fn key(port: u16) -> DomainKey {
        let exporter = Exporter { address: [127, 0, 0, 1].into(), port };
        DomainKey { exporter, protocol: Protocol::Ipfix, domain: 0 }
    }

    fn saved(bytes: usize) -> Option<Saved> {
        Some(Saved { used: 0, bytes: vec![7; bytes] })
    }

    #[test]
    fn the_newest_state_is_what_is_taken_and_there_is_room_for_so_much() {
        let mailbox = Mailbox::new(1);
        let sender = Sender::new(mailbox.clone());
        assert!(sender.put(key(1), saved(2 * MOST_BYTES)), "what is alone has room");
        assert!(!sender.put(key(2), saved(1)));
        assert!(sender.put(key(1), saved(MOST_BYTES - 10)));
        assert!(sender.put(key(2), saved(10)));
        assert!(!sender.put(key(3), saved(1)) && sender.put(key(2), None));
        let (_, batch) = mailbox.take(true);
        assert_eq!((batch.len(), &batch[&key(2)]), (2, &None));
        assert!(mailbox.is_empty());
        for port in 0..MOST_DOMAINS as u16 {
            assert!(sender.put(key(port), None));
        }
        assert!(!sender.put(key(MOST_DOMAINS as u16), None) && sender.put(key(5), None));
    }

    #[test]
    fn what_is_in_use_goes_past_a_flood_and_is_there_once() {
        let mailbox = Mailbox::new(1);
        let sender = Sender::new(mailbox.clone());
        for port in 0..=MOST_DOMAINS as u16 {
            assert_eq!(sender.put(key(port), saved(9)), port < MOST_DOMAINS as u16);
        }
        let used = || Some(Saved { used: 400_000, bytes: vec![1; 9] });
        assert!(sender.put(key(20_000), used()) && sender.put(key(7), used()));
        let (quick, slow) = mailbox.take(false);
        assert_eq!((quick.len(), slow.len()), (2, 0));
        assert!(sender.put(key(3), used()) && sender.put(key(3), None));
        let (quick, slow) = mailbox.take(true);
        assert_eq!((quick.len(), slow.len()), (0, MOST_DOMAINS - 1));
        assert_eq!(slow[&key(3)], None);
        // More of what decodes than the quick lane takes waits in the other.
        for port in 0..=QUICK_DOMAINS as u16 {
            assert!(sender.put(key(port), used()));
        }
        let (quick, slow) = mailbox.take(true);
        assert_eq!((quick.len(), slow.len()), (QUICK_DOMAINS, 1));
    }

    #[test]
    fn the_last_sender_ends_the_wait() {
        let mailbox = Mailbox::new(1);
        let sender = Sender::new(mailbox.clone());
        assert!(!mailbox.wait(true, Duration::ZERO));
        let other = sender.clone();
        drop(sender);
        assert!(other.put(key(1), None));
        assert!(!mailbox.wait(false, Duration::ZERO));
        drop(other);
        assert!(mailbox.wait(false, Duration::MAX / 4) && !mailbox.is_empty());
    }
}
