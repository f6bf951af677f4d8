//! Who is let in, and what a panic costs.

use super::*;
use crate::ledger_equations::{assert_needed, faults};
use crate::proxy::ledger_of_parts;
use crate::shard::{ExporterView, Limits, Networks};
use crate::spool::{self, Spool};
use crate::wire;
use serde_json::Value;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

/// Panics where it is told to.
#[derive(Debug, Default)]
pub(super) struct Tripwire(Option<Vec<u8>>);

impl Tripwire {
    pub(super) fn trip(&self, bytes: &[u8]) {
        assert!(self.0.as_deref() != Some(bytes), "tripped by the test");
    }
}

const NOW: Moment = Moment { unix_ms: 1_795_442_400_000, elapsed_ms: 5_000 };

struct Bench {
    intake: Intake,
    decoder: Decoder,
    metrics: Ingest,
    _spool: (TempDir, Spool, spool::Writer),
}

impl Bench {
    fn new(admission: Admission) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (spool, writer, queue) =
            spool::open(spool::Settings::new(folder.path().into()), spool::Metrics::default()).unwrap();
        let limits = crate::batch::Limits { max_records: 8_192, max_bytes: 2 << 20 };
        let context = Context {
            batch: Arc::new(ArcSwap::from_pointee(BatchSettings {
                limits,
                max_delay: Duration::from_secs(1),
            })),
            admission: Arc::new(ArcSwap::from_pointee(admission)),
            wire: wire::Settings::default(),
            metrics: Ingest::new(),
            queue,
            names: crate::enrich::Book::new(),
            exporters: ExporterView::default(),
            before: spool.last_heard(),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (metrics, decoder) = (context.metrics.clone(), Decoder::new(context.wire.clone()));
        Bench { intake: Intake::new(&context), decoder, metrics, _spool: (folder, spool, writer) }
    }

    fn send(&mut self, from: [u8; 4], bytes: &[u8]) {
        let exporter = Exporter { address: from.into(), port: 2055 };
        let datagram = Datagram { exporter, bytes, truncated: false };
        self.intake.datagram(&datagram, 2055, NOW, Some(&mut self.decoder));
        self.intake.flush_counts();
    }

    /// Sends what was longer than the socket's buffer: no datagram of today's networks is.
    fn send_too_long(&mut self, from: [u8; 4]) {
        let exporter = Exporter { address: from.into(), port: 2055 };
        let datagram = Datagram { exporter, bytes: &v5(1), truncated: true };
        self.intake.datagram(&datagram, 2055, NOW, Some(&mut self.decoder));
        self.intake.flush_counts();
    }

    /// What became of all, as `/status` would say it.
    fn ledger(&mut self) -> Value {
        self.intake.flush_counts();
        let view = ExporterView::default();
        self.intake.senders().publish(std::iter::empty(), &view, NOW);
        // Nobody writes: what was handed over is as if it had got its numbers.
        let spool = spool::Metrics::default();
        let batched = self.metrics.records_batched.get() + self.metrics.raw_batched.get();
        spool.waiting_records.set(batched as i64);
        ledger_of_parts(&self.metrics, &spool, view.rows())
    }

    /// Every datagram read is somewhere, and so is every record when the batch is closed.
    fn assert_ledger(&mut self) {
        self.intake.close(Close::End);
        assert_eq!(faults(&self.ledger()), Vec::<String>::new());
    }
}

/// NetFlow v5 with one record whose first byte is this.
fn v5(mark: u8) -> Vec<u8> {
    let mut bytes = vec![0; 24 + 48];
    (bytes[1], bytes[3], bytes[24]) = (5, 1, mark);
    bytes
}

#[test]
fn every_fault_has_its_counter() {
    let mut labels: Vec<&str> = Fault::ALL.iter().map(|fault| fault.label()).collect();
    let mut counters: Vec<&str> = Ingest::UNREADABLE.into_iter().chain(Ingest::UNDECODED).collect();
    counters.retain(|label| *label != Ingest::PANIC);
    labels.sort_unstable();
    counters.sort_unstable();
    assert_eq!(labels, counters);
}

/// An IPFIX message of these sets, each an id and its content.
fn ipfix(sets: &[(u16, &[u8])]) -> Vec<u8> {
    let set = |(id, content): &(u16, &[u8])| {
        [&id.to_be_bytes()[..], &(4 + content.len() as u16).to_be_bytes(), content].concat()
    };
    let sets: Vec<u8> = sets.iter().flat_map(set).collect();
    [&[0, 10][..], &(16 + sets.len() as u16).to_be_bytes(), &[0; 12], &sets].concat()
}

/// RFC 6313: the values of such a list stay octets, and that is not silent.
#[test]
fn a_list_whose_template_comes_later_is_counted() {
    let mut bench = Bench::new(Admission::default());
    // Template 256: a subTemplateList of variable length; its record: allOf template 300, one byte.
    let outer: (u16, &[u8]) = (2, &[1, 0, 0, 1, 1, 36, 255, 255]);
    let data: (u16, &[u8]) = (256, &[4, 3, 1, 44, 9]);
    let inner: (u16, &[u8]) = (2, &[1, 44, 0, 1, 0, 4, 0, 1]);
    bench.send([10, 1, 2, 3], &ipfix(&[outer, data]));
    assert_eq!(bench.metrics.list_templates_unknown.get(), 1);
    bench.send([10, 1, 2, 3], &ipfix(&[data, inner, data]));
    assert_eq!(bench.metrics.list_templates_unknown.get(), 2, "the last is read");
    assert_eq!(bench.metrics.records_decoded.get(), 3);
    bench.assert_ledger();
}

