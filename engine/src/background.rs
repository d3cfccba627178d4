//! The one helper thread: writes slabs, leads asynchronous commits, makes checkpoints, keeps time for automatic commits,
//! gives back the space of garbage.
//!
//! Everything it does is a call that any thread may make; tests make them by hand and run no thread at all.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::atomics::barrier_available;
use crate::core::Core;
use crate::error::Error;
use crate::flush::Progress;
use crate::region::root::destroy_replaced;
use lanterman_format::weakened;

/// How long the thread sleeps when nobody calls; a bound on how late idle memory is given back.
const IDLE_TURN: Duration = Duration::from_millis(500);
/// A store that has filled no chunk and made no checkpoint for so long gives back the memory that it keeps for speed alone.
const REST: Duration = Duration::from_millis(500);
/// Pause after a failure that may pass, such as a full disk.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Wishes {
    flush: bool,
    commit: bool,
    checkpoint: bool,
    journal: bool,
    stop: bool,
}

impl Wishes {
    fn any(&self) -> bool {
        self.flush || self.commit || self.checkpoint || self.journal || self.stop
    }
}

/// What the background is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Background {
    wishes: Mutex<Wishes>,
    called: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Background {
    pub(crate) fn ask_for_flush(&self) {
        self.ask(|wishes| &mut wishes.flush);
    }

    pub(crate) fn ask_for_commit(&self) {
        self.ask(|wishes| &mut wishes.commit);
    }

    pub(crate) fn ask_for_checkpoint(&self) {
        self.ask(|wishes| &mut wishes.checkpoint);
    }

    pub(crate) fn ask_for_journal(&self) {
        self.ask(|wishes| &mut wishes.journal);
    }

    fn ask(&self, wish: impl FnOnce(&mut Wishes) -> &mut bool) {
        let mut wishes = self.wishes.lock();
        let asked = wish(&mut wishes);
        if !*asked {
            *asked = true;
            self.called.notify_one();
        }
    }

    /// Starts the thread for `core`, which it does not keep alive.
    pub(crate) fn start(core: &Arc<Core>) -> Result<(), std::io::Error> {
        // Gates of logs need it. The kernel answers at once while a process has one thread, and takes 15 ms afterwards.
        barrier_available();
        let weak = Arc::downgrade(core);
        let thread = std::thread::Builder::new()
            .name("lanterman".into())
            .spawn(move || run(&weak))?;
        *core.background.thread.lock() = Some(thread);
        Ok(())
    }

    /// Whether a thread works in the background.
    pub(crate) fn has_thread(&self) -> bool {
        self.thread.lock().is_some()
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        self.ask(|wishes| &mut wishes.stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the background thread of a store panicked");
        }
    }
}

fn run(weak: &Weak<Core>) {
    let mut pause = None;
    let mut busy_at = None;
    let mut checkpoints = 0;
    loop {
        let Some(core) = weak.upgrade() else { return };
        let turn = pause.take().unwrap_or_else(|| core.turn().min(IDLE_TURN));
        let mut wishes = core.background.wishes.lock();
        if !wishes.any() {
            core.background.called.wait_for(&mut wishes, turn);
        }
        let now = std::mem::take(&mut *wishes);
        drop(wishes);
        if now.stop {
            return;
        }
        let checkpoints_before = std::mem::replace(&mut checkpoints, core.counters.checkpoint_count());
        if now.flush || checkpoints > checkpoints_before {
            busy_at = Some(core.clock.monotonic());
        } else if busy_at.is_some_and(|then| core.clock.monotonic().saturating_sub(then) >= REST) {
            busy_at = None;
            core.give_back_spare_memory();
        }
        match work(&core, &now) {
            Ok(()) => {}
            Err(Error::Poisoned { .. } | Error::Closed) => pause = Some(IDLE_TURN),
            Err(error) => {
                tracing::warn!(%error, "background work will be tried again");
                pause = Some(RETRY_PAUSE);
            }
        }
    }
}

