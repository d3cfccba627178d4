//! Promise: what a released version wrote is read for ever, and the current version writes the same bytes. The files in
//! `testdata/v1` are compared with the sample they were made from, and read as a reader of a store would, from the root
//! down; `cargo run -p lanterman-format --example write_golden` writes them anew.

#[path = "../examples/write_golden/sample.rs"]
mod sample;

use lanterman_format::block::decode_block_header;
use lanterman_format::buffer::walk;
use lanterman_format::catalog::decode_page;
use lanterman_format::root_slot::choose;
use lanterman_format::scan::scan;
use lanterman_format::{
    BlockKind, BufferView, CatalogEntry, Change, Checkpoint, Codec, CommitView, CompressedBatch, Crc, Found,
    Position, Reference, RootSlot, SegmentHeader, SlabLayout, Structure, ValueType, Version, gathered, node,
};
use sample::{Failure, JOURNAL, STORE};

/// The values of the messages that log 1 and log 130 have in the end, by offset.
fn expected_values(log: u64) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match log {
        1 => texts(&["a0", "a1", "a2", "tail of one", "committed", "with all"]),
        _ => texts(&["first of 130", "second", "third", "adopted 0", "adopted 1"]),
    }
}

fn golden(name: &str) -> Result<Vec<u8>, Failure> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    Ok(std::fs::read(directory.join(name))?)
}

/// The bytes of the block referred to, in the only slabs segment of the sample.
fn block<'a>(slabs: &'a [u8], reference: &Reference) -> Result<&'a [u8], Failure> {
    let start = usize::try_from(reference.position.get())?;
    let bytes = slabs.get(start..).ok_or("outside of the segment")?;
    let header = decode_block_header(bytes, &reference.place(STORE)).into_result(Structure::BlockHeader)?;
    reference.check(&header)?;
    Ok(bytes)
}

/// The values of a slab from an offset on.
fn slab_values(slabs: &[u8], reference: &Reference, skip: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let bytes = block(slabs, reference)?;
    let layout = SlabLayout::parse(bytes, &reference.place(STORE)).into_result(Structure::Slab)?;
    layout.verify_all(bytes)?;
    let body_end = usize::try_from(layout.body_end())?;
    let mut values = Vec::new();
    for offset in skip..layout.offset_count() {
        let position = layout.position_of(bytes, offset).ok_or("no such offset")?;
        let buffer = bytes
            .get(usize::try_from(position)?..body_end)
            .ok_or("outside of the body")?;
        let view = BufferView::parse(buffer)?;
        view.validate()?;
        values.push(view.value().to_vec());
    }
    Ok(values)
}

/// The values of a log as of the checkpoint.
fn checkpointed_values(slabs: &[u8], entry: &CatalogEntry) -> Result<Vec<Vec<u8>>, Failure> {
    let mut values = Vec::new();
    if !entry.tree.is_empty() {
        let bytes = block(slabs, &entry.tree)?;
        let parts = node::decode(bytes, &entry.tree.place(STORE)).into_result(Structure::Node)?;
        for child in &parts.entries {
            values.extend(slab_values(slabs, &child.reference, child.skip)?);
        }
    }
    if !entry.tail.is_empty() {
        values.extend(slab_values(slabs, &entry.tail, 0)?);
    }
    Ok(values)
}

fn checkpoint(slabs: &[u8], root: &RootSlot) -> Result<Checkpoint, Failure> {
    let bytes = block(slabs, &root.checkpoint)?;
    Ok(Checkpoint::decode(bytes, &root.checkpoint.place(STORE)).into_result(Structure::Checkpoint)?)
}

fn root() -> Result<RootSlot, Failure> {
    let bytes = golden("root.bin")?;
    let (first, second) = bytes.split_at_checked(4096).ok_or("too short")?;
    let newest = choose(&RootSlot::decode(first, 0), &RootSlot::decode(second, 1))?;
    Ok(newest.ok_or("no valid slot")?)
}

