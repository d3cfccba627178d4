//! Deletion and retention, with ranges of all sorts.

use std::ops::Range;

use lanterman::{DeletionReceipt, Durability, Error, Result, Retention};

use super::log::ModelSettings;
use super::{Driver, NAMES, trace};

impl Driver<'_> {
    /// A range of a log's offsets: mostly a short one, sometimes a long one, one of nothing, or one that is refused.
    pub(super) fn range(&mut self, number: usize) -> Range<u64> {
        let end = self.logs[number].end();
        let first = self.choices.below(end + 1);
        match self.choices.below(8) {
            0 => first..first,
            1 => first..self.choices.below(end + 1),
            2 => first..end + self.choices.below(3),
            3 => 0..first,
            _ => first..(first + 1 + self.choices.below(60)).min(end),
        }
    }

    /// Whether the store must refuse a range.
    pub(super) fn is_refused(&self, number: usize, offsets: &Range<u64>) -> bool {
        offsets.start > offsets.end || offsets.end > self.logs[number].end()
    }

    pub(super) fn delete(&mut self) {
        let number = self.choices.index(NAMES.len());
        let offsets = self.range(number);
        let store = self.store().clone();
        let plan = store.plan_deletion(NAMES[number], offsets.clone());
        let outcome = store.delete(NAMES[number], offsets.clone());
        trace!(self, "delete {offsets:?} of {number}: {outcome:?}");
        if let (Ok(plan), Ok(receipt)) = (&plan, &outcome) {
            // Where a slab was cut before, its parts are counted in proportion; and a checkpoint may come between.
            let log = &self.logs[number];
            let is_counted = plan.is_exact && log.edits.is_empty();
            let shown = log.shown().filter(|offset| offsets.contains(offset)).count() as u64;
            assert!(
                plan.offsets == receipt.offsets && (!is_counted || plan.messages == shown),
                "planned {plan:?} and did {receipt:?}"
            );
        }
        self.edited(number, offsets, outcome);
    }

    pub(super) fn retain(&mut self) {
        let number = self.choices.index(NAMES.len());
        let end = self.logs[number].end();
        let limit = self.choices.below(end + 2);
        let (retention, is_exact) = match self.choices.below(3) {
            0 if limit > 0 => (Retention::new().max_messages(limit), false),
            1 => (Retention::new().max_bytes(limit * 100 + 1), false),
            _ => (Retention::new().from(limit), true),
        };
        // Where it goes by slabs, the plan says what one that fails may have done.
        let plan = self.store().plan_retention(NAMES[number], &retention);
        let outcome = self.store().retain(NAMES[number], &retention);
        trace!(self, "retain {retention:?} of {number}: {outcome:?}");
        let offsets = match &outcome {
            Ok(receipt) if !is_exact => {
                if self.logs[number].edits.is_empty() {
                    self.check_kept(number, &retention, receipt.offsets.end);
                }
                0..receipt.offsets.end
            }
            Err(_) if !is_exact => 0..plan.map_or(0, |plan| plan.offsets.end),
            _ => 0..limit,
        };
        self.edited(number, offsets, outcome);
    }

    /// What a limit names is kept from `start` on, if anything before goes. Parts of slabs are counted in proportion: where none
    /// was cut before, both limits are exact.
    fn check_kept(&self, number: usize, retention: &Retention, start: u64) {
        let log = &self.logs[number];
        let (mut messages, mut bytes) = (0, 0);
        for offset in start..log.end() {
            let message = log.at(offset);
            messages += 1;
            bytes += message.value.len() as u64 + message.key.as_ref().map_or(0, Vec::len) as u64;
        }
        assert!(
            start == 0
                || retention.max_messages.is_none_or(|most| messages >= most)
                    && retention.max_bytes.is_none_or(|most| bytes >= most),
            "{retention:?} keeps {messages} messages of {bytes} bytes, from {start} on"
        );
    }

    /// Sets what is kept of a log by the background.
    pub(super) fn set_retention(&mut self) {
        let number = self.choices.index(NAMES.len());
        let limit = 1 + self.choices.below(1000);
        let retention = match self.choices.below(4) {
            0 => None,
            1 => Some(Retention::new().max_bytes(limit * 100)),
            _ => Some(Retention::new().max_messages(limit)),
        };
        let outcome = self.store().set_retention(NAMES[number], retention.as_ref());
        trace!(
            self,
            "set {retention:?} of {number}: {:?}",
            outcome.as_ref().err()
        );
        if let Err(Error::UnknownLog { .. }) = outcome {
            self.expect_unknown(number);
            return;
        }
        let settings = ModelSettings {
            retention,
            ..self.logs[number].settings.clone()
        };
        self.settings_changed(number, settings, outcome);
    }

    /// Takes up what a retention that is set may have removed.
    pub(super) fn take_up_retention(&mut self, number: usize) {
        let Some(retention) = self.logs[number].settings.retention else {
            return;
        };
        let Ok(found) = self.store().log(NAMES[number]) else {
            return;
        };
        let log = &mut self.logs[number];
        let (start, was_whole) = (found.start().get(), log.edits.is_empty());
        let removed = log.retain(start);
        trace!(self, "retained {number} from {start}, {removed} are gone");
        self.retained += removed as usize;
        if removed > 0 && was_whole {
            self.check_kept(number, &retention, start);
        }
    }

    /// An edit that was durable, refused, or failed.
    pub(super) fn edited(&mut self, number: usize, offsets: Range<u64>, outcome: Result<DeletionReceipt>) {
        let is_refused = self.is_refused(number, &offsets);
        match outcome {
            Ok(receipt) => {
                assert!(!is_refused, "{offsets:?} must be refused");
                let was_whole = self.logs[number].edits.is_empty();
                let destroyed = self.logs[number].delete(offsets.clone(), true, true);
                assert!(
                    !receipt.is_exact || !was_whole || receipt.messages == destroyed,
                    "{destroyed} messages were destroyed: {receipt:?}"
                );
                if destroyed > 0 {
                    let log = &mut self.logs[number];
                    // Those before it are in versions before.
                    log.edits_are_durable();
                    log.committed = log.committed.max(offsets.end);
                    log.durable = log.durable.max(offsets.end);
                    log.is_created = true;
                }
                let none = std::iter::empty();
                self.settled(none, Durability::Disk, Ok(()));
            }
            Err(Error::InvalidRange { .. }) => assert!(is_refused, "{offsets:?} is refused"),
            Err(Error::UnknownLog { .. }) => {
                let log = &self.logs[number];
                assert!(
                    log.end() == 0 && !log.is_created,
                    "a log that has messages is unknown"
                );
            }
            Err(error) => {
                self.expect_trouble(&error);
                if self.is_broken {
                    // Its block may have reached the disk all the same.
                    self.logs[number].delete(offsets, false, false);
                }
            }
        }
    }
}
