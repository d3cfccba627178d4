//! What a check of a store found.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use lanterman_format::{Generation, SegmentId, SegmentKind, Version};
use serde::{Serialize, Serializer};

use crate::check::space::SpaceReport;

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DamageKind {
    /// One of the two slots of the root file.
    RootSlot,
    /// The first page of a segment, or a file that it does not fit.
    SegmentHeader,
    /// A segment that something refers to is not there.
    SegmentMissing,
    /// The checkpoint that the root names.
    Checkpoint,
    /// A page of the catalog.
    CatalogPage,
    /// A node of a log's tree.
    Node,
    /// Head, index or checksums of a slab.
    Slab,
    /// Messages in a slab.
    Messages,
    /// The header of gathered tails; the slabs in it have their own.
    Gathered,
    /// A commit that was durable is not whole.
    Journal,
    /// Two structures, each whole, contradict each other.
    Disagreement,
    /// The library refuses the store.
    Opening,
}

impl DamageKind {
    pub(crate) fn words(self) -> &'static str {
        match self {
            DamageKind::RootSlot => "root slot",
            DamageKind::SegmentHeader => "segment header",
            DamageKind::SegmentMissing => "missing segment",
            DamageKind::Checkpoint => "checkpoint",
            DamageKind::CatalogPage => "catalog page",
            DamageKind::Node => "tree node",
            DamageKind::Slab => "slab",
            DamageKind::Messages => "messages",
            DamageKind::Gathered => "gathered tails",
            DamageKind::Journal => "journal",
            DamageKind::Disagreement => "disagreement",
            DamageKind::Opening => "opening",
        }
    }
}

/// One place that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) kind: DamageKind,
    /// The file, within the store.
    pub(crate) file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<u64>,
    /// First byte of the damaged structure in the file.
    pub(crate) position: u64,
    /// Log whose messages are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,
    /// Offsets that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offsets: Option<Range<u64>>,
    /// The broken rule, in words.
    pub(crate) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {}, position {}",
            self.kind.words(),
            self.file,
            self.position
        )?;
        if let Some(log) = &self.log {
            write!(formatter, ", log {log:?}")?;
        }
        if let Some(offsets) = &self.offsets {
            write!(formatter, ", offsets {}..{}", offsets.start, offsets.end)?;
        }
        write!(formatter, ": {}", self.detail)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) root_slots: u64,
    pub(crate) segment_headers: u64,
    pub(crate) commit_blocks: u64,
    pub(crate) frames: u64,
    pub(crate) catalog_pages: u64,
    pub(crate) nodes: u64,
    pub(crate) slabs: u64,
    pub(crate) slab_groups: u64,
    pub(crate) gathered_blocks: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// A log, as checkpoint and journal together have it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LogReport {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// First offset that is not in the tree of slabs.
    pub(crate) tree_end: u64,
    /// Whether the beginning was deleted behind the checkpoint: runs deleted before may follow, and then the log begins
    /// behind them.
    #[serde(skip)]
    pub(crate) begins_later: bool,
    /// End of what it took from other logs by reference behind the checkpoint.
    #[serde(skip)]
    pub(crate) shared_end: u64,
    /// Label of the named snapshot that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot: Option<String>,
    /// End of the log at the checkpoint; what lies behind comes from the journal.
    pub(crate) checkpoint_end: u64,
    pub(crate) tree_levels: u64,
    pub(crate) slabs: u64,
    pub(crate) slab_bytes: u64,
    /// Bytes of the slab that holds the tail since the checkpoint.
    pub(crate) tail_bytes: u64,
    /// Bytes of frames in the journal behind the checkpoint.
    pub(crate) journal_bytes: u64,
}

/// Messages of one log that a hole in the journal took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LostMessages {
    /// The log's name, or in words that it is lost as well.
    pub(crate) log: String,
    /// Offset of the first one.
    pub(crate) first: u64,
    /// Offset behind the last one; none where nobody can tell whether there was any.
    pub(crate) end: Option<u64>,
}

/// Commits that are missing in the middle of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) segment: SegmentId,
    pub(crate) position: u64,
    /// The first and the last version that are missing.
    pub(crate) first: Version,
    pub(crate) last: Version,
    /// What is wrong where the first of them should stand.
    pub(crate) reason: String,
    /// What they held, as far as what follows tells.
    pub(crate) lost: Vec<LostMessages>,
}

/// A segment whose header can be written anew from what another checksum proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProvenSegment {
    pub(crate) segment: SegmentId,
    pub(crate) kind: SegmentKind,
    pub(crate) generation: Generation,
    pub(crate) first_version: Version,
}

/// How the journal was read.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct JournalReport {
    pub(crate) begin_segment: u64,
    pub(crate) begin_position: u64,
    pub(crate) end_segment: u64,
    pub(crate) end_position: u64,
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    #[serde(skip)]
    pub(crate) holes: Vec<Hole>,
}

/// What a check of a store found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) store_id: String,
    pub(crate) format: String,
    pub(crate) root_sequence: u64,
    pub(crate) checkpoint_version: u64,
    pub(crate) version: u64,
    pub(crate) journal: JournalReport,
    #[serde(serialize_with = "as_list")]
    pub(crate) logs: BTreeMap<u64, LogReport>,
    pub(crate) checked: Counts,
    /// What the segments of slabs are used for; unknown beside damage.
    pub(crate) space: Option<SpaceReport>,
    /// The same of each.
    #[serde(skip)]
    pub(crate) space_of: BTreeMap<u64, SpaceReport>,
    /// Bytes of each segment of slabs that something refers to.
    #[serde(skip)]
    pub(crate) live_bytes: BTreeMap<u64, u64>,
    /// Where the blocks of each segment of slabs end, as checkpoint and references say.
    #[serde(skip)]
    pub(crate) used_bytes: BTreeMap<u64, u64>,
    /// Segments whose header is lost, but whose life the checksum of their first block proves.
    #[serde(skip)]
    pub(crate) proven: Vec<ProvenSegment>,
    pub(crate) notes: Vec<String>,
    pub(crate) damage: Vec<Finding>,
}

fn as_list<S: Serializer>(logs: &BTreeMap<u64, LogReport>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(logs.values())
}

impl LogReport {
    /// A log without messages.
    pub(crate) fn new(id: u64, name: &str) -> Self {
        LogReport {
            id,
            name: name.to_owned(),
            start: 0,
            end: 0,
            tree_end: 0,
            begins_later: false,
            shared_end: 0,
            snapshot: None,
            checkpoint_end: 0,
            tree_levels: 0,
            slabs: 0,
            slab_bytes: 0,
            tail_bytes: 0,
            journal_bytes: 0,
        }
    }
}

impl Report {
    pub(crate) fn find(&mut self, finding: Finding) {
        self.damage.push(finding);
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(crate) fn name_of(&self, log: u64) -> Option<String> {
        self.logs.get(&log).map(|log| log.name.clone())
    }
}
