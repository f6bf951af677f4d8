//! Names of interfaces from agents of the tests' own: tables of thousands, AES-256, numbers that come to stand for other
//! interfaces while flow arrives, and tables without end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use async_snmp::agent::Agent;
use async_snmp::handler::{BoxFuture, GetNextResult, GetResult, HandlerResult, MibHandler, RequestContext};
use async_snmp::message::CommunityMessage;
use async_snmp::{
    AuthProtocol, AuthoritativeEngine, DecodeConfig, Oid, PrivProtocol, ResponsePdu, Value, VarBind, Version,
    generate_engine_id,
};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Bound;
use std::sync::{Arc, RwLock};
use support::process::flowproxy_command;
use support::rig::Rig;
use support::snmpd::{Exporter, SECRETS, config, proxy};
use support::{wait_for, wait_until};

const SYS_UP_TIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];
const SYS_NAME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 5, 0];
const IF_DESCR: [u32; 10] = [1, 3, 6, 1, 2, 1, 2, 2, 1, 2];
const IF_NAME: [u32; 11] = [1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1];
const IF_HIGH_SPEED: [u32; 11] = [1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15];
const IF_ALIAS: [u32; 11] = [1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18];

/// What an agent tells, changed as a whole.
#[derive(Clone, Default)]
struct Mib(Arc<RwLock<BTreeMap<Oid, Value>>>);

impl Mib {
    /// A device that started `uptime` hundredths of a second ago, with these interfaces.
    fn set(&self, uptime: u32, interfaces: impl Iterator<Item = (u32, String)>) {
        let text = |text: &str| Value::OctetString(text.as_bytes().to_vec().into());
        let mut all = BTreeMap::from([
            (Oid::from_slice(&SYS_UP_TIME), Value::TimeTicks(uptime)),
            (Oid::from_slice(&SYS_NAME), text("fixture")),
        ]);
        for (index, name) in interfaces {
            let row = [
                (&IF_DESCR[..], text(&format!("Interface {name}"))),
                (&IF_NAME[..], text(&name)),
                (&IF_HIGH_SPEED[..], Value::Gauge32(10_000)),
                (&IF_ALIAS[..], text(&format!("uplink of {name}"))),
            ];
            all.extend(row.map(|(column, value)| (Oid::from_slice(column).child(index), value)));
        }
        *self.0.write().unwrap() = all;
    }
}

impl MibHandler for Mib {
    fn get<'a>(&'a self, _: &'a RequestContext, oid: &'a Oid) -> BoxFuture<'a, HandlerResult<GetResult>> {
        let value = self.0.read().unwrap().get(oid).cloned();
        Box::pin(async { Ok(value.map_or(GetResult::NoSuchObject, GetResult::Value)) })
    }

    fn get_next<'a>(
        &'a self,
        _: &'a RequestContext,
        oid: &'a Oid,
    ) -> BoxFuture<'a, HandlerResult<GetNextResult>> {
        let all = self.0.read().unwrap();
        let next = all.range((Bound::Excluded(oid), Bound::Unbounded)).next();
        let next = next.map(|(oid, value)| VarBind::new(oid.clone(), value.clone()));
        Box::pin(async { Ok(next.map_or(GetNextResult::EndOfMibView, GetNextResult::Value)) })
    }
}

/// An agent that tells `mib` to the community `public` and to the user `flow`; ended with its runtime.
struct Running {
    runtime: tokio::runtime::Runtime,
    port: u16,
}

impl Running {
    fn start(mib: &Mib) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let engine =
            AuthoritativeEngine::install(generate_engine_id().unwrap(), |_| Ok::<(), Infallible>(()))
                .unwrap();
        let password = "a password of the fixture";
        let cipher = PrivProtocol::Aes256Blumenthal;
        let agent = Agent::builder()
            .bind("127.0.0.1:0")
            .community("public")
            .usm_user("flow", |user| user.auth_priv(AuthProtocol::Sha512, password, cipher, password))
            .unwrap()
            .authoritative_engine(engine)
            .without_builtin_handlers()
            .allow_all_access()
            .handler(Oid::from_slice(&[1, 3, 6, 1, 2, 1]), Arc::new(mib.clone()));
        let agent = runtime.block_on(agent.build()).unwrap();
        let port = agent.local_addr().port();
        runtime.spawn(async move { agent.run().await });
        Self { runtime, port }
    }

    fn stop(self) {
        self.runtime.shutdown_background();
    }
}

fn community(port: u16) -> String {
    format!(
        "[[enrich.snmp]]\nnetworks = [\"127.0.0.1/32\"]\nversion = \"2c\"\ncommunity_env = \"PUBLIC\"\nport = {port}\n\
         interval = \"1s\"\ntimeout = \"1s\"\n"
    )
}

const UDP: &str = "udp = [\"127.0.0.1:0\"]";

fn name(record: &Json) -> Option<&str> {
    record["ingressInterfaceName"].as_str()
}

#[test]
fn a_table_of_thousands_is_read_whole() {
    let (rig, mib) = (Rig::new(), Mib::default());
    mib.set(100_000, (1..=6_000).map(|index| (index * 3, format!("port {index}"))));
    let agent = Running::start(&mib);
    let _collector = rig.jsonl_collector();
    let proxy = proxy(&rig, &config(&rig, UDP, &community(agent.port)));
    let mut exporter = Exporter::to(&proxy);
    let record = exporter
        .until((&rig, "the last of 6,000 names"), (18_000, 3), |record| name(record) == Some("port 6000"));
    assert_eq!(record["egressInterfaceName"], "port 1", "{record}");
    assert_eq!(record["ingressInterfaceDescription"], "uplink of port 6000", "{record}");
    assert_eq!(record["ingressInterfaceSpeed"], 10_000_000_000_u64, "{record}");
    assert_eq!(proxy.metric("flowproxy_snmp_interfaces_left_out_total"), 0);
    agent.stop();
}

