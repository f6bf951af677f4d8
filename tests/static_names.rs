//! The operator's file of names: in the far end's lines, at a reload, and when it is wrong.

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
use support::datagrams::{self, Bytes, Flow, v5};
use support::process::flowproxy;
use support::rig::{End, Rig};
use support::{loopback_socket, wait_for, wait_until};

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// Starts a proxy with `names` in a file of that name beside its config.
fn proxy(rig: &Rig, file: &str, names: &str) -> End {
    std::fs::write(rig.path(file), names).unwrap();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let end =
        rig.start("run", "proxy.toml", &format!("{config}[enrich]\nstatic = \"{file}\"\nnetlink = false\n"));
    end.wait_healthy();
    end
}

/// The records whose datagrams came from this socket.
fn of(records: &[Value], socket: &UdpSocket) -> Vec<Value> {
    let is_of = |record: &&Value| record["exporterPort"] == port(socket);
    records.iter().filter(is_of).cloned().collect()
}

/// Input is interface 3, output 7.
fn send(proxy: &End, from: &UdpSocket, numbers: std::ops::Range<u32>) {
    let flows: Vec<Flow> = numbers.clone().map(Flow::numbered).collect();
    proxy.feed(from, proxy.udp(), &[v5(numbers.start, &flows)]);
}

fn two_exporters(first: u16, second: u16) -> String {
    format!(
        "[[exporter]]\naddress = \"127.0.0.1\"\nport = {first}\nname = \"r1\"\nsite = \"paris\"\n\
         [exporter.labels]\nrack = \"12\"\n\
         [exporter.interfaces.7]\nname = \"eth1\"\ndescription = \"uplink to Paris\"\nspeed = 10000000000\n\
         [[exporter]]\naddress = \"127.0.0.1\"\nport = {second}\nname = \"r2\"\n\
         [exporter.interfaces.7]\nname = \"xe-0/0/7\"\n[exporter.interfaces.3]\nname = \"xe-0/0/3\"\n"
    )
}

