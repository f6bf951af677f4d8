//! Builder to reader: what goes in comes out, whatever the layout.

use super::{Builder, Effort, Kind, Limits, NoNames, Packer, RawBuilder, digest, read};
use crate::flow::{Exporter, Field, Layout, Run, Slot};
use crate::proto::{BootQuality, Codec, Protocol, RecordKind, SamplingSource};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;

mod names;

fn run(port: u16, sequence: u32) -> Run {
    Run {
        exporter: Exporter { address: [192, 0, 2, (port % 7) as u8].into(), port },
        agent: None,
        protocol: Protocol::NetflowV9,
        domain: 7,
        template: 256,
        sequence,
        export_time: 1_700_000_000_000 + u64::from(sequence) * 40,
        uptime: 5_000_000 + sequence * 40,
        received: 1_700_000_000_123 + u64::from(sequence) * 40,
        boot_time: 1_699_995_000_000,
        boot_quality: BootQuality::Header,
        sampling_rate: u32::from(port % 2),
        sampling_source: SamplingSource::Header,
        template_source: crate::proto::TemplateSource::Heard,
    }
}

fn layout(fields: &[(u16, u16)]) -> Arc<Layout> {
    let fields: Vec<Field> =
        fields.iter().map(|&(element, width)| Field { enterprise: 0, element, width }).collect();
    Arc::new(Layout::packed(RecordKind::Data, 0, false, &fields))
}

/// The fields of an edge router's v9 template.
const ROUTER: [(u16, u16); 19] = [
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
];

/// A record whose AS, masks and next hop follow from its addresses, as a router's do.
fn router_record(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let source: u32 = 0x0a00_0000 + rng.random_range(0..300u32) * 77;
    let destination: u32 = 0x5000_0000 + rng.random_range(0..900u32) * 13;
    let packets: u32 = rng.random_range(1..2_000);
    let first: u32 = 4_900_000 + rng.random_range(0..60_000u32);
    vec![
        (packets * 700).to_be_bytes().to_vec(),
        packets.to_be_bytes().to_vec(),
        vec![if rng.random_bool(0.8) { 6 } else { 17 }],
        vec![0],
        vec![rng.random_range(0..64)],
        rng.random_range(1_024..65_535u16).to_be_bytes().to_vec(),
        source.to_be_bytes().to_vec(),
        vec![8 + (source % 17) as u8],
        (1 + (source % 5) as u16).to_be_bytes().to_vec(),
        443u16.to_be_bytes().to_vec(),
        destination.to_be_bytes().to_vec(),
        vec![8 + (destination % 17) as u8],
        (1 + (destination % 5) as u16).to_be_bytes().to_vec(),
        (0xc000_0200 + destination % 9).to_be_bytes().to_vec(),
        (64_500 + source % 11).to_be_bytes().to_vec(),
        (3_000 + destination % 200).to_be_bytes().to_vec(),
        (first + rng.random_range(0..3_000u32)).to_be_bytes().to_vec(),
        first.to_be_bytes().to_vec(),
        vec![rng.random_range(0..2)],
    ]
}

/// Wire form of a record: fields back to back, lengths in front of those of variable length.
fn row(layout: &Layout, record: &[Vec<u8>]) -> Vec<u8> {
    let mut row = Vec::new();
    for (placed, value) in layout.fields().iter().zip(record) {
        if placed.field.width == Field::VARIABLE {
            match u8::try_from(value.len()) {
                Ok(length) if length < 255 => row.push(length),
                _ => {
                    row.push(255);
                    row.extend((value.len() as u16).to_be_bytes());
                }
            }
        }
        row.extend(value);
    }
    row
}

type Records = Vec<Vec<Vec<u8>>>;

/// Pushes the records of one layout as datagrams of `per_datagram`.
fn push(builder: &mut Builder, layout: &Arc<Layout>, slot: &Slot, records: &Records, per_datagram: usize) {
    for (i, records) in records.chunks(per_datagram).enumerate() {
        let (mut rows, mut ends) = (Vec::new(), Vec::new());
        for record in records {
            rows.extend(row(layout, record));
            ends.push(rows.len() as u32);
        }
        if layout.stride().is_some() {
            ends.clear();
        }
        let run = run((i % 3) as u16, i as u32);
        builder.push(&run, layout, slot, &rows, &ends, records.len() as u32);
    }
}

