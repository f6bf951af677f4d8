//! Asks all devices that flow comes from, again and again, each at its own pace.

use super::board::{Board, Row};
use super::credential::{Credential, Credentials, Level};
use super::device::{Device, Told};
use super::error::Error;
use super::metrics::Metrics;
use super::reading::{self, Reading, System};
use super::session::{self, Session};
use crate::batch::SenderText;
use crate::clock;
use crate::config;
use crate::enrich::book::Asked;
use crate::enrich::{Book, Seen};
use crate::lines::limited;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Devices that are known at once. Flow of others gets its names from elsewhere.
pub const MOST_DEVICES: usize = 10_000;
/// Devices that are asked at once,
const MOST_ASKED: usize = 256;
/// and those among them that failed before: they may not hold up those that answer.
const MOST_FAILING: usize = 64;
/// Devices whose interfaces are read at once: before that they are only asked who they are, which takes little.
const MOST_READ: usize = 32;
/// The longest that a reading may take.
pub(super) const READING_TIME: Duration = Duration::from_secs(300);
/// How often devices without flow are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The source: what it needs, and where its names go.
#[derive(Debug)]
pub struct Source {
    /// What it fills, and where it hears of devices.
    pub book: Book,
    /// Credentials; those of a new config come through it.
    pub settings: watch::Receiver<Vec<config::Snmp>>,
    /// What it counts.
    pub metrics: Metrics,
    /// What it shows of devices.
    pub board: Board,
}

impl Source {
    /// Asks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let settings = self.settings.clone();
        let credentials = Credentials::new(&settings.borrow(), &Credentials::default());
        let mut rounds = Rounds {
            credentials,
            source: self,
            devices: HashMap::new(),
            asked: FuturesUnordered::new(),
            failing: 0,
            readers: Arc::new(Semaphore::new(MOST_READ)),
        };
        rounds.run(settings, stop).await;
    }
}

/// Where the conversation with a device has come to.
enum Step {
    /// It has said who it is.
    Met { device: IpAddr, session: Session, system: System, by: Tried },
    /// It has told its interfaces.
    Read { device: IpAddr, reading: Reading, by: Tried },
    /// It has not.
    Failed { device: IpAddr, error: Error, by: Tried },
}

/// The credential at work, those left to try, and since when.
struct Tried {
    credential: Arc<Credential>,
    rest: Vec<Arc<Credential>>,
    since: Instant,
    was_failing: bool,
}

struct Rounds {
    source: Source,
    credentials: Credentials,
    devices: HashMap<IpAddr, Device>,
    asked: FuturesUnordered<BoxFuture<'static, Step>>,
    /// Of those asked, how many failed before.
    failing: usize,
    readers: Arc<Semaphore>,
}

