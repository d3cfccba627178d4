//! Promise: opening a store that was closed asks of the disk what it needs and no more, however large the store is: nothing is
//! written, nothing synced twice, no ring set up. Shown by counting the calls, so that no time is measured.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{PATH, memory, small, value};
use lanterman::disk::{Call, CallPlan, FaultyDisk, OperationKind, SystemDisk, SystemOptions};
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
