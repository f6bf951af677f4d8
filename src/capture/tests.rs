//! Captures made here, read again.

use super::*;
use std::io::Cursor;

fn capture(bytes: Vec<u8>) -> Result<Capture, Error> {
    Capture::new("f".to_owned(), Box::new(Cursor::new(bytes)))
}

/// Everything of a file: datagrams as (exporter, received, missing, bytes), and how it ended.
type All = (Vec<(String, u64, usize, Vec<u8>)>, Result<(), Error>, Counts);

fn read(bytes: Vec<u8>) -> All {
    let mut capture = capture(bytes).unwrap();
    let mut datagrams = Vec::new();
    let result = loop {
        match capture.read() {
            Ok(Next::Datagram(datagram)) => {
                let Exporter { address, port } = datagram.exporter;
                let sender = format!("{address} {port}");
                datagrams.push((sender, datagram.received, datagram.missing, datagram.bytes.to_vec()));
            }
            Ok(Next::Dry) => {}
            Ok(Next::End) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (datagrams, result, capture.counts())
}

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 8).to_be_bytes();
    concat(&[&4_000_u16.to_be_bytes(), &2_055_u16.to_be_bytes(), &length, &[0, 0], payload])
}

/// An IPv4 packet of 192.0.2.1, or a fragment of one.
fn ipv4(protocol: u8, id: u16, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 20).to_be_bytes();
    let start =
        [&[0x45, 0], &length[..], &id.to_be_bytes(), &flags_and_offset.to_be_bytes(), &[64, protocol, 0, 0]];
    concat(&[&start.concat(), &[192, 0, 2, 1, 192, 0, 2, 2], payload])
}

/// An IPv6 packet of 2001:db8::1.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut addresses = [0; 32];
    (addresses[0], addresses[1], addresses[2], addresses[3], addresses[15]) = (0x20, 1, 0x0d, 0xb8, 1);
    (addresses[16], addresses[31]) = (0xfd, 2);
    let length = (payload.len() as u16).to_be_bytes();
    concat(&[&[0x60, 0, 0, 0], &length, &[next, 64], &addresses, payload])
}

fn ethernet(ether_type: u16, tags: &[u8], packet: &[u8]) -> Vec<u8> {
    concat(&[&[2; 12], tags, &ether_type.to_be_bytes(), packet])
}

/// A pcap of packets, each a tenth of a second after the one before.
fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = pcap_header(link);
    for (place, packet) in packets.iter().enumerate() {
        let place = place as u32;
        let length = packet.len() as u32;
        for number in [1_000 + place / 10, place % 10 * 100_000, length, length] {
            out.extend(number.to_le_bytes());
        }
        out.extend(packet);
    }
    out
}

fn pcap_header(link: u32) -> Vec<u8> {
    let numbers = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link];
    numbers.iter().flat_map(|number: &u32| number.to_le_bytes()).collect()
}

fn one(link: u32, packet: Vec<u8>) -> (String, Vec<u8>) {
    let (mut datagrams, result, counts) = read(pcap(link, &[packet]));
    result.unwrap();
    assert_eq!((datagrams.len(), counts.packets, counts.datagrams), (1, 1, 1), "link {link}");
    let (sender, received, missing, bytes) = datagrams.remove(0);
    assert_eq!((received, missing), (1_000_000, 0));
    (sender, bytes)
}

