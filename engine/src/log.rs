//! A log as a value, and the state that the process keeps for each log.
//!
//! Invariants:
//! - a root's pieces follow each other without a gap: the tree covers `start..tree_end`, the chunks begin at or before
//!   `tree_end` and run on to the log's end, with pending slabs between them where the journal had a hole, and a tail
//!   slab stands in for the chunks of a log that holds no memory;
//! - a chunk that reaches behind `tree_end` has nothing that the tree shows: readers look into chunks first;
//! - `start <= tree_end`, and the tree covers exactly `start..tree_end`: what retention or deletion takes at the front is
//!   cut off, and a chunk whose first messages went that way lands with them hidden;
//! - deleted offsets behind `tree_end` stand in `masks` until their chunk lands; those before are entries of the tree. A
//!   tail slab has as runs whatever masks there are: it takes the place of chunks only while nobody edits the log, and an
//!   edit moves it into the tree first;
//! - a root is swapped whole, under `changing`; whoever loaded an old one goes on reading it;
//! - bytes and offsets of a message never change, so two roots that both hold an offset agree on it.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::ids::{LogId, Offset, Version};
use lanterman_format::name::LogName;
use lanterman_format::settings::{CompressionSettings, Settings, SnapshotSettings};
use lanterman_format::weakened;

use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Mutex, OnceLock, Ordering, order};
use crate::choices::SlabSize;
use crate::constraints::Compiled;
use crate::few::Few;
use crate::keys::{KeyRun, Superseded};
use crate::region::chunk::{Chunk, ChunkWriter};
use crate::region::gated::{Gated, Intruder, Owner};
use crate::region::root::RootCell;
use crate::slab::SlabHandle;
use crate::tree::Tree;

/// In [`LogState::demands`]: there are constraints.
const DEMANDS_RULES: u32 = 1;
/// In [`LogState::demands`]: every message has a key.
const DEMANDS_KEYS: u32 = 2;

fn demands_of(settings: &Settings) -> u32 {
    let demand = |demands: bool, bit: u32| if demands { bit } else { 0 };
    demand(settings.constraints.is_some(), DEMANDS_RULES) | demand(settings.keyed.is_some(), DEMANDS_KEYS)
}

/// The newest messages of a quiet log: a slab that the next checkpoint or seal supersedes.
#[derive(Debug, Clone)]
pub(crate) struct TailSlab {
    pub(crate) slab: Arc<SlabHandle>,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Offsets at the front of the slab that are not shown.
    pub(crate) skip: u64,
}

/// A run of offsets whose place in the tree is behind chunks that are not in it yet: what a splice took by reference
/// ([`crate::splice`]), or what a journal with a hole leaves ([`crate::lost`]).
#[derive(Debug, Clone)]
pub(crate) struct PendingRun {
    pub(crate) first: u64,
    pub(crate) tree: Tree,
}

impl PendingRun {
    pub(crate) fn end(&self) -> u64 {
        self.first.saturating_add(self.tree.offset_end())
    }
}

/// The value of a log.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) start: u64,
    pub(crate) tree: Tree,
    pub(crate) tree_end: u64,
    pub(crate) chunks: Few<Arc<Chunk>>,
    pub(crate) tail: Option<TailSlab>,
    /// Between and behind the chunks, by rising offsets; almost always empty.
    pub(crate) pending: Few<PendingRun>,
    /// Deleted offsets that are not in the tree yet: rising, disjoint, almost always none.
    pub(crate) masks: Few<Range<u64>>,
    /// Where the keys of a keyed log are told, by rising offsets that are in the tree; with gaps, and some may have gone.
    pub(crate) keys: Few<KeyRun>,
    /// How many edits of this process deleted something: two roots of a log with the same number agree on every offset
    /// that both have.
    pub(crate) edits: u64,
    /// Rises with each root of the log, so that a reader knows cheaply whether his is the newest.
    pub(crate) generation: u64,
}

