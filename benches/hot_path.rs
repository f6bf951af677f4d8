//! What a record costs from datagram to sealed batch, in memory, on one core: `cargo bench --bench hot_path`.
//!
//! `decode` reads datagrams and drops the rows; `planes` also gathers them and lays each batch out in byte planes;
//! `seal` also packs those with zstd; `json` is the collector's side, from payload to JSON lines. Throughput is in
//! records, of sFlow in samples. `names` compares decoding and sealing without names and with them. For comparison `copy` copies the datagrams' bytes, and `netflow_parser` is another
//! decoder, which makes values of its own of each field.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark, not the product"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flowproxy::batch::{
    AddressText, Builder, Effort, InterfaceText, Names, NoNames, Packer, Sealed, Sender, SenderText, read,
};
use flowproxy::enrich::{Book, Entry, Table, View};
use flowproxy::flow::record::write_lines;
use flowproxy::flow::{Exporter, Run};
use flowproxy::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

const BATCH_RECORDS: usize = 8_192;
const DATAGRAMS: u32 = 1_500;

/// Field of an element and its bytes.
type Fields = &'static [(u16, u16)];

/// A 20-field template as edge routers send it; 51 bytes a record.
const TEMPLATE: Fields = &[
    (1, 4),
    (2, 4),
    (4, 1),
    (5, 1),
    (6, 1),
    (7, 2),
    (8, 4),
    (9, 1),
    (10, 2),
    (11, 2),
    (12, 4),
    (13, 1),
    (14, 2),
    (15, 4),
    (16, 4),
    (17, 4),
    (21, 4),
    (22, 4),
    (61, 1),
    (89, 1),
];

/// The v5 record; element 0 is padding.
const V5_RECORD: Fields = &[
    (8, 4),
    (12, 4),
    (15, 4),
    (10, 2),
    (14, 2),
    (2, 4),
    (1, 4),
    (22, 4),
    (21, 4),
    (7, 2),
    (11, 2),
    (0, 1),
    (6, 1),
    (4, 1),
    (5, 1),
    (16, 2),
    (17, 2),
    (9, 1),
    (13, 1),
    (0, 2),
];

/// One flow, as the value of an element; what an address decides follows from it, as a router's table has it.
fn flow(rng: &mut StdRng) -> impl Fn(u16) -> u32 + use<> {
    fn skewed(rng: &mut StdRng, most: f64) -> u32 {
        most.powf(rng.random::<f64>()) as u32
    }
    let source = 0x6440_0000 + skewed(rng, 8_192.0) * 37;
    let destination = 0x2500_0000 + skewed(rng, 32_768.0) * 4_099;
    let port = rng.random_range(32_768..61_000);
    let service = [443, 80, 53, 22, 8_080][rng.random_range(0..5usize)];
    let packets = skewed(rng, 5_000.0);
    let size = [52, 80, 576, 1_400][rng.random_range(0..4usize)];
    let first = 863_940_000 + rng.random_range(0..60_000);
    let duration = skewed(rng, 30_000.0);
    let flags = [0x1b, 0x18, 0x10, 0x02][rng.random_range(0..4usize)];
    move |element| match element {
        1 => packets * size,
        2 => packets,
        4 => 6,
        6 => flags,
        7 => port,
        8 => source,
        9 => 20 + source % 5,
        10 => 1 + source % 12,
        11 => service,
        12 => destination,
        13 => 12 + destination % 13,
        14 => 100 + destination % 6,
        15 => 0xc000_0200 + destination % 6,
        16 => 64_500 + source % 4,
        17 => 1_000 + destination % 900,
        21 => first + duration,
        22 => first,
        89 => 64 + u32::from(packets == 1) * 64,
        _ => 0,
    }
}

