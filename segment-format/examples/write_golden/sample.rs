//! A small store, byte for byte the same whenever it is made: a root, a journal segment with versions 8 and 9, and a
//! slabs segment with a checkpoint of version 7. Log 1 has a slab and a tail, log 130 only a tail.

use lanterman_format::block::aligned_block_bytes;
use lanterman_format::catalog::encode_page;
use lanterman_format::gathered::{self, GATHERED_BODY_POSITION, next_slab_position};
use lanterman_format::root_slot::ROOT_SLOT_BYTES;
use lanterman_format::segment::SEGMENT_HEADER_BYTES;
use lanterman_format::slab::{SLAB_BODY_POSITION, seal};
use lanterman_format::{
    BlockIdentity, BlockKind, BufferFields, BufferView, ByteLength, CatalogEntry, Change, Checkpoint, Codec,
    CommitCounts, CommitParameters, CommitWriter, Crc, FormatVersion, FrameDescription, Generation,
    Histogram32, Histogram64, KeySketch, KeySketchBuilder, LogId, LogName, NodeEntry, NodeParts, Offset,
    Position, Reference, RootSlot, Sealed, SegmentEntry, SegmentHeader, SegmentId, SegmentKind, Sequence,
    SlabAdoption, SlabDescription, StoreId, Summary, ValueType, Version, compressed_batch, node,
};

pub(crate) const STORE: StoreId = StoreId::from_bytes(*b"golden lanterman");
pub(crate) const JOURNAL: SegmentId = SegmentId::new(5);
pub(crate) const SLABS: SegmentId = SegmentId::new(6);
pub(crate) const KEYS: SegmentId = SegmentId::new(7);
const TIME_MS: i64 = 1_700_000_000_000;
const CHECKPOINT_VERSION: Version = Version::new(7);

/// Anything that can go wrong while the sample is made.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Name and content of each golden file.
pub(crate) fn files() -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let mut slabs = Segment::new(SegmentKind::Slabs, SLABS, 3, CHECKPOINT_VERSION);
    let (checkpoint, adopted) = write_slabs(&mut slabs)?;
    let journal = write_journal(adopted)?;
    Ok(vec![
        ("root.bin", write_root(checkpoint)),
        ("journal.bin", journal.finish()),
        ("slabs.bin", slabs.finish()),
        ("keys.bin", write_keys()?.finish()),
    ])
}

struct Segment {
    header: SegmentHeader,
    bytes: Vec<u8>,
}

impl Segment {
    fn new(kind: SegmentKind, segment: SegmentId, generation: u32, first_version: Version) -> Self {
        let header = SegmentHeader {
            format: FormatVersion::CURRENT,
            kind,
            store: STORE,
            segment,
            generation: Generation::new(generation),
            segment_bytes: ByteLength::new(64 * 1024),
            first_version,
            time_ms: TIME_MS,
        };
        Self {
            header,
            bytes: vec![0; SEGMENT_HEADER_BYTES],
        }
    }

    /// Identity of the next block.
    fn identity(&self, version: Version) -> BlockIdentity {
        let position = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        self.header.place(Position::new(position)).identity(version)
    }

    fn push(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        self.bytes.resize(self.bytes.len().next_multiple_of(4096), 0);
    }

    fn used(&self) -> ByteLength {
        ByteLength::new(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }

    /// Header and blocks; what is not written yet is not part of the file.
    fn finish(self) -> Vec<u8> {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        self.header.encode(&mut page);
        let mut bytes = page.to_vec();
        bytes.extend(self.bytes.iter().skip(SEGMENT_HEADER_BYTES));
        bytes
    }
}

/// Buffers one after the other, with their positions in a slab, first offsets, summary and histogram.
#[derive(Default)]
struct Messages {
    body: Vec<u8>,
    positions: Vec<u32>,
    firsts: Vec<u32>,
    offset_count: u64,
    summary: Summary,
    histogram: Histogram32,
    is_compressed: bool,
    keys: KeySketch,
}

impl Messages {
    fn push(&mut self, fields: &BufferFields<'_>) -> Result<(), Failure> {
        let mut bytes = vec![0; usize::try_from(fields.encoded_bytes()?)?];
        fields.encode(&mut bytes)?;
        self.positions
            .push(u32::try_from(self.body.len() + SLAB_BODY_POSITION)?);
        self.firsts.push(u32::try_from(self.offset_count)?);
        self.offset_count += fields.count;
        self.summary.add_buffer(&BufferView::parse(&bytes)?);
        self.histogram.add(u32::try_from(fields.value.len())?);
        self.body.extend(bytes);
        Ok(())
    }

    fn plain(values: &[&str]) -> Result<Self, Failure> {
        let mut messages = Self::default();
        values
            .iter()
            .try_for_each(|value| messages.push(&BufferFields::plain(ValueType::UTF8, value.as_bytes())))?;
        Ok(messages)
    }

