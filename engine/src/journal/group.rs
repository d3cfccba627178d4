//! Group commit: those who wait share a block.
//!
//! While one group is written the next one gathers. The thread that completes a group writes it: the first to join
//! leads, unless enough others join before it stops gathering, in which case the last of them does. Gathering lasts at
//! most half of a usual write, and only where groups have lately been large; `docs/decisions/0001-write-path.md` has the
//! figures behind the constants.
//!
//! Invariants:
//! - one group is written at a time; a request is in exactly one group, and a group is written exactly once;
//! - every group that is not empty has a leader awake or asleep, or the background thread was told of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lanterman_format::ids::Version;
use lanterman_format::weakened;

use crate::atomics::{AtomicU32, Mutex, OnceLock, Ordering, Stopwatch, Word, order, yield_now};
use crate::error::{Error, Result};

/// Groups smaller than this are not worth waiting for: with few committers that pause between commits, gathering lost
/// 9 to 15 % in the prototype.
#[cfg(not(all(loom, test)))]
const GATHER_COUNT_MIN: usize = 5;
/// Models have few committers.
#[cfg(all(loom, test))]
const GATHER_COUNT_MIN: usize = 2;
/// Upper bound of a gathering, in case the latency is misjudged.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// Largest penalty after a gathering that was in vain, in groups.
const PENALTY_MAX: u32 = 64;

/// What the members of a group share.
#[derive(Debug, Default)]
struct Shared {
    /// 1 when the sleeping leader is to go on.
    lead: Word,
    /// 1 when the group was taken to be written.
    taken: AtomicU32,
    /// 1 when the outcome is there.
    done: Word,
    outcome: OnceLock<Result<Version>>,
    /// Tasks that wait for `done`; nobody adds one after it is set.
    wakers: Mutex<Vec<Waker>>,
}

impl Shared {
    fn outcome(&self) -> Result<Version> {
        if weakened!("group-told-of-success") && matches!(self.outcome.get(), Some(Err(_))) {
            return Ok(Version::new(0));
        }
        self.outcome.get().cloned().unwrap_or(Err(Error::Internal {
            what: "a finished group has an outcome",
        }))
    }

    fn is_done(&self) -> bool {
        // Acquire: the outcome, and all that the writer of the group did, is visible to its members.
        let acquire = order(Ordering::Acquire, weakened!("group-done-seen-relaxed"));
        self.done.load(acquire) != 0
    }

    fn wait(&self) -> Result<Version> {
        while !self.is_done() {
            self.done.wait(0);
        }
        self.outcome()
    }

    /// Sends the sleeping leader on.
    fn wake_leader(&self) {
        self.lead.store(1, Ordering::Release);
        if !weakened!("group-leader-not-woken") {
            self.lead.wake_all();
        }
    }
}

#[derive(Debug)]
struct Group<R> {
    requests: Vec<R>,
    shared: Arc<Shared>,
    /// A thread of this group sees to it that it is written.
    has_leader: bool,
    /// That thread sleeps until the write in flight is done.
    leader_sleeps: bool,
}

impl<R> Default for Group<R> {
    fn default() -> Self {
        Group {
            requests: Vec::new(),
            shared: Arc::default(),
            has_leader: false,
            leader_sleeps: false,
        }
    }
}

#[derive(Debug)]
struct State<R> {
    open: Group<R>,
    writing: bool,
    /// Mean duration of a write, in nanoseconds.
    latency_ns: u64,
    /// Members that the next group is likely to have.
    expected: usize,
    penalty: u32,
    skip: u32,
}

impl<R> State<R> {
    /// How long a gathering may last.
    fn wait(&self) -> Duration {
        Duration::from_nanos(self.latency_ns / 2).min(GATHER_MAX)
    }
}

/// Who writes a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrittenBy {
    /// One of its members.
    Member,
    /// Somebody else: the members wait.
    Other,
}

/// How the next group is likely to be gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathering {
    /// Members that it is likely to have.
    pub(crate) members: usize,
    /// How long a write takes, on the average of the last ones.
    pub(crate) latency: Duration,
    /// How long it is waited for others; zero where groups are small.
    pub(crate) wait: Duration,
    pub(crate) wait_max: Duration,
}

/// Gathers requests into groups; `W` writes one.
#[derive(Debug)]
pub(crate) struct GroupCommit<R> {
    state: Mutex<State<R>>,
}

/// Writes groups and is told when nobody but the background can lead one.
pub(crate) trait GroupWriter<R> {
    /// Makes one version of all requests.
    fn write_group(&self, requests: Vec<R>) -> Result<Version>;
    /// Asks the background to call [`GroupCommit::lead`] soon.
    fn call_background(&self);
}

impl<R> GroupCommit<R> {
    pub(crate) fn new() -> Self {
        Self::expecting(1)
    }

    /// One whose first group is likely to have so many members.
    pub(crate) fn expecting(expected: usize) -> Self {
        GroupCommit {
            state: Mutex::new(State {
                open: Group::default(),
                writing: false,
                latency_ns: 200_000,
                expected,
                penalty: 1,
                skip: 0,
            }),
        }
    }

