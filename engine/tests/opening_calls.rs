//! Promise: opening a store that was closed asks of the disk what it needs and no more, however large the store is: nothing is
//! written, nothing synced twice, no ring set up. Shown by counting the calls, so that no time is measured.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{PATH, memory, small, value};
use lanterman::disk::{
    Call, CallPlan, Disk, Fate, FaultyDisk, MemoryDisk, OpenMode, OperationKind, SystemDisk, SystemOptions,
};
use lanterman::{Background, Durability, Options, Store};

/// Fills a log and closes the store, so that segments, spares and a part of a journal lie there.
fn fill(store: Store, messages: u64) {
    let mut writer = store.writer("log").unwrap();
    for number in 0..messages {
        writer.append(&value(number)).unwrap();
        if number % 100 == 99 {
            writer.commit(Durability::Disk).unwrap();
        }
    }
    drop(writer);
    store.close().unwrap();
}

/// The calls of opening a store of so many messages for writing.
fn calls_of_opening(messages: u64) -> Vec<OperationKind> {
    let disk = memory();
    fill(
        small()
            .disk(Arc::clone(&disk) as Arc<_>)
            .open_copying(PATH)
            .unwrap(),
        messages,
    );
    let counting = Arc::new(FaultyDisk::new(disk));
    let store = small()
        .disk(Arc::clone(&counting) as Arc<_>)
        .open_copying(PATH)
        .unwrap();
    let calls = counting.operation_kinds();
    assert_eq!(store.log("log").unwrap().end().get(), messages);
    calls
}

fn count(calls: &[OperationKind], kind: OperationKind) -> usize {
    calls.iter().filter(|call| **call == kind).count()
}

#[test]
fn opening_a_closed_store_writes_nothing_and_makes_few_calls_however_large_it_is() {
    for messages in [2_000, 20_000] {
        let calls = calls_of_opening(messages);
        for kind in [
            OperationKind::Write,
            OperationKind::WriteSync,
            OperationKind::Reserve,
            OperationKind::Rename,
            OperationKind::Unlink,
        ] {
            assert_eq!(count(&calls, kind), 0, "{kind:?} of {messages} messages");
        }
        // The root and the segment of the journal; the directory of the store and that of its segments.
        assert_eq!(count(&calls, OperationKind::SyncData), 2);
        assert_eq!(count(&calls, OperationKind::SyncDirectory), 2);
        // The root; two headers; the checkpoint and a page of the catalog; the end of the journal; the header of one spare,
        // which may be the reserve.
        let reads = count(&calls, OperationKind::Read);
        assert!(reads <= 7, "{reads} reads for {messages} messages");
        // The root, two segments, at most four spares, and one of these once more for its header.
        let opened = count(&calls, OperationKind::Open);
        assert!(opened <= 8, "{opened} files opened for {messages} messages");
    }
}

fn with_large_journal(disk: &Arc<impl Disk + 'static>) -> Store {
    small()
        .journal_segment_bytes(8 << 20, 32 << 20)
        .disk(Arc::clone(disk) as Arc<_>)
        .open_copying(PATH)
        .unwrap()
}

fn journal_bytes(disk: &MemoryDisk) -> Vec<u64> {
    let directory = Path::new(PATH).join("segments");
    let names = disk.list(&directory).unwrap();
    let bytes_of = |name: &String| {
        let file = disk.open(&directory.join(name), OpenMode::Read);
        file.unwrap().bytes().unwrap()
    };
    let journals = names.iter().filter(|name| name.ends_with(".journal"));
    journals.map(bytes_of).collect()
}

