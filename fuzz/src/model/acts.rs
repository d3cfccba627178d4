//! Commits, and what is done to the store as a whole.

use lanterman::{Durability, Error, ErrorKind, Result};

use super::{Driver, NAMES, trace};

impl Driver<'_> {
    pub(super) fn settled<T>(
        &mut self,
        numbers: impl Iterator<Item = usize>,
        durability: Durability,
        outcome: Result<T>,
    ) {
        trace!(self, "committed at {durability:?}: {:?}", outcome.as_ref().err());
        match outcome {
            Ok(_) => {
                for number in numbers {
                    let log = &mut self.logs[number];
                    log.committed = log.end();
                    if durability == Durability::Disk {
                        log.durable = log.end();
                        log.is_created |= log.end() > 0;
                    }
                }
            }
            Err(error) => self.expect_trouble(&error),
        }
        let store = self.store().clone();
        for information in store.logs() {
            let log = &self.logs[NAMES
                .iter()
                .position(|name| *name == information.name)
                .expect("only our logs")];
            let (committed, durable) = (information.committed_end.get(), information.durable_end.get());
            assert!(
                committed >= log.committed,
                "the committed end is behind what was acknowledged"
            );
            assert!(
                durable >= log.durable,
                "the durable end is behind what was acknowledged"
            );
        }
    }

    pub(super) fn commit(&mut self) {
        let Some(number) = self.writer() else { return };
        let durability = self.durability();
        trace!(self, "commit {number}");
        let outcome = self.writers[number]
            .as_mut()
            .expect("a writer was opened")
            .commit(durability);
        self.settled(std::iter::once(number), durability, outcome);
    }

    pub(super) fn commit_async(&mut self) {
        let Some(number) = self.writer() else { return };
        let durability = self.durability();
        let is_dropped = self.choices.one_in(3);
        trace!(self, "commit {number} later, dropped={is_dropped}");
        let future = self.writers[number]
            .as_mut()
            .expect("a writer was opened")
            .commit_async(durability);
        let outcome = match future {
            Ok(future) if is_dropped => {
                drop(future);
                return;
            }
            Ok(future) => future.wait(),
            Err(error) => Err(error),
        };
        self.settled(std::iter::once(number), durability, outcome);
    }

    pub(super) fn commit_all(&mut self) {
        let durability = self.durability();
        let outcome = self.store().commit_all(durability);
        self.settled(0..NAMES.len(), durability, outcome);
    }

    pub(super) fn checkpoint(&mut self) {
        let outcome = self.store().checkpoint();
        trace!(
            self,
            "checkpoint {:?}",
            outcome.as_ref().map(|receipt| receipt.is_some())
        );
        if let Err(error) = outcome {
            self.expect_trouble(&error);
        }
    }

    /// A step of what is done in the background, which may shorten logs and compact them.
    pub(super) fn work_in_background(&mut self) {
        let removed_bytes = self.store().counters().compaction_removed_bytes;
        let outcome = self.store().step();
        trace!(self, "step {outcome:?}");
        if let Err(error) = outcome {
            self.expect_trouble(&error);
        }
        if self.is_broken {
            for log in &mut self.logs {
                log.may_be_compacted |= log.is_keyed();
                log.may_be_retained |= log.settings.retention.is_some();
            }
            return;
        }
        (0..NAMES.len()).for_each(|number| self.take_up_retention(number));
        if self.store().counters().compaction_removed_bytes > removed_bytes {
            for number in 0..NAMES.len() {
                self.take_up_compaction(number);
            }
        }
    }

    pub(super) fn create_log(&mut self) {
        let number = self.choices.index(NAMES.len());
        let outcome = self.store().create_log(NAMES[number]);
        trace!(self, "create {number} {:?}", outcome.as_ref().err());
        match outcome {
            Ok(()) => self.logs[number].is_created = true,
            Err(error @ Error::LogExists { .. }) => assert!(error.kind() == ErrorKind::FixTheCall),
            Err(error) => self.expect_trouble(&error),
        }
    }

    pub(super) fn drop_writer(&mut self) {
        let number = self.choices.index(NAMES.len());
        self.writers[number] = None;
    }
}
