//! What exporters have told survives a kill -9: real processes, real sockets, templates once and never again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use flowproxy::flow::Exporter;
use flowproxy::keeper;
use flowproxy::proto::Protocol;
use flowproxy::wire::{DomainKey, Saved};
use serde_json::Value;
use support::datagrams::{Bytes, EXPORT_SECONDS, ipfix, set, template, v9};
use support::rig::{End, Rig};
use support::{Numbers, loopback_socket, wait_for, wait_until};

const TEMPLATE: u16 = 256;
const OCTETS: (u16, u16) = (1, 4);
const PACKETS: (u16, u16) = (2, 4);

/// A v9 exporter of two fields in this order, on a socket of its own.
struct Exporting {
    socket: UdpSocket,
    fields: [(u16, u16); 2],
    sent: u32,
}

impl Exporting {
    fn new(socket: UdpSocket, fields: [(u16, u16); 2]) -> Self {
        Exporting { socket, fields, sent: 0 }
    }

    fn port(&self) -> u64 {
        self.socket.local_addr().unwrap().port().into()
    }

    fn send(&mut self, to: SocketAddr, flowset: Vec<u8>) {
        self.sent += 1;
        self.socket.send_to(&v9(self.sent, 7, 1, &[flowset]), to).unwrap();
    }

    fn tell(&mut self, to: SocketAddr) {
        self.send(to, set(0, &template(TEMPLATE, &self.fields)));
    }

    /// A record whose octets are a million and its packets, which are so many.
    fn data(&mut self, to: SocketAddr, packets: u32) {
        let value = |field| if field == OCTETS { 1_000_000 + packets } else { packets };
        let [first, second] = self.fields.map(value);
        self.send(to, set(TEMPLATE, &Bytes::default().u32(first).u32(second).0));
    }
}

fn proxy_of(rig: &Rig, shards: usize) -> End {
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let end = rig.start("run", "proxy.toml", &config.replace("shards = 1", &format!("shards = {shards}")));
    end.wait_healthy();
    end
}

/// Waits until that many domains are on the disk, and kills the process.
fn kill_once_kept(proxy: End, domains: u64) {
    proxy.wait_metric("flowproxy_state_written_domains_total", domains);
    proxy.process.kill();
}

/// Every record is its exporter's own, read by its own template.
fn assert_unmixed(records: &[Value]) {
    for record in records {
        let (octets, packets) =
            (record["octetDeltaCount"].as_u64().unwrap(), record["packetDeltaCount"].as_u64().unwrap());
        assert_eq!(octets, 1_000_000 + packets, "{record}");
    }
}

fn sources(records: &[Value]) -> HashMap<&str, usize> {
    let mut sources = HashMap::new();
    for record in records {
        *sources.entry(record["templateSource"].as_str().unwrap_or("heard")).or_default() += 1;
    }
    sources
}

fn of_source(proxy: &End, source: &str) -> u64 {
    let name = format!("flowproxy_decode_records_by_template_source_total{{source=\"{source}\"}} ");
    let (_, metrics) = proxy.get("/metrics");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric").parse().unwrap()
}

#[test]
fn templates_sent_once_serve_after_a_kill() {
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let mut exporter = Exporting::new(loopback_socket(), [OCTETS, PACKETS]);
    exporter.tell(proxy.udp());
    exporter.data(proxy.udp(), 1);
    rig.wait_data_records(1);
    kill_once_kept(proxy, 1);

    let proxy = rig.proxy();
    assert_eq!(proxy.metric("flowproxy_templates_restored_total"), 1);
    for packets in 2..=100 {
        exporter.data(proxy.udp(), packets);
    }
    let records = rig.wait_data_records(100);
    assert_unmixed(&records);
    assert_eq!(sources(&records), HashMap::from([("heard", 1), ("restored", 99)]));
    assert_eq!((of_source(&proxy, "restored"), of_source(&proxy, "heard")), (99, 0));
    assert_eq!(proxy.metric("flowproxy_sets_undecoded_total"), 0);

    // Heard again, it is as if it had never been gone, and nothing of it is written anew.
    exporter.tell(proxy.udp());
    exporter.data(proxy.udp(), 101);
    let records = rig.wait_data_records(101);
    assert!(records.last().unwrap()["templateSource"].is_null());
    assert_eq!(of_source(&proxy, "heard"), 1);
    assert_eq!(proxy.metric("flowproxy_state_written_domains_total"), 0);
    assert_eq!(proxy.status()["state"]["templates_restored"], 1);
    assert!(proxy.process.terminate().success());
}