#[test]
fn every_link_layer() {
    let four = ipv4(17, 1, 0, &udp(b"hello"));
    let six = ipv6(17, &udp(b"hello"));
    let cooked = |ether_type: u16, packet: &[u8]| concat(&[&[0; 14], &ether_type.to_be_bytes(), packet]);
    let cooked_2 = |ether_type: u16, packet: &[u8]| concat(&[&ether_type.to_be_bytes(), &[0; 18], packet]);
    let tagged = |packet: &[u8]| ethernet(0x0800, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x81, 0, 0, 1], packet);
    let (v4, v6) = ("192.0.2.1 4000".to_owned(), "2001:db8::1 4000".to_owned());
    for (link, packet, sender) in [
        (1, ethernet(0x0800, &[], &four), &v4),
        (1, ethernet(0x86dd, &[], &six), &v6),
        (1, ethernet(0x0800, &[0x81, 0, 0, 7], &four), &v4),
        (1, tagged(&four), &v4),
        (113, cooked(0x0800, &four), &v4),
        (113, cooked(0x8100, &concat(&[&[0, 7, 0x86, 0xdd], &six])), &v6),
        (276, cooked_2(0x86dd, &six), &v6),
        (12, four.clone(), &v4),
        (14, six.clone(), &v6),
        (101, six.clone(), &v6),
        (228, four.clone(), &v4),
        (229, six.clone(), &v6),
        (0, concat(&[&[2, 0, 0, 0], &four]), &v4),
        (0, concat(&[&[30, 0, 0, 0], &six]), &v6),
        (108, concat(&[&[0, 0, 0, 24], &six]), &v6),
        // The high bits of a link type tell of checksums at the frame's end, which are not the datagram's.
        (0x5400_0001, ethernet(0x0800, &[], &concat(&[&four, &[1, 2, 3, 4]])), &v4),
    ] {
        assert_eq!(one(link, packet), (sender.clone(), b"hello".to_vec()));
    }
}

#[test]
fn what_is_no_udp_is_counted() {
    let four = ipv4(17, 1, 0, &udp(b"hello"));
    let packets = [
        ethernet(0x0806, &[], &[0; 28]),
        ethernet(0x0800, &[], &ipv4(6, 1, 0, &[0; 20])),
        ethernet(0x0800, &[], &four[..10]),
        vec![1, 2, 3],
        ethernet(0x0800, &[], &four),
    ];
    let (datagrams, result, counts) = read(pcap(1, &packets));
    result.unwrap();
    assert_eq!(datagrams.len(), 1);
    let expected =
        Counts { packets: 5, datagrams: 1, not_ip: 1, not_udp: 1, malformed: 2, ..Counts::default() };
    assert_eq!(counts, expected);
    let (_, _, counts) = read(pcap(147, &packets));
    assert_eq!(counts.unknown_link, 5);
}

#[test]
fn lengths_are_honoured() {
    // Ethernet fills short frames up; a UDP length may be less than IP's.
    let mut short = udp(b"hello world");
    short[5] = 8 + 5;
    let packet = concat(&[&ethernet(0x0800, &[], &ipv4(17, 1, 0, &short)), &[0xee; 9]]);
    assert_eq!(one(1, packet).1, b"hello");
    // Options of IPv4, headers of IPv6.
    let mut with_options = ipv4(17, 1, 0, &concat(&[&[1, 1, 1, 0], &udp(b"hello")]));
    with_options[0] = 0x46;
    assert_eq!(one(12, with_options).1, b"hello");
    let headers = [&[43, 0, 0, 0, 0, 0, 0, 0][..], &[60, 1], &[0; 14], &[17, 0], &[0; 6]].concat();
    assert_eq!(one(12, ipv6(0, &concat(&[&headers, &udp(b"hello")]))).1, b"hello");
}

#[test]
fn a_cut_packet_says_what_is_missing() {
    let packet = ethernet(0x0800, &[], &ipv4(17, 1, 0, &udp(b"hello world")));
    let here = packet.len() - 6;
    let mut file = pcap_header(1);
    for number in [1, 0, here as u32, packet.len() as u32] {
        file.extend(number.to_le_bytes());
    }
    file.extend(&packet[..here]);
    let (datagrams, result, counts) = read(file);
    result.unwrap();
    assert_eq!((datagrams[0].2, datagrams[0].3.as_slice(), counts.cut), (6, &b"hello"[..], 1));
}

#[test]
fn a_file_that_ends_inside_gives_all_before() {
    let packets: Vec<_> = (0..3).map(|_| ipv4(17, 1, 0, &udp(b"hello"))).collect();
    let whole = pcap(12, &packets);
    let packet_bytes = (whole.len() - 24) / 3;
    for length in 24..whole.len() {
        let (datagrams, result, _) = read(whole[..length].to_vec());
        assert_eq!(datagrams.len(), (length - 24) / packet_bytes);
        let start = 24 + datagrams.len() * packet_bytes;
        match result {
            Ok(()) => assert_eq!(length, start),
            Err(Error::Ended { offset, .. }) => assert_eq!(offset, start as u64),
            Err(error) => panic!("{error}"),
        }
    }
    for length in 4..24 {
        assert!(matches!(read(whole[..length].to_vec()).1, Err(Error::Ended { offset: 0, .. })));
    }
}