impl Root {
    pub(crate) fn empty() -> Self {
        Self::empty_from(0)
    }

    /// A log without messages whose next one gets the offset `start`.
    pub(crate) fn empty_from(start: u64) -> Self {
        Root {
            start,
            tree: Tree::EMPTY,
            tree_end: start,
            chunks: Few::default(),
            tail: None,
            pending: Few::default(),
            masks: Few::default(),
            keys: Few::default(),
            edits: 0,
            generation: 0,
        }
    }

    /// Offset behind the newest published message.
    pub(crate) fn end(&self) -> u64 {
        let pending = self.pending.last().map_or(0, PendingRun::end);
        if let Some(chunk) = self.chunks.last() {
            // A chunk that is kept for readers may end before what the tree took by reference behind it.
            let in_tree = if weakened!("end-before-run") {
                0
            } else {
                self.tree_end
            };
            return chunk.end_offset().max(pending).max(in_tree);
        }
        match &self.tail {
            Some(tail) => tail.first.saturating_add(tail.count),
            None => self.tree_end,
        }
    }

    /// The run of deleted offsets around `offset`, if it is deleted and not in the tree yet.
    pub(crate) fn mask_at(&self, offset: u64) -> Option<&Range<u64>> {
        let behind = self.masks.partition_point(|mask| mask.start <= offset);
        let mask = self.masks.get(behind.checked_sub(1)?)?;
        (offset < mask.end).then_some(mask)
    }

    /// Whether all of `offsets`, none of which are in the tree, are deleted.
    pub(crate) fn has_deleted(&self, offsets: &Range<u64>) -> bool {
        offsets.is_empty()
            || self
                .mask_at(offsets.start)
                .is_some_and(|mask| mask.end >= offsets.end)
    }

    /// Lets go of chunks that are kept for speed though the tree has their messages, where it says of `deleted` that they
    /// are deleted and the chunks do not.
    pub(crate) fn forget_landed(&mut self, deleted: &Range<u64>) {
        if weakened!("landed-chunk-still-shown") {
            return;
        }
        let tree_end = self.tree_end;
        let stale = |chunk: &Arc<Chunk>| {
            chunk.end_offset() <= tree_end
                && chunk.first_offset() < deleted.end
                && deleted.start < chunk.end_offset()
        };
        if self.chunks.iter().any(stale) {
            self.chunks = self
                .chunks
                .iter()
                .filter(|chunk| !stale(chunk))
                .cloned()
                .collect();
        }
    }

    /// Where the first mask behind `offset` begins.
    pub(crate) fn next_mask(&self, offset: u64) -> Option<u64> {
        let behind = self.masks.partition_point(|mask| mask.start <= offset);
        self.masks.get(behind).map(|mask| mask.start)
    }

    /// Deletes offsets that are not in the tree.
    pub(crate) fn add_mask(&mut self, deleted: Range<u64>) {
        if deleted.is_empty() {
            return;
        }
        let touches = |mask: &Range<u64>| mask.start <= deleted.end && deleted.start <= mask.end;
        let joined = self
            .masks
            .iter()
            .filter(|mask| touches(mask))
            .fold(deleted.clone(), |joined, mask| {
                joined.start.min(mask.start)..joined.end.max(mask.end)
            });
        let before = self.masks.iter().filter(|mask| mask.end < deleted.start);
        let behind = self.masks.iter().filter(|mask| mask.start > deleted.end);
        let masks: Vec<_> = before
            .chain(std::iter::once(&joined))
            .chain(behind)
            .cloned()
            .collect();
        self.masks = Few::from(masks);
    }

    /// Takes the masks below `end` away, cut at `end`; whoever does has deleted these offsets elsewhere.
    pub(crate) fn take_masks(&mut self, end: u64) -> Vec<Range<u64>> {
        if self.masks.first().is_none_or(|mask| mask.start >= end) {
            return Vec::new();
        }
        let taken = self
            .masks
            .iter()
            .filter(|mask| mask.start < end)
            .map(|mask| mask.start..mask.end.min(end))
            .collect();
        let kept: Vec<_> = self
            .masks
            .iter()
            .filter(|mask| mask.end > end)
            .map(|mask| mask.start.max(end)..mask.end)
            .collect();
        self.masks = Few::from(kept);
        taken
    }

