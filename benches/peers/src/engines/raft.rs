//! raft-engine: entries of many groups in one stream of files, with where they are in memory.
//!
//! Defaults (files of 128 MB, recycled), and no compression, as in its example `append_compact_purge`: these payloads do not
//! compress. An entry must be a message of protobuf with an index; of those that the protobuf crate itself brings, this one has
//! a number and bytes, as the entries of Raft do.

use std::ops::Range;
use std::path::Path;

use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine as Raft, LogBatch, MessageExt, ReadableSize};

use crate::engine::{Appender, Engine, LOG, Mode, Outcome, Reader, missing, touch};

pub(crate) struct RaftLog {
    engine: Raft,
}

pub(crate) struct Group<'e> {
    engine: &'e Raft,
    batch: LogBatch,
    group: u64,
    next: u64,
}

/// How an entry is found in its message.
struct Indexed;

impl MessageExt for Indexed {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

/// Entries read at once.
const READ_ENTRIES: u64 = 1024;

fn entry(index: u64, value: &[u8]) -> UninterpretedOption {
    let mut entry = UninterpretedOption::new();
    entry.set_positive_int_value(index);
    entry.set_string_value(value.to_vec());
    entry
}

/// Groups are counted from 1: 0 belongs to no region in TiKV.
fn group(log: u64) -> u64 {
    log + 1
}

impl Engine for RaftLog {
    const NAME: &'static str = "raft-engine";
    const PACKAGE: &'static str = "raft-engine";
    const APPENDED_MEANS: &'static str = "in the page cache";

    type Appender<'e> = Group<'e>;
    type Reader<'e> = Group<'e>;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        let config = Config {
            dir: directory.join("raft").to_string_lossy().into_owned(),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        Ok(RaftLog {
            engine: Raft::open(config)?,
        })
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }

    fn appender(&self, log: u64) -> Outcome<Group<'_>> {
        Ok(Group {
            engine: &self.engine,
            batch: LogBatch::default(),
            group: group(log),
            next: 0,
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let group = group(LOG);
        let Some(last) = self.engine.last_index(group) else {
            return Ok(0);
        };
        let mut sum = 0_u64;
        let mut entries = Vec::new();
        for first in (0..=last).step_by(READ_ENTRIES as usize) {
            entries.clear();
            let end = (first + READ_ENTRIES).min(last + 1);
            self.engine
                .fetch_entries_to::<Indexed>(group, first, end, None, &mut entries)?;
            for entry in &entries {
                sum = sum.wrapping_add(touch(entry.get_string_value()));
            }
        }
        std::hint::black_box(sum);
        Ok(last + 1)
    }

    fn reader(&self) -> Outcome<Group<'_>> {
        self.appender(LOG)
    }

    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()> {
        let mut batch = LogBatch::default();
        for log in logs {
            batch.add_entries::<Indexed>(group(log), &[entry(round, value)])?;
        }
        self.engine.write(&mut batch, true)?;
        Ok(())
    }
}

impl Group<'_> {
    fn write(&mut self, values: &[&[u8]], sync: bool) -> Outcome<()> {
        let entries: Vec<_> = values
            .iter()
            .zip(self.next..)
            .map(|(value, index)| entry(index, value))
            .collect();
        self.batch.add_entries::<Indexed>(self.group, &entries)?;
        self.engine.write(&mut self.batch, sync)?;
        self.next += values.len() as u64;
        Ok(())
    }
}

impl Appender for Group<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.write(&[value], false)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        self.write(values, false)
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.write(&[value], true)
    }

    /// `Engine::sync` writes an empty batch, which returns before it syncs; so something small is written with a sync.
    fn sync(&mut self) -> Outcome<()> {
        self.batch.put(self.group, b"synced".to_vec(), Vec::new())?;
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }
}

impl Reader for Group<'_> {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let found = self.engine.get_entry::<Indexed>(self.group, number)?;
        visit(found.ok_or_else(|| missing(number))?.get_string_value());
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(found) = self.engine.get_entry::<Indexed>(self.group, self.next)? else {
            return Ok(false);
        };
        visit(found.get_string_value());
        self.next += 1;
        Ok(true)
    }
}
