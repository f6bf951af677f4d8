//! The corpus: captures of real devices' exports, each beside what tshark makes of it.
//!
//! It lies in `$FLOWPROXY_CORPUS`, else `../shared/corpus`: `manifest.json` lists the cases, `NAME.pcap` is one,
//! `golden/NAME.json` says what is in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::pcap::read_udp;
use super::rig::End;

/// The folder, if there is one.
pub fn corpus() -> Option<PathBuf> {
    let named = std::env::var_os("FLOWPROXY_CORPUS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"));
    folder.join("manifest.json").is_file().then_some(folder)
}

/// A record as its fields in wire order: (enterprise, element, value in hex).
pub type Fields = Vec<(u64, u64, String)>;

/// A record of the golden.
pub struct GoldenRecord {
    pub is_options: bool,
    /// Its template came after it: only a decoder that waits has it.
    pub is_late: bool,
    pub fields: Fields,
}

/// One capture and the records that are in it.
pub struct Case {
    pub name: String,
    pub records: Vec<GoldenRecord>,
    capture: PathBuf,
}

/// The cases whose protocol is v5, v9 or IPFIX.
pub fn cases(folder: &Path) -> Vec<Case> {
    let manifest = json(&folder.join("manifest.json"));
    let listed = manifest["cases"].as_array().expect("cases");
    let is_ours = |case: &&Value| ["5", "9", "10"].contains(&case["version"].as_str().unwrap_or_default());
    listed.iter().filter(is_ours).map(|case| read_case(folder, case)).collect()
}

fn read_case(folder: &Path, case: &Value) -> Case {
    let text = |key: &str| case[key].as_str().expect("text").to_owned();
    let golden = json(&folder.join(text("golden")));
    let datagrams = golden["datagrams"].as_array().expect("datagrams");
    let records = datagrams.iter().flat_map(|datagram| {
        let known = golden_records(&datagram["records"], false);
        known.chain(golden_records(&datagram["late"]["records"], true))
    });
    Case { name: text("name"), records: records.collect(), capture: folder.join(text("file")) }
}

fn golden_records(records: &Value, is_late: bool) -> impl Iterator<Item = GoldenRecord> {
    records.as_array().into_iter().flatten().map(move |record| {
        let fields = record["fields"].as_array().expect("fields").iter();
        // Padding of fixed formats has no element.
        let fields = fields.filter(|field| !field[0].is_null()).map(|field| {
            (
                field[1].as_u64().unwrap_or(0),
                field[0].as_u64().expect("element"),
                field[2].as_str().expect("hex").to_owned(),
            )
        });
        GoldenRecord { is_options: record["options"] == true, is_late, fields: fields.collect() }
    })
}

fn json(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The cases as they went through a proxy.
pub struct Played {
    /// Datagrams sent.
    pub datagrams: u64,
    /// By address, the place of the case that it sent.
    pub senders: BTreeMap<IpAddr, usize>,
}

/// Sends the datagrams of every case in order. Each sender of a capture has an address of its own in 127.0.0.0/8, so that
/// no case meets another's templates.
pub fn play(cases: &[Case], proxy: &End) -> Played {
    let mut played = Played { datagrams: 0, senders: BTreeMap::new() };
    for (place, case) in cases.iter().enumerate() {
        let mut sockets: BTreeMap<(IpAddr, u16), UdpSocket> = BTreeMap::new();
        for datagram in read_udp(&case.capture) {
            let next = sockets.len() + 1;
            let socket = sockets.entry((datagram.source, datagram.source_port)).or_insert_with(|| {
                UdpSocket::bind(format!("127.77.{place}.{next}:0")).expect("an address of loopback")
            });
            socket.send_to(&datagram.payload, proxy.udp()).expect("send to loopback");
            played.datagrams += 1;
        }
        let addresses = sockets.values().map(|socket| socket.local_addr().expect("address").ip());
        played.senders.extend(addresses.map(|address| (address, place)));
        proxy.wait_metric("flowproxy_datagrams_received_total", played.datagrams);
    }
    played
}
