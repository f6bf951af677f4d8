//! `flowproxy decode` as a process: captures of every form in, lines, text and exit codes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::corpus::corpus;
use support::datagrams::{self, Flow, numbered, v5, v9_flows};
use support::frames::{self, cooked, cooked_2, ethernet, ipv4, ipv6, pcap, pcapng};
use support::process::{find_tool, flowproxy, flowproxy_command, run_tool};
use support::rig::Rig;
use support::{loopback_socket, note, skipped, wait_until};

const ETHERNET: u32 = 1;
const RAW: u32 = 101;
const COOKED: u32 = 113;
const COOKED_2: u32 = 276;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let file = self.0.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// What `decode` printed, line by line.
fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The lines of a file that is read whole.
fn decode(file: &str) -> Vec<Value> {
    let output = flowproxy(&["decode", "--format", "json", "--raw", file]);
    assert!(output.status.success() && output.stderr.is_empty(), "{file}: {output:?}");
    lines(&output)
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// The octets of every data record: the flows' numbers.
fn octets(lines: &[Value]) -> Vec<u64> {
    of_kind(lines, "data").iter().map(|line| line["fields"]["octetDeltaCount"].as_u64().unwrap()).collect()
}

fn flows(numbers: std::ops::Range<u32>) -> Vec<Flow> {
    numbers.map(Flow::numbered).collect()
}

/// Three datagrams, of v5, v9 and IPFIX, with the flows 1 to 89.
fn three() -> Vec<Vec<u8>> {
    numbered(1, 90, 30)
}

#[test]
fn every_file_and_link_layer_gives_the_same() {
    let files = Files::new();
    let all =
        |wrap: &dyn Fn(&[u8]) -> Vec<u8>| three().iter().map(|datagram| wrap(datagram)).collect::<Vec<_>>();
    let v4 = all(&|datagram| ethernet(&[], &ipv4(datagram)));
    let raw = all(&|datagram| ipv6(datagram));
    let mixed: Vec<_> = [(0, v4[0].clone()), (1, raw[1].clone()), (0, v4[2].clone())].into();
    let expected: Vec<u64> = (1..90).collect();
    for (name, bytes) in [
        ("ethernet.pcap", pcap(ETHERNET, &v4)),
        ("vlan.pcap", pcap(ETHERNET, &all(&|datagram| ethernet(&[(0x8100, 7)], &ipv4(datagram))))),
        (
            "qinq.pcap",
            pcap(ETHERNET, &all(&|datagram| ethernet(&[(0x88a8, 7), (0x8100, 9)], &ipv6(datagram)))),
        ),
        ("cooked.pcap", pcap(COOKED, &all(&|datagram| cooked(&ipv4(datagram))))),
        ("cooked_2.pcap", pcap(COOKED_2, &all(&|datagram| cooked_2(&ipv6(datagram))))),
        ("raw.pcap", pcap(RAW, &raw)),
        ("mixed.pcapng", pcapng(&[ETHERNET as u16, RAW as u16], &mixed)),
    ] {
        let lines = decode(&files.write(name, &bytes));
        assert_eq!(octets(&lines), expected, "{name}");
        let numbers: Vec<_> = of_kind(&lines, "data").iter().map(|line| line["datagram"].clone()).collect();
        let wanted: Vec<_> = (1..90).map(|number| json!((number - 1) / 30 + 1)).collect();
        assert_eq!(numbers, wanted, "{name}");
        assert_eq!(of_kind(&lines, "template").len(), 2, "{name}");
    }
}

#[test]
fn lines_say_what_the_contract_says() {
    let files = Files::new();
    let file = files.write("one.pcap", &pcap(RAW, &[ipv4(&v9_flows(5, &flows(7..8)))]));
    let lines = decode(&file);
    let sender = json!({"datagram": 1, "exporter": "192.0.2.1", "port": 50_000, "protocol": "netflow-v9", "domain": 7, "template": 256});
    let with = |more: Value| {
        let mut line = sender.clone();
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let fields = json!([
        [8, 0, 4],
        [12, 0, 4],
        [7, 0, 2],
        [11, 0, 2],
        [4, 0, 1],
        [2, 0, 4],
        [1, 0, 4],
        [22, 0, 4],
        [21, 0, 4]
    ]);
    assert_eq!(lines[0], with(json!({"kind": "template", "fields": fields})));
    let raw = json!([
        [8, 0, "c6120007"],
        [12, 0, "c6336407"],
        [7, 0, "01bb"],
        [11, 0, "c3cb"],
        [4, 0, "06"],
        [2, 0, "00000008"],
        [1, 0, "00000007"],
        [22, 0, "0036daf8"],
        [21, 0, "0036ea98"]
    ]);
    assert_eq!(lines[1]["raw"], raw);
    assert_eq!(lines[1]["fields"]["sourceIPv4Address"], "198.18.0.7");
    assert_eq!(lines[1]["fields"]["flowEndMilliseconds"], 1_795_442_399_000_u64);
    assert_eq!(lines[1]["fields"]["timeQuality"], "header");
    let without: serde_json::Map<_, _> = lines[1]
        .as_object()
        .unwrap()
        .clone()
        .into_iter()
        .filter(|(key, _)| key != "raw" && key != "fields")
        .collect();
    assert_eq!(Value::Object(without), with(json!({"kind": "data"})));
    assert_eq!(lines.len(), 2);
    let output = flowproxy(&["decode", "--format", "json", &file]);
    assert!(self::lines(&output).iter().all(|line| line.get("raw").is_none()));
}

#[test]
fn options_and_withdrawals_are_templates_too() {
    let files = Files::new();
    let options_template =
        datagrams::Bytes::default().u16(300).u16(2).u16(1).u16(10).u16(4).u16(82).u16(65_535).0;
    let record = datagrams::Bytes::default().u32(9).u8(3).raw(b"eth").0;
    let sets = [datagrams::set(3, &options_template), datagrams::set(300, &record)];
    let withdrawal = datagrams::set(3, &datagrams::Bytes::default().u16(300).u16(0).0);
    let messages = [datagrams::ipfix(0, 1, &sets), datagrams::ipfix(1, 1, &[withdrawal])];
    let lines = decode(&files.write("options.ipfix", &messages.concat()));
    let [template, options, withdrawn] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&template["kind"], &template["scope"]), (&json!("options_template"), &json!([[10, 0, 4]])));
    assert_eq!(template["fields"], json!([[82, 0, 65_535]]));
    assert_eq!(
        (&options["kind"], &options["raw"]),
        (&json!("options"), &json!([[10, 0, "00000009"], [82, 0, "657468"]]))
    );
    assert_eq!((&withdrawn["kind"], &withdrawn["template"]), (&json!("options_template"), &json!(300)));
    assert_eq!((&withdrawn["fields"], &withdrawn["datagram"]), (&json!([]), &json!(2)));
    assert_eq!((&options["exporter"], &options["port"]), (&json!("0.0.0.0"), &json!(0)));
}

