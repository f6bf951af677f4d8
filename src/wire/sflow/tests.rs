//! Samples of every form in commented hex, every shorter prefix of them, and lies about lengths and counts.

use crate::flow::{Exporter, Field, Layout, Run};
use crate::proto::{Protocol, RecordKind, SamplingSource};
use crate::wire::{Arrival, Decoder, Fault, Output, Place, Record, Sample, Settings, Step, Template, Unit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// A record: its kind, rate, and its fields by name.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    kind: RecordKind,
    rate: u32,
    fields: BTreeMap<String, Vec<String>>,
}

impl Row {
    /// The values of a field, in hex.
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.get(name).into_iter().flatten().map(String::as_str).collect()
    }

    /// The value of a field; "" if it is not there.
    fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |values| &values[0])
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name).map(|values| u64::from_str_radix(&values[0], 16).unwrap())
    }
}

/// A sample: its kind, sequence, source's class and index, drops, and (data format, hex) of each record.
type Told = (RecordKind, u32, u32, u32, Option<u32>, Vec<(u32, String)>);

/// What a datagram gave.
#[derive(Debug, Default)]
struct Got {
    rows: Vec<Row>,
    samples: Vec<Told>,
    /// Calls of `records`.
    calls: usize,
    faults: Vec<(Fault, Place)>,
    unknown: usize,
    sets: usize,
    runs: Vec<Run>,
    steps: Vec<(Unit, Step)>,
}

impl Output for Got {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        self.calls += 1;
        let layout = template.layout();
        let ends: Vec<usize> = match layout.stride() {
            Some(stride) => (1..=count as usize).map(|i| i * stride).collect(),
            None => ends.iter().map(|end| *end as usize).collect(),
        };
        assert_eq!((ends.len(), ends.last()), (count as usize, Some(&rows.len())));
        let mut start = 0;
        for end in ends {
            let fields = fields(layout, &rows[start..end]);
            self.rows.push(Row { kind: layout.kind(), rate: run.sampling_rate, fields });
            self.runs.push(*run);
            start = end;
        }
        assert!(self.rows.len() <= self.samples.len(), "samples are told before their rows");
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        self.faults.push((fault, place));
    }

    fn set(&mut self) {
        self.sets += 1;
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let records =
            sample.records.map(|record| (record.enterprise << 12 | record.format, to_hex(record.bytes)));
        let (class, index) = (sample.source.class, sample.source.index);
        self.samples.push((sample.kind, sample.sequence, class, index, sample.drops, records.collect()));
    }

    fn unknown_sample(&mut self, _: Record<'_>, _: Place) {
        self.unknown += 1;
    }

    fn sequence(&mut self, unit: Unit, step: Step) {
        self.steps.push((unit, step));
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Cuts a row into its fields, independently of the code under test.
fn fields(layout: &Layout, row: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = 0;
    for placed in layout.fields() {
        let mut length = usize::from(placed.field.width);
        if placed.field.width == Field::VARIABLE {
            length = usize::from(row[at]);
            at += 1;
            if length == 255 {
                length = usize::from(u16::from_be_bytes([row[at], row[at + 1]]));
                at += 2;
            }
        }
        fields.entry(placed.field.name()).or_default().push(to_hex(&row[at..at + length]));
        at += length;
    }
    assert_eq!(at, row.len());
    fields
}

/// Hex with comments after `#`.
fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let digits: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// A structure behind its data format and length.
fn framed(data_format: u32, content: &[u8]) -> Vec<u8> {
    [&data_format.to_be_bytes()[..], &(content.len() as u32).to_be_bytes(), content].concat()
}

fn record(data_format: u32, text: &str) -> Vec<u8> {
    framed(data_format, &hex(text))
}

/// A sample whose records' count stands between `start` and `records`.
fn sample(data_format: u32, start: &str, records: &[Vec<u8>]) -> Vec<u8> {
    framed(
        data_format,
        &[hex(start), (records.len() as u32).to_be_bytes().to_vec(), records.concat()].concat(),
    )
}

const HEAD: &str = "
    00000005 00000001 c0000201      # version, agent 192.0.2.1
    00000007 0000002a 000003e8      # sub-agent 7, sequence 42, uptime 1 s
";

fn datagram(samples: &[Vec<u8>]) -> Vec<u8> {
    [hex(HEAD), (samples.len() as u32).to_be_bytes().to_vec(), samples.concat()].concat()
}

fn arrival() -> Arrival {
    let exporter = Exporter { address: [192, 0, 2, 9].into(), port: 6_343 };
    Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 1 }
}

fn decode(bytes: &[u8]) -> Result<Got, Fault> {
    let mut got = Got::default();
    Decoder::new(Settings::default()).datagram(&arrival(), bytes, &mut got)?;
    assert_eq!(got.rows.len(), got.samples.len(), "a row for each sample");
    Ok(got)
}

