//! A proxy: the real spool on a disk in memory, and the real uplink.

use super::keys::{COLLECTOR, PROXIES, keys};
use super::machine::{PORT, Simulated};
use super::notes::{Notes, now_ms};
use crate::proto::Counters;
use crate::simulation::segments;
use crate::simulation::spooled::Spooled;
use crate::simulation::{clock, new_lane};
use crate::spool::Count;
use crate::storage::memory::{Cut, Memory};
use crate::uplink::{self, Link, Live, Parts, Totals};
use arc_swap::ArcSwap;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Batches that no collector can read, of one proxy. With three in a row it would wait for a minute.
const POISONED: u32 = 2;
/// How long it sends what is left when it stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What differs from world to world.
#[derive(Clone, Debug)]
pub struct Habits {
    /// The most payload that is sent, in bytes per second.
    pub max_rate: Option<u64>,
    /// See [`Live`].
    pub max_connection_age: Duration,
    /// See [`Live`].
    pub fresh_after: Duration,
    /// Whether a batch may be one that no collector can read.
    pub poison: bool,
    /// The most that the spool may take on disk.
    pub max_bytes: u64,
    /// The longest pause between two batches.
    pub pause_ms: u64,
}

/// A running process, as the world sees it.
#[derive(Debug)]
struct Life {
    spooled: Spooled,
    metrics: uplink::Metrics,
    link: watch::Receiver<Link>,
}

/// See the module.
#[derive(Debug)]
pub struct Proxy {
    /// Which of [`PROXIES`].
    pub place: usize,
    disk: Arc<Memory>,
    notes: Arc<Notes>,
    habits: Habits,
    life: Mutex<Option<Life>>,
    rng: Mutex<StdRng>,
    poisoned: Mutex<u32>,
    /// No batch comes.
    calm: AtomicBool,
    /// Connections of all its lives.
    connections: Mutex<u64>,
}

impl Proxy {
    /// One that does not run.
    pub fn new(place: usize, seed: u64, habits: Habits, notes: Arc<Notes>) -> Self {
        Self {
            place,
            disk: Arc::default(),
            notes,
            habits,
            life: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            poisoned: Mutex::default(),
            calm: AtomicBool::new(false),
            connections: Mutex::default(),
        }
    }