#[test]
fn fragments_are_put_together() {
    let files = Files::new();
    let [first, second, third] = three().try_into().unwrap();
    let mut packets = frames::ipv4_fragments(1, &first, 512);
    let of_second = frames::ipv6_fragments(1, &second, 256);
    packets.extend(of_second.into_iter().rev());
    packets.extend(frames::ipv4_fragments(2, &third, 512));
    let whole = decode(&files.write("fragments.pcap", &pcap(RAW, &packets)));
    assert_eq!(octets(&whole), (1..90).collect::<Vec<_>>());
    packets.pop();
    let file = files.write("missing.pcap", &pcap(RAW, &packets));
    assert_eq!(octets(&decode(&file)), (1..61).collect::<Vec<_>>());
    let output = flowproxy(&["decode", "--summary", "--format", "json", &file]);
    let summary = lines(&output).pop().unwrap();
    assert_eq!((&summary["reassembled"], &summary["incomplete"]), (&json!(2), &json!(1)), "{summary}");
}

#[test]
fn a_cut_file_shows_all_before_and_exits_1() {
    let files = Files::new();
    let packets: Vec<_> = three().iter().map(|datagram| ipv4(datagram)).collect();
    let whole = pcap(RAW, &packets);
    let cut = &whole[..whole.len() - 10];
    let file = files.write("cut.pcap", cut);
    let output = flowproxy(&["decode", "--format", "json", &file]);
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    assert_eq!(octets(&lines), (1..61).collect::<Vec<_>>());
    let fault = lines.last().unwrap();
    let offset = whole.len() - packets[2].len() - 16;
    assert_eq!(
        (&fault["kind"], &fault["reason"], &fault["offset"]),
        (&json!("fault"), &json!("file_ended"), &json!(offset))
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with(&format!("{file}: at byte {offset}: the file ends inside a packet; ")),
        "{errors}"
    );
    let output = flowproxy(&["decode", &file]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().last().unwrap().starts_with("fault: "), "{text}");
}

