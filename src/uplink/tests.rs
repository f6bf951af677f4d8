//! The uplink between a real spool and a real collector, over loopback.

use super::*;
use crate::batch::{Kind, Sealed};
use crate::collector::{self, sinks};
use crate::proto::{self, Codec};
use crate::spool::{self, Sender};
use crate::tls::issue::{self, Subject};
use crate::tls::{self, Files};
use bytes::Bytes;
use prost::Message as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use tokio::task::JoinHandle;

/// What came out at the far end: the marker of each batch, in order.
#[derive(Clone, Debug, Default)]
struct Far(Arc<Mutex<Vec<u32>>>);

impl sinks::Sink for Far {
    fn name(&self) -> &'static str {
        "far"
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn write(&mut self, group: &[sinks::Taken]) -> Result<u64, sinks::SinkError> {
        let marker = |taken: &sinks::Taken| {
            let payload = proto::Payload::decode(taken.payload.clone()).unwrap();
            u32::from_be_bytes(payload.datagrams[0].bytes.as_ref().try_into().unwrap())
        };
        self.0.lock().unwrap().extend(group.iter().map(marker));
        Ok(0)
    }
}

impl Far {
    fn got(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

/// A folder with certificates, a spool that is open, and what the far end got.
pub(super) struct Site {
    dir: tempfile::TempDir,
    far: Far,
}

/// One life of a proxy.
struct Proxy {
    batches: Sender,
    writer: thread::JoinHandle<()>,
    spool: Spool,
    metrics: Metrics,
    live: Arc<ArcSwap<Live>>,
    link: watch::Receiver<Link>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn sealed(payload: Bytes) -> Sealed {
    Sealed {
        kind: Kind::Raw,
        records: 1,
        codec: Codec::Plain,
        plain_size: payload.len() as u32,
        digest: crate::batch::digest(Codec::Plain, payload.len() as u32, &payload),
        payload,
        received: link::now_ms(),
        shares: Vec::new(),
    }
}

fn marked(marker: u32) -> Sealed {
    let exporter = proto::Exporter { address: vec![192, 0, 2, 1].into(), port: 9, ..Default::default() };
    let bytes = Bytes::copy_from_slice(&marker.to_be_bytes());
    let datagram = proto::Datagram { exporter: 0, port: 9995, received: 1, bytes };
    let payload =
        proto::Payload { exporters: vec![exporter], datagrams: vec![datagram], ..Default::default() };
    sealed(payload.encode_to_vec().into())
}

impl Site {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        issue::ca(dir.path()).unwrap();
        for (name, server) in [("localhost", true), ("edge-1", false)] {
            let subject = Subject { name, server, dns: &[], ips: &[] };
            issue::issue(dir.path(), &subject, dir.path()).unwrap();
        }
        Self { dir, far: Far::default() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn files(&self, name: &str) -> Files {
        Files {
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    pub(super) fn server_tls(&self) -> Arc<tls::ServerConfig> {
        tls::load_server(&self.files("localhost")).unwrap()
    }

    pub(super) fn client_tls(&self) -> Arc<ClientConfig> {
        tls::load_client(&self.files("edge-1")).unwrap()
    }

    /// A collector whose marks are in the folder `state`.
    async fn collector(&self, state: &str) -> collector::Running {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = collector::Settings::new(listen, self.server_tls(), self.path(state));
        settings.drain_time = Duration::from_millis(200);
        settings.sinks.others = vec![Box::new(self.far.clone())];
        collector::start(settings, collector::Metrics::new(), CancellationToken::new()).await.unwrap()
    }

    fn proxy(&self, endpoints: Vec<Uri>) -> Proxy {
        let mut settings = spool::Settings::new(self.path("spool"));
        settings.keep_free_bytes = Some(0);
        let (spool, writer, batches) = spool::open(settings, spool::Metrics::default()).unwrap();
        let live = Live {
            endpoints,
            max_rate: None,
            fresh_after: Duration::from_secs(60),
            max_connection_age: Duration::from_secs(3600),
            tls: self.client_tls(),
        };
        let live = Arc::new(ArcSwap::from_pointee(live));
        let (link_in, link) = watch::channel(Link::new());
        let metrics = Metrics::default();
        let stop = CancellationToken::new();
        let parts = Parts {
            spool: spool.clone(),
            live: live.clone(),
            metrics: metrics.clone(),
            totals: Totals::new(Counters::default),
            link: link_in,
            instance: rand::random(),
            drain_time: Duration::from_secs(30),
        };
        let task = tokio::spawn(run(parts, stop.clone()));
        let writer = thread::spawn(move || writer.run());
        Proxy { batches, writer, spool, metrics, live, link, stop, task }
    }
}

impl Proxy {
    fn put(&self, markers: std::ops::Range<u32>) {
        for marker in markers {
            self.batches.try_send(marked(marker)).unwrap();
        }
    }

    async fn reach(&mut self, is_there: impl FnMut(&Link) -> bool) -> Link {
        let waited = tokio::time::timeout(Duration::from_secs(30), self.link.wait_for(is_there)).await;
        waited.expect("the link gets there").unwrap().clone()
    }

    /// In the order of the product: no more batches, the writer ends, the uplink drains.
    async fn end(self) {
        drop(self.batches);
        tokio::task::spawn_blocking(move || self.writer.join().unwrap()).await.unwrap();
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

pub(super) fn endpoint(address: SocketAddr) -> Uri {
    format!("https://localhost:{}", address.port()).parse().unwrap()
}

/// A port that nobody listens at.
pub(super) async fn free_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn everything_is_delivered_once_and_counted() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.put(0..200);
    let link = proxy.reach(|link| link.state == State::Connected).await;
    assert_eq!((link.tls, link.key_exchange.as_deref()), (Some("1.3"), Some("X25519MLKEM768")));
    assert_eq!(link.last_error, None);
    proxy.put(200..300);
    let (metrics, spool, mut link) = (proxy.metrics.clone(), proxy.spool.clone(), proxy.link.clone());
    proxy.end().await;
    assert_eq!(site.far.got(), (0..300).collect::<Vec<_>>());
    assert_eq!(metrics.committed_batches.get(), 300);
    assert_eq!((metrics.committed_raw.get(), metrics.committed_records.get()), (300, 0));
    assert_eq!(metrics.sent_batches.get(), 300, "nothing twice");
    assert_eq!(metrics.failures.get(), 0);
    assert!(metrics.traffic.sent_bytes.get() > 300 * 20 && metrics.traffic.received_bytes.get() > 0);
    assert!(spool.lanes().iter().all(|lane| lane.acked_seq + 1 == lane.next_seq));
    assert_eq!(link.borrow_and_update().state, State::Stopped);
    collector.stop().await;
}

#[tokio::test]
async fn what_the_last_life_left_comes_before_the_collector_is_done_with_it() {
    let site = Site::new();
    let nobody = endpoint(free_port().await);
    let proxy = site.proxy(vec![nobody]);
    proxy.put(0..50);
    proxy.stop.cancel();
    proxy.end().await;
    assert_eq!(site.far.got(), [] as [u32; 0]);

    let collector = site.collector("state").await;
    let proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.put(50..100);
    let spool = proxy.spool.clone();
    proxy.end().await;
    let mut got = site.far.got();
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    assert_eq!(spool.lanes().len(), 1, "the old lane is closed");
    collector.stop().await;
}

#[tokio::test]
async fn a_collector_that_moves_is_followed_and_nothing_comes_twice() {
    let site = Site::new();
    let first = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(first.address())]);
    proxy.put(0..100);
    proxy.reach(|link| link.state == State::Connected).await;
    first.stop().await;
    proxy.put(100..200);
    let second = site.collector("state").await;
    let moved = Live { endpoints: vec![endpoint(second.address())], ..Live::clone(&proxy.live.load()) };
    proxy.live.store(Arc::new(moved));
    proxy.reach(|link| link.endpoint == endpoint(second.address()).to_string()).await;
    let metrics = proxy.metrics.clone();
    proxy.end().await;
    assert_eq!(site.far.got(), (0..200).collect::<Vec<_>>());
    assert_eq!(metrics.committed_raw.get(), 200);
    second.stop().await;
}

#[tokio::test]
async fn no_link_is_said_in_words_and_the_next_endpoint_is_tried() {
    let site = Site::new();
    let nobody = free_port().await;
    let collector = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(nobody), endpoint(collector.address())]);
    proxy.put(0..5);
    let link = proxy.reach(|link| link.state == State::BackingOff).await;
    let said = link.last_error.unwrap();
    assert!(
        said.starts_with("nothing listens at ") && said.ends_with(&format!(":{}", nobody.port())),
        "{said}"
    );
    let link = proxy.reach(|link| link.state == State::Connected).await;
    assert_eq!(link.endpoint, endpoint(collector.address()).to_string());
    proxy.end().await;
    assert_eq!(site.far.got(), [0, 1, 2, 3, 4]);
    collector.stop().await;
}

#[tokio::test]
async fn row_22_a_collector_with_another_mark_store_is_left_at_first() {
    let site = Site::new();
    let first = site.collector("state").await;
    let proxy = site.proxy(vec![endpoint(first.address())]);
    proxy.put(0..5);
    proxy.end().await;
    first.stop().await;

    let other = site.collector("other-state").await;
    let mut proxy = site.proxy(vec![endpoint(other.address())]);
    proxy.put(5..10);
    let link = proxy.reach(|link| link.state == State::BackingOff).await;
    assert!(link.last_error.unwrap().contains("keeps its marks in another store"));
    assert!(link.alarm.unwrap().contains("another store"));
    proxy.end().await;
    assert_eq!(site.far.got(), [0, 1, 2, 3, 4]);
    other.stop().await;
}

#[tokio::test]
async fn row_27_a_batch_that_the_collector_cannot_read_is_set_aside_and_the_rest_goes_on() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.put(0..3);
    proxy.batches.try_send(sealed(Bytes::from_static(b"\xff\xff no payload"))).unwrap();
    proxy.put(3..6);
    let (metrics, spool) = (proxy.metrics.clone(), proxy.spool.clone());
    proxy.end().await;
    assert_eq!(site.far.got(), (0..6).collect::<Vec<_>>());
    assert_eq!((metrics.rejected_batches.get(), metrics.sent_skips.get()), (1, 1));
    assert_eq!(metrics.committed_raw.get(), 6);
    assert!(spool.lanes().iter().all(|lane| lane.acked_seq + 1 == lane.next_seq));
    let kept = std::fs::read_dir(site.path("spool/quarantine")).unwrap().count();
    assert_eq!(kept, 1);
    collector.stop().await;
}

#[tokio::test]
async fn a_limit_of_bytes_delivers_all_the_same() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let proxy = site.proxy(vec![endpoint(collector.address())]);
    let limited = Live { max_rate: Some(100_000), ..Live::clone(&proxy.live.load()) };
    proxy.live.store(Arc::new(limited));
    proxy.put(0..100);
    proxy.end().await;
    assert_eq!(site.far.got(), (0..100).collect::<Vec<_>>());
    collector.stop().await;
}

/// Another address for the same collector.
async fn relay_to(collector: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(collector).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    at
}

impl Proxy {
    fn set(&self, change: impl FnOnce(&mut Live)) {
        let mut live = Live::clone(&self.live.load());
        change(&mut live);
        self.live.store(Arc::new(live));
    }

