//! What follows from the piece of a packet that a record holds.

use super::*;

/// Ethernet, tag 10 priority 3, IPv4, TTL 64, UDP 40000 > 53, 12 bytes of payload not sampled.
const FRAME: [u8; 46] = [
    0x78, 0x44, 0x76, 0x36, 0x98, 0x19, 0xdc, 0x53, 0x60, 0x2b, 0x6a, 0x4c, // to, from
    0x81, 0x00, 0x60, 0x0a, 0x08, 0x00, // tag, IPv4
    0x45, 0x02, 0x00, 0x28, 0x5d, 0x34, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, // 40 bytes, do not fragment
    192, 0, 2, 1, 198, 51, 100, 2, // source, destination
    0x9c, 0x40, 0x00, 0x35, 0x00, 0x14, 0x00, 0x00, // ports, length, checksum
];

/// The line of a record with a frame and these columns.
fn frame(bytes: &[u8], columns: Vec<proto::Column>) -> Value {
    let mut body = Vec::new();
    let column = variable(315, bytes, &mut body);
    let columns = [vec![column], columns].concat();
    line(proto::Group { body: body.into(), ..group(columns) })
}

#[test]
fn quirk_62_a_frame_tells_the_flow() {
    let line = frame(&FRAME, vec![]);
    let expected = json!({
        "destinationMacAddress": "78:44:76:36:98:19",
        "sourceMacAddress": "dc:53:60:2b:6a:4c",
        "ethernetType": 0x800,
        "dot1qVlanId": 10,
        "dot1qPriority": 3,
        "sourceIPv4Address": "192.0.2.1",
        "destinationIPv4Address": "198.51.100.2",
        "protocolIdentifier": 17,
        "ipClassOfService": 2,
        "ipTTL": 64,
        "fragmentIdentification": 0x5d34,
        "fragmentOffset": 0,
        "fragmentFlags": 64,
        "octetDeltaCount": 40,
        "packetDeltaCount": 1,
        "sourceTransportPort": 40_000,
        "destinationTransportPort": 53,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}");
    }
    assert!(line["dataLinkFrameSection"].as_str().unwrap().starts_with("784476369819"));
}

#[test]
fn the_records_own_fields_stay() {
    let own = vec![same(4, &[6]), same(85, &[99]), same(243, &[0, 20])];
    let line = frame(&FRAME, own);
    assert_eq!((&line["protocolIdentifier"], &line["dot1qVlanId"]), (&json!(6), &json!(20)));
    assert_eq!((line.get("octetDeltaCount"), line.get("packetDeltaCount")), (None, None));
    assert_eq!(line["sourceTransportPort"], 40_000);
}

#[test]
fn a_frame_cut_short_tells_what_is_whole() {
    for length in 0..FRAME.len() {
        let line = frame(&FRAME[..length], vec![]);
        assert_eq!(line.get("sourceTransportPort").is_some(), length >= 42, "{length}");
        assert_eq!(line.get("sourceIPv4Address").is_some(), length >= 38, "{length}");
        assert_eq!(line.get("destinationMacAddress").is_some(), length >= 12, "{length}");
    }
}

#[test]
fn what_is_behind_the_piece_is_padding() {
    let line = frame(&FRAME, vec![same(410, &[0, 40])]);
    assert_eq!((&line["protocolIdentifier"], line.get("sourceTransportPort")), (&json!(17), None));
    assert_eq!(frame(&FRAME, vec![same(410, &[0, 0])])["sourceTransportPort"], 40_000);
}

#[test]
fn what_is_no_start_of_a_frame_tells_nothing() {
    assert_eq!(frame(&FRAME, vec![same(409, &[0, 14])]).get("protocolIdentifier"), None);
    assert_eq!(frame(&FRAME, vec![same(408, &[0, 2])]).get("protocolIdentifier"), None);
    let plain = frame(&FRAME, vec![same(409, &[0, 0]), same(408, &[0, 1])]);
    assert_eq!(plain["protocolIdentifier"], 17);
}

#[test]
fn pieces_that_begin_with_an_ip_header() {
    let mut body = Vec::new();
    let column = variable(313, &FRAME[18..], &mut body);
    let line = line(proto::Group { body: body.into(), ..group(vec![column]) });
    assert_eq!(
        (&line["sourceIPv4Address"], &line["destinationTransportPort"]),
        (&json!("192.0.2.1"), &json!(53))
    );
    assert_eq!(line.get("sourceMacAddress"), None);
}

#[test]
fn icmp_stands_in_its_elements() {
    let mut ping = FRAME;
    ping[27] = 1;
    ping[38..40].copy_from_slice(&[8, 0]);
    let line = frame(&ping, vec![]);
    assert_eq!((&line["icmpTypeCodeIPv4"], line.get("destinationTransportPort")), (&json!(2048), None));
}
