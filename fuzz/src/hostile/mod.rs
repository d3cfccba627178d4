//! Malformed stores, each named for what is wrong with it, with checksums that fit: what stands behind a checksum is reached
//! only by who can compute it, and a hostile writer can.
//!
//! Most are made by writing one of a few values into one field of one structure of the crafted store, for every field of every
//! structure that the format has; the others by hand.

pub mod bless;
mod by_hand;
pub mod exercise;

use lanterman_format::layout::{ALL, StructLayout};

use crate::crafted::{Crafted, crafted, without_index};

/// A malformed store.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is wrong.
    pub name: String,
    /// Its files: path, bytes at the front, and the length that they claim.
    pub files: Vec<(std::path::PathBuf, Vec<u8>, u64)>,
}

impl Case {
    fn of(name: impl Into<String>, store: Crafted) -> Self {
        let files = store.files.into_iter();
        Case {
            name: name.into(),
            files: files
                .map(|(path, bytes)| {
                    let length = bytes.len() as u64;
                    (path, bytes, length)
                })
                .collect(),
        }
    }

    /// How long its files claim to be.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.files
            .iter()
            .map(|(_, _, length)| length)
            .fold(0, |sum, length| sum.saturating_add(*length))
    }
}

/// All malformed stores.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = by_hand::cases();
    let pristine = crafted();
    let all = [&INSTANCES[..], &MORE_INSTANCES, &runs(&pristine)].concat();
    cases.extend(of_fields(&pristine, &all, ""));
    cases.extend(of_fields(&without_index(), &OLD_INSTANCES, ", without an index"));
    cases
}

/// Structures of the crafted store: the name in SPEC.md, the block, and where in the block.
const INSTANCES: [(&str, &str, usize); 51] = [
    ("RootSlot", "root slot 0", 0),
    ("RootSlot", "root slot 1", 0),
    ("Reference", "root slot 1", 48),
    ("SegmentHeader", "header of 0000000000000004.free", 0),
    ("SegmentHeader", "header of 0000000000000005.journal", 0),
    ("SegmentHeader", "header of 0000000000000006.slabs", 0),
    ("SegmentHeader", "header of 0000000000000007.journal", 0),
    ("BlockHeader", "slab 1 of orders", 0),
    ("BlockHeader", "tail of log 1", 0),
    ("BlockHeader", "root of orders", 0),
    ("BlockHeader", "gathered tails", 0),
    ("BlockHeader", "catalog page 0", 0),
    ("BlockHeader", "checkpoint", 0),
    ("BlockHeader", "adopted slab of large", 0),
    ("BlockHeader", "commit 8", 0),
    ("BlockHeader", "commit 12", 0),
    ("BlockHeader", "commit 13", 0),
    ("SlabHeader", "slab 0 of orders", 64),
    ("SlabHeader", "slab 1 of orders", 64),
    ("SlabHeader", "tail of log 1", 64),
    ("SlabHeader", "adopted slab of large", 64),
    ("Summary", "slab 1 of orders", 128),
    ("Summary", "root of orders", 128),
    ("GatheredHeader", "gathered tails", 64),
    ("NodeHeader", "first leaf of orders", 64),
    ("NodeHeader", "root of orders", 64),
    ("NodeEntry", "first leaf of orders", 448),
    ("NodeEntry", "root of orders", 448),
    ("NodeEntry", "root of orders", 576),
    ("Reference", "root of orders", 464),
    ("CatalogPageHeader", "catalog page 0", 64),
    ("CatalogEntry", "catalog page 0", 96),
    // Opening does not read this one.
    ("CatalogPageHeader", "catalog page 2", 64),
    ("CatalogEntry", "catalog page 2", 96),
    ("BlockHeader", "catalog page 2", 0),
    ("CheckpointHeader", "checkpoint", 64),
    ("SegmentEntry", "checkpoint", 192),
    ("Reference", "checkpoint", 240),
    ("PageEntry", "checkpoint", 384),
    ("PageEntry", "checkpoint", 416),
    ("PageEntry", "checkpoint", 448),
    ("KeyRun", "checkpoint", 480),
    ("Reference", "checkpoint", 576),
    ("SlabHeader", "slab of names", 64),
    ("NodeEntry", "root of names", 448),
    // Behind the header of its buffer.
    ("KeyPage", "slab of names", 264),
    ("CommitHeader", "commit 8", 64),
    ("CommitHeader", "commit 13", 64),
    ("Frame", "commit 8", 128),
    ("Adoption", "commit 11", 128),
    ("BufferHeader", "slab 1 of orders", 256),
];

