//! Bulk writes that end some time after they were asked for, always at the same place of the same work: for disks on which
//! every order of events is to be seen again.

use std::mem;
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

/// Writes what was there already when it was asked before, or everything if it may wait.
///
/// So syncs and commits of the time between come before the write, as they may with io_uring.
#[derive(Debug, Default)]
pub(crate) struct LateWriter {
    plain: PlainWriter,
    seen: Vec<Submission>,
    unseen: Vec<Submission>,
}

impl LateWriter {
    fn write(&mut self, submissions: Vec<Submission>) {
        for one in submissions {
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
        self.unseen.push(Submission {
            file: Arc::clone(file),
            position,
            bytes,
            range,
            token,
        });
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<Completion>) {
        let unseen = mem::take(&mut self.unseen);
        let ready = mem::replace(&mut self.seen, unseen);
        self.write(ready);
        if wait && self.plain.in_flight() == 0 {
            let rest = mem::take(&mut self.seen);
            self.write(rest);
        }
        self.plain.reap(wait, completions);
    }

    fn in_flight(&self) -> usize {
        self.seen.len() + self.unseen.len() + self.plain.in_flight()
    }
}

impl Drop for LateWriter {
    /// As with the ring: what was submitted is written, even if nobody waits for it.
    fn drop(&mut self) {
        let (seen, unseen) = (mem::take(&mut self.seen), mem::take(&mut self.unseen));
        self.write(seen);
        self.write(unseen);
    }
}
