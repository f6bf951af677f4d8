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
use super::sets::{self, Broken};
use super::template::{DomainKey, compile};
use super::{Decoder, Fault, Output};
use crate::flow::{Exporter, Field, Run};
use crate::proto::{BootQuality, Protocol, RecordKind, SamplingSource};

const TEMPLATE_SET: u16 = 0;
const OPTIONS_TEMPLATE_SET: u16 = 1;
const FIRST_DATA_SET: u16 = 256;
const FIELD_BYTES: usize = 4;

/// Reads a datagram whose version has been read.
pub(super) fn datagram(
    decoder: &mut Decoder,
    exporter: Exporter,
    received: u64,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let mut run = header(exporter, received, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    let key = DomainKey { exporter, protocol: run.protocol, domain: run.domain };
    while let Some((id, content)) = sets::next(&mut cursor, output) {
        let result = match id {
            TEMPLATE_SET => templates(decoder, key, content, output),
            OPTIONS_TEMPLATE_SET => options_templates(decoder, key, content, output),
            FIRST_DATA_SET.. => sets::data(decoder, &key, id, content, &mut run, output),
            _ => Err((Fault::ReservedSet, content.len())),
        };
        sets::end(result, output);
    }
    Ok(())
}

fn header(exporter: Exporter, received: u64, cursor: &mut Cursor<'_>) -> Result<Run, Short> {
    let _count = cursor.u16()?;
    let uptime = cursor.u32()?;
    let export_time = u64::from(cursor.u32()?) * 1000;
    let sequence = cursor.u32()?;
    let domain = cursor.u32()?;
    Ok(Run {
        exporter,
        protocol: Protocol::NetflowV9,
        domain,
        template: 0,
        sequence,
        export_time,
        uptime,
        received,
        boot_time: export_time.saturating_sub(u64::from(uptime)),
        boot_quality: BootQuality::Header,
        sampling_rate: 0,
        sampling_source: SamplingSource::Unknown,
    })
}

/// The templates of a set. Less than a template's header left is padding.
fn templates(
    decoder: &mut Decoder,
    key: DomainKey,
    content: &[u8],
    output: &mut impl Output,
) -> Result<(), Broken> {
    let mut cursor = Cursor::new(content);
    let mut result = Ok(());
    while cursor.left() >= FIELD_BYTES {
        let left = cursor.left();
        let (Ok(id), Ok(count)) = (cursor.u16(), cursor.u16()) else { break };
        if id == 0 && cursor.rest().iter().all(|byte| *byte == 0) {
            break; // padding of four bytes and more (Ixia)
        }
        match fields(&mut cursor, usize::from(count)) {
            Ok(fields) => result = result.and(keep(decoder, key, id, RecordKind::Data, 0, &fields, output)),
            Err(Short) => return result.and(Err((Fault::ShortTemplate, left))),
        }
    }
    result
}

fn options_templates(
    decoder: &mut Decoder,
    key: DomainKey,
    content: &[u8],
    output: &mut impl Output,
) -> Result<(), Broken> {
    let mut cursor = Cursor::new(content);
    let mut result = Ok(());
    while cursor.left() >= 6 {
        let left = cursor.left();
        let (Ok(id), Ok(scope), Ok(option)) = (cursor.u16(), cursor.u16(), cursor.u16()) else { break };
        if id == 0 && cursor.rest().iter().all(|byte| *byte == 0) {
            break;
        }
        let scope = usize::from(scope) / FIELD_BYTES;
        let count = scope + usize::from(option) / FIELD_BYTES;
        match fields(&mut cursor, count) {
            // RFC 3954 6.1 has at least one scope; some exporters send none, and their records are whole.
            Ok(fields) => {
                result = result.and(keep(decoder, key, id, RecordKind::Options, scope, &fields, output));
            }
            Err(Short) => return result.and(Err((Fault::ShortTemplate, left))),
        }
    }
    result
}

fn fields(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Field>, Short> {
    let mut bytes = Cursor::new(cursor.take(count * FIELD_BYTES)?);
    (0..count).map(|_| Ok(Field { enterprise: 0, element: bytes.u16()?, width: bytes.u16()? })).collect()
}

fn keep(
    decoder: &mut Decoder,
    key: DomainKey,
    id: u16,
    kind: RecordKind,
    scope: usize,
    fields: &[Field],
    output: &mut impl Output,
) -> Result<(), Broken> {
    let bytes = fields.len() * FIELD_BYTES;
    if id < FIRST_DATA_SET {
        return Err((Fault::TemplateId, bytes));
    }
    let layout = compile(kind, scope, true, fields).map_err(|fault| (fault, bytes))?;
    output.template(decoder.templates.insert(key, id, layout));
    Ok(())
}
