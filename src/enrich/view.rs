//! The tables as one shard sees them: asked for each interface of a batch, without ever waiting.

use super::book::{Asked, Book, Domains, Host, Operator, Source};
use super::lookup::Look;
use super::metrics::{Metrics, Missing};
use super::options::Told;
use super::restarts::Restarts;
use super::seen::Seen;
use super::shelf::Shown;
use super::table::{Entry, Table};
use crate::batch::{AddressText, InterfaceText, Names, Sender, SenderText};
use crate::flow::Exporter;
use arc_swap::{ArcSwap, Cache};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Devices seen, and exporters that started anew, that are kept by a shard until they can be handed over.
const MOST_SEEN: usize = 4_096;

type Cached<T> = Cache<Arc<ArcSwap<T>>, Arc<T>>;

/// See the module.
#[derive(Debug)]
pub struct View {
    book: Book,
    operator: Cached<Option<Arc<dyn Operator>>>,
    options: Shown<Exporter, Domains>,
    snmp: Shown<IpAddr, Arc<Table>>,
    asked: Shown<IpAddr, Asked>,
    device_names: Shown<IpAddr, Arc<SenderText>>,
    host: Cached<Host>,
    last_known: Shown<IpAddr, Arc<Table>>,
    restarts: Cached<Restarts>,
    look: Look,
    metrics: Metrics,
    /// Not yet handed over.
    seen: Vec<Seen>,
    restarted: Vec<(Exporter, IpAddr)>,
    /// The tables of the sender whose interface was asked for last, in this batch.
    latest: Option<(Sender, Vec<Known>)>,
}

/// A table of those that may know a sender's interfaces.
#[derive(Clone, Debug)]
struct Known {
    source: Source,
    table: Arc<Table>,
    /// What was told earlier than this, in milliseconds since 1970, does not count.
    since: u64,
}

impl Known {
    /// What it says of an interface and when it was told; `Err` if that does not hold any more.
    fn entry(&self, index: u32) -> Option<Result<(&Entry, u64), ()>> {
        let (entry, told) = self.table.get(index)?;
        Some(if told >= self.since { Ok((entry, told)) } else { Err(()) })
    }
}

impl View {
    pub(super) fn new(book: &Book) -> View {
        View {
            operator: Cache::new(Arc::clone(&book.operator)),
            options: book.options.view(),
            snmp: book.snmp.view(),
            asked: book.asked.view(),
            device_names: book.device_names.view(),
            host: Cache::new(Arc::clone(&book.host)),
            last_known: book.last_known.view(),
            restarts: Cache::new(Arc::clone(&book.restarts)),
            look: Look::new(&book.databases),
            metrics: book.metrics.clone(),
            seen: Vec::new(),
            restarted: Vec::new(),
            latest: None,
            book: book.clone(),
        }
    }

    /// A sender has sent, and its exporter may have started anew. What this tells waits until it is handed over.
    pub fn saw(&mut self, sender: &Sender, restarted: bool) {
        if self.seen.len() < MOST_SEEN {
            let device = self.device(sender);
            self.seen.push(Seen { device, restarted });
        }
        if restarted && self.restarted.len() < MOST_SEEN {
            let device = self.device(sender);
            self.restarted.push((sender.exporter, device));
        }
    }