fn check(batch: &read::Batch, group: usize, records: &Records, per_datagram: usize) {
    let group = &batch.groups[group];
    assert_eq!(group.records(), records.len());
    for (i, record) in records.iter().enumerate() {
        for (column, value) in record.iter().enumerate() {
            assert_eq!(group.value(column, i), &value[..], "record {i} column {column}");
        }
    }
    let mut left = records.len();
    for (i, got) in group.runs().iter().enumerate() {
        let sent = run((i % 3) as u16, i as u32);
        assert_eq!(got.records as usize, left.min(per_datagram));
        left -= got.records as usize;
        assert_eq!(batch.exporter(got.exporter), sent.exporter);
        assert_eq!((got.domain, got.template, got.sequence), (sent.domain, sent.template, sent.sequence));
        assert_eq!((got.export_time, got.uptime), (sent.export_time, sent.uptime));
        assert_eq!((got.receive_time, got.boot_time), (sent.received, sent.boot_time));
        assert_eq!((got.protocol, got.boot_quality), (sent.protocol, sent.boot_quality));
        assert_eq!(got.sampling_rate, u64::from(sent.sampling_rate));
    }
}

#[test]
fn a_routers_records_come_back() {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut builder, mut packer) = (Builder::new(), Packer::new());
    let (layout, slot) = (layout(&ROUTER), Slot::default());
    for count in [1, 2, 15, 16, 17, 100, 1_000, 8_192] {
        let records: Records = (0..count).map(|_| router_record(&mut rng)).collect();
        push(&mut builder, &layout, &slot, &records, 24);
        let sealed = builder.seal(&mut packer, Effort::Fast, &mut NoNames).unwrap();
        assert_eq!((sealed.kind, sealed.records as usize), (Kind::Records, count));
        assert_eq!(sealed.digest, digest(sealed.codec, sealed.plain_size, &sealed.payload));
        assert_eq!(sealed.shares.iter().map(|share| share.records as usize).sum::<usize>(), count);
        let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
        check(&batch, 0, &records, 24);
    }
    assert!(builder.seal(&mut packer, Effort::Fast, &mut NoNames).is_none());
}

#[test]
fn a_routers_records_take_few_bytes() {
    let mut rng = StdRng::seed_from_u64(2);
    let (mut builder, mut packer) = (Builder::new(), Packer::new());
    let (layout, slot) = (layout(&ROUTER), Slot::default());
    let records: Records = (0..8_192).map(|_| router_record(&mut rng)).collect();
    for effort in [Effort::Small, Effort::Fast] {
        push(&mut builder, &layout, &slot, &records, 24);
        let sealed = builder.seal(&mut packer, effort, &mut NoNames).unwrap();
        assert_eq!(sealed.codec, Codec::Zstd);
        // Of 50 bytes on the wire; half of the fields here are random bytes.
        assert!(sealed.payload.len() < 8_192 * 18, "{} bytes", sealed.payload.len());
    }
}

#[test]
fn layouts_of_any_widths_come_back() {
    let mut rng = StdRng::seed_from_u64(3);
    let (mut builder, mut packer) = (Builder::new(), Packer::new());
    let elements = [8, 12, 27, 28, 7, 11, 21, 22, 1, 2, 10, 14, 62, 82, 95, 152, 153, 300];
    for round in 0..200 {
        let groups = rng.random_range(1..4);
        let mut sent: Vec<(Arc<Layout>, Records, usize)> = Vec::new();
        for _ in 0..groups {
            let fields: Vec<(u16, u16)> = (0..rng.random_range(1..12))
                .map(|_| {
                    let element = elements[rng.random_range(0..elements.len())];
                    let widths = [1, 2, 3, 4, 4, 4, 8, 9, 16, 16, 20, Field::VARIABLE];
                    (element, widths[rng.random_range(0..widths.len())])
                })
                .collect();
            let layout = layout(&fields);
            if sent.iter().any(|(other, ..)| *other == layout) {
                continue;
            }
            let variety = [1, 3, 40, 256][rng.random_range(0..4usize)];
            let records: Records = (0..rng.random_range(1..400))
                .map(|_| fields.iter().map(|(_, width)| field(&mut rng, *width, variety)).collect())
                .collect();
            let per_datagram = rng.random_range(1..40);
            push(&mut builder, &layout, &Slot::default(), &records, per_datagram);
            sent.push((layout, records, per_datagram));
        }
        let sealed = builder.seal(&mut packer, Effort::Fast, &mut NoNames).unwrap();
        let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload)
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(batch.groups.len(), sent.len());
        for (i, (_, records, per_datagram)) in sent.iter().enumerate() {
            check(&batch, i, records, *per_datagram);
        }
    }
}

