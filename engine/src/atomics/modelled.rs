//! What the models run on: loom's atomics and locks, and stand-ins for what loom does not know.
//!
//! Where a stand-in differs from the real thing it promises less, never more:
//! - a sleeper wakes only when it is woken, so a wake-up that is forgotten is a deadlock that loom reports;
//! - a [`OnceLock`] orders nothing by itself: whoever reads it must have been told by other means that it is set;
//! - the barrier on all threads orders just what membarrier(2) does, see [`barrier`];
//! - the collector of [`epoch`] destroys as soon as nobody is pinned, and notices who still looks.
#![allow(
    unsafe_code,
    reason = "loom's cells are reached through pointers, and a collector destroys what they point to"
)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Condvar;

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
pub(crate) use loom::thread::yield_now;

pub(crate) const SPINS: u32 = 0;
pub(crate) const YIELDS: u32 = u32::MAX;

/// A lock with the interface of the real one.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

/// A word on which threads sleep. As in the kernel, looking at the word and falling asleep are one step for whoever
/// wakes: the lock stands for that of the kernel's queue.
#[derive(Debug)]
pub(crate) struct Word {
    value: AtomicU32,
    queue: loom::sync::Mutex<()>,
    woken: Condvar,
}

impl Word {
    pub(crate) fn new(value: u32) -> Self {
        Word {
            value: AtomicU32::new(value),
            queue: loom::sync::Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    pub(crate) fn wait(&self, expected: u32) {
        let queue = self.queue.lock().unwrap();
        if self.value.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
    }

    pub(crate) fn pause(&self, _expected: u32) {
        yield_now();
    }

    pub(crate) fn wake_all(&self) {
        let _queue = self.queue.lock().unwrap();
        self.woken.notify_all();
    }
}

impl Default for Word {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Deref for Word {
    type Target = AtomicU32;

    fn deref(&self) -> &AtomicU32 {
        &self.value
    }
}

/// A value that is set once.
pub(crate) struct OnceLock<T>(UnsafeCell<Option<T>>);

// SAFETY: loom itself stops the test when a read and the one write are not ordered by something else.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _set_just_now = self.set(make());
        }
        self.get().expect("the value was just set")
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: as above; the value is written once and never moved afterwards.
        self.0.with(|value| unsafe { (*value).as_ref() })
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { *place = Some(value) });
        Ok(())
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock(UnsafeCell::new(None))
    }
}

impl<T> fmt::Debug for OnceLock<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnceLock")
    }
}

/// A clock that says «just begun» once, and then that any limit is over. What happens in between is tried in every order,
/// so nothing else would be learnt from more steps.
#[derive(Debug)]
pub(crate) struct Stopwatch(Cell<bool>);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(Cell::new(false))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        if self.0.replace(true) {
            Duration::MAX
        } else {
            Duration::ZERO
        }
    }
}

loom::lazy_static! {
    /// What each fence of the compiler and each barrier on all threads passes through.
    static ref POINT: AtomicU32 = AtomicU32::new(0);
}

pub(crate) fn barrier_available() -> bool {
    true
}

