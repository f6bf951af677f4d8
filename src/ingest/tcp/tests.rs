//! Real connections on loopback.

use super::*;
use crate::wire::Fault;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// An address that may send until it is told otherwise, and one that may not.
const ONCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 65));
const NEVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 66));

/// A message of this many bytes, all of its content `fill`.
fn message(bytes: u16, fill: u8) -> Vec<u8> {
    let mut message = vec![fill; usize::from(bytes)];
    message[..2].copy_from_slice(&[0, 10]);
    message[2..4].copy_from_slice(&bytes.to_be_bytes());
    message
}

/// A door with its tasks, as the proxy has it, and the inbox that nobody empties but the test.
struct Site {
    address: SocketAddr,
    inbox: Inbox,
    metrics: Metrics,
    /// From now on [`ONCE`] may not send any more.
    narrowed: Arc<AtomicBool>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Site {
    fn new(listen: &str, queue_bytes: usize, places: Option<(usize, usize)>) -> Site {
        let listeners = bind(&[listen.parse().unwrap()]).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let (outbox, inbox) = queue(queue_bytes);
        let narrowed = Arc::new(AtomicBool::new(false));
        let is_narrowed = Arc::clone(&narrowed);
        let allows =
            move |address| address != NEVER && (address != ONCE || !is_narrowed.load(Ordering::Acquire));
        let mut door = Door::new(listeners, Arc::new(allows), outbox, metrics.clone());
        if let Some((all, per_address)) = places {
            door.places = Places::new(all, per_address, metrics.connections.clone());
        }
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    connection = door.next() => drop(connections.spawn(connection.run(stopped.clone()))),
                }
            }
            while let Some(connection) = door.waiting() {
                connections.spawn(connection.run(stopped.clone()));
            }
            drop(door);
            while connections.join_next().await.is_some() {}
        });
        Site { address, inbox, metrics, narrowed, stop, serving }
    }

    fn simple() -> Site {
        Site::new("127.0.0.1:0", QUEUE_BYTES, None)
    }

    fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// A connection from another address of this host.
    fn connect_from(&self, host: u8) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        socket.into()
    }

    fn next(&self) -> Delivery {
        match self.inbox.wait(PATIENCE) {
            Received::Delivery(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    /// The next `count` messages, of whatever connection.
    fn messages(&self, count: usize) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        while got.len() < count {
            match self.next().content {
                Content::Messages(messages) => got.extend(messages.iter().map(<[u8]>::to_vec)),
                other => panic!("{other:?} after {} messages", got.len()),
            }
        }
        got
    }

    fn assert_end(&self) {
        let next = self.next();
        assert!(matches!(next.content, Content::End(Some(_))), "{next:?}");
    }

    /// Until so many bytes have been read from connections.
    fn wait_bytes(&self, bytes: u64) {
        while self.metrics.bytes.get() < bytes {
            std::thread::yield_now();
        }
    }
}

/// The other end has closed: an orderly end, or a reset when it had not read all.
fn assert_closed(mut client: Client) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match client.read(&mut [0; 1]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_split_at_every_byte_are_whole() {
    let site = Site::simple();
    let mut client = site.connect();
    client.set_nodelay(true).unwrap();
    let messages = [message(20, 1), message(16, 2), message(31, 3)];
    let stream = messages.concat();
    for (round, at) in (0..=stream.len()).enumerate() {
        let (before, after) = stream.split_at(at);
        client.write_all(before).unwrap();
        site.wait_bytes((round * stream.len() + at) as u64);
        client.write_all(after).unwrap();
        assert_eq!(site.messages(3), messages, "split at {at}");
    }
    assert_eq!(site.metrics.messages.get(), 3 * (stream.len() as u64 + 1));
    drop(client);
    site.assert_end();
    assert_eq!(site.metrics.ended.get("closed"), 1);
    assert_eq!(site.metrics.connections.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_in_one_segment_and_the_longest_come_in_order() {
    let site = Site::simple();
    let mut client = site.connect();
    let mut sent: Vec<_> = (0..200_u8).map(|number| message(16 + u16::from(number), number)).collect();
    sent.push(message(u16::MAX, 0xaa));
    sent.push(message(16, 0xbb));
    client.write_all(&sent.concat()).unwrap();
    assert_eq!(site.messages(sent.len()), sent);
    let port = client.local_addr().unwrap().port();
    client.write_all(&message(16, 0)).unwrap();
    assert_eq!(site.next().exporter, Exporter { address: [127, 0, 0, 1].into(), port });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_ipfix_ends_its_connection_and_no_other() {
    for (garbage, fault) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), Fault::UnknownVersion),
        (&[0, 9, 0, 20], Fault::UnknownVersion),
        (&[0, 10, 0, 15, 1, 2], Fault::MessageLength),
        (&[0, 10, 0, 0], Fault::MessageLength),
    ] {
        let site = Site::simple();
        let (mut good, mut bad) = (site.connect(), site.connect());
        let before = message(24, 7);
        bad.write_all(&[&before, garbage].concat()).unwrap();
        assert_eq!(site.messages(1), [before], "what came before is taken");
        let next = site.next();
        let Content::Broken { fault: found, start } = next.content else { panic!("{next:?}") };
        assert_eq!((found, &start[..]), (fault, &garbage[..2]));
        site.assert_end();
        assert_closed(bad);
        good.write_all(&message(16, 1)).unwrap();
        assert_eq!(site.messages(1).len(), 1);
        assert_eq!(site.metrics.ended.get("malformed"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_message_is_lost_and_counted() {
    let site = Site::simple();
    let mut client = site.connect();
    let (whole, half) = (message(50, 1), message(50, 2));
    client.write_all(&[&whole, &half[..49]].concat()).unwrap();
    drop(client);
    assert_eq!(site.messages(1), [whole]);
    site.assert_end();
    assert_eq!(site.metrics.ended.all().values().sum::<u64>(), 1);
    assert_eq!(site.metrics.ended.get("incomplete"), 1);
    assert_eq!(site.metrics.bytes.get(), 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited_until_others_end() {
    let site = Site::new("127.0.0.1:0", QUEUE_BYTES, Some((3, 2)));
    let refused = |reason| site.metrics.refused.get(reason);
    let mut first = site.connect_from(1);
    first.write_all(&message(16, 1)).unwrap();
    let mut second = site.connect_from(1);
    second.write_all(&message(16, 2)).unwrap();
    site.messages(2);
    assert_closed(site.connect_from(1));
    assert_eq!(refused("address"), 1);
    let mut third = site.connect_from(2);
    third.write_all(&message(16, 3)).unwrap();
    site.messages(1);
    assert_closed(site.connect_from(3));
    assert_eq!(refused("connections"), 1);
    assert_eq!((site.metrics.connections.get(), site.metrics.accepted.get()), (3, 5));
    // The place is free once the shard has heard of the end.
    drop(first);
    let end = site.next();
    assert_eq!(site.metrics.connections.get(), 3);
    drop(end);
    assert_eq!(site.metrics.connections.get(), 2);
    let mut fourth = site.connect_from(3);
    fourth.write_all(&message(16, 4)).unwrap();
    assert_eq!(site.messages(1), [message(16, 4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_send_does_not_come_in() {
    let site = Site::simple();
    assert_closed(site.connect_from(66));
    assert_eq!(site.metrics.refused.get("not_allowed"), 1);
    assert_eq!((site.metrics.connections.get(), site.metrics.accepted.get()), (0, 1));
    let mut other = site.connect_from(67);
    other.write_all(&message(16, 1)).unwrap();
    assert_eq!(site.messages(1).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_send_any_more_is_closed_also_when_it_says_nothing() {
    let site = Site::simple();
    let (mut other, mut once) = (site.connect(), site.connect_from(65));
    for client in [&mut other, &mut once] {
        client.write_all(&message(16, 1)).unwrap();
    }
    assert_eq!(site.messages(2).len(), 2);
    site.narrowed.store(true, Ordering::Release);
    assert_closed(once);
    site.assert_end();
    assert_eq!(site.metrics.ended.get("not_allowed"), 1);
    other.write_all(&message(16, 2)).unwrap();
    assert_eq!(site.messages(1), [message(16, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_shard_slows_the_sender_and_loses_nothing() {
    const MESSAGE: u16 = 1_000;
    // More than the kernel buffers for both ends, so that the sender has to wait.
    const COUNT: usize = 30_000;
    const WAITING: usize = 100_000;
    let site = Site::new("127.0.0.1:0", WAITING, None);
    let mut client = site.connect();
    let slowed = Arc::new(AtomicBool::new(false));
    let has_to_wait = Arc::clone(&slowed);
    let sending = std::thread::spawn(move || {
        client.set_nonblocking(true).unwrap();
        for number in 0..COUNT {
            let message = message(MESSAGE, number as u8);
            let mut rest = message.as_slice();
            while !rest.is_empty() {
                match client.write(rest) {
                    Ok(taken) => rest = &rest[taken..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        has_to_wait.store(true, Ordering::Release);
                        client.set_nonblocking(false).unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    // Nothing is taken until the sender has to wait.
    while !slowed.load(Ordering::Acquire) {
        assert!(!sending.is_finished(), "the sender had to wait");
        std::thread::yield_now();
    }
    let mut taken = 0;
    while taken < COUNT {
        let delivery = site.next();
        // What has been read is what was taken, what waits, and what one connection may have in hand.
        let read = site.metrics.bytes.get() as usize;
        let Content::Messages(messages) = delivery.content else { panic!("{delivery:?}") };
        for message in messages.iter() {
            assert_eq!((message.len(), message[5]), (usize::from(MESSAGE), taken as u8));
            taken += 1;
        }
        assert!(read <= taken * usize::from(MESSAGE) + WAITING + BUFFER_BYTES, "{read} read, {taken} taken");
    }
    sending.join().unwrap();
    site.assert_end();
    assert_eq!(site.metrics.messages.get(), COUNT as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_stops_what_was_sent_is_read_first() {
    let site = Site::simple();
    let mut clients: Vec<Client> = (0..10).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.write_all(&message(500, 1).repeat(10)).unwrap();
    }
    site.stop.cancel();
    let (mut messages, mut ends) = (0, 0);
    loop {
        match site.inbox.wait(PATIENCE) {
            Received::Delivery(Delivery { content: Content::Messages(some), .. }) => {
                messages += some.iter().count();
            }
            Received::Delivery(Delivery { content: Content::End(_), .. }) => ends += 1,
            Received::Over => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((messages, ends), (100, 10));
    clients.into_iter().for_each(assert_closed);
    site.serving.await.unwrap();
    assert!(Client::connect(site.address).is_err());
    assert_eq!(site.metrics.connections.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_when_nobody_takes_their_messages() {
    let site = Site::simple();
    let mut client = site.connect();
    drop(site.inbox);
    client.write_all(&message(16, 1)).unwrap();
    assert_closed(client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mapped_addresses_are_ipv4() {
    let site = Site::new("[::]:0", QUEUE_BYTES, None);
    let mut client = Client::connect(("127.0.0.1", site.address.port())).unwrap();
    client.write_all(&message(16, 1)).unwrap();
    assert_eq!(site.next().exporter.address, IpAddr::from([127, 0, 0, 1]));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = first[0].local_addr().unwrap();
    let error = bind(&[address]).unwrap_err();
    let said = format!("TCP port {} is taken by another process (`ss -ltnp", address.port());
    assert!(error.to_string().contains(&said), "{error}");
}
