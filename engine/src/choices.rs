//! Values that the store chooses from what it sees, within limits, and why.
//!
//! What is chosen is a pure function of what was counted, so that the same work under the same clock chooses the same.

use std::fmt;

use lanterman_format::weakened;

use crate::atomics::Mutex;

/// A value that the store has chosen, and why; see [`crate::Log::choices`] and [`crate::Store::choices`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// What was chosen, in lower case with underscores.
    pub name: &'static str,
    /// The value in force.
    pub value: u64,
    /// What the value is counted in.
    pub unit: &'static str,
    /// The least that could be chosen.
    pub least: u64,
    /// The most that could be chosen.
    pub most: u64,
    /// What was seen and what follows from it, for people.
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice {
            name,
            value,
            unit,
            least,
            most,
            reason,
        } = self;
        write!(formatter, "{name}: {value} {unit} of {least} to {most}: {reason}")
    }
}

/// Slabs are not made smaller by choice: below it, head and rounding begin to count.
const SLAB_BYTES_LEAST: u64 = 64 << 10;
/// Chosen sizes are so many times the one below, as the memory for them is cut.
const SLAB_STEP: u64 = 4;
/// A slab takes what comes in so long, in milliseconds. A checkpoint writes the part of a slab that is there, and the next
/// one writes it anew: what a log gets in a minute bounds how often it is written before it stands in a slab.
const SLAB_SPAN_MS: u64 = 60_000;
/// A time shorter than this says nothing of a rate.
const SEEN_MS_LEAST: u64 = 1_000;
/// A slab is to hold so many messages at least.
const SLAB_MESSAGES_LEAST: u64 = 8;

/// What came into a log, and in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
    pub(crate) span_ms: u64,
}

impl Seen {
    fn message_bytes(&self) -> u64 {
        self.bytes.checked_div(self.messages).unwrap_or(0)
    }

    /// Bytes that come in the time of a slab; `None` if that cannot be told.
    fn bytes_a_slab(&self) -> Option<u64> {
        if self.span_ms < SEEN_MS_LEAST {
            return None;
        }
        let bytes = u128::from(self.bytes).saturating_mul(u128::from(SLAB_SPAN_MS));
        let bytes = bytes.checked_div(u128::from(self.span_ms))?;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// The least size of a slab where at most `most` are allowed.
fn slab_least(most: u64) -> u64 {
    SLAB_BYTES_LEAST.min(most)
}

/// How large the slabs of a log are to be into which that came.
fn slab_bytes(seen: &Seen, most: u64) -> u64 {
    let rate = seen.bytes_a_slab().filter(|_| !weakened!("slab-size-fixed"));
    let Some(by_rate) = rate else {
        return most;
    };
    let by_size = seen.message_bytes().saturating_mul(SLAB_MESSAGES_LEAST);
    let wanted = by_rate.max(by_size);
    let mut size = slab_least(most);
    while size < wanted && size < most {
        size = size.saturating_mul(SLAB_STEP).min(most);
    }
    size
}

/// The size of the slabs that a log gets, and what it was chosen for.
#[derive(Debug, Default)]
pub(crate) struct SlabSize {
    /// Boxed: most logs never fill a chunk.
    chosen: Mutex<Option<Box<(Seen, u64)>>>,
}

impl SlabSize {
    /// How large a full slab of the log is, where at most `most` are allowed: that, until something was seen.
    pub(crate) fn bytes(&self, most: u64) -> u64 {
        self.chosen.lock().as_ref().map_or(most, |chosen| chosen.1)
    }

    /// Chooses by what was seen lately; gives the size.
    pub(crate) fn choose(&self, seen: Seen, most: u64) -> u64 {
        let bytes = slab_bytes(&seen, most);
        *self.chosen.lock() = Some(Box::new((seen, bytes)));
        bytes
    }

    /// What was seen when the size was chosen.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.chosen.lock().as_ref().map(|chosen| chosen.0)
    }
}

/// The size of slabs as a choice by what was seen, if anything was.
pub(crate) fn slab_choice(seen: Option<Seen>, most: u64) -> Choice {
    let rate = seen.and_then(|seen| Some((seen, seen.bytes_a_slab()?)));
    let reason = match (&seen, rate) {
        (None, _) => "nothing has come yet: the most that is allowed".to_owned(),
        (Some(_), None) => "what came lately came within a second: the most that is allowed".to_owned(),
        (_, Some((seen, by_rate))) => format!(
            "{} messages of {} bytes came in {} ms, which is {by_rate} bytes a minute; a slab takes what comes in a minute, \
             and {SLAB_MESSAGES_LEAST} messages at least",
            seen.messages,
            seen.message_bytes(),
            seen.span_ms,
        ),
    };
    Choice {
        name: "slab_bytes",
        value: seen.map_or(most, |seen| slab_bytes(&seen, most)),
        unit: "bytes",
        least: slab_least(most),
        most,
        reason,
    }
}

/// How long the next commit waits for others, as a choice.
pub(crate) fn gather_choice(members: u64, latency_us: u64, wait_us: u64, most_us: u64) -> Choice {
    let reason = match wait_us {
        0 => format!("about {members} commits would share the next write: too few to wait for"),
        _ => format!(
            "about {members} commits share a write, and one takes {latency_us} microseconds: half of that at most is waited for \
             the others"
        ),
    };
    Choice {
        name: "commit_gather",
        value: wait_us,
        unit: "microseconds",
        least: 0,
        most: most_us,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 1 << 20;

    fn chosen(bytes: u64, messages: u64, span_ms: u64) -> u64 {
        let seen = Seen {
            bytes,
            messages,
            span_ms,
        };
        let choice = slab_choice(Some(seen), MOST);
        assert!((choice.least..=choice.most).contains(&choice.value), "{choice}");
        assert_eq!(SlabSize::default().choose(seen, MOST), choice.value);
        choice.value
    }

    #[test]
    fn slabs_take_what_comes_in_a_minute_within_their_limits() {
        assert_eq!(chosen(1_000, 10, 60_000), 64 << 10);
        assert_eq!(chosen(100_000, 1_000, 60_000), 256 << 10);
        assert_eq!(chosen(100_000, 1_000, 10_000), MOST);
        assert_eq!(chosen(u64::MAX, 1, u64::MAX), MOST);
        assert_eq!(chosen(0, 0, 60_000), 64 << 10);
    }

    #[test]
    fn slabs_of_large_messages_hold_some_of_them_however_slowly_they_come() {
        assert_eq!(chosen(30_000, 1, 3_600_000), 256 << 10);
        assert_eq!(chosen(300_000, 1, 36_000_000), MOST);
    }

    #[test]
    fn what_came_at_once_says_nothing_of_a_rate() {
        assert_eq!(chosen(10, 1, 999), MOST);
        assert_eq!(SlabSize::default().bytes(MOST), MOST);
        let choice = slab_choice(None, 4 << 10);
        assert_eq!((choice.value, choice.least), (4 << 10, 4 << 10));
    }
}
