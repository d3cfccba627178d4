//! Bulk writes through io_uring: each submission is cut into pieces, a bounded number of which is in flight.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::weakened;

use crate::sys::SharedBytes;
use crate::sys::calls::Calls;
use crate::sys::file::{KernelFile, Sync};
use crate::sys::write_ring::{EndedWrite, WriteRing};

use super::{BulkWriter, Completion, DiskFile};

/// The size of one write. Larger ones gain nothing and keep the ring from overlapping them.
const PIECE_BYTES: usize = 1 << 20;

/// How often a piece is tried through the ring before it is written by a plain call, which can wait where the ring says
/// "again".
const ATTEMPTS_MAX: u32 = 8;

/// A submission of which pieces are outstanding.
#[derive(Debug)]
struct Transfer {
    token: u64,
    file: Arc<KernelFile>,
    bytes: Owner,
    pieces: usize,
    error: Option<io::Error>,
}

struct Owner(SharedBytes);

impl std::fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Owner")
    }
}

/// A part of a transfer: waiting here, or attached to a write of the ring.
#[derive(Debug)]
struct Piece {
    transfer: u64,
    position: u64,
    range: Range<usize>,
    attempts: u32,
}

/// A [`BulkWriter`] over a ring of its own.
#[derive(Debug)]
pub(crate) struct RingWriter {
    ring: WriteRing<Piece>,
    transfers: HashMap<u64, Transfer>,
    next_transfer: u64,
    waiting: VecDeque<Piece>,
    finished: Vec<Completion>,
}

impl RingWriter {
    /// A writer with `depth` pieces in flight.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of another ring.
    pub(crate) fn new(depth: usize, calls: Calls) -> io::Result<Self> {
        Ok(Self {
            ring: WriteRing::new(depth, calls)?,
            transfers: HashMap::new(),
            next_transfer: 0,
            waiting: VecDeque::new(),
            finished: Vec::new(),
        })
    }

    /// Fills the ring from the waiting pieces and hands them over.
    fn pump(&mut self) {
        while self.ring.has_room()
            && let Some(piece) = self.waiting.pop_front()
        {
            let number = piece.transfer;
            let Some(transfer) = self.transfers.get(&number) else {
                continue;
            };
            if transfer.error.is_some() {
                self.end_piece(number, Ok(()));
                continue;
            }
            let range = piece.range.clone();
            let queued = self
                .ring
                .queue(&transfer.file, piece.position, &transfer.bytes.0, range, piece);
            if let Err(error) = queued {
                self.end_piece(number, Err(error));
            }
        }
        if self.ring.has_queued()
            && let Err(error) = self.ring.submit()
        {
            self.fail_all(&error);
        }
    }

    /// Takes in what the ring has ended and queues what remains of it.
    fn collect(&mut self, wait: bool) {
        let mut ended = Vec::new();
        if let Err(error) = self.ring.collect(wait, &mut ended) {
            self.fail_all(&error);
        }
        for end in ended {
            self.continue_piece(end);
        }
    }

    fn continue_piece(&mut self, end: EndedWrite<Piece>) {
        let EndedWrite {
            payload: mut piece,
            is_direct,
            result,
            ..
        } = end;
        let number = piece.transfer;
        // A transfer that is gone was failed as a whole; its late pieces concern nobody.
        let Some(transfer) = self.transfers.get(&number) else {
            return;
        };
        match result {
            Ok(0) => self.end_piece(number, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) if written >= piece.range.len() => self.end_piece(number, Ok(())),
            Ok(_) if weakened!("short-completion-is-whole") => self.end_piece(number, Ok(())),
            Ok(written) => {
                piece.range.start += written;
                piece.position += written as u64;
                self.waiting.push_front(piece);
            }
            Err(error) => match error.raw_os_error() {
                // ECANCELED comes when the thread that submitted has ended; writing again is harmless.
                Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED) => self.try_again(piece),
                Some(libc::EINVAL) if is_direct => {
                    transfer.file.refuse_direct();
                    self.try_again(piece);
                }
                _ => self.end_piece(number, Err(error)),
            },
        }
    }

    fn try_again(&mut self, mut piece: Piece) {
        piece.attempts += 1;
        if piece.attempts < ATTEMPTS_MAX {
            self.waiting.push_front(piece);
            return;
        }
        let Some(transfer) = self.transfers.get(&piece.transfer) else {
            return;
        };
        let result = match (*transfer.bytes.0).as_ref().get(piece.range.clone()) {
            Some(part) => transfer.file.write_at(piece.position, part, Sync::No),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        self.end_piece(piece.transfer, result);
    }

    /// Counts a piece as done; the last one ends the transfer with the first error among them.
    fn end_piece(&mut self, number: u64, result: io::Result<()>) {
        let Some(transfer) = self.transfers.get_mut(&number) else {
            return;
        };
        transfer.pieces = transfer.pieces.saturating_sub(1);
        if let Err(error) = result
            && !weakened!("completion-error-dropped")
        {
            transfer.error.get_or_insert(error);
        }
        if transfer.pieces == 0
            && let Some(transfer) = self.transfers.remove(&number)
        {
            let result = transfer.error.map_or(Ok(()), Err);
            self.finished.push(Completion {
                token: transfer.token,
                result,
            });
        }
    }

    /// The ring itself is broken: nothing can be known of what is in flight. The ring still holds the bytes.
    fn fail_all(&mut self, error: &io::Error) {
        self.waiting.clear();
        for (_, transfer) in self.transfers.drain() {
            // Of another kind than what the ring said: a ring that is short of something is no full disk.
            let copy = io::Error::other(format!("io_uring: {error}"));
            self.finished.push(Completion {
                token: transfer.token,
                result: Err(copy),
            });
        }
    }
}

