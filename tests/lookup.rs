//! Where addresses belong: a real proxy with files of the test's own making, replaced and broken while flow comes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use support::datagrams::{Bytes, ipfix, set, template};
use support::process::flowproxy;
use support::rig::{End, Rig};
use support::{loopback_socket, wait_until};

const TEMPLATE: u16 = 256;
/// sourceIPv4Address, destinationIPv4Address, bgpSourceAsNumber, packetDeltaCount: the number of the record.
const FIELDS: [(u16, u16); 4] = [(8, 4), (12, 4), (16, 4), (2, 8)];

/// A file in whose tree 1.2.0.0/16, as an IPv4 address among IPv6 ones, is said to be `value`.
fn file(value: impl Serialize) -> Vec<u8> {
    let mut made = Database::default();
    made.metadata.ip_version = IpVersion::V6;
    made.metadata.binary_format_major_version = 2;
    made.metadata.database_type = "Test".to_owned();
    made.metadata.build_epoch = 1_700_000_000;
    let place = made.insert_value(value).unwrap();
    made.insert_node("::102:0/112".parse::<IpAddrWithMask>().unwrap(), place);
    made.write_to(Vec::new()).unwrap()
}

fn country(code: &str) -> Vec<u8> {
    file(BTreeMap::from([("country", BTreeMap::from([("iso_code", code)]))]))
}

/// Sends records until one comes out that `is_wanted`.
fn until(rig: &Rig, proxy: &End, sent: &mut u64, what: &str, is_wanted: impl Fn(&Value) -> bool) {
    let (socket, to, from) = (loopback_socket(), proxy.udp(), *sent);
    wait_until(what, || {
        // 1.2.3.4 without an autonomous system, then with one of its own; to 10.0.0.1.
        for own in [0, 64_999] {
            let record = Bytes::default().raw(&[1, 2, 3, 4, 10, 0, 0, 1]).u32(own).u64(*sent).0;
            let sets = [set(2, &template(TEMPLATE, &FIELDS)), set(TEMPLATE, &record)];
            socket.send_to(&ipfix(0, 1, &sets), to).expect("send to loopback");
            *sent += 1;
        }
        let is_new =
            |record: &Value| record["packetDeltaCount"].as_u64().is_some_and(|number| number >= from);
        rig.records().iter().any(|record| is_new(record) && is_wanted(record))
    });
}

#[test]
fn files_are_replaced_and_broken_while_records_flow() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    fs::write(rig.path("asn.mmdb"), file(BTreeMap::from([("autonomous_system_number", 64_500_u32)])))
        .unwrap();
    fs::write(rig.path("country.mmdb"), country("DE")).unwrap();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = format!("{config}\n[enrich]\nasn = \"asn.mmdb\"\ncountry = \"country.mmdb\"\n");
    let proxy = rig.start("run", "proxy.toml", &config);
    proxy.wait_healthy();
    let mut sent = 0;
    until(&rig, &proxy, &mut sent, "a country", |record| record["sourceCountry"] == "DE");
    wait_until("a looked-up and an own system", || rig.records().len() >= 2);
    for record in rig.records() {
        let looked_up = record["packetDeltaCount"].as_u64().unwrap() % 2 == 0;
        assert_eq!(record["bgpSourceAsNumber"], if looked_up { 64_500 } else { 64_999 }, "{record}");
        assert_eq!(record["bgpSourceAsNumberSource"] == "lookup", looked_up, "{record}");
        assert_eq!(record.get("destinationCountry"), None, "{record}");
    }
    let status = proxy.status();
    assert_eq!(status["lookup"][1]["type"], "Test");
    assert_eq!(status["lookup"][1]["built"], 1_700_000_000_000_u64);

    // Replaced whole.
    fs::write(rig.path("new"), country("AT")).unwrap();
    fs::rename(rig.path("new"), rig.path("country.mmdb")).unwrap();
    until(&rig, &proxy, &mut sent, "the new country", |record| record["sourceCountry"] == "AT");
    let mut course: Vec<_> = rig.records().iter().map(|record| record["sourceCountry"].to_string()).collect();
    course.dedup();
    assert_eq!(course, ["\"DE\"", "\"AT\""]);

    // Cut in place: the old one stays, and the process too.
    let length = fs::metadata(rig.path("country.mmdb")).unwrap().len();
    fs::File::options().write(true).open(rig.path("country.mmdb")).unwrap().set_len(length / 2).unwrap();
    proxy.wait_metric("flowproxy_lookup_failures_total", 1);
    until(&rig, &proxy, &mut sent, "the country still", |record| record["sourceCountry"] == "AT");
    assert_eq!(proxy.metric("flowproxy_lookup_swaps_total"), 1);

    // Switched off while it runs; a file that is broken is refused then, too.
    let reload = |config: &str| {
        fs::write(rig.path("proxy.toml"), config).unwrap();
        proxy.process.signal("HUP");
    };
    reload(&config.replace("asn.mmdb", "none.mmdb"));
    wait_until("the refusal", || proxy.status()["reload"]["fault"].to_string().contains("enrich.asn"));
    reload(&config.replace("country =", "# country ="));
    until(&rig, &proxy, &mut sent, "no country", |record| record.get("sourceCountry").is_none());
    proxy.process.terminate();
    collector.process.terminate();
}

#[test]
fn a_file_that_cannot_be_used_is_a_fault_of_the_config() {
    let rig = Rig::new();
    fs::write(rig.path("asn.mmdb"), country("DE")).unwrap();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = format!("{config}\n[enrich]\nasn = \"asn.mmdb\"\ncountry = \"none.mmdb\"\n");
    fs::write(rig.path("proxy.toml"), config).unwrap();
    let file = rig.path("proxy.toml");
    for command in ["run", "check"] {
        let output = flowproxy(&[command, "-c", file.to_str().unwrap()]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains("enrich.asn = ") && told.contains("enrich.country = "), "{told}");
    }
}
