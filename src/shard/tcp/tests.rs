//! A shard over real connections, with a spool that takes nothing for a while.

use super::*;
use crate::ingest::tcp::{Door, Metrics, QUEUE_BYTES, bind, queue};
use crate::shard::{BatchSettings, ExporterView, run_tcp};
use crate::spool;
use arc_swap::ArcSwap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;

const RECORDS_EACH: usize = 100;
const MESSAGES: usize = 200;

/// A message with the template, and records that do not pack: 32 bytes of noise each.
fn message(noise: &mut u64) -> Vec<u8> {
    let template: [u8; 12] = [0, 2, 0, 12, 1, 44, 0, 1, 0, 210, 0, 32];
    let mut records = Vec::new();
    while records.len() < RECORDS_EACH * 32 {
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        records.extend(noise.to_be_bytes());
    }
    let length = (4 + records.len()) as u16;
    let set = [&300_u16.to_be_bytes(), &length.to_be_bytes(), records.as_slice()].concat();
    let whole = (16 + template.len() + set.len()) as u16;
    [&[0, 10], &whole.to_be_bytes()[..], &[0; 12], &template, &set].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_that_is_behind_slows_the_senders_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = spool::Settings {
        queue_bytes: 256 << 10,
        max_bytes: 64 << 20,
        keep_free_bytes: Some(0),
        ..spool::Settings::new(folder.path().to_owned())
    };
    let (_spool, writer, batches) = spool::open(settings, spool::Metrics::default()).unwrap();
    let limits = crate::batch::Limits { max_records: 500, max_bytes: 1 << 20 };
    let context = Context {
        batch: Arc::new(ArcSwap::from_pointee(BatchSettings { limits, max_delay: Duration::from_millis(1) })),
        admission: Arc::default(),
        wire: wire::Settings::default(),
        metrics: Ingest::new(),
        queue: batches.clone(),
        names: crate::enrich::Book::new(),
        exporters: ExporterView::default(),
        before: crate::spool::LastHeard::default(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let (ingest, tcp) = (context.metrics.clone(), Metrics::new());
    let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let (outbox, inbox) = queue(QUEUE_BYTES);
    let mut door = Door::new(listeners, Arc::new(|_| true), outbox, tcp.clone());
    let shard = std::thread::spawn(move || run_tcp(inbox, context));

    let mut client = TcpStream::connect(address).unwrap();
    let connection = door.next().await;
    drop(door);
    let connection = tokio::spawn(connection.run(CancellationToken::new()));
    let mut noise = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..MESSAGES {
        client.write_all(&message(&mut noise)).unwrap();
    }
    drop(client);
    connection.await.unwrap();
    assert_eq!(tcp.messages.get(), MESSAGES as u64);
    while !batches.is_behind() {
        std::thread::yield_now();
    }
    drop(batches);
    let writing = std::thread::spawn(move || writer.run());
    shard.join().unwrap();
    writing.join().unwrap();
    assert_eq!(ingest.records_dropped_total(), 0);
    assert_eq!(ingest.records_batched.get(), (MESSAGES * RECORDS_EACH) as u64);
}

/// Its exporter sent the template once, and this may be all that comes for a while.
#[test]
fn the_longest_message_can_wait_for_its_template() {
    let settings = wire::Settings { limits: LIMITS, ..wire::Settings::default() };
    let mut decoder = Decoder::new(settings);
    let head = [&[0, 10, 255, 255][..], &[0; 12], &[1, 44], &65_519_u16.to_be_bytes()].concat();
    let mut message = vec![7; 65_535];
    message[..head.len()].copy_from_slice(&head);
    struct Nothing;
    impl wire::Output for Nothing {
        fn records(&mut self, _: &crate::flow::Run, _: &wire::Template, _: &[u8], _: &[u32], _: u32) {}
        fn fault(&mut self, fault: wire::Fault, _: wire::Place) {
            panic!("{fault}")
        }
        fn set(&mut self) {}
    }
    let exporter = crate::flow::Exporter { address: [192, 0, 2, 1].into(), port: 1 };
    let arrival = wire::Arrival { exporter, received: 0, elapsed: 0, number: 0 };
    decoder.datagram(&arrival, &message, &mut Nothing).unwrap();
    assert_eq!(decoder.held().0, 1);
}