/// membarrier(2), which loom does not know. It makes every other thread pass a full fence at some moment of the call. For
/// the one use that we make of it, a store and a load of another thread with a fence of the compiler between them, only
/// two things can come of it. If that moment lies before the load, the load sees what the caller did before the call; if
/// it lies behind the store, the caller sees the store; and it lies before the one or behind the other. Both sides
/// exchanging one word, where the compiler's fence is and where the barrier is, gives just that: of two exchanges one
/// comes first, and the later one sees what was before it. Nothing else is ordered, least of all against the full fence
/// of a caller who thinks that he needs no barrier.
pub(crate) fn barrier() -> io::Result<()> {
    POINT.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

/// The other half of [`barrier`].
pub(crate) fn compiler_fence(_order: Ordering) {
    POINT.fetch_add(1, Ordering::AcqRel);
}

/// A collector with the interface of crossbeam-epoch, as far as it is used. The inside of the real one is left to
/// crossbeam, which has models of its own; here it is a lock, a count of guards and a list, and what is tried is our use
/// of it: what is loaded, swapped, retired, in which order and under which guard. A guard that begins orders nothing here,
/// and one that ends only what is destroyed after it.
pub(crate) mod epoch {
    use std::any::Any;
    use std::cell::RefCell;
    use std::fmt;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicPtr, AtomicU32};

    /// A value in the heap; `None` when it was destroyed. The memory itself is kept until the end of the execution, so
    /// that looking at it too late is an error that loom reports and no damage.
    struct Node<T>(UnsafeCell<Option<T>>);

    // SAFETY: loom itself stops the test when two sides use the cell at the same time.
    unsafe impl<T: Send> Send for Node<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send + Sync> Sync for Node<T> {}

    impl<T> Node<T> {
        fn take(&self) -> Option<T> {
            // SAFETY: as above.
            self.0.with_mut(|value| unsafe { (*value).take() })
        }
    }

    type Garbage = Box<dyn FnOnce() + Send>;

    #[derive(Default)]
    struct State {
        guards: usize,
        has_destroyed: bool,
        garbage: Vec<Garbage>,
        kept: Vec<Arc<dyn Any + Send + Sync>>,
    }

    loom::lazy_static! {
        /// Not loom's lock: coming under a guard orders nothing by itself, and threads take turns anyway.
        static ref STATE: Mutex<State> = Mutex::new(State::default());
        /// What was done under guards that are gone is visible to whoever destroys, and that something was unlinked and
        /// destroyed to all guards that come later.
        static ref ORDER: AtomicU32 = AtomicU32::new(0);
    }

    /// Keeps what is loaded under it alive.
    pub(crate) struct Guard {
        /// Loom's notes of what is being looked at, which end with the guard.
        looking: RefCell<Vec<Box<dyn Any>>>,
    }

    pub(crate) fn pin() -> Guard {
        let mut state = STATE.lock().unwrap();
        state.guards += 1;
        let has_destroyed = state.has_destroyed;
        drop(state);
        if has_destroyed {
            ORDER.fetch_add(1, Ordering::Acquire);
        }
        Guard {
            looking: RefCell::default(),
        }
    }

    impl Guard {
        /// # Safety
        /// `old` is unlinked and retired only here.
        pub(crate) unsafe fn defer_destroy<T: Send + Sync + 'static>(&self, old: Shared<'_, T>) {
            // SAFETY: as above.
            let node = unsafe { kept(old.pointer) };
            STATE
                .lock()
                .unwrap()
                .garbage
                .push(Box::new(move || drop(node.take())));
        }

        pub(crate) fn flush(&self) {}
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.looking.borrow_mut().clear();
            // One step with what follows, since loom lets no other thread run behind an operation.
            ORDER.fetch_add(1, Ordering::AcqRel);
            let mut state = STATE.lock().unwrap();
            state.guards -= 1;
            if state.guards == 0 {
                state.has_destroyed |= !state.garbage.is_empty();
                let garbage = std::mem::take(&mut state.garbage);
                drop(state);
                garbage.into_iter().for_each(|destroy| destroy());
            }
        }
    }

    /// A value that is not linked yet, or no more.
    pub(crate) struct Owned<T>(Arc<Node<T>>);

    impl<T: Send + Sync + 'static> Owned<T> {
        pub(crate) fn new(value: T) -> Self {
            let node = Arc::new(Node(UnsafeCell::new(None)));
            // SAFETY: nobody else knows the node; written here and not in `new`, so that loom sees who wrote it.
            node.0.with_mut(|place| unsafe { *place = Some(value) });
            STATE.lock().unwrap().kept.push(Arc::clone(&node) as _);
            Owned(node)
        }
    }

    impl<T> Drop for Owned<T> {
        fn drop(&mut self) {
            drop(self.0.take());
        }
    }

    /// A value that was loaded.
    pub(crate) struct Shared<'g, T> {
        pointer: *const Node<T>,
        guard: &'g Guard,
    }

    impl<'g, T: Send + Sync + 'static> Shared<'g, T> {
        /// # Safety
        /// As the real one.
        pub(crate) unsafe fn deref(&self) -> &'g T {
            // SAFETY: the node is kept until the end of the execution.
            let looking = unsafe { &*self.pointer }.0.get();
            // SAFETY: loom notes that the cell is looked at until the guard ends.
            let value = looking.with(|value| unsafe { &*value }.as_ref());
            self.guard.looking.borrow_mut().push(Box::new(looking));
            value.expect("a value that is looked at was not destroyed")
        }

        /// # Safety
        /// As the real one.
        pub(crate) unsafe fn into_owned(self) -> Owned<T> {
            // SAFETY: as above.
            Owned(unsafe { kept(self.pointer) })
        }
    }

    /// A place for a value.
    pub(crate) struct Atomic<T>(AtomicPtr<Node<T>>);

    impl<T: Send + Sync + 'static> Atomic<T> {
        pub(crate) fn new(value: T) -> Self {
            Atomic(AtomicPtr::new(link(Owned::new(value))))
        }

        pub(crate) fn load<'g>(&self, order: Ordering, guard: &'g Guard) -> Shared<'g, T> {
            Shared {
                pointer: self.0.load(order),
                guard,
            }
        }

        pub(crate) fn swap<'g>(&self, new: Owned<T>, order: Ordering, guard: &'g Guard) -> Shared<'g, T> {
            Shared {
                pointer: self.0.swap(link(new), order),
                guard,
            }
        }

        /// # Safety
        /// As the real one.
        pub(crate) unsafe fn into_owned(self) -> Owned<T> {
            // SAFETY: linked by `link`, and kept by the collector's list.
            Owned(unsafe { kept(self.0.load(Ordering::Relaxed)) })
        }
    }

    impl<T> Default for Atomic<T> {
        fn default() -> Self {
            Atomic(AtomicPtr::new(std::ptr::null_mut()))
        }
    }

    impl<T> fmt::Debug for Atomic<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("Atomic")
        }
    }

    fn link<T>(owned: Owned<T>) -> *mut Node<T> {
        let node = Arc::clone(&owned.0);
        // Its content now belongs to whoever unlinks it.
        std::mem::forget(owned);
        let pointer = Arc::as_ptr(&node);
        pointer.cast_mut()
    }

    /// # Safety
    /// `pointer` was made by [`link`] in this execution.
    unsafe fn kept<T>(pointer: *const Node<T>) -> Arc<Node<T>> {
        // SAFETY: the collector's list counts the node until the end of the execution.
        unsafe { Arc::increment_strong_count(pointer) };
        // SAFETY: as above; the count was just raised for this.
        unsafe { Arc::from_raw(pointer) }
    }
}
