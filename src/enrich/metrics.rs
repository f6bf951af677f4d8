//! What is counted of names.

use super::book::Source;
use crate::metrics::Labelled;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why an interface has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing covers its exporter.
    NoSource,
    /// A source has the exporter's interfaces, and not this one.
    NotListed,
    /// The exporter is being asked for the first time.
    Waiting,
    /// The exporter was asked, and has not answered.
    NoAnswer,
    /// What was told of it was told before the exporter's last start.
    Restarted,
}

impl Missing {
    const ALL: [Missing; 5] =
        [Missing::NoSource, Missing::NotListed, Missing::Waiting, Missing::NoAnswer, Missing::Restarted];

    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Missing::NoSource => "no_source",
            Missing::NotListed => "not_listed",
            Missing::Waiting => "waiting",
            Missing::NoAnswer => "no_answer",
            Missing::Restarted => "restarted",
        }
    }
}

type Gauges = Family<[(&'static str, &'static str); 1], Gauge>;

/// The metrics of names. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Interfaces of batches that have a name, by source.
    pub found: Labelled,
    /// Interfaces of batches that have none, by [`Missing`].
    pub missing: Labelled,
    /// Names of batches, and where addresses belong, that were known and had no room there.
    pub left_out: Counter,
    tables: Gauges,
    interfaces: Gauges,
    /// Bytes that tables count.
    pub bytes: Gauge,
    /// Tables that there was no room for.
    pub refused: Counter,
    /// Interfaces whose number got another name while it was known.
    pub renumbered: Counter,
    /// Starts of exporters after which numbers may stand for other interfaces.
    pub restarts: Counter,
    /// Times that what devices told was written to disk.
    pub last_known_writes: Counter,
    /// Times that it could not be written.
    pub last_known_failures: Counter,
    /// Files of it that could not be read, and were set aside.
    pub last_known_set_aside: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let sources = Source::ALL.map(Source::label);
        let gauges = || {
            let family = Gauges::default();
            for source in sources {
                drop(family.get_or_create(&[("source", source)]));
            }
            family
        };
        Self {
            found: Labelled::new("source", &sources),
            missing: Labelled::new("reason", &Missing::ALL.map(Missing::label)),
            left_out: Counter::default(),
            tables: gauges(),
            interfaces: gauges(),
            bytes: Gauge::default(),
            refused: Counter::default(),
            renumbered: Counter::default(),
            restarts: Counter::default(),
            last_known_writes: Counter::default(),
            last_known_failures: Counter::default(),
            last_known_set_aside: Counter::default(),
        }
    }
}

impl Metrics {
    /// So many tables and interfaces of a source more.
    pub(super) fn add(&self, source: Source, tables: i64, interfaces: i64) {
        let label = [("source", source.label())];
        self.tables.get_or_create(&label).inc_by(tables);
        self.interfaces.get_or_create(&label).inc_by(interfaces);
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        self.found.register(into, "names_found", "Interfaces in batches that have a name, by who gave it");
        self.missing.register(into, "names_missing", "Interfaces in batches that have none, by reason");
        let help = "Names, and places of addresses, that were known and had no room in their batch";
        into.register("names_left_out", help, self.left_out.clone());
        into.register("names_tables", "Tables of interfaces known, by source", self.tables.clone());
        into.register("names_interfaces", "Interfaces in them, by source", self.interfaces.clone());
        into.register("names_bytes", "Bytes that these tables count", self.bytes.clone());
        into.register("names_refused", "Tables that there was no room for", self.refused.clone());
        let help = "Interfaces whose number got another name while it was known";
        into.register("names_renumbered", help, self.renumbered.clone());
        let help = "Starts of exporters, after which numbers may stand for other interfaces";
        into.register("names_restarts", help, self.restarts.clone());
        let help = "Times that names which devices told were written to disk";
        into.register("names_last_known_writes", help, self.last_known_writes.clone());
        let help = "Times that they could not be written, to be tried again";
        into.register("names_last_known_failures", help, self.last_known_failures.clone());
        let help = "Files of them that could not be read";
        into.register("names_last_known_set_aside", help, self.last_known_set_aside.clone());
    }
}
