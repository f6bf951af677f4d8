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
//!
//! A count that promises more records than there are bytes is a fault; the records that are there are taken.

use super::cursor::{Cursor, Short};
use super::template::Template;
use super::track::{DataNotes, Notes};
use super::{Arrival, Decoder, Fault, Output, Place};
use crate::flow::{Field, Layout, Placed, Run};
use crate::proto::{BootQuality, Protocol, RecordKind, SamplingSource};

const RECORD_BYTES: usize = 48;

/// (information element, offset, width) of the record's fields, in wire order.
const FIELDS: [(u16, usize, u16); 18] = [
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
    let fields = FIELDS
        .iter()
        .map(|&(element, offset, width)| Placed { field: Field { enterprise: 0, element, width }, offset });
    Template::new(Layout::fixed(RecordKind::Data, fields.collect(), RECORD_BYTES))
}

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let (count, run) = header(arrival, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    output.header(&run);
    let fit = cursor.left() / RECORD_BYTES;
    let whole = cursor.left() == count * RECORD_BYTES;
    let taken = fit.min(count);
    if let (Ok(rows), true) = (cursor.take(taken * RECORD_BYTES), taken > 0) {
        output.records(&run, &decoder.v5, rows, &[], taken as u32);
    }
    if whole {
        output.set();
    } else {
        output.fault(Fault::Count, Place { offset: cursor.at(), bytes: cursor.left() });
    }
    let data = Some(DataNotes::new(&run, false, false));
    let notes = Notes { records: taken as u32, is_part: taken < count, data };
    decoder.tracks.datagram(arrival, &run, &notes, output);
    Ok(())
}

fn header(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<(usize, Run), Short> {
    let count = cursor.u16()?;
    let uptime = cursor.u32()?;
    let seconds = cursor.u32()?;
    let nanoseconds = cursor.u32()?;
    let sequence = cursor.u32()?;
    let engine = cursor.u16()?;
    // The two high bits are the sampling mode.
    let interval = u32::from(cursor.u16()? & 0x3fff);
    let export_time = u64::from(seconds) * 1000 + u64::from(nanoseconds / 1_000_000);
    let run = Run {
        domain: u32::from(engine),
        sequence,
        export_time,
        uptime,
        boot_time: export_time.saturating_sub(u64::from(uptime)),
        boot_quality: BootQuality::Header,
        sampling_rate: interval,
        sampling_source: if interval > 0 { SamplingSource::Header } else { SamplingSource::Unknown },
        ..arrival.run(Protocol::NetflowV5)
    };
    Ok((usize::from(count), run))
}