/// Exporters of one address, domain and template id with the same fields in another order: a wrong guess would be
/// silent garbage. In every order of their templates and data, and after a kill.
#[test]
fn exporters_of_one_address_are_never_mixed_whatever_comes_first() {
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let mut exporters = Vec::new();
    let mut packets = 0;
    for order in orders([0, 1, 2, 3]) {
        let mut pair = [[OCTETS, PACKETS], [PACKETS, OCTETS]].map(|it| Exporting::new(loopback_socket(), it));
        for step in order {
            packets += 1;
            match step {
                0 | 1 => pair[step].tell(proxy.udp()),
                _ => pair[step - 2].data(proxy.udp(), packets),
            }
        }
        exporters.extend(pair);
    }
    assert_eq!(exporters.len(), 48);
    assert_unmixed(&rig.wait_data_records(48));
    kill_once_kept(proxy, 48);

    let proxy = rig.proxy();
    let mut silent = [[OCTETS, PACKETS], [PACKETS, OCTETS]].map(|it| Exporting::new(loopback_socket(), it));
    for round in 0..2 {
        for (place, exporter) in exporters.iter_mut().enumerate() {
            if round == 1 && place % 3 == 0 {
                // Its template, told anew, is no word on those of the others.
                exporter.tell(proxy.udp());
            }
            exporter.data(proxy.udp(), 2_000 + packets);
            packets += 1;
        }
        silent.iter_mut().for_each(|exporter| exporter.data(proxy.udp(), 5_000));
    }
    let records = rig.wait_data_records(3 * 48);
    assert_unmixed(&records);
    assert_eq!(records.len(), 3 * 48, "who has told nothing waits");
    wait_until("what waits", || proxy.metric("flowproxy_sets_held") == 4);
    // The others' templates are not lent to them, however long they wait.
    silent.iter_mut().for_each(|exporter| exporter.tell(proxy.udp()));
    let records = rig.wait_data_records(3 * 48 + 4);
    assert_unmixed(&records);
    let ports: Vec<u64> = records.iter().map(|record| record["exporterPort"].as_u64().unwrap()).collect();
    for exporter in &exporters {
        assert_eq!(ports.iter().filter(|port| **port == exporter.port()).count(), 3);
    }
    assert_eq!(of_source(&proxy, "provisional"), 0);
}

/// All orders of some steps.
fn orders<const N: usize>(steps: [usize; N]) -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for step in steps {
        let longer = |order: &Vec<usize>| {
            let insert = |at: usize| [&order[..at], &[step], &order[at..]].concat();
            (0..=order.len()).map(insert).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}

#[test]
fn another_number_of_shards_loses_nothing() {
    const EXPORTERS: u64 = 32;
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), proxy_of(&rig, 4));
    let mut exporters: Vec<Exporting> = (1..=EXPORTERS)
        .map(|host| UdpSocket::bind((format!("127.0.{host}.{host}"), 0)).expect("an address of loopback"))
        .map(|socket| Exporting::new(socket, [OCTETS, PACKETS]))
        .collect();
    for exporter in &mut exporters {
        exporter.tell(proxy.udp());
    }
    kill_once_kept(proxy, EXPORTERS);
    let mut expected = 0;
    for shards in [3, 1, 7, 4] {
        let proxy = proxy_of(&rig, shards);
        assert_eq!(proxy.metric("flowproxy_templates_restored_total"), EXPORTERS, "{shards} shards");
        for exporter in &mut exporters {
            exporter.data(proxy.udp(), expected);
            expected += 1;
        }
        assert_unmixed(&rig.wait_data_records(expected as usize));
        assert_eq!(proxy.metric("flowproxy_sets_held"), 0);
        assert_eq!(of_source(&proxy, "restored"), EXPORTERS);
        proxy.process.kill();
    }
}

