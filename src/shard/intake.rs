//! From datagrams to sealed batches, and the counts on the way.

use super::counts::{Close, Counts};
use super::facts::Speaks;
use super::moment::Moment;
use super::senders::{Key, Senders};
use super::totals::Share;
use super::{Admission, BatchSettings, Context};
use crate::batch::{Builder, Kind, Packer, RawBuilder, Sealed};
use crate::enrich::View;
use crate::flow::list::Named;
use crate::flow::{Exporter, Run};
use crate::ingest::Datagram;
use crate::lines::limited;
use crate::metrics::Ingest;
use crate::proto::RecordKind;
use crate::spool::Sender;
use crate::wire::{
    Arrival, Change, Decoder, Fault, Heard, Output, Place, Record, Step, Template, Unit, Withdrawal,
};
use arc_swap::{ArcSwap, Cache};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

fn arrival(now: Moment, datagram: &Datagram<'_>) -> Arrival {
    Arrival { exporter: datagram.exporter, received: now.unix_ms, elapsed: now.elapsed_ms, number: 0 }
}

/// The most records that a group may have (batch.proto).
const MOST_RECORDS: usize = 65_536;

/// What is being read: a datagram or a held set, whose it is, and what it had so far.
#[derive(Debug, Default)]
struct Hand {
    /// `None` until its header was read.
    key: Option<Key>,
    share: Share,
}

/// The open batches of a shard.
pub(super) struct Intake {
    builder: Builder,
    /// What the lists of the records that come next name.
    lists: Vec<Named>,
    raw: RawBuilder,
    packer: Packer,
    settings: Cache<Arc<ArcSwap<BatchSettings>>, Arc<BatchSettings>>,
    admission: Cache<Arc<ArcSwap<Admission>>, Arc<Admission>>,
    /// When the open batches got their first record.
    opened: Option<Instant>,
    metrics: Ingest,
    queue: Sender,
    counts: Counts,
    senders: Senders,
    names: View,
    /// When the datagram in hand was received, or what is held was looked at.
    now: Moment,
    hand: Hand,
    /// The datagram in hand, and whose set it is that is read before it goes on.
    resumed: Option<(Hand, Exporter)>,
    /// Records of the open batch that are counted as decoded.
    open_records: u64,
    /// Records and raw datagrams of the open batches that the metrics show.
    shown_open: (i64, i64),
    /// The builder is at work: what a panic leaves of it is no batch.
    is_building: bool,
    #[cfg(test)]
    tripwire: tests::Tripwire,
}

impl Intake {
    pub(super) fn new(context: &Context) -> Intake {
        Intake {
            builder: Builder::new(),
            lists: Vec::new(),
            raw: RawBuilder::default(),
            packer: Packer::new(),
            settings: Cache::new(Arc::clone(&context.batch)),
            admission: Cache::new(Arc::clone(&context.admission)),
            opened: None,
            metrics: context.metrics.clone(),
            queue: context.queue.clone(),
            counts: Counts::default(),
            senders: Senders::new(context.before.clone()),
            names: context.names.view(),
            now: Moment::default(),
            hand: Hand::default(),
            resumed: None,
            open_records: 0,
            shown_open: (0, 0),
            is_building: false,
            #[cfg(test)]
            tripwire: tests::Tripwire::default(),
        }
    }

    pub(super) fn senders(&mut self) -> &mut Senders {
        &mut self.senders
    }

    /// Takes a datagram that came to our `port` at `now`; `decoder` is `None` for one that is forwarded unread.
    pub(super) fn datagram(
        &mut self,
        datagram: &Datagram<'_>,
        port: u16,
        now: Moment,
        decoder: Option<&mut Decoder>,
    ) {
        self.received(datagram.bytes, now);
        if !self.allows(datagram.exporter) || !self.is_within_limits(datagram) {
            return;
        }
        if datagram.truncated {
            self.metrics.datagrams_truncated.inc();
            self.senders.truncated(datagram.exporter, now);
            return;
        }
        match decoder {
            None => self.raw_datagram(datagram, port, now.unix_ms),
            Some(decoder) => self.read(datagram, decoder),
        }
        self.note(datagram.exporter);
    }

    /// Takes a message of a connection. No limits: a template that is not read would not come again, and TCP slows who
    /// sends too much.
    pub(super) fn message(&mut self, message: &Datagram<'_>, now: Moment, decoder: &mut Decoder) {
        self.received(message.bytes, now);
        if self.allows(message.exporter) {
            self.read(message, decoder);
            self.note(message.exporter);
        }
    }

