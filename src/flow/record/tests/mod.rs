//! Lines of JSON for batches made by hand: every kind of key, value and derivation.

use super::*;
use crate::batch::read::open;
use crate::proto::{self, BootQuality, Codec, Encoding, RunField};
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};

mod lists;
mod names;
mod packets;
mod quirks;

/// A column with the same value in all records.
fn same(element: u32, value: &[u8]) -> proto::Column {
    proto::Column {
        element,
        width: value.len() as u32,
        encoding: Encoding::Planes as i32,
        base: Bytes::copy_from_slice(value),
        ..Default::default()
    }
}

fn of_enterprise(enterprise: u32, column: proto::Column) -> proto::Column {
    proto::Column { enterprise, ..column }
}

/// Of variable length, in a group of one record: the value goes to the body.
fn variable(element: u32, value: &[u8], body: &mut Vec<u8>) -> proto::Column {
    body.extend_from_slice(value);
    let length = Bytes::copy_from_slice(&(value.len() as u16).to_be_bytes());
    let encoding = Encoding::Variable as i32;
    proto::Column { element, width: 65_535, encoding, base: length, ..Default::default() }
}

fn run(field: RunField, value: u64) -> proto::Column {
    same(field as u32, &value.to_be_bytes())
}

const EXPORT: u64 = 1_790_000_000_000;

/// One record of NetFlow v9 with these columns.
fn group(columns: Vec<proto::Column>) -> proto::Group {
    proto::Group {
        records: 1,
        columns,
        runs: 1,
        run_columns: vec![
            run(RunField::Records, 1),
            run(RunField::Domain, 7),
            run(RunField::Template, 260),
            run(RunField::Protocol, 9),
            run(RunField::Sequence, 4_000_000_000),
            run(RunField::ExportTime, EXPORT),
            run(RunField::ReceiveTime, EXPORT + 1_234),
        ],
        ..Default::default()
    }
}

fn payload(groups: Vec<proto::Group>) -> proto::Payload {
    let exporter = |last| proto::Exporter {
        address: Bytes::copy_from_slice(&[192, 0, 2, last]),
        port: 9996,
        ..Default::default()
    };
    proto::Payload { exporters: vec![exporter(1), exporter(2)], groups, ..Default::default() }
}

fn text(payload: &proto::Payload) -> String {
    let plain = payload.encode_to_vec();
    let batch = open(Codec::Plain, plain.len() as u32, &plain).expect("keeps the rules");
    let mut out = Vec::new();
    write_lines(&mut out, &batch);
    String::from_utf8(out).unwrap()
}

/// The lines as JSON; a key that is twice in a line is a fault.
fn lines(payload: &proto::Payload) -> Vec<Value> {
    let text = text(payload);
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let colons = ["\":", "\\\":", "\"::"].map(|text| line.matches(text).count());
            assert_eq!(keys(&value), colons[0] - colons[1] - colons[2], "{line}");
            value
        })
        .collect()
}

/// How many keys the objects in a value have.
fn keys(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(keys).sum::<usize>(),
        Value::Array(values) => values.iter().map(keys).sum(),
        _ => 0,
    }
}

fn line(group: proto::Group) -> Value {
    lines(&payload(vec![group])).remove(0)
}

#[test]
fn a_line_in_full() {
    let columns = vec![
        same(8, &[198, 51, 100, 7]),
        same(1, &[1, 0, 0]),
        of_enterprise(29_305, same(1, &[5])),
        same(40_005, &[2, 0xab]),
        of_enterprise(9, same(12_235, &[1, 2, 3])),
    ];
    assert_eq!(
        text(&payload(vec![group(columns)])),
        concat!(
            r#"{"exporter":"192.0.2.1","exporterPort":9996,"protocol":"netflow-v9","kind":"data","#,
            r#""observationDomainId":7,"templateId":260,"receivedAt":"2026-09-21T14:13:21.234Z","#,
            r#""exportedAt":"2026-09-21T14:13:20.000Z","sequence":4000000000,"#,
            r#""sourceIPv4Address":"198.51.100.7","octetDeltaCount":65536,"reverseOctetDeltaCount":5,"#,
            r#""ie40005":"02ab","e9.12235":"010203"}"#,
            "\n"
        )
    );
}

