//! What has arrived: records, who sent them, who talks most, and whether any came twice.
//!
//! Pure. It reads batches as any far end would, and knows nothing of what the generator has sent.

use super::numbers::{Numbers, Seen};
use crate::batch::read::{Batch, Column, Group};
use crate::flow::Exporter;
use crate::generator::encoder::element;
use crate::proto::RecordKind;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Exporters and talkers that are told apart; the mesh has far fewer.
const MAX_ROWS: usize = 4_096;

/// Counts over all batches.
#[derive(Debug)]
pub struct Tally {
    counts: Counts,
    exporters: BTreeMap<Exporter, u64>,
    talkers: HashMap<IpAddr, u64>,
    numbers: Numbers,
}

/// Sums over all flow records; options records are counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flow records, those that came again included.
    pub records: u64,
    /// Records of options: sampling, interface names.
    pub options: u64,
    /// Sum of the flows' packets.
    pub packets: u64,
    /// Sum of the flows' bytes.
    pub bytes: u64,
    /// Flow records that had come before.
    pub twice: u64,
    /// Flow records without a number of this run, or too old to tell whether they had come before.
    pub unknown: u64,
    /// Batches.
    pub batches: u64,
}

/// A copy to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Sums.
    pub counts: Counts,
    /// Flow records of each exporter.
    pub exporters: BTreeMap<Exporter, u64>,
    /// Bytes that each address sent.
    pub talkers: HashMap<IpAddr, u64>,
}

impl Tally {
    /// Nothing yet, of a mesh with so many exporters.
    pub fn new(exporters: usize) -> Tally {
        Tally {
            counts: Counts::default(),
            exporters: BTreeMap::new(),
            talkers: HashMap::new(),
            numbers: Numbers::new(exporters),
        }
    }

    /// Counts a batch.
    pub fn add(&mut self, batch: &Batch) {
        self.counts.batches += 1;
        for group in &batch.groups {
            if group.kind == RecordKind::Data {
                self.add_flows(batch, group);
            } else {
                self.counts.options += group.records() as u64;
            }
        }
    }

    /// Sums only.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// All that is shown.
    pub fn view(&self) -> View {
        View { counts: self.counts, exporters: self.exporters.clone(), talkers: self.talkers.clone() }
    }

    fn add_flows(&mut self, batch: &Batch, group: &Group) {
        self.counts.records += group.records() as u64;
        for run in group.runs() {
            let exporter = batch.exporter(run.exporter);
            if self.exporters.len() < MAX_ROWS || self.exporters.contains_key(&exporter) {
                *self.exporters.entry(exporter).or_default() += u64::from(run.records);
            }
        }
        let find = |elements: &[u16]| group.columns.iter().find(|column| is_one_of(column, elements));
        let sources = find(&[element::IPV4_SRC_ADDR, element::IPV6_SRC_ADDR]);
        let bytes = find(&[element::IN_BYTES]);
        let packets = find(&[element::IN_PKTS]);
        let numbers = find(&[element::FLOW_ID]);
        for record in 0..group.records() {
            let value = |column: Option<&Column>| column.map_or(0, |column| unsigned(column.value(record)));
            let flow_bytes = value(bytes);
            self.counts.bytes += flow_bytes;
            self.counts.packets += value(packets);
            match numbers.map_or(Seen::Unknown, |column| self.numbers.see(unsigned(column.value(record)))) {
                Seen::First => {}
                Seen::Again => self.counts.twice += 1,
                Seen::Unknown => self.counts.unknown += 1,
            }
            if let Some(source) = sources.and_then(|column| address(column.value(record))) {
                self.add_talker(source, flow_bytes);
            }
        }
    }

    fn add_talker(&mut self, source: IpAddr, bytes: u64) {
        if let Some(sum) = self.talkers.get_mut(&source) {
            *sum += bytes;
        } else if self.talkers.len() < MAX_ROWS {
            self.talkers.insert(source, bytes);
        }
    }
}

fn is_one_of(column: &Column, elements: &[u16]) -> bool {
    column.field.enterprise == 0 && elements.contains(&column.field.element)
}

