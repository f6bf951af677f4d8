//! Raw datagrams out again by UDP, byte for byte and in the order in which the proxy took them, to every
//! address.
//!
//! UDP tells nobody whether a datagram arrived. The group under way is sent again after a crash, so receivers
//! may see the datagrams of the last group twice. The datagrams come from the collector's own address.
//!
//! Batches come in bursts, and a receiver's socket buffer holds about a hundred datagrams by default. So they
//! are sent at most [`Settings::max_rate`] a second to each address, in bursts of at most `BURST`.

use super::{Sink, SinkError, Taken};
use crate::batch::Kind;
use crate::lines::limited;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The most that is sent to an address without a pause, in datagrams.
const BURST: u32 = 32;

/// What the UDP sink is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where every datagram goes.
    pub to: Vec<SocketAddr>,
    /// Datagrams a second to each address.
    pub max_rate: u32,
}

impl Settings {
    /// To these addresses at 20,000 datagrams a second.
    pub fn new(to: Vec<SocketAddr>) -> Self {
        Self { to, max_rate: 20_000 }
    }
}

/// The sink.
#[derive(Debug)]
pub struct Udp {
    settings: Settings,
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
    /// Sends of the group under way that are done, when an error has cut it off.
    done: usize,
    /// Datagrams sent since the last pause.
    burst: u32,
    rest_until: Instant,
}

impl Udp {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When a socket can not be made.
    pub fn open(settings: Settings) -> io::Result<Self> {
        let wants = |ipv6| settings.to.iter().any(|to| to.is_ipv6() == ipv6);
        let ipv4 = wants(false).then(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).transpose()?;
        let ipv6 = wants(true).then(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).transpose()?;
        Ok(Self { settings, ipv4, ipv6, done: 0, burst: 0, rest_until: Instant::now() })
    }

    fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = if to.is_ipv6() { &self.ipv6 } else { &self.ipv4 };
        let Some(socket) = socket else { return Ok(()) };
        match socket.send_to(bytes, to) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                limited!(warn, %to, bytes = bytes.len(), "A datagram is too long to be sent there; it is left out");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the rate: called before each datagram, sleeps between bursts.
    fn pace(&mut self) {
        if self.burst == BURST {
            std::thread::sleep(self.rest_until.saturating_duration_since(Instant::now()));
            self.burst = 0;
        }
        if self.burst == 0 {
            let burst = Duration::from_secs(1) * BURST / self.settings.max_rate.max(1);
            self.rest_until = Instant::now() + burst;
        }
        self.burst += 1;
    }
}

impl Sink for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    fn takes(&self, kind: Kind) -> bool {
        kind == Kind::Raw
    }

    fn write(&mut self, group: &[Taken]) -> Result<u64, SinkError> {
        let (mut place, mut sent) = (0, 0);
        for datagram in group.iter().flat_map(|taken| taken.batch.datagrams()) {
            self.pace();
            for index in 0..self.settings.to.len() {
                let Some(&to) = self.settings.to.get(index) else { continue };
                place += 1;
                if place <= self.done {
                    continue;
                }
                let fault =
                    |error: io::Error| SinkError { sink: "udp", text: format!("sending to {to}: {error}") };
                self.send(datagram.bytes, to).map_err(fault)?;
                self.done = place;
                sent += datagram.bytes.len() as u64;
            }
        }
        self.done = 0;
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::tests::{raw_batch, taken};

    #[test]
    fn every_address_gets_every_datagram_in_order() {
        let receivers: Vec<UdpSocket> =
            (0..2).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let to = receivers.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let mut sink = Udp::open(Settings::new(to)).unwrap();
        assert!(sink.takes(Kind::Raw) && !sink.takes(Kind::Records));
        let group = [taken(1, raw_batch(&[b"one", b"two"])), taken(2, raw_batch(&[b"", b"four"]))];
        assert_eq!(sink.write(&group).unwrap(), 2 * 10);
        for receiver in receivers {
            receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = [0; 100];
            for expected in [&b"one"[..], b"two", b"", b"four"] {
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], expected);
            }
        }
    }

    #[test]
    fn what_was_sent_before_an_error_is_not_sent_again() {
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let good = receiver.local_addr().unwrap();
        // Port 0 is nowhere: the kernel refuses it with EINVAL.
        let bad = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sink = Udp::open(Settings::new(vec![good, bad])).unwrap();
        let group = [taken(1, raw_batch(&[b"one", b"two"]))];
        assert!(sink.write(&group).is_err());
        sink.settings.to = vec![good, good];
        sink.write(&group).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let mut buffer = [0; 100];
        let texts =
            std::iter::from_fn(|| receiver.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
        let texts: Vec<Vec<u8>> = texts.collect();
        assert_eq!(texts, [b"one", b"one", b"two", b"two"]);
    }
}
