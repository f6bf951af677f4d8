//! Counter samples: from their records to one row.
//!
//! Generic interface, Ethernet, VLAN and processor counters have columns, each once; other records, such as are not
//! as long as theirs, and such as come again travel whole.

use super::parts::Part;
use super::rows::Row;
use super::sample::Records;

/// What the records of a counter sample say.
#[derive(Debug, Default)]
pub(super) struct Found {
    interface: Option<[u8; 88]>,
    ethernet: Option<[u8; 52]>,
    vlan: Option<[u8; 28]>,
    processor: Option<[u8; 28]>,
}

fn fill<const N: usize>(place: &mut Option<[u8; N]>, bytes: &[u8]) -> bool {
    match bytes.try_into() {
        Ok(bytes) if place.is_none() => {
            *place = Some(bytes);
            true
        }
        _ => false,
    }
}

impl Found {
    /// Reads the records; tells also how far that went.
    pub(super) fn read<'a>(mut records: Records<'a>, row: &mut Row<'_>) -> (Found, Records<'a>) {
        let mut found = Found::default();
        for record in &mut records {
            let is_mapped = match (record.enterprise, record.format) {
                (0, 1) => fill(&mut found.interface, record.bytes),
                (0, 2) => fill(&mut found.ethernet, record.bytes),
                (0, 5) => fill(&mut found.vlan, record.bytes),
                (0, 1001) => fill(&mut found.processor, record.bytes),
                _ => false,
            };
            if !is_mapped {
                row.keep(&record);
            }
        }
        (found, records)
    }

    /// Puts everything into the row.
    pub(super) fn put(&self, row: &mut Row<'_>) {
        if let Some(bytes) = self.interface {
            row.put(Part::InterfaceCounters, bytes);
        }
        if let Some(bytes) = self.ethernet {
            row.put(Part::EthernetCounters, bytes);
        }
        if let Some(bytes) = self.vlan {
            row.put(Part::VlanCounters, bytes);
        }
        if let Some(bytes) = self.processor {
            row.put(Part::Processor, bytes);
        }
    }
}
