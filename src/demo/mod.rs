//! `flowproxy demo`: a mesh of talking hosts, a proxy and a collector in one process.
//!
//! ```text
//! generator --UDP--> proxy --spool--> uplink ==TLS==> collector --> witness (counts, keeps nothing)
//! ```
//!
//! Nothing is short-cut: the mesh's exporters have UDP sockets of their own, the proxy's spool and the
//! collector's mark store are on disk, the link is TLS with certificates of both ends. Ports are whatever is
//! free on loopback; all files are in a folder that is removed at the end.
//!
//! | when | then |
//! |---|---|
//! | the time is up, or Ctrl-C | the mesh ends; what is under way arrives; proxy and collector end in order |
//! | the machine is so busy that datagrams pile up in the proxy's sockets | the mesh waits, as real exporters do not |
//! | an end stops by itself | the demo ends, and says so |
//!
//! With faults it is another one: [`chaos`].

pub mod chaos;
pub mod numbers;
pub mod screen;
pub mod summary;
pub mod tally;
pub mod throw_away;
pub mod view;
pub mod witness;

use crate::generator::sources::mesh::{self, Mesh};
use crate::generator::{self, Counts, Generator};
use crate::metrics::Ingest;
use crate::uplink::State;
use crate::{collector, proxy};
use screen::Screen;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use summary::Summary;
use throw_away::ThrowAway;
use tokio_util::sync::CancellationToken;
use view::{Ledger, Link, Look, Scene};
use witness::Witness;

/// Flow records a second unless told otherwise.
pub const DEFAULT_RATE: u64 = 20_000;

const SITES: usize = 4;
const IPV6_PERCENT: u8 = 10;
const SEED: u64 = 2_026;
/// Of loopback it is larger, of what exporters really send through it is not.
const MTU: u16 = 1_500;
const TEMPLATE_INTERVAL: Duration = Duration::from_secs(20);
const MAX_DELAY: Duration = Duration::from_millis(200);

/// Datagrams that may lie in the proxy's sockets unread. One socket's buffer holds them all where the kernel
/// grants the least (`net.core.rmem_max` of 208 KiB, which it doubles): each takes 2,304 bytes there.
const MAX_UNREAD: u64 = 160;
/// Between two looks at the counters.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Rates are taken over so many looks, since batches come in fits.
const LOOKS: usize = 5;
/// How long what is under way may take to arrive once the mesh has ended.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(15);
/// How long it takes at most if all is well; after that the user is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(20);

/// How the demo runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the mesh talks; `None`: until it is stopped.
    pub length: Option<Duration>,
    /// Flow records a second.
    pub rate: u64,
    /// Where it is shown how it goes.
    pub show: Show,
}

/// Where it is shown how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// As a table on stdout if that is a terminal, else as lines on stderr.
    Table,
    /// As lines on stderr.
    Lines,
    /// Nowhere.
    Nothing,
}

