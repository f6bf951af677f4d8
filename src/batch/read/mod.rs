//! Reads a batch: payload to columns to records. The rules are those of `proto/flowproxy/v1/batch.proto`.
//!
//! ```text
//! payload --zstd--> plain --count--> --prost--> Payload --group--> columns, runs
//! ```
//!
//! The payload comes from the network. Nothing is allocated from what it promises: `count` refuses a plain
//! payload with too many parts before prost makes them, and `group` pays for every value that it expands from
//! one budget a batch, since a column in which all values are alike takes no byte of the body.
//!
//! | if | then |
//! |---|---|
//! | the plain size is over [`MAX_PLAIN_SIZE`], or not that of the payload | refused before anything is expanded |
//! | a rule of batch.proto is broken anywhere | the whole batch is refused; the [`Error`] says which and where |
//! | a run column is not known | skipped: a later version of the contract may add some |
//! | an enum value is not known (kind, protocol, quality, source) | `Unknown`, or for a group's kind refused |
//!
//! Writing batches is `batch::build`'s; turning records into text is `flow::record`'s.

mod addresses;
mod body;
mod count;
mod group;
mod lists;
mod runs;

use super::{AddressText, Kind};
use crate::flow::Exporter;
use crate::proto::{self, Codec, InterfaceSource};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

pub use count::Part;
pub use group::{Column, Group, GroupError};
pub use lists::ListTable;
pub use runs::Run;

/// The largest plain payload that is read, in bytes: what a collector announces as `Limits.plain_bytes`.
pub const MAX_PLAIN_SIZE: u32 = 8 << 20;

/// The most that the records of one batch may come to, in bytes: the widths of their fields, each [`FIELD_COST`] at
/// least, and for each record [`RECORD_COST`] and the texts that may be written beside it.
pub const MAX_EXPANDED: usize = 64 << 20;

/// What a record counts against [`MAX_EXPANDED`] beside its fields, in bytes.
pub const RECORD_COST: usize = 64;

/// What a record counts against [`MAX_EXPANDED`] if the batch says where addresses belong, in bytes.
pub const ADDRESSES_COST: usize = 16;

/// The least that a field counts against [`MAX_EXPANDED`], in bytes.
pub const FIELD_COST: usize = 2;

/// A batch that keeps all the rules; the default has nothing in it.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Whom records and datagrams came from; runs and datagrams name them by their place.
    pub exporters: Vec<Source>,
    /// What the proxy knows of interfaces.
    pub interfaces: Vec<Interface>,
    /// Records by layout; empty in a raw batch.
    pub groups: Vec<Group>,
    /// Where addresses of the records belong.
    pub addresses: HashMap<IpAddr, AddressText>,
    list_tables: Vec<ListTable>,
    datagrams: Vec<proto::Datagram>,
}

/// An exporter and what the proxy's operator says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address and port.
    pub exporter: Exporter,
    /// Its name; empty if unknown.
    pub name: String,
    /// Its site; empty if unknown.
    pub site: String,
    /// Its labels, sorted by key.
    pub labels: BTreeMap<String, String>,
}

/// What the proxy knows of one interface of one exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Place in [`Batch::exporters`].
    pub exporter: usize,
    /// SNMP's ifIndex, as in elements 10 and 14.
    pub index: u32,
    /// Its name; empty if unknown.
    pub name: String,
    /// Its description; empty if unknown.
    pub description: String,
    /// Bits per second, 0 if unknown.
    pub speed: u64,
    /// Where that comes from.
    pub source: InterfaceSource,
    /// Seconds since the source was last asked.
    pub age: u32,
}

/// One datagram of a raw batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it.
    pub exporter: Exporter,
    /// The UDP port of the proxy that it came to.
    pub port: u16,
    /// When the proxy took it, in milliseconds since 1970.
    pub received: u64,
    /// The datagram.
    pub bytes: &'a [u8],
}

