//! Group commit: every request is written once, one group at a time, its members see what was written, nobody sleeps on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use lanterman_format::ids::Version;

use super::{Watched, every_order};
use crate::atomics::{Ordering, Word};
use crate::error::Result;
use crate::journal::group::{GroupCommit, GroupFuture, GroupWriter};

/// What the background is called for.
const COMMIT: u32 = 1;
const STOP: u32 = 2;

/// Writes nothing, but notes for each request that it was written.
struct Noting {
    /// One group at a time: loom would see two.
    journal: Watched,
    effects: Vec<Watched>,
    called: Word,
}

impl Noting {
    fn new(requests: usize) -> Arc<Self> {
        Arc::new(Noting {
            journal: Watched::new(),
            effects: (0..requests).map(|_| Watched::new()).collect(),
            called: Word::new(0),
        })
    }

    /// Adds a wish. An exchange, like whoever takes it: loom does not hold a plain store to the order of the exchanges.
    fn call(&self, wish: u32) {
        self.called.fetch_or(wish, Ordering::AcqRel);
        self.called.wake_all();
    }

    fn assert_each_was_written_once(&self) {
        for effect in &self.effects {
            assert_eq!(effect.read(), 1);
        }
    }
}

impl GroupWriter<usize> for Noting {
    fn write_group(&self, requests: Vec<usize>) -> Result<Version> {
        assert!(!requests.is_empty(), "a group without requests");
        self.journal.add_one();
        for request in requests {
            self.effects[request].add_one();
        }
        // Others come while it is written.
        self.called.load(Ordering::Relaxed);
        Ok(Version::new(self.journal.read().into()))
    }

    fn call_background(&self) {
        self.call(COMMIT);
    }
}

fn commit(groups: &GroupCommit<usize>, writer: &Noting, request: usize) {
    groups.commit(request, writer).unwrap();
    assert_eq!(writer.effects[request].read(), 1, "acknowledged and not written");
}

/// So many threads, this one among them, commit once each.
fn threads_commit(expected: usize, threads: usize) {
    let groups = Arc::new(GroupCommit::expecting(expected));
    let writer = Noting::new(threads);
    let others: Vec<_> = (1..threads)
        .map(|request| {
            let (groups, writer) = (Arc::clone(&groups), Arc::clone(&writer));
            thread::spawn(move || commit(&groups, &writer, request))
        })
        .collect();
    commit(&groups, &writer, 0);
    for other in others {
        other.join().unwrap();
    }
    writer.assert_each_was_written_once();
}

#[test]
fn a_commit_beside_another_is_written_in_its_turn() {
    every_order(|| threads_commit(1, 2));
}

#[test]
fn members_of_a_group_that_waited_for_another_see_its_outcome() {
    every_order(|| threads_commit(1, 3));
}

#[test]
fn the_last_to_join_a_gathering_group_writes_it_for_all() {
    every_order(|| threads_commit(3, 2));
}

#[test]
fn a_gathering_group_is_written_once_however_many_come() {
    every_order(|| threads_commit(4, 3));
}

struct Alarm(Word);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(1, Ordering::Release);
        self.0.wake_all();
    }
}

fn block_on(mut future: GroupFuture) -> Result<Version> {
    loop {
        let alarm = Arc::new(Alarm(Word::new(0)));
        let waker = Waker::from(Arc::clone(&alarm));
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => {
                while alarm.0.load(Ordering::Acquire) == 0 {
                    alarm.0.wait(0);
                }
            }
        }
    }
}

/// The background leads what nobody waits for, once it is called.
fn lead_when_called(groups: &GroupCommit<usize>, writer: &Noting) {
    loop {
        writer.called.wait(0);
        let called = writer.called.swap(0, Ordering::AcqRel);
        if called & COMMIT != 0 {
            groups.lead(writer);
        }
        if called & STOP != 0 {
            return;
        }
    }
}

#[test]
fn a_task_is_woken_when_its_request_is_written() {
    every_order(|| {
        let groups = Arc::new(GroupCommit::new());
        let writer = Noting::new(1);
        let (also_groups, also_writer) = (Arc::clone(&groups), Arc::clone(&writer));
        let background = thread::spawn(move || {
            while !also_groups.lead(&*also_writer) {
                thread::yield_now();
            }
        });
        block_on(groups.commit_later(0, &*writer)).unwrap();
        assert_eq!(writer.effects[0].read(), 1);
        background.join().unwrap();
    });
}

#[test]
fn the_background_is_told_of_a_group_that_nobody_waits_for() {
    every_order(|| {
        let groups = Arc::new(GroupCommit::new());
        let writer = Noting::new(2);
        let (also_groups, also_writer) = (Arc::clone(&groups), Arc::clone(&writer));
        let background = thread::spawn(move || lead_when_called(&also_groups, &also_writer));
        let (also_groups, also_writer) = (Arc::clone(&groups), Arc::clone(&writer));
        let other = thread::spawn(move || commit(&also_groups, &also_writer, 1));
        groups.commit_later(0, &*writer).wait().unwrap();
        assert_eq!(writer.effects[0].read(), 1);
        other.join().unwrap();
        writer.call(STOP);
        background.join().unwrap();
    });
}
