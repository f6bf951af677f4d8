//! One thread's work: receive, decode, batch, hand to the spool. It shares nothing with other shards.
//!
//! A shard never waits on disk, network or a lock that others hold for long: a full queue costs the batch, counted,
//! and the next datagram is read.

mod exporters;
mod faults;
mod intake;

pub use exporters::{ExporterRow, ExporterView};

use crate::batch;
use crate::ingest::{BATCH, Receiver, Sockets, Use};
use crate::metrics::Ingest;
use crate::spool::Sender;
use crate::wire::{self, Decoder};
use arc_swap::ArcSwap;
use intake::{Close, Intake, Moment};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// How datagrams are decoded.
    pub wire: wire::Settings,
    /// What it counts into.
    pub metrics: Ingest,
    /// Where sealed batches go.
    pub queue: Sender,
    /// Where it shows its exporters.
    pub exporters: ExporterView,
    /// Set to end it.
    pub stop: Arc<AtomicBool>,
}

/// How long it waits for datagrams before it looks whether it should end.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// How often it publishes what changes slowly: exporters, templates, kernel drops.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);
/// How long it goes on emptying the sockets once it should end.
const LAST_READS: Duration = Duration::from_secs(1);

/// Runs a shard until `context.stop` is set, then empties its sockets, seals what is open and returns. Dropping the
/// context's queue is what tells the spool that it has ended.
pub fn run(sockets: Sockets, context: Context) {
    let rest = sockets.rest();
    let mut shard = Shard {
        receiver: Receiver::new(),
        decoder: Decoder::new(context.wire),
        intake: Intake::new(&context),
        started: Instant::now(),
        published: Instant::now(),
        evicted: 0,
        known: Known::default(),
        sockets,
        context,
    };
    while !shard.context.stop.load(Ordering::Relaxed) {
        let taken = shard.read_all();
        let now = Instant::now();
        shard.intake.close_by_age(now);
        if now >= shard.published + PUBLISH_INTERVAL {
            shard.publish(now);
        }
        if taken == 0 {
            shard.wait(now);
        } else if taken < BATCH {
            // A short read says that the reader is faster than the senders: resting a moment makes the next one
            // longer, and calls fewer.
            std::thread::sleep(rest);
        }
    }
    let until = Instant::now() + LAST_READS;
    while shard.read_all() > 0 && Instant::now() < until {}
    shard.decoder.end(&mut shard.intake);
    shard.intake.close(Close::End);
    shard.publish(Instant::now());
}

struct Shard {
    sockets: Sockets,
    receiver: Receiver,
    decoder: Decoder,
    intake: Intake,
    context: Context,
    started: Instant,
    published: Instant,
    /// Template evictions already counted.
    evicted: u64,
    /// Already shown in the gauges, which all shards share.
    known: Known,
}

/// What a shard adds to the gauges.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    templates: i64,
    exporters: i64,
    held_bytes: i64,
}

impl Shard {
    /// One call on each socket; the most datagrams that one of them gave.
    fn read_all(&mut self) -> usize {
        let mut most = 0;
        for listener in &self.sockets.listeners {
            let taken = match self.receiver.receive(listener) {
                Ok(taken) => taken,
                Err(error) => {
                    // Nothing is lost by it: the kernel keeps what it has, and the next call tries again.
                    tracing::debug!(%error, local = %listener.local, "receive failed");
                    0
                }
            };
            if taken == 0 {
                continue;
            }
            most = most.max(taken);
            let now = Moment { unix_ms: unix_ms(), elapsed_ms: self.elapsed_ms() };
            for datagram in self.receiver.datagrams() {
                let decoder = match listener.usage {
                    Use::Flow => Some(&mut self.decoder),
                    Use::Raw => None,
                };
                self.intake.datagram(&datagram, listener.local.port(), now, decoder);
            }
            self.intake.flush_counts();
        }
        most
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Waits for datagrams, at most until the open batch is due.
    fn wait(&mut self, now: Instant) {
        let due = self.intake.due().map_or(LONGEST_WAIT, |due| due.saturating_duration_since(now));
        if let Err(error) = self.sockets.wait(due.min(LONGEST_WAIT)) {
            tracing::warn!(%error, "waiting for datagrams failed");
            std::thread::sleep(LONGEST_WAIT);
        }
    }

    fn publish(&mut self, now: Instant) {
        self.published = now;
        self.decoder.tick(self.elapsed_ms(), &mut self.intake);
        self.intake.flush_counts();
        let metrics = &self.context.metrics;
        for listener in &mut self.sockets.listeners {
            let dropped = listener.newly_dropped();
            if dropped > 0 {
                metrics.datagrams_dropped_by_kernel.inc_by(dropped);
                tracing::warn!(dropped, local = %listener.local, "the kernel dropped datagrams at a full receive buffer");
            }
        }
        let evicted = self.decoder.domains().evicted();
        metrics.templates_evicted.inc_by(evicted - self.evicted);
        self.evicted = evicted;
        let (_, held_bytes) = self.decoder.held();
        let known = Known {
            templates: self.decoder.domains().templates() as i64,
            exporters: self.intake.exporters().len() as i64,
            held_bytes: held_bytes as i64,
        };
        metrics.templates.inc_by(known.templates - self.known.templates);
        metrics.exporters.inc_by(known.exporters - self.known.exporters);
        metrics.set_bytes_held.inc_by(known.held_bytes - self.known.held_bytes);
        self.known = known;
        self.intake.exporters().publish(&self.context.exporters);
    }
}

/// The wall clock, in milliseconds since 1970; 0 before that.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