fn work(core: &Core, wishes: &Wishes) -> Result<(), Error> {
    let written = write_what_waits(core, wishes);
    if !matches!(written, Ok(()) | Err(Error::StorageFull { .. })) {
        return written;
    }
    // On a full disk this is what makes room for what waits.
    core.apply_retentions()?;
    core.collect_if_due()?;
    core.bound_index_memory()?;
    while core.index_keys()? || core.compact_if_due()? {
        core.groups.lead(core);
        if written.is_ok() {
            core.flusher.lock().drive(core, true)?;
        }
    }
    written
}

fn write_what_waits(core: &Core, wishes: &Wishes) -> Result<(), Error> {
    if wishes.commit {
        core.groups.lead(core);
    }
    if wishes.flush {
        core.prepare_memory();
    }
    loop {
        let flushes = core.flusher.lock().drive(core, true)? == Progress::Working;
        // A piece at a time, so that neither slabs nor groups wait for all of it.
        if !core.prepare_journal()? && !flushes {
            break;
        }
        if flushes {
            core.prepare_memory();
        }
        core.groups.lead(core);
    }
    core.commit_by_time()?;
    core.keep_history()?;
    if wishes.checkpoint || core.checkpoint_is_due() {
        core.checkpoint()?;
    }
    Ok(())
}

impl Core {
    /// What is kept for readers close behind the writer, and for the next chunks, goes back to the system.
    fn give_back_spare_memory(&self) {
        self.flusher.lock().trim_recent(0);
        // Roots that were replaced hold chunks until nobody can look at them any more.
        destroy_replaced();
        self.pool.trim();
        self.spare_parts.free();
    }

    /// Sees to it that full chunks are ready: first those that no reader needs, then new ones.
    fn prepare_memory(&self) {
        if self.pool.is_short_of_full() && !weakened!("landed-chunks-kept") {
            self.flusher.lock().let_go_of_read(self);
            destroy_replaced();
        }
        self.pool.prepare();
    }

    /// One turn of background work, done by the caller; says whether anything was left to do.
    pub(crate) fn step(&self) -> Result<bool, Error> {
        let led = self.groups.lead(self);
        let written = self.write_step();
        if !matches!(written, Ok(_) | Err(Error::StorageFull { .. })) {
            return written;
        }
        let retained = self.apply_retentions()?;
        let collected = self.collect_if_due()?;
        self.bound_index_memory()?;
        let indexed = self.index_keys()?;
        let compacted = self.compact_if_due()?;
        Ok(written? || led || retained || collected || indexed || compacted)
    }

    /// Does a piece of the work for the next segment of the journal; says whether more of it is left.
    fn prepare_journal(&self) -> Result<bool, Error> {
        if !self.segments.is_journal_unready() {
            return Ok(false);
        }
        let _permit = self.permit()?;
        let prepared = self.segments.prepare_journal();
        prepared.map_err(|error| self.poison_if_sync_failed(error))
    }

    fn write_step(&self) -> Result<bool, Error> {
        let flushed = self.flusher.lock().drive(self, true)? == Progress::Working;
        let prepares = self.prepare_journal()?;
        self.commit_by_time()?;
        let kept = self.keep_history()?;
        let checkpointed = self.checkpoint_is_due() && self.checkpoint()?.is_some();
        Ok(flushed || prepares || kept || checkpointed)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::options::{Background as Helper, Options};
    use crate::store::Store;

    /// How many chunks of the log are in memory once memory for more is asked for.
    fn chunks_kept(store: &Store) -> usize {
        let core = store.core();
        core.prepare_memory();
        let log = core.catalog.find("log").unwrap().unwrap();
        log.root().chunks.len()
    }

    #[test]
    fn chunks_on_the_disk_that_every_cursor_has_read_make_room_before_new_memory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new()
            .background(Helper::Manual)
            .tail_memory_bytes(64 << 20);
        let store = options.open_copying(directory.path().join("store")).unwrap();
        let mut writer = store.writer("log").unwrap();
        let reader = store.log("log").unwrap().cursor(0u64).unwrap();
        for _ in 0..12 << 10 {
            writer.append(&[7; 1024]).unwrap();
        }
        while store.step().unwrap() {}
        let all = chunks_kept(&store);
        assert!(
            all >= 10,
            "{all} chunks are kept for the one who has read nothing"
        );
        drop(reader);
        let few = chunks_kept(&store);
        assert!((1..=6).contains(&few), "{few} chunks are kept for nobody");
    }
}
