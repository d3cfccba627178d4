//! Bulk reads through io_uring, by whoever waits for them: no thread is needed.

use std::io;
use std::sync::Arc;

use crate::sys::calls::Calls;
use crate::sys::read_ring::{EndedRead, ReadRing};

use super::bulk_read::{forget, read_plainly};
use super::{BulkReader, DiskFile, ReadCompletion, ReadRequest};

/// What is remembered of a read while the ring has its memory.
#[derive(Debug)]
struct Begun {
    file: Arc<dyn DiskFile>,
    position: u64,
    length: usize,
    token: u64,
}

/// A [`BulkReader`] over a ring of its own.
#[derive(Debug)]
pub(crate) struct RingReader {
    ring: ReadRing<Begun>,
    finished: Vec<ReadCompletion>,
    /// Tokens of reads that the ring has.
    outstanding: Vec<u64>,
    /// The ring failed: nothing is known of what it has, and nothing more goes there.
    is_broken: bool,
}

impl RingReader {
    /// A reader with `depth` reads in flight.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of another ring.
    pub(crate) fn new(depth: usize, calls: Calls) -> io::Result<Self> {
        Ok(Self {
            ring: ReadRing::new(depth, calls)?,
            finished: Vec::new(),
            outstanding: Vec::new(),
            is_broken: false,
        })
    }

    fn collect(&mut self, wait: bool) {
        if self.is_broken {
            return;
        }
        let mut ended = Vec::new();
        let mut collected = self.ring.collect(wait, &mut ended);
        if collected.is_ok() && self.ring.has_queued() {
            // The kernel was short of something when they were handed over.
            collected = self.ring.submit();
        }
        for end in ended {
            self.outstanding.retain(|token| *token != end.payload.token);
            self.finished.push(finish(end));
        }
        if let Err(error) = collected {
            self.break_down(&error);
        }
    }

    /// Ends what the ring has with the error. The memory stays there.
    fn break_down(&mut self, error: &io::Error) {
        self.is_broken = true;
        for token in self.outstanding.drain(..) {
            self.finished.push(ReadCompletion {
                token,
                bytes: None,
                result: Err(io::Error::other(format!("io_uring: {error}"))),
            });
        }
    }
}

/// What the kernel left undone is done by a plain call, which can wait where the ring says "again", and which says the right
/// thing about a file that has ended.
fn finish(end: EndedRead<Begun>) -> ReadCompletion {
    let EndedRead {
        payload,
        memory: bytes,
        is_direct,
        result,
    } = end;
    let (file, position, length, token) = (payload.file, payload.position, payload.length, payload.token);
    let plainly = |file, bytes, done| {
        let request = ReadRequest {
            file,
            position,
            bytes,
            length,
            token,
        };
        read_plainly(request, done)
    };
    match result {
        Ok(read) if read >= length => {
            if !is_direct {
                forget(file.as_ref(), position, length);
            }
            ReadCompletion {
                token,
                bytes: Some(bytes),
                result: Ok(()),
            }
        }
        Ok(read) => plainly(file, bytes, read),
        // ECANCELED comes when the thread that submitted has ended.
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::EINVAL) => plainly(file, bytes, 0),
            _ => ReadCompletion {
                token,
                bytes: Some(bytes),
                result: Err(error),
            },
        },
    }
}

impl BulkReader for RingReader {
    fn submit(&mut self, request: ReadRequest) {
        while !self.is_broken && !self.ring.has_room() {
            self.collect(true);
        }
        let kernel_file = request.file.kernel_file().map(Arc::clone);
        // A disk of another kind, nothing to read, or a mistake: the plain way says the right thing about each.
        let Some(kernel_file) = kernel_file.filter(|_| !self.is_broken && request.length > 0) else {
            self.finished.push(read_plainly(request, 0));
            return;
        };
        let begun = Begun {
            file: request.file,
            position: request.position,
            length: request.length,
            token: request.token,
        };
        let queued = self.ring.queue(
            &kernel_file,
            request.position,
            request.bytes,
            request.length,
            begun,
        );
        match queued {
            Ok(()) => {
                self.outstanding.push(request.token);
                if let Err(error) = self.ring.submit() {
                    self.break_down(&error);
                }
            }
            Err(refused) => {
                let begun = refused.payload;
                let request = ReadRequest {
                    file: begun.file,
                    position: begun.position,
                    bytes: refused.bytes,
                    length: begun.length,
                    token: begun.token,
                };
                self.finished.push(read_plainly(request, 0));
            }
        }
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<ReadCompletion>) {
        self.collect(false);
        while wait && self.finished.is_empty() && !self.outstanding.is_empty() {
            self.collect(true);
        }
        completions.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.outstanding.len().saturating_add(self.finished.len())
    }

    fn has_room(&self) -> bool {
        !self.is_broken && self.ring.has_room()
    }
}
