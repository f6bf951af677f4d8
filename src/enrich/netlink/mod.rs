//! Names, aliases and speeds of this host's interfaces, as its kernel says, and this host's addresses.
//!
//! Their number is the kernel's: the one in front of the name in `ip a`. They count for senders on this host only.
//!
//! Everything is asked once; after that the kernel tells of each change over the same socket, and nothing is asked again unless
//! something was lost.
//!
//! | if | then |
//! |---|---|
//! | an interface is renamed, or has another alias | its entry is replaced as a whole, at once |
//! | an interface that is down gets another alias | the kernel tells of it when the interface is up again |
//! | an interface is removed | its entry goes, and its addresses; what has its number later has nothing of it |
//! | changes come faster than they are read (ENOBUFS) | counted, and everything is asked again |
//! | an answer was made while something changed | the same: some of it may be missing |
//! | the socket fails | counted; another one, at growing intervals; what was known stays until that has answered |
//! | no socket is to be had: no netlink, or not allowed | said once; nothing has names from it; tried again, at growing intervals up to a minute |
//! | it is switched off | everything from it goes |
//! | there are more interfaces than a table takes | those are left out, and counted; asked again once a minute |

mod interfaces;
mod message;
mod speed;

#[cfg(test)]
mod tests;

use super::book::{Book, Host};
use crate::lines::limited;
use crate::metrics::Labelled;
use interfaces::Interfaces;
use message::Body;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use speed::Speed;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What the kernel tells of: links, IPv4 addresses, IPv6 addresses (RTNLGRP_*).
const GROUPS: [u32; 3] = [1, 5, 9];
/// The kernel makes answers of up to 32 KiB.
const DATAGRAM: usize = 64 << 10;
/// What may wait in the kernel. It grants as much as `net.core.rmem_max` allows.
const BUFFER_BYTES: u32 = 1 << 20;
/// Datagrams that are read before what they say is shown.
const AT_ONCE: usize = 256;
/// How long a start waits for the first answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
/// Least time between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Time after which is asked again what there was no room for.
const FULL_PAUSE: Duration = Duration::from_secs(60);
/// Time after which a question counts as not answered.
const LONGEST_ROUND: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Why it is asked again what there was no room for.
const FULL: &str = "full";

/// What is counted of it. Clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Interfaces known.
    pub interfaces: Gauge,
    /// Addresses known.
    pub addresses: Gauge,
    /// 1 while the kernel tells of changes.
    pub works: Gauge,
    /// Changes told.
    pub changes: Counter,
    /// Rounds of questions, by [`Metrics::ROUNDS`].
    pub rounds: Labelled,
    /// Rounds in which there was no room for all.
    pub full: Counter,
    /// Sockets that could not be had, or failed.
    pub failures: Counter,
}

impl Metrics {
    /// Why everything was asked: a new socket, changes that were lost, an answer that was interrupted by a change, a message
    /// that could not be read, no room for everything.
    pub const ROUNDS: [&str; 5] = ["start", "lost", "interrupted", "unreadable", FULL];

