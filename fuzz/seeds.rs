//! Good inputs of each entry: where fuzzing and mutations begin.

use flowproxy::batch::{Builder, Effort, Packer};
use flowproxy::flow::{Exporter, Field, Run};
use flowproxy::generator::encoder::{
    Datagram, Packer as Encoder, Settings, Template, Value, Version, element,
};
use flowproxy::proto::Codec;
use flowproxy::wire::{self, Arrival, Decoder, Fault, Output, Place};
use std::net::IpAddr;
use std::time::Duration;

/// Good inputs for the entry of this name.
pub fn of(entry: &str) -> Vec<Vec<u8>> {
    match entry {
        "v5" => vec![v5(1), v5(3)],
        "v9" => [exported(Version::NetflowV9), quirks(9)].concat(),
        "ipfix" => [exported(Version::Ipfix), quirks(10)].concat(),
        "stateful" => stateful(),
        "saved" => saved(),
        "batch" => batches(),
        "capture" => captures(),
        _ => panic!("no entry {entry}"),
    }
}

/// All datagrams of all protocols.
pub fn datagrams() -> Vec<Vec<u8>> {
    ["v5", "v9", "ipfix"].into_iter().flat_map(of).collect()
}

/// Hex with comments after `#`.
fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: Vec<char> = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

fn v5(count: u8) -> Vec<u8> {
    let head =
        [0, 5, 0, count, 0, 0, 0x0b, 0xb8, 0x65, 0x53, 0x55, 0x80, 0, 0, 0, 0, 0, 0, 0, 42, 1, 2, 0x40, 100];
    let record = hex("0a000001 0a000002 0a0000fe 0003 0004   # addresses, next hop, interfaces
         00000005 000002f2 00000064 000003e8    # 5 packets, 754 bytes, first 100 ms, last 1 s
         c000 01bb 00 1b 06 00                  # ports, pad, flags, protocol, tos
         fde8 0f0f 18 10 0000                   # AS numbers, masks, pad");
    [&head[..], &record.repeat(usize::from(count))].concat()
}

/// Datagrams of our own encoder: flows and options; for IPFIX also enterprise fields and variable length.
fn exported(version: Version) -> Vec<Vec<u8>> {
    let settings = Settings {
        version,
        domain: 7,
        booted: 1_699_999_000_000,
        max_bytes: 400,
        max_delay: Duration::from_secs(1),
        template_interval: Duration::from_secs(60),
        template_datagrams: 2,
    };
    let (name, enterprise) = match version {
        Version::NetflowV9 => (16, 0),
        Version::Ipfix => (Field::VARIABLE, 29_305),
    };
    let templates = vec![
        Template::new(256)
            .field(element::IPV4_SRC_ADDR, 4)
            .field(element::IPV4_DST_ADDR, 4)
            .field(element::IN_BYTES, 3)
            .field_of(Field { enterprise, element: element::IN_PKTS, width: 4 })
            .field(element::L4_SRC_PORT, 2),
        Template::new(257).field(element::IPV6_SRC_ADDR, 16).field(element::IF_NAME, name),
        Template::new(258).scope(2, 4).field(element::IF_NAME, name),
    ];
    let mut encoder = Encoder::new(settings, templates).expect("templates");
    encoder.announce(258, &[Value::Unsigned(3), Value::Text("eth3")]).expect("options");
    let mut out = Vec::new();
    let mut keep = |datagram: Datagram<'_>| out.push(datagram.bytes.to_vec());
    for n in 0..24u64 {
        let address = |last: u8| Value::Address(IpAddr::from([10, 0, n as u8, last]));
        let now = 1_700_000_000_000 + n;
        let count = Value::Unsigned(n * 700);
        let values = [address(1), address(2), count, Value::Unsigned(n), Value::Unsigned(443)];
        encoder.record(256, &values, now, &mut keep).expect("a record");
        let host = Value::Address(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16]));
        encoder
            .record(257, &[host, Value::Text(&"wan".repeat(n as usize % 4))], now, &mut keep)
            .expect("a record");
    }
    encoder.flush(1_700_000_000_030, &mut keep);
    out
}

