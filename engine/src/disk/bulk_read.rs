//! Large reads ahead of their use, and how they are done by plain calls.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Advice, AlignedBuffer, DiskFile, read_full_direct_at};

/// A read to be done.
#[derive(Debug)]
pub struct ReadRequest {
    /// The file to read from.
    pub file: Arc<dyn DiskFile>,
    /// Where in the file.
    pub position: u64,
    /// The memory to read into, from its front.
    pub bytes: AlignedBuffer,
    /// How many bytes to read, at most as many as the memory has.
    pub length: usize,
    /// What the completion is known by.
    pub token: u64,
}

/// The end of one [`BulkReader::submit`].
#[derive(Debug)]
pub struct ReadCompletion {
    /// The token of the request.
    pub token: u64,
    /// The memory that was given with it; nothing where it could not be had back from a kernel that fails.
    pub bytes: Option<AlignedBuffer>,
    /// Whether all bytes came.
    pub result: io::Result<()>,
}

/// Reads large pieces without waiting for each, around the page cache where that can be; what has to go through the cache
/// is dropped from it again.
///
/// Dropping a reader waits for what is in flight, and begins nothing more.
pub trait BulkReader: Send + std::marker::Sync + Debug {
    /// Begins a read. Never blocks for long on a reader with a ring or a thread that [has room](Self::has_room); the plain
    /// one reads at once. Errors come with the completion.
    fn submit(&mut self, request: ReadRequest);

    /// Appends the completions at hand, in any order; with `wait`, at least one as long as any is outstanding.
    fn reap(&mut self, wait: bool, completions: &mut Vec<ReadCompletion>);

    /// The number of requests whose completion has not been reaped.
    fn in_flight(&self) -> usize;

    /// Whether another read can be begun without waiting for one to end.
    fn has_room(&self) -> bool;
}

/// Reads within `submit` and keeps the outcome until it is reaped.
#[derive(Debug)]
pub(crate) struct PlainReader {
    depth: usize,
    finished: Vec<ReadCompletion>,
}

impl PlainReader {
    /// A reader of which at most `depth` outcomes are outstanding.
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            depth: depth.max(1),
            finished: Vec::new(),
        }
    }
}

impl BulkReader for PlainReader {
    fn submit(&mut self, request: ReadRequest) {
        self.finished.push(read_plainly(request, 0));
    }

    fn reap(&mut self, _wait: bool, completions: &mut Vec<ReadCompletion>) {
        completions.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.finished.len()
    }

    fn has_room(&self) -> bool {
        self.finished.len() < self.depth
    }
}

/// Does what is left of a request of which `done` bytes came already.
pub(crate) fn read_plainly(request: ReadRequest, done: usize) -> ReadCompletion {
    let ReadRequest {
        file,
        position,
        mut bytes,
        length,
        token,
    } = request;
    let result = match bytes.get_mut(done..length) {
        Some(rest) => {
            let wanted = rest.len();
            let from = position.saturating_add(done as u64);
            match read_full_direct_at(file.as_ref(), from, rest) {
                Ok(read) if read < wanted => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other.map(drop),
            }
        }
        None => Err(io::ErrorKind::InvalidInput.into()),
    };
    let is_direct = file.kernel_file().is_some_and(|file| file.reads_directly());
    if result.is_ok() && !is_direct {
        forget(file.as_ref(), position, length);
    }
    ReadCompletion {
        token,
        bytes: Some(bytes),
        result,
    }
}

/// Has the page cache forget what a read brought into it on its way, which nobody asked the cache for. Pages that somebody
/// maps, or has still to write, stay.
pub(crate) fn forget(file: &dyn DiskFile, position: u64, length: usize) {
    let range: Range<u64> = position..position.saturating_add(length as u64);
    // Refused advice costs others some room in the cache, and nothing else.
    let _advised = file.advise(range, Advice::DontNeed);
}
