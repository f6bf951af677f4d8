//! Batches made by hand, by each rule; every rule broken once; a plain model to compare with.

use super::*;
use crate::flow::Field;
use crate::proto::{BootQuality, Column as Col, Encoding, Protocol, RecordKind, RunField, SamplingSource};
use proptest::prelude::*;

fn column(element: u32, width: u32, encoding: Encoding, planes: u32, base: &[u8], of: u32) -> Col {
    Col {
        element,
        enterprise: 0,
        width,
        encoding: encoding as i32,
        planes,
        base: Bytes::copy_from_slice(base),
        of,
        count: 0,
    }
}

fn dictionary(width: u32, count: u32, planes: u32, base: &[u8]) -> Col {
    Col { count, ..column(0, width, Encoding::Planes, planes, base, 0) }
}

fn run_column(field: RunField, width: u32, base: &[u8]) -> Col {
    column(field as u32, width, Encoding::Planes, 0, base, 0)
}

/// A group of three records in one run, with the columns given.
fn three(dictionaries: Vec<Col>, columns: Vec<Col>, body: &[u8]) -> proto::Group {
    proto::Group {
        records: 3,
        dictionaries,
        columns,
        kind: 0,
        scope_columns: 0,
        v9_scopes: false,
        runs: 1,
        run_columns: vec![run_column(RunField::Records, 1, &[3])],
        body: Bytes::copy_from_slice(body),
    }
}

fn exporter() -> proto::Exporter {
    proto::Exporter {
        address: Bytes::from_static(&[192, 0, 2, 1]),
        port: 2055,
        name: "edge".into(),
        site: "north".into(),
        labels: [("b".to_string(), "2".to_string()), ("a".to_string(), "1".to_string())].into(),
    }
}

fn payload(groups: Vec<proto::Group>) -> proto::Payload {
    proto::Payload { exporters: vec![exporter()], interfaces: vec![], groups, ..Default::default() }
}

fn open_plain(payload: &proto::Payload) -> Result<Batch, Error> {
    let plain = payload.encode_to_vec();
    open(Codec::Plain, plain.len() as u32, &plain)
}