    /// As [`Names::interface`], of a batch of its own.
    #[cfg(test)]
    pub(super) fn interface_anew(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText> {
        self.latest = None;
        self.interface(sender, index)
    }

    /// Whether all restarts are handed over: what exporters have told since may follow.
    pub fn has_settled(&self) -> bool {
        self.restarted.is_empty()
    }

    /// Hands over who was seen; what cannot be just now, the next time.
    pub fn hand_over(&mut self) {
        if !self.restarted.is_empty() && self.book.restarted(&self.restarted, unix_ms()) {
            self.restarted.clear();
        }
        if !self.seen.is_empty() {
            self.book.door.put(&mut self.seen);
        }
    }

    /// Lets go of tables that have been replaced; to be called about every second.
    pub fn refresh(&mut self) {
        self.latest = None;
        self.options.refresh();
        self.snmp.refresh();
        self.asked.refresh();
        self.device_names.refresh();
        self.last_known.refresh();
        let _newest = (self.operator.load(), self.host.load(), self.restarts.load());
    }

    /// The book that is seen.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The device behind a sender: whom the operator says, else the sFlow agent, else the source address.
    pub fn device(&mut self, sender: &Sender) -> IpAddr {
        let named = self.operator.load().as_ref().as_ref().and_then(|operator| operator.device(sender));
        named.or(agent(sender)).unwrap_or(sender.exporter.address)
    }

    /// The tables that may know a sender's interfaces, in their order.
    fn tables(&mut self, sender: &Sender) -> Vec<Known> {
        let device = self.device(sender);
        let address = sender.exporter.address;
        let operator = Option::clone(self.operator.load());
        let restarts = self.restarts.load();
        // A start in the future is one before the clock was set.
        let of_device = Some(restarts.of_device(&device)).filter(|time| *time <= unix_ms()).unwrap_or(0);
        let mut tables = Vec::new();
        let mut add = |source, table: &Arc<Table>, since| {
            tables.push(Known { source, table: Arc::clone(table), since });
        };
        if let Some(table) = operator.as_ref().and_then(|it| it.table(sender)) {
            add(Source::Static, table, 0);
        }
        // Others of the same exporter may number the same interfaces, unless the operator tells them apart.
        let says = |domain| operator.as_ref().and_then(|it| it.sender(&Sender { domain, ..*sender }));
        let own_text = says(sender.domain);
        let domains = self.options.get(&sender.exporter);
        let domains = domains.map(|all| {
            let own = all.iter().filter(|it| it.domain == sender.domain);
            let is_alike = |it: &&Arc<Told>| it.domain != sender.domain && says(it.domain) == own_text;
            own.chain(all.iter().filter(is_alike)).cloned().collect::<Vec<_>>()
        });
        for told in domains.iter().flatten() {
            add(Source::Options, &told.interfaces, 0);
        }
        if let Some(table) = self.snmp.get(&device) {
            add(Source::Snmp, table, of_device);
        }
        let host = self.host.load();
        // Who sends from here for another device has that one's numbers.
        let is_here = |address: &IpAddr| address.is_loopback() || host.addresses.contains(address);
        if is_here(&address) && is_here(&device) && !host.table.interfaces.is_empty() {
            add(Source::Netlink, &host.table, 0);
        }
        for told in domains.iter().flatten() {
            add(Source::LastKnown, &told.kept, 0);
        }
        if let Some(table) = self.last_known.get(&device) {
            add(Source::LastKnown, table, of_device);
        }
        tables
    }

    /// What is known of a sender's interfaces, the lowest numbers first and `most` at the most; beside it how many
    /// are known in all.
    pub fn interfaces(&mut self, sender: &Sender, most: usize) -> (Vec<(u32, InterfaceText)>, usize) {
        let tables = self.tables(sender);
        let names = |known: &Known, index| matches!(known.entry(index), Some(Ok((entry, _))) if !entry.name.is_empty());
        let (mut shown, mut count) = (BTreeSet::new(), 0);
        for (place, known) in tables.iter().enumerate() {
            for index in known.table.interfaces.keys().filter(|index| names(known, **index)) {
                if tables.iter().take(place).any(|earlier| names(earlier, *index)) {
                    continue;
                }
                count += 1;
                shown.insert(*index);
                if shown.len() > most {
                    shown.pop_last();
                }
            }
        }
        let shown = shown.into_iter().filter_map(|index| Some((index, found(&tables, index)?.1)));
        (shown.collect(), count)
    }

    /// Why none of the tables has a name for the number.
    fn missing(&mut self, sender: &Sender, tables: &[Known], index: u32) -> Missing {
        if tables.iter().any(|known| known.entry(index).is_some_and(|entry| entry.is_err())) {
            return Missing::Restarted;
        }
        let device = self.device(sender);
        match self.asked.get(&device) {
            Some(Asked::Waiting) => return Missing::Waiting,
            Some(Asked::NoAnswer) => return Missing::NoAnswer,
            None => {}
        }
        if tables.iter().any(|known| !known.table.interfaces.is_empty()) {
            return Missing::NotListed;
        }
        match self.restarts.load().of_exporter(&sender.exporter) {
            0 => Missing::NoSource,
            _ => Missing::Restarted,
        }
    }
}

impl Names for View {
    fn sender(&mut self, sender: &Sender) -> Option<Arc<SenderText>> {
        // A batch begins.
        self.latest = None;
        let said = self.operator.load().as_ref().as_ref().and_then(|operator| operator.sender(sender));
        if said.as_ref().is_some_and(|said| !said.name.is_empty()) {
            return said;
        }
        let device = self.device(sender);
        let own = self.device_names.get(&device).cloned();
        match (said, own) {
            (Some(said), Some(own)) => {
                Some(Arc::new(SenderText { name: own.name.clone(), ..SenderText::clone(&said) }))
            }
            (said, own) => said.or(own),
        }
    }

    fn interface(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText> {
        let latest = self.latest.take().filter(|(latest, _)| latest == sender);
        let tables = latest.map_or_else(|| self.tables(sender), |(_, tables)| tables);
        let found = found(&tables, index);
        match &found {
            Some((source, _)) => self.metrics.found.add(source.label(), 1),
            None => {
                let missing = self.missing(sender, &tables, index);
                self.metrics.missing.add(missing.label(), 1);
            }
        }
        self.latest = Some((*sender, tables));
        found.map(|(_, text)| text)
    }

    fn left_out(&mut self, answers: usize) {
        self.metrics.left_out.inc_by(answers as u64);
    }

    fn has_addresses(&self) -> bool {
        self.look.is_on()
    }

    fn address(&mut self, address: IpAddr) -> Option<AddressText> {
        self.look.up(address)
    }
}

/// The agent that a sender names, where that can be another than whom its datagrams come from: not one that has no
/// address, or that of every host.
pub(super) fn agent(sender: &Sender) -> Option<IpAddr> {
    let agent = sender.agent?.to_canonical();
    let source = sender.exporter.address.to_canonical();
    let says_something = !agent.is_unspecified() && (!agent.is_loopback() || source.is_loopback());
    (says_something && agent != source).then_some(agent)
}

/// An interface as the first table says that has its name. Description and speed may be of others, unless those call it
/// otherwise: they mean another one then.
fn found(tables: &[Known], index: u32) -> Option<(Source, InterfaceText)> {
    let entries = || {
        tables.iter().filter_map(move |known| match known.entry(index)? {
            Ok((entry, told)) => Some((known.source, entry, told)),
            Err(()) => None,
        })
    };
    let (source, named, told) = entries().find(|(_, entry, _)| !entry.name.is_empty())?;
    let mut text = Entry { name: Arc::clone(&named.name), ..Entry::default() };
    for (_, entry, _) in entries().filter(|(_, entry, _)| entry.name.is_empty() || entry.name == named.name) {
        text.fill(entry);
    }
    let Entry { name, description, speed, .. } = text;
    Some((
        source,
        InterfaceText { name, description, speed, source: source.into(), age: seconds_since(told) },
    ))
}

fn seconds_since(told: u64) -> u32 {
    u32::try_from(unix_ms().saturating_sub(told) / 1000).unwrap_or(u32::MAX)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
