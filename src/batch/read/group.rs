//! One record group: checks it, finds each column's bytes in the body, and turns them into values.
//!
//! In three steps, since a column may lean on one that stands after it: the cursor walks the body and cuts it
//! up; the places of DICTIONARY columns are added up; then every column gets its values. Memory is paid for
//! from the batch's budget before it is taken.

use super::body::{Body, MAX_WIDTH, Number, Numbers, fields};
use super::runs::{self, Run};
use super::{Budget, FIELD_COST, MAX_EXPANDED, Places};
use crate::flow::Field;
use crate::flow::interface::End;
use crate::proto::{self, Encoding, RecordKind};
use bytes::Bytes;
use std::sync::Arc;

/// The most records in a group and values in a dictionary.
const MAX_COUNT: u32 = 65_536;

/// Records of one layout, in the order received.
#[derive(Clone, Debug)]
pub struct Group {
    /// What the records are about.
    pub kind: RecordKind,
    /// How many leading columns are the scope of options records.
    pub scope_columns: usize,
    /// The scope columns' elements are scope types of NetFlow v9.
    pub v9_scopes: bool,
    /// The fields of each record, in the order of its template.
    pub columns: Vec<Column>,
    records: usize,
    runs: Vec<Run>,
}

/// One field of all records of a group.
#[derive(Clone, Debug)]
pub struct Column {
    /// Which field, and how wide in the exporter's template.
    pub field: Field,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    /// All alike.
    Same(Vec<u8>),
    /// `width` bytes each, back to back.
    Fixed { width: usize, bytes: Bytes },
    /// Each at its place in a table of `width` bytes each.
    Places { places: Arc<Vec<u32>>, width: usize, table: Vec<u8> },
    /// Where each ends in `bytes`; it begins where the one before ends.
    Variable { ends: Arc<Vec<u32>>, bytes: Bytes },
}

/// Why a group is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum GroupError {
    #[error("{records} records, more than {MAX_COUNT}")]
    Records { records: u32 },
    #[error("a dictionary of {count} values, more than {MAX_COUNT}")]
    Dictionary { count: u32 },
    #[error("its values and those of the groups before come to more than {MAX_EXPANDED} bytes")]
    Expanded,
    #[error("there is no kind {kind}")]
    Kind { kind: i32 },
    #[error("{scope} scope columns of {columns} columns")]
    Scope { scope: u32, columns: usize },
    #[error("the body ends {missing} bytes short")]
    BodyShort { missing: usize },
    #[error("the body has {left} bytes left over")]
    BodyLong { left: usize },
    #[error("a base of {length} bytes, more than {MAX_WIDTH}")]
    Base { length: usize },
    #[error("the planes {planes:#x} go beyond 256^{MAX_WIDTH}")]
    Planes { planes: u32 },
    #[error("column {column}: there is no encoding {encoding}")]
    Encoding { column: usize, encoding: i32 },
    #[error("column {column}: there is no element {element}")]
    Element { column: usize, element: u32 },
    #[error("column {column}: a width of {width} bytes does not go with its encoding")]
    Width { column: usize, width: u32 },
    #[error("column {column} leans on {of}, which is not there or not of the encoding that it needs")]
    Of { column: usize, of: u32 },
    #[error("column {column}: place {place} in a dictionary of {count} values")]
    Place { column: usize, place: u64, count: usize },
    #[error("column {column}: a value of {length} bytes")]
    Length { column: usize, length: u64 },
    #[error("{runs} runs of {records} records")]
    Runs { runs: u32, records: u32 },
    #[error("the runs have {found} records, not {records}")]
    RunRecords { records: usize, found: u64 },
    #[error("a dictionary is not of encoding PLANES with at most {MAX_WIDTH} bytes")]
    DictionaryColumn,
    #[error("run column {element} is not of encoding PLANES with at most {MAX_WIDTH} bytes")]
    RunColumn { element: u32 },
    #[error("run column {element} is there twice")]
    RunColumnTwice { element: u32 },
    #[error("run {run}: {value} is too much for run field {element}")]
    RunValue { run: usize, element: u32, value: u128 },
    #[error("run {run}: there is no exporter {exporter}")]
    RunExporter { run: usize, exporter: u32 },
    #[error("run {run}: there is no list table {lists}")]
    RunLists { run: usize, lists: usize },
}

