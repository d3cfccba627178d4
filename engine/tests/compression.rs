//! Promise: a compressed log answers everything as one that is not, whatever is done to it, and takes less room; what does not
//! shrink stays as it is. Damage of a batch loses its messages, says which, and loses no others. Shown by doing the same to a
//! log that is compressed and to one that is not; random work on both stands in `sharing.rs`, `keyed.rs` and the fuzz model.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{memory, small};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync};
use lanterman::{
    Compression, Durability, Error, ErrorKind, KeptMessage, LogItem, Message, NewMessage, Options, Snapshot,
    Store, ValueType,
};

const PLAIN: &str = "plain";
const PACKED: &str = "packed";
const LOGS: [&str; 2] = [PLAIN, PACKED];

/// What a message has, for comparison.
type Whole = (
    u64,
    Vec<u8>,
    u64,
    Option<i64>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Vec<u8>)>,
);

fn whole(message: &Message<'_>) -> Whole {
    (
        message.offset().get(),
        message.value().to_vec(),
        message.value_type().get(),
        message.time_ms(),
        message.key().map(<[u8]>::to_vec),
        message
            .headers()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    )
}

fn text(number: u64) -> Vec<u8> {
    let line = format!("{{\"number\": {number}, \"what\": \"an order of lanterns\", \"state\": \"open\"}} ");
    line.repeat(1 + number as usize % 5).into_bytes()
}

/// Appends messages of all sorts to a log: mostly text, some with all that a message can have, some that do not shrink.
fn fill(store: &Store, log: &str, numbers: std::ops::Range<u64>) {
    let mut writer = store.writer(log).unwrap();
    for number in numbers {
        let value = match number % 50 {
            7 => noise(number, 700),
            13 => Vec::new(),
            _ => text(number),
        };
        let key = number.to_le_bytes();
        let headers: [(&[u8], &[u8]); 1] = [(b"source", b"shop")];
        let mut message = NewMessage::new(&value);
        if number.is_multiple_of(3) {
            message = message.key(&key).time_ms(1_000 + number as i64);
        }
        if number.is_multiple_of(4) {
            message = message.value_type(ValueType::JSON).headers(&headers);
        }
        if number.is_multiple_of(11) {
            message = message.value_type(ValueType::new(1 << 40));
        }
        writer.append_message(&message).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = common::model::Random::from_seed(seed);
    (0..length).map(|_| (random.next() >> 24) as u8).collect()
}

/// A value that shrinks to about the half, so that a batch is longer than a group of checksums.
fn half_noise(number: u64) -> Vec<u8> {
    [text(number), noise(number + 1, 200)].concat()
}

/// Writes what is in memory as slabs.
fn settle(store: &Store) {
    store.checkpoint().unwrap();
    while store.step().unwrap() {}
}

fn all(snapshot: &Snapshot) -> Vec<Whole> {
    let mut cursor = snapshot.cursor(snapshot.start()).unwrap();
    let mut found = Vec::new();
    while let Some(message) = cursor.next().unwrap() {
        found.push(whole(&message));
    }
    found
}

/// Compares the two logs in every way in which they can be read.
fn compare(store: &Store, context: &str) {
    let [plain, packed] = LOGS.map(|log| store.snapshot(log).unwrap());
    let expected = all(&plain);
    assert!(!expected.is_empty(), "{context}");
    assert!(all(&packed) == expected, "{context}: in order");
    let mut cursors = [plain.cursor(0u64).unwrap(), packed.cursor(0u64).unwrap()];
    // In no order, so that each comes from another piece than the one before.
    let end = plain.end().get();
    for turn in 0..end {
        let offset = turn * 7919 % end;
        let [one, other] = cursors.each_mut().map(|cursor| {
            cursor
                .get(offset)
                .map(|message| whole(&message))
                .map_err(|error| error.kind())
        });
        assert_eq!(one, other, "{context}: offset {offset}");
    }
    for cursor in &mut cursors {
        cursor.seek(end / 3).unwrap();
    }
    loop {
        let [one, other] = cursors
            .each_mut()
            .map(|cursor| match cursor.next_item().unwrap() {
                Some(LogItem::Message(message)) => Some(Ok(whole(&message))),
                Some(LogItem::Deleted(run)) => Some(Err(run)),
                Some(_) => panic!("{context}: an item of another kind"),
                None => None,
            });
        assert_eq!(one, other, "{context}: items");
        if one.is_none() {
            break;
        }
    }
    for offsets in [0..end, end / 3..end / 2, end / 2..end / 2 + 1] {
        let [one, other] = [&plain, &packed].map(|snapshot| snapshot.summary_of(offsets.clone()).unwrap());
        let counts =
            |summary: &lanterman::LogSummary| (summary.messages(), summary.value_bytes(), summary.deleted());
        assert_eq!(counts(&one), counts(&other), "{context}: summary of {offsets:?}");
    }
}

fn compressed_store(compression: Compression, options: Options, disk: &Arc<MemoryDisk>) -> Store {
    let store = options.disk(disk.clone()).open_copying(common::PATH).unwrap();
    store.set_compression(PACKED, Some(&compression)).unwrap();
    store
}

#[test]
fn a_compressed_log_answers_as_one_that_is_not() {
    for compression in [
        Compression::lz4(),
        Compression::zstd(3),
        Compression::lz4().with_batch_bytes(1),
        Compression::zstd(1).with_batch_bytes(3000),
        Compression::lz4().with_batch_bytes(16 << 20),
    ] {
        let disk = memory();
        let context = format!("{compression:?}");
        let store = compressed_store(compression, small(), &disk);
        LOGS.iter().for_each(|log| fill(&store, log, 0..2_000));
        compare(&store, &context);
        settle(&store);
        compare(&store, &context);
        for log in LOGS {
            store.delete(log, 100..300).unwrap();
            store.delete(log, ..17).unwrap();
            store.delete(log, 1_200..1_201).unwrap();
        }
        compare(&store, &format!("{context}, edited"));
        let receipt = store.delete(PACKED, 700..710).unwrap();
        store.delete(PLAIN, 700..710).unwrap();
        store
            .wait_erased(&receipt, std::time::Duration::from_secs(60))
            .unwrap();
        compare(&store, &format!("{context}, erased"));
        LOGS.iter().for_each(|log| fill(&store, log, 2_000..2_100));
        store.close().unwrap();
        let store = small().disk(disk.clone()).open_copying(common::PATH).unwrap();
        assert_eq!(store.log(PACKED).unwrap().compression(), Some(compression));
        assert_eq!(store.log(PLAIN).unwrap().compression(), None);
        compare(&store, &format!("{context}, opened again"));
        assert!(store.check_space().unwrap().faults.is_empty());
    }
}

#[test]
fn messages_of_a_mapped_store_are_uncompressed_too_and_can_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    #[allow(unsafe_code, reason = "opening by mapping is what is tested")]
    // SAFETY: nobody else knows the directory.
    let open = || unsafe { small().open(&path) }.unwrap();
    let store = open();
    store
        .set_compression(PACKED, Some(&Compression::zstd(3)))
        .unwrap();
    LOGS.iter().for_each(|log| fill(&store, log, 0..1_500));
    settle(&store);
    store.close().unwrap();
    let store = open();
    compare(&store, "from files");
    let kept: Vec<KeptMessage> = {
        let snapshot = store.snapshot(PACKED).unwrap();
        let messages = snapshot.range(200..260).unwrap();
        messages.map(Result::unwrap).collect()
    };
    let expected = all(&store.snapshot(PLAIN).unwrap());
    store.close().unwrap();
    for (kept, expected) in kept.iter().zip(&expected[200..260]) {
        kept.check().unwrap();
        assert_eq!(
            (kept.offset().get(), kept.value().to_vec()),
            (expected.0, expected.1.clone())
        );
        // Promised of every value that is lent without a copy.
        assert_eq!(kept.value().as_ptr().align_offset(8), 0);
    }
}

