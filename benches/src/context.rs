//! What all rows share: the directory, sizes, and data that is made once.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lanterman::{Durability, Options, Store};

use crate::Outcome;
use crate::bare;

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

/// A store in `path`, mapped.
#[allow(
    unsafe_code,
    reason = "a program that wants speed gives the promise that maps ask for"
)]
pub(crate) fn open(path: &Path, options: Options) -> Outcome<Store> {
    // SAFETY: the directory was made by this program for this run, and nobody else writes to it.
    let store = unsafe { options.open(path)? };
    Ok(store)
}

/// Opens the store once more with other options, after closing it.
pub(crate) fn open_again(store: &Store, path: &Path, options: Options) -> Outcome<Store> {
    store.clone().close()?;
    open(path, options)
}

/// Bytes that do not compress, the same in each run.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut random = Random::new(0x1a57_e24a);
    let mut out = vec![0; bytes];
    for chunk in out.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    out
}

/// A small generator (xorshift64*), so that runs repeat.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Removes a store that a round made.
pub(crate) fn remove(path: &Path) -> Outcome<()> {
    std::fs::remove_dir_all(path).map_err(Into::into)
}

/// Megabytes (10^6 bytes) a second.
pub(crate) fn megabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
