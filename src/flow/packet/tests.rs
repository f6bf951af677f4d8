//! Frames of every form in commented hex, and every shorter prefix of them.

use super::*;

/// Hex with comments after `#`.
fn hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let digits: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

const MACS: &str = "02005e000001 02005e000002 # to, from";

const TCP_IN_IPV4: &str = "
    45 b8 0234 1234 4000 3f 06 0000   # tos 0xb8, 564 bytes, id 0x1234, do not fragment, ttl 63, TCP
    c6336407 cb007109                 # 198.51.100.7 to 203.0.113.9
    d431 01bb 00000001 00000002       # ports 54321 and 443, sequence, acknowledgement
    51 18 ffff 0000 0000              # NS, ACK and PSH
";

const UDP_IN_IPV6: &str = "
    60c54321 0018 11 40                 # traffic class 0x0c, flow label 0x54321, 24 bytes, UDP, 64 hops
    20010db8 00000000 00000000 00000001
    20010db8 00000000 00000000 00000002
    1388 0035 0018 0000
";

fn ip_of(packet: &Packet) -> Ip {
    packet.ip.expect("an IP header")
}

/// Each fact of a packet that a longer prefix can only add to, not change.
fn facts(packet: &Packet) -> Vec<Option<String>> {
    let ip = packet.ip;
    let text = |fact: Option<&dyn std::fmt::Debug>| fact.map(|fact| format!("{fact:?}"));
    let ip_facts = [
        ip.and_then(|ip| ip.tos).map(u64::from),
        ip.and_then(|ip| ip.flow_label).map(u64::from),
        ip.and_then(|ip| ip.total_length).map(u64::from),
        ip.and_then(|ip| ip.ttl).map(u64::from),
    ];
    let mut facts: Vec<Option<String>> =
        ip_facts.iter().map(|fact| text(fact.as_ref().map(|f| f as _))).collect();
    facts.push(text(packet.macs.as_ref().map(|f| f as _)));
    facts.push(text(packet.ethertype.as_ref().map(|f| f as _)));
    facts.push(text(packet.outer.as_ref().map(|f| f as _)));
    facts.push(text(ip.and_then(|ip| ip.fragment).as_ref().map(|f| f as _)));
    facts.push(text(ip.and_then(|ip| ip.addresses).as_ref().map(|f| f as _)));
    facts.push(text(packet.ports.as_ref().map(|f| f as _)));
    facts.push(text(packet.tcp_flags.as_ref().map(|f| f as _)));
    facts.push(text(packet.icmp.as_ref().map(|f| f as _)));
    facts
}

/// Reads the frame and each shorter prefix of it: none says anything that the whole frame does not.
fn parse_all(link: Link, text: &str) -> Packet {
    let frame = hex(text);
    let whole = parse(link, &frame);
    let mut before = 0;
    for end in 0..frame.len() {
        let cut = parse(link, &frame[..end]);
        let known = facts(&cut).into_iter().zip(facts(&whole)).filter(|(cut, whole)| {
            assert!(cut.is_none() || cut == whole, "{end} bytes: {cut:?}, {whole:?}");
            cut.is_some()
        });
        let known = known.count() + cut.labels.entries().len();
        assert!(known >= before, "{end} bytes say less than fewer did");
        assert!(whole.labels.entries().starts_with(cut.labels.entries()));
        before = known;
    }
    whole
}

#[test]
fn tcp_in_ipv4_on_ethernet() {
    let packet = parse_all(Link::Ethernet, &format!("{MACS}\n 0800 {TCP_IN_IPV4}"));
    assert_eq!(packet.macs.unwrap().to_vec(), hex(MACS));
    assert_eq!((packet.ethertype, packet.outer, packet.inner), (Some(0x0800), None, None));
    let ip = ip_of(&packet);
    assert_eq!((ip.is_v6, ip.tos, ip.total_length), (false, Some(0xb8), Some(564)));
    assert_eq!((ip.ttl, ip.protocol, ip.flow_label), (Some(63), Some(6), None));
    assert_eq!(ip.fragment, Some(Fragment { id: 0x1234, offset: 0, flags: 0x40 }));
    assert_eq!(ip.addresses, Some(Addresses::V4([198, 51, 100, 7, 203, 0, 113, 9])));
    assert_eq!(packet.ports, Some(Ports { source: 54_321, destination: 443 }));
    assert_eq!(packet.tcp_flags, Some(0x118));
    assert_eq!(packet.icmp, None);
}

