//! What hostile datagrams cost a proxy, in nanoseconds for each of their bytes: `cargo bench --bench worst_case`.
//!
//! Each line is one kind of datagram, sent again and again for a second to one decoder with its default limits, through
//! gathering, laying out and packing. The last column compares with plain NetFlow v9 in the same run. How many values a
//! byte can give is bounded and tested (`fuzz/witness.rs`, `VALUES_PER_BYTE`); how long that takes is only measured.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark, not the product"
)]

use flowproxy::batch::{Builder, Effort, Limits, NoNames, Packer};
use flowproxy::flow::list::Named;
use flowproxy::flow::{Exporter, Run};
use flowproxy::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// As in the product.
const BATCH: Limits = Limits { max_records: 8_192, max_bytes: 1 << 20 };
/// The most records of a group.
const MOST_RECORDS: usize = 65_536;
/// As long as UDP over Ethernet makes it, and as long as UDP can.
const SIZES: [usize; 2] = [1_472, 65_507];

#[derive(Default)]
struct Shard {
    builder: Builder,
    packer: Option<Packer>,
    lists: Vec<Named>,
    values: u64,
}

impl Shard {
    fn seal(&mut self) {
        let packer = self.packer.get_or_insert_with(Packer::new);
        black_box(self.builder.seal(packer, Effort::Fast, &mut NoNames));
    }
}