/// The only row of a datagram that has no fault.
fn only_row(sample: Vec<u8>) -> Row {
    let got = decode(&datagram(&[sample])).unwrap();
    assert_eq!((got.rows.len(), got.sets, got.faults.as_slice()), (1, 1, &[][..]));
    got.rows[0].clone()
}

const FLOW_START: &str = "
    00000064 00000003               # sample 100 of ifIndex 3
    00000400 00019000 00000002      # 1 in 1024, pool 102400, 2 drops
    00000003 00000009               # from interface 3 to 9
";

const EXPANDED_START: &str = "
    00000065 00000000 16000064      # sample 101 of ifIndex 0x16000064
    00001000 00bab940 0000001e      # 1 in 4096, pool, drops
    00000000 16000064               # from interface 0x16000064
    00000000 96000063               # to interface 0x96000063
";

const TCP: &str = "
    00000001 000005ee 00000004 00000042             # Ethernet, 1518 bytes, 4 stripped, 66 here
    02005e000001 02005e000002 8100 6064 0800        # priority 3, VLAN 100
    45b8 05d8 1234 4000 3f06 0000 c6336407 cb007109
    d431 01bb 00000001 00000002 5018 ffff 0000 0000 00000000 0000 # and two bytes that align
";

const SWITCH: &str = "00000064 00000003 000000c8 00000005";
const ROUTER: &str = "00000001 c0000202 00000018 00000010";

/// Next hop 192.0.2.3, AS 64500, source 64501 by way of 64502; a sequence of two and a set of two; two communities;
/// local preference 100.
const GATEWAY: &str = "
    00000001 c0000203 0000fbf4 0000fbf5 0000fbf6
    00000002
      00000002 00000002 0000fbf7 0000fbf8
      00000001 00000002 0000fbf9 0000fbfa
    00000002 fbf40001 fbf40002
    00000064
";

fn tcp_sample() -> Vec<u8> {
    sample(1, FLOW_START, &[record(1, TCP), record(1001, SWITCH), record(1002, ROUTER)])
}

#[test]
fn a_flow_sample_is_mapped() {
    let got = decode(&datagram(&[tcp_sample()])).unwrap();
    let run = &got.runs[0];
    assert_eq!((run.protocol, run.domain, run.sequence, run.uptime), (Protocol::SflowV5, 7, 42, 1_000));
    assert_eq!((run.sampling_rate, run.sampling_source), (1_024, SamplingSource::Sample));
    let records = got.samples[0].5.iter().map(|(format, _)| *format).collect::<Vec<_>>();
    assert_eq!((got.samples[0].0, got.samples[0].1), (RecordKind::FlowSample, 100));
    assert_eq!((got.samples[0].2, got.samples[0].3, got.samples[0].4), (0, 3, Some(2)));
    assert_eq!(records, [1, 1001, 1002]);
    let row = &got.rows[0];
    for (name, value) in [
        ("exporterIPv4Address", "c0000201"),
        ("sampleSequence", "00000064"),
        ("sourceIdClass", "00000000"),
        ("sourceIdIndex", "00000003"),
        ("samplePool", "00019000"),
        ("drops", "00000002"),
        ("ingressInterface", "00000003"),
        ("egressInterface", "00000009"),
        ("packetDeltaCount", "00000001"),
        ("octetDeltaCount", "000005d8"),
        ("headerProtocol", "00000001"),
        ("layer2OctetDeltaCount", "000005ee"),
        ("stripped", "00000004"),
        ("destinationMacAddress", "02005e000001"),
        ("sourceMacAddress", "02005e000002"),
        ("ethernetType", "0800"),
        ("dot1qVlanId", "0064"),
        ("dot1qPriority", "03"),
        ("sourceIPv4Address", "c6336407"),
        ("destinationIPv4Address", "cb007109"),
        ("protocolIdentifier", "06"),
        ("ipClassOfService", "b8"),
        ("ipTTL", "3f"),
        ("fragmentIdentification", "00001234"),
        ("fragmentOffset", "0000"),
        ("fragmentFlags", "40"),
        ("sourceTransportPort", "d431"),
        ("destinationTransportPort", "01bb"),
        ("tcpControlBits", "0018"),
        ("vlanId", "0064"),
        ("srcPriority", "00000003"),
        ("postVlanId", "00c8"),
        ("dstPriority", "00000005"),
        ("ipNextHopIPv4Address", "c0000202"),
        ("sourceIPv4PrefixLength", "18"),
        ("destinationIPv4PrefixLength", "10"),
    ] {
        assert_eq!(row.get(name), value, "{name}");
    }
    assert_eq!(row.fields.len(), 36, "and nothing else: {:?}", row.fields.keys());
}

#[test]
fn an_expanded_sample_keeps_large_indexes() {
    let row = only_row(sample(3, EXPANDED_START, &[record(1001, SWITCH)]));
    assert_eq!((row.rate, row.get("sourceIdIndex")), (4_096, "16000064"));
    assert_eq!((row.get("ingressInterface"), row.get("egressInterface")), ("16000064", "96000063"));
    assert_eq!((row.get("inputFormat"), row.get("outputFormat")), ("", ""));
}

