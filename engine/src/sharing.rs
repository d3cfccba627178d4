//! The public face, continued: logs that share what they hold, and the past of logs.

use std::ops::RangeBounds;

use lanterman_format::ids::Version;

use crate::cursor::ToOffset;
use crate::deletion::DeletionReceipt;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::named::{Moment, NamedSnapshot};
use crate::snapshot::Snapshot;
use crate::splice::SpliceReceipt;
use crate::store::Store;

impl Store {
    /// Makes the log `new` with everything that the log `name` has now, in O(1) whatever its size and durably: both
    /// share what stands on the disk. The new log has the same offsets, can be written, and goes its own way from here:
    /// what is appended to one or deleted in one is not in the other. Messages that were not committed yet are. It
    /// begins with the log's settings.
    ///
    /// # Errors
    /// [`Error::UnknownLog`], [`Error::LogExists`], [`Error::InvalidName`]; what a commit may meet. The new name is taken
    /// only if the fork was made.
    pub fn fork(&self, name: &str, new: &str) -> Result<()> {
        self.core().fork(name, new, None)
    }

    /// As [`fork`](Self::fork), with what the log `name` has below `offset`, which is the offset that the next message
    /// of the new log gets. At the first offset of the log that is a log without messages.
    ///
    /// # Errors
    /// As `fork`; [`Error::OutOfRange`] behind the end of the log, [`Error::Deleted`] where the message was deleted.
    pub fn fork_at(&self, name: &str, new: &str, offset: impl ToOffset) -> Result<()> {
        self.core().fork(name, new, Some(offset.to_offset()))
    }

    /// Puts everything that the log `source` has behind the end of the log `name`, by reference and durably: no message is
    /// read or copied that stands on the disk. The messages get new offsets there, in their order; offsets deleted in the
    /// source are deleted offsets of the log too. What happens to the source later does not change it.
    ///
    /// A writer of the log may be open; what it appends comes before or behind, never between.
    ///
    /// # Errors
    /// As [`splice`](Self::splice).
    pub fn concat(&self, name: &str, source: &str) -> Result<SpliceReceipt> {
        self.core().splice(name, source, &..)
    }

    /// Puts a range of offsets of the log `source` behind the end of the log `name`, as [`concat`](Self::concat) does.
    ///
    /// A range that ends between the parts of a large value and its message brings parts that nobody names; the next writer
    /// of the log deletes them.
    ///
    /// # Errors
    /// [`Error::UnknownLog`], [`Error::InvalidName`]; [`Error::SpliceIntoItself`] if both are the same log;
    /// [`Error::InvalidRange`] if the range is empty, reversed, or ends behind the source; [`Error::Reserved`]; what a
    /// commit may meet.
    pub fn splice(&self, name: &str, source: &str, offsets: impl RangeBounds<u64>) -> Result<SpliceReceipt> {
        self.core().splice(name, source, &offsets)
    }

    /// Appends a log to a log: the log `other` becomes a part of the tree of the log `name`, of its length and by
    /// reference, in O(log n) however long it is and however many logs were appended to it before. Reading, searching and
    /// deleting go through as if its messages had been appended one by one.
    ///
    /// It holds what `other` has now; what is appended there later is not in it.
    ///
    /// # Errors
    /// As [`splice`](Self::splice).
    pub fn append_log(&self, name: &str, other: &str) -> Result<SpliceReceipt> {
        self.core().splice(name, other, &..)
    }

    /// Drops the log `name` with all its messages, durably. The name is free at once. Snapshots and cursors of the log go
    /// on, and so do its forks, what was spliced from it, and named snapshots.
    ///
    /// # Errors
    /// [`Error::UnknownLog`], [`Error::InvalidName`]; [`Error::WriterOpen`] while the log has a writer; what a commit may
    /// meet.
    pub fn drop_log(&self, name: &str) -> Result<DeletionReceipt> {
        self.core().drop_log(name)
    }

    /// Makes named snapshots of logs, of all if none is named: as of one version, all or none, durably. They outlast the
    /// process, and what becomes of their logs; they hold no version and so hold nobody back but the disk space of what
    /// they share. Everything appended to the logs before is committed and is in them.
    ///
    /// ```
    /// # fn main() -> Result<(), lanterman::Error> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = lanterman::Store::open_copying(directory.path().join("data"))?;
    /// store.writer("orders")?.append(b"hello")?;
    /// store.create_snapshot("before the change", &["orders"])?;
    /// store.delete("orders", ..)?;
    /// let before = store.named_snapshot("before the change", "orders")?;
    /// assert_eq!(&before.get(0u64)?.value()[..], b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::SnapshotExists`], [`Error::UnknownLog`]; [`Error::InvalidName`] also for a label, which follows the rules
    /// of names; [`Error::InvalidOption`] in a store without logs; what a commit may meet.
    pub fn create_snapshot(&self, label: &str, logs: &[&str]) -> Result<Vec<NamedSnapshot>> {
        self.core().create_snapshot(label, logs)
    }

    /// All named snapshots, by label and log, and behind them the points of the history.
    #[must_use]
    pub fn named_snapshots(&self) -> Vec<NamedSnapshot> {
        self.core().named_snapshots()
    }

    /// The named snapshot of the log `log` with that label; [`Snapshot::fork`] makes a log of it that can be written.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`]; [`Error::UnknownLog`] if the
    /// snapshot is not of that log.
    pub fn named_snapshot(&self, label: &str, log: &str) -> Result<Snapshot> {
        let state = self.core().find_snapshot(label, log)?;
        Ok(Snapshot::of_named(self.core(), state))
    }

    /// Drops the named snapshots with that label, durably. Who reads them goes on.
    ///
    /// # Errors
    /// [`Error::UnknownSnapshot`]; what a commit may meet.
    pub fn drop_snapshot(&self, label: &str) -> Result<Version> {
        self.core().drop_snapshot(label)
    }

    /// The log `name` as it was at a moment of its history: the newest point that was made at or before it. So it may be
    /// older than the moment by up to the interval of [`Options::history`](crate::Options::history).
    ///
    /// # Errors
    /// [`Error::NoHistory`] for a moment in the future, before the window, or before the first
    /// point.
    pub fn snapshot_at(&self, name: &str, moment: Moment) -> Result<Snapshot> {
        let state = self.core().find_point(name, moment)?;
        Ok(Snapshot::of_named(self.core(), state))
    }
}
