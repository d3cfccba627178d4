//! Who holds which version, and what of it: snapshots and cursors, each with the root that it reads.
//!
//! A pin is taken under the lock of the table, and the root that it keeps is loaded there. The collector looks at the
//! table, also under the lock, before it looks at the newest roots, and while it looks nobody edits a log. So whatever root
//! a reader goes on from, the collector has seen it or a newer one that reaches the same.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::ids::{LogId, Version};
use lanterman_format::weakened;

use crate::atomics::Mutex;
use crate::catalog::HeldCut;
use crate::log::Root;

/// What a pin keeps.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// Nothing but the version.
    #[cfg(test)]
    Version,
    /// One log's value.
    Root(Root),
    /// All logs in one version.
    Cut(Arc<HeldCut>),
}

/// What holds a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A [`crate::Cursor`] of the log.
    Cursor(LogId),
    /// A [`crate::Snapshot`] of the log.
    Snapshot(LogId),
    /// A [`crate::StoreSnapshot`].
    StoreSnapshot,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Cursor(log) => write!(formatter, "a cursor of log {log}"),
            Holder::Snapshot(log) => write!(formatter, "a snapshot of log {log}"),
            Holder::StoreSnapshot => formatter.write_str("a snapshot of all logs"),
        }
    }
}

/// One pin, as the table has it.
#[derive(Debug, Clone)]
struct Entry {
    kept: Kept,
    version: Version,
    holder: Holder,
    /// When it was taken, on the monotonic clock.
    since: Duration,
    /// The offset from which on a cursor still reads what is new in its log; none that there is for what holds a value still.
    reads_from: u64,
}

/// The pin that was taken first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstPin {
    /// Its number; later ones have higher numbers.
    pub(crate) number: u64,
    pub(crate) version: Version,
    pub(crate) holder: Holder,
    /// When it was taken, on the monotonic clock.
    pub(crate) since: Duration,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// How many pins have gone.
    gone: u64,
    pins: BTreeMap<u64, Entry>,
    /// How many pins hold each version.
    versions: BTreeMap<u64, u64>,
    /// How many of them hold all logs in it.
    cuts: BTreeMap<u64, u64>,
}

/// Counts one more holder of a version.
fn count(versions: &mut BTreeMap<u64, u64>, version: Version) {
    let count = versions.entry(version.get()).or_insert(0);
    if *count == 0 || !weakened!("pin-uncounted") {
        *count = count.saturating_add(1);
    }
}

/// Counts one holder of a version less.
fn uncount(versions: &mut BTreeMap<u64, u64>, version: Version) {
    if let Some(count) = versions.get_mut(&version.get()) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            versions.remove(&version.get());
        }
    }
}

/// Versions that are held, by how many, and what they keep.
#[derive(Debug, Default)]
pub(crate) struct PinTable {
    held: Mutex<Held>,
}

/// Holds one version for as long as it, or a clone of it, lives.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    inner: Arc<PinInner>,
}

#[derive(Debug)]
struct PinInner {
    table: Arc<PinTable>,
    number: u64,
    version: Version,
}

/// The oldest version that something of this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestPin {
    /// The version.
    pub version: Version,
    /// How many snapshots and cursors hold it.
    pub holders: u64,
    /// What has held it for the longest time.
    pub holder: Holder,
    /// For how long.
    pub age: Duration,
}

impl PinTable {
    /// Pins what `take` loads, under the lock of the table.
    pub(crate) fn pin_with<T>(
        self: &Arc<Self>,
        holder: Holder,
        since: Duration,
        reads_from: u64,
        take: impl FnOnce() -> (Version, Kept, T),
    ) -> (Pin, T) {
        let mut held = self.held.lock();
        let (version, kept, taken) = take();
        if matches!(kept, Kept::Cut(_)) {
            count(&mut held.cuts, version);
        }
        let number = held.next;
        held.next = number.wrapping_add(1);
        let entry = Entry {
            kept,
            version,
            holder,
            since,
            reads_from,
        };
        held.pins.insert(number, entry);
        count(&mut held.versions, version);
        drop(held);
        let inner = Arc::new(PinInner {
            table: Arc::clone(self),
            number,
            version,
        });
        (Pin { inner }, taken)
    }

