//! What a power cut takes.

use crate::support::Numbers;

/// What a power cut takes of what was not durable.
pub struct Losses {
    /// Of 4 changes so many are kept, each for itself.
    kept_of_4: usize,
    /// A write is torn.
    pub tears: bool,
    pub numbers: Numbers,
}

impl Losses {
    /// All of it: the disk had written nothing back.
    pub fn all() -> Self {
        Self { kept_of_4: 0, tears: false, numbers: Numbers::from_seed(1) }
    }

    /// The end of one write.
    pub fn torn(seed: u64) -> Self {
        Self { kept_of_4: 4, tears: true, numbers: Numbers::from_seed(seed) }
    }

    /// Some of it, or all.
    pub fn by(numbers: &mut Numbers) -> Self {
        let (kept_of_4, tears) = (numbers.below(4), numbers.below(2) == 0);
        Self { kept_of_4, tears, numbers: Numbers::from_seed(numbers.next()) }
    }

    /// Whether the next change is kept.
    pub fn keep(&mut self) -> bool {
        self.numbers.below(4) < self.kept_of_4
    }
}