#[test]
fn what_interfaces_say_besides_an_index() {
    let start =
        |input: &str, output: &str| FLOW_START.replace("00000003 00000009", &format!("{input} {output}"));
    // Internal, and two interfaces.
    let row = only_row(sample(1, &start("3fffffff", "80000002"), &[]));
    assert_eq!((row.get("ingressInterface"), row.get("egressInterface")), ("3fffffff", "80000002"));
    assert_eq!((row.get("inputFormat"), row.get("outputFormat")), ("", "00000002"));
    assert_eq!(row.get("forwardingStatus"), "");
    // Discarded by an access list.
    let row = only_row(sample(1, &start("00000003", "40000102"), &[]));
    assert_eq!((row.get("egressInterface"), row.get("outputFormat")), ("40000102", "00000001"));
    assert_eq!(row.number("forwardingStatus"), Some(130));
    // The same in an expanded sample.
    let discarded = EXPANDED_START.replace("00000000 96000063", "00000001 00000102");
    let row = only_row(sample(3, &discarded, &[]));
    assert_eq!((row.get("egressInterface"), row.get("outputFormat")), ("40000102", "00000001"));
    assert_eq!(row.number("forwardingStatus"), Some(130));
    // A format that nobody has defined.
    let strange = EXPANDED_START.replace("00000000 96000063", "00000003 00000102");
    let row = only_row(sample(3, &strange, &[]));
    assert_eq!((row.get("egressInterface"), row.get("outputFormat")), ("00000102", "00000003"));
}

#[test]
fn what_bgp_knows_is_mapped_and_travels_whole() {
    let row = only_row(sample(1, FLOW_START, &[record(1003, GATEWAY), record(1, TCP)]));
    for (name, number) in [
        ("bgpNextHopIPv4Address", 0xc000_0203),
        ("gatewayAs", 64_500),
        ("bgpSourceAsNumber", 64_501),
        ("bgpPrevAdjacentAsNumber", 64_502),
        ("bgpNextAdjacentAsNumber", 64_503),
        ("bgpDestinationAsNumber", 0),
        ("localpref", 100),
    ] {
        assert_eq!(row.number(name), Some(number), "{name}");
    }
    assert_eq!(row.get("sflowRecord"), format!("000003eb{}", to_hex(&hex(GATEWAY))));
    // Without a path all of it is in columns.
    let short =
        "00000002 20010db8000000000000000000000001 0000fbf4 00000000 0000fbf6 00000000 00000000 00000064";
    let row = only_row(sample(1, FLOW_START, &[record(1003, short)]));
    assert_eq!(row.get("bgpNextHopIPv6Address"), "20010db8000000000000000000000001");
    assert_eq!((row.number("bgpDestinationAsNumber"), row.get("sflowRecord")), (Some(0), ""));
    // A sequence alone has an end.
    let sequence = "00000000 0000fbf4 00000000 00000000 00000001 00000002 00000003 00000001 00000002 00000003
        00000000 00000064";
    let row = only_row(sample(1, FLOW_START, &[record(1003, sequence)]));
    assert_eq!(
        (row.number("bgpNextAdjacentAsNumber"), row.number("bgpDestinationAsNumber")),
        (Some(1), Some(3))
    );
}

#[test]
fn counts_inside_a_record_are_not_believed() {
    for lie in ["ffffffff", "40000000", "00000100"] {
        let at_segments = GATEWAY.replacen("00000002\n      0", &format!("{lie}\n      0"), 1);
        let at_numbers = GATEWAY.replacen("00000002 00000002", &format!("00000002 {lie}"), 1);
        let at_communities = GATEWAY.replacen("00000002 fbf4", &format!("{lie} fbf4"), 1);
        for text in [at_segments, at_numbers, at_communities] {
            assert_ne!(text, GATEWAY);
            let row = only_row(sample(1, FLOW_START, &[record(1003, &text)]));
            assert_eq!(row.get("bgpSourceAsNumber"), "");
            assert_eq!(row.get("sflowRecord"), format!("000003eb{}", to_hex(&hex(&text))));
        }
        // A header that says that it is longer than its record is as long as that.
        let header = TCP.replacen("00000042", lie, 1);
        assert_eq!(only_row(sample(1, FLOW_START, &[record(1, &header)])).get("tcpControlBits"), "0018");
    }
}

