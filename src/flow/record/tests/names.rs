//! What batches say beside the numbers of records, and what records say themselves.

use super::*;
use crate::flow::SFLOW;

/// Interface 3, and three addresses of AS 64500, in France.
fn known(groups: Vec<proto::Group>) -> proto::Payload {
    let mut message = payload(groups);
    message.interfaces = vec![proto::Interface {
        index: 3,
        name: "et\"h3".into(),
        description: "to Paris".into(),
        speed: 1_000,
        ..Default::default()
    }];
    message.addresses = vec![proto::AddressSet {
        as_number: 64_500,
        country: "FR".into(),
        ipv4: Bytes::from_static(&[192, 0, 2, 1, 192, 0, 2, 2]),
        ipv6: Bytes::from_static(&[0x20; 16]),
    }];
    message
}

fn beside(kind: RecordKind, columns: Vec<proto::Column>) -> Value {
    lines(&known(vec![proto::Group { kind: kind as i32, ..group(columns) }])).remove(0)
}

fn of<const N: usize>(line: &Value, keys: [&str; N]) -> [Value; N] {
    keys.map(|key| line[key].clone())
}

#[test]
fn labels_are_an_object() {
    let mut message = payload(vec![group(vec![same(10, &[3])])]);
    message.exporters[0].labels = [("b\"".into(), "2".into()), ("a".into(), String::new())].into();
    assert_eq!(lines(&message)[0]["labels"], json!({"a": "", "b\"": "2"}));
    message.exporters[0].labels.clear();
    assert_eq!(lines(&message)[0].get("labels"), None);
}

#[test]
fn what_counters_say_themselves_stays() {
    let index = || of_enterprise(SFLOW, same(101, &[0, 0, 0, 3]));
    let keys = ["interfaceName", "interfaceDescription", "interfaceSpeed"];
    let line = beside(RecordKind::CounterSample, vec![index()]);
    assert_eq!(of(&line, keys), [json!("et\"h3"), json!("to Paris"), Value::Null]);
    let line = beside(RecordKind::CounterSample, vec![index(), same(82, b"own"), same(83, b"its own")]);
    assert_eq!(of(&line, keys), [json!("own"), json!("its own"), Value::Null]);
    // 0x3FFFFFFF is the device itself only in samples.
    let internal = || vec![same(10, &[0x3f, 0xff, 0xff, 0xff])];
    assert_eq!(beside(RecordKind::FlowSample, internal())["ingressInterfaceName"], "internal");
    assert_eq!(beside(RecordKind::Data, internal()).get("ingressInterfaceName"), None);
}

#[test]
fn options_and_repeated_interfaces() {
    let key = "ingressInterfaceName";
    assert_eq!(beside(RecordKind::Options, vec![same(10, &[3])]).get(key), None);
    assert_eq!(beside(RecordKind::Options, vec![same(10, &[0])]).get(key), None);
    // The first is the one that is named.
    assert_eq!(beside(RecordKind::Data, vec![same(10, &[3]), same(10, &[0])])[key], "et\"h3");
    // A scope type of NetFlow v9 is no element.
    let scoped = proto::Group { scope_columns: 1, v9_scopes: true, ..group(vec![same(10, &[3])]) };
    assert_eq!(lines(&known(vec![scoped]))[0].get(key), None);
}

#[test]
fn an_as_number_is_looked_up_where_the_record_has_none() {
    let line = |own: Vec<proto::Column>| {
        let mut columns = vec![same(8, &[192, 0, 2, 1])];
        columns.extend(own);
        let line = beside(RecordKind::Data, columns);
        of(&line, ["bgpSourceAsNumber", "bgpSourceAsNumberSource", "sourceCountry"])
    };
    let looked_up = [json!(64_500), json!("lookup"), json!("FR")];
    assert_eq!(line(vec![]), looked_up);
    assert_eq!(line(vec![same(16, &[0, 0])]), looked_up);
    assert_eq!(line(vec![same(16, &[0, 0, 0, 0])]), looked_up);
    assert_eq!(line(vec![same(16, &[0, 9])]), [json!(9), Value::Null, json!("FR")]);
    assert_eq!(line(vec![same(16, &[0]), same(16, &[9])]), [json!([0, 9]), Value::Null, json!("FR")]);
    // Its own columns in another place, of another enterprise, of an address that is not known.
    let line = beside(RecordKind::Data, vec![same(16, &[0]), same(8, &[192, 0, 2, 9])]);
    assert_eq!(of(&line, ["bgpSourceAsNumber", "bgpSourceAsNumberSource"]), [json!(0), Value::Null]);
    let line = beside(RecordKind::Data, vec![of_enterprise(9, same(8, &[192, 0, 2, 1]))]);
    assert_eq!(line.get("sourceCountry"), None);
    let both = vec![same(12, &[0; 4]), same(28, &[0x20; 16]), same(17, &[0])];
    let line = beside(RecordKind::Data, both);
    assert_eq!(
        of(&line, ["bgpDestinationAsNumber", "bgpDestinationAsNumberSource", "destinationCountry"]),
        [json!(64_500), json!("lookup"), json!("FR")]
    );
}
