//! Which checksum groups of a slab have been seen to be good: a bitmap that many readers share.
//!
//! Every access is relaxed. A bit says "these bytes were found good", and the bytes themselves never change and
//! were visible to whoever can reach the bitmap, so the bit has nothing to publish. A bit seen late costs one
//! more check and nothing else.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

const BITS: u32 = u64::BITS;

/// A set of group numbers below a fixed count that only grows.
#[derive(Debug)]
pub(crate) struct GroupSet {
    words: Box<[AtomicU64]>,
    count: u32,
    present: AtomicU32,
    all: AtomicBool,
}

impl GroupSet {
    /// The empty set of groups below `count`.
    pub(crate) fn empty(count: u32) -> Self {
        let words = (0..count.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        Self {
            words,
            count,
            present: AtomicU32::new(0),
            all: AtomicBool::new(count == 0),
        }
    }

    /// The set of all groups, which takes no bitmap.
    pub(crate) fn full() -> Self {
        Self {
            words: Box::default(),
            count: 0,
            present: AtomicU32::new(0),
            all: AtomicBool::new(true),
        }
    }

    /// Whether every group is in the set: one relaxed load.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.all.load(Ordering::Relaxed)
    }

    /// The first group of `groups` that is not in the set.
    #[inline]
    pub(crate) fn first_missing(&self, groups: Range<u32>) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        groups.into_iter().find(|group| !self.contains(*group))
    }

    #[inline]
    fn contains(&self, group: u32) -> bool {
        let word = self.words.get((group / BITS) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (group % BITS)) != 0)
    }

    /// Puts a group into the set. A number that is no group of this slab is ignored.
    pub(crate) fn insert(&self, group: u32) {
        if group >= self.count {
            return;
        }
        let Some(word) = self.words.get((group / BITS) as usize) else {
            return;
        };
        let bit = 1 << (group % BITS);
        // Only the one who set the bit counts it, so that the count reaches the total exactly when all are in.
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0
            && self.present.fetch_add(1, Ordering::Relaxed).checked_add(1) == Some(self.count)
        {
            self.all.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_full_exactly_when_its_last_group_came() {
        let set = GroupSet::empty(130);
        for group in (0..130).rev() {
            assert!(!set.is_full());
            assert_eq!(set.first_missing(0..130), Some(0));
            set.insert(group);
            set.insert(group);
            assert_eq!(set.first_missing(group..130), None);
        }
        assert!(set.is_full());
        assert_eq!(set.first_missing(0..130), None);
    }

    #[test]
    fn a_group_that_the_slab_has_not_is_never_counted() {
        let set = GroupSet::empty(2);
        set.insert(2);
        set.insert(64);
        set.insert(0);
        assert!(!set.is_full());
        assert_eq!(set.first_missing(0..2), Some(1));
    }

    #[test]
    fn a_slab_without_groups_lacks_none() {
        assert!(GroupSet::empty(0).is_full());
        assert!(GroupSet::full().is_full());
        assert_eq!(GroupSet::full().first_missing(0..9), None);
    }
}
