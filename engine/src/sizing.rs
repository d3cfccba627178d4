//! How large slabs become, by what their logs get.

use std::sync::Arc;

use lanterman_format::{Summary, weakened};

use crate::choices::{Choice, Seen, gather_choice, slab_choice};
use crate::core::Core;
use crate::counters::CounterReadings;
use crate::log::{LogState, Root};
use crate::prefetch::Prefetch;
use crate::region::chunk::ChunkWriter;
use crate::slab::SlabHandle;
use crate::store::Store;

/// What a stored message takes beside key and value, about: slabs know the bytes of these alone.
const MESSAGE_OVERHEAD_BYTES: u64 = 12;

fn span_ms(first_ms: i64, last_ms: i64) -> u64 {
    u64::try_from(last_ms.saturating_sub(first_ms)).unwrap_or(0)
}

fn seen_in(summary: &Summary) -> Option<Seen> {
    let (first, last) = summary.times_ms()?;
    let overhead = summary.messages.saturating_mul(MESSAGE_OVERHEAD_BYTES);
    let bytes = summary.value_bytes.saturating_add(summary.key_bytes);
    Some(Seen {
        bytes: bytes.saturating_add(overhead),
        messages: summary.messages,
        span_ms: span_ms(first, last),
    })
}

impl Store {
    /// What was chosen for all logs together from what this process has seen, and why: how long a commit waits for others that
    /// may share its write. For a log see [`crate::Log::choices`].
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        self.core().store_choices()
    }
}

impl Core {
    /// How large a full slab of the log is.
    pub(crate) fn full_slab_bytes(&self, log: &LogState) -> u64 {
        log.slab_size.bytes(self.options.slab_bytes_max)
    }

    /// Chooses the size by what a chunk has taken until now.
    pub(crate) fn choose_slab_size(&self, log: &LogState, writer: &ChunkWriter) -> u64 {
        let seen = Seen {
            bytes: writer.body_bytes(),
            messages: writer.entry_count(),
            span_ms: span_ms(writer.chunk().opened_ms(), self.now_ms()),
        };
        log.slab_size.choose(seen, self.options.slab_bytes_max)
    }

    /// Chooses the size at a checkpoint, and closes a chunk that is a full slab by it: it is written once, as a slab, and not
    /// at this checkpoint and the next ones. Only if nobody is at the log's tail, and everything there is below `end`.
    pub(crate) fn fit_slab(&self, log: &Arc<LogState>, end: u64) {
        let Some(mut tail) = log.try_intrude() else {
            return;
        };
        let Some(writer) = tail.writer.as_ref().filter(|writer| !writer.has_staged()) else {
            return;
        };
        if tail.reserved || writer.entry_count() == 0 {
            return;
        }
        let full = self.choose_slab_size(log, writer);
        let is_full = writer.body_bytes() >= full && !weakened!("slow-tails-kept");
        if is_full && writer.next_offset() == end {
            self.close_chunk(log, &mut tail);
        }
    }

    /// What was chosen for a log, or would be by what it has, if nothing came to it in this process.
    pub(crate) fn log_choices(&self, log: &LogState, root: &Root) -> Vec<Choice> {
        let seen = log.slab_size.seen().or_else(|| self.seen_in_newest(root));
        vec![slab_choice(seen, self.options.slab_bytes_max)]
    }

    /// What is in the newest slab of a log or in the chunk behind it; nothing of what cannot be read.
    fn seen_in_newest(&self, root: &Root) -> Option<Seen> {
        if let Some(chunk) = root.chunks.last() {
            let messages = u64::from(chunk.published().entries);
            return (messages > 0).then(|| Seen {
                bytes: chunk.bytes_from(chunk.first_offset()),
                messages,
                span_ms: span_ms(chunk.opened_ms(), self.now_ms()),
            });
        }
        let summary_of = |slab: &SlabHandle| {
            let opened = slab.open(self.source.as_ref()).ok()?;
            Some(*opened.layout().summary())
        };
        if let Some(tail) = &root.tail {
            return seen_in(&summary_of(&tail.slab)?);
        }
        let last = root.tree.offset_end().checked_sub(1)?;
        let newest = root.tree.slabs_from(self.source.as_ref(), last).next()?;
        seen_in(&newest.ok()?.entry.summary)
    }

    /// What was chosen for all logs together.
    fn store_choices(&self) -> Vec<Choice> {
        let gathering = self.groups.gathering();
        let microseconds = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let gather = gather_choice(
            gathering.members as u64,
            microseconds(gathering.latency),
            microseconds(gathering.wait),
            microseconds(gathering.wait_max),
        );
        let memory = (self.prefetch_memory.used(), self.prefetch_memory.bytes_max());
        vec![
            gather,
            prefetch_choice(&self.options.prefetch, &self.counters.read(), memory),
        ]
    }
}

/// The memory that holds what is read ahead now, of that which may: how far each reader looks ahead follows its own pace.
fn prefetch_choice(policy: &Prefetch, counted: &CounterReadings, (used, most): (u64, u64)) -> Choice {
    let policy = match policy {
        Prefetch::Off => "readers read ahead that ask for it, and no others".to_owned(),
        Prefetch::Slabs(slabs) => {
            format!("readers read {slabs} slabs ahead unless they ask for something else")
        }
        Prefetch::Bytes(bytes) => {
            format!("readers read {bytes} bytes ahead unless they ask for something else")
        }
        Prefetch::Automatic => "readers read ahead as their pace needs it".to_owned(),
    };
    Choice {
        name: "prefetch_memory",
        value: used,
        unit: "bytes",
        least: 0,
        most,
        reason: format!(
            "{policy}; of {} slabs read ahead readers came to {}, to {} of them too early, and never to {}",
            counted.prefetch_slabs,
            counted.prefetch_hits,
            counted.prefetch_stalls,
            counted.prefetch_wasted_slabs,
        ),
    }
}