/// Bytes of the slabs of a store with one log of this content.
fn slab_bytes(compression: Option<Compression>, value: impl Fn(u64) -> Vec<u8>) -> u64 {
    // All in one segment, which takes a page itself.
    let options = small().slab_segment_bytes(8 << 20, 8 << 20);
    let store = options.disk(memory()).open_copying(common::PATH).unwrap();
    store.set_compression(PACKED, compression.as_ref()).unwrap();
    let mut writer = store.writer(PACKED).unwrap();
    for number in 0..3_000 {
        writer.append(&value(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    settle(&store);
    store.collect().unwrap();
    store.space().unwrap().live
}

#[test]
fn a_compressed_log_takes_less_room_and_what_does_not_shrink_no_more() {
    let plain = slab_bytes(None, text);
    let lz4 = slab_bytes(Some(Compression::lz4()), text);
    let zstd = slab_bytes(Some(Compression::zstd(3)), text);
    assert!(lz4 * 3 < plain, "{lz4} of {plain} bytes");
    assert!(zstd < lz4, "{zstd} of {lz4} bytes");
    let value = |number| noise(number + 1, 300);
    assert_eq!(
        slab_bytes(Some(Compression::zstd(19)), value),
        slab_bytes(None, value)
    );
}

#[test]
fn compression_is_set_changed_and_ended_at_any_time() {
    let disk = memory();
    let store = compressed_store(Compression::lz4(), small(), &disk);
    for (from, compression) in [
        (0, None),
        (500, Some(Compression::zstd(19))),
        (1_000, Some(Compression::lz4().with_batch_bytes(100))),
        (1_500, None),
    ] {
        store.set_compression(PACKED, compression.as_ref()).unwrap();
        LOGS.iter().for_each(|log| fill(&store, log, from..from + 500));
        settle(&store);
        compare(&store, &format!("{compression:?}"));
    }
    // A fork is compressed as its origin was, and both go on by themselves.
    store.set_compression(PACKED, Some(&Compression::lz4())).unwrap();
    store.fork(PACKED, "fork").unwrap();
    assert_eq!(store.log("fork").unwrap().compression(), Some(Compression::lz4()));
    store.set_compression(PACKED, None).unwrap();
    assert_eq!(store.log("fork").unwrap().compression(), Some(Compression::lz4()));
}

#[test]
fn settings_out_of_bounds_and_messages_of_its_own_type_are_refused() {
    let store = common::open_on(memory());
    for compression in [
        Compression::zstd(0),
        Compression::zstd(20),
        Compression::lz4().with_batch_bytes(0),
        Compression::lz4().with_batch_bytes((16 << 20) + 1),
    ] {
        let refused = store.set_compression(PACKED, Some(&compression)).unwrap_err();
        assert!(
            matches!(refused, Error::InvalidOption { .. }),
            "{compression:?}: {refused}"
        );
        assert_eq!(refused.kind(), ErrorKind::FixTheCall);
    }
    assert!(store.logs().is_empty(), "a refusal makes no log");
    let mut writer = store.writer(PACKED).unwrap();
    let batch = NewMessage::new(b"").value_type(ValueType::new(13));
    assert!(matches!(
        writer.append_message(&batch),
        Err(Error::InvalidValue { .. })
    ));
}

/// Sets bytes of the file of slabs to others, wherever a part of `found` stands in it.
fn damage(disk: &MemoryDisk, at: impl Fn(&[u8]) -> Option<usize>) -> bool {
    let directory = Path::new("/store/segments");
    for name in disk.list(directory).unwrap() {
        if !name.ends_with(".slabs") {
            continue;
        }
        let file = disk.open(&directory.join(&name), OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        lanterman::disk::read_full_at(&*file, 0, &mut bytes).unwrap();
        if let Some(position) = at(&bytes) {
            file.write_at(position as u64, &[!bytes[position]], Sync::Data)
                .unwrap();
            return true;
        }
    }
    false
}

#[test]
fn damage_of_a_batch_loses_its_messages_and_no_others() {
    let disk = memory();
    let options = || small().slab_bytes_max(1 << 20).tail_memory_bytes(4 << 20);
    let store = compressed_store(Compression::lz4().with_batch_bytes(8 << 10), options(), &disk);
    let mut writer = store.writer(PACKED).unwrap();
    for number in 0..2_000 {
        writer.append(&half_noise(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    settle(&store);
    store.close().unwrap();
    // The text of one message of each batch stands there as it is: nothing like it came before.
    let wanted = b"\"number\": 10";
    let found = damage(&disk, |bytes| {
        bytes
            .windows(wanted.len())
            .position(|window| window == wanted)
            .map(|at| at + 3)
    });
    assert!(found, "no compressed text in any file");
    let store = options().disk(disk.clone()).open_copying(common::PATH).unwrap();
    let log = store.log(PACKED).unwrap();
    let mut cursor = log.cursor(0u64).unwrap();
    let mut lost = Vec::new();
    for offset in 0..2_000_u64 {
        match cursor.get(offset) {
            Ok(message) => assert!(message.value() == &half_noise(offset)[..], "offset {offset}"),
            Err(Error::Damaged(damage)) => {
                assert_eq!(damage.log.as_deref(), Some(PACKED));
                assert!(damage.offsets.unwrap().contains(&offset));
                lost.push(offset);
            }
            Err(other) => panic!("{other}"),
        }
    }
    // One batch of about twenty messages, perhaps two: a group of checksums may reach into the next one.
    assert!(!lost.is_empty() && lost.len() < 80, "{lost:?}");
    assert!(lost.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{lost:?}");
    // In order, the damage is told once, with offsets behind which to go on.
    let mut cursor = log.cursor(0u64).unwrap();
    let mut told = 0;
    let mut read = 0;
    loop {
        match cursor.next() {
            Ok(None) => break,
            Ok(Some(_)) => read += 1,
            Err(Error::Damaged(damage)) => {
                told += 1;
                cursor.seek(damage.offsets.unwrap().end).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(told <= 2, "told {told} times");
    assert_eq!(read, 2_000 - lost.len());
}

#[test]
fn large_values_and_transactions_work_in_a_compressed_log() {
    let disk = memory();
    let options = || small().large_value_bytes(20_000).message_bytes_max(16 << 10);
    let store = compressed_store(Compression::lz4(), options(), &disk);
    let film = text(4).repeat(300);
    for log in LOGS {
        let mut writer = store.writer(log).unwrap();
        writer.append(b"before").unwrap();
        let offset = writer
            .append_large(&NewMessage::new(b""), film.as_slice())
            .unwrap();
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        store
            .transaction(|transaction| (0..200).try_for_each(|number| transaction.append(log, &text(number))))
            .unwrap();
        settle(&store);
        let mut reader = store.log(log).unwrap().read_value(offset).unwrap();
        let mut found = Vec::new();
        while let Some(part) = reader.next_part().unwrap() {
            found.extend_from_slice(&part);
        }
        assert!(found == film, "{log}");
    }
    compare(&store, "with a large value");
}
