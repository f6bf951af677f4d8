//! The queue between shards and writer: bounded in bytes, many senders, one taker.

use crate::batch::Sealed;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Counted for a batch beside its payload.
const BATCH_OVERHEAD_BYTES: usize = 512;
/// The most that is taken at once.
const GROUP_BYTES: usize = 1 << 20;
const GROUP_BATCHES: usize = 64;

/// What is in the queue.
#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Sealed>,
    bytes: usize,
    senders: usize,
    /// The writer takes no more.
    ended: bool,
    /// The writer has something else to do.
    poked: bool,
}

/// The queue itself, shared by its ends.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    max_bytes: usize,
    /// Records that are handed over and have no number.
    waiting: Gauge,
}

/// Why the writer woke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// [`Queue::poke`] was called.
    pub poked: bool,
    /// All senders are gone and the queue is empty.
    pub closed: bool,
}

impl Queue {
    /// A queue that holds up to that many bytes. A single batch is taken whatever its size.
    pub fn new(max_bytes: usize, waiting: Gauge) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), max_bytes, waiting }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writer for something other than a batch.
    pub fn poke(&self) {
        self.lock().poked = true;
        self.wake.notify_one();
    }

    /// Bytes in the queue.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Waits for batches, a poke, the end of all senders, or `deadline`. Moves up to a group of batches into
    /// `group` if `take`; else leaves them and does not wake for them.
    pub fn wait(&self, deadline: Option<Instant>, take: bool, group: &mut Vec<Sealed>) -> Wake {
        let mut inner = self.lock();
        loop {
            let closed = inner.senders == 0;
            if inner.poked || closed || (take && !inner.batches.is_empty()) {
                break;
            }
            inner = match deadline {
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut taken_bytes = 0;
        while take && group.len() < GROUP_BATCHES && taken_bytes < GROUP_BYTES {
            let Some(batch) = inner.batches.pop_front() else { break };
            taken_bytes += cost(&batch);
            group.push(batch);
        }
        inner.bytes -= taken_bytes;
        let poked = std::mem::take(&mut inner.poked);
        Wake { poked, closed: inner.senders == 0 && inner.batches.is_empty() }
    }

    /// All senders are gone.
    pub fn is_closed(&self) -> bool {
        self.lock().senders == 0
    }

    /// Refuses everything from now on; gives what was left.
    pub fn end(&self) -> VecDeque<Sealed> {
        let mut inner = self.lock();
        inner.ended = true;
        inner.bytes = 0;
        std::mem::take(&mut inner.batches)
    }
}

fn cost(batch: &Sealed) -> usize {
    batch.payload.len() + BATCH_OVERHEAD_BYTES
}

/// Where shards put finished batches; bounded in bytes. Cheap to clone. The writer ends when all are dropped.
#[derive(Debug)]
pub struct Sender(Arc<Queue>);

impl Sender {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        queue.lock().senders += 1;
        Self(queue)
    }

    /// Takes the batch, or gives it back when the queue is full or the writer has ended.
    ///
    /// # Errors
    /// The batch.
    pub fn try_send(&self, batch: Sealed) -> Result<(), Sealed> {
        let mut inner = self.0.lock();
        let bytes = inner.bytes + cost(&batch);
        if inner.ended || (bytes > self.0.max_bytes && !inner.batches.is_empty()) {
            return Err(batch);
        }
        inner.bytes = bytes;
        self.0.waiting.inc_by(i64::from(batch.records));
        inner.batches.push_back(batch);
        drop(inner);
        self.0.wake.notify_one();
        Ok(())
    }

    /// More than half of the room is taken: who can wait with the next batch should.
    pub fn is_behind(&self) -> bool {
        self.0.bytes() > self.0.max_bytes / 2
    }

    /// Bytes that wait in the queue now.
    pub fn queued_bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sealed;
    use super::*;

    fn take(queue: &Queue) -> (usize, Wake) {
        let mut group = Vec::new();
        let wake = queue.wait(Some(Instant::now()), true, &mut group);
        (group.len(), wake)
    }

    #[test]
    fn full_gives_the_batch_back() {
        let queue = Arc::new(Queue::new(4096, Gauge::default()));
        let sender = Sender::new(queue.clone());
        for n in 0..4 {
            sender.try_send(sealed(n, 500)).unwrap();
        }
        assert_eq!(sender.try_send(sealed(9, 500)).unwrap_err().records, sealed(9, 500).records);
        assert!(sender.is_behind());
        assert_eq!(take(&queue), (4, Wake::default()));
        assert_eq!((sender.queued_bytes(), sender.is_behind()), (0, false));
        sender.try_send(sealed(9, 1 << 20)).unwrap();
        assert!(sender.try_send(sealed(9, 1)).is_err());
    }

    #[test]
    fn closed_when_all_senders_are_gone_and_all_is_taken() {
        let queue = Arc::new(Queue::new(1 << 20, Gauge::default()));
        let first = Sender::new(queue.clone());
        let second = first.clone();
        first.try_send(sealed(1, 10)).unwrap();
        drop(first);
        assert!(!take(&queue).1.closed);
        second.try_send(sealed(2, 10)).unwrap();
        drop(second);
        assert_eq!(take(&queue), (1, Wake { poked: false, closed: true }));
        queue.poke();
        assert!(take(&queue).1.poked);
    }

    #[test]
    fn ended_takes_nothing() {
        let queue = Arc::new(Queue::new(1 << 20, Gauge::default()));
        let sender = Sender::new(queue.clone());
        sender.try_send(sealed(1, 10)).unwrap();
        assert_eq!(queue.end().len(), 1);
        assert!(sender.try_send(sealed(2, 10)).is_err());
    }
}
