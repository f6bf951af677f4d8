//! How samples begin: the fields before their records.

use super::parts::Part;
use super::reasons::forwarding_status;
use super::rows::Row;
use super::sample::{Records, Sample, Source};
use super::structures::Address;
use crate::proto::RecordKind;
use crate::wire::cursor::{Cursor, Short};

/// Formats of samples, all of enterprise 0.
mod format {
    pub(super) const FLOW: u32 = 1;
    pub(super) const COUNTERS: u32 = 2;
    pub(super) const EXPANDED_FLOW: u32 = 3;
    pub(super) const EXPANDED_COUNTERS: u32 = 4;
    pub(super) const DISCARDED: u32 = 5;
}

/// What an interface number is: the two high bits of a compact one.
mod interface_format {
    pub(super) const INDEX: u32 = 0;
    pub(super) const DISCARDED: u32 = 1;
    pub(super) const MULTIPLE: u32 = 2;
    /// Bits below the format.
    pub(super) const BITS: u32 = 30;
}

/// The fields before a sample's records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) kind: RecordKind,
    pub(super) count: u32,
    /// 0 where there is none.
    pub(super) rate: u32,
    pub(super) sequence: u32,
    pub(super) source: Source,
    body: Body,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Flow { pool: u32, drops: u32, input: Interface, output: Interface },
    Counters,
    Drop { drops: u32, input: u32, output: u32, reason: u32 },
}

/// An interface, or what became of the packet instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interface {
    format: u32,
    /// As a compact sample has it: the format in the high bits.
    raw: u32,
}

impl Interface {
    fn compact(cursor: &mut Cursor<'_>) -> Result<Interface, Short> {
        let raw = cursor.u32()?;
        Ok(Interface { format: raw >> interface_format::BITS, raw })
    }

    /// Index numbers keep all of their bits.
    fn expanded(cursor: &mut Cursor<'_>) -> Result<Interface, Short> {
        let (format, value) = (cursor.u32()?, cursor.u32()?);
        let raw = match format {
            interface_format::DISCARDED | interface_format::MULTIPLE => {
                value | format << interface_format::BITS
            }
            _ => value,
        };
        Ok(Interface { format, raw })
    }

    /// Why the packet was discarded.
    fn reason(self) -> Option<u32> {
        let value = self.raw & ((1 << interface_format::BITS) - 1);
        (self.format == interface_format::DISCARDED).then_some(value)
    }
}

fn compact_source(cursor: &mut Cursor<'_>) -> Result<Source, Short> {
    let id = cursor.u32()?;
    Ok(Source { class: id >> 24, index: id & 0x00ff_ffff })
}

fn expanded_source(cursor: &mut Cursor<'_>) -> Result<Source, Short> {
    Ok(Source { class: cursor.u32()?, index: cursor.u32()? })
}

impl Start {
    /// Bytes of the shortest, that of a compact counter sample.
    pub(super) const LEAST: usize = 12;

    /// What samples of the format give; `None` for formats not known.
    pub(super) fn kind(data_format: u32) -> Option<RecordKind> {
        match data_format {
            format::FLOW | format::EXPANDED_FLOW => Some(RecordKind::FlowSample),
            format::COUNTERS | format::EXPANDED_COUNTERS => Some(RecordKind::CounterSample),
            format::DISCARDED => Some(RecordKind::DropSample),
            _ => None,
        }
    }

    /// Reads the fields, and tells at which byte the records begin. `None`: the format is not known.
    pub(super) fn read(data_format: u32, mut cursor: Cursor<'_>) -> Result<Option<(Start, usize)>, Short> {
        let Some(kind) = Start::kind(data_format) else { return Ok(None) };
        let is_compact = matches!(data_format, format::FLOW | format::COUNTERS);
        let sequence = cursor.u32()?;
        let source = if is_compact { compact_source(&mut cursor)? } else { expanded_source(&mut cursor)? };
        let (rate, body) = match kind {
            RecordKind::CounterSample => (0, Body::Counters),
            RecordKind::DropSample => (0, Self::discarded(&mut cursor)?),
            _ => (cursor.u32()?, Self::flow(is_compact, &mut cursor)?),
        };
        let count = cursor.u32()?;
        Ok(Some((Start { kind, count, rate, sequence, source, body }, cursor.at())))
    }

    fn flow(is_compact: bool, cursor: &mut Cursor<'_>) -> Result<Body, Short> {
        let interface = if is_compact { Interface::compact } else { Interface::expanded };
        Ok(Body::Flow {
            pool: cursor.u32()?,
            drops: cursor.u32()?,
            input: interface(cursor)?,
            output: interface(cursor)?,
        })
    }

    fn discarded(cursor: &mut Cursor<'_>) -> Result<Body, Short> {
        Ok(Body::Drop {
            drops: cursor.u32()?,
            input: cursor.u32()?,
            output: cursor.u32()?,
            reason: cursor.u32()?,
        })
    }

    /// What the output is told of the sample.
    pub(super) fn told<'a>(&self, records: Records<'a>) -> Sample<'a> {
        let drops = match self.body {
            Body::Flow { drops, .. } | Body::Drop { drops, .. } => Some(drops),
            Body::Counters => None,
        };
        Sample { kind: self.kind, sequence: self.sequence, source: self.source, drops, records }
    }

    /// Puts the fields into the row, the agent before them.
    pub(super) fn put(&self, agent: &Address, row: &mut Row<'_>) {
        match *agent {
            Address::V4(address) => row.put(Part::AgentV4, address),
            Address::V6(address) => row.put(Part::AgentV6, address),
            Address::Unknown => {}
        }
        row.put_numbers(Part::Source, [self.sequence, self.source.class, self.source.index]);
        match self.body {
            Body::Flow { pool, drops, input, output } => {
                row.put_numbers(Part::Pool, [pool]);
                row.put_numbers(Part::Drops, [drops]);
                row.put_numbers(Part::Interfaces, [input.raw, output.raw]);
                for (part, interface) in [(Part::InputFormat, input), (Part::OutputFormat, output)] {
                    if interface.format != interface_format::INDEX {
                        row.put_numbers(part, [interface.format]);
                    }
                }
                if let Some(reason) = output.reason() {
                    row.put(Part::ForwardingStatus, [forwarding_status(reason)]);
                }
            }
            Body::Drop { drops, input, output, reason } => {
                row.put_numbers(Part::Drops, [drops]);
                row.put_numbers(Part::Interfaces, [input, output]);
                row.put_numbers(Part::Reason, [reason]);
                row.put(Part::ForwardingStatus, [forwarding_status(reason)]);
            }
            Body::Counters => {}
        }
    }
}
