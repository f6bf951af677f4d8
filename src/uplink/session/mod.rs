//! The proxy's side of forward.proto on one connection.
//!
//! Pure: messages and time go in, outputs come out; no socket, clock, log or metric. Whoever drives it
//! 1. carries out every [`Output`] that [`Session::poll`] gives, in order, before anything else,
//! 2. then answers [`Session::wanted`] from the spool by [`Session::fetched`],
//! 3. and when neither has anything, waits: for a message ([`Session::received`]), for the spool to grow
//!    ([`Session::grown`]) or for a second to pass ([`Session::tick`]).
//!
//! | if | then |
//! |---|---|
//! | a number is acked again, or a lower one than before | nothing |
//! | the mark is below what the lane's Open said was acked | [`Note::MarkWentBack`]; the spool is asked from the mark on: batches that are left go again, for the others it has Skip{already_acked} |
//! | CODE_GAP | the lane goes on from the mark; one that was on its way before we went back is ignored |
//! | Reject | [`Output::Rejected`]: the spool writes its skip row, the lane goes on from there with the Skip |
//! | the third Reject with no batch committed between | nothing is set aside, [`End::Rejected`]: the same batch is tried later |
//! | the collector's digest of a batch is not ours, or its mark is past a lane's end | [`Note::Forked`], [`Note::PastEnd`]: nothing of it is taken for an ack, the lane rests and [`Output::SetAside`] |
//! | an Ack names a batch that this connection has not sent | it is believed when our bytes of that batch have its digest |
//! | nothing is heard for 60 s while something is awaited | [`End::Silent`] |
//! | Drain | nothing new is sent; Bye when all is acked or its deadline is over |
//!
//! Both the fresh lane and an older one have something to send: bytes go in turn, the fresh lane first, so it
//! gets half of what can be sent at least. Old lanes go oldest first, and have half of the window in flight at
//! most, so that fresh batches which come later need not wait for their acks.
//!
//! Bounds: 16 open lanes at work (64 with those at rest), 4,096 messages of each in flight, window 4,096 batches and 64 MiB at most, one
//! batch held back because it did not fit the window.

mod incoming;
mod lane;
mod messages;
mod outputs;
mod sending;

pub use lane::Load;
pub use outputs::{Acked, End, Facts, Note, Output, Rejection};

use crate::proto::{
    self, ClientMessage, Counters, Limits, ServerMessage, client_message::Message, server_message,
};
use crate::spool::{Fetched, LaneId, LaneView, Stored};
use lane::{Lane, Stage};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The version of forward.proto that this is.
const VERSION: u32 = 1;
/// How many lanes are open at once and not at rest.
const MAX_LANES_AT_WORK: usize = 16;
/// How many lanes are open at once.
const MAX_LANES: usize = 64;
/// The largest window that is believed.
const MAX_WINDOW: Load = Load { batches: 4096, bytes: 64 << 20 };
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long the collector may be silent while something is awaited.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Rejects with no batch committed between, after which nothing more is set aside.
const MAX_REJECTS: u32 = 3;
/// CODE_GAP with no progress between.
const MAX_GAPS: u32 = 16;

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Hello is sent.
    Greeting,
    /// Welcome is here; the driver has not yet said whether its store is the right one.
    Judging,
    /// Batches go.
    Running,
    /// The collector is about to stop; nothing new is sent.
    Draining { until: Instant },
    /// Over.
    Ended,
}

/// One connection's state.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    facts: Facts,
    /// Those that are open or being opened; the current one first, then the oldest.
    lanes: Vec<Lane>,
    /// Those that wait for their turn.
    unopened: VecDeque<LaneView>,
    next_wire: u32,
    window: Load,
    limits: Limits,
    /// Fetched, but did not fit the window.
    held: Option<(u32, Stored)>,
    /// Bytes sent of the current lane less those of old ones, while both had some.
    lead: i64,
    finishing: bool,
    /// That there is a twin has been noted.
    twin_told: bool,
    outputs: VecDeque<Output>,
    heard_at: Instant,
    awaiting_since: Option<Instant>,
    heartbeat_at: Instant,
}