/// What the cursor finds for a column.
struct Cut {
    encoding: Encoding,
    width: usize,
    of: usize,
    numbers: Numbers,
    /// Of VARIABLE: the values.
    variable: Option<Values>,
}

/// Reads a group. `places` is what the batch has for its runs to point at.
pub(super) fn read(group: proto::Group, places: Places, budget: &mut Budget) -> Result<Group, GroupError> {
    check_counts(&group)?;
    pay(&group, budget)?;
    let kind = RecordKind::try_from(group.kind).map_err(|_| GroupError::Kind { kind: group.kind })?;
    let records = group.records as usize;
    let mut body = Body::new(group.body);
    let dictionaries = group.dictionaries.iter().map(|dictionary| cut_dictionary(dictionary, &mut body));
    let dictionaries: Vec<_> = dictionaries.collect::<Result<_, _>>()?;
    let cut = |place| cut(&group.columns, &group.dictionaries, place, records, &mut body);
    let cuts: Vec<_> = (0..group.columns.len()).map(cut).collect::<Result<_, _>>()?;
    let runs = runs::read(&group.run_columns, group.runs as usize, records, places, &mut body)?;
    body.end()?;
    let places = self::places(&cuts, &dictionaries)?;
    let columns = group.columns.iter().enumerate();
    let columns = columns.map(|(place, column)| {
        let values = values(&cuts, &dictionaries, &places, place);
        Ok(Column { field: field(place, column)?, values: values.ok_or(no_of(place, column))? })
    });
    Ok(Group {
        kind,
        scope_columns: group.scope_columns as usize,
        v9_scopes: group.v9_scopes,
        columns: columns.collect::<Result<_, _>>()?,
        records,
        runs,
    })
}

fn check_counts(group: &proto::Group) -> Result<(), GroupError> {
    if group.records > MAX_COUNT {
        return Err(GroupError::Records { records: group.records });
    }
    if let Some(dictionary) = group.dictionaries.iter().find(|dictionary| dictionary.count > MAX_COUNT) {
        return Err(GroupError::Dictionary { count: dictionary.count });
    }
    // A run has at least one record.
    if group.runs > group.records {
        return Err(GroupError::Runs { runs: group.runs, records: group.records });
    }
    if group.scope_columns as usize > group.columns.len() {
        return Err(GroupError::Scope { scope: group.scope_columns, columns: group.columns.len() });
    }
    Ok(())
}

/// Takes what the group's values need from the budget, before anything is expanded.
fn pay(group: &proto::Group, budget: &mut Budget) -> Result<(), GroupError> {
    let records = u64::from(group.records);
    let record_cost = budget.record_cost + interfaces(group) * budget.interface_cost;
    let mut cost = records * record_cost as u64 + u64::from(group.runs) * size_of::<Run>() as u64;
    for column in &group.columns {
        // The values of VARIABLE stand in the body, each once, and some need a length of four bytes.
        let is_variable = column.encoding() == Encoding::Variable;
        let width =
            if is_variable { FIELD_COST as u64 } else { u64::from(column.width).max(FIELD_COST as u64) };
        let table = match column.encoding() {
            Encoding::Dictionary => dictionary_count(&group.dictionaries, column.of),
            Encoding::Follows => followed(&group.columns, &group.dictionaries, column.of),
            _ => 0,
        };
        cost = cost.saturating_add((records + table as u64).saturating_mul(width));
    }
    let left = usize::try_from(cost).ok().and_then(|cost| budget.left.checked_sub(cost));
    budget.left = left.ok_or(GroupError::Expanded)?;
    Ok(())
}

/// How many interfaces a record names.
fn interfaces(group: &proto::Group) -> usize {
    End::count(group.columns.iter().filter_map(|column| {
        let element = u16::try_from(column.element).ok()?;
        Some(Field { enterprise: column.enterprise, element, width: 0 })
    }))
}

/// How many values a dictionary has; none if it is not there, which [`places`] refuses.
fn dictionary_count(dictionaries: &[proto::Column], of: u32) -> usize {
    dictionaries.get(of as usize).map_or(0, |dictionary| dictionary.count as usize)
}

