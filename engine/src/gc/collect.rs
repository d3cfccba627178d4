//! Looking for garbage, and giving its space back in steps.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lanterman_format::ids::{SegmentId, Version};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;
use parking_lot::{Mutex, MutexGuard};

use super::erase::Cuts;
use super::reached::{Detail, Pages, Reached, length, unite, without};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::keys::KeyRun;
use crate::log::{LogState, Root};
use crate::pins::{Holder, Kept, OldestPin};
use crate::segment::{FIRST_BLOCK_POSITION, MakingRoom, SegmentFile};

/// How often a collection that finds a log edited since its checkpoint writes another one.
const ATTEMPTS_MAX: u32 = 3;

/// How often the background looks for garbage at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks at most when the oldest of those who hold garbage back has gone.
const LAST_PIN_INTERVAL: Duration = Duration::from_millis(50);
/// How often it asks whether that is so.
const PIN_TURN: Duration = Duration::from_millis(100);
/// What the background gives back in one turn: about 20 ms of punching (0.35 ms a MB, design.md section 5).
const TURN_BYTES: u64 = 64 << 20;
/// Blocks that checkpoints have superseded are looked for once they may be so many bytes, and a quarter of all.
const SUPERSEDED_BYTES_MIN: u64 = 8 << 20;

/// What keeps garbage from being given back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldBack {
    /// Snapshots and cursors of this process, of which the oldest holds this version.
    Pins {
        /// The oldest version that is held.
        oldest: Version,
        /// What has held it for the longest time.
        holder: Holder,
        /// For how long.
        age: Duration,
        /// Bytes that nobody else needs.
        bytes: u64,
    },
    /// Values that somebody keeps, or looks at through a map.
    Windows {
        /// Bytes of the slabs that they are in.
        bytes: u64,
    },
    /// Another process that reads from an older checkpoint. How much it holds back is not known.
    Reader {
        /// Its number.
        process: u64,
        /// The version of the checkpoint that it stands on.
        version: Version,
    },
    /// The table of readers cannot be opened, so that nobody knows who reads.
    UnknownReaders,
    /// Logs were edited again and again while garbage was looked for.
    Edits,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeldBack::Pins {
                oldest,
                holder,
                age,
                bytes,
            } => {
                write!(
                    formatter,
                    "{bytes} bytes by snapshots and cursors, the oldest {holder} at version {oldest}, for {} s",
                    age.as_secs()
                )
            }
            HeldBack::Windows { bytes } => write!(formatter, "{bytes} bytes by values that are kept"),
            HeldBack::Reader { process, version } => {
                write!(
                    formatter,
                    "process {process}, which reads from the checkpoint of version {version}"
                )
            }
            HeldBack::UnknownReaders => formatter.write_str("readers that nobody knows of"),
            HeldBack::Edits => formatter.write_str("edits that follow each other without a pause"),
        }
    }
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Bytes given back by punching holes.
    pub punched_bytes: u64,
    /// Segments put away whole.
    pub segments: u64,
    /// Bytes of these.
    pub segment_bytes: u64,
    /// What waits for a later step.
    pub waiting_bytes: u64,
    /// What had to stay, and why.
    pub held: Vec<HeldBack>,
}

/// A piece of garbage that may go.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Pages { segment: u64, range: Range<u64> },
    Segment { segment: u64 },
}

/// What earlier steps found and did.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// Held by whoever looks for garbage or writes slabs anew: what is written and in no tree yet would be taken for some.
    pub(super) busy: Mutex<()>,
    pub(super) state: Mutex<State>,
    /// Where slabs may be shown in part.
    pub(super) cuts: Mutex<Cuts>,
    /// Nothing that was deleted up to this version is in any file.
    erased: AtomicU64,
    /// Logs were looked through for what was deleted before the store was opened.
    has_searched: AtomicBool,
}

impl Collector {
    /// Keeps blocks that are written and in no value yet from being taken for garbage.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.busy.lock()
    }

    pub(super) fn erased(&self) -> Version {
        Version::new(self.erased.load(Ordering::Acquire))
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) waiting: VecDeque<Piece>,
    held: Vec<HeldBack>,
    /// Pages that were given back, by segment.
    free: BTreeMap<u64, Vec<Range<u64>>>,
    given_back: u64,
    /// The file system cannot punch: only whole segments come back.
    cannot_punch: bool,
    /// When the background looked last, on the monotonic clock.
    looked_at: Duration,
    /// Until when the background does nothing, to stay within its budget.
    rests_until: Duration,
    /// How many pins had gone when it did, and the first one that was there.
    looked_at_pins: (u64, Option<u64>),
    /// The newest edit when it did.
    looked_behind: Version,
    /// What checkpoints have written since; about as much as they have superseded.
    superseded_bytes: u64,
}