#[test]
fn a_packet_that_the_capture_cut_is_told() {
    let files = Files::new();
    let mut packet = ipv4(&v9_flows(1, &flows(1..4)));
    let mut bytes = pcap(RAW, &[packet.clone()]);
    packet.truncate(packet.len() - 10);
    bytes.truncate(bytes.len() - 10);
    bytes[32..36].copy_from_slice(&(packet.len() as u32).to_be_bytes());
    let lines = decode(&files.write("snap.pcap", &bytes));
    let reasons: Vec<_> = of_kind(&lines, "fault").iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["cut", "set_length"]);
    assert_eq!(of_kind(&lines, "template").len(), 1);
}

#[test]
fn held_data_keeps_its_number_and_what_is_left_is_a_fault() {
    let files = Files::new();
    let whole = v9_flows(0, &flows(1..3));
    // Its template set: header of 4 and 9 fields of 4 bytes.
    let template_bytes = 4 + 4 + 9 * 4;
    let data = [&whole[..20], &whole[20 + template_bytes..]].concat();
    let other = datagrams::v9(3, 7, 1, &[datagrams::set(400, &[1; 8])]);
    let packets: Vec<_> = [&data, &other, &data, &whole].iter().map(|datagram| ipv4(datagram)).collect();
    let file = files.write("late.pcap", &pcap(RAW, &packets));
    let lines = decode(&file);
    let numbers: Vec<_> =
        of_kind(&lines, "data").iter().map(|line| line["datagram"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 1, 3, 3, 4, 4]);
    let faults = of_kind(&lines, "fault");
    assert_eq!(faults.len(), 1);
    let fault = faults[0];
    assert_eq!(
        (&fault["datagram"], &fault["reason"], &fault["offset"]),
        (&json!(2), &json!("no_template"), &json!(24))
    );
    assert_eq!((&fault["protocol"], &fault["domain"]), (&json!("netflow-v9"), &json!(7)));
    let text = String::from_utf8(flowproxy(&["decode", &file]).stdout).unwrap();
    assert!(text.contains("  data, template 256 of datagram 1, held until now\n"), "{text}");
}

