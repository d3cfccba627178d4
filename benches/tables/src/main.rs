//! Keyed logs beside RocksDB, fjall and LMDB as tables: loading, getting, scanning, and the room on the disk.
//!
//! Every engine is set up to keep what it is told without a sync at each call, and to sync once at the end of the load; all
//! read from warm caches. The order rotates from round to round; medians of the rounds are shown, each beside Lanterman's.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use lanterman::{Durability, Keyed, Log, NewMessage, Options, Store};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const VALUE_BYTES: usize = 100;

/// What is asked of each engine.
trait Table {
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
        for message in snapshot.scan_prefix(prefix)? {
            count += u64::from(!message?.value().is_empty());
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

/// A generator of numbers (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("user{number:012}").into_bytes()
}

const ROWS: [&str; 6] = [
    "load, ns a put",
    "settle, ms",
    "get of a key that is there, ns",
    "get of a key that is not, ns",
    "scan of all, ns a key",
    "scan of 100 keys, ns",
];

const ENGINES: &[&str] = &[
    "Lanterman",
    #[cfg(feature = "rocksdb")]
    "RocksDB",
    "fjall",
    "LMDB",
];

fn open(engine: &str, path: &Path) -> Result<Box<dyn Table>> {
    Ok(match engine {
        "Lanterman" => Box::new(Lanterman::open(path)?),
        #[cfg(feature = "rocksdb")]
        "RocksDB" => Box::new(Rocks::open(path)?),
        "fjall" => Box::new(Fjall::open(path)?),
        _ => Box::new(Lmdb::open(path)?),
    })
}

fn disk_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

fn run(engine: &str, keys: u64, puts: u64, gets: u64) -> Result<(Vec<f64>, u64)> {
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let path = directory.path().join("table");
    let mut table = open(engine, &path)?;
    let per = |took: Duration, count: u64| took.as_nanos() as f64 / count as f64;
    let mut random = Random(1);
    let mut pairs = (0..puts).map(|_| {
        let key = key(random.below(keys));
        // Values that no engine can make smaller.
        let value = (0..VALUE_BYTES / 8 + 1).flat_map(|_| random.below(u64::MAX).to_le_bytes());
        (key, value.take(VALUE_BYTES).collect())
    });
    let began = Instant::now();
    table.load(&mut pairs)?;
    let mut figures = vec![per(began.elapsed(), puts)];
    let began = Instant::now();
    table.settle()?;
    figures.push(began.elapsed().as_millis() as f64);
    for passes in [0, gets] {
        // The first pass warms; the second one counts.
        let mut random = Random(2);
        let began = Instant::now();
        let mut found = 0;
        for _ in 0..gets {
            found += u64::from(table.get(&key(random.below(keys)))?.is_some());
        }
        if passes > 0 {
            figures.push(per(began.elapsed(), gets));
            assert!(found * 10 > gets * 8, "{engine} found {found} of {gets}");
        }
    }
    let mut random = Random(3);
    let began = Instant::now();
    for _ in 0..gets {
        assert_eq!(table.get(&key(keys + random.below(keys)))?, None);
    }
    figures.push(per(began.elapsed(), gets));
    let began = Instant::now();
    let count = table.scan(b"user")?;
    figures.push(per(began.elapsed(), count));
    let mut random = Random(4);
    let scans = gets / 100;
    let began = Instant::now();
    for _ in 0..scans {
        let wanted = key(random.below(keys));
        table.scan(&wanted[..wanted.len() - 2])?;
    }
    figures.push(per(began.elapsed(), scans));
    drop(table);
    Ok((figures, disk_bytes(&path)?))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut number = |default: u64| numbers.next().unwrap_or(Ok(default));
    let (keys, rounds) = (number(1_000_000)?, number(5)?);
    let (puts, gets) = (keys * 3, 300_000.min(keys));
    let mut all: Vec<Vec<Vec<f64>>> = vec![Vec::new(); ENGINES.len()];
    let mut room = vec![0; ENGINES.len()];
    for round in 0..rounds as usize {
        for turn in 0..ENGINES.len() {
            let engine = (turn + round) % ENGINES.len();
            let (figures, bytes) = run(ENGINES[engine], keys, puts, gets)?;
            all[engine].push(figures);
            room[engine] = bytes;
        }
    }
    println!(
        "{keys} keys of 16 B, {puts} puts of {VALUE_BYTES} B in random order; medians of {rounds} rounds\n"
    );
    println!("| | {} |", ENGINES.join(" | "));
    println!("|---|{}", "---:|".repeat(ENGINES.len()));
    for (row, name) in ROWS.iter().enumerate() {
        let cells: Vec<String> = all
            .iter()
            .map(|rounds| {
                format!(
                    "{:.0}",
                    median(rounds.iter().map(|figures| figures[row]).collect())
                )
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    let cells: Vec<String> = room
        .iter()
        .map(|bytes| format!("{:.0}", *bytes as f64 / 1e6))
        .collect();
    println!("| on the disk, MB | {} |", cells.join(" | "));
    Ok(())
}
