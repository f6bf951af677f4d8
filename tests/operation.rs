//! What an operator meets: health, status and metrics pages, reloads, and clear words when something is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::net::TcpListener;

use support::datagrams::numbered;
use support::process::{Process, flowproxy, flowproxy_command};
use support::rig::{End, Rig, data_records};
use support::{loopback_socket, wait_until};

/// Exit code for a config that cannot be used (sysexits.h: EX_CONFIG).
const EX_CONFIG: i32 = 78;

/// Waits for a process that cannot start; gives its exit code and what it said.
fn refused(mut end: End) -> (i32, String) {
    let status = end.process.wait();
    (status.code().expect("an exit code"), end.process.log())
}

#[test]
fn pages_of_both_ends() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    assert_eq!(proxy.get("/healthz").0, 200, "the link does not matter for health");
    assert_eq!(proxy.get("/readyz").0, 200, "a writable spool is ready");
    let collector = rig.jsonl_collector();
    wait_until("a ready collector", || collector.get("/readyz").0 == 200);
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(1, 201, 20));
    rig.wait_data_records(200);
    proxy.wait_metric("flowproxy_records_committed_total", 200);

    let (_, metrics) = proxy.get("/metrics");
    let unlabelled = [
        "flowproxy_datagrams_received_total",
        "flowproxy_records_decoded_total",
        "flowproxy_records_committed_total",
        "flowproxy_uplink_sent_bytes_total",
    ];
    for name in unlabelled {
        let samples = metrics.lines().filter(|line| line.starts_with(&format!("{name} "))).count();
        assert_eq!(samples, 1, "one sample of {name} without labels in\n{metrics}");
    }
    assert_eq!(proxy.metric("flowproxy_datagrams_received_total"), 10);
    assert_eq!(proxy.metric("flowproxy_records_decoded_total"), 200);
    assert_eq!(proxy.metric("flowproxy_records_committed_total"), 200);
    assert!(proxy.metric("flowproxy_uplink_sent_bytes_total") > 0);
    assert!(!metrics.contains("127.0.0.1"), "no label comes from a sender's address");
    assert_gauges_are_not_totals(&metrics);
    assert_gauges_are_not_totals(&collector.get("/metrics").1);

    for status in [proxy.status(), collector.status()] {
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    }
    let status = proxy.status();
    for part in ["link", "ledger", "exporters"] {
        assert!(!status[part].is_null(), "{part} in {status}");
    }
    assert_eq!(proxy.get("/nothing-here").0, 404);
}

fn assert_gauges_are_not_totals(metrics: &str) {
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("name and kind");
        assert!(kind != "gauge" || !name.ends_with("_total"), "{line}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let rig = Rig::new();
    let socket = loopback_socket();
    let address = socket.local_addr().unwrap();
    let config = rig.proxy_config(&format!("udp = [\"{address}\"]"), &rig.endpoint());
    let (code, said) = refused(rig.start("run", "proxy.toml", &config));
    assert_ne!(code, 0);
    assert!(said.contains(&address.to_string()), "{said}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config =
        config.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{address}\""));
    let (code, said) = refused(rig.start("run", "proxy.toml", &config));
    assert_ne!(code, 0);
    assert!(said.contains(&address.to_string()), "{said}");
}

