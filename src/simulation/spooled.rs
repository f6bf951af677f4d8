//! The real spool of a simulated proxy, and which batch got which number in it.

use super::batches::Id;
use super::oracle::Oracle;
use crate::batch::Sealed;
use crate::spool::{self, Count, LaneId, Metrics, Sender, Settings, Spool, Writer};
use crate::storage::memory::Memory;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Small, so that a few batches fill one.
const SEGMENT_BYTES: u64 = 4096;
const MAX_BYTES: u64 = 12 * SEGMENT_BYTES;

/// See the module.
#[derive(Debug)]
pub struct Spooled {
    /// For the uplink.
    pub spool: Spool,
    writer: Writer,
    sender: Option<Sender>,
    /// Batches that the spool took and has not numbered yet, in order.
    offered: VecDeque<Id>,
    /// Lanes of earlier lives.
    older: BTreeSet<LaneId>,
    /// Up to here the numbers of lanes are known to the oracle.
    numbered: BTreeMap<LaneId, u64>,
    ended: bool,
    metrics: Metrics,
}

impl Spooled {
    /// Opens the spool on this disk; `None` when the disk does not let it.
    pub fn open(disk: &Arc<Memory>, settings: impl FnOnce(&mut Settings), oracle: &Oracle) -> Option<Self> {
        let mut wanted = Settings {
            max_bytes: MAX_BYTES,
            commit_interval: Duration::from_millis(20),
            queue_bytes: 16 << 10,
            memory_bytes: 2 << 10,
            keep_free_bytes: Some(0),
            ..Settings::new(PathBuf::from("/spool"))
        };
        settings(&mut wanted);
        let metrics = Metrics::default();
        let opened = spool::open_in_segments(disk.clone(), wanted, SEGMENT_BYTES, metrics.clone());
        let (spool, writer, sender) = opened.ok()?;
        let lost = spool.recovered().lost_batches;
        assert!(
            oracle.damaged || lost == 0,
            "I2: {lost} batches are declared lost and nobody damaged anything"
        );
        let older = spool.lanes().iter().filter(|lane| !lane.current).map(|lane| lane.id).collect();
        let (offered, numbered) = (VecDeque::new(), BTreeMap::new());
        Some(Self { spool, writer, sender: Some(sender), offered, older, numbered, ended: false, metrics })
    }

    /// A batch is handed to the spool; false if its queue is full.
    pub fn offer(&mut self, id: Id, batch: Sealed) -> bool {
        let taken = self.sender.as_ref().is_some_and(|sender| sender.try_send(batch).is_ok());
        if taken {
            self.offered.push_back(id);
        }
        taken
    }

    /// The writer's turn.
    pub fn write(&mut self, now: Instant, oracle: &mut Oracle) {
        if !self.ended && self.writer.step(now) {
            self.writer.finish();
            self.ended = true;
        }
        self.learn_numbers(oracle);
        let bytes = self.spool.usage();
        assert!(bytes.memory_bytes <= 64 << 10, "I6: {bytes:?}");
    }

    /// Nothing more is handed in: the writer ends once all is written.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// The writer has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Something that was handed in has no number yet.
    pub fn is_waiting(&self) -> bool {
        !self.offered.is_empty()
    }

    /// All that has a number is acked, skipped or set aside.
    pub fn is_delivered(&self) -> bool {
        self.spool.lanes().iter().all(|lane| lane.acked_seq + 1 >= lane.next_seq)
    }

    /// The terms of the ledger, for a message.
    fn placed(&self, committed: Count) -> String {
        let metrics = &self.metrics;
        format!(
            "numbered {} {}, recovered {} {}, committed {:?}, found {} {}, skipped {:?} {:?}, held {:?}",
            metrics.numbered_batches.get(),
            metrics.numbered_records.get(),
            metrics.recovered_batches.get(),
            metrics.recovered_records.get(),
            committed,
            metrics.found_committed_batches.get(),
            metrics.found_committed_records.get(),
            metrics.skipped_batches.all(),
            metrics.skipped_records.all(),
            self.spool.held(),
        )
    }

    /// I7: each batch that has a number is in exactly one place, and so is its record; `committed` is what acks
    /// have committed. What the ledger says to be unacked
    /// is what the lanes hold.
    pub fn assert_ledger(&self, committed: Count) {
        let metrics = &self.metrics;
        let held = self.spool.held();
        let sum = |counter: &Counter, found: &Counter| counter.get() + found.get();
        let known = sum(&metrics.numbered_batches, &metrics.recovered_batches);
        let skipped: u64 = metrics.skipped_batches.all().values().sum();
        let placed = committed.batches + metrics.found_committed_batches.get() + skipped;
        assert_eq!(known, placed + held.batches, "I7, batches: {}", self.placed(committed));
        assert_eq!(
            metrics.unacked_batches.get(),
            held.batches as i64,
            "I7, batches: {}",
            self.placed(committed)
        );
        let known = sum(&metrics.numbered_records, &metrics.recovered_records);
        let skipped: u64 = metrics.skipped_records.all().values().sum();
        let placed = committed.records + metrics.found_committed_records.get() + skipped;
        assert_eq!(known, placed + held.records, "I7, records: {}", self.placed(committed));
        assert_eq!(
            metrics.unacked_records.get(),
            held.records as i64,
            "I7, records: {}",
            self.placed(committed)
        );
    }

    /// Batches get their numbers in the order in which they were offered.
    fn learn_numbers(&mut self, oracle: &mut Oracle) {
        for lane in self.spool.lanes().iter().filter(|lane| !self.older.contains(&lane.id)) {
            let numbered = self.numbered.entry(lane.id).or_default();
            while *numbered + 1 < lane.next_seq {
                *numbered += 1;
                let id = self.offered.pop_front().expect("a number for each batch");
                oracle.number(lane.id.0, *numbered, id);
            }
        }
    }
}
