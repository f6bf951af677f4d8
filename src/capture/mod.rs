//! Captures: files of packets or of IPFIX messages in, flow datagrams out.
//!
//! ```text
//! file or stdin --window--> pcap | pcapng | ipfix --frame--> link --> ip (fragments) --> UDP datagram
//!                                       \--message--------------------------------------> datagram
//! ```
//!
//! | first bytes | what the file is | source |
//! |---|---|---|
//! | `a1b2c3d4`, `a1b23c4d`, in either byte order | pcap, of microseconds or nanoseconds | draft-ietf-opsawg-pcap |
//! | `0a0d0d0a` | pcapng | draft-ietf-opsawg-pcapng |
//! | `000a` | IPFIX messages, back to back | RFC 5655 |
//! | those of gzip, zstd, xz, bzip2, lz4, zip, nfdump | refused, with what to do | |
//!
//! | if | then |
//! |---|---|
//! | the file ends inside a packet, a block or a message | what is before it was given, then [`Error::Ended`] |
//! | a length cannot be true | what is before it was given, then [`Error::Damaged`] |
//! | a packet is not UDP over IP, or not readable as that | counted, see [`Counts`]; the next one is read |
//! | a packet of a pcapng is of an interface that it does not describe | counted; the next one is read |
//! | the capture cut a packet short (snap length) | the datagram is given with [`Datagram::missing`], and counted |
//! | a datagram came in fragments | it is given when its last fragment came |
//!
//! A file is read once, from start to end, in a window of fixed size: memory does not grow with it. What a flow datagram
//! is and what is in it is not known here.

mod error;
mod fragments;
mod ip;
mod ipfix;
mod link;
mod pcap;
mod pcapng;
mod window;

#[cfg(test)]
mod tests;

pub use error::Error;

use crate::flow::Exporter;
use fragments::Fragments;
use ip::Ends;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::Path;
use window::Window;

/// The largest packet, block or message that is believed, in bytes.
const MAX_ITEM_BYTES: usize = 16 << 20;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their own names")]
pub enum Format {
    Pcap,
    Pcapng,
    Ipfix,
}

impl Format {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Pcap => "pcap",
            Format::Pcapng => "pcapng",
            Format::Ipfix => "IPFIX file",
        }
    }
}

/// What was in a file, in packets unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets, or in an IPFIX file messages.
    pub packets: u64,
    /// UDP datagrams or messages that were given.
    pub datagrams: u64,
    /// Without IPv4 or IPv6 in them.
    pub not_ip: u64,
    /// IP, but not UDP.
    pub not_udp: u64,
    /// Of a link type that is not known here.
    pub unknown_link: u64,
    /// Of an interface that the file, a pcapng, does not describe.
    pub undescribed: u64,
    /// With headers that cannot be true, or cut inside them.
    pub malformed: u64,
    /// Datagrams given of which the capture lacks the end.
    pub cut: u64,
    /// Fragments of datagrams.
    pub fragments: u64,
    /// Datagrams given that came in fragments.
    pub reassembled: u64,
    /// Fragmented datagrams given up because fragments were missing when time or room ran out, or the file, or when a
    /// later datagram came with their id.
    pub incomplete: u64,
    /// Fragmented datagrams refused because fragments overlapped, or can be of no datagram.
    pub refused: u64,
}

/// A datagram of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Who sent it; 0.0.0.0 port 0 in IPFIX files, which do not say.
    pub exporter: Exporter,
    /// Where it was sent to.
    pub destination: Exporter,
    /// When it was captured, in milliseconds since 1970; in IPFIX files the export time.
    pub received: u64,
    /// Bytes at its end that the capture does not hold.
    pub missing: usize,
    /// The UDP payload or the message, as far as it is there.
    pub bytes: &'a [u8],
}

/// What comes next of a file.
#[derive(Clone, Copy, Debug)]
pub enum Next<'a> {
    /// A datagram.
    Datagram(Datagram<'a>),
    /// Nothing yet: the next call waits for the file. Time to show what there is.
    Dry,
    /// Nothing more.
    End,
}

/// A file that is being read.
pub struct Capture {
    file: String,
    window: Window,
    source: Source,
    fragments: Fragments,
    counts: Counts,
    /// That the window is dry has been said.
    told: bool,
    /// Bytes of the window that the datagram given last lies in.
    used: usize,
    whole: Vec<u8>,
}

enum Source {
    Pcap(pcap::Reader),
    Pcapng(pcapng::Reader),
    Ipfix,
}