impl State {
    /// Whether snapshots and cursors held something back at the last look.
    fn is_held_by_pins(&self) -> bool {
        self.held.iter().any(|held| matches!(held, HeldBack::Pins { .. }))
    }
}

/// What is reached, and where garbage ends.
pub(super) struct Findings {
    /// What the newest checkpoint and the newest roots reach.
    pub(super) live: Pages,
    /// That, and what pins reach.
    pub(super) kept: Reached,
    pub(super) oldest_pin: Option<OldestPin>,
    /// The segment that is being filled, and from where on nothing is known.
    pub(super) frontier: Option<(u64, u64)>,
}

impl Findings {
    /// Up to where a segment of `bytes` bytes may hold garbage.
    pub(super) fn bound(&self, segment: u64, bytes: u64) -> u64 {
        match self.frontier {
            Some((active, position)) if active == segment => position.min(bytes),
            // A segment begun since.
            Some((active, _)) if active < segment => FIRST_BLOCK_POSITION,
            _ => bytes,
        }
    }

    pub(super) fn is_active(&self, segment: u64) -> bool {
        self.frontier.is_none_or(|(active, _)| active <= segment)
    }
}

impl Core {
    /// Finds garbage and gives back all of it that nobody holds.
    pub(crate) fn collect(&self) -> Result<Collected> {
        let _busy = self.collector.busy.lock();
        if !self.collector.has_searched.swap(true, Ordering::AcqRel) {
            self.note_found_cuts();
        }
        let edited = self.last_edit();
        if edited <= self.collector.erased() && self.collector.cuts.lock().is_empty() {
            self.find_garbage()?;
            return self.give_back(u64::MAX);
        }
        let _room = MakingRoom::begin();
        if let Err(error) = self.rewrite_cut_slabs() {
            let Error::StorageFull { .. } = error else {
                return Err(error);
            };
            // What goes whole makes room for what has to be written anew.
            self.find_garbage()?;
            self.give_back(u64::MAX)?;
            self.rewrite_cut_slabs()?;
        }
        // The journal may adopt what was written anew just now; behind a checkpoint nothing refers to it.
        self.write_checkpoint_anyway()?;
        if let Some(findings) = self.look(Detail::Blocks, &mut Vec::new())?
            && self.move_neighbours(&findings)?
        {
            self.write_checkpoint_anyway()?;
        }
        self.find_garbage()?;
        let collected = self.give_back(u64::MAX)?;
        self.scrub()?;
        if collected.held.is_empty() && !self.collector.state.lock().cannot_punch {
            self.collector.erased.fetch_max(edited.get(), Ordering::AcqRel);
        }
        Ok(collected)
    }

    pub(super) fn give_back(&self, bytes: u64) -> Result<Collected> {
        let collected = self.give_back_pieces(bytes)?;
        self.counters
            .collected(collected.punched_bytes.saturating_add(collected.segment_bytes));
        Ok(collected)
    }

    /// Gives back about `bytes` of what was found; finds more when nothing waits.
    pub(crate) fn collect_step(&self, bytes: u64) -> Result<Collected> {
        let _busy = self.collector.busy.lock();
        if self.collector.state.lock().waiting.is_empty() {
            self.find_garbage()?;
        }
        self.give_back(bytes)
    }

    /// Looks for garbage if there may be some, or gives back a part of what was found; says whether it did anything.
    pub(crate) fn collect_if_due(&self) -> Result<bool> {
        if !self.options.collect || self.options.read_only {
            return Ok(false);
        }
        let Some(collected) = self.take_turn()? else {
            return Ok(false);
        };
        self.tell_of_slow_readers(&collected.held);
        Ok(collected.punched_bytes > 0 || collected.segments > 0)
    }

