//! What is fuzzed: one function each, which takes any bytes and panics when a promise is broken.
//!
//! `fuzz_targets/` gives them to cargo-fuzz; `tests/mutations.rs` gives them mutations of the [`seeds`] inside
//! `cargo test`. What the promises are stands in [`witness`].

pub mod seeds;
pub mod witness;

use flowproxy::batch::read;
use flowproxy::capture::{Capture, Next};
use flowproxy::flow::{Exporter, Field};
use flowproxy::proto::{Codec, Protocol};
use flowproxy::wire::{Arrival, ChangeLimits, Decoder, DomainKey, HoldLimits, Limits, Saved, Settings};
use std::io::Cursor;
use std::net::IpAddr;
use witness::Witness;

/// Takes any bytes.
pub type Entry = fn(&[u8]);

/// Every entry by the name of its target.
pub const ALL: [(&str, Entry); 12] = [
    ("v1", v1),
    ("v5", v5),
    ("v7", v7),
    ("v9", v9),
    ("ipfix", ipfix),
    ("sflow", sflow),
    ("lists", lists),
    ("packet", packet),
    ("stateful", stateful),
    ("saved", saved),
    ("batch", batch),
    ("capture", capture),
];

/// A NetFlow v1 datagram.
pub fn v1(data: &[u8]) {
    of_version(1, data);
}

/// A NetFlow v5 datagram.
pub fn v5(data: &[u8]) {
    of_version(5, data);
}

/// A NetFlow v7 datagram.
pub fn v7(data: &[u8]) {
    of_version(7, data);
}

/// A NetFlow v9 datagram.
pub fn v9(data: &[u8]) {
    of_version(9, data);
}

/// An IPFIX message.
pub fn ipfix(data: &[u8]) {
    of_version(10, data);
}

/// An sFlow v5 datagram.
pub fn sflow(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.iter_mut().zip([0, 0, 0, 5]).for_each(|(to, from)| *to = from);
    read_twice(&bytes);
}

/// Records that may hold lists (RFC 6313), of templates that lists may name: the first byte is the set's id.
pub fn lists(data: &[u8]) {
    const TEMPLATES: [&[u16]; 5] = [
        &[256, 1, 291, 65_535],
        &[257, 2, 4, 1, 292, 65_535],
        &[258, 2, 293, 65_535, 291, 65_535],
        &[259, 2, 4, 1, 8, 4],
        &[260, 1, 292, 65_535],
    ];
    let Some((first, records)) = data.split_first() else { return };
    let sixteens = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let templates = TEMPLATES.concat();
    let records = &records[..records.len().min(60_000)];
    let id = 256 + u16::from(first % 8);
    let mut message = sixteens(&[10, 0, 0, 0, 0, 0, 0, 0, 2, 4 + 2 * templates.len() as u16]);
    message.extend(sixteens(&templates));
    message.extend(sixteens(&[id, 4 + records.len() as u16]));
    message.extend(records);
    let length = message.len() as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    read_twice(&message);
}

/// The first bytes of a sampled packet: what is found lies within them.
pub fn packet(data: &[u8]) {
    use flowproxy::flow::packet::{Link, MAX_LABELS, parse};
    let Some((first, frame)) = data.split_first() else { return };
    let link = [Link::Ethernet, Link::Ppp, Link::Ip, Link::Mpls][usize::from(first % 4)];
    let packet = parse(link, frame);
    assert!(packet.labels.entries().len() <= MAX_LABELS.min(frame.len() / 3));
    assert!(packet.macs.is_none() || frame.len() >= 12);
    assert!(packet.ip.is_some() || (packet.ports.is_none() && packet.icmp.is_none()));
    // A frame that is cut gives no more than the whole one.
    let half = parse(link, &frame[..frame.len() / 2]);
    assert!(half.ports.is_none() || half.ports == packet.ports);
    assert!(half.tcp_flags.is_none() || half.tcp_flags == packet.tcp_flags);
}

/// A datagram of this version, whatever it says.
fn of_version(version: u16, data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.truncate(usize::from(u16::MAX));
    bytes.iter_mut().zip(version.to_be_bytes()).for_each(|(to, from)| *to = from);
    // A message that says to be longer than it is would be refused, and nothing learnt.
    if let ([_, _, high, low, ..], 10) = (&mut bytes[..], version)
        && usize::from(u16::from_be_bytes([*high, *low])) > data.len()
    {
        [*high, *low] = (data.len() as u16).to_be_bytes();
    }
    read_twice(&bytes);
}

/// A datagram read twice: the second time with what the first one told.
fn read_twice(bytes: &[u8]) {
    let mut decoder = Decoder::new(Settings::default());
    let mut witness = Witness::default();
    for number in 0..2 {
        let exporter = Exporter { address: IpAddr::from([192, 0, 2, 1]), port: 2055 };
        let arrival = Arrival { exporter, received: RECEIVED, elapsed: number, number };
        witness.datagram(&mut decoder, &arrival, bytes);
    }
    witness.end(&mut decoder);
    witness.read_back();
}

/// 2023-11-14, in milliseconds since 1970.
const RECEIVED: u64 = 1_700_000_000_000;

