//! okaywal: one log in preallocated segments, which are given to the user at a checkpoint and then used again.
//!
//! Its documentation asks for a checkpoint well before the preallocated bytes are used up: the defaults' three quarters are kept, at 64 MiB instead of 1 MiB, because the defaults are for entries of a few
//! hundred bytes. Where messages must be kept there is no checkpoint, since what was checkpointed is gone. A log is read when it is
//! recovered, by the manager that the user gives, so a scan here is a recovery.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogPosition, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::engine::{Appender, Engine, Failure, Mode, Outcome, Reader, missing, touch};

pub(crate) struct Okay {
    directory: PathBuf,
    mode: Mode,
    /// Opened when it is known whether it is read or written.
    wal: OnceLock<WriteAheadLog>,
}

/// What recovery found.
#[derive(Debug, Default)]
struct Found {
    positions: Vec<LogPosition>,
    sum: u64,
}

/// Touches all that is recovered, and notes where it is.
#[derive(Debug)]
struct Manager {
    found: Arc<Mutex<Found>>,
    value: Vec<u8>,
}

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut found = self.found.lock().map_err(|_| io::Error::other("poisoned"))?;
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            found.positions.push(chunk.log_position());
            self.value.clear();
            chunk.read_to_end(&mut self.value)?;
            found.sum = found.sum.wrapping_add(touch(&self.value));
            if !chunk.check_crc()? {
                return Err(io::Error::other("a checksum is wrong"));
            }
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Okay {
    fn recover(&self) -> Outcome<(WriteAheadLog, Arc<Mutex<Found>>)> {
        let found = Arc::default();
        let manager = Manager {
            found: Arc::clone(&found),
            value: Vec::new(),
        };
        let checkpoint_after_bytes = match self.mode {
            Mode::Keep => u64::MAX,
            _ => 48 << 20,
        };
        let configuration = Configuration::default_for(&self.directory)
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(checkpoint_after_bytes);
        Ok((configuration.open(manager)?, found))
    }

    fn wal(&self) -> Outcome<&WriteAheadLog> {
        if self.wal.get().is_none() {
            // Nobody else opens it: one thread asks for the first appender.
            let _ = self.wal.set(self.recover()?.0);
        }
        self.wal
            .get()
            .ok_or_else(|| Failure::because("the log is not open"))
    }
}

impl Engine for Okay {
    const NAME: &'static str = "okaywal";
    const PACKAGE: &'static str = "okaywal";
    const APPENDED_MEANS: &'static str = "on the disk: every commit waits for a sync";

    type Appender<'e> = &'e WriteAheadLog;
    type Reader<'e> = Positions;

    fn open(directory: &Path, mode: Mode) -> Outcome<Self> {
        Ok(Okay {
            directory: directory.join("wal"),
            mode,
            wal: OnceLock::new(),
        })
    }

    fn close(self) -> Outcome<()> {
        match self.wal.into_inner() {
            Some(wal) => Ok(wal.shutdown()?),
            None => Ok(()),
        }
    }

    fn appender(&self, _log: u64) -> Outcome<&WriteAheadLog> {
        self.wal()
    }

    fn scan(&self) -> Outcome<u64> {
        let (wal, found) = self.recover()?;
        wal.shutdown()?;
        let found = found.lock().map_err(|_| Failure::because("poisoned"))?;
        std::hint::black_box(found.sum);
        Ok(found.positions.len() as u64)
    }

    fn reader(&self) -> Outcome<Positions> {
        let (wal, found) = self.recover()?;
        let mut found = found.lock().map_err(|_| Failure::because("poisoned"))?;
        Ok(Positions {
            wal,
            positions: std::mem::take(&mut found.positions),
            value: Vec::new(),
        })
    }

    fn append_to_logs(&self, _logs: Range<u64>, _round: u64, _value: &[u8]) -> Outcome<()> {
        Err(Failure::CannotDo(
            "one log a directory, each with a thread of its own",
        ))
    }
}

impl Appender for &WriteAheadLog {
    fn append(&mut self, _value: &[u8]) -> Outcome<()> {
        Err(Failure::CannotDo(
            "every commit waits for a sync; see the durable rows",
        ))
    }

    /// One entry of as many chunks, synced.
    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        let mut entry = self.begin_entry()?;
        for value in values {
            entry.write_chunk(value)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.append_batch(&[value])
    }

    fn sync(&mut self) -> Outcome<()> {
        Ok(())
    }
}

/// The positions of all messages, which a user of this log keeps by himself.
pub(crate) struct Positions {
    wal: WriteAheadLog,
    positions: Vec<LogPosition>,
    value: Vec<u8>,
}

impl Reader for Positions {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let position = usize::try_from(number).ok().and_then(|at| self.positions.get(at));
        let mut chunk = self.wal.read_at(*position.ok_or_else(|| missing(number))?)?;
        self.value.clear();
        chunk.read_to_end(&mut self.value)?;
        visit(&self.value);
        Ok(())
    }

    fn next(&mut self, _visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        Err(Failure::CannotDo(
            "read at recovery, or at a position that the writer tells",
        ))
    }
}
