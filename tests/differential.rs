//! Our decoder against another one, the `netflow_parser` crate, on generated traffic of NetFlow v5, v7, v9 and IPFIX:
//! the same records in the same order, the same fields, the same bytes.
//!
//! Where that crate is known to be wrong the traffic leaves it out, with the reason: [`theirs_can`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "support/traffic.rs"]
mod traffic;

use flowproxy::flow::{Exporter, Field, Run};
use flowproxy::generator::encoder::Version;
use flowproxy::proto::RecordKind;
use flowproxy::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};
use netflow_parser::variable_versions::field_value::FieldValue;
use netflow_parser::variable_versions::ipfix::lookup::IPFixField;
use netflow_parser::variable_versions::v9::ScopeDataField;
use netflow_parser::variable_versions::{ipfix, v9};
use netflow_parser::{NetflowPacket, NetflowParser};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::LazyLock;
use traffic::traffic;

const SEEDS: u64 = 300;

/// A record as both decoders can tell it.
#[derive(Debug, PartialEq)]
struct Record {
    template: u16,
    is_options: bool,
    /// Enterprise, element, bytes.
    fields: Vec<(u32, u16, Vec<u8>)>,
}

#[derive(Default)]
struct Ours(Vec<Record>);

impl Output for Ours {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        let layout = template.layout();
        let stride = layout.stride().unwrap_or(0) as u32;
        let mut start = 0;
        for record in 0..count {
            let end = ends.get(record as usize).copied().unwrap_or((record + 1) * stride) as usize;
            let row = &rows[start..end];
            let mut at = 0;
            let mut fields = Vec::new();
            for placed in layout.fields() {
                let Field { enterprise, element, width } = placed.field;
                let (head, length) = match (width, &row[at..]) {
                    (Field::VARIABLE, [255, high, low, ..]) => {
                        (3, usize::from(*high) << 8 | usize::from(*low))
                    }
                    (Field::VARIABLE, [short, ..]) => (1, usize::from(*short)),
                    _ => (0, usize::from(width)),
                };
                // Fixed layouts have gaps.
                let from = if layout.stride().is_some() { placed.offset } else { at + head };
                fields.push((enterprise, element, row[from..from + length].to_vec()));
                at = from + length;
            }
            let is_options = layout.kind() == RecordKind::Options;
            self.0.push(Record { template: run.template, is_options, fields });
            start = end;
        }
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        panic!("{fault} at {place:?}");
    }

    fn set(&mut self) {}
}

/// Each datagram's records are the same.
fn agree(seed: u64, datagrams: &[Vec<u8>]) {
    let mut decoder = Decoder::new(Settings::default());
    let mut parser = NetflowParser::default();
    for (number, bytes) in (0..).zip(datagrams) {
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2055 };
        let arrival = Arrival { exporter, received: 1_795_442_400_000, elapsed: number, number };
        let mut ours = Ours::default();
        decoder.datagram(&arrival, bytes, &mut ours).expect("a header");
        let parsed = parser.parse_bytes(bytes);
        assert!(parsed.error.is_none(), "seed {seed}, datagram {number}: {:?}", parsed.error);
        let theirs: Vec<Record> = parsed.packets.iter().flat_map(records).collect();
        for (ours, theirs) in ours.0.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "seed {seed}, datagram {number}");
        }
        assert_eq!(ours.0.len(), theirs.len(), "seed {seed}, datagram {number}");
    }
}

/// A v5 or v7 record: two types of the other decoder, with the same names in them.
macro_rules! fixed_record {
    ($flow:expr) => {{
        let flow = $flow;
        fixed(vec![
            (8, flow.src_addr.octets().to_vec()),
            (12, flow.dst_addr.octets().to_vec()),
            (15, flow.next_hop.octets().to_vec()),
            (10, flow.input.to_be_bytes().to_vec()),
            (14, flow.output.to_be_bytes().to_vec()),
            (2, flow.d_pkts.to_be_bytes().to_vec()),
            (1, flow.d_octets.to_be_bytes().to_vec()),
            (22, flow.first.to_be_bytes().to_vec()),
            (21, flow.last.to_be_bytes().to_vec()),
            (7, flow.src_port.to_be_bytes().to_vec()),
            (11, flow.dst_port.to_be_bytes().to_vec()),
            (6, vec![flow.tcp_flags]),
            (4, vec![flow.protocol_number]),
            (5, vec![flow.tos]),
            (16, flow.src_as.to_be_bytes().to_vec()),
            (17, flow.dst_as.to_be_bytes().to_vec()),
            (9, vec![flow.src_mask]),
            (13, vec![flow.dst_mask]),
        ])
    }};
}

/// What the other decoder makes of a datagram.
fn records(packet: &NetflowPacket) -> Vec<Record> {
    match packet {
        NetflowPacket::V5(packet) => packet.flowsets.iter().map(|flow| fixed_record!(flow)).collect(),
        NetflowPacket::V7(packet) => packet.flowsets.iter().map(|flow| fixed_record!(flow)).collect(),
        NetflowPacket::V9(packet) => packet.flowsets.iter().flat_map(v9_records).collect(),
        NetflowPacket::IPFix(packet) => packet.flowsets.iter().flat_map(ipfix_records).collect(),
        other => panic!("{other:?}"),
    }
}

