//! Names of this host's interfaces, as its kernel says: a real proxy in a network namespace of the test's own, with real veth
//! interfaces that are renamed, removed and made while flow comes from loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use support::datagrams::{Bytes, ipfix, set, template};
use support::probes::{Namespace, missing};
use support::rig::{End, Rig};
use support::{loopback_socket, skipped, wait_until};

const TEMPLATE: u16 = 256;
/// ingressInterface, egressInterface, packetDeltaCount: the number of the record.
const FIELDS: [(u16, u16); 3] = [(10, 4), (14, 4), (2, 8)];

/// Flow of an exporter on this host.
struct Exporter {
    socket: UdpSocket,
    to: SocketAddr,
    sent: u64,
}

impl Exporter {
    /// Sends a record from `ingress` to `egress`; gives its number.
    fn send(&mut self, ingress: u32, egress: u32) -> u64 {
        let record = Bytes::default().u32(ingress).u32(egress).u64(self.sent).0;
        let sets = [set(2, &template(TEMPLATE, &FIELDS)), set(TEMPLATE, &record)];
        let message = ipfix(u32::try_from(self.sent).unwrap(), 1, &sets);
        self.socket.send_to(&message, self.to).expect("send to loopback");
        self.sent += 1;
        self.sent - 1
    }

    /// Sends records until one comes out that `is_wanted`.
    fn until(&mut self, rig: &Rig, interfaces: (u32, u32), what: &str, is_wanted: impl Fn(&Value) -> bool) {
        let from = self.sent;
        wait_until(what, || {
            self.send(interfaces.0, interfaces.1);
            rig.records().iter().any(|record| number(record) >= from && is_wanted(record))
        });
    }
}

fn number(record: &Value) -> u64 {
    record["packetDeltaCount"].as_u64().expect("the record's number")
}

fn ingress(record: &Value) -> Option<&str> {
    record["ingressInterfaceName"].as_str()
}

/// The index that `ip` shows in front of a name.
fn index(namespace: &Namespace, name: &str) -> u32 {
    let text = namespace.ip(&["-o", "link", "show", "dev", name]);
    text.split(':').next().and_then(|index| index.trim().parse().ok()).expect("an index")
}

/// What `ingress` says of the records in their order, each name once for as long as it stays.
fn course(rig: &Rig, from: u64, to: u64) -> Vec<Option<String>> {
    let by_number: BTreeMap<u64, Option<String>> =
        rig.records().iter().map(|record| (number(record), ingress(record).map(str::to_owned))).collect();
    let mut names: Vec<_> = by_number.range(from..to).map(|(_, name)| name.clone()).collect();
    names.dedup();
    names
}

fn proxy(rig: &Rig, namespace: &Namespace, enrich: &str) -> End {
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = format!("{config}\n[enrich]\n{enrich}\n");
    let proxy = rig.start_as(namespace.flowproxy(), "run", "proxy.toml", &config);
    proxy.wait_healthy();
    proxy
}

/// `None` if this machine or user has no namespaces.
fn namespace(test: &str) -> Option<Namespace> {
    if let Some(tool) = missing(&["ip"]) {
        skipped(test, &format!("{tool} is not installed"));
        return None;
    }
    let namespace = Namespace::create();
    if namespace.is_none() {
        skipped(test, "no network namespace can be made here (root?)");
    }
    namespace
}

#[test]
fn names_follow_the_kernel_while_records_arrive() {
    let Some(namespace) = namespace("names_follow_the_kernel_while_records_arrive") else { return };
    namespace.ip(&["link", "set", "dev", "out0", "alias", "uplink to Paris"]);
    let (out, inside) = (index(&namespace, "out0"), index(&namespace, "in0"));
    namespace.enter(|| {
        let rig = Rig::new();
        let collector = rig.jsonl_collector();
        let proxy = proxy(&rig, &namespace, "");
        let mut exporter = Exporter { socket: loopback_socket(), to: proxy.udp(), sent: 0 };

        // The first record already: the tables are read before the proxy is healthy.
        exporter.send(out, inside);
        let first = rig.wait_data_records(1).remove(0);
        assert_eq!((ingress(&first), first["egressInterfaceName"].as_str()), (Some("out0"), Some("in0")));
        assert_eq!(first["ingressInterfaceDescription"], "uplink to Paris");
        assert_eq!(first["ingressInterfaceSpeed"], 10_000_000_000_u64);
        assert_eq!(first.get("egressInterfaceDescription"), None);

        let from = exporter.sent;
        exporter.until(&rig, (out, inside), "the old name", |record| ingress(record) == Some("out0"));
        namespace.ip(&["link", "set", "dev", "out0", "down"]);
        namespace.ip(&["link", "set", "dev", "out0", "name", "paris1"]);
        exporter.until(&rig, (out, inside), "the new name", |record| ingress(record) == Some("paris1"));
        assert_eq!(course(&rig, from, exporter.sent), [Some("out0".to_owned()), Some("paris1".to_owned())]);
        // Of an interface that is down the kernel tells a new alias only once it is up.
        namespace.ip(&["link", "set", "dev", "paris1", "up"]);
        namespace.ip(&["link", "set", "dev", "paris1", "alias", "uplink to Oslo"]);
        exporter.until(&rig, (out, inside), "the new alias", |record| {
            record["ingressInterfaceDescription"] == "uplink to Oslo"
        });

        // Removed, and the same number given to another.
        let from = exporter.sent;
        exporter.until(&rig, (out, inside), "the name", |record| ingress(record) == Some("paris1"));
        namespace.ip(&["link", "del", "dev", "paris1"]);
        exporter.until(&rig, (out, inside), "no name", |record| ingress(record).is_none());
        let number = out.to_string();
        namespace.ip(&[
            "link", "add", "name", "fresh0", "index", &number, "type", "veth", "peer", "name", "fresh1",
        ]);
        exporter.until(&rig, (out, inside), "the other's name", |record| ingress(record) == Some("fresh0"));
        let names = [Some("paris1".to_owned()), None, Some("fresh0".to_owned())];
        assert_eq!(course(&rig, from, exporter.sent), names);
        let last = rig.records().pop().expect("a record");
        assert_eq!(last.get("ingressInterfaceDescription"), None, "{last}");

        assert_eq!(proxy.metric("flowproxy_netlink_failures_total"), 0);
        assert!(proxy.metric("flowproxy_netlink_changes_total") > 0);
        proxy.process.terminate();
        collector.process.terminate();
    });
}