/// Applies what the journal has of a log to its values: adoptions take the place of what there is, frames add what is
/// missing.
fn replay(journal: &[u8], slabs: &[u8], log: u64, values: &mut Vec<Vec<u8>>) -> Result<(), Failure> {
    let header = SegmentHeader::decode(journal, Some(&STORE)).into_result(Structure::SegmentHeader)?;
    let mut previous = Crc::new(0x0123_4567);
    let blocks = scan(journal, &header);
    for scanned in blocks {
        let found = scanned.found.into_result(Structure::BlockHeader)?;
        let view = CommitView::parse(blocks.bytes_from(scanned.position), &found)?;
        if !view.continues(previous) {
            return Err("the chain is broken".into());
        }
        previous = found.header_crc;
        for adoption in view.adoptions().filter(|adoption| adoption.log.get() == log) {
            values.truncate(usize::try_from(adoption.first_offset.get())?);
            values.extend(slab_values(slabs, &adoption.slab, adoption.skip)?);
        }
        for frame in view.frames().filter(|frame| frame.description.log.get() == log) {
            let first = usize::try_from(frame.description.first_offset.get())?;
            let known = values
                .len()
                .checked_sub(first)
                .ok_or("a gap in front of a frame")?;
            for step in walk(frame.body?).skip(known) {
                values.push(step?.1.value().to_vec());
            }
        }
    }
    Ok(())
}

#[test]
fn the_current_version_writes_the_golden_files_byte_for_byte() {
    for (name, bytes) in sample::files().unwrap() {
        let golden = golden(name).unwrap();
        let difference = bytes.iter().zip(&golden).position(|(one, other)| one != other);
        assert_eq!((difference, bytes.len()), (None, golden.len()), "{name}");
    }
}

#[test]
fn every_message_of_the_golden_store_is_found_from_its_root() {
    let (slabs, journal) = (golden("slabs.bin").unwrap(), golden("journal.bin").unwrap());
    let root = root().unwrap();
    assert_eq!(
        (root.sequence.get(), root.version.get(), root.journal_segment),
        (13, 7, JOURNAL)
    );
    let checkpoint = checkpoint(&slabs, &root).unwrap();
    assert_eq!((checkpoint.segments.len(), checkpoint.pages.len()), (3, 2));
    for (page, log) in checkpoint.pages.iter().zip([1, 130]) {
        let found = decode_page(block(&slabs, page).unwrap(), &page.place(STORE))
            .valid()
            .unwrap();
        assert_eq!(found.entries.len(), 1);
        let mut values = checkpointed_values(&slabs, &found.entries[0]).unwrap();
        replay(&journal, &slabs, log, &mut values).unwrap();
        assert_eq!(values, expected_values(log), "log {log}");
    }
}

#[test]
fn the_golden_sketches_of_keys_are_read() {
    let keys = golden("keys.bin").unwrap();
    let header = SegmentHeader::decode(&keys, Some(&STORE)).valid().unwrap();
    let blocks = scan(&keys, &header);
    let found: Vec<(Position, BlockKind)> = blocks
        .map(|scanned| (scanned.position, scanned.found.valid().unwrap().kind))
        .collect();
    let [(slab, BlockKind::Slab), (node, BlockKind::Node)] = found[..] else {
        panic!("{found:?}");
    };
    let bytes = blocks.bytes_from(slab);
    let layout = SlabLayout::parse(bytes, &header.place(slab)).valid().unwrap();
    assert_eq!(layout.keys(bytes), Ok(sample::sketch_of(2)));
    let parts = node::decode(blocks.bytes_from(node), &header.place(node))
        .valid()
        .unwrap();
    let sketches: Vec<_> = parts.entries.iter().map(|entry| entry.keys.clone()).collect();
    assert_eq!(sketches, [2, 0, 1000].map(sample::sketch_of));
}

