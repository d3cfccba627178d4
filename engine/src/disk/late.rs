//! Bulk writes that end some time after they were asked for, always at the same place of the same work: for disks on which
//! every order of events is to be seen again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::plain::PlainWriter;
use super::{BulkWriter, Completion, DiskFile, SharedBytes};

/// What is asked of a file.
struct Submission {
    file: Arc<dyn DiskFile>,
    position: u64,
    bytes: SharedBytes,
    range: Range<usize>,
    token: u64,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Submission")
            .field("position", &self.position)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Writes one submission each time it is asked: the oldest, and of those that came since it was asked last only if it is to
/// wait.
///
/// So syncs and commits of the time between come before a write, as they may with io_uring.
#[derive(Debug, Default)]
pub(crate) struct LateWriter {
    plain: PlainWriter,
    waiting: VecDeque<Submission>,
    /// How many of them were there when it was asked last.
    seen: usize,
}

impl LateWriter {
    fn write_oldest(&mut self) {
        if let Some(one) = self.waiting.pop_front() {
            self.seen = self.seen.saturating_sub(1);
            self.plain
                .submit(&one.file, one.position, one.bytes, one.range, one.token);
        }
    }
}

impl BulkWriter for LateWriter {
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    ) {
        self.waiting.push_back(Submission {
            file: Arc::clone(file),
            position,
            bytes,
            range,
            token,
        });
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<Completion>) {
        if self.seen > 0 || wait {
            self.write_oldest();
        }
        self.seen = self.waiting.len();
        self.plain.reap(wait, completions);
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.plain.in_flight()
    }
}

impl Drop for LateWriter {
    /// As with the ring: what was submitted is written, even if nobody waits for it.
    fn drop(&mut self) {
        while !self.waiting.is_empty() {
            self.write_oldest();
        }
    }
}
