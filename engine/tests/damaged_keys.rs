//! Promise: the keys of a table are never needed to be whole. Whatever page of a store is damaged, each key gives its newest
//! message or the error of that message's own damage, and damaged runs of keys are made anew. Shown page by page, beside a table.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{memory, small};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync};
use lanterman::{Durability, Error, Keyed, NewMessage, Options, Store};

const LOG: &str = "table";
const KEYS: u64 = 700;
const PAGE_BYTES: usize = 4096;
/// More steps than there are things to do in so small a store: work that does not end is a defect.
const STEPS_MAX: u64 = 1000;

/// Offset and value of the newest message of each key; a delete marker has no value.
type Table = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

fn keyed_options() -> Options {
    small().compact(false).collect(false)
}

fn open(disk: &Arc<MemoryDisk>, read_only: bool) -> Result<Store, Error> {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    keyed_options()
        .read_only(read_only)
        .disk(disk)
        .open_copying(common::PATH)
}

/// Steps until nothing is left to do.
fn settle(store: &Store, context: &str) {
    for _ in 0..STEPS_MAX {
        if !store.step().unwrap() {
            return;
        }
    }
    panic!("{context}: the background does not come to an end");
}

/// A closed store with a table in slabs, all of which have runs: large ones and one that was made last.
fn table() -> (Arc<MemoryDisk>, Table) {
    let disk = memory();
    let store = open(&disk, false).unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut table = Table::new();
    for round in 0..3_u64 {
        let mut writer = store.writer(LOG).unwrap();
        for number in 0..KEYS {
            let key = format!(
                "a key of a table {:05}",
                (number * 311 + round * 7) % (KEYS + round * 20)
            );
            let value = format!("{round} {number} ").repeat(8).into_bytes();
            let is_marker = (number + round) % 31 == 0;
            let message = match is_marker {
                true => NewMessage::delete_marker(key.as_bytes()),
                false => NewMessage::new(&value).key(key.as_bytes()),
            };
            let offset = writer.append_message(&message).unwrap().get();
            table.insert(key.into_bytes(), (offset, (!is_marker).then_some(value)));
        }
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        store.checkpoint().unwrap();
        settle(&store, "the undamaged store");
    }
    store.close().unwrap();
    (disk, table)
}

/// The pages of slab segments in which something is written.
fn pages(disk: &MemoryDisk) -> Vec<(PathBuf, usize, Vec<u8>)> {
    let directory = Path::new("/store/segments");
    let mut pages = Vec::new();
    for name in disk.list(directory).unwrap() {
        if !name.ends_with(".slabs") {
            continue;
        }
        let path = directory.join(&name);
        let file = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        lanterman::disk::read_full_at(&*file, 0, &mut bytes).unwrap();
        for (number, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                pages.push((path.clone(), number, page.to_vec()));
            }
        }
    }
    pages
}

/// The offsets that the log itself cannot give, read in order; `None` if the log cannot be found.
fn lost_offsets(store: &Store) -> Option<BTreeSet<u64>> {
    let log = match store.log(LOG) {
        Ok(log) => log,
        Err(Error::Damaged(_)) => return None,
        Err(error) => panic!("{error}"),
    };
    let mut cursor = log.cursor(0_u64).unwrap();
    let mut lost = BTreeSet::new();
    loop {
        match cursor.next() {
            Ok(Some(_)) => {}
            Ok(None) => return Some(lost),
            Err(Error::Damaged(damage)) => {
                let offsets = damage.offsets.unwrap();
                lost.extend(offsets.clone());
                cursor.seek(offsets.end).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Compares every key, and the scan of all, with the table; a key fails if its newest message is lost. Where slabs with
/// lost messages have no run, nobody can tell what keys stood there, so `may_refuse` allows others to be refused too.
fn check(store: &Store, table: &Table, lost: &BTreeSet<u64>, may_refuse: bool, context: &str) {
    let log = store.log(LOG).unwrap();
    for number in 0..KEYS + 60 {
        let key = format!("a key of a table {number:05}").into_bytes();
        let expected = table.get(&key);
        match log.get_key(&key) {
            Ok(found) => {
                let found = found.map(|message| (message.offset().get(), Some(message.value().to_vec())));
                let expected = expected.filter(|(_, value)| value.is_some());
                assert_eq!(found.as_ref(), expected, "{context}: key {number}");
            }
            Err(Error::Damaged(damage)) => {
                let is_lost = expected.is_some_and(|(offset, _)| lost.contains(offset));
                assert!(
                    is_lost || (may_refuse && !lost.is_empty()),
                    "{context}: key {number}: {damage}"
                );
            }
            Err(error) => panic!("{context}: key {number}: {error}"),
        }
    }
    let mut rows = table.iter().filter(|(_, (_, value))| value.is_some());
    let Ok(scan) = log.snapshot().scan_keys(..) else {
        assert!(!lost.is_empty(), "{context}: no scan, and nothing is lost");
        return;
    };
    for message in scan {
        match message {
            Ok(message) => {
                let row = rows.next().map(|(key, (offset, _))| (key.as_slice(), *offset));
                let found = (message.key().unwrap().as_ref(), message.offset().get());
                assert_eq!(Some(found), row, "{context}");
            }
            Err(Error::Damaged(damage)) => {
                assert!(!lost.is_empty(), "{context}: {damage}");
                return;
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    assert!(rows.next().is_none(), "{context}: the scan ends early");
}

#[test]
fn whatever_page_is_damaged_keys_give_their_newest_message_or_its_damage() {
    let (disk, table) = table();
    let (mut without_loss, mut with_loss) = (0, 0);
    for (path, number, page) in pages(&disk) {
        let at = (number * 1031 + 13) % PAGE_BYTES;
        let context = format!("{}, page {number}, byte {at}", path.display());
        let damaged = Arc::new(disk.kill_image().unwrap());
        let file = damaged.open(&path, OpenMode::ReadWrite).unwrap();
        let position = u64::try_from(number * PAGE_BYTES + at).unwrap();
        file.write_at(position, &[page[at] ^ 1 << (number % 8)], Sync::Data)
            .unwrap();
        drop(file);
        // The head of a segment stands for all of it: messages and runs of keys are lost together. What was appended last
        // stands in a tail, which has no run.
        let may_refuse = |lost: &BTreeSet<u64>| number == 0 || lost.last() >= Some(&(KEYS * 2));
        match open(&damaged, true) {
            Ok(store) => {
                if let Some(lost) = lost_offsets(&store) {
                    let context = format!("{context}, read only");
                    check(&store, &table, &lost, may_refuse(&lost), &context);
                }
            }
            Err(Error::Damaged(_)) => {}
            Err(error) => panic!("{context}: {error}"),
        }
        let store = match open(&damaged, false) {
            Ok(store) => store,
            Err(Error::Damaged(_)) => continue,
            Err(error) => panic!("{context}: {error}"),
        };
        let Some(lost) = lost_offsets(&store) else {
            continue;
        };
        check(&store, &table, &lost, may_refuse(&lost), &context);
        settle(&store, &context);
        check(&store, &table, &lost, true, &format!("{context}, made anew"));
        match lost.is_empty() {
            true => without_loss += 1,
            false => with_loss += 1,
        }
    }
    assert!(
        without_loss > 20 && with_loss > 20,
        "{without_loss} pages without loss, {with_loss} with"
    );
}
