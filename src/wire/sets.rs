//! What NetFlow v9 and IPFIX share: sets one after the other, and the records of a data set.
//!
//! ```text
//! 0 set id    2 length (header of 4 bytes included)    4 content ... padding
//! ```

use super::cursor::Cursor;
use super::template::{DomainKey, Template};
use super::{Decoder, Fault, Output};
use crate::flow::{Field, Layout, Run};

pub(super) const HEADER_BYTES: usize = 4;

/// Takes the next set: its id and content. `None` at the end of the datagram, be it padding or a fault.
///
/// Some exporters fill the datagram up with zeros after the last set (Palo Alto): a set of id 0 and length 0
/// is the end and no fault.
pub(super) fn next<'a>(cursor: &mut Cursor<'a>, output: &mut impl Output) -> Option<(u16, &'a [u8])> {
    let left = cursor.left();
    if left < HEADER_BYTES {
        if cursor.rest().iter().any(|byte| *byte != 0) {
            output.fault(Fault::SetLength, left);
        }
        return None;
    }
    let (Ok(id), Ok(length)) = (cursor.u16(), cursor.u16()) else { return None };
    if id == 0 && length == 0 {
        return None;
    }
    match usize::from(length).checked_sub(HEADER_BYTES).and_then(|bytes| cursor.take(bytes).ok()) {
        Some(content) => Some((id, content)),
        None => {
            output.fault(Fault::SetLength, left);
            None
        }
    }
}

/// Why a set was not read whole, and how many of its bytes were not understood.
pub(super) type Broken = (Fault, usize);

/// Tells the output how a set ended.
pub(super) fn end(result: Result<(), Broken>, output: &mut impl Output) {
    match result {
        Ok(()) => output.set(),
        Err((fault, bytes)) => output.fault(fault, bytes),
    }
}

/// Decodes a data set by the template that was heard for it.
pub(super) fn data(
    decoder: &mut Decoder,
    key: &DomainKey,
    id: u16,
    content: &[u8],
    run: &mut Run,
    output: &mut impl Output,
) -> Result<(), Broken> {
    run.template = id;
    let template = decoder.templates.get(key, id).ok_or((Fault::NoTemplate, content.len()))?;
    match template.layout().stride() {
        Some(stride) => {
            fixed(run, template, stride, content, output);
            Ok(())
        }
        None => variable(run, template, content, &mut decoder.ends, output),
    }
}

fn fixed(run: &Run, template: &Template, stride: usize, content: &[u8], output: &mut impl Output) {
    let count = content.len() / stride;
    if let (Some(rows), true) = (content.get(..count * stride), count > 0) {
        output.records(run, template, rows, &[], count as u32);
    }
}

fn variable(
    run: &Run,
    template: &Template,
    content: &[u8],
    ends: &mut Vec<u32>,
    output: &mut impl Output,
) -> Result<(), Broken> {
    ends.clear();
    let mut result = Ok(());
    let layout = template.layout();
    let mut cursor = Cursor::new(content);
    while cursor.left() >= layout.least() && !is_padding(cursor.rest()) {
        let before = cursor.left();
        if skip_record(layout, &mut cursor).is_none() {
            result = Err((Fault::RecordLength, before));
            break;
        }
        ends.push((content.len() - cursor.left()) as u32);
    }
    let taken = ends.last().map_or(0, |end| *end as usize);
    if let (Some(rows), true) = (content.get(..taken), taken > 0) {
        output.records(run, template, rows, ends, ends.len() as u32);
    }
    result
}

/// Up to three zeros at the end align a set to four bytes (RFC 7011 3.3.1).
fn is_padding(rest: &[u8]) -> bool {
    rest.len() < 4 && rest.iter().all(|byte| *byte == 0)
}

fn skip_record(layout: &Layout, cursor: &mut Cursor<'_>) -> Option<()> {
    for placed in layout.fields() {
        let width = match placed.field.width {
            Field::VARIABLE => variable_length(cursor)?,
            width => usize::from(width),
        };
        cursor.take(width).ok()?;
    }
    Some(())
}

/// The length in front of a field of variable length (RFC 7011 7): one byte, or 255 and two bytes.
fn variable_length(cursor: &mut Cursor<'_>) -> Option<usize> {
    match cursor.u8().ok()? {
        255 => cursor.u16().ok().map(usize::from),
        short => Some(usize::from(short)),
    }
}