    fn frame(&self, log: u64, first_offset: u64) -> Result<FrameDescription, Failure> {
        Ok(FrameDescription {
            log: LogId::new(log),
            first_offset: Offset::new(first_offset),
            offset_count: self.offset_count,
            entry_count: u32::try_from(self.positions.len())?,
        })
    }

    /// The slab without its padding.
    fn seal(
        &self,
        log: u64,
        first_offset: u64,
        identity: &BlockIdentity,
    ) -> Result<(Vec<u8>, Sealed), Failure> {
        let description = SlabDescription {
            log: LogId::new(log),
            first_offset: Offset::new(first_offset),
            offset_count: self.offset_count,
            summary: self.summary,
            histogram: self.histogram,
            is_compressed: self.is_compressed,
            keys: self.keys.clone(),
        };
        let has_runs = self.offset_count != u64::try_from(self.positions.len())?;
        let runs = has_runs.then_some(self.firsts.as_slice());
        let (mut head, mut trailer) = ([0; SLAB_BODY_POSITION], vec![0; 4096]);
        let sealed = seal(
            &mut head,
            &self.body,
            &mut trailer,
            &self.positions,
            runs,
            &description,
            identity,
        )?;
        let mut slab = [&head[..], &self.body, &trailer].concat();
        slab.truncate(usize::try_from(sealed.block_bytes)?);
        Ok((slab, sealed))
    }
}

/// The slabs segment: its checkpoint, and a slab that version 9 adopts.
fn write_slabs(segment: &mut Segment) -> Result<(Reference, Reference), Failure> {
    let slab = Messages::plain(&["a0", "a1", "a2"])?;
    let identity = segment.identity(CHECKPOINT_VERSION);
    let (bytes, sealed) = slab.seal(1, 0, &identity)?;
    segment.push(&bytes);
    let parts = NodeParts {
        level: 0,
        entries: vec![NodeEntry {
            offset_end: 3,
            skip: 0,
            reference: Reference::local(BlockKind::Slab, &identity, &sealed),
            summary: slab.summary,
            keys: KeySketch::EMPTY,
        }],
        summary: slab.summary,
        histogram: Histogram64::from(slab.histogram),
    };
    let identity = segment.identity(CHECKPOINT_VERSION);
    let sealed = node::encode(&parts, &identity, &mut segment.bytes)?;
    let tree = Reference::local(BlockKind::Node, &identity, &sealed);
    let tails = write_gathered(segment)?;
    let pages = write_pages(segment, tree, tails)?;
    let adopted = write_adopted(segment)?;
    let checkpoint = write_checkpoint(segment, pages)?;
    Ok((checkpoint, adopted))
}

/// The sketch of so many keys.
pub(crate) fn sketch_of(keys: u32) -> KeySketch {
    let mut builder = KeySketchBuilder::new();
    (0..keys).for_each(|key| builder.insert(&key.to_le_bytes()));
    builder.finish()
}

/// A slab whose messages have keys, and a node with a sketch of either form.
fn write_keys() -> Result<Segment, Failure> {
    let mut segment = Segment::new(SegmentKind::Slabs, KEYS, 1, CHECKPOINT_VERSION);
    let mut slab = Messages::plain(&["a0", "a1"])?;
    slab.keys = sketch_of(2);
    slab.summary.key_bytes = 8;
    let identity = segment.identity(CHECKPOINT_VERSION);
    let (bytes, sealed) = slab.seal(1, 0, &identity)?;
    segment.push(&bytes);
    let reference = Reference::local(BlockKind::Slab, &identity, &sealed);
    let entry = |offset_end, keys| NodeEntry {
        offset_end,
        skip: 0,
        reference,
        summary: slab.summary,
        keys: sketch_of(keys),
    };
    let parts = NodeParts {
        level: 0,
        entries: vec![entry(2, 2), entry(4, 0), entry(6, 1000)],
        summary: slab.summary,
        histogram: Histogram64::from(slab.histogram),
    };
    let identity = segment.identity(CHECKPOINT_VERSION);
    node::encode(&parts, &identity, &mut segment.bytes)?;
    Ok(segment)
}

/// A gathered block with the tails of both logs.
fn write_gathered(segment: &mut Segment) -> Result<[Reference; 2], Failure> {
    let container = segment.identity(CHECKPOINT_VERSION);
    let tails = [
        (1, 3, Messages::plain(&["tail of one"])?),
        (130, 0, Messages::plain(&["first of 130", "second"])?),
    ];
    let mut block = vec![0; GATHERED_BODY_POSITION];
    let mut references = [Reference::EMPTY; 2];
    for (slot, (log, first_offset, messages)) in references.iter_mut().zip(tails) {
        block.resize(next_slab_position(block.len()), 0);
        let inner = container
            .position
            .checked_add(u64::try_from(block.len())?)
            .ok_or("the sample is too large")?;
        let identity = BlockIdentity {
            position: inner,
            ..container
        };
        let (bytes, sealed) = messages.seal(log, first_offset, &identity)?;
        block.extend(bytes);
        *slot = Reference::local(BlockKind::Slab, &identity, &sealed);
    }
    let block_bytes = u32::try_from(block.len())?;
    gathered::encode_header(2, block_bytes, &container, &mut block)?;
    segment.push(&block);
    Ok(references)
}

fn write_pages(
    segment: &mut Segment,
    tree: Reference,
    tails: [Reference; 2],
) -> Result<Vec<Reference>, Failure> {
    let [first_tail, second_tail] = tails;
    let first = CatalogEntry {
        log: LogId::new(1),
        flags: 0,
        name: LogName::parse("orders/ü")?,
        start_offset: Offset::new(0),
        end_offset: Offset::new(4),
        tree_end: Offset::new(3),
        created_version: Version::new(1),
        modified_version: CHECKPOINT_VERSION,
        tree,
        tail: first_tail,
        settings: b"settings".to_vec(),
    };
    let second = CatalogEntry {
        log: LogId::new(130),
        name: LogName::parse("audit")?,
        end_offset: Offset::new(2),
        tree_end: Offset::new(0),
        tree: Reference::EMPTY,
        tail: second_tail,
        settings: Vec::new(),
        ..first.clone()
    };
    let mut pages = Vec::new();
    for (page, entry) in [(0, first), (1, second)] {
        let identity = segment.identity(CHECKPOINT_VERSION);
        let sealed = encode_page(page, &[entry.view()], &identity, &mut segment.bytes)?;
        pages.push(Reference::local(BlockKind::CatalogPage, &identity, &sealed));
    }
    Ok(pages)
}

/// A slab with a run of deleted messages in front, which version 9 adopts without them: it takes the place of what log 130
/// had in its tail and in the journal, and brings two messages more.
fn write_adopted(segment: &mut Segment) -> Result<Reference, Failure> {
    let mut messages = Messages::default();
    messages.push(&BufferFields {
        count: 9,
        ..BufferFields::plain(ValueType::TOMBSTONES, b"")
    })?;
    for value in ["first of 130", "second", "third", "adopted 0", "adopted 1"] {
        messages.push(&BufferFields::plain(ValueType::UTF8, value.as_bytes()))?;
    }
    let identity = segment.identity(Version::new(8));
    let (bytes, sealed) = messages.seal(130, 0, &identity)?;
    segment.push(&bytes);
    Ok(Reference::local(BlockKind::Slab, &identity, &sealed))
}

fn write_checkpoint(segment: &mut Segment, pages: Vec<Reference>) -> Result<Reference, Failure> {
    let identity = segment.identity(CHECKPOINT_VERSION);
    let entry = |segment, generation, kind, free| SegmentEntry {
        segment,
        generation: Generation::new(generation),
        kind,
        free,
        segment_bytes: ByteLength::new(64 * 1024),
        used_bytes: ByteLength::new(4096),
        live_bytes: ByteLength::new(0),
    };
    let slabs = SegmentEntry {
        used_bytes: segment.used(),
        live_bytes: segment.used(),
        ..entry(SLABS, 3, SegmentKind::Slabs, false)
    };
    let checkpoint = Checkpoint {
        version: CHECKPOINT_VERSION,
        journal_segment: JOURNAL,
        journal_position: Position::new(4096),
        next_log: LogId::new(131),
        next_segment: SegmentId::new(7),
        last_commit_crc: Crc::new(0x0123_4567),
        garbage: Reference::EMPTY,
        segments: vec![
            entry(SegmentId::new(4), 1, SegmentKind::Journal, true),
            entry(JOURNAL, 2, SegmentKind::Journal, false),
            slabs,
        ],
        pages,
        index: None,
    };
    let sealed = checkpoint.encode(&identity, &mut segment.bytes)?;
    Ok(Reference::local(BlockKind::Checkpoint, &identity, &sealed))
}

/// Versions 8 and 9: messages with everything a message can have, an adoption, and all changes.
fn write_journal(adopted: Reference) -> Result<Segment, Failure> {
    let mut journal = Segment::new(SegmentKind::Journal, JOURNAL, 2, Version::new(8));
    let mut of_one = Messages::plain(&["committed"])?;
    of_one.push(&BufferFields {
        time_ms: Some(TIME_MS),
        key: Some(b"key"),
        headers: &[(b"name", b"value"), (b"", b"")],
        ..BufferFields::plain(ValueType::new(1 << 32), b"with all")
    })?;
    let of_130 = Messages::plain(&["third"])?;
    let create = Change::CreateLog {
        log: LogId::new(131),
        name: "new/../log",
        settings: b"s",
    };
    let frames = [
        (of_one.frame(1, 4)?, of_one.body.as_slice()),
        (of_130.frame(130, 2)?, of_130.body.as_slice()),
    ];
    let previous_crc = write_commit(&mut journal, 8, Crc::new(0x0123_4567), &frames, &[], &[create])?;
    let adoption = SlabAdoption {
        log: LogId::new(130),
        first_offset: Offset::new(0),
        offset_count: 5,
        skip: 9,
        slab: adopted,
    };
    let changes = [
        Change::SetSettings {
            log: LogId::new(130),
            settings: b"other settings",
        },
        Change::DropLog { log: LogId::new(131) },
    ];
    write_commit(&mut journal, 9, previous_crc, &[], &[adoption], &changes)?;
    Ok(journal)
}

fn write_commit(
    journal: &mut Segment,
    version: u64,
    previous_crc: Crc,
    frames: &[(FrameDescription, &[u8])],
    adoptions: &[SlabAdoption],
    changes: &[Change<'_>],
) -> Result<Crc, Failure> {
    let identity = journal.identity(Version::new(version));
    let body_bytes: usize = frames.iter().map(|(_, body)| body.len()).sum();
    let counts = CommitCounts {
        frames: u32::try_from(frames.len())?,
        adoptions: u32::try_from(adoptions.len())?,
        change_bytes: changes.iter().map(Change::encoded_bytes).sum(),
        body_bytes: u64::try_from(body_bytes)?,
    };
    let room = usize::try_from(aligned_block_bytes(counts.block_bytes()?))?;
    let mut block = vec![0; room];
    let mut writer = CommitWriter::new(&mut block, counts, &identity)?;
    frames
        .iter()
        .try_for_each(|(description, body)| writer.frame(description, body))?;
    adoptions
        .iter()
        .try_for_each(|adoption| writer.adoption(adoption))?;
    changes.iter().try_for_each(|change| writer.change(change))?;
    let finished = writer.finish(&CommitParameters {
        durable_version: Version::new(version - 1),
        time_ms: TIME_MS,
        previous_crc,
        adoptions_durable: false,
    })?;
    journal.push(&block);
    Ok(finished.header_crc)
}

fn write_root(checkpoint: Reference) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, sequence) in [(0, 12), (1, 13)] {
        let slot = RootSlot {
            format: FormatVersion::CURRENT,
            store: STORE,
            sequence: Sequence::new(sequence),
            version: CHECKPOINT_VERSION,
            checkpoint,
            journal_segment: JOURNAL,
            journal_position: Position::new(4096),
            next_segment: SegmentId::new(7),
            time_ms: TIME_MS,
        };
        let mut page = [0; ROOT_SLOT_BYTES];
        slot.encode(number, &mut page);
        bytes.extend(page);
    }
    bytes
}