/// Why a batch is refused. All of them are the sender's fault and none passes by trying again.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("the plain size of {size} bytes is over the limit of {limit}")]
    PlainSize { size: u32, limit: u32 },
    #[error("the payload is {found} bytes, and should be {expected}")]
    Size { expected: u32, found: usize },
    #[error("the payload is not one zstd frame")]
    Frame,
    #[error("the payload does not expand: {0}")]
    Expand(&'static str),
    #[error("the payload is not protobuf at byte {at}")]
    Protobuf { at: usize },
    #[error("the payload is not a Payload message: {0}")]
    Parse(#[from] prost::DecodeError),
    #[error("more than {limit} {part}")]
    Many { part: Part, limit: usize },
    #[error("both groups and datagrams")]
    Mixed,
    #[error("list table {table}: the template {id} is there twice, or none that a list can name")]
    ListTemplate { table: usize, id: u32 },
    #[error("exporter {exporter}: {length} bytes are no address")]
    Address { exporter: usize, length: usize },
    #[error("{part} {place}: the port {port} is over 65535")]
    Port { part: Part, place: usize, port: u32 },
    #[error("{part} {place}: there is no exporter {exporter}")]
    Exporter { part: Part, place: usize, exporter: u32 },
    #[error("address set {set}: addresses are cut short")]
    AddressSet { set: usize },
    #[error("address set {set}: its country is not two capitals")]
    Country { set: usize },
    #[error("group {group}: {error}")]
    Group { group: usize, error: GroupError },
}

impl Error {
    /// The batch is over a limit and may be within all other rules.
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::PlainSize { .. } | Self::Many { .. } => true,
            Self::Group { error, .. } => *error == GroupError::Expanded,
            _ => false,
        }
    }
}

/// Reads the payload of a `Batch` of forward.proto.
///
/// `plain_size` is that message's. Errors leave nothing behind: a batch is read whole or refused whole.
pub fn open(codec: Codec, plain_size: u32, payload: &[u8]) -> Result<Batch, Error> {
    if plain_size > MAX_PLAIN_SIZE {
        return Err(Error::PlainSize { size: plain_size, limit: MAX_PLAIN_SIZE });
    }
    let right_size = |bytes: &[u8]| match bytes.len() {
        length if length == plain_size as usize => Ok(()),
        found => Err(Error::Size { expected: plain_size, found }),
    };
    let plain = match codec {
        Codec::Plain => right_size(payload).map(|()| Bytes::copy_from_slice(payload))?,
        Codec::Zstd => expand(plain_size, payload)?,
    };
    right_size(&plain)?;
    count::check(&plain)?;
    let payload = proto::Payload::decode(plain)?;
    if !payload.groups.is_empty() && !payload.datagrams.is_empty() {
        return Err(Error::Mixed);
    }
    let exporters = read_exporters(payload.exporters)?;
    let interfaces = read_interfaces(payload.interfaces, exporters.len())?;
    check_datagrams(&payload.datagrams, exporters.len())?;
    let list_tables = lists::read(payload.list_tables)?;
    let places = Places { exporters: exporters.len(), list_tables: list_tables.len() };
    let addresses = addresses::read(&payload.addresses)?;
    let mut budget = Budget::new(&exporters, &interfaces, !addresses.is_empty());
    let read_group = |(place, group)| {
        group::read(group, places, &mut budget).map_err(|error| Error::Group { group: place, error })
    };
    let groups = payload.groups.into_iter().enumerate().map(read_group).collect::<Result<_, _>>()?;
    Ok(Batch { exporters, interfaces, groups, addresses, list_tables, datagrams: payload.datagrams })
}

/// How many of each there are for runs to point at.
#[derive(Clone, Copy)]
struct Places {
    exporters: usize,
    list_tables: usize,
}

/// What the values of a batch may still take, in bytes.
struct Budget {
    left: usize,
    /// Of each record, beside its fields.
    record_cost: usize,
    /// Of each interface of a record.
    interface_cost: usize,
}

impl Budget {
    /// A sink may write with each record its exporter's texts, those of its interfaces, and where its addresses belong.
    fn new(exporters: &[Source], interfaces: &[Interface], has_addresses: bool) -> Self {
        let of_source = |source: &Source| {
            let labels = source.labels.iter().map(|(key, value)| key.len() + value.len());
            source.name.len() + source.site.len() + labels.sum::<usize>()
        };
        let of_interface = |interface: &Interface| interface.name.len() + interface.description.len();
        let addresses = if has_addresses { ADDRESSES_COST } else { 0 };
        Self {
            left: MAX_EXPANDED,
            record_cost: RECORD_COST + addresses + exporters.iter().map(of_source).max().unwrap_or(0),
            interface_cost: interfaces.iter().map(of_interface).max().unwrap_or(0),
        }
    }
}

