//! Lists inside fields, and what becomes of those that cannot be read.

use super::*;

fn list_template(id: u32, fields: &[(u32, u32, u32)]) -> proto::ListTemplate {
    let field = |&(enterprise, element, width): &_| proto::ListField { element, enterprise, width };
    proto::ListTemplate { id, fields: fields.iter().map(field).collect() }
}

/// 300: protocol and port, the latter twice; 301: texts; 302: a list of records.
fn table() -> proto::ListTable {
    proto::ListTable {
        templates: vec![
            list_template(300, &[(0, 4, 1), (0, 7, 2), (0, 7, 2)]),
            list_template(301, &[(0, 82, 65_535), (6_871, 18, 65_535)]),
            list_template(302, &[(0, 292, 65_535)]),
        ],
    }
}

/// The value of a record's only field, of variable length; the run's table is that of `table`.
fn value(element: u32, value: &[u8]) -> Value {
    let mut body = Vec::new();
    let mut made = group(vec![variable(element, value, &mut body)]);
    made.body = body.into();
    made.run_columns.push(run(RunField::Lists, 1));
    let mut message = payload(vec![made]);
    message.list_tables = vec![table()];
    let name = Field { enterprise: 0, element: element as u16, width: 0 }.name();
    lines(&message).remove(0)[name].clone()
}

const BASIC: u32 = 291;
const SUB_TEMPLATE: u32 = 292;
const SUB_TEMPLATE_MULTI: u32 = 293;

#[test]
fn basic_lists() {
    let ports = value(BASIC, &[3, 0, 11, 0, 2, 0, 80, 1, 187]);
    assert_eq!(ports, json!({"semantic": "allOf", "field": "destinationTransportPort", "values": [80, 443]}));
    let texts = value(BASIC, &[255, 0, 82, 255, 255, 1, b'a', 0, 2, b'b', b'c']);
    assert_eq!(texts, json!({"semantic": "undefined", "field": "interfaceName", "values": ["a", "", "bc"]}));
    let vendors = value(BASIC, &[9, 0x80, 1, 0, 1, 0, 0, 0, 9, 7]);
    assert_eq!(vendors, json!({"semantic": 9, "field": "e9.1", "values": ["07"]}));
    let none = value(BASIC, &[0, 0, 11, 0, 2]);
    assert_eq!(none, json!({"semantic": "noneOf", "field": "destinationTransportPort", "values": []}));
    // Two values and a half; values of no bytes.
    assert_eq!(value(BASIC, &[3, 0, 11, 0, 2, 0, 80, 1]), "03000b0002005001");
    assert_eq!(value(BASIC, &[3, 0, 11, 0, 0, 1]), "03000b000001");
    assert_eq!(value(BASIC, &[]), "");
}

#[test]
fn lists_of_records() {
    let list = value(SUB_TEMPLATE, &[1, 1, 44, 6, 0, 80, 0, 81, 17, 0, 53, 0, 54]);
    let records = json!([
        {"protocolIdentifier": 6, "sourceTransportPort": [80, 81]},
        {"protocolIdentifier": 17, "sourceTransportPort": [53, 54]},
    ]);
    assert_eq!(list, json!({"semantic": "exactlyOneOf", "template": 300, "records": records}));
    let list = value(SUB_TEMPLATE_MULTI, &[4, 1, 45, 0, 8, 1, b'a', 1, 9, 1, 44, 0, 9, 6, 0, 80, 0, 81]);
    let expected = json!({"semantic": "ordered", "lists": [
        {"template": 301, "records": [{"interfaceName": "a", "e6871.18": "09"}]},
        {"template": 300, "records": [{"protocolIdentifier": 6, "sourceTransportPort": [80, 81]}]},
    ]});
    assert_eq!(list, expected);
    assert_eq!(
        value(SUB_TEMPLATE, &[3, 1, 44]),
        json!({"semantic": "allOf", "template": 300, "records": []})
    );
    assert_eq!(value(SUB_TEMPLATE_MULTI, &[3]), json!({"semantic": "allOf", "lists": []}));
}

