//! One connection's course at the collector's end (forward.proto, THE COURSE OF A CONNECTION). Pure: messages,
//! outcomes and time in, actions out.
//!
//! The session knows the rules of the stream; whether a number is the next one of its lane is for the commit
//! to say, since two connections may carry one lane. So a message becomes an [`Order`], the commit answers
//! each order but `Heard` with one [`Outcome`], in the order given, and the session turns outcomes into acks.
//!
//! | if | then |
//! |---|---|
//! | a message breaks a rule of forward.proto | `Error{PROTOCOL}`, the stream ends |
//! | no version in common | `Error{VERSION}`, the stream ends |
//! | more lanes than the limit | `Error{LIMIT}`, the stream ends |
//! | numbers above the mark + 1 | one `Error{GAP}` until mark + 1 comes; the stream goes on |
//! | marks move | acks, at most one per [`ACK_INTERVAL`] and lane, the first at once |
//! | orders wait for [`SILENCE`] | an ack with the mark as it stands |
//! | the sinks or the store stall | an ack with a window of 0 at once and every [`SILENCE`]; one with the window when they go on |

mod order;

use super::lane::{LaneId, Mark, OTHERS};
use crate::batch::Digest;
use crate::proto::{self, Codec, Window, client_message, error::Code, server_message::Message};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use order::{Answer, Batch, Order, Outcome, Rejection, Skip, Task};

/// Acks of one lane are at least this far apart.
pub const ACK_INTERVAL: Duration = Duration::from_millis(20);
/// The longest that a client with something in flight hears nothing.
pub const SILENCE: Duration = Duration::from_secs(10);
/// The protocol version that this collector speaks.
const VERSION: u32 = 1;
/// forward.proto, `Skip`: entries of exporters.
const MAX_EXPORTER_COUNTS: usize = 65_536;
/// What is kept of `Hello.software`, in characters.
const SOFTWARE_CHARS: usize = 100;

/// What one connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lanes open at once.
    pub lanes: usize,
    /// Bytes of a payload.
    pub payload_bytes: u32,
    /// Bytes of a payload once expanded.
    pub plain_bytes: u32,
}

/// The world at the moment of a step.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The time.
    pub now: Instant,
    /// The sinks or the store do not work at present.
    pub stalled: bool,
    /// This connection's share of what may be in flight.
    pub window: Window,
}

impl Conditions {
    fn window(&self) -> Window {
        if self.stalled { Window { batches: 0, bytes: 0 } } else { self.window }
    }
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this.
    Send(Message),
    /// Hand this to the commit.
    Submit(Order),
    /// The client has said who it is.
    Greeted {
        /// Its process.
        instance: [u8; 16],
        /// Name and version of its software, cleaned.
        software: String,
    },
    /// The client has given its totals.
    Heartbeat {
        /// Its totals since its start.
        counters: Box<proto::Counters>,
        /// Milliseconds that its oldest unsent batch has waited.
        oldest_unsent_age_ms: u64,
    },
    /// End the stream once all is sent.
    End,
}

struct Fault {
    code: Code,
    lane: u32,
    text: String,
}

#[derive(Debug)]
struct Lane {
    id: LaneId,
    mark: Option<Mark>,
    outstanding: usize,
    ack_due: bool,
    acked_at: Option<Instant>,
    gap_told: bool,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    mark_store_id: [u8; 16],
    greeted: bool,
    ending: bool,
    lanes: BTreeMap<u32, Lane>,
    outstanding: usize,
    last_sent: Instant,
    told_to_stop: bool,
}

impl Session {
    /// A connection that has just begun.
    pub fn new(limits: Limits, mark_store_id: [u8; 16], now: Instant) -> Self {
        Self {
            limits,
            mark_store_id,
            greeted: false,
            ending: false,
            lanes: BTreeMap::new(),
            outstanding: 0,
            last_sent: now,
            told_to_stop: false,
        }
    }

    /// A message came.
    pub fn on_message(&mut self, message: Option<client_message::Message>, at: &Conditions) -> Vec<Action> {
        let mut actions = match self.read(message, at) {
            Ok(actions) => actions,
            Err(fault) => self.fail(fault),
        };
        self.on_time(at, &mut actions);
        actions
    }

    /// The client will send no more.
    pub fn on_end(&mut self, at: &Conditions) -> Vec<Action> {
        self.ending = true;
        let mut actions = Vec::new();
        self.on_time(at, &mut actions);
        actions
    }