#[test]
fn who_is_not_allowed_is_counted_and_not_read() {
    let allow = Networks::new(&["10.0.0.0/8".parse().unwrap()]);
    let mut bench = Bench::new(Admission { allow: Some(allow), ..Admission::default() });
    for _ in 0..3 {
        bench.send([10, 1, 2, 3], &v5(1));
        bench.send([192, 0, 2, 1], &v5(1));
    }
    assert_eq!(bench.metrics.datagrams_refused.get(), 3);
    assert_eq!(bench.metrics.records_decoded.get(), 3);
    bench.assert_ledger();
}

#[test]
fn each_address_has_its_own_limits() {
    let limits = Limits { datagrams: Some(2), bytes: None };
    let mut bench = Bench::new(Admission { limits, ..Admission::default() });
    for _ in 0..5 {
        bench.send([10, 1, 2, 3], &v5(1));
    }
    bench.send([10, 1, 2, 4], &v5(1));
    assert_eq!((bench.metrics.datagrams_limited.get(), bench.metrics.records_decoded.get()), (3, 3));
    bench.assert_ledger();

    let limits = Limits { datagrams: Some(1_000), bytes: Some(150) };
    let mut bench = Bench::new(Admission { limits, ..Admission::default() });
    for _ in 0..5 {
        bench.send([10, 1, 2, 3], &v5(1));
    }
    assert_eq!(bench.metrics.datagrams_limited.get(), 3, "150 bytes are two datagrams of 72");
    bench.assert_ledger();
}

#[test]
fn a_panic_in_reading_costs_its_datagram() {
    let mut bench = Bench::new(Admission::default());
    bench.intake.tripwire = Tripwire(Some(v5(9)));
    bench.send([10, 0, 0, 1], &v5(1));
    bench.send([10, 0, 0, 2], &v5(9));
    bench.send([10, 0, 0, 1], &v5(2));
    assert_eq!(bench.metrics.datagrams_unreadable.get(Ingest::PANIC), 1);
    assert_eq!((bench.metrics.datagrams_accepted.get(), bench.metrics.records_decoded.get()), (2, 2));
    bench.assert_ledger();
    assert_eq!(bench.metrics.records_batched.get(), 2, "the open batch was not touched");
    assert_needed(&bench.ledger(), &["/total/datagrams/unreadable/panic"]);
}

#[test]
fn what_is_longer_than_the_buffer_is_counted() {
    let mut bench = Bench::new(Admission::default());
    bench.send_too_long([10, 0, 0, 1]);
    bench.send([10, 0, 0, 1], &v5(1));
    bench.assert_ledger();
    let places = ["/total/datagrams/truncated", "/exporters/datagrams/truncated"];
    assert_needed(&bench.ledger(), &places);
}

#[test]
fn a_panic_in_building_costs_the_open_batch_and_is_counted() {
    let mut bench = Bench::new(Admission::default());
    bench.intake.tripwire = Tripwire(Some(v5(9)[24..].to_vec()));
    bench.send([10, 0, 0, 1], &v5(1));
    bench.send([10, 0, 0, 1], &v5(2));
    bench.send([10, 0, 0, 2], &v5(9));
    assert_eq!(bench.metrics.datagrams_unreadable.get(Ingest::PANIC), 1);
    assert_eq!(bench.metrics.records_dropped.get(Ingest::PANIC), 2);
    bench.send([10, 0, 0, 1], &v5(3));
    bench.assert_ledger();
    assert_eq!(bench.metrics.records_batched.get(), 1, "what came after is in a batch of its own");
    assert_needed(&bench.ledger(), &["/total/records/dropped/panic"]);
}

/// A v9 datagram with one set.
fn v9(id: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 9, 0, 1];
    bytes.extend([0; 16]);
    bytes.extend(id.to_be_bytes());
    bytes.extend((4 + body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn a_panic_in_a_held_set_loses_and_counts_that_set() {
    let mut bench = Bench::new(Admission::default());
    bench.intake.tripwire = Tripwire(Some(vec![7; 4]));
    bench.send([10, 0, 0, 1], &v9(256, &[7; 4]));
    bench.send([10, 0, 0, 1], &v9(256, &[8; 4]));
    assert_eq!(bench.metrics.sets_held.get(), 2);
    let template = v9(0, &[1, 0, 0, 1, 0, 8, 0, 4]);
    bench.send([10, 0, 0, 1], &template);
    assert_eq!(
        bench.metrics.sets_undecoded.get(Ingest::PANIC),
        2,
        "that set, and the one that it waited for"
    );
    assert_eq!(bench.metrics.datagrams_unreadable.get(Ingest::PANIC), 1);
    // The template was taken before; the next time it is heard the other set comes out.
    bench.send([10, 0, 0, 1], &template);
    assert_eq!((bench.metrics.sets_held.get(), bench.metrics.records_decoded.get()), (0, 1));
    bench.assert_ledger();
    assert_needed(&bench.ledger(), &["/total/sets/undecoded/panic"]);
}
