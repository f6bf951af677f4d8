//! A group's body and the numbers in it: NUMBERS(n) of batch.proto.

use super::group::GroupError;
use crate::proto;
use bytes::Bytes;

/// The widest number that planes can hold, in bytes; also the most planes.
pub(super) const MAX_WIDTH: usize = 16;

/// A cursor over a group's body.
#[derive(Debug)]
pub(super) struct Body {
    rest: Bytes,
}

impl Body {
    pub(super) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, GroupError> {
        if length > self.rest.len() {
            return Err(GroupError::BodyShort { missing: length - self.rest.len() });
        }
        Ok(self.rest.split_to(length))
    }

    /// The planes of `count` numbers.
    pub(super) fn numbers(&mut self, column: &proto::Column, count: usize) -> Result<Numbers, GroupError> {
        if column.base.len() > MAX_WIDTH {
            return Err(GroupError::Base { length: column.base.len() });
        }
        if column.planes >> MAX_WIDTH != 0 {
            return Err(GroupError::Planes { planes: column.planes });
        }
        let base = column.base.iter().fold(0, |base, &byte| base << 8 | u128::from(byte));
        let set = (0..MAX_WIDTH as u32).filter(|k| column.planes >> k & 1 == 1);
        let planes = set.map(|k| Ok((k, self.take(count)?))).collect::<Result<_, GroupError>>()?;
        Ok(Numbers { base, planes, count })
    }

    /// Says whether all was read.
    pub(super) fn end(self) -> Result<(), GroupError> {
        if self.rest.is_empty() { Ok(()) } else { Err(GroupError::BodyLong { left: self.rest.len() }) }
    }
}

/// Integers as the body has them: base and planes, not yet added up.
#[derive(Debug)]
pub(super) struct Numbers {
    base: u128,
    /// The weight's exponent and one byte a number.
    planes: Vec<(u32, Bytes)>,
    count: usize,
}

impl Numbers {
    /// How many.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The number that all are, if no plane says otherwise.
    pub(super) fn constant(&self) -> Option<u128> {
        self.planes.is_empty().then_some(self.base)
    }

    /// The numbers mod 256^16; mod 256^8 if `T` is `u64`.
    pub(super) fn values<T: Number>(&self) -> Vec<T> {
        let mut values = vec![T::low(self.base); self.count];
        for (k, plane) in &self.planes {
            for (value, &byte) in values.iter_mut().zip(plane) {
                *value = value.plus(T::weighted(byte, *k));
            }
        }
        values
    }
}

/// The two integers that numbers are reckoned in: one for the many narrow columns, one for all.
pub(super) trait Number: Copy {
    /// The low bytes of a wide one.
    fn low(wide: u128) -> Self;
    /// The sum, less what does not fit.
    fn plus(self, other: Self) -> Self;
    /// byte * 256^k, less what does not fit.
    fn weighted(byte: u8, k: u32) -> Self;
    /// mod 256^width.
    fn modulo(self, width: usize) -> Self;
    /// Appends the low `width` bytes, big-endian.
    fn append(self, width: usize, bytes: &mut Vec<u8>);
}

impl Number for u64 {
    fn low(wide: u128) -> Self {
        wide as u64
    }

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn weighted(byte: u8, k: u32) -> Self {
        if k < 8 { u64::from(byte) << (8 * k) } else { 0 }
    }

    fn modulo(self, width: usize) -> Self {
        if width < 8 { self & ((1 << (8 * width)) - 1) } else { self }
    }

    fn append(self, width: usize, bytes: &mut Vec<u8>) {
        let all = self.to_be_bytes();
        bytes.extend_from_slice(all.get(all.len().saturating_sub(width)..).unwrap_or(&all));
    }
}

impl Number for u128 {
    fn low(wide: u128) -> Self {
        wide
    }

    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    fn weighted(byte: u8, k: u32) -> Self {
        if k < 16 { u128::from(byte) << (8 * k) } else { 0 }
    }

    fn modulo(self, width: usize) -> Self {
        if width < 16 { self & ((1 << (8 * width)) - 1) } else { self }
    }

    fn append(self, width: usize, bytes: &mut Vec<u8>) {
        let all = self.to_be_bytes();
        bytes.extend_from_slice(all.get(all.len().saturating_sub(width)..).unwrap_or(&all));
    }
}

/// Numbers as big-endian fields of `width` bytes, back to back.
pub(super) fn fields<T: Number>(numbers: impl ExactSizeIterator<Item = T>, width: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() * width);
    for number in numbers {
        number.append(width, &mut bytes);
    }
    bytes
}
