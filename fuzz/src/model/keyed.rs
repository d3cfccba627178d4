//! Keyed logs as tables: messages that supersede each other, looking for keys, compaction.

use std::collections::BTreeSet;

use lanterman::{Error, Snapshot, ValueType};

use super::expected::Expected;
use super::log::ModelLog;
use super::{APPEND_BYTES_MAX, Driver, NAMES, trace};
use crate::choices::Seeded;

/// How many different keys most messages have, so that they supersede each other.
const KEYS_FEW: u64 = 24;
/// How many they have where the newest of each are to fill slabs.
const KEYS_MANY: u64 = 800;

impl Driver<'_> {
    /// A log, mostly one that is keyed or has rules.
    fn demanding_log(&mut self) -> usize {
        let choice = self.choices.byte() as usize;
        let demanding: Vec<usize> = (0..NAMES.len())
            .filter(|number| self.logs[*number].is_keyed() || self.logs[*number].settings.rules.is_some())
            .collect();
        if demanding.is_empty() || choice >= 200 {
            return choice % NAMES.len();
        }
        demanding[choice % demanding.len()]
    }

    /// Fewer messages than `most`, with so many different keys.
    fn structured(&mut self, most: u64, keys: u64) -> Vec<Expected> {
        let mut seeded = Seeded::new(self.choices.below(1 << 16));
        let mut messages = Vec::new();
        for _ in 0..self.choices.below(most) {
            let now_ms = self.clock.now_ms();
            let message = Expected::structured(&mut seeded, keys, self.number(), now_ms);
            self.appended_bytes += message.value.len();
            if self.appended_bytes > APPEND_BYTES_MAX {
                break;
            }
            messages.push(message);
        }
        messages
    }

    pub(super) fn put(&mut self) {
        let number = self.demanding_log();
        let messages = self.structured(100, KEYS_FEW);
        self.put_all(number, messages);
    }

    /// So many messages of so many keys that a compaction has slabs to choose from.
    pub(super) fn put_many(&mut self) {
        let number = self.demanding_log();
        let messages = self.structured(1500, KEYS_MANY);
        self.put_all(number, messages);
    }

    fn put_all(&mut self, number: usize, messages: Vec<Expected>) {
        if !self.writer_of(number) {
            return;
        }
        trace!(self, "put {} into {number}", messages.len());
        for message in messages {
            self.append_one(number, message);
            if self.is_broken {
                return;
            }
        }
    }

    pub(super) fn put_together(&mut self) {
        let number = self.demanding_log();
        let messages = self.structured(20, KEYS_FEW);
        if self.writer_of(number) {
            trace!(self, "put a batch of {} into {number}", messages.len());
            self.append_together(number, messages);
        }
    }

    pub(super) fn put_in_a_transaction(&mut self) {
        let durability = self.durability();
        let messages = self.structured(12, KEYS_FEW);
        let messages = messages
            .into_iter()
            .map(|message| (self.demanding_log(), message))
            .collect();
        self.transact(messages, Vec::new(), durability, false);
    }

    /// Looks into a keyed log and into a snapshot.
    pub(super) fn look_up(&mut self) {
        let number = self.demanding_log();
        let choice = self.choices.index(super::HELD_MAX);
        if let Ok(snapshot) = self.store().snapshot(NAMES[number]) {
            let wanted = &self.logs[number];
            self.check_table(NAMES[number], &snapshot, wanted, wanted.end());
        }
        if choice < self.snapshots.len() {
            self.check_snapshot_at(choice);
        }
    }

    /// Compacts a log: all that is superseded goes, and nothing else.
    pub(super) fn compact(&mut self) {
        let number = self.demanding_log();
        let outcome = self.store().compact(NAMES[number]);
        trace!(self, "compact {number}: {outcome:?}");
        match outcome {
            Ok(receipt) => {
                let removed = self.take_up_compaction(number);
                assert!(
                    receipt.removed == removed,
                    "{removed} messages are gone: {receipt:?}"
                );
                let end = self.logs[number].end();
                match self.store().plan_compaction(NAMES[number]) {
                    Ok(plan) => assert!(
                        plan.superseded == 0 && plan.keys == self.logs[number].table(end).len() as u64,
                        "compacted, and there is more: {plan:?}"
                    ),
                    Err(error) => self.expect_trouble(&error),
                }
            }
            Err(Error::NotKeyed { .. }) => {
                assert!(!self.logs[number].is_keyed(), "a keyed log is not keyed");
            }
            Err(Error::UnknownLog { .. }) => self.expect_unknown(number),
            Err(error) => {
                self.expect_trouble(&error);
                if self.is_broken {
                    self.logs[number].may_be_compacted = true;
                } else {
                    // What is done is done.
                    self.take_up_compaction(number);
                }
            }
        }
    }

    /// Time passes, so that markers may go and the background looks for work.
    pub(super) fn pass_time(&mut self) {
        let seconds = match self.choices.byte() {
            0..=99 => 2 * super::settings::GRACE.as_secs(),
            few => u64::from(few) / 10,
        };
        trace!(self, "{seconds} seconds pass");
        self.clock.advance_ms(seconds * 1000);
        for _ in 0..self.choices.below(8) {
            if !self.is_broken {
                self.work_in_background();
            }
        }
    }

    /// Compares what a log shows with the model, and takes up what a compaction may have removed; gives how many messages
    /// those are.
    pub(super) fn take_up_compaction(&mut self, number: usize) -> u64 {
        let Ok(found) = self.store().log(NAMES[number]) else {
            return 0;
        };
        let log = &self.logs[number];
        if !log.is_keyed() {
            return 0;
        }
        let mut cursor = found.cursor(0u64).expect("the start of a log");
        let mut shown = BTreeSet::new();
        while let Some(message) = cursor.next().expect("what is in a log can be read") {
            shown.insert(message.offset().get());
        }
        drop(cursor);
        let is_unread = |offset: u64| {
            let mut cursors = self.cursors.iter();
            self.reader.is_some() || cursors.any(|held| held.log == number && held.next <= offset)
        };
        let may_go = |offset: u64| self.marker_may_go(number, offset) && !is_unread(offset);
        let removed = log.compacted(log.edits.len(), 0..log.end(), &shown, &may_go);
        match removed.unwrap_or_else(|broken| panic!("log {:?}: {broken}", NAMES[number])) {
            Some(edit) => {
                let removed = self.logs[number].compact(edit);
                self.compacted += removed as usize;
                removed
            }
            None => 0,
        }
    }

    /// Whether the time is over for which a delete marker is kept.
    pub(super) fn marker_may_go(&self, number: usize, offset: u64) -> bool {
        let log = &self.logs[number];
        let age_ms = self.clock.now_ms() - log.at(offset).made_ms;
        log.settings
            .keyed
            .is_some_and(|keyed| age_ms >= keyed.marker_grace.as_millis() as i64)
    }
}