    /// All at zero.
    pub fn new() -> Self {
        Self {
            interfaces: Gauge::default(),
            addresses: Gauge::default(),
            works: Gauge::default(),
            changes: Counter::default(),
            rounds: Labelled::new("reason", &Self::ROUNDS),
            full: Counter::default(),
            failures: Counter::default(),
        }
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| into.register(name, help, gauge.clone());
        gauge("netlink_interfaces", "Interfaces of this host that its kernel has named", &self.interfaces);
        gauge("netlink_addresses", "Addresses of this host", &self.addresses);
        gauge("netlink_works", "1 while the kernel tells of its interfaces", &self.works);
        into.register("netlink_changes", "Changes that the kernel told of", self.changes.clone());
        self.rounds.register(into, "netlink_rounds", "Times that everything was asked, by reason");
        into.register("netlink_full", "Times that there were too many interfaces", self.full.clone());
        into.register("netlink_failures", "Sockets that failed or were not to be had", self.failures.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the book's [`Host`] as the kernel says.
#[derive(Debug)]
pub struct Watch {
    book: Book,
    metrics: Metrics,
    is_on: watch::Receiver<bool>,
    session: Option<Session>,
    /// Said that it does not work, and not yet that it does again.
    has_complained: bool,
    retry: Duration,
    retry_at: Instant,
}

impl Watch {
    /// Asks for everything, if it is switched on, and gives what is to be run; by then the book has it, unless there is no
    /// netlink, or no answer in time. `is_on` switches it off and on later.
    pub async fn start(book: Book, metrics: Metrics, is_on: watch::Receiver<bool>) -> Self {
        let (retry, retry_at) = (FIRST_RETRY, Instant::now());
        let mut watch = Self { book, metrics, is_on, session: None, has_complained: false, retry, retry_at };
        if *watch.is_on.borrow() {
            watch.open();
            if tokio::time::timeout(FIRST_ANSWERS, watch.first_round()).await.is_err() {
                tracing::warn!("The kernel has not told its interfaces in time; they get names once it has");
            }
        }
        watch
    }

    async fn first_round(&mut self) {
        while self.session.as_ref().is_some_and(|session| !session.is_quiet()) {
            self.step().await;
        }
    }

    /// Follows changes until `end` is cancelled.
    pub async fn run(mut self, end: CancellationToken) {
        let mut switch = self.is_on.clone();
        let mut can_change = true;
        while !end.is_cancelled() {
            let is_on = *switch.borrow_and_update();
            if !is_on && self.session.take().is_some() {
                self.forget();
                self.retry_at = Instant::now();
            }
            tokio::select! {
                () = end.cancelled() => {}
                changed = switch.changed(), if can_change => can_change = changed.is_ok(),
                () = self.step(), if is_on => {}
            }
        }
    }

    /// Waits until something comes or is due, and does it.
    async fn step(&mut self) {
        let Some(session) = &mut self.session else {
            tokio::time::sleep_until(self.retry_at).await;
            self.open();
            return;
        };
        match session.step(&self.metrics).await {
            Ok(true) if session.is_complete => {
                self.retry = FIRST_RETRY;
                self.show();
            }
            Ok(_) => {}
            Err(error) => self.fail(&error),
        }
    }

    fn open(&mut self) {
        match Session::open(&self.metrics) {
            Ok(session) => self.session = Some(session),
            Err(error) => {
                self.fail(&error);
                self.forget();
            }
        }
    }

    fn show(&mut self) {
        let Some(session) = &self.session else { return };
        let (interfaces, addresses) = session.interfaces.counts();
        self.metrics.interfaces.set(interfaces as i64);
        self.metrics.addresses.set(addresses as i64);
        self.metrics.works.set(1);
        self.book.set_host(session.interfaces.host());
        if std::mem::take(&mut self.has_complained) {
            tracing::info!(interfaces, "The kernel tells of this host's interfaces again");
        }
    }

    fn forget(&self) {
        self.book.set_host(Host::default());
        let Metrics { interfaces, addresses, works, .. } = &self.metrics;
        for gauge in [interfaces, addresses, works] {
            gauge.set(0);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.session = None;
        self.metrics.failures.inc();
        self.metrics.works.set(0);
        self.retry_at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::warn!(
                %error,
                "The kernel does not tell of this host's interfaces: senders on this host have no names from it"
            );
        }
    }
}

/// What is being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Links,
    Addresses,
    Done,
}

/// One socket, and what has come over it.
struct Session {
    socket: TokioSocket,
    buffer: Vec<u8>,
    interfaces: Interfaces,
    phase: Phase,
    sequence: u32,
    /// A round has been answered as a whole.
    is_complete: bool,
    /// Why there has to be another round.
    again: Option<&'static str>,
    asked: Instant,
    /// Speeds on their way: sysfs asks drivers, which may take their time, and everything else goes on.
    speeds: Option<JoinHandle<Vec<Speed>>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

impl Session {
    fn open(metrics: &Metrics) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        // What it grants by itself does, too.
        let _ = socket.socket_ref().set_rx_buf_sz(BUFFER_BYTES);
        for group in GROUPS {
            socket.socket_ref().add_membership(group)?;
        }
        let mut session = Self {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            interfaces: Interfaces::default(),
            phase: Phase::Done,
            sequence: 0,
            is_complete: false,
            again: None,
            asked: Instant::now(),
            speeds: None,
        };
        session.begin("start", metrics)?;
        Ok(session)
    }

    /// Asks for everything.
    fn begin(&mut self, reason: &'static str, metrics: &Metrics) -> io::Result<()> {
        metrics.rounds.add(reason, 1);
        self.again = None;
        self.asked = Instant::now();
        self.interfaces.begin();
        self.ask(libc::RTM_GETLINK, Phase::Links)
    }

    fn ask(&mut self, kind: u16, phase: Phase) -> io::Result<()> {
        // 0 is what the kernel says by itself.
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.phase = phase;
        let request = message::request(kind, self.sequence);
        self.socket.socket_ref().send_to(&request, &SocketAddr::new(0, 0), 0).map(drop)
    }

    /// Everything is known.
    fn is_quiet(&self) -> bool {
        self.is_complete && self.speeds.is_none() && !self.interfaces.has_unread_speeds()
    }

    /// Waits until something comes or is due, and does it. True if there is something to show.
    async fn step(&mut self, metrics: &Metrics) -> io::Result<bool> {
        if self.is_complete && self.speeds.is_none() && self.interfaces.has_unread_speeds() {
            let of = self.interfaces.take_unread_speeds();
            self.speeds =
                Some(tokio::task::spawn_blocking(move || speed::read(Path::new(speed::FOLDER), of)));
        }
        let due = self.due();
        self.buffer.clear();
        tokio::select! {
            received = self.socket.recv_from(&mut self.buffer) => self.receive(received, metrics),
            speeds = ended(&mut self.speeds) => {
                self.speeds = None;
                Ok(self.interfaces.set_speeds(&speeds))
            }
            () = tokio::time::sleep_until(due.unwrap_or(self.asked)), if due.is_some() => match self.again {
                Some(reason) if self.phase == Phase::Done => self.begin(reason, metrics).map(|()| false),
                _ => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    /// When to ask again, or to give up that there is an answer.
    fn due(&self) -> Option<Instant> {
        let pause = match (self.phase, self.again) {
            (Phase::Done, None) => return None,
            (Phase::Done, Some(FULL)) => FULL_PAUSE,
            (Phase::Done, Some(_)) => ROUND_PAUSE,
            _ => LONGEST_ROUND,
        };
        Some(self.asked + pause)
    }

    /// Takes the first datagram and what else is there.
    fn receive(&mut self, first: io::Result<SocketAddr>, metrics: &Metrics) -> io::Result<bool> {
        let mut next = Some(first);
        let mut is_new = false;
        for _ in 0..AT_ONCE {
            // What is read is taken: a datagram that is read and left would be lost unseen.
            let received = match next.take() {
                Some(first) => first,
                None => {
                    self.buffer.clear();
                    self.socket.socket_ref().recv_from(&mut self.buffer, 0).map(|(_, from)| from)
                }
            };
            match received {
                // Others than the kernel may send here, if they are allowed to.
                Ok(from) if from.port_number() == 0 => is_new |= self.read(metrics)?,
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.repeat("lost");
                    limited!(
                        warn,
                        "Changes of this host's interfaces were lost; all of them are asked again"
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(is_new)
    }

    /// Reads the datagram in the buffer.
    fn read(&mut self, metrics: &Metrics) -> io::Result<bool> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        let mut is_new = false;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let Ok(message) = message::next(&mut rest) else {
                self.repeat("unreadable");
                limited!(warn, "The kernel has told something about its interfaces that cannot be read");
                break;
            };
            is_new |= self.take(message, metrics, &mut result);
        }
        self.buffer = buffer;
        result.map(|()| is_new)
    }

    fn take(&mut self, message: message::Message, metrics: &Metrics, result: &mut io::Result<()>) -> bool {
        let is_answer = message.sequence == self.sequence && self.phase != Phase::Done;
        // An answer to a question that is not asked any more.
        if message.sequence != 0 && !is_answer {
            return false;
        }
        if message.is_interrupted {
            self.repeat("interrupted");
        }
        match message.body {
            Body::End { error: 0 } if is_answer => {
                *result = self.answered(metrics);
                result.is_ok() && self.phase == Phase::Done
            }
            Body::End { error } if is_answer => {
                *result = Err(io::Error::from_raw_os_error(error));
                false
            }
            Body::Overrun => {
                self.repeat("lost");
                false
            }
            body => {
                let is_new = self.interfaces.take(body, is_answer, unix_ms());
                if is_new && !is_answer {
                    metrics.changes.inc();
                }
                // Answers are shown together.
                is_new && !is_answer
            }
        }
    }

    /// One question is answered: asks the next.
    fn answered(&mut self, metrics: &Metrics) -> io::Result<()> {
        if self.phase == Phase::Links {
            return self.ask(libc::RTM_GETADDR, Phase::Addresses);
        }
        self.phase = Phase::Done;
        // What may not be whole takes nothing away.
        if self.again.is_none() {
            self.interfaces.end();
            self.is_complete = true;
        }
        if self.interfaces.is_full {
            metrics.full.inc();
            self.repeat(FULL);
            limited!(warn, "This host has more interfaces than a table takes: some have no names");
        }
        Ok(())
    }

    fn repeat(&mut self, reason: &'static str) {
        self.again = self.again.filter(|known| *known != FULL).or(Some(reason));
    }
}

/// Waits for the end of what is on its way, if anything is.
async fn ended(speeds: &mut Option<JoinHandle<Vec<Speed>>>) -> Vec<Speed> {
    match speeds {
        Some(speeds) => speeds.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