fn records(rng: &mut StdRng, fields: Fields, count: usize) -> Vec<u8> {
    let mut rows = Vec::new();
    for _ in 0..count {
        let flow = flow(rng);
        for &(element, bytes) in fields {
            rows.extend(flow(element).to_be_bytes().iter().skip(4 - usize::from(bytes)));
        }
    }
    rows
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn flow_sample(rng: &mut StdRng, sequence: u32, is_border: bool) -> Vec<u8> {
    let flow = flow(rng);
    let size = 64 + flow(1) % 1_400;
    let is_tcp = rng.random_ratio(4, 5);
    let is_v6 = rng.random_ratio(1, 4);
    let mut frame = numbers(&[0x0200_5e00, flow(10), flow(14) << 16, 0x8100_0000 | flow(10)]);
    frame.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let protocol = if is_tcp { 6 } else { 17 };
    if is_v6 {
        frame.extend(numbers(&[0x6000_0000, size << 16 | protocol << 8 | 60, 0x2001_0db8, 0, 0, flow(8)]));
        frame.extend(numbers(&[0x2001_0db8, 0, 0, flow(12)]));
    } else {
        frame.extend(numbers(&[0x4500_0000 | size, flow(7) << 16 | 0x4000, 60 << 24 | protocol << 16]));
        frame.extend(numbers(&[flow(8), flow(12)]));
    }
    frame.extend(numbers(&[flow(7) << 16 | flow(11), flow(22), flow(21), 0x5000_0000 | flow(6) << 16]));
    frame.resize_with(128, || rng.random());
    let header = [numbers(&[1, 144, 1, size + 22, 4, 128]), frame].concat();
    let switch = numbers(&[1_001, 16, flow(10), 0, flow(14), 0]);
    let router = numbers(&[1_002, 16, 1, flow(15), flow(9), flow(13)]);
    let gateway =
        [1_003, 56, 1, flow(15), 64_500, flow(16), 64_501, 1, 2, 3, 64_502, 64_503, flow(17), 1, 100, 100];
    let gateway = if is_border { numbers(&gateway) } else { Vec::new() };
    let records = [switch, header, router, gateway].concat();
    let count = 3 + u32::from(is_border);
    let start = [sequence, flow(10), 1_024, sequence * 1_024, 0, flow(10), flow(14), count];
    [numbers(&[1, 32 + records.len() as u32]), numbers(&start), records].concat()
}

/// Datagrams of one protocol, the template's first.
struct Load {
    name: &'static str,
    /// The first datagram is for all exporters.
    has_template: bool,
    datagrams: Vec<Vec<u8>>,
    records: u64,
}

impl Load {
    fn v5() -> Load {
        let mut rng = StdRng::seed_from_u64(5);
        let datagrams = (0..DATAGRAMS).map(|i| {
            let uptime = 864_000_000u32.to_be_bytes();
            let mut datagram =
                [&[0, 5, 0, 30][..], &uptime, &[0x65; 8], &(i * 30).to_be_bytes(), &[0; 4]].concat();
            datagram.extend(records(&mut rng, V5_RECORD, 30));
            datagram
        });
        Load {
            name: "v5",
            has_template: false,
            datagrams: datagrams.collect(),
            records: u64::from(DATAGRAMS) * 30,
        }
    }

    /// NetFlow v9 (9) and IPFIX (10) differ in their headers and the template set's id.
    fn templated(name: &'static str, version: u16) -> Load {
        const RECORDS: usize = 24;
        let mut rng = StdRng::seed_from_u64(u64::from(version));
        let header = |sequence: u32, content: Vec<u8>| {
            let mut datagram = version.to_be_bytes().to_vec();
            if version == 9 {
                datagram.extend([&[0, 24][..], &864_000_000u32.to_be_bytes()].concat());
            } else {
                datagram.extend((16 + content.len() as u16).to_be_bytes());
            }
            datagram.extend([&[0x65; 4][..], &sequence.to_be_bytes(), &[0; 4], &content].concat());
            datagram
        };
        let set = |id: u16, content: &[u8]| {
            [&id.to_be_bytes()[..], &(4 + content.len() as u16).to_be_bytes(), content].concat()
        };
        let mut template = [256u16.to_be_bytes(), (TEMPLATE.len() as u16).to_be_bytes()].concat();
        for (element, bytes) in TEMPLATE {
            template.extend([element.to_be_bytes(), bytes.to_be_bytes()].concat());
        }
        let mut datagrams = vec![header(0, set(if version == 9 { 0 } else { 2 }, &template))];
        // NetFlow v9 counts datagrams, IPFIX records.
        let step = if version == 9 { 1 } else { RECORDS as u32 };
        for sequence in 1..=DATAGRAMS {
            datagrams.push(header((sequence - 1) * step, set(256, &records(&mut rng, TEMPLATE, RECORDS))));
        }
        Load { name, has_template: true, datagrams, records: u64::from(DATAGRAMS) * RECORDS as u64 }
    }

    /// sFlow as a switch sends it: six flow samples of 128 bytes of header in a datagram, TCP and UDP, IPv4 and IPv6,
    /// tagged, each with the switch's and the router's record, and of a border router with the gateway's, which has a
    /// path.
    fn sflow(name: &'static str, is_border: bool) -> Load {
        const SAMPLES: u32 = 6;
        let mut rng = StdRng::seed_from_u64(105);
        let datagrams = (0..DATAGRAMS).map(|i| {
            let mut datagram = numbers(&[5, 1, 0xc000_0201, 0, i, 864_000_000, SAMPLES]);
            for sample in 0..SAMPLES {
                datagram.extend(flow_sample(&mut rng, i * SAMPLES + sample, is_border));
            }
            datagram
        });
        Load {
            name,
            has_template: false,
            datagrams: datagrams.collect(),
            records: u64::from(DATAGRAMS * SAMPLES),
        }
    }

    fn pass(&self, decoder: &mut Decoder, output: &mut impl Output) {
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2_055 };
        let arrival = Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 0 };
        for datagram in &self.datagrams {
            decoder.datagram(&arrival, datagram, output).unwrap();
        }
    }

    /// The same from several exporters in turn.
    fn pass_of(&self, exporters: u8, decoder: &mut Decoder, output: &mut impl Output) {
        let mut give = |host: u8, datagram: &[u8]| {
            let exporter = Exporter { address: [192, 0, 2, host].into(), port: 2_055 };
            let arrival = Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 0 };
            decoder.datagram(&arrival, datagram, output).unwrap();
        };
        let (first, rest) = self.datagrams.split_at(usize::from(self.has_template));
        for datagram in first {
            (0..exporters).for_each(|host| give(host, datagram));
        }
        for (datagram, host) in rest.iter().zip((0..exporters).cycle()) {
            give(host, datagram);
        }
    }
}

