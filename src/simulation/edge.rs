//! A proxy: the real spool on a disk in memory, the real sessions, and the little that drives them.

use super::batches::Id;
use super::link::Link;
use super::oracle::{Lane, Oracle};
use crate::batch::{self, Digest, Sealed};
use crate::proto::Codec;
use crate::proto::{ClientMessage, Counters, ServerMessage};
use crate::spool::{self, Count, LaneId, LaneView, Metrics, Sender, Settings, Spool, Writer};
use crate::storage::memory::Memory;
use crate::uplink::session::{End, Facts, Note, Output, Session};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Small, so that a few batches fill one.
const SEGMENT_BYTES: u64 = 4096;
const MAX_BYTES: u64 = 12 * SEGMENT_BYTES;
/// See the head of spool/mod.rs.
const HEADER_BYTES: usize = 64;
const LANE_AT: usize = 16;
const FRAME_HEADER_BYTES: usize = 80;
const LEN_AT: usize = 4;
const PLAIN_SIZE_AT: usize = 32;
const NOTES_LEN_AT: usize = 36;
const SEQ_AT: usize = 8;
const DIGEST_AT: usize = 48;
const MAGIC: [u8; 2] = [0xf5, 0x0a];

/// A frame as it stands in a segment: lane, number, digest.
pub type Frame = (Lane, u64, Digest);

/// What a running process is made of.
#[derive(Debug)]
struct Life {
    spool: Spool,
    writer: Writer,
    sender: Option<Sender>,
    sessions: BTreeMap<u64, Session>,
    instance: [u8; 16],
    current: Option<LaneId>,
    /// Batches that the spool took and has not numbered yet, in order.
    offered: VecDeque<Id>,
    /// Lanes of earlier lives.
    older: BTreeSet<LaneId>,
    /// Up to here the numbers of lanes are known to the oracle.
    numbered: BTreeMap<LaneId, u64>,
    ended: bool,
    metrics: Metrics,
    /// What its acks have committed.
    committed: Count,
}

/// See the module.
#[derive(Debug)]
pub struct Edge {
    /// Who it is, at the collector.
    pub identity: usize,
    /// Its disk.
    pub disk: Arc<Memory>,
    life: Option<Life>,
}

