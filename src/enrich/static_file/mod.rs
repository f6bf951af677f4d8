//! The operator's file: what exporters and their interfaces are called. TOML, or CSV if its name ends in `.csv`.
//!
//! ```toml
//! [[exporter]]
//! address = "127.0.0.1"     # source address, or the agent address of sFlow
//! port = 40001              # optional: only this source port
//! domain = 7                # optional: only this observation domain (sFlow: sub-agent)
//! device = "10.0.0.1"       # optional: whom to ask by SNMP, and whose names hold
//! name = "r1"
//! site = "paris"
//! [exporter.labels]
//! rack = "12"
//! [exporter.interfaces.7]
//! name = "eth1"
//! description = "uplink to Paris"
//! speed = 10000000000       # bits per second
//! ```
//!
//! | if | then |
//! |---|---|
//! | several entries fit a sender | address, port and domain come before address and port, then address and domain, then address; what one leaves out comes from the next |
//! | an entry fits the sFlow agent, another the source address | the agent's holds; the other adds site and labels alone, as name and interfaces are of another device |
//! | anything is wrong with the file | all of it is told at once, with lines, and nothing of it is taken |
//! | it is replaced | it is read at the next SIGHUP, with the config |

mod from_csv;
mod from_toml;
mod merge;
mod rules;

use super::book::Operator;
use super::table::Table;
use super::view;
use crate::batch::{Sender, SenderText};
use crate::config::Faults;
use rules::Findings;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// The longest file, in bytes.
pub const MOST_BYTES: u64 = 32 << 20;
/// Entries of exporters.
pub const MOST_EXPORTERS: usize = 10_000;
/// Interfaces of all entries together.
pub const MOST_INTERFACES: usize = 250_000;

/// Whom an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    address: IpAddr,
    port: Option<u16>,
    domain: Option<u32>,
}

/// What holds for an identity, with what less specific entries say.
#[derive(Clone, Debug, Default)]
struct Known {
    text: Option<Arc<SenderText>>,
    table: Option<Arc<Table>>,
    device: Option<IpAddr>,
}

/// See the module.
#[derive(Debug)]
pub struct StaticFile {
    known: HashMap<Identity, Known>,
    exporters: usize,
    interfaces: usize,
}

impl StaticFile {
    /// Reads the file at `path`; `now` in milliseconds since 1970 is from when on its names count.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn read(path: &Path, now: u64) -> Result<Self, Faults> {
        let mut findings = Findings::new(path);
        let text = match text(path) {
            Ok(text) => text,
            Err(wrong) => {
                findings.whole(wrong, format!("a file in UTF-8 of {MOST_BYTES} bytes at the most"));
                return Err(findings.into_faults());
            }
        };
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let entries =
            if is_csv { from_csv::read(text, &mut findings) } else { from_toml::read(text, &mut findings) };
        let (exporters, interfaces) =
            (entries.len(), entries.iter().map(|entry| entry.interfaces.len()).sum());
        rules::bounds(exporters, interfaces, &mut findings);
        let known =
            if findings.is_empty() { merge::merged(&entries, now, &mut findings) } else { HashMap::new() };
        if findings.is_empty() {
            Ok(Self { known, exporters, interfaces })
        } else {
            Err(findings.into_faults())
        }
    }

    /// How many entries it has.
    pub fn exporters(&self) -> usize {
        self.exporters
    }

    /// How many interfaces it names.
    pub fn interfaces(&self) -> usize {
        self.interfaces
    }

    /// What the most specific entry of an address says.
    fn at(&self, address: IpAddr, sender: &Sender) -> Option<&Known> {
        let (port, domain) = (Some(sender.exporter.port), Some(sender.domain));
        let address = address.to_canonical();
        [(port, domain), (port, None), (None, domain), (None, None)]
            .into_iter()
            .find_map(|(port, domain)| self.known.get(&Identity { address, port, domain }))
    }

    /// What is said of the agent, where that is not the source address, and of the source address.
    fn both(&self, sender: &Sender) -> (Option<&Known>, Option<&Known>) {
        (
            view::agent(sender).and_then(|agent| self.at(agent, sender)),
            self.at(sender.exporter.address, sender),
        )
    }

    /// What is said of the device itself.
    fn device(&self, sender: &Sender) -> Option<&Known> {
        let (agent, source) = self.both(sender);
        agent.or(source)
    }
}

impl Operator for StaticFile {
    fn sender(&self, sender: &Sender) -> Option<Arc<SenderText>> {
        let (agent, source) = self.both(sender);
        let text = |known: Option<&Known>| known.and_then(|known| known.text.clone());
        let (Some(agent), Some(around)) = (agent, text(source)) else { return text(agent.or(source)) };
        let mut both = agent.text.as_deref().cloned().unwrap_or_default();
        merge::add_place(&mut both, &around.site, &around.labels);
        Some(Arc::new(both))
    }

    fn table(&self, sender: &Sender) -> Option<&Arc<Table>> {
        self.device(sender)?.table.as_ref()
    }

    fn device(&self, sender: &Sender) -> Option<IpAddr> {
        self.device(sender)?.device
    }

    fn extent(&self) -> (usize, usize) {
        (self.known.values().filter(|known| known.table.is_some()).count(), self.interfaces)
    }
}

/// The file's text; the error says what is wrong with the file as a whole.
fn text(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err("is too long".to_owned());
    }
    String::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests;