/// Fields of IANA's.
fn fixed(fields: Vec<(u16, Vec<u8>)>) -> Record {
    let fields = fields.into_iter().map(|(element, bytes)| (0, element, bytes)).collect();
    Record { template: 0, is_options: false, fields }
}

fn bytes(value: &FieldValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write_be_bytes(&mut bytes).expect("bytes");
    bytes
}

fn v9_records(set: &v9::FlowSet) -> Vec<Record> {
    let template = set.header.flowset_id;
    let field = |(field, value): &(v9::lookup::V9Field, FieldValue)| (0, u16::from(*field), bytes(value));
    let scope = |scope: &ScopeDataField| match scope {
        ScopeDataField::System(bytes) => (0, 1, bytes.clone()),
        ScopeDataField::Interface(bytes) => (0, 2, bytes.clone()),
        ScopeDataField::LineCard(bytes) => (0, 3, bytes.clone()),
        ScopeDataField::NetFlowCache(bytes) => (0, 4, bytes.clone()),
        ScopeDataField::Template(bytes) => (0, 5, bytes.clone()),
        ScopeDataField::Unknown(kind, bytes) => (0, *kind, bytes.clone()),
    };
    match &set.body {
        v9::FlowSetBody::Data(data) => data
            .fields
            .iter()
            .map(|record| Record { template, is_options: false, fields: record.iter().map(field).collect() })
            .collect(),
        v9::FlowSetBody::OptionsData(data) => data
            .fields
            .iter()
            .map(|record| {
                let scopes = record.scope_fields.iter().map(scope);
                let fields = scopes.chain(record.options_fields.iter().map(field)).collect();
                Record { template, is_options: true, fields }
            })
            .collect(),
        v9::FlowSetBody::Template(_) | v9::FlowSetBody::OptionsTemplate(_) => Vec::new(),
        other => panic!("{other:?}"),
    }
}

fn ipfix_records(set: &ipfix::FlowSet) -> Vec<Record> {
    let (is_options, records) = match &set.body {
        ipfix::FlowSetBody::Data(data) => (false, &data.fields),
        ipfix::FlowSetBody::OptionsData(data) => (true, &data.fields),
        ipfix::FlowSetBody::NoTemplate(_) => panic!("{set:?}"),
        _ => return Vec::new(),
    };
    let field = |(field, value): &(IPFixField, FieldValue)| {
        let (enterprise, element) = ipfix_field(*field);
        (enterprise, element, bytes(value))
    };
    let record = |record: &Vec<(IPFixField, FieldValue)>| {
        let fields = record.iter().map(field).collect();
        Record { template: set.header.header_id, is_options, fields }
    };
    records.iter().map(record).collect()
}

/// The other decoder names fields; this turns its names back into numbers.
fn ipfix_field(field: IPFixField) -> (u32, u16) {
    static NUMBERS: LazyLock<HashMap<IPFixField, (u32, u16)>> = LazyLock::new(|| {
        let elements = |enterprise| (0..1_000).map(move |element| (enterprise, element));
        let named = |(enterprise, element)| {
            let of = (enterprise != 0).then_some(enterprise);
            (IPFixField::new(element, of), (enterprise, element))
        };
        traffic::ENTERPRISES.into_iter().chain([0]).flat_map(elements).map(named).collect()
    });
    NUMBERS[&field]
}

/// Bytes of a value of variable length: one of none, as RFC 7011 section 7 has it, makes the other decoder give up the
/// set.
const LEAST: usize = 1;

/// What the other decoder (1.0.6) gives as it came. The bytes that it takes out are in the exporters' datagrams, and the
/// standard says what they are; it was tried with every element up to 479 in widths from 0 to 30 and variable.
fn theirs_can(version: Version, field: Field) -> bool {
    match (field.element, field.width) {
        // It refuses IPFIX templates with a field of no bytes, and its application id (95) of no bytes: Juniper sends
        // such templates (logstash-codec-netflow 3.2.3), and their other fields are whole.
        (_, 0) => version == Version::NetflowV9 && field.element != 95,
        // tcpControlBits in two bytes: it clears the upper four, which RFC 9565 says are to be exported as seen.
        (6, 2 | Field::VARIABLE) => false,
        // mplsTopLabelExp and postMplsTopLabelExp: it clears the upper five bits. They should be 0, and are not ours to
        // change.
        (203 | 237, 1 | Field::VARIABLE) => version == Version::NetflowV9,
        _ => true,
    }
}

#[test]
fn v5_and_v7_are_read_alike() {
    for (version, header_bytes, record_bytes) in [(5, 24, 48), (7, 24, 52)] {
        for seed in 0..SEEDS {
            let mut rng = StdRng::seed_from_u64(seed);
            let datagrams: Vec<Vec<u8>> = (0..5)
                .map(|_| {
                    let count = rng.random_range(1..=28u8);
                    let mut datagram = vec![0; header_bytes + usize::from(count) * record_bytes];
                    rng.fill(&mut datagram[4..]);
                    datagram[..4].copy_from_slice(&[0, version, 0, count]);
                    datagram
                })
                .collect();
            agree(seed, &datagrams);
        }
    }
}

fn read_alike(version: Version) {
    for seed in 0..SEEDS {
        agree(seed, &traffic(seed, version, LEAST, |field| theirs_can(version, field)).datagrams);
    }
}

#[test]
fn v9_is_read_alike() {
    read_alike(Version::NetflowV9);
}

#[test]
fn ipfix_is_read_alike() {
    read_alike(Version::Ipfix);
}