/// How many values the dictionary of a column has.
fn followed(columns: &[proto::Column], dictionaries: &[proto::Column], of: u32) -> usize {
    columns.get(of as usize).map_or(0, |column| dictionary_count(dictionaries, column.of))
}

fn field(place: usize, column: &proto::Column) -> Result<Field, GroupError> {
    Ok(Field {
        enterprise: column.enterprise,
        element: u16::try_from(column.element)
            .map_err(|_| GroupError::Element { column: place, element: column.element })?,
        width: u16::try_from(column.width)
            .map_err(|_| GroupError::Width { column: place, width: column.width })?,
    })
}

fn no_of(place: usize, column: &proto::Column) -> GroupError {
    GroupError::Of { column: place, of: column.of }
}

/// A dictionary's width and values.
fn cut_dictionary(dictionary: &proto::Column, body: &mut Body) -> Result<(usize, Numbers), GroupError> {
    let width = dictionary.width as usize;
    if dictionary.encoding != Encoding::Planes as i32 || width > MAX_WIDTH {
        return Err(GroupError::DictionaryColumn);
    }
    Ok((width, body.numbers(dictionary, dictionary.count as usize)?))
}

/// Checks a column and takes its bytes from the body.
fn cut(
    columns: &[proto::Column],
    dictionaries: &[proto::Column],
    place: usize,
    records: usize,
    body: &mut Body,
) -> Result<Cut, GroupError> {
    let column = columns.get(place).ok_or(GroupError::Of { column: place, of: place as u32 })?;
    let encoding = Encoding::try_from(column.encoding)
        .map_err(|_| GroupError::Encoding { column: place, encoding: column.encoding })?;
    let width = usize::from(field(place, column)?.width);
    if encoding != Encoding::Variable && width > MAX_WIDTH {
        return Err(GroupError::Width { column: place, width: column.width });
    }
    let of = column.of as usize;
    let leans_on = |wanted| columns.get(of).filter(|other| other.encoding == wanted as i32);
    let count = match encoding {
        Encoding::Planes | Encoding::Variable => records,
        Encoding::Dictionary => dictionaries.get(of).map(|_| records).ok_or(no_of(place, column))?,
        Encoding::Difference => leans_on(Encoding::Planes).map(|_| records).ok_or(no_of(place, column))?,
        Encoding::Follows => {
            let leader = leans_on(Encoding::Dictionary).ok_or(no_of(place, column))?;
            dictionary_count(dictionaries, leader.of)
        }
    };
    let numbers = body.numbers(column, count)?;
    let variable = match encoding {
        Encoding::Variable => Some(cut_variable(column, place, &numbers, body)?),
        _ => None,
    };
    Ok(Cut { encoding, width, of, numbers, variable })
}

/// The values of a VARIABLE column.
fn cut_variable(
    column: &proto::Column,
    place: usize,
    lengths: &Numbers,
    body: &mut Body,
) -> Result<Values, GroupError> {
    if column.planes > 0b11 {
        return Err(GroupError::Planes { planes: column.planes });
    }
    let refuse = |length: u64| GroupError::Length { column: place, length };
    let width = column.width as usize;
    if column.width != u32::from(Field::VARIABLE) {
        if let Some(other) = lengths.values::<u64>().into_iter().find(|&length| length != width as u64) {
            return Err(refuse(other));
        }
        return Ok(Values::Fixed { width, bytes: body.take(width * lengths.count())? });
    }
    let mut end = 0;
    let mut ends = Vec::with_capacity(lengths.count());
    for length in lengths.values::<u64>() {
        // At most 65,536 lengths of 16 bits each: their sum is below 2^32.
        end += u32::from(u16::try_from(length).map_err(|_| refuse(length))?);
        ends.push(end);
    }
    Ok(Values::Variable { ends: Arc::new(ends), bytes: body.take(end as usize)? })
}