impl Edge {
    /// A proxy that does not run.
    pub fn new(identity: usize, disk: Memory) -> Self {
        Self { identity, disk: Arc::new(disk), life: None }
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// The process starts. False when its disk does not let it.
    pub fn start(
        &mut self,
        instance: [u8; 16],
        settings: impl FnOnce(&mut Settings),
        oracle: &Oracle,
    ) -> bool {
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
        let opened = spool::open_in_segments(self.disk.clone(), wanted, SEGMENT_BYTES, metrics.clone());
        let Ok((spool, writer, sender)) = opened else { return false };
        let recovered = spool.recovered();
        let lost = recovered.lost_batches;
        assert!(
            oracle.damaged || lost == 0,
            "I2: {lost} batches are declared lost and nobody damaged anything"
        );
        let older = spool.lanes().iter().filter(|lane| !lane.current).map(|lane| lane.id).collect();
        self.life = Some(Life {
            spool,
            writer,
            sender: Some(sender),
            sessions: BTreeMap::new(),
            instance,
            current: None,
            offered: VecDeque::new(),
            older,
            numbered: BTreeMap::new(),
            ended: false,
            metrics,
            committed: Count::default(),
        });
        true
    }

    /// The process is gone, with all its memory.
    pub fn die(&mut self) {
        self.life = None;
    }

    /// A batch is handed to the spool; false if its queue is full.
    pub fn offer(&mut self, id: Id, batch: Sealed) -> bool {
        let Some(life) = &mut self.life else { return false };
        let taken = life.sender.as_ref().is_some_and(|sender| sender.try_send(batch).is_ok());
        if taken {
            life.offered.push_back(id);
        }
        taken
    }

    /// The writer's turn.
    pub fn write(&mut self, now: Instant, oracle: &mut Oracle) {
        let Some(life) = &mut self.life else { return };
        if !life.ended && life.writer.step(now) {
            life.writer.finish();
            life.ended = true;
        }
        life.learn_numbers(oracle);
        let bytes = life.spool.usage();
        assert!(bytes.memory_bytes <= 64 << 10, "I6: {bytes:?}");
        life.assert_ledger();
    }

    /// Nothing more is handed in: the writer ends once all is written.
    pub fn close(&mut self) {
        if let Some(life) = &mut self.life {
            life.sender = None;
        }
    }

    /// A connection is there: its session begins.
    pub fn connect(&mut self, link: u64, now: Instant) {
        let Some(life) = &mut self.life else { return };
        let facts = Facts {
            instance: life.instance,
            software: "simulated".to_owned(),
            mark_store_id: Bytes::from(life.spool.mark_store_id()),
            rejects_in_a_row: life.spool.rejects_in_a_row(),
        };
        life.sessions.insert(link, Session::new(facts, life.spool.lanes(), now));
    }

    /// The links that have a session.
    pub fn links(&self) -> Vec<u64> {
        self.life.as_ref().map(|life| life.sessions.keys().copied().collect()).unwrap_or_default()
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, link: u64) {
        if let Some(life) = &mut self.life {
            life.sessions.remove(&link);
        }
    }

    /// The collector said something.
    pub fn hear(&mut self, link: u64, message: ServerMessage, now: Instant) {
        let Some(life) = &mut self.life else { return };
        if let Some(session) = life.sessions.get_mut(&link) {
            session.received(message, now);
        }
    }

    /// A second or so has passed.
    pub fn tick(&mut self, now: Instant) {
        let Some(life) = &mut self.life else { return };
        let lanes = life.spool.lanes();
        let current = lanes.iter().find(|lane| lane.current).map(|lane| lane.id);
        let changed = std::mem::replace(&mut life.current, current) != current;
        for session in life.sessions.values_mut() {
            session.tick(now);
            if changed {
                session.lanes(lanes.clone(), now);
            }
            if session.is_heartbeat_due(now) {
                session.heartbeat(Counters::default(), None, now);
            }
        }
    }

    /// Fresh batches get a lane of their own.
    pub fn new_lane(&mut self) {
        if let Some(life) = &self.life {
            life.spool.new_lane();
        }
    }

    /// The session is to end in order.
    pub fn leave(&mut self, link: u64, now: Instant) {
        if let Some(session) = self.life.as_mut().and_then(|life| life.sessions.get_mut(&link)) {
            session.leave(now + Duration::from_secs(5), now);
        }
    }

    /// Everything that a session can do without waiting. Messages go out by `send`; gives the end, if it came.
    pub fn pump(
        &mut self,
        link: &mut Link,
        now: Instant,
        mut send: impl FnMut(&mut Link, ClientMessage),
    ) -> Option<End> {
        let life = self.life.as_mut()?;
        let next_seq = *life.spool.subscribe().borrow();
        life.sessions.get_mut(&link.number)?.grown(next_seq);
        loop {
            while link.has_room() {
                let session = life.sessions.get_mut(&link.number)?;
                match session.poll() {
                    None => break,
                    Some(Output::Send(message)) => send(link, message),
                    Some(Output::End(end)) => {
                        life.sessions.remove(&link.number);
                        return Some(end);
                    }
                    Some(output) => life.carry_out(link.number, output, now),
                }
            }
            if !link.has_room() {
                return None;
            }
            let session = life.sessions.get_mut(&link.number)?;
            let (lane, seq) = session.wanted()?;
            match life.spool.fetch(lane, seq) {
                Ok(fetched) => session.fetched(lane, seq, fetched, now),
                Err(_) => {
                    life.sessions.remove(&link.number);
                    return Some(End::Drained);
                }
            }
            life.assert_ledger();
        }
    }

    /// All that was ever written is acked, skipped or set aside.
    pub fn is_delivered(&self) -> bool {
        let Some(life) = &self.life else { return false };
        life.assert_ledger();
        life.ended && life.spool.lanes().iter().all(|lane| lane.acked_seq + 1 >= lane.next_seq)
    }

    /// How its lanes stand, for a message.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.life.as_ref().map(|life| life.spool.lanes()).unwrap_or_default()
    }

    /// The digests of what was set aside on this disk.
    pub fn aside(&self) -> BTreeSet<Digest> {
        let files = self.disk.files();
        let aside = files.iter().filter(|(_, path, _)| in_folder(path, "forked-"));
        aside.flat_map(|(_, _, bytes)| frames(bytes)).map(|(_, _, digest)| digest).collect()
    }
}