/// Sets as odd exporters send them.
fn quirks(version: u16) -> Vec<Vec<u8>> {
    let (template, options) = if version == 9 { ("0000", "0001") } else { ("0002", "0003") };
    let sets = [
        // Data before its template.
        format!("0100 000c 0a000001 00000002  {template} 0010 0100 0002 0008 0004 0001 0004"),
        // The same field twice, one of no bytes, padding of seven.
        format!(
            "{template} 0018 0101 0003 0008 0004 0008 0004 0052 0000 0000 0000  0101 000f 0a000001 0a000002 000000"
        ),
        // One byte a record, eight fields of none.
        format!(
            "{template} 002c 0102 0009 {} 0004 0001 0102 0014 {}",
            "0052 0000 ".repeat(8),
            "06".repeat(16)
        ),
        // Variable length, short, long and empty.
        format!(
            "{template} 0010 0103 0002 0052 ffff 0004 0001  0103 0014 03 657468 06 ff 0004 77616e30 11 00 01 0000"
        ),
        // Templates that cannot be: no fields, an id below 256, more fields than there are.
        format!(
            "{template} 0008 0104 0000  {template} 000c 0064 0001 0008 0004  {template} 000c 0105 0009 0008 0004"
        ),
        // A set longer than the datagram.
        "0100 00ff 00000000".to_owned(),
        // Zeros to the end.
        format!("{template} 000c 0106 0001 0004 0001  0106 0008 06110106  0000 0000 0000 0000"),
        // Options without and with scope.
        if version == 9 {
            format!("{options} 0012 0107 0004 0004 0002 0004 0052 0004  0107 000c 00000003 65746830")
        } else {
            format!("{options} 0012 0107 0002 0001 0095 0004 0052 0004  0107 000c 00000003 65746830")
        },
        // Lists: a subTemplateList of 264, a basicList of ports.
        format!(
            "{template} 000c 0108 0001 0004 0001  {template} 0010 0109 0002 0124 ffff 0123 ffff
             0109 0013 05 03 0108 06 11 09 03 0007 0002 0050 01bb"
        ),
    ];
    let datagram = |sets: &String| {
        let sets = hex(sets);
        let mut bytes = hex(if version == 9 { "0009 0001 00000bb8" } else { "000a 0000" });
        bytes.extend(hex("65535580 00000007 00000063"));
        bytes.extend(sets);
        if version == 10 {
            let length = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    };
    sets.iter().map(datagram).collect()
}

/// Courses of events: see [`super::stateful`].
fn stateful() -> Vec<Vec<u8>> {
    let event = |sender: u8, time: u16, bytes: &[u8]| {
        let length = (bytes.len() as u16).to_be_bytes();
        [&[0, sender][..], &time.to_be_bytes(), &length, bytes].concat()
    };
    let tick = |time: u16| [&[10][..], &time.to_be_bytes()].concat();
    let mut courses = Vec::new();
    for version in [9, 10] {
        let quirks = quirks(version);
        let exported = exported(if version == 9 { Version::NetflowV9 } else { Version::Ipfix });
        for flags in 0..4 {
            // Everything by one sender; then all data before all templates, and guesses for another port.
            let mut course = vec![flags];
            course.extend(quirks.iter().flat_map(|bytes| event(1, 5, bytes)));
            courses.push(course);
            let mut course = vec![flags];
            for (n, bytes) in exported.iter().rev().enumerate() {
                course.extend(event(1 + 4 * (n as u8 % 3), 100, bytes));
            }
            course.extend(tick(600));
            course.push(11);
            course.extend(exported.iter().flat_map(|bytes| event(1, 1, bytes)));
            course.push(12);
            course.extend(exported.iter().rev().flat_map(|bytes| event(1, 1, bytes)));
            course.extend(tick(2_500));
            course.extend([13, 14]);
            courses.push(course);
        }
    }
    courses
}

/// Takes nothing down.
struct Silent;

impl Output for Silent {
    fn records(&mut self, _: &Run, _: &wire::Template, _: &[u8], _: &[u32], _: u32) {}
    fn fault(&mut self, _: Fault, _: Place) {}
    fn set(&mut self) {}
}

fn arrival() -> Arrival {
    let exporter = Exporter { address: IpAddr::from([192, 0, 2, 1]), port: 2055 };
    Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 0 }
}