/// The places of each DICTIONARY column; nothing for the others.
fn places(cuts: &[Cut], dictionaries: &[(usize, Numbers)]) -> Result<Vec<Arc<Vec<u32>>>, GroupError> {
    let places_of = |(column, cut): (usize, &Cut)| {
        if cut.encoding != Encoding::Dictionary {
            return Ok(Arc::default());
        }
        let count = dictionaries.get(cut.of).map_or(0, |(_, numbers)| numbers.count());
        let check = |place: u64| match u32::try_from(place) {
            Ok(small) if (small as usize) < count => Ok(small),
            _ => Err(GroupError::Place { column, place, count }),
        };
        let places = cut.numbers.values::<u64>().into_iter().map(|place| check(place.modulo(cut.width)));
        places.collect::<Result<_, _>>().map(Arc::new)
    };
    cuts.iter().enumerate().map(places_of).collect()
}

/// The values of one column; `None` if it leans on one that is not there.
fn values(
    cuts: &[Cut],
    dictionaries: &[(usize, Numbers)],
    places: &[Arc<Vec<u32>>],
    place: usize,
) -> Option<Values> {
    let cut = cuts.get(place)?;
    let width = cut.width;
    Some(match cut.encoding {
        Encoding::Planes => match cut.numbers.constant() {
            Some(value) => Values::Same(fields([value].into_iter(), width)),
            None => Values::Fixed { width, bytes: plain(&cut.numbers, width, width).into() },
        },
        Encoding::Dictionary => {
            let (dictionary_width, numbers) = dictionaries.get(cut.of)?;
            let table = plain(numbers, *dictionary_width, width);
            Values::Places { places: Arc::clone(places.get(place)?), width, table }
        }
        Encoding::Difference => {
            let base = cuts.get(cut.of)?;
            let bytes = if width <= 8 { sums::<u64>(base, cut) } else { sums::<u128>(base, cut) };
            Values::Fixed { width, bytes: bytes.into() }
        }
        Encoding::Follows => {
            let table = plain(&cut.numbers, width, width);
            Values::Places { places: Arc::clone(places.get(cut.of)?), width, table }
        }
        Encoding::Variable => cut.variable.clone()?,
    })
}

/// Numbers mod 256^`from`, as fields of `width` bytes.
fn plain(numbers: &Numbers, from: usize, width: usize) -> Vec<u8> {
    if from <= 8 && width <= 8 {
        return fields(numbers.values::<u64>().into_iter().map(|value| value.modulo(from)), width);
    }
    fields(numbers.values::<u128>().into_iter().map(|value| value.modulo(from)), width)
}

/// The values of a DIFFERENCE column that leans on `base`.
fn sums<T: Number>(base: &Cut, cut: &Cut) -> Vec<u8> {
    let bases = base.numbers.values::<T>().into_iter();
    let pairs = bases.zip(cut.numbers.values::<T>());
    fields(pairs.map(|(base_value, more)| base_value.modulo(base.width).plus(more)), cut.width)
}

impl Group {
    /// How many records there are.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Consecutive records that came in one datagram; their counts add up to [`Group::records`].
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// A field of a record, as the exporter sent it. Empty if there is no such column or record.
    pub fn value(&self, column: usize, record: usize) -> &[u8] {
        self.columns.get(column).map_or(&[], |column| column.value(record))
    }
}

impl Column {
    /// The value, if it is the same in all records and the batch says so.
    pub fn constant(&self) -> Option<&[u8]> {
        if let Values::Same(value) = &self.values { Some(value) } else { None }
    }

    /// The field of a record, as the exporter sent it. Empty if there is no such record; not so if all values are
    /// alike.
    pub fn value(&self, record: usize) -> &[u8] {
        let value = match &self.values {
            Values::Same(value) => Some(value.as_slice()),
            Values::Fixed { width, bytes } => nth(bytes, *width, record),
            Values::Places { places, width, table } => {
                places.get(record).and_then(|&place| nth(table, *width, place as usize))
            }
            Values::Variable { ends, bytes } => ends.get(record).and_then(|&end| {
                let start = record.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
                bytes.get(start as usize..end as usize)
            }),
        };
        value.unwrap_or(&[])
    }
}

/// One of many fields of `width` bytes.
fn nth(fields: &[u8], width: usize, place: usize) -> Option<&[u8]> {
    let start = place.checked_mul(width)?;
    fields.get(start..start.checked_add(width)?)
}
