//! Keyed logs beside other embedded tables (RocksDB, fjall, LMDB), and their compaction beside the rule of Kafka's log cleaner.
//!
//! `lanterman-tables [KEYS [ROUNDS [ENGINE...]]]` or `lanterman-tables cleaner [PUTS]`.

mod cleaner;
mod engines;
mod random;
mod tables;

use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    if arguments.first().is_some_and(|first| first == "cleaner") {
        return cleaner::compare(number(1, 2_000_000)?);
    }
    let named = arguments.get(2..).unwrap_or_default();
    tables::compare(number(0, 1_000_000)?, number(1, 5)?, named)
}
