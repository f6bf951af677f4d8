//! Datagrams of every form in commented hex. Every shorter prefix of such, and mutations, are in `tests/mutations.rs`.

use super::*;
use crate::flow::Field;
use crate::proto::{BootQuality, Protocol, RecordKind, SamplingSource, TemplateSource};

/// What a datagram gave.
#[derive(Debug, Default, PartialEq)]
struct Got {
    /// Field values of each record, and its run.
    records: Vec<(Run2, Vec<Vec<u8>>)>,
    faults: Vec<Fault>,
    templates: Vec<bool>,
    withdrawn: Vec<(usize, bool)>,
    sets: usize,
    places: Vec<Place>,
    held: usize,
    /// Numbers of the datagrams whose held sets were read or given up.
    resumed: Vec<u64>,
    sources: Vec<TemplateSource>,
}

/// The part of a run that tests look at: kind, domain, template, sequence, export time, uptime, sampling rate.
type Run2 = (RecordKind, u32, u16, u32, u64, u32, u32);

impl Output for Got {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        let layout = template.layout();
        let bounds: Vec<(usize, usize)> = match layout.stride() {
            Some(stride) => (0..count as usize).map(|i| (i * stride, (i + 1) * stride)).collect(),
            None => {
                let starts = std::iter::once(0).chain(ends.iter().map(|end| *end as usize));
                starts.zip(ends.iter().map(|end| *end as usize)).collect()
            }
        };
        assert_eq!(bounds.len(), count as usize);
        assert_eq!(bounds.last().map(|bound| bound.1), Some(rows.len()), "rows end with the last record");
        let source = run.template_source;
        for (start, end) in bounds {
            let fields = fields(layout, &rows[start..end]);
            let head = (layout.kind(), run.domain, run.template, run.sequence);
            let run = (head.0, head.1, head.2, head.3, run.export_time, run.uptime, run.sampling_rate);
            self.records.push((run, fields));
            self.sources.push(source);
        }
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        self.faults.push(fault);
        self.places.push(place);
    }

    fn template(&mut self, heard: &Heard<'_>) {
        self.templates.push(heard.change != Change::Same);
    }

    fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        self.withdrawn.push((withdrawal.count, withdrawal.obeyed));
    }

    fn held(&mut self, _place: Place) {
        self.held += 1;
    }

    fn resume(&mut self, held: Option<&Arrival>) {
        self.resumed.extend(held.map(|arrival| arrival.number));
    }

    fn set(&mut self) {
        self.sets += 1;
    }
}

/// Cuts a row into its fields, independently of the code under test.
fn fields(layout: &crate::flow::Layout, row: &[u8]) -> Vec<Vec<u8>> {
    if layout.stride().is_some() {
        let cut = |p: &crate::flow::Placed| row[p.offset..p.offset + usize::from(p.field.width)].to_vec();
        return layout.fields().iter().map(cut).collect();
    }
    let mut at = 0;
    let mut fields = Vec::new();
    for placed in layout.fields() {
        let mut length = usize::from(placed.field.width);
        if placed.field.width == Field::VARIABLE {
            length = usize::from(row[at]);
            at += 1;
            if length == 255 {
                length = usize::from(row[at]) << 8 | usize::from(row[at + 1]);
                at += 2;
            }
        }
        fields.push(row[at..at + length].to_vec());
        at += length;
    }
    assert_eq!(at, row.len());
    fields
}

/// Hex with comments after `#`.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn exporter(port: u16) -> Exporter {
    Exporter { address: [192, 0, 2, 1].into(), port }
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Got, Fault> {
    let mut got = Got::default();
    decoder.datagram(&arrival(exporter(2055), 0), bytes, &mut got)?;
    Ok(got)
}

/// A datagram numbered by when it came, in milliseconds of the test's clock.
fn arrival(exporter: Exporter, elapsed: u64) -> Arrival {
    Arrival { exporter, received: 1_700_000_000_000, elapsed, number: elapsed }
}

fn obedient() -> Decoder {
    Decoder::new(Settings { obey_withdrawals: true, ..Settings::default() })
}