#[test]
fn sampled_ip_alone() {
    let v4 = "00000234 00000011 c6336407 cb007109 00001388 00000035 00000000 000000b8";
    let row = only_row(sample(1, FLOW_START, &[record(3, v4), record(1002, ROUTER)]));
    assert_eq!((row.number("octetDeltaCount"), row.get("layer2OctetDeltaCount")), (Some(564), ""));
    assert_eq!((row.get("sourceIPv4Address"), row.get("protocolIdentifier")), ("c6336407", "11"));
    assert_eq!((row.get("sourceTransportPort"), row.get("ipClassOfService")), ("1388", "b8"));
    assert_eq!((row.get("tcpControlBits"), row.get("sflowRecord")), ("", ""));
    let v6 = "00000234 00000006 20010db8000000000000000000000001 20010db8000000000000000000000002
        00001388 00000035 00000012 000000b8";
    let row = only_row(sample(1, FLOW_START, &[record(4, v6), record(1002, ROUTER)]));
    assert_eq!(
        (row.get("sourceIPv6Address"), row.get("tcpControlBits")),
        ("20010db8000000000000000000000001", "0012")
    );
    assert_eq!((row.get("sourceIPv6PrefixLength"), row.get("ipNextHopIPv4Address")), ("18", "c0000202"));
    // A port that is none.
    let row = only_row(sample(1, FLOW_START, &[record(3, &v4.replace("00001388", "00011388"))]));
    assert_eq!((row.get("sourceIPv4Address"), row.get("sflowRecord").len()), ("", 72));
}

#[test]
fn a_frame_beside_its_header_fills_in_what_was_cut() {
    // The header ends behind the ports.
    let cut = hex(TCP)[..16 + 18 + 24].to_vec();
    let ip = "000005d8 00000006 c6336407 cb007109 0000d431 000001bb 00000018 000000b8";
    let ethernet = "000005ee 02005e0000020000 02005e0000010000 00000800";
    let records = [record(3, ip), record(2, ethernet), framed(1, &cut)];
    let row = only_row(sample(1, FLOW_START, &records));
    assert_eq!((row.get("tcpControlBits"), row.get("ipTTL")), ("0018", "3f"));
    assert_eq!(row.all("sflowRecord"), Vec::<&str>::new());
    // Where they disagree the header is right, and the others travel whole.
    let records =
        [record(3, &ip.replace("000000b8", "00000000")), record(2, &ethernet.replace("5ee", "5ef"))];
    let row = only_row(sample(1, FLOW_START, &[records.concat(), framed(1, &hex(TCP))]).tap(3));
    assert_eq!((row.get("ipClassOfService"), row.number("layer2OctetDeltaCount")), ("b8", Some(0x5ee)));
    assert_eq!(row.all("sflowRecord").len(), 2);
    // A frame alone; some devices leave out the pads.
    for text in [ethernet, "000005ee 02005e000002 02005e000001 00000800"] {
        let row = only_row(sample(1, FLOW_START, &[record(2, text)]));
        assert_eq!((row.number("layer2OctetDeltaCount"), row.get("ethernetType")), (Some(0x5ee), "0800"));
        assert_eq!(
            (row.get("sourceMacAddress"), row.get("destinationMacAddress")),
            ("02005e000002", "02005e000001")
        );
    }
}

/// Sets the count of a flow sample's records.
trait Tap {
    fn tap(self, count: u32) -> Vec<u8>;
}

impl Tap for Vec<u8> {
    fn tap(mut self, count: u32) -> Vec<u8> {
        self[36..40].copy_from_slice(&count.to_be_bytes());
        self
    }
}

#[test]
fn vlans_and_masks_that_are_none() {
    let switch = |text: &str| only_row(sample(1, FLOW_START, &[record(1001, text)]));
    let unknown = switch("ffffffff 00000000 00000064 ffffffff");
    assert_eq!((unknown.get("vlanId"), unknown.get("postVlanId")), ("", "0064"));
    assert_eq!((unknown.get("dstPriority"), unknown.get("sflowRecord")), ("ffffffff", ""));
    let strange = switch("00001000 00000000 00000064 00000000");
    assert_eq!((strange.get("vlanId"), strange.get("sflowRecord").len()), ("", 40));
    let row = only_row(sample(1, FLOW_START, &[record(1002, "00000001 c0000202 ffffffff 00000010")]));
    assert_eq!((row.get("ipNextHopIPv4Address"), row.get("sflowRecord").len()), ("", 40));
    let row = only_row(sample(1, FLOW_START, &[record(1002, "00000000 00000018 00000010")]));
    assert_eq!((row.get("sourceIPv4PrefixLength"), row.get("ipNextHopIPv4Address")), ("18", ""));
}

#[test]
fn translated_addresses() {
    let nat = "00000001 c0000204 00000001 c0000205";
    let row = only_row(sample(1, FLOW_START, &[record(1007, nat), record(1020, "00001388 000001bb")]));
    assert_eq!(row.get("postNATSourceIPv4Address"), "c0000204");
    assert_eq!(row.get("postNATDestinationIPv4Address"), "c0000205");
    assert_eq!(
        (row.get("postNAPTSourceTransportPort"), row.get("postNAPTDestinationTransportPort")),
        ("1388", "01bb")
    );
}

