//! Real sockets on loopback.

use super::*;
use std::collections::HashMap;
use std::net::UdpSocket;

fn settings(udp: &[&str], shards: usize) -> Settings {
    let udp = udp.iter().map(|address| address.parse().unwrap()).collect();
    Settings { udp, raw: vec![], shards, receive_buffer: 1 << 20 }
}

/// Everything that is there now: (shard, exporter, bytes).
fn receive_all(shards: &[Sockets]) -> Vec<(usize, crate::flow::Exporter, Vec<u8>)> {
    let mut receiver = Receiver::new();
    let mut got = Vec::new();
    for (shard, sockets) in shards.iter().enumerate() {
        for listener in &sockets.listeners {
            while receiver.receive(listener).unwrap() > 0 {
                got.extend(receiver.datagrams().map(|d| (shard, d.exporter, d.bytes.to_vec())));
            }
        }
    }
    got
}

#[test]
fn an_exporter_always_meets_the_same_shard() {
    let shards = bind(&settings(&["127.0.0.1:0", "[::1]:0"], 4)).unwrap();
    let mut sent = 0;
    for host in 1..=16 {
        for _ in 0..10 {
            let from = UdpSocket::bind((format!("127.0.0.{host}").as_str(), 0)).unwrap();
            from.send_to(b"v4", shards[0].listeners[0].local).unwrap();
            sent += 1;
        }
    }
    for _ in 0..10 {
        let from = UdpSocket::bind("[::1]:0").unwrap();
        from.send_to(b"v6", shards[0].listeners[1].local).unwrap();
        sent += 1;
    }
    let got = receive_all(&shards);
    assert_eq!(got.len(), sent);
    let mut home = HashMap::new();
    for (shard, exporter, _) in &got {
        assert_eq!(home.entry(exporter.address).or_insert(shard), &shard, "{}", exporter.address);
    }
    let used: std::collections::HashSet<_> = got.iter().map(|(shard, ..)| *shard).collect();
    assert!(used.len() > 1, "all on one shard");
}

/// What was kept of an exporter has to be put back where the kernel sends its datagrams.
#[test]
fn where_an_exporter_goes_is_known_beforehand() {
    for count in [1, 2, 3, 4, 7, 16] {
        let v4 = bind(&settings(&["127.0.0.1:0"], count)).unwrap();
        let both = bind(&settings(&["[::]:0", "[::1]:0"], count)).unwrap();
        let [to_v4, to_both, to_v6] = [&v4[0].listeners[0], &both[0].listeners[0], &both[0].listeners[1]]
            .map(|listener| listener.local.port());
        let mut sent = 0;
        for host in 1..=40 {
            let from = UdpSocket::bind((format!("127.{host}.{}.{host}", host * 5), 0)).unwrap();
            for port in [to_v4, to_both] {
                from.send_to(b"v4, and v4 to a socket of both families", ("127.0.0.1", port)).unwrap();
                sent += 1;
            }
        }
        let from = UdpSocket::bind("[::1]:0").unwrap();
        for port in [to_both, to_v6] {
            from.send_to(b"v6", ("::1", port)).unwrap();
            sent += 1;
        }
        let got = [receive_all(&v4), receive_all(&both)].concat();
        assert_eq!(got.len(), sent);
        for (shard, exporter, _) in got {
            assert_eq!(shard_of(exporter.address, count), shard, "{} of {count}", exporter.address);
        }
    }
}

#[test]
fn the_largest_datagram_arrives_whole() {
    let shards = bind(&settings(&["127.0.0.1:0"], 1)).unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bytes: Vec<u8> = (0..65_507usize).map(|i| i as u8).collect();
    from.send_to(&bytes, shards[0].listeners[0].local).unwrap();
    let got = receive_all(&shards);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].1.port, from.local_addr().unwrap().port());
    assert!(got[0].2 == bytes);
}

#[test]
fn a_taken_port_is_refused_and_its_owner_loses_nothing() {
    let first = bind(&settings(&["127.0.0.1:0"], 2)).unwrap();
    let local = first[0].listeners[0].local;
    let error = bind(&settings(&[&local.to_string()], 2)).unwrap_err();
    assert!(matches!(error, BindError::Taken { address, transport: Transport::Udp } if address == local));
    assert!(error.to_string().contains(&format!("port {}", local.port())), "{error}");
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        from.send_to(b"x", local).unwrap();
    }
    assert_eq!(receive_all(&first).len(), 100);
}

#[test]
fn drops_are_counted_when_traffic_has_stopped() {
    let small = Settings { receive_buffer: 4_096, ..settings(&["127.0.0.1:0"], 1) };
    let mut shards = bind(&small).unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..200 {
        from.send_to(&[0; 1_000], shards[0].listeners[0].local).unwrap();
    }
    let got = receive_all(&shards).len() as u64;
    assert!(got < 200);
    assert_eq!(got + shards[0].listeners[0].newly_dropped(), 200);
    assert_eq!(shards[0].listeners[0].newly_dropped(), 0);
}

#[test]
fn mapped_addresses_are_ipv4() {
    let shards = bind(&settings(&["[::]:0"], 1)).unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    from.send_to(b"x", ("127.0.0.1", shards[0].listeners[0].local.port())).unwrap();
    assert_eq!(receive_all(&shards)[0].1.address, std::net::IpAddr::from([127, 0, 0, 1]));
}
