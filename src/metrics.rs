//! Metrics: the registry, the counters with labels, and what shards count.
//!
//! A role (proxy, collector) has one [`Registry`], made at its start, with all of its metrics in it at zero: the
//! shards' here, those of spool, uplink and collector by the `register` of their own `Metrics`. Labels
//! are fixed sets known at compile time, never something that came from the network. Modules count into their own
//! `Metrics`; this file gives those counters their names. The terms of the loss ledger are among them, each counted
//! where it happens and none of them a difference:
//!
//! ```text
//! datagrams received = refused + limited + accepted + truncated + unreadable (reason)
//! sets received      = decoded + held now + undecoded (reason) + unknown samples
//! records decoded    = dropped (reason) + in the open batch + batched
//! raw accepted       = raw dropped (reason) + in the open batch + raw batched
//! ```
//!
//! How it goes on from there is [`crate::spool::Metrics`]'s.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counters of one kind of event, told apart by a label from a fixed set.
#[derive(Clone, Debug)]
pub struct Labelled {
    label: &'static str,
    values: Arc<[&'static str]>,
    family: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Labelled {
    /// Counters of every value in `values`, all at zero.
    pub fn new(label: &'static str, values: &[&'static str]) -> Self {
        let family = Family::<_, Counter>::default();
        for value in values {
            drop(family.get_or_create(&[(label, *value)]));
        }
        Self { label, values: values.into(), family }
    }

    /// Counts `n` more events of `value`.
    pub fn add(&self, value: &'static str, n: u64) {
        self.family.get_or_create(&[(self.label, value)]).inc_by(n);
    }

    /// The counter of `value` itself, for where events come too fast to look for it each time.
    pub fn counter(&self, value: &'static str) -> Counter {
        self.family.get_or_create(&[(self.label, value)]).clone()
    }

    /// Puts the counters into `into` under `name`, without its `_total`.
    pub fn register(&self, into: &mut Registry, name: &str, help: &str) {
        into.register(name, help, self.family.clone());
    }

    /// The values given at the start, each with its count.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.values.iter().map(|value| (*value, self.get(value))).collect()
    }

    /// Events of `value` so far.
    pub fn get(&self, value: &'static str) -> u64 {
        self.family.get(&[(self.label, value)]).map_or(0, |counter| counter.get())
    }
}

