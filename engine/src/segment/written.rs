//! Which writes of a file are durable.
//!
//! Invariants:
//! - a write is noted when it has ended, before anything may refer to its bytes: a sync that runs beside a write covers it
//!   or does not, and nobody knows which;
//! - whoever is told that his write is durable was told so behind the end of a sync that began after the write had ended,
//!   also where another thread's sync was under way when he asked;
//! - a sync that failed fails for all who ask later: the kernel may answer a second one with success although the bytes
//!   are lost.

use std::io;
use std::sync::Arc;

use lanterman_format::weakened;

use crate::atomics::{AtomicU64, Mutex, Ordering};

/// Writes to one file, and how many of them a sync has covered.
#[derive(Debug)]
pub(crate) struct Written {
    /// Writes that have ended.
    ended: AtomicU64,
    /// How many had ended when the last sync that succeeded began.
    durable: AtomicU64,
    /// Held by the sync that runs; what a sync met that failed.
    failed: Mutex<Option<Arc<io::Error>>>,
}

impl Written {
    pub(crate) fn new() -> Self {
        Written {
            ended: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            failed: Mutex::new(None),
        }
    }

    /// Notes that a write has ended which no sync covers yet.
    pub(crate) fn note(&self) {
        // The sync that counts this write begins behind its end.
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes every write durable that was noted before the call: by `sync`, which makes all that has ended durable, or by
    /// waiting for another thread's that covers it.
    ///
    /// # Errors
    ///
    /// What `sync` met, in this call or an earlier one.
    pub(crate) fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> Result<(), Arc<io::Error>> {
        let wanted = self.ended.load(Ordering::Acquire);
        if self.durable.load(Ordering::Acquire) >= wanted {
            return Ok(());
        }
        if weakened!("sync-of-another-unawaited") {
            self.durable.fetch_max(wanted, Ordering::AcqRel);
        }
        let mut failed = self.failed.lock();
        if let Some(error) = failed.as_ref().filter(|_| !weakened!("failed-sync-forgotten")) {
            return Err(Arc::clone(error));
        }
        if self.durable.load(Ordering::Acquire) >= wanted && !weakened!("sync-of-another-unawaited") {
            return Ok(());
        }
        let mut ended = self.ended.load(Ordering::Acquire);
        if let Err(error) = sync() {
            let error = Arc::new(error);
            *failed = Some(Arc::clone(&error));
            return Err(error);
        }
        if weakened!("sync-covers-what-ended-beside-it") {
            ended = self.ended.load(Ordering::Acquire);
        }
        // Whoever finds his write counted finds the sync ended.
        self.durable.fetch_max(ended, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sync_is_asked_for_only_if_a_write_has_ended_since_the_last_one_began() {
        let written = Written::new();
        let syncs = Cell::new(0);
        let sync = |beside: &dyn Fn()| {
            written
                .sync(|| {
                    syncs.set(syncs.get() + 1);
                    beside();
                    Ok(())
                })
                .unwrap();
            syncs.get()
        };
        assert_eq!(sync(&|| ()), 0, "nothing was written");
        written.note();
        assert_eq!(sync(&|| written.note()), 1);
        assert_eq!(
            sync(&|| ()),
            2,
            "the write that ended beside the sync may not be covered"
        );
        assert_eq!(sync(&|| ()), 2);
    }

    #[test]
    fn whoever_asks_while_another_syncs_is_answered_when_that_sync_has_ended() {
        let written = Written::new();
        let is_durable = AtomicBool::new(false);
        let (begun, beginning) = channel();
        written.note();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                written.sync(|| {
                    begun.send(()).unwrap();
                    // Time for the other to be answered too early; too little of it hides a defect, and nothing more.
                    std::thread::park_timeout(Duration::from_millis(50));
                    is_durable.store(true, Ordering::SeqCst);
                    Ok(())
                })
            });
            beginning.recv().unwrap();
            written.sync(|| Ok(())).unwrap();
            assert!(is_durable.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn a_sync_that_failed_is_never_made_good_by_a_later_one() {
        let written = Written::new();
        written.note();
        let failed = || Err(io::ErrorKind::StorageFull.into());
        assert_eq!(
            written.sync(failed).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        for _ in 0..2 {
            let later = written.sync(|| Ok(())).unwrap_err();
            assert_eq!(later.kind(), io::ErrorKind::StorageFull);
            written.note();
        }
    }
}
