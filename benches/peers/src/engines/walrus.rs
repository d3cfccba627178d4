//! walrus-rust: topics in files of 1 GB, written by `pwrite`, batches by `io_uring`.
//!
//! Set up by its README: the default backend of file descriptors; `NoFsync` where nothing is synced and `SyncEach` where every
//! append must last; reading `AtLeastOnce`, which its README names as the one for throughput, so that no read writes where it
//! stands (at the end of a topic it does all the same, with a sync, in every call that finds a message). `WALRUS_QUIET` as it asks for measurements. The directory comes by `WALRUS_DATA_DIR`: it reads no other setting.

use std::ops::Range;
use std::path::Path;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome, Reader, touch};

pub(crate) struct WalrusLog {
    wal: Walrus,
}

pub(crate) struct Topic<'e> {
    wal: &'e Walrus,
    name: String,
}

fn name(log: u64) -> String {
    format!("log-{log}")
}

/// A batch of reading; the README's limit is 2,000 entries.
const READ_BYTES: usize = 1 << 20;

impl Engine for WalrusLog {
    const NAME: &'static str = "walrus";
    const PACKAGE: &'static str = "walrus-rust";
    const READS_AGAIN: bool = false;
    const APPENDED_MEANS: &'static str = "in the page cache; every batch is synced, there is no other way";

    type Appender<'e> = Topic<'e>;
    type Reader<'e> = Topic<'e>;

    fn open(directory: &Path, mode: Mode) -> Outcome<Self> {
        let told = std::env::var_os("WALRUS_DATA_DIR");
        if told.as_deref() != Some(directory.as_os_str()) {
            return Err(Failure::because("WALRUS_DATA_DIR must be set for the process"));
        }
        let schedule = match mode {
            Mode::Fast | Mode::Keep => FsyncSchedule::NoFsync,
            Mode::Durable | Mode::ManyLogs => FsyncSchedule::SyncEach,
        };
        let reading = ReadConsistency::AtLeastOnce {
            persist_every: u32::MAX,
        };
        let wal = Walrus::with_consistency_and_schedule(reading, schedule)?;
        Ok(WalrusLog { wal })
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }

    fn appender(&self, log: u64) -> Outcome<Topic<'_>> {
        Ok(Topic {
            wal: &self.wal,
            name: name(log),
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let name = name(LOG);
        let (mut count, mut sum) = (0, 0_u64);
        loop {
            let entries = self.wal.batch_read_for_topic(&name, READ_BYTES, true)?;
            if entries.is_empty() {
                break;
            }
            for entry in &entries {
                sum = sum.wrapping_add(touch(&entry.data));
            }
            count += entries.len() as u64;
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Topic<'_>> {
        self.appender(LOG)
    }

    /// A batch is of one topic, so each topic pays its own sync.
    fn append_to_logs(&self, mut logs: Range<u64>, _round: u64, value: &[u8]) -> Outcome<()> {
        logs.try_for_each(|log| self.wal.append_for_topic(&name(log), value))?;
        Ok(())
    }
}

impl Appender for Topic<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        Ok(self.wal.append_for_topic(&self.name, value)?)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        Ok(self.wal.batch_append_for_topic(&self.name, values)?)
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.append(value)
    }

    fn sync(&mut self) -> Outcome<()> {
        Err(Failure::CannotDo("nothing syncs what was appended before"))
    }
}

impl Reader for Topic<'_> {
    fn get(&mut self, _number: u64, _visit: impl FnOnce(&[u8])) -> Outcome<()> {
        Err(Failure::CannotDo(
            "reads onwards only, from where a topic was read last",
        ))
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(entry) = self.wal.read_next(&self.name, true)? else {
            return Ok(false);
        };
        visit(&entry.data);
        Ok(true)
    }
}