    /// One turn of the background, if it is time for one.
    fn take_turn(&self) -> Result<Option<Collected>> {
        let _busy = self.collector.busy.lock();
        let now = self.clock.monotonic();
        let looks = {
            let mut state = self.collector.state.lock();
            if now < state.rests_until && !weakened!("collection-unrested") {
                return Ok(None);
            }
            if state.waiting.is_empty() {
                let pins = self.pins.progress();
                if now.saturating_sub(state.looked_at) < self.look_interval(&state, pins) {
                    return Ok(None);
                }
                state.looked_at = now;
                state.looked_at_pins = pins;
                state.looked_behind = self.last_edit();
                state.superseded_bytes = 0;
                true
            } else {
                false
            }
        };
        let budget = &self.options.collection_budget;
        let worked = if looks { self.find_garbage() } else { Ok(()) };
        let worked = worked.and_then(|()| self.give_back(budget.turn_bytes(TURN_BYTES)));
        let given_back = worked.as_ref().map_or(0, |collected| {
            collected.punched_bytes.saturating_add(collected.segment_bytes)
        });
        let end = self.clock.monotonic();
        let rest = budget.rest(end.saturating_sub(now), given_back);
        self.collector.state.lock().rests_until = end.saturating_add(rest);
        worked.map(Some)
    }

    /// How long after a look the next one is due; never, while nothing has happened that might have made garbage.
    fn look_interval(&self, state: &State, pins: (u64, Option<u64>)) -> Duration {
        let (gone, first) = state.looked_at_pins;
        let awaits = |held: &HeldBack| match held {
            HeldBack::Pins { .. } => pins.0 != gone,
            HeldBack::UnknownReaders => false,
            HeldBack::Windows { .. } | HeldBack::Reader { .. } | HeldBack::Edits => true,
        };
        if state.is_held_by_pins() && pins.1 != first {
            return LAST_PIN_INTERVAL;
        }
        let edited = self.last_edit() > state.looked_behind;
        match edited || state.held.iter().any(awaits) || self.is_worth_looking(state.superseded_bytes) {
            true => LOOK_INTERVAL,
            false => Duration::MAX,
        }
    }

    /// How long the background may sleep before there is something to collect.
    pub(crate) fn collection_pause(&self) -> Duration {
        if !self.options.collect || self.options.read_only {
            return Duration::MAX;
        }
        let state = self.collector.state.lock();
        let rest = state.rests_until.saturating_sub(self.clock.monotonic());
        if !state.waiting.is_empty() {
            return rest.max(Duration::from_millis(1));
        }
        match state.is_held_by_pins() {
            true => rest.max(PIN_TURN),
            false => Duration::MAX,
        }
    }

    fn is_worth_looking(&self, superseded_bytes: u64) -> bool {
        if superseded_bytes < SUPERSEDED_BYTES_MIN {
            return false;
        }
        let all: u64 = self
            .segments
            .known_slabs()
            .iter()
            .map(|known| known.segment_bytes.get())
            .sum();
        superseded_bytes >= all / 4
    }

    /// Notes what a checkpoint wrote: about as much is of no use any more.
    pub(crate) fn note_superseded(&self, bytes: u64) {
        let mut state = self.collector.state.lock();
        state.superseded_bytes = state.superseded_bytes.saturating_add(bytes);
    }

    /// Bytes given back since the store was opened.
    pub(super) fn given_back(&self) -> u64 {
        self.collector.state.lock().given_back
    }

    /// Pages of a segment that were given back.
    pub(super) fn free_pages(&self, segment: u64) -> Vec<Range<u64>> {
        let state = self.collector.state.lock();
        state.free.get(&segment).cloned().unwrap_or_default()
    }

    pub(super) fn find_garbage(&self) -> Result<()> {
        let _permit = self.permit()?;
        // Only where something was deleted: the reserve is no room for checkpoints that free nothing. Where it was used, there
        // is what it was used for to be found, whether or not anything came of it.
        let is_edited = self.last_edit() > self.checkpoint.lock().version;
        let makes_room = is_edited || self.segments.is_reserve_used_up();
        let _room = makes_room.then(MakingRoom::begin);
        let mut held = Vec::new();
        let mut waiting = VecDeque::new();
        if self.catalog.version().get() > 0 {
            match self.look(Detail::Pages, &mut held)? {
                Some(findings) => {
                    self.list_garbage(&findings, &mut held, &mut waiting)?;
                }
                None => held.push(HeldBack::Edits),
            }
        }
        let mut state = self.collector.state.lock();
        state.waiting = waiting;
        state.held = held;
        Ok(())
    }