/// What the decoder saves of each domain, without version and checksum.
fn saved() -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(wire::Settings::default());
    for bytes in datagrams() {
        let _ = decoder.datagram(&arrival(), &bytes, &mut Silent);
    }
    let body = |key| decoder.saved(key).map(|saved| saved.bytes[5..].to_vec());
    decoder.domains().keys().filter_map(body).collect()
}

/// Payloads of what the decoder makes of the datagrams, plain and packed.
fn batches() -> Vec<Vec<u8>> {
    #[derive(Default)]
    struct Gather(Builder);
    impl Output for Gather {
        fn records(&mut self, run: &Run, template: &wire::Template, rows: &[u8], ends: &[u32], count: u32) {
            self.0.push(run, template.layout(), template.slot(), rows, ends, count);
        }
        fn fault(&mut self, _: Fault, _: Place) {}
        fn set(&mut self) {}
    }
    let mut gather = Gather::default();
    let mut decoder = Decoder::new(wire::Settings::default());
    let mut batches = Vec::new();
    let groups: Vec<Vec<Vec<u8>>> = vec![of("v5"), of("v9"), of("ipfix"), datagrams()];
    for group in groups {
        for packed in [false, true] {
            for bytes in &group {
                let _ = decoder.datagram(&arrival(), bytes, &mut gather);
            }
            if packed {
                let sealed = gather.0.seal(&mut Packer::new(), Effort::Small).expect("records");
                assert_eq!(sealed.codec, Codec::Zstd);
                batches.push([&[1][..], &sealed.payload].concat());
            } else {
                batches.push([&[0][..], gather.0.lay_out().expect("records").0].concat());
            }
        }
    }
    batches
}

/// The datagrams as packets of a pcap and of a pcapng file, one of them in fragments, and as a file of messages.
fn captures() -> Vec<Vec<u8>> {
    let mut pcap = hex("d4c3b2a1 0200 0400 00000000 00000000 ffff0000 01000000");
    let mut pcapng = hex("0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000
         01000000 14000000 0100 0000 ffff0000 14000000");
    let packets =
        datagrams().into_iter().enumerate().flat_map(|(n, datagram)| packets(&datagram, n % 4 == 3));
    for packet in packets {
        let length = packet.len() as u32;
        pcap.extend([1_700_000_000u32, 0, length, length].iter().flat_map(|field| field.to_le_bytes()));
        pcap.extend(&packet);
        let padded = length.next_multiple_of(4);
        let head = [6, padded + 32, 0, 0x0005_f5e1, 0, length, length];
        pcapng.extend(head.iter().flat_map(|field: &u32| field.to_le_bytes()));
        pcapng.extend(&packet);
        pcapng.resize(pcapng.len() + (padded - length) as usize, 0);
        pcapng.extend((padded + 32).to_le_bytes());
    }
    vec![pcap, pcapng, of("ipfix").concat()]
}

/// A UDP datagram over IPv4 in Ethernet frames.
fn packets(payload: &[u8], in_fragments: bool) -> Vec<Vec<u8>> {
    let udp_length = (8 + payload.len() as u16).to_be_bytes();
    let udp = [&[0x08, 0x07, 0x08, 0x07][..], &udp_length, &[0, 0], payload].concat();
    let parts: Vec<&[u8]> = if in_fragments { udp.chunks(64).collect() } else { vec![&udp] };
    let last = parts.len() - 1;
    let frame = |(n, part): (usize, &&[u8])| {
        let more = if n < last { 0x2000 } else { 0 };
        let fragment = (more | (8 * n as u16)).to_be_bytes();
        let ip_length = (20 + part.len() as u16).to_be_bytes();
        let ip =
            [&[0x45, 0][..], &ip_length, &[0, 9], &fragment, &[64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]];
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip.concat(), part].concat()
    };
    parts.iter().enumerate().map(frame).collect()
}
