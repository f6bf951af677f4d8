//! The collector: the reference far end of the stream. It authenticates proxies, commits each batch once and
//! writes it to sinks. What it promises is in `proto/flowproxy/v1/forward.proto`, THE COLLECTOR'S DUTY.
//!
//! ```text
//! TcpListener -> accept (limits, TLS, identity) -> service (gRPC) -> session (the rules; pure)
//!                                                                      | orders      ^ outcomes
//!                                                                      v             |
//!                                                       commit (one thread): lanes, marks, sinks
//! ```
//!
//! | state folder | holds |
//! |---|---|
//! | `marks.redb` | [`marks`]: what must never be forgotten |
//! | `decoding` | [`deaths`]: the batch that is being decoded |
//!
//! Memory is bounded: connections in number, each by its HTTP/2 windows; orders on their way to the commit by
//! one budget in bytes for all streams (a stream that finds none is not read from); a group by its payloads
//! and its text.
//!
//! Stopping: `Drain` to every stream, no new connections; after [`Settings::drain_time`] the streams end and
//! connections are cut, answered or not; the commit finishes what it has at hand and notes that nothing is
//! under way. While store or sinks do not work it gives up instead: what is unanswered comes again.

pub(crate) mod accept;
mod alarms;
pub(crate) mod assembly;
pub(crate) mod commit;
pub mod deaths;
pub mod lane;
pub mod ledger;
pub mod marks;
pub mod metrics;
pub mod registry;
mod service;
pub mod session;
pub mod sinks;
mod stuck;
pub mod trial;

pub use accept::MAX_HANDSHAKES;
pub use commit::Health;
pub use metrics::Metrics;

use crate::tls;
use arc_swap::ArcSwap;
use assembly::{Assembled, Kit, PartsToOpen, spawn_commit};
use marks::StoreError;
use registry::Registry;
use serde::Serialize;
use sinks::{Sink, jsonl, udp};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The largest payload that is taken, in bytes.
pub const MAX_PAYLOAD_BYTES: u32 = 4 << 20;

/// Limits of what proxies may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address.
    pub connections_per_address: usize,
    /// Streams of one identity.
    pub streams_per_identity: usize,
    /// Lanes open on one stream.
    pub lanes_per_stream: usize,
    /// Lanes of one identity in the mark store.
    pub lanes_per_identity: usize,
    /// Batches in flight, over all streams.
    pub window_batches: u32,
    /// Bytes of payloads in flight, over all streams.
    pub window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            connections_per_address: 1024,
            streams_per_identity: 8,
            lanes_per_stream: 1024,
            lanes_per_identity: 4096,
            window_batches: 256,
            window_bytes: 32 << 20,
        }
    }
}

/// Where batches go.
#[derive(Default)]
pub struct Sinks {
    /// Records as JSON lines.
    pub jsonl: Option<jsonl::Settings>,
    /// Raw datagrams by UDP.
    pub udp: Option<udp::Settings>,
    /// Everything, counted only.
    pub null: bool,
    /// Sinks of the program that this library is part of.
    pub others: Vec<Box<dyn Sink>>,
}

/// What a collector is asked to do.
pub struct Settings {
    /// Where it listens; port 0 is any.
    pub listen: SocketAddr,
    /// Its certificate, and the CA that proxies must have theirs from.
    pub tls: Arc<tls::ServerConfig>,
    /// Identities that may come; empty: all that the CA has signed.
    pub allow: BTreeSet<String>,
    /// Where marks are kept.
    pub state_dir: PathBuf,
    /// Where batches go.
    pub sinks: Sinks,
    /// What proxies may take.
    pub limits: Limits,
    /// How long streams may go on once the collector stops.
    pub drain_time: Duration,
}

impl Settings {
    /// The defaults, without a sink.
    pub fn new(listen: SocketAddr, tls: Arc<tls::ServerConfig>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            tls,
            allow: BTreeSet::new(),
            state_dir: state_dir.into(),
            sinks: Sinks::default(),
            limits: Limits::default(),
            drain_time: Duration::from_secs(5),
        }
    }
}

/// Why a collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody has the port.
    #[error("listen {0}: the port is taken; stop what listens there or choose another")]
    PortTaken(SocketAddr),
    /// The socket can not be opened.
    #[error("listen {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The mark store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The JSONL file does not work.
    #[error("sink.jsonl: {0}")]
    File(#[from] jsonl::FileError),
    /// The UDP sink's sockets can not be opened.
    #[error("sink.udp: {0}")]
    Udp(io::Error),
    /// The commit's thread can not be started.
    #[error("the commit's thread can not be started: {0}")]
    Thread(io::Error),
    /// The runtime is going down.
    #[error("the runtime is going down")]
    Runtime,
}