/// SO_REUSEPORT would let a second flowproxy in silently and take half of the first one's datagrams.
#[test]
fn a_second_flowproxy_on_the_same_port_is_refused_and_the_first_loses_nothing() {
    let (rig, other) = (Rig::new(), Rig::new());
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let socket = loopback_socket();
    proxy.feed(&socket, proxy.udp(), &numbered(1, 401, 20));
    let address = proxy.udp();
    let config = other.proxy_config(&format!("udp = [\"{address}\"]"), &other.endpoint());
    let mut second = other.start("run", "proxy.toml", &config);
    let mut next = 401;
    while second.process.is_running() {
        proxy.feed(&socket, address, &numbered(next, next + 20, 20));
        next += 20;
    }
    let (code, said) = refused(second);
    assert_ne!(code, 0);
    assert!(said.contains(&address.to_string()), "{said}");
    proxy.feed(&socket, address, &numbered(next, next + 400, 20));
    let records = rig.wait_data_records(next as usize + 399);
    assert_eq!(records.len(), next as usize + 399);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

#[test]
fn a_spool_in_use_is_refused() {
    let rig = Rig::new();
    let proxy = rig.proxy();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    std::fs::write(rig.path("second.toml"), config).unwrap();
    let mut second = Process::start(
        flowproxy_command().arg("run").arg("-c").arg(rig.path("second.toml")),
        &rig.path("second.log"),
    );
    assert!(!second.wait().success());
    assert!(second.log().contains("spool"), "{}", second.log());
    assert_eq!(proxy.get("/healthz").0, 200);
}

#[test]
fn a_missing_certificate_is_one_clear_sentence() {
    let rig = Rig::new();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    for (file, config) in [
        ("certs/nothing-here.pem", config.replace("certs/ca.pem", "certs/nothing-here.pem")),
        ("certs/nothing-here.key", config.replace("certs/site-1.example.key", "certs/nothing-here.key")),
    ] {
        let (code, said) = refused(rig.start("run", "proxy.toml", &config));
        assert_ne!(code, 0);
        assert!(said.contains(file), "{said}");
        assert!(said.trim().lines().count() <= 3, "one sentence, not a page:\n{said}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let rig = Rig::new();
    let config = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let config = config.replace("certs/site-1.example.key", "certs/collector.key");
    let (code, said) = refused(rig.start("run", "proxy.toml", &config));
    assert_ne!(code, 0);
    assert!(said.contains("collector.key"), "{said}");
}

/// Files that cannot be used are told all at once: at a start of either end, and at a reload.
#[test]
fn every_fault_of_the_certificates_is_told_at_once() {
    let rig = Rig::new();
    let broken = |config: &str| config.replace("certs/ca.pem", "no-ca.pem").replace(".key\"", ".no-key\"");
    let good = rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let starts = [
        rig.start("run", "broken-proxy.toml", &broken(&good)),
        rig.start("collect", "broken-collector.toml", &broken(&rig.collector_config("[sink.null]\n"))),
    ];
    for start in starts {
        let (code, said) = refused(start);
        assert_eq!(code, EX_CONFIG, "{said}");
        assert!(said.contains("no-ca.pem") && said.contains(".no-key"), "{said}");
    }
    let (collector, proxy) = (rig.collector("[sink.null]\n"), rig.proxy());
    for (end, file) in [(&collector, "collector.toml"), (&proxy, "proxy.toml")] {
        let config = std::fs::read_to_string(rig.path(file)).unwrap();
        std::fs::write(rig.path(file), broken(&config)).unwrap();
        end.process.signal("HUP");
        let fault = || end.status()["reload"].to_string();
        wait_until("both files in /status", || fault().contains("no-ca.pem") && fault().contains(".no-key"));
        assert!(end.process.log().contains("no-ca.pem"), "{}", end.process.log());
    }
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

#[test]
fn every_fault_of_a_config_is_told_at_once() {
    let rig = Rig::new();
    let config = rig.proxy_config("udp = [\"127.0.0.1:70000\"]", "ftp://localhost:1");
    let config = config.replace("max_delay = \"50ms\"", "max_delay = \"soon\"\nmax_recrds = 5");
    let (code, said) = refused(rig.start("run", "proxy.toml", &config));
    assert_eq!(code, EX_CONFIG, "{said}");
    for part in [
        "proxy.toml",
        "listen.udp",
        "127.0.0.1:70000",
        "uplink.endpoint",
        "ftp://",
        "max_delay",
        "soon",
        "max_recrds",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let file = rig.path("proxy.toml");
    let output = flowproxy(&["check", "-c", file.to_str().unwrap()]);
    let checked =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{checked}");
    assert!(checked.contains("max_recrds") && checked.contains("uplink.endpoint"), "{checked}");
}

#[test]
fn a_good_config_passes_the_check() {
    let rig = Rig::new();
    let file = rig.path("good.toml");
    std::fs::write(&file, rig.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint())).unwrap();
    let output = flowproxy(&["check", "-c", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_missing_config_names_the_file() {
    let output = flowproxy(&["run", "-c", "/nothing/here.toml"]);
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(EX_CONFIG), "{said}");
    assert!(said.contains("/nothing/here.toml"), "{said}");
}

#[test]
fn the_environment_lies_over_the_file() {
    let rig = Rig::new();
    let collector = rig.jsonl_collector();
    // A dead endpoint in the file, the right one in the environment.
    let path = rig.path("proxy.toml");
    std::fs::write(&path, rig.proxy_config("udp = [\"127.0.0.1:0\"]", "https://localhost:1")).unwrap();
    let mut command = flowproxy_command();
    command
        .env("FLOWPROXY__UPLINK__ENDPOINT", rig.endpoint())
        .env("FLOWPROXY_UPLINK__ENDPOINT", "https://localhost:2");
    let process = Process::start(command.arg("run").arg("-c").arg(&path), &rig.path("run.log"));
    let proxy = End { process };
    proxy.wait_healthy();
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(1, 101, 20));
    assert_eq!(data_records(rig.wait_data_records(100)).len(), 100);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

#[test]
fn a_reload_with_an_invalid_config_is_refused_and_shown() {
    let rig = Rig::new();
    let (collector, mut proxy) = (rig.jsonl_collector(), rig.proxy());
    let good = std::fs::read_to_string(rig.path("proxy.toml")).unwrap();
    std::fs::write(rig.path("proxy.toml"), good.replace("50ms", "never ever")).unwrap();
    let lines = proxy.process.log().lines().count();
    proxy.process.signal("HUP");
    wait_until("the fault in the log", || {
        proxy
            .process
            .log()
            .lines()
            .skip(lines)
            .any(|line| line.contains("max_delay") || line.contains("never ever"))
    });
    assert!(proxy.process.is_running());
    wait_until("the fault in /status", || proxy.status().to_string().contains("never ever"));
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(1, 101, 20));
    rig.wait_data_records(100);
    // A good one afterwards is taken and the fault is gone.
    std::fs::write(rig.path("proxy.toml"), good).unwrap();
    proxy.process.signal("HUP");
    wait_until("no fault in /status", || !proxy.status().to_string().contains("never ever"));
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(101, 201, 20));
    rig.wait_data_records(200);
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// A certificate of another CA gets in neither way.
#[test]
fn strangers_are_refused() {
    let (rig, stranger) = (Rig::new(), Rig::new());
    let collector = rig.jsonl_collector();
    // The stranger trusts the right CA beside its own, which its certificate comes from.
    let authorities = [&rig, &stranger].map(|rig| std::fs::read_to_string(rig.path("certs/ca.pem")).unwrap());
    std::fs::write(stranger.path("certs/both.pem"), authorities.concat()).unwrap();
    let config = stranger.proxy_config("udp = [\"127.0.0.1:0\"]", &rig.endpoint());
    let proxy = stranger.start("run", "proxy.toml", &config.replace("certs/ca.pem", "certs/both.pem"));
    proxy.wait_healthy();
    proxy.feed(&loopback_socket(), proxy.udp(), &numbered(1, 101, 20));
    wait_until("the refusal in the proxy's log", || {
        let log = proxy.process.log().to_lowercase();
        log.contains("certificate") || log.contains("unknownca")
    });
    assert_eq!(proxy.get("/healthz").0, 200);
    assert_eq!(proxy.metric("flowproxy_records_committed_total"), 0);
    assert!(rig.records().is_empty());
    assert!(collector.process.terminate().success());
}