#[test]
fn each_run_has_its_own_head() {
    let mut two = group(vec![same(4, &[6])]);
    two.records = 3;
    two.runs = 2;
    // Two records of the first exporter and one of the second; sequence 100 and 101.
    two.run_columns = vec![
        proto::Column { planes: 1, ..same(RunField::Records as u32, &[0]) },
        proto::Column { planes: 1, ..same(RunField::Exporter as u32, &[0]) },
        proto::Column { planes: 1, ..same(RunField::Sequence as u32, &[100]) },
    ];
    two.body = Bytes::from_static(&[2, 1, 0, 1, 0, 1]);
    let lines = lines(&payload(vec![two]));
    let heads =
        lines.iter().map(|line| (line["exporter"].as_str().unwrap(), line["sequence"].as_u64().unwrap()));
    assert_eq!(heads.collect::<Vec<_>>(), [("192.0.2.1", 100), ("192.0.2.1", 100), ("192.0.2.2", 101)]);
    assert_eq!(lines[0]["protocol"], "unknown");
    assert_eq!(lines[0].get("exportedAt"), None);
    assert_eq!(lines[0]["receivedAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(lines[0]["receivedAtQuality"], "clockNotSet");
}

#[test]
fn how_the_template_was_known() {
    for (source, name) in [(0, None), (1, Some("restored")), (2, Some("provisional")), (77, None)] {
        let mut made = group(vec![]);
        made.run_columns.push(run(RunField::TemplateSource, source));
        assert_eq!(line(made).get("templateSource").and_then(Value::as_str), name);
    }
}

#[test]
fn each_record_has_its_own_values() {
    let mut three = group(vec![proto::Column { planes: 1, ..same(7, &[0, 0]) }]);
    three.records = 3;
    three.run_columns[0] = run(RunField::Records, 3);
    three.body = Bytes::from_static(&[53, 80, 22]);
    let ports = lines(&payload(vec![three])).iter().map(|line| line["sourceTransportPort"].clone()).collect();
    assert_eq!(Value::Array(ports), json!([53, 80, 22]));
}

#[test]
fn every_type_of_element() {
    let mut body = Vec::new();
    let columns = vec![
        same(56, &[0, 1, 2, 3, 4, 0xff]),
        same(27, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        variable(82, b"Gi0/1\0", &mut body),
        same(276, &[2]),
        same(434, &[0xff, 0xff, 0xff, 0xfe]),
        same(320, &1.5_f64.to_be_bytes()),
        same(322, &[0x65, 0x92, 0, 0x80]),
        same(323, &EXPORT.to_be_bytes()),
        same(324, &((3_818_448_000_u64 << 32) | 0x8000_0000).to_be_bytes()),
        same(325, &((3_818_448_000_u64 << 32) | 0x8000_0000).to_be_bytes()),
        variable(291, &[255, 0, 1], &mut body),
        variable(95, &[3, 0, 0, 80], &mut body),
        same(12, &[10, 0, 0]),
    ];
    let line = line(proto::Group { body: body.into(), ..group(columns) });
    let expected = json!({
        "sourceMacAddress": "00:01:02:03:04:ff",
        "sourceIPv6Address": "2001:db8::1",
        "interfaceName": "Gi0/1",
        "dataRecordsReliability": false,
        "mibObjectValueInteger": -2,
        "absoluteError": 1.5,
        "observationTimeSeconds": 0x6592_0080_u64 * 1000,
        "observationTimeMilliseconds": EXPORT,
        "observationTimeMicroseconds": "2021-01-01T00:00:00.500000Z",
        "observationTimeNanoseconds": "2021-01-01T00:00:00.500000000Z",
        "basicList": "ff0001",
        "applicationId": "03000050",
        "destinationIPv4Address": "0a0000",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}");
    }
}

#[test]
fn a_repeated_element_is_an_array() {
    let line = line(group(vec![same(323, &[1]), same(4, &[6]), same(323, &[2]), same(323, &[1])]));
    assert_eq!(line["observationTimeMilliseconds"], json!([1, 2, 1]));
    assert_eq!(line["protocolIdentifier"], 6);
}

#[test]
fn elements_whose_name_is_taken() {
    let line = line(group(vec![same(149, &[0, 0, 0, 9]), same(145, &[1, 5])]));
    assert_eq!((&line["observationDomainId"], &line["ie149"]), (&json!(7), &json!(9)));
    assert_eq!((&line["templateId"], &line["ie145"]), (&json!(260), &json!(261)));
}

#[test]
fn scopes_of_netflow_v9() {
    // The element 2 stands both as a scope and as a field.
    let mut body = Vec::new();
    let mut columns: Vec<_> = (1..6).map(|scope| same(scope, &[0, scope as u8])).collect();
    columns.extend([variable(77, b"\x01\x02", &mut body), same(2, &[9])]);
    let mut scoped = proto::Group { body: body.into(), ..group(columns) };
    scoped.kind = RecordKind::Options as i32;
    scoped.scope_columns = 6;
    scoped.v9_scopes = true;
    let line = line(scoped);
    for (place, key) in V9_SCOPES.iter().enumerate() {
        assert_eq!(line[key], place + 1);
    }
    assert_eq!((&line["scope77"], &line["packetDeltaCount"]), (&json!("0102"), &json!(9)));
    assert_eq!(line["kind"], "options");
}

#[test]
fn kinds_and_protocols() {
    for (kind, name) in
        [(0, "data"), (1, "options"), (2, "flow_sample"), (3, "counter_sample"), (4, "drop_sample")]
    {
        assert_eq!(line(proto::Group { kind, ..group(vec![]) })["kind"], name);
    }
    for (protocol, name) in [
        (1, "netflow-v1"),
        (5, "netflow-v5"),
        (7, "netflow-v7"),
        (10, "ipfix"),
        (105, "sflow-v5"),
        (77, "unknown"),
    ] {
        let mut made = group(vec![]);
        made.run_columns[3] = run(RunField::Protocol, protocol);
        assert_eq!(line(made)["protocol"], name);
    }
}

#[test]
fn names_beside_the_numbers() {
    let mut message =
        payload(vec![group(vec![same(10, &[0, 3]), same(14, &[4])]), group(vec![same(10, &[9])])]);
    let interface = |exporter, index, name: &str| proto::Interface {
        exporter,
        index,
        name: name.into(),
        ..Default::default()
    };
    message.interfaces = vec![interface(0, 3, "et\"h3"), interface(1, 4, "not ours"), interface(0, 9, "")];
    message.exporters[0].name = "edge-1".into();
    message.exporters[0].site = "north".into();
    let lines = lines(&message);
    assert_eq!(lines[0]["ingressInterfaceName"], "et\"h3");
    assert_eq!(lines[0].get("egressInterfaceName"), None);
    assert_eq!((&lines[0]["exporterName"], &lines[0]["site"]), (&json!("edge-1"), &json!("north")));
    assert_eq!(lines[1].get("ingressInterfaceName"), None);
}

/// Start, end and quality of a flow.
fn times(columns: Vec<proto::Column>, run_columns: Vec<proto::Column>) -> [Value; 3] {
    let mut made = group(columns);
    made.run_columns.extend(run_columns);
    let line = line(made);
    ["flowStartMilliseconds", "flowEndMilliseconds", "timeQuality"].map(|key| line[key].clone())
}

fn uptimes(start: u32, end: u32) -> Vec<proto::Column> {
    vec![same(22, &start.to_be_bytes()), same(21, &end.to_be_bytes())]
}

fn boot(boot: u64, quality: BootQuality) -> Vec<proto::Column> {
    vec![run(RunField::BootTime, boot), run(RunField::BootQuality, quality as u64)]
}

#[test]
fn times_from_uptime() {
    let header = || boot(EXPORT - 100_000, BootQuality::Header);
    let got = times(uptimes(90_000, 95_000), header());
    assert_eq!(got, [json!(EXPORT - 10_000), json!(EXPORT - 5_000), json!("header")]);
    // The clock has turned between start and end, and the end is later than the header says.
    let got = times(uptimes(u32::MAX - 999, 200), boot(EXPORT - 100, BootQuality::Header));
    assert_eq!(got, [json!(EXPORT - 1_100), json!(EXPORT + 100), json!("header")]);
    // An exporter that has been up for three turns and says so.
    let old = boot(EXPORT - 3 * (1 << 32) - 60_000, BootQuality::Exporter);
    let got = times(uptimes(50_000, 60_500), old);
    assert_eq!(got, [json!(EXPORT - 10_000), json!(EXPORT + 500), json!("exporter")]);
    // Eight bytes.
    let wide = vec![same(22, &90_000_u64.to_be_bytes())];
    assert_eq!(times(wide, header())[0], EXPORT - 10_000);
    // The record's own boot time is right before the run's.
    let own = [uptimes(1_000, 2_000), vec![same(160, &(EXPORT - 5_000).to_be_bytes())]].concat();
    assert_eq!(times(own, header()), [json!(EXPORT - 4_000), json!(EXPORT - 3_000), json!("exporter")]);
}

#[test]
fn times_without_a_boot_time_end_at_the_export() {
    let got = times(uptimes(90_000, 95_000), vec![]);
    assert_eq!(got, [json!(EXPORT - 5_000), json!(EXPORT), json!("export")]);
    assert_eq!(times(vec![same(22, &[1, 0, 0, 0])], vec![]), [Value::Null, Value::Null, Value::Null]);
}

#[test]
fn times_from_absolute_ones() {
    let seconds = (EXPORT / 1000) as u32;
    let got = times(vec![same(150, &(seconds - 9).to_be_bytes()), same(151, &seconds.to_be_bytes())], vec![]);
    assert_eq!(got, [json!(EXPORT - 9_000), json!(EXPORT), Value::Null]);
    let half = ((u64::from(seconds) + 2_208_988_800) << 32) | 0x8000_0000;
    for (start, end) in [(154, 155), (156, 157)] {
        let got = times(vec![same(start, &half.to_be_bytes()), same(end, &half.to_be_bytes())], vec![]);
        assert_eq!(got, [json!(EXPORT + 500), json!(EXPORT + 500), Value::Null]);
    }
    let got =
        times(vec![same(158, &2_000_001_u32.to_be_bytes()), same(159, &1_000_u32.to_be_bytes())], vec![]);
    assert_eq!(got, [json!(EXPORT - 2_001), json!(EXPORT - 1), Value::Null]);
    // The finest one that says something.
    let both = vec![same(150, &seconds.to_be_bytes()), same(154, &half.to_be_bytes()), same(156, &[0; 8])];
    assert_eq!(times(both, vec![])[0], EXPORT + 500);
    let unknown = vec![same(150, &seconds.to_be_bytes()), same(154, &[0; 8])];
    assert_eq!(times(unknown, vec![])[0], EXPORT);
}

#[test]
fn the_records_own_times_stay() {
    let own = vec![same(152, &[1]), same(153, &[2]), same(150, &[9]), same(22, &[9])];
    assert_eq!(times(own, vec![]), [json!(1), json!(2), Value::Null]);
    let repeated = vec![same(152, &[1]), same(152, &[3])];
    assert_eq!(times(repeated, vec![])[0], json!([1, 3]));
    let reverse = vec![of_enterprise(29_305, same(150, &[9]))];
    assert_eq!(times(reverse, vec![])[0], Value::Null);
}

/// Rate and source of a record.
fn sampling(columns: Vec<proto::Column>, kind: RecordKind) -> [Value; 2] {
    let mut made = proto::Group { kind: kind as i32, ..group(columns) };
    made.run_columns.extend([run(RunField::SamplingRate, 512), run(RunField::SamplingSource, 3)]);
    let line = line(made);
    ["samplingRate", "samplingSource"].map(|key| line[key].clone())
}

#[test]
fn sampling_rates() {
    let data = |columns| sampling(columns, RecordKind::Data);
    assert_eq!(data(vec![]), [json!(512), json!("header")]);
    assert_eq!(data(vec![same(34, &[100])]), [json!(100), json!("record")]);
    assert_eq!(data(vec![same(305, &[1]), same(306, &[99])]), [json!(100), json!("record")]);
    assert_eq!(data(vec![same(309, &[2]), same(310, &[200])]), [json!(100), json!("record")]);
    assert_eq!(data(vec![same(309, &[2]), same(310, &[5])]), [json!(2.5), json!("record")]);
    // Nothing that says nothing.
    let zeros = vec![same(34, &[0]), same(305, &[0]), same(306, &[9]), same(309, &[0]), same(310, &[9])];
    assert_eq!(data(zeros), [json!(512), json!("header")]);
    assert_eq!(sampling(vec![], RecordKind::Options), [Value::Null, Value::Null]);
    assert_eq!(line(group(vec![])).get("samplingRate"), None);
}

#[test]
fn the_same_batch_gives_the_same_bytes() {
    let mut message = payload(vec![group(vec![same(10, &[3]), same(22, &[3])]); 3]);
    let interface = |index| proto::Interface { index, name: format!("eth{index}"), ..Default::default() };
    message.interfaces = (0..50).map(interface).collect();
    let first = text(&message);
    for _ in 0..10 {
        assert_eq!(text(&message), first);
    }
}

#[test]
fn a_raw_batch_has_no_lines() {
    let datagram = proto::Datagram::default();
    assert_eq!(text(&proto::Payload { datagrams: vec![datagram], ..payload(vec![]) }), "");
}

/// The registry in one record, in both directions: every key once.
#[test]
fn all_elements_at_once() {
    let forward = (0..700).map(|element| same(element, &[1, 2]));
    let reverse = (0..700).map(|element| of_enterprise(29_305, same(element, &[1, 2])));
    let line = line(group(forward.chain(reverse).collect()));
    assert!(line.as_object().unwrap().len() > 1400);
}
