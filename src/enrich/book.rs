//! All tables of names, as their sources fill them.

use super::lookup::Databases;
use super::metrics::Metrics;
use super::options::Told;
use super::restarts::Restarts;
use super::seen::{Door, Seen};
use super::shelf::Shelf;
use super::table::Table;
use super::view::View;
use crate::batch::{Sender, SenderText};
use crate::flow::Exporter;
use crate::lines::limited;
use crate::proto::{InterfaceSource, Protocol};
use arc_swap::ArcSwap;
use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Whom one source has tables of, at the most.
const MOST_TABLES: usize = 10_000;
/// Bytes of all tables together, but for the operator's and this host's.
pub const MOST_BYTES: usize = 64 << 20;
/// Observation domains of one exporter that have names.
const MOST_DOMAINS: usize = 64;

/// Who tells what interfaces are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator.
    Static,
    /// The exporter itself.
    Options,
    /// The device, asked.
    Snmp,
    /// The kernel of this host.
    Netlink,
    /// Any of them, before the last start.
    LastKnown,
}

impl Source {
    /// All of them, in the order in which they count.
    pub const ALL: [Source; 5] =
        [Source::Static, Source::Options, Source::Snmp, Source::Netlink, Source::LastKnown];

    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Source::Static => "static",
            Source::Options => "options",
            Source::Snmp => "snmp",
            Source::Netlink => "netlink",
            Source::LastKnown => "last_known",
        }
    }
}

impl From<Source> for InterfaceSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Static => Self::Static,
            Source::Options => Self::Options,
            Source::Snmp => Self::Snmp,
            Source::Netlink => Self::Netlink,
            Source::LastKnown => Self::LastKnown,
        }
    }
}

/// What the kernel of this host says.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its interfaces.
    pub table: Arc<Table>,
    /// Its addresses: senders at them, and at loopback, are on this host.
    pub addresses: HashSet<IpAddr>,
}

/// The operator's say: who a sender is, and what its interfaces are called.
pub trait Operator: Send + Sync + std::fmt::Debug {
    /// What it calls the sender; `None` if it does not name it.
    fn sender(&self, sender: &Sender) -> Option<Arc<SenderText>>;
    /// Its table of the sender's interfaces.
    fn table(&self, sender: &Sender) -> Option<&Arc<Table>>;
    /// The device to ask about the sender, if that is not whom its datagrams come from.
    fn device(&self, sender: &Sender) -> Option<IpAddr>;
    /// How many tables it has, and interfaces in them.
    fn extent(&self) -> (usize, usize);
}

/// How asking a device goes that has told nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is being asked for the first time.
    Waiting,
    /// It was asked, and has not answered.
    NoAnswer,
}

/// What an exporter's domains have told.
pub(super) type Domains = Arc<[Arc<Told>]>;

/// What all tables count, but for the operator's and this host's.
#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    /// Tables by source.
    tables: [usize; Source::ALL.len()],
    /// Devices that have told what they are called.
    device_names: usize,
}

/// See the module. A handle: clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) operator: Arc<ArcSwap<Option<Arc<dyn Operator>>>>,
    pub(super) options: Shelf<Exporter, Domains>,
    pub(super) snmp: Shelf<IpAddr, Arc<Table>>,
    pub(super) asked: Shelf<IpAddr, Asked>,
    /// Names that devices give themselves (sysName), by address asked.
    pub(super) device_names: Shelf<IpAddr, Arc<SenderText>>,
    pub(super) host: Arc<ArcSwap<Host>>,
    pub(super) last_known: Shelf<IpAddr, Arc<Table>>,
    pub(super) restarts: Arc<ArcSwap<Restarts>>,
    pub(super) databases: Arc<ArcSwap<Databases>>,
    pub(super) metrics: Metrics,
    account: Arc<Mutex<Account>>,
    /// Goes on when what devices have told changes.
    season: Arc<AtomicU64>,
    pub(super) door: Door,
}