#[test]
fn the_room_that_the_journal_has_left_is_not_read_after_a_clean_end() {
    let disk = memory();
    let mut end = 0;
    // At first something is written by each; then a checkpoint comes before closing; then nothing is written.
    for (messages, makes_checkpoint) in [(10, false), (10, false), (10, true), (0, false), (10, false)] {
        let counting = Arc::new(FaultyDisk::new(disk.clone()));
        let store = with_large_journal(&counting);
        let reads = count(&counting.operation_kinds(), OperationKind::Read);
        // Of a store that was just made nothing is known yet.
        assert!(
            reads <= 7 || end == 0,
            "{reads} reads for a store of {end} messages"
        );
        assert_eq!(common::check_values(&store, "log", 0), end);
        if messages > 0 {
            common::append(&store, "log", end..end + messages);
            end += messages;
        }
        if makes_checkpoint {
            store.checkpoint().unwrap();
        }
        // What a killed process wrote behind the end is found.
        let killed = Arc::new(disk.kill_image().unwrap());
        assert_eq!(common::check_values(&with_large_journal(&killed), "log", 0), end);
        let cut = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
        assert_eq!(common::check_values(&with_large_journal(&cut), "log", 0), end);
        store.close().unwrap();
        let journals = journal_bytes(&disk);
        assert!(
            journals.iter().all(|bytes| *bytes == 8 << 20) && journals.len() == 1,
            "segments of the journal grow without being filled: {journals:?}"
        );
    }
    let writes = |kinds: Vec<OperationKind>| {
        count(&kinds, OperationKind::Write) + count(&kinds, OperationKind::WriteSync)
    };
    let counting = Arc::new(FaultyDisk::new(disk));
    with_large_journal(&counting).close().unwrap();
    assert_eq!(writes(counting.operation_kinds()), 0, "nothing was to be written");
}

#[test]
fn slabs_that_the_journal_adopts_are_asked_for_together_after_a_kill() {
    let disk = memory();
    let store = common::large_slabs()
        .disk(Arc::clone(&disk) as Arc<_>)
        .open_copying(PATH)
        .unwrap();
    common::append(&store, "log", 0..100_000);
    let slabs = 100_000 * 200 / (1 << 20);
    let counting = Arc::new(FaultyDisk::new(Arc::new(disk.kill_image().unwrap())));
    let opened = common::large_slabs()
        .disk(Arc::clone(&counting) as Arc<_>)
        .open_copying(PATH)
        .unwrap();
    let calls = counting.operation_kinds();
    // One hint for the end of each slab, with the beginning of the next.
    let hints = count(&calls, OperationKind::Advise);
    assert!(hints >= slabs, "{hints} hints for {slabs} slabs");
    assert_eq!(common::check_values(&opened, "log", 0), 100_000);
}

#[test]
fn the_tail_of_a_quiet_log_is_one_read_and_those_beside_it_are_asked_for_with_it() {
    const LOGS: usize = 100;
    let names: Vec<_> = (0..LOGS).map(|number| format!("log-{number}")).collect();
    let append_to_all = |store: &Store| {
        let appended = store.transaction(|transaction| {
            let mut appended = names.iter().map(|name| transaction.append(name, &value(1)));
            appended.try_for_each(|appended| appended.map(drop))
        });
        appended.unwrap();
    };
    let disk = memory();
    let with_logs = |disk: Arc<dyn Disk>| small().disk(disk).open_copying(PATH).unwrap();
    let store = with_logs(disk.clone());
    names
        .iter()
        .for_each(|name| store.create_log(name).map(drop).unwrap());
    append_to_all(&store);
    store.close().unwrap();
    let counting = Arc::new(FaultyDisk::new(disk));
    let store = with_logs(counting.clone());
    let before = counting.operation_kinds().len();
    append_to_all(&store);
    let calls = counting.operation_kinds().split_off(before);
    // This disk does not tell what is in memory.
    assert_eq!(count(&calls, OperationKind::Advise), LOGS);
    // Before any of them is waited for.
    let last = calls.iter().rposition(|call| *call == OperationKind::Advise);
    let (before, behind) = calls.split_at(last.unwrap());
    assert_eq!(count(behind, OperationKind::Read), LOGS);
    // What leads to the names.
    let reads = count(before, OperationKind::Read);
    assert!(reads < 5, "{reads} reads beside the tails");
    let ends = names.iter().map(|name| store.log(name).unwrap().end().get());
    assert!(ends.into_iter().all(|end| end == 2));
}

fn on_the_system(path: &Path, plan: &Arc<CallPlan>) -> Store {
    let disk = SystemDisk::with_calls(SystemOptions::for_tests(), Arc::clone(plan)).unwrap();
    Options::new()
        .background(Background::Manual)
        .disk(Arc::new(disk))
        .open_copying(path)
        .unwrap()
}

#[test]
fn a_ring_is_set_up_when_slabs_are_written_and_not_when_a_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fill(on_the_system(&path, &Arc::default()), 100);
    let plan = Arc::new(CallPlan::new());
    let store = on_the_system(&path, &plan);
    let writer = store.writer("log").unwrap();
    assert!(!plan.calls().contains(&Call::RingSetup));
    drop(writer);
    fill(store, 8_000);
    assert!(plan.calls().contains(&Call::RingSetup));
}
