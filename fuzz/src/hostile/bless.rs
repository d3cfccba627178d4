//! Makes all checksums of a changed store fit again, and all references that named a block before name it still.

use lanterman_format::block::{BlockIdentity, BlockKind};
use lanterman_format::checksum::crc32;
use lanterman_format::ids::Position;
use lanterman_format::{SegmentHeader, Version};

use super::number;
use crate::crafted::{Crafted, Place};

/// Bytes of a page whose last four are its checksum.
const PAGE: usize = 4096;

/// Computes every checksum of `store` anew. `pristine` is the store before the changes: it says where blocks are, of which
/// kind, and which references were right.
pub fn bless(store: &mut Crafted, pristine: &Crafted) {
    let is_block =
        |place: &&Place| !place.name.starts_with("root slot") && !place.name.starts_with("header of");
    let mut blocks: Vec<&Place> = pristine.places.iter().filter(is_block).collect();
    // What refers comes behind what it refers to: slabs first, then the journal.
    let is_journal = |place: &Place| !pristine.files[place.file].0.to_string_lossy().ends_with("slabs");
    blocks.sort_by_key(|place| (is_journal(place), place.file, place.position));
    for place in &blocks {
        seal(store, pristine, place);
    }
    let pages = pristine.places.iter().filter(|place| !is_block(place));
    for place in pages {
        let page = &mut store.files[place.file].1[place.position..place.position + PAGE];
        let crc = crc32(0, &page[..PAGE - 4]);
        page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The checksums of one block, and then what names it.
fn seal(store: &mut Crafted, pristine: &Crafted, place: &Place) {
    let old = &pristine.files[place.file].1;
    let header = SegmentHeader::decode(&old[..PAGE], None)
        .valid()
        .expect("a segment");
    let kind = BlockKind::from_code(old[place.position + 4]).expect("a block");
    let bytes = &mut store.files[place.file].1;
    let block = &mut bytes[place.position..];
    let at = |block: &[u8], at: usize| number(&block[at..at + 4]) as usize;
    let length = at(block, 8).clamp(64, block.len());
    let version = Version::new(number(&block[32..40]));
    let identity: BlockIdentity = header
        .place(Position::new(place.position as u64))
        .identity(version);
    let seed = identity.seed();
    let payload = match kind {
        BlockKind::Commit => {
            for frame in 0..at(&old[place.position..], 84) {
                let frame_at = 128 + 48 * frame;
                let (body_bytes, body) = (at(block, frame_at + 28), at(block, frame_at + 32));
                let end = body.saturating_add(body_bytes).min(block.len());
                let crc = crc32(seed ^ frame as u32, &block[body.min(end)..end]);
                block[frame_at + 36..frame_at + 40].copy_from_slice(&crc.to_le_bytes());
            }
            let end = at(block, 96).saturating_add(128).min(block.len());
            crc32(seed, &block[64..end])
        }
        BlockKind::Slab => {
            let body_end = at(block, 96).min(length);
            let (table, groups) = (at(block, 112), at(block, 116).min(1000));
            for group in 0..groups {
                let entry = table.saturating_add(4 * group);
                let from = (group * PAGE).max(256);
                let end = body_end.min((group + 1) * PAGE);
                if from <= end && entry.saturating_add(4) <= length {
                    let crc = crc32(seed ^ group as u32, &block[from..end]);
                    block[entry..entry + 4].copy_from_slice(&crc.to_le_bytes());
                }
            }
            crc32(crc32(seed, &block[64..256]), &block[body_end..length])
        }
        BlockKind::Gathered => crc32(seed, &block[64..128]),
        _ => crc32(seed, &block[64..length]),
    };
    block[12..16].copy_from_slice(&payload.to_le_bytes());
    let header_crc = crc32(seed, &block[..60]);
    block[60..64].copy_from_slice(&header_crc.to_le_bytes());
    let new: Vec<u8> = block[..64].to_vec();
    let old: Vec<u8> = old[place.position..place.position + 64].to_vec();
    if new != old {
        rename(store, &old, &new);
    }
}

/// Whatever named the block by its old header names it by the new one: references, and the next block of the journal.
fn rename(store: &mut Crafted, old: &[u8], new: &[u8]) {
    // In a reference the fields stand in another order: length at 24, version at 32, checksum at 40.
    let pairs = [(24, 8..12), (32, 32..40), (40, 60..64)];
    for (_, bytes) in &mut store.files {
        for at in (0..bytes.len().saturating_sub(47)).step_by(8) {
            let names = bytes[at] == 1
                && bytes[at + 8..at + 16] == old[16..24]
                && bytes[at + 16..at + 24] == old[24..32]
                && bytes[at + 40..at + 44] == old[60..64];
            if names {
                for (to, from) in &pairs {
                    let to = at + to..at + to + from.len();
                    if bytes[to.clone()] == old[from.clone()] {
                        bytes[to].copy_from_slice(&new[from.clone()]);
                    }
                }
            }
            let follows = bytes[at..at + 4] == *b"LTNB" && at % PAGE == 0 && bytes.len() >= at + 84;
            if follows && bytes[at + 80..at + 84] == old[60..64] {
                bytes[at + 80..at + 84].copy_from_slice(&new[60..64]);
            }
        }
    }
}
