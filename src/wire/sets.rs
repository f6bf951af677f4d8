//! What NetFlow v9 and IPFIX share: sets one after the other, the records of a data set, and what becomes of sets
//! whose template was not known.
//!
//! ```text
//! 0 set id    2 length (header of 4 bytes included)    4 content ... padding
//! ```

use super::cursor::Cursor;
use super::domain::{Change, DomainKey, Known};
use super::hold::{Awaited, Held, Overdue};
use super::sampling::ByRecord;
use super::template::Template;
use super::track::DataNotes;
use super::{Arrival, Decoder, Fault, Heard, Output, Place, lists};
use crate::flow::list::Named;
use crate::flow::{Field, Layout, Run};
use crate::proto::{RecordKind, TemplateSource};
use std::iter;
use std::sync::Arc;

pub(super) const HEADER_BYTES: usize = 4;

/// How long data waits before a template of another port is tried, in milliseconds.
const PATIENCE: u64 = 5_000;

/// A set without its header.
pub(super) struct Set<'a> {
    pub(super) id: u16,
    pub(super) content: &'a [u8],
    /// Where the content lies in the datagram.
    pub(super) at: usize,
}

impl<'a> Set<'a> {
    pub(super) fn cursor(&self) -> Cursor<'a> {
        Cursor::within(self.content, self.at)
    }

    /// All of it.
    pub(super) fn place(&self) -> Place {
        Place { offset: self.at, bytes: self.content.len() }
    }
}

/// Takes the next set. `None` at the end of the datagram, be it padding or a fault.
///
/// Some exporters fill the datagram up with zeros after the last set (Palo Alto): a set of id 0 and length 0
/// is the end and no fault.
pub(super) fn next<'a>(cursor: &mut Cursor<'a>, output: &mut impl Output) -> Option<Set<'a>> {
    skip_uncounted_padding(cursor);
    let place = Place { offset: cursor.at(), bytes: cursor.left() };
    if cursor.left() < HEADER_BYTES {
        if cursor.rest().iter().any(|byte| *byte != 0) {
            output.begun();
            output.fault(Fault::SetLength, place);
        }
        return None;
    }
    let (Ok(id), Ok(length)) = (cursor.u16(), cursor.u16()) else { return None };
    if id == 0 && length == 0 {
        return None;
    }
    output.begun();
    let at = cursor.at();
    match usize::from(length).checked_sub(HEADER_BYTES).and_then(|bytes| cursor.take(bytes).ok()) {
        Some(content) => Some(Set { id, content, at }),
        None => {
            output.fault(Fault::SetLength, place);
            None
        }
    }
}

/// Goes past zeros up to the next four bytes when no set can begin here and one can there: some exporters align sets
/// and do not count what that takes (Mikrotik).
fn skip_uncounted_padding(cursor: &mut Cursor<'_>) {
    let mut aligned = *cursor;
    let Ok(padding) = aligned.take(cursor.at().next_multiple_of(4) - cursor.at()) else { return };
    let is_padding = !padding.is_empty() && padding.iter().all(|byte| *byte == 0);
    if is_padding && !can_begin(*cursor) && can_begin(aligned) {
        *cursor = aligned;
    }
}

/// A set may begin here, by its length.
fn can_begin(mut cursor: Cursor<'_>) -> bool {
    let left = cursor.left();
    match (cursor.u16(), cursor.u16()) {
        (Ok(_), Ok(length)) => (HEADER_BYTES..=left).contains(&usize::from(length)),
        _ => false,
    }
}

/// Why a set was not read whole, and which bytes were not understood.
pub(super) type Broken = (Fault, Place);

/// What a set came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// So many data records were read; 0 for templates.
    Read(u32),
    /// It waits for its template.
    Held,
}

/// Tells the output how a set ended.
pub(super) fn end(result: &Result<Ending, Broken>, place: Place, output: &mut impl Output) {
    match result {
        Ok(Ending::Read(_)) => output.set(),
        Ok(Ending::Held) => output.held(place),
        Err((fault, place)) => output.fault(*fault, *place),
    }
}

