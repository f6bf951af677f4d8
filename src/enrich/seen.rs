//! Which devices flow comes from: told by shards, which never wait for it, to whoever asks the devices.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use tokio::sync::Notify;

/// Devices that wait to be taken at once. Who is left out is told again with one of its next datagrams.
const MOST_WAITING: usize = 10_000;

/// A device that flow comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whom to ask about it.
    pub device: IpAddr,
    /// It has started anew: its numbers may stand for other interfaces than before.
    pub restarted: bool,
}

/// The way from the shards to who listens. A handle: clones share everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    /// Somebody listens; else nothing is kept for them.
    listened: Arc<AtomicBool>,
    waiting: Arc<Mutex<HashMap<IpAddr, bool>>>,
    come: Arc<Notify>,
    left_out: Arc<AtomicU64>,
}

impl Door {
    /// From now on what is seen is kept until it is taken.
    pub(super) fn open(&self) {
        self.listened.store(true, Ordering::Relaxed);
    }

    /// Waits until something was seen, and takes it, each device once.
    pub(super) async fn take(&self) -> Vec<Seen> {
        self.open();
        loop {
            let come = self.come.notified();
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting.into_iter().map(|(device, restarted)| Seen { device, restarted }).collect();
            }
            come.await;
        }
    }

    /// Hands over what `seen` holds, if nobody else is at the door just now; what is left in it is for the next time.
    pub(super) fn put(&self, seen: &mut Vec<Seen>) {
        if !self.listened.load(Ordering::Relaxed) {
            return seen.clear();
        }
        let mut waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for Seen { device, restarted } in seen.drain(..) {
            if waiting.len() >= MOST_WAITING && !waiting.contains_key(&device) {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            *waiting.entry(device).or_default() |= restarted;
        }
        drop(waiting);
        self.come.notify_one();
    }

    /// How many were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(last: u8, restarted: bool) -> Seen {
        Seen { device: [192, 0, 2, last].into(), restarted }
    }

    #[tokio::test]
    async fn a_device_is_told_once_and_its_restart_is_not_lost() {
        let door = Door::default();
        let mut early = vec![seen(9, false)];
        door.put(&mut early);
        assert_eq!(early, [], "nobody listens: nothing is kept");
        door.open();
        door.put(&mut vec![seen(1, false), seen(1, true), seen(1, false)]);
        assert_eq!(door.take().await, [seen(1, true)]);
        let (taken, ()) = tokio::join!(door.take(), async { door.put(&mut vec![seen(2, false)]) });
        assert_eq!(taken, [seen(2, false)]);
    }

    #[test]
    fn a_shard_never_waits_at_the_door() {
        let door = Door::default();
        door.open();
        let mut kept = vec![seen(1, false)];
        let busy = door.waiting.lock().unwrap();
        door.put(&mut kept);
        assert_eq!(kept.len(), 1);
        drop(busy);
        door.put(&mut kept);
        assert!(kept.is_empty());
    }

    #[test]
    fn more_devices_than_fit_are_counted() {
        let door = Door::default();
        door.open();
        let many = |number: u32| Seen { device: std::net::Ipv4Addr::from(number).into(), restarted: false };
        door.put(&mut (0..MOST_WAITING as u32 + 7).map(many).collect());
        assert_eq!(door.left_out(), 7);
    }
}
