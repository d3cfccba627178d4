//! Promise: what was committed is there after closing and opening again, in order, byte for byte; what was appended is
//! visible at once. Shown by writing, reading, closing and opening stores of several shapes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod common;

use std::sync::Arc;

use lanterman::{Background, Compression, Durability, NewMessage, Options, Store};

fn open(path: &std::path::Path) -> Store {
    Options::new().open_copying(path).unwrap()
}

fn values(store: &Store, log: &str) -> Vec<Vec<u8>> {
    let mut cursor = store.log(log).unwrap().cursor(0u64).unwrap();
    let mut found = Vec::new();
    while let Some(message) = cursor.next().unwrap() {
        assert_eq!(message.offset().get(), found.len() as u64);
        found.push(message.value().to_vec());
    }
    found
}

/// Compares without printing thousands of values.
fn same(found: &[Vec<u8>], wanted: &[Vec<u8>]) {
    let first = found.iter().zip(wanted).position(|(left, right)| left != right);
    assert_eq!(
        (found.len(), first),
        (wanted.len(), None),
        "count, and the first that differs"
    );
}

#[test]
fn appended_messages_are_seen_at_once_and_committed_ones_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let mut writer = store.writer("events").unwrap();
    for number in 0..1000u64 {
        assert_eq!(
            writer
                .append(format!("message {number}").as_bytes())
                .unwrap()
                .get(),
            number
        );
    }
    assert_eq!(values(&store, "events").len(), 1000);
    writer.commit(Durability::Disk).unwrap();
    assert_eq!(writer.durable_end().get(), 1000);
    drop(writer);
    drop(store);
    let store = open(&path);
    let found = values(&store, "events");
    assert_eq!(found.len(), 1000);
    assert_eq!(found[999], b"message 999");
    let mut writer = store.writer("events").unwrap();
    assert_eq!(writer.append(b"next").unwrap().get(), 1000);
    assert_eq!(values(&store, "events").len(), 1001);
}

#[test]
fn a_log_of_many_slabs_reads_the_same_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = Options::new().slab_bytes_max(64 << 10).tail_memory_bytes(1 << 20);
    let store = options.clone().open_copying(&path).unwrap();
    let mut writer = store.writer("events").unwrap();
    let mut wanted = Vec::new();
    for number in 0..30_000u64 {
        let value = vec![u8::try_from(number % 251).unwrap(); usize::try_from(number % 300).unwrap()];
        writer.append(&value).unwrap();
        wanted.push(value);
        if number % 7000 == 0 {
            writer.commit(Durability::Disk).unwrap();
        }
    }
    same(&values(&store, "events"), &wanted);
    writer.commit(Durability::Disk).unwrap();
    drop((writer, store));
    let store = options.open_copying(&path).unwrap();
    same(&values(&store, "events"), &wanted);
    let mut cursor = store.log("events").unwrap().cursor(0u64).unwrap();
    for number in (0..30_000u64).rev().step_by(997) {
        assert_eq!(
            cursor.get(number).unwrap().value(),
            wanted[usize::try_from(number).unwrap()]
        );
    }
}

#[test]
fn keys_times_and_headers_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store"));
    let mut writer = store.writer("events").unwrap();
    let headers: [(&[u8], &[u8]); 2] = [(b"trace", b"7"), (b"empty", b"")];
    writer
        .append_message(
            &NewMessage::new(b"value")
                .key(b"key")
                .time_ms(-5)
                .headers(&headers),
        )
        .unwrap();
    let mut cursor = store.log("events").unwrap().cursor(0u64).unwrap();
    let message = cursor.next().unwrap().unwrap();
    assert_eq!(
        (message.key(), message.time_ms(), message.value()),
        (Some(&b"key"[..]), Some(-5), &b"value"[..])
    );
    let found: Vec<_> = message.headers().collect();
    assert_eq!(found, headers);
    assert_eq!(message.to_bytes(), &b"value"[..]);
}