/// What shards count: from the socket's buffer to the queue of the spool. Cheap to clone; clones share counters.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Datagrams read from the sockets, and messages of TCP connections: here and below both are datagrams.
    pub datagrams_received: Counter,
    /// Bytes of those, payload.
    pub bytes_received: Counter,
    /// Datagrams whose header could be read, and raw datagrams that were taken.
    pub datagrams_accepted: Counter,
    /// Datagrams from addresses that may not send.
    pub datagrams_refused: Counter,
    /// Datagrams from addresses that have sent as much as is taken of one.
    pub datagrams_limited: Counter,
    /// Datagrams longer than the buffer (MSG_TRUNC).
    pub datagrams_truncated: Counter,
    /// Datagrams of which nothing could be read, by [`Ingest::UNREADABLE`].
    pub datagrams_unreadable: Labelled,
    /// Datagrams that the kernel dropped because a socket's buffer was full (SO_MEMINFO).
    pub datagrams_dropped_by_kernel: Counter,
    /// Sets that began, in datagrams accepted and in those that a panic made unreadable.
    pub sets_received: Counter,
    /// Sets of which every record was decoded, template sets among them.
    pub sets_decoded: Counter,
    /// Sets that could not be decoded, by [`Ingest::UNDECODED`].
    pub sets_undecoded: Labelled,
    /// Bytes of those.
    pub set_bytes_undecoded: Counter,
    /// Samples of sFlow of kinds not known.
    pub samples_unknown: Counter,
    /// Sets held now until their template comes.
    pub sets_held: Gauge,
    /// Bytes that they count.
    pub set_bytes_held: Gauge,
    /// Records decoded; count them with [`Ingest::count_decoded`].
    pub records_decoded: Counter,
    /// The same by [`Ingest::KINDS`].
    pub records_by_kind: Labelled,
    /// The same by [`Ingest::TEMPLATE_SOURCES`].
    pub records_by_template_source: Labelled,
    /// Records in the open batches now.
    pub records_open: Gauge,
    /// Records lost before they were numbered, by [`Ingest::DROPPED`].
    pub records_dropped: Labelled,
    /// Records in batches that the spool's queue has taken.
    pub records_batched: Counter,
    /// What sequence numbers say has not come, by [`Ingest::UNITS`]: an estimate, late ones among them.
    pub sequence_missing: Labelled,
    /// What of the missing came late, by the same.
    pub sequence_late: Labelled,
    /// Datagrams that came twice, by their sequence numbers.
    pub sequence_duplicates: Counter,
    /// How often sequence numbers began anew.
    pub sequence_resets: Counter,
    /// What the sequence numbers of the spool's last batches and those that came first after the start say was lost
    /// between, by [`Ingest::UNITS`]: an estimate.
    pub restart_missing: Labelled,
    /// Samples of sFlow that exporters say they have lost themselves.
    pub samples_dropped_by_exporter: Counter,
    /// Raw datagrams taken.
    pub raw_accepted: Counter,
    /// Raw datagrams in the open batches now.
    pub raw_open: Gauge,
    /// Raw datagrams lost before they were numbered, by [`Ingest::RAW_DROPPED`].
    pub raw_dropped: Labelled,
    /// Raw datagrams in batches that the spool's queue has taken.
    pub raw_batched: Counter,
    /// Batches closed, by [`Ingest::CLOSED`].
    pub batches_sealed: Labelled,
    /// Bytes of batches before they were packed.
    pub batch_plain_bytes: Counter,
    /// Bytes of batches after.
    pub batch_packed_bytes: Counter,
    /// Templates known now, options templates among them.
    pub templates: Gauge,
    /// Templates that were not known as they came: new ones and changed ones.
    pub templates_learned: Counter,
    /// Templates whose id had other fields before.
    pub templates_changed: Counter,
    /// Templates put back that were heard before the last start.
    pub templates_restored: Counter,
    /// Domains and templates that were kept and could not be put back.
    pub state_refused: Counter,
    /// Templates given up because an exporter, or all of them, had too many.
    pub templates_evicted: Counter,
    /// Rates and interfaces told in options that there was no room for.
    pub options_refused: Counter,
    /// Template withdrawals, by [`Ingest::WITHDRAWALS`].
    pub template_withdrawals: Labelled,
    /// Templates named by lists inside a set's records that were not known: those values stay unread.
    pub list_templates_unknown: Counter,
    /// Exporters (by address) that have been heard.
    pub exporters: Gauge,
}

impl Ingest {
    /// What is lost to a panic, among the labels of [`Ingest::UNREADABLE`], [`Ingest::UNDECODED`] (a held set) and
    /// [`Ingest::DROPPED`] (the open batch, if it was being built).
    pub const PANIC: &str = "panic";
    /// Why nothing of a datagram could be read: labels of [`crate::wire::Fault`].
    pub const UNREADABLE: [&str; 5] =
        ["short_header", "unknown_version", "message_length", "agent_address", Self::PANIC];
    /// Why a set, or a template in it, could not be decoded: the other labels.
    pub const UNDECODED: [&str; 17] = [
        "cut_message",
        "trailing_bytes",
        "count",
        "set_length",
        "reserved_set",
        "no_template",
        "hold_full",
        "record_length",
        "sample_length",
        "sample_record",
        "short_template",
        "template_id",
        "empty_template",
        "large_template",
        "scope",
        "template_rate",
        Self::PANIC,
    ];
    /// What decoded records are.
    pub const KINDS: [&str; 5] = ["flow", "options", "sample", "counter", "drop"];
    /// How the template of decoded records is known, in the order of [`crate::proto::TemplateSource`].
    pub const TEMPLATE_SOURCES: [&str; 3] = ["heard", "restored", "provisional"];
    /// What sequence numbers count: labels of [`crate::wire::Unit`].
    pub const UNITS: [&str; 4] = ["flows", "datagrams", "records", "samples"];
    /// The spool's queue was full: in [`Ingest::DROPPED`] and [`Ingest::RAW_DROPPED`].
    pub const QUEUE_FULL: &str = "queue_full";
    /// Why records are lost before they have a number.
    pub const DROPPED: [&str; 2] = [Self::QUEUE_FULL, Self::PANIC];
    /// Why raw datagrams are: nothing of them is read, and so nothing can panic.
    pub const RAW_DROPPED: [&str; 1] = [Self::QUEUE_FULL];
    /// What closed a batch.
    pub const CLOSED: [&str; 4] = ["records", "bytes", "age", "end"];
    /// What became of a template withdrawal.
    pub const WITHDRAWALS: [&str; 2] = ["obeyed", "ignored"];