impl BulkWriter for RingWriter {
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    ) {
        let is_within = (*bytes).as_ref().get(range.clone()).is_some();
        let ends_within = position
            .checked_add(range.len() as u64)
            .is_some_and(|end| i64::try_from(end).is_ok());
        let kernel_file = match file.kernel_file() {
            Some(kernel_file) if is_within && ends_within && !range.is_empty() => Arc::clone(kernel_file),
            // A disk of another kind, nothing to write, or a mistake: the plain way says the right thing about each.
            _ => {
                let result = match (*bytes).as_ref().get(range) {
                    Some(part) => file.write_at(position, part, Sync::No),
                    None => Err(io::ErrorKind::InvalidInput.into()),
                };
                self.finished.push(Completion { token, result });
                return;
            }
        };
        let number = self.next_transfer;
        self.next_transfer = self.next_transfer.wrapping_add(1);
        let pieces = range.len().div_ceil(PIECE_BYTES);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start.saturating_add(PIECE_BYTES));
            let at = position + (start - range.start) as u64;
            self.waiting.push_back(Piece {
                transfer: number,
                position: at,
                range: start..end,
                attempts: 0,
            });
            start = end;
        }
        self.transfers.insert(
            number,
            Transfer {
                token,
                file: kernel_file,
                bytes: Owner(bytes),
                pieces,
                error: None,
            },
        );
        self.collect(false);
        self.pump();
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<Completion>) {
        self.collect(false);
        self.pump();
        while wait && self.finished.is_empty() && !self.transfers.is_empty() {
            self.collect(true);
            self.pump();
        }
        completions.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.transfers.len() + self.finished.len()
    }
}

impl Drop for RingWriter {
    /// What was submitted is written, even if nobody waits for it: dropping a writer must not lose what it took.
    fn drop(&mut self) {
        while !self.transfers.is_empty() {
            self.collect(true);
            self.pump();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode, SystemDisk, SystemOptions};

    #[test]
    fn short_writes_of_the_ring_are_continued_until_all_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32)
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let bytes: SharedBytes = Arc::new(bytes);
        for bytes_max in [5000, 4096, 123_457] {
            let Ok(mut writer) = RingWriter::new(4, Calls::default()) else {
                #[allow(
                    clippy::print_stderr,
                    reason = "A skipped test must say so where the tester looks."
                )]
                {
                    eprintln!("skipped: no ring can be had");
                }
                return;
            };
            writer.ring.limit(bytes_max);
            let path = directory.path().join(bytes_max.to_string());
            let file = disk.open(&path, OpenMode::CreateNew).unwrap();
            writer.submit(&file, 0, Arc::clone(&bytes), 0..12_000_000, 1);
            let mut completions = Vec::new();
            writer.reap(true, &mut completions);
            assert_eq!(completions.len(), 1);
            completions.pop().unwrap().result.unwrap();
            assert!(std::fs::read(&path).unwrap() == *(*bytes).as_ref());
        }
    }

    #[test]
    fn a_piece_that_is_told_to_come_again_too_often_is_written_plainly() {
        let directory = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        let file = disk
            .open(&directory.path().join("file"), OpenMode::CreateNew)
            .unwrap();
        let Ok(mut writer) = RingWriter::new(1, Calls::default()) else {
            return;
        };
        let bytes: SharedBytes = Arc::new(vec![7; 4096]);
        writer.submit(&file, 0, bytes, 0..4096, 1);
        let mut ended = Vec::new();
        writer.ring.collect(true, &mut ended).unwrap();
        let mut end = ended.pop().unwrap();
        for error in [libc::EAGAIN, libc::EINTR, libc::ECANCELED]
            .into_iter()
            .cycle()
            .take(7)
        {
            end.result = Err(io::Error::from_raw_os_error(error));
            writer.continue_piece(end);
            let piece = writer.waiting.pop_front().unwrap();
            assert!(writer.finished.is_empty());
            end = EndedWrite {
                payload: piece,
                memory: Arc::new(Vec::new()),
                is_direct: false,
                result: Ok(0),
            };
        }
        end.result = Err(io::Error::from_raw_os_error(libc::EAGAIN));
        writer.continue_piece(end);
        assert!(writer.waiting.is_empty());
        let mut completions = Vec::new();
        writer.reap(true, &mut completions);
        assert!(completions.pop().unwrap().result.is_ok());
        assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), [7; 4096]);
    }

    #[test]
    fn the_first_error_ends_a_transfer_and_its_other_pieces_are_not_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        disk.open(&path, OpenMode::CreateNew).unwrap();
        let reading = disk.open(&path, OpenMode::Read).unwrap();
        let Ok(mut writer) = RingWriter::new(1, Calls::default()) else {
            return;
        };
        let bytes: SharedBytes = Arc::new(vec![7; 64 << 20]);
        writer.submit(&reading, 0, Arc::clone(&bytes), 0..64 << 20, 1);
        let mut completions = Vec::new();
        writer.reap(true, &mut completions);
        let error = completions.pop().unwrap().result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert_eq!((writer.in_flight(), Arc::strong_count(&bytes)), (0, 1));
    }
}