/// Decodes a data set by the template that is known for it, or holds it.
pub(super) fn data(
    decoder: &mut Decoder,
    key: &DomainKey,
    arrival: &Arrival,
    set: &Set<'_>,
    run: &mut Run,
    output: &mut impl Output,
) -> Result<Ending, Broken> {
    run.template = set.id;
    if let Some(result) = read_known(decoder, key, run, set.cursor(), output) {
        decoder.notes.records += *result.as_ref().unwrap_or(&0);
        return result.map(Ending::Read);
    }
    if set.content.is_empty() {
        // Whatever its template is, it has no records: nothing to hold.
        return Ok(Ending::Read(0));
    }
    if !decoder.hold.put(key, arrival, run, set.at, set.content) {
        return Err((Fault::HoldFull, set.place()));
    }
    give_up_overdue(decoder, arrival.elapsed, output);
    Ok(Ending::Held)
}

/// Reads the records of a run by the template that is known for them; `None` if none is.
fn read_known(
    decoder: &mut Decoder,
    key: &DomainKey,
    run: &mut Run,
    cursor: Cursor<'_>,
    output: &mut impl Output,
) -> Option<Result<u32, Broken>> {
    let Decoder { domains, ends, named, notes, .. } = decoder;
    named.clear();
    let mut reading = domains.reading(key, run.template)?;
    if reading.known.template.layout().has_lists() {
        let layout = Arc::clone(reading.known.template.layout());
        let mut template = |id| domains.template(key, id).map(|known| Arc::clone(known.template.layout()));
        lists::find(&layout, cursor.rest(), &mut template, named);
        reading = domains.reading(key, run.template)?;
    }
    let Known { template, restored } = reading.known;
    run.template_source = if *restored { TemplateSource::Restored } else { TemplateSource::Heard };
    let result = read(template, run, cursor, ends, named, &mut reading.sampling, output);
    *reading.has_read |= result.as_ref().is_ok_and(|records| *records > 0);
    if template.layout().kind() == RecordKind::Data {
        let by = template.sampled_by();
        notes.data = Some(DataNotes::new(run, by.carries_rate, by.names_sampler()));
    }
    if let Some(reader) = template.reader() {
        let (reader, layout) = (Arc::clone(reader), Arc::clone(template.layout()));
        notes.has_restarted |= domains.tell(key, run, &reader, &layout, rows(&layout, cursor.rest(), ends));
    }
    Some(result)
}

/// The records of a set that was read, each as its bytes.
fn rows<'r>(layout: &Layout, content: &'r [u8], ends: &[u32]) -> impl Iterator<Item = &'r [u8]> {
    let of_stride = content.chunks_exact(layout.stride().unwrap_or(content.len() + 1));
    let starts = iter::once(0).chain(ends.iter().copied());
    let bounds = starts.zip(ends).map(|(start, end)| start as usize..*end as usize);
    of_stride.chain(bounds.filter_map(|bounds| content.get(bounds)))
}

/// Gives the records of a set to the output; tells how many. `named` are the templates that lists in them name.
fn read(
    template: &Template,
    run: &mut Run,
    mut cursor: Cursor<'_>,
    ends: &mut Vec<u32>,
    named: &[Named],
    sampling: &mut ByRecord<'_>,
    output: &mut impl Output,
) -> Result<u32, Broken> {
    let content = cursor.rest();
    let layout = template.layout();
    ends.clear();
    let (count, taken, broken) = match layout.stride() {
        Some(stride) => (content.len() / stride, content.len() / stride * stride, None),
        None => {
            let broken = cut(layout, &mut cursor, ends);
            (ends.len(), ends.last().map_or(0, |end| *end as usize), broken)
        }
    };
    sampling.basis.apply(run);
    if let (Some(rows), true) = (content.get(..taken), count > 0) {
        let mut records = Records { template, rows, ends, named, given: (0, 0) };
        if sampling.is_needed(template.sampled_by()) {
            records.give_by_rate(run, sampling, output);
        }
        records.give(run, count, taken, output);
    }
    broken.map_or(Ok(count as u32), Err)
}

