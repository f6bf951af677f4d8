//! One reading of a device: who it is, and IF-MIB's columns as a table.
//!
//! | if | then |
//! |---|---|
//! | a column is missing | nothing of it: ifDescr is the name where there is no ifName, ifSpeed the speed where there is no ifHighSpeed |
//! | no column gives a name | an error, for the credential sees nothing |
//! | one request fails | all of it has failed: a table is whole or not at all |
//! | the device restarts meanwhile | all of it has failed, for rows may be of both lives |
//! | there are more than [`MOST_INTERFACES`] | those beyond it are left out and counted |

use super::error::Error;
use super::session::Session;
use crate::enrich::table::{Entry, MOST_INTERFACES, Table};
use async_snmp::Value;
use std::collections::HashMap;
use std::sync::Arc;

// SNMPv2-MIB (RFC 3418), SNMP-FRAMEWORK-MIB (RFC 3411)
const SYS_DESCR: &[u32] = &[1, 3, 6, 1, 2, 1, 1, 1, 0];
pub(super) const SYS_UP_TIME: &[u32] = &[1, 3, 6, 1, 2, 1, 1, 3, 0];
const SYS_NAME: &[u32] = &[1, 3, 6, 1, 2, 1, 1, 5, 0];
const SNMP_ENGINE_BOOTS: &[u32] = &[1, 3, 6, 1, 6, 3, 10, 2, 1, 2, 0];
// IF-MIB (RFC 2863): ifTable, ifXTable
const IF_INDEX: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 1];
const IF_DESCR: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 2];
const IF_TYPE: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 3];
const IF_SPEED: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 5];
const IF_OPER_STATUS: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 8];
const IF_NAME: &[u32] = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 1];
const IF_HIGH_SPEED: &[u32] = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15];
const IF_ALIAS: &[u32] = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 18];

/// Rows of text asked for at once: with names and aliases of usual length they fit into one packet of 1,500 bytes.
const TEXT_ROWS: u32 = 16;
/// The same of numbers, about 20 bytes each.
const NUMBER_ROWS: u32 = 48;
/// ifAlias and ifDescr have at most so many bytes (RFC 2863).
const MOST_TEXT: usize = 255;
const MEGABIT: u64 = 1_000_000;
/// ifOperStatus `up`.
const UP: u32 = 1;

/// Who a device says that it is, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct System {
    /// sysName; empty if not shown.
    pub(super) name: String,
    /// sysDescr; empty if not shown.
    pub(super) description: String,
    /// sysUpTime, in hundredths of a second; it starts again at 0 after 497 days.
    pub(super) uptime: Option<u32>,
    /// snmpEngineBoots.
    pub(super) boots: Option<u32>,
}

/// What was read of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) system: System,
    pub(super) interfaces: HashMap<u32, Interface>,
    /// Interfaces that there was no room for, at least.
    pub(super) left_out: u64,
}

/// A row of ifTable and ifXTable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    name: String,
    description: String,
    alias: String,
    /// Bits per second.
    speed: u64,
    /// IANAifType.
    pub(super) kind: u32,
    /// ifOperStatus is `up`.
    pub(super) is_up: bool,
}

/// Asks who the device is.
///
/// # Errors
/// As the device, or silence, has it.
pub(super) async fn system(session: &Session) -> Result<System, Error> {
    let objects = [SYS_NAME, SYS_DESCR, SYS_UP_TIME, SNMP_ENGINE_BOOTS];
    let values = session.get(&objects).await?;
    let value = |place: usize| values.get(place).and_then(Option::as_ref);
    Ok(System {
        name: value(0).map(text).unwrap_or_default(),
        description: value(1).map(text).unwrap_or_default(),
        uptime: value(2).and_then(number),
        boots: value(3).and_then(number),
    })
}

