//! The blocks of the crafted store, one after the other in their segments.

use std::path::{Path, PathBuf};

use lanterman_format::block::aligned_block_bytes;
use lanterman_format::catalog::{NO_LOG, encode_page};
use lanterman_format::gathered::{self, GATHERED_BODY_POSITION, next_slab_position};
use lanterman_format::key_page::{KeyFilterBuilder, KeyPageBuilder, KeyPlace, key_hash};
use lanterman_format::name::segment_file_name;
use lanterman_format::slab::{SLAB_BODY_POSITION, seal};
use lanterman_format::{
    BlockIdentity, BlockKind, BufferFields, BufferView, ByteLength, CatalogEntry, Change, Checkpoint, Codec,
    CommitCounts, CommitWriter, Crc, FileKind, FormatVersion, FrameDescription, Generation, Histogram32,
    Histogram64, KeyRun, KeySketch, KeySketchBuilder, LogId, LogName, NodeEntry, NodeParts, Offset, Position,
    Reference, Sealed, SegmentHeader, SegmentId, SegmentKind, SlabAdoption, SlabDescription, Summary,
    ValueType, Version, compressed_batch, node as format_node,
};

use super::{CHECKPOINT_VERSION, PATH, Place, STORE, TIME_MS, parameters};

/// A message as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The value.
    pub value: Vec<u8>,
    /// Its type.
    pub value_type: ValueType,
    /// The time, if it has one.
    pub time_ms: Option<i64>,
    /// The key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Names and values of headers.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Message `number` of a log: the first ones plain and of one length, so that a slab of them needs no index; the others of
/// many lengths and with all that a message can have.
#[must_use]
pub fn written(log: u64, number: u64) -> Written {
    let plain = number < 3;
    let filler = if plain { 8 } else { (number as usize * 31) % 90 };
    let mut value = format!("{log:03}/{number:03} ").into_bytes();
    value.extend((0..filler).map(|at| (number as u8).wrapping_add(at as u8)));
    let has = |every: u64| !plain && number.is_multiple_of(every);
    Written {
        value,
        value_type: match number % 5 {
            4 if !plain => ValueType::new(1 << 33),
            3 => ValueType::JSON,
            _ => ValueType::BYTES,
        },
        time_ms: has(2).then_some(TIME_MS + number as i64),
        key: has(3).then(|| format!("key {number}").into_bytes()),
        headers: if has(4) {
            vec![(b"name".to_vec(), b"value".to_vec()), (Vec::new(), Vec::new())]
        } else {
            Vec::new()
        },
    }
}

/// Buffers one after the other, and what a slab says of them.
#[derive(Default)]
pub(super) struct Messages {
    body: Vec<u8>,
    positions: Vec<u32>,
    summary: Summary,
    histogram: Histogram32,
    /// How many offsets the buffers take, and where each begins, if some are compressed batches.
    batches: Option<(u64, Vec<u32>)>,
    keys: KeySketchBuilder,
}

impl Messages {
    pub(super) fn of(messages: &[Written]) -> Self {
        let mut made = Messages::default();
        for message in messages {
            let headers: Vec<(&[u8], &[u8])> = message
                .headers
                .iter()
                .map(|(name, value)| (name.as_slice(), value.as_slice()))
                .collect();
            let fields = BufferFields {
                time_ms: message.time_ms,
                key: message.key.as_deref(),
                headers: &headers,
                ..BufferFields::plain(message.value_type, &message.value)
            };
            let mut bytes = vec![0; fields.encoded_bytes().expect("a size") as usize];
            fields.encode(&mut bytes).expect("room");
            made.positions.push((made.body.len() + SLAB_BODY_POSITION) as u32);
            made.summary
                .add_buffer(&BufferView::parse(&bytes).expect("a buffer"));
            made.histogram.add(message.value.len() as u32);
            made.keys.insert(message.key.as_deref().unwrap_or_default());
            made.body.extend(bytes);
        }
        made
    }