/// A course of events at one decoder, as the bytes say:
///
/// ```text
/// settings (bits: 1 withdrawals are obeyed, 2 small limits), then events:
/// 0..=9  sender, time that went by (2, in 10 ms), length (2), datagram
/// 10     time that went by (2, in 10 ms), then a look at what is held
/// 11     the batch is read back
/// 12     a restart: what the decoder has saved is given to the next one
/// 13     changes are taken
/// 14     the decoder is ended
/// sender: 2 bits address, 2 bits port
/// ```
pub fn stateful(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.u8();
    let limits = Limits {
        domains: 4,
        templates_per_domain: 4,
        fields: 200,
        senders: 4,
        hold: HoldLimits { max_bytes: 4_096, max_age: 20_000 },
        changes: ChangeLimits { burst: 16, per_second: 4 },
    };
    let limits = if flags & 2 == 0 { Limits::default() } else { limits };
    let settings = Settings { obey_withdrawals: flags & 1 == 1, limits, ..Settings::default() };
    let mut decoder = Decoder::new(settings.clone());
    decoder.note_changes();
    let mut witness = Witness::default();
    let (mut elapsed, mut number) = (0, 0);
    while !script.0.is_empty() {
        match script.u8() % 15 {
            0..=9 => {
                let exporter = script.exporter();
                elapsed += script.time();
                number += 1;
                let arrival = Arrival { exporter, received: RECEIVED + elapsed, elapsed, number };
                let bytes = script.datagram();
                witness.datagram(&mut decoder, &arrival, bytes);
            }
            10 => {
                elapsed += script.time();
                witness.tick(&mut decoder, elapsed);
            }
            11 => witness.read_back(),
            12 => {
                witness.end(&mut decoder);
                decoder = restarted(&decoder, settings.clone());
            }
            13 => drop(decoder.take_changed()),
            _ => witness.end(&mut decoder),
        }
        assert!(decoder.domains().len() <= limits.domains);
        assert!(decoder.held().1 <= limits.hold.max_bytes);
    }
    witness.end(&mut decoder);
    witness.read_back();
}

/// A new decoder that knows what the other one has saved.
fn restarted(decoder: &Decoder, settings: Settings) -> Decoder {
    let mut next = Decoder::new(settings);
    next.note_changes();
    for key in decoder.domains().keys() {
        let saved = decoder.saved(key).expect("a domain that is known");
        let restored = next.restore(*key, &saved);
        assert_eq!(restored.refused, 0, "what was saved is taken back");
    }
    assert!(next.domains().templates() <= decoder.domains().templates());
    next
}

/// A saved domain that is damaged in a way its checksum does not tell: no panic, and what is taken back is what a
/// network could have told, so that it can be saved again.
pub fn saved(data: &[u8]) {
    const VERSION: u8 = 1;
    let exporter = Exporter { address: IpAddr::from([192, 0, 2, 1]), port: 2055 };
    let key = DomainKey { exporter, protocol: Protocol::Ipfix, domain: 99 };
    let sum = crc32c::crc32c_append(crc32c::crc32c(&key.to_bytes()), data);
    let bytes = [&[VERSION][..], &sum.to_be_bytes(), data].concat();
    let mut decoder = Decoder::new(Settings::default());
    let restored = decoder.restore(key, &Saved { used: 0, bytes });
    assert!(decoder.domains().templates() <= restored.templates && restored.templates <= data.len());
    if let Some(again) = decoder.saved(&key) {
        let next = Decoder::new(Settings::default()).restore(key, &again);
        assert_eq!((next.templates, next.refused), (decoder.domains().templates(), 0));
    }
}

/// A payload as a collector gets it: its codec, then its bytes. Reading it neither panics nor grows without bound,
/// and what it accepts can be written as JSON.
pub fn batch(data: &[u8]) {
    /// A plain payload that expands to more takes longer than a fuzzer should wait for.
    const MOST_VALUES: u64 = 1 << 16;
    let Some((first, payload)) = data.split_first() else { return };
    let (codec, size) = match first % 2 {
        0 => (Codec::Plain, payload.len() as u32),
        _ => (Codec::Zstd, 1 << 20),
    };
    let Ok(batch) = read::open(codec, size, payload) else { return };
    assert_eq!(batch.counts().values().sum::<u64>(), batch.records());
    if batch.records() > MOST_VALUES {
        return;
    }
    for group in &batch.groups {
        for (column, record) in
            (0..group.columns.len()).flat_map(|c| (0..group.records()).map(move |r| (c, r)))
        {
            let value = group.value(column, record);
            let width = group.columns[column].field.width;
            assert!(width == Field::VARIABLE || value.len() == usize::from(width));
        }
    }
    witness::write_json(&batch);
}

/// A file of packets: what is found lies in the file, and there is no more of it than packets.
pub fn capture(data: &[u8]) {
    let Ok(mut capture) = Capture::new("fuzz".to_owned(), Box::new(Cursor::new(data.to_vec()))) else {
        return;
    };
    let (mut found, mut bytes) = (0, 0);
    while let Ok(next) = capture.read() {
        match next {
            Next::Datagram(datagram) => {
                found += 1;
                bytes += datagram.bytes.len();
            }
            Next::Dry => {}
            Next::End => break,
        }
    }
    let counts = capture.counts();
    assert_eq!(counts.datagrams, found);
    assert!(bytes <= data.len());
}

/// Bytes as instructions; when they end there are zeros.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    fn time(&mut self) -> u64 {
        u64::from(self.u16()) * 10
    }

    fn exporter(&mut self) -> Exporter {
        let bits = self.u8();
        let address = match bits & 3 {
            0 => IpAddr::from([127, 0, 0, 1]),
            1 => IpAddr::from([192, 0, 2, 1]),
            2 => IpAddr::from([192, 0, 2, 2]),
            _ => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1u16]),
        };
        Exporter { address, port: 1_000 + u16::from(bits >> 2 & 3) }
    }

    fn datagram(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16()).min(self.0.len());
        let (datagram, rest) = self.0.split_at(length);
        self.0 = rest;
        datagram
    }
}