const V5: &str = "
    0005 0001 00000bb8 65535580 1dcd6500   # version, count, uptime 3 s, 2023-11-14T11:11:28.5
    0000002a 01 02 4064                    # sequence 42, engine 1/2, mode 1, 1 in 100
    0a000001 0a000002 0a0000fe 0003 0004   # addresses, next hop, interfaces
    00000005 000002f2 00000064 000003e8    # 5 packets, 754 bytes, first 100 ms, last 1 s
    c000 01bb 00 1b 06 00                  # ports, pad, flags, protocol, tos
    fde8 0f0f 18 10 0000                   # AS numbers, masks, pad
";

const V9: &str = "
    0009 0004 00000bb8 65535580 00000007 00000063   # version, count, uptime, time, sequence 7, source 99
    0000 0018 0100 0004                             # template set: template 256 of 4 fields
      0008 0004  000c 0004  0001 0003  0004 0001    # the byte counter in 3 bytes
    0001 0018 0101 0004 0008                        # options template 257: scope 4 bytes, options 8 bytes
      0002 0002  0052 0004  000a 0002  0000         # scope Interface, interface name, padding
    0100 001c                                       # two records of 256
      c0a81725 c0a818e8 0002f2 06
      0a000001 0a000002 000100 11
    0101 0010 0007 65746830 0007 0007 4567          # one record of 257, four bytes of padding and more
";

const IPFIX: &str = "
    000a 0064 65535580 00000007 00000063            # version, length, time, sequence 7, domain 99
    0002 0020 0100 0004                             # template set: template 256 of 4 fields
      0008 0004  8001 0004 0000733c  0052 ffff      # an enterprise field and one of variable length
      0001 0008  00000000                           # and padding of 4 bytes
    0003 0012 0101 0002 0001 0095 0004  0052 0004   # options template 257: scope domain, interface name
    0100 002a                                       # records of 256
      0a000001 00000001 03 657468 00000000000002f2
      0a000002 00000002 00 0000000000000001         # an empty string
      00                                            # padding
";

#[test]
fn v5_is_read() {
    let got = decode(&mut obedient(), &hex(V5)).unwrap();
    let run = (RecordKind::Data, 0x0102, 0, 42, 1_699_960_192_500, 3_000, 100);
    assert_eq!((got.records.len(), got.sets, &got.faults[..]), (1, 1, &[][..]));
    assert_eq!(got.records[0].0, run);
    let expected = "0a000001 0a000002 0a0000fe 0003 0004 00000005 000002f2 00000064 000003e8 c000 01bb 1b 06 00 \
                    fde8 0f0f 18 10";
    assert_eq!(got.records[0].1.concat(), hex(expected));
}

#[test]
fn v5_takes_what_is_there() {
    let mut long = hex(V5);
    long[3] = 30;
    let got = decode(&mut obedient(), &long).unwrap();
    assert_eq!((got.records.len(), got.sets, &got.faults[..]), (1, 0, &[Fault::Count][..]));
    let mut short = hex(V5);
    short[3] = 0;
    let got = decode(&mut obedient(), &short).unwrap();
    assert_eq!((got.records.len(), &got.faults[..]), (0, &[Fault::Count][..]));
}

#[test]
fn v9_templates_options_and_data_are_read() {
    let mut decoder = obedient();
    let got = decode(&mut decoder, &hex(V9)).unwrap();
    assert_eq!(got.templates, [true, true]);
    assert_eq!((got.sets, &got.faults[..]), (4, &[][..]));
    let data = (RecordKind::Data, 99, 256, 7, 1_699_960_192_000, 3_000, 0);
    let fields = |text: &str| -> Vec<Vec<u8>> { text.split(' ').map(hex).collect() };
    assert_eq!(got.records[0], (data, fields("c0a81725 c0a818e8 0002f2 06")));
    assert_eq!(got.records[1], (data, fields("0a000001 0a000002 000100 11")));
    let options = (RecordKind::Options, 99, 257, 7, 1_699_960_192_000, 3_000, 0);
    assert_eq!(got.records[2], (options, fields("0007 65746830 0007")));
    assert_eq!(got.records.len(), 3);
    assert_eq!(decode(&mut decoder, &hex(V9)).unwrap().templates, [false, false]);
}

