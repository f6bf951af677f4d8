//! What the collector's tests share, and the collector as a whole.

use super::lane::LaneId;
use super::sinks::{SinkError, Taken};
use super::*;
use crate::batch::{self, Kind, read};
use crate::proto::client_message::Message as Client;
use crate::proto::forward_client::ForwardClient;
use crate::proto::server_message::Message as Answer;
use crate::proto::{self, ClientMessage, Codec, ServerMessage};
use crate::tls::issue::{self, Subject};
use crate::tls::{Files, Identity};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// An identity as a certificate names it.
pub(super) fn identity(name: &str) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    Identity::from_certificate(params.self_signed(&key).unwrap().der()).unwrap()
}

/// A payload that holds these datagrams.
pub(super) fn raw_batch(datagrams: &[&[u8]]) -> Bytes {
    let exporter = proto::Exporter { address: vec![192, 0, 2, 1].into(), port: 9, ..Default::default() };
    let datagram = |bytes: &&[u8]| proto::Datagram {
        exporter: 0,
        port: 9995,
        received: 1_795_442_400_000,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let datagrams = datagrams.iter().map(datagram).collect();
    let payload = proto::Payload { exporters: vec![exporter], datagrams, ..Default::default() };
    payload.encode_to_vec().into()
}

/// A payload with one NetFlow v9 record for each of these protocol numbers (element 4).
pub(super) fn record_batch(protocols: &[u8]) -> Bytes {
    let constant = |element: proto::RunField, width, base: u8| proto::Column {
        element: element as u32,
        width,
        base: vec![base].into(),
        ..Default::default()
    };
    let group = proto::Group {
        records: protocols.len() as u32,
        columns: vec![proto::Column { element: 4, width: 1, planes: 1, ..Default::default() }],
        runs: 1,
        run_columns: vec![
            constant(proto::RunField::Records, 4, protocols.len() as u8),
            constant(proto::RunField::Protocol, 1, 9),
        ],
        body: Bytes::copy_from_slice(protocols),
        ..Default::default()
    };
    let exporter = proto::Exporter { address: vec![192, 0, 2, 1].into(), port: 9, ..Default::default() };
    let payload = proto::Payload { exporters: vec![exporter], groups: vec![group], ..Default::default() };
    payload.encode_to_vec().into()
}

/// The protocol numbers of the records in JSON lines.
pub(super) fn protocols(lines: &str) -> Vec<u64> {
    let record = |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap() };
    lines.lines().map(|line| record(line)["protocolIdentifier"].as_u64().unwrap()).collect()
}

/// A batch as sinks get it.
pub(super) fn taken(seq: u64, payload: Bytes) -> Taken {
    let plain_size = payload.len() as u32;
    let batch = read::open(Codec::Plain, plain_size, &payload).unwrap();
    Taken {
        identity: identity("edge-1"),
        lane: LaneId([1; 16]),
        seq,
        records: batch.records(),
        batch,
        codec: Codec::Plain,
        plain_size,
        payload,
    }
}

/// A collector's folder with a CA, a certificate for the collector and one for the proxy edge-1.
struct Site {
    dir: tempfile::TempDir,
}

struct Connected {
    messages: mpsc::Sender<ClientMessage>,
    answers: tonic::Streaming<ServerMessage>,
}

