//! A cursor's reads: what is on its way, what is here, and when more is begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::{Reference, weakened};

use crate::core::Core;
use crate::disk::{BulkReader, ReadCompletion, ReadRequest};
use crate::found::FoundSlab;
use crate::log::Root;
use crate::options::Background;
use crate::prefetch::{Lent, Loan, MemoryUser, Pace, Prefetch, PrefetchReason, PrefetchState, Ticket};
use crate::segment::{SegmentFile, Window};
use crate::slab::{OpenSlab, SlabBytes, SlabSource};

use super::Entered;
use super::plan::{BATCH_BYTES, Coming, Gathered, Limit, gather};

/// Reads in flight: what keeps a fast device busy with 1 MiB each; more only take memory.
const READS_MAX: usize = 8;
/// The farthest that the automatic policy reads ahead.
const AUTOMATIC_BYTES_MAX: u64 = 8 << 20;
/// How far it begins.
const AUTOMATIC_BYTES_FIRST: u64 = 2 << 20;
/// A read is left out if the page cache has all but one of so many parts of it.
const ABSENT_PARTS: u64 = 16;

/// Where the page cache had what was asked about, it is asked about the next read but one, then the fourth, and so on up to this one:
/// who reads what is in memory should not pay for the question each time.
const UNASKED_MAX: u32 = 8;

/// A slab that was looked at and that the cursor has not come to.
#[derive(Debug)]
struct Step {
    slab: Coming,
    /// The batch that brings it; none for one that is left to the cursor.
    batch: Option<u64>,
}

/// Slabs of one read.
#[derive(Debug)]
struct Batch {
    token: u64,
    /// Where it begins in its segment.
    position: u64,
    /// How many of its slabs the cursor has not come to.
    left: usize,
    state: BatchState,
}

#[derive(Debug)]
enum BatchState {
    Reading(Reading),
    Here(Arc<Lent>),
    Failed,
}

/// What belongs to a read in flight. Its memory is with the reader.
#[derive(Debug)]
struct Reading {
    ticket: Ticket,
    begun: Duration,
    /// Keeps the collection from giving the place back while it is read, which would only waste the read.
    _window: Arc<Window>,
}

/// A cursor that reads ahead.
#[derive(Debug)]
pub(super) struct Active {
    /// Declared first: it waits for its reads when it is dropped, and only then the budget gets their memory back.
    reader: Option<Box<dyn BulkReader>>,
    /// No reader is to be had.
    is_refused: bool,
    policy: Prefetch,
    reason: PrefetchReason,
    steps: VecDeque<Step>,
    batches: VecDeque<Batch>,
    /// Reads in flight that nobody waits for any more.
    abandoned: Vec<(u64, Reading)>,
    next_token: u64,
    /// The first offset of the log that was not looked at.
    frontier: u64,
    /// Stored bytes of all steps.
    ahead_bytes: u64,
    /// The slab that the cursor is in, if it was read ahead.
    current: Option<Arc<OpenSlab>>,
    /// How many reads the automatic policy leaves out without asking the page cache, and how many it left out last.
    unasked: u32,
    unasked_last: u32,
    /// What the automatic policy may have by now.
    risen_bytes: u64,
    target_bytes: u64,
    pace: Pace,
    /// When the cursor got the slab that it is in, and its bytes.
    entered: Option<(Duration, u64)>,
    completions: Vec<ReadCompletion>,
    _user: MemoryUser,
    core: Arc<Core>,
}

impl Active {
    pub(super) fn new(core: &Arc<Core>, policy: Prefetch) -> Self {
        Active {
            reader: None,
            is_refused: false,
            policy,
            reason: PrefetchReason::default(),
            steps: VecDeque::new(),
            batches: VecDeque::new(),
            abandoned: Vec::new(),
            next_token: 0,
            frontier: 0,
            ahead_bytes: 0,
            current: None,
            unasked: 0,
            unasked_last: 0,
            risen_bytes: AUTOMATIC_BYTES_FIRST,
            target_bytes: 0,
            pace: Pace::default(),
            entered: None,
            completions: Vec::new(),
            _user: core.prefetch_memory.user(),
            core: Arc::clone(core),
        }
    }

