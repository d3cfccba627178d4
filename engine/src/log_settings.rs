//! The public face, continued: what is set of a log and outlasts the process.

use crate::compression::Compression;
use crate::constraints::Constraints;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::retention::Retention;
#[cfg(doc)]
use crate::snapshot::Snapshot;
use crate::store::Store;

impl Store {
    /// Keeps `retention` as a setting of the log `name`: the background, or [`step`](Self::step), applies it about once a
    /// second. `None` takes the setting away.
    ///
    /// # Errors
    /// As [`retain`](Self::retain); an offset is no setting.
    pub fn set_retention(&self, name: &str, retention: Option<&Retention>) -> Result<()> {
        self.core().set_retention(name, retention)
    }

    /// Has the messages of the log `name` compressed, so many together, in all slabs that are made from now on, durably; `None`
    /// ends that. The log is created if there is none. What is in memory and in the journal is never compressed, and what does
    /// not shrink stays as it is.
    ///
    /// A log without this setting, which is the default, is read without a copy. Of a compressed one, reading a message
    /// uncompresses those that stand with it, into memory within the budget of copies (`Options::tail_memory_bytes`).
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::InvalidOption`] for a codec that this program was built without, or a level or number of
    /// bytes out of bounds; what a commit may meet.
    pub fn set_compression(&self, name: &str, compression: Option<&Compression>) -> Result<()> {
        self.core().set_compression(name, compression)
    }

    /// Sets what the log `name` demands of messages that are appended to it from now on, durably; `None` takes it away.
    ///
    /// A message that breaks a rule is refused before it is in the log ([`Error::Constraint`]), or taken with a warning
    /// through `tracing`, or goes to another log ([`Error::Diverted`]), as the rule says. Batches and transactions are
    /// refused whole; in a transaction a message that is diverted goes to the other log in the same version. Calls that
    /// began before may be judged by the constraints before. Forks take them over. What is in the log already is not
    /// judged: [`Snapshot::check_constraints`] does that.
    ///
    /// # Errors
    /// [`Error::InvalidConstraints`] for more than 60 KiB of them, or if they divert to the log itself or to no log's name;
    /// [`Error::UnknownLog`]; what a commit may meet.
    pub fn set_constraints(&self, name: &str, constraints: Option<&Constraints>) -> Result<()> {
        self.core().set_constraints(name, constraints)
    }
}
