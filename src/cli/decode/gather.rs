//! Gathers what the decoder tells, and gives it on in that order.
//!
//! Records go through a batch, as they would on their way to a collector, so that what is shown is what the collector
//! would write. A batch costs the same for one record as for a thousand: so records are gathered until the batch is
//! full or the file makes us wait, and everything else waits in line with them.

use super::Stop;
use super::header::Header;
use super::show::{Datagram, Fault, Record, Sampled, Show, Template, UnknownSample, Unpacked, What};
use crate::batch::read::{Batch, open};
use crate::batch::{Builder, Limits, NoNames};
use crate::flow::list::Named;
use crate::flow::record::Records;
use crate::flow::{Exporter, Run};
use crate::proto::{Codec, RecordKind};
use crate::wire::{self, Arrival, Heard, Output, Place, Step, Unit, Withdrawal};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const LIMITS: Limits = Limits { max_records: 4_096, max_bytes: 1 << 20 };

/// The most records that a group may have (batch.proto).
const MOST_RECORDS: usize = 65_536;

/// Lines that wait without a record among them, and bytes that those hold.
const MOST_WAITING: usize = 4_096;
const MOST_WAITING_BYTES: usize = 1 << 20;

/// Something to show, waiting in line.
enum Item {
    Datagram(Datagram),
    Template(Box<Template>),
    /// So many records, the next ones of the group at this place; of samples, what each came from.
    Records {
        datagram: u64,
        group: usize,
        count: u32,
        samples: Vec<Sampled>,
    },
    UnknownSample(Box<UnknownSample>),
    Fault(Fault),
    Sequence(Datagram, Unit, Step),
}