    /// The commit answered.
    pub fn on_outcome(&mut self, outcome: Outcome, at: &Conditions) -> Vec<Action> {
        let mut actions = Vec::new();
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(lane) = self.lanes.get_mut(&outcome.lane) {
            lane.outstanding = lane.outstanding.saturating_sub(1);
            self.answer(outcome, at, &mut actions);
        }
        self.on_time(at, &mut actions);
        actions
    }

    /// The collector is about to stop.
    pub fn on_drain(&mut self, deadline: Duration, at: &Conditions) -> Vec<Action> {
        self.last_sent = at.now;
        let deadline = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        vec![Action::Send(Message::Drain(proto::Drain { deadline }))]
    }

    /// Sends what time or the conditions have made due.
    pub fn on_time(&mut self, at: &Conditions, actions: &mut Vec<Action>) {
        let ending = self.ending && self.outstanding == 0;
        let due = |lane: &Lane| {
            lane.ack_due && (ending || lane.acked_at.is_none_or(|last| at.now - last >= ACK_INTERVAL))
        };
        let due: Vec<u32> =
            self.lanes.iter().filter(|(_, lane)| due(lane)).map(|(number, _)| *number).collect();
        for lane in due {
            self.ack(lane, at, actions);
        }
        let silent = self.outstanding > 0 && at.now.saturating_duration_since(self.last_sent) >= SILENCE;
        let stop = at.stalled && !self.told_to_stop && self.outstanding > 0;
        let go_on = !at.stalled && self.told_to_stop;
        if silent {
            self.last_sent = at.now;
        }
        if (silent || stop || go_on)
            && let Some(lane) = self.waiting_lane()
        {
            self.ack(lane, at, actions);
        }
        if ending {
            actions.push(Action::End);
        }
    }

