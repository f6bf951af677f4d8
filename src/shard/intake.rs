//! From datagrams to sealed batches, and the counts on the way.

use super::exporters::{Exporters, Share};
use super::faults::{ChangeLog, FaultLog};
use super::{BatchSettings, Context};
use crate::batch::{Builder, Effort, Kind, Packer, RawBuilder, Sealed};
use crate::flow::list::Named;
use crate::flow::{Exporter, Run};
use crate::ingest::Datagram;
use crate::metrics::Ingest;
use crate::proto::RecordKind;
use crate::spool::Sender;
use crate::wire::{Arrival, Change, Decoder, Fault, Heard, Output, Place, Template, Withdrawal};
use arc_swap::Cache;
use std::sync::Arc;
use std::time::Instant;

/// What closes a batch; the label of its counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Close {
    Records,
    Bytes,
    Age,
    End,
}

impl Close {
    /// A batch that is full before its time comes under load.
    fn effort(self) -> Effort {
        match self {
            Close::Records | Close::Bytes => Effort::Fast,
            Close::Age | Close::End => Effort::Small,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Close::Records => "records",
            Close::Bytes => "bytes",
            Close::Age => "age",
            Close::End => "end",
        }
    }
}

/// When something was received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By the wall clock, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// By a clock that is never set, in milliseconds since the shard's start.
    pub(super) elapsed_ms: u64,
}

impl Moment {
    fn arrival(self, datagram: &Datagram<'_>) -> Arrival {
        Arrival { exporter: datagram.exporter, received: self.unix_ms, elapsed: self.elapsed_ms, number: 0 }
    }
}

/// The most records that a group may have (batch.proto).
const MOST_RECORDS: usize = 65_536;

/// Counts of one call's datagrams; added to the shared counters once a call.
#[derive(Debug, Default)]
struct Counts {
    received: u64,
    bytes: u64,
    accepted: u64,
    raw: u64,
    sets: u64,
    held: i64,
    /// In the order of [`Ingest::KINDS`].
    records: [u64; 5],
    /// In the order of [`Ingest::TEMPLATE_SOURCES`].
    sources: [u64; 3],
}

/// The open batches of a shard.
pub(super) struct Intake {
    builder: Builder,
    /// What the lists of the records that come next name.
    lists: Vec<Named>,
    raw: RawBuilder,
    packer: Packer,
    settings: Cache<Arc<arc_swap::ArcSwap<BatchSettings>>, Arc<BatchSettings>>,
    /// When the open batches got their first record.
    opened: Option<Instant>,
    metrics: Ingest,
    queue: Sender,
    counts: Counts,
    exporters: Exporters,
    faults: FaultLog,
    changes: ChangeLog,
    /// When the datagram in hand was received, in milliseconds since 1970.
    now: u64,
    /// What the datagram in hand had.
    heard: Share,
    /// What was wrong with it, last.
    fault: Option<Fault>,
}

impl Intake {
    pub(super) fn new(context: &Context) -> Intake {
        Intake {
            builder: Builder::new(),
            lists: Vec::new(),
            raw: RawBuilder::default(),
            packer: Packer::new(),
            settings: Cache::new(Arc::clone(&context.batch)),
            opened: None,
            metrics: context.metrics.clone(),
            queue: context.queue.clone(),
            counts: Counts::default(),
            exporters: Exporters::default(),
            faults: FaultLog::default(),
            changes: ChangeLog::default(),
            now: 0,
            heard: Share::default(),
            fault: None,
        }
    }

    pub(super) fn exporters(&self) -> &Exporters {
        &self.exporters
    }