impl Session {
    /// A session for a new connection. `lanes`: all that the spool has; of those that are not current, the
    /// oldest first.
    pub fn new(facts: Facts, lanes: Vec<LaneView>, now: Instant) -> Self {
        let (current, old): (Vec<_>, Vec<_>) = lanes.into_iter().partition(|lane| lane.current);
        let mut session = Self {
            phase: Phase::Greeting,
            lanes: Vec::new(),
            unopened: current.into_iter().chain(old).collect(),
            next_wire: 1,
            window: Load::default(),
            limits: Limits::default(),
            held: None,
            lead: 0,
            finishing: false,
            twin_told: false,
            outputs: VecDeque::new(),
            heard_at: now,
            awaiting_since: Some(now),
            heartbeat_at: now + HEARTBEAT,
            facts,
        };
        session.send(messages::hello(&session.facts));
        session
    }

    /// The next thing to do, if there is any.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A message of the collector.
    pub fn received(&mut self, message: ServerMessage, now: Instant) {
        use server_message::Message;
        self.heard_at = now;
        match (self.phase, message.message) {
            (Phase::Ended, _) => {}
            (Phase::Greeting, Some(Message::Welcome(welcome))) => self.welcomed(welcome),
            (_, Some(Message::Welcome(_))) => self.violated("a second Welcome"),
            (_, Some(Message::Error(error))) => self.errored(error, now),
            (_, Some(Message::Drain(drain))) => {
                let until = now + Duration::from_millis(u64::from(drain.deadline));
                self.leave(until, now);
            }
            (Phase::Greeting | Phase::Judging, Some(_)) => self.violated("it speaks before its Welcome"),
            (_, Some(Message::Opened(opened))) => self.opened(opened),
            (_, Some(Message::Ack(ack))) => self.acked(ack),
            (_, Some(Message::Reject(reject))) => self.rejected(reject, now),
            // What a later version may say.
            (_, None) => {}
        }
        self.settle(now);
    }

    /// The store named by [`Output::Store`] is the right one, and durably noted.
    pub fn store_taken(&mut self, now: Instant) {
        if self.phase == Phase::Judging {
            self.phase = Phase::Running;
            self.open_lanes();
            self.settle(now);
        }
    }

    /// The writer's own lane has grown: its next batch will get this number.
    pub fn grown(&mut self, next_seq: u64) {
        let opened = self.lanes.iter_mut().map(|lane| &mut lane.view);
        if let Some(view) = opened.chain(&mut self.unopened).find(|view| view.current) {
            view.next_seq = view.next_seq.max(next_seq);
        }
    }

    /// The spool's lanes, when the writer may have begun another one; as in [`Session::new`].
    pub fn lanes(&mut self, views: Vec<LaneView>, now: Instant) {
        let is_there = |id: LaneId| views.iter().any(|view| view.id == id);
        self.lanes.retain(|lane| lane.stage != Stage::Stopped || is_there(lane.id()));
        self.unopened.retain(|view| is_there(view.id));
        let order: Vec<LaneId> = views.iter().map(|view| view.id).collect();
        for view in views {
            if let Some(unopened) = self.unopened.iter_mut().find(|known| known.id == view.id) {
                *unopened = view;
                continue;
            }
            match self.lanes.iter_mut().find(|lane| lane.id() == view.id) {
                Some(lane) => (lane.view.current, lane.view.next_seq) = (view.current, view.next_seq),
                None => self.unopened.push_back(view),
            }
        }
        // The current one first; one that was has its place among the old ones.
        let rank = |view: &LaneView| (!view.current, order.iter().position(|id| *id == view.id));
        self.lanes.sort_by_cached_key(|lane| rank(&lane.view));
        self.unopened.make_contiguous().sort_by_cached_key(rank);
        self.settle(now);
    }

    /// What has become of the spool while another connection was still sending, before
    /// [`Session::store_taken`]: its lanes as in [`Session::new`], and the rejects in a row.
    pub fn refresh(&mut self, views: Vec<LaneView>, rejects_in_a_row: u32, now: Instant) {
        self.facts.rejects_in_a_row = rejects_in_a_row;
        self.lanes(views, now);
    }

