//! Names of interfaces from a real agent, net-snmp's, over SNMPv2c and SNMPv3; and what `check --snmp` says of every way
//! in which it does not answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::net::UdpSocket;
use std::process::{Command, Output};
use support::process::flowproxy_command;
use support::rig::Rig;
use support::snmpd::{Exporter, SECRETS, Snmpd, config, free_udp_port, host_interfaces, proxy};
use support::wait_until;

const LOOPBACK: u32 = 1;

fn community(variable: &str, port: u16) -> String {
    format!(
        "[[enrich.snmp]]\nnetworks = [\"127.0.0.1/32\"]\nversion = \"2c\"\ncommunity_env = \"{variable}\"\n\
         port = {port}\ntimeout = \"300ms\"\nretries = 1\n"
    )
}

fn user(name: &str, [auth, privacy]: [&str; 2], port: u16) -> String {
    format!(
        "[[enrich.snmp]]\nnetworks = [\"127.0.0.0/8\", \"::1\"]\nversion = \"3\"\nuser = \"{name}\"\nauth = \"sha256\"\n\
         auth_env = \"{auth}\"\nprivacy = \"aes128\"\nprivacy_env = \"{privacy}\"\nport = {port}\ntimeout = \"300ms\"\n\
         retries = 1\n"
    )
}

/// Another interface than loopback, or that again where there is no other.
fn another() -> (u32, String) {
    let other = host_interfaces().into_iter().find(|(index, _)| *index != LOOPBACK);
    other.unwrap_or((LOOPBACK, "lo".to_owned()))
}

#[test]
fn a_real_agent_names_the_interfaces_in_records() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("a_real_agent_names_the_interfaces_in_records", &rig.path("")) else {
        return;
    };
    let (collector, (index, name)) = (rig.jsonl_collector(), another());
    let proxy = proxy(&rig, &config(&rig, "udp = [\"127.0.0.1:0\"]", &community("PUBLIC", snmpd.port)));
    let mut exporter = Exporter::to(&proxy);
    let record = exporter.until((&rig, "names over SNMPv2c"), (LOOPBACK, index), |record| {
        record["ingressInterfaceName"] == "lo"
    });
    assert_eq!(record["egressInterfaceName"], name.as_str(), "{record}");
    assert_eq!(record["exporterName"], "router.example", "{record}");
    assert!(!proxy.process.log().contains("public"), "the community is in the log");
    assert_eq!(proxy.metric("flowproxy_snmp_devices_read"), 1);
    wait_until("the device in /status", || {
        let told = &proxy.status()["exporters"][0]["senders"][0]["snmp"];
        told["interfaces"].as_u64() == Some(host_interfaces().len() as u64) && told["failed"].is_null()
    });
    let exporters =
        flowproxy_command().args(["exporters", "127.0.0.1", "--admin", &proxy.admin().to_string()]).output();
    let told = String::from_utf8(exporters.unwrap().stdout).unwrap();
    assert!(told.contains("by SNMPv2c, port"), "{told}");
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// The proxy is killed, the agent is gone, and nobody is asked any more.
#[test]
fn what_was_read_is_known_after_a_restart_without_snmp() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("what_was_read_is_known_after_a_restart_without_snmp", &rig.path(""))
    else {
        return;
    };
    let _collector = rig.jsonl_collector();
    let before = proxy(&rig, &config(&rig, "udp = [\"127.0.0.1:0\"]", &community("PUBLIC", snmpd.port)));
    let is_named = |record: &serde_json::Value| record["ingressInterfaceName"] == "lo";
    Exporter::to(&before).until((&rig, "names over SNMPv2c"), (LOOPBACK, LOOPBACK), is_named);
    before.wait_metric("flowproxy_names_last_known_writes_total", 1);
    before.process.kill();
    drop(snmpd);
    let seen = rig.records().len();
    let after = proxy(&rig, &config(&rig, "udp = [\"127.0.0.1:0\"]", ""));
    let mut exporter = Exporter::to(&after);
    exporter
        .until((&rig, "a record after the restart"), (LOOPBACK, LOOPBACK), |_| rig.records().len() > seen);
    let records = rig.records();
    assert!(records[seen..].iter().all(is_named), "the first one has its name: {}", records[seen]);
    assert_eq!(records[seen]["exporterName"], "router.example");
    wait_until("the source in /status", || {
        after.status()["exporters"][0]["senders"][0]["interfaces"][0]["source"] == "last_known"
    });
}

#[test]
fn a_user_over_ipv6_reads_them_encrypted() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("a_user_over_ipv6_reads_them_encrypted", &rig.path("")) else { return };
    let _collector = rig.jsonl_collector();
    let section = user("flow", ["AUTH", "PRIVACY"], snmpd.port);
    let proxy = proxy(&rig, &config(&rig, "udp = [\"[::1]:0\"]", &section));
    let mut exporter = Exporter::to(&proxy);
    exporter.until((&rig, "names over SNMPv3"), (LOOPBACK, LOOPBACK), |record| {
        record["ingressInterfaceName"] == "lo" && record["exporterName"] == "router.example"
    });
    let log = proxy.process.log();
    assert!(!log.contains("authpassword") && !log.contains("privpassword"), "a password is in the log");
}