/// Expands one zstd frame into at most `plain_size` bytes.
fn expand(plain_size: u32, payload: &[u8]) -> Result<Bytes, Error> {
    // zstd's own call takes several frames in a row, and frames of its older formats.
    let is_frame = payload.starts_with(&zstd::zstd_safe::MAGICNUMBER.to_le_bytes());
    if !is_frame || zstd::zstd_safe::find_frame_compressed_size(payload) != Ok(payload.len()) {
        return Err(Error::Frame);
    }
    let mut plain = Vec::with_capacity(plain_size as usize);
    zstd::zstd_safe::DCtx::create()
        .decompress(&mut plain, payload)
        .map_err(|code| Error::Expand(zstd::zstd_safe::get_error_name(code)))?;
    Ok(plain.into())
}

fn read_exporters(exporters: Vec<proto::Exporter>) -> Result<Vec<Source>, Error> {
    let read = |(place, exporter): (usize, proto::Exporter)| {
        let address = address(&exporter.address)
            .ok_or(Error::Address { exporter: place, length: exporter.address.len() })?;
        let port = port(Part::Exporters, place, exporter.port)?;
        Ok(Source {
            exporter: Exporter { address, port },
            name: exporter.name,
            site: exporter.site,
            labels: exporter.labels.into_iter().collect(),
        })
    };
    exporters.into_iter().enumerate().map(read).collect()
}

fn read_interfaces(interfaces: Vec<proto::Interface>, exporters: usize) -> Result<Vec<Interface>, Error> {
    let read = |(place, interface): (usize, proto::Interface)| {
        Ok(Interface {
            source: interface.source(),
            exporter: known_exporter(Part::Interfaces, place, interface.exporter, exporters)?,
            index: interface.index,
            name: interface.name,
            description: interface.description,
            speed: interface.speed,
            age: interface.age,
        })
    };
    interfaces.into_iter().enumerate().map(read).collect()
}

fn check_datagrams(datagrams: &[proto::Datagram], exporters: usize) -> Result<(), Error> {
    for (place, datagram) in datagrams.iter().enumerate() {
        known_exporter(Part::Datagrams, place, datagram.exporter, exporters)?;
        port(Part::Datagrams, place, datagram.port)?;
    }
    Ok(())
}

fn known_exporter(part: Part, place: usize, exporter: u32, exporters: usize) -> Result<usize, Error> {
    let known = usize::try_from(exporter).ok().filter(|&index| index < exporters);
    known.ok_or(Error::Exporter { part, place, exporter })
}

fn port(part: Part, place: usize, port: u32) -> Result<u16, Error> {
    u16::try_from(port).map_err(|_| Error::Port { part, place, port })
}

/// An address of 4 or 16 bytes; an IPv4-mapped one is IPv4, as everywhere.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_canonical())
}

impl Batch {
    /// Records or raw datagrams. A batch with neither is one of records.
    pub fn kind(&self) -> Kind {
        if self.datagrams.is_empty() { Kind::Records } else { Kind::Raw }
    }

    /// How many records there are, or in a raw batch datagrams.
    pub fn records(&self) -> u64 {
        let records: u64 = self.groups.iter().map(|group| group.records() as u64).sum();
        records + self.datagrams.len() as u64
    }

    /// The datagrams of a raw batch, in the order received.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        self.datagrams.iter().map(|datagram| Datagram {
            exporter: self.exporter(datagram.exporter as usize),
            port: datagram.port as u16,
            received: datagram.received,
            bytes: &datagram.bytes,
        })
    }

    /// The exporter at this place, as a run or an interface names it.
    #[expect(clippy::indexing_slicing, reason = "open() has checked every place that the batch names")]
    pub fn exporter(&self, place: usize) -> Exporter {
        self.exporters[place].exporter
    }

    /// The templates that lists in the run's records name; `None` if they name none that is known.
    pub fn lists(&self, run: &Run) -> Option<&ListTable> {
        self.list_tables.get(run.lists.checked_sub(1)?)
    }

    /// Records, or in a raw batch datagrams, by exporter address.
    pub fn counts(&self) -> BTreeMap<IpAddr, u64> {
        let mut counts = BTreeMap::new();
        for run in self.groups.iter().flat_map(Group::runs) {
            *counts.entry(self.exporter(run.exporter).address).or_default() += u64::from(run.records);
        }
        for datagram in self.datagrams() {
            *counts.entry(datagram.exporter.address).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests;