#[test]
fn tags_labels_and_ipv6() {
    let text = format!(
        "{MACS}
        88a8 6064   # service tag: priority 3, VLAN 100
        9100 0001   # another
        8100 f00a   # customer tag: priority 7, drop eligible, VLAN 10
        8847        # MPLS
        03e80 4 40  # label 1000, experimental bits 2, ttl 64
        00020 1 3f  # label 2, bottom of stack, ttl 63
        {UDP_IN_IPV6}"
    );
    let packet = parse_all(Link::Ethernet, &text);
    assert_eq!(packet.outer, Some(Tag { id: 100, priority: 3 }));
    assert_eq!(packet.inner, Some(Tag { id: 10, priority: 7 }));
    assert_eq!(packet.ethertype, Some(0x8847));
    assert_eq!(packet.labels.entries(), [[0x03, 0xe8, 0x04], [0x00, 0x02, 0x01]]);
    let ip = ip_of(&packet);
    assert_eq!((ip.is_v6, ip.tos, ip.flow_label), (true, Some(0x0c), Some(0x54321)));
    assert_eq!(ip.total_length, Some(64));
}

#[test]
fn udp_in_ipv6() {
    let packet = parse_all(Link::Ip, UDP_IN_IPV6);
    let ip = ip_of(&packet);
    assert_eq!((ip.tos, ip.flow_label, ip.total_length), (Some(0x0c), Some(0x54321), Some(64)));
    assert_eq!((ip.ttl, ip.protocol, ip.fragment), (Some(64), Some(17), None));
    let Some(Addresses::V6(addresses)) = ip.addresses else { panic!("IPv6 addresses") };
    assert_eq!(addresses.to_vec(), hex("20010db8000000000000000000000001 20010db8000000000000000000000002"));
    assert_eq!(packet.ports, Some(Ports { source: 5_000, destination: 53 }));
    assert_eq!((packet.macs, packet.ethertype, packet.tcp_flags), (None, None, None));
}

#[test]
fn ipv4_options_fragments_and_icmp() {
    let options = "
        47 00 0024 0001 0000 40 01 0000 0a000001 0a000002
        94040000 00000000   # router alert and the end of options
        0b 00 0000          # ICMP time exceeded
    ";
    let packet = parse_all(Link::Ip, options);
    assert_eq!(packet.icmp, Some(Icmp { kind: 11, code: 0 }));
    let later = "45 00 0100 0007 20b9 40 11 0000 0a000001 0a000002 1388 0035 0018 0000";
    let packet = parse_all(Link::Ip, later);
    assert_eq!(ip_of(&packet).fragment, Some(Fragment { id: 7, offset: 185, flags: 0x20 }));
    assert_eq!((packet.ports, ip_of(&packet).protocol), (None, Some(17)));
    // The first fragment has ports.
    let first = later.replace("20b9", "2000");
    assert_eq!(parse_all(Link::Ip, &first).ports, Some(Ports { source: 5_000, destination: 53 }));
    // A length of 0 and a header said to be shorter than 5 words.
    let packet = parse_all(Link::Ip, "44 00 0000 0007 0000 40 11 0000 0a000001 0a000002 1388 0035");
    assert_eq!((ip_of(&packet).total_length, packet.ports), (None, None));
}

const IPV6: &str = "20010db8000000000000000000000001 20010db8000000000000000000000002";

