//! What the packer writes, against commented bytes and a reader of its own that shares no code with it.

use super::*;
use crate::flow::Field;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

/// 2026-11-23T14:00:00.789Z, in milliseconds since 1970.
const NOW: u64 = 1_795_442_400_789;

fn settings() -> Settings {
    Settings {
        version: Version::NetflowV9,
        domain: 7,
        booted: NOW - 789 - 100_000,
        max_bytes: 1_472,
        max_delay: Duration::from_secs(1),
        template_interval: Duration::from_secs(60),
        template_datagrams: 1_000,
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A reader by RFC 3954 that panics on whatever is not as it should be.
#[derive(Debug, Default)]
struct Reader {
    /// Fields as (element, width), scopes first, and how many scopes.
    templates: HashMap<u16, (usize, Vec<(u16, usize)>)>,
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    uptime: u32,
    seconds: u32,
    sequence: u32,
    domain: u32,
    /// In the order of the datagram.
    sets: Vec<u16>,
    templates: usize,
    /// Template and values.
    flows: Vec<(u16, Vec<Vec<u8>>)>,
    options: Vec<(u16, Vec<Vec<u8>>)>,
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(n);
    *bytes = rest;
    head
}

fn u16_of(bytes: &mut &[u8]) -> u16 {
    u16::from_be_bytes(take(bytes, 2).try_into().unwrap())
}

fn u32_of(bytes: &mut &[u8]) -> u32 {
    u32::from_be_bytes(take(bytes, 4).try_into().unwrap())
}

impl Reader {
    fn read(&mut self, mut bytes: &[u8]) -> Read {
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(u16_of(&mut bytes), 9);
        let count = u16_of(&mut bytes);
        let mut read = Read {
            uptime: u32_of(&mut bytes),
            seconds: u32_of(&mut bytes),
            sequence: u32_of(&mut bytes),
            domain: u32_of(&mut bytes),
            ..Read::default()
        };
        while !bytes.is_empty() {
            let (id, length) = (u16_of(&mut bytes), usize::from(u16_of(&mut bytes)));
            assert_eq!(length % 4, 0, "the padding counts");
            let body = take(&mut bytes, length - 4);
            read.sets.push(id);
            match id {
                0 | 1 => read.templates += self.read_templates(body, id == 1),
                _ => self.read_records(id, body, &mut read),
            }
        }
        assert_eq!(usize::from(count), read.templates + read.flows.len() + read.options.len());
        read
    }

    fn read_templates(&mut self, mut body: &[u8], options: bool) -> usize {
        let mut seen = 0;
        while body.len() >= 4 {
            let (id, n) = (u16_of(&mut body), usize::from(u16_of(&mut body)));
            let (scopes, fields) = if options { (n / 4, usize::from(u16_of(&mut body)) / 4) } else { (0, n) };
            let fields =
                (0..scopes + fields).map(|_| (u16_of(&mut body), u16_of(&mut body).into())).collect();
            self.templates.insert(id, (scopes, fields));
            seen += 1;
        }
        assert!(body.iter().all(|byte| *byte == 0));
        assert!(seen > 0);
        seen
    }

    fn read_records(&self, id: u16, mut body: &[u8], read: &mut Read) {
        let (scopes, fields) = self.templates.get(&id).expect("templates come before their records");
        let width: usize = fields.iter().map(|(_, width)| width).sum();
        while body.len() >= width {
            let values = fields.iter().map(|(_, width)| take(&mut body, *width).to_vec()).collect();
            let records = if *scopes > 0 { &mut read.options } else { &mut read.flows };
            records.push((id, values));
        }
        assert!(body.len() < 4 && body.iter().all(|byte| *byte == 0));
    }
}

/// Collects datagrams; checks the count of flow records that comes with each.
fn collect(into: &mut Vec<Vec<u8>>) -> impl FnMut(Datagram<'_>) {
    |datagram| into.push(datagram.bytes.to_vec())
}

#[test]
fn templates_options_and_a_record_byte_for_byte() {
    let flows = Template::new(256)
        .field(element::IN_BYTES, 4)
        .field(element::IN_PKTS, 4)
        .field(element::OUT_BYTES, 4)
        .field(element::OUT_PKTS, 4)
        .field(element::PROTOCOL, 1)
        .field(element::IPV4_SRC_ADDR, 4)
        .field(element::IPV4_DST_ADDR, 4)
        .field(element::INPUT_SNMP, 2)
        .field(element::OUTPUT_SNMP, 2);
    let names = Template::new(257).scope(scope::INTERFACE, 4).field(element::IF_NAME, 6);
    let mut packer = Packer::new(settings(), vec![flows, names]).unwrap();
    packer.announce(257, &[Value::Unsigned(3), Value::Text("eth0")]).unwrap();
    let mut out = Vec::new();
    let address = |text: &str| Value::Address(text.parse().unwrap());
    let values = [
        Value::Unsigned(754),
        Value::Unsigned(5),
        Value::Unsigned(267),
        Value::Unsigned(1),
        Value::Unsigned(4),
        address("192.168.23.37"),
        address("192.168.24.232"),
        Value::Unsigned(3),
        Value::Unsigned(2),
    ];
    packer.record(256, &values, NOW, &mut collect(&mut out)).unwrap();
    packer.flush(NOW, &mut collect(&mut out));
    let expected = hex("
        0009 0004                      # version; two templates, an options record, a flow record
        000186a0 6b0446e0              # uptime 100,000 ms at 14:00:00, the second that unix_secs names
        00000000 00000007              # sequence, domain
        0000 002c                      # templates, 44 bytes
        0100 0009                      #   256 with 9 fields
        0001 0004 0002 0004 0017 0004 0018 0004
        0004 0001 0008 0004 000c 0004 000a 0002 000e 0002
        0001 0014                      # options templates, 20 bytes with the padding
        0101 0004 0004                 #   257: 4 bytes of scopes, 4 bytes of fields
        0002 0004                      #   scope Interface
        0052 0006                      #   IF_NAME
        0000                           #   padding
        0100 0024                      # records of 256, 36 bytes with the padding
        000002f2 00000005 0000010b 00000001 04 c0a81725 c0a818e8 0003 0002
        000000                         #   padding
        0101 0010                      # records of 257
        00000003 65746830 0000         #   3, eth0
        0000                           #   padding
    ");
    assert_eq!(out, [expected]);
    assert_eq!(Reader::default().read(&out[0]).flows.len(), 1);
}

#[test]
fn ipfix_byte_for_byte() {
    let enterprise = |element, width| Field { enterprise: 29_305, element, width };
    let flows = Template::new(256)
        .field(element::IPV4_SRC_ADDR, 4)
        .field_of(enterprise(element::IN_BYTES, 3))
        .field(element::IF_NAME, Field::VARIABLE);
    let names = Template::new(257).scope(element::INPUT_SNMP, 2).field(element::IF_NAME, Field::VARIABLE);
    let ipfix = Settings { version: Version::Ipfix, ..settings() };
    let mut packer = Packer::new(ipfix, vec![flows, names]).unwrap();
    packer.announce(257, &[Value::Unsigned(3), Value::Text("eth0")]).unwrap();
    packer.announce(257, &[Value::Unsigned(4), Value::Text("")]).unwrap();
    let mut out = Vec::new();
    let mut send = |bytes, name: &str| {
        let source = Value::Address("192.168.23.37".parse().unwrap());
        let values = [source, Value::Unsigned(bytes), Value::Text(name)];
        packer.record(256, &values, NOW, &mut collect(&mut out)).unwrap();
        packer.flush(NOW, &mut collect(&mut out));
    };
    send(754, "wan");
    send(0x01_0203, "");
    let expected = hex("
        000a 005a                      # version, length 90
        6b0446e0 00000000 00000007     # export time, sequence, domain
        0002 0018                      # templates
        0100 0003                      #   256 with 3 fields
        0008 0004 8001 0003 00007279 0052 ffff
        0003 0014                      # options templates, 20 bytes with the padding
        0101 0002 0001                 #   257: 2 fields, 1 of them scope
        000a 0002 0052 ffff
        0000                           #   padding
        0100 0010                      # records of 256
        c0a81725 0002f2 03 77616e
        00                             #   padding
        0101 000e                      # records of 257: the shortest has three bytes, so no padding
        0003 04 65746830
        0004 00
    ");
    assert_eq!(out[0], expected);
    let second = hex("
        000a 001c                      # version, length 28
        6b0446e0 00000003 00000007     # sequence: two options records and a flow record went before
        0100 000c                      # records of 256
        c0a81725 010203 00
    ");
    assert_eq!(out[1], second);
}

#[test]
fn values_of_variable_length_have_theirs_before_them() {
    let written = |value: Value<'_>| {
        let template = Template::new(256).field(element::IF_NAME, Field::VARIABLE);
        let mut bytes = vec![0xee];
        template.write_record(&[value], &mut bytes).map(|()| bytes)
    };
    assert_eq!(written(Value::Text("")), Ok(vec![0]));
    assert_eq!(written(Value::Text("Malmö")), Ok(b"\x06Malm\xc3\xb6".to_vec()));
    assert_eq!(written(Value::Unsigned(0)), Ok(vec![1, 0]));
    assert_eq!(written(Value::Unsigned(0x0102)), Ok(vec![2, 1, 2]));
    assert_eq!(written(Value::Bytes(&[7; 254])).unwrap()[..2], [254, 7]);
    assert_eq!(written(Value::Bytes(&[7; 255])).unwrap()[..4], [255, 0, 255, 7]);
    assert_eq!(written(Value::Bytes(&[7; 65_535])).unwrap()[..4], [255, 255, 255, 7]);
    let long = written(Value::Bytes(&[7; 65_536]));
    assert_eq!(long, Err(Fault::ValueWidth { id: 256, element: element::IF_NAME, width: Field::VARIABLE }));
}

#[test]
fn what_a_protocol_has_no_form_for_is_refused() {
    let new = |version, field| {
        let settings = Settings { version, max_bytes: 100, ..settings() };
        Packer::new(settings, vec![Template::new(256).field(element::IN_BYTES, 8).field_of(field)]).err()
    };
    let field = |enterprise, element, width| Field { enterprise, element, width };
    let misfit = |element| Some(Fault::FieldForm { id: 256, element });
    assert_eq!(new(Version::NetflowV9, field(9, 5, 4)), misfit(5));
    assert_eq!(new(Version::NetflowV9, field(0, 82, Field::VARIABLE)), misfit(82));
    assert_eq!(new(Version::NetflowV9, field(0, 40_000, 4)), None);
    assert_eq!(new(Version::Ipfix, field(0, 40_000, 4)), misfit(40_000));
    assert_eq!(new(Version::Ipfix, field(9, 5, Field::VARIABLE)), None);

    let name = Template::new(256).field(element::IF_NAME, Field::VARIABLE);
    let small = Settings { version: Version::Ipfix, max_bytes: 100, ..settings() };
    let mut packer = Packer::new(small, vec![name]).unwrap();
    let mut out = |_: Datagram<'_>| {};
    assert_eq!(packer.record(256, &[Value::Bytes(&[7; 79])], NOW, &mut out), Ok(()));
    let long = packer.record(256, &[Value::Bytes(&[7; 80])], NOW, &mut out);
    assert_eq!(long, Err(Fault::RecordBytes { id: 256, bytes: 81, least: 1, most: 80 }));
}

/// Record `n` of template 256, which has 12 bytes.
fn simple() -> Template {
    Template::new(256).field(element::FLOW_ID, 8).field(element::IN_BYTES, 4)
}

fn send(packer: &mut Packer, n: u64, now: u64, out: &mut Vec<Vec<u8>>) {
    packer.record(256, &[Value::Unsigned(n), Value::Unsigned(1)], now, &mut collect(out)).unwrap();
}

#[test]
fn nothing_is_sent_without_records() {
    let mut packer = Packer::new(settings(), vec![simple()]).unwrap();
    let mut out = Vec::new();
    packer.poll(NOW + 1_000_000, &mut collect(&mut out));
    packer.flush(NOW + 1_000_000, &mut collect(&mut out));
    // A record that could not be written leaves templates behind, which wait for the next.
    let fault = packer.record(256, &[Value::Unsigned(1)], NOW, &mut collect(&mut out)).unwrap_err();
    assert_eq!(fault, Fault::ValueCount { id: 256, fields: 2, values: 1 });
    packer.flush(NOW, &mut collect(&mut out));
    assert!(out.is_empty());
    send(&mut packer, 1, NOW, &mut out);
    packer.flush(NOW, &mut collect(&mut out));
    assert_eq!(Reader::default().read(&out[0]).sets, [0, 256]);
}

#[test]
fn templates_come_at_the_start_on_the_timer_and_after_n_datagrams() {
    let few = Settings { template_datagrams: 3, ..settings() };
    let mut packer = Packer::new(few, vec![simple()]).unwrap();
    let mut out = Vec::new();
    // The timer is due before the sixth, the datagrams before the fourth and ninth.
    for (n, now) in [0, 1, 2, 3, 4, 60_003, 60_004, 60_005, 60_006, 60_007].into_iter().enumerate() {
        send(&mut packer, n as u64, NOW + now, &mut out);
        packer.flush(NOW + now, &mut collect(&mut out));
    }
    let mut reader = Reader::default();
    let read: Vec<Read> = out.iter().map(|bytes| reader.read(bytes)).collect();
    let with_templates: Vec<bool> = read.iter().map(|read| read.templates == 1).collect();
    assert_eq!(with_templates, [true, false, false, true, false, true, false, false, true, false]);
    let sequences: Vec<u32> = read.iter().map(|read| read.sequence).collect();
    assert_eq!(sequences, (0..10).collect::<Vec<u32>>(), "sequence counts datagrams");
}

#[test]
fn a_record_waits_no_longer_than_max_delay() {
    let mut packer = Packer::new(settings(), vec![simple()]).unwrap();
    let mut out = Vec::new();
    send(&mut packer, 1, NOW, &mut out);
    send(&mut packer, 2, NOW + 900, &mut out);
    packer.poll(NOW + 999, &mut collect(&mut out));
    assert!(out.is_empty());
    packer.poll(NOW + 1_000, &mut collect(&mut out));
    assert_eq!(Reader::default().read(&out[0]).flows.len(), 2);
    packer.poll(NOW + 9_000, &mut collect(&mut out));
    assert_eq!(out.len(), 1);
}

#[test]
fn both_clocks_of_the_header_give_the_same_boot_time() {
    let booted = NOW - 12_345_678;
    let mut packer = Packer::new(Settings { booted, ..settings() }, vec![simple()]).unwrap();
    let mut out = Vec::new();
    for n in 0..50 {
        send(&mut packer, n, NOW + n * 137, &mut out);
        packer.flush(NOW + n * 137, &mut collect(&mut out));
    }
    let mut reader = Reader::default();
    for read in out.iter().map(|bytes| reader.read(bytes)) {
        assert_eq!(u64::from(read.seconds) * 1_000 - u64::from(read.uptime), booted);
    }
    assert_eq!(packer.uptime(booted - 1), 0);
    assert_eq!(packer.uptime(booted + (1 << 32) + 5), 5, "wraps after 49.7 days");
}

#[test]
fn announcements_that_fill_several_datagrams_are_followed_by_their_record() {
    let names = Template::new(300).scope(scope::INTERFACE, 4).field(element::IF_NAME, 28);
    for max_bytes in 120..=200 {
        let small = Settings { max_bytes, ..settings() };
        let mut packer = Packer::new(small, vec![names.clone(), simple()]).unwrap();
        for n in 0..10 {
            packer.announce(300, &[Value::Unsigned(n), Value::Text("tunnel")]).unwrap();
        }
        let mut out = Vec::new();
        send(&mut packer, 9, NOW, &mut out);
        packer.flush(NOW, &mut collect(&mut out));
        let mut reader = Reader::default();
        let read: Vec<Read> = out.iter().map(|bytes| reader.read(bytes)).collect();
        assert!(out.iter().all(|bytes| bytes.len() <= usize::from(max_bytes)));
        assert_eq!(read.iter().map(|read| read.options.len()).sum::<usize>(), 10);
        assert_eq!(read.last().unwrap().flows.len(), 1, "the record is in the last");
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let new = |templates| Packer::new(Settings { max_bytes: 100, ..settings() }, templates).unwrap_err();
    let field = |id, width| Template::new(id).field(element::IN_BYTES, width);
    assert_eq!(new(vec![field(255, 4)]), Fault::TemplateId { id: 255 });
    assert_eq!(new(vec![field(256, 4), field(256, 8)]), Fault::TemplateTwice { id: 256 });
    assert_eq!(new(vec![field(256, 3)]), Fault::RecordBytes { id: 256, bytes: 3, least: 4, most: 76 });
    assert_eq!(new(vec![field(256, 77)]), Fault::RecordBytes { id: 256, bytes: 77, least: 4, most: 76 });
    assert_eq!(new(vec![Template::new(256)]), Fault::RecordBytes { id: 256, bytes: 0, least: 4, most: 76 });
    let wide = (0..19).fold(Template::new(256), |template, n| template.field(n, 1));
    assert_eq!(new(vec![wide]), Fault::TemplateBytes { id: 256 });

    let names = Template::new(257).scope(scope::SYSTEM, 4).field(element::IF_NAME, 6);
    let mut packer = Packer::new(settings(), vec![simple(), names]).unwrap();
    let mut out = |_: Datagram<'_>| {};
    assert_eq!(packer.announce(256, &[]), Err(Fault::OtherKind { id: 256 }));
    assert_eq!(packer.record(257, &[], NOW, &mut out), Err(Fault::OtherKind { id: 257 }));
    assert_eq!(packer.record(999, &[], NOW, &mut out), Err(Fault::NoTemplate { id: 999 }));
    let wide = packer.record(256, &[Value::Unsigned(1), Value::Unsigned(1 << 32)], NOW, &mut out);
    assert_eq!(wide, Err(Fault::ValueWidth { id: 256, element: 1, width: 4 }));
    let address = Value::Address("::1".parse().unwrap());
    let family = packer.record(256, &[Value::Unsigned(1), address], NOW, &mut out);
    assert_eq!(family, Err(Fault::ValueWidth { id: 256, element: 1, width: 4 }));
}

#[test]
fn values_fill_their_fields() {
    let written = |value: Value<'_>, width| {
        let mut bytes = vec![0xee];
        let fits = value.write(width, &mut bytes);
        assert_eq!(bytes.len(), if fits { 1 + width } else { 1 });
        fits.then(|| bytes[1..].to_vec())
    };
    assert_eq!(written(Value::Unsigned(0x0102), 2), Some(vec![1, 2]));
    assert_eq!(written(Value::Unsigned(0x0102), 1), None);
    assert_eq!(written(Value::Unsigned(1), 10), Some(vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(written(Value::Unsigned(0), 0), Some(vec![]));
    assert_eq!(written(Value::Text("wan0"), 6), Some(b"wan0\0\0".to_vec()));
    assert_eq!(written(Value::Text("Malmö"), 5), Some(b"Malm\0".to_vec()), "cut before the ö");
    assert_eq!(written(Value::Bytes(&[1, 2]), 2), Some(vec![1, 2]));
    assert_eq!(written(Value::Bytes(&[1, 2]), 3), None);
}

fn templates() -> impl Strategy<Value = Vec<Template>> {
    let fields = proptest::collection::vec((1u16..400, 1u16..20), 4..20);
    proptest::collection::vec(fields, 1..5).prop_map(|templates| {
        let template = |(id, fields): (u16, Vec<(u16, u16)>)| {
            fields
                .into_iter()
                .fold(Template::new(id), |template, (element, width)| template.field(element, width))
        };
        (256..).zip(templates).map(template).collect()
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        templates in templates(),
        max_bytes in 420u16..1_500,
        picks in proptest::collection::vec((0usize..5, any::<u8>(), 0u64..30_000), 0..200),
    ) {
        let mut packer = Packer::new(Settings { max_bytes, ..settings() }, templates.clone()).unwrap();
        let (mut out, mut counted) = (Vec::new(), 0);
        let mut collect = |datagram: Datagram<'_>| {
            counted += datagram.records;
            out.push(datagram.bytes.to_vec());
        };
        let mut sent: HashMap<u16, Vec<Vec<Vec<u8>>>> = HashMap::new();
        let mut now = NOW;
        for (pick, fill, pause) in &picks {
            now += pause;
            let template = &templates[pick % templates.len()];
            let widths = template.fields.iter().map(|field| usize::from(field.width));
            let values: Vec<Vec<u8>> = widths.map(|width| vec![*fill; width]).collect();
            let given: Vec<Value<'_>> = values.iter().map(|value| Value::Bytes(value)).collect();
            packer.record(template.id, &given, now, &mut collect).unwrap();
            packer.poll(now, &mut collect);
            sent.entry(template.id).or_default().push(values);
        }
        packer.flush(now, &mut collect);

        let mut reader = Reader::default();
        let mut came: HashMap<u16, Vec<Vec<Vec<u8>>>> = HashMap::new();
        for (n, bytes) in out.iter().enumerate() {
            prop_assert!(bytes.len() <= usize::from(max_bytes));
            let read = reader.read(bytes);
            prop_assert_eq!(read.sequence as usize, n);
            for (id, values) in read.flows {
                came.entry(id).or_default().push(values);
            }
        }
        prop_assert_eq!(counted as usize, picks.len());
        prop_assert_eq!(came, sent, "each template's records in their order");
    }
}