/// Records of one set, to be given to the output.
struct Records<'a> {
    template: &'a Template,
    rows: &'a [u8],
    /// The end of each, if there is no stride.
    ends: &'a mut [u32],
    named: &'a [Named],
    /// How many records, and bytes of them, the output has.
    given: (usize, usize),
}

impl Records<'_> {
    /// Gives the records up to `count` of the set, which end at `end`, as those of `run`.
    fn give(&mut self, run: &Run, count: usize, end: usize, output: &mut impl Output) {
        let (given, start) = std::mem::replace(&mut self.given, (count, end));
        let ends = self.ends.get_mut(given..count).unwrap_or_default();
        ends.iter_mut().for_each(|end| *end -= start as u32);
        if let (Some(rows), true) = (self.rows.get(start..end), count > given) {
            if !self.named.is_empty() {
                output.lists(self.named);
            }
            output.records(run, self.template, rows, ends, (count - given) as u32);
        }
    }

    /// Finds the rate of each record, and gives each stretch with one rate when the next begins; the last is left.
    fn give_by_rate(&mut self, run: &mut Run, sampling: &mut ByRecord<'_>, output: &mut impl Output) {
        let (layout, rows) = (self.template.layout(), self.rows);
        let (mut start, mut count, mut decided) = (0, 0, None);
        while let Some(end) = layout.stride().map(|stride| start + stride).or_else(|| self.end(count))
            && let Some(row) = rows.get(start..end)
        {
            let deciding = sampling.deciding(layout, self.template.sampled_by(), row);
            if decided != Some(deciding) {
                let mut next = *run;
                sampling.apply(&mut next, deciding);
                if next != *run {
                    self.give(run, count, start, output);
                    *run = next;
                }
                decided = Some(deciding);
            }
            (start, count) = (end, count + 1);
        }
    }

    /// Where a record ends that was not given yet.
    fn end(&self, record: usize) -> Option<usize> {
        self.ends.get(record).map(|end| *end as usize)
    }
}