/// How far the records go.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Decode,
    Planes,
    Seal,
}

/// Gathers batches of the default size, lays them out and packs them, as far as is asked for.
struct Seal {
    names: Box<dyn Names>,
    to: To,
    builder: Builder,
    packer: Packer,
    sealed: Vec<Sealed>,
}

impl Seal {
    fn new(to: To) -> Seal {
        Seal {
            names: Box::new(NoNames),
            to,
            builder: Builder::new(),
            packer: Packer::new(),
            sealed: Vec::new(),
        }
    }
}

impl Output for Seal {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        if self.to == To::Decode {
            black_box((run, template, rows, count));
            return;
        }
        self.builder.push(run, template.layout(), template.slot(), rows, ends, count);
        if self.builder.records() < BATCH_RECORDS {
            return;
        }
        if self.to == To::Planes {
            black_box(self.builder.lay_out(&mut *self.names));
        } else {
            self.sealed.extend(self.builder.seal(&mut self.packer, Effort::Fast, &mut *self.names));
        }
    }
    fn fault(&mut self, fault: Fault, _: Place) {
        panic!("{fault}");
    }
    fn set(&mut self) {}
}

fn hot_path(criterion: &mut Criterion) {
    for load in [
        Load::v5(),
        Load::templated("v9", 9),
        Load::templated("ipfix", 10),
        Load::sflow("sflow", false),
        Load::sflow("sflow_bgp", true),
    ] {
        let mut group = criterion.benchmark_group("records");
        group.throughput(Throughput::Elements(load.records));
        group.bench_function(BenchmarkId::new("copy", load.name), |bencher| {
            let mut copy = Vec::new();
            bencher.iter(|| {
                copy.clear();
                load.datagrams.iter().for_each(|datagram| copy.extend_from_slice(datagram));
                black_box(copy.len())
            });
        });
        // It has no sFlow.
        if !load.name.starts_with("sflow") {
            let mut parser = netflow_parser::NetflowParser::default();
            group.bench_function(BenchmarkId::new("netflow_parser", load.name), |bencher| {
                bencher.iter(|| {
                    load.datagrams.iter().map(|bytes| parser.parse_bytes(bytes).packets.len()).sum::<usize>()
                });
            });
        }
        let mut sealed = None;
        for (name, to) in [("decode", To::Decode), ("planes", To::Planes), ("seal", To::Seal)] {
            let mut decoder = Decoder::new(Settings::default());
            let mut seal = Seal::new(to);
            group.bench_function(BenchmarkId::new(name, load.name), |bencher| {
                bencher.iter(|| {
                    seal.sealed.clear();
                    load.pass(&mut decoder, &mut seal);
                });
            });
            sealed = seal.sealed.pop();
        }
        let Some(sealed) = sealed else { continue };
        let bytes = sealed.payload.len() as f64 / f64::from(sealed.records);
        println!("{}: {bytes:.1} bytes a record in a batch of {}", load.name, sealed.records);
        group.throughput(Throughput::Elements(u64::from(sealed.records)));
        group.bench_function(BenchmarkId::new("json", load.name), |bencher| {
            let mut lines = Vec::new();
            bencher.iter(|| {
                lines.clear();
                let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
                write_lines(&mut lines, &batch);
                black_box(lines.len())
            });
        });
        group.finish();
    }
}