    /// Counts what came over a connection, begins so and can be no message: as one that was received and not read.
    pub(super) fn unreadable(&mut self, exporter: Exporter, fault: Fault, start: &[u8], now: Moment) {
        self.received(&[], now);
        self.unread(fault, start);
        self.note(exporter);
    }

    fn received(&mut self, bytes: &[u8], now: Moment) {
        self.counts.received += 1;
        self.counts.bytes += bytes.len() as u64;
        self.now = now;
        self.hand = Hand::default();
    }

    fn read(&mut self, datagram: &Datagram<'_>, decoder: &mut Decoder) {
        let arrival = arrival(self.now, datagram);
        let read = |intake: &mut Intake| {
            #[cfg(test)]
            intake.tripwire.trip(datagram.bytes);
            decoder.datagram(&arrival, datagram.bytes, intake)
        };
        match self.guarded(Some(datagram.exporter), read) {
            Some(Ok(())) => {
                self.counts.accepted += 1;
                self.hand.share.is_accepted = true;
            }
            Some(Err(fault)) => self.unread(fault, datagram.bytes),
            None => {
                self.metrics.datagrams_unreadable.add(Ingest::PANIC, 1);
                self.hand.share.is_unreadable = true;
            }
        }
    }

    /// Notes who sent what is done with.
    fn note(&mut self, exporter: Exporter) {
        let Hand { key, share } = std::mem::take(&mut self.hand);
        let unknown = Key { port: exporter.port, speaks: Speaks::Unknown, domain: 0 };
        if let Some((unit, lost)) = self.senders.heard(exporter, key.unwrap_or(unknown), &share, self.now) {
            self.metrics.restart_missing.add(unit.label(), lost.into());
        }
        if let Some((sender, restarted)) = self.senders.newly_seen() {
            self.names.saw(&sender, restarted);
        }
    }

    /// Before a byte of it is read: may the address send?
    fn allows(&mut self, exporter: Exporter) -> bool {
        if self.admission.load().allows(exporter.address) {
            return true;
        }
        self.counts.refused += 1;
        self.senders.refused(exporter, self.now);
        false
    }

    /// And so much?
    fn is_within_limits(&mut self, datagram: &Datagram<'_>) -> bool {
        let limits = self.admission.load().limits;
        if limits.any() && !self.senders.within(datagram.exporter, datagram.bytes.len(), limits, self.now) {
            self.counts.limited += 1;
            return false;
        }
        true
    }

    fn unread(&mut self, fault: Fault, bytes: &[u8]) {
        self.metrics.datagrams_unreadable.add(fault.label(), 1);
        self.hand.share.is_unreadable = true;
        self.hand.share.faults.push(fault);
        self.hand.share.version = bytes.first_chunk().map_or(0, |version| u16::from_be_bytes(*version));
    }

