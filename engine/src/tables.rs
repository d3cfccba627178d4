//! Logs as tables: what a store offers for keyed logs. Looking for keys is the matter of logs and snapshots.

use crate::compaction::{CompactionPlan, CompactionReceipt};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::keyed::Keyed;
use crate::store::Store;

impl Store {
    /// Makes the log `name` keyed, or changes how it is compacted; `None` makes it an ordinary log again. Durable.
    ///
    /// Every message of a keyed log has a key, and of the messages with one key the newest counts: the log is a table as well
    /// ([`Log::get_key`](crate::Log::get_key), [`Snapshot::scan_prefix`](crate::Snapshot::scan_prefix)). A delete marker ([`NewMessage::delete_marker`](crate::NewMessage::delete_marker))
    /// says that there is nothing of a key any more. What newer messages supersede is removed by the background, or by
    /// [`compact`](Self::compact), and offsets stay as they are. The log is created if there is none.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] if the log is not keyed yet and has messages; [`Error::InvalidName`]; [`Error::InvalidOption`];
    /// what a commit may meet.
    pub fn set_keyed(&self, name: &str, keyed: Option<&Keyed>) -> Result<()> {
        self.core().set_keyed(name, keyed)
    }

    /// Removes all messages of the keyed log `name` that newer ones supersede, and delete markers whose time is over. What
    /// is in memory is written as slabs first. Others read and write meanwhile; what is done is done if it is broken off.
    ///
    /// The space is given back by the collection, once nobody holds it. On a full disk that is done between the steps, each of
    /// which writes no more than there is room for, the [reserve](crate::Options::reserve_bytes) included.
    ///
    /// # Errors
    /// [`Error::NotKeyed`], [`Error::UnknownLog`], [`Error::Damaged`] where keys or messages cannot be read;
    /// [`Error::StorageFull`] if not everything could be removed for want of room, because what is in memory finds none or
    /// somebody holds what would come back: drop snapshots and cursors, delete what is not needed, and call again; what a commit
    /// may meet.
    pub fn compact(&self, name: &str) -> Result<CompactionReceipt> {
        self.core().compact(name)
    }

    /// What [`compact`](Self::compact) would find; nothing is written but keys in their order, where they were missing and there is
    /// room for them.
    ///
    /// # Errors
    /// As `compact`.
    pub fn plan_compaction(&self, name: &str) -> Result<CompactionPlan> {
        self.core().plan_compaction(name)
    }
}
