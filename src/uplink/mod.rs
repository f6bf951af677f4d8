//! Sends what the spool holds to the collector, over one gRPC stream in TLS, and reports what is acked.
//!
//! ```text
//! spool --fetch--> session (the rules; pure) --messages--> gRPC / HTTP/2 / TLS / TCP ==> collector
//! spool <--acked-- session <------------------messages---- gRPC / HTTP/2 / TLS / TCP <== collector
//! ```
//!
//! [`run`] keeps one connection, and two for the moment in which one follows the other: it tries the endpoints in turn and waits longer after each failure
//! (`backoff`). What is sent and when is `session`'s; `drive` is its hands. A payload is never copied
//! here: what is in flight is the spool's memory, counted. Batches that have left that memory are read from
//! disk on a thread for blocking work; while nothing is behind, no thread is changed and no timer is set.
//!
//! | if | then |
//! |---|---|
//! | there is no connection, or it breaks | `random(0, min(60 s, 0.5 s * 2^n))` of waiting, the next endpoint; what is not acked is sent again |
//! | the collector refuses three batches in a row | nothing more is set aside; the same batch again after a minute, and an alarm |
//! | the collector shows another mark store than before | it is left; after 10 minutes in which no endpoint has shown the old one, the new one is taken |
//! | the oldest batch has waited for `fresh_after` when a collector welcomes us | the writer begins another lane, so that fresh batches do not wait behind it |
//! | a connection is as old as `max_connection_age`, give or take a fifth | the next one is made before it ends (`succession`) |
//! | the collector asks to end the connection | what is in flight is acked, and the next endpoint takes over |
//! | certificates are replaced while the process runs | the next connection uses them |
//! | the endpoint is no longer configured | the same |
//! | we stop | what the spool still has is sent, for `drain_time` at most; then Bye. What is not acked stays in the spool |

mod backoff;
mod connect;
mod drive;
mod link;
pub(crate) mod machine;
mod metrics;
mod rate;
pub mod session;
mod store;
mod succession;

pub use link::{Link, State};
pub use metrics::{Metrics, Traffic};

use crate::clock;
use crate::proto::Counters;
use crate::spool::Spool;
use crate::tls::ClientConfig;
use arc_swap::ArcSwap;
use backoff::Backoff;
use http::Uri;
use machine::{Machine, System};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::StoreWatch;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait after three refusals in a row.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// A connection that held for so long worked, also if nothing was acked on it.
const WORKED_AFTER: Duration = Duration::from_secs(60);
/// Between two looks at the age of the backlog while there is no connection.
const AGE_INTERVAL: Duration = Duration::from_secs(5);
/// Beyond `drain_time`: for the goodbye.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// What may change while the process runs. Replace the whole.
#[derive(Clone, Debug)]
pub struct Live {
    /// Collectors of one mark store, each `https://HOST:PORT`; at least one.
    pub endpoints: Vec<Uri>,
    /// The most payload that is sent, in bytes per second.
    pub max_rate: Option<u64>,
    /// The age of the backlog at which fresh batches go beside it.
    pub fresh_after: Duration,
    /// The age at which a connection gives way to another, give or take a fifth.
    pub max_connection_age: Duration,
    /// Our certificate, and whom we trust; from [`crate::tls::load_client`].
    pub tls: Arc<ClientConfig>,
}

/// The process's totals, for the heartbeat. Cheap to clone.
#[derive(Clone)]
pub struct Totals(Arc<dyn Fn() -> Counters + Send + Sync>);

impl Totals {
    /// Asks `read` at each heartbeat.
    pub fn new(read: impl Fn() -> Counters + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn read(&self) -> Counters {
        (self.0)()
    }
}

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Totals").field(&self.read()).finish()
    }
}

/// What the uplink is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where batches come from.
    pub spool: Spool,
    /// What may change.
    pub live: Arc<ArcSwap<Live>>,
    /// Where it counts.
    pub metrics: Metrics,
    /// The process's totals.
    pub totals: Totals,
    /// Where it shows how the link stands.
    pub link: watch::Sender<Link>,
    /// 16 random bytes, made at the start of the process.
    pub instance: [u8; 16],
    /// How long to go on sending once we stop.
    pub drain_time: Duration,
}

/// Sends until `stop`, which says that the spool's writer has ended, and then what is left, for
/// [`Parts::drain_time`] at most.
pub async fn run(parts: Parts, stop: CancellationToken) {
    run_on(Box::new(System), parts, stop).await;
}

/// As [`run`], on this machine.
pub(crate) async fn run_on(machine: Box<dyn Machine>, parts: Parts, stop: CancellationToken) {
    let link = parts.link.clone();
    let uplink = Uplink::new(machine, parts);
    let parts = &uplink.parts;
    let last = parts.drain_time.saturating_add(GOODBYE_TIME);
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(last).await;
    };
    tokio::select! {
        biased;
        () = uplink.keep_connected(&stop) => {}
        () = uplink.keep_age_shown() => {}
        () = cut => tracing::warn!("The uplink was cut off at its deadline; the rest stays in the spool"),
    }
    link.send_modify(|link| link.turn(State::Stopped));
}

/// What outlives a connection.
#[derive(Debug)]
struct Uplink {
    machine: Box<dyn Machine>,
    parts: Parts,
    memory: Mutex<Memory>,
}

/// What connections learn for those after them.
#[derive(Debug)]
struct Memory {
    backoff: Backoff,
    store: StoreWatch,
}

impl Uplink {
    fn new(machine: Box<dyn Machine>, parts: Parts) -> Self {
        let memory = Memory { backoff: Backoff::default(), store: StoreWatch::new(clock::now()) };
        Self { machine, parts, memory: Mutex::new(memory) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing here can leave it half changed, so a panic elsewhere does not spoil it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how long the oldest batch has waited, also while there is no connection that could say it better.
    async fn keep_age_shown(&self) {
        loop {
            tokio::time::sleep(AGE_INTERVAL).await;
            if self.parts.metrics.connected.get() == 0 {
                let spool = self.parts.spool.clone();
                // Where it was cut off, what is shown is of a batch of the same segment.
                let _ = self.machine.apart(move || spool.look_for_oldest()).await;
                let since = self.parts.spool.usage().oldest_received;
                let age = since.map(|since| link::age(since, self.machine.unix_ms()));
                self.show_age(age);
            }
        }
    }

    fn show_age(&self, oldest_unsent: Option<Duration>) {
        let seconds = oldest_unsent.unwrap_or_default().as_secs();
        self.parts.metrics.oldest_unsent_seconds.set(i64::try_from(seconds).unwrap_or(i64::MAX));
        let ms = oldest_unsent.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self.parts.link.send_if_modified(|link| std::mem::replace(&mut link.oldest_unsent_ms, ms) != ms);
    }

    /// Shows what an operator should look at.
    fn alarm(&self, text: &str) {
        tracing::error!("{text}");
        self.parts.link.send_modify(|link| link.alarm = Some(text.to_owned()));
    }

    fn is_delivered(&self) -> bool {
        self.parts.spool.lanes().iter().all(|lane| lane.acked_seq.saturating_add(1) >= lane.next_seq)
    }
}

#[cfg(test)]
mod tests;