#[test]
fn a_user_with_sha_512_and_aes_256_reads_names() {
    let (rig, mib) = (Rig::new(), Mib::default());
    mib.set(100_000, [(7, "eth1".to_owned())].into_iter());
    let agent = Running::start(&mib);
    let _collector = rig.jsonl_collector();
    let section = format!(
        "[[enrich.snmp]]\nnetworks = [\"127.0.0.1/32\"]\nversion = \"3\"\nuser = \"flow\"\nauth = \"sha512\"\n\
         auth_env = \"LONGER\"\nprivacy = \"aes256\"\nprivacy_env = \"LONGER\"\nport = {}\n",
        agent.port
    );
    let proxy = proxy(&rig, &config(&rig, UDP, &section));
    Exporter::to(&proxy).until((&rig, "a name over AES-256"), (7, 7), |record| name(record) == Some("eth1"));
    agent.stop();
}

#[test]
fn old_names_are_not_used_for_new_numbers() {
    let (rig, mib) = (Rig::new(), Mib::default());
    mib.set(100_000, [(7, "eth1".to_owned()), (8, "eth2".to_owned())].into_iter());
    let agent = Running::start(&mib);
    let _collector = rig.jsonl_collector();
    let proxy = proxy(&rig, &config(&rig, UDP, &community(agent.port)));
    let mut exporter = Exporter::to(&proxy);
    exporter.until((&rig, "the first name"), (7, 8), |record| name(record) == Some("eth1"));
    // It starts anew, and its interfaces have changed places.
    mib.set(100, [(7, "eth2".to_owned()), (8, "eth1".to_owned())].into_iter());
    exporter.until((&rig, "the new name"), (7, 8), |record| name(record) == Some("eth2"));
    wait_until("a new start noticed", || proxy.metric("flowproxy_snmp_renumbered_total") >= 1);
    // The same without a new start: only the names tell.
    let before = proxy.metric("flowproxy_snmp_renumbered_total");
    mib.set(200, [(7, "eth3".to_owned()), (8, "eth2".to_owned())].into_iter());
    exporter.until((&rig, "the third name"), (7, 8), |record| name(record) == Some("eth3"));
    assert_eq!(proxy.metric("flowproxy_snmp_renumbered_total"), before + 1);
    (0..20).for_each(|_| exporter.send(7, 8));
    proxy.wait_metric("flowproxy_records_decoded_total", 20);
    assert!(proxy.process.terminate().success());
    let (order, records) = (["eth1", "eth2", "eth3"], rig.records());
    let told: Vec<_> = records.iter().filter_map(name).collect();
    let place = |told: &str| order.iter().position(|name| *name == told).unwrap();
    assert!(told.is_sorted_by_key(|name| place(name)), "{told:?}");
    let pairs =
        records.iter().filter_map(|record| Some((name(record)?, record["egressInterfaceName"].as_str()?)));
    for pair in pairs {
        assert!(
            [("eth1", "eth2"), ("eth2", "eth1"), ("eth3", "eth2")].contains(&pair),
            "of two tables: {pair:?}"
        );
    }
    agent.stop();
}

#[test]
fn a_device_that_falls_silent_keeps_its_names() {
    let (rig, mib) = (Rig::new(), Mib::default());
    mib.set(100_000, [(7, "eth1".to_owned())].into_iter());
    let agent = Running::start(&mib);
    let _collector = rig.jsonl_collector();
    let section = community(agent.port).replace("timeout = \"1s\"", "timeout = \"100ms\"\nretries = 0");
    let proxy = proxy(&rig, &config(&rig, UDP, &section));
    let mut exporter = Exporter::to(&proxy);
    exporter.until((&rig, "a name"), (7, 7), |record| name(record) == Some("eth1"));
    agent.stop();
    wait_until("a failure told", || proxy.process.log().contains("error=no answer"));
    let last = wait_for("a record after it", || {
        let before = rig.records().len();
        exporter.send(7, 7);
        wait_until("it arrives", || rig.records().len() > before);
        rig.records().pop()
    });
    assert_eq!(name(&last), Some("eth1"), "{last}");
}

/// An agent whose tables have no end: each next row is the first one again.
fn looping() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Ok(asked) = CommunityMessage::decode(buffer[..length].to_vec().into(), DecodeConfig::DEFAULT)
            else {
                continue;
            };
            let pdu = asked.value.into_pdu().unwrap();
            let row = |asked: &VarBind| {
                let column = asked.oid.arcs().iter().copied().take(11).collect::<Vec<_>>();
                let column = if column[6] == 31 { &column[..11] } else { &column[..10.min(column.len())] };
                VarBind::new(Oid::from_slice(column).child(1), Value::OctetString(b"again".to_vec().into()))
            };
            let rows = pdu.varbinds().iter().map(row).collect();
            let answer = ResponsePdu::success(Version::V2c, pdu.request_id(), rows).unwrap();
            let answer = CommunityMessage::v2c("public", answer.into_raw()).unwrap().encode().unwrap();
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

#[test]
fn a_table_without_end_is_left() {
    let rig = Rig::new();
    let file = rig.path("check.toml");
    std::fs::write(&file, config(&rig, UDP, &community(looping().port()))).unwrap();
    let output =
        flowproxy_command().args(["check", "--snmp", "-c"]).arg(&file).envs(SECRETS).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the device's tables loop: an answer lay before the question"), "{told}");
    assert_eq!(output.status.code(), Some(78));
}
