//! RocksDB as a log: keys are log and number, values are messages.
//!
//! Set up by the page «Setup Options and Basic Tuning» of its wiki: write buffers of 64 MiB, levels sized dynamically, background
//! threads as there are cores, `bytes_per_sync` of 1 MiB, blocks of 16 KiB, filters and indexes in the cache and those of level 0 pinned.
//! The cache is 1 GiB. No compression: these payloads do not compress. The write-ahead log is on, as by default.

use std::ops::Range;
use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use crate::engine::{Appender, Engine, LOG, Mode, Outcome, Reader, key, missing, touch};

pub(crate) struct Rocks {
    database: DB,
}

pub(crate) struct Prefix<'e> {
    database: &'e DB,
    log: u64,
    next: u64,
    synced: WriteOptions,
}

impl Engine for Rocks {
    const NAME: &'static str = "RocksDB";
    const PACKAGE: &'static str = "librocksdb-sys";
    const APPENDED_MEANS: &'static str = "in the page cache";

    type Appender<'e> = Prefix<'e>;
    type Reader<'e> = Prefix<'e>;

    fn open(directory: &Path, _mode: Mode) -> Outcome<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compression_type(DBCompressionType::None);
        options.set_write_buffer_size(64 << 20);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.increase_parallelism(i32::try_from(cores)?);
        options.set_bytes_per_sync(1 << 20);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(16 << 10);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_block_cache(&Cache::new_lru_cache(1 << 30));
        options.set_block_based_table_factory(&blocks);
        Ok(Rocks {
            database: DB::open(&options, directory.join("rocks"))?,
        })
    }

    fn close(self) -> Outcome<()> {
        self.database.flush_wal(true)?;
        Ok(())
    }

    fn appender(&self, log: u64) -> Outcome<Prefix<'_>> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Prefix {
            database: &self.database,
            log,
            next: 0,
            synced,
        })
    }

    fn scan(&self) -> Outcome<u64> {
        let mut iterator = self.database.raw_iterator();
        iterator.seek(key(LOG, 0));
        let end = key(LOG + 1, 0);
        let (mut count, mut sum) = (0, 0_u64);
        while let Some((key, value)) = iterator.item() {
            if key >= end.as_slice() {
                break;
            }
            sum = sum.wrapping_add(touch(value));
            count += 1;
            iterator.next();
        }
        iterator.status()?;
        std::hint::black_box(sum);
        Ok(count)
    }

    fn reader(&self) -> Outcome<Prefix<'_>> {
        self.appender(LOG)
    }

    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        logs.for_each(|log| batch.put(key(log, round), value));
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.database.write_opt(batch, &synced)?;
        Ok(())
    }
}

impl Appender for Prefix<'_> {
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        self.database.put(key(self.log, self.next), value)?;
        self.next += 1;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        for value in values {
            batch.put(key(self.log, self.next), value);
            self.next += 1;
        }
        self.database.write(batch)?;
        Ok(())
    }

    fn append_durable(&mut self, value: &[u8]) -> Outcome<()> {
        self.database
            .put_opt(key(self.log, self.next), value, &self.synced)?;
        self.next += 1;
        Ok(())
    }

    fn sync(&mut self) -> Outcome<()> {
        self.database.flush_wal(true)?;
        Ok(())
    }
}

impl Reader for Prefix<'_> {
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()> {
        let found = self.database.get_pinned(key(self.log, number))?;
        visit(&found.ok_or_else(|| missing(number))?);
        Ok(())
    }

    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool> {
        let Some(found) = self.database.get_pinned(key(self.log, self.next))? else {
            return Ok(false);
        };
        visit(&found);
        self.next += 1;
        Ok(true)
    }
}
