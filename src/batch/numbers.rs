//! NUMBERS(n) of batch.proto: integers as a base and the byte planes that vary.

/// How a list of integers was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Bit k: the plane of weight 256^k is there.
    pub(super) planes: u32,
    /// Big-endian, leading zero bytes left out.
    pub(super) base: Vec<u8>,
}

/// An unsigned integer of up to 16 bytes.
pub(super) trait Number: Copy + Ord + Default {
    const BYTES: u32;
    /// `byte` with the weight 256^k.
    fn weighed(byte: u8, k: u32) -> Self;
    fn wide(self) -> u128;
    fn less(self, base: Self) -> Self;
    /// The byte of weight 256^k.
    fn byte(self, k: u32) -> u8;
    fn union(self, other: Self) -> Self;
    fn common(self, other: Self) -> Self;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const BYTES: u32 = <$type>::BITS / 8;
            fn weighed(byte: u8, k: u32) -> Self {
                <$type>::from(byte) << (8 * k)
            }
            fn wide(self) -> u128 {
                u128::from(self)
            }
            fn less(self, base: Self) -> Self {
                self.wrapping_sub(base)
            }
            fn byte(self, k: u32) -> u8 {
                (self >> (8 * k)) as u8
            }
            fn union(self, other: Self) -> Self {
                self | other
            }
            fn common(self, other: Self) -> Self {
                self & other
            }
        }
    )*};
}

number!(u16, u32, u64, u128);

/// Appends the planes of `values` to `body`, noting in `cuts` where each ends.
pub(super) fn write<T: Number>(values: &[T], body: &mut Vec<u8>, cuts: &mut Vec<usize>) -> Written {
    let Some(&first) = values.first() else { return Written::default() };
    let (mut union, mut common) = (first, first);
    for &value in values {
        union = union.union(value);
        common = common.common(value);
    }
    let varying = varying_bytes(union.wide() ^ common.wide());
    // Values that differ in one byte take one plane either way.
    if varying.count_ones() > 1 {
        let (mut least, mut most) = (first, first);
        for &value in values {
            least = least.min(value);
            most = most.max(value);
        }
        let range = significant_bytes(most.wide() - least.wide());
        if range < varying.count_ones() {
            let planes = (1u32 << range) - 1;
            write_planes(planes, T::BYTES, body, cuts, values.iter().map(|value| value.less(least)));
            return Written { planes, base: trimmed(least.wide()) };
        }
    }
    write_planes(varying, T::BYTES, body, cuts, values.iter().copied());
    Written { planes: varying, base: trimmed(first.wide() & !mask(varying)) }
}

fn write_planes<T: Number>(
    planes: u32,
    most: u32,
    body: &mut Vec<u8>,
    cuts: &mut Vec<usize>,
    values: impl Iterator<Item = T> + Clone,
) {
    for k in (0..most).filter(|k| planes >> k & 1 == 1) {
        body.extend(values.clone().map(|value| value.byte(k)));
        cuts.push(body.len());
    }
}

/// Bit k for each byte of weight 256^k that is not 0.
fn varying_bytes(bits: u128) -> u32 {
    (0..16).filter(|k| (bits >> (8 * k)) as u8 != 0).map(|k| 1 << k).sum()
}

fn significant_bytes(value: u128) -> u32 {
    (128 - value.leading_zeros()).div_ceil(8)
}

/// All bits of the bytes in `planes`.
fn mask(planes: u32) -> u128 {
    (0..16).filter(|k| planes >> k & 1 == 1).map(|k| 0xffu128 << (8 * k)).fold(0, |all, byte| all | byte)
}

/// Big-endian without leading zero bytes.
pub(super) fn trimmed(value: u128) -> Vec<u8> {
    value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// The mean bit length of every eighth value above the least of them, times how many those are.
pub(super) fn sampled_bits<T: Number>(values: &[T]) -> u64 {
    let sample = || values.iter().step_by(8);
    let least = sample().min().copied().unwrap_or_default();
    sample().map(|value| u64::from(128 - value.less(least).wide().leading_zeros())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: &[u64]) -> (Written, Vec<u8>) {
        let mut body = Vec::new();
        let written = write(values, &mut body, &mut Vec::new());
        (written, body)
    }

    #[test]
    fn a_constant_has_no_plane() {
        assert_eq!(written(&[0x0102; 5]), (Written { planes: 0, base: vec![1, 2] }, vec![]));
        assert_eq!(written(&[0, 0]), (Written { planes: 0, base: vec![] }, vec![]));
    }

    #[test]
    fn bytes_that_do_not_vary_go_to_the_base() {
        let values = [0x10_00_05, 0x20_00_05, 0x90_00_05];
        assert_eq!(written(&values), (Written { planes: 0b100, base: vec![5] }, vec![0x10, 0x20, 0x90]));
    }

    #[test]
    fn a_narrow_range_leans_on_its_least() {
        let values = [0x00ff, 0x0100, 0x0105];
        assert_eq!(written(&values), (Written { planes: 1, base: vec![0xff] }, vec![0, 1, 6]));
    }
}
