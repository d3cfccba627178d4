//! Promise: threads and logs that commit at the same time share writes, lose nothing, and stay in order; asynchronous
//! commits need no runtime; memory for tails is bounded, and who meets the bound waits or is told. Shown with threads.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::{check_values, memory, small, value};
use lanterman::{
    Background, Durability, Error, ErrorKind, NewMessage, Offset, Options, Store, WhenFull, Writer,
};

#[test]
fn threads_that_commit_together_lose_nothing_and_share_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Options::new().open_copying(&path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let mut writer = store.writer(&format!("log {thread}")).unwrap();
                for number in 0..60 {
                    writer.append(&value(number)).unwrap();
                    writer.commit(Durability::Disk).unwrap();
                    assert_eq!(writer.durable_end().get(), number + 1);
                }
            });
        }
    });
    let versions = store.counters().versions_written;
    assert!(versions <= 480, "{versions} blocks for 480 commits");
    drop(store);
    let store = Options::new().open_copying(&path).unwrap();
    for thread in 0..8 {
        assert_eq!(check_values(&store, &format!("log {thread}"), 0), 60);
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn a_commit_future_is_driven_by_a_bare_waker_and_may_be_dropped() {
    for background in [Background::Thread, Background::Manual] {
        let directory = tempfile::tempdir().unwrap();
        let store = Options::new()
            .background(background)
            .open_copying(directory.path().join("store"))
            .unwrap();
        let mut writer = store.writer("events").unwrap();
        writer.append(b"one").unwrap();
        drop(writer.commit_async(Durability::Disk).unwrap());
        writer.append(b"two").unwrap();
        let mut future = pin!(writer.commit_async(Durability::Disk).unwrap());
        let woken = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let before = woken.0.load(Ordering::Acquire);
            if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                outcome.unwrap();
                break;
            }
            while woken.0.load(Ordering::Acquire) == before {
                std::thread::yield_now();
            }
        }
        assert_eq!(writer.durable_end().get(), 2);
    }
}

#[test]
fn many_logs_under_a_tiny_budget_wait_and_none_is_lost() {
    let store = small()
        .background(Background::Thread)
        .disk(memory())
        .open_copying(common::PATH)
        .unwrap();
    let mut writers: Vec<_> = (0..40)
        .map(|log| store.writer(&format!("log {log}")).unwrap())
        .collect();
    for number in 0..400 {
        for writer in &mut writers {
            writer.append(&value(number)).unwrap();
        }
    }
    for log in 0..40 {
        assert_eq!(check_values(&store, &format!("log {log}"), 0), 400);
    }
    assert!(store.counters().waits_for_memory > 0, "the budget was never met");
}

fn refusing() -> Store {
    small()
        .when_full(WhenFull::Refuse)
        .disk(memory())
        .open_copying(common::PATH)
        .unwrap()
}

/// Appends, and does what gives memory back for as long as there is none; says how often it was refused.
fn append_when_there_is_memory(store: &Store, writer: &mut Writer, value: &[u8]) -> u64 {
    let mut refused = 0;
    while let Err(error) = writer.append(value) {
        assert!(
            matches!(error, Error::WouldBlock { .. }) && error.kind() == ErrorKind::Retry,
            "{error}"
        );
        refused += 1;
        store.commit_all(Durability::Process).unwrap();
        store.checkpoint().unwrap();
        store.step().unwrap();
        assert!(refused < 100, "memory does not come back");
    }
    refused
}

#[test]
fn a_store_that_may_not_wait_says_so_and_takes_the_message_later() {
    let store = refusing();
    let mut writers: Vec<_> = (0..40)
        .map(|log| store.writer(&format!("log {log}")).unwrap())
        .collect();
    let mut refused = 0;
    for number in 0..200 {
        for writer in &mut writers {
            refused += append_when_there_is_memory(&store, writer, &value(number));
        }
    }
    assert!(refused > 0, "the budget was never met");
    for log in 0..40 {
        assert_eq!(check_values(&store, &format!("log {log}"), 0), 200);
    }
}

