//! The demo, in this process and as a user runs it: all that the mesh sends arrives, once.

use flowproxy::demo::{self, Options, Show};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// All of it fits into the kernel's smallest usual receive buffer, however busy the machine is.
const RATE: u64 = 1_500;

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_once() {
    let options = Options { length: Some(Duration::from_secs(2)), rate: RATE, show: Show::Nothing };
    let summary = demo::run(&options, CancellationToken::new()).await.unwrap();
    assert!(summary.is_whole(), "{summary}");
    assert_eq!((summary.lost(), summary.received.twice, summary.received.unknown), (0, 0, 0));
    assert!(summary.sent.records > 0);
    assert!(summary.received.options > 0, "the exporters announce their interfaces");
    assert_eq!(summary.link.tls, "1.3");
    assert_eq!(summary.link.key_exchange, "X25519MLKEM768");
    assert!(summary.link.wire_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_it_is_stopped() {
    let stop = CancellationToken::new();
    stop.cancel();
    let options = Options { length: None, rate: RATE, show: Show::Nothing };
    let summary = demo::run(&options, stop).await.unwrap();
    assert!(summary.is_whole(), "{summary}");
}

#[test]
fn with_json_stdout_has_one_line_and_the_exit_code_is_zero() {
    let demo = Command::new(env!("CARGO_BIN_EXE_flowproxy"))
        .args(["demo", "--seconds", "1", "--rate", "1500", "--json"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(demo.stdout).unwrap(), String::from_utf8(demo.stderr).unwrap());
    assert!(demo.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let line: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let contract =
        ["key_exchange", "lost", "records_received", "records_sent", "seconds", "tls", "twice", "wire_bytes"];
    assert!(contract.iter().all(|key| keys.contains(key)), "{keys:?}");
    assert_eq!(line["records_sent"], line["records_received"]);
    assert_eq!((line["lost"].as_i64(), line["twice"].as_u64()), (Some(0), Some(0)));
}

/// Twelve seconds of kills, cuts and stalls: what stood in the spool arrives, once.
#[test]
fn through_faults_nothing_is_lost_and_nothing_comes_twice() {
    let demo = Command::new(env!("CARGO_BIN_EXE_flowproxy"))
        .args(["demo", "--chaos", "--seconds", "12", "--rate", "1500", "--json"])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(demo.stdout).unwrap(), String::from_utf8(demo.stderr).unwrap());
    assert!(demo.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let line: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let count = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("no {key} in {stdout}"));
    assert_eq!((count("lost"), count("twice")), (0, 0));
    assert_eq!(count("records_sent"), count("records_received") + count("cut"));
    assert!(count("faults") >= 12 / 5, "{stdout}{stderr}");
    let said = |what: &str| stderr.lines().filter(|line| line.contains(what)).count() as u64;
    assert_eq!(said("fault "), count("faults"), "a line each\n{stderr}");
    assert_eq!(said(&format!("faults by seed {}", count("seed"))), 1, "{stderr}");
    assert_eq!((&line["tls"], &line["key_exchange"]), (&"1.3".into(), &"X25519MLKEM768".into()));
}