#[test]
fn ipv6_extension_headers() {
    let text = format!(
        "60000000 0100 00 40 {IPV6}
        2b 00 0104 00000000                     # hop by hop, then routing
        33 01 0400 00000000 0000000000000000    # routing of 16 bytes, then authentication
        3c 04 0000 00000001 00000002 0000000000000000 00000000   # 24 bytes, then destination options
        2c 00 0104 00000000                     # destination options, then a fragment
        3a 00 0001 0000beef                     # the first fragment, more follow, ICMPv6
        80 00 0000                              # echo request"
    );
    let packet = parse_all(Link::Ip, &text);
    let ip = ip_of(&packet);
    assert_eq!((ip.protocol, packet.icmp), (Some(58), Some(Icmp { kind: 128, code: 0 })));
    assert_eq!(ip.fragment, Some(Fragment { id: 0xbeef, offset: 0, flags: 0x20 }));
    let later = text.replace("3a 00 0001 0000beef", "3a 00 05c9 0000beef");
    let packet = parse_all(Link::Ip, &later);
    assert_eq!(ip_of(&packet).fragment, Some(Fragment { id: 0xbeef, offset: 185, flags: 0x20 }));
    assert_eq!((packet.icmp, ip_of(&packet).protocol), (None, Some(58)));
}

#[test]
fn extension_headers_are_bounded() {
    let with = |count: usize| {
        let headers = "00 00 000000000000 ".repeat(count - 1);
        format!("60000000 0100 00 40 {IPV6} {headers} 11 00 000000000000 1388 0035 0018 0000")
    };
    assert!(parse_all(Link::Ip, &with(7)).ports.is_some());
    assert!(parse_all(Link::Ip, &with(60)).ports.is_none());
}

#[test]
fn a_jumbogram_has_no_length() {
    let packet = parse_all(Link::Ip, &format!("60000000 0000 3b 40 {IPV6}"));
    assert_eq!((ip_of(&packet).total_length, ip_of(&packet).protocol), (None, Some(59)));
}

#[test]
fn length_frames() {
    let snap = format!("{MACS}\n 0100 aaaa03 000000 0800 {TCP_IN_IPV4}");
    let packet = parse_all(Link::Ethernet, &snap);
    assert_eq!((packet.ethertype, packet.tcp_flags), (Some(0x0800), Some(0x118)));
    // Spanning tree has LLC only.
    let packet = parse_all(Link::Ethernet, &format!("{MACS}\n 0026 424203 0000000000"));
    assert_eq!((packet.ethertype, packet.ip, packet.macs.is_some()), (None, None, true));
    // Another organization's protocols are none of IP's.
    let packet = parse_all(Link::Ethernet, &snap.replace("aaaa03 000000", "aaaa03 00000c"));
    assert_eq!((packet.ethertype, packet.ip), (None, None));
}

#[test]
fn point_to_point() {
    let pppoe = format!("{MACS}\n 8864 11 00 0001 0236 0021 {TCP_IN_IPV4}");
    let packet = parse_all(Link::Ethernet, &pppoe);
    assert_eq!((packet.ethertype, packet.tcp_flags), (Some(0x8864), Some(0x118)));
    for head in ["ff03 0021", "0021", "21", "ff03 21"] {
        let packet = parse_all(Link::Ppp, &format!("{head} {TCP_IN_IPV4}"));
        assert_eq!(packet.tcp_flags, Some(0x118), "{head}");
    }
    let packet = parse_all(Link::Ppp, &format!("ff03 0281 00010140 {TCP_IN_IPV4}"));
    assert_eq!((packet.labels.entries().len(), packet.tcp_flags), (1, Some(0x118)));
    assert_eq!(parse_all(Link::Ppp, "ff03 c021 0102").ip, None);
}

#[test]
fn many_labels() {
    let labels = "00064040".repeat(14);
    let packet = parse_all(Link::Mpls, &format!("{labels} 00065140 {TCP_IN_IPV4}"));
    assert_eq!((packet.labels.entries().len(), packet.tcp_flags), (MAX_LABELS, Some(0x118)));
    // A pseudowire's control word is no IP header.
    let packet = parse_all(Link::Mpls, "00065140 00000001 02005e000001");
    assert_eq!((packet.labels.entries().len(), packet.ip), (1, None));
    // No bottom before the end.
    assert_eq!(parse_all(Link::Mpls, &"00064040".repeat(400)).ip, None);
}

#[test]
fn what_is_not_ip() {
    let arp = parse_all(Link::Ethernet, &format!("{MACS}\n 0806 0001 0800 06 04 0001"));
    assert_eq!((arp.ethertype, arp.ip), (Some(0x0806), None));
    assert_eq!(parse_all(Link::Ip, "00 01 02 03").ip, None);
    assert_eq!(parse(Link::Ethernet, &[]), Packet::default());
}