#[test]
fn each_file_starts_anew() {
    let files = Files::new();
    let whole = v9_flows(0, &flows(1..3));
    let data = [&whole[..20], &whole[20 + 44..]].concat();
    let one = files.write("one.pcap", &pcap(RAW, &[ipv4(&whole)]));
    let two = files.write("two.pcap", &pcap(RAW, &[ipv4(&data)]));
    let output = flowproxy(&["decode", "--format", "json", &one, "no-such-file", &two]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no-such-file: "), "{output:?}");
    let lines = lines(&output);
    let facts: Vec<_> = lines
        .iter()
        .map(|line| [line["file"].clone(), line["kind"].clone(), line["datagram"].clone()])
        .collect();
    let expected = json!([
        [one, "template", 1],
        [one, "data", 1],
        [one, "data", 1],
        ["no-such-file", "fault", null],
        [two, "fault", 1]
    ]);
    assert_eq!(json!(facts), expected);
}

#[test]
fn standard_input_is_read_and_other_datagrams_are_told() {
    let mut other = ipv4(b"no flow at all");
    other[20..24].copy_from_slice(&[0xc3, 0x50, 0, 53]);
    let packets = [other, ipv4(&v5(1, &flows(1..3)))];
    let file = pcap(RAW, &packets);
    let mut child = flowproxy_command()
        .args(["decode", "--summary", "--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // In small pieces, as a pipe may give them.
    for piece in file.chunks(7) {
        input.write_all(piece).unwrap();
        input.flush().unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = lines(&output);
    let [row, file] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&row["exporter"], &row["records"], &row["datagrams"]),
        (&json!("192.0.2.1"), &json!(2), &json!(1))
    );
    assert_eq!((&row["protocol"], &row["domain"]), (&json!("netflow-v5"), &json!(258)));
    assert_eq!(row["sampling"], json!([{"rate": 100.0, "source": "header", "records": 2}]));
    assert_eq!(
        (&file["flowDatagrams"], &file["otherUdp"], &file["packets"]),
        (&json!(1), &json!(1), &json!(2))
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let files = Files::new();
    let packets: Vec<_> = numbered(1, 30_000, 30).iter().map(|datagram| ipv4(datagram)).collect();
    let file = files.write("long.pcap", &pcap(RAW, &packets));
    let mut child = flowproxy_command()
        .args(["decode", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn what_cannot_be_used_is_told() {
    let files = Files::new();
    assert_eq!(flowproxy(&["decode"]).status.code(), Some(2));
    assert_eq!(flowproxy(&["decode", "--format", "xml", "f"]).status.code(), Some(2));
    let text = files.write("text", b"not a capture");
    let output = flowproxy(&["decode", &text]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        errors,
        format!("{text}: neither pcap nor pcapng nor IPFIX messages: it begins with 6e6f7420\n")
    );
    let folder = files.0.path().to_str().unwrap();
    let errors = String::from_utf8(flowproxy(&["decode", folder]).stderr).unwrap();
    assert_eq!(errors, format!("{folder}: is a folder, not a file\n"));
}

#[test]
fn text_is_for_people() {
    let files = Files::new();
    let template = datagrams::template(256, &[(8, 4), (1, 4), (82, 6), (152, 8), (56_701, 4)]);
    let record = datagrams::Bytes::default().raw(&[198, 51, 100, 7]).u32(9_340).raw(b"a\x1b[2J\0");
    let record = record.u64(1_795_442_400_123).raw(b"dns\0").0;
    let sets = [datagrams::set(0, &template), datagrams::set(256, &record), datagrams::set(77, &[0; 4])];
    let file = files.write("f.pcap", &pcap(RAW, &[ipv4(&datagrams::v9(1, 7, 3, &sets))]));
    let text = String::from_utf8(flowproxy(&["decode", &file]).stdout).unwrap();
    let expected = "\
datagram 1  192.0.2.1:50000 > 198.51.100.1:2055  2026-11-23T14:00:01.000Z  netflow-v9 domain 7  86 bytes
  template 256, 5 fields
    sourceIPv4Address           8  4
    octetDeltaCount             1  4
    interfaceName              82  6
    flowStartMilliseconds     152  8
    netflow9:paloAltoAppId  56701  4
  data, template 256
    sourceIPv4Address       198.51.100.7
    octetDeltaCount         9340
    interfaceName           a\\u{1b}[2J
    flowStartMilliseconds   2026-11-23T14:00:00.123Z
    netflow9:paloAltoAppId  dns
  fault at byte 82: the set's id is reserved (reserved_set, 4 bytes)
";
    assert_eq!(text, expected);
}

/// What `decode` shows of a record is what the collector writes of it, beside what belongs to its datagram.
#[test]
fn fields_are_those_of_the_collector() {
    const RUN_KEYS: [&str; 9] = [
        "exporter",
        "exporterPort",
        "protocol",
        "kind",
        "observationDomainId",
        "templateId",
        "receivedAt",
        "exportedAt",
        "sequence",
    ];
    let (rig, files) = (Rig::new(), Files::new());
    let (collector, proxy) = (rig.jsonl_collector(), rig.proxy());
    let datagrams: Vec<_> =
        (0..3).map(|place| datagrams::v9_router(place, place * 20..place * 20 + 20)).chain(three()).collect();
    let socket = loopback_socket();
    for datagram in &datagrams {
        socket.send_to(datagram, proxy.udp()).unwrap();
    }
    wait_until("all records at the far end", || rig.records().len() == 60 + 89);
    let packets: Vec<_> = datagrams.iter().map(|datagram| ipv4(datagram)).collect();
    let decoded = decode(&files.write("f.pcap", &pcap(RAW, &packets)));
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    for line in of_kind(&decoded, "data") {
        *balance.entry(line["fields"].to_string()).or_default() += 1;
    }
    for mut record in rig.records() {
        record.as_object_mut().unwrap().retain(|key, _| !RUN_KEYS.contains(&key.as_str()));
        *balance.entry(record.to_string()).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    assert_eq!(balance, BTreeMap::new());
    assert!(proxy.process.terminate().success());
    assert!(collector.process.terminate().success());
}

/// tshark finds the same flows in the same captures, whatever they are wrapped in.
#[test]
fn tshark_reads_the_same() {
    const TEST: &str = "tshark_reads_the_same";
    let Some(tshark) = find_tool("tshark") else { return skipped(TEST, "tshark is not installed") };
    let files = Files::new();
    let datagrams = numbered(1, 271, 30);
    let mut frames: Vec<(u32, Vec<u8>)> = Vec::new();
    for (place, datagram) in datagrams.iter().enumerate() {
        match place % 3 {
            0 => frames.extend(
                frames::ipv4_fragments(place as u16, datagram, 512)
                    .into_iter()
                    .map(|part| (0, ethernet(&[(0x8100, 7)], &part))),
            ),
            1 => frames.extend(
                frames::ipv6_fragments(place as u32, datagram, 256).into_iter().rev().map(|part| (1, part)),
            ),
            _ => frames.push((2, cooked(&ipv4(datagram)))),
        }
    }
    let file = files.write("f.pcapng", &pcapng(&[ETHERNET as u16, RAW as u16, COOKED as u16], &frames));
    let fields = ["-T", "fields", "-e", "cflow.octets", "-E", "occurrence=a"];
    let text = run_tool(
        Command::new(tshark)
            .args(["-n", "-r", &file, "-d", "udp.port==2055,cflow", "-Y", "cflow"])
            .args(fields),
    );
    let theirs: Vec<u64> = text.split([',', '\n']).filter_map(|octets| octets.trim().parse().ok()).collect();
    assert_eq!(octets(&decode(&file)), theirs);
    assert_eq!(theirs, (1..271).collect::<Vec<_>>());
}

/// Captures of real exporters: what we find is what tshark found, but for cases in which tshark is wrong.
#[test]
fn the_corpus_compares() {
    const TEST: &str = "the_corpus_compares";
    let Some(script) = corpus().map(|folder| folder.join("compare.py")).filter(|script| script.is_file())
    else {
        return note(&format!("skipped: {TEST}: no $FLOWPROXY_CORPUS or ../shared/corpus"));
    };
    let Some(python) = find_tool("python3") else { return skipped(TEST, "python3 is not installed") };
    let exceptions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-exceptions.json");
    let output = Command::new(python)
        .arg(script)
        .args([PathBuf::from(env!("CARGO_BIN_EXE_flowproxy")), "--exceptions".into(), exceptions])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