/// A value of the width with bytes below `variety`; of any length when the width is variable.
fn field(rng: &mut StdRng, width: u16, variety: u32) -> Vec<u8> {
    let length = match width {
        Field::VARIABLE => [0, 1, 5, 254, 255, 300][rng.random_range(0..6usize)],
        width => usize::from(width),
    };
    (0..length).map(|_| rng.random_range(0..variety) as u8).collect()
}

#[test]
fn equal_layouts_of_different_templates_share_a_group() {
    let mut builder = Builder::new();
    let fields = [(1, 4), (8, 4)];
    for _ in 0..2 {
        builder.push(&run(1, 1), &layout(&fields), &Slot::default(), &[0; 16], &[], 2);
    }
    let sealed = builder.seal(&mut Packer::new(), Effort::Small, &mut NoNames).unwrap();
    let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
    assert_eq!((batch.groups.len(), batch.records()), (1, 4));
}

#[test]
fn a_flood_of_layouts_is_full_before_it_is_large() {
    let limits = Limits { max_records: 8_192, max_bytes: 2 << 20 };
    let (mut builder, mut packer) = (Builder::new(), Packer::new());
    let mut sealed = 0;
    for id in 0..2_000u16 {
        let fields: Vec<(u16, u16)> = (0..256).map(|i| (id.wrapping_mul(7).wrapping_add(i), 1)).collect();
        builder.push(&run(id, 1), &layout(&fields), &Slot::default(), &[1; 256], &[], 1);
        if builder.is_full(&limits) {
            let batch = builder.seal(&mut packer, Effort::Fast, &mut NoNames).unwrap();
            assert!(batch.plain_size < 4 << 20, "{} bytes", batch.plain_size);
            assert!(read::open(batch.codec, batch.plain_size, &batch.payload).is_ok());
            sealed += 1;
        }
    }
    assert!(sealed > 5);
}

#[test]
fn raw_datagrams_come_back_in_order() {
    let (mut builder, mut packer) = (RawBuilder::default(), Packer::new());
    let mut rng = StdRng::seed_from_u64(4);
    let mut sent = Vec::new();
    for i in 0..500u64 {
        let exporter = Exporter { address: [127, 0, 0, (i % 3) as u8].into(), port: (i % 5) as u16 };
        let bytes: Vec<u8> = (0..rng.random_range(0..1_500)).map(|_| rng.random()).collect();
        builder.push(exporter, 9_995, 1_000 + i, &bytes);
        sent.push((exporter, 1_000 + i, bytes));
    }
    let sealed = builder.seal(&mut packer, &mut NoNames).unwrap();
    assert_eq!((sealed.kind, sealed.records, sealed.received), (Kind::Raw, 500, 1_000));
    let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
    assert_eq!(batch.kind(), Kind::Raw);
    for (got, (exporter, received, bytes)) in batch.datagrams().zip(&sent) {
        assert_eq!((&got.exporter, &got.bytes), (exporter, &&bytes[..]));
        assert_eq!((got.port, got.received), (9_995, *received));
    }
    let mut by_address = HashMap::new();
    for share in &sealed.shares {
        *by_address.entry(share.exporter.address).or_insert(0) += share.records;
    }
    assert_eq!(by_address.values().sum::<u32>(), 500);
}

#[test]
fn a_template_that_names_addresses_over_and_over_blows_no_batch_up() {
    const RECORDS: usize = 600;
    let mut rng = StdRng::seed_from_u64(8);
    let ipv4 = [vec![(8, 4); 200], vec![(16, 16); 50]].concat();
    for (fields, addresses) in [(ipv4, 800), (vec![(27, 16); 200], 3_200)] {
        let layout = layout(&fields);
        let stride = layout.stride().unwrap();
        let mut rows = vec![0; RECORDS * stride];
        rng.fill(&mut rows[..]);
        // Every address comes twice, so that a dictionary of very many seems to pay.
        rows.chunks_mut(stride).for_each(|row| row.copy_within(..addresses / 2, addresses / 2));
        let mut builder = Builder::new();
        builder.push(&run(1, 1), &layout, &Slot::default(), &rows, &[], RECORDS as u32);
        let sealed = builder.seal(&mut Packer::new(), Effort::Fast, &mut NoNames).unwrap();
        let most = rows.len() + fields.len() * 64;
        assert!((sealed.plain_size as usize) < most, "{} bytes of {}", sealed.plain_size, rows.len());
        let batch = read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
        let group = &batch.groups[0];
        let values = (0..RECORDS).flat_map(|record| (0..fields.len()).map(move |column| (column, record)));
        assert!(values.flat_map(|(column, record)| group.value(column, record)).eq(&rows));
    }
}
