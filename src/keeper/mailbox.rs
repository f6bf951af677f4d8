//! Between the shards and the keeper: the newest state of each domain that has changed, bounded. Who puts something in
//! never waits for the disk.

use crate::wire::{DomainKey, Saved};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Domains in the mailbox.
const MOST_DOMAINS: usize = 10_000;
/// Bytes of their saved forms; one that is larger has it for itself.
const MOST_BYTES: usize = 16 << 20;

/// What is to be written: a domain's state, or `None` for one that is forgotten.
pub(super) type Batch = HashMap<DomainKey, Option<Saved>>;

#[derive(Debug)]
struct Content {
    batch: Batch,
    bytes: usize,
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
        let content = Content { batch: Batch::new(), bytes: 0, senders: 0, hurries: false, season };
        Mailbox(Arc::new(Shared { content: Mutex::new(content), changed: Condvar::new() }))
    }

    /// Waits until there is something, and then an interval more; or, when there is still something to do, the
    /// interval only, or no longer once a sender hurries. True, at once, when the last sender is gone.
    pub(super) fn wait(&self, busy: bool, interval: Duration) -> bool {
        let mut content = self.0.lock();
        while !busy && content.batch.is_empty() && content.senders > 0 {
            content = self.0.changed.wait(content).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + interval;
        while content.senders > 0 {
            let left = until.saturating_duration_since(Instant::now());
            // What could not be written is not tried faster.
            if left.is_zero() || (content.hurries && !busy && !content.batch.is_empty()) {
                return false;
            }
            let waited = self.0.changed.wait_timeout(content, left);
            content = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Takes all that is there.
    pub(super) fn take(&self) -> Batch {
        let mut content = self.0.lock();
        content.bytes = 0;
        std::mem::take(&mut content.batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().batch.is_empty()
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
        let size = |saved: &Option<Saved>| saved.as_ref().map_or(0, |saved| saved.bytes.len());
        let before = content.batch.get(&key);
        let bytes = content.bytes - before.map_or(0, size) + size(&saved);
        let domains = content.batch.len() + usize::from(before.is_none());
        if (bytes > MOST_BYTES || domains > MOST_DOMAINS) && domains > 1 {
            return false;
        }
        content.bytes = bytes;
        content.batch.insert(key, saved);
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
        let batch = mailbox.take();
        assert_eq!((batch.len(), &batch[&key(2)]), (2, &None));
        assert!(mailbox.is_empty());
        for port in 0..MOST_DOMAINS as u16 {
            assert!(sender.put(key(port), None));
        }
        assert!(!sender.put(key(MOST_DOMAINS as u16), None) && sender.put(key(5), None));
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
