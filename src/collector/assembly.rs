//! Puts the collector together, runs its tasks and ends them in order.

use super::accept::{Connection, Door, Listen};
use super::commit::{Commit, Health, Parts, Request};
use super::deaths::Deaths;
use super::marks::Redb;
use super::metrics::Metrics;
use super::registry::Registry;
use super::service::{Service, Shared};
use super::sinks::{Null, jsonl, udp};
use super::stuck::Watched;
use super::trial;
use super::{Limits, MAX_PAYLOAD_BYTES, Sinks, StartError, session, unix_ms};
use crate::clock;
use crate::proto::Window;
use crate::proto::forward_server::ForwardServer;
use crate::storage::{Disk, Storage};
use crate::tls;
use arc_swap::ArcSwap;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// The largest message that is read, in bytes: a payload and what goes round it.
const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// HTTP/2 flow control: 100 Mbit/s at 200 ms. Never below 65,535 (RFC 9113 section 6.9.2).
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Orders that wait for the commit.
const WAITING_ORDERS: usize = 1024;
/// Connections that have passed their handshake and wait to be served.
const WAITING_CONNECTIONS: usize = 64;
/// How often the commit looks for what time has made due, and tries again what has failed.
const TICK: Duration = Duration::from_secs(1);
/// How long connections get to end once they are cut, and the commit once it is alone.
const LAST_MOMENTS: Duration = Duration::from_secs(10);

/// What is opened before the first connection, by calls that block.
pub(super) struct PartsToOpen {
    pub(super) state_dir: PathBuf,
    pub(super) sinks: Sinks,
    pub(super) lanes_per_identity: usize,
    pub(super) metrics: Metrics,
    pub(super) registry: Registry,
    pub(super) health: watch::Sender<Health>,
    pub(super) alone: CancellationToken,
    pub(super) runtime: Handle,
}

impl PartsToOpen {
    pub(super) fn open(self) -> Result<Parts, StartError> {
        let mut store = Redb::open(&self.state_dir)?;
        let disk: Arc<dyn Storage> = Arc::new(Disk);
        let deaths = Deaths::open(disk.as_ref(), &self.state_dir, &mut store)?;
        announce(&self.sinks);
        let Sinks { jsonl, udp, null, others } = self.sinks;
        let now_ms = unix_ms();
        let file = match jsonl {
            Some(settings) => Some(jsonl::recover(disk, settings, &mut store, now_ms)?),
            None => {
                jsonl::retire(disk, &mut store, now_ms)?;
                None
            }
        };
        let mut sinks = others;
        if let Some(settings) = udp {
            sinks.push(Box::new(udp::Udp::open(settings).map_err(StartError::Udp)?));
        }
        if null {
            sinks.push(Box::new(Null));
        }
        let (alone, runtime) = (self.alone, self.runtime);
        let patience = Box::new(move || {
            runtime.block_on(async { tokio::time::timeout(TICK, alone.cancelled()).await }).is_err()
        });
        Ok(Parts {
            store: Box::new(store),
            file,
            sinks,
            deaths,
            trial: trial::by_child(),
            lanes_per_identity: self.lanes_per_identity,
            metrics: self.metrics,
            registry: self.registry,
            health: self.health,
            clock: unix_ms,
            patience,
        })
    }
}

/// What a collector is put together from.
pub(crate) struct Kit<L> {
    pub(crate) listener: L,
    pub(crate) tls: Arc<ArcSwap<tls::ServerConfig>>,
    pub(crate) allow: BTreeSet<String>,
    pub(crate) limits: Limits,
    pub(crate) drain_time: Duration,
    pub(crate) parts: Parts,
    /// Asks it to stop.
    pub(crate) stop: CancellationToken,
    /// Tells the commit that nobody will order anything more.
    pub(crate) alone: CancellationToken,
}

/// A collector put together; nothing of it runs yet.
pub(crate) struct Assembled<L> {
    pub(crate) door: Door<L>,
    pub(crate) service: Service,
    pub(crate) turns: Turns,
    pub(crate) supervisor: Supervisor,
}

impl<L> Kit<L> {
    pub(crate) fn assemble(self) -> Assembled<L> {
        let Self { listener, tls, allow, limits, drain_time, parts, stop, alone } = self;
        let (orders, requests) = mpsc::channel(WAITING_ORDERS);
        let (drain, cut) = (CancellationToken::new(), CancellationToken::new());
        let metrics = parts.metrics.clone();
        let door = Door {
            listener,
            tls,
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            metrics: metrics.clone(),
            cut: cut.clone(),
        };
        let watched = Watched::new(parts.health.clone(), metrics.clone());
        let shared = Shared {
            orders,
            budget: Arc::new(Semaphore::new(budget_bytes(&limits))),
            window: Window { batches: limits.window_batches, bytes: limits.window_bytes },
            limits: session_limits(&limits),
            mark_store_id: parts.store.id(),
            allow,
            streams_per_identity: limits.streams_per_identity,
            registry: parts.registry.clone(),
            metrics,
            health: parts.health.subscribe(),
            drain: drain.clone(),
            drain_time,
            cut: cut.clone(),
            clock: parts.clock,
        };
        Assembled {
            door,
            service: Service::new(Arc::new(shared)),
            turns: Turns::new(Commit::new(parts), watched.clone(), requests, alone.clone()),
            supervisor: Supervisor { stop, drain, cut, alone, drain_time, watched },
        }
    }
}

