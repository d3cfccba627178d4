//! Loading, getting, scanning, and the room on the disk.
//!
//! All read from warm caches. The order of the engines rotates from round to round; medians of the rounds are shown.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines::{ENGINES, open};
use crate::random::{Random, key};

const VALUE_BYTES: usize = 100;

const ROWS: [&str; 6] = [
    "load, ns a put",
    "settle, ms",
    "get of a key that is there, ns",
    "get of a key that is not, ns",
    "scan of all, ns a key",
    "scan of 100 keys, ns",
];

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

/// Prints a table of all engines, or of those that are named.
pub(crate) fn compare(keys: u64, rounds: u64, named: &[String]) -> Result<()> {
    let is_wanted = |engine: &&str| named.is_empty() || named.iter().any(|name| name == engine);
    let engines: Vec<&str> = ENGINES.iter().copied().filter(is_wanted).collect();
    let (puts, gets) = (keys * 3, 300_000.min(keys));
    let mut all: Vec<Vec<Vec<f64>>> = vec![Vec::new(); engines.len()];
    let mut room = vec![0; engines.len()];
    for round in 0..rounds as usize {
        for turn in 0..engines.len() {
            let engine = (turn + round) % engines.len();
            let (figures, bytes) = run(engines[engine], keys, puts, gets)?;
            all[engine].push(figures);
            room[engine] = bytes;
        }
    }
    println!(
        "{keys} keys of 16 B, {puts} puts of {VALUE_BYTES} B in random order; medians of {rounds} rounds\n"
    );
    println!("| | {} |", engines.join(" | "));
    println!("|---|{}", "---:|".repeat(engines.len()));
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