/// Walks the records of a layout of variable length and notes where each ends. What is left in the cursor is padding
/// or, told as a fault, a record that runs over the end.
fn cut(layout: &Layout, cursor: &mut Cursor<'_>, ends: &mut Vec<u32>) -> Option<Broken> {
    ends.clear();
    let start = cursor.at();
    while cursor.left() >= layout.least() && !is_padding(cursor.rest()) {
        let record = *cursor;
        if skip_record(layout, cursor).is_none() {
            *cursor = record;
            let place = Place { offset: record.at(), bytes: record.left() };
            return Some((Fault::RecordLength, place));
        }
        ends.push((cursor.at() - start) as u32);
    }
    None
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

/// Keeps a template that was heard, and reads what was held for it.
///
/// # Errors
/// When the exporter has told too many that are new or changed.
pub(super) fn keep(
    decoder: &mut Decoder,
    key: DomainKey,
    id: u16,
    layout: Layout,
    output: &mut impl Output,
) -> Result<(), Fault> {
    let change = decoder.domains.change(&key, id, &layout);
    match change {
        Change::Same => decoder.domains.confirm(&key, id),
        Change::New | Change::Changed => {
            if !decoder.changes.admit(key.exporter.address) {
                return Err(Fault::TemplateRate);
            }
            decoder.domains.learn(key, id, layout);
        }
    }
    let Some(known) = decoder.domains.template(&key, id) else { return Ok(()) };
    output.template(&Heard { key: &key, id, layout: known.template.layout(), change });
    while let Some(held) = decoder.hold.take_first(&(key, id)) {
        output.resume(Some(&held.arrival));
        output.header(&held.run);
        let mut run = held.run;
        let result = read_known(decoder, &key, &mut run, held.cursor(), output);
        let records = result.as_ref().and_then(|result| result.as_ref().ok());
        decoder.tracks.resumed(&key, records.copied().unwrap_or(0), false);
        end(&result.unwrap_or(Ok(0)).map(Ending::Read), held.place(), output);
        output.resume(None);
    }
    Ok(())
}

/// Reads what has waited long enough by a template of another port of its address, if there is one that it fits.
pub(super) fn find_at_other_ports(decoder: &mut Decoder, elapsed: u64, output: &mut impl Output) {
    let is_patient = |arrival: &Arrival| elapsed.saturating_sub(arrival.elapsed) >= PATIENCE;
    let patient = decoder.hold.awaited().filter(|(.., first)| is_patient(first));
    let patient: Vec<Awaited> = patient.map(|(awaited, ..)| *awaited).collect();
    for awaited in patient {
        let Decoder { domains, hold, tracks, ends, named, .. } = &mut *decoder;
        let (basis, mut names_samplers) = (domains.basis(&awaited.0), false);
        let Some(template) = domains.candidate(&awaited.0, awaited.1) else { continue };
        let (layout, mut at) = (template.layout(), 0);
        // What does not fit lets those behind it pass, and need not be tried again.
        while let Some(held) = hold.take_next(&awaited, &mut at, |held| {
            let is_next = is_patient(&held.arrival) && !was_tried(held, layout);
            let fits = is_next && fits(layout, held, ends);
            if is_next && !fits {
                held.unfit = Some(Arc::clone(layout));
            }
            fits
        }) {
            let mut run = Run { template_source: TemplateSource::Provisional, ..held.run };
            named.clear();
            let mut of_list = |id| domains.candidate(&awaited.0, id).map(|of| Arc::clone(of.layout()));
            lists::find(template.layout(), &held.content, &mut of_list, named);
            let mut sampling = domains.sampling(&awaited.0, &basis, &mut names_samplers);
            output.resume(Some(&held.arrival));
            output.header(&run);
            let result = read(template, &mut run, held.cursor(), ends, named, &mut sampling, output);
            tracks.resumed(&awaited.0, *result.as_ref().unwrap_or(&0), true);
            end(&result.map(Ending::Read), held.place(), output);
            output.resume(None);
        }
    }
}

fn was_tried(held: &Held, layout: &Arc<Layout>) -> bool {
    held.unfit.as_ref().is_some_and(|unfit| Arc::ptr_eq(unfit, layout))
}

/// The set is whole records of the layout and no more, but for what aligns it to four bytes.
fn fits(layout: &Layout, held: &Held, ends: &mut Vec<u32>) -> bool {
    let mut cursor = held.cursor();
    match layout.stride() {
        Some(stride) => {
            let whole = held.content.len() / stride * stride;
            whole > 0 && cursor.take(whole).is_ok() && is_padding(cursor.rest())
        }
        None => cut(layout, &mut cursor, ends).is_none() && !ends.is_empty() && is_padding(cursor.rest()),
    }
}

/// Gives up what has waited too long or has no room any more.
pub(super) fn give_up_overdue(decoder: &mut Decoder, elapsed: u64, output: &mut impl Output) {
    while let Some((held, why)) = decoder.hold.overdue(elapsed) {
        let fault = match why {
            Overdue::Age => Fault::NoTemplate,
            Overdue::Room => Fault::HoldFull,
        };
        give_up(&held, fault, output);
    }
}

/// Gives up all that is held.
pub(super) fn give_up_all(decoder: &mut Decoder, output: &mut impl Output) {
    while let Some(held) = decoder.hold.take_any() {
        give_up(&held, Fault::NoTemplate, output);
    }
}

fn give_up(held: &Held, fault: Fault, output: &mut impl Output) {
    output.resume(Some(&held.arrival));
    output.header(&held.run);
    output.fault(fault, held.place());
    output.resume(None);
}