    pub(super) fn state(&self, nothing: PrefetchState) -> PrefetchState {
        PrefetchState {
            reason: self.reason,
            target_bytes: self.target_bytes,
            slabs_ahead: self.steps.iter().filter(|step| step.batch.is_some()).count() as u64,
            reader_bytes_per_second: self.pace.bytes_per_second(),
            read_time: self.pace.read_time(),
            ..nothing
        }
    }

    pub(super) fn enter(
        &mut self,
        entered: Entered<'_>,
        until: u64,
        is_in_order: bool,
    ) -> Option<Arc<OpenSlab>> {
        let found = entered.found;
        let reference = found.handle.reference();
        self.note_pace(is_in_order);
        self.collect(false);
        if is_in_order
            && let Some(slab) = self.current.take()
            && slab.reference() == reference
        {
            // The rest of the same slab, behind something deleted in it.
            self.current = Some(Arc::clone(&slab));
            return Some(slab);
        }
        self.current = None;
        let step = self.come_to(found, is_in_order);
        let until = entered.limit.min(until);
        self.plan(entered.root, until, found);
        let has_waited = step
            .as_ref()
            .and_then(|step| step.batch)
            .is_some_and(|token| self.wait_for(token));
        if has_waited {
            // Reads may end many at once: their room is used now, or the device stands still while this slab is read.
            self.plan(entered.root, until, found);
        }
        let slab = step.and_then(|step| self.take(step, has_waited));
        self.current.clone_from(&slab);
        self.entered = Some((self.core.clock.monotonic(), reference.bytes.get()));
        slab
    }

    /// The time between two slabs is the reader's own, without what it waited for reads.
    fn note_pace(&mut self, is_in_order: bool) {
        if let Some((since, bytes)) = self.entered.take()
            && is_in_order
        {
            let busy = self.core.clock.monotonic().saturating_sub(since);
            self.pace.consumed(bytes, busy);
        }
    }

    /// Lets go of what the cursor has passed, and gives the step that is the slab it comes to.
    fn come_to(&mut self, found: &FoundSlab<'_>, is_in_order: bool) -> Option<Step> {
        let is_within = found.first <= self.frontier;
        let is_behind = self
            .steps
            .front()
            .is_none_or(|step| found.first < step.slab.first);
        if !is_in_order && (!is_within || is_behind) {
            self.forget_all();
            self.frontier = found.end;
        }
        let mut met = None;
        while met.is_none()
            && let Some(step) = self.steps.front()
            && step.slab.first <= found.first
            && let Some(step) = self.steps.pop_front()
        {
            self.ahead_bytes = self.ahead_bytes.saturating_sub(step.slab.reference().bytes.get());
            let is_same = step.slab.reference() == found.handle.reference();
            if step.slab.first == found.first && (is_same || weakened!("read-ahead-of-another")) {
                met = Some(step);
            } else {
                self.waste(&step);
            }
        }
        self.frontier = self.frontier.max(found.end);
        met
    }

    fn forget_all(&mut self) {
        while let Some(step) = self.steps.pop_front() {
            self.waste(&step);
        }
        self.ahead_bytes = 0;
        self.risen_bytes = AUTOMATIC_BYTES_FIRST;
        (self.unasked, self.unasked_last) = (0, 0);
    }

    fn waste(&mut self, step: &Step) {
        if let Some(token) = step.batch {
            self.core
                .counters
                .prefetch_wasted(step.slab.reference().bytes.get());
            self.let_go(token);
        }
    }

    /// One slab less is wanted of a batch.
    fn let_go(&mut self, token: u64) {
        let Some(index) = self.batches.iter().position(|batch| batch.token == token) else {
            return;
        };
        let Some(batch) = self.batches.get_mut(index) else {
            return;
        };
        batch.left = batch.left.saturating_sub(1);
        if batch.left == 0
            && let Some(batch) = self.batches.remove(index)
            && let BatchState::Reading(reading) = batch.state
        {
            self.abandoned.push((token, reading));
        }
    }