impl Book {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one that counts there.
    pub fn counting(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// The operator's file is this from now on.
    pub fn set_operator(&self, operator: Option<Arc<dyn Operator>>) {
        let count = |it: &Option<Arc<dyn Operator>>| {
            let (tables, interfaces) = it.as_ref().map(|it| it.extent()).unwrap_or_default();
            (tables as i64, interfaces as i64)
        };
        let (tables, interfaces) = count(&operator);
        let (old_tables, old_interfaces) = count(&self.operator.swap(Arc::new(operator)));
        self.metrics.add(Source::Static, tables - old_tables, interfaces - old_interfaces);
    }

    /// An exporter's domain has told this in options data; `None`: it is forgotten. False if somebody else is changing the
    /// book: to be tried again. A shard never waits for who does.
    pub fn set_options(
        &self,
        exporter: Exporter,
        (protocol, domain): (Protocol, u32),
        told: Option<Told>,
    ) -> bool {
        let Some(mut account) = self.account_now() else { return false };
        let old = self.options.get(&exporter);
        let is_own = |it: &&Arc<Told>| (it.protocol, it.domain) == (protocol, domain);
        let others = old.iter().flat_map(|old| old.iter()).filter(|it| !is_own(it));
        let new: Vec<Arc<Told>> =
            told.map(Arc::new).into_iter().chain(others.cloned()).take(MOST_DOMAINS).collect();
        let new: Option<Domains> = (!new.is_empty()).then(|| new.into());
        self.change(&mut account, Source::Options, &self.options, exporter, (old, new), weigh_domains);
        true
    }

    /// What an exporter has told of itself, domain by domain.
    pub fn options(&self, exporter: &Exporter) -> Vec<Arc<Told>> {
        self.options.get(exporter).map(|domains| domains.to_vec()).unwrap_or_default()
    }

    /// A device has answered this; `None`: nothing of what it said before holds.
    pub fn set_snmp(&self, device: IpAddr, table: Option<Arc<Table>>) {
        let mut account = self.account();
        self.asked_is(device, None);
        let old = self.snmp.get(&device);
        if let (Some(old), Some(new)) = (&old, &table) {
            self.count_renumbered(device, old, new);
        }
        let is_news = match (&old, &table) {
            (Some(old), Some(new)) => !old.says_the_same(new),
            (old, new) => old.is_some() != new.is_some(),
        };
        if table.is_some() {
            // It says itself what holds.
            self.take_last_known(&mut account, device);
        }
        self.change(&mut account, Source::Snmp, &self.snmp, device, (old, table), weight);
        if is_news {
            self.season.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there is a table of what a device has answered.
    pub fn has_snmp(&self, device: IpAddr) -> bool {
        self.snmp.get(&device).is_some()
    }

    /// A device is asked no more: what it told is what was known of it last.
    pub fn retire_snmp(&self, device: IpAddr) {
        let mut account = self.account();
        self.asked_is(device, None);
        let Some(table) = self.snmp.get(&device) else { return };
        self.change(&mut account, Source::Snmp, &self.snmp, device, (Some(Arc::clone(&table)), None), weight);
        let old = self.last_known.get(&device);
        self.change(&mut account, Source::LastKnown, &self.last_known, device, (old, Some(table)), weight);
    }

    /// How asking a device goes that has told nothing yet.
    pub fn set_asked(&self, device: IpAddr, asked: Option<Asked>) {
        let _account = self.account();
        self.asked_is(device, asked);
    }

    fn asked_is(&self, device: IpAddr, asked: Option<Asked>) {
        if self.asked.get(&device) != asked {
            self.asked.set(device, asked);
        }
    }

    /// What a device calls itself.
    pub fn set_device_name(&self, device: IpAddr, text: Option<Arc<SenderText>>) {
        let mut account = self.account();
        let old = self.device_names.get(&device);
        let is_full = old.is_none() && account.device_names >= 2 * MOST_TABLES;
        if old == text || is_full {
            return;
        }
        account.device_names += usize::from(text.is_some());
        account.device_names -= usize::from(old.is_some());
        self.device_names.set(device, text);
        self.season.fetch_add(1, Ordering::Relaxed);
    }

    /// What the kernel says.
    pub fn set_host(&self, host: Host) {
        let old = self.host.swap(Arc::new(host));
        let new = self.host.load();
        self.metrics.renumbered.inc_by(old.table.renamed(&new.table).count() as u64);
        let count = |table: &Table| (i64::from(!table.interfaces.is_empty()), table.interfaces.len() as i64);
        let ((old_tables, old_interfaces), (tables, interfaces)) = (count(&old.table), count(&new.table));
        self.metrics.add(Source::Netlink, tables - old_tables, interfaces - old_interfaces);
    }

    /// What was known of a device before the last start; `None`: it does not hold any more.
    pub fn set_last_known(&self, device: IpAddr, table: Option<Arc<Table>>) {
        let mut account = self.account();
        match table {
            Some(_) => {
                let old = self.last_known.get(&device);
                self.change(&mut account, Source::LastKnown, &self.last_known, device, (old, table), weight);
            }
            None => self.take_last_known(&mut account, device),
        }
    }

    /// Addresses are looked up in these.
    pub fn set_databases(&self, databases: Databases) {
        databases.show_age();
        self.databases.store(Arc::new(databases));
    }

    /// What addresses are looked up in.
    pub fn databases(&self) -> Arc<Databases> {
        self.databases.load_full()
    }

    fn take_last_known(&self, account: &mut Account, device: IpAddr) {
        let old = self.last_known.get(&device);
        if old.is_some() {
            self.change(account, Source::LastKnown, &self.last_known, device, (old, None), weight);
            self.season.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goes on when what devices have told changes, and with it what [`Book::devices`] gives.
    pub fn season(&self) -> u64 {
        self.season.load(Ordering::Relaxed)
    }

    /// What is known of devices that were asked, now or before the last start, in no order.
    pub fn devices(&self) -> Vec<(IpAddr, Arc<SenderText>, Arc<Table>)> {
        let restarts = self.restarts.load();
        let holds = |(device, table): &(IpAddr, Arc<Table>)| table.told >= restarts.of_device(device);
        let tables = self.last_known.all().into_iter().chain(self.snmp.all());
        let named = |(device, table): (IpAddr, Arc<Table>)| {
            (device, self.device_names.get(&device).unwrap_or_default(), table)
        };
        tables.filter(holds).map(named).collect()
    }

    /// These have started anew, now: what was told of them before is used no more. False if somebody else is changing
    /// the book: to be tried again.
    pub(super) fn restarted(&self, exporters: &[(Exporter, IpAddr)], now: u64) -> bool {
        let Some(mut account) = self.account_now() else { return false };
        self.restarts.store(Arc::new(self.restarts.load().with(exporters, now)));
        self.metrics.restarts.inc_by(exporters.len() as u64);
        for (exporter, device) in exporters {
            limited!(info, address = %exporter.address, port = exporter.port,
                "An exporter has started anew: names that it told before are used no more");
            self.take_last_known(&mut account, *device);
            // The shard hands over what was told since.
            let old = self.options.get(exporter);
            self.change(&mut account, Source::Options, &self.options, *exporter, (old, None), weigh_domains);
        }
        true
    }

    /// Things that exporters have given another name.
    pub fn count_renamed(&self, things: u64) {
        self.metrics.renumbered.inc_by(things);
    }

    fn count_renumbered(&self, device: IpAddr, old: &Table, new: &Table) {
        let mut renamed = old.renamed(new);
        let Some((index, before, now)) = renamed.next() else { return };
        let more = renamed.count();
        self.metrics.renumbered.inc_by(1 + more as u64);
        limited!(info, %device, index, before = &*before.name, now = &*now.name, more,
            "An interface has another name than before");
    }

    /// `None` if somebody else has it.
    fn account_now(&self) -> Option<MutexGuard<'_, Account>> {
        match self.account.try_lock() {
            Ok(account) => Some(account),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces `old` by `new`. What there is no room for is left out, and counted; what it was to replace goes, too,
    /// for it does not hold any more.
    fn change<K: Clone + Eq + Hash, V: Clone>(
        &self,
        account: &mut Account,
        source: Source,
        shelf: &Shelf<K, V>,
        key: K,
        (old, new): (Option<V>, Option<V>),
        weigh: impl Fn(&V) -> Weight,
    ) {
        let before = old.as_ref().map_or(Weight::default(), &weigh);
        let Some(tables) = account.tables.get_mut(source as usize) else { return };
        let others = *tables - usize::from(old.is_some());
        let is_room = |weight: &Weight| {
            others < MOST_TABLES && account.bytes - before.bytes + weight.bytes <= MOST_BYTES
        };
        let weighed = new.map(|new| (weigh(&new), new));
        let is_refused = weighed.as_ref().is_some_and(|(weight, _)| !is_room(weight));
        if is_refused {
            self.metrics.refused.inc();
            limited!(
                warn,
                source = source.label(),
                "There is no room for the interfaces of another exporter"
            );
        }
        let (after, new) = match weighed.filter(|_| !is_refused) {
            Some((weight, new)) => (weight, Some(new)),
            None => (Weight::default(), None),
        };
        if old.is_none() && new.is_none() {
            return;
        }
        *tables = others + usize::from(new.is_some());
        account.bytes = account.bytes - before.bytes + after.bytes;
        self.metrics.bytes.set(account.bytes as i64);
        let count = i64::from(new.is_some()) - i64::from(old.is_some());
        self.metrics.add(source, count, after.interfaces as i64 - before.interfaces as i64);
        shelf.set(key, new);
    }

    /// From now on devices that are seen are kept for [`Book::seen`].
    pub fn listen(&self) {
        self.door.open();
    }

    /// Waits until flow has come from devices, and tells which: each within milliseconds of its first datagram, and again
    /// about once a minute while it sends. For one listener.
    pub async fn seen(&self) -> Vec<Seen> {
        self.door.take().await
    }

    /// Devices that there was no room for, to be told later.
    pub fn seen_left_out(&self) -> u64 {
        self.door.left_out()
    }

    /// A view for one shard, which counts what it finds and what it does not.
    pub fn view(&self) -> View {
        View::new(self)
    }
}

/// What something counts.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    bytes: usize,
    interfaces: usize,
}

fn weigh_domains(domains: &Domains) -> Weight {
    let interfaces = |it: &Arc<Told>| it.interfaces.interfaces.len() + it.kept.interfaces.len();
    let bytes = domains.iter().map(|it| it.bytes()).sum();
    Weight { bytes, interfaces: domains.iter().map(interfaces).sum() }
}

fn weight(table: &Arc<Table>) -> Weight {
    Weight { bytes: table.bytes(), interfaces: table.interfaces.len() }
}

#[cfg(test)]
mod tests;
