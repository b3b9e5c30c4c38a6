//! What threads share of their work: each thing is made once, and kept while there is room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes a lock. A thread that died holding it left the value whole: a value is put in last.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded cache. Who asks for a thing that is being made waits for it; nobody else does.
///
/// Replacement is by second chance: what was used since it was last looked at stays.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    kept: Mutex<Kept<K, V>>,
    weight_max: usize,
}

#[derive(Debug)]
struct Kept<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// In the order in which they are looked at.
    order: VecDeque<K>,
    weight: usize,
}

#[derive(Debug)]
struct Entry<V> {
    slot: Slot<V>,
    /// Zero while it is being made.
    weight: usize,
    used: bool,
}

/// Filled by the first thread that needs it, which holds the lock meanwhile.
type Slot<V> = Arc<Mutex<Option<Arc<V>>>>;

/// Something that takes memory.
pub(crate) trait Weight {
    /// Bytes, roughly; not zero.
    fn weight(&self) -> usize;
}

impl<K: Copy + Eq + Hash, V: Weight> Cache<K, V> {
    /// A cache for so many bytes. What is being made or used comes on top.
    pub(crate) fn new(weight_max: usize) -> Self {
        let kept = Kept { entries: HashMap::new(), order: VecDeque::new(), weight: 0 };
        Self { kept: Mutex::new(kept), weight_max }
    }

    /// Whether nobody has made the thing of that key, or is at it.
    pub(crate) fn lacks(&self, key: &K) -> bool {
        !lock(&self.kept).entries.contains_key(key)
    }

    /// The thing of that key, made if it is not there. A failure is not kept.
    pub(crate) fn get<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let slot = lock(&self.kept).slot(key);
        let mut value = lock(&slot);
        if let Some(value) = &*value {
            return Ok(Arc::clone(value));
        }
        match make() {
            Ok(made) => {
                let made = Arc::new(made);
                *value = Some(Arc::clone(&made));
                lock(&self.kept).settle(key, made.weight(), self.weight_max);
                Ok(made)
            }
            Err(error) => {
                lock(&self.kept).give_up(key);
                Err(error)
            }
        }
    }
}

impl<K: Copy + Eq + Hash, V> Kept<K, V> {
    fn slot(&mut self, key: K) -> Slot<V> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.used = true;
            return Arc::clone(&entry.slot);
        }
        let slot = Slot::default();
        self.entries.insert(key, Entry { slot: Arc::clone(&slot), weight: 0, used: false });
        self.order.push_back(key);
        slot
    }

    /// Counts what was made, and drops others until all fits.
    fn settle(&mut self, key: K, weight: usize, weight_max: usize) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.weight = self.weight - entry.weight + weight;
            entry.weight = weight;
        }
        // Each is looked at twice at most: once spared, once dropped.
        for _ in 0..2 * self.order.len() {
            if self.weight <= weight_max {
                return;
            }
            let Some(oldest) = self.order.pop_front() else { return };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used || entry.weight == 0 || oldest == key => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                Some(entry) => {
                    self.weight -= entry.weight;
                    self.entries.remove(&oldest);
                }
                None => {}
            }
        }
    }

    fn give_up(&mut self, key: K) {
        if let Some(entry) = self.entries.remove(&key) {
            self.weight -= entry.weight;
            self.order.retain(|kept| *kept != key);
        }
    }
}