const COLLECTOR: Subject<'_> = Subject { name: "localhost", server: true, dns: &[], ips: &[] };
const EDGE: Subject<'_> = Subject { name: "edge-1", server: false, dns: &[], ips: &[] };

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        issue::ca(dir.path()).unwrap();
        for subject in [COLLECTOR, EDGE] {
            issue::issue(dir.path(), &subject, dir.path()).unwrap();
        }
        Self { dir }
    }

    fn files(&self, name: &str) -> Files {
        let file = |name: String| self.dir.path().join(name);
        Files {
            ca: file("ca.pem".into()),
            cert: file(format!("{name}.pem")),
            key: file(format!("{name}.key")),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings(&self) -> Settings {
        let tls = tls::load_server(&self.files("localhost")).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut settings = Settings::new(listen, tls, self.path("state"));
        settings.drain_time = Duration::from_millis(200);
        settings.sinks.jsonl = Some(jsonl::Settings::new(self.path("out/flows.jsonl")));
        settings
    }

    async fn start(&self) -> Running {
        start_with(self.settings()).await
    }

    async fn connect(&self, address: SocketAddr, name: &str) -> Result<Connected, tonic::Status> {
        let tls = tls::load_client(&self.files(name)).unwrap();
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let socket = TcpStream::connect(address).await?;
                let connected = tls::connect(tls, "localhost", socket).await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(TokioIo::new(connected.stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        let (messages, outgoing) = mpsc::channel(64);
        let answers = ForwardClient::new(channel).stream(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Connected { messages, answers })
    }

    /// Connected, greeted, and lane 1 open at the mark given back.
    async fn open(&self, running: &Running, instance: u8) -> (Connected, u64) {
        let mut proxy = self.connect(running.address(), "edge-1").await.unwrap();
        let hello =
            proto::Hello { versions: vec![1], instance: vec![instance; 16].into(), ..Default::default() };
        proxy.send(Client::Hello(hello)).await;
        assert!(matches!(proxy.next().await, Some(Answer::Welcome(_))));
        let open = proto::Open {
            lane: 1,
            lane_id: vec![1; 16].into(),
            current: true,
            next_seq: 1,
            ..Default::default()
        };
        proxy.send(Client::Open(open)).await;
        let Some(Answer::Opened(opened)) = proxy.next().await else { panic!("no Opened") };
        (proxy, opened.committed_seq)
    }

    fn records(&self) -> Vec<u64> {
        protocols(&std::fs::read_to_string(self.path("out/flows.jsonl")).unwrap())
    }
}

impl Connected {
    async fn send(&self, message: Client) {
        self.messages.send(ClientMessage { message: Some(message) }).await.unwrap();
    }

    /// Sends a batch with one record, whose protocol is the number.
    async fn batch(&self, number: u8) {
        let digest = |payload: Bytes| batch::digest(Codec::Plain, payload.len() as u32, &payload);
        let previous = (number > 1).then(|| digest(record_batch(&[number - 1])));
        let payload = record_batch(&[number]);
        let batch = proto::Batch {
            lane: 1,
            seq: number.into(),
            previous_digest: previous.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
            codec: Codec::Plain.into(),
            plain_size: payload.len() as u32,
            payload,
        };
        self.send(Client::Batch(batch)).await;
    }

    /// The next message; `None` at the stream's end, whatever it is.
    async fn next(&mut self) -> Option<Answer> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.answers.message());
        next.await.expect("an answer in time").ok().flatten().and_then(|answer| answer.message)
    }

    async fn acked(&mut self, seq: u64) {
        loop {
            match self.next().await {
                Some(Answer::Ack(ack)) if ack.committed_seq == seq => return,
                Some(Answer::Ack(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn start_with(settings: Settings) -> Running {
    start(settings, Metrics::new(), CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_acked_once_durable_and_a_reconnect_resumes() {
    let site = Site::new();
    let running = site.start().await;
    let (mut proxy, mark) = site.open(&running, 1).await;
    assert_eq!(mark, 0);
    for number in 1..=3 {
        proxy.batch(number).await;
    }
    proxy.acked(3).await;
    assert_eq!(site.records(), [1, 2, 3]);
    drop(proxy);
    let (mut proxy, mark) = site.open(&running, 1).await;
    assert_eq!(mark, 3);
    for number in 2..=4 {
        proxy.batch(number).await;
    }
    proxy.acked(4).await;
    assert_eq!(site.records(), [1, 2, 3, 4]);
    let status = running.view().status();
    let [known] = &status.proxies[..] else { panic!("{status:?}") };
    assert_eq!((known.identity.as_str(), known.records_committed), ("edge-1", 4));
    assert_eq!(known.lanes[0].committed_seq, 4);
    running.stop().await;
    let running = site.start().await;
    let (mut proxy, mark) = site.open(&running, 2).await;
    assert_eq!(mark, 4);
    proxy.batch(5).await;
    proxy.acked(5).await;
    assert_eq!(site.records(), [1, 2, 3, 4, 5]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_of_one_proxy_commit_each_batch_once() {
    let site = Site::new();
    let running = site.start().await;
    let (mut first, _) = site.open(&running, 1).await;
    let (mut second, _) = site.open(&running, 1).await;
    for number in 1..=20 {
        first.batch(number).await;
        second.batch(number).await;
    }
    // What comes first is taken; either may see a gap and be told once where to go on.
    let mut marks = [0; 2];
    for (proxy, mark) in [(&mut first, 0), (&mut second, 1)] {
        while marks[mark] < 20 {
            match proxy.next().await {
                Some(Answer::Ack(ack)) => marks[mark] = ack.committed_seq,
                Some(Answer::Error(error)) => {
                    assert_eq!(error.code(), proto::error::Code::Gap);
                    for number in error.committed_seq + 1..=20 {
                        proxy.batch(number as u8).await;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    running.stop().await;
    assert_eq!(site.records(), (1..=20).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_asks_for_an_end_and_does_not_wait_for_ever() {
    let site = Site::new();
    let running = site.start().await;
    let view = running.view();
    let (mut proxy, _) = site.open(&running, 1).await;
    assert_eq!(view.status().proxies[0].streams, 1);
    running.stop().await;
    assert_eq!(proxy.next().await, Some(Answer::Drain(proto::Drain { deadline: 200 })));
    assert_eq!(proxy.next().await, None);
    assert_eq!(view.status().proxies[0].streams, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bye_ends_the_stream_after_the_last_ack() {
    let site = Site::new();
    let running = site.start().await;
    let (mut proxy, _) = site.open(&running, 1).await;
    proxy.batch(1).await;
    proxy.send(Client::Bye(proto::Bye {})).await;
    proxy.acked(1).await;
    assert_eq!(proxy.next().await, None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_named_or_not_on_the_list_is_refused() {
    let site = Site::new();
    let names = ["a.example".to_owned(), "b.example".to_owned()];
    let several = Subject { name: "several", server: true, dns: &names, ips: &[] };
    issue::issue(site.dir.path(), &several, site.dir.path()).unwrap();
    let mut settings = site.settings();
    settings.allow = BTreeSet::from(["edge-2".to_owned()]);
    let running = start_with(settings).await;
    for (name, text) in [("several", "DNS names"), ("edge-1", "not on this collector's list")] {
        let refused = site.connect(running.address(), name).await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{name}");
        assert!(refused.message().contains(text), "{refused}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_does_not_get_in() {
    let (site, other) = (Site::new(), Site::new());
    let running = site.start().await;
    std::fs::copy(site.path("ca.pem"), other.path("site-ca.pem")).unwrap();
    let mut files = other.files("edge-1");
    let bundle =
        [site.path("ca.pem"), other.path("ca.pem")].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(other.path("bundle.pem"), bundle.concat()).unwrap();
    files.ca = other.path("bundle.pem");
    let tls = tls::load_client(&files).unwrap();
    let socket = TcpStream::connect(running.address()).await.unwrap();
    let mut connected = tls::connect(tls, "localhost", socket).await.unwrap();
    let read = tokio::io::AsyncReadExt::read_u8(&mut connected.stream).await;
    assert!(tls::explain(&read.unwrap_err(), "the collector").contains("CA"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_identity_are_limited() {
    let site = Site::new();
    let mut settings = site.settings();
    settings.limits.streams_per_identity = 1;
    let running = start_with(settings).await;
    let (_first, _) = site.open(&running, 1).await;
    let mut second = site.connect(running.address(), "edge-1").await.unwrap();
    let Some(Answer::Error(error)) = second.next().await else { panic!("no Error") };
    assert_eq!(error.code(), proto::error::Code::Limit);
    assert_eq!(second.next().await, None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_told_in_one_sentence() {
    let site = Site::new();
    let running = site.start().await;
    let mut settings = site.settings();
    settings.listen = running.address();
    let taken = start(settings, Metrics::new(), CancellationToken::new()).await.unwrap_err();
    assert!(taken.to_string().contains("the port is taken"), "{taken}");
    let locked = start(site.settings(), Metrics::new(), CancellationToken::new()).await.unwrap_err();
    assert!(locked.to_string().contains("in use by another collector"), "{locked}");
    running.stop().await;
    site.start().await.stop().await;
}

/// Works when told to, and counts.
struct Hook {
    works: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Hook {
    fn name(&self) -> &'static str {
        "hook"
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Records
    }

    fn write(&mut self, group: &[Taken]) -> Result<u64, SinkError> {
        if !self.works.load(Ordering::Relaxed) {
            return Err(SinkError { sink: "hook", text: "not now".into() });
        }
        self.seen.lock().unwrap().extend(group.iter().map(|taken| taken.seq));
        Ok(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_sink_closes_the_window_until_it_works_again() {
    let site = Site::new();
    let (works, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let mut settings = site.settings();
    settings.sinks.others = vec![Box::new(Hook { works: works.clone(), seen: Arc::clone(&seen) })];
    let running = start_with(settings).await;
    let view = running.view();
    let (mut proxy, _) = site.open(&running, 1).await;
    assert_eq!(view.ready(), Ok(()));
    proxy.batch(1).await;
    let Some(Answer::Ack(ack)) = proxy.next().await else { panic!("no Ack") };
    assert_eq!((ack.committed_seq, ack.window.unwrap().batches), (0, 0));
    assert!(view.ready().unwrap_err().contains("not now"));
    works.store(true, Ordering::Relaxed);
    proxy.acked(1).await;
    assert_eq!(view.ready(), Ok(()));
    assert_eq!(*seen.lock().unwrap(), [1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stops_while_a_sink_stalls_gives_the_group_up() {
    let site = Site::new();
    let mut settings = site.settings();
    settings.sinks.others = vec![Box::new(Hook { works: Arc::default(), seen: Arc::default() })];
    let running = start_with(settings).await;
    let (mut proxy, _) = site.open(&running, 1).await;
    proxy.batch(1).await;
    assert!(matches!(proxy.next().await, Some(Answer::Ack(ack)) if ack.committed_seq == 0));
    running.stop().await;
    let running = site.start().await;
    let (mut proxy, mark) = site.open(&running, 1).await;
    assert_eq!(mark, 0);
    proxy.batch(1).await;
    proxy.acked(1).await;
    assert_eq!(site.records(), [1]);
    running.stop().await;
}

#[test]
fn metrics_have_one_sample_for_each_label() {
    let mut registry = prometheus_client::registry::Registry::with_prefix("flowproxy");
    let metrics = Metrics::new();
    metrics.register(&mut registry);
    metrics.records.inc_by(7);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("flowproxy_collector_committed_records_total 7\n"), "{text}");
    for reason in Metrics::REJECTED {
        let sample = format!("flowproxy_collector_rejected_batches_total{{reason=\"{reason}\"}} 0");
        assert!(text.contains(&sample), "{text}");
    }
}