    /// The chunk that holds `offset`, if it is in memory.
    pub(crate) fn chunk_at(&self, offset: u64) -> Option<&Arc<Chunk>> {
        let behind = self
            .chunks
            .partition_point(|chunk| chunk.first_offset() <= offset);
        self.chunks.get(behind.checked_sub(1)?)
    }
}

/// What the one appender of a log owns; reached through the gate.
#[derive(Debug, Default)]
pub(crate) struct TailState {
    pub(crate) writer: Option<ChunkWriter>,
    /// A message is being filled in place: nobody but the appender may touch the chunk until it is published.
    pub(crate) reserved: bool,
}

/// What most logs never have, and what is made for the others when it is first asked for.
#[derive(Debug, Default)]
struct Seldom {
    /// Held while the settings are changed, from looking at them until the change is written. Taken before the lock of edits.
    settings_change: Mutex<()>,
    /// The constraints, once they were needed, with how often they had changed.
    compiled: Mutex<Option<(u64, Arc<Compiled>)>>,
    /// What of a keyed log is known to be superseded.
    superseded: Mutex<Superseded>,
    /// Roots as they were before versions that edited the log, for snapshots of older versions of the whole store.
    before_edits: Mutex<Vec<(Version, Root)>>,
}

/// What the newest checkpoint holds of a log.
#[derive(Debug, Default)]
pub(crate) struct Persisted {
    /// The log's end in that checkpoint.
    pub(crate) end: u64,
    /// The number of its edits in that checkpoint, as [`Root::edits`] counts them.
    pub(crate) edits: u64,
    /// What of it is not in the tree.
    pub(crate) tail: Option<TailSlab>,
}

/// The state of one log in this process.
///
/// In this order: around the gate, which whoever appends writes to for each message, stand a cache line's worth of what is seldom
/// looked at, so that nobody who polls this log or has another one takes the line from him.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct LogState {
    pub(crate) id: LogId,
    pub(crate) name: LogName,
    settings: Mutex<Arc<Settings>>,
    seldom: OnceLock<Box<Seldom>>,
    /// How large its slabs are to be.
    pub(crate) slab_size: SlabSize,
    gate: Gated<TailState>,
    pub(crate) persisted: Mutex<Persisted>,
    /// What is told of it if it is a named snapshot, which has no name of its own and is never written to.
    snapshot: Option<Box<SnapshotSettings>>,
    /// How often the constraints have changed in this process.
    constraint_changes: AtomicU64,
    /// The same as `reserved` of the tail, known without the gate: whoever fills a message is inside it meanwhile, and
    /// must not wait for himself.
    pub(crate) filling: AtomicBool,
    root: RootCell<Root>,
    generation: AtomicU64,
    changing: Mutex<()>,
    /// Everything below is in the journal or in a checkpoint. Moved by the leader of a group alone.
    journaled_end: AtomicU64,
    /// Everything below survives a power cut.
    durable_end: AtomicU64,
    /// Slabs below are known to the journal or to a checkpoint.
    adopted_end: AtomicU64,
    /// The log's creation is in the journal or in a checkpoint.
    created: AtomicBool,
    /// Number of the hole in the journal, from 1, behind which nothing of the log was seen, so that messages at its end
    /// may be missing; 0 where the end is known.
    open_end: AtomicU32,
    /// Set once the log is dropped: its name may be another's by now.
    dropped: AtomicBool,
    /// The turn in which the catalog listed it last for a checkpoint; looked at and changed under that list's lock alone.
    listed_in: AtomicU64,
    /// Whether the settings have constraints, and whether the log is keyed: one load for each append.
    demands: AtomicU32,
}

