//! What NetFlow v1, v5 and v7 share: times in the header, and records of one layout behind it.
//!
//! A count that promises more records than there are bytes is a fault; the records that are there are taken.

use super::cursor::{Cursor, Short};
use super::template::Template;
use super::track::{DataNotes, Notes, Tracks};
use super::{Arrival, Fault, Output, Place};
use crate::flow::{Field, Layout, Placed, Run};
use crate::proto::{BootQuality, Protocol, RecordKind};

/// (information element, offset, width) of a record's fields, in wire order.
pub(super) type Row = (u16, usize, u16);

/// The layout of records of so many bytes.
pub(super) fn template(fields: &[Row], record_bytes: usize) -> Template {
    let placed = |&(element, offset, width): &Row| {
        let field = Field { enterprise: 0, element, width };
        Placed { field, offset }
    };
    Template::new(Layout::fixed(RecordKind::Data, fields.iter().map(placed).collect(), record_bytes))
}

/// Reads what the headers have behind the version: count, uptime, seconds and nanoseconds. Gives the count.
pub(super) fn times(
    protocol: Protocol,
    arrival: &Arrival,
    cursor: &mut Cursor<'_>,
) -> Result<(usize, Run), Short> {
    let count = cursor.u16()?;
    let uptime = cursor.u32()?;
    let seconds = cursor.u32()?;
    let nanoseconds = cursor.u32()?;
    let export_time = u64::from(seconds) * 1000 + u64::from(nanoseconds / 1_000_000);
    let run = Run {
        export_time,
        uptime,
        boot_time: export_time.saturating_sub(u64::from(uptime)),
        boot_quality: BootQuality::Header,
        ..arrival.run(protocol)
    };
    Ok((usize::from(count), run))
}

/// Reads the records, and takes note of the sender.
pub(super) fn records(
    template: &Template,
    tracks: &mut Tracks,
    arrival: &Arrival,
    run: &Run,
    count: usize,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) {
    output.header(run);
    let record_bytes = template.layout().least();
    let is_whole = cursor.left() == count * record_bytes;
    let taken = count.min(cursor.left() / record_bytes);
    if let (Ok(rows), true) = (cursor.take(taken * record_bytes), taken > 0) {
        output.records(run, template, rows, &[], taken as u32);
    }
    if is_whole {
        output.set();
    } else {
        output.fault(Fault::Count, Place { offset: cursor.at(), bytes: cursor.left() });
    }
    let data = Some(DataNotes::new(run, false, false));
    tracks.datagram(arrival, run, &Notes { records: taken as u32, is_part: taken < count, data }, output);
}