    /// Does `work` that reads what came from the network. A panic in it, which must not happen, costs what it was about
    /// and not the process: `None` then. The decoder keeps what it knows, as its tables change by whole entries; the
    /// open batch is given up, and counted, only where the panic came while it was being built.
    fn guarded<T>(&mut self, whose: Option<Exporter>, work: impl FnOnce(&mut Intake) -> T) -> Option<T> {
        if let Ok(done) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            return Some(done);
        }
        if self.resumed.is_some() {
            self.give_up_set(1);
            self.done_with_held();
        }
        self.give_up_set(self.hand.share.sets.unended());
        self.lists.clear();
        let mut lost = 0;
        if std::mem::take(&mut self.is_building) {
            self.builder.give_up();
            lost = std::mem::take(&mut self.open_records);
            self.metrics.records_dropped.add(Ingest::PANIC, lost);
        }
        Self::log_panic(whose, lost);
        None
    }

    /// Notes what came of a held set, and goes on with the datagram that was in hand before it.
    fn done_with_held(&mut self) {
        let Some((hand, exporter)) = self.resumed.take() else { return };
        let Hand { key, share } = std::mem::replace(&mut self.hand, hand);
        if let Some(key) = key {
            self.senders.resumed(exporter.address, key, &share, self.now);
        }
    }

    /// The sets in hand come to no other end than a panic.
    fn give_up_set(&mut self, sets: u64) {
        if sets > 0 {
            self.metrics.sets_undecoded.add(Ingest::PANIC, sets);
            self.hand.share.sets.undecoded += sets;
        }
    }

    fn log_panic(whose: Option<Exporter>, lost: u64) {
        limited!(
            error,
            exporter = whose.map(|exporter| exporter.address.to_string()),
            port = whose.map(|exporter| exporter.port),
            records_lost = lost,
            "Reading a datagram has panicked, which is a fault of flowproxy's: please report it. The datagram is lost, \
             the process goes on"
        );
    }

    /// Looks what has become of held sets; to be called about every second.
    pub(super) fn tick(&mut self, decoder: &mut Decoder, now: Moment) {
        self.now = now;
        self.guarded(None, |intake| decoder.tick(now.elapsed_ms, intake));
    }

    /// Hands over who was seen and who has started anew; whether what exporters told since may follow.
    pub(super) fn settle_names(&mut self) -> bool {
        self.names.hand_over();
        self.names.has_settled()
    }

    /// Lets go of names that have been replaced; to be called about every second.
    pub(super) fn refresh_names(&mut self) {
        self.names.refresh();
    }

    /// Gives up what the decoder holds.
    pub(super) fn end(&mut self, decoder: &mut Decoder) {
        self.guarded(None, |intake| decoder.end(intake));
    }

    fn raw_datagram(&mut self, datagram: &Datagram<'_>, port: u16, now: u64) {
        self.counts.accepted += 1;
        self.hand.share.is_accepted = true;
        self.counts.raw += 1;
        self.hand.key = Some(Key { port: datagram.exporter.port, speaks: Speaks::Raw, domain: 0 });
        self.open();
        self.raw.push(datagram.exporter, port, now, datagram.bytes);
        let limits = self.settings.load().limits;
        if self.raw.is_full(&limits) {
            let by = if self.raw.datagrams() >= limits.max_records { Close::Records } else { Close::Bytes };
            self.close_raw(by);
        }
    }

    fn open(&mut self) {
        if self.opened.is_none() {
            self.opened = Some(Instant::now());
        }
    }

    /// The spool is behind: who can wait with more should.
    pub(super) fn is_behind(&self) -> bool {
        self.queue.is_behind()
    }

    /// When the open batches must be sealed.
    pub(super) fn due(&mut self) -> Option<Instant> {
        Some(self.opened? + self.settings.load().max_delay)
    }

    pub(super) fn close_by_age(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.close(Close::Age);
        }
    }

    /// Seals what is open.
    pub(super) fn close(&mut self, by: Close) {
        self.close_records(by);
        self.close_raw(by);
        self.opened = None;
    }

    fn close_records(&mut self, by: Close) {
        self.is_building = true;
        let sealed = self.builder.seal(&mut self.packer, by.effort(), &mut self.names);
        self.is_building = false;
        self.open_records = 0;
        if let Some(sealed) = sealed {
            self.send(sealed, by);
        }
    }

    fn close_raw(&mut self, by: Close) {
        if let Some(sealed) = self.raw.seal(&mut self.packer, &mut self.names) {
            self.send(sealed, by);
        }
    }

    fn send(&mut self, sealed: Sealed, by: Close) {
        if self.builder.records() == 0 && self.raw.datagrams() == 0 {
            self.opened = None;
        }
        let (kind, records) = (sealed.kind, u64::from(sealed.records));
        self.metrics.batches_sealed.add(by.label(), 1);
        self.metrics.batch_plain_bytes.inc_by(u64::from(sealed.plain_size));
        self.metrics.batch_packed_bytes.inc_by(sealed.payload.len() as u64);
        // Counted before it is sent: what the spool or the collector counts never runs ahead of this.
        let (batched, dropped) = match kind {
            Kind::Records => (&self.metrics.records_batched, &self.metrics.records_dropped),
            Kind::Raw => (&self.metrics.raw_batched, &self.metrics.raw_dropped),
        };
        match self.queue.try_send(sealed) {
            Ok(()) => drop(batched.inc_by(records)),
            Err(sealed) => {
                dropped.add(Ingest::QUEUE_FULL, records);
                self.senders.dropped(&sealed.shares);
            }
        }
    }

    /// Adds the call's counts to the shared counters, and tells whom it was from.
    pub(super) fn flush_counts(&mut self) {
        self.names.hand_over();
        std::mem::take(&mut self.counts).add_to(&self.metrics);
        let open = (self.open_records as i64, self.raw.datagrams() as i64);
        self.metrics.records_open.inc_by(open.0 - self.shown_open.0);
        self.metrics.raw_open.inc_by(open.1 - self.shown_open.1);
        self.shown_open = open;
    }
}