    /// All at zero, belonging to no registry yet.
    pub fn new() -> Self {
        Self {
            datagrams_received: Counter::default(),
            bytes_received: Counter::default(),
            datagrams_accepted: Counter::default(),
            datagrams_refused: Counter::default(),
            datagrams_limited: Counter::default(),
            datagrams_truncated: Counter::default(),
            datagrams_unreadable: Labelled::new("reason", &Self::UNREADABLE),
            datagrams_dropped_by_kernel: Counter::default(),
            sets_received: Counter::default(),
            sets_decoded: Counter::default(),
            sets_undecoded: Labelled::new("reason", &Self::UNDECODED),
            set_bytes_undecoded: Counter::default(),
            samples_unknown: Counter::default(),
            sets_held: Gauge::default(),
            set_bytes_held: Gauge::default(),
            records_decoded: Counter::default(),
            records_by_kind: Labelled::new("kind", &Self::KINDS),
            records_by_template_source: Labelled::new("source", &Self::TEMPLATE_SOURCES),
            records_open: Gauge::default(),
            records_dropped: Labelled::new("reason", &Self::DROPPED),
            records_batched: Counter::default(),
            sequence_missing: Labelled::new("unit", &Self::UNITS),
            sequence_late: Labelled::new("unit", &Self::UNITS),
            sequence_duplicates: Counter::default(),
            sequence_resets: Counter::default(),
            restart_missing: Labelled::new("unit", &Self::UNITS),
            samples_dropped_by_exporter: Counter::default(),
            raw_accepted: Counter::default(),
            raw_open: Gauge::default(),
            raw_dropped: Labelled::new("reason", &Self::RAW_DROPPED),
            raw_batched: Counter::default(),
            batches_sealed: Labelled::new("by", &Self::CLOSED),
            batch_plain_bytes: Counter::default(),
            batch_packed_bytes: Counter::default(),
            templates: Gauge::default(),
            templates_learned: Counter::default(),
            templates_changed: Counter::default(),
            templates_restored: Counter::default(),
            state_refused: Counter::default(),
            templates_evicted: Counter::default(),
            options_refused: Counter::default(),
            template_withdrawals: Labelled::new("result", &Self::WITHDRAWALS),
            list_templates_unknown: Counter::default(),
            exporters: Gauge::default(),
        }
    }

    /// Counts decoded records, in total and by kind: in the order of [`Ingest::KINDS`].
    pub fn count_decoded(&self, by_kind: [u64; 5]) {
        self.records_decoded.inc_by(by_kind.iter().sum());
        for (kind, records) in Self::KINDS.into_iter().zip(by_kind) {
            if records > 0 {
                self.records_by_kind.add(kind, records);
            }
        }
    }

    /// Counts by how templates are known: in the order of [`Ingest::TEMPLATE_SOURCES`].
    pub fn count_template_sources(&self, records: [u64; 3]) {
        for (source, records) in Self::TEMPLATE_SOURCES.into_iter().zip(records) {
            if records > 0 {
                self.records_by_template_source.add(source, records);
            }
        }
    }

    /// Records lost before they were numbered, for whatever reason.
    pub fn records_dropped_total(&self) -> u64 {
        Self::DROPPED.iter().map(|reason| self.records_dropped.get(reason)).sum()
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        self.register_datagrams(into);
        self.register_records(into);
        self.register_sequences(into);
        self.register_batches(into);
        self.register_templates(into);
    }