/// Exporters whose names are known, and interfaces of each that records name.
const NAMED_EXPORTERS: u8 = 4;
const NAMED_INTERFACES: [std::ops::Range<u32>; 2] = [1..13, 100..106];

/// A book with tables as a walk over SNMP leaves them.
fn book() -> Book {
    let book = Book::new();
    for host in 0..NAMED_EXPORTERS {
        let device = [192, 0, 2, host].into();
        let entry = |index: u32| Entry {
            name: format!("TenGigE0/0/0/{index}").into(),
            description: format!("uplink {index} of paris-{host}").into(),
            speed: 10_000_000_000,
            told: 0,
        };
        let interfaces = NAMED_INTERFACES.into_iter().flatten().map(|index| (index, entry(index))).collect();
        book.set_snmp(device, Some(Arc::new(Table { interfaces, told: 1_700_000_000_000 })));
        let (name, site) = (format!("paris-{host}"), "paris".to_owned());
        book.set_device_name(device, Some(Arc::new(SenderText { name, site, ..SenderText::default() })));
    }
    book
}

/// The same, and somebody who knows an AS number and a country of each address.
struct WithAddresses(View);

impl Names for WithAddresses {
    fn sender(&mut self, sender: &Sender) -> Option<Arc<SenderText>> {
        self.0.sender(sender)
    }

    fn interface(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText> {
        self.0.interface(sender, index)
    }

    fn has_addresses(&self) -> bool {
        true
    }

    fn address(&mut self, address: IpAddr) -> Option<AddressText> {
        let IpAddr::V4(address) = address else { return None };
        Some(AddressText { as_number: address.to_bits() % 900, country: *b"FR" })
    }
}

/// What names cost: decoded and sealed without them, with those of exporters and interfaces, with addresses too.
fn names(criterion: &mut Criterion) {
    for load in [Load::v5(), Load::templated("v9", 9), Load::sflow("sflow", false)] {
        let mut group = criterion.benchmark_group("names");
        group.throughput(Throughput::Elements(load.records));
        let names: [(&str, Box<dyn Names>); 3] = [
            ("none", Box::new(NoNames)),
            ("known", Box::new(book().view())),
            ("addresses", Box::new(WithAddresses(book().view()))),
        ];
        for (name, names) in names {
            let mut decoder = Decoder::new(Settings::default());
            let mut seal = Seal { names, ..Seal::new(To::Seal) };
            group.bench_function(BenchmarkId::new(name, load.name), |bencher| {
                bencher.iter(|| {
                    seal.sealed.clear();
                    load.pass_of(NAMED_EXPORTERS, &mut decoder, &mut seal);
                });
            });
            // None if it was not asked for.
            let Some(sealed) = seal.sealed.pop() else { continue };
            let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
            let (interfaces, addresses) = (batch.interfaces.len(), batch.addresses.len());
            let bytes = sealed.payload.len() as f64 / f64::from(sealed.records);
            println!("{name}: {interfaces} interfaces, {addresses} addresses, {bytes:.1} bytes a record");
        }
        group.finish();
    }
}

criterion_group!(benches, hot_path, names);
criterion_main!(benches);