/// More memory than all tails may have.
const MORE_THAN_MEMORY: u64 = 1_200_000;

#[test]
fn memory_of_dropped_logs_that_snapshots_keep_is_not_waited_for() {
    let store = refusing();
    let mut held = Vec::new();
    for round in 0..4_u64 {
        let mut writer = store.writer("dropped").unwrap();
        // Full chunks that nobody has written yet: there is memory for them, so nobody had to.
        for number in 0..1500 {
            append_when_there_is_memory(&store, &mut writer, &value(number));
        }
        drop(writer);
        held.push((round, store.snapshot("dropped").unwrap()));
        store.drop_log("dropped").unwrap();
    }
    let mut writer = store.writer("kept").unwrap();
    for number in 0..MORE_THAN_MEMORY / 200 {
        append_when_there_is_memory(&store, &mut writer, &value(number));
    }
    for (round, snapshot) in held {
        assert_eq!(snapshot.range(..).unwrap().count(), 1500, "round {round}");
    }
}

#[test]
fn memory_that_logs_have_outgrown_and_snapshots_keep_is_not_waited_for() {
    let store = refusing();
    let mut held = Vec::new();
    let mut refused = 0;
    for log in 0..MORE_THAN_MEMORY / 8192 {
        let name = format!("log {log}");
        let mut writer = store.writer(&name).unwrap();
        // Too many for the smallest piece, and then too many for the next one.
        for number in 0..200 {
            if number == 40 {
                held.push(store.snapshot(&name).unwrap());
            }
            refused += append_when_there_is_memory(&store, &mut writer, &value(number));
        }
        // What it has now goes into slabs, and nobody is in want of memory yet.
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        store.checkpoint().unwrap();
        store.checkpoint().unwrap();
    }
    // On a busy machine a few logs meet the bound all the same; with what readers keep counted, most of them do.
    assert!(
        refused < 40,
        "refused {refused} times: what readers keep was counted as the writers'"
    );
    assert!(
        held.iter()
            .all(|snapshot| snapshot.range(..).unwrap().count() == 40)
    );
}

#[test]
fn limits_are_compared_before_anything_is_appended() {
    let store = small()
        .message_bytes_max(100_000)
        .disk(memory())
        .open_copying(common::PATH)
        .unwrap();
    let mut writer = store.writer("events").unwrap();
    let large = vec![7; 100_001];
    let key = vec![7; (64 << 10) + 1];
    let header = vec![7; (256 << 10) + 1];
    let headers: [(&[u8], &[u8]); 1] = [(b"name", &header)];
    let refused = [
        writer.append(&large).unwrap_err(),
        writer
            .append_message(&NewMessage::new(b"").key(&key))
            .unwrap_err(),
        writer
            .append_message(&NewMessage::new(b"").headers(&headers))
            .unwrap_err(),
        writer
            .append_batch([NewMessage::new(b"fine"), NewMessage::new(&large)])
            .unwrap_err(),
        writer
            .append_if(Offset::new(0), &NewMessage::new(&large))
            .unwrap_err(),
        writer.reserve(100_001).unwrap_err(),
        store
            .transaction(|transaction| transaction.append("events", &large))
            .unwrap_err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Error::TooLarge { .. }) && error.kind() == ErrorKind::FixTheCall,
            "{error}"
        );
    }
    assert_eq!(writer.next_offset().get(), 0);
    assert_eq!(writer.append(&large[1..]).unwrap().get(), 0);
    assert_eq!(writer.append(b"").unwrap().get(), 1);
    let error = writer
        .append_if(Offset::new(9), &NewMessage::new(b"x"))
        .unwrap_err();
    assert!(
        matches!(error, Error::OffsetMismatch { found, .. } if found.get() == 2),
        "{error}"
    );
}
