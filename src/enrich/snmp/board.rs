//! What is shown of devices that are asked.

use super::credential::Credential;
use super::error::Error;
use super::reading::{Interface, System};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How asking one device goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// sysName; empty if not told.
    pub name: String,
    /// sysDescr; empty if not told.
    pub description: String,
    /// How many interfaces it told.
    pub interfaces: usize,
    /// How many of them are up.
    pub up: usize,
    /// When it told them, in milliseconds since 1970; 0: never.
    pub read: u64,
    /// "SNMPv2c" or "SNMPv3", and the port: the credential that it took; empty if none.
    pub by: String,
    /// Why the last reading failed, if it did.
    pub failed: Option<String>,
    /// When it failed, in milliseconds since 1970; 0: it has not.
    pub failed_at: u64,
    /// Failures in a row.
    pub failures: u32,
}

impl Row {
    pub(super) fn read(
        system: &System,
        interfaces: &HashMap<u32, Interface>,
        by: &Credential,
        now_ms: u64,
    ) -> Self {
        Self {
            name: system.name.clone(),
            description: system.description.clone(),
            interfaces: interfaces.len(),
            up: interfaces.values().filter(|row| row.is_up).count(),
            read: now_ms,
            by: by.words(),
            ..Self::default()
        }
    }
}

/// Rows by device. A handle: clones share it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<IpAddr, Row>>>);

impl Board {
    /// How asking a device goes; `None` if it is not asked, or not yet.
    pub fn row(&self, device: IpAddr) -> Option<Row> {
        self.rows().get(&device).cloned()
    }

    pub(super) fn show(&self, device: IpAddr, row: Row) {
        self.rows().insert(device, row);
    }

    pub(super) fn fail(&self, device: IpAddr, error: &Error, now_ms: u64) {
        let mut rows = self.rows();
        let row = rows.entry(device).or_default();
        (row.failed, row.failed_at) = (Some(error.to_string()), now_ms);
        row.failures = row.failures.saturating_add(1);
    }

    pub(super) fn forget(&self, device: IpAddr) {
        self.rows().remove(&device);
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
