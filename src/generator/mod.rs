//! The generator: NetFlow v9 from what has none.
//!
//! A source says what it saw ([`sources`]), [`export`] counts it and writes it by [`encoder`], at the pace of
//! [`pacing`]; this module holds the sockets, the clock and the loop. It knows nothing of the proxy: any
//! collector may be at the other end.
//!
//! | if | then |
//! |---|---|
//! | a datagram cannot be sent | it is counted as failed, its records are not counted as sent; logged once |
//! | the machine is too slow for the rate, or `must_hold` | what was not made in time is not made at all; the pace stays |
//! | `stop` is cancelled | what lies in open datagrams is sent, then the totals are returned |

pub mod encoder;
pub mod export;
pub mod pacing;
pub mod sources;

use export::{Export, Totals, max_bytes};
use pacing::TokenBucket;
use sources::mesh::{self, Mesh};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Between two looks at the token bucket.
const STEP: Duration = Duration::from_millis(1);
/// What a late look may catch up on.
const BURST: Duration = Duration::from_millis(20);
/// How long the mesh's exporters claim to be up when they start: flows may have begun before that.
const UPTIME_AT_START: Duration = Duration::from_secs(3 * 86_400);

/// What stopped the generator before it began.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No socket.
    #[error("cannot send from {from} to {to}: {source}")]
    Socket {
        /// Our address.
        from: IpAddr,
        /// Where the datagrams should go.
        to: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The records do not fit into datagrams of this size.
    #[error("datagrams of {max_bytes} bytes are too small: {source}")]
    Size {
        /// As the MTU leaves.
        max_bytes: u16,
        /// What does not fit.
        source: encoder::Fault,
    },
}

/// How the mesh is sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where all exporters send to.
    pub to: SocketAddr,
    /// Where each exporter sends from; each gets a socket, whose port stays for its life. There must be one
    /// for each site.
    pub from: Vec<IpAddr>,
    /// Records a second, over all exporters.
    pub rate: u64,
    /// Of the path, in bytes.
    pub mtu: u16,
    /// Gives every record a `flowId` (148) of its own: exporter number in the upper 24 bits, its records
    /// counted from 0 below.
    pub numbered: bool,
    /// Templates and options are repeated after this time.
    pub template_interval: Duration,
    /// The longest that a record waits for its datagram to fill.
    pub max_delay: Duration,
    /// Who talks.
    pub mesh: mesh::Settings,
}

/// Bits of a `flowId` that count the records of one exporter.
pub const NUMBER_BITS: u32 = 40;

/// What was sent so far; read while the generator runs.
#[derive(Debug, Default)]
pub struct Counts {
    records: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    datagrams: AtomicU64,
    udp_bytes: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// What the sockets took.
    pub fn totals(&self) -> Totals {
        Totals {
            records: self.records.load(Ordering::Relaxed),
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            datagrams: self.datagrams.load(Ordering::Relaxed),
        }
    }

    /// Bytes of those datagrams, UDP payload.
    pub fn udp_bytes(&self) -> u64 {
        self.udp_bytes.load(Ordering::Relaxed)
    }

    /// Datagrams that no socket took.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn add(&self, sent: Totals, udp_bytes: usize) {
        self.udp_bytes.fetch_add(udp_bytes as u64, Ordering::Relaxed);
        self.records.fetch_add(sent.records, Ordering::Relaxed);
        self.packets.fetch_add(sent.packets, Ordering::Relaxed);
        self.bytes.fetch_add(sent.bytes, Ordering::Relaxed);
        self.datagrams.fetch_add(sent.datagrams, Ordering::Relaxed);
    }
}

/// The mesh with its exporters' sockets, ready to run.
#[derive(Debug)]
pub struct Generator {
    mesh: Mesh,
    exporters: Vec<(UdpSocket, Export)>,
    rate: u64,
    clock: Clock,
}

impl Generator {
    /// Opens the sockets.
    ///
    /// # Errors
    /// An address that cannot be sent from, an MTU too small for a record.
    pub fn new(settings: &Settings) -> Result<Generator, Fault> {
        let mesh = Mesh::new(&settings.mesh);
        let clock = Clock::new();
        let max_bytes = max_bytes(settings.mtu, settings.to.ip());
        let interfaces = Mesh::interfaces();
        let mut exporters = Vec::new();
        for (number, from) in (0u32..).zip(settings.from.iter().copied()).take(mesh.sites().len()) {
            let fault = |source| Fault::Socket { from, to: settings.to, source };
            let socket = UdpSocket::bind((from, 0)).map_err(fault)?;
            socket.connect(settings.to).map_err(fault)?;
            let packing = encoder::Settings {
                version: encoder::Version::NetflowV9,
                domain: number + 1,
                booted: clock.now().saturating_sub(UPTIME_AT_START.as_millis() as u64),
                max_bytes,
                max_delay: settings.max_delay,
                template_interval: settings.template_interval,
                template_datagrams: 4_096,
            };
            let first_number = settings.numbered.then_some(u64::from(number) << NUMBER_BITS);
            let export = Export::new(packing, &interfaces, first_number)
                .map_err(|source| Fault::Size { max_bytes, source })?;
            exporters.push((socket, export));
        }
        Ok(Generator { mesh, exporters, rate: settings.rate, clock })
    }

