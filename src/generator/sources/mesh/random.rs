//! Chance that can be repeated.

use super::services::MAX_DOUBLINGS;

/// SplitMix64 (Steele, Lea, Flood 2014): whole numbers only, so that a seed means the same everywhere.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly one of 0 to `end` - 1; 0 if `end` is 0.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// One of 0 to `end` - 1, low ones more often; 0 if `end` is 0.
    pub(super) fn skewed(&mut self, end: usize) -> usize {
        let bits = self.next();
        let (high, low) = (bits >> 32, bits & u64::from(u32::MAX));
        (((high * low) >> 32) as usize * end) >> 32
    }

    /// How often a size doubles: n times or more with a chance of 1 in 2^n. That is the Pareto distribution
    /// of shape 1, cut where a flow's bytes would outgrow 32 bits.
    pub(super) fn doublings(&mut self) -> u32 {
        self.next().leading_zeros().min(MAX_DOUBLINGS)
    }

    /// `least` doubled so often, up to doubled once more, evenly.
    pub(super) fn stretched(&mut self, least: u32, doublings: u32) -> u32 {
        let size = least << doublings;
        size + self.below(size)
    }
}