/// One log in one version of the store.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) log: Arc<LogState>,
    pub(crate) end: u64,
    pub(crate) created: Version,
    pub(crate) modified: Version,
}

impl Committed {
    /// Whether the log has a name that leads to it.
    pub(crate) fn is_named(&self) -> bool {
        self.log.is_created() && self.log.named_snapshot().is_none()
    }
}

/// Leaves of the roots from before edits those that a snapshot needs: each shows the versions from the edit before it up to its
/// own. What they hold is memory, so one that lies between two snapshots goes.
fn forget_unneeded(
    kept: &mut Vec<(Version, Root)>,
    newest: Version,
    holds_cut: impl Fn(Range<Version>) -> bool,
) {
    let mut shown_from = Version::default();
    kept.retain(|(edited, _)| {
        let shown = shown_from..*edited;
        shown_from = *edited;
        let is_needed = *edited > newest || holds_cut(shown) && !weakened!("root-before-edit-forgotten");
        is_needed || weakened!("roots-before-edits-pile-up")
    });
}

/// The settings, those of all logs that have the usual ones at one place.
fn shared(settings: Settings) -> Arc<Settings> {
    static USUAL: std::sync::OnceLock<Arc<Settings>> = std::sync::OnceLock::new();
    let usual = USUAL.get_or_init(Arc::default);
    match settings == **usual {
        true => Arc::clone(usual),
        false => Arc::new(settings),
    }
}

impl LogState {
    pub(crate) fn new(id: LogId, name: LogName, root: Root, settings: Settings) -> Self {
        let end = root.end();
        let adopted = root.tree_end;
        LogState {
            id,
            name,
            gate: Gated::new(TailState::default()),
            filling: AtomicBool::new(false),
            generation: AtomicU64::new(root.generation),
            root: RootCell::new(root),
            changing: Mutex::new(()),
            journaled_end: AtomicU64::new(end),
            durable_end: AtomicU64::new(end),
            adopted_end: AtomicU64::new(adopted),
            created: AtomicBool::new(false),
            open_end: AtomicU32::new(0),
            dropped: AtomicBool::new(false),
            listed_in: AtomicU64::new(0),
            snapshot: settings.snapshot.clone().map(Box::new),
            demands: AtomicU32::new(demands_of(&settings)),
            slab_size: SlabSize::default(),
            seldom: OnceLock::new(),
            constraint_changes: AtomicU64::new(0),
            settings: Mutex::new(shared(settings)),
            persisted: Mutex::new(Persisted::default()),
        }
    }

    /// The right to append: nothing while somebody has it.
    pub(crate) fn take_owner(self: &Arc<Self>) -> Option<Owner<TailState>> {
        Gated::take_owner_in(self, |log| &log.gate)
    }

    /// Goes behind the gate; waits for whoever appends to be outside.
    pub(crate) fn intrude(self: &Arc<Self>) -> Intruder<TailState> {
        Gated::intrude_in(self, |log| &log.gate)
    }

    /// The same, if nobody is inside.
    pub(crate) fn try_intrude(self: &Arc<Self>) -> Option<Intruder<TailState>> {
        Gated::try_intrude_in(self, |log| &log.gate)
    }