    /// What to fetch from the spool next: a lane and a number. The same until it is fetched.
    pub fn wanted(&self) -> Option<(LaneId, u64)> {
        if self.phase == Phase::Ended {
            return None;
        }
        let unproven = self.lanes.iter().find_map(|lane| Some((lane.id(), lane.to_prove()?.digest_seq)));
        if unproven.is_some() {
            return unproven;
        }
        if self.phase != Phase::Running || self.held.is_some() || !self.has_room(0) {
            return None;
        }
        self.next_lane().map(|lane| (lane.id(), lane.send_seq))
    }

    /// What the spool has at the number that was wanted.
    pub fn fetched(&mut self, id: LaneId, seq: u64, fetched: Fetched, now: Instant) {
        let Some(place) = self.lanes.iter().position(|lane| lane.id() == id) else { return };
        let running = self.phase == Phase::Running;
        let Some(lane) = self.lanes.get_mut(place) else { return };
        if let Some(mark) = lane.to_prove().filter(|mark| mark.digest_seq == seq) {
            self.looked_up(place, mark, fetched);
        } else if running && lane.send_seq == seq && lane.has_unsent() {
            match fetched {
                Fetched::Batch(stored) => self.offer(place, stored, now),
                Fetched::Skip(row) => self.skip(place, row),
                Fetched::Pending if lane.view.current => lane.view.next_seq = seq,
                Fetched::Pending => self.rest(place, Note::Unreadable { lane: id, seq }),
            }
        }
        self.settle(now);
    }

    /// Time passes: call it about every second.
    pub fn tick(&mut self, now: Instant) {
        self.go_back_again(now);
        if let Phase::Draining { until } = self.phase
            && now >= until
        {
            self.say_bye(End::Drained);
        }
        if let Some(since) = self.awaiting_since
            && now.saturating_duration_since(since.max(self.heard_at)) >= WATCHDOG
        {
            let awaited = match self.phase {
                Phase::Greeting => "we waited for its Welcome",
                _ => "batches waited for their ack",
            };
            self.end(End::Silent { awaited });
        }
    }

    /// Whether it is time for [`Session::heartbeat`].
    pub fn is_heartbeat_due(&self, now: Instant) -> bool {
        now >= self.heartbeat_at && matches!(self.phase, Phase::Running | Phase::Draining { .. })
    }

    /// Tells the collector our totals, and how long the oldest batch that is not yet sent has waited.
    pub fn heartbeat(&mut self, counters: Counters, oldest_unsent: Option<Duration>, now: Instant) {
        self.heartbeat_at = now + HEARTBEAT;
        self.send(messages::heartbeat(counters, &self.lanes, oldest_unsent));
    }

    /// Nothing more will be written: end with Bye once everything is acked.
    pub fn finish(&mut self, now: Instant) {
        self.finishing = true;
        self.settle(now);
    }