    /// The first `count` of them as one compressed batch, the others as they are.
    pub(super) fn compressed(mut self, count: usize) -> Self {
        let end = self.positions[count] as usize - SLAB_BODY_POSITION;
        let batch = compressed_batch::compress(Codec::Lz4, 0, &self.body[..end])
            .expect("a short body")
            .expect("messages that are alike");
        let fields = BufferFields {
            count: count as u64,
            ..BufferFields::plain(ValueType::COMPRESSED_BATCH, &batch)
        };
        let mut body = vec![0; fields.encoded_bytes().expect("a size") as usize];
        fields.encode(&mut body).expect("room");
        let moved = (end - body.len()) as u32;
        let others = &self.positions[count..];
        let mut positions = vec![SLAB_BODY_POSITION as u32];
        positions.extend(others.iter().map(|position| position - moved));
        let mut firsts = vec![0];
        firsts.extend(count as u32..self.positions.len() as u32);
        self.batches = Some((self.positions.len() as u64, firsts));
        body.extend_from_slice(&self.body[end..]);
        (self.body, self.positions) = (body, positions);
        self
    }

    fn count(&self) -> u64 {
        let of_batches = self.batches.as_ref().map(|(count, _)| *count);
        of_batches.unwrap_or(self.positions.len() as u64)
    }

    fn seal(&self, log: u64, first_offset: usize, identity: &BlockIdentity) -> (Vec<u8>, Sealed) {
        let description = SlabDescription {
            log: LogId::new(log),
            first_offset: Offset::new(first_offset as u64),
            offset_count: self.count(),
            summary: self.summary,
            histogram: self.histogram,
            is_compressed: self.batches.is_some(),
            keys: self.keys.finish(),
        };
        let (mut head, mut trailer) = ([0; SLAB_BODY_POSITION], vec![0; 4096]);
        let sealed = seal(
            &mut head,
            &self.body,
            &mut trailer,
            &self.positions,
            self.batches.as_ref().map(|(_, firsts)| &firsts[..]),
            &description,
            identity,
        )
        .expect("a slab");
        let mut slab = [&head[..], &self.body, &trailer].concat();
        slab.truncate(sealed.block_bytes as usize);
        (slab, sealed)
    }

    /// Writes them as a slab of its own.
    pub(super) fn write(
        &self,
        name: &str,
        segment: &mut Segment,
        log: u64,
        first: usize,
        version: u64,
    ) -> Reference {
        let identity = segment.identity(version);
        let (bytes, sealed) = self.seal(log, first, &identity);
        segment.push(name, &bytes);
        Reference::local(BlockKind::Slab, &identity, &sealed)
    }
}

/// A segment that is being written.
pub(super) struct Segment {
    header: SegmentHeader,
    pub(super) bytes: Vec<u8>,
    places: Vec<(String, usize, usize)>,
}

