//! Gathers records into groups until a batch is sealed.
//!
//! Rows are kept as they came, one copy a set; columns are made at the seal. Buffers stay from batch to batch.

use super::addresses::Addresses;
use super::columns::Encoder;
use super::interfaces::Interfaces;
use super::lists::ListTables;
use super::names::{Names, Sender};
use super::pack::{Effort, Packer};
use super::room::Room;
use super::senders::Senders;
use super::{Digest, Kind, Sealed, Share, digest};
use crate::flow::list::Named;
use crate::flow::{Exporter, Layout, Run, Slot};
use crate::proto::{self, Codec};
use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records, at most 65,536.
    pub max_records: usize,
    /// Bytes of the plain payload, as estimated while it grows.
    pub max_bytes: usize,
}

/// Bytes that a group with its run columns, a column and a run take in the payload beside the records' values, at
/// most.
const GROUP_BYTES: usize = 256;
const COLUMN_BYTES: usize = 32;
const RUN_BYTES: usize = 64;

/// Records of one layout, as they came.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) layout: Arc<Layout>,
    pub(super) rows: Vec<u8>,
    /// Ends of the records in `rows`; empty when the layout has a stride.
    pub(super) ends: Vec<u32>,
    pub(super) runs: Vec<RunOf>,
    pub(super) records: usize,
}

/// A run of a group: how many records, and the places of the exporter and of the list table in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunOf {
    pub(super) records: u32,
    pub(super) exporter: u32,
    /// From 1; 0 if the records need none.
    pub(super) lists: u32,
    pub(super) run: Run,
}

/// The batch that is being filled.
#[derive(Debug)]
pub struct Builder {
    generation: u64,
    /// The first `used` are of this batch, the others keep their buffers for the next.
    groups: Vec<Group>,
    used: usize,
    index: HashMap<u64, usize>,
    senders: Senders,
    lists: ListTables,
    interfaces: Interfaces,
    addresses: Addresses,
    records: usize,
    bytes: usize,
    received: u64,
    plain: Vec<u8>,
    encoder: Encoder,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// An empty batch.
    pub fn new() -> Builder {
        Builder {
            generation: 1,
            groups: Vec::new(),
            used: 0,
            index: HashMap::new(),
            senders: Senders::default(),
            lists: ListTables::default(),
            interfaces: Interfaces::default(),
            addresses: Addresses::default(),
            records: 0,
            bytes: 0,
            received: 0,
            plain: Vec::new(),
            encoder: Encoder::default(),
        }
    }

    /// Begins the next batch without the records of this one, in whatever state it is: for after a panic in it. Slots
    /// that were set by it are of no batch to come.
    pub fn give_up(&mut self) {
        *self = Builder { generation: self.generation + 1, ..Builder::new() };
    }

    /// Adds `count` records that lie back to back in `rows`; `ends` has the end of each in `rows` when the
    /// layout has no stride, else it is empty. `slot` stands beside the layout and is this builder's alone.
    pub fn push(
        &mut self,
        run: &Run,
        layout: &Arc<Layout>,
        slot: &Slot,
        rows: &[u8],
        ends: &[u32],
        count: u32,
    ) {
        self.push_with_lists(run, layout, slot, rows, ends, count, &[]);
    }