fn session_limits(limits: &Limits) -> session::Limits {
    session::Limits {
        lanes: limits.lanes_per_stream,
        payload_bytes: MAX_PAYLOAD_BYTES,
        plain_bytes: crate::batch::read::MAX_PLAIN_SIZE,
    }
}

/// Bytes of orders on their way: the window, and one payload more so that any order fits.
fn budget_bytes(limits: &Limits) -> usize {
    let window = usize::try_from(limits.window_bytes).unwrap_or(usize::MAX);
    window.saturating_add(MAX_PAYLOAD_BYTES as usize).min(Semaphore::MAX_PERMITS)
}

/// What a turn of the commit is about.
pub(crate) enum Next {
    /// This order, and those behind it.
    Order(Request),
    /// What time has made due.
    Time,
    /// No order will come any more.
    End,
}

/// The commit's work, turn by turn: whoever writes waits for the next one, does it, and so on.
pub(crate) struct Turns {
    commit: Commit,
    watched: Watched,
    pub(crate) requests: mpsc::Receiver<Request>,
    alone: CancellationToken,
    looked: Instant,
}

impl Turns {
    fn new(
        commit: Commit,
        watched: Watched,
        requests: mpsc::Receiver<Request>,
        alone: CancellationToken,
    ) -> Self {
        Self { commit, watched, requests, alone, looked: clock::now() }
    }

    /// Waits for the next turn.
    pub(crate) async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            request = self.requests.recv() => request.map_or(Next::End, Next::Order),
            () = self.alone.cancelled() => Next::End,
            () = tokio::time::sleep(TICK) => Next::Time,
        }
    }

    /// Does it; may block. False when it was the last one.
    pub(crate) fn work(&mut self, next: Next) -> bool {
        let Self { commit, watched, requests, looked, .. } = self;
        let mut done = match next {
            Next::Order(first) => watched.during(|| commit.group(first, || requests.try_recv().ok())),
            Next::Time => Ok(()),
            Next::End => {
                commit.stop();
                return false;
            }
        };
        let now = clock::now();
        if done.is_ok() && now.duration_since(*looked) >= TICK {
            *looked = now;
            done = watched.during(|| commit.idle());
        }
        if done.is_err() {
            tracing::warn!("Stopped while store or sinks did not work; the proxies will send it again");
        }
        done.is_ok()
    }
}

/// Starts the one thread that writes. It ends when nobody will order anything more and nothing is left to do. Should
/// it end by a panic, it stops the collector.
pub(super) fn spawn_commit(
    mut turns: Turns,
    stop: CancellationToken,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    let runtime = Handle::current();
    let work = move || {
        let _stop = stop.drop_guard();
        loop {
            let next = runtime.block_on(turns.next());
            if !turns.work(next) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("commit".to_owned()).spawn(work).map_err(StartError::Thread)
}

/// Says where what comes will go.
fn announce(sinks: &Sinks) {
    if let Some(jsonl) = &sinks.jsonl {
        tracing::info!(file = %jsonl.path.display(), "Sink jsonl: records are written there");
    }
    for to in sinks.udp.iter().flat_map(|udp| &udp.to) {
        tracing::info!(%to, "Sink udp: raw datagrams are sent on there; after a crash the last group may go out twice");
    }
    if sinks.null {
        tracing::info!("Sink null: everything is counted");
    }
}

/// Runs the collector's tasks and ends them in order.
pub(crate) struct Supervisor {
    stop: CancellationToken,
    drain: CancellationToken,
    cut: CancellationToken,
    alone: CancellationToken,
    drain_time: Duration,
    watched: Watched,
}

impl Supervisor {
    /// `commit` gives its end: true, unless it has panicked.
    pub(crate) async fn run<L: Listen>(
        self,
        door: Door<L>,
        service: Service,
        commit: impl Future<Output = bool>,
    ) {
        let (passed, connections) = mpsc::channel(WAITING_CONNECTIONS);
        let mut tasks = JoinSet::new();
        let stop = self.drain.clone();
        tasks.spawn(async move {
            door.run(passed, stop).await;
            "accept"
        });
        let serve = serve(service, connections, self.drain.clone());
        tasks.spawn(async move {
            serve.await;
            "serve"
        });
        let watch = self.watched.run(self.drain.clone());
        tasks.spawn(async move {
            watch.await;
            "watch"
        });
        tokio::select! {
            () = self.stop.cancelled() => tracing::info!("Stopping: proxies are asked to finish"),
            ended = tasks.join_next() => tracing::error!(?ended, "A task of the collector has ended by itself"),
        }
        self.drain.cancel();
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_time, all).await.is_err() {
            self.cut.cancel();
            let all = async { while tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(LAST_MOMENTS, all).await.is_err() {
                tracing::warn!("Some connections did not end and are left behind");
                tasks.shutdown().await;
            }
        }
        self.alone.cancel();
        match tokio::time::timeout(LAST_MOMENTS, commit).await {
            Ok(true) => tracing::info!("Stopped"),
            Ok(false) => tracing::error!("The commit has panicked"),
            Err(_) => {
                tracing::error!("The commit did not end in time; the next start finishes its last group")
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    service: Service,
    connections: mpsc::Receiver<io::Result<Connection<S>>>,
    drain: CancellationToken,
) {
    let service = ForwardServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(8)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(128))
        .http2_max_header_list_size(8 << 10)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), drain.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "Serving proxies has failed");
    }
}