    /// What is chosen for the next group.
    pub(crate) fn gathering(&self) -> Gathering {
        let state = self.state.lock();
        // Fewer are never waited for: the first of them is enough.
        let is_worth_it = state.expected >= GATHER_COUNT_MIN;
        Gathering {
            members: state.expected,
            latency: Duration::from_nanos(state.latency_ns),
            wait: if is_worth_it { state.wait() } else { Duration::ZERO },
            wait_max: GATHER_MAX,
        }
    }

    /// Adds `request` to the open group and waits until that group is written, writing it if need be.
    ///
    /// # Errors
    /// What the writing of the group met.
    pub(crate) fn commit(&self, request: R, writer: &impl GroupWriter<R>) -> Result<Version> {
        let mut state = self.state.lock();
        let enough = state.expected.saturating_mul(9) / 10;
        state.open.requests.push(request);
        let shared = Arc::clone(&state.open.shared);
        if state.writing {
            if state.open.has_leader {
                drop(state);
                return shared.wait();
            }
            state.open.has_leader = true;
            state.open.leader_sleeps = !weakened!("group-leader-asleep-unseen");
            drop(state);
            while shared.lead.load(Ordering::Acquire) == 0 && shared.taken.load(Ordering::Acquire) == 0 {
                shared.lead.wait(0);
            }
            return self.gather(&shared, writer);
        }
        if state.open.requests.len() >= enough {
            let group = self.take(&mut state);
            drop(state);
            self.write(group, writer, WrittenBy::Member);
            return shared.wait();
        }
        if state.open.has_leader {
            drop(state);
            return shared.wait();
        }
        state.open.has_leader = true;
        drop(state);
        self.gather(&shared, writer)
    }

    /// Waits a little for others; then writes the group, unless one of the others did.
    fn gather(&self, shared: &Arc<Shared>, writer: &impl GroupWriter<R>) -> Result<Version> {
        let start = Stopwatch::start();
        let (limit, mut ready) = {
            let state = self.state.lock();
            let enough = state.expected.saturating_mul(9) / 10;
            (state.wait(), state.open.requests.len() >= enough)
        };
        loop {
            if shared.taken.load(Ordering::Acquire) != 0 {
                return shared.wait();
            }
            let late = start.elapsed() >= limit;
            if ready || late {
                let mut state = self.state.lock();
                let untaken = shared.taken.load(Ordering::Acquire) == 0 || weakened!("group-taken-unasked");
                if untaken && !state.writing {
                    if !ready {
                        // In vain: the committers pause between commits. Do not wait for them for a while.
                        state.penalty = state.penalty.saturating_mul(2).clamp(1, PENALTY_MAX);
                        state.skip = state.penalty.saturating_add(1);
                    }
                    let group = self.take(&mut state);
                    drop(state);
                    self.write(group, writer, WrittenBy::Member);
                    return shared.wait();
                }
                // Somebody writes another group: that one's end wakes nobody else for this group.
                ready = true;
            }
            yield_now();
        }
    }

    /// Adds `request` without a thread to wait for it; the future is ready when its group is written.
    pub(crate) fn commit_later(&self, request: R, writer: &impl GroupWriter<R>) -> GroupFuture {
        let mut state = self.state.lock();
        state.open.requests.push(request);
        let shared = Arc::clone(&state.open.shared);
        let orphan = !state.open.has_leader && !state.writing;
        drop(state);
        if orphan {
            writer.call_background();
        }
        GroupFuture { shared }
    }

    /// Writes the open group if it has no leader; called by the background.
    pub(crate) fn lead(&self, writer: &impl GroupWriter<R>) -> bool {
        let mut state = self.state.lock();
        if state.writing || state.open.has_leader || state.open.requests.is_empty() {
            return false;
        }
        let group = self.take(&mut state);
        drop(state);
        self.write(group, writer, WrittenBy::Other);
        true
    }

    fn take(&self, state: &mut State<R>) -> Group<R> {
        let mut group = std::mem::take(&mut state.open);
        state.writing = !weakened!("group-written-beside-another");
        group.shared.taken.store(1, Ordering::Release);
        if group.leader_sleeps {
            group.shared.wake_leader();
            group.leader_sleeps = false;
        }
        group
    }