#[test]
fn what_is_not_known_travels_whole() {
    let long = "ab".repeat(300);
    let records = [record(1 << 12 | 5, "0102030405"), record(2_000, &long), record(1, TCP), record(1, TCP)];
    let row = only_row(sample(1, FLOW_START, &records));
    let second_header = format!("00000001{}", to_hex(&hex(TCP)));
    assert_eq!(row.all("sflowRecord"), ["000010050102030405", &format!("000007d0{long}"), &second_header]);
    // A header of a protocol that is not read here.
    let token_ring = "00000003 00000040 00000000 00000004 01020304";
    let row = only_row(sample(1, FLOW_START, &[record(1, token_ring)]));
    assert_eq!((row.get("headerProtocol"), row.get("layer2OctetDeltaCount")), ("00000003", "00000040"));
    assert_eq!(row.get("sflowRecord"), format!("00000001{}", token_ring.replace(' ', "")));
}

const INTERFACE: &str = "
    00000003 00000006 000000003b9aca00 00000001 00000003            # ifIndex, type, speed, direction, status
    0000000000000101 00000102 00000103 00000104 00000105 00000106 00000107
    0000000000000201 00000202 00000203 00000204 00000205 00000206
    00000002
";

#[test]
fn counters_have_columns() {
    let ethernet: String = (1..=13).map(|number| format!("{number:08x}")).collect();
    let vlan = "00000064 0000000000000001 00000002 00000003 00000004 00000005";
    let processor = "000005aa 0000055a 00000532 00000000e78d7000 0000000055e77000";
    let records = [
        record(1, INTERFACE),
        record(2, &ethernet),
        record(5, vlan),
        record(1_001, processor),
        record(2_001, "00000000"),
        record(1, INTERFACE),
    ];
    for (format, start) in [(2, "00000009 01000064"), (4, "00000009 00000001 00000064")] {
        let got = decode(&datagram(&[sample(format, start, &records)])).unwrap();
        assert_eq!((got.sets, got.samples[0].4), (1, None));
        let row = &got.rows[0];
        assert_eq!((row.kind, row.rate), (RecordKind::CounterSample, 0));
        assert_eq!(got.runs[0].sampling_source, SamplingSource::Unknown);
        for (name, number) in [
            ("sampleSequence", 9),
            ("sourceIdClass", 1),
            ("sourceIdIndex", 100),
            ("ifIndex", 3),
            ("ifSpeed", 1_000_000_000),
            ("ifStatus", 3),
            ("ifInOctets", 0x101),
            ("ifInUnknownProtos", 0x107),
            ("ifOutOctets", 0x201),
            ("ifOutErrors", 0x206),
            ("ifPromiscuousMode", 2),
            ("dot3StatsAlignmentErrors", 1),
            ("dot3StatsSymbolErrors", 13),
            ("vlanId", 100),
            ("octets", 1),
            ("discards", 5),
            ("cpu5s", 0x5aa),
            ("freeMemory", 0x55e7_7000),
        ] {
            assert_eq!(row.number(name), Some(number), "{name}");
        }
        assert_eq!(
            row.all("sflowRecord"),
            ["000007d100000000", &format!("00000001{}", to_hex(&hex(INTERFACE)))]
        );
    }
}

#[test]
fn drops_have_a_reason() {
    let start = "
        0000000b 00000000 00000003      # drop 11 of ifIndex 3
        00000001 00000003 00000000      # 1 lost, from interface 3
        00000102                        # an access list
    ";
    let got =
        decode(&datagram(&[sample(5, start, &[record(1, TCP), record(1_037, "0000000161626300 00000001")])]))
            .unwrap();
    assert_eq!((got.samples[0].0, got.samples[0].4), (RecordKind::DropSample, Some(1)));
    let row = &got.rows[0];
    assert_eq!((row.kind, row.rate), (RecordKind::DropSample, 0));
    assert_eq!((row.number("reason"), row.number("forwardingStatus")), (Some(258), Some(130)));
    assert_eq!((row.number("drops"), row.get("ingressInterface")), (Some(1), "00000003"));
    assert_eq!(
        (row.number("droppedPacketDeltaCount"), row.number("droppedOctetDeltaCount")),
        (Some(1), Some(0x5d8))
    );
    assert_eq!((row.get("packetDeltaCount"), row.get("octetDeltaCount")), ("", ""));
    assert_eq!((row.get("tcpControlBits"), row.all("sflowRecord").len()), ("0018", 1));
}

#[test]
fn agents_of_every_family() {
    let head = |agent: &str| {
        [hex(&format!("00000005 {agent} 00000007 0000002a 000003e8 00000001")), tcp_sample()].concat()
    };
    let v6 = decode(&head("00000002 20010db8000000000000000000000001")).unwrap();
    assert_eq!(v6.rows[0].get("exporterIPv6Address"), "20010db8000000000000000000000001");
    let unknown = decode(&head("00000000")).unwrap();
    assert_eq!((unknown.rows[0].get("exporterIPv4Address"), unknown.sets), ("", 1));
    assert_eq!(decode(&head("00000003 c0000201")).unwrap_err(), Fault::AgentAddress);
    assert_eq!(decode(&hex("00000004 00000001 c0000201")).unwrap_err(), Fault::UnknownVersion);
}

