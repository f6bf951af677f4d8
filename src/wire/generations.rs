//! A bounded map that forgets what was used longest ago, roughly, and never searches for it.
//!
//! Entries live in two generations. What is used moves to the young one; when that is half the cap, the old one is
//! given up whole and the young one becomes old.

use std::collections::HashMap;
use std::hash::Hash;

/// The map. What has to go is given to the `dropped` of the call that needed the room.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    cap: usize,
}

impl<K: Copy + Eq + Hash, V> Generations<K, V> {
    /// An empty map of at most `cap` entries, at least 2.
    pub(super) fn new(cap: usize) -> Self {
        Generations { young: HashMap::new(), old: HashMap::new(), cap: cap.max(2) }
    }

    /// The entry, moved to the young generation.
    pub(super) fn get(&mut self, key: &K, dropped: &mut impl FnMut(K, V)) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.make_room(dropped);
            self.young.insert(*key, value);
        }
        self.young.get_mut(key)
    }

    /// The entry, moved to the young generation; what has to go for it is gone.
    pub(super) fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if self.young.len() >= self.cap / 2 && !self.young.contains_key(&key) {
            let value = self.old.remove(&key);
            self.turn(&mut |_, _| {});
            return self.young.entry(key).or_insert_with(|| value.unwrap_or_else(new));
        }
        let Generations { young, old, .. } = self;
        young.entry(key).or_insert_with(|| old.remove(&key).unwrap_or_else(new))
    }

    /// Puts an entry in; what was there under the key is dropped too.
    pub(super) fn insert(&mut self, key: K, value: V, dropped: &mut impl FnMut(K, V)) {
        if let Some(value) = self.remove(&key) {
            dropped(key, value);
        }
        self.make_room(dropped);
        self.young.insert(key, value);
    }

    fn make_room(&mut self, dropped: &mut impl FnMut(K, V)) {
        if self.young.len() >= self.cap / 2 {
            self.turn(dropped);
        }
    }

    /// Gives up the old generation and makes the young one old.
    pub(super) fn turn(&mut self, dropped: &mut impl FnMut(K, V)) {
        let gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        gone.into_iter().for_each(|(key, value)| dropped(key, value));
    }

    /// The entry where it is: to look at it is no use of it.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry where it is, to be changed.
    pub(super) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// All entries, those used longest ago first, roughly.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.old.iter().chain(&self.young)
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes_in_generations() {
        let mut map = Generations::new(10);
        let mut gone = Vec::new();
        for key in 0..100 {
            map.insert(key, (), &mut |key, ()| gone.push(key));
            assert!(map.get(&0, &mut |key, ()| gone.push(key)).is_some(), "{key}");
            assert!(map.len() <= 10);
        }
        gone.sort_unstable();
        let kept = 100 - gone.len() as i32;
        assert_eq!(gone, (1..=100 - kept).collect::<Vec<_>>());
    }
}