impl Segment {
    pub(super) fn new(kind: SegmentKind, segment: u64, generation: u32, first_version: u64) -> Self {
        Segment {
            header: SegmentHeader {
                format: FormatVersion::CURRENT,
                kind,
                store: STORE,
                segment: SegmentId::new(segment),
                generation: Generation::new(generation),
                segment_bytes: ByteLength::ZERO,
                first_version: Version::new(first_version),
                time_ms: TIME_MS,
            },
            bytes: vec![0; 4096],
            places: Vec::new(),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.header.generation
    }

    /// Identity of the next block.
    fn identity(&self, version: u64) -> BlockIdentity {
        let position = Position::new(self.bytes.len() as u64);
        self.header.place(position).identity(Version::new(version))
    }

    fn note(&mut self, name: &str, position: usize, bytes: usize) {
        self.places.push((name.to_owned(), position, bytes));
    }

    fn push(&mut self, name: &str, block: &[u8]) {
        self.note(name, self.bytes.len(), block.len());
        self.bytes.extend_from_slice(block);
        self.bytes.resize(self.bytes.len().next_multiple_of(4096), 0);
    }

    /// A block that the format crate encodes.
    fn encoded(
        &mut self,
        name: &str,
        kind: BlockKind,
        encode: impl FnOnce(&BlockIdentity, &mut Vec<u8>) -> Sealed,
    ) -> Reference {
        let identity = self.identity(CHECKPOINT_VERSION);
        let mut block = Vec::new();
        let sealed = encode(&identity, &mut block);
        block.truncate(sealed.block_bytes as usize);
        self.push(name, &block);
        Reference::local(kind, &identity, &sealed)
    }

    pub(super) fn page(&mut self, name: &str, page: u64, entries: &[CatalogEntry]) -> Reference {
        let listed: Vec<_> = entries.iter().map(CatalogEntry::view).collect();
        self.encoded(name, BlockKind::CatalogPage, |identity, out| {
            encode_page(page, &listed, identity, out).expect("a page")
        })
    }

    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Reference {
        self.encoded("checkpoint", BlockKind::Checkpoint, |identity, out| {
            checkpoint.encode(identity, out).expect("a checkpoint")
        })
    }

    /// A gathered block of the tails: log, first offset, messages.
    pub(super) fn gathered(&mut self, name: &str, tails: &[(u64, usize, Messages)]) -> Vec<Reference> {
        let container = self.identity(CHECKPOINT_VERSION);
        let start = self.bytes.len();
        let mut block = vec![0; GATHERED_BODY_POSITION];
        let mut references = Vec::new();
        for (log, first, messages) in tails {
            block.resize(next_slab_position(block.len()), 0);
            let identity = BlockIdentity {
                position: Position::new((start + block.len()) as u64),
                ..container
            };
            let (bytes, sealed) = messages.seal(*log, *first, &identity);
            self.note(&format!("tail of log {log}"), start + block.len(), bytes.len());
            block.extend(bytes);
            references.push(Reference::local(BlockKind::Slab, &identity, &sealed));
        }
        let bytes = block.len() as u32;
        gathered::encode_header(tails.len() as u32, bytes, &container, &mut block).expect("a header");
        self.push(name, &block);
        references
    }

    /// Writes the header and gives the file away.
    pub(super) fn finish(
        mut self,
        ending: &str,
        files: &mut Vec<(PathBuf, Vec<u8>)>,
        places: &mut Vec<Place>,
    ) {
        self.header.segment_bytes = ByteLength::new(self.bytes.len() as u64);
        let mut page = [0; 4096];
        self.header.encode(&mut page);
        self.bytes[..4096].copy_from_slice(&page);
        let kind = match ending {
            "free" => FileKind::Free,
            _ => FileKind::from(self.header.kind),
        };
        let name = segment_file_name(self.header.segment, kind);
        let file = files.len();
        let place = |(name, position, bytes)| Place {
            name,
            file,
            position,
            bytes,
        };
        places.push(place((format!("header of {name}"), 0, 4096)));
        places.extend(self.places.into_iter().map(place));
        files.push((Path::new(PATH).join("segments").join(name), self.bytes));
    }
}

/// A leaf over slabs.
pub(super) fn leaf(name: &str, segment: &mut Segment, slabs: &[(Reference, Messages)]) -> Reference {
    let (mut summary, mut histogram) = (Summary::default(), Histogram64::default());
    let mut end = 0;
    let mut entries = Vec::new();
    for (reference, messages) in slabs {
        end += messages.count();
        summary.merge(&messages.summary);
        histogram.merge(&Histogram64::from(messages.histogram));
        entries.push(NodeEntry {
            offset_end: end,
            skip: 0,
            reference: *reference,
            summary: messages.summary,
            keys: messages.keys.finish(),
        });
    }
    write_node(
        name,
        segment,
        NodeParts {
            level: 0,
            entries,
            summary,
            histogram,
        },
    )
}

/// The names of logs, in order, and their numbers: a leaf and a filter, in a slab that is of no log.
pub(super) fn name_run(segment: &mut Segment, names: &[(&str, u64)]) -> KeyRun {
    let count = names.len() as u64;
    let mut leaf_page = KeyPageBuilder::leaf();
    let mut filter = KeyFilterBuilder::new(count, 1);
    for (name, log) in names {
        let place = KeyPlace {
            offset: *log,
            stored_bytes: 0,
            is_marker: false,
        };
        leaf_page.push_place(name.as_bytes(), place);
        filter.add(key_hash(name.as_bytes()));
    }
    let leaf_page = leaf_page.finish().expect("a page");
    let pages: Vec<_> = std::iter::once(leaf_page).chain(filter.pages()).collect();
    let page_count = pages.len() as u64;
    let pages = pages.into_iter().map(|value| Written {
        value,
        value_type: ValueType::KEY_PAGE,
        time_ms: None,
        key: None,
        headers: Vec::new(),
    });
    let messages = Messages::of(&pages.collect::<Vec<_>>());
    let slab = messages.write("slab of names", segment, NO_LOG.get(), 0, CHECKPOINT_VERSION);
    KeyRun {
        base: 0,
        first: 0,
        end: names.iter().map(|(_, log)| log + 1).max().unwrap_or(1),
        entries: count,
        stored_bytes: 0,
        superseded_bytes: 0,
        page_count,
        leaf_count: 1,
        root_page: 0,
        filter_page: 1,
        filter_blocks: filter.block_count(),
        level: 0,
        tree: leaf("root of names", segment, &[(slab, messages)]),
    }
}

/// A node over nodes, each with the number of its offsets.
pub(super) fn node(name: &str, segment: &mut Segment, level: u8, children: &[(Reference, u64)]) -> Reference {
    let mut end = 0;
    let summary = |count| Summary {
        messages: count,
        ..Summary::default()
    };
    let mut entries = Vec::new();
    for (reference, count) in children {
        end += count;
        entries.push(NodeEntry {
            offset_end: end,
            skip: 0,
            reference: *reference,
            summary: summary(*count),
            keys: KeySketch::EMPTY,
        });
    }
    write_node(
        name,
        segment,
        NodeParts {
            level,
            entries,
            summary: summary(end),
            histogram: Histogram64::default(),
        },
    )
}

fn write_node(name: &str, segment: &mut Segment, parts: NodeParts) -> Reference {
    segment.encoded(name, BlockKind::Node, |identity, out| {
        format_node::encode(&parts, identity, out).expect("a node")
    })
}

/// An entry of the catalog; `ends` are those of the tree and of the log.
pub(super) fn entry(
    log: u64,
    name: &str,
    ends: (usize, usize),
    tree: Reference,
    tail: Reference,
) -> CatalogEntry {
    CatalogEntry {
        log: LogId::new(log),
        flags: 0,
        name: LogName::parse(name).expect("a name"),
        start_offset: Offset::new(0),
        end_offset: Offset::new(ends.1 as u64),
        tree_end: Offset::new(ends.0 as u64),
        created_version: Version::new(1),
        modified_version: Version::new(CHECKPOINT_VERSION),
        tree,
        tail,
        settings: Vec::new(),
    }
}

/// A commit that is being made, and what the next one must know of it.
#[derive(Default)]
pub(super) struct Commit<'a> {
    pub(super) version: u64,
    pub(super) previous: Crc,
    pub(super) frames: Vec<(FrameDescription, Vec<u8>)>,
    pub(super) adoptions: Vec<SlabAdoption>,
    pub(super) changes: Vec<Change<'a>>,
    pub(super) durable: bool,
}

