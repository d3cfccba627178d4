//! Rings that are set up when they are first needed: to open a store takes none, and setting one up, asking the kernel what it
//! can, and taking it down again are a good part of the time in which a small store opens.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use lanterman_format::weakened;

use crate::sys::calls::Calls;
use crate::sys::ring as kernel_ring;

use super::plain::PlainWriter;
use super::ring::RingWriter;
use super::{BulkWriter, Completion, DiskFile, SharedBytes};

/// Whether a disk may use rings, found out once, by whoever first needs to know.
#[derive(Debug)]
pub(super) struct RingUse {
    known: OnceLock<bool>,
    calls: Calls,
}

impl RingUse {
    /// What is known already stands in `known`.
    pub(super) fn new(known: Option<bool>, calls: Calls) -> Arc<Self> {
        let cell = OnceLock::new();
        if let Some(known) = known {
            cell.get_or_init(|| known);
        }
        Arc::new(Self { known: cell, calls })
    }

    /// Whether the kernel lets this process write and read through rings.
    pub(super) fn is_possible(&self) -> bool {
        *self.known.get_or_init(|| kernel_ring::probe(&self.calls).is_ok())
    }

    /// The calls of the disk.
    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }
}

/// A [`BulkWriter`] that is set up by the first write: over a ring where one can be had, otherwise of plain calls.
#[derive(Debug)]
pub(super) struct WriterAtNeed {
    ring: Arc<RingUse>,
    depth: usize,
    writer: Option<Box<dyn BulkWriter>>,
}

impl WriterAtNeed {
    /// A writer that will have `depth` pieces in flight.
    pub(super) fn new(depth: usize, ring: &Arc<RingUse>) -> Self {
        Self {
            ring: Arc::clone(ring),
            depth,
            writer: weakened!("ring-at-opening").then(|| set_up(depth, ring)),
        }
    }
}

/// Rings are counted against a limit; the plain way has none.
fn set_up(depth: usize, ring: &RingUse) -> Box<dyn BulkWriter> {
    if ring.is_possible()
        && let Ok(writer) = RingWriter::new(depth, ring.calls().clone())
    {
        return Box::new(writer);
    }
    Box::new(PlainWriter::default())
}

impl BulkWriter for WriterAtNeed {
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    ) {
        let writer = self.writer.get_or_insert_with(|| set_up(self.depth, &self.ring));
        writer.submit(file, position, bytes, range, token);
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<Completion>) {
        if let Some(writer) = &mut self.writer {
            writer.reap(wait, completions);
        }
    }

    fn in_flight(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.in_flight())
    }
}
