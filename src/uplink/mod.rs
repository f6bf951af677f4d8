//! Sends what the spool holds to the collector, over one gRPC stream in TLS, and reports what is acked.
//!
//! ```text
//! spool --fetch--> session (the rules; pure) --messages--> gRPC / HTTP/2 / TLS / TCP ==> collector
//! spool <--acked-- session <------------------messages---- gRPC / HTTP/2 / TLS / TCP <== collector
//! ```
//!
//! [`run`] keeps one connection: it tries the endpoints in turn and waits longer after each failure
//! (`backoff`). What is sent and when is `session`'s; `drive` is its hands. A payload is never copied
//! here: what is in flight is the spool's memory, counted. Batches that have left that memory are read from
//! disk on a thread for blocking work; while nothing is behind, no thread is changed and no timer is set.
//!
//! | if | then |
//! |---|---|
//! | there is no connection, or it breaks | `random(0, min(60 s, 0.5 s * 2^n))` of waiting, the next endpoint; what is not acked is sent again |
//! | the collector refuses three batches in a row | nothing more is set aside; the same batch again after a minute, and an alarm |
//! | the collector shows another mark store than before | it is left; after 10 minutes in which no endpoint has shown the old one, the new one is taken |
//! | the oldest batch has waited for a minute when a collector welcomes us | the writer begins another lane, so that fresh batches do not wait behind it |
//! | certificates are replaced while the process runs | the next connection uses them |
//! | the endpoint is no longer configured | goodbye to it, the next one |
//! | we stop | what the spool still has is sent, for `drain_time` at most; then Bye. What is not acked stays in the spool |

mod backoff;
mod connect;
mod drive;
mod link;
mod metrics;
mod rate;
pub mod session;

pub use link::{Link, State};
pub use metrics::{Metrics, Traffic};

use crate::proto::Counters;
use crate::spool::{LaneId, Spool};
use crate::tls::ClientConfig;
use arc_swap::ArcSwap;
use backoff::Backoff;
use drive::{Drive, Ended};
use http::Uri;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait after three refusals in a row.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// A connection that held for so long worked, also if nothing was acked on it.
const WORKED_AFTER: Duration = Duration::from_secs(60);
/// Beyond `drain_time`: for the goodbye.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// What may change while the process runs. Replace the whole.
#[derive(Clone, Debug)]
pub struct Live {
    /// Collectors of one mark store, each `https://HOST:PORT`; at least one.
    pub endpoints: Vec<Uri>,
    /// The most payload that is sent, in bytes per second.
    pub max_rate: Option<u64>,
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
    let link = parts.link.clone();
    let last = parts.drain_time.saturating_add(GOODBYE_TIME);
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(last).await;
    };
    tokio::select! {
        () = Uplink::new(parts).keep_connected(&stop) => {}
        () = cut => tracing::warn!("The uplink was cut off at its deadline; the rest stays in the spool"),
    }
    link.send_modify(|link| link.turn(State::Stopped));
}

/// What outlives a connection.
#[derive(Debug)]
struct Uplink {
    parts: Parts,
    backoff: Backoff,
    /// The highest number of each lane that this process has sent: what of it is acked unseen is counted.
    sent: HashMap<LaneId, u64>,
    /// When an endpoint last showed the mark store that the spool knows.
    store_seen_at: Instant,
}

impl Uplink {
    fn new(parts: Parts) -> Self {
        Self { parts, backoff: Backoff::default(), sent: HashMap::new(), store_seen_at: Instant::now() }
    }

    async fn keep_connected(mut self, stop: &CancellationToken) {
        for turn in 0_usize.. {
            let live = self.parts.live.load_full();
            let Some(endpoint) = turn.checked_rem(live.endpoints.len()).and_then(|n| live.endpoints.get(n))
            else {
                return;
            };
            let last = stop.is_cancelled();
            let ended = self.attempt(endpoint, &live, stop).await;
            let wait = match ended {
                Ended::Finished => return,
                Ended::Left => self.backoff.failed(rand::random()),
                Ended::Failed(reason) => self.failed(endpoint, reason),
                Ended::Refused(reason) => {
                    self.alarm(&reason);
                    self.failed(endpoint, reason).max(REFUSED_WAIT)
                }
            };
            if last || (stop.is_cancelled() && self.is_delivered()) {
                return;
            }
            tracing::debug!(?wait, "Next attempt");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => if self.is_delivered() { return },
            }
        }
    }

    /// One connection, from its making to its end.
    async fn attempt(&mut self, endpoint: &Uri, live: &Live, stop: &CancellationToken) -> Ended {
        self.parts.link.send_modify(|link| {
            link.turn(State::Connecting);
            link.endpoint = endpoint.to_string();
        });
        match connect::connect(endpoint, live.tls.clone(), &self.parts.metrics.traffic).await {
            Err(error) => Ended::Failed(error.to_string()),
            Ok(connection) => {
                let begun = Instant::now();
                let ended = Drive::run(self, connection, endpoint, stop).await;
                if begun.elapsed() >= WORKED_AFTER {
                    self.backoff.worked();
                }
                self.parts.metrics.connected.set(0);
                ended
            }
        }
    }

    fn failed(&mut self, endpoint: &Uri, reason: String) -> Duration {
        let wait = self.backoff.failed(rand::random());
        self.parts.metrics.failures.inc();
        tracing::warn!(%endpoint, failures = self.backoff.failures(), "No link: {reason}");
        self.parts.link.send_modify(|link| {
            link.turn(State::BackingOff);
            link.last_error = Some(reason);
        });
        wait
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