/// What `/status` shows of a collector.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Always "collector".
    pub role: &'static str,
    /// Of flowproxy.
    pub version: &'static str,
    /// Where it listens.
    pub listen: String,
    /// Names the mark store, in hex.
    pub mark_store_id: String,
    /// When it was started, in milliseconds since 1970.
    pub started: u64,
    /// Why store or sinks do not work, if so.
    pub stalled: Option<String>,
    /// Who is or was connected.
    pub proxies: Vec<registry::Proxy>,
}

/// What can be asked of a running collector. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    address: SocketAddr,
    mark_store_id: [u8; 16],
    started_ms: u64,
    registry: Registry,
    health: watch::Receiver<Health>,
}

impl View {
    /// Whether batches can be committed; if not, why.
    ///
    /// # Errors
    /// In words, while store or sinks do not work.
    pub fn ready(&self) -> Result<(), String> {
        self.health.borrow().stalled.clone().map_or(Ok(()), Err)
    }

    /// Everything about it.
    pub fn status(&self) -> Status {
        Status {
            role: "collector",
            version: env!("CARGO_PKG_VERSION"),
            listen: self.address.to_string(),
            mark_store_id: lane::LaneId(self.mark_store_id).to_string(),
            started: self.started_ms,
            stalled: self.health.borrow().stalled.clone(),
            proxies: self.registry.proxies(unix_ms()),
        }
    }
}

/// A collector at work. Dropping it stops it too, without waiting for that.
#[derive(Debug)]
pub struct Running {
    view: View,
    tls: Arc<ArcSwap<tls::ServerConfig>>,
    stop: CancellationToken,
    /// `None` once it is known to have ended.
    supervisor: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.view.address
    }

    /// What can be asked of it.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Certificates for connections that come from now on.
    pub fn set_tls(&self, tls: Arc<tls::ServerConfig>) {
        self.tls.store(tls);
    }

    /// Waits until it has stopped, by [`Running::stop`], by its token, or because it could not go on.
    pub async fn stopped(&mut self) {
        if let Some(supervisor) = &mut self.supervisor {
            // A panic in it has been reported by the runtime.
            let _ = supervisor.await;
            self.supervisor = None;
        }
    }

    /// Stops it in order and waits for that: at most the drain time and some seconds.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.stopped().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts a collector. It stops when `shutdown` is cancelled or [`Running::stop`] is called.
///
/// # Errors
/// When the port, the state folder or a sink can not be used.
pub async fn start(
    settings: Settings,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    let listener = listen(settings.listen).await?;
    let address =
        listener.local_addr().map_err(|source| StartError::Listen { address: settings.listen, source })?;
    let registry = Registry::default();
    let (health_in, health) = watch::channel(Health::default());
    let (stop, alone) = (shutdown.child_token(), CancellationToken::new());
    let Settings { tls, allow, state_dir, sinks, limits, drain_time, .. } = settings;
    let parts = PartsToOpen {
        state_dir,
        sinks,
        lanes_per_identity: limits.lanes_per_identity,
        metrics,
        registry: registry.clone(),
        health: health_in,
        alone: alone.clone(),
        runtime: Handle::current(),
    };
    let parts =
        tokio::task::spawn_blocking(move || parts.open()).await.map_err(|_| StartError::Runtime)??;
    let mark_store_id = parts.store.id();
    announce(address, &allow);
    let tls = Arc::new(ArcSwap::new(tls));
    let kit = Kit { listener, tls: tls.clone(), allow, limits, drain_time, parts, stop: stop.clone(), alone };
    let Assembled { door, service, turns, supervisor } = kit.assemble();
    let commit = spawn_commit(turns, stop.clone())?;
    let ended = async { matches!(tokio::task::spawn_blocking(|| commit.join()).await, Ok(Ok(()))) };
    let supervisor = Some(tokio::spawn(supervisor.run(door, service, ended)));
    let view = View { address, mark_store_id, started_ms: unix_ms(), registry, health };
    Ok(Running { view, tls, stop, supervisor })
}

fn announce(address: SocketAddr, allow: &BTreeSet<String>) {
    tracing::info!(%address, "Listening for proxies");
    if allow.is_empty() {
        tracing::info!("No list of identities: every proxy with a certificate of the CA is taken");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken(address),
        _ => StartError::Listen { address, source },
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
