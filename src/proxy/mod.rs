//! The proxy put together: sockets, threads, tasks, and the order in which they end.
//!
//! ```text
//! shard-0 .. shard-n  (threads)  --Sender-->  spool writer (thread)  --disk-->  uplink (task)  ==TLS==> collector
//!                                --Sender-->  keeper (thread)
//! tcp (tasks) --> shard-tcp  (thread)  --^                                      admin, stall, names (tasks)
//! ```
//!
//! | if | then |
//! |---|---|
//! | it is stopped | connections are closed after what was received is read, the shards empty their sockets, seal and end; the writer makes the rest durable and ends; the uplink sends until all is acked or the deadline is over, and says Bye; the admin port closes |
//! | the deadline is over | what is not acked stays in the spool, for the next start |
//! | a config is read again | all of it is taken or nothing: see [`Running::reload`] |
//! | a thread or task ends unasked | [`Running::failed`] says which; nothing of it is hidden by going on |
//!
//! Several may run in one process, each with its own spool. Nothing here is global.

mod crew;
mod devices;
mod exporters;
mod ledger;
mod names;
mod sharing;
mod stall;
mod status;
mod tcp;

pub use sharing::Metrics as SharingMetrics;

#[cfg(test)]
pub(crate) use ledger::of_parts as ledger_of_parts;

use crate::admin::{self, LastReload, Subject};
use crate::config::{self, Faults};
use crate::enrich::lookup;
use crate::metrics::Ingest;
use crate::shard::{self, Admission, BatchSettings, ExporterView};
use crate::spool::{self, Spool};
use crate::{batch, ingest, keeper, tls, uplink, wire};
use arc_swap::ArcSwap;
use crew::Crew;
use status::{Counters, Facts};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long shards and writer get to bring what they have to the disk, whatever the deadline.
pub const LOCAL_TIME: Duration = Duration::from_secs(5);

