//! Lanterman itself: all options as they are when nobody sets them, files mapped; scans read ahead.

use std::ops::Range;
use std::path::Path;

use lanterman::{Cursor, Durability, NewMessage, Options, Prefetch, Store, Writer};

use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome, Reader, touch};

pub(crate) struct Lanterman {
    store: Store,
}

fn name(log: u64) -> String {
    format!("log {log}")
}

impl Engine for Lanterman {
    const NAME: &'static str = "Lanterman";
    const PACKAGE: &'static str = "lanterman";
    const APPENDED_MEANS: &'static str =
        "in the memory of the process; full slabs are on their way to the disk";

    type Appender<'e> = Writer;
    type Reader<'e> = Cursor;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        let store = lanterman_benches::data::open(&directory.join("store"), Options::new());
        Ok(Lanterman {
            store: store.map_err(Failure::Failed)?,
        })
    }

    fn close(self) -> Outcome<()> {
        Ok(self.store.close()?)
    }

    fn appender(&self, log: u64) -> Outcome<Writer> {
        Ok(self.store.writer(&name(log))?)
    }

    fn scan(&self) -> Outcome<u64> {
        // As the README recommends to who reads much, in order.
        let cursor = self.store.log(&name(LOG))?.cursor(0_u64)?;
        let mut cursor = cursor.with_prefetch(Prefetch::Automatic);
        let (mut count, mut sum) = (0, 0_u64);
        while let Some(message) = cursor.next()? {
            sum = sum.wrapping_add(touch(message.value()));
            count += 1;
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Cursor> {
        Ok(self.store.log(&name(LOG))?.cursor(0_u64)?)
    }

    fn append_to_logs(&self, logs: Range<u64>, _round: u64, value: &[u8]) -> Outcome<()> {
        self.store.transaction(|transaction| {
            logs.into_iter()
                .try_for_each(|log| transaction.append(&name(log), value))
        })?;
        Ok(())
    }
}

impl Appender for Writer {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        Writer::append(self, value)?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        Writer::append_batch(self, values.iter().map(|value| NewMessage::new(value)))?;
        Ok(())
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        Writer::append(self, value)?;
        self.commit(Durability::Disk)?;
        Ok(())
    }

    fn sync(&mut self) -> Outcome<()> {
        self.commit(Durability::Disk)?;
        Ok(())
    }
}

impl Reader for Cursor {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        visit(Cursor::get(self, number)?.value());
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(message) = Cursor::next(self)? else {
            return Ok(false);
        };
        visit(message.value());
        Ok(true)
    }
}
