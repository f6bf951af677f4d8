//! A proxy: the real spool on a disk in memory, the real sessions, and the little that drives them.

use super::batches::Id;
use super::link::Link;
use super::oracle::Oracle;
use super::spooled::Spooled;
use crate::batch::Sealed;
use crate::proto::{ClientMessage, Counters, ServerMessage};
use crate::spool::{Count, LaneId, LaneView, Settings};
use crate::storage::memory::Memory;
use crate::uplink::session::{End, Facts, Note, Output, Session};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a running process is made of.
#[derive(Debug)]
struct Life {
    spooled: Spooled,
    sessions: BTreeMap<u64, Session>,
    instance: [u8; 16],
    current: Option<LaneId>,
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
        let Some(spooled) = Spooled::open(&self.disk, settings, oracle) else { return false };
        let (sessions, committed) = (BTreeMap::new(), Count::default());
        self.life = Some(Life { spooled, sessions, instance, current: None, committed });
        true
    }

    /// The process is gone, with all its memory.
    pub fn die(&mut self) {
        self.life = None;
    }

    /// A batch is handed to the spool; false if its queue is full.
    pub fn offer(&mut self, id: Id, batch: Sealed) -> bool {
        self.life.as_mut().is_some_and(|life| life.spooled.offer(id, batch))
    }

    /// The writer's turn.
    pub fn write(&mut self, now: Instant, oracle: &mut Oracle) {
        let Some(life) = &mut self.life else { return };
        life.spooled.write(now, oracle);
        life.assert_ledger();
    }

    /// Nothing more is handed in: the writer ends once all is written.
    pub fn close(&mut self) {
        if let Some(life) = &mut self.life {
            life.spooled.close();
        }
    }

    /// A connection is there: its session begins.
    pub fn connect(&mut self, link: u64, now: Instant) {
        let Some(life) = &mut self.life else { return };
        let facts = Facts {
            instance: life.instance,
            software: "simulated".to_owned(),
            mark_store_id: Bytes::from(life.spooled.spool.mark_store_id()),
            rejects_in_a_row: life.spooled.spool.rejects_in_a_row(),
        };
        life.sessions.insert(link, Session::new(facts, life.spooled.spool.lanes(), now));
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
        let lanes = life.spooled.spool.lanes();
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
            life.spooled.spool.new_lane();
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
        let next_seq = *life.spooled.spool.subscribe().borrow();
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
            match life.spooled.spool.fetch(lane, seq) {
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
        life.spooled.has_ended() && life.spooled.is_delivered()
    }

    /// How its lanes stand, for a message.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.life.as_ref().map(|life| life.spooled.spool.lanes()).unwrap_or_default()
    }
}

impl Life {
    fn assert_ledger(&self) {
        self.spooled.assert_ledger(self.committed);
    }

    /// What uplink::drive does with it.
    fn carry_out(&mut self, link: u64, output: Output, now: Instant) {
        match output {
            Output::Send(_) | Output::End(_) => {}
            Output::Store(id) => {
                let known = self.spooled.spool.mark_store_id();
                let kept = known == id.as_ref() || self.spooled.spool.set_mark_store_id(&id).is_ok();
                match self.sessions.get_mut(&link) {
                    Some(session) if kept => session.store_taken(now),
                    _ => {
                        self.sessions.remove(&link);
                    }
                }
            }
            Output::Opened(lane) => self.spooled.spool.opened(lane),
            Output::Acked(acked) => {
                let committed = self.spooled.spool.acked(acked.lane, acked.seq);
                self.committed.batches += committed.batches;
                self.committed.records += committed.records + committed.raw;
            }
            Output::Closed(lane) => {
                self.spooled.spool.close(lane);
            }
            Output::SetAside(lane) => self.spooled.spool.set_aside(lane),
            Output::Rejected(rejection) => {
                if self.spooled.spool.reject(rejection.lane, rejection.seq).is_err() {
                    self.sessions.remove(&link);
                }
            }
            Output::Note(Note::MarkWentBack { lane, committed_seq, .. }) => {
                self.spooled.spool.went_back(lane, committed_seq);
            }
            Output::Note(_) => {}
        }
    }
}
