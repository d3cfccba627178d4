//! What all rows share: the directory, sizes, and data that is made once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lanterman::{Durability, Options, Store};

use crate::{Outcome, bare};

pub(crate) use lanterman_benches::data::{Random, megabytes, open, payload};

/// Sizes and paths of a run, and fixtures that several rounds use.
#[derive(Debug)]
pub(crate) struct Context {
    directory: PathBuf,
    pub(crate) quick: bool,
    pub(crate) round: usize,
    bare_file: Option<PathBuf>,
    library: Option<Library>,
}

/// A store that rows of reading share: one log of equal messages.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    pub(crate) path: PathBuf,
    pub(crate) messages: u64,
}

/// Bytes of a message of most rows.
pub(crate) const MESSAGE_BYTES: usize = 1024;
/// Name of the log of most rows.
pub(crate) const LOG: &str = "log";

impl Context {
    pub(crate) fn new(directory: &Path, quick: bool) -> Outcome<Self> {
        std::fs::create_dir_all(directory)?;
        let own = directory.join(format!("run-{}", std::process::id()));
        std::fs::create_dir(&own)?;
        Ok(Context {
            directory: own,
            quick,
            round: 0,
            bare_file: None,
            library: None,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A store in `path`, mapped, as a program that wants speed opens it.
    pub(crate) fn open(&self, path: &Path) -> Outcome<Store> {
        open(path, Options::new())
    }

    /// One size for a real run and one for a quick one.
    pub(crate) fn pick<T>(&self, real: T, quick: T) -> T {
        if self.quick { quick } else { real }
    }

    /// How much the rows of sustained writing write.
    pub(crate) fn sustained_bytes(&self) -> u64 {
        self.pick(1 << 30, 64 << 20)
    }

    /// A file whose blocks were all written before, for bare writes: writing over such blocks is the fastest way.
    pub(crate) fn written_before(&mut self) -> Outcome<PathBuf> {
        if let Some(path) = &self.bare_file {
            return Ok(path.clone());
        }
        let path = self.path("bare.data");
        bare::reserve(&path, self.sustained_bytes())?;
        bare::ring_write(&path, self.sustained_bytes(), bare::Filling::None)?;
        self.bare_file = Some(path.clone());
        Ok(path)
    }

    /// The store that rows of reading share, written and closed.
    pub(crate) fn library(&mut self) -> Outcome<Library> {
        if let Some(library) = &self.library {
            return Ok(library.clone());
        }
        let bytes: u64 = self.pick(2 << 30, 64 << 20);
        let library = Library {
            path: self.path("library"),
            messages: bytes / MESSAGE_BYTES as u64,
        };
        let store = self.open(&library.path)?;
        let mut writer = store.writer(LOG)?;
        let mut message = payload(MESSAGE_BYTES);
        for number in 0..library.messages {
            message[..8].copy_from_slice(&number.to_le_bytes());
            writer.append(&message)?;
        }
        writer.commit(Durability::Disk)?;
        drop(writer);
        store.close()?;
        self.library = Some(library.clone());
        Ok(library)
    }

    /// Runs both alternately, so that what else the machine does falls on both; `order` changes with the round.
    pub(crate) fn alternate(
        &self,
        turns: usize,
        mut ours: impl FnMut() -> Outcome<()>,
        mut limit: impl FnMut() -> Outcome<()>,
    ) -> Outcome<(Duration, Duration)> {
        let (mut ours_time, mut limit_time) = (Duration::ZERO, Duration::ZERO);
        for turn in 0..turns {
            let mut run_ours = || -> Outcome<()> {
                let start = Instant::now();
                ours()?;
                ours_time += start.elapsed();
                Ok(())
            };
            let ours_first = (self.round + turn).is_multiple_of(2);
            if ours_first {
                run_ours()?;
            }
            let start = Instant::now();
            limit()?;
            limit_time += start.elapsed();
            if !ours_first {
                run_ours()?;
            }
        }
        Ok((ours_time, limit_time))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Opens the store once more with other options, after closing it.
pub(crate) fn open_again(store: &Store, path: &Path, options: Options) -> Outcome<Store> {
    store.clone().close()?;
    open(path, options)
}

/// Removes a store that a round made.
pub(crate) fn remove(path: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(path).map_err(Into::into)
}