pub(super) struct Gather<'a> {
    show: &'a mut dyn Show,
    builder: Builder,
    /// What the lists of the records that come next name.
    lists: Vec<Named>,
    /// Samples whose records come next.
    samples: VecDeque<Sampled>,
    waiting: Vec<Item>,
    /// Bytes that those hold beside themselves.
    waiting_bytes: usize,
    datagram: Option<Datagram>,
    /// The datagram in hand stands in line.
    is_introduced: bool,
    /// Whose held set is told of, if not the datagram's in hand.
    resumed: Option<(u64, Exporter, Option<Header>)>,
    /// Headers of datagrams of which sets are held, and how many.
    held: HashMap<u64, (Option<Header>, u32)>,
    failed: Option<Stop>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(show: &'a mut dyn Show) -> Gather<'a> {
        Gather {
            show,
            builder: Builder::new(),
            lists: Vec::new(),
            samples: VecDeque::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            datagram: None,
            is_introduced: false,
            resumed: None,
            held: HashMap::new(),
            failed: None,
        }
    }

    /// What follows is of this datagram.
    pub(super) fn datagram(&mut self, datagram: Datagram) {
        self.datagram = Some(datagram);
        self.is_introduced = false;
        self.samples.clear();
    }

    /// Puts the datagram in line, before all that it holds.
    fn introduce(&mut self) {
        let Some(datagram) = self.datagram.filter(|_| !self.is_introduced) else { return };
        self.is_introduced = true;
        self.waiting.push(Item::Datagram(datagram));
        if datagram.missing > 0 {
            let place = Place { offset: datagram.bytes - datagram.missing, bytes: datagram.missing };
            self.wrong(What::Cut(datagram.missing), place);
        }
    }

    /// The datagram's header could not be read.
    pub(super) fn unreadable(&mut self, fault: wire::Fault) {
        self.introduce();
        let bytes = self.datagram.map_or(0, |datagram| datagram.bytes);
        self.wrong(What::Sent(fault), Place { offset: 0, bytes });
    }

    fn wrong(&mut self, what: What, place: Place) {
        let of_datagram =
            || self.datagram.map(|datagram| (datagram.number, datagram.exporter, datagram.header));
        let Some((datagram, exporter, header)) = self.resumed.or_else(of_datagram) else { return };
        let fault = Fault { datagram, exporter, header, offset: place.offset, bytes: place.bytes, what };
        self.waiting.push(Item::Fault(fault));
    }

    /// The datagram was read. Shows what waits if it is much, and tells what went wrong.
    pub(super) fn datagram_ends(&mut self) -> Result<(), Stop> {
        self.introduce();
        let is_long = self.waiting.len() >= MOST_WAITING || self.waiting_bytes >= MOST_WAITING_BYTES;
        if is_long || self.builder.is_full(&LIMITS) {
            self.pass_on();
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Shows all that waits.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        self.pass_on();
        if let Some(stop) = self.failed.take() {
            return Err(stop);
        }
        self.show.flush().map_err(Stop::Output)
    }

    fn pass_on(&mut self) {
        if self.failed.is_none() {
            self.failed = self.try_pass_on().err();
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    fn try_pass_on(&mut self) -> Result<(), Stop> {
        let batch = match self.builder.lay_out(&mut NoNames) {
            Some((plain, _)) => open(Codec::Plain, plain.len() as u32, plain).map_err(Stop::Batch)?,
            None => Batch::default(),
        };
        let records = Records::new(&batch);
        let unpacked = Unpacked::new(&batch, &records);
        let mut walks: Vec<Walk> = batch.groups.iter().map(|_| Walk::default()).collect();
        for item in self.waiting.drain(..) {
            match item {
                Item::Datagram(datagram) => self.show.datagram(&datagram),
                Item::Template(template) => self.show.template(&template),
                Item::UnknownSample(sample) => self.show.unknown_sample(&sample),
                Item::Fault(fault) => self.show.fault(&fault),
                Item::Sequence(datagram, unit, step) => self.show.sequence(&datagram, unit, step),
                Item::Records { datagram, group: place, count, samples } => {
                    let Some((group, walk)) = batch.groups.get(place).zip(walks.get_mut(place)) else {
                        continue;
                    };
                    (0..count as usize).try_for_each(|nth| {
                        let Some((run, index)) = walk.next(group) else { return Ok(()) };
                        let (unpacked, sample) = (&unpacked, samples.get(nth));
                        self.show.record(&Record { datagram, unpacked, group, place, run, index, sample })
                    })
                }
            }
            .map_err(Stop::Output)?;
        }
        Ok(())
    }
}

/// Where the next record of a group is.
#[derive(Default)]
struct Walk {
    index: usize,
    run: usize,
    /// Records of the run that were before.
    taken: u32,
}

impl Walk {
    fn next<'a>(
        &mut self,
        group: &'a crate::batch::read::Group,
    ) -> Option<(&'a crate::batch::read::Run, usize)> {
        let mut run = group.runs().get(self.run)?;
        if self.taken == run.records {
            self.run += 1;
            self.taken = 0;
            run = group.runs().get(self.run)?;
        }
        self.taken += 1;
        self.index += 1;
        Some((run, self.index - 1))
    }
}

impl Output for Gather<'_> {
    fn header(&mut self, run: &Run) {
        if let Some(datagram) = &mut self.datagram {
            datagram.header = Some(Header { protocol: run.protocol, domain: run.domain });
        }
        self.introduce();
    }

    fn lists(&mut self, named: &[Named]) {
        self.lists.extend_from_slice(named);
    }

    fn records(&mut self, run: &Run, template: &wire::Template, rows: &[u8], ends: &[u32], count: u32) {
        if self.builder.is_full(&LIMITS) || self.builder.records() + count as usize > MOST_RECORDS {
            self.pass_on();
        }
        let (layout, slot) = (template.layout(), template.slot());
        self.builder.push_with_lists(run, layout, slot, rows, ends, count, &self.lists);
        self.lists.clear();
        let (_, group) = slot.get();
        let in_hand = self.datagram.map_or(0, |datagram| datagram.number);
        let datagram = self.resumed.map_or(in_hand, |(number, ..)| number);
        let is_sample = !matches!(layout.kind(), RecordKind::Data | RecordKind::Options);
        let samples = if is_sample { (count as usize).min(self.samples.len()) } else { 0 };
        let samples = self.samples.drain(..samples).collect();
        self.waiting.push(Item::Records { datagram, group, count, samples });
    }

    fn fault(&mut self, fault: wire::Fault, place: Place) {
        self.wrong(What::Sent(fault), place);
    }

    fn template(&mut self, heard: &Heard<'_>) {
        let Some(datagram) = self.datagram else { return };
        let layout = Some(Arc::clone(heard.layout));
        let is_options = heard.layout.kind() == RecordKind::Options;
        self.waiting.push(Item::Template(Box::new(Template { datagram, id: heard.id, is_options, layout })));
    }

    fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        let Some(datagram) = self.datagram else { return };
        let (id, is_options) = (withdrawal.id, withdrawal.options);
        self.waiting.push(Item::Template(Box::new(Template { datagram, id, is_options, layout: None })));
    }

    fn set(&mut self) {}

    fn sample(&mut self, sample: &wire::Sample<'_>) {
        let record = |record: wire::Record<'_>| (record.format, record.enterprise, record.bytes.into());
        self.samples.push_back(sample.records.map(record).collect());
    }

    fn unknown_sample(&mut self, sample: wire::Record<'_>, place: Place) {
        let Some(datagram) = self.datagram else { return };
        self.waiting_bytes += sample.bytes.len();
        let wire::Record { enterprise, format, bytes } = sample;
        let unknown =
            UnknownSample { datagram, offset: place.offset, enterprise, format, bytes: bytes.into() };
        self.waiting.push(Item::UnknownSample(Box::new(unknown)));
    }

    fn held(&mut self, _place: Place) {
        let Some(datagram) = self.datagram else { return };
        self.held.entry(datagram.number).or_insert((datagram.header, 0)).1 += 1;
    }

    fn resume(&mut self, held: Option<&Arrival>) {
        self.resumed = held.map(|arrival| {
            let (header, sets) = self.held.remove(&arrival.number).unwrap_or_default();
            if sets > 1 {
                self.held.insert(arrival.number, (header, sets - 1));
            }
            (arrival.number, arrival.exporter, header)
        });
    }

    fn sequence(&mut self, unit: Unit, step: Step) {
        let Some(datagram) = self.datagram else { return };
        self.waiting.push(Item::Sequence(datagram, unit, step));
    }
}
