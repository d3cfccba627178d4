//! commitlog: segments of messages with an index in memory maps, one log a directory.
//!
//! Defaults: segments of 1 GB, an index of 100,000 entries to begin with. `flush` is not taken for a sync: of the messages it calls `File::flush`, which does nothing, so that nothing here
//! makes a message last a power cut. A log is one value that needs `&mut` to append, so threads share it behind a lock.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome, Reader, missing, touch};

type Shared = Arc<Mutex<CommitLog>>;

pub(crate) struct CommitLogs {
    directory: PathBuf,
    logs: Mutex<HashMap<u64, Shared>>,
}

pub(crate) struct OneLog {
    log: Shared,
    next: u64,
}

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Its default for one message; a batch is compared with it too, so it is raised for a hundred messages of 64 KiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A message of 1 KiB with its header, and not two.
const ONE_MESSAGE_BYTES: usize = 1_100;

const NOTHING_SYNCS: Failure = Failure::CannotDo("flush() syncs no message: File::flush does nothing");

fn locked<T>(mutex: &Mutex<T>) -> Outcome<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| Failure::because("poisoned"))
}

impl CommitLogs {
    fn log(&self, log: u64) -> Outcome<Shared> {
        let mut logs = locked(&self.logs)?;
        if let Some(open) = logs.get(&log) {
            return Ok(Arc::clone(open));
        }
        let mut options = LogOptions::new(self.directory.join(format!("log-{log}")));
        options.message_max_bytes(MESSAGE_BYTES_MAX);
        let open = Arc::new(Mutex::new(CommitLog::new(options)?));
        logs.insert(log, Arc::clone(&open));
        Ok(open)
    }
}

impl Engine for CommitLogs {
    const NAME: &'static str = "commitlog";
    const PACKAGE: &'static str = "commitlog";
    const APPENDED_MEANS: &'static str = "in the page cache";

    type Appender<'e> = OneLog;
    type Reader<'e> = OneLog;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        let logs = CommitLogs {
            directory: directory.to_path_buf(),
            logs: Mutex::default(),
        };
        logs.log(LOG)?;
        Ok(logs)
    }

    fn close(self) -> Outcome<()> {
        locked(&self.logs)?
            .values()
            .try_for_each(|log| Ok(locked(log)?.flush()?))
    }

    fn appender(&self, log: u64) -> Outcome<OneLog> {
        Ok(OneLog {
            log: self.log(log)?,
            next: 0,
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let log = self.log(LOG)?;
        let log = locked(&log)?;
        let (mut count, mut sum) = (0, 0_u64);
        loop {
            let messages = log.read(count, ReadLimit::max_bytes(READ_BYTES))?;
            let before = count;
            for message in messages.iter() {
                sum = sum.wrapping_add(touch(message.payload()));
                count += 1;
            }
            if count == before {
                break;
            }
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<OneLog> {
        self.appender(LOG)
    }

    fn append_to_logs(&self, _logs: Range<u64>, _round: u64, _value: &[u8]) -> Outcome<()> {
        Err(NOTHING_SYNCS)
    }
}

impl Appender for OneLog {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        locked(&self.log)?.append_msg(value)?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        let mut messages: MessageBuf = values.iter().copied().collect();
        locked(&self.log)?.append(&mut messages)?;
        Ok(())
    }

    fn append_durable(&mut self, _value: &[u8]) -> Outcome<()> {
        Err(NOTHING_SYNCS)
    }

    fn sync(&mut self) -> Outcome<()> {
        Err(NOTHING_SYNCS)
    }
}

impl Reader for OneLog {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let messages = locked(&self.log)?.read(number, ReadLimit::max_bytes(ONE_MESSAGE_BYTES))?;
        let message = messages.iter().next();
        visit(message.ok_or_else(|| missing(number))?.payload());
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let messages = {
            let log = locked(&self.log)?;
            if log.next_offset() <= self.next {
                return Ok(false);
            }
            log.read(self.next, ReadLimit::max_bytes(ONE_MESSAGE_BYTES))?
        };
        let message = messages.iter().next();
        visit(message.ok_or_else(|| missing(self.next))?.payload());
        self.next += 1;
        Ok(true)
    }
}
