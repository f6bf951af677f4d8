//! IPFIX (RFC 7011).
//!
//! ```text
//! header, 16 bytes             0 version = 10   2 length (of the message)   4 export time (s)
//!                              8 sequence (counts data records)   12 observation domain
//! template set, id 2           0 template id    2 field count    fields
//! options template set, id 3   0 template id    2 field count    4 scope field count    fields
//! ... with no fields           0 template id    2 field count = 0    withdraws; some write 4 scope field count = 0 too
//! field                        0 element, high bit: enterprise   2 length   4 enterprise number if so
//! data set, id = template id   records, padding
//! ```
//!
//! | if | then |
//! |---|---|
//! | a message says that it is longer than its datagram | the sets that are there are read, and a fault says that it is cut |
//! | another message lies behind it | it is read too |
//! | something else that is not zeros does | a fault |

use super::cursor::{Cursor, Short};
use super::domain::DomainKey;
use super::sets::{self, Broken, Ending};
use super::template::{MAX_FIELDS, compile};
use super::track::Notes;
use super::{Arrival, Decoder, Fault, Output, Place, Withdrawal};
use crate::flow::{Field, Run};
use crate::proto::{Protocol, RecordKind};

const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;
const FIRST_DATA_SET: u16 = 256;
const HEADER_BYTES: usize = 16;
const VERSION: u16 = 10;
const VERSION_BYTES: usize = 2;
const ENTERPRISE_BIT: u16 = 0x8000;

/// The length of the message that `bytes` begin with, as its header tells it; `None` while that is not there. What
/// comes in a stream is cut by it (RFC 7011 10.4.3).
///
/// # Errors
/// When no IPFIX message begins so: [`Fault::UnknownVersion`], [`Fault::MessageLength`].
pub fn message_length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let mut cursor = Cursor::new(bytes);
    match cursor.u16() {
        Ok(VERSION) => {}
        Ok(_) => return Err(Fault::UnknownVersion),
        Err(Short) => return Ok(None),
    }
    match cursor.u16().map(usize::from) {
        Ok(length @ HEADER_BYTES..) => Ok(Some(length)),
        Ok(_) => Err(Fault::MessageLength),
        Err(Short) => Ok(None),
    }
}

/// Reads a datagram whose version has been read: a message, and what some exporters send behind it, others.
pub(super) fn datagram(
    decoder: &mut Decoder,
    arrival: &Arrival,
    cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let mut behind = message(decoder, arrival, cursor, output)?;
    while behind.rest().iter().any(|byte| *byte != 0) {
        let place = Place { offset: behind.at(), bytes: behind.left() };
        let is_message = matches!(message_length(behind.rest()), Ok(Some(length)) if length <= behind.left());
        let read = is_message && behind.u16().is_ok();
        match read.then(|| message(decoder, arrival, behind, output)) {
            Some(Ok(rest)) => behind = rest,
            _ => {
                output.begun();
                output.fault(Fault::TrailingBytes, place);
                break;
            }
        }
    }
    Ok(())
}

/// Reads a message whose version has been read; gives what lies behind it, nothing where its end is not known.
fn message<'a>(
    decoder: &mut Decoder,
    arrival: &Arrival,
    mut cursor: Cursor<'a>,
    output: &mut impl Output,
) -> Result<Cursor<'a>, Fault> {
    let whole = cursor.left() + VERSION_BYTES;
    let (length, mut run) = header(arrival, &mut cursor).map_err(|Short| Fault::ShortHeader)?;
    let content = length.checked_sub(HEADER_BYTES).ok_or(Fault::MessageLength)?;
    output.header(&run);
    // Some exporters count their last set too short by its padding: a set may reach past the message's length as
    // long as the datagram holds it.
    let header = run;
    decoder.notes = Notes::default();
    let after = cursor.left().saturating_sub(content);
    let key = DomainKey { exporter: run.exporter, protocol: run.protocol, domain: run.domain };
    let mut is_broken = length > whole;
    while cursor.left() >= after + sets::HEADER_BYTES {
        let rest = cursor.rest();
        let Some(set) = sets::next(&mut cursor, output) else {
            // A set that could not be told from the next hides how many records there were.
            let is_fault = rest.iter().any(|byte| *byte != 0);
            decoder.notes.is_part |= is_fault;
            is_broken |= is_fault;
            break;
        };
        let result = match set.id {
            TEMPLATE_SET | OPTIONS_TEMPLATE_SET => {
                templates(decoder, key, set.id == OPTIONS_TEMPLATE_SET, set.cursor(), output)
            }
            FIRST_DATA_SET.. => sets::data(decoder, &key, arrival, &set, &mut run, output),
            _ => Err((Fault::ReservedSet, set.place())),
        };
        decoder.notes.is_part |= set.id >= FIRST_DATA_SET && !matches!(result, Ok(Ending::Read(_)));
        sets::end(&result, set.place(), output);
    }
    if length > whole {
        decoder.notes.is_part = true;
        output.begun();
        output.fault(Fault::CutMessage, Place { offset: whole, bytes: 0 });
    }
    decoder.domains.settle();
    let start = decoder.tracks.datagram(arrival, &header, &decoder.notes, output);
    decoder.started(start, &header, output);
    // A set that is no part of the whole leaves nothing behind of which the start is known.
    let behind = if is_broken { 0 } else { after.min(cursor.left()) };
    let _passed = cursor.take(cursor.left() - behind);
    Ok(if is_broken { Cursor::within(&[], cursor.at()) } else { cursor })
}