    /// Pins a version alone.
    #[cfg(test)]
    pub(crate) fn pin(self: &Arc<Self>, version: Version) -> Pin {
        let holder = Holder::StoreSnapshot;
        self.pin_with(holder, Duration::ZERO, u64::MAX, || (version, Kept::Version, ()))
            .0
    }

    /// Whether a snapshot of all logs holds one of these versions.
    pub(crate) fn holds_cut(&self, versions: Range<Version>) -> bool {
        let Range { start, end } = versions;
        // A range whose end lies before its start is no range to ask a map for.
        start < end && {
            let held = self.held.lock();
            held.cuts.range(start.get()..end.get()).next().is_some()
        }
    }

    /// The oldest version that is held.
    #[cfg(test)]
    pub(crate) fn oldest_version(&self) -> Option<Version> {
        let held = self.held.lock();
        held.versions
            .first_key_value()
            .map(|(version, _)| Version::new(*version))
    }

    /// The oldest version that is held, and by whom, at the time `now`.
    pub(crate) fn oldest(&self, now: Duration) -> Option<OldestPin> {
        let held = self.held.lock();
        let (version, holders) = held.versions.first_key_value()?;
        let mut entries = held.pins.values();
        let entry = entries.find(|entry| entry.version.get() == *version)?;
        Some(OldestPin {
            version: entry.version,
            holders: *holders,
            holder: entry.holder,
            age: now.saturating_sub(entry.since),
        })
    }

    /// The pin that was taken before all others that are there, and so holds the oldest version.
    pub(crate) fn first(&self) -> Option<FirstPin> {
        let held = self.held.lock();
        held.pins.first_key_value().map(|(number, entry)| FirstPin {
            number: *number,
            version: entry.version,
            holder: entry.holder,
            since: entry.since,
        })
    }

    /// How many pins have gone so far, and the number of the first one that is there.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        let held = self.held.lock();
        (held.gone, held.pins.first_key_value().map(|(number, _)| *number))
    }

    /// The number that the next pin gets.
    pub(crate) fn next(&self) -> u64 {
        self.held.lock().next
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.held.lock().pins.len() as u64
    }

    /// Whether any pin with a lower number is still there.
    pub(crate) fn any_before(&self, number: u64) -> bool {
        let held = self.held.lock();
        held.pins
            .first_key_value()
            .is_some_and(|(first, _)| *first < number)
    }

    /// The offset from which on the slowest cursor of a log reads, or one before it; `u64::MAX` if there is none.
    pub(crate) fn slowest_cursor(&self, log: LogId) -> u64 {
        let held = self.held.lock();
        let cursors = held
            .pins
            .values()
            .filter(|entry| entry.holder == Holder::Cursor(log));
        cursors.map(|entry| entry.reads_from).min().unwrap_or(u64::MAX)
    }

    /// What all pins keep now.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.held
            .lock()
            .pins
            .values()
            .map(|entry| entry.kept.clone())
            .collect()
    }
}

impl Pin {
    pub(crate) fn version(&self) -> Version {
        self.inner.version
    }
}

impl Drop for PinInner {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        let kept = held.pins.remove(&self.number);
        held.gone = held.gone.wrapping_add(1);
        uncount(&mut held.versions, self.version);
        if kept
            .as_ref()
            .is_some_and(|entry| matches!(entry.kept, Kept::Cut(_)))
        {
            uncount(&mut held.cuts, self.version);
        }
        drop(held);
        // What it kept may be much; nobody waits for the table while it is given back.
        drop(kept);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pin_moves_on_when_its_last_holder_goes() {
        let table = Arc::new(PinTable::default());
        let old = table.pin(Version::new(3));
        let again = table.pin(Version::new(3));
        let _new = table.pin(Version::new(8));
        drop(old);
        assert_eq!(
            table
                .oldest(Duration::ZERO)
                .map(|pin| (pin.version.get(), pin.holders)),
            Some((3, 1))
        );
        drop(again);
        assert_eq!(table.oldest_version(), Some(Version::new(8)));
    }
}