/// Walks the interfaces of the device that said `system` of itself.
///
/// # Errors
/// As the device, or silence, has it.
pub(super) async fn interfaces(session: &Session, system: System) -> Result<Reading, Error> {
    let mut rows = Rows::default();
    rows.walk(session, IF_INDEX, NUMBER_ROWS, |_, _| {}).await?;
    rows.walk(session, IF_NAME, TEXT_ROWS, |row, value| row.name = text(value)).await?;
    rows.walk(session, IF_DESCR, TEXT_ROWS, |row, value| row.description = text(value)).await?;
    rows.walk(session, IF_ALIAS, TEXT_ROWS, |row, value| row.alias = text(value)).await?;
    let fast = |row: &mut Interface, value: &Value| {
        row.speed = u64::from(number(value).unwrap_or(0)) * MEGABIT;
    };
    if rows.walk(session, IF_HIGH_SPEED, NUMBER_ROWS, fast).await? == 0 {
        let slow = |row: &mut Interface, value: &Value| row.speed = number(value).unwrap_or(0).into();
        rows.walk(session, IF_SPEED, NUMBER_ROWS, slow).await?;
    }
    let kind = |row: &mut Interface, value: &Value| row.kind = number(value).unwrap_or(0);
    rows.walk(session, IF_TYPE, NUMBER_ROWS, kind).await?;
    let status = |row: &mut Interface, value: &Value| row.is_up = number(value) == Some(UP);
    rows.walk(session, IF_OPER_STATUS, NUMBER_ROWS, status).await?;
    let Rows { all, left_out } = rows;
    if all.values().all(|row| row.name().is_empty()) {
        return Err(Error::NoView);
    }
    let after = session.get(&[SYS_UP_TIME]).await?;
    let after = after.first().and_then(Option::as_ref).and_then(number);
    if let (Some(before), Some(after)) = (system.uptime, after)
        && after < before
    {
        return Err(Error::Restarted);
    }
    Ok(Reading { system, interfaces: all, left_out })
}

#[derive(Default)]
struct Rows {
    all: HashMap<u32, Interface>,
    left_out: u64,
}

impl Rows {
    /// Puts a column into the rows; how many rows had it.
    async fn walk(
        &mut self,
        session: &Session,
        column: &[u32],
        repetitions: u32,
        put: impl Fn(&mut Interface, &Value),
    ) -> Result<usize, Error> {
        let mut found = 0;
        let each = |index: u32, value: &Value| {
            if found == MOST_INTERFACES
                || (self.all.len() >= MOST_INTERFACES && !self.all.contains_key(&index))
            {
                self.left_out = self.left_out.max(1);
                return false;
            }
            found += 1;
            put(self.all.entry(index).or_default(), value);
            true
        };
        session.column(column, repetitions, each).await?;
        Ok(found)
    }
}

impl Interface {
    /// ifName, or ifDescr where there is none.
    fn name(&self) -> &str {
        if self.name.is_empty() { &self.description } else { &self.name }
    }

    /// ifAlias, or ifDescr where that says more than the name.
    fn description(&self) -> &str {
        match (self.alias.as_str(), self.description.as_str()) {
            ("", description) if description == self.name() => "",
            ("", description) => description,
            (alias, _) => alias,
        }
    }
}

impl Reading {
    /// As a table that was told at `told`, in milliseconds since 1970.
    pub(super) fn table(&self, told: u64) -> Table {
        let entry = |row: &Interface| Entry {
            name: Arc::from(row.name()),
            description: Arc::from(row.description()),
            speed: row.speed,
            told: 0,
        };
        let interfaces = self.interfaces.iter().map(|(index, row)| (*index, entry(row))).collect();
        Table { interfaces, told }
    }
}

/// Text as it may be shown: without what steers terminals, and not longer than IF-MIB lets it be.
fn text(value: &Value) -> String {
    let bytes = value.as_bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(..MOST_TEXT).unwrap_or(bytes));
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.trim().to_owned()
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Integer(number) => u32::try_from(*number).ok(),
        other => other.as_u32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, description: &str, alias: &str) -> Interface {
        let [name, description, alias] = [name, description, alias].map(str::to_owned);
        Interface { name, description, alias, ..Interface::default() }
    }

    #[test]
    fn what_a_device_lacks_comes_from_what_it_has() {
        let cases = [
            (row("Te1/1", "TenGigabitEthernet1/1", "uplink to Paris"), ("Te1/1", "uplink to Paris")),
            (row("Te1/1", "TenGigabitEthernet1/1", ""), ("Te1/1", "TenGigabitEthernet1/1")),
            (row("lo", "lo", ""), ("lo", "")),
            (row("", "lo", ""), ("lo", "")),
            (row("", "", "uplink"), ("", "uplink")),
        ];
        for (row, told) in cases {
            assert_eq!((row.name(), row.description()), told);
        }
    }

    #[test]
    fn text_is_shown_as_text() {
        let of = |bytes: &[u8]| text(&Value::OctetString(bytes.to_vec().into()));
        assert_eq!(of(b" eth0\0"), "eth0");
        assert_eq!(of(b"a\x1b[31m\nb"), "a [31m b");
        assert_eq!(of(b"caf\xe9"), "caf\u{fffd}");
        assert_eq!(of(&[b'x'; 1_000]).len(), MOST_TEXT);
        assert_eq!(text(&Value::Integer(7)), "");
    }
}
