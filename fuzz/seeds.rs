//! Good inputs of each entry: where fuzzing and mutations begin.

use flowproxy::batch::{Builder, Effort, NoNames, Packer};
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
        "v1" => vec![fixed(1, 16, 52, 2), fixed(1, 16, 48, 1)],
        "v5" => vec![v5(1), v5(3)],
        "v7" => vec![fixed(7, 24, 52, 2)],
        "sflow" => sflow(),
        "lists" => lists(),
        "packet" => packets_of_samples(),
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
    ["v1", "v5", "v7", "v9", "ipfix", "sflow"].into_iter().flat_map(of).collect()
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

/// A datagram of fixed records: header and records of so many bytes.
fn fixed(version: u8, header_bytes: usize, record_bytes: usize, count: u8) -> Vec<u8> {
    let mut datagram =
        [&[0, version, 0, count, 0, 0, 0x0b, 0xb8, 0x65, 0x53, 0x55, 0x80][..], &[0; 12]].concat();
    datagram.truncate(header_bytes);
    datagram.extend((0..record_bytes * usize::from(count)).map(|at| (at * 7) as u8));
    datagram
}

/// A frame with a tag, IPv4 and TCP.
const FRAME: &str = "020000000001 020000000002 8100 0064 0800
    4500 0034 0001 4000 40 06 0000 0a000001 0a000002
    c000 01bb 00000001 00000002 8018 0200 0000 0000 0101080a0000000000000000";

/// A flow sample with a frame and the switch's tags, counters of an interface, a drop, one of a kind that is not
/// known, and the expanded forms.
fn sflow() -> Vec<Vec<u8>> {
    let with_length = |format: u32, body: &[u8]| {
        let mut bytes = body.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        [&format.to_be_bytes()[..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let frame = hex(FRAME);
    let length = frame.len() as u32;
    let records = [
        with_length(1, &[words(&[1, 1_500, 4, length]), frame].concat()),
        with_length(1_001, &words(&[100, 0, 200, 1])),
        with_length(1_002, &words(&[1, 0x0a00_00fe, 24, 16])),
        with_length(
            1_003,
            &words(&[1, 0x0a00_00fe, 65_001, 65_002, 65_003, 1, 2, 2, 65_004, 65_005, 0, 100]),
        ),
        with_length(9 << 12 | 1, &words(&[1, 2, 3])),
    ];
    let ip = [
        with_length(3, &words(&[1_500, 6, 0x0a00_0001, 0x0a00_0002, 443, 50_000, 0x18, 0])),
        with_length(4, &words(&[60, 17, 1, 2, 3, 4, 5, 6, 7, 8, 53, 50_000, 0, 0])),
    ];
    let counters = [with_length(1, &words(&[7; 22])), with_length(2, &words(&[3; 13]))];
    let count = |records: &[Vec<u8>]| records.len() as u32;
    let samples = [
        with_length(1, &[words(&[1, 3, 100, 1_000, 0, 3, 4, count(&records)]), records.concat()].concat()),
        with_length(3, &[words(&[2, 0, 3, 100, 1_100, 0, 0, 3, 0, 0x3fff_ffff, 2]), ip.concat()].concat()),
        with_length(2, &[words(&[1, 3, count(&counters)]), counters.concat()].concat()),
        with_length(4, &[words(&[2, 0, 3, count(&counters)]), counters.concat()].concat()),
        with_length(5, &[words(&[1, 0, 3, 7, 3, 0, 258, 1]), records[0].clone()].concat()),
        with_length(77, &words(&[1, 2, 3])),
    ];
    let datagram = |samples: &[Vec<u8>]| {
        [words(&[5, 1, 0xc000_0201, 0, 9, 100_000, samples.len() as u32]), samples.concat()].concat()
    };
    let mut datagrams: Vec<Vec<u8>> =
        samples.iter().map(|sample| datagram(std::slice::from_ref(sample))).collect();
    datagrams.push(datagram(&samples));
    datagrams
}

/// Values of the records that [`super::lists`] has templates for.
fn lists() -> Vec<Vec<u8>> {
    vec![
        hex("00 09 03 0007 0002 0050 01bb 0000"),       // a basicList of ports
        hex("00 0b ff 8007 0002 00007279 0050 01bb"),   // of an enterprise's element
        hex("01 06 08 04 0103 06 0a000001"),            // a subTemplateList of 259
        hex("01 06 0b 03 0104 07 03 0103 06 0a000001"), // of lists of lists
        hex("02 11 04 0103 0009 06 0a000001 0104 0008 03 03 0103 00"),
        hex("00 0a 03 0123 ffff 04 03 0007 0002"),
    ]
}

/// Link and frame.
fn packets_of_samples() -> Vec<Vec<u8>> {
    let ipv6 = "6000 0000 0020 2b 40 20010db8000000000000000000000001 20010db8000000000000000000000002
        2c 00 000000000000  06 00 0000 00000000  0035 c000 00000000 00000000 5002 0000 0000 0000";
    let mpls = "00064 0 ff 000c8 1 ff 4500 001c 0000 0000 40 11 0000 0a000001 0a000002 0035 c000 0008 0000";
    [
        format!("00 {FRAME}"),
        format!("01 ff03 0021 {}", &FRAME[FRAME.find("4500").expect("IPv4")..]),
        format!("02 {ipv6}"),
        format!("03 {mpls}"),
        "00 020000000001 020000000002 88a8 0064 8100 00c8 8864 1100 0001 0010 0057".to_owned() + ipv6,
        "00 020000000001 020000000002 0040 aaaa03 000000 0800 4500".to_owned(),
    ]
    .map(|text| hex(&text))
    .to_vec()
}

/// Datagrams of our own encoder: flows and options; for IPFIX also enterprise fields and variable length.
pub fn exported(version: Version) -> Vec<Vec<u8>> {
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
                let sealed = gather.0.seal(&mut Packer::new(), Effort::Small, &mut NoNames).expect("records");
                assert_eq!(sealed.codec, Codec::Zstd);
                batches.push([&[1][..], &sealed.payload].concat());
            } else {
                batches.push([&[0][..], gather.0.lay_out(&mut NoNames).expect("records").0].concat());
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
