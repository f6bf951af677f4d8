//! Why nothing arrives: what `flowproxy exporters`, `/status` and the log say of senders at a running proxy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use serde_json::Value;
use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};
use support::datagrams::{self, Bytes, Flow};
use support::process::flowproxy;
use support::rig::{End, Rig, free_tcp_port};
use support::{loopback_socket, wait_for, wait_until};

fn now_seconds() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

/// A v9 datagram whose exporter's clock is so many seconds ahead of ours.
fn v9(sequence: u32, ahead_seconds: i32, flowsets: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = datagrams::v9(sequence, 7, 1, flowsets);
    let time = now_seconds().wrapping_add_signed(ahead_seconds);
    datagram[8..12].copy_from_slice(&time.to_be_bytes());
    datagram
}

/// An address and a counter, and a sampler's id.
const PLAIN: [(u16, u16); 2] = [(8, 4), (1, 4)];
const SAMPLED: [(u16, u16); 3] = [(8, 4), (1, 4), (48, 1)];

fn template(fields: &[(u16, u16)]) -> Vec<u8> {
    datagrams::set(0, &datagrams::template(256, fields))
}

fn data(record: &[u8]) -> Vec<u8> {
    datagrams::set(256, record)
}

const RECORD: [u8; 8] = [192, 0, 2, 1, 0, 0, 0, 9];

fn send(proxy: &End, from: &UdpSocket, datagram: Vec<u8>) {
    proxy.feed(from, proxy.udp(), &[datagram]);
}

/// What the command prints about the proxy, and its exit code.
fn ask(proxy: &End, more: &[&str]) -> (String, i32) {
    let admin = proxy.admin().to_string();
    let output = flowproxy(&[&["exporters", "--admin", &admin], more].concat());
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code().unwrap())
}

/// The line of the sender with this socket, without its last words cut off.
fn line_of(text: &str, from: &UdpSocket) -> Option<String> {
    let end = from.local_addr().unwrap().to_string();
    text.lines().find(|line| line.starts_with(&format!("{end} "))).map(str::to_owned)
}

/// Waits until the sender's line ends with `cause`; gives the line.
fn wait_cause(proxy: &End, from: &UdpSocket, cause: &str) -> String {
    let mut last = String::new();
    wait_for(&format!("{cause:?} of {from:?}"), || {
        last = ask(proxy, &[]).0;
        line_of(&last, from).filter(|line| line.contains(cause))
    })
}

/// Lines of the log about this sender.
fn logged(proxy: &End, from: &UdpSocket) -> Vec<String> {
    let port = format!(" port={} ", from.local_addr().unwrap().port());
    let log = proxy.process.log();
    log.lines()
        .filter(|line| line.contains("exporter=127.0.0.1") && line.contains(&port))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_template_that_is_awaited_is_told_and_then_all_is_well() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let socket = loopback_socket();
    for sequence in 1..42 {
        send(&proxy, &socket, v9(sequence, 0, &[data(&RECORD)]));
    }
    let line = wait_cause(&proxy, &socket, "template 256 not seen yet, 41 sets held since ");
    assert!(line.ends_with(" UTC; exporters resend theirs every 1 to 30 minutes"), "{line}");

    send(&proxy, &socket, v9(42, 0, &[template(&PLAIN)]));
    let line = wait_cause(&proxy, &socket, "  ok");
    let words: Vec<_> = line.split_whitespace().collect();
    // Protocol, domain, datagrams, records, templates, held.
    assert_eq!((words[1], words[2]), ("netflow-v9", "7"), "{line}");
    assert!(line.contains("  42       41          1     0  "), "{line}");

    let lines = logged(&proxy, &socket);
    assert_eq!(lines.len(), 2, "one for each state: {lines:?}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("An exporter was heard: template 256 not seen yet")
    );
    assert!(lines[1].contains("INFO") && lines[1].contains("An exporter's state has changed: ok"));
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success());
}