    /// Its name on the network and in its certificate.
    pub fn name(&self) -> &'static str {
        PROXIES[self.place]
    }

    fn life(&self) -> MutexGuard<'_, Option<Life>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn pause(&self, most_ms: u64) {
        let ms = self.random(|rng| rng.random_range(1..=most_ms));
        sleep(Duration::from_millis(ms)).await;
    }

    /// The process, from its start to its end in order.
    pub async fn live(self: Arc<Self>) -> turmoil::Result {
        self.disk.kill();
        let settings = |settings: &mut crate::spool::Settings| {
            (settings.clock, settings.new_lane) = (clock, new_lane);
            settings.max_bytes = self.habits.max_bytes;
        };
        let spooled = Spooled::open(&self.disk, settings, &self.notes.oracle()).expect("the disk works");
        let (link, seen) = watch::channel(Link::new());
        let metrics = uplink::Metrics::default();
        let parts = Parts {
            spool: spooled.spool.clone(),
            live: Arc::new(ArcSwap::from_pointee(self.settings())),
            metrics: metrics.clone(),
            totals: Totals::new(Counters::default),
            link,
            instance: self.random(Rng::random),
            drain_time: DRAIN_TIME,
        };
        *self.life() = Some(Life { spooled, metrics, link: seen });
        let written = CancellationToken::new();
        let machine = Box::new(Simulated::new(self.random(Rng::random)));
        let uplink = uplink::run_on(machine, parts, written.clone());
        tokio::join!(uplink, self.write(&written), self.take_in(&written));
        Ok(())
    }

    fn settings(&self) -> Live {
        let Habits { max_rate, fresh_after, max_connection_age, .. } = self.habits;
        Live {
            endpoints: vec![format!("https://{COLLECTOR}:{PORT}").parse().unwrap()],
            max_rate,
            fresh_after,
            max_connection_age,
            tls: keys().clients[self.place].clone(),
        }
    }

    /// The writer's thread.
    async fn write(&self, written: &CancellationToken) {
        loop {
            self.pause(40).await;
            let mut life = self.life();
            let Some(Life { spooled, .. }) = &mut *life else { return };
            spooled.write(crate::clock::now(), &mut self.notes.oracle());
            if spooled.has_ended() {
                written.cancel();
                return;
            }
        }
    }

    /// What comes from exporters.
    async fn take_in(&self, written: &CancellationToken) {
        loop {
            self.pause(self.habits.pause_ms).await;
            if written.is_cancelled() {
                return;
            }
            if self.calm.load(Ordering::Relaxed) {
                continue;
            }
            let poison = self.habits.poison && self.random(|rng| rng.random_bool(0.01)) && self.may_poison();
            let filler = self.random(|rng| rng.random_range(0..900));
            let (id, mut batch) = self.notes.oracle().make(self.place, poison, filler);
            batch.received = clock();
            let taken = self.life().as_mut().is_some_and(|life| life.spooled.offer(id, batch));
            self.notes.trace(now_ms(), (self.place, id, taken));
            if !taken {
                self.notes.oracle().refused(id);
            }
        }
    }

    fn may_poison(&self) -> bool {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        *poisoned += 1;
        *poisoned <= POISONED
    }

    /// The process is to stop in order.
    pub fn stop(&self) {
        if let Some(life) = &mut *self.life() {
            life.spooled.close();
        }
    }

    /// Fresh batches get a lane of their own.
    pub fn new_lane(&self) {
        if let Some(life) = &*self.life() {
            life.spooled.spool.new_lane();
        }
    }

    /// Whether no batch comes.
    pub fn calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    /// The process has ended in order.
    pub fn ended(&self) {
        let Some(life) = self.life().take() else { return };
        assert!(life.spooled.has_ended(), "it has ended and its spool has not");
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner) += life.metrics.connections.get();
    }

    /// The process was killed: what it had written is still there.
    pub fn killed(&self) {
        self.gone();
        self.notes.oracle().excuse(self.place, &segments::held(&self.disk));
    }

    /// The power went: only what was durable is sure to be there.
    pub fn cut(&self, cut: Cut) {
        self.gone();
        self.notes.oracle().excuse(self.place, &segments::durable(&self.disk));
        self.random(|rng| self.disk.cut(cut, rng));
    }

    fn gone(&self) {
        if let Some(life) = self.life().take() {
            *self.connections.lock().unwrap_or_else(PoisonError::into_inner) +=
                life.metrics.connections.get();
        }
        self.disk.kill();
    }

    /// What its ledger says is so.
    pub fn assert_ledger(&self) {
        if let Some(life) = &*self.life() {
            let metrics = &life.metrics;
            let records = metrics.committed_records.get() + metrics.committed_raw.get();
            let committed = Count { batches: metrics.committed_batches.get(), records };
            life.spooled.assert_ledger(committed);
        }
    }

    /// All that came in is delivered, and older lanes are closed.
    pub fn is_delivered(&self) -> bool {
        self.life().as_ref().is_some_and(|Life { spooled, .. }| {
            !spooled.is_waiting() && spooled.is_delivered() && spooled.spool.lanes().len() == 1
        })
    }

    /// How it stands, for a message.
    pub fn stand(&self) -> String {
        match &*self.life() {
            Some(life) => {
                format!("{}: {:?}, {:?}", self.name(), life.spooled.spool.lanes(), *life.link.borrow())
            }
            None => format!("{} does not run", self.name()),
        }
    }

    /// Connections that a collector has welcomed, in all its lives.
    pub fn connections(&self) -> u64 {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on its disk.
    pub fn disk(&self) -> &Memory {
        &self.disk
    }
}