/// The values of the slab in `compressed.bin`, by offset.
pub(crate) fn compressed_values() -> Vec<Vec<u8>> {
    (0..60)
        .map(|number| format!("message {number} of sixty that are much alike").into_bytes())
        .collect()
}

/// A segment with one slab, of log 7: a batch of LZ4, two messages as they are, a batch of Zstandard. What an encoder makes of
/// the same messages may change with its version, so this file is only ever read.
pub(crate) fn compressed() -> Result<Vec<u8>, Failure> {
    let values = compressed_values();
    let mut segment = Segment::new(SegmentKind::Slabs, SLABS, 3, CHECKPOINT_VERSION);
    let mut slab = Messages::default();
    let mut inner = Messages::default();
    let parts = [
        (0..40, Some(Codec::Lz4)),
        (40..42, None),
        (42..60, Some(Codec::Zstd)),
    ];
    for (numbers, codec) in parts {
        let mut part = Messages::default();
        for value in values.get(numbers).unwrap_or_default() {
            part.push(&BufferFields::plain(ValueType::UTF8, value))?;
            inner.push(&BufferFields::plain(ValueType::UTF8, value))?;
            if codec.is_none() {
                slab.push(&BufferFields::plain(ValueType::UTF8, value))?;
            }
        }
        if let Some(codec) = codec {
            let level = if codec == Codec::Zstd { 3 } else { 0 };
            let batch = compressed_batch::compress(codec, level, &part.body)?.ok_or("it does not shrink")?;
            slab.push(&BufferFields {
                count: part.offset_count,
                ..BufferFields::plain(ValueType::COMPRESSED_BATCH, &batch)
            })?;
        }
    }
    (slab.summary, slab.histogram) = (inner.summary, inner.histogram);
    slab.is_compressed = true;
    let identity = segment.identity(CHECKPOINT_VERSION);
    let (bytes, _) = slab.seal(7, 0, &identity)?;
    segment.push(&bytes);
    Ok(segment.finish())
}
