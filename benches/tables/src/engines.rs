//! The engines, each set up to keep what it is told without a sync at each call, and to sync once at the end of the load.

use std::path::Path;

use lanterman::{Durability, Keyed, Log, NewMessage, Options, Store};

use crate::Result;

/// What is asked of each engine.
pub(crate) trait Table {
    /// Puts the pairs, in this order, and makes them last.
    fn load(&mut self, pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()>;
    /// Does what it does in the background after a load: flushing, merging, compacting.
    fn settle(&mut self) -> Result<()>;
    /// Length of the value of a key.
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>>;
    /// Number of pairs whose key begins so.
    fn scan(&mut self, prefix: &[u8]) -> Result<u64>;
}

struct Lanterman {
    store: Store,
    log: Log,
}

impl Lanterman {
    fn open(path: &Path) -> Result<Self> {
        // SAFETY: no other program touches the directory, which was made for this run.
        let store = unsafe { Options::new().open(path) }?;
        store.set_keyed("table", Some(&Keyed::new()))?;
        let log = store.log("table")?;
        Ok(Lanterman { store, log })
    }
}

impl Table for Lanterman {
    fn load(&mut self, pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()> {
        let mut writer = self.store.writer("table")?;
        for (key, value) in pairs {
            writer.append_message(&NewMessage::new(&value).key(&key))?;
        }
        writer.commit(Durability::Disk)?;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.store.compact("table")?;
        self.store.checkpoint()?;
        self.store.collect()?;
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let found = self.log.get_key(key)?;
        Ok(found.map(|message| message.value().len()))
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<u64> {
        let snapshot = self.log.snapshot();
        let mut count = 0;
        let mut scan = snapshot.scan_prefix(prefix)?;
        while let Some(message) = scan.next_lent()? {
            count += u64::from(!message.value().is_empty());
        }
        Ok(count)
    }
}

#[cfg(feature = "rocksdb")]
struct Rocks {
    database: rocksdb::DB,
}

#[cfg(feature = "rocksdb")]
impl Rocks {
    fn open(path: &Path) -> Result<Self> {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        options.set_write_buffer_size(64 << 20);
        options.increase_parallelism(2);
        let mut blocks = rocksdb::BlockBasedOptions::default();
        blocks.set_bloom_filter(10.0, false);
        blocks.set_block_cache(&rocksdb::Cache::new_lru_cache(1 << 30));
        options.set_block_based_table_factory(&blocks);
        Ok(Rocks {
            database: rocksdb::DB::open(&options, path)?,
        })
    }
}

#[cfg(feature = "rocksdb")]
impl Table for Rocks {
    fn load(&mut self, pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()> {
        for (key, value) in pairs {
            self.database.put(key, value)?;
        }
        self.database.flush_wal(true)?;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.database.flush()?;
        self.database.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.database.get_pinned(key)?.map(|value| value.len()))
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<u64> {
        let mut iterator = self.database.raw_iterator();
        iterator.seek(prefix);
        let mut count = 0;
        while let Some((key, value)) = iterator.item() {
            if !key.starts_with(prefix) {
                break;
            }
            count += u64::from(!value.is_empty());
            iterator.next();
        }
        iterator.status()?;
        Ok(count)
    }
}

struct Fjall {
    database: fjall::Database,
    table: fjall::Keyspace,
}

impl Fjall {
    fn open(path: &Path) -> Result<Self> {
        let database = fjall::Database::builder(path).cache_size(1 << 30).open()?;
        let table = database.keyspace("table", fjall::KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, table })
    }
}

impl Table for Fjall {
    fn load(&mut self, pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()> {
        for (key, value) in pairs {
            self.table.insert(key, value)?;
        }
        self.database.persist(fjall::PersistMode::SyncAll)?;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.table.rotate_memtable_and_wait()?;
        self.table.major_compact()?;
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.table.get(key)?.map(|value| value.len()))
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<u64> {
        let mut count = 0;
        for pair in self.table.prefix(prefix) {
            count += u64::from(!pair.value()?.is_empty());
        }
        Ok(count)
    }
}

struct Lmdb {
    environment: heed::Env,
    table: heed::Database<heed::types::Bytes, heed::types::Bytes>,
}

impl Lmdb {
    fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(16 << 30);
        // SAFETY: no other program touches the directory, which was made for this run; a crash would only spoil the figures.
        let environment = unsafe { options.flags(heed::EnvFlags::NO_SYNC).open(path) }?;
        let mut transaction = environment.write_txn()?;
        let table = environment.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdb { environment, table })
    }
}

impl Table for Lmdb {
    fn load(&mut self, pairs: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<()> {
        let mut pairs = pairs.peekable();
        while pairs.peek().is_some() {
            // A transaction for each put would copy a path of pages each time: a thousand share one.
            let mut transaction = self.environment.write_txn()?;
            for (key, value) in pairs.by_ref().take(1000) {
                self.table.put(&mut transaction, &key, &value)?;
            }
            transaction.commit()?;
        }
        self.environment.force_sync()?;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let transaction = self.environment.read_txn()?;
        Ok(self.table.get(&transaction, key)?.map(<[u8]>::len))
    }

    fn scan(&mut self, prefix: &[u8]) -> Result<u64> {
        let transaction = self.environment.read_txn()?;
        let mut count = 0;
        for pair in self.table.prefix_iter(&transaction, prefix)? {
            count += u64::from(!pair?.1.is_empty());
        }
        Ok(count)
    }
}

pub(crate) const ENGINES: &[&str] = &[
    "Lanterman",
    #[cfg(feature = "rocksdb")]
    "RocksDB",
    "fjall",
    "LMDB",
];

pub(crate) fn open(engine: &str, path: &Path) -> Result<Box<dyn Table>> {
    Ok(match engine {
        "Lanterman" => Box::new(Lanterman::open(path)?),
        #[cfg(feature = "rocksdb")]
        "RocksDB" => Box::new(Rocks::open(path)?),
        "fjall" => Box::new(Fjall::open(path)?),
        _ => Box::new(Lmdb::open(path)?),
    })
}
