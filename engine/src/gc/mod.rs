//! Giving back the space of what nobody can reach any more.
//!
//! A collection finds out what is reached: from the newest checkpoint, from the newest roots of all logs, and from what
//! snapshots and cursors hold. Whatever else lies in the segments of slabs before the place where the next block goes is
//! garbage: whole segments are put away, pages of others are punched. So nothing needs to be counted, written down or
//! replayed for it: sharing between logs is safe by construction, and a crash at any point costs a repetition. Only nodes
//! are read, which are about 0.02 % of what they describe.
//!
//! Invariants:
//! - both root slots name the checkpoint from which a collection looks, and no version after it edited a log: so neither
//!   a recovery nor the journal refers to anything that is found to be garbage;
//! - while it looks, no checkpoint is written and no log is edited; appends and commits go on;
//! - what other processes may read is left alone: while one of them stands on an older checkpoint, nothing is given back;
//! - what somebody looks at through a map stays until he lets go of it.

mod collect;
mod erase;
mod listed;
mod range_set;
mod reached;
mod slow;
mod space;

use std::time::Duration;

use crate::deletion::DeletionReceipt;
use crate::error::Result;
use crate::store::Store;

pub(crate) use collect::Collector;
pub use collect::{Collected, HeldBack};
pub(crate) use slow::SlowReaders;
pub use space::{Space, SpaceCheck};

impl Store {
    /// Gives back the space of everything that nobody can reach any more, as far as nobody holds it: punches holes into
    /// segments, and removes whole ones. The background does the same, in steps.
    ///
    /// # Errors
    /// What writing a checkpoint may meet; [`Error::Damaged`](crate::Error::Damaged) if a node cannot be read, since what it reaches is then
    /// unknown; the system's errors.
    pub fn collect(&self) -> Result<Collected> {
        self.core().check_writable("collect garbage")?;
        let core = self.core();
        let collected = core.collect()?;
        core.tell_of_slow_readers(&collected.held);
        Ok(collected)
    }

    /// Waits until nothing of what a deletion destroyed is in any file of the store, doing what is needed for that: slabs
    /// that hold a part of it are written anew, a checkpoint is made, the rest is collected, the journal and spare files
    /// are scrubbed. What a fork or a named snapshot still shows was not destroyed, and is not erased.
    ///
    /// # Errors
    /// [`Error::StillHeld`](crate::Error::StillHeld) after `limit`, with who holds it: snapshots, cursors, kept values, other processes. As
    /// [`collect`](Self::collect).
    pub fn wait_erased(&self, receipt: &DeletionReceipt, limit: Duration) -> Result<()> {
        self.core().check_writable("erase")?;
        self.core().wait_erased(receipt, limit)
    }

    /// As [`collect`](Self::collect), giving back only about `bytes` bytes.
    ///
    /// # Errors
    /// As `collect`.
    pub fn collect_step(&self, bytes: u64) -> Result<Collected> {
        self.core().check_writable("collect garbage")?;
        let core = self.core();
        let collected = core.collect_step(bytes)?;
        core.tell_of_slow_readers(&collected.held);
        Ok(collected)
    }

    /// What the segments of slabs are used for. Writes a checkpoint first, and reads the nodes of all trees.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn space(&self) -> Result<Space> {
        Ok(self.check_space()?.space)
    }

    /// As [`space`](Self::space), and whether all blocks lie where they may.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn check_space(&self) -> Result<SpaceCheck> {
        self.core().check_writable("look at the space")?;
        self.core().check_space()
    }
}
