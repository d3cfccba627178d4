//! One body for each decoder of the format.
//!
//! Each takes the input twice: as it is, and as the content of a structure whose checksums are then made to fit, because
//! a checksum stops nearly every input that a fuzzer makes, and a hostile writer can compute checksums too. What decodes
//! is then read to its end, so that nothing that a decoder let through can fail later.

use lanterman_format::block::{BlockIdentity, BlockKind, Place, decode_block_header, encode_block_header};
use lanterman_format::buffer::{BufferFields, BufferView, ValueType, walk};
use lanterman_format::catalog::decode_page;
use lanterman_format::checkpoint::Checkpoint;
use lanterman_format::checksum::crc32;
use lanterman_format::commit::CommitView;
use lanterman_format::compressed_batch::{self, Codec, CompressedBatch};
use lanterman_format::error::Found;
use lanterman_format::ids::{Generation, Position, SegmentId, StoreId, Version};
use lanterman_format::key_page::{self, KeyPageView};
use lanterman_format::key_sketch::{KeySketch, KeySketchBuilder};
use lanterman_format::large_value::LargeValue;
use lanterman_format::name::{LogName, parse_segment_file_name, segment_file_name};
use lanterman_format::root_slot::{RootSlot, choose};
use lanterman_format::scan::{proof_of_durability, scan_from};
use lanterman_format::segment::SegmentHeader;
use lanterman_format::settings::Settings;
use lanterman_format::slab::SlabLayout;
use lanterman_format::{gathered, node};

/// Bytes of a block's header.
const HEAD: usize = 64;
/// Bytes of a page, of a root slot and of the header of a segment; its last four are the checksum.
const PAGE: usize = 4096;
const STORE: StoreId = StoreId::from_bytes([7; 16]);

fn identity() -> BlockIdentity {
    BlockIdentity {
        store: STORE,
        segment: SegmentId::new(3),
        generation: Generation::new(2),
        position: Position::new(4096),
        version: Version::new(9),
    }
}

fn place() -> Place {
    let BlockIdentity {
        store,
        segment,
        generation,
        position,
        ..
    } = identity();
    Place {
        store,
        segment,
        generation,
        position,
    }
}

/// A block of this kind with `payload` behind its header; `covered` gives the checksum of the payload.
fn block(kind: BlockKind, payload: &[u8], covered: impl FnOnce(u32, &[u8]) -> u32) -> Vec<u8> {
    let mut block = vec![0; HEAD];
    block.extend_from_slice(payload);
    let seed = identity().seed();
    let crc = covered(seed, &block);
    let length = block.len() as u32;
    encode_block_header(&identity(), kind, length, crc, &mut block).expect("a short block");
    block
}

fn whole(seed: u32, block: &[u8]) -> u32 {
    crc32(seed, &block[HEAD..])
}

fn part(block: &[u8], from: usize, to: usize) -> &[u8] {
    let to = to.min(block.len());
    &block[from.min(to)..to]
}

fn number_at(block: &[u8], at: usize) -> usize {
    let bytes = block
        .get(at..at + 4)
        .map_or([0; 4], |bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]);
    u32::from_le_bytes(bytes) as usize
}

/// The header of a block.
pub fn block_header(input: &[u8]) {
    if let Found::Valid(header) = decode_block_header(input, &place()) {
        assert!(header.identity.store == STORE, "a block of another store passed");
    }
}

/// One stored message, and a run of them.
pub fn buffer(input: &[u8]) {
    if let Ok(view) = BufferView::parse(input) {
        read_buffer(&view);
        // Of the padding, which is no part of the message, the bytes may lack some.
        assert!(
            (view.stored_bytes() as usize) < input.len() + 8,
            "a buffer longer than its bytes"
        );
    }
    let mut reached = 0;
    for found in walk(input) {
        let Ok((position, view)) = found else { return };
        assert!(position as usize == reached, "a walk left bytes out");
        reached += view.stored_bytes() as usize;
        read_buffer(&view);
    }
}

fn read_buffer(view: &BufferView<'_>) {
    let is_valid = view.validate().is_ok();
    let _ = (view.value_type(), view.time_ms(), view.key(), view.count());
    let bytes: usize = view.headers().map(|(name, value)| name.len() + value.len()).sum();
    assert!(
        !is_valid || bytes <= view.stored_bytes() as usize,
        "headers longer than their buffer"
    );
}