    /// Takes in what has ended; waits for one read if asked to. Says whether anything was on its way.
    fn collect(&mut self, wait: bool) -> bool {
        let Some(reader) = &mut self.reader else {
            return false;
        };
        if reader.in_flight() == 0 {
            return false;
        }
        let mut completions = std::mem::take(&mut self.completions);
        reader.reap(wait, &mut completions);
        let now = self.core.clock.monotonic();
        for completion in completions.drain(..) {
            self.end(completion, now, !wait);
        }
        self.completions = completions;
        true
    }

    fn end(&mut self, completion: ReadCompletion, now: Duration, is_late: bool) {
        let ReadCompletion { token, bytes, result } = completion;
        let failed = result.is_err() || bytes.is_none();
        let batch = self.batches.iter_mut().find(|batch| batch.token == token);
        let reading = match batch {
            Some(batch) => {
                let state = std::mem::replace(&mut batch.state, BatchState::Failed);
                match (state, bytes) {
                    (BatchState::Reading(reading), Some(buffer)) if !failed => {
                        self.pace.read(now.saturating_sub(reading.begun), is_late);
                        let ticket = reading.ticket;
                        batch.state = BatchState::Here(Arc::new(Lent::new(Loan { buffer, ticket })));
                        return;
                    }
                    (BatchState::Reading(reading), bytes) => Some((reading, bytes)),
                    (other, _) => {
                        batch.state = other;
                        None
                    }
                }
            }
            None => {
                let index = self.abandoned.iter().position(|(number, _)| *number == token);
                index.map(|index| (self.abandoned.swap_remove(index).1, bytes))
            }
        };
        match reading {
            // Nobody wants what came, but the next read may want the memory.
            Some((Reading { ticket, .. }, Some(buffer))) => drop(Lent::new(Loan { buffer, ticket })),
            Some((Reading { ticket, .. }, None)) => ticket.keep_counted(),
            None => {}
        }
    }

    /// Waits until a batch is no longer on its way; whether there was anything to wait for.
    fn wait_for(&mut self, token: u64) -> bool {
        let is_reading = |active: &Self| {
            let batch = active.batches.iter().find(|batch| batch.token == token);
            batch.is_some_and(|batch| matches!(batch.state, BatchState::Reading(_)))
        };
        let mut has_waited = false;
        while is_reading(self) {
            has_waited = true;
            if !self.collect(true) {
                break;
            }
        }
        has_waited
    }

    /// The slab of a step, if it is here.
    fn take(&mut self, step: Step, has_waited: bool) -> Option<Arc<OpenSlab>> {
        let token = step.batch?;
        let reference = *step.slab.reference();
        let batch = self.batches.iter().find(|batch| batch.token == token);
        let found = batch.and_then(|batch| match &batch.state {
            BatchState::Here(lent) => Some((Arc::clone(lent), batch.position)),
            _ => None,
        });
        let slab = found.and_then(|(lent, position)| self.open(&reference, lent, position));
        self.let_go(token);
        match slab {
            Some(slab) => {
                self.core.counters.prefetch_hit(has_waited);
                Some(Arc::new(slab))
            }
            None => {
                self.core.counters.prefetch_failed();
                None
            }
        }
    }

    fn open(&self, reference: &Reference, lent: Arc<Lent>, position: u64) -> Option<OpenSlab> {
        let start = usize::try_from(reference.position.get().checked_sub(position)?).ok()?;
        let end = start.checked_add(usize::try_from(reference.bytes.get()).ok()?)?;
        let bytes = SlabBytes::copied(lent, start..end)?;
        // What does not parse is left to the cursor, which reads it again and says what is wrong.
        OpenSlab::of_bytes(reference, bytes, self.core.source.store_id()).ok()
    }