/// Why the demo did not start.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its files.
    #[error(transparent)]
    Files(#[from] throw_away::Fault),
    /// Its collector.
    #[error("the collector does not start: {0}")]
    Collector(#[from] collector::StartError),
    /// Its proxy.
    #[error("the proxy does not start: {0}")]
    Proxy(#[from] proxy::StartError),
    /// Its mesh.
    #[error("the mesh does not start: {0}")]
    Mesh(#[from] generator::Fault),
    /// The proxy listens nowhere.
    #[error("the proxy has no address to send to")]
    NoAddress,
}

/// Runs the demo until its time is up or `stop` is cancelled, and waits for all to arrive.
///
/// # Errors
/// When one of its parts does not start. What goes wrong later is in the summary.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<Summary, Fault> {
    let files = ThrowAway::new()?;
    let witness = Witness::new(SITES);
    let settings = files.collector(Box::new(witness.clone()))?;
    let collector = collector::start(settings, collector::Metrics::new(), CancellationToken::new()).await?;
    let proxy = proxy::start(files.proxy(collector.address())?).await?;
    let to = *proxy.udp().first().ok_or(Fault::NoAddress)?;
    let generator = match Generator::new(&generator_settings(options.rate, to)) {
        Ok(generator) => generator,
        Err(fault) => {
            proxy.stop().await;
            return Err(fault.into());
        }
    };
    let scene = scene(&generator, to, collector.address());
    let stage = Stage {
        witness,
        counts: Arc::new(Counts::default()),
        proxy,
        collector,
        collector_has_ended: false,
        negotiated: Default::default(),
        trouble: None,
    };
    Ok(stage.play(options, generator, &scene, stop).await)
}

/// The three ends, started.
struct Stage {
    witness: Witness,
    counts: Arc<Counts>,
    proxy: proxy::Running,
    collector: collector::Running,
    collector_has_ended: bool,
    /// TLS version and key exchange group.
    negotiated: (String, String),
    /// What made the demo end early.
    trouble: Option<String>,
}

impl Stage {
    async fn play(
        mut self,
        options: &Options,
        generator: Generator,
        scene: &Scene,
        stop: CancellationToken,
    ) -> Summary {
        let started = Instant::now();
        let mesh_stop = stop.child_token();
        let (counts, ingest) = (Arc::clone(&self.counts), self.proxy.ingest().clone());
        let mesh_stopped = mesh_stop.clone();
        let mesh = tokio::task::spawn_blocking(move || {
            generator.run(&mesh_stopped, &counts, || unread(&counts, &ingest) >= MAX_UNREAD);
        });
        self.watch(options, scene, started, &stop).await;
        mesh_stop.cancel();
        if mesh.await.is_err() {
            self.trouble.get_or_insert_with(|| "the mesh has panicked".to_owned());
        }
        let elapsed = started.elapsed();
        let sent = self.counts.totals();
        self.wait_for_arrival(options.show, sent.records).await;
        // The goodbye is still to be sent: the bytes of the link are taken afterwards.
        let uplink = self.proxy.uplink().clone();
        let link = self.link();
        self.proxy.stop().await;
        if !self.collector_has_ended {
            self.collector.stop().await;
        }
        Summary {
            elapsed,
            sent,
            udp_bytes: self.counts.udp_bytes(),
            unsent_datagrams: self.counts.failed(),
            received: self.witness.counts(),
            link: Link { wire_bytes: uplink.traffic.sent_bytes.get(), ..link },
            trouble: self.trouble,
            chaos: None,
        }
    }

    /// Shows how it goes until the time is up, `stop` is cancelled, or one of the ends has failed.
    async fn watch(&mut self, options: &Options, scene: &Scene, started: Instant, stop: &CancellationToken) {
        let screen = Screen::open(options.show);
        let mut looks = VecDeque::from([self.look(started)]);
        let mut ticks = tokio::time::interval_at((started + LOOK_INTERVAL).into(), LOOK_INTERVAL);
        let time_is_up = async {
            match options.length {
                Some(length) => tokio::time::sleep_until((started + length).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(time_is_up);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = &mut time_is_up => return,
                failed = self.proxy.failed() => {
                    self.trouble = Some(format!("the proxy: {failed}"));
                    return;
                }
                () = self.collector.stopped() => {
                    self.collector_has_ended = true;
                    self.trouble = Some("the collector has ended by itself".to_owned());
                    return;
                }
                _ = ticks.tick() => {}
            }
            let now = self.look(started);
            if let Some(before) = looks.front() {
                screen.show(scene, &now, before);
            }
            looks.push_back(now);
            if looks.len() > LOOKS {
                looks.pop_front();
            }
        }
    }

    /// Waits until `records` have arrived, or too long for that to happen.
    async fn wait_for_arrival(&self, show: Show, records: u64) {
        let began = Instant::now();
        let mut told = show == Show::Nothing;
        while self.trouble.is_none() && began.elapsed() < ARRIVAL_DEADLINE {
            let under_way = records.saturating_sub(self.witness.counts().records);
            if under_way == 0 {
                return;
            }
            if !told && began.elapsed() > PATIENCE {
                told = true;
                eprintln!("waiting for {} records that are under way", view::thousands(under_way));
            }
            tokio::time::sleep(ARRIVAL_INTERVAL).await;
        }
    }

    fn look(&mut self, started: Instant) -> Look {
        // What has arrived first: what is sent meanwhile must not seem to have arrived unsent.
        let arrived = self.witness.view();
        let link = self.link();
        let (ingest, uplink) = (self.proxy.ingest(), self.proxy.uplink());
        Look {
            elapsed: started.elapsed(),
            arrived,
            sent: self.counts.totals(),
            udp_bytes: self.counts.udp_bytes(),
            ledger: Ledger {
                datagrams: ingest.datagrams_received.get(),
                kernel_drops: ingest.datagrams_dropped_by_kernel.get(),
                refused: ingest.datagrams_received.get().saturating_sub(ingest.datagrams_accepted.get()),
                decoded: ingest.records_decoded.get(),
                dropped: ingest.records_dropped_total(),
                batched: ingest.records_batched.get(),
                committed: uplink.committed_records.get(),
            },
            link,
        }
    }

    /// What was negotiated last is remembered: when it matters most, at the end, there may be no connection.
    fn link(&mut self) -> Link {
        let link = self.proxy.link();
        if let (Some(tls), Some(key_exchange)) = (link.tls, link.key_exchange) {
            self.negotiated = (tls.to_owned(), key_exchange);
        }
        let (tls, key_exchange) = self.negotiated.clone();
        Link {
            connected: link.state == State::Connected,
            tls,
            key_exchange,
            wire_bytes: self.proxy.uplink().traffic.sent_bytes.get(),
        }
    }
}

/// Datagrams that the proxy has still to read.
fn unread(counts: &Counts, ingest: &Ingest) -> u64 {
    let gone = ingest.datagrams_received.get() + ingest.datagrams_dropped_by_kernel.get();
    counts.totals().datagrams.saturating_sub(gone)
}

fn generator_settings(rate: u64, to: SocketAddr) -> generator::Settings {
    generator::Settings {
        to,
        from: exporter_addresses(),
        rate,
        mtu: MTU,
        numbered: true,
        template_interval: TEMPLATE_INTERVAL,
        max_delay: MAX_DELAY,
        mesh: mesh::Settings { seed: SEED, sites: SITES, ipv6_percent: IPV6_PERCENT },
    }
}

/// An address for each site, the last two on one. Where loopback is 127.0.0.1 only, they all have that.
fn exporter_addresses() -> Vec<IpAddr> {
    let usable = |address: &Ipv4Addr| UdpSocket::bind((*address, 0)).is_ok();
    [2, 3, 4, 4]
        .map(|host| Some(Ipv4Addr::new(127, 0, 0, host)).filter(usable).unwrap_or(Ipv4Addr::LOCALHOST))
        .map(IpAddr::V4)
        .to_vec()
}

fn scene(generator: &Generator, proxy: SocketAddr, collector: SocketAddr) -> Scene {
    Scene {
        hosts: host_names(generator.mesh()),
        exporters: generator.mesh().sites().zip(generator.addresses()).collect(),
        proxy: Some(proxy),
        collector: Some(collector),
    }
}

fn host_names(mesh: &Mesh) -> HashMap<IpAddr, String> {
    let of = |host: &mesh::Host| {
        [IpAddr::V4(host.ipv4), IpAddr::V6(host.ipv6)].map(|address| (address, host.name.clone()))
    };
    mesh.hosts().iter().flat_map(of).collect()
}