    /// Finds out what is reached; nothing if logs are edited all the time, or readers are in the way.
    pub(super) fn look(&self, detail: Detail, held: &mut Vec<HeldBack>) -> Result<Option<Findings>> {
        for attempt in 0..ATTEMPTS_MAX {
            // A checkpoint that this process wrote: both slots name it.
            if attempt > 0 || !self.checkpoint_is_good() {
                self.write_checkpoint_anyway()?;
            }
            let state = self.checkpoint.lock();
            let edits = self.edits.lock();
            if self.last_edit() > state.version {
                continue;
            }
            let Some(checkpoint) = state.written else { continue };
            if !self.readers_are_past(state.version, held)? {
                return Ok(Some(everything_is_reached(detail)));
            }
            let mut reached = Reached::new(detail);
            let frontier = {
                let flusher = self.flusher.lock();
                for (segment, position, bytes) in flusher.places() {
                    reached.add_bytes(segment, position, bytes);
                }
                self.allocator
                    .lock()
                    .active()
                    .map(|(segment, position)| (segment.id.get(), position))
            };
            // Roots from before edits that no snapshot of an older version needs any more.
            let newest = self.catalog.version();
            let logs = self.catalog.everything();
            for log in &logs {
                log.forget_roots(newest, |versions| self.pins.holds_cut(versions));
            }
            // Pins before roots: a pin that comes later finds a root that is looked at here, or a newer one.
            let pins = self.pins.kept();
            let oldest_pin = self.pins.oldest(self.clock.monotonic());
            reached.add(&checkpoint);
            self.reach_listed(&mut reached)?;
            for log in &logs {
                self.reach_root(log, &log.root(), &mut reached)?;
                if let Some(tail) = &log.persisted.lock().tail {
                    reached.add(tail.slab.reference());
                }
            }
            drop(edits);
            drop(state);
            let live = reached.pages().clone();
            if !weakened!("pin-ignored") {
                for pin in pins {
                    self.reach_pin(&pin, &mut reached)?;
                }
            }
            return Ok(Some(Findings {
                live,
                kept: reached,
                oldest_pin,
                frontier,
            }));
        }
        Ok(None)
    }

    fn reach_root(&self, log: &LogState, root: &Root, reached: &mut Reached) -> Result<()> {
        let failed = |error| self.tree_error(log, error);
        root.tree.reach(self.source.as_ref(), reached).map_err(failed)?;
        if let Some(tail) = &root.tail {
            reached.add(tail.slab.reference());
        }
        let pending = root.pending.iter().map(|pending| &pending.tree);
        let runs = root
            .keys
            .iter()
            .map(KeyRun::pages)
            .filter(|_| !weakened!("key-runs-unreached"));
        pending
            .chain(runs)
            .try_for_each(|tree| tree.reach(self.source.as_ref(), reached).map_err(failed))
    }

    fn reach_pin(&self, pin: &Kept, reached: &mut Reached) -> Result<()> {
        let source = self.source.as_ref();
        match pin {
            #[cfg(test)]
            Kept::Version => Ok(()),
            Kept::Root(root) => {
                if let Some(tail) = &root.tail {
                    reached.add(tail.slab.reference());
                }
                let failed =
                    |error| crate::source::tree_error(&self.segments, "of a snapshot", root.start, error);
                root.pending
                    .iter()
                    .map(|pending| &pending.tree)
                    .chain([&root.tree])
                    .chain(root.keys.iter().map(KeyRun::pages))
                    .try_for_each(|tree| tree.reach(source, reached).map_err(failed))
            }
            // Of dormant logs it holds what the newest checkpoint has of them.
            Kept::Cut(cut) => cut
                .logs()
                .values()
                .try_for_each(|held| self.reach_root(&held.log, &held.log.root_at(cut.version), reached)),
        }
    }

    /// Whether every other process that reads stands on the newest checkpoint.
    fn readers_are_past(&self, checkpoint: Version, held: &mut Vec<HeldBack>) -> Result<bool> {
        let Some(table) = &self.readers else {
            held.push(HeldBack::UnknownReaders);
            return Ok(false);
        };
        let path = self.path.join("readers");
        let readers = table
            .list()
            .map_err(|source| Error::io("look at", &path, source))?;
        let before = held.len();
        for reader in readers {
            if reader.version < checkpoint && !weakened!("reader-ignored") {
                held.push(HeldBack::Reader {
                    process: reader.process,
                    version: reader.version,
                });
            }
        }
        Ok(held.len() == before)
    }

