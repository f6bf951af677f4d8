//! Which templates were given up to make room: so that who waits for one is not told that it was never seen.

use super::DomainKey;
use crate::wire::generations::Generations;

/// Templates remembered of those whose records were read, and of the others: a flood of those forgets none of these.
const MOST: usize = 4_096;

type Id = (DomainKey, u16);

/// The memory.
#[derive(Debug)]
pub(super) struct GivenUp {
    read: Generations<Id, ()>,
    unread: Generations<Id, ()>,
}

impl Default for GivenUp {
    fn default() -> GivenUp {
        GivenUp { read: Generations::new(MOST), unread: Generations::new(MOST) }
    }
}

impl GivenUp {
    /// A template is given up.
    pub(super) fn put(&mut self, id: Id, was_read: bool) {
        let memory = if was_read { &mut self.read } else { &mut self.unread };
        memory.insert(id, (), &mut |_, ()| {});
    }

    /// It is heard again.
    pub(super) fn known_again(&mut self, id: &Id) {
        self.read.remove(id);
        self.unread.remove(id);
    }

    /// Was it given up?
    pub(super) fn has(&self, id: &Id) -> bool {
        self.read.peek(id).is_some() || self.unread.peek(id).is_some()
    }
}