#[test]
fn samples_of_one_shape_are_handed_over_at_once() {
    let other = sample(1, FLOW_START, &[record(1001, SWITCH)]);
    let faster = sample(1, &FLOW_START.replace("00000400", "00000200"), &[record(1001, SWITCH)]);
    let got =
        decode(&datagram(&[tcp_sample(), tcp_sample(), tcp_sample(), other, faster, tcp_sample()])).unwrap();
    assert_eq!((got.rows.len(), got.calls, got.sets), (6, 4, 6));
    assert_eq!(
        got.rows.iter().map(|row| row.rate).collect::<Vec<_>>(),
        [1_024, 1_024, 1_024, 1_024, 512, 1_024]
    );
    assert_eq!(got.rows[0], got.rows[5]);
    assert_eq!(got.rows[3].get("tcpControlBits"), "");
    // Rows of varying length too.
    let whole = |text: &str| sample(1, FLOW_START, &[record(2_000, text)]);
    let got = decode(&datagram(&[whole("01"), whole("020304"), whole("")])).unwrap();
    let records: Vec<&str> = got.rows.iter().map(|row| row.get("sflowRecord")).collect();
    assert_eq!((records, got.calls), (vec!["000007d001", "000007d0020304", "000007d0"], 1));
}

#[test]
fn unknown_samples_are_skipped_and_are_no_fault() {
    let vendor = framed(4_300 << 12 | 1_002, &[0xab; 12]);
    let got = decode(&datagram(&[vendor, framed(9, &[]), tcp_sample()])).unwrap();
    assert_eq!((got.unknown, got.sets, got.rows.len(), got.faults.len()), (2, 1, 1, 0));
}

/// Where a fault is: (offset, bytes).
fn places(got: &Got) -> Vec<(Fault, usize, usize)> {
    got.faults.iter().map(|(fault, place)| (*fault, place.offset, place.bytes)).collect()
}

#[test]
fn samples_that_say_too_much() {
    let good = tcp_sample();
    let mut long = datagram(&[good.clone(), good.clone()]);
    let second = 28 + good.len();
    long[second + 4..second + 8].copy_from_slice(&u32::MAX.to_be_bytes());
    let got = decode(&long).unwrap();
    assert_eq!((got.rows.len(), got.sets), (2, 1), "what is there of the second is taken");
    assert_eq!(places(&got), [(Fault::SampleLength, second + 8, good.len() - 8)]);
    // An unknown one.
    let mut unknown = datagram(&[framed(9, &[1, 2, 3, 4])]);
    unknown[32..36].copy_from_slice(&5u32.to_be_bytes());
    let got = decode(&unknown).unwrap();
    assert_eq!((places(&got), got.unknown), (vec![(Fault::SampleLength, 36, 4)], 0));
    // One that ends inside its own fields.
    let got = decode(&datagram(&[framed(1, &[0; 31]), good.clone()])).unwrap();
    assert_eq!((places(&got), got.sets), (vec![(Fault::SampleRecord, 36, 31)], 1));
}

/// XDR aligns to four bytes what is of any length (RFC 4506 4.10).
#[test]
fn records_aligned_to_four_bytes_do_not_hide_those_behind_them() {
    let odd = |padding: usize| [framed(0x0113_d004, &[1; 6]), vec![0; padding]].concat();
    for padding in [0, 2] {
        let got = decode(&datagram(&[sample(1, FLOW_START, &[odd(padding), record(1001, SWITCH)])])).unwrap();
        let records: Vec<u32> = got.samples[0].5.iter().map(|record| record.0).collect();
        assert_eq!((records, &got.faults[..]), (vec![0x0113_d004, 1001], &[][..]), "{padding}");
        assert_eq!(got.rows[0].number("vlanId"), Some(100));
    }
}

/// A record of one byte and three zeros before a raw header: those zeros would begin a record of no format.
#[test]
fn padding_is_no_record_of_format_0() {
    let odd = [framed(0x0113_d004, &[1; 5]), vec![0; 3]].concat();
    let records = [odd, record(1, TCP), record(0x0113_d004, &"00".repeat(300))];
    let got = decode(&datagram(&[sample(1, FLOW_START, &records)])).unwrap();
    let found: Vec<u32> = got.samples[0].5.iter().map(|record| record.0).collect();
    assert_eq!((found, &got.faults[..]), (vec![0x0113_d004, 1, 0x0113_d004], &[][..]));
}

