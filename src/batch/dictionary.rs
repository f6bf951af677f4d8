//! The address dictionary: values to their places, in order of appearance.

/// A value that can stand in a dictionary.
pub(super) trait Key: Copy + Eq {
    /// Its tag tells it from every other value.
    const TAG_IS_ALL: bool;
    fn folded(self) -> u64;
    fn tag(self) -> u32;
}

impl Key for u32 {
    const TAG_IS_ALL: bool = true;

    fn folded(self) -> u64 {
        u64::from(self)
    }

    fn tag(self) -> u32 {
        self
    }
}

impl Key for u128 {
    const TAG_IS_ALL: bool = false;

    fn folded(self) -> u64 {
        (self as u64) ^ ((self >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    }

    fn tag(self) -> u32 {
        self as u32
    }
}

/// Looks further than this find values chosen to collide, or a table that is too full: give up.
const MOST_PROBES: usize = 64;

/// An open hash table over the values listed so far. Its buffers stay from batch to batch.
#[derive(Debug)]
pub(super) struct Dictionary<T> {
    values: Vec<T>,
    /// Tag in the upper half, place + 1 in the lower; 0 is free. So most look-ups touch one cache line.
    slots: Vec<u64>,
    shift: u32,
    seed: u64,
}

impl<T: Key> Dictionary<T> {
    /// `seed` makes it hard to choose addresses that collide.
    pub(super) fn new(seed: u64) -> Dictionary<T> {
        Dictionary { values: Vec::new(), slots: Vec::new(), shift: 0, seed: seed | 1 }
    }

    /// Empties it and makes room for `most` values.
    pub(super) fn begin(&mut self, most: usize) {
        let size = (most * 2).next_power_of_two().max(64);
        self.values.clear();
        self.slots.clear();
        self.slots.resize(size, 0);
        self.shift = 64 - size.trailing_zeros();
    }

    /// The values, by place.
    pub(super) fn values(&self) -> &[T] {
        &self.values
    }

    /// Lists the places of `values` after what is in `places`; false when more than `most` distinct values came
    /// or they collide too much.
    pub(super) fn places(&mut self, values: &[T], most: usize, places: &mut Vec<u16>) -> bool {
        places.reserve(values.len());
        for &value in values {
            match self.place(value) {
                Some(place) if self.values.len() <= most => places.push(place),
                _ => return false,
            }
        }
        true
    }

    #[inline]
    fn place(&mut self, value: T) -> Option<u16> {
        let mask = self.slots.len() - 1;
        let tag = value.tag();
        let first = (value.folded().wrapping_mul(self.seed) >> self.shift) as usize;
        for slot in first..first + MOST_PROBES {
            let taken = self.slots.get_mut(slot & mask)?;
            let number = *taken as u32;
            if number == 0 {
                self.values.push(value);
                *taken = u64::from(tag) << 32 | self.values.len() as u64;
                return u16::try_from(self.values.len() - 1).ok();
            }
            let place = (number - 1) as usize;
            if (*taken >> 32) as u32 == tag && (T::TAG_IS_ALL || self.values.get(place) == Some(&value)) {
                return Some(place as u16);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_of_appearance() {
        let mut dictionary = Dictionary::new(0x1234_5678_9abc_def1);
        dictionary.begin(8);
        let mut places = Vec::new();
        assert!(dictionary.places(&[7u32, 9, 7, 1], 8, &mut places));
        assert!(dictionary.places(&[1, 2], 8, &mut places));
        assert_eq!(places, [0, 1, 0, 2, 2, 3]);
        assert_eq!(dictionary.values(), [7, 9, 1, 2]);
    }

    #[test]
    fn more_than_asked_for_is_given_up() {
        let mut dictionary = Dictionary::new(1);
        dictionary.begin(2);
        assert!(!dictionary.places(&[1u32, 2, 3], 2, &mut Vec::new()));
    }

    #[test]
    fn values_of_one_tag_are_told_apart() {
        let mut dictionary = Dictionary::new(0x1234_5678_9abc_def1);
        dictionary.begin(8);
        let mut places = Vec::new();
        assert!(dictionary.places(&[7u128, 7 | 1 << 64, 7 | 1 << 127, 7 | 1 << 64], 8, &mut places));
        assert_eq!(places, [0, 1, 2, 1]);
    }

    #[test]
    fn collisions_are_given_up() {
        let mut dictionary = Dictionary::new(1);
        dictionary.begin(1_000);
        let colliding: Vec<u32> = (0..200).collect();
        assert!(!dictionary.places(&colliding, 1_000, &mut Vec::new()));
    }
}
