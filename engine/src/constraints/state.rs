//! What rules must remember of the messages before: how many came lately, how high a field stood, which keys there were.
//!
//! Whoever checks a message holds the gate of its log, so one memory serves all who append. What a message changes is
//! noted, and taken back if it does not come into the log after all.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde_json::Number;

/// Something that rises.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Level {
    Number(Number),
    Text(String),
}

impl std::fmt::Display for Level {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Level::Number(number) => write!(formatter, "{number}"),
            Level::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

impl Level {
    /// Whether it is greater than `before`; nothing if the two cannot be compared.
    pub(super) fn is_above(&self, before: &Self) -> Option<bool> {
        match (self, before) {
            (Level::Text(text), Level::Text(before)) => Some(text > before),
            (Level::Number(number), Level::Number(before)) => match (number.as_i128(), before.as_i128()) {
                (Some(number), Some(before)) => Some(number > before),
                _ => Some(number.as_f64()? > before.as_f64()?),
            },
            _ => None,
        }
    }
}

/// The memory of one rule.
#[derive(Debug)]
pub(super) enum Memory {
    /// It needs none.
    None,
    Rate(Bucket),
    Rising(Option<Level>),
    Unique(Keys),
}

/// What one message did to a memory.
#[derive(Debug)]
pub(super) enum Undo {
    Rate(f64),
    Rising(Option<Level>),
    Unique(Put),
}

/// A key that went in.
#[derive(Debug)]
pub(super) struct Put {
    /// Where it stood before.
    previous: Option<u64>,
    /// What it pushed out, the oldest first.
    pushed_out: Vec<(u128, u64)>,
}

impl Memory {
    pub(super) fn take_back(&mut self, undo: Undo) {
        match (self, undo) {
            (Memory::Rate(bucket), Undo::Rate(tokens)) => bucket.tokens += tokens,
            (Memory::Rising(level), Undo::Rising(before)) => *level = before,
            (Memory::Unique(keys), Undo::Unique(put)) => keys.take_back(put),
            _ => {}
        }
    }
}

/// A bucket of tokens that fills with time.
#[derive(Debug)]
pub(super) struct Bucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    pub(super) fn new(messages: u64, per_ms: u64, now: Duration) -> Self {
        let capacity = messages as f64;
        Bucket {
            capacity,
            per_second: capacity * 1000.0 / per_ms as f64,
            tokens: capacity,
            filled_at: now,
        }
    }

    /// Whether there is a token, once it has been filled up to `now`.
    pub(super) fn has_one(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.capacity);
        self.filled_at = now;
        self.tokens >= 1.0
    }

    pub(super) fn take_one(&mut self) {
        self.tokens -= 1.0;
    }
}

/// Keys of a window, as 128 bits of a keyed hash each: that two keys of a million share one happens once in 2^88 times.
#[derive(Debug)]
pub(super) struct Keys {
    within: u64,
    hashers: [RandomState; 2],
    /// The newest offset of each key.
    newest: HashMap<u128, u64>,
    order: VecDeque<(u128, u64)>,
}

impl Keys {
    pub(super) fn new(within: u64) -> Self {
        Keys {
            within,
            hashers: [RandomState::new(), RandomState::new()],
            newest: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn hash(&self, key: &[u8]) -> u128 {
        let [high, low] = &self.hashers;
        u128::from(high.hash_one(key)) << 64 | u128::from(low.hash_one(key))
    }

    /// The offset at which the window before `offset` has the key.
    pub(super) fn find(&self, key: &[u8], offset: u64) -> Option<u64> {
        let found = *self.newest.get(&self.hash(key))?;
        (offset.saturating_sub(found) <= self.within).then_some(found)
    }

    pub(super) fn put(&mut self, key: &[u8], offset: u64) -> Put {
        let mut pushed_out = Vec::new();
        while let Some((hash, old)) = self.order.front().copied() {
            if offset.saturating_sub(old) < self.within {
                break;
            }
            self.order.pop_front();
            if self.newest.get(&hash) == Some(&old) {
                self.newest.remove(&hash);
                pushed_out.push((hash, old));
            }
        }
        let hash = self.hash(key);
        let previous = self.newest.insert(hash, offset);
        self.order.push_back((hash, offset));
        Put { previous, pushed_out }
    }

    /// What was put last goes.
    fn take_back(&mut self, put: Put) {
        if let Some((hash, _)) = self.order.pop_back() {
            match put.previous {
                Some(previous) => self.newest.insert(hash, previous),
                None => self.newest.remove(&hash),
            };
        }
        for (hash, offset) in put.pushed_out.into_iter().rev() {
            self.newest.insert(hash, offset);
            self.order.push_front((hash, offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_fits_and_fills_with_time() {
        let mut bucket = Bucket::new(3, 1000, Duration::ZERO);
        let mut take = |milliseconds| {
            let has_one = bucket.has_one(Duration::from_millis(milliseconds));
            if has_one {
                bucket.take_one();
            }
            has_one
        };
        assert_eq!([0, 0, 0, 0].map(&mut take), [true, true, true, false]);
        assert_eq!([333, 334, 335].map(&mut take), [false, true, false]);
        // It never holds more than fits.
        assert_eq!([9_000; 4].map(&mut take), [true, true, true, false]);
    }

    #[test]
    fn a_window_forgets_what_left_it_and_remembers_what_was_taken_back() {
        let mut keys = Keys::new(3);
        for offset in 0..3 {
            assert_eq!(keys.find(&[offset], u64::from(offset)), None);
            keys.put(&[offset], u64::from(offset));
        }
        assert_eq!((keys.find(&[0], 3), keys.find(&[0], 4)), (Some(0), None));
        let put = keys.put(&[9], 3);
        assert_eq!(put.pushed_out.len(), 1);
        keys.take_back(put);
        assert_eq!((keys.find(&[0], 3), keys.find(&[9], 3)), (Some(0), None));
        keys.put(&[9], 3);
        assert_eq!((keys.find(&[9], 4), keys.find(&[0], 4)), (Some(3), None));
        let again = keys.put(&[9], 4);
        keys.take_back(again);
        assert_eq!(keys.find(&[9], 4), Some(3));
    }

    #[test]
    fn levels_compare_as_numbers_whole_or_not_and_as_text() {
        let number = |text: &str| Level::Number(serde_json::from_str(text).unwrap());
        assert_eq!(number("18446744073709551615").is_above(&number("-1")), Some(true));
        assert_eq!(number("1.5").is_above(&number("1")), Some(true));
        assert_eq!(number("1").is_above(&number("1")), Some(false));
        let text = |text: &str| Level::Text(text.to_owned());
        assert_eq!(text("b").is_above(&text("a")), Some(true));
        assert_eq!(text("b").is_above(&number("1")), None);
    }
}
