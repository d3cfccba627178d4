//! Bulk writes by plain calls: for systems that refuse io_uring, and for disks that must see every write.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{BulkWriter, Completion, DiskFile, SharedBytes, Sync};

/// Writes within `submit` and keeps the outcome until it is reaped.
#[derive(Debug, Default)]
pub(crate) struct PlainWriter {
    finished: Vec<Completion>,
}

impl BulkWriter for PlainWriter {
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    ) {
        let result = match (*bytes).as_ref().get(range) {
            Some(part) => file.write_at(position, part, Sync::No),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        self.finished.push(Completion { token, result });
    }

    fn reap(&mut self, _wait: bool, completions: &mut Vec<Completion>) {
        completions.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.finished.len()
    }
}
