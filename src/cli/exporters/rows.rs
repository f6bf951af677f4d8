//! What is read of `/status`. Times are in milliseconds since 1970, 0 when there is none.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    /// By the proxy's clock.
    pub(super) now: u64,
    pub(super) exporters: Vec<Exporter>,
    pub(super) ledger: Ledger,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ledger {
    pub(super) exporters: Vec<LedgerRow>,
}

/// What became of an exporter's records, and raw datagrams.
#[derive(Debug, Deserialize)]
pub(super) struct LedgerRow {
    pub(super) address: String,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) numbered: u64,
    pub(super) committed: u64,
    pub(super) skipped: u64,
    pub(super) estimates: Estimates,
}

#[derive(Debug, Deserialize)]
pub(super) struct Estimates {
    pub(super) lost_in_restart: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Exporter {
    pub(super) address: String,
    pub(super) datagrams: u64,
    pub(super) limited: u64,
    pub(super) ports_not_told_apart: u64,
    pub(super) senders_not_shown: u64,
    pub(super) senders: Vec<Sender>,
}

/// What nobody knows of it is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Sender {
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) domain: u32,
    pub(super) state: String,
    pub(super) weight: Weight,
    pub(super) cause: String,
    pub(super) also: Vec<String>,
    pub(super) first_seen: u64,
    pub(super) last_seen: u64,
    pub(super) datagrams: u64,
    pub(super) records: u64,
    pub(super) options: u64,
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) templates: Templates,
    pub(super) provisional_records: u64,
    pub(super) sets_held: u64,
    pub(super) awaited: Vec<Awaited>,
    pub(super) sampling: Sampling,
    pub(super) sequence: Sequence,
    pub(super) clock_skew_ms: i64,
    pub(super) boot_time: u64,
    #[serde(deserialize_with = "plain")]
    pub(super) name: String,
    pub(super) site: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) agent: Option<String>,
    pub(super) device: String,
    /// How asking it by SNMP goes.
    #[serde(default)]
    pub(super) snmp: Option<Device>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) interfaces_not_shown: u64,
    pub(super) other_names: Vec<OtherName>,
    pub(super) other_names_not_shown: u64,
}

/// Of an application, a VRF or a sampler.
#[derive(Debug, Deserialize)]
pub(super) struct OtherName {
    pub(super) kind: String,
    pub(super) id: String,
    #[serde(deserialize_with = "plain")]
    pub(super) name: String,
}

/// An interface, as the first source says that knows its name.
#[derive(Debug, Deserialize)]
pub(super) struct Interface {
    pub(super) index: u32,
    #[serde(deserialize_with = "plain")]
    pub(super) name: String,
    #[serde(deserialize_with = "plain")]
    pub(super) description: String,
    /// Bits per second; 0 if unknown.
    pub(super) speed: u64,
    pub(super) source: String,
    /// Seconds since the source said so.
    pub(super) age: u64,
}

/// The worst first.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    Wrong,
    Odd,
    Well,
    Gone,
}

#[derive(Debug, Deserialize)]
pub(super) struct Templates {
    pub(super) known: u64,
    pub(super) restored: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Awaited {
    pub(super) template: u16,
    pub(super) sets: u64,
    pub(super) since: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sampling {
    pub(super) rate: u32,
    pub(super) source: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sequence {
    pub(super) unit: String,
    pub(super) missing: u64,
    pub(super) late: u64,
    pub(super) duplicates: u64,
    pub(super) resets: u64,
    pub(super) stands_still: bool,
}

/// A text that a device may have told, without what would move the cursor of whoever looks.
fn plain<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    Ok(text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect())
}

/// How asking a device by SNMP goes.
#[derive(Debug, Deserialize)]
pub(super) struct Device {
    pub(super) interfaces: u64,
    pub(super) up: u64,
    /// Milliseconds since 1970; 0: never.
    pub(super) read: u64,
    pub(super) by: String,
    pub(super) failed: Option<String>,
    pub(super) failed_at: u64,
    pub(super) failures: u64,
}
