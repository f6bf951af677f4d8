//! Tables of one source by whom they are of: read in place by shards while one after the other is replaced.
//!
//! Maps are never changed, only replaced: so that this costs little with 10,000 of them, there are many, each of a part of
//! the keys.

use arc_swap::{ArcSwap, Cache};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Maps of one shelf. A change copies one of them.
const PARTS: usize = 64;

type Part<K, V> = Arc<ArcSwap<HashMap<K, V>>>;

/// See the module. A handle: clones share everything. Whoever changes it keeps others from doing so meanwhile.
#[derive(Debug)]
pub(super) struct Shelf<K, V>(Arc<[Part<K, V>]>);

impl<K, V> Clone for Shelf<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Arc::new(ArcSwap::from_pointee(HashMap::new()))).collect())
    }
}

/// The part that a key belongs to.
fn part<K: Hash>(key: &K) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % PARTS
}

impl<K: Clone + Eq + Hash, V: Clone> Shelf<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.0.get(part(key))?.load().get(key).cloned()
    }

    /// Puts a value in, or takes it out.
    pub(super) fn set(&self, key: K, value: Option<V>) {
        let Some(part) = self.0.get(part(&key)) else { return };
        let mut map = HashMap::clone(&part.load());
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
        part.store(Arc::new(map));
    }

    /// Everything on it, in no order.
    pub(super) fn all(&self) -> Vec<(K, V)> {
        let of = |part: &Part<K, V>| {
            part.load().iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    pub(super) fn view(&self) -> Shown<K, V> {
        Shown(self.0.iter().map(|part| Cache::new(Arc::clone(part))).collect())
    }
}

/// A shelf as one shard sees it.
#[derive(Debug)]
pub(super) struct Shown<K, V>(Vec<Seen<K, V>>);

type Seen<K, V> = Cache<Part<K, V>, Arc<HashMap<K, V>>>;

impl<K: Eq + Hash, V> Shown<K, V> {
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        self.0.get_mut(part(key))?.load().get(key)
    }

    /// Lets go of maps that have been replaced.
    pub(super) fn refresh(&mut self) {
        for part in &mut self.0 {
            let _newest = part.load();
        }
    }
}