fn group_of(group: proto::Group) -> Result<Group, GroupError> {
    match open_plain(&payload(vec![group])) {
        Ok(mut batch) => Ok(batch.groups.remove(0)),
        Err(Error::Group { group: 0, error }) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// The values of a column of three records.
fn values(group: proto::Group, column: usize) -> Vec<Vec<u8>> {
    let group = group_of(group).expect("keeps the rules");
    (0..3).map(|record| group.value(column, record).to_vec()).collect()
}

#[test]
fn planes_are_added_to_the_base() {
    // Weight 256^0: 1 2 3; weight 256^1: 0 0 1. The base 0x00FF makes the first carry.
    let columns = vec![column(7, 2, Encoding::Planes, 0b11, &[0xff], 0)];
    assert_eq!(values(three(vec![], columns, &[1, 2, 3, 0, 0, 1]), 0), [[1, 0], [1, 1], [2, 2]]);
}

#[test]
fn numbers_wrap_at_the_width() {
    let columns = vec![column(7, 2, Encoding::Planes, 1, &[0xff, 0xff], 0)];
    assert_eq!(values(three(vec![], columns, &[0, 1, 2]), 0), [[255, 255], [0, 0], [0, 1]]);
    // A plane beyond the width weighs nothing; its bytes are there all the same.
    let columns = vec![column(4, 1, Encoding::Planes, 0b1000_0000_0000_0001, &[1, 6], 0)];
    assert_eq!(values(three(vec![], columns, &[0, 1, 2, 9, 9, 9]), 0), [[6], [7], [8]]);
}

#[test]
fn a_constant_column_has_no_body() {
    let columns =
        vec![column(4, 1, Encoding::Planes, 0, &[17], 0), column(6, 3, Encoding::Planes, 0, &[], 0)];
    let group = three(vec![], columns, &[]);
    assert_eq!(values(group.clone(), 0), [[17], [17], [17]]);
    assert_eq!(values(group, 1), [[0, 0, 0]; 3]);
}

#[test]
fn wide_columns_of_sixteen_bytes() {
    let mut base = [0; 16];
    base[0] = 0x20;
    let columns = vec![column(27, 16, Encoding::Planes, 1 << 15 | 1, &base, 0)];
    let read = values(three(vec![], columns, &[1, 2, 3, 0, 1, 2]), 0);
    assert_eq!(
        read.iter().map(|value| (value[0], value[15])).collect::<Vec<_>>(),
        [(32, 1), (33, 2), (34, 3)]
    );
}

#[test]
fn a_dictionary_is_shared_and_followed() {
    let dictionaries = vec![dictionary(4, 2, 1, &[10, 0, 0, 0])];
    let columns = vec![
        column(8, 4, Encoding::Dictionary, 1, &[], 0),
        // Follows the column after it.
        column(17, 2, Encoding::Follows, 1, &[], 2),
        column(12, 4, Encoding::Dictionary, 1, &[], 0),
    ];
    // The dictionary's plane, then places, then one AS a value of the dictionary, then places.
    let group = three(dictionaries, columns, &[7, 9, 0, 1, 0, 100, 200, 1, 1, 0]);
    assert_eq!(values(group.clone(), 0), [[10, 0, 0, 7], [10, 0, 0, 9], [10, 0, 0, 7]]);
    assert_eq!(values(group.clone(), 2), [[10, 0, 0, 9], [10, 0, 0, 9], [10, 0, 0, 7]]);
    assert_eq!(values(group, 1), [[0, 200], [0, 200], [0, 100]]);
}

#[test]
fn a_difference_is_added_to_its_column() {
    let columns = vec![
        column(21, 4, Encoding::Difference, 1, &[], 1),
        column(22, 4, Encoding::Planes, 1, &[0xff, 0xff, 0xff, 0], 0),
    ];
    let read = values(three(vec![], columns, &[0, 1, 2, 0xfe, 0xff, 0xff]), 0);
    // The last one wraps.
    assert_eq!(read, [[255, 255, 255, 254], [0, 0, 0, 0], [0, 0, 0, 1]]);
}

#[test]
fn variable_values_have_their_lengths() {
    let columns = vec![column(82, 65_535, Encoding::Variable, 1, &[], 0)];
    let group = three(vec![], columns, &[2, 0, 3, b'a', b'b', b'c', b'd', b'e']);
    assert_eq!(values(group, 0), [b"ab".to_vec(), b"".to_vec(), b"cde".to_vec()]);
    let columns =
        vec![column(315, 17, Encoding::Variable, 0, &[17], 0), column(2, 0, Encoding::Variable, 0, &[], 0)];
    let group = three(vec![], columns, &[5; 51]);
    assert_eq!(values(group.clone(), 0), [[5; 17]; 3]);
    assert_eq!(values(group, 1), [[0; 0]; 3]);
}

#[test]
fn a_value_that_is_not_there_is_empty() {
    let dictionaries = vec![dictionary(4, 1, 0, &[])];
    let columns = vec![
        column(1, 4, Encoding::Planes, 1, &[], 0),
        column(8, 4, Encoding::Dictionary, 0, &[], 0),
        column(82, 65_535, Encoding::Variable, 0, &[], 0),
    ];
    let group = group_of(three(dictionaries, columns, &[1, 2, 3])).unwrap();
    for column in 0..4 {
        for record in [3, usize::MAX] {
            assert_eq!(group.value(column, record), b"");
        }
    }
}

#[test]
fn runs_say_what_belongs_to_a_datagram() {
    let mut group = three(vec![], vec![], &[1, 2, 5, 6]);
    group.runs = 2;
    group.run_columns = vec![
        column(RunField::Records as u32, 4, Encoding::Planes, 1, &[], 0),
        column(RunField::Sequence as u32, 4, Encoding::Planes, 1, &[1, 0], 0),
        run_column(RunField::Domain, 4, &[9]),
        run_column(RunField::Template, 2, &[1, 4]),
        run_column(RunField::Protocol, 1, &[9]),
        run_column(RunField::ExportTime, 8, &[2, 0]),
        run_column(RunField::Uptime, 4, &[3, 0]),
        run_column(RunField::ReceiveTime, 8, &[4, 0]),
        run_column(RunField::BootTime, 8, &[5, 0]),
        run_column(RunField::BootQuality, 1, &[1]),
        run_column(RunField::SamplingRate, 4, &[100]),
        run_column(RunField::SamplingSource, 1, &[3]),
        run_column(RunField::Lists, 4, &[0]),
        // A field of a later version.
        run_column(RunField::Unknown, 1, &[77]),
    ];
    group.run_columns[13].element = 99;
    let group = group_of(group).unwrap();
    let run = Run {
        records: 1,
        exporter: 0,
        domain: 9,
        template: 260,
        protocol: Protocol::NetflowV9,
        sequence: 261,
        export_time: 512,
        uptime: 768,
        receive_time: 1024,
        boot_time: 1280,
        boot_quality: BootQuality::Header,
        sampling_rate: 100,
        sampling_source: SamplingSource::Header,
        template_source: crate::proto::TemplateSource::Heard,
        lists: 0,
    };
    assert_eq!(group.runs(), [run, Run { records: 2, sequence: 262, ..run }]);
}

#[test]
fn tables_and_counts() {
    let mut message = payload(vec![three(vec![], vec![], &[]), three(vec![], vec![], &[])]);
    message.exporters.push(proto::Exporter {
        address: Bytes::copy_from_slice(&std::net::Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().octets()),
        ..Default::default()
    });
    message.groups[1].run_columns.push(run_column(RunField::Exporter, 1, &[1]));
    message.interfaces.push(proto::Interface {
        exporter: 1,
        index: 4,
        name: "eth4".into(),
        source: InterfaceSource::Snmp as i32,
        ..Default::default()
    });
    let batch = open_plain(&message).unwrap();
    assert_eq!((batch.kind(), batch.records()), (Kind::Records, 6));
    assert_eq!(batch.exporters[0].labels.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(batch.exporter(1).address.to_string(), "192.0.2.9");
    assert_eq!(batch.interfaces[0].source, InterfaceSource::Snmp);
    assert_eq!(batch.counts().into_values().collect::<Vec<_>>(), [3, 3]);
}

fn raw() -> proto::Payload {
    let datagram =
        proto::Datagram { exporter: 0, port: 9995, received: 77, bytes: Bytes::from_static(b"\0\x05...") };
    let empty = proto::Datagram { bytes: Bytes::new(), ..datagram.clone() };
    proto::Payload { datagrams: vec![datagram, empty], ..payload(vec![]) }
}

#[test]
fn raw_datagrams_come_in_order() {
    let batch = open_plain(&raw()).unwrap();
    assert_eq!((batch.kind(), batch.records()), (Kind::Raw, 2));
    let read: Vec<_> = batch.datagrams().collect();
    let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 2055 };
    assert_eq!(read[0], Datagram { exporter, port: 9995, received: 77, bytes: b"\0\x05..." });
    assert_eq!(read[1].bytes, b"");
    assert_eq!(batch.counts().into_values().collect::<Vec<_>>(), [2]);
}

/// A good group with every encoding, and the number of its columns.
fn all_encodings() -> proto::Group {
    let columns = vec![
        column(8, 4, Encoding::Dictionary, 1, &[], 0),
        column(16, 2, Encoding::Follows, 1, &[], 0),
        column(22, 4, Encoding::Planes, 3, &[1], 0),
        column(21, 4, Encoding::Difference, 1, &[], 2),
        column(82, 65_535, Encoding::Variable, 1, &[], 0),
    ];
    let body = [1, 2, 0, 1, 1, 8, 9, 1, 2, 3, 4, 5, 6, 0, 1, 2, 1, 1, 1, b'x', b'y', b'z'];
    three(vec![dictionary(4, 2, 1, &[])], columns, &body)
}

type Break = fn(&mut proto::Group);

#[test]
fn every_rule_of_a_group_broken_once() {
    let fault = |change: Break| {
        let mut group = all_encodings();
        change(&mut group);
        group_of(group).expect_err("breaks a rule")
    };
    use GroupError as E;
    assert!(group_of(all_encodings()).is_ok());
    let cases: &[(Break, E)] = &[
        (|g| g.records = u32::MAX, E::Records { records: u32::MAX }),
        (|g| g.dictionaries[0].count = 65_537, E::Dictionary { count: 65_537 }),
        (|g| g.kind = 99, E::Kind { kind: 99 }),
        (|g| g.scope_columns = 6, E::Scope { scope: 6, columns: 5 }),
        (|g| g.body.truncate(21), E::BodyShort { missing: 1 }),
        (|g| g.body = [&g.body[..], &[0]].concat().into(), E::BodyLong { left: 1 }),
        (|g| g.columns[2].base = vec![1; 17].into(), E::Base { length: 17 }),
        (|g| g.columns[2].planes = 1 << 16, E::Planes { planes: 1 << 16 }),
        (|g| g.columns[4].planes = 0b100, E::Planes { planes: 0b100 }),
        (|g| g.columns[2].encoding = 5, E::Encoding { column: 2, encoding: 5 }),
        (|g| g.columns[2].encoding = -1, E::Encoding { column: 2, encoding: -1 }),
        (|g| g.columns[2].element = 65_536, E::Element { column: 2, element: 65_536 }),
        (|g| g.columns[2].width = 17, E::Width { column: 2, width: 17 }),
        (|g| g.columns[4].width = 65_536, E::Width { column: 4, width: 65_536 }),
        (|g| g.columns[4].width = 2, E::Length { column: 4, length: 1 }),
        (|g| g.columns[4].base = vec![1, 0, 0].into(), E::Length { column: 4, length: 65_537 }),
        (|g| g.columns[4].base = vec![1; 16].into(), E::Length { column: 4, length: u64::MAX / 255 + 1 }),
        (|g| g.columns[0].of = 1, E::Of { column: 0, of: 1 }),
        (|g| g.columns[1].of = 2, E::Of { column: 1, of: 2 }),
        (|g| g.columns[1].of = u32::MAX, E::Of { column: 1, of: u32::MAX }),
        (|g| g.columns[3].of = 3, E::Of { column: 3, of: 3 }),
        (|g| g.columns[3].of = 5, E::Of { column: 3, of: 5 }),
        (|g| g.columns[0].base = vec![1].into(), E::Place { column: 0, place: 2, count: 2 }),
        (|g| g.dictionaries[0].width = 17, E::DictionaryColumn),
        (|g| g.dictionaries[0].encoding = 4, E::DictionaryColumn),
        (|g| g.runs = 4, E::Runs { runs: 4, records: 3 }),
        (|g| g.runs = 2, E::RunRecords { records: 3, found: 6 }),
        (|g| g.runs = 0, E::RunRecords { records: 3, found: 0 }),
        (|g| g.run_columns[0].base = vec![].into(), E::RunRecords { records: 3, found: 0 }),
        (|g| g.run_columns[0].width = 17, E::RunColumn { element: 1 }),
        (|g| g.run_columns[0].encoding = 1, E::RunColumn { element: 1 }),
        (|g| g.run_columns.push(g.run_columns[0].clone()), E::RunColumnTwice { element: 1 }),
        (
            |g| g.run_columns.push(run_column(RunField::Template, 4, &[1, 0, 0])),
            E::RunValue { run: 0, element: 4, value: 65_536 },
        ),
        (
            |g| g.run_columns.push(run_column(RunField::Exporter, 1, &[1])),
            E::RunExporter { run: 0, exporter: 1 },
        ),
    ];
    for (change, error) in cases {
        assert_eq!(fault(*change), *error);
    }
}

fn address_set(ipv4: &[u8], ipv6: &[u8], country: &str) -> proto::AddressSet {
    let [ipv4, ipv6] = [ipv4, ipv6].map(Bytes::copy_from_slice);
    proto::AddressSet { as_number: 64_500, country: country.into(), ipv4, ipv6 }
}

#[test]
fn addresses_belong_where_the_first_set_says() {
    let mapped = "::ffff:192.0.2.9".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let six = [[0x20; 16], mapped].concat();
    let mut message = payload(vec![]);
    message.addresses = vec![
        address_set(&[192, 0, 2, 1, 192, 0, 2, 2], &six, "FR"),
        address_set(&[192, 0, 2, 1], &[], ""),
        address_set(&[192, 0, 2, 3], &[], ""),
    ];
    let batch = open_plain(&message).unwrap();
    let of = |address: &str| batch.addresses.get(&address.parse().unwrap()).map(|text| text.country);
    assert_eq!((of("192.0.2.1"), of("192.0.2.3")), (Some(*b"FR"), Some([0; 2])));
    assert_eq!(
        (of("2020:2020:2020:2020:2020:2020:2020:2020"), of("192.0.2.9")),
        (Some(*b"FR"), Some(*b"FR"))
    );
    assert_eq!((of("192.0.2.4"), batch.addresses.len()), (None, 5));
    for (ipv4, ipv6) in [(131_073 * 4, 0), (131_072 * 4, 16)] {
        message.addresses = vec![address_set(&vec![1; ipv4], &vec![1; ipv6], "")];
        let error = open_plain(&message).unwrap_err();
        assert!(matches!(error, Error::Many { part: Part::Addresses, .. }), "{error}");
    }
}

#[test]
fn every_rule_of_a_payload_broken_once() {
    let fault = |mut message: proto::Payload, change: fn(&mut proto::Payload)| {
        change(&mut message);
        open_plain(&message).expect_err("breaks a rule").to_string()
    };
    let records = || payload(vec![all_encodings()]);
    assert_eq!(fault(records(), |p| p.datagrams = raw().datagrams), "both groups and datagrams");
    assert_eq!(
        fault(records(), |p| p.exporters[0].address = vec![1, 2, 3].into()),
        "exporter 0: 3 bytes are no address"
    );
    assert_eq!(
        fault(records(), |p| p.exporters[0].port = 65_536),
        "exporters 0: the port 65536 is over 65535"
    );
    assert_eq!(
        fault(records(), |p| p.interfaces.push(proto::Interface { exporter: 1, ..Default::default() })),
        "interfaces 0: there is no exporter 1"
    );
    for wrong in [address_set(&[1, 2, 3], &[], ""), address_set(&[], &[1; 33], "")] {
        let mut message = records();
        message.addresses = vec![address_set(&[1, 2, 3, 4], &[], "FR"), wrong];
        assert_eq!(open_plain(&message).unwrap_err().to_string(), "address set 1: addresses are cut short");
    }
    for country in ["fr", "F", "FRA", "é", "\0\0"] {
        let mut message = records();
        message.addresses = vec![address_set(&[], &[], country)];
        let text = open_plain(&message).unwrap_err().to_string();
        assert_eq!(text, "address set 0: its country is not two capitals");
    }
    assert_eq!(fault(raw(), |p| p.datagrams[1].exporter = 7), "datagrams 1: there is no exporter 7");
    assert_eq!(fault(raw(), |p| p.datagrams[1].port = 70_000), "datagrams 1: the port 70000 is over 65535");
    assert_eq!(fault(records(), |p| p.groups[0].kind = 6), "group 0: there is no kind 6",);
}

#[test]
fn sizes_and_frames() {
    let plain = payload(vec![all_encodings()]).encode_to_vec();
    let size = plain.len() as u32;
    let frame = zstd::bulk::compress(&plain, 1).unwrap();
    assert_eq!(open(Codec::Zstd, size, &frame).unwrap().records(), 3);
    assert!(matches!(open(Codec::Plain, size + 1, &plain), Err(Error::Size { .. })));
    assert!(matches!(open(Codec::Zstd, size + 1, &frame), Err(Error::Size { .. })));
    assert!(matches!(open(Codec::Zstd, size - 1, &frame), Err(Error::Expand(_))));
    assert!(matches!(open(Codec::Zstd, size, &plain), Err(Error::Frame)));
    let two = [&frame[..], &frame[..]].concat();
    assert!(matches!(open(Codec::Zstd, size * 2, &two), Err(Error::Frame)));
    let left_over = [&frame[..], &[0]].concat();
    assert!(matches!(open(Codec::Zstd, size, &left_over), Err(Error::Frame)));
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
    assert!(matches!(open(Codec::Zstd, 0, &skippable), Err(Error::Frame)));
    let too_large = open(Codec::Zstd, MAX_PLAIN_SIZE + 1, &frame).unwrap_err();
    assert!(matches!(too_large, Error::PlainSize { .. }) && too_large.is_too_large());
    assert_eq!(open(Codec::Plain, 0, &[]).unwrap().records(), 0);
}

#[test]
fn a_frame_that_expands_without_end_is_cut_off() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    assert!(matches!(open(Codec::Zstd, 1000, &bomb), Err(Error::Expand(_))));
    assert!(matches!(open(Codec::Zstd, MAX_PLAIN_SIZE, &bomb), Err(Error::Expand(_))));
}

#[test]
fn many_small_parts_are_refused_before_they_are_made() {
    let many = |tag: u8, count: usize| [tag << 3 | 2, 0].repeat(count);
    for (tag, part) in [
        (1, Part::Exporters),
        (2, Part::Interfaces),
        (3, Part::Groups),
        (4, Part::Datagrams),
        (5, Part::ListTables),
        (6, Part::AddressSets),
    ] {
        let plain = many(tag, part.limit() + 1);
        let error = open(Codec::Plain, plain.len() as u32, &plain).unwrap_err();
        assert!(matches!(error, Error::Many { part: found, .. } if found == part), "{error}");
        assert!(error.is_too_large());
    }
    for (outer, tag, part) in [
        (1, 5, Part::Labels),
        (3, 2, Part::Columns),
        (3, 3, Part::Columns),
        (3, 8, Part::Columns),
        (5, 1, Part::ListTemplates),
    ] {
        let inner = many(tag, part.limit() + 1);
        let mut plain = vec![outer << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut plain);
        plain.extend(inner);
        let error = open(Codec::Plain, plain.len() as u32, &plain).unwrap_err();
        assert!(matches!(error, Error::Many { part: found, .. } if found == part), "{error}");
    }
}

/// The most records that a group may have, at 15 fields of 16 bytes and no body.
fn large() -> proto::Group {
    let mut group = three(vec![], vec![column(27, 16, Encoding::Planes, 0, &[1], 0); 15], &[]);
    group.records = 65_536;
    group.run_columns[0] = run_column(RunField::Records, 4, &[1, 0, 0]);
    group
}

#[test]
fn constants_can_not_claim_more_than_the_budget() {
    assert!(group_of(large()).is_ok());
    assert_eq!(open_plain(&payload(vec![large(); 3])).unwrap().records(), 3 * 65_536);
    let error = open_plain(&payload(vec![large(); 4])).unwrap_err();
    assert!(matches!(error, Error::Group { group: 3, error: GroupError::Expanded }), "{error}");
    assert!(error.is_too_large());
}

#[test]
fn names_count_with_every_record() {
    let is_too_large =
        |message: &proto::Payload| open_plain(message).is_err_and(|error| error.is_too_large());
    let text = |length| "x".repeat(length);
    // Two of the columns have interfaces.
    let mut group = large();
    for (column, element) in group.columns.iter_mut().zip([10, 14, 10]) {
        column.element = element;
    }
    let mut message = payload(vec![group]);
    message.exporters[0] = proto::Exporter { name: text(1_000), ..exporter() };
    assert!(is_too_large(&message));
    message.exporters[0] = proto::Exporter { labels: [(text(500), text(500))].into(), ..exporter() };
    assert!(is_too_large(&message));
    message.exporters[0] = exporter();
    for (length, too_large) in [(250, false), (500, true)] {
        let (name, description) = (text(length / 2), text(length / 2));
        message.interfaces = vec![proto::Interface { name, description, ..Default::default() }];
        assert_eq!(is_too_large(&message), too_large, "{length}");
    }
    // Nobody writes them beside records that name no interface.
    message.groups = vec![large()];
    assert!(!is_too_large(&message));
    // Where addresses belong takes as much as another field.
    message.interfaces.clear();
    message.groups = vec![large(); 3];
    assert!(!is_too_large(&message));
    message.groups[0].columns.extend(vec![column(27, 16, Encoding::Planes, 0, &[1], 0); 4]);
    let addresses = proto::AddressSet { ipv4: vec![192, 0, 2, 1].into(), ..Default::default() };
    assert!(!is_too_large(&message));
    message.addresses.push(addresses);
    assert!(is_too_large(&message));
}

#[test]
fn every_shorter_prefix_is_a_fault_or_a_batch() {
    for message in [payload(vec![all_encodings()]), raw()] {
        let plain = message.encode_to_vec();
        let frame = zstd::bulk::compress(&plain, 1).unwrap();
        for length in 0..plain.len() {
            let _ = open(Codec::Plain, length as u32, &plain[..length]);
            assert!(open(Codec::Plain, plain.len() as u32, &plain[..length]).is_err());
        }
        for length in 0..frame.len() {
            assert!(open(Codec::Zstd, plain.len() as u32, &frame[..length]).is_err());
        }
    }
    let group = all_encodings();
    for length in 0..group.body.len() {
        let short = proto::Group { body: group.body.slice(..length), ..group.clone() };
        let missing = group_of(short);
        assert!(matches!(missing, Err(GroupError::BodyShort { .. })), "{length}: {missing:?}");
    }
}

/// The rules as a reader in few lines would have them: no care for speed or memory.
fn model(group: &proto::Group) -> Option<Vec<Vec<Vec<u8>>>> {
    let mut at = 0;
    let mut take = |n: usize| {
        at += n;
        group.body.get(at - n..at)
    };
    let mut numbers = |column: &Col, n: usize| -> Option<Vec<u128>> {
        let base = column.base.iter().fold(0, |base: u128, byte| base << 8 | u128::from(*byte));
        let mut all = vec![base; n];
        for k in (0..16).filter(|k| column.planes >> k & 1 == 1) {
            let plane = take(n)?;
            all.iter_mut().zip(plane).for_each(|(v, b)| *v = v.wrapping_add(u128::from(*b) << (8 * k)));
        }
        Some(all)
    };
    let top =
        |column: &Col, value: u128| value & 1u128.checked_shl(8 * column.width).unwrap_or(0).wrapping_sub(1);
    let mut table = |d: &Col| Some(numbers(d, d.count as usize)?.into_iter().map(|v| top(d, v)).collect());
    let tables: Vec<Vec<u128>> = group.dictionaries.iter().map(&mut table).collect::<Option<_>>()?;
    let mut raw = Vec::new();
    for column in &group.columns {
        let n = match column.encoding() {
            Encoding::Follows => tables[group.columns[column.of as usize].of as usize].len(),
            _ => group.records as usize,
        };
        raw.push(numbers(column, n)?.into_iter().map(|value| top(column, value)).collect::<Vec<_>>());
    }
    let value = |column: &Col, raws: &[u128], i: usize| -> Option<Vec<u8>> {
        let of = column.of as usize;
        let value = match column.encoding() {
            Encoding::Dictionary => *tables[of].get(raws[i] as usize)?,
            Encoding::Difference => raw[of][i].wrapping_add(raws[i]),
            Encoding::Follows => *raws.get(raw[of][i] as usize)?,
            _ => raws[i],
        };
        Some(top(column, value).to_be_bytes()[16 - column.width as usize..].to_vec())
    };
    let columns = group.columns.iter().zip(&raw);
    columns.map(|(c, raws)| (0..group.records as usize).map(|i| value(c, raws, i)).collect()).collect()
}

prop_compose! {
    /// Groups of fixed widths in which `of` points to where it may: columns 0 and 1 are of encoding PLANES,
    /// 2 and 3 of DICTIONARY, the others as they come.
    fn any_group()(
        records in 1..9u32,
        counts in prop::collection::vec(1..5u32, 2),
        shape in prop::collection::vec((0..17u32, 0..4i32, any::<u16>(), any::<u16>(), 0..2u32), 4..9),
        base in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..17), 11),
        seed in any::<u64>(),
    ) -> proto::Group {
        let mut bases = base.into_iter().map(Bytes::from);
        let mut columns = Vec::new();
        for (place, (width, encoding, some, other, of)) in shape.into_iter().enumerate() {
            let encoding = Encoding::try_from(match place { 0 | 1 => 0, 2 | 3 => 1, _ => encoding }).unwrap();
            let planes = u32::from(some & other);
            let mut made = column(1, width, encoding, planes, &bases.next().unwrap(), of);
            if encoding == Encoding::Follows {
                made.of += 2;
            }
            if encoding == Encoding::Dictionary {
                made.base = Bytes::new();
                made.planes &= 1;
            }
            columns.push(made);
        }
        let dictionaries: Vec<_> =
            counts.iter().map(|&n| dictionary(n * 4 % 17, n, seed as u32 & 0x1f1f, &bases.next().unwrap())).collect();
        let mut group = three(dictionaries, columns, &[]);
        group.records = records;
        group.run_columns[0].base = Bytes::copy_from_slice(&[records as u8]);
        let mut noise = seed;
        let planes = |column: &Col, n: u32| column.planes.count_ones() * n;
        let mut body = Vec::new();
        let mut add = |n: u32, small: bool| for _ in 0..n {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            body.push((noise >> 56) as u8 & if small { 3 } else { 255 });
        };
        group.dictionaries.iter().for_each(|d| add(planes(d, d.count), false));
        for c in &group.columns {
            let follows = c.encoding() == Encoding::Follows;
            let n = if follows { counts[group.columns[c.of as usize].of as usize] } else { records };
            add(planes(c, n), c.encoding() == Encoding::Dictionary);
        }
        group.body = body.into();
        group
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_what_the_model_reads(group in any_group()) {
        let read = group_of(group.clone());
        match model(&group) {
            None => prop_assert!(matches!(read, Err(GroupError::Place { .. })), "{read:?}"),
            Some(columns) => {
                let read = read.unwrap();
                for (place, values) in columns.iter().enumerate() {
                    for (record, value) in values.iter().enumerate() {
                        prop_assert_eq!(read.value(place, record), &value[..], "column {}", place);
                    }
                }
            }
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = open(Codec::Plain, noise.len() as u32, &noise);
        let _ = open(Codec::Zstd, 400, &noise);
    }

    #[test]
    fn a_flipped_byte_never_panics(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut plain = payload(vec![all_encodings(), all_encodings()]).encode_to_vec();
        *place.get_mut(&mut plain) = byte;
        let _ = open(Codec::Plain, plain.len() as u32, &plain);
    }
}

#[test]
fn fields_keep_enterprise_and_width() {
    let mut made = column(5, 3, Encoding::Planes, 0, &[], 0);
    made.enterprise = 29_305;
    let group = group_of(three(vec![], vec![made], &[])).unwrap();
    assert_eq!(group.columns[0].field, Field { enterprise: 29_305, element: 5, width: 3 });
    assert_eq!((group.kind, group.v9_scopes, group.scope_columns), (RecordKind::Data, false, 0));
}

fn list_template(id: u32, fields: &[(u32, u32)]) -> proto::ListTemplate {
    let field = |&(element, width): &(u32, u32)| proto::ListField { element, width, ..Default::default() };
    proto::ListTemplate { id, fields: fields.iter().map(field).collect() }
}

#[test]
fn runs_point_at_the_templates_that_their_lists_name() {
    let mut group = three(vec![], vec![], &[0, 2]);
    group.runs = 2;
    group.run_columns = vec![
        column(RunField::Records as u32, 4, Encoding::Planes, 1, &[1], 0),
        column(RunField::Lists as u32, 4, Encoding::Planes, 0, &[1], 0),
    ];
    group.body = Bytes::from_static(&[0, 1]);
    let mut message = payload(vec![group]);
    let templates = vec![list_template(301, &[(1, 0), (4, 65_535)]), list_template(300, &[(6, 2)])];
    message.list_tables = vec![proto::ListTable { templates }];
    let batch = open_plain(&message).unwrap();
    let table = batch.lists(&batch.groups[0].runs()[0]).unwrap();
    let field = |element, width| Field { enterprise: 0, element, width };
    assert_eq!(table.fields(300), Some([field(6, 2)].as_slice()));
    assert_eq!(table.fields(301), Some([field(1, 0), field(4, Field::VARIABLE)].as_slice()));
    assert_eq!(table.fields(302), None);
    message.list_tables.clear();
    let error = open_plain(&message).unwrap_err();
    assert!(
        matches!(error, Error::Group { error: GroupError::RunLists { run: 0, lists: 1 }, .. }),
        "{error}"
    );
}

#[test]
fn list_templates_that_no_list_can_name_are_refused() {
    for templates in [
        vec![list_template(255, &[(4, 1)])],
        vec![list_template(65_536, &[(4, 1)])],
        vec![list_template(300, &[])],
        vec![list_template(300, &[(4, 0), (5, 0)])],
        vec![list_template(300, &[(65_536, 1)])],
        vec![list_template(300, &[(4, 65_536)])],
        vec![list_template(300, &[(4, 1)]), list_template(301, &[(4, 1)]), list_template(300, &[(4, 1)])],
    ] {
        let mut message = payload(vec![]);
        message.list_tables = vec![proto::ListTable::default(), proto::ListTable { templates }];
        let error = open_plain(&message).unwrap_err();
        assert!(matches!(error, Error::ListTemplate { table: 1, .. }), "{error}");
    }
}