    /// Begins reads until the policy is met.
    fn plan(&mut self, root: &Root, limit: u64, found: &FoundSlab<'_>) {
        let in_memory = root.chunks.first().map_or(u64::MAX, |chunk| chunk.first_offset());
        let until = limit.min(root.tree_end).min(in_memory);
        self.set_target(found.handle.reference().bytes.get());
        // The nodes that say what comes are loaded here, so who comes there loads none and lets go of none.
        if !weakened!("nodes-ahead-unbounded") {
            self.core.trim_index_if_used_up();
        }
        let begun_before = self.next_token;
        while self.frontier < until && self.wants_more(found) {
            let slabs = match self.policy {
                Prefetch::Slabs(slabs) => (slabs as usize).saturating_sub(self.steps.len()).max(1),
                _ => usize::MAX,
            };
            let gathered = gather(&self.core, root, self.frontier, Limit { until, slabs });
            if !gathered.is_some_and(|gathered| self.begin(gathered)) {
                break;
            }
        }
        // Only what is cold makes it rise.
        if self.next_token != begun_before {
            self.risen_bytes = self.risen_bytes.saturating_mul(2).min(AUTOMATIC_BYTES_MAX);
        }
    }

    fn set_target(&mut self, slab_bytes: u64) {
        let (target, reason) = match self.policy {
            Prefetch::Slabs(slabs) => (slab_bytes.saturating_mul(slabs.into()), PrefetchReason::Chosen),
            Prefetch::Bytes(bytes) => (bytes, PrefetchReason::Chosen),
            _ => {
                let bound = AUTOMATIC_BYTES_MAX.min(self.core.prefetch_memory.bytes_max() / 2);
                // A slab more: the reader is somewhere in the one that it has.
                let wanted = self.pace.wanted().map(|bytes| bytes.saturating_add(slab_bytes));
                let most = wanted.unwrap_or(bound).min(bound);
                match () {
                    () if self.risen_bytes < most => (self.risen_bytes, PrefetchReason::Rising),
                    () if most < bound => (most, PrefetchReason::ByRate),
                    () => (bound, PrefetchReason::AtBound),
                }
            }
        };
        (self.target_bytes, self.reason) = (target, reason);
    }

    /// Whether the next read is due. Small slabs wait until several can be read at once.
    fn wants_more(&self, found: &FoundSlab<'_>) -> bool {
        if self.steps.is_empty() {
            return true;
        }
        if let Prefetch::Slabs(slabs) = self.policy {
            let bytes = found.handle.reference().bytes.get().max(1);
            let together = usize::try_from(BATCH_BYTES / bytes).unwrap_or(usize::MAX);
            let slabs = slabs as usize;
            let worth_while = together.min(slabs / 2).max(1);
            return self.steps.len().saturating_add(worth_while) <= slabs;
        }
        let worth_while = BATCH_BYTES.min(self.target_bytes / 2);
        self.ahead_bytes.saturating_add(worth_while) <= self.target_bytes
    }

    /// Begins one read, or leaves its slabs to the cursor; `false` where nothing more can be begun for now.
    fn begin(&mut self, gathered: Gathered) -> bool {
        let first = gathered.slabs.first().map(|slab| *slab.reference());
        let segment = first.and_then(|first| self.core.source.segment(&first).ok());
        let token = match segment {
            Some(segment) if !gathered.are_open && self.is_worth_reading(&segment, &gathered) => {
                match self.read_cold(&segment, &gathered) {
                    Ok(token) => token,
                    Err(NotNow) => return false,
                }
            }
            _ => None,
        };
        for slab in gathered.slabs {
            self.ahead_bytes = self.ahead_bytes.saturating_add(slab.reference().bytes.get());
            self.steps.push_back(Step { slab, batch: token });
        }
        self.frontier = gathered.end;
        true
    }