/// A commit block, with its bodies and changes.
pub fn commit(input: &[u8]) {
    let sealed = block(BlockKind::Commit, input, |seed, block| {
        let directory_bytes = number_at(block, HEAD + 32);
        crc32(seed, part(block, HEAD, HEAD + 64 + directory_bytes))
    });
    for bytes in [input, &sealed] {
        let Found::Valid(header) = decode_block_header(bytes, &place()) else {
            continue;
        };
        let Ok(view) = CommitView::parse(bytes, &header) else {
            continue;
        };
        for frame in view.frames() {
            if let Ok(body) = frame.body {
                buffer(body);
            }
        }
        let adopted = view
            .adoptions()
            .map(|adoption| adoption.offset_count)
            .fold(0u64, u64::wrapping_add);
        let changed = view.changes().filter(Result::is_ok).count();
        let _ = (adopted, changed, view.counts());
    }
}

/// A slab: head, trailer, index, groups.
pub fn slab(input: &[u8]) {
    let sealed = block(BlockKind::Slab, input, |seed, block| {
        let body_end = number_at(block, 96);
        crc32(
            crc32(seed, part(block, HEAD, 256)),
            part(block, body_end, block.len()),
        )
    });
    for bytes in [input, &sealed] {
        let Found::Valid(layout) = SlabLayout::parse(bytes, &place()) else {
            continue;
        };
        let _ = (
            layout.histogram(bytes),
            layout.description(bytes),
            layout.keys(bytes).is_ok(),
            layout.verify_all(bytes).is_ok(),
        );
        for group in 0..layout.group_count().min(64) {
            let range = layout.group_range(group);
            assert!(range.end <= bytes.len(), "a group behind the end of its slab");
            assert!(
                layout.groups_of(range).contains(&group),
                "a group that does not hold its own bytes"
            );
        }
        for offset in (0..layout.offset_count().min(64)).chain([u64::MAX]) {
            if let Some(position) = layout.position_of(bytes, offset) {
                assert!(
                    (position as usize) < bytes.len(),
                    "a position behind the end of its slab"
                );
                let _ = BufferView::parse(&bytes[position as usize..]);
            }
        }
    }
}

/// A node of a tree.
pub fn tree_node(input: &[u8]) {
    let sealed = block(BlockKind::Node, input, whole);
    for bytes in [input, &sealed] {
        if let Found::Valid(parts) = node::decode(bytes, &place()) {
            assert!(
                parts.entries.len() * 128 <= bytes.len(),
                "more entries than their bytes"
            );
            let rising = parts
                .entries
                .is_sorted_by(|left, right| left.offset_end < right.offset_end);
            assert!(rising, "entries that do not rise");
        }
    }
}

/// A page of the catalog.
pub fn catalog_page(input: &[u8]) {
    let sealed = block(BlockKind::CatalogPage, input, whole);
    for bytes in [input, &sealed] {
        if let Found::Valid(page) = decode_page(bytes, &place()) {
            assert!(
                page.entries.len() * 160 <= bytes.len(),
                "more entries than their bytes"
            );
            for entry in &page.entries {
                assert!(
                    entry.start_offset <= entry.end_offset && entry.tree_end <= entry.end_offset,
                    "ends out of order"
                );
            }
        }
    }
}

/// A checkpoint.
pub fn checkpoint(input: &[u8]) {
    let sealed = block(BlockKind::Checkpoint, input, whole);
    for bytes in [input, &sealed] {
        if let Found::Valid(found) = Checkpoint::decode(bytes, &place()) {
            let mut again = Vec::new();
            found
                .encode(&identity(), &mut again)
                .expect("what was read can be written");
            assert!(
                Checkpoint::decode(&again, &place()) == Found::Valid(found),
                "written, it reads as another one"
            );
        }
    }
}

/// The header of gathered tails.
pub fn gathered_tails(input: &[u8]) {
    let sealed = block(BlockKind::Gathered, input, |seed, block| {
        crc32(seed, part(block, HEAD, HEAD + 64))
    });
    for bytes in [input, &sealed] {
        let _ = gathered::decode(bytes, &place());
    }
}

/// A page from `input` whose checksum fits.
fn page(input: &[u8], magic: &[u8]) -> Vec<u8> {
    let mut page = magic.to_vec();
    page.extend_from_slice(input);
    page.resize(PAGE, 0);
    let crc = crc32(0, &page[..PAGE - 4]);
    page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
    page
}