    /// The mesh that talks.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Each exporter's own address, in the order of [`Mesh::sites`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.exporters.iter().filter_map(|(socket, _)| socket.local_addr().ok()).collect()
    }

    /// Sends until `stop`; while `must_hold` says so, nothing new is made. It blocks: give it a thread.
    pub fn run(mut self, stop: &CancellationToken, counts: &Counts, must_hold: impl Fn() -> bool) -> Totals {
        let mut bucket = TokenBucket::new(self.rate, BURST, Instant::now());
        while !stop.is_cancelled() {
            let looked = Instant::now();
            let now = self.clock.now();
            for _ in 0..bucket.take(looked) {
                if must_hold() {
                    break;
                }
                let (exporter, flow) = self.mesh.next_flow(now);
                if let Some((socket, export)) = self.exporters.get_mut(exporter) {
                    let wrote = export.record(&flow, now, &mut |datagram, held| {
                        send(socket, datagram.bytes, held, counts);
                    });
                    debug_assert!(wrote.is_ok(), "the mesh makes flows that fit: {wrote:?}");
                }
            }
            for (socket, export) in &mut self.exporters {
                export.poll(now, &mut |datagram, held| send(socket, datagram.bytes, held, counts));
            }
            // Who took longer than a step is behind.
            if looked.elapsed() < STEP {
                std::thread::sleep(STEP);
            }
        }
        let now = self.clock.now();
        for (socket, export) in &mut self.exporters {
            export.flush(now, &mut |datagram, held| send(socket, datagram.bytes, held, counts));
        }
        counts.totals()
    }
}

/// Sends once more after a failure: a connected socket tells with the next datagram that the one before
/// found nobody, and does not send it.
fn send(socket: &UdpSocket, bytes: &[u8], held: Totals, counts: &Counts) {
    match socket.send(bytes).or_else(|_| socket.send(bytes)) {
        Ok(taken) => counts.add(held, taken),
        Err(error) => {
            if counts.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(%error, "A datagram could not be sent; others are only counted.");
            }
        }
    }
}

/// Milliseconds since 1970 that never go back: the time at the start and what passed since.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    started_at: u64,
}

impl Clock {
    fn new() -> Clock {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), started_at: millis(since) }
    }

    fn now(&self) -> u64 {
        self.started_at.saturating_add(millis(self.started.elapsed()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn settings(to: SocketAddr) -> Settings {
        Settings {
            to,
            from: vec![IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3])],
            rate: 20_000,
            mtu: 1_500,
            numbered: true,
            template_interval: Duration::from_secs(60),
            max_delay: Duration::from_millis(50),
            mesh: mesh::Settings { seed: 1, sites: 2, ipv6_percent: 20 },
        }
    }

    #[test]
    fn what_is_counted_arrives_from_the_exporters_ports() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let generator = Generator::new(&settings(receiver.local_addr().unwrap())).unwrap();
        let addresses: HashSet<SocketAddr> = generator.addresses().into_iter().collect();
        let (stop, counts) = (CancellationToken::new(), Counts::default());
        let totals = std::thread::scope(|scope| {
            let running = scope.spawn(|| generator.run(&stop, &counts, || false));
            while counts.totals().records < 300 {
                std::thread::yield_now();
            }
            stop.cancel();
            running.join().unwrap()
        });
        assert_eq!((counts.totals(), counts.failed()), (totals, 0));
        let mut senders = HashSet::new();
        let mut buffer = [0; 2_048];
        for _ in 0..totals.datagrams {
            let (bytes, sender) = receiver.recv_from(&mut buffer).unwrap();
            assert!(bytes <= 1_472 && buffer[..2] == [0, 9]);
            senders.insert(sender);
        }
        receiver.set_nonblocking(true).unwrap();
        assert!(receiver.recv_from(&mut buffer).is_err(), "no more than was counted");
        assert_eq!(senders, addresses);
    }

    #[test]
    fn a_foreign_address_and_a_small_mtu_are_refused() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let from = vec![IpAddr::from([192, 0, 2, 1])];
        let fault = Generator::new(&Settings { from, ..settings(to) }).unwrap_err();
        assert!(fault.to_string().starts_with("cannot send from 192.0.2.1 to 127.0.0.1:9: "), "{fault}");
        let fault = Generator::new(&Settings { mtu: 68, ..settings(to) }).unwrap_err();
        assert!(matches!(fault, Fault::Size { max_bytes: 40, .. }), "{fault}");
    }
}