    fn list_garbage(
        &self,
        findings: &Findings,
        held: &mut Vec<HeldBack>,
        waiting: &mut VecDeque<Piece>,
    ) -> Result<()> {
        let (mut pinned, mut looked_at) = (0u64, 0u64);
        for known in self.segments.known_slabs() {
            let number = known.segment.get();
            if findings.frontier.is_some_and(|(active, _)| active == 0) {
                break;
            }
            let segment = match self.segments.get(known.segment, SegmentKind::Slabs) {
                Ok(segment) => segment,
                Err(error) => {
                    tracing::warn!(segment = number, %error, "a segment is left alone by the collection");
                    continue;
                }
            };
            let whole = FIRST_BLOCK_POSITION..findings.bound(number, segment.bytes);
            if whole.is_empty() {
                continue;
            }
            let windows = if weakened!("window-ignored") {
                Vec::new()
            } else {
                whole_pages(&segment.open_windows())
            };
            let kept = findings.kept.pages().of(number);
            pinned = pinned.saturating_add(
                findings
                    .kept
                    .pages()
                    .bytes(number)
                    .saturating_sub(findings.live.bytes(number)),
            );
            if kept.is_empty() && windows.is_empty() && !findings.is_active(number) {
                waiting.push_back(Piece::Segment { segment: number });
                continue;
            }
            let mut stays = kept;
            for range in self.free_pages(number) {
                unite(&mut stays, range);
            }
            for range in without(whole, &stays) {
                for garbage in without(range.clone(), &windows) {
                    waiting.push_back(Piece::Pages {
                        segment: number,
                        range: garbage,
                    });
                }
                let gone: u64 = without(range.clone(), &windows).iter().map(length).sum();
                looked_at = looked_at.saturating_add(length(&range).saturating_sub(gone));
            }
        }
        if let (Some(oldest), true) = (findings.oldest_pin, pinned > 0) {
            held.push(HeldBack::Pins {
                oldest: oldest.version,
                holder: oldest.holder,
                age: oldest.age,
                bytes: pinned,
            });
        }
        if looked_at > 0 {
            held.push(HeldBack::Windows { bytes: looked_at });
        }
        Ok(())
    }

    /// Gives back pieces until about `bytes` of them are.
    fn give_back_pieces(&self, bytes: u64) -> Result<Collected> {
        let _permit = self.permit()?;
        let mut state = self.collector.state.lock();
        let mut collected = Collected {
            held: state.held.clone(),
            ..Collected::default()
        };
        let mut done = 0u64;
        while done < bytes {
            let Some(piece) = state.waiting.pop_front() else {
                break;
            };
            match piece {
                Piece::Segment { segment } => {
                    let given = self.segments.remove_slabs(SegmentId::new(segment))?;
                    state.free.remove(&segment);
                    state.given_back = state.given_back.saturating_add(given);
                    collected.segments = collected.segments.saturating_add(1);
                    collected.segment_bytes = collected.segment_bytes.saturating_add(given);
                    done = done.saturating_add(given);
                }
                Piece::Pages { segment, range } => {
                    if state.cannot_punch {
                        continue;
                    }
                    let file = self.segments.get(SegmentId::new(segment), SegmentKind::Slabs)?;
                    match self.punch(&file, &range) {
                        Ok(()) => {}
                        Err(source) if source.kind() == io::ErrorKind::Unsupported => {
                            tracing::warn!(path = %file.path.display(), "holes cannot be punched here: only whole segments come back");
                            state.cannot_punch = true;
                            continue;
                        }
                        Err(source) => return Err(Error::io("give back a part of", &file.path, source)),
                    }
                    let bytes = length(&range);
                    unite(state.free.entry(segment).or_default(), range);
                    state.given_back = state.given_back.saturating_add(bytes);
                    collected.punched_bytes = collected.punched_bytes.saturating_add(bytes);
                    done = done.saturating_add(bytes);
                }
            }
        }
        if done > 0 {
            self.segments.restore_reserve();
        }
        collected.waiting_bytes = state
            .waiting
            .iter()
            .map(|piece| match piece {
                Piece::Pages { range, .. } => length(range),
                Piece::Segment { .. } => 0,
            })
            .sum();
        Ok(collected)
    }

    fn punch(&self, file: &Arc<SegmentFile>, range: &Range<u64>) -> io::Result<()> {
        file.file.punch(range.clone())?;
        file.note_written();
        if self.options.protect_reclaimed {
            file.protect(range)?;
        }
        Ok(())
    }
}

/// The answer where nothing may be given back.
fn everything_is_reached(detail: Detail) -> Findings {
    Findings {
        live: Pages::default(),
        kept: Reached::new(detail),
        oldest_pin: None,
        frontier: Some((0, 0)),
    }
}

/// Ranges of bytes as rising, disjoint ranges of whole pages.
fn whole_pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut pages = Vec::new();
    for range in ranges {
        let first = range.start - range.start % FIRST_BLOCK_POSITION;
        unite(
            &mut pages,
            first..range.end.next_multiple_of(FIRST_BLOCK_POSITION),
        );
    }
    pages
}