/// Both slots of a root file, and the choice between them.
pub fn root_slots(input: &[u8]) {
    let (first, second) = input.split_at(input.len() / 2);
    let decode = |bytes: &[u8], slot| RootSlot::decode(bytes, slot);
    let _ = choose(&decode(first, 0), &decode(second, 1));
    let sealed = [page(first, b""), page(second, b"")];
    let found = [decode(&sealed[0], 0), decode(&sealed[1], 1)];
    for (slot, found) in found.iter().enumerate() {
        if let Found::Valid(found) = found {
            let mut again = [0; PAGE];
            found.encode(slot as u32, &mut again);
            assert!(
                decode(&again, slot as u32) == Found::Valid(*found),
                "written, it reads as another one"
            );
        }
    }
    if let Ok(Some(chosen)) = choose(&found[0], &found[1]) {
        assert!(
            found.contains(&Found::Valid(chosen)),
            "a slot that is neither of the two"
        );
    }
}

/// The header of a segment.
pub fn segment_header(input: &[u8]) {
    let sealed = page(input, b"");
    for bytes in [input, &sealed] {
        for store in [None, Some(&STORE)] {
            if let Found::Valid(found) = SegmentHeader::decode(bytes, store) {
                let mut again = [0; PAGE];
                found.encode(&mut again);
                assert!(
                    SegmentHeader::decode(&again, store) == Found::Valid(found),
                    "written, it reads as another"
                );
            }
        }
    }
}

/// A whole segment, block by block, and the search for a proof behind a hole.
pub fn segment_scan(input: &[u8]) {
    let Some(header) = input.get(..PAGE) else { return };
    let Found::Valid(header) = SegmentHeader::decode(header, None) else {
        return;
    };
    let mut last = None;
    for scanned in scan_from(input, &header, Position::new(PAGE as u64)) {
        assert!(last < Some(scanned.position), "a scan that goes back");
        last = Some(scanned.position);
    }
    let _ = proof_of_durability(input, &header, Position::new(PAGE as u64), Version::new(1));
}

/// The settings of a log, which have one form.
pub fn settings(input: &[u8]) {
    let Ok(settings) = Settings::decode(input) else {
        return;
    };
    let encoded = settings.encode().expect("what was read can be written");
    assert!(
        Settings::decode(&encoded).as_ref() == Ok(&settings),
        "settings that are other ones when they are written"
    );
}

/// Names of logs and of files.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(name) = LogName::parse(text) {
        assert!(
            (1..=255).contains(&name.as_str().len()),
            "a name of a forbidden length"
        );
        assert!(
            !name.as_str().chars().any(char::is_control),
            "a name with control characters"
        );
    }
    if let Some((id, kind)) = parse_segment_file_name(text) {
        assert!(
            segment_file_name(id, kind) == text,
            "a file name that is written otherwise"
        );
    }
}

/// Pages of key runs: nothing in them leads out of them, and what is found by a key is what going through them finds.
pub fn key_page(input: &[u8]) {
    let wanted = input.get(..wanted_length(input)).unwrap_or_default().to_vec();
    for view in [KeyPageView::leaf(input), KeyPageView::inner(input)]
        .into_iter()
        .flatten()
    {
        let mut key = Vec::new();
        let mut entries = 0_u64;
        let mut before: Option<Vec<u8>> = None;
        let mut is_sorted = true;
        let mut first_not_less = None;
        for entry in view.entries() {
            let Ok(entry) = entry else {
                is_sorted = false;
                break;
            };
            entry.copy_key(&mut key);
            is_sorted &= before.as_ref().is_none_or(|before| *before <= key);
            if first_not_less.is_none() && key.as_slice() >= wanted.as_slice() {
                first_not_less = Some(key.clone());
            }
            assert!(entry.compare_key(&key).is_eq(), "a key that is not the one it is");
            before = Some(key.clone());
            entries += 1;
        }
        assert!(entries <= input.len() as u64, "more entries than bytes");
        let found = view.entries_from(&wanted);
        let _page = view.page_for(&wanted);
        // What is whole and in order is found by bisection too, if its restarts are where they should be.
        if let (true, Ok(mut found)) = (is_sorted, found)
            && let Some(Ok(entry)) = found.next()
        {
            entry.copy_key(&mut key);
            assert!(key.as_slice() >= wanted.as_slice(), "a key that is less");
        }
    }
    let hash = key_page::key_hash(&wanted);
    for block in [0, 1, 62, u64::MAX] {
        let _found = key_page::filter_has(input, block, hash);
    }
}