#[test]
fn samples_aligned_to_four_bytes_do_not_hide_those_behind_them() {
    let vendor = 4_300 << 12 | 1_002;
    let odd = |bytes: usize, padding: usize| [framed(vendor, &vec![1; bytes]), vec![0; padding]].concat();
    for (bytes, padding) in [(5, 0), (5, 3), (6, 2), (7, 1), (7, 0)] {
        let samples = [odd(bytes, padding), odd(bytes, padding), tcp_sample(), odd(bytes, padding)];
        let got = decode(&datagram(&samples)).unwrap();
        assert_eq!((got.unknown, got.sets, &got.faults[..]), (3, 1, &[][..]), "{bytes} and {padding}");
    }
    // One of a known kind, whose last record is odd.
    let known =
        |padding: usize| [sample(1, FLOW_START, &[framed(0x0113_d004, &[1; 5])]), vec![0; padding]].concat();
    for padding in [0, 3] {
        let got = decode(&datagram(&[known(padding), tcp_sample()])).unwrap();
        assert_eq!((got.sets, got.rows.len(), &got.faults[..]), (2, 2, &[][..]), "{padding}");
    }
}

#[test]
fn records_that_say_too_much() {
    let switch = record(1001, SWITCH);
    let mut long = sample(1, FLOW_START, &[switch.clone(), switch.clone()]);
    let second = 8 + 32 + switch.len();
    long[second + 4..second + 8].copy_from_slice(&u32::MAX.to_be_bytes());
    let got = decode(&datagram(&[long, tcp_sample()])).unwrap();
    assert_eq!((got.rows.len(), got.sets), (2, 1), "the first record and the next sample are taken");
    assert_eq!(places(&got), [(Fault::SampleRecord, 28 + second, switch.len())]);
    assert_eq!(got.samples[0].5.len(), 1);
    // More records than there are.
    for count in [3, u32::MAX] {
        let got = decode(&datagram(&[sample(1, FLOW_START, &[switch.clone(), switch.clone()]).tap(count)]))
            .unwrap();
        assert_eq!((got.rows.len(), got.sets), (1, 0));
        assert_eq!(places(&got), [(Fault::SampleRecord, 28 + 8 + 32 + 48, 0)]);
    }
    // Not one record that is whole: no row is made up.
    let got = decode(&datagram(&[sample(1, FLOW_START, &[vec![0; 7]])])).unwrap();
    assert_eq!((got.rows.len(), places(&got)), (0, vec![(Fault::SampleRecord, 68, 7)]));
    // Fewer than there are: the others are not read.
    let got = decode(&datagram(&[sample(1, FLOW_START, &[switch.clone(), switch]).tap(1)])).unwrap();
    assert_eq!((got.sets, got.faults.len(), got.samples[0].5.len()), (1, 0, 1));
}

#[test]
fn more_records_than_are_kept() {
    let records = vec![record(2_000, ""); super::rows::MAX_WHOLE + 1];
    let got = decode(&datagram(&[sample(1, FLOW_START, &records)])).unwrap();
    assert_eq!(got.rows[0].all("sflowRecord").len(), super::rows::MAX_WHOLE);
    assert_eq!((got.sets, places(&got)[0].0), (0, Fault::SampleRecord));
}

#[test]
fn headers_that_count_wrong() {
    let mut bytes = datagram(&[tcp_sample(), tcp_sample()]);
    for count in [3, u32::MAX] {
        bytes[24..28].copy_from_slice(&count.to_be_bytes());
        let got = decode(&bytes).unwrap();
        assert_eq!((got.rows.len(), places(&got)), (2, vec![(Fault::Count, bytes.len(), 0)]));
    }
    bytes[24..28].copy_from_slice(&1u32.to_be_bytes());
    let got = decode(&bytes).unwrap();
    let sample = tcp_sample().len();
    assert_eq!((got.rows.len(), places(&got)), (1, vec![(Fault::Count, 28 + sample, sample)]));
    // Zeros behind the last are padding.
    let got = decode(&[datagram(&[tcp_sample()]), vec![0; 20]].concat()).unwrap();
    assert_eq!((got.rows.len(), got.faults.len()), (1, 0));
}

#[test]
fn lengths_that_devices_get_wrong() {
    // The sample's length is 4 too high.
    let switch = sample(1, FLOW_START, &[record(1001, SWITCH)]);
    let mut high = [switch.clone(), vec![1, 2, 3, 4]].concat();
    high[4..8].copy_from_slice(&60u32.to_be_bytes());
    let got = decode(&datagram(&[high, switch.clone()])).unwrap();
    assert_eq!((got.sets, got.faults.len()), (2, 0));
    // It is 4 too low: before another sample, and at the datagram's end.
    let mut low = switch.clone();
    low[4..8].copy_from_slice(&52u32.to_be_bytes());
    let got = decode(&datagram(&[low.clone(), switch.clone(), low.clone()])).unwrap();
    assert_eq!((got.sets, got.faults.len(), got.calls), (3, 0, 1));
    assert_eq!(got.samples[0].5, got.samples[1].5);
    // A record whose length is too low stands before another, and last.
    let mut switch = record(1001, SWITCH);
    switch[4..8].copy_from_slice(&6u32.to_be_bytes());
    let row = only_row(sample(3, EXPANDED_START, &[switch.clone(), record(1, TCP)]));
    assert_eq!((row.get("postVlanId"), row.get("tcpControlBits")), ("00c8", "0018"));
    let row = only_row(sample(3, EXPANDED_START, &[record(1, TCP), switch]));
    assert_eq!((row.get("postVlanId"), row.get("tcpControlBits")), ("00c8", "0018"));
    // A frame shorter than what was sampled of it.
    let row = only_row(sample(1, FLOW_START, &[record(1, &TCP.replacen("000005ee", "0000000c", 1))]));
    assert_eq!((row.number("layer2OctetDeltaCount"), row.get("tcpControlBits")), (Some(12), "0018"));
}