impl Output for Shard {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        if self.builder.records() + count as usize > MOST_RECORDS {
            self.seal();
        }
        self.values += u64::from(count) * template.layout().fields().len() as u64;
        self.builder.push_with_lists(run, template.layout(), template.slot(), rows, ends, count, &self.lists);
        self.lists.clear();
        if self.builder.is_full(&BATCH) {
            self.seal();
        }
    }
    fn lists(&mut self, named: &[Named]) {
        self.lists.extend_from_slice(named);
    }
    fn fault(&mut self, _: Fault, _: Place) {}
    fn set(&mut self) {}
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn sixteens(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A set with its header.
fn set(id: u16, content: &[u8]) -> Vec<u8> {
    [&sixteens(&[id, 4 + content.len() as u16])[..], content].concat()
}

fn v9(sets: &[Vec<u8>]) -> Vec<u8> {
    [sixteens(&[9, 1]), words(&[1_000, 1_700_000_000, 1, 7]), sets.concat()].concat()
}

fn ipfix(sets: &[Vec<u8>]) -> Vec<u8> {
    let sets = sets.concat();
    [sixteens(&[10, 16 + sets.len() as u16]), words(&[1_700_000_000, 1, 7]), sets].concat()
}

/// A template of a set's content.
fn template(id: u16, fields: &[[u16; 2]]) -> Vec<u8> {
    [sixteens(&[id, fields.len() as u16]), sixteens(&fields.concat())].concat()
}

/// One of each kind of datagram, `size` bytes long or a little shorter; `round` makes it another one.
type Make = fn(size: usize, round: u16) -> Vec<u8>;

const KINDS: [(&str, Make); 14] = [
    ("plain NetFlow v9", plain),
    ("records of one byte", |size, _| {
        v9(&[set(0, &template(256, &[[4, 1]])), set(256, &vec![6; size - 40])])
    }),
    ("one byte and eight fields of none", |size, _| {
        let fields = [&[[82, 0]; 8][..], &[[4, 1]]].concat();
        v9(&[set(0, &template(257, &fields)), set(257, &vec![6; size - 80])])
    }),
    ("256 fields of variable length, one byte each", |size, _| {
        let fields: Vec<[u16; 2]> = (0..256).map(|n| [n + 1, 65_535]).collect();
        let data = vec![0; size.saturating_sub(1_060).max(300)];
        ipfix(&[set(2, &template(258, &fields)), set(258, &data)])
    }),
    ("sets of one record", |size, _| {
        let sets = (size - 40) / 8;
        v9(&[vec![set(0, &template(256, &[[8, 4]]))], vec![set(256, &[10, 0, 0, 1]); sets]].concat())
    }),
    ("sets of nothing", |size, _| v9(&vec![set(256, &[]); (size - 20) / 4])),
    ("new templates", |size, round| {
        let templates = (size - 24) / 8;
        let of = |n: usize| template(256 + n as u16, &[[1 + round % 400, 4]]);
        v9(&[set(0, &(0..templates).flat_map(of).collect::<Vec<u8>>())])
    }),
    ("templates of 256 fields, each time others", |size, round| {
        let fields = |n: usize| (0..256).map(|at| [(at + n as u16 + round) % 500, 4]).collect::<Vec<_>>();
        let templates = ((size - 24) / 1_028).max(1);
        v9(&[set(0, &(0..templates).flat_map(|n| template(256 + n as u16, &fields(n))).collect::<Vec<u8>>())])
    }),
    ("a template for each record", |size, round| {
        let of = |n: usize| {
            let id = 256 + n as u16;
            [set(0, &template(id, &[[8, 4], [1 + (n as u16 + round) % 400, 4]])), set(id, &[7; 8])].concat()
        };
        v9(&(0..(size - 20) / 28).map(of).collect::<Vec<_>>())
    }),
    ("data without a template", |size, round| v9(&vec![set(300 + round % 9_000, &[7; 4]); (size - 20) / 8])),
    ("lists in lists", |size, _| {
        let mut list = vec![3, 1, 3];
        while list.len() < size - 120 {
            list = [&[3, 1, 3, 255][..], &sixteens(&[list.len() as u16]), &list].concat();
        }
        let record = [&[255][..], &sixteens(&[list.len() as u16]), &list].concat();
        ipfix(&[set(2, &template(259, &[[292, 65_535]])), set(259, &record)])
    }),
    ("lists of many templates", |size, _| {
        let parts: Vec<u8> = (0..(size - 120) / 4).flat_map(|n| sixteens(&[256 + n as u16, 4])).collect();
        let list = [&[3][..], &parts].concat();
        let record = [&[255][..], &sixteens(&[list.len() as u16]), &list].concat();
        ipfix(&[set(2, &template(260, &[[293, 65_535]])), set(260, &record)])
    }),
    ("sFlow samples of nothing, of changing shapes", |size, _| {
        let sample = |n: usize| match n % 3 {
            0 => words(&[1, 32, 1, 3, n as u32, 0, 0, 1, 2, 0]),
            1 => words(&[2, 12, 1, 3, 0]),
            _ => words(&[3, 44, 1, 0, 3, n as u32, 0, 0, 0, 1, 0, 2, 0]),
        };
        let samples: Vec<Vec<u8>> = (0..(size - 28) / 38).map(sample).collect();
        [words(&[5, 1, 0xc000_0201, 0, 9, 1_000, samples.len() as u32]), samples.concat()].concat()
    }),
    ("sFlow samples of whole records", |size, _| {
        let record = words(&[77 << 12 | 1, 0]);
        let sample = [words(&[1, 32 + 64 * 8, 1, 3, 100, 0, 0, 1, 2, 64]), record.repeat(64)].concat();
        let samples = ((size - 28) / sample.len()).max(1);
        [words(&[5, 1, 0xc000_0201, 0, 9, 1_000, samples as u32]), sample.repeat(samples)].concat()
    }),
];

fn plain(size: usize, round: u16) -> Vec<u8> {
    let fields = [
        [8, 4],
        [12, 4],
        [15, 4],
        [10, 4],
        [14, 4],
        [2, 4],
        [1, 4],
        [22, 4],
        [21, 4],
        [7, 2],
        [11, 2],
        [6, 1],
        [4, 1],
        [5, 1],
        [16, 4],
        [17, 4],
        [9, 1],
        [13, 1],
        [61, 1],
        [89, 1],
    ];
    let bytes: usize = fields.iter().map(|field| usize::from(field[1])).sum();
    let records = (size - 120) / bytes;
    let value = |at: usize| (at * 31 + usize::from(round) * 7) as u8 & 15;
    let rows: Vec<u8> = (0..records * bytes).map(value).collect();
    v9(&[set(0, &template(256, &fields)), set(256, &rows)])
}

/// Nanoseconds a byte, and values a byte, of datagrams of this kind; each from a sender of its own if so asked.
fn measure(make: Make, size: usize, senders: u32) -> (f64, f64) {
    const ROUNDS: u16 = 64;
    const TIME: Duration = Duration::from_millis(700);
    let datagrams: Vec<Vec<u8>> = (0..ROUNDS).map(|round| make(size, round)).collect();
    let mut decoder = Decoder::new(Settings::default());
    let mut shard = Shard::default();
    let (mut bytes, mut number) = (0usize, 0u64);
    let start = Instant::now();
    while start.elapsed() < TIME {
        for datagram in &datagrams {
            number += 1;
            let [_, b, c, d] = (number as u32 % senders).to_be_bytes();
            let exporter = Exporter { address: IpAddr::from([10, b, c, d]), port: 2055 };
            let elapsed = number / 10;
            let arrival = Arrival { exporter, received: 1_700_000_000_000 + elapsed, elapsed, number };
            let _ = decoder.datagram(&arrival, datagram, &mut shard);
            bytes += datagram.len();
        }
    }
    (start.elapsed().as_nanos() as f64 / bytes as f64, shard.values as f64 / bytes as f64)
}

fn main() {
    let mut usual = 0.0;
    println!(
        "{:<50} {:>8} {:>8} {:>9} {:>9} {:>7}",
        "datagrams of", "bytes", "senders", "ns/byte", "values/B", "times"
    );
    for (name, make) in KINDS {
        for size in SIZES {
            for senders in [1, 1 << 20] {
                let (ns, values) = measure(make, size, senders);
                if usual == 0.0 {
                    usual = ns;
                }
                let times = ns / usual;
                println!("{name:<50} {size:>8} {senders:>8} {ns:>9.2} {values:>9.2} {times:>7.1}");
            }
        }
    }
}
