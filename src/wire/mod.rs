//! Export protocols: datagrams in, rows of records out.
//!
//! Pure: bytes and time in, values out; no socket, clock, log or metric. One file a protocol:
//!
//! | file | what | source |
//! |---|---|---|
//! | `cursor.rs` | the one checked reader of wire bytes | |
//! | `template.rs` | what templates compile to, and the bounded table of those heard | RFC 3954 5.2, RFC 7011 8 |
//! | `v5.rs` | NetFlow v5 | Cisco, "NetFlow Export Datagram Format" |
//! | `v9.rs` | NetFlow v9 | RFC 3954 |
//! | `ipfix.rs` | IPFIX | RFC 7011 |
//! | `sets.rs` | what v9 and IPFIX share: walking data sets | |
//!
//! A datagram that cannot be read at all is a [`Fault`] returned; a set that cannot is one reported to the
//! [`Output`], and the next set goes on. Nothing here copies a record: rows go to the output as slices.

mod cursor;
mod fault;
mod ipfix;
mod sets;
mod template;
mod v5;
mod v9;

pub use fault::Fault;
pub use template::{Limits, TEMPLATE_COST, Template, Templates};

use crate::flow::{Exporter, Run};
use cursor::Cursor;

/// What a decoder tells of a datagram.
pub trait Output {
    /// `count` records of one template lie back to back in `rows`, all of them of `run`.
    ///
    /// `ends` is empty when the layout has a stride; else it has the end of each record in `rows`.
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32);

    /// A set was not read whole, for the reason given first in it: `bytes` of it were not understood. What could be
    /// read of it was, and the next set goes on.
    fn fault(&mut self, fault: Fault, bytes: usize);

    /// A template or options template was heard; `new` when it is not what was known by its id.
    fn template(&mut self, new: bool);

    /// `count` templates were withdrawn by the exporter; `obeyed` says whether they are forgotten.
    fn withdrawn(&mut self, count: usize, obeyed: bool);

    /// A set was read whole. Each set of a datagram ends in this or in a fault, never in both; v5's records are one
    /// set.
    fn set(&mut self);
}

/// What is set for a decoder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Forget a template when its exporter withdraws it. Over UDP a withdrawal is easily forged or late, and
    /// RFC 7011 8.4 has none there: the default is to report it only.
    pub obey_withdrawals: bool,
    /// Caps of the template table.
    pub limits: Limits,
}

/// Reads datagrams of every protocol known, with the state that their exporters build up.
#[derive(Debug)]
pub struct Decoder {
    settings: Settings,
    templates: Templates,
    v5: Template,
    ends: Vec<u32>,
}

impl Decoder {
    /// A decoder that has heard nothing yet.
    pub fn new(settings: Settings) -> Decoder {
        Decoder { settings, templates: Templates::new(settings.limits), v5: v5::template(), ends: Vec::new() }
    }

    /// Reads one datagram of `exporter`, received at `received` (milliseconds since 1970).
    ///
    /// # Errors
    /// When the header cannot be read, nothing of the datagram was given to `output`.
    pub fn datagram(
        &mut self,
        exporter: Exporter,
        received: u64,
        bytes: &[u8],
        output: &mut impl Output,
    ) -> Result<(), Fault> {
        let mut cursor = Cursor::new(bytes);
        match cursor.u16().map_err(|_| Fault::ShortHeader)? {
            5 => v5::datagram(&self.v5, exporter, received, cursor, output),
            9 => v9::datagram(self, exporter, received, cursor, output),
            10 => ipfix::datagram(self, exporter, received, cursor, output),
            _ => Err(Fault::UnknownVersion),
        }
    }

    /// Templates and exporters heard, for status.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }
}

#[cfg(test)]
mod tests;