    /// When [`Session::on_time`] has something to do at the latest, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        let acks = self.lanes.values().filter(|lane| lane.ack_due);
        let acks = acks.filter_map(|lane| lane.acked_at.map(|last| last + ACK_INTERVAL));
        let silence = (self.outstanding > 0).then(|| self.last_sent + SILENCE);
        acks.chain(silence).min()
    }

    /// The client has said that it will send no more, or has been told so.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    fn read(
        &mut self,
        message: Option<client_message::Message>,
        at: &Conditions,
    ) -> Result<Vec<Action>, Fault> {
        use client_message::Message as Client;
        if self.greeted != !matches!(message, Some(Client::Hello(_))) {
            return Err(protocol(0, "Hello must be the first message, and only that"));
        }
        match message {
            Some(Client::Hello(hello)) => self.greet(&hello, at),
            Some(Client::Open(open)) => self.open(&open),
            Some(Client::Batch(batch)) => self.batch(batch),
            Some(Client::Skip(skip)) => self.skip(skip),
            Some(Client::Close(close)) => {
                let action = self.submit(close.lane, Task::Close)?;
                self.lanes.remove(&close.lane);
                Ok(vec![action])
            }
            Some(Client::Heartbeat(heartbeat)) => self.heartbeat(&heartbeat),
            Some(Client::Bye(_)) => {
                self.ending = true;
                Ok(Vec::new())
            }
            None => Err(protocol(0, "a message of a kind that this collector does not know")),
        }
    }

    fn greet(&mut self, hello: &proto::Hello, at: &Conditions) -> Result<Vec<Action>, Fault> {
        let instance =
            sixteen(&hello.instance).ok_or_else(|| protocol(0, "Hello.instance must be 16 bytes"))?;
        if !hello.versions.contains(&VERSION) {
            let text = format!("this collector speaks version {VERSION} only");
            return Err(Fault { code: Code::Version, lane: 0, text });
        }
        self.greeted = true;
        self.last_sent = at.now;
        let software = hello.software.chars().filter(|c| !c.is_control()).take(SOFTWARE_CHARS).collect();
        let limits =
            proto::Limits { payload_bytes: self.limits.payload_bytes, plain_bytes: self.limits.plain_bytes };
        let welcome = proto::Welcome {
            version: VERSION,
            mark_store_id: Bytes::copy_from_slice(&self.mark_store_id),
            window: Some(at.window),
            limits: Some(limits),
        };
        Ok(vec![Action::Greeted { instance, software }, Action::Send(Message::Welcome(welcome))])
    }

    fn open(&mut self, open: &proto::Open) -> Result<Vec<Action>, Fault> {
        let number = open.lane;
        let id = sixteen(&open.lane_id).map(LaneId);
        let id = id.ok_or_else(|| protocol(number, "Open.lane_id must be 16 bytes"))?;
        if open.next_seq == 0 || open.acked_seq >= open.next_seq || open.oldest_seq > open.next_seq {
            return Err(protocol(number, "Open needs acked_seq < next_seq and oldest_seq <= next_seq"));
        }
        if self.lanes.contains_key(&number) || self.lanes.values().any(|lane| lane.id == id) {
            return Err(protocol(number, "this lane is open on this connection already"));
        }
        if self.lanes.len() >= self.limits.lanes {
            let text = format!("at most {} lanes may be open on one connection", self.limits.lanes);
            return Err(Fault { code: Code::Limit, lane: number, text });
        }
        let lane = Lane { id, mark: None, outstanding: 0, ack_due: false, acked_at: None, gap_told: false };
        self.lanes.insert(number, lane);
        let (acked_seq, next_seq, current) = (open.acked_seq, open.next_seq, open.current);
        Ok(vec![self.submit(number, Task::Open { acked_seq, next_seq, current })?])
    }

    fn batch(&mut self, batch: proto::Batch) -> Result<Vec<Action>, Fault> {
        if batch.seq == 0 || batch.seq == u64::MAX {
            return Err(protocol(batch.lane, "Batch.seq must be at least 1 and below 2^64 - 1"));
        }
        let previous = digest(&batch.previous_digest)
            .ok_or_else(|| protocol(batch.lane, "Batch.previous_digest must be 16 bytes or empty"))?;
        let too_large = batch.payload.len() > self.limits.payload_bytes as usize
            || batch.plain_size > self.limits.plain_bytes;
        let task = Task::Batch(Batch {
            seq: batch.seq,
            previous,
            codec: Codec::try_from(batch.codec).ok(),
            plain_size: batch.plain_size,
            payload: if too_large { Bytes::new() } else { batch.payload },
            too_large,
        });
        Ok(vec![self.submit(batch.lane, task)?])
    }

    fn skip(&mut self, skip: proto::Skip) -> Result<Vec<Action>, Fault> {
        if skip.from == 0 || skip.from > skip.to || skip.to == u64::MAX {
            return Err(protocol(skip.lane, "Skip needs 1 <= from <= to < 2^64 - 1"));
        }
        let numbers = skip.to - skip.from;
        if skip.records_per_seq.len() as u64 > numbers.saturating_add(1) {
            return Err(protocol(
                skip.lane,
                "Skip.records_per_seq has more entries than the Skip has numbers",
            ));
        }
        if skip.counts_per_exporter.len() > MAX_EXPORTER_COUNTS {
            return Err(protocol(skip.lane, "Skip.counts_per_exporter has more than 65,536 entries"));
        }
        let digest = digest(&skip.digest)
            .ok_or_else(|| protocol(skip.lane, "Skip.digest must be 16 bytes or empty"))?;
        let counts = skip.counts_per_exporter.iter().map(|count| count.records);
        let task = Task::Skip(Skip {
            numbers: skip.from..=skip.to,
            reason: skip.reason(),
            records: counts.fold(0, u64::saturating_add),
            counts_per_exporter: skip.counts_per_exporter.iter().filter_map(exporter_count).collect(),
            records_per_seq: skip.records_per_seq,
            digest,
        });
        Ok(vec![self.submit(skip.lane, task)?])
    }

    fn heartbeat(&mut self, heartbeat: &proto::Heartbeat) -> Result<Vec<Action>, Fault> {
        if heartbeat.lanes.len() > self.limits.lanes {
            return Err(protocol(0, "Heartbeat names more lanes than may be open"));
        }
        let heard = heartbeat.lanes.iter().filter_map(|next| {
            let lane = self.lanes.get(&next.lane)?;
            Some((lane.id, next.next_seq))
        });
        let heard = Action::Submit(Order::Heard(heard.collect()));
        let counters = heartbeat.counters.clone().unwrap_or_default();
        let totals = Action::Heartbeat { counters, oldest_unsent_age_ms: heartbeat.oldest_unsent_age };
        Ok(vec![heard, totals])
    }

    fn submit(&mut self, number: u32, task: Task) -> Result<Action, Fault> {
        let lane = self.lanes.get_mut(&number).ok_or_else(|| protocol(number, "this lane is not open"))?;
        lane.outstanding += 1;
        self.outstanding += 1;
        Ok(Action::Submit(Order::Lane { lane: number, id: lane.id, task }))
    }

    fn answer(&mut self, outcome: Outcome, at: &Conditions, actions: &mut Vec<Action>) {
        let number = outcome.lane;
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        match outcome.result {
            Answer::Opened { known, mark } => {
                lane.mark = Some(mark);
                self.told_to_stop |= at.stalled;
                self.send(Message::Opened(opened(number, known, &mark, at.window())), at, actions);
            }
            Answer::Marked { mark, moved } => {
                lane.mark = Some(mark);
                lane.ack_due = true;
                lane.gap_told &= !moved;
            }
            Answer::Gap { committed_seq } => {
                let told = std::mem::replace(&mut lane.gap_told, true);
                if !told {
                    let text = format!("the next batch of this lane is {}", committed_seq.saturating_add(1));
                    let error = proto::Error { code: Code::Gap.into(), lane: number, committed_seq, text };
                    self.send(Message::Error(error), at, actions);
                }
            }
            Answer::Rejected(Rejection { seq, reason, text }) => {
                if lane.ack_due {
                    self.ack(number, at, actions);
                }
                let reject = proto::Reject { lane: number, seq, reason: reason.into(), text };
                self.send(Message::Reject(reject), at, actions);
            }
            Answer::Refused { text } => {
                let refused = self.fail(Fault { code: Code::Limit, lane: number, text });
                actions.extend(refused);
            }
            Answer::Closed => {}
        }
    }

    fn ack(&mut self, number: u32, at: &Conditions, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&number) else { return };
        let Some(mark) = lane.mark else { return };
        lane.ack_due = false;
        lane.acked_at = Some(at.now);
        self.told_to_stop = at.stalled;
        self.send(Message::Ack(acked(number, &mark, at.window())), at, actions);
    }

    /// A lane to tell the window by: the first one that waits for something, else the first one.
    fn waiting_lane(&self) -> Option<u32> {
        let open = || self.lanes.iter().filter(|(_, lane)| lane.mark.is_some());
        let waiting = open().find(|(_, lane)| lane.outstanding > 0);
        waiting.or_else(|| open().next()).map(|(number, _)| *number)
    }

    fn send(&mut self, message: Message, at: &Conditions, actions: &mut Vec<Action>) {
        self.last_sent = at.now;
        actions.push(Action::Send(message));
    }

    fn fail(&mut self, fault: Fault) -> Vec<Action> {
        self.ending = true;
        self.lanes.clear();
        let Fault { code, lane, text } = fault;
        let error = proto::Error { code: code.into(), lane, committed_seq: 0, text };
        vec![Action::Send(Message::Error(error)), Action::End]
    }
}