impl Output for Intake {
    fn begun(&mut self) {
        self.counts.begun += 1;
        self.hand.share.sets.begun += 1;
    }

    fn header(&mut self, run: &Run) {
        self.hand.key = Some(Key::of(run));
        (self.hand.share.sequence, self.hand.share.boot_time) = (run.sequence, run.boot_time);
        self.hand.share.agent = run.agent;
    }

    fn lists(&mut self, named: &[Named]) {
        self.lists.extend_from_slice(named);
        let unknown = named.iter().filter(|named| named.layout.is_none()).count();
        self.metrics.list_templates_unknown.inc_by(unknown as u64);
    }

    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        if self.builder.records() + count as usize > MOST_RECORDS {
            self.close_records(Close::Records);
        }
        self.open();
        let (layout, slot) = (template.layout(), template.slot());
        self.is_building = true;
        #[cfg(test)]
        self.tripwire.trip(rows);
        self.builder.push_with_lists(run, layout, slot, rows, ends, count, &self.lists);
        self.is_building = false;
        self.open_records += u64::from(count);
        self.lists.clear();
        let kind = template.layout().kind();
        // The enum's order is that of the counters.
        if let Some(records) = self.counts.records.get_mut(kind as usize) {
            *records += u64::from(count);
        }
        if let Some(records) = self.counts.sources.get_mut(run.template_source as usize) {
            *records += u64::from(count);
        }
        match kind {
            RecordKind::Options => self.hand.share.options += u64::from(count),
            _ => self.hand.share.records += u64::from(count),
        }
        let limits = self.settings.load().limits;
        if self.builder.is_full(&limits) {
            let by = if self.builder.records() >= limits.max_records { Close::Records } else { Close::Bytes };
            self.close_records(by);
        }
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        self.metrics.sets_undecoded.add(fault.label(), 1);
        self.metrics.set_bytes_undecoded.inc_by(place.bytes as u64);
        self.hand.share.sets.undecoded += 1;
        self.hand.share.faults.push(fault);
    }

    fn template(&mut self, heard: &Heard<'_>) {
        match heard.change {
            Change::Same => {}
            Change::New => drop(self.metrics.templates_learned.inc()),
            Change::Changed => {
                self.metrics.templates_learned.inc();
                self.metrics.templates_changed.inc();
                self.senders.redefined(heard, self.now);
            }
        }
    }

    fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        let result = if withdrawal.obeyed { "obeyed" } else { "ignored" };
        self.metrics.template_withdrawals.add(result, withdrawal.count as u64);
    }

    fn set(&mut self) {
        self.counts.sets += 1;
        self.hand.share.sets.decoded += 1;
    }

    fn sequence(&mut self, unit: Unit, step: Step) {
        self.hand.share.step(unit, step);
        match step {
            Step::Gap(missing) => self.metrics.sequence_missing.add(unit.label(), missing.into()),
            Step::Late(late) => self.metrics.sequence_late.add(unit.label(), late.into()),
            Step::Duplicate => drop(self.metrics.sequence_duplicates.inc()),
            Step::Reset => drop(self.metrics.sequence_resets.inc()),
            Step::Dropped(lost) => drop(self.metrics.samples_dropped_by_exporter.inc_by(lost.into())),
        }
    }

    fn restarted(&mut self) {
        self.hand.share.has_restarted = true;
    }

    fn unknown_sample(&mut self, _sample: Record<'_>, _place: Place) {
        self.metrics.samples_unknown.inc();
        self.hand.share.sets.unknown += 1;
    }

    fn held(&mut self, _place: Place) {
        self.counts.held += 1;
        self.hand.share.sets.held += 1;
    }

    fn resume(&mut self, held: Option<&Arrival>) {
        match held {
            Some(arrival) => {
                self.counts.held -= 1;
                self.resumed = Some((std::mem::take(&mut self.hand), arrival.exporter));
                self.hand.share.sets.held -= 1;
            }
            None => self.done_with_held(),
        }
    }
}

#[cfg(test)]
mod tests;
