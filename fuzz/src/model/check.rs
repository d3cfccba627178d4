//! Comparing what the engine answers with the model.

use lanterman::{Cursor, Error, ErrorKind};

use super::log::{ModelLog, wholeness};
use super::reopen::open_with;
use super::{Driver, HELD_MAX, HeldCursor, HeldSnapshot, NAMES, trace};

impl Driver<'_> {
    /// An error must be one that the disk explains; whether the store can go on follows from its kind.
    pub(super) fn expect_trouble(&mut self, error: &lanterman::Error) {
        match error.kind() {
            ErrorKind::FreeSpace => {
                assert!(self.is_space_limited, "the disk is full without a limit: {error}")
            }
            ErrorKind::Reopen | ErrorKind::System | ErrorKind::CheckTheDevice => {
                assert!(self.faulty.fired() > 0, "nothing failed below, and yet: {error}");
                self.is_broken = true;
            }
            kind => panic!("an error of kind {kind:?}: {error}"),
        }
    }

    /// Every message of every log, by a cursor, and the ends.
    pub(super) fn check_everything(&mut self) {
        if self.is_broken {
            return;
        }
        for (number, name) in NAMES.iter().enumerate() {
            let Ok(log) = self.store().log(name) else {
                assert!(
                    self.logs[number].end() == 0,
                    "log {name:?} is unknown and should have messages"
                );
                continue;
            };
            let wanted = &self.logs[number];
            assert!(
                log.end().get() == wanted.end(),
                "log {name:?} ends at {}, not {}",
                log.end(),
                wanted.end()
            );
            let mut cursor = log
                .cursor(0u64)
                .unwrap_or_else(|error| panic!("cursor on {name:?}: {error}"));
            read_all(&mut cursor, name, wanted, wanted.end());
            self.check_table(name, &log.snapshot(), wanted, wanted.end());
        }
    }

    pub(super) fn hold_snapshot(&mut self) {
        let number = self.choices.index(NAMES.len());
        let Ok(snapshot) = self.store().snapshot(NAMES[number]) else {
            return;
        };
        let wanted = &self.logs[number].messages;
        assert!(
            snapshot.end().get() == wanted.len() as u64,
            "a snapshot holds all that was appended"
        );
        trace!(self, "hold snapshot of {number} at {}", wanted.len());
        if self.snapshots.len() >= HELD_MAX {
            self.check_snapshot_at(0);
            self.snapshots.remove(0);
        }
        let wanted = self.logs[number].clone();
        self.snapshots.push(HeldSnapshot {
            snapshot,
            log: number,
            wanted,
        });
    }

    pub(super) fn check_snapshot(&mut self) {
        if !self.snapshots.is_empty() {
            let index = self.choices.index(self.snapshots.len());
            self.check_snapshot_at(index);
        }
    }

    pub(super) fn check_snapshot_at(&self, index: usize) {
        let held = &self.snapshots[index];
        let name = NAMES[held.log];
        let end = held.wanted.end();
        assert!(held.snapshot.end().get() == end, "the snapshot of {name:?} moved");
        let mut found = held.snapshot.range(..).expect("the whole range");
        for offset in held.wanted.shown() {
            let message = found
                .next()
                .unwrap_or_else(|| panic!("the snapshot of {name:?} lacks {offset}"));
            let message = message.unwrap_or_else(|error| panic!("snapshot of {name:?} at {offset}: {error}"));
            held.wanted.at(offset).check_kept(name, offset, &message);
        }
        assert!(
            found.next().is_none(),
            "the snapshot of {name:?} has more messages than it had"
        );
        let behind = held.snapshot.get(end).map(|_| ()).map_err(|error| error.kind());
        assert!(
            behind == Err(ErrorKind::FixTheCall),
            "a message behind the end of a snapshot"
        );
        // Whether a log is keyed is a matter of now; what was no table then is none.
        match (held.wanted.is_keyed(), self.logs[held.log].is_keyed()) {
            (true, true) | (false, false) => self.check_table(name, &held.snapshot, &held.wanted, end),
            (true, false) => assert!(held.snapshot.get_key(b"any").is_err(), "{name:?} is no table"),
            (false, true) => {}
        }
    }

    pub(super) fn hold_cursor(&mut self) {
        let number = self.choices.index(NAMES.len());
        let is_durable = self.choices.byte() & 1 == 1;
        let Ok(log) = self.store().log(NAMES[number]) else {
            return;
        };
        let end = if is_durable {
            log.information().durable_end.get()
        } else {
            self.logs[number].end()
        };
        let next = self.choices.below(end + 1);
        let cursor = if is_durable {
            log.durable_cursor(next)
        } else {
            log.cursor(next)
        };
        let cursor = cursor.unwrap_or_else(|error| panic!("cursor at {next} of {end}: {error}"));
        let behind = if is_durable {
            log.durable_cursor(end + 1)
        } else {
            log.cursor(end + 1)
        };
        assert!(
            behind.is_err_and(|error| error.kind() == ErrorKind::FixTheCall),
            "a cursor behind the end"
        );
        trace!(self, "hold cursor on {number} at {next} durable={is_durable}");
        if self.cursors.len() >= HELD_MAX {
            self.cursors.remove(0);
        }
        self.cursors.push(HeldCursor {
            cursor,
            log: number,
            next,
            is_durable,
            edits: self.logs[number].edits.len(),
        });
    }

    /// A held cursor reads on, to the end or a little.
    pub(super) fn follow(&mut self) {
        if self.cursors.is_empty() {
            return;
        }
        let index = self.choices.index(self.cursors.len());
        let mut left = match self.choices.byte() {
            0..=127 => u64::MAX,
            few => u64::from(few & 15),
        };
        let durable_end = |held: &HeldCursor| {
            let log = self
                .store
                .as_ref()
                .and_then(|store| store.log(NAMES[held.log]).ok());
            log.map_or(0, |log| log.information().durable_end.get())
        };
        let limit = durable_end(&self.cursors[index]);
        let held = &mut self.cursors[index];
        trace!(self, "follow {} from {}", held.log, held.next);
        let (name, wanted) = (NAMES[held.log], &self.logs[held.log]);
        while left > 0 {
            let Some(message) = held
                .cursor
                .next()
                .unwrap_or_else(|error| panic!("follow {name:?}: {error}"))
            else {
                let end = if held.is_durable { limit } else { wanted.end() };
                let missed = (held.next..end).find(|offset| !wanted.is_deleted(*offset));
                assert!(
                    missed.is_none() && held.next <= end.max(limit),
                    "a cursor of {name:?} stops at {} before {missed:?}, the end is {end}",
                    held.next
                );
                return;
            };
            let offset = message.offset().get();
            let passed = (held.next..offset).find(|passed| !wanted.is_deleted(*passed));
            assert!(
                held.next <= offset && passed.is_none(),
                "a cursor of {name:?} passes over {passed:?} to {offset}"
            );
            assert!(
                !wanted.is_deleted_by(held.edits, offset),
                "a cursor of {name:?} shows {offset}, which was deleted before it was made"
            );
            assert!(
                !held.is_durable || offset < limit,
                "a durable cursor of {name:?} reads what is not durable"
            );
            assert!(offset < wanted.end(), "a cursor of {name:?} reads behind the end");
            wanted.at(offset).check(name, offset, &message);
            held.next = offset + 1;
            left -= 1;
        }
    }

    pub(super) fn get_some(&mut self) {
        let number = self.choices.index(NAMES.len());
        let Ok(log) = self.store().log(NAMES[number]) else {
            return;
        };
        let mut cursor = log.cursor(0u64).expect("the start of a log");
        let end = self.logs[number].end();
        let mut offsets = Vec::new();
        for _ in 0..8 {
            let offset = self.choices.below(end + 2);
            let found = cursor.get(offset);
            if offset >= end {
                assert!(
                    found.is_err_and(|error| error.kind() == ErrorKind::FixTheCall),
                    "a message behind the end"
                );
                continue;
            }
            if self.logs[number].is_deleted(offset) {
                check_deleted(found.map(|_| ()), &self.logs[number], offset);
                let many = log.snapshot().get_many(&[offset]).map(|_| ());
                check_deleted(many, &self.logs[number], offset);
                continue;
            }
            offsets.push(offset);
            let found = found.unwrap_or_else(|error| panic!("get {offset} of {end}: {error}"));
            self.logs[number].at(offset).check(NAMES[number], offset, &found);
        }
        let many = log.snapshot().get_many(&offsets).expect("offsets below the end");
        for (offset, found) in offsets.iter().zip(&many) {
            self.logs[number]
                .at(*offset)
                .check_kept(NAMES[number], *offset, found);
        }
    }

    /// All logs in one version: only committed messages, transactions whole.
    pub(super) fn snapshot_all(&mut self) {
        let all = self.store().snapshot_all();
        let mut ends = vec![0; NAMES.len()];
        for (number, name) in NAMES.iter().enumerate() {
            let Ok(snapshot) = all.log(name) else {
                assert!(
                    self.logs[number].committed == 0,
                    "{name:?} is missing in the newest version"
                );
                continue;
            };
            ends[number] = snapshot.end().get();
            let wanted = &self.logs[number];
            assert!(
                ends[number] >= wanted.committed,
                "the newest version lacks committed messages of {name:?}"
            );
            assert!(
                ends[number] <= wanted.end(),
                "the newest version has more of {name:?} than was appended"
            );
            let mut cursor = snapshot.cursor(0u64).expect("the start");
            read_all(&mut cursor, name, wanted, ends[number]);
            self.check_table(name, &snapshot, wanted, ends[number]);
        }
        for parts in &self.transactions {
            let edits = |log: usize| self.logs[log].edits.len();
            assert!(
                wholeness(parts, |log| ends[log], edits).is_some(),
                "a version with half a transaction"
            );
        }
    }

    /// A second handle, read-only, beside the writer: kept and refreshed, or opened afresh.
    pub(super) fn read_beside(&mut self) {
        let store = self.store.clone().expect("open between acts");
        self.note_promises(&store);
        if self.reader.is_none() {
            let is_mapped = self.choices.byte() & 1 == 1;
            let options = self.options.clone().read_only(true).disk(self.memory.clone());
            let reader =
                open_with(options, is_mapped).unwrap_or_else(|error| panic!("open read-only: {error}"));
            self.reader = Some(reader);
            trace!(self, "open a reader mapped={is_mapped}");
        }
        let reader = self.reader.as_ref().expect("opened above");
        let refreshed = reader.refresh();
        trace!(self, "refresh {refreshed:?}");
        refreshed.unwrap_or_else(|error| panic!("refresh: {error}"));
        let mut ends = vec![0; NAMES.len()];
        for (number, name) in NAMES.iter().enumerate() {
            let wanted = &self.logs[number];
            let Ok(log) = reader.log(name) else {
                assert!(
                    wanted.committed == 0,
                    "a reader beside the writer does not know {name:?}"
                );
                continue;
            };
            ends[number] = log.end().get();
            let (end, committed) = (ends[number], wanted.committed);
            assert!(
                end >= committed,
                "a reader sees {name:?} to {end}, {committed} are committed"
            );
            assert!(
                end <= wanted.end(),
                "a reader sees more of {name:?} than was appended"
            );
            let mut cursor = log.cursor(0u64).expect("the start of a log");
            read_all(&mut cursor, name, wanted, end);
            self.check_table(name, &log.snapshot(), wanted, end);
        }
        for parts in &self.transactions {
            let edits = |log: usize| self.logs[log].edits.len();
            assert!(
                wholeness(parts, |log| ends[log], edits).is_some(),
                "a reader sees half a transaction"
            );
        }
        if self.choices.one_in(3) {
            self.reader = None;
        }
    }
}

/// An offset that was deleted says so, and names none that was not.
pub(super) fn check_deleted(found: lanterman::Result<()>, wanted: &ModelLog, offset: u64) {
    match found {
        Err(Error::Deleted { run, .. }) => assert!(
            run.contains(&offset) && run.clone().all(|offset| wanted.is_deleted(offset)),
            "{offset} is in a run {run:?} of messages of which some are not deleted"
        ),
        Err(error) => panic!("{offset} was deleted and answers: {error}"),
        Ok(()) => panic!("{offset} was deleted and is there"),
    }
}

/// Reads from the start, compares, and expects the end at `end`.
fn read_all(cursor: &mut Cursor, name: &str, wanted: &ModelLog, end: u64) {
    for offset in wanted.shown().take_while(|offset| *offset < end) {
        let found = cursor
            .next()
            .unwrap_or_else(|error| panic!("read {name:?} at {offset}: {error}"));
        let found = found.unwrap_or_else(|| panic!("{name:?} ends at {offset}, not at {end}"));
        wanted.at(offset).check(name, offset, &found);
    }
    assert!(
        cursor.next().expect("the end").is_none(),
        "{name:?} has more than {end} messages"
    );
}