#[test]
fn the_golden_journal_holds_everything_a_commit_can() {
    let journal = golden("journal.bin").unwrap();
    let header = SegmentHeader::decode(&journal, Some(&STORE)).valid().unwrap();
    let blocks = scan(&journal, &header);
    let views: Vec<CommitView<'_>> = blocks
        .map(|scanned| {
            let found = scanned.found.valid().unwrap();
            CommitView::parse(blocks.bytes_from(scanned.position), &found).unwrap()
        })
        .collect();
    let [first, second] = &views[..] else {
        panic!("{} blocks", views.len())
    };
    assert_eq!(
        (first.version(), second.version()),
        (Version::new(8), Version::new(9))
    );
    let header_of_first = blocks.into_iter().next().unwrap().found.valid().unwrap();
    assert_eq!(second.previous_crc(), header_of_first.header_crc);
    let frame = first.frames().next().unwrap();
    let (_, message) = walk(frame.body.unwrap()).last().unwrap().unwrap();
    assert_eq!(
        (message.value_type(), message.key()),
        (ValueType::new(1 << 32), Some(&b"key"[..]))
    );
    assert_eq!(message.time_ms(), Some(1_700_000_000_000));
    assert_eq!(
        message.headers().collect::<Vec<_>>(),
        [(&b"name"[..], &b"value"[..]), (b"", b"")]
    );
    let changes: Vec<Change<'_>> = views
        .iter()
        .flat_map(CommitView::changes)
        .map(Result::unwrap)
        .collect();
    assert!(matches!(
        changes[0],
        Change::CreateLog {
            name: "new/../log",
            settings: b"s",
            ..
        }
    ));
    assert!(matches!(
        changes[1],
        Change::SetSettings {
            settings: b"other settings",
            ..
        }
    ));
    assert!(matches!(changes[2], Change::DropLog { .. }));
    assert_eq!(
        second
            .adoptions()
            .map(|adoption| adoption.skip)
            .collect::<Vec<_>>(),
        [9]
    );
}

#[test]
fn the_golden_slabs_segment_holds_every_kind_of_block() {
    let slabs = golden("slabs.bin").unwrap();
    let header = SegmentHeader::decode(&slabs, Some(&STORE)).valid().unwrap();
    let blocks = scan(&slabs, &header);
    let kinds: Vec<BlockKind> = blocks
        .map(|scanned| scanned.found.valid().unwrap().kind)
        .collect();
    let expected = [
        BlockKind::Slab,
        BlockKind::Node,
        BlockKind::Gathered,
        BlockKind::CatalogPage,
        BlockKind::CatalogPage,
        BlockKind::Slab,
        BlockKind::Checkpoint,
    ];
    assert_eq!(kinds, expected);
    let position = Position::new(3 * 4096);
    let found = gathered::decode(blocks.bytes_from(position), &header.place(position));
    assert!(matches!(found, Found::Valid(gathered) if gathered.slab_count == 2));
}

#[test]
fn a_compressed_slab_of_an_earlier_version_is_read() -> Result<(), Failure> {
    let file = golden("compressed.bin")?;
    let header = SegmentHeader::decode(&file, Some(&STORE)).into_result(Structure::SegmentHeader)?;
    let place = header.place(Position::new(4096));
    let bytes = file.get(4096..).ok_or("too short")?;
    let layout = SlabLayout::parse(bytes, &place).into_result(Structure::Slab)?;
    layout.verify_all(bytes)?;
    assert!(layout.is_compressed());
    let mut values = Vec::new();
    let mut codecs = Vec::new();
    let body_end = usize::try_from(layout.body_end())?;
    for step in walk(bytes.get(256..body_end).ok_or("no body")?) {
        let (_, buffer) = step?;
        if buffer.value_type() != ValueType::COMPRESSED_BATCH {
            values.push(buffer.value().to_vec());
            continue;
        }
        let batch = CompressedBatch::parse(&buffer)?;
        codecs.push(batch.codec());
        for step in walk(&batch.to_body()?) {
            values.push(step?.1.value().to_vec());
        }
    }
    assert_eq!(codecs, [Codec::Lz4, Codec::Zstd]);
    assert_eq!(values, sample::compressed_values());
    assert_eq!(layout.summary().messages, 60);
    // What is written today reads the same, whatever its bytes are.
    assert_eq!(sample::compressed()?.len(), file.len());
    Ok(())
}