#[test]
fn ipfix_enterprise_and_variable_fields_are_read() {
    let mut bytes = hex(IPFIX);
    let length = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let got = decode(&mut obedient(), &bytes).unwrap();
    assert_eq!((got.templates.len(), got.sets, &got.faults[..]), (2, 3, &[][..]));
    let names: Vec<&[u8]> = got.records.iter().map(|record| &record.1[2][..]).collect();
    assert_eq!(names, [&b"eth"[..], b""]);
    assert_eq!(got.records[0].1[1], [0, 0, 0, 1]);
    assert_eq!(got.records[0].0, (RecordKind::Data, 99, 256, 7, 1_699_960_192_000, 0, 0));
}

#[test]
fn two_exporters_with_one_id_are_never_mixed() {
    let mut decoder = obedient();
    let head = "0009 0001 00000bb8 65535580 00000007 00000000";
    let first = hex(&format!("{head} 0000 0010 0100 0002 0008 0004 0001 0004"));
    let second = hex(&format!("{head} 0000 0010 0100 0002 0001 0004 0008 0004"));
    let data = hex(&format!("{head} 0100 000c 00000001 00000002"));
    let mut layouts = Vec::new();
    struct Layouts<'a>(&'a mut Vec<u16>);
    impl Output for Layouts<'_> {
        fn records(&mut self, _: &Run, template: &Template, _: &[u8], _: &[u32], _: u32) {
            self.0.push(template.layout().fields()[0].field.element);
        }
        fn fault(&mut self, fault: Fault, _: Place) {
            panic!("{fault}");
        }
        fn set(&mut self) {}
    }
    for (port, bytes) in [(1, &first), (2, &second), (1, &data), (2, &data)] {
        decoder.datagram(&arrival(exporter(port), 0), bytes, &mut Layouts(&mut layouts)).unwrap();
    }
    assert_eq!(layouts, [8, 1]);
}

/// RFC 7011 8.1 has four bytes for a withdrawal; some exporters write the count of scopes too, as in other options
/// templates.
#[test]
fn options_templates_are_withdrawn_with_and_without_a_count_of_scopes() {
    for set in [
        "0003 0010 012c 0000 0000 012d 0000 0000",
        "0003 000e 012c 0000 012d 0000 0000",
        "0003 000e 012c 0000 0000 012d 0000",
        "0003 000c 012c 0000 012d 0000",
    ] {
        let mut decoder = obedient();
        let template =
            "0003 0012 012c 0002 0001 0090 0004 0022 0004 0003 0012 012d 0002 0001 0090 0004 0022 0004";
        let message = |sets: &str| {
            let sets = hex(sets);
            let length = (16 + sets.len() as u16).to_be_bytes();
            [&hex("000a"), &length[..], &hex("65535580 00000007 00000063"), &sets].concat()
        };
        decode(&mut decoder, &message(template)).unwrap();
        let got = decode(&mut decoder, &message(set)).unwrap();
        assert_eq!((&got.withdrawn[..], &got.faults[..]), (&[(1, true); 2][..], &[][..]), "{set}");
        let got = decode(&mut decoder, &message("012c 000c 00000000 00000064 012d 000c 00000000 00000064"));
        assert_eq!(got.unwrap().held, 2, "{set}");
    }
}