#[test]
fn what_is_no_capture_is_told() {
    assert!(matches!(capture(vec![]), Err(Error::Empty { .. })));
    assert!(matches!(capture(vec![0x1f, 0x8b, 8, 0]), Err(Error::Compressed { .. })));
    let error = capture(b"GET / HTTP/1.1".to_vec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f: neither pcap nor pcapng nor IPFIX messages: it begins with 47455420; editcap -F pcap (Wireshark) converts \
         other captures"
    );
    let mut huge = pcap_header(1);
    huge.extend([0xff; 16]);
    let error = read(huge).1.unwrap_err();
    assert!(error.to_string().starts_with("f: at byte 24: a packet of 4294967295 bytes;"), "{error}");
}

#[test]
fn ipfix_files() {
    let message = |bytes: u16| {
        let header = [&[0, 10][..], &bytes.to_be_bytes(), &7_u32.to_be_bytes(), &[0; 8]].concat();
        concat(&[&header, &vec![1; usize::from(bytes) - 16]])
    };
    let file = concat(&[&message(16), &message(40)]);
    let (datagrams, result, counts) = read(file.clone());
    result.unwrap();
    assert_eq!(counts.datagrams, 2);
    assert_eq!(datagrams[1], ("0.0.0.0 0".to_owned(), 7_000, 0, message(40)));
    let (datagrams, result, _) = read(file[..50].to_vec());
    assert_eq!(datagrams.len(), 1);
    assert!(matches!(result, Err(Error::Ended { offset: 16, .. })));
    let (datagrams, result, _) = read(concat(&[&message(16), &[0, 9, 0, 20, 0, 0, 0, 0]]));
    assert_eq!(datagrams.len(), 1);
    assert!(matches!(result, Err(Error::Damaged { offset: 16, .. })));
}

#[test]
fn every_byte_order_and_precision_of_pcap() {
    let packet = ipv4(17, 1, 0, &udp(b"hello"));
    for (magic, is_big, fraction) in [
        (0xa1b2_c3d4_u32, false, 123_456),
        (0xa1b2_c3d4, true, 123_456),
        (0xa1b2_3c4d, false, 123_456_789),
        (0xa1b2_3c4d, true, 123_456_789),
    ] {
        let in_order = |number: u32| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
        let length = packet.len() as u32;
        let version = if is_big { 0x0002_0004 } else { 0x0004_0002 };
        let numbers = [magic, version, 0, 0, 65_535, 101, 1_700_000_000, fraction, length, length];
        let mut file: Vec<u8> = numbers.into_iter().flat_map(in_order).collect();
        file.extend(&packet);
        let (datagrams, result, _) = read(file);
        result.unwrap();
        assert_eq!(datagrams[0].1, 1_700_000_000_123);
    }
}

fn block(is_big: bool, kind: u32, content: &[u8]) -> Vec<u8> {
    let in_order = |number: u32| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let padding = vec![0; content.len().next_multiple_of(4) - content.len()];
    let length = in_order((content.len() + padding.len()) as u32 + 12);
    concat(&[&in_order(kind), &length, content, &padding, &length])
}

/// A section of two interfaces, of Ethernet in microseconds and raw IP in units of 2^-10 s, 100 s later.
fn section(is_big: bool) -> Vec<u8> {
    let u32 = |number: u32| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let u16 = |number: u16| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let i64 = |number: i64| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    let header = concat(&[&u32(0x1a2b_3c4d), &u16(1), &u16(0), &[0xff; 8]]);
    let ethernet_interface = concat(&[&u16(1), &u16(0), &u32(60)]);
    let options = [&u16(9)[..], &u16(1), &[0x8a, 0, 0, 0], &u16(14), &u16(8), &i64(100), &[0; 4]].concat();
    let raw_interface = concat(&[&u16(101), &u16(0), &u32(0), &options]);
    let packet = ipv4(17, 1, 0, &udp(b"hello"));
    let frame = ethernet(0x0800, &[], &packet);
    let enhanced = |interface: u32, time: u64, packet: &[u8]| {
        let length = u32(packet.len() as u32);
        let numbers = [u32(interface), u32((time >> 32) as u32), u32(time as u32), length, length];
        block(is_big, 6, &concat(&[&numbers.concat(), packet]))
    };
    let obsolete = [&u16(1)[..], &u16(0), &u32(0), &u32(2_048), &u32(33), &u32(33), &packet].concat();
    // Longer than the snap length of 60 by the padding of a long frame.
    let long = ethernet(0x0800, &[], &ipv4(17, 1, 0, &udp(&[7; 40])));
    concat(&[
        &block(is_big, 0x0a0d_0d0a, &header),
        &block(is_big, 1, &ethernet_interface),
        &block(is_big, 4, &[0; 20]),
        &block(is_big, 1, &raw_interface),
        &enhanced(0, 5_000_000, &frame),
        &enhanced(1, 1_536, &packet),
        &block(is_big, 2, &obsolete),
        &block(is_big, 3, &concat(&[&u32(long.len() as u32), &long[..60]])),
    ])
}

