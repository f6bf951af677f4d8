//! NetFlow v1 (Cisco, "NetFlow Export Datagram Format", version 1).
//!
//! ```text
//! header, 16 bytes                                record, 48 bytes
//!  0 version = 1        2 count                    0 srcaddr   4 dstaddr   8 nexthop
//!  4 sysUptime (ms)                               12 input    14 output
//!  8 unix_secs         12 unix_nsecs              16 dPkts    20 dOctets
//!                                                 24 First    28 Last
//!                                                 32 srcport  34 dstport   36 pad
//!                                                 38 prot     39 tos       40 flags   41 pad
//! ```
//!
//! Cisco's table of the record ends after 52 bytes, exporters send 48: datagrams that 52 fit exactly are read so.

use super::cursor::{Cursor, Short};
use super::fixed;
use super::template::Template;
use super::{Arrival, Decoder, Fault, Output};
use crate::proto::Protocol;

const RECORD_BYTES: usize = 48;
const LONG_RECORD_BYTES: usize = 52;

/// The record's fields.
const FIELDS: [fixed::Row; 14] = [
    (8, 0, 4),
    (12, 4, 4),
    (15, 8, 4),
    (10, 12, 2),
    (14, 14, 2),
    (2, 16, 4),
    (1, 20, 4),
    (22, 24, 4),
    (21, 28, 4),
    (7, 32, 2),
    (11, 34, 2),
    (4, 38, 1),
    (5, 39, 1),
    (6, 40, 1),
];

/// The layouts that v1 records have.
#[derive(Debug)]
pub(super) struct Layouts {
    usual: Template,
    long: Template,
}

impl Default for Layouts {
    fn default() -> Layouts {
        Layouts {
            usual: fixed::template(&FIELDS, RECORD_BYTES),
            long: fixed::template(&FIELDS, LONG_RECORD_BYTES),
        }
    }
}

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let header = fixed::times(Protocol::NetflowV1, arrival, &mut cursor);
    let (count, mut run) = header.map_err(|Short| Fault::ShortHeader)?;
    decoder.domains.rate_set(&mut run);
    let Layouts { usual, long } = &decoder.fixed.v1;
    let is_long = count > 0 && cursor.left() == count * LONG_RECORD_BYTES;
    let template = if is_long { long } else { usual };
    fixed::records(template, &mut decoder.tracks, arrival, &run, count, cursor, output);
    Ok(())
}