    /// Send nothing new, and end with Bye when what is in flight is acked, or at this time.
    pub fn leave(&mut self, until: Instant, now: Instant) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Draining { until };
            self.settle(now);
        }
    }

    /// Whether nothing new is sent any more.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Ended)
    }

    /// What is in flight.
    pub fn in_flight(&self) -> Load {
        self.lanes.iter().map(Lane::load).fold(Load::default(), Load::plus)
    }

    /// The window that holds now.
    pub fn window(&self) -> Load {
        self.window
    }

    /// The oldest batch that is not sent yet, whatever the window.
    pub fn first_unsent(&self) -> Option<(LaneId, u64)> {
        let unsent = |lane: &&Lane| lane.has_unsent();
        let old = self.lanes.iter().filter(|lane| !lane.view.current).find(unsent);
        old.or_else(|| self.lanes.iter().find(unsent)).map(|lane| (lane.id(), lane.send_seq))
    }

    fn send(&mut self, message: Message) {
        self.outputs.push_back(Output::Send(ClientMessage { message: Some(message) }));
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }

    fn end(&mut self, end: End) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.held = None;
            self.awaiting_since = None;
            self.outputs.push_back(Output::End(end));
        }
    }

    fn say_bye(&mut self, end: End) {
        self.send(Message::Bye(proto::Bye {}));
        self.end(end);
    }

    fn violated(&mut self, rule: &'static str) {
        self.end(End::Violation(rule));
    }

    fn open_lanes(&mut self) {
        let at_work =
            |session: &Self| session.lanes.iter().filter(|lane| lane.stage != Stage::Stopped).count();
        while self.phase == Phase::Running
            && at_work(self) < MAX_LANES_AT_WORK
            && self.lanes.len() < MAX_LANES
        {
            let Some(view) = self.unopened.pop_front() else { return };
            self.send(messages::open(self.next_wire, &view));
            self.lanes.push(Lane::new(self.next_wire, view));
            self.next_wire = self.next_wire.saturating_add(1);
        }
    }

    /// The mark has come to `seq`, and our bytes are those that were committed.
    fn believe(&mut self, place: usize, seq: u64) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        let (id, last_seq) = (lane.id(), lane.last_seq());
        if seq > last_seq {
            return self.past_end(place, Note::PastEnd { lane: id, committed_seq: seq, last_seq });
        }
        let acked = lane.acked(seq);
        let wire = lane.wire;
        if acked.batches > 0 {
            self.facts.rejects_in_a_row = 0;
        }
        self.held = self.held.take().filter(|(held, stored)| *held != wire || stored.seq > seq);
        self.outputs.push_back(Output::Acked(acked));
    }

    fn drop_held(&mut self, wire: u32) {
        if self.held.as_ref().is_some_and(|(held, _)| *held == wire) {
            self.held = None;
        }
    }

    /// Another writer has used the lane. What is not acked of it is no longer safe to send.
    fn fork(&mut self, place: usize, seq: u64) {
        if let Some(lane) = self.lanes.get(place) {
            let id = lane.id();
            self.rest(place, Note::Forked { lane: id, seq });
            self.outputs.push_back(Output::SetAside(id));
        }
    }

    /// The collector has more of this lane than we ever numbered. One that is left from an earlier start lost
    /// its end with the power; our own must have a second writer.
    fn past_end(&mut self, place: usize, note: Note) {
        let Some(lane) = self.lanes.get(place) else { return };
        let (id, wire, current) = (lane.id(), lane.wire, lane.view.current);
        self.rest(place, note);
        if !current {
            self.send(Message::Close(proto::Close { lane: wire }));
        }
        self.outputs.push_back(Output::SetAside(id));
    }

    /// Nothing more of this lane is sent or believed on this connection.
    fn rest(&mut self, place: usize, note: Note) {
        let Some(lane) = self.lanes.get_mut(place) else { return };
        lane.stage = Stage::Stopped;
        lane.rewind(0);
        let wire = lane.wire;
        self.drop_held(wire);
        self.note(note);
    }

    /// What follows by itself from anything that happened.
    fn settle(&mut self, now: Instant) {
        if let Some((wire, stored)) = self.held.take() {
            let fits = self.phase == Phase::Running && self.has_room(stored.payload.len() as u64);
            match self.lanes.iter().position(|lane| lane.wire == wire) {
                Some(place) if fits => self.offer(place, stored, now),
                _ => self.held = Some((wire, stored)),
            }
        }
        self.close_done_lanes();
        self.open_lanes();
        let idle = self.lanes.iter().all(Lane::is_idle);
        match self.phase {
            Phase::Draining { .. } if idle => self.say_bye(End::Drained),
            Phase::Running if self.finishing && self.is_delivered() => self.say_bye(End::Finished),
            _ => {}
        }
        let awaits = match self.phase {
            Phase::Greeting => true,
            Phase::Judging | Phase::Ended => false,
            Phase::Running | Phase::Draining { .. } => {
                !idle || self.lanes.iter().any(|lane| lane.stage == Stage::Opening)
            }
        };
        self.awaiting_since = awaits.then(|| self.awaiting_since.unwrap_or(now));
    }

    fn close_done_lanes(&mut self) {
        let done = |lane: &Lane| !lane.view.current && lane.stage == Stage::Open && lane.is_done();
        while let Some(place) = self.lanes.iter().position(done) {
            let lane = self.lanes.remove(place);
            self.send(Message::Close(proto::Close { lane: lane.wire }));
            self.outputs.push_back(Output::Closed(lane.id()));
        }
    }

    fn is_delivered(&self) -> bool {
        self.unopened.is_empty() && self.lanes.iter().all(Lane::is_done)
    }
}

#[cfg(test)]
mod tests;
