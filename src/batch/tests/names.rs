//! Names in batches: which are asked for, that they come back, and that there is an end to them.

use super::super::names::{AddressText, InterfaceText, Names, Sender, SenderText};
use super::*;
use crate::flow::SFLOW;
use crate::flow::record::write_lines;
use crate::proto::InterfaceSource;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Knows every interface, sender and address, and what it was asked.
#[derive(Default)]
struct Told {
    interfaces: Vec<(Sender, u32)>,
    senders: Vec<Sender>,
    addresses: Vec<IpAddr>,
    left_out: usize,
    /// Bytes of each text.
    length: usize,
    labels: usize,
    has_addresses: bool,
}

impl Told {
    fn text(&self, start: String) -> String {
        format!("{start:x<width$}", width = self.length)
    }
}

impl Names for Told {
    fn sender(&mut self, sender: &Sender) -> Option<Arc<SenderText>> {
        self.senders.push(*sender);
        let labels = (0..self.labels).map(|label| (format!("{label:05}"), self.text(String::new())));
        Some(Arc::new(SenderText {
            name: self.text(format!("r{}", sender.domain)),
            site: self.text("paris".into()),
            labels: labels.collect(),
        }))
    }

    fn interface(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText> {
        self.interfaces.push((*sender, index));
        Some(InterfaceText {
            name: self.text(format!("eth{index}")).into(),
            description: self.text("uplink".into()).into(),
            speed: 10_000_000_000,
            source: InterfaceSource::Static,
            age: 7,
        })
    }

    fn has_addresses(&self) -> bool {
        self.has_addresses
    }

    fn address(&mut self, address: IpAddr) -> Option<AddressText> {
        self.addresses.push(address);
        match address {
            IpAddr::V4(v4) => Some(AddressText { as_number: v4.to_bits() >> 24, country: *b"FR" }),
            IpAddr::V6(_) => Some(AddressText { as_number: 0, country: *b"\0\0" }),
        }
    }

    fn left_out(&mut self, answers: usize) {
        self.left_out += answers;
    }
}

fn open(sealed: &super::super::Sealed) -> read::Batch {
    read::open(sealed.codec, sealed.plain_size, &sealed.payload).unwrap()
}

fn seal(builder: &mut Builder, names: &mut Told) -> read::Batch {
    open(&builder.seal(&mut Packer::new(), Effort::Fast, names).unwrap())
}

fn lines(batch: &read::Batch) -> Vec<serde_json::Value> {
    let mut out = Vec::new();
    write_lines(&mut out, batch);
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind(kind: RecordKind, fields: &[(u32, u16, u16)]) -> Arc<Layout> {
    let field = |&(enterprise, element, width): &(u32, u16, u16)| Field { enterprise, element, width };
    let fields: Vec<Field> = fields.iter().map(field).collect();
    Arc::new(Layout::packed(kind, 0, false, &fields))
}

#[test]
fn a_row_for_each_sender_and_a_share_for_each_exporter() {
    let mut builder = Builder::new();
    let layout = layout(&[(10, 2)]);
    let agent = Some(IpAddr::from([198, 51, 100, 1]));
    for (domain, agent, sequence) in [(1, None, 4), (2, None, 5), (2, agent, 6), (1, None, 6)] {
        let run = Run { domain, agent, ..run(7, sequence) };
        builder.push(&run, &layout, &Slot::default(), &[0, 3, 0, 4], &[], 2);
    }
    let mut told = Told { labels: 2, ..Told::default() };
    let sealed = builder.seal(&mut Packer::new(), Effort::Fast, &mut told).unwrap();
    let share = sealed.shares[0];
    assert_eq!((sealed.shares.len(), share.records), (1, 8));
    assert_eq!((share.domain, share.sequence, share.last_records), (1, 6, 2));
    let asked: Vec<_> = told.senders.iter().map(|sender| (sender.domain, sender.agent)).collect();
    assert_eq!(asked, [(1, None), (2, None), (2, agent)]);
    assert_eq!(told.interfaces.len(), 6);
    let batch = open(&sealed);
    let names: Vec<_> = batch.exporters.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["r1", "r2", "r2"]);
    assert_eq!(batch.counts().into_values().collect::<Vec<_>>(), [8]);
    let places: Vec<_> = batch.groups[0].runs().iter().map(|run| run.exporter).collect();
    assert_eq!(places, [0, 1, 2, 0]);
    let lines = lines(&batch);
    assert_eq!((&lines[2]["exporterName"], &lines[2]["site"]), (&"r2".into(), &"paris".into()));
    assert_eq!(lines[2]["labels"], json!({"00000": "", "00001": ""}));
    assert_eq!(lines[2]["ingressInterfaceName"], "eth3");
    assert_eq!(lines[2]["ingressInterfaceDescription"], "uplink");
    assert_eq!(lines[2]["ingressInterfaceSpeed"], 10_000_000_000_u64);
}

#[test]
fn only_what_the_records_use_and_once() {
    let mut builder = Builder::new();
    let fixed = layout(&[(8, 4), (10, 4), (252, 1), (14, 8), (253, 2)]);
    let row = |ingress: u8, egress: u64| {
        [&[192, 0, 2, 1, 0, 0, 0, ingress, 9][..], &egress.to_be_bytes(), &[1, 0]].concat()
    };
    let rows = [row(1, 2), row(2, 1), row(1, 0), row(0, 1 << 40)].concat();
    builder.push(&run(1, 1), &fixed, &Slot::default(), &rows, &[], 4);
    // Before and behind fields of variable length, and of variable length itself.
    let variable = layout(&[(10, 2), (82, 65_535), (4, 1), (5, 1), (14, 2), (253, 65_535)]);
    let rows = [0, 1, 2, b'a', b'b', 6, 0, 0, 77, 1, 78, 0, 79, 0, 6, 0, 0, 2, 4, 0, 0, 0, 80];
    builder.push(&run(1, 1), &variable, &Slot::default(), &rows, &[11, 23], 2);
    // About the exporter, and of someone else's enterprise.
    let options = of_kind(RecordKind::Options, &[(0, 10, 2), (0, 82, 4)]);
    builder.push(&run(1, 1), &options, &Slot::default(), &[0, 55, 1, 1, 1, 1], &[], 1);
    let foreign = of_kind(RecordKind::Data, &[(9, 10, 2)]);
    builder.push(&run(1, 1), &foreign, &Slot::default(), &[0, 56], &[], 1);
    let mut told = Told::default();
    let batch = seal(&mut builder, &mut told);
    let asked: Vec<_> = told.interfaces.iter().map(|(_, index)| *index).collect();
    assert_eq!(asked, [1, 9, 2, 256, 77, 78, 79, 80]);
    assert_eq!(batch.interfaces.len(), 8);
    let lines = lines(&batch);
    assert_eq!(lines[0]["ingressPhysicalInterfaceName"], "eth9");
    assert_eq!(lines[0]["egressPhysicalInterfaceName"], "eth256");
    assert_eq!(
        (&lines[2]["egressInterfaceName"], lines[2].get("egressInterfaceSpeed")),
        (&"unknown".into(), None)
    );
    assert_eq!(
        (lines[3].get("egressInterfaceName"), &lines[3]["ingressInterfaceName"]),
        (None, &"unknown".into())
    );
    assert_eq!(
        (&lines[4]["interfaceName"], &lines[4]["egressInterfaceName"]),
        (&"ab".into(), &"eth77".into())
    );
    assert_eq!(lines[6].get("ingressInterfaceName"), None);
    // The next batch has its own.
    builder.push(&run(1, 1), &fixed, &Slot::default(), &row(1, 2), &[], 1);
    assert_eq!(seal(&mut builder, &mut told).interfaces.len(), 4);
}

#[test]
fn special_numbers_of_samples_are_no_interfaces() {
    let mut builder = Builder::new();
    let plain = of_kind(RecordKind::FlowSample, &[(0, 10, 4), (0, 14, 4)]);
    let row = |input: u32, output: u32| [input.to_be_bytes(), output.to_be_bytes()].concat();
    let rows = [row(0x3fff_ffff, 3), row(0x9600_0063, 0)].concat();
    builder.push(&run(1, 1), &plain, &Slot::default(), &rows, &[], 2);
    let formatted = of_kind(RecordKind::FlowSample, &[(0, 10, 4), (0, 14, 4), (SFLOW, 7, 4), (SFLOW, 8, 4)]);
    let rows = [row(0x4000_0102, 0x8000_0002), row(1, 2)].concat();
    builder.push(&run(1, 1), &formatted, &Slot::default(), &rows, &[], 1);
    let counters = of_kind(RecordKind::CounterSample, &[(SFLOW, 101, 4), (SFLOW, 103, 4)]);
    builder.push(&run(1, 1), &counters, &Slot::default(), &row(12, 1_000), &[], 1);
    // The same numbers of NetFlow are those of large devices.
    builder.push(
        &run(1, 1),
        &layout(&[(10, 4), (14, 4)]),
        &Slot::default(),
        &row(0x3fff_ffff, 0x8000_0002),
        &[],
        1,
    );
    let mut told = Told::default();
    let batch = seal(&mut builder, &mut told);
    let asked: Vec<_> = told.interfaces.iter().map(|(_, index)| *index).collect();
    assert_eq!(asked, [3, 0x9600_0063, 12, 0x3fff_ffff, 0x8000_0002]);
    let names: Vec<_> = lines(&batch)
        .iter()
        .flat_map(|line| {
            ["ingressInterfaceName", "egressInterfaceName", "interfaceName"]
                .map(|key| line[key].as_str().unwrap_or("").to_owned())
        })
        .collect();
    let expected = [
        ["internal", "eth3", ""],
        ["eth2516582499", "unknown", ""],
        ["discarded", "multiple", ""],
        ["", "", "eth12"],
        ["eth1073741823", "eth2147483650", ""],
    ];
    assert_eq!(names, expected.concat());
}

#[test]
fn addresses_are_told_where_somebody_looks_them_up() {
    let mut builder = Builder::new();
    let fields = layout(&[(8, 4), (12, 4), (15, 4), (16, 4), (17, 4)]);
    let row = |source: u8, destination: u8, own: u8| {
        [[source, 0, 0, 1], [destination, 0, 0, 1], [9, 9, 9, 9], [0, 0, 0, own], [0; 4]].concat()
    };
    let rows = [row(1, 2, 77), row(2, 1, 0)].concat();
    builder.push(&run(1, 1), &fields, &Slot::default(), &rows, &[], 2);
    // No number of its own; both families in one template, and one of them zero.
    let both = layout(&[(27, 16), (8, 4), (28, 16)]);
    let rows = [&[0; 16][..], &[3, 0, 0, 1], &[0x20; 16]].concat();
    builder.push(&run(1, 1), &both, &Slot::default(), &rows, &[], 1);
    let mut told = Told::default();
    let none = seal(&mut builder, &mut told);
    assert!(told.addresses.is_empty() && none.addresses.is_empty());
    builder.push(&run(1, 1), &fields, &Slot::default(), &[row(1, 2, 77), row(2, 1, 0)].concat(), &[], 2);
    builder.push(&run(1, 1), &both, &Slot::default(), &rows, &[], 1);
    told.has_addresses = true;
    let batch = seal(&mut builder, &mut told);
    assert_eq!(told.addresses.len(), 5, "{:?}", told.addresses);
    assert_eq!(batch.addresses.len(), 3, "those of which nothing is known are not there");
    let lines = lines(&batch);
    let of = |line: usize, keys: [&str; 3]| keys.map(|key| lines[line][key].clone());
    let source = ["sourceCountry", "bgpSourceAsNumber", "bgpSourceAsNumberSource"];
    let destination = ["destinationCountry", "bgpDestinationAsNumber", "bgpDestinationAsNumberSource"];
    assert_eq!(of(0, source), [json!("FR"), json!(77), json!(null)]);
    assert_eq!(of(0, destination), [json!("FR"), json!(2), json!("lookup")]);
    assert_eq!(of(1, source), [json!("FR"), json!(2), json!("lookup")]);
    assert_eq!(of(2, source), [json!("FR"), json!(3), json!("lookup")]);
    assert_eq!(of(2, destination), [json!(null), json!(null), json!(null)]);
}

/// The largest batches that there are, of as many senders and interfaces as there can be, with the longest texts.
#[test]
fn no_batch_becomes_too_large_by_its_names() {
    const RECORDS: usize = 65_536;
    let fields = layout(&[(10, 4), (14, 4), (252, 4), (253, 4), (8, 4), (27, 16)]);
    let stride = fields.stride().unwrap();
    let mut rng = StdRng::seed_from_u64(12);
    for senders in [1, 64, RECORDS] {
        let mut builder = Builder::new();
        let mut rows = vec![0; RECORDS * stride];
        rng.fill(&mut rows[..]);
        let each = RECORDS / senders;
        for (place, rows) in rows.chunks(each * stride).enumerate() {
            let run = Run { domain: place as u32, ..run(1, 1) };
            builder.push(&run, &fields, &Slot::default(), rows, &[], each as u32);
        }
        let mut told = Told { length: 1_000, labels: 20, has_addresses: true, ..Told::default() };
        let sealed = builder.seal(&mut Packer::new(), Effort::Fast, &mut told).unwrap();
        let most = rows.len() + senders * 128 + (512 << 10) + 8_192;
        assert!((sealed.plain_size as usize) < most, "{} bytes", sealed.plain_size);
        assert_eq!(told.interfaces.len(), 65_536);
        assert!(told.addresses.len() > 131_000, "{} different ones of 131,072", told.addresses.len());
        assert!(told.left_out > 0);
        let batch = open(&sealed);
        assert!(!batch.exporters[0].name.is_empty());
    }
}

/// Texts that fit are whole; longer ones are cut at a character.
#[test]
fn texts_are_cut_to_sane_lengths() {
    struct Long;
    impl Names for Long {
        fn sender(&mut self, _: &Sender) -> Option<Arc<SenderText>> {
            let labels = BTreeMap::from([("k".to_owned(), "v".repeat(9_999)), ("z".into(), "last".into())]);
            Some(Arc::new(SenderText { name: "é".repeat(999), site: "s".repeat(128), labels }))
        }
        fn interface(&mut self, _: &Sender, _: u32) -> Option<InterfaceText> {
            let (name, description) = ("n".repeat(5_000).into(), "日".repeat(999).into());
            Some(InterfaceText { name, description, speed: 1, source: InterfaceSource::Snmp, age: 0 })
        }
    }
    let mut builder = Builder::new();
    builder.push(&run(1, 1), &layout(&[(10, 1)]), &Slot::default(), &[1], &[], 1);
    let batch = open(&builder.seal(&mut Packer::new(), Effort::Small, &mut Long).unwrap());
    let source = &batch.exporters[0];
    assert_eq!((source.name.len(), source.site.len()), (128, 128));
    assert_eq!((source.labels["k"].len(), &*source.labels["z"]), (256, "last"));
    let interface = &batch.interfaces[0];
    assert_eq!((interface.name.len(), interface.description.len()), (128, 255));
}

#[test]
fn unread_datagrams_name_their_exporters() {
    let mut builder = RawBuilder::default();
    let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 9 };
    builder.push(exporter, 9_995, 1, b"datagram");
    let mut told = Told::default();
    let batch = open(&builder.seal(&mut Packer::new(), &mut told).unwrap());
    assert_eq!(told.senders, [Sender { exporter, domain: 0, agent: None }]);
    assert_eq!(batch.exporters[0].name, "r0");
}