impl Driver<'_> {
    /// Compares a keyed log with its table: each key, all keys in order, and parts of them.
    pub(super) fn check_table(&self, name: &str, snapshot: &Snapshot, wanted: &ModelLog, end: u64) {
        let missing = snapshot.get_key(b"no key at all");
        if !wanted.is_keyed() {
            assert!(
                matches!(missing, Err(Error::NotKeyed { .. })),
                "{name:?} is no table"
            );
            return;
        }
        assert!(missing.expect("a look-up").is_none(), "{name:?} has any key");
        let table = wanted.table(end);
        for (key, offset) in &table {
            let found = snapshot.get_key(key);
            let found = found.unwrap_or_else(|error| panic!("{name:?}, key {key:?} at {offset}: {error}"));
            let message = wanted.at(*offset);
            assert!(
                found.is_some() == (message.value_type != ValueType::NIL),
                "{name:?} has of key {key:?}, which is at {offset}: {found:?}"
            );
            if let Some(found) = found {
                message.check_kept(name, *offset, &found);
                self.keys_found.set(self.keys_found.get() + 1);
            }
        }
        let within = |is_within: &dyn Fn(&[u8]) -> bool| -> Vec<u64> {
            let live = table
                .iter()
                .filter(|(key, offset)| is_within(key) && wanted.at(**offset).value_type != ValueType::NIL);
            live.map(|(_, offset)| *offset).collect()
        };
        let check = |how: &str, scan: lanterman::KeyScan, offsets: Vec<u64>| {
            let mut found = Vec::new();
            for message in scan {
                let message = message.unwrap_or_else(|error| panic!("{name:?}, {how}: {error}"));
                let offset = message.offset().get();
                assert!(offset < end, "{name:?}, {how}: {offset} is behind the end {end}");
                wanted.at(offset).check_kept(name, offset, &message);
                found.push(offset);
            }
            assert!(
                found == offsets,
                "{name:?}, {how}: found {found:?}, wanted {offsets:?}"
            );
        };
        let scan = snapshot.scan_keys(..).expect("a scan");
        check("all keys", scan, within(&|_| true));
        let scan = snapshot.scan_prefix(b"key 1").expect("a scan");
        check("a prefix", scan, within(&|key| key.starts_with(b"key 1")));
        let range = b"a key".as_slice()..b"key 3".as_slice();
        let scan = snapshot.scan_keys(range.clone()).expect("a scan");
        check("a range", scan, within(&|key| range.contains(&key)));
    }
}