#[test]
fn pcapng_of_several_sections_and_interfaces() {
    let file = concat(&[&section(false), &section(true)]);
    let (datagrams, result, counts) = read(file);
    result.unwrap();
    let found: Vec<_> =
        datagrams.iter().map(|(_, time, missing, bytes)| (*time, *missing, bytes.len())).collect();
    let each = [(5_000, 0, 5), (101_500, 0, 5), (102_000, 0, 5), (102_000, 22, 18)];
    assert_eq!(found, [each, each].concat());
    assert_eq!((counts.packets, counts.cut), (8, 2));
    let (_, result, _) = read(section(true)[..100].to_vec());
    assert!(matches!(result, Err(Error::Ended { .. })));
}

#[test]
fn damaged_pcapng_is_told_and_never_panics() {
    let whole = section(false);
    for length in 4..whole.len() {
        let _ = read(whole[..length].to_vec());
    }
    for place in 4..whole.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut file = whole.clone();
            file[place] = byte;
            let _ = read(file);
        }
    }
    let file = concat(&[&section(false)[..28], &block(false, 6, &[9; 40])]);
    let error = read(file).1.unwrap_err();
    assert!(
        error.to_string().contains("is not described") || error.to_string().contains("hold together"),
        "{error}"
    );
}

#[test]
fn packets_of_an_interface_not_described_are_counted_and_left_out() {
    for is_big in [false, true] {
        let whole = section(is_big);
        let stray = |kind: u32, place: [u8; 4]| block(is_big, kind, &concat(&[&place, &[0; 16], &[9; 8]]));
        let header = block(is_big, 0x0a0d_0d0a, &whole[8..24]);
        let file = concat(&[
            &header,
            &block(is_big, 3, &[0; 8]),
            &whole,
            &stray(6, [7; 4]),
            &stray(2, [7; 4]),
            &whole,
        ]);
        let (datagrams, result, counts) = read(file);
        result.unwrap();
        assert_eq!((datagrams.len(), counts.packets, counts.undescribed), (8, 11, 3), "{is_big}");
    }
}

fn fragments(id: u16, payload: &[u8], pieces: &[(usize, usize)]) -> Vec<Vec<u8>> {
    let more = |end: usize| if end < payload.len() { 0x2000 } else { 0 };
    let fragment =
        |&(start, end): &(usize, usize)| ipv4(17, id, more(end) | (start / 8) as u16, &payload[start..end]);
    pieces.iter().map(fragment).collect()
}

fn long_payload() -> Vec<u8> {
    (0..100_u8).collect()
}

#[test]
fn fragments_come_together_in_any_order() {
    let payload = udp(&long_payload());
    for pieces in
        [[(0, 40), (40, 80), (80, 108)], [(80, 108), (0, 40), (40, 80)], [(40, 80), (80, 108), (0, 40)]]
    {
        let mut packets = fragments(7, &payload, &pieces);
        packets.insert(1, packets[0].clone());
        let (datagrams, result, counts) = read(pcap(12, &packets));
        result.unwrap();
        assert_eq!(datagrams.len(), 1, "{pieces:?}");
        assert_eq!((datagrams[0].1, datagrams[0].3.clone()), (1_000_300, long_payload()));
        assert_eq!((counts.fragments, counts.reassembled, counts.incomplete, counts.refused), (4, 1, 0, 0));
    }
}

