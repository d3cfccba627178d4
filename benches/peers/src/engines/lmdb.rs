//! LMDB by heed, as a log: keys are log and number, values are messages.
//!
//! `MDB_APPEND` for keys that come in order, as its documentation has it for bulk loading; `MDB_NOSYNC` where nothing is synced, with
//! `mdb_env_sync` where it is asked for, and all defaults where every append must last. A map of 64 GiB, since a map must be larger than
//! the data will ever be. Readers without thread-local slots, so that they can be given from thread to thread.

use std::ops::Range;
use std::path::Path;

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, WithoutTls};

use crate::engine::{Appender, Engine, LOG, Mode, Outcome, Reader, key, missing, touch};

type Table = Database<Bytes, Bytes>;

pub(crate) struct Lmdb {
    environment: Env<WithoutTls>,
    table: Table,
}

pub(crate) struct Prefix<'e> {
    lmdb: &'e Lmdb,
    log: u64,
    next: u64,
    /// Only one log can grow at the end of the table.
    flags: PutFlags,
}

pub(crate) struct Reading<'e> {
    lmdb: &'e Lmdb,
    /// What random reads use all the time; whoever follows needs a new one for each look.
    transaction: RoTxn<'e, WithoutTls>,
    next: u64,
}

impl Engine for Lmdb {
    const NAME: &'static str = "LMDB";
    const PACKAGE: &'static str = "heed";
    const APPENDED_MEANS: &'static str = "in the page cache";

    type Appender<'e> = Prefix<'e>;
    type Reader<'e> = Reading<'e>;

    fn open(directory: &Path, mode: Mode) -> Outcome<Self> {
        let path = directory.join("lmdb");
        std::fs::create_dir_all(&path)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(64 << 30);
        if matches!(mode, Mode::Fast | Mode::Keep) {
            // SAFETY: the system does not stop while this runs, and every reader of these files is opened after a sync.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: no other program touches the directory, which was made for this run.
        let environment = unsafe { options.open(path)? };
        let mut transaction = environment.write_txn()?;
        let table = environment.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdb { environment, table })
    }

    fn close(self) -> Outcome<()> {
        self.environment.force_sync()?;
        self.environment.prepare_for_closing().wait();
        Ok(())
    }

    fn appender(&self, log: u64) -> Outcome<Prefix<'_>> {
        Ok(Prefix {
            lmdb: self,
            log,
            next: 0,
            flags: PutFlags::empty(),
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let transaction = self.environment.read_txn()?;
        let (mut count, mut sum) = (0, 0_u64);
        for pair in self.table.prefix_iter(&transaction, &LOG.to_be_bytes())? {
            sum = sum.wrapping_add(touch(pair?.1));
            count += 1;
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Reading<'_>> {
        Ok(Reading {
            lmdb: self,
            transaction: self.environment.read_txn()?,
            next: 0,
        })
    }

    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()> {
        let mut transaction = self.environment.write_txn()?;
        for log in logs {
            self.table.put(&mut transaction, &key(log, round), value)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Appender for Prefix<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        if self.log == LOG && self.next == 0 {
            self.flags = PutFlags::APPEND;
        }
        let mut transaction = self.lmdb.environment.write_txn()?;
        for value in values {
            let key = key(self.log, self.next);
            self.lmdb
                .table
                .put_with_flags(&mut transaction, self.flags, &key, value)?;
            self.next += 1;
        }
        transaction.commit()?;
        Ok(())
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        // Others may have logs behind this one.
        let mut transaction = self.lmdb.environment.write_txn()?;
        self.lmdb
            .table
            .put(&mut transaction, &key(self.log, self.next), value)?;
        transaction.commit()?;
        self.next += 1;
        Ok(())
    }

    fn sync(&mut self) -> Outcome<()> {
        Ok(self.lmdb.environment.force_sync()?)
    }
}

impl Reader for Reading<'_> {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let found = self.lmdb.table.get(&self.transaction, &key(LOG, number))?;
        visit(found.ok_or_else(|| missing(number))?);
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let transaction = self.lmdb.environment.read_txn()?;
        let Some(found) = self.lmdb.table.get(&transaction, &key(LOG, self.next))? else {
            return Ok(false);
        };
        visit(found);
        self.next += 1;
        Ok(true)
    }
}