    /// Adds records as [`Builder::push`] does; `named` are the templates that lists in them name.
    #[expect(
        clippy::too_many_arguments,
        reason = "a set of records as `wire::Output` gives it, and its lists"
    )]
    pub fn push_with_lists(
        &mut self,
        run: &Run,
        layout: &Arc<Layout>,
        slot: &Slot,
        rows: &[u8],
        ends: &[u32],
        count: u32,
        named: &[Named],
    ) {
        if self.records == 0 {
            self.received = run.received;
        }
        let lists = self.lists.place(run.exporter, run.domain, named);
        let sender = Sender { exporter: run.exporter, domain: run.domain, agent: run.agent };
        let exporter = self.senders.add(sender, count, run.sequence);
        let place = self.place(layout, slot);
        let Some(group) = self.groups.get_mut(place) else { return };
        let base = group.rows.len() as u32;
        group.rows.extend_from_slice(rows);
        group.ends.extend(ends.iter().map(|end| base + end));
        match group.runs.last_mut() {
            Some(last) if last.run == *run && last.lists == lists => last.records += count,
            _ => {
                group.runs.push(RunOf { records: count, exporter, lists, run: *run });
                self.bytes += RUN_BYTES;
            }
        }
        group.records += count as usize;
        self.records += count as usize;
        self.bytes += rows.len();
    }

    /// Where records of the layout go.
    fn place(&mut self, layout: &Arc<Layout>, slot: &Slot) -> usize {
        let (generation, place) = slot.get();
        if generation == self.generation {
            return place;
        }
        let known = self.index.get(&layout.hash()).copied();
        let same = known.filter(|place| self.groups.get(*place).is_some_and(|group| group.layout == *layout));
        let place = same.unwrap_or_else(|| self.new_group(layout));
        slot.set((self.generation, place));
        place
    }

    fn new_group(&mut self, layout: &Arc<Layout>) -> usize {
        let place = self.used;
        self.used += 1;
        self.bytes += GROUP_BYTES + layout.fields().len() * COLUMN_BYTES;
        self.index.insert(layout.hash(), place);
        match self.groups.get_mut(place) {
            Some(group) => group.layout = Arc::clone(layout),
            None => self.groups.push(Group {
                layout: Arc::clone(layout),
                rows: Vec::new(),
                ends: Vec::new(),
                runs: Vec::new(),
                records: 0,
            }),
        }
        place
    }

    /// Records so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether it should be sealed before more comes. Names are not counted: `Room` says why that holds.
    pub fn is_full(&self, limits: &Limits) -> bool {
        let bytes = self.bytes + self.senders.bytes() + self.lists.bytes();
        self.records >= limits.max_records || bytes >= limits.max_bytes
    }

    /// Finishes the batch and begins the next; `None` when it has no records.
    pub fn seal(&mut self, packer: &mut Packer, effort: Effort, names: &mut dyn Names) -> Option<Sealed> {
        let (records, received) = (self.records, self.received);
        let shares = self.senders.shares();
        let (plain, cuts) = self.lay_out(names)?;
        let pack = |plain: &[u8], cuts: &[usize]| packer.pack(plain, cuts, effort);
        Some(finish(Kind::Records, records, received, plain, cuts, pack, shares))
    }

    /// Lays the batch out as a `Payload` that is not packed yet, with the offsets where its planes end, and begins
    /// the next; `None` when it has no records.
    pub fn lay_out(&mut self, names: &mut dyn Names) -> Option<(&[u8], &[usize])> {
        if self.records == 0 {
            return None;
        }
        self.plain.clear();
        self.encoder.begin();
        let groups = self.groups.get(..self.used).unwrap_or(&[]);
        groups.iter().for_each(|group| self.interfaces.read(group));
        let mut room = Room::new(self.records, self.interfaces.ends());
        self.senders.encode(names, &mut room, &mut self.plain);
        self.interfaces.encode(&self.senders, names, &mut room, &mut self.plain);
        for group in groups {
            self.encoder.group(group, &mut self.plain);
        }
        self.lists.encode(&mut self.plain);
        if names.has_addresses() {
            groups.iter().for_each(|group| self.addresses.read(group));
            self.addresses.encode(names, &mut room, &mut self.plain);
        }
        names.left_out(room.left_out());
        self.clear();
        Some((&self.plain, self.encoder.cuts()))
    }

    fn clear(&mut self) {
        // A flood of layouts leaves no lasting mark: of the buffers only so much is kept.
        const KEPT_BYTES: usize = 4 << 20;
        let mut kept = 0;
        let fits = |group: &Group| {
            kept += group.rows.capacity() + 4 * group.ends.capacity() + RUN_BYTES * 2 * group.runs.capacity();
            kept <= KEPT_BYTES
        };
        let keep = self.groups.iter().map(fits).take_while(|fits| *fits).count();
        self.groups.truncate(keep);
        for group in &mut self.groups {
            group.rows.clear();
            group.ends.clear();
            group.runs.clear();
            group.records = 0;
        }
        self.senders.clear();
        self.index.clear();
        self.lists.clear();
        self.interfaces.clear();
        self.addresses.clear();
        self.used = 0;
        self.records = 0;
        self.bytes = 0;
        self.generation += 1;
    }
}

/// Gathers datagrams that nobody reads.
#[derive(Debug, Default)]
pub struct RawBuilder {
    senders: Senders,
    datagrams: usize,
    received: u64,
    plain: Vec<u8>,
}

impl RawBuilder {
    /// Adds a datagram that came to our `port` at `received` (milliseconds since 1970).
    pub fn push(&mut self, exporter: Exporter, port: u16, received: u64, bytes: &[u8]) {
        if self.datagrams == 0 {
            self.received = received;
        }
        let place = self.senders.add(Sender { exporter, domain: 0, agent: None }, 1, 0);
        let bytes = Bytes::copy_from_slice(bytes);
        let datagram = proto::Datagram { exporter: place, port: u32::from(port), received, bytes };
        message(DATAGRAMS, &datagram, &mut self.plain);
        self.datagrams += 1;
    }

    /// Datagrams so far.
    pub fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// Whether it should be sealed before more comes.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.datagrams >= limits.max_records || self.plain.len() + self.senders.bytes() >= limits.max_bytes
    }

    /// Finishes the batch and begins the next; `None` when it has no datagrams.
    pub fn seal(&mut self, packer: &mut Packer, names: &mut dyn Names) -> Option<Sealed> {
        if self.datagrams == 0 {
            return None;
        }
        let mut room = Room::new(self.datagrams, 0);
        self.senders.encode(names, &mut room, &mut self.plain);
        names.left_out(room.left_out());
        let shares = self.senders.shares();
        self.senders.clear();
        // Unread datagrams are not laid out in planes: without matches they would hardly shrink.
        let pack = |plain: &[u8], cuts: &[usize]| packer.pack(plain, cuts, Effort::Small);
        let sealed = finish(Kind::Raw, self.datagrams, self.received, &self.plain, &[], pack, shares);
        self.plain.clear();
        self.datagrams = 0;
        Some(sealed)
    }
}

fn finish(
    kind: Kind,
    records: usize,
    received: u64,
    plain: &[u8],
    cuts: &[usize],
    pack: impl FnOnce(&[u8], &[usize]) -> (Codec, Bytes),
    shares: Vec<Share>,
) -> Sealed {
    let (codec, payload) = pack(plain, cuts);
    let plain_size = plain.len() as u32;
    let digest: Digest = digest(codec, plain_size, &payload);
    Sealed { kind, records: records as u32, codec, plain_size, payload, digest, received, shares }
}

/// Field numbers of `Payload`.
pub(super) const EXPORTERS: u32 = 1;
pub(super) const INTERFACES: u32 = 2;
pub(super) const GROUPS: u32 = 3;
const DATAGRAMS: u32 = 4;
pub(super) const LIST_TABLES: u32 = 5;
pub(super) const ADDRESSES: u32 = 6;

pub(super) fn message(field: u32, message: &impl Message, to: &mut Vec<u8>) {
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, to);
    prost::encoding::encode_varint(message.encoded_len() as u64, to);
    message.encode_raw(to);
}
