//! NetFlow v5 (Cisco, "NetFlow Export Datagram Format", version 5).
//!
//! ```text
//! header, 24 bytes                                record, 48 bytes, up to 30 of them
//!  0 version = 5        2 count                    0 srcaddr   4 dstaddr   8 nexthop
//!  4 sysUptime (ms)                               12 input    14 output
//!  8 unix_secs         12 unix_nsecs              16 dPkts    20 dOctets
//! 16 flow_sequence (counts flows)                 24 First    28 Last
//! 20 engine_type       21 engine_id               32 srcport  34 dstport
//! 22 sampling: 2 bits mode, 14 bits interval      36 pad  37 tcp_flags  38 prot  39 tos
//!                                                 40 src_as   42 dst_as
//!                                                 44 src_mask 45 dst_mask  46 pad
//! ```

use super::cursor::{Cursor, Short};
use super::fixed;
use super::template::Template;
use super::{Arrival, Decoder, Fault, Output};
use crate::flow::Run;
use crate::proto::{Protocol, SamplingSource};

const RECORD_BYTES: usize = 48;

/// The record's fields. Those of v7 lie alike.
pub(super) const FIELDS: [fixed::Row; 18] = [
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
    (6, 37, 1),
    (4, 38, 1),
    (5, 39, 1),
    (16, 40, 2),
    (17, 42, 2),
    (9, 44, 1),
    (13, 45, 1),
];

/// The layout that every v5 record has.
pub(super) fn template() -> Template {
    fixed::template(&FIELDS, RECORD_BYTES)
}

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let (count, mut run) = header(arrival, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    decoder.domains.rate_set(&mut run);
    fixed::records(&decoder.fixed.v5, &mut decoder.tracks, arrival, &run, count, cursor, output);
    Ok(())
}

fn header(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<(usize, Run), Short> {
    let (count, run) = fixed::times(Protocol::NetflowV5, arrival, cursor)?;
    let sequence = cursor.u32()?;
    let engine = cursor.u16()?;
    // The two high bits are the sampling mode.
    let interval = u32::from(cursor.u16()? & 0x3fff);
    let run = Run {
        domain: u32::from(engine),
        sequence,
        sampling_rate: interval,
        sampling_source: if interval > 0 { SamplingSource::Header } else { SamplingSource::Unknown },
        ..run
    };
    Ok((count, run))
}