impl<'a> Commit<'a> {
    pub(super) fn frame(mut self, log: u64, first: u64, messages: &Messages) -> Self {
        let description = FrameDescription {
            log: LogId::new(log),
            first_offset: Offset::new(first),
            offset_count: messages.count(),
            entry_count: messages.positions.len() as u32,
        };
        self.frames.push((description, messages.body.clone()));
        self
    }

    pub(super) fn adopt(mut self, adoption: SlabAdoption) -> Self {
        self.adoptions.push(adoption);
        self
    }

    pub(super) fn change(mut self, change: Change<'a>) -> Self {
        self.changes.push(change);
        self
    }

    /// The slabs were durable before.
    pub(super) fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Writes it, and begins the next one.
    pub(super) fn write(self, name: &str, segment: &mut Segment) -> Commit<'static> {
        let identity = segment.identity(self.version);
        let counts = CommitCounts {
            frames: self.frames.len() as u32,
            adoptions: self.adoptions.len() as u32,
            change_bytes: self.changes.iter().map(Change::encoded_bytes).sum(),
            body_bytes: self.frames.iter().map(|(_, body)| body.len() as u64).sum(),
        };
        let bytes = counts.block_bytes().expect("a size");
        let mut block = vec![0; aligned_block_bytes(bytes) as usize];
        let mut writer = CommitWriter::new(&mut block, counts, &identity).expect("a commit");
        for (description, body) in &self.frames {
            writer.frame(description, body).expect("a frame");
        }
        for adoption in &self.adoptions {
            writer.adoption(adoption).expect("an adoption");
        }
        for change in &self.changes {
            writer.change(change).expect("a change");
        }
        let finished = writer
            .finish(&parameters(self.version, self.previous, self.durable))
            .expect("a commit");
        block.truncate(bytes as usize);
        segment.push(name, &block);
        Commit {
            version: self.version + 1,
            previous: finished.header_crc,
            ..Commit::default()
        }
    }
}
