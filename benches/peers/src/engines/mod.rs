//! One small adapter an engine. How each is set up, and by which page of its documentation, stands at the head of its file.

#[cfg(feature = "commitlog")]
mod commit_log;
#[cfg(feature = "fjall")]
mod fjall;
mod lanterman;
#[cfg(feature = "heed")]
mod lmdb;
#[cfg(feature = "okaywal")]
mod okay;
#[cfg(feature = "raft-engine")]
mod raft;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "walrus")]
mod walrus;

use crate::engine::{Engine, Outcome};
use crate::workloads::{Figures, Task, run};

/// An engine with its types forgotten.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) appended_means: &'static str,
    pub(crate) run: fn(&Task) -> Outcome<Figures>,
}

const fn entry<E: Engine>() -> Entry {
    Entry {
        name: E::NAME,
        package: E::PACKAGE,
        appended_means: E::APPENDED_MEANS,
        run: run::<E>,
    }
}

/// All that were built in; Lanterman first.
pub(crate) const ALL: &[Entry] = &[
    entry::<lanterman::Lanterman>(),
    #[cfg(feature = "walrus")]
    entry::<walrus::WalrusLog>(),
    #[cfg(feature = "okaywal")]
    entry::<okay::Okay>(),
    #[cfg(feature = "raft-engine")]
    entry::<raft::RaftLog>(),
    #[cfg(feature = "commitlog")]
    entry::<commit_log::CommitLogs>(),
    #[cfg(feature = "rocksdb")]
    entry::<rocks::Rocks>(),
    #[cfg(feature = "heed")]
    entry::<lmdb::Lmdb>(),
    #[cfg(feature = "fjall")]
    entry::<fjall::Fjall>(),
    #[cfg(feature = "redb")]
    entry::<redb::Redb>(),
];

/// The version of a package, from the file that pins it.
pub(crate) fn version(package: &str) -> String {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let mut lines = LOCK.lines();
    let wanted = format!("name = \"{package}\"");
    lines.find(|line| *line == wanted);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    let version = version.unwrap_or("?").trim_matches('"');
    // Bindings carry the version of what they bind behind their own.
    version.rsplit('+').next().unwrap_or(version).to_owned()
}