/// IPFIX with times since the exporter's start, which only an options record tells, as it does the sampling rate.
#[test]
fn sampling_rate_and_start_of_the_exporter_survive() {
    const BOOT_MS: u64 = EXPORT_SECONDS as u64 * 1_000 - 5_000_000;
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let socket = loopback_socket();
    let options = [(149, 4), (34, 4), (160, 8)];
    let options_template = template(300, &options);
    // An options template has the number of scope fields behind that of all.
    let options_template = [&options_template[..4], &[0, 1], &options_template[4..]].concat();
    let told = Bytes::default().u32(11).u32(512).u64(BOOT_MS).0;
    let fields = [OCTETS, PACKETS, (22, 4), (21, 4)];
    let all = [set(3, &options_template), set(2, &template(TEMPLATE, &fields)), set(300, &told)];
    socket.send_to(&ipfix(1, 11, &all), proxy.udp()).unwrap();
    proxy.wait_metric("flowproxy_sets_decoded_total", 3);
    kill_once_kept(proxy, 1);

    let proxy = rig.proxy();
    assert_eq!(proxy.metric("flowproxy_templates_restored_total"), 2);
    let record = Bytes::default().u32(1_000_003).u32(3).u32(4_000_000).u32(4_500_000).0;
    socket.send_to(&ipfix(2, 11, &[set(TEMPLATE, &record)]), proxy.udp()).unwrap();
    let records = rig.wait_data_records(1);
    assert_unmixed(&records);
    let record = records.last().unwrap();
    assert_eq!((&record["samplingRate"], &record["samplingSource"]), (&512.into(), &"options".into()));
    assert_eq!(record["flowStartMilliseconds"], BOOT_MS + 4_000_000, "{record}");
    assert_eq!(record["flowEndMilliseconds"], BOOT_MS + 4_500_000);
    assert_eq!(record["templateSource"], "restored");
}

/// Traffic that tells nothing new costs no write, however much of it there is.
#[test]
fn nothing_is_written_while_nothing_changes() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let mut exporter = Exporting::new(loopback_socket(), [OCTETS, PACKETS]);
    exporter.tell(proxy.udp());
    exporter.data(proxy.udp(), 1);
    proxy.wait_metric("flowproxy_state_written_domains_total", 1);
    let uptime = || proxy.status()["uptime_seconds"].as_u64().unwrap();
    let until = uptime() + 10;
    let mut sent = 2;
    while uptime() < until {
        for packets in 0..50 {
            exporter.tell(proxy.udp());
            exporter.data(proxy.udp(), packets);
        }
        sent += 100;
        proxy.wait_metric("flowproxy_datagrams_received_total", sent);
    }
    assert_eq!(proxy.metric("flowproxy_records_decoded_total"), sent / 2);
    assert_eq!(proxy.metric("flowproxy_state_writes_total"), 1);
    assert_eq!(proxy.metric("flowproxy_state_written_domains_total"), 1);
    support::note(&format!("{} datagrams without a write", sent - 2));
}

#[test]
fn a_store_that_cannot_be_read_is_no_reason_not_to_start() {
    let rig = Rig::new();
    let (_collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let mut exporter = Exporting::new(loopback_socket(), [OCTETS, PACKETS]);
    exporter.tell(proxy.udp());
    kill_once_kept(proxy, 1);
    let file = rig.path("spool/state/exporters.redb");
    let mut bytes = std::fs::read(&file).expect("the state database, in the spool's folder");
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&file, &bytes).unwrap();

    let proxy = rig.proxy();
    assert_eq!(proxy.metric("flowproxy_state_set_aside_total"), 1);
    assert_eq!(proxy.metric("flowproxy_templates_restored_total"), 0);
    assert!(proxy.process.log().contains("set aside"), "{}", proxy.process.log());
    assert_eq!(std::fs::read(rig.path("spool/state/exporters.redb.aside")).unwrap(), bytes);
    exporter.tell(proxy.udp());
    kill_once_kept(proxy, 1);
    assert_eq!(rig.proxy().metric("flowproxy_templates_restored_total"), 1);
}

/// A folder that comes late, as of a disk that is mounted after the start: what was in it serves from the next start on.
#[test]
fn a_store_that_comes_late_is_kept_and_put_back_at_the_next_start() {
    let rig = Rig::new();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = format!("{config}\n[state]\ndir = \"mounted/state\"\n");
    let start = || {
        let end = rig.start("run", "proxy.toml", &config);
        end.wait_healthy();
        end
    };
    std::fs::create_dir(rig.path("mounted")).unwrap();
    let [mut early, mut late] = std::array::from_fn(|_| Exporting::new(loopback_socket(), [OCTETS, PACKETS]));
    let proxy = start();
    early.tell(proxy.udp());
    kill_once_kept(proxy, 1);

    // Not mounted, and a file where it should be.
    let (mounted, away) = (rig.path("mounted"), rig.path("away"));
    std::fs::rename(&mounted, &away).unwrap();
    std::fs::write(&mounted, "no folder").unwrap();
    let proxy = start();
    assert!(proxy.process.log().contains("starting without it"), "{}", proxy.process.log());
    assert_eq!(proxy.status()["state"]["writable"], false);
    late.tell(proxy.udp());
    proxy.wait_metric("flowproxy_state_write_failures_total", 1);
    std::fs::remove_file(&mounted).unwrap();
    std::fs::rename(&away, &mounted).unwrap();
    proxy.wait_metric("flowproxy_state_written_domains_total", 1);
    let log = proxy.process.log();
    assert!(log.contains("it is put back at the next start domains=1"), "{log}");
    assert_eq!(proxy.metric("flowproxy_templates_restored_total"), 0);
    proxy.process.kill();
    assert_eq!(start().metric("flowproxy_templates_restored_total"), 2);
}

