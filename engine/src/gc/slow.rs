//! Telling whoever embeds the store of readers that keep garbage from being given back.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lanterman_format::ids::Version;
use lanterman_format::weakened;
use parking_lot::Mutex;

use super::HeldBack;
use crate::core::Core;
use crate::slow_reader::{SlowReader, SlowReaderKind};

/// Who was seen and told of. Each reader is told of once.
#[derive(Debug, Default)]
pub(crate) struct SlowReaders {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Number of the newest pin that was told of: they hold garbage in their order.
    pin: Option<u64>,
    /// Processes with the version that they hold, since when that was seen, and whether it was told.
    processes: BTreeMap<(u64, u64), (Duration, bool)>,
}

impl Core {
    /// Tells of readers that hold back what `held` says, once they are old enough. Nothing is locked meanwhile, so that
    /// whoever is told may use the store.
    pub(super) fn tell_of_slow_readers(&self, held: &[HeldBack]) {
        let Some(watch) = &self.options.slow_readers else {
            return;
        };
        let now = self.clock.monotonic();
        let slow = {
            let mut seen = self.slow_readers.seen.lock();
            let mut slow = Vec::new();
            slow.extend(self.slow_pin(held, &mut seen, now, watch.age));
            slow.extend(slow_processes(held, &mut seen, now, watch.age));
            slow
        };
        for reader in &slow {
            if catch_unwind(AssertUnwindSafe(|| (watch.tell)(reader))).is_err() {
                tracing::error!(?reader, "whoever was told of a slow reader panicked");
            }
        }
    }

    /// The oldest pin, if it is to be told of.
    fn slow_pin(
        &self,
        held: &[HeldBack],
        seen: &mut Seen,
        now: Duration,
        age: Duration,
    ) -> Option<SlowReader> {
        let bytes = held.iter().find_map(|held| match held {
            HeldBack::Pins { bytes, .. } => Some(*bytes),
            _ => None,
        })?;
        let oldest = self.pins.first()?;
        let held_for = now.saturating_sub(oldest.since);
        if held_for < age && !weakened!("slow-at-once") || seen.pin.is_some_and(|told| told >= oldest.number)
        {
            return None;
        }
        seen.pin = Some(oldest.number);
        Some(SlowReader {
            reader: SlowReaderKind::Here(oldest.holder),
            version: oldest.version,
            age: held_for,
            held_bytes: Some(bytes),
        })
    }
}

fn slow_processes(held: &[HeldBack], seen: &mut Seen, now: Duration, age: Duration) -> Vec<SlowReader> {
    let there = held.iter().filter_map(|held| match held {
        HeldBack::Reader { process, version } => Some((*process, version.get())),
        _ => None,
    });
    let there: Vec<_> = there.collect();
    seen.processes.retain(|reader, _| there.contains(reader));
    let mut slow = Vec::new();
    for (process, version) in there {
        let (since, told) = seen.processes.entry((process, version)).or_insert((now, false));
        let held_for = now.saturating_sub(*since);
        if held_for >= age && !*told {
            *told = true;
            slow.push(SlowReader {
                reader: SlowReaderKind::Process(process),
                version: Version::new(version),
                age: held_for,
                held_bytes: None,
            });
        }
    }
    slow
}