    /// What is missing by sequence numbers and has not come late either, by what they count: of all senders
    /// together what `flowproxy exporters` says of each.
    pub fn missing_net(&self) -> BTreeMap<&'static str, u64> {
        let late = self.sequence_late.all();
        let net =
            |(unit, missing): (_, u64)| (unit, missing.saturating_sub(late.get(unit).copied().unwrap_or(0)));
        self.sequence_missing.all().into_iter().map(net).collect()
    }

    fn register_sequences(&self, into: &mut Registry) {
        let (missing, late) = (&self.sequence_missing, &self.sequence_late);
        labelled(
            into,
            "sequence_missing",
            "Missing by sequence numbers when the next came, an estimate, by what they count; those that came late are among them",
            missing,
        );
        labelled(
            into,
            "sequence_late",
            "Those of the missing that came late: less these, it is what `/status` calls missing",
            late,
        );
        counter(into, "sequence_duplicates", "Datagrams that came twice", &self.sequence_duplicates);
        counter(into, "sequence_resets", "Sequences that began anew", &self.sequence_resets);
        let restart = &self.restart_missing;
        labelled(into, "restart_missing", "Missing between the spool's last batches and the start", restart);
        let dropped = &self.samples_dropped_by_exporter;
        counter(into, "samples_dropped_by_exporter", "Samples that exporters say they lost", dropped);
    }

    fn register_datagrams(&self, into: &mut Registry) {
        counter(into, "datagrams_received", "Datagrams and TCP messages received", &self.datagrams_received);
        counter(into, "datagrams_received_bytes", "Bytes of those", &self.bytes_received);
        counter(into, "datagrams_accepted", "Datagrams whose header was read", &self.datagrams_accepted);
        let (refused, limited) = (&self.datagrams_refused, &self.datagrams_limited);
        counter(into, "datagrams_refused", "Datagrams of exporters that may not send", refused);
        counter(into, "datagrams_limited", "Datagrams above what is taken of an exporter", limited);
        counter(
            into,
            "datagrams_truncated",
            "Datagrams too long to be read whole",
            &self.datagrams_truncated,
        );
        labelled(into, "datagrams_unreadable", "Datagrams not read, by reason", &self.datagrams_unreadable);
        let drops = &self.datagrams_dropped_by_kernel;
        counter(into, "kernel_dropped_datagrams", "Datagrams dropped at a full socket buffer", drops);
        counter(into, "raw_accepted_datagrams", "Raw datagrams taken", &self.raw_accepted);
        gauge(into, "raw_open_datagrams", "Raw datagrams in the open batches", &self.raw_open);
        labelled(into, "raw_dropped_datagrams", "Raw datagrams lost before a number", &self.raw_dropped);
        counter(into, "batch_raw_datagrams", "Raw datagrams handed to the spool", &self.raw_batched);
    }

    fn register_records(&self, into: &mut Registry) {
        counter(into, "sets_received", "Sets that began", &self.sets_received);
        counter(into, "sets_decoded", "Sets decoded whole", &self.sets_decoded);
        labelled(into, "sets_undecoded", "Sets not decoded, by reason", &self.sets_undecoded);
        counter(into, "sets_undecoded_bytes", "Bytes of those", &self.set_bytes_undecoded);
        counter(into, "samples_unknown", "Samples of sFlow of kinds not known", &self.samples_unknown);
        gauge(into, "sets_held", "Sets held until their template comes", &self.sets_held);
        gauge(into, "sets_held_bytes", "Bytes that they take", &self.set_bytes_held);
        counter(into, "records_decoded", "Records decoded", &self.records_decoded);
        labelled(into, "decode_records", "Records decoded, by kind", &self.records_by_kind);
        let sources = &self.records_by_template_source;
        labelled(
            into,
            "decode_records_by_template_source",
            "The same, by how their template is known",
            sources,
        );
        gauge(into, "records_open", "Records in the open batches", &self.records_open);
        labelled(into, "records_dropped", "Records lost before a number", &self.records_dropped);
        counter(into, "batch_records", "Records handed to the spool", &self.records_batched);
    }

    fn register_batches(&self, into: &mut Registry) {
        labelled(into, "batches_sealed", "Batches closed, by what closed them", &self.batches_sealed);
        counter(into, "batch_plain_bytes", "Bytes of batches before packing", &self.batch_plain_bytes);
        counter(into, "batch_packed_bytes", "Bytes of batches after packing", &self.batch_packed_bytes);
    }

    fn register_templates(&self, into: &mut Registry) {
        gauge(into, "templates_known", "Templates known", &self.templates);
        counter(into, "templates_learned", "Templates that were new or changed", &self.templates_learned);
        counter(into, "templates_changed", "Templates whose id had other fields", &self.templates_changed);
        counter(
            into,
            "templates_restored",
            "Templates known from before the start",
            &self.templates_restored,
        );
        counter(
            into,
            "state_refused_entries",
            "Kept entries that could not be put back",
            &self.state_refused,
        );
        counter(into, "templates_evicted", "Templates given up at a limit", &self.templates_evicted);
        counter(into, "options_refused", "Rates and interfaces told above the limits", &self.options_refused);
        labelled(into, "templates_withdrawn", "Template withdrawals", &self.template_withdrawals);
        let lists = &self.list_templates_unknown;
        counter(into, "list_templates_unknown", "Templates that lists name and nobody knows", lists);
        gauge(into, "exporters_known", "Exporters heard, by address", &self.exporters);
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self::new()
    }
}