#[test]
fn a_second_process_on_the_same_state_is_refused() {
    let (rig, other) = (Rig::new(), Rig::new());
    let _proxy = rig.proxy();
    let config = other.proxy_config("udp = [\"127.0.0.1:0\"]", &other.endpoint());
    let dir = rig.path("spool/state");
    let config = format!("{config}\n[state]\ndir = \"{}\"\n", dir.display());
    let mut second = other.start("run", "proxy.toml", &config);
    assert!(!second.process.wait().success());
    let said = second.process.log();
    assert!(said.contains(&format!("{} is in use by another process", dir.display())), "{said}");
}

/// Where the victim of the next test keeps its state.
const VICTIM: &str = "FLOWPROXY_TEST_VICTIM";

fn open(dir: &Path) -> (keeper::Keeper, keeper::Sender, Vec<keeper::Row>, keeper::Metrics) {
    let settings = keeper::Settings { dir: dir.to_owned(), max_domains: 1_000, max_bytes: 8 << 20 };
    let metrics = keeper::Metrics::default();
    let (keeper, sender, rows) = keeper::open(settings, metrics.clone()).unwrap();
    (keeper, sender, rows, metrics)
}

fn key(port: u16) -> DomainKey {
    let exporter = Exporter { address: [192, 0, 2, 1].into(), port };
    DomainKey { exporter, protocol: Protocol::Ipfix, domain: 0 }
}

/// Not a test by itself: writes as fast as it can, and prints the number of each write once it is durable.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let mut numbers = Numbers::from_seed(std::process::id().into());
    let (_, _, rows, _) = open(Path::new(&dir));
    let mut number = rows.iter().find(|row| row.key == key(0)).map_or(0, |row| row.saved.used);
    loop {
        number += 1;
        let (keeper, sender, ..) = open(Path::new(&dir));
        for _ in 0..20 {
            let saved = Saved { used: number, bytes: vec![number as u8; 1 + numbers.below(5_000)] };
            assert!(sender.put(key(1 + numbers.below(500) as u16), Some(saved)));
        }
        assert!(sender.put(key(0), Some(Saved { used: number, bytes: number.to_be_bytes().into() })));
        drop(sender);
        keeper.run();
        println!("durable {number}");
    }
}

#[test]
fn a_kill_in_the_middle_of_a_write_leaves_what_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers::from_seed(3);
    for round in 0..20 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "victim", "--nocapture"]).env(VICTIM, dir.path());
        let mut victim = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut durable = lines.map_while(Result::ok).filter_map(|line| number_in(&line));
        let first = wait_for("a write of the victim", || durable.next());
        // The kill comes at any place of a later write.
        for _ in 0..numbers.below(4) {
            durable.next();
        }
        for _ in 0..numbers.below(3_000_000) {
            std::hint::spin_loop();
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let last = durable.last().unwrap_or(first);

        let (_, _, rows, metrics) = open(dir.path());
        assert_eq!(metrics.set_aside.get(), 0, "round {round}");
        let row = rows.iter().find(|row| row.key == key(0)).expect("what was durable");
        assert!(row.saved.used >= last, "round {round}: {} after {last}", row.saved.used);
        assert_eq!(row.saved.bytes, row.saved.used.to_be_bytes());
        // Each transaction is there whole: none of a later one than the number's.
        for row in &rows[..rows.len() - 1] {
            assert!(row.saved.used <= rows.last().unwrap().saved.used);
            assert!(row.key == key(0) || row.saved.bytes.iter().all(|byte| *byte == row.saved.used as u8));
        }
        let newest = rows.iter().map(|row| row.saved.used).max().unwrap();
        assert_eq!(newest, row_of(&rows, key(0)).saved.used);
    }
}

fn row_of(rows: &[keeper::Row], key: DomainKey) -> &keeper::Row {
    rows.iter().find(|row| row.key == key).expect("a row")
}

fn number_in(line: &str) -> Option<u32> {
    line.split_once("durable ")?.1.trim().parse().ok()
}