#[test]
fn a_transaction_over_logs_with_open_writers_is_one_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let mut orders = store.writer("orders").unwrap();
    orders.append(b"before").unwrap();
    let receipt = store
        .transaction(|transaction| {
            transaction.append("orders", b"one")?;
            transaction.append("audit", b"two")?;
            transaction.append("orders", b"three")
        })
        .unwrap();
    assert_eq!(receipt.offsets["orders"], 1..3);
    assert_eq!(receipt.offsets["audit"], 0..1);
    orders.append(b"after").unwrap();
    assert_eq!(
        values(&store, "orders"),
        [&b"before"[..], b"one", b"three", b"after"]
    );
    drop((orders, store));
    assert_eq!(values(&open(&path), "orders").len(), 4);
}

#[test]
fn a_store_driven_by_hand_needs_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = Options::new()
        .background(Background::Manual)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20);
    let store = options.clone().open_copying(&path).unwrap();
    let mut writer = store.writer("events").unwrap();
    for number in 0..50_000u64 {
        writer.append(&number.to_le_bytes().repeat(10)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    while store.step().unwrap() {}
    store.checkpoint().unwrap();
    drop((writer, store));
    assert_eq!(
        values(&options.open_copying(&path).unwrap(), "events").len(),
        50_000
    );
}

#[test]
fn slabs_that_take_the_place_of_journaled_messages_end_the_chunks_that_replay_made_of_them() {
    let disk = std::sync::Arc::new(lanterman::disk::MemoryDisk::new());
    let options = |disk: &std::sync::Arc<lanterman::disk::MemoryDisk>| {
        Options::new()
            .background(Background::Manual)
            .slab_bytes_max(512 << 10)
            .tail_memory_bytes(1 << 20)
            .disk(std::sync::Arc::<lanterman::disk::MemoryDisk>::clone(disk))
    };
    let store = options(&disk).open_copying("/store").unwrap();
    let mut writer = store.writer("events").unwrap();
    // More than a slab in small commits, so that replay fills a chunk with them; then a slab that no frame brings.
    for _ in 0..30 {
        writer.append(&[1; 32 << 10]).unwrap();
        writer.commit(Durability::Process).unwrap();
    }
    for _ in 0..100 {
        writer.append(&[2; 32 << 10]).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    let image = std::sync::Arc::new(disk.kill_image().unwrap());
    let again = options(&image).open_copying("/store").unwrap();
    while again.step().unwrap() {}
    again.checkpoint().unwrap();
    assert_eq!(values(&again, "events").len(), 130);
}

#[test]
fn a_large_tail_is_not_written_again_by_who_appends_behind_it() {
    let disk = common::memory();
    let open = || {
        let options = common::large_slabs().disk(Arc::clone(&disk) as Arc<_>);
        options.open_copying(common::PATH).unwrap()
    };
    let store = open();
    // Together some 200 KiB, of slabs that may have 1 MiB, in a log that is compressed later.
    common::append(&store, "events", 0..1000);
    common::append(&store, "compressed", 0..1000);
    store.close().unwrap();
    let mut end = 1000;
    for round in 0..3 {
        let store = open();
        common::append(&store, "events", end..end + 10);
        let receipt = store.checkpoint().unwrap().unwrap();
        assert!(
            receipt.bytes < 64 << 10,
            "{} bytes in round {round}",
            receipt.bytes
        );
        end += 10;
        assert_eq!(common::check_values(&store, "events", 0), end);
        store.close().unwrap();
        assert_eq!(common::check_values(&open(), "events", 0), end);
    }
    let store = open();
    store
        .set_compression("compressed", Some(&Compression::lz4()))
        .unwrap();
    common::append(&store, "compressed", 1000..1010);
    // What comes into the tree as it stands is never compressed.
    let receipt = store.checkpoint().unwrap().unwrap();
    assert!(receipt.bytes > 64 << 10, "{} bytes", receipt.bytes);
    assert_eq!(common::check_values(&store, "compressed", 0), 1010);
}