/// A registry whose names begin with `flowproxy_`; each module's `Metrics` is put into it by its `register`.
pub fn registry() -> Registry {
    Registry::with_prefix("flowproxy")
}

/// Everything in `registry` as Prometheus' text (OpenMetrics 1.0).
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

fn counter(into: &mut Registry, name: &str, help: &str, counter: &Counter) {
    into.register(name, help, counter.clone());
}

fn gauge(into: &mut Registry, name: &str, help: &str, gauge: &Gauge) {
    into.register(name, help, gauge.clone());
}

fn labelled(into: &mut Registry, name: &str, help: &str, counters: &Labelled) {
    counters.register(into, name, help);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(ingest: &Ingest) -> String {
        let mut registry = registry();
        ingest.register(&mut registry);
        text(&registry)
    }

    /// Each sample's name with its labels, and its value.
    fn samples(ingest: &Ingest) -> BTreeMap<String, String> {
        let text = text_of(ingest);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn names_of_the_contract_have_one_sample_each() {
        let ingest = Ingest::new();
        ingest.datagrams_received.inc_by(3);
        ingest.count_decoded([40, 2, 0, 0, 0]);
        let samples = samples(&ingest);
        assert_eq!(samples["flowproxy_datagrams_received_total"], "3");
        assert_eq!(samples["flowproxy_records_decoded_total"], "42");
        assert_eq!(samples["flowproxy_decode_records_total{kind=\"options\"}"], "2");
        for name in ["flowproxy_datagrams_received_total", "flowproxy_records_decoded_total"] {
            assert_eq!(samples.keys().filter(|key| key.starts_with(name)).count(), 1);
        }
    }

    #[test]
    fn every_label_is_there_from_the_start() {
        let samples = samples(&Ingest::new());
        for reason in Ingest::UNREADABLE {
            assert_eq!(samples[&format!("flowproxy_datagrams_unreadable_total{{reason=\"{reason}\"}}")], "0");
        }
    }

    #[test]
    fn every_fault_of_the_wire_has_its_counter() {
        for fault in crate::wire::Fault::ALL {
            let places = [&Ingest::UNREADABLE[..], &Ingest::UNDECODED[..]].concat();
            assert_eq!(places.iter().filter(|label| **label == fault.label()).count(), 1, "{fault:?}");
        }
    }

    #[test]
    fn every_unit_of_sequences_has_its_counter() {
        assert_eq!(crate::wire::Unit::ALL.map(crate::wire::Unit::label), Ingest::UNITS);
    }

    #[test]
    fn gauges_do_not_end_in_total() {
        let text = text_of(&Ingest::new());
        for line in text.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with("gauge")) {
            assert!(!line.contains("_total"), "{line}");
        }
    }

    #[test]
    fn clones_share_their_counters() {
        let ingest = Ingest::new();
        let other = ingest.clone();
        other.records_dropped.add("queue_full", 5);
        assert_eq!(ingest.records_dropped_total(), 5);
    }
}