/// Further structures whose places follow from others: the change of commit 9 stands behind its one frame, the body of
/// commit 8 behind its two.
const MORE_INSTANCES: [(&str, &str, usize); 9] = [
    ("ChangeHeader", "commit 9", 176),
    ("CreateLog", "commit 9", 184),
    ("BufferHeader", "commit 8", 224),
    ("BufferHeader", "tail of log 1", 256),
    ("Reference", "catalog page 0", 144),
    ("Reference", "catalog page 0", 192),
    ("Reference", "commit 11", 160),
    ("Adoption", "commit 13", 176),
    // Behind the header of its buffer and the count.
    ("CompressedBatch", "slab 1 of orders", 272),
];

/// Structures of the store as it was before there was an index of the catalog, of which they are read without it.
const OLD_INSTANCES: [(&str, &str, usize); 6] = [
    ("CheckpointHeader", "checkpoint", 64),
    ("CatalogPageHeader", "catalog page 0", 64),
    ("CatalogPageHeader", "catalog page 2", 64),
    ("CatalogEntry", "catalog page 0", 96),
    ("CatalogEntry", "catalog page 2", 96),
    ("Reference", "checkpoint", 336),
];

/// The index of a slab with batches stands where its head says.
fn runs(pristine: &Crafted) -> Vec<(&'static str, &'static str, usize)> {
    let name = "slab 1 of orders";
    let place = pristine.place(name);
    let at = place.position + 100;
    let index = number(&pristine.files[place.file].1[at..at + 4]) as usize;
    (0..3).map(|entry| ("Run", name, index + 8 * entry)).collect()
}

fn layout(name: &str) -> &'static StructLayout {
    let found = ALL.iter().find(|layout| layout.name == name);
    found.unwrap_or_else(|| panic!("the format has no {name}"))
}

/// One of a few values in each field of some structures of a store.
fn of_fields(pristine: &Crafted, instances: &[(&str, &str, usize)], of_what: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (structure, block, at) in instances {
        let place = pristine.place(block);
        for field in layout(structure).fields.iter().filter(|field| field.bytes <= 8) {
            // Checksums are made to fit; a wrong one is what tests of bit rot are about.
            if field.name == "crc" || field.name.ends_with("payload_crc") {
                continue;
            }
            let from = place.position + at + field.offset;
            let now = number(&pristine.files[place.file].1[from..from + field.bytes]);
            let most = u64::MAX >> (64 - 8 * field.bytes as u32);
            let values = [
                ("0", 0),
                ("1", 1),
                ("one less", now.wrapping_sub(1) & most),
                ("one more", now.wrapping_add(1) & most),
                ("greatest", most),
                ("greatest signed", most >> 1),
            ];
            let mut tried = vec![now];
            for (words, value) in values {
                if tried.contains(&value) {
                    continue;
                }
                tried.push(value);
                let mut store = pristine.clone();
                let bytes = &value.to_le_bytes()[..field.bytes];
                store.files[place.file].1[from..from + field.bytes].copy_from_slice(bytes);
                bless::bless(&mut store, pristine);
                let name = format!(
                    "{structure} at {at} of {block}: {} is {words}{of_what}",
                    field.name
                );
                cases.push(Case::of(name, store));
            }
        }
    }
    cases
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