fn in_folder(path: &Path, prefix: &str) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// The frames of a segment file up to the first that is not whole. Gives none for other files.
pub fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut found: Vec<Frame> = Vec::new();
    if !bytes.starts_with(b"FLOWSEG\0") || bytes.len() < HEADER_BYTES {
        return found;
    }
    let lane: Lane = bytes[LANE_AT..LANE_AT + 16].try_into().unwrap();
    let mut rest = &bytes[HEADER_BYTES..];
    while rest.starts_with(&MAGIC) && rest.len() >= FRAME_HEADER_BYTES {
        let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let seq = u64::from_le_bytes(rest[SEQ_AT..SEQ_AT + 8].try_into().unwrap());
        let digest: Digest = rest[DIGEST_AT..DIGEST_AT + 16].try_into().unwrap();
        let end = FRAME_HEADER_BYTES + number(LEN_AT) as usize;
        let payload = rest.get(FRAME_HEADER_BYTES + number(NOTES_LEN_AT) as usize..end);
        let whole = payload.map(|payload| batch::digest(Codec::Plain, number(PLAIN_SIZE_AT), payload));
        if whole != Some(digest) || found.last().is_some_and(|(_, last, _)| last + 1 != seq) {
            break;
        }
        found.push((lane, seq, digest));
        rest = rest.get(end.next_multiple_of(8)..).unwrap_or_default();
    }
    found
}

impl Life {
    /// The terms of the ledger, for a message.
    fn placed(&self) -> String {
        let metrics = &self.metrics;
        format!(
            "numbered {} {}, recovered {} {}, committed {:?}, found {} {}, skipped {:?} {:?}, held {:?}",
            metrics.numbered_batches.get(),
            metrics.numbered_records.get(),
            metrics.recovered_batches.get(),
            metrics.recovered_records.get(),
            self.committed,
            metrics.found_committed_batches.get(),
            metrics.found_committed_records.get(),
            metrics.skipped_batches.all(),
            metrics.skipped_records.all(),
            self.spool.held(),
        )
    }

    /// I7: each batch that has a number is in exactly one place, and so is its record. What the ledger says to be unacked
    /// is what the lanes hold.
    fn assert_ledger(&self) {
        let metrics = &self.metrics;
        let held = self.spool.held();
        let sum = |counter: &Counter, found: &Counter| counter.get() + found.get();
        let known = sum(&metrics.numbered_batches, &metrics.recovered_batches);
        let skipped: u64 = metrics.skipped_batches.all().values().sum();
        let placed = self.committed.batches + metrics.found_committed_batches.get() + skipped;
        assert_eq!(known, placed + held.batches, "I7, batches: {}", self.placed());
        assert_eq!(metrics.unacked_batches.get(), held.batches as i64, "I7, batches: {}", self.placed());
        let known = sum(&metrics.numbered_records, &metrics.recovered_records);
        let skipped: u64 = metrics.skipped_records.all().values().sum();
        let placed = self.committed.records + metrics.found_committed_records.get() + skipped;
        assert_eq!(known, placed + held.records, "I7, records: {}", self.placed());
        assert_eq!(metrics.unacked_records.get(), held.records as i64, "I7, records: {}", self.placed());
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

    /// What uplink::drive does with it.
    fn carry_out(&mut self, link: u64, output: Output, now: Instant) {
        match output {
            Output::Send(_) | Output::End(_) => {}
            Output::Store(id) => {
                let known = self.spool.mark_store_id();
                let kept = known == id.as_ref() || self.spool.set_mark_store_id(&id).is_ok();
                match self.sessions.get_mut(&link) {
                    Some(session) if kept => session.store_taken(now),
                    _ => {
                        self.sessions.remove(&link);
                    }
                }
            }
            Output::Opened(lane) => self.spool.opened(lane),
            Output::Acked(acked) => {
                let committed = self.spool.acked(acked.lane, acked.seq);
                self.committed.batches += committed.batches;
                self.committed.records += committed.records + committed.raw;
            }
            Output::Closed(lane) => {
                self.spool.close(lane);
            }
            Output::SetAside(lane) => self.spool.set_aside(lane),
            Output::Rejected(rejection) => {
                if self.spool.reject(rejection.lane, rejection.seq).is_err() {
                    self.sessions.remove(&link);
                }
            }
            Output::Note(Note::MarkWentBack { lane, committed_seq, .. }) => {
                self.spool.went_back(lane, committed_seq);
            }
            Output::Note(_) => {}
        }
    }
}
