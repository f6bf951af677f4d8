//! What the simulated proxies send: batches of one record, each with a number that no other has.

use crate::batch::{self, Digest, Kind, Sealed, Share};
use crate::flow::Exporter;
use crate::proto::{self, Codec};
use bytes::Bytes;
use prost::Message;
use std::net::IpAddr;

/// The record's number is in octetDeltaCount.
const ELEMENT: u32 = 1;
const KEY: &str = "\"octetDeltaCount\":";

/// Names a batch and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

/// A batch of one record. `poison`: no collector can read it. `filler` bytes come on top.
pub fn sealed(id: Id, poison: bool, filler: usize) -> Sealed {
    let payload = payload(id, poison, filler);
    let plain_size = payload.len() as u32;
    let exporter = Exporter { address: IpAddr::from([192, 0, 2, (id.0 % 3) as u8]), port: 2055 };
    Sealed {
        kind: Kind::Records,
        records: 1,
        codec: Codec::Plain,
        plain_size,
        digest: digest(&payload),
        payload,
        received: 1_795_442_400_000,
        shares: vec![Share { exporter, records: 1, domain: 1, sequence: id.0 as u32, last_records: 1 }],
    }
}

fn digest(payload: &Bytes) -> Digest {
    batch::digest(Codec::Plain, payload.len() as u32, payload)
}

fn payload(id: Id, poison: bool, filler: usize) -> Bytes {
    if poison {
        return Bytes::from([&[0xff; 8], id.0.to_be_bytes().as_slice()].concat());
    }
    let constant = |element: u32, width: u32, base: &[u8]| proto::Column {
        element,
        width,
        base: Bytes::copy_from_slice(base),
        ..Default::default()
    };
    let number = id.0.to_be_bytes();
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let group = proto::Group {
        records: 1,
        columns: vec![constant(ELEMENT, 8, &number[zeros..])],
        runs: 1,
        run_columns: vec![
            constant(proto::RunField::Records as u32, 4, &[1]),
            constant(proto::RunField::Protocol as u32, 1, &[9]),
        ],
        ..Default::default()
    };
    let exporter = proto::Exporter { address: vec![192, 0, 2, 1].into(), port: 9, ..Default::default() };
    // Exporters that no record is of: they take room and mean nothing.
    let exporters = std::iter::repeat_n(exporter, 1 + filler / 12).collect();
    let payload = proto::Payload { exporters, groups: vec![group], ..Default::default() };
    payload.encode_to_vec().into()
}

/// The numbers of the records in JSON lines, in order. A last line that is not whole is left out.
pub fn ids_in(text: &[u8]) -> Vec<Id> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = std::str::from_utf8(&text[..whole]).unwrap();
    let id = |line: &str| {
        let (_, rest) = line.split_once(KEY).unwrap_or_else(|| panic!("no number in {line}"));
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Id(rest[..end].parse().unwrap())
    };
    text.lines().map(id).collect()
}

#[test]
fn a_record_comes_out_with_its_number() {
    let batch = sealed(Id(0x0102_0304), false, 100);
    let read = batch::read::open(batch.codec, batch.plain_size, &batch.payload).unwrap();
    let mut text = Vec::new();
    crate::flow::record::write_lines(&mut text, &read);
    assert_eq!(ids_in(&text), [Id(0x0102_0304)]);
    let poison = sealed(Id(1), true, 0);
    assert!(batch::read::open(poison.codec, poison.plain_size, &poison.payload).is_err());
}