#[test]
fn a_wrong_community_is_told_and_a_reload_puts_it_right() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("a_wrong_community_is_told_and_a_reload_puts_it_right", &rig.path(""))
    else {
        return;
    };
    let _collector = rig.jsonl_collector();
    std::fs::write(rig.path("community"), "private\n").unwrap();
    let section = community("PUBLIC", snmpd.port)
        .replace("community_env = \"PUBLIC\"", "community_file = \"community\"");
    let proxy = proxy(&rig, &config(&rig, "udp = [\"127.0.0.1:0\"]", &section));
    let mut exporter = Exporter::to(&proxy);
    exporter.send(LOOPBACK, LOOPBACK);
    wait_until("a word on the community", || proxy.process.log().contains("wrong community"));
    assert!(!proxy.process.log().contains("private"), "the community is in the log");
    std::fs::write(rig.path("community"), "public\r\n").unwrap();
    proxy.process.signal("HUP");
    exporter.until((&rig, "names after the reload"), (LOOPBACK, LOOPBACK), |record| {
        record["ingressInterfaceName"] == "lo"
    });
}

#[test]
fn a_second_credential_is_tried_where_that_is_said() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("a_second_credential_is_tried_where_that_is_said", &rig.path("")) else {
        return;
    };
    let _collector = rig.jsonl_collector();
    let second = user("flow", ["AUTH", "PRIVACY"], snmpd.port);
    let sections = format!("{}{second}try = true\n", community("PRIVATE", snmpd.port));
    let proxy = proxy(&rig, &config(&rig, "udp = [\"127.0.0.1:0\"]", &sections));
    let mut exporter = Exporter::to(&proxy);
    exporter.until((&rig, "names by the second credential"), (LOOPBACK, LOOPBACK), |record| {
        record["ingressInterfaceName"] == "lo"
    });
}

/// `check --snmp` of this section at 127.0.0.1.
fn check(rig: &Rig, section: &str) -> Output {
    let file = rig.path("check.toml");
    std::fs::write(&file, config(rig, "udp = [\"127.0.0.1:0\"]", section)).unwrap();
    let mut command: Command = flowproxy_command();
    command.args(["check", "--snmp", "-c"]).arg(file).arg("127.0.0.1").envs(SECRETS);
    command.output().unwrap()
}

#[test]
fn check_says_in_a_sentence_what_a_credential_brings() {
    let rig = Rig::new();
    let Some(snmpd) = Snmpd::start("check_says_in_a_sentence_what_a_credential_brings", &rig.path("")) else {
        return;
    };
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, silent) = (snmpd.port, silent.local_addr().map(|it| (it.port(), silent)).unwrap());
    let (found, right) = (host_interfaces().len(), ["AUTH", "PRIVACY"]);
    let found = format!("found router.example, with {found} interfaces");
    let cases = [
        (community("PUBLIC", port), found.as_str()),
        (user("flow", right, port), found.as_str()),
        (community("PRIVATE", port), "no answer to this community, though an SNMP agent is there"),
        (community("BLIND", port), "no such view: the device answers, but shows no interfaces"),
        (community("PUBLIC", silent.0), "no answer: unreachable, another port, or wrong community"),
        (user("flow", right, silent.0), "no answer: unreachable, or another port"),
        (community("PUBLIC", free_udp_port()), "no answer: the host says that nothing listens at port"),
        (user("nobody", right, port), "wrong user: the device does not know it"),
        (user("flow", ["WRONG", "PRIVACY"], port), "wrong auth: the device knows the user"),
        (user("flow", ["AUTH", "WRONG"], port), "wrong privacy: the device takes the user's auth"),
        (user("narrow", right, port), "no such view: the device answers, but shows no interfaces"),
        (user("stranger", right, port), "no such view: the device does not let this credential see"),
    ];
    for (section, sentence) in cases {
        let output = check(&rig, &section);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(told.contains(sentence), "{section}must say: {sentence}\nbut says: {told}");
        let code = if sentence.starts_with("found") { 0 } else { 78 };
        assert_eq!(output.status.code(), Some(code), "{section}{told}");
        assert!(SECRETS.iter().all(|(_, secret)| !told.contains(secret.trim_end())), "{told}");
    }
}

#[test]
fn check_asks_only_whom_it_can_know() {
    let rig = Rig::new();
    let none = check(&rig, "");
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no [[enrich.snmp]] in it"));
    let elsewhere = community("PUBLIC", 161).replace("127.0.0.1/32", "192.0.2.0/24");
    let elsewhere = check(&rig, &elsewhere);
    assert!(
        String::from_utf8_lossy(&elsewhere.stderr)
            .contains("127.0.0.1: cannot be asked: it is in no network")
    );
}