#[test]
fn each_oddity_has_its_sentence() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let [unsampled, zero, late, strange, early] = std::array::from_fn(|_| loopback_socket());
    let sampled: Vec<u8> = [&RECORD[..], &[3]].concat();
    send(&proxy, &unsampled, v9(1, 0, &[template(&SAMPLED), data(&sampled)]));
    for _ in 0..12 {
        send(&proxy, &zero, v9(0, 0, &[template(&PLAIN), data(&RECORD)]));
    }
    send(&proxy, &late, v9(1, -(2 * 60 + 13) * 60 - 20, &[template(&PLAIN), data(&RECORD)]));
    send(&proxy, &strange, Bytes::default().u16(4_660).u32(0).u32(0).0);
    send(&proxy, &early, v9(1, 0, &[template(&PLAIN)]));

    wait_cause(&proxy, &unsampled, "sampled, but no rate announced");
    wait_cause(&proxy, &zero, "sends v9 with sequence always 0: loss cannot be seen");
    wait_cause(&proxy, &late, "clock is 2 h 13 min behind");
    wait_cause(&proxy, &strange, "unreadable: version 4660 is of no protocol known");
    wait_cause(&proxy, &early, "templates only, no data yet");

    let (text, code) = ask(&proxy, &[]);
    assert_eq!(code, 0);
    let senders: Vec<_> = text.lines().skip(1).collect();
    assert!(senders[0].ends_with("is of no protocol known"), "what is wrong comes first:\n{text}");

    let (details, code) = ask(&proxy, &["127.0.0.1"]);
    assert_eq!(code, 0);
    for part in [
        "  clock        2 h 13 min behind\n",
        "  faults       unknown_version 1\n",
        "  sequence     always the same\n",
        "  sampling     no rate known\n",
        "  state        templates_only\n",
    ] {
        assert!(details.contains(part), "{part:?} in\n{details}");
    }
    let (by_name, code) = ask(&proxy, &["localhost"]);
    assert_eq!(code, 0, "{by_name}");
    assert!(by_name.contains("  clock        2 h 13 min behind\n"));
    let (text, code) = ask(&proxy, &["192.0.2.99"]);
    assert_eq!(code, 1);
    assert!(text.contains("192.0.2.99 has not been heard since the proxy started"), "{text}");
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success());
}

#[test]
fn json_is_what_status_has() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let socket = loopback_socket();
    send(&proxy, &socket, v9(1, 0, &[data(&RECORD)]));
    wait_cause(&proxy, &socket, "template 256 not seen yet, 1 set held");
    let (text, code) = ask(&proxy, &["--json"]);
    assert_eq!(code, 0);
    let exporters: Value = serde_json::from_str(&text).unwrap();
    let sender = &exporters[0]["senders"][0];
    assert_eq!(exporters[0]["address"], "127.0.0.1");
    assert_eq!(sender["port"], socket.local_addr().unwrap().port());
    assert_eq!((&sender["state"], &sender["weight"]), (&"template_awaited".into(), &"wrong".into()));
    assert_eq!((&sender["awaited"][0]["template"], &sender["awaited"][0]["sets"]), (&256.into(), &1.into()));
    assert_eq!(sender["cause"], proxy.status()["exporters"][0]["senders"][0]["cause"]);
    let (one, code) = ask(&proxy, &["127.0.0.1", "--json"]);
    assert_eq!(
        (serde_json::from_str::<Value>(&one).unwrap()[0]["address"].as_str(), code),
        (Some("127.0.0.1"), 0)
    );
    assert_eq!(ask(&proxy, &["192.0.2.99", "--json"]).1, 1);
    assert!(proxy.process.terminate().success());
}