/// What lies at the window's start.
enum Item {
    /// So many bytes must be in the window before that can be said.
    Need { bytes: usize, what: &'static str },
    /// Bytes that are of no interest.
    Skip(usize),
    /// A packet of a capture.
    Packet(Packet),
    /// A block of so many bytes with a packet whose link type is not known, since nothing describes its interface.
    Undescribed(usize),
    /// An IPFIX message of so many bytes, exported at (milliseconds since 1970).
    Message { bytes: usize, exported: u64 },
}

/// Where a packet lies in the window, and what the file says of it.
#[derive(Clone, Debug)]
struct Packet {
    /// Bytes that its block takes.
    block: usize,
    /// Its own bytes.
    bytes: Range<usize>,
    /// Bytes that were on the wire.
    original: usize,
    /// The link type.
    link: u16,
    /// Milliseconds since 1970.
    time: u64,
}

/// A length that cannot be true: what is wrong.
type Damage = String;

/// A datagram found, whose bytes lie in the window or in `whole`.
struct Found {
    ends: Ends,
    ports: (u16, u16),
    time: u64,
    missing: usize,
    bytes: Range<usize>,
    is_whole: bool,
}

impl Capture {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be opened or is no capture.
    pub fn open(path: &Path) -> Result<Capture, Error> {
        if path == Path::new("-") {
            return Capture::new(error::STANDARD_INPUT.to_owned(), Box::new(io::stdin()));
        }
        let file = path.display().to_string();
        match open_file(path) {
            Ok(input) => Capture::new(file, Box::new(input)),
            Err(error) => Err(Error::Open { file, error }),
        }
    }

    /// Reads from `input`, which errors call `file`.
    ///
    /// # Errors
    /// When it is no capture.
    pub fn new(file: String, input: Box<dyn io::Read>) -> Result<Capture, Error> {
        let mut window = Window::new(input);
        while window.data().len() < 4 && !window.is_ended() {
            window.fill(4).map_err(|error| Error::Read { file: file.clone(), offset: 0, error })?;
        }
        if let Some((with, expand)) = compression(window.data()) {
            return Err(Error::Compressed { file, with, expand });
        }
        let source = match *window.data() {
            [] => return Err(Error::Empty { file }),
            [0x0c, 0xa5, ..] | [0xa5, 0x0c, ..] => return Err(Error::Decoded { file }),
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Source::Pcapng(pcapng::Reader::default()),
            [0xa1, 0xb2, 0xc3, 0xd4, ..]
            | [0xa1, 0xb2, 0x3c, 0x4d, ..]
            | [0xd4, 0xc3, 0xb2, 0xa1, ..]
            | [0x4d, 0x3c, 0xb2, 0xa1, ..] => Source::Pcap(pcap::Reader::default()),
            [0, 10, ..] => Source::Ipfix,
            ref other => {
                let first = other.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                return Err(Error::Format { file, first });
            }
        };
        Ok(Capture {
            file,
            window,
            source,
            fragments: Fragments::default(),
            counts: Counts::default(),
            told: false,
            used: 0,
            whole: Vec::new(),
        })
    }

    /// What the file is.
    pub fn format(&self) -> Format {
        match self.source {
            Source::Pcap(_) => Format::Pcap,
            Source::Pcapng(_) => Format::Pcapng,
            Source::Ipfix => Format::Ipfix,
        }
    }

    /// What was in it so far.
    pub fn counts(&self) -> Counts {
        Counts { incomplete: self.fragments.incomplete(), refused: self.fragments.refused(), ..self.counts }
    }

    /// The next datagram.
    ///
    /// # Errors
    /// When the file cannot be read further; all before that was given.
    pub fn read(&mut self) -> Result<Next<'_>, Error> {
        loop {
            self.window.skip(std::mem::take(&mut self.used));
            let data = self.window.data();
            let item = match &mut self.source {
                Source::Pcap(reader) => reader.item(data),
                Source::Pcapng(reader) => reader.item(data),
                Source::Ipfix => ipfix::item(data),
            };
            let found = match item {
                Err(text) => {
                    let (file, offset) = (self.file.clone(), self.window.offset());
                    return Err(Error::Damaged { file, offset, text });
                }
                Ok(Item::Need { bytes, what }) => match self.need(bytes, what)? {
                    Some(next) => return Ok(next),
                    None => continue,
                },
                Ok(Item::Skip(bytes)) => {
                    self.used = bytes;
                    continue;
                }
                Ok(Item::Undescribed(bytes)) => {
                    self.used = bytes;
                    self.counts.packets += 1;
                    self.counts.undescribed += 1;
                    continue;
                }
                Ok(Item::Message { bytes, exported }) => {
                    self.used = bytes;
                    self.counts.packets += 1;
                    Some(message(bytes, exported))
                }
                Ok(Item::Packet(packet)) => {
                    self.used = packet.block;
                    self.packet(&packet)
                }
            };
            if let Some(found) = found {
                self.counts.datagrams += 1;
                self.counts.cut += u64::from(found.missing > 0);
                return Ok(Next::Datagram(self.give(found)));
            }
        }
    }