    /// Takes a datagram, or a message of a connection, that came at `now`; `decoder` is `None` for one that is
    /// forwarded unread, of which our `port` is told too.
    pub(super) fn datagram(
        &mut self,
        datagram: &Datagram<'_>,
        port: u16,
        now: Moment,
        decoder: Option<&mut Decoder>,
    ) {
        self.counts.received += 1;
        self.counts.bytes += datagram.bytes.len() as u64;
        if datagram.truncated {
            self.metrics.datagrams_truncated.inc();
            return;
        }
        self.heard = Share::default();
        self.now = now.unix_ms;
        match decoder {
            None => self.raw_datagram(datagram, port, now.unix_ms),
            Some(decoder) => match decoder.datagram(&now.arrival(datagram), datagram.bytes, self) {
                Ok(()) => self.counts.accepted += 1,
                Err(fault) => self.unread(fault),
            },
        }
        self.note(datagram.exporter, now);
    }

    /// Counts what came over a connection and can be no message: as one that was received and could not be read.
    pub(super) fn unreadable(&mut self, exporter: Exporter, fault: Fault, now: Moment) {
        self.counts.received += 1;
        self.heard = Share::default();
        self.unread(fault);
        self.note(exporter, now);
    }

    fn unread(&mut self, fault: Fault) {
        self.metrics.datagrams_unreadable.add(fault.label(), 1);
        self.heard.faults += 1;
        self.fault = Some(fault);
    }

    /// Notes who sent what is done with.
    fn note(&mut self, exporter: Exporter, now: Moment) {
        if let Some(fault) = self.fault.take() {
            self.faults.log(fault, exporter, now.unix_ms);
        }
        self.exporters.heard(exporter, now.unix_ms, self.heard);
    }

    fn raw_datagram(&mut self, datagram: &Datagram<'_>, port: u16, now: u64) {
        self.counts.accepted += 1;
        self.counts.raw += 1;
        self.heard.raw += 1;
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
        if let Some(sealed) = self.builder.seal(&mut self.packer, by.effort()) {
            self.send(sealed, by);
        }
    }

    fn close_raw(&mut self, by: Close) {
        if let Some(sealed) = self.raw.seal(&mut self.packer) {
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
            Err(_) => dropped.add("queue_full", records),
        }
    }

    /// Adds the call's counts to the shared counters.
    pub(super) fn flush_counts(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        self.metrics.datagrams_received.inc_by(counts.received);
        self.metrics.bytes_received.inc_by(counts.bytes);
        self.metrics.datagrams_accepted.inc_by(counts.accepted);
        self.metrics.raw_accepted.inc_by(counts.raw);
        self.metrics.sets_decoded.inc_by(counts.sets);
        self.metrics.sets_held.inc_by(counts.held);
        self.metrics.count_decoded(counts.records);
        self.metrics.count_template_sources(counts.sources);
    }
}

impl Output for Intake {
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
        self.builder.push_with_lists(run, layout, slot, rows, ends, count, &self.lists);
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
            RecordKind::Options => self.heard.options += u64::from(count),
            _ => self.heard.records += u64::from(count),
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
        self.heard.faults += 1;
        self.fault = Some(fault);
    }

    fn template(&mut self, heard: &Heard<'_>) {
        match heard.change {
            Change::Same => {}
            Change::New => drop(self.metrics.templates_learned.inc()),
            Change::Changed => {
                self.metrics.templates_learned.inc();
                self.metrics.templates_changed.inc();
                self.changes.log(heard, self.now);
            }
        }
    }

    fn withdrawn(&mut self, withdrawal: &Withdrawal) {
        let result = if withdrawal.obeyed { "obeyed" } else { "ignored" };
        self.metrics.template_withdrawals.add(result, withdrawal.count as u64);
    }

    fn set(&mut self) {
        self.counts.sets += 1;
    }

    fn unknown_sample(&mut self, _place: Place) {
        self.metrics.samples_unknown.inc();
    }

    fn held(&mut self, _place: Place) {
        self.counts.held += 1;
    }

    fn resume(&mut self, held: Option<&Arrival>) {
        self.counts.held -= i64::from(held.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_counter() {
        let mut labels: Vec<&str> = Fault::ALL.iter().map(|fault| fault.label()).collect();
        let mut counters: Vec<&str> = Ingest::UNREADABLE.into_iter().chain(Ingest::UNDECODED).collect();
        labels.sort_unstable();
        counters.sort_unstable();
        assert_eq!(labels, counters);
    }
}