#[test]
fn withdrawal_is_reported_and_obeyed_only_if_so_set() {
    let message = |sets: &str| {
        let sets = hex(sets);
        let mut bytes = hex("000a 0000 65535580 00000007 00000063");
        bytes.extend(sets);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let template = message("0002 000c 0100 0001 0008 0004");
    let withdrawal = message("0002 0008 0100 0000");
    let all = message("0002 0008 0002 0000");
    let data = message("0100 0008 0a000001");
    for (obey, withdrawal) in [(false, &withdrawal), (true, &withdrawal), (false, &all), (true, &all)] {
        let mut decoder = Decoder::new(Settings { obey_withdrawals: obey, ..Settings::default() });
        decode(&mut decoder, &template).unwrap();
        assert_eq!(decode(&mut decoder, withdrawal).unwrap().withdrawn, [(1, obey)]);
        let got = decode(&mut decoder, &data).unwrap();
        assert_eq!((got.records.len(), got.held), if obey { (0, 1) } else { (1, 0) });
    }
}

const V9_HEAD: &str = "0009 0001 00000bb8 65535580 00000007 00000000";

/// A template of four bytes and one more, its id 256.
const TEMPLATE: &str = "0000 0010 0100 0002 0008 0004 0004 0001";

fn v9(sets: &str) -> Vec<u8> {
    hex(&format!("{V9_HEAD} {sets}"))
}

/// Feeds datagrams of (host, port, when, sets) and gives what all of them gave.
fn feed(decoder: &mut Decoder, got: &mut Got, datagrams: &[([u8; 4], u16, u64, &str)]) {
    for (address, port, elapsed, sets) in datagrams {
        let exporter = Exporter { address: (*address).into(), port: *port };
        decoder.datagram(&arrival(exporter, *elapsed), &v9(sets), got).unwrap();
    }
}

const ROUTER: [u8; 4] = [192, 0, 2, 1];
const HERE: [u8; 4] = [127, 0, 0, 1];
/// One record of five bytes, and what aligns it.
const ONE: &str = "0100 000c 0a000001 06 000000";

#[test]
fn data_before_its_template_is_held_and_read_when_it_comes() {
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    feed(&mut decoder, &mut got, &[(ROUTER, 1, 10, ONE), (ROUTER, 1, 20, ONE), (ROUTER, 2, 30, ONE)]);
    assert_eq!((got.held, got.sets, got.records.len(), decoder.held().0), (3, 0, 0, 3));
    feed(&mut decoder, &mut got, &[(ROUTER, 1, 40, TEMPLATE)]);
    assert_eq!((got.records.len(), got.sets, &got.resumed[..]), (2, 3, &[10, 20][..]));
    assert_eq!(got.records[0].1, [vec![10, 0, 0, 1], vec![6]]);
    assert_eq!(got.sources, [TemplateSource::Heard; 2]);
    let awaited: Vec<_> = decoder.awaited().map(|(key, id, sets, _)| (key.exporter.port, id, sets)).collect();
    assert_eq!(awaited, [(2, 256, 1)]);
    // The template may come in the same datagram, after the data.
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    feed(&mut decoder, &mut got, &[(ROUTER, 1, 10, &format!("{ONE} {TEMPLATE}"))]);
    assert_eq!((got.records.len(), got.sets, decoder.held()), (1, 2, (0, 0)));
}

#[test]
fn what_waits_too_long_is_a_fault_of_its_own_datagram() {
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    feed(&mut decoder, &mut got, &[(ROUTER, 1, 10, ONE), (ROUTER, 1, 20, ONE)]);
    let age = HoldLimits::default().max_age;
    decoder.tick(age + 9, &mut got);
    assert_eq!(got.faults, []);
    decoder.tick(age + 10, &mut got);
    assert_eq!((&got.faults[..], &got.resumed[..]), (&[Fault::NoTemplate][..], &[10][..]));
    assert_eq!(got.places, [Place { offset: 24, bytes: 8 }]);
    decoder.end(&mut got);
    assert_eq!((&got.faults[..], decoder.held()), (&[Fault::NoTemplate; 2][..], (0, 0)));
}

#[test]
fn quirk_57_a_template_of_another_port_serves_after_a_wait_and_is_marked() {
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    feed(&mut decoder, &mut got, &[(ROUTER, 1, 0, TEMPLATE), (ROUTER, 2, 10, ONE)]);
    decoder.tick(5_009, &mut got);
    assert_eq!(got.records.len(), 0);
    decoder.tick(5_010, &mut got);
    assert_eq!((got.records.len(), &got.sources[..]), (1, &[TemplateSource::Provisional][..]));
    // The next set waits too: the port's own template may be on its way.
    feed(&mut decoder, &mut got, &[(ROUTER, 2, 6_000, ONE)]);
    assert_eq!((got.records.len(), decoder.held().0), (1, 1));
}

#[test]
fn a_held_set_that_fits_no_other_port_lets_those_behind_it_pass() {
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    let unfit = "0100 000a 0a000001 0605";
    let all =
        [(ROUTER, 1, 0, TEMPLATE), (ROUTER, 2, 10, unfit), (ROUTER, 2, 11, ONE), (ROUTER, 2, 12, unfit)];
    feed(&mut decoder, &mut got, &all);
    feed(&mut decoder, &mut got, &[(ROUTER, 2, 13, ONE), (ROUTER, 2, 9_000, ONE)]);
    for elapsed in [5_010, 5_013, 6_000] {
        decoder.tick(elapsed, &mut got);
    }
    assert_eq!((&got.resumed[..], decoder.held().0), (&[11, 13][..], 3));
    // What waits is still read by a template of its own.
    feed(&mut decoder, &mut got, &[(ROUTER, 2, 9_001, "0000 0010 0100 0002 0008 0004 0004 0002")]);
    assert_eq!((got.resumed.len(), decoder.held().0), (5, 0));
}

#[test]
fn quirk_56_no_other_port_serves_on_this_host_or_where_it_does_not_fit_or_is_contested() {
    let other_fields = "0000 0010 0100 0002 0004 0001 0008 0004";
    let cases: [(&str, [u8; 4], &str, &str); 3] = [
        ("on this host", HERE, ONE, TEMPLATE),
        ("six bytes are no records of five", ROUTER, "0100 000a 0a000001 0605", TEMPLATE),
        ("two ports differ", ROUTER, ONE, other_fields),
    ];
    for (case, address, data, second) in cases {
        let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
        let all = [(address, 1, 0, TEMPLATE), (address, 3, 0, second), (address, 2, 10, data)];
        feed(&mut decoder, &mut got, &all);
        decoder.tick(60_000, &mut got);
        assert_eq!((got.records.len(), decoder.held().0), (0, 1), "{case}");
    }
}

#[test]
fn restored_templates_serve_their_own_port_at_once_and_are_marked_until_heard() {
    let exporter = Exporter { address: HERE.into(), port: 1 };
    let key = DomainKey { exporter, protocol: Protocol::NetflowV9, domain: 0 };
    let mut before = Decoder::new(Settings::default());
    feed(&mut before, &mut Got::default(), &[(HERE, 1, 0, TEMPLATE)]);
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    let restored = decoder.restore(key, &before.saved(&key).unwrap());
    assert_eq!(restored, Restored { templates: 1, refused: 0 });
    feed(&mut decoder, &mut got, &[(HERE, 1, 0, ONE), (HERE, 2, 0, ONE)]);
    assert_eq!((got.records.len(), decoder.held().0), (1, 1));
    feed(&mut decoder, &mut got, &[(HERE, 1, 0, TEMPLATE), (HERE, 1, 0, ONE)]);
    assert_eq!(got.sources, [TemplateSource::Restored, TemplateSource::Heard]);
    assert_eq!(got.templates, [false], "it is what was known");
}

/// What a flood of templates changes is bounded; exporters at other addresses, and templates that are known, are not
/// held up by it.
#[test]
fn an_address_tells_so_many_new_templates_and_no_more() {
    let changes = ChangeLimits { burst: 100, per_second: 10 };
    let settings = Settings { limits: Limits { changes, ..Limits::default() }, ..Settings::default() };
    let (mut decoder, mut got) = (Decoder::new(settings), Got::default());
    for port in 1..=500 {
        feed(&mut decoder, &mut got, &[(ROUTER, port, 0, TEMPLATE)]);
    }
    assert_eq!((decoder.domains().templates(), got.templates.len()), (100, 100));
    assert_eq!(got.faults, [Fault::TemplateRate; 400]);
    feed(
        &mut decoder,
        &mut got,
        &[(ROUTER, 1, 0, TEMPLATE), (HERE, 1, 0, TEMPLATE), (ROUTER, 501, 1_000, TEMPLATE)],
    );
    assert_eq!((decoder.domains().templates(), got.faults.len()), (102, 400));
}

#[test]
fn use_alone_changes_a_domain_only_every_few_hours() {
    const HOUR: u64 = 3_600_000;
    let (mut decoder, mut got) = (Decoder::new(Settings::default()), Got::default());
    decoder.note_changes();
    let mut changes = 0;
    for minute in 0..48 * 60 {
        let exporter = Exporter { address: HERE.into(), port: 1 };
        let received = 500_000 * HOUR + minute * 60_000;
        let arrival = Arrival { exporter, received, elapsed: minute * 60_000, number: 0 };
        for datagram in [TEMPLATE, ONE] {
            decoder.datagram(&arrival, &v9(datagram), &mut got).unwrap();
        }
        changes += decoder.take_changed().len();
    }
    assert_eq!(got.records.len(), 48 * 60);
    assert_eq!(changes, 1 + 7, "the template, and then every six hours");
}

#[test]
fn the_hold_has_room_for_so_much_and_an_address_for_a_part_of_it() {
    let hold = HoldLimits { max_bytes: 4 * 1_000, max_age: u64::MAX };
    let settings = Settings { limits: Limits { hold, ..Limits::default() }, ..Settings::default() };
    let (mut decoder, mut got) = (Decoder::new(settings), Got::default());
    for host in 0..100 {
        for _ in 0..10 {
            feed(&mut decoder, &mut got, &[([192, 0, 2, host], 1, 0, ONE)]);
        }
        assert!(decoder.held().1 <= 4_000);
    }
    assert!(got.faults.iter().all(|fault| *fault == Fault::HoldFull));
    assert_eq!(got.faults.len() + decoder.held().0, 1_000, "none is forgotten");
}

#[test]
fn faults_say_where_they_are() {
    let good = "0000 000c 0100 0001 0008 0004  0100 0008 0a000001";
    for (sets, place) in [
        ("0064 0008 00000000", Place { offset: 24, bytes: 4 }),
        ("0000 000c 0064 0001 0008 0004", Place { offset: 24, bytes: 8 }),
        (&format!("{good} 0100 00ff 00"), Place { offset: 40, bytes: 5 }),
    ] {
        let mut got = Got::default();
        feed(&mut obedient(), &mut got, &[(ROUTER, 1, 0, sets)]);
        assert_eq!(got.places, [place], "{sets}");
    }
}

#[test]
fn what_is_wrong_is_named_and_the_next_set_goes_on() {
    let head = "0009 0001 00000bb8 65535580 00000007 00000000";
    let good = "0000 000c 0100 0001 0008 0004  0100 0008 0a000001";
    let cases = [
        ("0064 0008 00000000", Fault::ReservedSet),
        ("0000 000c 0100 0000 0008 0004", Fault::EmptyTemplate),
        ("0000 000c 0100 0001 0008 0000", Fault::EmptyTemplate),
        ("0000 000c 0064 0001 0008 0004", Fault::TemplateId),
        ("0000 000c 0100 0009 0008 0004", Fault::ShortTemplate),
        ("0000 0010 0100 0002 0008 fffe 000c fffe", Fault::LargeTemplate),
    ];
    for (set, fault) in cases {
        let got = decode(&mut obedient(), &hex(&format!("{head} {set} {good}"))).unwrap();
        assert_eq!(got.faults.first(), Some(&fault), "{set}");
        assert_eq!(got.records.len(), 1, "{set}");
    }
    // A set ends whole or in one fault, however many it has: three sets here.
    let two_faults = "0000 0014 0064 0001 0008 0004 0100 0000 00000000";
    let got = decode(&mut obedient(), &hex(&format!("{head} {two_faults} {good}"))).unwrap();
    assert_eq!((got.sets, got.faults.len()), (2, 1));
    for set in ["0100 0003", "0100 00ff 00", "0100"] {
        let got = decode(&mut obedient(), &hex(&format!("{head} {good} {set}"))).unwrap();
        assert_eq!((got.faults, got.records.len()), (vec![Fault::SetLength], 1), "{set}");
    }
    // Filled up with zeros after the last set.
    let got = decode(&mut obedient(), &hex(&format!("{head} {good} 0000000000000000 000000"))).unwrap();
    assert_eq!((got.faults.len(), got.records.len()), (0, 1));
}

#[test]
fn ipfix_faults_are_named() {
    let head = "000a 0000 65535580 00000007 00000063";
    for (sets, fault) in [
        ("0003 0012 0100 0002 0000 0095 0004 0052 0004", Fault::Scope),
        ("0003 0012 0100 0002 0003 0095 0004 0052 0004", Fault::Scope),
        ("0002 000c 0100 0002 0008 0004", Fault::ShortTemplate),
        ("0002 000c 0100 0001 0052 ffff  0100 0007 09 6161", Fault::RecordLength),
    ] {
        let mut bytes = hex(&format!("{head} {sets}"));
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(decode(&mut obedient(), &bytes).unwrap().faults, [fault], "{sets}");
    }
    let mut lies = hex(&format!("{head} 0002 0004"));
    for length in [0u16, 15] {
        lies[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(decode(&mut obedient(), &lies), Err(Fault::MessageLength), "{length}");
    }
}

#[test]
fn a_set_without_content_is_read_and_not_held() {
    let mut decoder = obedient();
    let got =
        decode(&mut decoder, &hex("0009 0001 00000bb8 65535580 00000007 00000000  0100 0004 0101 0004"))
            .unwrap();
    assert_eq!((got.sets, got.faults.len(), decoder.held()), (2, 0, (0, 0)));
}

#[test]
fn an_ipfix_message_that_is_cut_gives_the_sets_that_are_there() {
    let good = "0002 000c 0100 0001 0008 0004  0100 0008 0a000001";
    for (sets, faults) in [
        (good, &[Fault::CutMessage][..]),
        (&format!("{good} 0100 0010 0a000002"), &[Fault::SetLength, Fault::CutMessage]),
    ] {
        let got =
            decode(&mut obedient(), &hex(&format!("000a 0fff 65535580 00000007 00000063 {sets}"))).unwrap();
        assert_eq!((got.records.len(), &got.faults[..]), (1, faults), "{sets}");
    }
}

#[test]
fn what_lies_behind_an_ipfix_message_is_read_or_named() {
    let message = "000a 0024 65535580 00000007 00000063 0002 000c 0100 0001 0008 0004 0100 0008 0a000001";
    for (bytes, records, faults) in [
        (format!("{message} {message}"), 2, &[][..]),
        (format!("{message} 0000000000000000"), 1, &[]),
        (format!("{message} 0102030405"), 1, &[Fault::TrailingBytes]),
        (format!("{message} 000a 0fff 00000000 00000000 00000000"), 1, &[Fault::TrailingBytes]),
    ] {
        let got = decode(&mut obedient(), &hex(&bytes)).unwrap();
        assert_eq!((got.records.len(), &got.faults[..]), (records, faults), "{bytes}");
    }
}

#[test]
fn quirk_4_padding_that_no_set_counts_is_gone_past() {
    let sets = "0000 000c 0100 0001 0008 0001  0100 0005 06 000000  0100 0006 0611 0000  0100 0005 01";
    let got = decode(&mut obedient(), &v9(sets)).unwrap();
    assert_eq!((got.records.len(), &got.faults[..]), (4, &[][..]));
}

/// Data by a template that was refused must not be read by the one before.
#[test]
fn a_template_that_is_refused_takes_the_place_of_the_one_before() {
    let good = "0000 000c 0100 0001 0008 0004  0100 0008 0a000001";
    let refused = "0000 000c 0100 0001 0008 0000";
    let got = decode(&mut obedient(), &v9(&format!("{good} {refused} 0100 0008 0a000001"))).unwrap();
    assert_eq!((got.records.len(), got.held, &got.faults[..]), (1, 1, &[Fault::EmptyTemplate][..]));
    let message = |sets: &str, length: &str| hex(&format!("000a {length} 65535580 00000007 00000063 {sets}"));
    let good = "0002 000c 0100 0001 0008 0004  0100 0008 0a000001";
    let sets = format!("{good} 0002 000c 0100 0001 0008 0000 0100 0008 0a000001");
    let got = decode(&mut obedient(), &message(&sets, "0038")).unwrap();
    assert_eq!((got.records.len(), got.held), (1, 1));
}

#[test]
fn headers_that_cannot_be_read_are_refused() {
    assert_eq!(decode(&mut obedient(), &[]), Err(Fault::ShortHeader));
    assert_eq!(decode(&mut obedient(), &[0, 5, 0]), Err(Fault::ShortHeader));
    assert_eq!(decode(&mut obedient(), &[0; 100]), Err(Fault::UnknownVersion));
    assert_eq!(decode(&mut obedient(), b"GET / HTTP/1.1"), Err(Fault::UnknownVersion));
}

#[test]
fn the_runs_say_where_their_times_and_rates_come_from() {
    struct Runs(Vec<Run>);
    impl Output for Runs {
        fn records(&mut self, run: &Run, _: &Template, _: &[u8], _: &[u32], _: u32) {
            self.0.push(*run);
        }
        fn fault(&mut self, _: Fault, _: Place) {}
        fn set(&mut self) {}
    }
    let mut runs = Runs(Vec::new());
    obedient().datagram(&arrival(exporter(1), 9), &hex(V5), &mut runs).unwrap();
    let run = runs.0[0];
    assert_eq!((run.protocol, run.received), (Protocol::NetflowV5, 1_700_000_000_000));
    assert_eq!((run.boot_time, run.boot_quality), (1_699_960_189_500, BootQuality::Header));
    assert_eq!((run.sampling_rate, run.sampling_source), (100, SamplingSource::Header));
}

/// v9 datagrams of one exporter, whose uptime the test says: an options template of names by interface, or names.
mod restarts {
    use super::*;

    #[derive(Default)]
    struct Starts(u32);

    impl Output for Starts {
        fn records(&mut self, _: &Run, _: &Template, _: &[u8], _: &[u32], _: u32) {}
        fn fault(&mut self, fault: Fault, _: Place) {
            panic!("{fault}");
        }
        fn set(&mut self) {}
        fn restarted(&mut self) {
            self.0 += 1;
        }
    }

    const TEMPLATE: [u8; 24] = [0, 1, 0, 24, 1, 1, 0, 4, 0, 8, 0, 2, 0, 4, 0, 82, 0, 4, 0, 83, 0, 4, 0, 0];

    fn name(index: u8, name: &[u8; 4]) -> Vec<u8> {
        [&[1, 1, 0, 16, 0, 0, 0, index][..], name, b"\0\0\0\0"].concat()
    }

    struct Bench {
        decoder: Decoder,
        sequence: u32,
    }

    impl Bench {
        /// Sends sets at `elapsed`, from an exporter that is up for `uptime`; how often it started anew.
        fn send(&mut self, elapsed: u64, uptime: u32, sets: &[u8]) -> u32 {
            let now = 1_700_000_000 + (elapsed / 1000) as u32;
            self.sequence += 1;
            let numbers = [uptime, now, self.sequence, 7].map(u32::to_be_bytes).concat();
            let bytes = [&[0, 9, 0, 1][..], &numbers, sets].concat();
            let exporter = crate::flow::Exporter { address: [192, 0, 2, 1].into(), port: 1 };
            let arrival = Arrival { exporter, received: 1_700_000_000_000 + elapsed, elapsed, number: 0 };
            let mut starts = Starts::default();
            self.decoder.datagram(&arrival, &bytes, &mut starts).unwrap();
            starts.0
        }

        fn key(&self) -> DomainKey {
            *self.decoder.domains().keys().next().unwrap()
        }

        fn names(&self) -> Vec<(u32, String)> {
            let state = self.decoder.state(&self.key()).unwrap();
            state.interfaces.iter().map(|(index, text)| (*index, text.name.to_string())).collect()
        }
    }

    #[test]
    fn names_told_before_a_start_go_and_those_told_with_it_stay() {
        let mut bench = Bench { decoder: Decoder::new(Settings::default()), sequence: 0 };
        bench.decoder.note_names();
        bench.send(0, 9_000_000, &[&TEMPLATE[..], &name(1, b"eth1"), &name(2, b"eth2")].concat());
        assert_eq!(bench.send(1_000, 9_001_000, &[]), 0);
        assert_eq!(bench.decoder.take_named().len(), 1);
        assert_eq!(bench.send(100_000, 5_000, &name(1, b"new1")), 1);
        assert_eq!(bench.names(), [(1, "new1".to_owned())]);
        assert_eq!(bench.decoder.take_named().len(), 1);
        // An uptime that is none says nothing of starts after a while.
        for step in 0..20_u32 {
            bench.send(101_000 + 1_000 * u64::from(step), step * 500_000, &[]);
        }
        bench.send(130_000, 0, &name(2, b"new2"));
        assert_eq!(bench.send(131_000, 80_000_000, &[]), 0);
        assert_eq!(bench.names(), [(2, "new2".to_owned())]);
    }

    #[test]
    fn a_start_while_the_proxy_was_away_is_seen_by_what_the_header_says() {
        for (uptime, is_anew) in [(9_600_000, false), (60_000, true)] {
            let mut bench = Bench { decoder: Decoder::new(Settings::default()), sequence: 0 };
            bench.send(0, 9_000_000, &[&TEMPLATE[..], &name(1, b"eth1"), &name(2, b"eth2")].concat());
            let saved = bench.decoder.saved(&bench.key()).unwrap();
            let mut again = Bench { decoder: Decoder::new(Settings::default()), sequence: 100 };
            again.decoder.restore(bench.key(), &saved);
            assert_eq!(again.names().len(), 2);
            assert_eq!(again.send(600_000, uptime, &name(1, b"eth1")) == 1, is_anew);
            assert_eq!(again.names().len(), if is_anew { 1 } else { 2 });
        }
    }
}
