//! One thread's work: receive, decode, batch, hand to the spool. It shares nothing with other shards.
//!
//! What it receives from is a `Source`: `udp.rs`, `tcp.rs`. What becomes of it is `intake.rs`'s.
//!
//! A shard of UDP never waits on disk, network or a lock that others hold for long: a full queue costs the batch, counted,
//! and the next datagram is read. The shard of TCP waits while the spool is behind: its senders can be slowed.

mod admission;
mod bucket;
pub mod cause;
mod changes;
mod counts;
pub mod facts;
mod intake;
mod keeping;
mod moment;
mod naming;
mod own;
mod senders;
mod tcp;
mod totals;
mod udp;

pub use admission::{Admission, Limits, Networks};
pub use senders::{ExporterRow, ExporterView};
pub use totals::{ByUnit, Sets, Totals};

use crate::batch;
use crate::enrich::Book;
use crate::ingest::Sockets;
use crate::ingest::tcp::Inbox;
use crate::keeper;
use crate::metrics::Ingest;
use crate::spool::{LastHeard, Sender};
use crate::wire::{self, Decoder};
use arc_swap::ArcSwap;
use counts::Close;
use intake::Intake;
use moment::Moment;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tcp::Tcp;
use udp::Udp;

/// When a batch is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// By size.
    pub limits: batch::Limits,
    /// By age: how long its first record may wait.
    pub max_delay: Duration,
}

/// What a shard works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// May be changed while the shard runs.
    pub batch: Arc<ArcSwap<BatchSettings>>,
    /// Whose datagrams are taken, and how many. May be changed, too.
    pub admission: Arc<ArcSwap<Admission>>,
    /// How datagrams are decoded.
    pub wire: wire::Settings,
    /// What it counts into.
    pub metrics: Ingest,
    /// Where sealed batches go.
    pub queue: Sender,
    /// Where it shows its exporters.
    pub exporters: ExporterView,
    /// What exporters, their interfaces and addresses are called.
    pub names: Book,
    /// What exporters counted up to in the spool's last batches.
    pub before: LastHeard,
    /// Set to end it.
    pub stop: Arc<AtomicBool>,
}

/// How long it waits for datagrams before it looks whether it should end.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// How often it publishes what changes slowly: exporters, templates, kernel drops.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// How long a source that can wait does so, before it looks again whether the spool has caught up.
const WAIT_FOR_SPOOL: Duration = Duration::from_millis(5);

/// Runs a shard until `context.stop` is set, then empties its sockets, seals what is open and returns. Dropping the
/// context's queue is what tells the spool that it has ended.
///
/// `kept` is what its exporters had told before the last start, what was used longest ago first; `keeper` is where
/// what they tell from now on is handed over.
pub fn run(sockets: Sockets, context: Context, keeper: keeper::Sender, kept: &[keeper::Row]) {
    Shard::new(Udp::new(sockets, &context, keeper, kept), context).run();
}

/// Runs the shard of all TCP connections until what fills `inbox` is gone; `context.stop` does not concern it.
pub fn run_tcp(inbox: Inbox, context: Context) {
    Shard::new(Tcp::new(inbox, &context), context).run();
}

/// What a shard reads from, with the decoders for it.
trait Source {
    /// What is not read now is not lost: nothing is read, and nothing sealed, while the spool is behind.
    const CAN_WAIT: bool;

    /// Nothing more is to be read, but for what [`Source::end`] still finds.
    fn is_over(&self) -> bool;

    /// Gives what is there to `intake`, without waiting and not more than some, and tells how much it was.
    fn read(&mut self, clock: &Clock, intake: &mut Intake) -> usize;

    /// Waits for more after a read that took so much, `longest` at the most.
    fn pause(&mut self, taken: usize, longest: Duration);

    /// Does what is due about every second.
    fn tick(&mut self, clock: &Clock, intake: &mut Intake, metrics: &Ingest);

    /// Reads what is left, and gives up what is held.
    fn end(&mut self, clock: &Clock, intake: &mut Intake);

    /// Its decoders.
    fn decoders(&self) -> impl Iterator<Item = &Decoder>;

    /// What its decoders know.
    fn state(&self) -> State;
}

/// A shard's clocks.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
}

impl Clock {
    fn now(&self) -> Moment {
        Moment { unix_ms: unix_ms(), elapsed_ms: self.elapsed_ms() }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// What a source's decoders know.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    templates: usize,
    held_bytes: usize,
    /// Templates given up so far.
    evicted: u64,
    /// Things told in options that there was no room for.
    refused: u64,
}

impl std::ops::Add<&Decoder> for State {
    type Output = State;

    fn add(self, decoder: &Decoder) -> State {
        let (_, held_bytes) = decoder.held();
        State {
            templates: self.templates + decoder.domains().templates(),
            held_bytes: self.held_bytes + held_bytes,
            evicted: self.evicted + decoder.domains().evicted(),
            refused: self.refused + decoder.domains().refused(),
        }
    }
}

struct Shard<S> {
    source: S,
    intake: Intake,
    context: Context,
    clock: Clock,
    published: Instant,
    /// Already shown in the metrics, which all shards share.
    shown: State,
    shown_exporters: usize,
}

impl<S: Source> Shard<S> {
    fn new(source: S, context: Context) -> Shard<S> {
        let now = Instant::now();
        Shard {
            source,
            intake: Intake::new(&context),
            context,
            clock: Clock { started: now },
            published: now,
            shown: State::default(),
            shown_exporters: 0,
        }
    }

    fn run(mut self) {
        while !self.source.is_over() {
            let waits = self.waits();
            let taken = if waits { 0 } else { self.source.read(&self.clock, &mut self.intake) };
            let now = Instant::now();
            if !waits {
                self.intake.close_by_age(now);
            }
            if now >= self.published + PUBLISH_INTERVAL {
                self.publish(now);
            }
            if waits {
                std::thread::sleep(WAIT_FOR_SPOOL);
            } else {
                let due = self.intake.due().map_or(LONGEST_WAIT, |due| due.saturating_duration_since(now));
                self.source.pause(taken, due.min(LONGEST_WAIT));
            }
        }
        while self.waits() {
            std::thread::sleep(WAIT_FOR_SPOOL);
        }
        self.source.end(&self.clock, &mut self.intake);
        self.intake.close(Close::End);
        self.publish(Instant::now());
    }

    fn waits(&self) -> bool {
        S::CAN_WAIT && self.intake.is_behind()
    }

    fn publish(&mut self, now: Instant) {
        self.published = now;
        let metrics = &self.context.metrics;
        self.source.tick(&self.clock, &mut self.intake, metrics);
        self.intake.refresh_names();
        self.intake.flush_counts();
        let (state, exporters) = (self.source.state(), self.intake.senders().len());
        metrics.templates_evicted.inc_by(state.evicted - self.shown.evicted);
        metrics.options_refused.inc_by(state.refused - self.shown.refused);
        metrics.templates.inc_by(state.templates as i64 - self.shown.templates as i64);
        metrics.set_bytes_held.inc_by(state.held_bytes as i64 - self.shown.held_bytes as i64);
        metrics.exporters.inc_by(exporters as i64 - self.shown_exporters as i64);
        (self.shown, self.shown_exporters) = (state, exporters);
        let told = self.source.decoders().flat_map(Decoder::senders);
        self.intake.senders().publish(told, &self.context.exporters, self.clock.now());
    }
}

/// The wall clock, in milliseconds since 1970; 0 before that.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