#[test]
fn fragments_of_ipv6_come_together() {
    let payload = udp(&long_payload());
    let fragment = |start: usize, end: usize| {
        let field = start as u16 | u16::from(end < payload.len());
        let header = [&[17, 0][..], &field.to_be_bytes(), &[0, 0, 0, 5]].concat();
        ipv6(44, &concat(&[&header, &payload[start..end]]))
    };
    let (datagrams, result, _) = read(pcap(12, &[fragment(64, 108), fragment(0, 64), fragment(0, 108)]));
    result.unwrap();
    assert_eq!(datagrams.len(), 2, "one of two fragments and one atomic");
    assert!(datagrams.iter().all(|datagram| datagram.3 == long_payload()));
}

#[test]
fn fragments_that_do_not_fit_are_refused() {
    let payload = udp(&long_payload());
    for (pieces, refused, incomplete) in [
        (vec![(0, 40), (32, 80), (40, 80), (80, 108)], 2, 1),
        (vec![(0, 40), (40, 80), (40, 108), (80, 108)], 1, 2),
        (vec![(0, 40), (80, 108), (72, 108), (40, 80)], 2, 1),
        (vec![(0, 39), (40, 80), (80, 108), (0, 40)], 1, 1),
        (vec![(40, 79), (80, 108), (0, 40)], 1, 0),
    ] {
        let (datagrams, result, counts) = read(pcap(12, &fragments(7, &payload, &pieces)));
        result.unwrap();
        let found = (datagrams.len(), counts.refused, counts.incomplete);
        assert_eq!(found, (0, refused, incomplete), "{pieces:?}");
    }
}

#[test]
fn a_lost_datagram_does_not_take_a_later_one_of_its_id_with_it() {
    let payload = udp(&long_payload());
    let later: Vec<u8> = long_payload().iter().map(|byte| byte ^ 0xff).collect();
    let pieces = [(0, 40), (40, 80), (80, 108)];
    let backwards = [(80, 108), (40, 80), (0, 40)];
    for (lost, order, refused) in [
        (vec![(0, 40), (40, 80)], pieces, 0),
        (vec![(0, 40)], pieces, 0),
        (vec![(80, 108), (0, 40)], backwards, 0),
        // Its fragments had other bounds, or were cut.
        (vec![(0, 48), (80, 108)], pieces, 0),
        (vec![(0, 64), (80, 108)], backwards, 0),
        (vec![(0, 64)], [(40, 80), (80, 108), (0, 40)], 1),
        (vec![(0, 39), (40, 80), (80, 108)], pieces, 1),
    ] {
        let mut packets = fragments(7, &payload, &lost);
        packets.extend(fragments(7, &udp(&later), &order));
        let (datagrams, result, counts) = read(pcap(12, &packets));
        result.unwrap();
        let found: Vec<_> = datagrams.iter().map(|datagram| &datagram.3).collect();
        assert_eq!(found, [&later], "{lost:?}");
        assert_eq!((counts.refused, counts.incomplete), (refused, 1 - refused), "{lost:?}");
    }
}

#[test]
fn fragments_are_given_up_by_time_and_number() {
    let payload = udp(&long_payload());
    let mut packets = fragments(7, &payload, &[(0, 40)]);
    packets.extend((0..310).map(|_| ipv4(17, 1, 0, &udp(b"a"))));
    packets.extend(fragments(7, &payload, &[(40, 80), (80, 108)]));
    let (datagrams, _, counts) = read(pcap(12, &packets));
    assert_eq!((datagrams.len(), counts.reassembled, counts.incomplete), (310, 0, 2));
    let flood: Vec<_> = (0..3_000).flat_map(|id| fragments(id, &payload, &[(0, 40)])).collect();
    let mut file = pcap_header(12);
    for packet in &flood {
        let length = packet.len() as u32;
        file.extend([1, 0, length, length].iter().flat_map(|number: &u32| number.to_le_bytes()));
        file.extend(packet);
    }
    let mut capture = capture(file).unwrap();
    while let Ok(Next::Datagram(_) | Next::Dry) = capture.read() {
        assert!(capture.fragments.open() <= 1_024);
    }
    assert_eq!(capture.counts().incomplete, 3_000);
}