#[test]
fn each_source_counts_its_samples() {
    let mut decoder = Decoder::new(Settings::default());
    let mut datagrams: BTreeMap<String, u32> = BTreeMap::new();
    let mut send = |agent: &str, samples: &[Vec<u8>]| {
        let mut bytes = datagram(samples);
        bytes[8..12].copy_from_slice(&hex(agent));
        let of_agent = datagrams.entry(agent.to_owned()).or_default();
        bytes[16..20].copy_from_slice(&of_agent.to_be_bytes());
        *of_agent += 1;
        let mut got = Got::default();
        decoder.datagram(&arrival(), &bytes, &mut got).unwrap();
        got.steps
    };
    let flow = |sequence: &str, source: &str| {
        let start = FLOW_START.replacen("00000064 00000003", &format!("{sequence} {source}"), 1);
        sample(1, &start, &[record(1001, SWITCH)])
    };
    let counters = |sequence: &str| sample(2, &format!("{sequence} 00000003"), &[record(1, INTERFACE)]);
    let (one, two) = ("c0000201", "c0000202");
    let first = [flow("00000064", "00000003"), flow("00000007", "00000004"), counters("00000001")];
    assert_eq!(send(one, &first), []);
    assert_eq!(send(one, &[flow("00000065", "00000003"), flow("00000008", "00000004")]), []);
    // Two samples of one source and a counter sample are missing; another agent counts for itself.
    assert_eq!(send(two, &[flow("00000065", "00000003")]), []);
    let steps = send(one, &[flow("00000068", "00000003"), counters("00000003")]);
    assert_eq!(steps, [(Unit::Samples, Step::Gap(3))]);
    assert_eq!(send(one, &[flow("00000066", "00000003")]), [(Unit::Samples, Step::Late(1))]);
    // What is there twice, and a new start, is the datagrams' to tell.
    assert_eq!(send(one, &[flow("00000068", "00000003"), flow("00000001", "00000004")]), []);
}

/// One datagram with every kind of sample.
fn everything() -> Vec<u8> {
    let drop = "0000000b 00000000 00000003 00000001 00000003 00000000 00000102";
    let ip = "00000234 00000011 c6336407 cb007109 00001388 00000035 00000000 000000b8";
    datagram(&[
        tcp_sample(),
        sample(3, EXPANDED_START, &[record(1, TCP), record(1003, GATEWAY), record(3, ip)]),
        sample(2, "00000009 01000064", &[record(1, INTERFACE), record(2_000, "01020304")]),
        framed(4_300 << 12 | 1_002, &[0xab; 12]),
        sample(5, drop, &[record(1, TCP)]),
    ])
}

#[test]
fn every_shorter_prefix() {
    let bytes = everything();
    let whole = decode(&bytes).unwrap();
    assert_eq!((whole.rows.len(), whole.sets, whole.unknown, whole.faults.len()), (4, 4, 1, 0));
    for end in 0..bytes.len() {
        match decode(&bytes[..end]) {
            Err(fault) => assert_eq!((fault, end < 28), (Fault::ShortHeader, true), "{end} bytes"),
            Ok(got) => {
                assert!(!got.faults.is_empty(), "{end} bytes without a fault");
                assert!(got.rows.len() <= whole.rows.len());
                let whole_rows = got.sets.min(got.rows.len());
                assert_eq!(got.rows[..whole_rows], whole.rows[..whole_rows], "{end} bytes");
            }
        }
    }
}

#[test]
fn mutations_neither_panic_nor_grow() {
    let mut rng = StdRng::seed_from_u64(5);
    let good = everything();
    let mut decoder = Decoder::new(Settings::default());
    for _ in 0..4_000 {
        let mut bytes = good.clone();
        for _ in 0..rng.random_range(1..6) {
            // The version stays.
            let at = rng.random_range(4..bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, rng.random()][rng.random_range(0..6usize)];
        }
        let mut got = Got::default();
        if decoder.datagram(&arrival(), &bytes, &mut got).is_ok() {
            assert_eq!(got.rows.len(), got.samples.len());
            assert!(got.rows.len() <= 40, "no more samples than there are bytes for");
        }
    }
}
