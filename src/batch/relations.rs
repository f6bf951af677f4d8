//! Columns by other columns: differences to one that is near, tables of what an address decides.

use super::numbers::{self, Number, Written};

/// A column whose planes were written when it was chosen, since its values were at hand.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) written: Written,
    /// Where its planes are in the encoder's `ahead_body`, and how long each is.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) plane: usize,
}

/// A column's values and what stands beside them: another column's, or a table.
pub(super) type Pair<T> = (Vec<T>, Vec<T>);

/// Writes the planes of `values` ahead of their place.
pub(super) fn write_ahead<T: Number>(values: &[T], ahead: &mut Vec<Ahead>, body: &mut Vec<u8>) -> usize {
    let start = body.len();
    let written = numbers::write(values, body, &mut Vec::new());
    ahead.push(Ahead { written, start, end: body.len(), plane: values.len() });
    ahead.len() - 1
}

/// Writes ahead the differences of two columns of `width` bytes, if they take fewer bits than the first one alone.
pub(super) fn lean<T: Number>(
    (values, others): &mut Pair<T>,
    width: u16,
    ahead: &mut Vec<Ahead>,
    body: &mut Vec<u8>,
) -> Option<usize> {
    let plain = numbers::sampled_bits(values);
    let mask =
        (0..u32::from(width).min(T::BYTES)).fold(T::default(), |mask, k| mask.union(T::weighed(255, k)));
    for (value, other) in values.iter_mut().zip(others) {
        *value = value.less(*other).common(mask);
    }
    (numbers::sampled_bits(values) < plain).then(|| write_ahead(values, ahead, body))
}

/// For each of the `distinct` places a record that has it; the first one for places that do not occur.
pub(super) fn witness(places: &[u16], distinct: usize, witnesses: &mut Vec<u32>) {
    witnesses.clear();
    witnesses.resize(distinct, 0);
    for (record, place) in (0..).zip(places) {
        if let Some(witness) = witnesses.get_mut(usize::from(*place)) {
            *witness = record;
        }
    }
}

/// Fills the table with the value of each place's witness; false if a record disagrees.
pub(super) fn decided<T: Number>((values, table): &mut Pair<T>, places: &[u16], witnesses: &[u32]) -> bool {
    /// Records compared between two looks at the outcome: without a branch each it is faster.
    const STRETCH: usize = 64;
    table.clear();
    table.extend(witnesses.iter().map(|record| values.get(*record as usize).copied().unwrap_or_default()));
    let agrees = |(value, place): (&T, &u16)| table.get(usize::from(*place)) == Some(value);
    values
        .chunks(STRETCH)
        .zip(places.chunks(STRETCH))
        .all(|(values, places)| values.iter().zip(places).map(agrees).fold(true, |all, agrees| all & agrees))
}
