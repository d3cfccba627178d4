//! Numbers, kept as the ranges that they make together.
//!
//! What lies side by side costs one entry, however much it is: so what is known of a segment grows with the holes between
//! what is reached, and not with the blocks, of which the tails of many idle logs are one each.

use std::collections::BTreeMap;
use std::ops::Range;

/// Rising, disjoint ranges of which no two touch.
#[derive(Debug, Default, Clone)]
pub(crate) struct RangeSet {
    /// The end of each range by its start.
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds a range; joins it with all that it meets or touches.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ends.range(..=start).next_back()
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((&next, &next_end)) = self.ends.range(start..=end).next() {
            self.ends.remove(&next);
            end = end.max(next_end);
        }
        self.ends.insert(start, end);
    }

    /// Whether a number lies in one of the ranges.
    pub(crate) fn contains(&self, number: u64) -> bool {
        let before = self.ends.range(..=number).next_back();
        before.is_some_and(|(_, &end)| number < end)
    }

    /// The ranges, rising.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(set: &RangeSet) -> Vec<Range<u64>> {
        set.ranges().collect()
    }

    #[test]
    fn ranges_that_meet_or_touch_are_one() {
        let mut set = RangeSet::default();
        for range in [20..30, 0..10, 40..50, 7..7, 10..20, 45..60, 41..42] {
            set.add(range);
        }
        assert_eq!(listed(&set), [0..30, 40..60]);
        set.add(5..55);
        assert_eq!(listed(&set), [Range { start: 0, end: 60 }]);
    }

    #[test]
    fn numbers_are_in_the_set_exactly_if_they_were_added() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut set = RangeSet::default();
        let mut added = [false; 256];
        for _ in 0..60 {
            let start = random(250);
            let end = start + random(6);
            set.add(start..end);
            for number in start..end {
                added[usize::try_from(number).unwrap()] = true;
            }
            let found: Vec<bool> = (0..256).map(|number| set.contains(number)).collect();
            assert_eq!(found, added);
            let ranges = listed(&set);
            assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