/// The number that a field holds, big-endian; of wider ones the low 8 bytes.
fn unsigned(field: &[u8]) -> u64 {
    field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn address(field: &[u8]) -> Option<IpAddr> {
    match field.len() {
        4 => <[u8; 4]>::try_from(field).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(field).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Effort, NoNames, Packer, read};
    use crate::flow::Run;
    use crate::generator::encoder::{Datagram, Settings};
    use crate::generator::export::{Export, Totals};
    use crate::generator::sources::mesh::{self, Mesh};
    use crate::generator::{NUMBER_BITS, encoder};
    use crate::wire::{self, Arrival, Decoder, Fault, Output, Place};
    use std::time::Duration;

    const NOW: u64 = 1_795_442_400_000;

    /// What a shard does: rows go into the batch.
    #[derive(Default)]
    struct Shard(Builder);

    impl Output for Shard {
        fn records(&mut self, run: &Run, template: &wire::Template, rows: &[u8], ends: &[u32], count: u32) {
            self.0.push(run, template.layout(), template.slot(), rows, ends, count);
        }

        fn fault(&mut self, fault: Fault, _: Place) {
            panic!("{fault:?}");
        }

        fn set(&mut self) {}
    }

    /// The mesh's flows through generator, decoder and batch; what was sent, and the batch read again.
    fn batch(flows: usize) -> (Totals, Batch) {
        let settings = Settings {
            version: encoder::Version::NetflowV9,
            domain: 1,
            booted: NOW - 1_000_000,
            max_bytes: 1_472,
            max_delay: Duration::from_secs(1),
            template_interval: Duration::from_secs(60),
            template_datagrams: 10,
        };
        let interfaces = Mesh::interfaces();
        let mut exports: Vec<Export> = (0..2)
            .map(|number| Export::new(settings, &interfaces, Some(number << NUMBER_BITS)).unwrap())
            .collect();
        let mut mesh = Mesh::new(&mesh::Settings { seed: 4, sites: 2, ipv6_percent: 20 });
        let (mut decoder, mut shard) = (Decoder::new(wire::Settings::default()), Shard::default());
        let mut sent = Totals::default();
        let mut wire = |site: usize, datagram: encoder::Datagram<'_>, held: Totals| {
            let exporter = Exporter { address: IpAddr::from([127, 0, 0, 2]), port: 1_000 + site as u16 };
            let arrival = Arrival { exporter, received: NOW, elapsed: 0, number: 0 };
            decoder.datagram(&arrival, datagram.bytes, &mut shard).unwrap();
            sent.add(held);
        };
        for _ in 0..flows {
            let (site, flow) = mesh.next_flow(NOW);
            let mut out = |datagram: Datagram<'_>, held: Totals| wire(site, datagram, held);
            exports[site].record(&flow, NOW, &mut out).unwrap();
        }
        for (site, export) in exports.iter_mut().enumerate() {
            export.flush(NOW, &mut |datagram, held| wire(site, datagram, held));
        }
        let sealed = shard.0.seal(&mut Packer::new(), Effort::Small, &mut NoNames).unwrap();
        (sent, read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap())
    }

    #[test]
    fn counts_what_the_generator_sent() {
        let (sent, batch) = batch(5_000);
        let mut tally = Tally::new(2);
        tally.add(&batch);
        let counts = tally.counts();
        assert_eq!((sent.records, sent.packets, sent.bytes), (counts.records, counts.packets, counts.bytes));
        assert_eq!((counts.records, counts.twice, counts.unknown, counts.batches), (5_000, 0, 0, 1));
        assert_eq!(counts.options + counts.records, batch.records());
        let view = tally.view();
        assert_eq!(view.exporters.len(), 2);
        assert_eq!(view.exporters.values().sum::<u64>(), 5_000);
        assert_eq!(view.talkers.values().sum::<u64>(), sent.bytes);
    }

    #[test]
    fn a_batch_that_comes_again_is_noticed() {
        let (_, batch) = batch(300);
        let mut tally = Tally::new(2);
        tally.add(&batch);
        tally.add(&batch);
        let counts = tally.counts();
        assert_eq!((counts.records, counts.twice, counts.unknown), (600, 300, 0));
    }

    #[test]
    fn numbers_of_another_run_are_unknown() {
        let (_, batch) = batch(300);
        let mut tally = Tally::new(0);
        tally.add(&batch);
        assert_eq!(tally.counts().unknown, 300);
    }
}