    /// Puts batches at each change of the link until so many connections were welcomed; gives their number.
    async fn put_until_connections(&mut self, connections: u64) -> u32 {
        let mut next = 0;
        while self.metrics.connections.get() < connections {
            self.put(next..next + 5);
            next += 5;
            let changed = tokio::time::timeout(Duration::from_secs(30), self.link.changed()).await;
            changed.expect("the link changes").unwrap();
        }
        next
    }
}

#[tokio::test]
async fn a_connection_that_is_old_gives_way_to_a_new_one_and_nothing_is_sent_twice() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.set(|live| live.max_connection_age = Duration::from_millis(1));
    let count = proxy.put_until_connections(4).await;
    assert_eq!(proxy.link.borrow().state, State::Connected);
    let metrics = proxy.metrics.clone();
    proxy.end().await;
    assert_eq!(site.far.got(), (0..count).collect::<Vec<_>>());
    assert_eq!(metrics.sent_batches.get(), u64::from(count), "nothing twice");
    assert_eq!((metrics.committed_raw.get(), metrics.failures.get()), (u64::from(count), 0));
    collector.stop().await;
}

#[tokio::test]
async fn while_the_next_connection_cannot_be_made_the_old_one_goes_on() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.reach(|link| link.state == State::Connected).await;
    let nobody = endpoint(free_port().await);
    let ours = endpoint(collector.address());
    // The first of the list is the one that is tried for the old connection's successor.
    proxy.set(|live| {
        live.endpoints = vec![nobody, ours];
        live.max_connection_age = Duration::from_millis(1);
    });
    // A connection takes its age from what holds when it is made: leave the first one.
    let relay = endpoint(relay_to(collector.address()).await);
    proxy.set(|live| live.endpoints[1] = relay.clone());
    let count = proxy.put_until_connections(4).await;
    let metrics = proxy.metrics.clone();
    proxy.end().await;
    assert_eq!(site.far.got(), (0..count).collect::<Vec<_>>());
    assert_eq!(metrics.sent_batches.get(), u64::from(count), "nothing twice");
    collector.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_longer_configured_is_left_when_the_next_one_is_there() {
    let site = Site::new();
    let collector = site.collector("state").await;
    let mut proxy = site.proxy(vec![endpoint(collector.address())]);
    proxy.put(0..50);
    proxy.reach(|link| link.state == State::Connected).await;
    let relay = endpoint(relay_to(collector.address()).await);
    proxy.set(|live| live.endpoints = vec![relay.clone()]);
    let link = proxy.reach(|link| link.endpoint == relay.to_string()).await;
    assert_eq!((link.state, link.last_error), (State::Connected, None), "it was never down");
    proxy.put(50..100);
    let metrics = proxy.metrics.clone();
    proxy.end().await;
    assert_eq!(site.far.got(), (0..100).collect::<Vec<_>>());
    assert_eq!((metrics.sent_batches.get(), metrics.failures.get()), (100, 0), "nothing twice");
    collector.stop().await;
}