#[test]
fn records_that_can_not_be_read_are_digits() {
    let unknown = value(SUB_TEMPLATE, &[3, 2, 0, 1, 2]);
    assert_eq!(unknown, json!({"semantic": "allOf", "template": 512, "octets": "0102"}));
    let uneven = value(SUB_TEMPLATE, &[3, 1, 44, 6, 0, 80, 0, 81, 17]);
    assert_eq!(uneven, json!({"semantic": "allOf", "template": 300, "octets": "060050005111"}));
    // One part of three is known.
    let list = value(SUB_TEMPLATE_MULTI, &[3, 2, 0, 0, 5, 7, 1, 44, 0, 9, 6, 0, 80, 0, 81, 2, 0, 0, 4]);
    let parts = json!([
        {"template": 512, "octets": "07"},
        {"template": 300, "records": [{"protocolIdentifier": 6, "sourceTransportPort": [80, 81]}]},
        {"template": 512, "octets": ""},
    ]);
    assert_eq!(list["lists"], parts);
    // A part that is longer than the list.
    assert_eq!(value(SUB_TEMPLATE_MULTI, &[3, 1, 44, 0, 9, 6]), "03012c000906");
}

#[test]
fn lists_in_lists_to_a_depth() {
    let inner = [3, 1, 44, 6, 0, 80, 0, 81];
    let outer = [&[3, 1, 46, inner.len() as u8][..], &inner].concat();
    let list = value(SUB_TEMPLATE, &outer);
    assert_eq!(list["records"][0]["subTemplateList"]["records"][0]["protocolIdentifier"], 6);
    let mut deep = vec![3, 1, 46];
    for _ in 0..12 {
        deep = [&[3, 1, 46, deep.len() as u8][..], &deep].concat();
    }
    let mut list = value(SUB_TEMPLATE, &deep);
    for _ in 0..crate::flow::list::MAX_DEPTH {
        list = list["records"][0]["subTemplateList"].clone();
    }
    assert!(list.is_string(), "{list}");
}

#[test]
fn an_element_of_an_enterprise_may_be_a_list() {
    let mut body = Vec::new();
    let column = of_enterprise(6_871, variable(554, &[0, 1, 44, 6, 0, 80, 0, 81], &mut body));
    let mut made = group(vec![column]);
    made.body = body.into();
    made.run_columns.push(run(RunField::Lists, 1));
    let mut message = payload(vec![made]);
    message.list_tables = vec![table()];
    assert_eq!(lines(&message)[0]["e6871.554"]["records"][0]["protocolIdentifier"], 6);
}

#[test]
fn no_batch_of_lists_is_written_without_end() {
    // Each byte is a value of a template that has eight more, without bytes.
    let mut fields = vec![(0, 415, 0); 8];
    fields.push((0, 4, 1));
    let list = [&[3, 1, 47][..], &[6; 60_000]].concat();
    let mut body = Vec::new();
    let column = variable(SUB_TEMPLATE, &list, &mut body);
    let mut made = group(vec![column]);
    made.body = body.repeat(8).into();
    made.records = 8;
    made.run_columns[0] = run(RunField::Records, 8);
    made.run_columns.push(run(RunField::Lists, 1));
    let mut message = payload(vec![made]);
    message.list_tables = vec![proto::ListTable { templates: vec![list_template(303, &fields)] }];
    let lines = lines(&message);
    let (read, digits): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["subTemplateList"]["records"].is_array());
    assert!(!read.is_empty() && !digits.is_empty());
    assert!(
        digits
            .iter()
            .all(|line| line["subTemplateList"]["octets"].is_string() || line["subTemplateList"].is_string())
    );
}

#[test]
fn every_shorter_list_is_json() {
    let list = [3, 1, 45, 0, 8, 1, b'a', 1, 9, 1, 44, 0, 9, 6, 0, 80, 0, 81];
    for length in 0..list.len() {
        for element in [BASIC, SUB_TEMPLATE, SUB_TEMPLATE_MULTI] {
            value(element, &list[..length]);
        }
    }
}

#[test]
fn whatever_bytes_a_list_has_its_line_is_json() {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(6_313);
    let good = [3, 1, 45, 0, 8, 1, b'a', 1, 9, 1, 46, 0, 13, 8, 3, 1, 44, 6, 0, 80, 0, 81];
    for _ in 0..3_000 {
        let mut list = good.to_vec();
        for _ in 0..rng.random_range(1..6) {
            let place = rng.random_range(0..list.len());
            match rng.random_range(0..3) {
                0 => list[place] = rng.random(),
                1 => list.insert(place, rng.random_range(0..4)),
                _ => drop(list.remove(place)),
            }
        }
        for element in [BASIC, SUB_TEMPLATE, SUB_TEMPLATE_MULTI] {
            value(element, &list);
        }
    }
}
