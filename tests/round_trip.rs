//! Random templates and records through our encoder and our decoder: what comes out is what went in, to the byte, and
//! so it is after a batch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "support/traffic.rs"]
mod traffic;

use flowproxy::batch::{Builder, Effort, NoNames, Packer, read};
use flowproxy::flow::{Exporter, Field, Run};
use flowproxy::generator::encoder::Version;
use flowproxy::proto::RecordKind;
use flowproxy::wire::{Arrival, Decoder, Fault, Heard, Output, Place, Settings, Step, Template, Unit};
use std::collections::BTreeMap;
use traffic::{Traffic, Values, traffic};

const SEEDS: u64 = 300;

/// Gathers what the decoder gives.
#[derive(Default)]
struct Gathered {
    builder: Builder,
    templates: BTreeMap<u16, (usize, Vec<Field>)>,
    sets: usize,
    steps: Vec<Step>,
}

impl Output for Gathered {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        self.builder.push(run, template.layout(), template.slot(), rows, ends, count);
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        panic!("{fault} at {place:?}");
    }

    fn template(&mut self, heard: &Heard<'_>) {
        let fields = heard.layout.fields().iter().map(|placed| placed.field).collect();
        self.templates.insert(heard.id, (heard.layout.scope_columns(), fields));
    }

    fn set(&mut self) {
        self.sets += 1;
    }

    fn sequence(&mut self, _: Unit, step: Step) {
        self.steps.push(step);
    }
}

/// The records of a batch by template, flows and options apart.
type Read = BTreeMap<(bool, u16), Vec<Values>>;

fn read(gathered: &mut Gathered) -> Read {
    let sealed = gathered.builder.seal(&mut Packer::new(), Effort::Small, &mut NoNames).expect("records");
    let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).expect("a batch");
    let mut read = Read::new();
    for group in &batch.groups {
        let mut record = 0;
        for run in group.runs() {
            for _ in 0..run.records {
                let values = (0..group.columns.len()).map(|column| group.value(column, record).to_vec());
                let key = (group.kind == RecordKind::Options, run.template);
                read.entry(key).or_default().push(values.collect());
                record += 1;
            }
        }
    }
    read
}

fn comes_back(seed: u64, version: Version) {
    let sent: Traffic = traffic(seed, version, 0, |_| true);
    let mut decoder = Decoder::new(Settings::default());
    let mut gathered = Gathered::default();
    for (number, bytes) in (0..).zip(&sent.datagrams) {
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2055 };
        let arrival = Arrival { exporter, received: 1_795_442_400_000, elapsed: number, number };
        decoder.datagram(&arrival, bytes, &mut gathered).expect("a header");
    }
    assert_eq!(gathered.templates, sent.templates, "seed {seed}");
    assert_eq!(gathered.steps, [], "seed {seed}: sequence numbers have no gap");
    let read = read(&mut gathered);
    for ((is_options, id), records) in &read {
        let expected = if *is_options { &sent.options[id] } else { &sent.records[id] };
        // Options come again with the templates.
        let times = records.len() / expected.len();
        assert!(times == 1 || *is_options, "seed {seed}");
        let expected: Vec<&Values> = (0..times).flat_map(|_| expected).collect();
        assert_eq!(records.iter().collect::<Vec<_>>(), expected, "seed {seed}, template {id}");
    }
    assert_eq!(read.len(), sent.records.len() + sent.options.len(), "seed {seed}");
}

#[test]
fn v9_comes_back() {
    (0..SEEDS).for_each(|seed| comes_back(seed, Version::NetflowV9));
}

#[test]
fn ipfix_comes_back() {
    (0..SEEDS).for_each(|seed| comes_back(seed, Version::Ipfix));
}