    /// Gets more of the file; what there is to say if that is not it.
    fn need(&mut self, bytes: usize, what: &'static str) -> Result<Option<Next<'static>>, Error> {
        let (offset, left) = (self.window.offset(), self.window.data().len());
        let file = || self.file.clone();
        if bytes > MAX_ITEM_BYTES {
            let text = format!("{what} of {bytes} bytes");
            return Err(Error::Damaged { file: file(), offset, text });
        }
        if self.window.is_ended() {
            self.fragments.end();
            let missing = self.window.skipping();
            let is_inside = left > 0 || missing > 0;
            let offset = offset - missing as u64;
            return if is_inside {
                Err(Error::Ended { file: file(), offset, what })
            } else {
                Ok(Some(Next::End))
            };
        }
        if !std::mem::replace(&mut self.told, true) {
            return Ok(Some(Next::Dry));
        }
        self.told = false;
        let read = self.window.fill(bytes);
        read.map_err(|error| Error::Read { file: file(), offset: offset + left as u64, error })?;
        // A pipe may give less than what is needed: go on without saying again that there is nothing.
        self.told = self.window.data().len() < bytes && !self.window.is_ended();
        Ok(None)
    }

    /// The datagram that a packet holds or completes.
    fn packet(&mut self, packet: &Packet) -> Option<Found> {
        self.counts.packets += 1;
        let frame = self.window.data().get(packet.bytes.clone())?;
        let cut = packet.original.saturating_sub(frame.len());
        let result = link::network(packet.link, frame).and_then(|network| ip::read(network, cut));
        match result {
            Ok(ip::Read::Udp { ends, udp }) => {
                // Slices of the window, as a range of it.
                let start = udp.payload.as_ptr().addr().checked_sub(self.window.data().as_ptr().addr())?;
                Some(Found {
                    ends,
                    ports: udp.ports,
                    time: packet.time,
                    missing: udp.missing,
                    bytes: start..start + udp.payload.len(),
                    is_whole: false,
                })
            }
            Ok(ip::Read::Fragment(fragment)) => {
                self.counts.fragments += 1;
                let whole = self.fragments.add(&fragment, packet.time)?;
                self.reassembled(whole, fragment.ends, packet.time)
            }
            Err(reason) => {
                self.counts.count(reason);
                None
            }
        }
    }

    fn reassembled(&mut self, whole: fragments::Whole, ends: Ends, time: u64) -> Option<Found> {
        self.whole = whole.bytes;
        match ip::transport(whole.protocol, &self.whole, 0) {
            Ok(udp) => {
                self.counts.reassembled += 1;
                let start = self.whole.len() - udp.after;
                let bytes = start..start + udp.payload.len();
                Some(Found { ends, ports: udp.ports, time, missing: udp.missing, bytes, is_whole: true })
            }
            Err(reason) => {
                self.counts.count(reason);
                None
            }
        }
    }

    fn give(&self, found: Found) -> Datagram<'_> {
        let from = if found.is_whole { self.whole.as_slice() } else { self.window.data() };
        let exporter = |address: IpAddr, port| Exporter { address: address.to_canonical(), port };
        Datagram {
            exporter: exporter(found.ends.source, found.ports.0),
            destination: exporter(found.ends.destination, found.ports.1),
            received: found.time,
            missing: found.missing,
            bytes: from.get(found.bytes).unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("file", &self.file)
            .field("format", &self.format())
            .finish_non_exhaustive()
    }
}

impl Counts {
    fn count(&mut self, reason: Unread) {
        let count = match reason {
            Unread::NotIp => &mut self.not_ip,
            Unread::NotUdp => &mut self.not_udp,
            Unread::UnknownLink => &mut self.unknown_link,
            Unread::Malformed => &mut self.malformed,
        };
        *count += 1;
    }
}

/// Why a packet is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    NotIp,
    NotUdp,
    UnknownLink,
    Malformed,
}

/// An IPFIX message as a datagram: who sent it is not known.
fn message(bytes: usize, exported: u64) -> Found {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Found {
        ends: Ends { source: nowhere, destination: nowhere },
        ports: (0, 0),
        time: exported,
        missing: 0,
        bytes: 0..bytes,
        is_whole: false,
    }
}

/// What compressed a file that begins so, and the command that expands it to its output.
fn compression(start: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match start {
        [0x1f, 0x8b, ..] => ("gzip", "gzip -dc"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd -dc"),
        [0xfd, b'7', b'z', b'X', ..] => ("xz", "xz -dc"),
        [b'B', b'Z', b'h', ..] => ("bzip2", "bzip2 -dc"),
        [0x04, 0x22, 0x4d, 0x18, ..] => ("lz4", "lz4 -dc"),
        [b'P', b'K', 3, 4, ..] => ("zip", "unzip -p"),
        _ => return None,
    })
}

/// Opens a file, and refuses a folder, which would only fail at the first read.
fn open_file(path: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("is a folder, not a file"));
    }
    Ok(file)
}
