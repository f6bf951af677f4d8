//! All tables, and the view of them that shards have.

use super::lookup::{Databases, Look};
use super::seen::{Door, Seen};
use super::table::{Entry, Table};
use crate::batch::{AddressText, InterfaceText, Names, Sender, SenderText};
use crate::flow::Exporter;
use crate::proto::InterfaceSource;
use arc_swap::{ArcSwap, Cache};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tables of one source, replaced as a whole at each change.
type Shelf<K> = Arc<ArcSwap<HashMap<K, Arc<Table>>>>;

/// Whose options data it is.
pub type Told = (Exporter, u32);

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
}

/// See the module. A handle: clones share everything.
#[derive(Clone, Debug)]
pub struct Book {
    operator: Arc<ArcSwap<Option<Arc<dyn Operator>>>>,
    options: Shelf<Told>,
    snmp: Shelf<IpAddr>,
    /// Names that devices give themselves (sysName), by address asked.
    device_names: Arc<ArcSwap<HashMap<IpAddr, Arc<SenderText>>>>,
    host: Arc<ArcSwap<Host>>,
    last_known: Shelf<IpAddr>,
    databases: Arc<ArcSwap<Databases>>,
    changing: Arc<Mutex<()>>,
    door: Door,
}

impl Book {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            operator: Arc::default(),
            options: Arc::default(),
            snmp: Arc::default(),
            device_names: Arc::default(),
            host: Arc::default(),
            last_known: Arc::default(),
            databases: Arc::default(),
            changing: Arc::default(),
            door: Door::default(),
        }
    }

    /// The operator's file is this from now on.
    pub fn set_operator(&self, operator: Option<Arc<dyn Operator>>) {
        self.operator.store(Arc::new(operator));
    }

    /// An exporter's domain has told this in options data; `None`: it is forgotten.
    pub fn set_options(&self, whose: Told, table: Option<Arc<Table>>) {
        self.change(&self.options, whose, table);
    }

    /// A device has answered this; `None`: nothing of what it said before holds.
    pub fn set_snmp(&self, device: IpAddr, table: Option<Arc<Table>>) {
        self.change(&self.snmp, device, table);
    }

    /// What a device calls itself.
    pub fn set_device_name(&self, device: IpAddr, text: Option<Arc<SenderText>>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = HashMap::clone(&self.device_names.load());
        match text {
            Some(text) => names.insert(device, text),
            None => names.remove(&device),
        };
        self.device_names.store(Arc::new(names));
    }

    /// What the kernel says.
    pub fn set_host(&self, host: Host) {
        self.host.store(Arc::new(host));
    }

    /// What was known of a device before the last start; `None`: it does not hold any more.
    pub fn set_last_known(&self, device: IpAddr, table: Option<Arc<Table>>) {
        self.change(&self.last_known, device, table);
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

    fn change<K: Clone + Eq + Hash>(&self, shelf: &Shelf<K>, key: K, table: Option<Arc<Table>>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = HashMap::clone(&shelf.load());
        match table {
            Some(table) => tables.insert(key, table),
            None => tables.remove(&key),
        };
        shelf.store(Arc::new(tables));
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

    /// A view for one shard.
    pub fn view(&self) -> View {
        View {
            operator: Cache::new(Arc::clone(&self.operator)),
            options: Cache::new(Arc::clone(&self.options)),
            snmp: Cache::new(Arc::clone(&self.snmp)),
            device_names: Cache::new(Arc::clone(&self.device_names)),
            host: Cache::new(Arc::clone(&self.host)),
            last_known: Cache::new(Arc::clone(&self.last_known)),
            look: Look::new(&self.databases),
            seen: Vec::new(),
            door: self.door.clone(),
        }
    }
}

impl Default for Book {
    fn default() -> Self {
        Self::new()
    }
}

type Shown<T> = Cache<Arc<ArcSwap<T>>, Arc<T>>;

/// The tables as one shard sees them.
#[derive(Debug)]
pub struct View {
    operator: Shown<Option<Arc<dyn Operator>>>,
    options: Shown<HashMap<Told, Arc<Table>>>,
    snmp: Shown<HashMap<IpAddr, Arc<Table>>>,
    device_names: Shown<HashMap<IpAddr, Arc<SenderText>>>,
    host: Shown<Host>,
    last_known: Shown<HashMap<IpAddr, Arc<Table>>>,
    look: Look,
    /// Not yet handed over.
    seen: Vec<Seen>,
    door: Door,
}

/// Devices seen that are kept by a shard until they can be handed over.
const MOST_SEEN: usize = 4_096;

impl View {
    /// A sender has sent. What this tells waits until it is handed over.
    pub fn saw(&mut self, sender: &Sender, restarted: bool) {
        if self.seen.len() < MOST_SEEN || restarted {
            let device = self.device(sender);
            self.seen.push(Seen { device, restarted });
        }
    }

    /// Hands over who was seen; what cannot be just now, the next time.
    pub fn hand_over(&mut self) {
        if !self.seen.is_empty() {
            self.door.put(&mut self.seen);
        }
    }

    /// The device behind a sender: whom the operator says, else the sFlow agent, else the source address.
    pub fn device(&mut self, sender: &Sender) -> IpAddr {
        let named = self.operator.load().as_ref().as_ref().and_then(|operator| operator.device(sender));
        named.or(agent(sender)).unwrap_or(sender.exporter.address)
    }

    /// The tables that may know a sender's interfaces, in their order.
    fn tables(&mut self, sender: &Sender) -> Tables {
        let device = self.device(sender);
        let address = sender.exporter.address;
        let operator = self.operator.load().as_ref().as_ref();
        let host = self.host.load();
        let is_here = address.is_loopback() || host.addresses.contains(&address);
        [
            (InterfaceSource::Static, operator.and_then(|operator| operator.table(sender)).cloned()),
            (InterfaceSource::Options, self.options.load().get(&(sender.exporter, sender.domain)).cloned()),
            (InterfaceSource::Snmp, self.snmp.load().get(&device).cloned()),
            (InterfaceSource::Netlink, is_here.then(|| Arc::clone(&host.table))),
            (InterfaceSource::LastKnown, self.last_known.load().get(&device).cloned()),
        ]
    }

    /// All that is known of a sender's interfaces, by their numbers.
    pub fn interfaces(&mut self, sender: &Sender) -> Vec<(u32, InterfaceText)> {
        let tables = self.tables(sender);
        let known = tables.iter().filter_map(|(_, table)| table.as_ref());
        let indexes: BTreeSet<u32> = known.flat_map(|table| table.interfaces.keys().copied()).collect();
        indexes.into_iter().filter_map(|index| Some((index, found(&tables, index)?))).collect()
    }
}

impl Names for View {
    fn sender(&mut self, sender: &Sender) -> Option<Arc<SenderText>> {
        let said = self.operator.load().as_ref().as_ref().and_then(|operator| operator.sender(sender));
        if said.as_ref().is_some_and(|said| !said.name.is_empty()) {
            return said;
        }
        let device = self.device(sender);
        let own = self.device_names.load().get(&device).cloned();
        match (said, own) {
            (Some(said), Some(own)) => {
                Some(Arc::new(SenderText { name: own.name.clone(), ..SenderText::clone(&said) }))
            }
            (said, own) => said.or(own),
        }
    }

    fn interface(&mut self, sender: &Sender, index: u32) -> Option<InterfaceText> {
        found(&self.tables(sender), index)
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

/// What each source knows of one sender, in the order in which they count.
type Tables = [(InterfaceSource, Option<Arc<Table>>); 5];

/// An interface as the first table says that has its name; description and speed may be of others.
fn found(tables: &Tables, index: u32) -> Option<InterfaceText> {
    let mut text = Entry::default();
    let mut named = None;
    for (source, table) in tables {
        let Some((table, entry)) =
            table.as_ref().and_then(|table| Some((table, table.interfaces.get(&index)?)))
        else {
            continue;
        };
        if named.is_none() && !entry.name.is_empty() {
            let told = if entry.told == 0 { table.told } else { entry.told };
            named = Some((*source, told));
        }
        text.fill(entry);
    }
    let (source, told) = named?;
    let Entry { name, description, speed, .. } = text;
    Some(InterfaceText { name, description, speed, source, age: seconds_since(told) })
}

fn seconds_since(told: u64) -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    u32::try_from(now.saturating_sub(told) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
