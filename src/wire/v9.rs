//! NetFlow v9 (RFC 3954).
//!
//! ```text
//! header, 20 bytes             0 version = 9   2 count   4 sysUptime (ms)   8 unix seconds
//!                             12 sequence (counts datagrams)   16 source id
//! template set, id 0           0 template id   2 field count   { type, length } each 2 + 2
//! options template set, id 1   0 template id   2 scope length  4 option length (bytes)  { type, length } ...
//! data set, id = template id   records, padding
//! ```
//!
//! The header's count is of records for some exporters and of sets for others: it bounds nothing here.

use super::cursor::{Cursor, Short};
use super::domain::DomainKey;
use super::sets::{self, Broken, Ending};
use super::template::compile;
use super::track::Notes;
use super::{Arrival, Decoder, Fault, Output, Place};
use crate::flow::{Field, Run};
use crate::proto::{BootQuality, Protocol, RecordKind};

const TEMPLATE_SET: u16 = 0;
const OPTIONS_TEMPLATE_SET: u16 = 1;
const FIRST_DATA_SET: u16 = 256;
const FIELD_BYTES: usize = 4;

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let mut run = header(arrival, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    output.header(&run);
    let header = run;
    decoder.notes = Notes::default();
    let key = DomainKey { exporter: run.exporter, protocol: run.protocol, domain: run.domain };
    while let Some(set) = sets::next(&mut cursor, output) {
        let result = match set.id {
            TEMPLATE_SET => templates(decoder, key, set.cursor(), output),
            OPTIONS_TEMPLATE_SET => options_templates(decoder, key, set.cursor(), output),
            FIRST_DATA_SET.. => sets::data(decoder, &key, arrival, &set, &mut run, output),
            _ => Err((Fault::ReservedSet, set.place())),
        };
        sets::end(&result, set.place(), output);
    }
    decoder.domains.settle();
    let start = decoder.tracks.datagram(arrival, &header, &decoder.notes, output);
    decoder.started(start, &header, output);
    Ok(())
}

fn header(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<Run, Short> {
    let _count = cursor.u16()?;
    let uptime = cursor.u32()?;
    let export_time = u64::from(cursor.u32()?) * 1000;
    let sequence = cursor.u32()?;
    let domain = cursor.u32()?;
    Ok(Run {
        domain,
        sequence,
        export_time,
        uptime,
        boot_time: export_time.saturating_sub(u64::from(uptime)),
        boot_quality: BootQuality::Header,
        ..arrival.run(Protocol::NetflowV9)
    })
}

/// The templates of a set. Less than a template's header left is padding.
fn templates(
    decoder: &mut Decoder,
    key: DomainKey,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<Ending, Broken> {
    let mut result = Ok(Ending::Read(0));
    while cursor.left() >= FIELD_BYTES {
        let place = Place { offset: cursor.at(), bytes: cursor.left() };
        let (Ok(id), Ok(count)) = (cursor.u16(), cursor.u16()) else { break };
        if id == 0 && cursor.rest().iter().all(|byte| *byte == 0) {
            break; // padding of four bytes and more (Ixia)
        }
        match fields(&mut cursor, usize::from(count)) {
            Ok(fields) => {
                let place = Place { bytes: cursor.at() - place.offset, ..place };
                result = result.and(keep(decoder, key, id, (RecordKind::Data, 0), &fields, place, output));
            }
            Err(Short) => return result.and(Err((Fault::ShortTemplate, place))),
        }
    }
    result
}

fn options_templates(
    decoder: &mut Decoder,
    key: DomainKey,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<Ending, Broken> {
    let mut result = Ok(Ending::Read(0));
    while cursor.left() >= 6 {
        let place = Place { offset: cursor.at(), bytes: cursor.left() };
        let (Ok(id), Ok(scope), Ok(option)) = (cursor.u16(), cursor.u16(), cursor.u16()) else { break };
        if id == 0 && cursor.rest().iter().all(|byte| *byte == 0) {
            break;
        }
        let scope = usize::from(scope) / FIELD_BYTES;
        let count = scope + usize::from(option) / FIELD_BYTES;
        match fields(&mut cursor, count) {
            // RFC 3954 6.1 has at least one scope; some exporters send none, and their records are whole.
            Ok(fields) => {
                let place = Place { bytes: cursor.at() - place.offset, ..place };
                result =
                    result.and(keep(decoder, key, id, (RecordKind::Options, scope), &fields, place, output));
            }
            Err(Short) => return result.and(Err((Fault::ShortTemplate, place))),
        }
    }
    result
}

fn fields(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Field>, Short> {
    let mut bytes = Cursor::new(cursor.take(count * FIELD_BYTES)?);
    (0..count).map(|_| Ok(Field { enterprise: 0, element: bytes.u16()?, width: bytes.u16()? })).collect()
}

/// Keeps a template of this kind and number of scope fields, which lies at `place`.
fn keep(
    decoder: &mut Decoder,
    key: DomainKey,
    id: u16,
    (kind, scope): (RecordKind, usize),
    fields: &[Field],
    place: Place,
    output: &mut impl Output,
) -> Result<Ending, Broken> {
    if id < FIRST_DATA_SET {
        return Err((Fault::TemplateId, place));
    }
    let kept =
        compile(kind, scope, true, fields).and_then(|layout| sets::keep(decoder, key, id, layout, output));
    kept.map(|()| Ending::Read(0)).map_err(|fault| {
        // What is no longer so does not serve on.
        decoder.domains.withdraw(&key, id);
        (fault, place)
    })
}