    /// Whether the page cache lacks it.
    fn is_worth_reading(&mut self, segment: &SegmentFile, gathered: &Gathered) -> bool {
        if self.unasked > 0 {
            self.unasked = self.unasked.saturating_sub(1);
            return false;
        }
        let range = gathered.range.start..gathered.range.end.min(segment.bytes);
        let length = range.end.saturating_sub(range.start);
        match segment.file.cached_bytes(&range) {
            Some(cached) => {
                let absent = length.saturating_sub(cached);
                let is_absent = absent.saturating_mul(ABSENT_PARTS) > length;
                let unasked = match is_absent || self.policy != Prefetch::Automatic {
                    true => 0,
                    false => self.unasked_last.saturating_mul(2).clamp(1, UNASKED_MAX),
                };
                (self.unasked, self.unasked_last) = (unasked, unasked);
                if !is_absent {
                    self.reason = PrefetchReason::Cached;
                }
                is_absent
            }
            None if self.policy == Prefetch::Automatic => {
                self.reason = PrefetchReason::CacheUnknown;
                false
            }
            None => true,
        }
    }

    /// Reads what the page cache lacks: around it. What the automatic policy sees wanted for the second time is left to the reader,
    /// who reads it through the page cache: perhaps it is wanted again and again. If it is lost from there, the place was
    /// not worth it, and all later reads go around. Whoever chose how far to read ahead has it read around each time.
    fn read_cold(&mut self, segment: &SegmentFile, gathered: &Gathered) -> Result<Option<u64>, NotNow> {
        let is_automatic = self.policy == Prefetch::Automatic;
        let token = if is_automatic && gathered.cold_reads == 1 && !weakened!("always-read-around") {
            self.reason = PrefetchReason::Again;
            let bytes = gathered.range.end.saturating_sub(gathered.range.start);
            self.core.counters.prefetch_left_to_cache(bytes);
            None
        } else {
            let Some(token) = self.read(segment, gathered)? else {
                return Ok(None);
            };
            Some(token)
        };
        if is_automatic {
            gathered
                .slabs
                .iter()
                .for_each(|slab| slab.handle.count_cold_read());
        }
        Ok(token)
    }

    /// Submits the read of what was gathered; gives its token, or nothing where it will never be.
    fn read(&mut self, segment: &SegmentFile, gathered: &Gathered) -> Result<Option<u64>, NotNow> {
        let range = gathered.range.start..gathered.range.end.min(segment.bytes);
        let window = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        let Some((start, end)) = window.filter(|(start, end)| start < end) else {
            return Ok(None);
        };
        let length = end.saturating_sub(start);
        if length.next_power_of_two() as u64 > self.core.prefetch_memory.bytes_max() {
            return Ok(None);
        }
        if !self.has_reader() {
            return Ok(None);
        }
        let Some(reader) = self.reader.as_mut().filter(|reader| reader.has_room()) else {
            return Err(NotNow);
        };
        let Some(Loan { buffer, ticket }) = self.core.prefetch_memory.take(length) else {
            self.reason = PrefetchReason::OutOfMemory;
            return Err(NotNow);
        };
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        let reading = Reading {
            ticket,
            begun: self.core.clock.monotonic(),
            _window: segment.window(start..end),
        };
        reader.submit(ReadRequest {
            file: Arc::clone(&segment.file),
            position: range.start,
            bytes: buffer,
            length,
            token,
        });
        self.batches.push_back(Batch {
            token,
            position: range.start,
            left: gathered.slabs.len(),
            state: BatchState::Reading(reading),
        });
        self.core
            .counters
            .prefetch_begun(gathered.slabs.len() as u64, length as u64);
        Ok(Some(token))
    }

    fn has_reader(&mut self) -> bool {
        if self.reader.is_none() && !self.is_refused {
            let may_have_thread = self.core.options.background == Background::Thread;
            match self.core.segments.disk().bulk_reader(READS_MAX, may_have_thread) {
                Ok(reader) => self.reader = Some(reader),
                Err(_) => self.is_refused = true,
            }
        }
        self.reader.is_some()
    }
}

/// There is no memory, or no room in the ring, at the moment.
struct NotNow;

impl Drop for Active {
    fn drop(&mut self) {
        self.forget_all();
    }
}
