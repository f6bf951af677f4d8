//! `flowproxy decode` as a process: captures of every form in, lines, text and exit codes out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};
use support::PATIENCE;
use support::captures::{
    COOKED, COOKED_2, ETHERNET, Files, RAW, decode, flows, lines, octets, of_kind, three,
};
use support::datagrams::{self, Bytes, numbered, v5, v9_flows};
use support::frames::{self, cooked, cooked_2, ethernet, ipv4, ipv6, pcap, pcapng};
use support::process::{flowproxy, flowproxy_command};

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
    assert!(support::captures::lines(&output).iter().all(|line| line.get("raw").is_none()));
}

#[test]
fn options_and_withdrawals_are_templates_too() {
    let files = Files::new();
    let options_template = Bytes::default().u16(300).u16(2).u16(1).u16(10).u16(4).u16(82).u16(65_535).0;
    let record = Bytes::default().u32(9).u8(3).raw(b"eth").0;
    let sets = [datagrams::set(3, &options_template), datagrams::set(300, &record)];
    let withdrawal = datagrams::set(3, &Bytes::default().u16(300).u16(0).0);
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

/// A file is a stream whose order is sure.
#[test]
fn withdrawals_in_ipfix_files_take_effect() {
    let files = Files::new();
    let template = |fields: &[(u16, u16)]| datagrams::set(2, &datagrams::template(256, fields));
    let withdrawal = datagrams::set(2, &Bytes::default().u16(256).u16(0).0);
    let data = datagrams::set(256, &[6; 4]);
    let messages = [
        datagrams::ipfix(0, 1, &[template(&[(8, 4)]), withdrawal]),
        datagrams::ipfix(0, 1, &[data]),
        datagrams::ipfix(4, 1, &[template(&[(4, 1)])]),
    ];
    let lines = decode(&files.write("withdrawn.ipfix", &messages.concat()));
    let records = of_kind(&lines, "data");
    assert_eq!(records.len(), 4, "{lines:?}");
    assert!(records.iter().all(|line| line["raw"] == json!([[4, 0, "06"]]) && line["datagram"] == 2));
}

/// A template of another port is tried when the file has ended: the port's own may come at any time.
#[test]
fn no_template_is_borrowed_while_the_file_goes_on() {
    let files = Files::new();
    let template = |fields: &[(u16, u16)]| {
        datagrams::v9(0, 7, 1, &[datagrams::set(0, &datagrams::template(256, fields))])
    };
    let data = datagrams::v9(1, 7, 1, &[datagrams::set(256, &[1, 2, 3, 4, 0, 0, 0, 9])]);
    let from = |port: u16, datagram: &[u8]| {
        let mut packet = ipv4(datagram);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    };
    let packets = [
        from(1_000, &template(&[(8, 4), (1, 4)])),
        from(1_001, &data),
        from(1_001, &template(&[(1, 4), (8, 4)])),
    ];
    let mut file = pcap(RAW, &packets);
    let mut at = 24;
    for (place, packet) in packets.iter().enumerate() {
        let seconds = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) + 600 * place as u32;
        file[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
        at += 16 + packet.len();
    }
    let lines = decode(&files.write("ports.pcap", &file));
    let records = of_kind(&lines, "data");
    assert_eq!(records.len(), 1, "{lines:?}");
    assert_eq!(records[0]["raw"], json!([[1, 0, "01020304"], [8, 0, "00000009"]]));
    assert_eq!(records[0]["fields"].get("templateSource"), None);
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
fn what_is_missing_by_sequence_numbers_is_told() {
    let files = Files::new();
    let packets: Vec<_> = [0, 1, 5, 6, 6].map(|sequence| ipv4(&v9_flows(sequence, &flows(1..3)))).into();
    let file = files.write("gap.pcap", &pcap(RAW, &packets));
    let summary = lines(&flowproxy(&["decode", "--summary", "--format", "json", &file])).remove(0);
    let sequence = json!({
        "gaps": 1, "missing": {"datagrams": 3}, "late": 0, "duplicates": 1, "resets": 0, "lostByExporter": 0,
    });
    assert_eq!(summary["sequence"], sequence);
    let text = String::from_utf8(flowproxy(&["decode", &file]).stdout).unwrap();
    assert!(text.contains("  sequence: 3 datagrams before this are missing\n"), "{text}");
    let text = String::from_utf8(flowproxy(&["decode", "--summary", &file]).stdout).unwrap();
    assert!(text.contains("    sequence           3 datagrams are missing, in 1 gap\n"), "{text}");
}

/// A packet of an unfinished capture is shown as soon as it came, and not only once the pipe ends.
#[test]
fn a_live_capture_is_shown_as_it_comes() {
    let mut child = flowproxy_command()
        .args(["decode", "--format", "json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let (seen, lines) = std::sync::mpsc::channel();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || output.try_for_each(|line| seen.send(line.unwrap())));
    input.write_all(&pcap(RAW, &[ipv4(&v5(1, &flows(7..8)))])).unwrap();
    input.flush().unwrap();
    let line: Value = serde_json::from_str(&lines.recv_timeout(PATIENCE).expect("a line")).unwrap();
    assert_eq!(line["fields"]["octetDeltaCount"], 7);
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(reader.join().unwrap().is_ok());
}

#[test]
fn samples_have_their_records_and_their_own_words() {
    let ipv4_sample = Bytes::default().u32(1_400).u32(6).raw(&[192, 0, 2, 7]).raw(&[198, 51, 100, 8]);
    let ipv4_sample = ipv4_sample.u32(50_123).u32(443).u32(0x10).u32(0).0;
    // sequence, source, rate, pool, drops, input, output (discarded, reason 1), two records
    let flow = Bytes::default().u32(1).u32(3).u32(512).u32(10_240).u32(0).u32(3).u32(0x4000_0001).u32(2);
    let flow = flow.u32(3).u32(32).raw(&ipv4_sample).u32(9 << 12 | 77).u32(4).raw(&[1, 2, 3, 4]).0;
    let counters = Bytes::default().u32(2).u32(3).u32(1).u32(2_000).u32(4).raw(&[9, 9, 9, 9]).0;
    // agent, sub-agent, sequence, uptime, two samples
    let datagram = Bytes::default().u32(5).u32(1).raw(&[192, 0, 2, 1]).u32(4).u32(1).u32(1_000).u32(2);
    let datagram = datagram.u32(1).u32(flow.len() as u32).raw(&flow);
    let datagram = datagram.u32(2).u32(counters.len() as u32).raw(&counters).0;
    let file = Files::new();
    let lines = decode(&file.write("sflow.pcap", &pcap(RAW, &[ipv4(&datagram)])));
    let [flow, counters] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&flow["kind"], &flow["protocol"], &flow["domain"]),
        (&json!("flow_sample"), &json!("sflow-v5"), &json!(4))
    );
    let hex: String = ipv4_sample.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(flow["raw"], json!([[3, 0, hex], [77, 9, "01020304"]]));
    let fields = &flow["fields"];
    let words = ["samplingRate", "samplePool", "input", "output", "sourceIPv4Address"]
        .map(|word| fields[word].clone());
    assert_eq!(words, [json!(512), json!(10_240), json!(3), json!(0x4000_0001), json!("192.0.2.7")]);
    assert_eq!(
        (&counters["kind"], &counters["raw"]),
        (&json!("counter_sample"), &json!([[2_000, 0, "09090909"]]))
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
        format!(
            "{text}: neither pcap nor pcapng nor IPFIX messages: it begins with 6e6f7420; editcap -F pcap (Wireshark) converts other captures\n"
        )
    );
    let folder = files.folder().to_str().unwrap();
    let errors = String::from_utf8(flowproxy(&["decode", folder]).stderr).unwrap();
    assert_eq!(errors, format!("{folder}: is a folder, not a file\n"));
}

#[test]
fn text_is_for_people() {
    let files = Files::new();
    let template = datagrams::template(256, &[(8, 4), (1, 4), (82, 6), (152, 8), (56_701, 4)]);
    let record = Bytes::default().raw(&[198, 51, 100, 7]).u32(9_340).raw(b"a\x1b[2J\0");
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
