//! Opening, closing, being killed and losing power.

use std::collections::BTreeSet;
use std::sync::Arc;

use lanterman::Options;
use lanterman::disk::{Fate, FaultyDisk, MemoryDisk};

use super::log::{ModelEdit, wholeness};
use super::{Driver, NAMES, PATH, trace};
use crate::choices::Seeded;

impl Driver<'_> {
    /// Opens the store, in one of the two ways.
    pub(super) fn open(&mut self) {
        let is_mapped = self.choices.byte() & 1 == 1;
        let options = self.options.clone().disk(self.faulty.clone());
        let opened = open_with(options, is_mapped);
        trace!(self, "open mapped={is_mapped} failed={:?}", opened.as_ref().err());
        self.store = Some(opened.unwrap_or_else(|error| panic!("opening failed: {error}")));
    }

    pub(super) fn close_and_reopen(&mut self) {
        self.reader = None;
        self.writers.iter_mut().for_each(|writer| *writer = None);
        let store = self.store.take().expect("open between acts");
        self.note_promises(&store);
        let outcome = store.close();
        trace!(self, "close {:?}", outcome.as_ref().err());
        if let Err(error) = outcome {
            // The process goes on to exit: what it had promised must still be there.
            self.expect_trouble(&error);
            if self.may_have_lost {
                self.cut_power(0, 0);
            } else {
                self.restart(false);
            }
            return;
        }
        for log in &mut self.logs {
            log.committed = log.end();
            log.durable = log.end();
            log.edits_are_durable();
        }
        if self.may_have_lost {
            self.cut_power(0, 0);
        } else {
            self.restart(false);
        }
    }

    /// A killed process or a power cut, with any choice of what was not synced yet.
    pub(super) fn crash(&mut self) {
        let is_power_cut = self.choices.byte() & 1 == 1 || self.may_have_lost;
        let how = self.choices.byte();
        let seed = self.choices.below(1 << 16);
        let store = self.store.take().expect("open between acts");
        self.note_promises(&store);
        trace!(self, "crash power_cut={is_power_cut} how={} seed={seed}", how % 4);
        // What the old process does while it ends happens to the old disk.
        if is_power_cut {
            self.cut_power(how, seed);
        } else {
            self.memory = Arc::new(self.memory.kill_image().expect("memory for an image"));
            self.restart(false);
        }
        drop(store);
    }

    fn cut_power(&mut self, how: u8, seed: u64) {
        let mut seeded = Seeded::new(seed);
        let image = self.memory.crash_image(|_, _| match how % 4 {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ => match seeded.below(16) {
                0 => Fate::Torn {
                    bytes: seeded.below(4096) as usize,
                },
                1..=7 => Fate::Lost,
                _ => Fate::Kept,
            },
        });
        self.memory = Arc::new(image.expect("memory for an image"));
        self.restart(true);
    }

    fn restart(&mut self, is_power_cut: bool) {
        self.faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&self.memory)));
        self.memory.set_space(None);
        self.is_space_limited = false;
        self.is_broken = false;
        self.may_have_lost = false;
        self.reader = None;
        self.writers.iter_mut().for_each(|writer| *writer = None);
        // Cursors and snapshots of the old process would read the old files; its snapshots are checked once more.
        self.cursors.clear();
        while !self.snapshots.is_empty() {
            self.check_snapshot_at(0);
            self.snapshots.remove(0);
        }
        self.open();
        self.compare_after_reopening(is_power_cut);
    }

    fn compare_after_reopening(&mut self, is_power_cut: bool) {
        let found = self.store().logs();
        assert!(
            found.iter().all(|log| NAMES.contains(&log.name.as_str())),
            "a log that nobody made"
        );
        let mut ends = vec![0; NAMES.len()];
        let mut edits = vec![0; NAMES.len()];
        let mut compacted = vec![None; NAMES.len()];
        let mut starts = vec![0; NAMES.len()];
        for (number, name) in NAMES.iter().enumerate() {
            let log = &self.logs[number];
            let promised = if is_power_cut { log.durable } else { log.committed };
            let Some(information) = found.iter().find(|found| found.name == *name) else {
                assert!(
                    promised == 0 && !log.is_created,
                    "log {name:?} is gone, {promised} messages were promised"
                );
                continue;
            };
            let end = information.end.get();
            assert!(
                end >= promised,
                "log {name:?} ends at {end}, {promised} messages were promised"
            );
            assert!(
                end <= log.end(),
                "log {name:?} ends at {end}, only {} were appended",
                log.end()
            );
            let torn = log
                .batches
                .iter()
                .find(|batch| batch.contains(&end) && batch.start != end);
            assert!(
                torn.is_none(),
                "log {name:?} ends at {end} within the batch {torn:?}"
            );
            (edits[number], compacted[number]) =
                self.edits_found(number, end, information.start.get(), is_power_cut);
            assert!(
                information.durable_end.get() == end,
                "log {name:?}: all that is found is durable"
            );
            ends[number] = end;
            if log.may_be_retained {
                starts[number] = information.start.get();
            }
        }
        for parts in &self.transactions {
            let whole = wholeness(parts, |log| ends[log], |log| edits[log]);
            assert!(
                whole.is_some(),
                "half a transaction: {parts:?} in logs that end at {ends:?}"
            );
        }
        self.transactions
            .retain(|parts| wholeness(parts, |log| ends[log], |log| edits[log]) == Some(true));
        for (number, name) in NAMES.iter().enumerate() {
            let is_there = found.iter().any(|found| found.name == *name);
            self.logs[number].cut(ends[number], edits[number]);
            self.logs[number].retain(starts[number]);
            if let Some(edit) = compacted[number].take() {
                self.logs[number].compact(edit);
            }
            self.logs[number].is_created = is_there;
            self.find_settings(number);
        }
        trace!(self, "reopened at {ends:?}");
        self.check_everything();
    }

    /// How many edits of a log were done, as what it shows says, and what a compaction removed when something failed.
    fn edits_found(
        &self,
        number: usize,
        end: u64,
        start: u64,
        is_power_cut: bool,
    ) -> (usize, Option<ModelEdit>) {
        let (name, log) = (NAMES[number], &self.logs[number]);
        let opened = self.store().log(name).expect("it is listed");
        let mut cursor = opened.cursor(0u64).expect("the start of a log");
        let mut shown = BTreeSet::new();
        while let Some(message) = cursor
            .next()
            .unwrap_or_else(|error| panic!("read {name:?} behind {:?}: {error}", shown.last()))
        {
            shown.insert(message.offset().get());
        }
        assert!(
            shown.first().is_none_or(|first| start <= *first) && start <= end,
            "log {name:?} starts at {start}, its first message is {:?}",
            shown.first()
        );
        // What a retention removed when something failed is known by where the log starts.
        let held = if log.may_be_retained { start } else { 0 }..end;
        let done = log.edits_done(&shown, &held, &|offset| self.marker_may_go(number, offset));
        let (done, compacted) = done.unwrap_or_else(|| {
            panic!(
                "log {name:?} ends at {end} and shows {shown:?}, which no number of its edits leaves: {:?}",
                log.edits
            )
        });
        let is_promised = |edit: &ModelEdit| {
            if is_power_cut {
                edit.is_durable
            } else {
                edit.is_committed
            }
        };
        let undone = log.edits[done..].iter().find(|edit| is_promised(edit));
        assert!(undone.is_none(), "log {name:?} has lost the edit {undone:?}");
        (done, compacted)
    }

    /// Takes the watermarks at their word.
    pub(super) fn note_promises(&mut self, store: &lanterman::Store) {
        for information in store.logs() {
            let number = NAMES
                .iter()
                .position(|name| *name == information.name)
                .expect("only our logs");
            let log = &mut self.logs[number];
            let (committed, durable) = (information.committed_end.get(), information.durable_end.get());
            assert!(
                committed <= log.end() && durable <= log.end(),
                "a watermark behind the end"
            );
            log.committed = log.committed.max(committed).max(durable);
            log.durable = log.durable.max(durable);
        }
    }
}

#[allow(
    unsafe_code,
    reason = "the door to mapped files; the disk is in memory and nobody else's"
)]
pub(super) fn open_with(options: Options, is_mapped: bool) -> lanterman::Result<lanterman::Store> {
    if is_mapped {
        // SAFETY: the files are in memory and no other program can reach them.
        unsafe { options.open(PATH) }
    } else {
        options.open_copying(PATH)
    }
}
