//! fjall as a log: keys are log and number, values are messages.
//!
//! Values are separated from keys, which its documentation recommends for large values; its own threshold of 1 KiB decides which are. A cache of 1 GiB.
//! Without compression, since these payloads do not compress. Durable writes by `persist(SyncData)`, which its documentation
//! allows where `fdatasync` is enough.

use std::ops::Range;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::engine::{Appender, Engine, LOG, Mode, Outcome, Reader, key, missing, touch};

pub(crate) struct Fjall {
    database: Database,
    messages: Keyspace,
}

pub(crate) struct Prefix<'e> {
    fjall: &'e Fjall,
    log: u64,
    next: u64,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";
    const PACKAGE: &'static str = "fjall";
    const APPENDED_MEANS: &'static str = "in the page cache";

    type Appender<'e> = Prefix<'e>;
    type Reader<'e> = Prefix<'e>;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        let database = Database::builder(directory.join("fjall"))
            .cache_size(1 << 30)
            .open()?;
        let messages = database.keyspace("messages", || {
            KeyspaceCreateOptions::default().with_kv_separation(Some(KvSeparationOptions::default()))
        })?;
        Ok(Fjall { database, messages })
    }

    fn close(self) -> Outcome<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn appender(&self, log: u64) -> Outcome<Prefix<'_>> {
        Ok(Prefix {
            fjall: self,
            log,
            next: 0,
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let (mut count, mut sum) = (0, 0_u64);
        for pair in self.messages.prefix(LOG.to_be_bytes()) {
            sum = sum.wrapping_add(touch(&pair.value()?));
            count += 1;
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Prefix<'_>> {
        self.appender(LOG)
    }

    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for log in logs {
            batch.insert(&self.messages, key(log, round), value);
        }
        Ok(batch.commit()?)
    }
}

impl Appender for Prefix<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.fjall.messages.insert(key(self.log, self.next), value)?;
        self.next += 1;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        let mut batch = self.fjall.database.batch();
        for value in values {
            batch.insert(&self.fjall.messages, key(self.log, self.next), *value);
            self.next += 1;
        }
        Ok(batch.commit()?)
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.append(value)?;
        self.sync()
    }

    fn sync(&mut self) -> Outcome<()> {
        Ok(self.fjall.database.persist(PersistMode::SyncData)?)
    }
}

impl Reader for Prefix<'_> {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let found = self.fjall.messages.get(key(self.log, number))?;
        visit(&found.ok_or_else(|| missing(number))?);
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(found) = self.fjall.messages.get(key(self.log, self.next))? else {
            return Ok(false);
        };
        visit(&found);
        self.next += 1;
        Ok(true)
    }
}