#[test]
fn who_is_not_allowed_is_refused_until_the_list_is_changed() {
    let rig = Rig::new();
    let config = rig.proxy_config(
        "udp = [\"127.0.0.1:0\"]\nallow = [\"10.0.0.0/8\", \"2001:db8::/32\"]",
        &rig.endpoint(),
    );
    let proxy = rig.start("run", "proxy.toml", &config);
    proxy.wait_healthy();
    let socket = loopback_socket();
    for sequence in 1..4 {
        send(&proxy, &socket, datagrams::v5(sequence, &[Flow::numbered(1)]));
    }
    wait_cause(&proxy, &socket, "refused by listen.allow");
    assert_eq!(proxy.metric("flowproxy_datagrams_refused_total"), 3);
    assert_eq!(proxy.metric("flowproxy_records_decoded_total"), 0);
    assert_eq!(proxy.status()["ledger"]["total"]["datagrams"]["refused"], 3);
    assert_eq!(logged(&proxy, &socket).len(), 1, "{:?}", logged(&proxy, &socket));
    proxy.assert_ledger();

    std::fs::write(rig.path("proxy.toml"), config.replace("10.0.0.0/8", "127.0.0.0/8")).unwrap();
    proxy.process.signal("HUP");
    wait_until("the new list", || proxy.process.log().contains("The config was read again"));
    send(&proxy, &socket, datagrams::v5(4, &[Flow::numbered(1)]));
    proxy.wait_metric("flowproxy_records_decoded_total", 1);
    assert_eq!(proxy.metric("flowproxy_datagrams_refused_total"), 3);
    assert!(proxy.process.terminate().success());
}

#[test]
fn who_sends_too_much_is_limited() {
    let rig = Rig::new();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let proxy = rig.start("run", "proxy.toml", &format!("{config}[limit]\ndatagrams = 10\n"));
    proxy.wait_healthy();
    let socket = loopback_socket();
    let many: Vec<Vec<u8>> = (1..401).map(|sequence| datagrams::v5(sequence, &[Flow::numbered(1)])).collect();
    for _ in 0..20 {
        proxy.feed(&socket, proxy.udp(), &many);
    }
    let limited = proxy.metric("flowproxy_datagrams_limited_total");
    assert!(limited > 0);
    wait_cause(&proxy, &socket, &format!("limited to 10 datagrams/s, {limited} datagrams not taken"));
    assert_eq!(proxy.status()["ledger"]["total"]["datagrams"]["limited"], limited);
    assert_eq!(proxy.metric("flowproxy_datagrams_received_total"), 8_000);
    proxy.assert_ledger();
    assert!(proxy.process.terminate().success());
}

#[test]
fn nobody_to_ask_is_one_clear_sentence() {
    let admin = format!("127.0.0.1:{}", free_tcp_port());
    let output = flowproxy(&["exporters", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("nothing answers at {admin}")), "{said}");
    assert!(said.contains("is flowproxy running? admin.listen in its config says where"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn the_config_says_where_to_ask() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let file = rig.path("proxy.toml");
    let file = file.to_str().unwrap();
    let output = flowproxy(&["exporters", "-c", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("takes any free port; the proxy's log says which")
    );

    let admin = format!("[admin]\nlisten = \"{}\"", proxy.admin());
    let config = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, config.replace("[admin]\nlisten = \"127.0.0.1:0\"", &admin)).unwrap();
    let output = flowproxy(&["exporters", "-c", file]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "Nobody has sent anything since the proxy started.\n"
    );

    std::fs::write(file, "[listen]\nudp = 7\n").unwrap();
    assert_eq!(flowproxy(&["exporters", "-c", file]).status.code(), Some(78));
    assert!(proxy.process.terminate().success());
}

#[test]
fn a_collector_is_told_from_a_proxy() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    let (text, code) = ask(&collector, &[]);
    assert_eq!(code, 1);
    assert!(text.contains("is the admin port of a collector"), "{text}");
    assert!(collector.process.terminate().success());
}

/// Forged senders are as many as one likes: the log is not.
#[test]
fn a_flood_of_senders_makes_few_lines() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let senders = 100;
    for host in 1..=senders {
        let socket = UdpSocket::bind(format!("127.0.1.{host}:0")).unwrap();
        send(&proxy, &socket, v9(1, 0, &[data(&RECORD)]));
    }
    wait_until("all senders in /status", || proxy.metric("flowproxy_exporters_known") == senders);
    wait_until("all senders in /status", || {
        proxy.status()["exporters"].as_array().unwrap().len() == senders as usize
    });
    let log = proxy.process.log();
    let lines = log.lines().filter(|line| line.contains("An exporter was heard")).count();
    assert_eq!(lines, 20, "{log}");
    assert!(proxy.process.terminate().success());
}
