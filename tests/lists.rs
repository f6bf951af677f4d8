//! Lists inside records (RFC 6313), from the datagram to the line that the collector writes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use flowproxy::batch::read::open;
use flowproxy::batch::{Builder, Effort, NoNames, Packer};
use flowproxy::flow::list::Named;
use flowproxy::flow::{Exporter, Run, record};
use flowproxy::wire::{Arrival, Decoder, Fault, Output, Place, Settings, Template};
use serde_json::{Value, json};

/// What the proxy does between its decoder and the spool.
#[derive(Default)]
struct Gather {
    builder: Builder,
    named: Vec<Named>,
    faults: Vec<Fault>,
}

impl Output for Gather {
    fn lists(&mut self, named: &[Named]) {
        self.named = named.to_vec();
    }

    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        let (layout, slot) = (template.layout(), template.slot());
        self.builder.push_with_lists(run, layout, slot, rows, ends, count, &std::mem::take(&mut self.named));
    }

    fn fault(&mut self, fault: Fault, _place: Place) {
        self.faults.push(fault);
    }

    fn set(&mut self) {}
}

/// The lines of one batch that IPFIX messages of these sets make, each message's sets given.
fn lines(messages: &[&[Vec<u8>]]) -> Vec<Value> {
    let mut decoder = Decoder::new(Settings::default());
    let mut gather = Gather::default();
    for (number, sets) in messages.iter().enumerate() {
        let sets = sets.concat();
        let mut message = vec![0, 10];
        message.extend_from_slice(&(16 + sets.len() as u16).to_be_bytes());
        message.extend_from_slice(&[0x68, 0, 0, 0, 0, 0, 0, number as u8, 0, 0, 0, 7]);
        message.extend_from_slice(&sets);
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 4739 };
        let (received, elapsed) = (1_760_000_000_000, number as u64);
        let arrival = Arrival { exporter, received, elapsed, number: number as u64 };
        decoder.datagram(&arrival, &message, &mut gather).unwrap();
    }
    assert_eq!(gather.faults, []);
    let sealed = gather.builder.seal(&mut Packer::new(), Effort::Small, &mut NoNames).unwrap();
    let batch = open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap();
    let mut out = Vec::new();
    record::write_lines(&mut out, &batch);
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn set(id: u16, content: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(4 + content.len() as u16).to_be_bytes(), content].concat()
}

/// A template set of one template of IANA's elements.
fn template(id: u16, fields: &[(u16, u16)]) -> Vec<u8> {
    let head = [id, fields.len() as u16];
    let numbers = head.into_iter().chain(fields.iter().flat_map(|&(element, width)| [element, width]));
    set(2, &numbers.flat_map(u16::to_be_bytes).collect::<Vec<u8>>())
}

/// A data set of one record with a protocol and a list of variable length.
fn data(id: u16, list: &[u8]) -> Vec<u8> {
    set(id, &[&[17, list.len() as u8][..], list].concat())
}

const VARIABLE: u16 = 65_535;

#[test]
fn the_far_end_reads_lists_by_the_templates_that_they_name() {
    let templates = [
        template(400, &[(4, 1), (293, VARIABLE)]),
        template(300, &[(56, 6)]),
        template(301, &[(292, VARIABLE)]),
        template(302, &[(7, 2)]),
    ];
    // A MAC address; a list in which 302 stands.
    let list = [&[3, 1, 44, 0, 10, 0, 1, 2, 3, 4, 5][..], &[1, 45, 0, 10, 5, 3, 1, 46, 0, 53]].concat();
    let lines = lines(&[&templates, &[data(400, &list)]]);
    let expected = json!([
        {"template": 300, "records": [{"sourceMacAddress": "00:01:02:03:04:05"}]},
        {"template": 301, "records": [{"subTemplateList": {
            "semantic": "allOf", "template": 302, "records": [{"sourceTransportPort": 53}],
        }}]},
    ]);
    assert_eq!(lines[0]["subTemplateMultiList"]["lists"], expected);
    assert_eq!(lines[0]["protocolIdentifier"], 17);
}

#[test]
fn a_template_that_changes_within_a_batch_reads_no_list_of_before() {
    let list = [3, 1, 44, 0, 80, 0, 81];
    let lines = lines(&[
        &[template(400, &[(4, 1), (292, VARIABLE)]), template(300, &[(7, 2)])],
        &[data(400, &list)],
        &[template(300, &[(11, 2)])],
        &[data(400, &list)],
        &[template(300, &[(7, 2)]), data(400, &list)],
    ]);
    let ports = |key: &str| json!([{key: 80}, {key: 81}]);
    let records: Vec<&Value> = lines.iter().map(|line| &line["subTemplateList"]["records"]).collect();
    let [source, destination] = ["sourceTransportPort", "destinationTransportPort"].map(ports);
    assert_eq!(records, [&source, &destination, &source]);
}

#[test]
fn a_list_of_a_template_that_nobody_knows_keeps_its_bytes() {
    let lines = lines(&[
        &[template(400, &[(4, 1), (292, VARIABLE)]), data(400, &[3, 1, 44, 0, 80])],
        // Too late for the record before.
        &[template(300, &[(7, 2)]), data(400, &[3, 1, 44, 0, 80])],
    ]);
    let list = |key: &str, value: Value| json!({"semantic": "allOf", "template": 300, key: value});
    assert_eq!(lines[0]["subTemplateList"], list("octets", json!("0050")));
    assert_eq!(lines[1]["subTemplateList"], list("records", json!([{"sourceTransportPort": 80}])));
}

#[test]
fn lists_of_data_that_came_before_its_template() {
    let lines = lines(&[
        &[data(400, &[3, 1, 44, 0, 80])],
        &[template(300, &[(7, 2)]), template(400, &[(4, 1), (292, VARIABLE)])],
    ]);
    assert_eq!(lines[0]["subTemplateList"]["records"], json!([{"sourceTransportPort": 80}]));
}
