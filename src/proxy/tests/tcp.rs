//! IPFIX over TCP through a proxy in this process: whose templates are whose, and what becomes of what cannot be read.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The template's id.
const ID: u16 = 300;

fn message(sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let mut message = [&[0, 10][..], &(16 + body.len() as u16).to_be_bytes(), &[0; 12]].concat();
    message.extend(body);
    message
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(4 + body.len() as u16).to_be_bytes(), body].concat()
}

/// Octets and packets, 4 bytes each.
fn template() -> Vec<u8> {
    let [high, low] = ID.to_be_bytes();
    set(2, &[high, low, 0, 2, 0, 1, 0, 4, 0, 2, 0, 4])
}

fn withdrawal() -> Vec<u8> {
    let [high, low] = ID.to_be_bytes();
    set(2, &[high, low, 0, 0])
}

/// Two records.
fn data() -> Vec<u8> {
    set(ID, &[7; 16])
}

/// A proxy that listens on TCP only.
async fn started(folder: &Path) -> Running {
    let mut config = written(folder, "").unwrap();
    config.listen.udp.clear();
    config.listen.raw.clear();
    config.listen.tcp = vec!["127.0.0.1:0".parse().unwrap()];
    start(config).await.unwrap()
}

fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.tcp()[0]).unwrap()
}

/// Stops it, which reads what was sent, and gives what was counted.
async fn counted(running: Running) -> (Ingest, ingest::tcp::Metrics) {
    let (ingest, tcp) = (running.ingest().clone(), running.facts.counters.tcp.clone());
    running.stop().await;
    let unreadable: u64 = ingest.datagrams_unreadable.all().values().sum();
    let refused = ingest.datagrams_refused.get();
    assert_eq!(ingest.datagrams_received.get(), ingest.datagrams_accepted.get() + unreadable + refused);
    assert_eq!(ingest.records_batched.get(), ingest.records_decoded.get());
    assert_eq!((ingest.sets_held.get(), ingest.set_bytes_held.get(), ingest.templates.get()), (0, 0, 0));
    assert_eq!(tcp.connections.get(), 0);
    (ingest, tcp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_with_tcp_alone_works() {
    let folder = with_certificates();
    let running = started(folder.path()).await;
    let status = running.status();
    assert_eq!(status["listen"]["tcp"][0], running.tcp()[0].to_string());
    assert_eq!((&status["listen"]["shards"], &status["listen"]["udp"]), (&0.into(), &serde_json::json!([])));
    connect(&running).write_all(&message(&[template(), data()])).unwrap();
    let (ingest, tcp) = counted(running).await;
    assert_eq!((ingest.records_decoded.get(), ingest.sets_decoded.get()), (2, 2));
    assert_eq!((tcp.messages.get(), tcp.accepted.get()), (1, 1));
    assert_eq!(tcp.bytes.get(), ingest.bytes_received.get());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_belong_to_their_connection() {
    let folder = with_certificates();
    let running = started(folder.path()).await;
    let mut first = connect(&running);
    first.write_all(&message(&[template(), data()])).unwrap();
    // Beside the first, and after its end: neither knows what the first has told.
    let mut second = connect(&running);
    second.write_all(&message(&[data()])).unwrap();
    drop(first);
    let mut third = connect(&running);
    third.write_all(&message(&[data()])).unwrap();
    // A template that comes after its data still serves it, on its own connection.
    third.write_all(&message(&[template()])).unwrap();
    let (ingest, tcp) = counted(running).await;
    assert_eq!(ingest.records_decoded.get(), 4);
    assert_eq!(ingest.sets_undecoded.get("no_template"), 1, "the second's is given up at its end");
    assert_eq!(tcp.accepted.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withdrawals_take_effect() {
    let folder = with_certificates();
    let running = started(folder.path()).await;
    let messages = [message(&[template(), data()]), message(&[withdrawal()]), message(&[data()])];
    connect(&running).write_all(&messages.concat()).unwrap();
    let (ingest, _) = counted(running).await;
    assert_eq!(ingest.template_withdrawals.get("obeyed"), 1);
    assert_eq!((ingest.records_decoded.get(), ingest.sets_undecoded.get("no_template")), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_counted_and_ends_the_connection() {
    let folder = with_certificates();
    let running = started(folder.path()).await;
    // A set that reaches past its message is one set's fault: the next message is read.
    let mut broken_set = message(&[template(), data()]);
    let length_at = 16 + template().len() + 2;
    broken_set[length_at..length_at + 2].copy_from_slice(&1_000_u16.to_be_bytes());
    let mut client = connect(&running);
    client.write_all(&[broken_set, message(&[data()]), b"\r\n\r\n".to_vec()].concat()).unwrap();
    let _ = client.read(&mut [0]);
    let (ingest, tcp) = counted(running).await;
    assert_eq!(ingest.datagrams_unreadable.get("unknown_version"), 1);
    assert_eq!(ingest.sets_undecoded.get("set_length"), 1);
    assert_eq!((ingest.records_decoded.get(), ingest.datagrams_accepted.get()), (2, 2));
    assert_eq!((tcp.messages.get(), tcp.ended.get("malformed")), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_exporters_holds_for_connections() {
    let folder = with_certificates();
    let running = started(folder.path()).await;
    let mut before = connect(&running);
    before.write_all(&message(&[template(), data()])).unwrap();
    while running.ingest().datagrams_accepted.get() == 0 {
        tokio::task::yield_now().await;
    }
    let mut config = (*running.config()).clone();
    config.listen.allow = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    assert!(running.reload(Ok(config.clone())));
    assert_eq!(connect(&running).read(&mut [0]).unwrap_or(0), 0, "it is closed");
    assert_eq!(before.read(&mut [0]).unwrap_or(0), 0, "one that came in before is closed too");
    config.listen.tcp.clear();
    assert!(!running.reload(Ok(config)), "listen.tcp needs a restart");
    let (ingest, tcp) = counted(running).await;
    assert_eq!(ingest.records_decoded.get(), 2);
    assert_eq!((tcp.refused.get("not_allowed"), tcp.ended.get("not_allowed")), (1, 1));
}