/// Addresses are 4 or 16 bytes, or none for [`OTHERS`].
fn exporter_count(count: &proto::ExporterCount) -> Option<(IpAddr, u64)> {
    let bytes = count.address.as_ref();
    if bytes.is_empty() {
        return Some((OTHERS, count.records));
    }
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    Some((v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?, count.records))
}

fn protocol(lane: u32, text: &str) -> Fault {
    Fault { code: Code::Protocol, lane, text: text.to_owned() }
}

fn sixteen(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

/// A digest of 16 bytes, or none; the outer `None` is a broken rule.
fn digest(bytes: &[u8]) -> Option<Option<Digest>> {
    if bytes.is_empty() { Some(None) } else { sixteen(bytes).map(Some) }
}

fn known_digest(mark: &Mark) -> Bytes {
    mark.known_digest().map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default()
}

fn opened(lane: u32, known: bool, mark: &Mark, window: Window) -> proto::Opened {
    let (committed_seq, digest_seq) = (mark.committed_seq, mark.digest_seq);
    let (digest, window) = (known_digest(mark), Some(window));
    proto::Opened { lane, known, committed_seq, digest_seq, digest, window }
}

fn acked(lane: u32, mark: &Mark, window: Window) -> proto::Ack {
    let (committed_seq, digest_seq) = (mark.committed_seq, mark.digest_seq);
    proto::Ack { lane, committed_seq, digest_seq, digest: known_digest(mark), window: Some(window) }
}

#[cfg(test)]
mod tests;