#[test]
fn addresses_of_the_host_are_the_host_and_a_reload_switches_it_off() {
    let test = "addresses_of_the_host_are_the_host_and_a_reload_switches_it_off";
    let Some(namespace) = namespace(test) else { return };
    namespace.ip(&["address", "add", "192.0.2.1/24", "dev", "out0"]);
    let (out, inside) = (index(&namespace, "out0"), index(&namespace, "in0"));
    namespace.enter(|| {
        let rig = Rig::new();
        let collector = rig.jsonl_collector();
        let config = rig.proxy_config("udp = [\"0.0.0.0:0\"]", &rig.endpoint());
        let proxy = rig.start_as(namespace.flowproxy(), "run", "proxy.toml", &config);
        proxy.wait_healthy();
        let socket = UdpSocket::bind("192.0.2.1:0").expect("a socket at an address of the host");
        let to = SocketAddr::from(([192, 0, 2, 1], proxy.udp().port()));
        let mut exporter = Exporter { socket, to, sent: 0 };
        exporter.until(&rig, (out, inside), "a name", |record| ingress(record) == Some("out0"));

        let reload = |enrich: &str| {
            std::fs::write(rig.path("proxy.toml"), format!("{config}\n[enrich]\n{enrich}\n"))
                .expect("config");
            proxy.process.signal("HUP");
        };
        reload("netlink = false");
        exporter.until(&rig, (out, inside), "no name", |record| ingress(record).is_none());
        assert_eq!(proxy.metric("flowproxy_netlink_works"), 0);
        reload("netlink = true");
        exporter.until(&rig, (out, inside), "a name again", |record| ingress(record) == Some("out0"));
        proxy.process.terminate();
        collector.process.terminate();
    });
}

#[test]
fn changes_that_are_lost_are_asked_for_again() {
    const PAIRS: usize = 1_500;
    let Some(namespace) = namespace("changes_that_are_lost_are_asked_for_again") else { return };
    namespace.enter(|| {
        let rig = Rig::new();
        let collector = rig.jsonl_collector();
        let proxy = proxy(&rig, &namespace, "");
        // More than the socket's buffer holds, while nobody reads it.
        proxy.process.signal("STOP");
        let made = (0..PAIRS).map(|n| format!("link add name a{n} type veth peer name b{n}\n"));
        let changes =
            made.chain(["link set dev out0 down\n".to_owned(), "link set dev out0 name last0\n".to_owned()]);
        let batch = rig.path("batch");
        std::fs::write(&batch, changes.collect::<String>()).unwrap();
        namespace.ip(&["-batch", batch.to_str().unwrap()]);
        proxy.process.signal("CONT");
        let (renamed, made) = (index(&namespace, "last0"), index(&namespace, &format!("b{}", PAIRS - 1)));
        wait_until("all interfaces", || proxy.metric("flowproxy_netlink_interfaces") == 3 + 2 * PAIRS as u64);
        let (_, metrics) = proxy.get("/metrics");
        let lost =
            metrics.lines().find(|line| line.starts_with("flowproxy_netlink_rounds_total{reason=\"lost\"}"));
        assert!(lost.is_some_and(|lost| !lost.ends_with(" 0")), "{lost:?}");
        let mut exporter = Exporter { socket: loopback_socket(), to: proxy.udp(), sent: 0 };
        exporter.send(renamed, made);
        let record = rig.wait_data_records(1).remove(0);
        let names = (ingress(&record), record["egressInterfaceName"].as_str().map(str::to_owned));
        assert_eq!(names, (Some("last0"), Some(format!("b{}", PAIRS - 1))));
        proxy.process.terminate();
        collector.process.terminate();
    });
}