fn header(arrival: &Arrival, cursor: &mut Cursor<'_>) -> Result<(usize, Run), Short> {
    let length = cursor.u16()?;
    let export_time = u64::from(cursor.u32()?) * 1000;
    let sequence = cursor.u32()?;
    let domain = cursor.u32()?;
    let run = Run { domain, sequence, export_time, ..arrival.run(Protocol::Ipfix) };
    Ok((usize::from(length), run))
}

fn templates(
    decoder: &mut Decoder,
    key: DomainKey,
    options: bool,
    mut cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Result<Ending, Broken> {
    let mut result = Ok(Ending::Read(0));
    while cursor.left() >= 4 {
        let place = Place { offset: cursor.at(), bytes: cursor.left() };
        let (Ok(id), Ok(count)) = (cursor.u16(), cursor.u16()) else { break };
        if id == 0 && cursor.rest().iter().all(|byte| *byte == 0) {
            break; // padding
        }
        if count == 0 {
            if options {
                skip_scope_count(&mut cursor);
            }
            withdraw(decoder, &key, options, id, output);
            continue;
        }
        match template(decoder, key, options, (id, usize::from(count)), &mut cursor, output) {
            Ok(kept) => result = result.and(kept),
            Err(Short) => return result.and(Err((Fault::ShortTemplate, place))),
        }
    }
    result
}

/// One template whose id and field count have been read; [`Short`] when the set ends before it does.
fn template(
    decoder: &mut Decoder,
    key: DomainKey,
    options: bool,
    (id, count): (u16, usize),
    cursor: &mut Cursor<'_>,
    output: &mut impl Output,
) -> Result<Result<Ending, Broken>, Short> {
    let offset = cursor.at() - 4;
    let scope = if options { usize::from(cursor.u16()?) } else { 0 };
    let mut fields = Vec::with_capacity(count.min(MAX_FIELDS));
    for _ in 0..count {
        fields.push(field(cursor)?);
    }
    let place = Place { offset, bytes: cursor.at() - offset };
    if id < FIRST_DATA_SET {
        return Ok(Err((Fault::TemplateId, place)));
    }
    if options && (scope == 0 || scope > count) {
        return Ok(Err((Fault::Scope, place)));
    }
    let kind = if options { RecordKind::Options } else { RecordKind::Data };
    let kept =
        compile(kind, scope, false, &fields).and_then(|layout| sets::keep(decoder, key, id, layout, output));
    Ok(kept.map(|()| Ending::Read(0)).map_err(|fault| {
        // What is no longer so does not serve on.
        decoder.domains.withdraw(&key, id);
        (fault, place)
    }))
}

fn field(cursor: &mut Cursor<'_>) -> Result<Field, Short> {
    let element = cursor.u16()?;
    let width = cursor.u16()?;
    let enterprise = if element & ENTERPRISE_BIT == 0 { 0 } else { cursor.u32()? };
    Ok(Field { enterprise, element: element & !ENTERPRISE_BIT, width })
}

/// Goes past the count of scopes that some exporters write in a withdrawal too: no template has the id 0.
fn skip_scope_count(cursor: &mut Cursor<'_>) {
    let mut behind = *cursor;
    if behind.u16() == Ok(0) {
        *cursor = behind;
    }
}

/// A template of no fields withdraws (RFC 7011 8.1): that id, or with the set's own id all of its kind.
fn withdraw(decoder: &mut Decoder, key: &DomainKey, options: bool, id: u16, output: &mut impl Output) {
    let obeyed = decoder.settings.obey_withdrawals;
    let count = match id {
        TEMPLATE_SET | OPTIONS_TEMPLATE_SET if obeyed => decoder.domains.withdraw_all(key, options),
        _ => {
            if obeyed {
                decoder.domains.withdraw(key, id);
            }
            1
        }
    };
    output.withdrawn(&Withdrawal { id, options, count: count.max(1), obeyed });
}