/// A sketch of keys: what decodes has one form alone, and more keys are never fewer.
pub fn key_sketch(input: &[u8]) {
    let mut blessed = input.to_vec();
    // Entries that rise and are not zero get further than chance would.
    for (entry, number) in blessed.chunks_exact_mut(2).zip(0_u16..1024) {
        let value = u16::from(entry.first().map_or(1, |byte| byte % 31 + 1));
        entry.copy_from_slice(&(number << 5 | value).to_le_bytes());
    }
    for bytes in [input, &blessed] {
        let Ok(sketch) = KeySketch::decode(bytes) else {
            continue;
        };
        let mut builder = KeySketchBuilder::new();
        builder.merge(&sketch);
        assert_eq!(builder.finish().bytes(), bytes, "a sketch of two forms");
        let before = builder.estimate();
        builder.insert(input);
        assert!(builder.estimate() >= before, "fewer keys with one more");
    }
}

/// The value of a message whose value stands in parts: what decodes is encoded to the same bytes.
pub fn large_value(input: &[u8]) {
    let mut counted = input.to_vec();
    // A length that fits gets further than chance would.
    let parts = u32::try_from(input.len().saturating_sub(32) / 16).unwrap_or(u32::MAX);
    if let Some(head) = counted.get_mut(..8) {
        head.copy_from_slice(&(u64::from(parts) << 32 | 1).to_le_bytes());
    }
    if let Some(reserved) = counted.get_mut(24..32) {
        reserved.fill(0);
    }
    for bytes in [input, &counted] {
        let _head = LargeValue::decode_head(bytes);
        if let Ok(value) = LargeValue::decode(bytes) {
            assert_eq!(value.encode().as_deref(), Ok(bytes));
            assert!(value.value_bytes() >= value.parts.len() as u64);
        }
    }
}

/// A compressed batch: the input as its value, and as what either codec made, under a header that fits.
pub fn compressed_batch(input: &[u8]) {
    let (count, value) = input.split_at(input.len().min(1));
    let count = u64::from(count.first().copied().unwrap_or_default()) + 1;
    read_batch(count, value);
    // What uncompresses has its length and its checksum told right, so that the buffers in it are reached.
    let mut body = vec![0; 1 << 16];
    let lz4 = lz4_flex::block::decompress_into(value, &mut body).ok();
    let found = lz4.map(|length| (1, length));
    let found = found.or_else(|| {
        let length = zstd::bulk::decompress_to_buffer(value, &mut body).ok()?;
        Some((2_u8, length))
    });
    if let Some((codec, length)) = found {
        let mut whole = vec![codec, 0, 0, 0];
        whole.extend_from_slice(&(length as u32).to_le_bytes());
        whole.extend_from_slice(&crc32(0, &body[..length]).to_le_bytes());
        whole.extend_from_slice(&[0; 4]);
        whole.extend_from_slice(value);
        read_batch(count, &whole);
        let buffers = walk(&body[..length]).filter(Result::is_ok).count();
        read_batch(buffers as u64, &whole);
    }
    // Whatever the input is, as a body it comes back.
    for codec in [Codec::Lz4, Codec::Zstd] {
        let mut body = input.repeat(4);
        body.truncate(body.len() & !7);
        if let Ok(Some(value)) = compressed_batch::compress(codec, 1, &body) {
            read_batch(walk(&body).count() as u64, &value);
        }
    }
}

fn read_batch(count: u64, value: &[u8]) {
    let fields = BufferFields {
        count: count.max(1),
        ..BufferFields::plain(ValueType::COMPRESSED_BATCH, value)
    };
    let mut stored = vec![0; fields.encoded_bytes().expect("a short value") as usize];
    fields.encode(&mut stored).expect("room");
    let buffer = BufferView::parse(&stored).expect("a buffer as it was encoded");
    let Ok(batch) = CompressedBatch::parse(&buffer) else {
        return;
    };
    if let Ok(body) = batch.to_body() {
        let found = walk(&body).map(|step| step.expect("a buffer that was checked").1);
        assert_eq!(found.filter(|buffer| buffer.count() == 1).count() as u64, count);
        assert_eq!(body.len(), batch.body_bytes() as usize);
    }
}

/// Keys that are looked for are short, mostly.
fn wanted_length(input: &[u8]) -> usize {
    input.first().map_or(0, |first| usize::from(first % 16))
}