const WRITER: &str = "spool";
const KEEPER: &str = "keeper";
const UPLINK: &str = "uplink";
const ADMIN: &str = "admin";
const TCP: &str = "tcp";
const STALL: &str = "stall";
const NAMES: &str = "names";
const SHARING: &str = "sharing";
/// What ends that is no thread.
const TASKS: [&str; 6] = [UPLINK, ADMIN, TCP, STALL, NAMES, SHARING];

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate or key.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The operator's names of exporters and interfaces.
    #[error(transparent)]
    StaticFile(Faults),
    /// Files to look addresses up in.
    #[error(transparent)]
    Lookup(#[from] lookup::Unusable),
    /// A listening address.
    #[error("listen: {0}")]
    Listen(#[from] ingest::BindError),
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// What exporters have told.
    #[error(transparent)]
    State(#[from] keeper::OpenError),
    /// The system gave no thread or told no address.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Starts a proxy. Needs a tokio runtime, on which its tasks then live.
///
/// # Errors
/// When a file, an address or the spool cannot be used; nothing of it runs then.
pub async fn start(config: config::Proxy) -> Result<Running, StartError> {
    let (tls, valid_from_ms) = certificates(&config.tls)?;
    let sockets = ingest::bind(&listen(&config.listen))?;
    let doors = ingest::tcp::bind(&config.listen.tcp)?;
    let (udp, raw) = addresses(&sockets);
    let tcp = doors.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let listener = admin::bind(config.admin.listen).await?;
    let admin = listener.local_addr()?;
    let counters = Counters::default();
    let settings = spool_settings(&config.spool);
    let (spool, writer, queue) = spool::open(settings, counters.spool.clone())?;
    let (keeper, state, kept) = keeper::open(keeper_settings(&config), counters.keeper.clone())?;

    let (finish, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let (sources, live_names) = names::start(&config, &counters, &stop_admin).await?;

    let (mut crew, ended) = Crew::new();
    let batch = Arc::new(ArcSwap::from_pointee(batch_settings(&config.batch)));
    let admission = Arc::new(ArcSwap::from_pointee(admission_rules(&config)));
    let (stop_shards, stop_tcp) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
    crew.thread(WRITER, move || writer.run())?;
    let shards = sockets.len();
    // What is told over TCP is not kept: without UDP there is nothing to do for it.
    if shards > 0 {
        crew.thread(KEEPER, move || keeper.run())?;
    }
    // Only shards hold the queue and the keeper's sender: writer and keeper end after the last of them.
    let context = shard::Context {
        batch: Arc::clone(&batch),
        admission: Arc::clone(&admission),
        wire: wire_settings(&config),
        metrics: counters.ingest.clone(),
        queue,
        exporters: ExporterView::default(),
        names: sources.book().clone(),
        before: spool.last_heard(),
        stop: Arc::clone(&stop_shards),
    };
    let mut exporters = udp_shards(&mut crew, sockets, kept, state, &context)?;
    exporters.extend(tcp::start(&mut crew, doors, &context, &counters.tcp, &stop_tcp)?);
    drop(context);

    let live = Arc::new(ArcSwap::from_pointee(live(&config.uplink, tls)));
    let (link_in, link) = watch::channel(uplink::Link::new());
    let uplink = uplink_parts(&config, spool.clone(), &counters, Arc::clone(&live), link_in);
    let facts = Arc::new(Facts {
        registry: counters.registry(),
        counters,
        config: ArcSwap::from_pointee(config),
        spool,
        link,
        book: sources.book().clone(),
        exporters,
        udp,
        tcp,
        raw,
        shards,
        admin,
        started: Instant::now(),
        started_ms: unix_ms(),
        valid_from_ms: AtomicU64::new(valid_from_ms),
        reload: LastReload::default(),
    });
    let serving = admin::serve(listener, Arc::clone(&facts) as Arc<dyn Subject>, stop_admin.clone());
    crew.task(ADMIN, async {
        if let Err(error) = serving.await {
            tracing::error!(%error, "The admin port has failed");
        }
    });
    crew.task(UPLINK, uplink::run(uplink, finish.clone()));
    crew.task(NAMES, sources.run());
    crew.task(SHARING, sharing::watch(Arc::clone(&facts), stop_admin.clone()));
    crew.task(STALL, stall::watch(facts.spool.clone(), facts.counters.spool.clone(), stop_admin.clone()));
    announce(&facts);
    let live = Live { batch, admission, names: live_names, uplink: live };
    let Crew { threads, tasks, .. } = crew;
    Ok(Running { facts, live, stop_shards, stop_tcp, threads, tasks, finish, stop_admin, ended })
}

/// What the link needs, and from when on our certificate is valid, in milliseconds since 1970.
fn certificates(of: &config::Tls) -> Result<(Arc<tls::ClientConfig>, u64), tls::Error> {
    let tls = tls::load_client(&of.into())?;
    Ok((tls, ms(tls::valid_from(&of.cert)?)))
}

fn uplink_parts(
    config: &config::Proxy,
    spool: Spool,
    counters: &Counters,
    live: Arc<ArcSwap<uplink::Live>>,
    link: watch::Sender<uplink::Link>,
) -> uplink::Parts {
    let totals = counters.clone();
    uplink::Parts {
        spool,
        live,
        metrics: counters.uplink.clone(),
        totals: uplink::Totals::new(move || ledger::counters(&totals)),
        link,
        instance: rand::random(),
        drain_time: config.shutdown.deadline,
    }
}

/// Starts the shards of UDP, each with what was kept of the exporters that it will meet.
fn udp_shards(
    crew: &mut Crew,
    sockets: Vec<ingest::Sockets>,
    kept: Vec<keeper::Row>,
    state: keeper::Sender,
    context: &shard::Context,
) -> io::Result<Vec<ExporterView>> {
    let mut exporters = Vec::new();
    let kept = deal(kept, sockets.len());
    for (number, (sockets, kept)) in sockets.into_iter().zip(kept).enumerate() {
        let context = shard::Context { exporters: ExporterView::default(), ..context.clone() };
        exporters.push(context.exporters.clone());
        let state = state.clone();
        let work = move || shard::run(sockets, context, state, &kept);
        crew.thread(&format!("shard-{number}"), work)?;
    }
    Ok(exporters)
}

/// What a new config changes in a running proxy.
#[derive(Debug)]
struct Live {
    batch: Arc<ArcSwap<BatchSettings>>,
    admission: Arc<ArcSwap<Admission>>,
    names: names::Live,
    uplink: Arc<ArcSwap<uplink::Live>>,
}

/// A proxy at work.
#[derive(Debug)]
pub struct Running {
    facts: Arc<Facts>,
    live: Live,
    stop_shards: Arc<AtomicBool>,
    /// Door and connections end, and with them their shard.
    stop_tcp: CancellationToken,
    /// Threads that have not been told to end.
    threads: usize,
    tasks: JoinSet<()>,
    /// The uplink sends what there is, and ends.
    finish: CancellationToken,
    stop_admin: CancellationToken,
    ended: mpsc::UnboundedReceiver<String>,
}

impl Running {
    /// Where flow is taken, in the order of the config.
    pub fn udp(&self) -> &[SocketAddr] {
        &self.facts.udp
    }

    /// Where IPFIX is taken over TCP, in the order of the config.
    pub fn tcp(&self) -> &[SocketAddr] {
        &self.facts.tcp
    }

    /// Where datagrams are taken that are forwarded unread, in the order of the config.
    pub fn raw(&self) -> &[SocketAddr] {
        &self.facts.raw
    }

    /// Where the admin port answers.
    pub fn admin(&self) -> SocketAddr {
        self.facts.admin
    }

    /// The config in effect.
    pub fn config(&self) -> Arc<config::Proxy> {
        self.facts.config.load_full()
    }

    /// What the shards count.
    pub fn ingest(&self) -> &Ingest {
        &self.facts.counters.ingest
    }

    /// What the uplink counts.
    pub fn uplink(&self) -> &uplink::Metrics {
        &self.facts.counters.uplink
    }

    /// How the link to the collector stands.
    pub fn link(&self) -> uplink::Link {
        self.facts.link.borrow().clone()
    }

    /// What the spool holds.
    pub fn spool(&self) -> &Spool {
        &self.facts.spool
    }

    /// What `/status` tells.
    pub fn status(&self) -> serde_json::Value {
        self.facts.status()
    }

    /// Waits until a thread or task has ended unasked, and says which.
    pub async fn failed(&mut self) -> String {
        match self.ended.recv().await {
            Some(name) => format!("{name} has ended unexpectedly"),
            None => "all threads have ended unexpectedly".to_owned(),
        }
    }

    /// Takes a config that was read again: all of it, or nothing when it has a fault or needs a restart. What came
    /// of it is logged and shown in `/status`; true if it was taken. Certificates and the operator's names are read
    /// anew also when their paths have not changed.
    pub fn reload(&self, read: Result<config::Proxy, Faults>) -> bool {
        let old = self.config();
        let fault = match self.take(&old, read) {
            Ok(changed) => {
                tracing::info!(?changed, "The config was read again");
                None
            }
            Err(fault) => {
                tracing::error!("The new config is refused; the old one stays in effect");
                fault.lines().for_each(|fault| tracing::error!(fault, "In the new config"));
                Some(fault)
            }
        };
        let taken = fault.is_none();
        self.facts.reload.note(unix_ms(), fault);
        taken
    }

    fn take(
        &self,
        old: &config::Proxy,
        read: Result<config::Proxy, Faults>,
    ) -> Result<Vec<&'static str>, String> {
        let new = read.map_err(|faults| faults.to_string())?;
        let fixed = old.needing_restart(&new);
        if !fixed.is_empty() {
            return Err(format!(
                "{} cannot change while the proxy runs: it needs a restart",
                fixed.join(", ")
            ));
        }
        let told = |first| tls::told(tls::End::Client, &(&new.tls).into(), &first);
        let names = self.live.names.open(&new.enrich, &self.facts.counters);
        let ((tls, valid_from_ms), names) = match (certificates(&new.tls).map_err(told), names) {
            (Ok(certificates), Ok(names)) => (certificates, names),
            (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => return Err(fault),
            (Err(fault), Err(faults)) => return Err(format!("{fault}\n{faults}")),
        };
        let changed = old.differences(&new);
        self.live.batch.store(Arc::new(batch_settings(&new.batch)));
        self.live.admission.store(Arc::new(admission_rules(&new)));
        self.live.names.set(&new.enrich, names, &self.facts.book);
        self.live.uplink.store(Arc::new(live(&new.uplink, tls)));
        self.facts.valid_from_ms.store(valid_from_ms, Ordering::Relaxed);
        self.facts.config.store(Arc::new(new));
        Ok(changed)
    }

    /// Ends it in order: see the table at the head. Takes no longer than the deadline of the config, and
    /// [`LOCAL_TIME`] more when the disk is slow.
    pub async fn stop(mut self) {
        tracing::info!("Stopping: no more flow is taken");
        self.stop_shards.store(true, Ordering::Relaxed);
        self.stop_tcp.cancel();
        let locally = self.config().shutdown.deadline.max(LOCAL_TIME);
        if tokio::time::timeout(locally, self.threads_ended()).await.is_err() {
            tracing::error!(
                "The spool did not take in time what was received last; what it has not taken is lost"
            );
        }
        // The uplink keeps the deadline itself.
        self.finish.cancel();
        self.uplink_ended().await;
        self.stop_admin.cancel();
        while self.tasks.join_next().await.is_some() {}
        match self.facts.spool.usage().batches {
            0 => tracing::info!("Everything is acknowledged"),
            left => tracing::warn!(left, "Batches stay in the spool for the next start"),
        }
    }

    /// Waits for all shards, and for writer and keeper, which end after them.
    async fn threads_ended(&mut self) {
        while self.threads > 0 {
            match self.ended.recv().await {
                Some(name) if !TASKS.contains(&name.as_str()) => self.threads -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    async fn uplink_ended(&mut self) {
        while let Some(name) = self.ended.recv().await {
            if name == UPLINK {
                return;
            }
        }
    }
}

impl Drop for Running {
    /// Threads end, though nobody waits for them, also when a proxy is dropped that was not stopped.
    fn drop(&mut self) {
        self.stop_shards.store(true, Ordering::Relaxed);
    }
}

/// Says at the start what an operator looks for first.
fn announce(facts: &Facts) {
    for udp in &facts.udp {
        tracing::info!(%udp, "Listening for NetFlow v1, v5, v7, v9, IPFIX and sFlow v5");
    }
    for tcp in &facts.tcp {
        tracing::info!(%tcp, "Listening for IPFIX over TCP");
    }
    for raw in &facts.raw {
        tracing::info!(%raw, "Listening for datagrams to forward unread");
    }
    if [&facts.udp, &facts.tcp, &facts.raw]
        .into_iter()
        .flatten()
        .all(|address| address.ip().to_canonical().is_loopback())
    {
        tracing::warn!("Only this host can send here: no router reaches a loopback address");
    }
    let config = facts.config.load();
    match &config.listen.allow {
        Some(allow) => tracing::info!(?allow, "Listening only to exporters in listen.allow"),
        None => tracing::info!("No list of exporters is configured: every sender is accepted"),
    }
    for endpoint in &config.uplink.endpoints {
        tracing::info!(endpoint = config::endpoint_text(endpoint), "Forwarding");
    }
    let (found, dir) = (facts.spool.recovered(), config.spool.dir.display());
    tracing::info!(%dir, max_bytes = config.spool.max_bytes, batches_found = found.batches, "Spooling");
    tracing::info!(admin = %facts.admin, "Answering /metrics, /healthz, /readyz and /status");
}

impl From<&config::Tls> for tls::Files {
    fn from(tls: &config::Tls) -> Self {
        Self { ca: tls.ca.clone(), cert: tls.cert.clone(), key: tls.key.clone() }
    }
}

fn listen(listen: &config::Listen) -> ingest::Settings {
    ingest::Settings {
        udp: listen.udp.clone(),
        raw: listen.raw.clone(),
        shards: listen.shards,
        receive_buffer: listen.receive_buffer,
    }
}

fn wire_settings(of: &config::Proxy) -> wire::Settings {
    let rates = of.decode.sampling.iter().map(|&(network, rate)| wire::NetworkRate { network, rate });
    wire::Settings {
        obey_withdrawals: of.listen.obey_udp_withdrawals,
        network_rates: rates.collect(),
        ..wire::Settings::default()
    }
}

fn spool_settings(spool: &config::Spool) -> spool::Settings {
    let defaults = spool::Settings::new(spool.dir.clone());
    spool::Settings { max_bytes: spool.max_bytes, commit_interval: spool.commit_interval, ..defaults }
}

/// As much as all shards together may know.
fn keeper_settings(config: &config::Proxy) -> keeper::Settings {
    /// What the saved forms of a shard's templates come to at the most, and some more.
    const BYTES: u64 = 32 << 20;
    let shards = config.listen.shards.max(1);
    let max_domains = shards * wire_settings(config).limits.domains;
    keeper::Settings { dir: config.state_dir(), max_domains, max_bytes: shards as u64 * BYTES }
}

/// Gives what was kept to the shards that the exporters' datagrams will meet, in the same order.
fn deal(kept: Vec<keeper::Row>, shards: usize) -> Vec<Vec<keeper::Row>> {
    let mut dealt: Vec<Vec<keeper::Row>> = (0..shards).map(|_| Vec::new()).collect();
    for row in kept {
        let shard = ingest::shard_of(row.key.exporter.address, shards);
        if let Some(rows) = dealt.get_mut(shard) {
            rows.push(row);
        }
    }
    dealt
}

fn batch_settings(of: &config::Batch) -> BatchSettings {
    let limits = batch::Limits { max_records: of.max_records, max_bytes: of.max_bytes };
    BatchSettings { limits, max_delay: of.max_delay }
}

fn admission_rules(of: &config::Proxy) -> Admission {
    let limits = shard::Limits { datagrams: of.limit.datagrams, bytes: of.limit.bytes };
    Admission { allow: of.listen.allow.as_deref().map(shard::Networks::new), limits }
}

fn live(uplink: &config::Uplink, tls: Arc<tls::ClientConfig>) -> uplink::Live {
    uplink::Live {
        endpoints: uplink.endpoints.clone(),
        max_rate: uplink.max_rate,
        fresh_after: uplink.fresh_after,
        max_connection_age: uplink.max_connection_age,
        tls,
    }
}

/// Where the first shard listens, which is where all do: (decoded, unread).
fn addresses(sockets: &[ingest::Sockets]) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let listeners = sockets.first().map(|sockets| sockets.listeners.as_slice()).unwrap_or_default();
    let of = |usage| listeners.iter().filter(|it| it.usage == usage).map(|it| it.local).collect();
    (of(ingest::Use::Flow), of(ingest::Use::Raw))
}

fn unix_ms() -> u64 {
    ms(SystemTime::now())
}

/// Milliseconds since 1970.
fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