    /// Goes behind the gates of several logs, in the order of their ids.
    pub(crate) fn intrude_all<'a>(logs: impl Iterator<Item = &'a Arc<Self>>) -> Vec<Intruder<TailState>> {
        Gated::intrude_all_in(logs, |log| &log.gate)
    }

    fn seldom(&self) -> &Seldom {
        self.seldom.get_or_init(Box::default)
    }

    /// What of a keyed log is known to be superseded.
    pub(crate) fn superseded(&self) -> &Mutex<Superseded> {
        &self.seldom().superseded
    }

    /// The lock of whoever changes the settings, from looking at them until the change is written. Taken before that of edits.
    pub(crate) fn settings_change(&self) -> &Mutex<()> {
        &self.seldom().settings_change
    }

    /// The newest root.
    pub(crate) fn root(&self) -> Root {
        self.root.load()
    }

    /// The newest root's generation: one load, for readers that poll.
    pub(crate) fn generation(&self) -> u64 {
        let acquire = order(Ordering::Acquire, weakened!("generation-read-relaxed"));
        self.generation.load(acquire)
    }

    /// Swaps the root for what `change` makes of it.
    pub(crate) fn change_root<T>(&self, change: impl FnOnce(&mut Root) -> T) -> T {
        let _one_at_a_time = self.changing.lock();
        let mut root = self.root.load();
        root.generation = root.generation.wrapping_add(1);
        let generation = root.generation;
        let outcome = change(&mut root);
        if weakened!("generation-before-root") {
            self.generation.store(generation, Ordering::Release);
        }
        self.root.store(root);
        // After the root: a reader that sees the number finds at least that root.
        let release = order(Ordering::Release, weakened!("generation-relaxed"));
        self.generation.store(generation, release);
        outcome
    }

    /// Keeps the root as it is before `version` edits it; first forgets those that nobody needs, as
    /// [`LogState::forget_roots`] does.
    pub(crate) fn keep_root_before(
        &self,
        version: Version,
        newest: Version,
        holds_cut: impl Fn(Range<Version>) -> bool,
    ) {
        let mut kept = self.seldom().before_edits.lock();
        forget_unneeded(&mut kept, newest, holds_cut);
        kept.push((version, self.root.load()));
    }

    /// Forgets the roots from before edits that show nothing to any snapshot of all logs: neither to those that hold a
    /// version, which `holds_cut` says, nor to one that is taken of the version `newest` or of a later one.
    pub(crate) fn forget_roots(&self, newest: Version, holds_cut: impl Fn(Range<Version>) -> bool) {
        if let Some(seldom) = self.seldom.get() {
            forget_unneeded(&mut seldom.before_edits.lock(), newest, holds_cut);
        }
    }

    /// The root with all edits up to `version` and none after it. It may hold messages that were appended later.
    pub(crate) fn root_at(&self, version: Version) -> Root {
        // First the newest, then those before edits: an edit keeps the old one before it shows the new one.
        let newest = self.root.load();
        let Some(seldom) = self.seldom.get() else {
            return newest;
        };
        let kept = seldom.before_edits.lock();
        match kept.iter().find(|(edited, _)| *edited > version) {
            Some((_, before)) => before.clone(),
            None => newest,
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    pub(crate) fn set_settings(&self, settings: Settings) {
        let mut known = self.settings.lock();
        let changes = known.constraints != settings.constraints;
        self.demands.store(demands_of(&settings), Ordering::Release);
        *known = shared(settings);
        if changes {
            // Behind the settings: whoever counts before he reads them never takes old ones for new.
            self.constraint_changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The compiled constraints; `compile` makes them of the settings if those have changed since, and says nothing if there
    /// are none.
    pub(crate) fn compiled<E>(
        &self,
        compile: impl FnOnce(&Settings) -> Result<Option<Compiled>, E>,
    ) -> Result<Option<Arc<Compiled>>, E> {
        let changes = self.constraint_changes.load(Ordering::Acquire);
        let mut compiled = self.seldom().compiled.lock();
        if let Some((of_changes, known)) = compiled.as_ref()
            && *of_changes == changes
        {
            return Ok(Some(Arc::clone(known)));
        }
        let made = compile(&self.settings())?.map(Arc::new);
        *compiled = made.as_ref().map(|made| (changes, Arc::clone(made)));
        Ok(made)
    }

    /// Whether anything is asked of what is appended.
    #[inline]
    pub(crate) fn has_demands(&self) -> bool {
        self.demands.load(Ordering::Relaxed) != 0
    }

    /// Whether what is appended must be judged.
    pub(crate) fn is_constrained(&self) -> bool {
        self.demands.load(Ordering::Relaxed) & DEMANDS_RULES != 0
    }

    /// Whether what is appended must have a key.
    pub(crate) fn is_keyed(&self) -> bool {
        self.demands.load(Ordering::Relaxed) & DEMANDS_KEYS != 0
    }

    /// How slabs of the log are to be compressed, as far as this program can.
    pub(crate) fn compression(&self) -> Option<CompressionSettings> {
        self.settings()
            .compression
            .filter(|compression| compression.codec.is_supported())
    }

    /// Asks for keys before the settings say so, while the gate is held; [`Self::set_settings`] and
    /// [`Self::demand_as_set`] end it.
    pub(crate) fn demand_keys(&self) {
        self.demands.fetch_or(DEMANDS_KEYS, Ordering::AcqRel);
    }

    /// Asks for what the settings say, and nothing more.
    pub(crate) fn demand_as_set(&self) {
        let settings = self.settings.lock();
        self.demands.store(demands_of(&settings), Ordering::Release);
    }

    /// What is told of it if it is a named snapshot.
    pub(crate) fn named_snapshot(&self) -> Option<&SnapshotSettings> {
        self.snapshot.as_deref()
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Ends the log: snapshots and cursors of it go on, whoever comes later finds nothing.
    pub(crate) fn set_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Takes the value that a newer checkpoint has of the log, in a store that is only read.
    pub(crate) fn replace_root(self: &Arc<Self>, newer: Root) {
        let mut tail = self.intrude();
        tail.writer = None;
        let end = newer.end();
        self.change_root(|root| {
            let generation = root.generation;
            *root = Root { generation, ..newer };
        });
        self.set_journaled_end(end);
        self.set_durable_end(end);
        self.close_end();
    }

    /// The hole in the journal that leaves the log's end in doubt.
    pub(crate) fn open_end(&self) -> Option<usize> {
        usize::try_from(self.open_end.load(Ordering::Relaxed))
            .ok()?
            .checked_sub(1)
    }

    /// Notes that the journal has a hole, numbered from 1, behind what is known of the log; the first one counts.
    pub(crate) fn leave_end_open(&self, hole: u32) {
        let _first = self
            .open_end
            .compare_exchange(0, hole, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Something of the log was found behind the hole.
    pub(crate) fn close_end(&self) {
        self.open_end.store(0, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) -> u64 {
        self.root.with(Root::end)
    }

    /// Whether it has chunks in memory.
    pub(crate) fn holds_memory(&self) -> bool {
        self.root.with(|root| !root.chunks.is_empty())
    }

    /// Has the tree let go of what the disk has too.
    pub(crate) fn trim_tree(&self) {
        if self.root.with(|root| root.tree.is_loaded()) {
            self.change_root(|root| root.tree = root.tree.trimmed());
        }
    }

    pub(crate) fn journaled_end(&self) -> u64 {
        self.journaled_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_journaled_end(&self, end: u64) {
        self.journaled_end.store(end, Ordering::Release);
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_end(&self, end: u64) {
        self.durable_end.fetch_max(end, Ordering::AcqRel);
    }

    pub(crate) fn adopted_end(&self) -> u64 {
        self.adopted_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_adopted_end(&self, end: u64) {
        self.adopted_end.fetch_max(end, Ordering::AcqRel);
    }

    pub(crate) fn is_created(&self) -> bool {
        self.created.load(Ordering::Acquire)
    }

    pub(crate) fn set_created(&self) {
        self.created.store(true, Ordering::Release);
    }

    /// The turn in which the catalog listed it last. Who asks holds the lock of that list, which orders it all.
    pub(crate) fn listed_in(&self) -> u64 {
        self.listed_in.load(Ordering::Relaxed)
    }

    pub(crate) fn set_listed_in(&self, turn: u64) {
        self.listed_in.store(turn, Ordering::Relaxed);
    }

    pub(crate) fn first_offset(&self) -> Offset {
        Offset::new(self.root.with(|root| root.start))
    }
}