/// Until the Welcome, as often as it takes.
async fn connect_until_welcome(to: &Uri, tls: &Arc<ClientConfig>) -> (Duration, u32, impl Sized + use<>) {
    let (begun, mut backoff) = (std::time::Instant::now(), Backoff::default());
    loop {
        if let Ok(connection) = connect::connect(&System, to, tls.clone(), &Traffic::default()).await {
            let (messages, outgoing) = tokio::sync::mpsc::channel(4);
            let hello =
                proto::Hello { versions: vec![1], instance: vec![7; 16].into(), ..Default::default() };
            let hello = proto::client_message::Message::Hello(hello);
            messages.send(proto::ClientMessage { message: Some(hello) }).await.unwrap();
            let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
            let mut client = proto::forward_client::ForwardClient::new(connection.channel);
            if let Ok(answers) = client.stream(outgoing).await
                && let mut answers = answers.into_inner()
                && let Ok(Some(_)) = answers.message().await
            {
                return (begun.elapsed(), backoff.failures(), (messages, answers));
            }
        }
        tokio::time::sleep(backoff.failed(rand::random())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_26_500_proxies_come_back_at_once() {
    const PROXIES: usize = 500;
    const SILENT: usize = 300;
    let site = Site::new();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = collector::Settings::new(listen, site.server_tls(), site.path("state"));
    settings.drain_time = Duration::from_millis(200);
    settings.sinks.null = true;
    settings.limits.streams_per_identity = PROXIES;
    let metrics = collector::Metrics::new();
    let running = collector::start(settings, metrics.clone(), CancellationToken::new()).await.unwrap();

    // Whoever says nothing keeps a place among the handshakes under way; the others wait outside.
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(tokio::net::TcpStream::connect(running.address()).await.unwrap());
    }
    let most = collector::MAX_HANDSHAKES as u64;
    while metrics.accepted.get() < most {
        tokio::task::yield_now().await;
    }
    assert!(metrics.connections.get() <= most as i64, "{}", metrics.connections.get());
    drop(silent);

    let (to, tls) = (endpoint(running.address()), site.client_tls());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..PROXIES {
        let (to, tls) = (to.clone(), tls.clone());
        tasks.spawn(async move { connect_until_welcome(&to, &tls).await });
    }
    let welcomed = tasks.join_all().await;
    assert_eq!(metrics.streams.get(), PROXIES as i64);
    let mut times: Vec<Duration> = welcomed.iter().map(|(time, ..)| *time).collect();
    times.sort();
    let again: u32 = welcomed.iter().map(|(_, failures, _)| failures).sum();
    let (p99, last) = (times[PROXIES * 99 / 100], times[PROXIES - 1]);
    eprintln!("{PROXIES} proxies at once: p99 {p99:?}, the last {last:?}, {again} attempts failed");
    drop(welcomed);
    running.stop().await;
}