    fn write(&self, group: Group<R>, writer: &impl GroupWriter<R>, by: WrittenBy) {
        let members = group.requests.len();
        let start = Stopwatch::start();
        let outcome = writer.write_group(group.requests);
        let elapsed_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let _ = group.shared.outcome.set(outcome);
        let mut state = self.state.lock();
        state.writing = false;
        state.latency_ns = state.latency_ns - state.latency_ns / 20 + elapsed_ns / 20;
        let queued = state.open.requests.len();
        if members.saturating_mul(10) >= state.expected.saturating_mul(9)
            && state.expected >= GATHER_COUNT_MIN
        {
            state.penalty = (state.penalty / 2).max(1);
        }
        let likely = members
            .saturating_add(queued)
            .min(members.saturating_mul(2).saturating_add(2));
        state.expected = if state.skip > 0 {
            state.skip -= 1;
            1
        } else if likely < GATHER_COUNT_MIN {
            1
        } else {
            likely
        };
        let orphan = queued > 0 && !state.open.has_leader;
        let next = state.open.leader_sleeps.then(|| {
            state.open.leader_sleeps = false;
            Arc::clone(&state.open.shared)
        });
        drop(state);
        let early =
            weakened!("group-wakers-taken-early").then(|| std::mem::take(&mut *group.shared.wakers.lock()));
        let release = order(Ordering::Release, weakened!("group-done-relaxed"));
        group.shared.done.store(1, release);
        // A member that wrote its group alone has nobody to wake.
        let alone = members == 1 && (by == WrittenBy::Member || weakened!("group-single-member-not-woken"));
        if !alone && !weakened!("group-members-not-woken") {
            group.shared.done.wake_all();
        }
        let wakers = early.unwrap_or_else(|| std::mem::take(&mut *group.shared.wakers.lock()));
        for waker in wakers {
            waker.wake();
        }
        if let Some(next) = next {
            next.wake_leader();
        } else if orphan && !weakened!("group-orphan-untold") {
            writer.call_background();
        }
    }
}

/// Ready when the group is written. Dropping it takes nothing back.
#[derive(Debug)]
pub(crate) struct GroupFuture {
    shared: Arc<Shared>,
}

impl Future for GroupFuture {
    type Output = Result<Version>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut wakers = self.shared.wakers.lock();
        // Under the lock: the writer sets `done` before it takes the wakers.
        if self.shared.is_done() {
            return Poll::Ready(self.shared.outcome());
        }
        if !wakers.iter().any(|known| known.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl GroupFuture {
    /// Whether the group is written.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.is_done()
    }

    /// Blocks until the group is written.
    pub(crate) fn wait(self) -> Result<Version> {
        self.shared.wait()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::atomics::{AtomicBool, AtomicU64};

    #[derive(Default)]
    struct Counting {
        version: AtomicU64,
        sizes: Mutex<Vec<usize>>,
        inside: AtomicBool,
        background: AtomicU64,
        fails: AtomicBool,
    }

    impl GroupWriter<u64> for Counting {
        fn write_group(&self, requests: Vec<u64>) -> Result<Version> {
            assert!(!self.inside.swap(true, Ordering::AcqRel), "two groups at once");
            assert!(!requests.is_empty());
            self.sizes.lock().push(requests.len());
            std::thread::yield_now();
            self.inside.store(false, Ordering::Release);
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            Ok(Version::new(self.version.fetch_add(1, Ordering::AcqRel) + 1))
        }

        fn call_background(&self) {
            self.background.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[test]
    fn every_request_of_many_threads_is_written_once_and_one_group_at_a_time() {
        let groups = GroupCommit::new();
        let writer = Counting::default();
        std::thread::scope(|scope| {
            let threads = [(); 16].map(|()| {
                let (groups, writer) = (&groups, &writer);
                scope.spawn(move || {
                    let mut last = 0;
                    for _ in 0..500 {
                        let version = groups.commit(1, writer).unwrap().get();
                        assert!(version > last, "a later commit has a later version");
                        last = version;
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(writer.sizes.lock().iter().sum::<usize>(), 16 * 500);
    }

    #[test]
    fn one_thread_alone_writes_at_once_without_calling_the_background() {
        let groups = GroupCommit::new();
        let writer = Counting::default();
        for _ in 0..10 {
            groups.commit(1, &writer).unwrap();
        }
        assert_eq!(*writer.sizes.lock(), vec![1; 10]);
        assert_eq!(writer.background.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_request_without_a_thread_is_written_by_the_background() {
        let groups = GroupCommit::new();
        let writer = Counting::default();
        let future = groups.commit_later(1, &writer);
        assert_eq!(writer.background.load(Ordering::Relaxed), 1);
        assert!(groups.lead(&writer));
        assert_eq!(future.wait().unwrap(), Version::new(1));
        assert!(!groups.lead(&writer), "nothing is left");
    }

    #[test]
    fn whoever_sleeps_until_the_background_has_written_his_request_alone_is_woken() {
        let groups = GroupCommit::new();
        let writer = Counting::default();
        let future = groups.commit_later(1, &writer);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| future.wait());
            std::thread::park_timeout(Duration::from_millis(50));
            assert!(groups.lead(&writer));
            for _ in 0..1000 {
                if sleeper.is_finished() {
                    sleeper.join().unwrap().unwrap();
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            // Not woken: the scope would wait for ever.
            std::process::abort();
        });
    }

    #[test]
    fn all_members_of_a_group_get_its_error() {
        let groups = GroupCommit::new();
        let writer = Counting::default();
        writer.fails.store(true, Ordering::Relaxed);
        let first = groups.commit_later(1, &writer);
        let second = groups.commit_later(2, &writer);
        groups.lead(&writer);
        assert!(matches!(first.wait(), Err(Error::Closed)));
        assert!(matches!(second.wait(), Err(Error::Closed)));
    }
}
