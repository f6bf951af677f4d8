//! What holds for each identity: its own entry, and what it leaves out from the less specific ones of its address.

use super::rules::{Findings, MOST_OF_EXPORTER, Written};
use super::{Identity, Known};
use crate::batch::SenderText;
use crate::enrich::table::{Entry, Table};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Pairs of a port and a domain that meet at one address only because each has an entry, in the whole file.
const MOST_PAIRS: usize = 100_000;
/// Interfaces of tables that are put together from several entries.
const MOST_MERGED: usize = 1_000_000;

/// Everything that can be asked for, by identity. `told` as in [`Table`].
pub(super) fn merged(entries: &[Written], told: u64, findings: &mut Findings) -> HashMap<Identity, Known> {
    let mut addresses: BTreeMap<IpAddr, Vec<&Written>> = BTreeMap::new();
    for entry in entries {
        addresses.entry(entry.identity.address).or_default().push(entry);
    }
    let mut known = HashMap::new();
    let (mut pairs, mut interfaces) = (0, 0);
    for (address, entries) in addresses {
        let mut of = Address { address, entries: HashMap::new(), tables: HashMap::new(), told, merged: 0 };
        of.entries.extend(entries.into_iter().map(|entry| (entry.identity, entry)));
        let identities = of.identities(&mut pairs);
        if pairs <= MOST_PAIRS {
            for identity in identities {
                let one = of.known(identity);
                let bytes = one.text.as_deref().map_or(0, bytes);
                if bytes > MOST_OF_EXPORTER {
                    let wrong =
                        format!("has {bytes} bytes of name, site and labels for an exporter at {address}");
                    findings.whole(wrong, format!("{MOST_OF_EXPORTER} bytes"));
                }
                known.insert(identity, one);
                if interfaces + of.merged > MOST_MERGED {
                    break;
                }
            }
        }
        interfaces += of.merged;
        if pairs > MOST_PAIRS || interfaces > MOST_MERGED {
            let wrong = "has too many entries by port and by domain of the same address".to_owned();
            findings.whole(wrong, "entries by port, or by domain, or by both".to_owned());
            break;
        }
    }
    known
}

/// Gives a sender the site and the labels that it has not got.
pub(super) fn add_place(text: &mut SenderText, site: &str, labels: &BTreeMap<String, String>) {
    if text.site.is_empty() {
        site.clone_into(&mut text.site);
    }
    for (key, value) in labels {
        text.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn bytes(text: &SenderText) -> usize {
    let labels: usize = text.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    text.name.len() + text.site.len() + labels
}

/// The entries of one address.
struct Address<'a> {
    address: IpAddr,
    entries: HashMap<Identity, &'a Written>,
    /// Tables by whose interfaces are in them.
    tables: HashMap<Vec<Identity>, Arc<Table>>,
    told: u64,
    /// Interfaces in tables of several entries.
    merged: usize,
}

impl Address<'_> {
    /// Those with an entry, and those on which an entry by port and one by domain meet; none once there are too many
    /// of the latter, which `pairs` counts.
    fn identities(&self, pairs: &mut usize) -> HashSet<Identity> {
        let by_port = self.entries.keys().filter(|of| of.port.is_some() && of.domain.is_none());
        let by_domain: Vec<_> =
            self.entries.keys().filter(|of| of.port.is_none() && of.domain.is_some()).collect();
        *pairs += by_port.clone().count() * by_domain.len();
        if *pairs > MOST_PAIRS {
            return HashSet::new();
        }
        let meeting =
            by_port.flat_map(|port| by_domain.iter().map(|of| Identity { domain: of.domain, ..*port }));
        self.entries.keys().copied().chain(meeting).collect()
    }

    fn known(&mut self, identity: Identity) -> Known {
        let Identity { port, domain, .. } = identity;
        let order = [(port, domain), (port, None), (None, domain), (None, None)];
        let mut fitting: Vec<Identity> = Vec::new();
        for (port, domain) in order {
            let one = Identity { address: self.address, port, domain };
            if !fitting.contains(&one) {
                fitting.push(one);
            }
        }
        let layers: Vec<&Written> = fitting.iter().filter_map(|of| self.entries.get(of).copied()).collect();
        let mut text = SenderText::default();
        for layer in &layers {
            if text.name.is_empty() {
                text.name.clone_from(&layer.name);
            }
            add_place(&mut text, &layer.site, &layer.labels);
        }
        Known {
            text: (text != SenderText::default()).then(|| Arc::new(text)),
            device: layers.iter().find_map(|layer| layer.device),
            table: self.table(&layers),
        }
    }

    fn table(&mut self, layers: &[&Written]) -> Option<Arc<Table>> {
        let layers = || layers.iter().filter(|layer| !layer.interfaces.is_empty());
        let of: Vec<Identity> = layers().map(|layer| layer.identity).collect();
        if of.is_empty() {
            return None;
        }
        if let Some(table) = self.tables.get(&of) {
            return Some(Arc::clone(table));
        }
        let mut interfaces: HashMap<u32, Entry> = HashMap::new();
        for layer in layers() {
            for (index, entry) in &layer.interfaces {
                interfaces.entry(*index).and_modify(|own| own.fill(entry)).or_insert_with(|| entry.clone());
            }
        }
        if of.len() > 1 {
            self.merged += interfaces.len();
        }
        let table = Arc::new(Table { interfaces, told: self.told });
        self.tables.insert(of, Arc::clone(&table));
        Some(table)
    }
}