#[test]
fn exporters_at_one_address_have_their_own_names_from_the_first_record_on() {
    let rig = Rig::new();
    let [first, second, other] = std::array::from_fn(|_| loopback_socket());
    let collector = rig.jsonl_collector();
    let proxy = proxy(&rig, "interfaces.toml", &two_exporters(port(&first), port(&second)));
    send(&proxy, &first, 1..11);
    send(&proxy, &second, 11..21);
    send(&proxy, &other, 21..31);
    let records = rig.wait_data_records(30);
    let lines = of(&records, &first);
    assert_eq!(lines.len(), 10);
    for line in lines {
        assert_eq!((&line["exporterName"], &line["site"]), (&"r1".into(), &"paris".into()), "{line}");
        assert_eq!(line["labels"], serde_json::json!({ "rack": "12" }), "{line}");
        assert_eq!(line["egressInterfaceName"], "eth1", "{line}");
        assert_eq!(line["egressInterfaceDescription"], "uplink to Paris", "{line}");
        assert_eq!(line["egressInterfaceSpeed"], 10_000_000_000_u64, "{line}");
        assert_eq!(line.get("ingressInterfaceName"), None, "{line}");
    }
    let lines = of(&records, &second);
    assert_eq!(lines.len(), 10);
    for line in lines {
        assert_eq!((&line["exporterName"], line.get("site")), (&"r2".into(), None), "{line}");
        assert_eq!(line["egressInterfaceName"], "xe-0/0/7", "{line}");
        assert_eq!(line["ingressInterfaceName"], "xe-0/0/3", "{line}");
    }
    let lines = of(&records, &other);
    assert_eq!(lines.len(), 10);
    assert!(
        lines
            .iter()
            .all(|line| line.get("exporterName").is_none() && line.get("egressInterfaceName").is_none())
    );
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// What `flowproxy exporters` prints.
fn exporters(proxy: &End, more: &[&str]) -> String {
    let admin = proxy.admin().to_string();
    let output = flowproxy(&[&["exporters", "--admin", &admin], more].concat());
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn names_and_interfaces_are_seen_and_who_has_none_is_told_of() {
    let rig = Rig::new();
    let [first, second, third, fourth, fifth] = std::array::from_fn(|_| loopback_socket());
    let names = two_exporters(port(&first), port(&second));
    let more: String =
        (1_000..1_040).map(|at| format!("[exporter.interfaces.{at}]\nname = \"v{at}\"\n")).collect();
    let proxy = proxy(&rig, "interfaces.toml", &format!("{names}{more}"));
    for _ in 0..2 {
        for socket in [&first, &second, &third, &fourth, &fifth] {
            send(&proxy, socket, 1..3);
        }
    }
    let sender = |of: &UdpSocket| {
        let status = proxy.status();
        let senders = status["exporters"][0]["senders"].as_array()?.clone();
        senders.into_iter().find(|sender| sender["port"] == port(of))
    };
    let told = wait_for("the exporter in /status", || sender(&first));
    assert_eq!(
        (&told["name"], &told["site"], &told["labels"]["rack"]),
        (&"r1".into(), &"paris".into(), &"12".into())
    );
    let interface = &told["interfaces"][0];
    assert_eq!((&interface["index"], &interface["name"]), (&7.into(), &"eth1".into()));
    assert_eq!((&interface["source"], &interface["speed"]), (&"static".into(), &10_000_000_000_u64.into()));
    assert!(interface["age"].is_u64(), "{interface}");
    let told = wait_for("the other in /status", || sender(&second));
    assert_eq!(
        (told["interfaces"].as_array().unwrap().len(), &told["interfaces_not_shown"]),
        (32, &10.into())
    );

    let text = exporters(&proxy, &["r1"]);
    assert!(text.contains(&format!("127.0.0.1:{} ", port(&first))), "{text}");
    assert!(!text.contains(&format!("127.0.0.1:{} ", port(&second))), "{text}");
    for part in [
        "  name         r1\n",
        "  site         paris\n",
        "  labels       rack=12\n",
        "    7  eth1  10 Gbit/s   static, ",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let text = exporters(&proxy, &["127.0.0.1"]);
    assert!(text.contains("v1039") && text.contains("  name         r2\n"), "{text}");
    let json: Value = serde_json::from_str(&exporters(&proxy, &["r2", "--json"])).unwrap();
    assert_eq!(json[0]["senders"][0]["interfaces"].as_array().unwrap().len(), 42);
    assert!(exporters(&proxy, &["no.such.exporter.invalid"]).contains("no exporter is called no.such"));
    assert!(exporters(&proxy, &[]).contains(" r1 "), "{}", exporters(&proxy, &[]));
    assert_eq!(proxy.metric("flowproxy_exporters_sharing_addresses"), 0, "three ports are not many");
    assert_eq!(proxy.status()["exporters"][0]["ports_not_told_apart"], 3);

    let [sixth, seventh] = std::array::from_fn(|_| loopback_socket());
    for _ in 0..2 {
        for socket in [&third, &fourth, &fifth, &sixth, &seventh] {
            send(&proxy, socket, 1..3);
        }
    }
    proxy.wait_metric("flowproxy_exporters_sharing_addresses", 1);
    wait_until("the warning", || proxy.process.log().contains("have no names that tell them apart"));
    assert_eq!(proxy.process.log().matches("Exporters share this address").count(), 1);
    assert!(proxy.process.terminate().success());
}

#[test]
fn domains_and_agents_have_their_own_names_in_csv() {
    let rig = Rig::new();
    let socket = loopback_socket();
    let collector = rig.jsonl_collector();
    let names = "address,domain,name,label.rack,index,interface\n\
                 127.0.0.1,,all,,,\n127.0.0.1,7,seven,12,,\n10.9.0.1,,switch,,5,e5\n";
    let proxy = proxy(&rig, "names.csv", names);
    let flows = [Flow::numbered(1)];
    proxy.feed(&socket, proxy.udp(), &[datagrams::v9_flows(1, &flows), datagrams::ipfix_flows(1, &flows)]);
    let records = rig.wait_data_records(2);
    let of_domain = |domain: u32| records.iter().find(|line| line["observationDomainId"] == domain).unwrap();
    assert_eq!(of_domain(7)["exporterName"], "seven");
    assert_eq!(of_domain(11)["exporterName"], "all");

    proxy.feed(&socket, proxy.udp(), &[sflow([10, 9, 0, 1]), sflow([10, 9, 0, 2])]);
    let samples = wait_for("two samples", || {
        let samples: Vec<Value> =
            rig.records().into_iter().filter(|line| line["kind"] == "flow_sample").collect();
        (samples.len() == 2).then_some(samples)
    });
    assert_eq!(
        (&samples[0]["exporterName"], &samples[0]["ingressInterfaceName"]),
        (&"switch".into(), &"e5".into())
    );
    assert_eq!(samples[1]["exporterName"], "all");
    assert_eq!(samples[1].get("ingressInterfaceName"), None);
    assert_eq!((&samples[0]["labels"], samples[1].get("labels")), (&Value::Null, None));
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// One sample of a packet that came in on interface 5, without a header.
fn sflow(agent: [u8; 4]) -> Vec<u8> {
    let sample = Bytes::default().u32(1).u32(5).u32(100).u32(100).u32(0).u32(5).u32(6).u32(0).0;
    let head = Bytes::default().u32(5).u32(1).raw(&agent).u32(0).u32(1).u32(1_000).u32(1);
    head.u32(1).u32(sample.len() as u32).raw(&sample).0
}

#[test]
fn names_are_read_again_with_the_config_all_or_nothing() {
    let rig = Rig::new();
    let [first, second] = std::array::from_fn(|_| loopback_socket());
    let collector = rig.jsonl_collector();
    let names = two_exporters(port(&first), port(&second));
    let proxy = proxy(&rig, "interfaces.toml", &names);
    send(&proxy, &first, 1..2);
    assert_eq!(rig.wait_data_records(1)[0]["exporterName"], "r1");

    std::fs::write(
        rig.path("interfaces.toml"),
        names.replace("\"r1\"", "\"r9\"").replace("speed = 1", "sped = -1"),
    )
    .unwrap();
    proxy.process.signal("HUP");
    wait_until("the refusal", || proxy.status()["reload"]["fault"].is_string());
    let fault = proxy.status()["reload"]["fault"].as_str().unwrap().to_owned();
    assert!(
        fault.contains("interfaces.toml:11: exporter.interfaces.7.sped = -10000000000 does not exist"),
        "{fault}"
    );
    assert!(proxy.process.log().contains("exporter.interfaces.7.sped"), "{}", proxy.process.log());
    send(&proxy, &first, 2..3);
    assert_eq!(rig.wait_data_records(2)[1]["exporterName"], "r1");

    std::fs::write(rig.path("interfaces.toml"), names.replace("\"r1\"", "\"r9\"")).unwrap();
    proxy.process.signal("HUP");
    wait_until("the new names", || proxy.status()["reload"]["fault"].is_null());
    send(&proxy, &first, 3..4);
    assert_eq!(rig.wait_data_records(3)[2]["exporterName"], "r9");

    let config = std::fs::read_to_string(rig.path("proxy.toml")).unwrap();
    std::fs::write(rig.path("proxy.toml"), config.replace("static = ", "# static = ")).unwrap();
    proxy.process.signal("HUP");
    wait_until("no names", || proxy.process.log().contains("enrich.static"));
    send(&proxy, &first, 4..5);
    assert_eq!(rig.wait_data_records(4)[3].get("exporterName"), None);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

#[test]
fn a_file_that_is_wrong_is_refused_with_all_other_faults() {
    let rig = Rig::new();
    let names = "[[exporter]]\naddress = \"nowhere\"\nport = 0\n";
    std::fs::write(rig.path("interfaces.toml"), names).unwrap();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = format!("{config}[enrich]\nstatic = \"interfaces.toml\"\n");
    let mut end = rig.start("run", "proxy.toml", &config);
    assert_eq!(end.process.wait().code(), Some(78));
    let expected = [
        "interfaces.toml:2: exporter.address = \"nowhere\" is no IP address",
        "interfaces.toml:3: exporter.port = 0",
    ];
    let said = end.process.log();
    for part in expected {
        assert_eq!(said.matches(part).count(), 1, "{part} in\n{said}");
    }

    let file = rig.path("proxy.toml");
    std::fs::write(
        &file,
        config.replace("[batch]\n", "[batch]\nmax_records = 0\n").replace("certs/ca.pem", "certs/none.pem"),
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for command in ["check", "run"] {
        let output = flowproxy(&[command, "-c", file]);
        assert_eq!(output.status.code(), Some(78));
        let said = String::from_utf8(output.stderr).unwrap();
        for part in expected.iter().chain(&["batch.max_records = 0", "certs/none.pem"]) {
            assert_eq!(said.matches(part).count(), 1, "{part} in\n{said}");
        }
    }

    std::fs::write(rig.path("interfaces.toml"), "[[exporter]]\naddress = \"10.0.0.1\"\n").unwrap();
    std::fs::write(file, &config).unwrap();
    let output = flowproxy(&["check", "-c", file]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("names        "));
}