impl Rounds {
    async fn run(&mut self, mut settings: watch::Receiver<Vec<config::Snmp>>, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let next = self.start_due(clock::now());
            let wait = next.map_or(SWEEP, |next| next.saturating_duration_since(clock::now()));
            let book = self.source.book.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(step) = self.asked.next(), if !self.asked.is_empty() => self.step(step),
                seen = book.seen(), if !self.credentials.is_empty() => self.seen(seen),
                Ok(()) = settings.changed() => {
                    let new = settings.borrow_and_update().clone();
                    self.reload(&new);
                }
                _ = sweep.tick() => self.forget_idle(),
                () = tokio::time::sleep(wait), if next.is_some() => {}
            }
        }
    }

    /// Flow has come from these.
    fn seen(&mut self, seen: Vec<Seen>) {
        let now = clock::now();
        for Seen { device, restarted } in seen {
            let room = self.devices.len() < MOST_DEVICES;
            if let Some(known) = self.devices.get_mut(&device) {
                known.seen = now;
                if restarted {
                    self.source.metrics.renumbered.add("flow", 1);
                    known.restarted(now);
                    self.drop_names(device);
                }
            } else if self.credentials.of(device).is_empty() {
            } else if room {
                self.devices.insert(device, Device::new(now));
                self.source.book.set_asked(device, Some(Asked::Waiting));
            } else {
                self.source.metrics.devices_left_out.inc();
            }
        }
        self.count();
    }

    /// Asks whoever is due and there is room for; when the next one will be, if it is only time that it waits for.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        let waits = |(_, device): &(&IpAddr, &Device)| !device.is_asked;
        let mut due: Vec<_> = self.devices.iter().filter(waits).map(|(ip, it)| (it.due, *ip)).collect();
        due.sort_unstable();
        for (at, ip) in due {
            if at > now {
                return Some(at);
            }
            if self.asked.len() >= MOST_ASKED {
                return None;
            }
            self.start(ip, now);
        }
        None
    }

    fn start(&mut self, ip: IpAddr, now: Instant) {
        let mut candidates = self.credentials.of(ip);
        let Some(device) = self.devices.get_mut(&ip) else { return };
        let was_failing = device.failures > 0;
        if was_failing && self.failing >= MOST_FAILING {
            return;
        }
        let taken = device.takes.as_ref();
        candidates.sort_by_key(|candidate| taken.is_none_or(|taken| !Arc::ptr_eq(taken, candidate)));
        let mut candidates = candidates.into_iter();
        let Some(credential) = candidates.next() else { return };
        device.is_asked = true;
        self.failing += usize::from(was_failing);
        let by = Tried { credential, rest: candidates.collect(), since: now, was_failing };
        let is_probed = device.is_probed();
        self.asked.push(Box::pin(meet(ip, by, is_probed, self.source.metrics.clone())));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Met { device, session, system, by } => {
                let now = clock::now();
                let anew = self.devices.get(&device).is_some_and(|it| it.started_anew(&system, now));
                if anew {
                    self.started_anew(device);
                }
                self.asked.push(Box::pin(read(device, session, system, by, Arc::clone(&self.readers))));
            }
            Step::Read { device, reading, by } => {
                self.failing -= usize::from(by.was_failing);
                self.read(device, &reading, by);
            }
            Step::Failed { device, error, mut by } => {
                if error.asks_for_another() && !by.rest.is_empty() && self.devices.contains_key(&device) {
                    self.source.metrics.count_walk(Err(&error));
                    by.credential = by.rest.remove(0);
                    self.asked.push(Box::pin(meet(device, by, false, self.source.metrics.clone())));
                    return;
                }
                self.failing -= usize::from(by.was_failing);
                if error == Error::Restarted {
                    self.started_anew(device);
                }
                self.fail(device, error, &by);
            }
        }
        self.count();
    }

    fn read(&mut self, ip: IpAddr, reading: &Reading, by: Tried) {
        let (now, now_ms) = (clock::now(), unix_ms());
        let metrics = &self.source.metrics;
        metrics.count_walk(Ok(()));
        metrics.walk_milliseconds.inc_by(milliseconds(now.saturating_duration_since(by.since)));
        metrics.interfaces_left_out.inc_by(reading.left_out);
        let Some(device) = self.devices.get_mut(&ip) else { return };
        let table = Arc::new(reading.table(now_ms));
        if device.is_renamed(&table) {
            metrics.renumbered.add("name_changed", 1);
            limited!(info, device = %ip, "Interfaces of a device have other names than before");
            self.source.book.set_last_known(ip, None);
        }
        if device.told.is_none() || device.failures > 0 {
            let (name, interfaces) = (&reading.system.name, table.interfaces.len());
            limited!(info, device = %ip, name, interfaces, "A device has told the names of its interfaces");
        }
        let again = device.again;
        let told = Told { at: now, system: reading.system.clone(), table: Arc::clone(&table) };
        let interval = by.credential.settings.interval;
        self.source.board.show(ip, Row::read(&reading.system, &reading.interfaces, &by.credential, now_ms));
        device.read(told, by.credential, (interval, rand::random()));
        // What was read while it started anew may be of the life before.
        if again {
            device.told = None;
            return;
        }
        self.source.book.set_snmp(ip, Some(table));
        if !self.source.book.has_snmp(ip)
            && let Some(told) = &mut device.told
        {
            // The book had no room for it: nor has this.
            told.table = Arc::default();
        }
        let name = SenderText { name: reading.system.name.clone(), ..SenderText::default() };
        self.source.book.set_device_name(ip, Some(Arc::new(name)).filter(|text| !text.name.is_empty()));
    }

    fn fail(&mut self, ip: IpAddr, error: Error, by: &Tried) {
        let (now, now_ms) = (clock::now(), unix_ms());
        self.source.metrics.count_walk(Err(&error));
        let took = now.saturating_duration_since(by.since);
        self.source.metrics.walk_milliseconds.inc_by(milliseconds(took));
        let Some(device) = self.devices.get_mut(&ip) else { return };
        if device.failed.as_ref() != Some(&error) {
            limited!(warn, device = %ip, %error, "A device does not tell the names of its interfaces");
        }
        self.source.board.fail(ip, &error, now_ms);
        if device.told.is_none() {
            self.source.book.set_asked(ip, Some(Asked::NoAnswer));
        }
        device.fail(error, now, (by.credential.settings.interval, rand::random()));
    }

    /// A new config: who has no credential any more is forgotten, who has others is asked with them at once.
    fn reload(&mut self, new: &[config::Snmp]) {
        self.credentials = Credentials::new(new, &self.credentials);
        let now = clock::now();
        let all: Vec<_> = self.devices.keys().copied().collect();
        for ip in all {
            let candidates = self.credentials.of(ip);
            let Some(device) = self.devices.get_mut(&ip) else { continue };
            if candidates.is_empty() {
                self.forget(ip);
            } else if !device
                .takes
                .as_ref()
                .is_some_and(|taken| candidates.iter().any(|it| Arc::ptr_eq(it, taken)))
            {
                (device.takes, device.failures, device.due) = (None, 0, now);
            }
        }
        self.count();
    }

    fn forget_idle(&mut self) {
        let now = clock::now();
        let idle: Vec<_> = self.devices.iter().filter(|(_, it)| it.is_idle(now)).map(|(ip, _)| *ip).collect();
        idle.into_iter().for_each(|ip| self.forget(ip));
        self.count();
    }

    fn forget(&mut self, ip: IpAddr) {
        self.devices.remove(&ip);
        self.source.book.retire_snmp(ip);
        self.source.board.forget(ip);
    }

    /// By what it says of itself.
    fn started_anew(&mut self, ip: IpAddr) {
        self.source.metrics.renumbered.add("uptime", 1);
        limited!(info, device = %ip, "A device has started anew: names that it told do not hold any more");
        if let Some(device) = self.devices.get_mut(&ip) {
            device.told = None;
        }
        self.drop_names(ip);
    }

    /// Names that the device told do not hold: its numbers may stand for other interfaces.
    fn drop_names(&self, ip: IpAddr) {
        self.source.book.set_snmp(ip, None);
        self.source.book.set_last_known(ip, None);
    }

    fn count(&self) {
        let read = self.devices.values().filter(|it| it.failures == 0 && it.told.is_some()).count();
        self.source.metrics.devices.set(i64::try_from(self.devices.len()).unwrap_or(i64::MAX));
        self.source.metrics.devices_read.set(i64::try_from(read).unwrap_or(i64::MAX));
    }
}

/// Asks a device who it is.
async fn meet(device: IpAddr, by: Tried, is_probed: bool, metrics: Metrics) -> Step {
    let met = async {
        let retries = if is_probed { 0 } else { by.credential.settings.retries };
        let session = Session::open(&by.credential, device, (Level::Whole, retries), &metrics).await?;
        let system = reading::system(&session).await?;
        Ok((session, system))
    };
    match met.await {
        Ok((session, system)) => Step::Met { device, session, system, by },
        Err(error) => {
            let error = session::explain(error, &by.credential, device, &metrics).await;
            Step::Failed { device, error, by }
        }
    }
}

async fn read(device: IpAddr, session: Session, system: System, by: Tried, readers: Arc<Semaphore>) -> Step {
    // It is never closed.
    let _turn = readers.acquire().await;
    match tokio::time::timeout(READING_TIME, reading::interfaces(&session, system)).await {
        Ok(Ok(reading)) => Step::Read { device, reading, by },
        Ok(Err(error)) => Step::Failed { device, error, by },
        Err(_) => Step::Failed { device, error: Error::TooSlow(READING_TIME.as_secs()), by },
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}
