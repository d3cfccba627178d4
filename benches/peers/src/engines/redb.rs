//! redb as a log: keys are log and number, values are messages.
//!
//! Defaults, among them a cache of 1 GiB. `Durability::None` where nothing is synced, followed by an empty commit with
//! `Durability::Immediate` where a sync is asked for, as the documentation of `Durability` says; the default where every append must last.

use std::ops::Range;
use std::path::Path;

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError, WriteTransaction,
};

use crate::engine::{Appender, Engine, LOG, Mode, Outcome, Reader, missing, touch};

const MESSAGES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("messages");

pub(crate) struct Redb {
    database: Database,
}

pub(crate) struct Prefix<'e> {
    database: &'e Database,
    log: u64,
    next: u64,
}

pub(crate) struct Reading<'e> {
    database: &'e Database,
    /// What random reads use all the time, if there was a table; whoever follows needs a new one for each look.
    table: Option<ReadOnlyTable<(u64, u64), &'static [u8]>>,
    next: u64,
}

fn begin(database: &Database, durability: Durability) -> Outcome<WriteTransaction> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(durability)?;
    Ok(transaction)
}

fn open_table(database: &Database) -> Outcome<Option<ReadOnlyTable<(u64, u64), &'static [u8]>>> {
    match database.begin_read()?.open_table(MESSAGES) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    const PACKAGE: &'static str = "redb";
    const APPENDED_MEANS: &'static str = "in the memory of the process";

    type Appender<'e> = Prefix<'e>;
    type Reader<'e> = Reading<'e>;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        Ok(Redb {
            database: Database::create(directory.join("messages.redb"))?,
        })
    }

    fn close(self) -> Outcome<()> {
        Ok(())
    }

    fn appender(&self, log: u64) -> Outcome<Prefix<'_>> {
        Ok(Prefix {
            database: &self.database,
            log,
            next: 0,
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let Some(table) = open_table(&self.database)? else {
            return Ok(0);
        };
        let (mut count, mut sum) = (0, 0_u64);
        for pair in table.range((LOG, 0)..(LOG + 1, 0))? {
            sum = sum.wrapping_add(touch(pair?.1.value()));
            count += 1;
        }
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Reading<'_>> {
        Ok(Reading {
            database: &self.database,
            table: open_table(&self.database)?,
            next: 0,
        })
    }

    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()> {
        let transaction = begin(&self.database, Durability::Immediate)?;
        {
            let mut table = transaction.open_table(MESSAGES)?;
            for log in logs {
                table.insert((log, round), value)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Prefix<'_> {
    fn write(&mut self, values: &[&[u8]], durability: Durability) -> Outcome<()> {
        let transaction = begin(self.database, durability)?;
        {
            let mut table = transaction.open_table(MESSAGES)?;
            for value in values {
                table.insert((self.log, self.next), *value)?;
                self.next += 1;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Appender for Prefix<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.write(&[value], Durability::None)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        self.write(values, Durability::None)
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.write(&[value], Durability::Immediate)
    }

    fn sync(&mut self) -> Outcome<()> {
        begin(self.database, Durability::Immediate)?.commit()?;
        Ok(())
    }
}

impl Reader for Reading<'_> {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let table = self.table.as_ref().ok_or_else(|| missing(number))?;
        let found = table.get((LOG, number))?;
        visit(found.ok_or_else(|| missing(number))?.value());
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(table) = open_table(self.database)? else {
            return Ok(false);
        };
        let Some(found) = table.get((LOG, self.next))? else {
            return Ok(false);
        };
        visit(found.value());
        self.next += 1;
        Ok(true)
    }
}
