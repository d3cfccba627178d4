//! Malformed stores that no single field makes.

use std::path::{Path, PathBuf};

use super::bless::bless;
use super::{Case, number};
use crate::crafted::{Crafted, PATH, crafted, with_deep_tree, without_index};

/// Where the files of the crafted store are in its list.
const ROOT: usize = 0;
const SPARE: usize = 1;
const JOURNAL: usize = 2;
const SLABS: usize = 3;
const SECOND_JOURNAL: usize = 4;
/// Where the checkpoint tells of the third page of the catalog, which opening does not read.
const PAGE_ENTRY_AT: usize = 448;
const NAMES: [&str; 5] = [
    "root",
    "spare",
    "first journal segment",
    "slabs segment",
    "second journal segment",
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(contents());
    cases.extend(bombs());
    cases.extend(names());
    cases.extend(references());
    cases.extend(depths());
    cases.extend(index());
    cases
}

/// The store with changed bytes and checksums that fit.
fn changed(name: &str, change: impl FnOnce(&mut Crafted)) -> Case {
    let pristine = crafted();
    let mut store = pristine.clone();
    change(&mut store);
    bless(&mut store, &pristine);
    Case::of(name, store)
}

/// The store with changed files, as they are.
fn raw(name: String, change: impl FnOnce(&mut Vec<(PathBuf, Vec<u8>)>)) -> Case {
    let mut store = crafted();
    change(&mut store.files);
    Case::of(name, store)
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (file, what) in NAMES.iter().enumerate() {
        for bytes in [0, 1, 63, 511, 4095, 4096, 4097, 4160, 8191, 12_288] {
            cases.push(raw(format!("{what} is cut to {bytes} bytes"), |files| {
                files[file].1.truncate(bytes);
            }));
        }
        for bytes in [1, 4096, 100_000] {
            cases.push(raw(format!("{what} has {bytes} bytes too many"), |files| {
                let length = files[file].1.len() + bytes;
                files[file].1.resize(length, 0xEE);
            }));
        }
        cases.push(raw(format!("{what} is all zeros"), |files| files[file].1.fill(0)));
        cases.push(raw(format!("{what} is all ones"), |files| {
            files[file].1.fill(0xFF)
        }));
        cases.push(raw(
            format!("{what} is its first page again and again"),
            |files| {
                let first = files[file].1[..4096].to_vec();
                files[file]
                    .1
                    .chunks_mut(4096)
                    .for_each(|page| page.copy_from_slice(&first[..page.len()]));
            },
        ));
        cases.push(raw(format!("{what} is missing"), |files| {
            files.remove(file);
        }));
    }
    cases
}

fn contents() -> Vec<Case> {
    let mut cases = Vec::new();
    for first in 0..NAMES.len() {
        for second in 0..first {
            let name = format!("{} and {} are exchanged", NAMES[first], NAMES[second]);
            cases.push(raw(name, |files| {
                let bytes = std::mem::take(&mut files[first].1);
                files[first].1 = std::mem::replace(&mut files[second].1, bytes);
            }));
        }
    }
    let segments = Path::new(PATH).join("segments");
    for (from, to) in [
        (JOURNAL, "0000000000000008.journal"),
        (JOURNAL, "ffffffffffffffff.journal"),
        (SECOND_JOURNAL, "0000000000000008.journal"),
        (SLABS, "ffffffffffffffff.slabs"),
        (SLABS, "0000000000000006.journal"),
        (SPARE, "ffffffffffffffff.free"),
        (SPARE, "0000000000000000.free"),
        (SPARE, "0000000000000000.journal"),
        (SPARE, "..free"),
        (SPARE, "0000000000000009.Journal"),
    ] {
        let path = segments.join(to);
        cases.push(raw(
            format!("{} stands there as {to} as well", NAMES[from]),
            |files| {
                let bytes = files[from].1.clone();
                files.push((path, bytes));
            },
        ));
    }
    for file in [ROOT, JOURNAL, SLABS, SECOND_JOURNAL] {
        // Root slots and headers of segments have the id at the same place.
        let name = format!("{} is of another store", NAMES[file]);
        cases.push(changed(&name, |store| store.files[file].1[16..32].fill(7)));
    }
    cases.push(raw("a root and no segments".to_owned(), |files| {
        files.truncate(1)
    }));
    cases.push(raw("segments and no root".to_owned(), |files| {
        files.remove(ROOT);
    }));
    for (name, file, segment) in [
        ("the journal begins with the spare", ROOT, 4u64),
        ("the journal begins in slabs", ROOT, 6),
        ("the journal begins behind its last segment", ROOT, 8),
        ("the journal begins with its second segment", ROOT, 7),
    ] {
        cases.push(changed(name, |store| {
            for slot in [0, 4096] {
                store.files[file].1[slot + 96..slot + 104].copy_from_slice(&segment.to_le_bytes());
            }
            let checkpoint = store.place("checkpoint").clone();
            let at = checkpoint.position + 72;
            store.files[SLABS].1[at..at + 8].copy_from_slice(&segment.to_le_bytes());
        }));
    }
    cases
}

/// Little on the disk, and very much by what it says.
fn bombs() -> Vec<Case> {
    let mut cases = Vec::new();
    for (file, what) in NAMES.iter().enumerate() {
        for (words, length) in [
            ("a petabyte", 1u64 << 50),
            ("all that 63 bits can say", i64::MAX as u64),
        ] {
            let mut case = raw(format!("{what} claims {words}"), |_| {});
            case.files[file].2 = length;
            cases.push(case);
        }
        // The header agrees with a length that is within the limit.
        let mut case = changed(&format!("{what} has a header and a length of 64 MiB"), |store| {
            if file != ROOT {
                store.files[file].1[48..56].copy_from_slice(&(64u64 << 20).to_le_bytes());
            }
        });
        case.files[file].2 = 64 << 20;
        cases.push(case);
    }
    // Blocks that claim the most that a block may have, in segments that have room for them.
    for (block, file) in [
        ("commit 8", JOURNAL),
        ("commit 13", SECOND_JOURNAL),
        ("slab 1 of orders", SLABS),
        ("checkpoint", SLABS),
        ("root of orders", SLABS),
        ("catalog page 0", SLABS),
        ("slab of names", SLABS),
    ] {
        let bytes = 63u32 << 20;
        let mut case = changed(
            &format!("{block} claims 63 MiB in a segment of 64 MiB"),
            |store| {
                let position = store.place(block).position;
                store.files[file].1[position + 8..position + 12].copy_from_slice(&bytes.to_le_bytes());
                store.files[file].1[48..56].copy_from_slice(&(64u64 << 20).to_le_bytes());
            },
        );
        case.files[file].2 = 64 << 20;
        cases.push(case);
    }
    cases
}

fn names() -> Vec<Case> {
    let mut cases = Vec::new();
    let hostile: [(&str, &[u8; 5]); 9] = [
        ("that of another log of the page", b"empty"),
        ("that of a log of another page", b"audit"),
        ("that of a log that the journal creates", b"later"),
        ("a way out of the directory", b"../.."),
        ("an absolute path", b"/root"),
        ("with a zero byte", b"la\0ge"),
        ("with a line break", b"la\nge"),
        ("no UTF-8", &[0xFF, 0xFE, 0xC0, 0x80, 0xF5]),
        ("dots", b"....."),
    ];
    for (words, name) in hostile {
        cases.push(changed(&format!("a name in the catalog is {words}"), |store| {
            rename(store, "catalog page 0", b"large", name);
        }));
        cases.push(changed(
            &format!("a name that the journal creates is {words}"),
            |store| {
                rename(store, "commit 9", b"later", name);
            },
        ));
    }
    cases
}

fn rename(store: &mut Crafted, block: &str, from: &[u8], to: &[u8]) {
    let place = store.place(block).clone();
    let bytes = &mut store.files[place.file].1[place.range()];
    let at = bytes
        .windows(from.len())
        .position(|window| window == from)
        .expect("the name");
    bytes[at..at + to.len()].copy_from_slice(to);
}

/// A reference of one block copied over one of another.
fn references() -> Vec<Case> {
    let at = [
        ("the checkpoint of the root", "root slot 1", 48),
        ("the first page of the checkpoint", "checkpoint", 240),
        ("the second page of the checkpoint", "checkpoint", 288),
        ("the third page of the checkpoint", "checkpoint", 336),
        ("the tree of the names", "checkpoint", 576),
        ("the slab of the names", "root of names", 464),
        ("a tree of the catalog", "catalog page 0", 144),
        ("a tail of the catalog", "catalog page 0", 192),
        ("the first child of a root", "root of orders", 464),
        ("the second child of a root", "root of orders", 592),
        ("the first slab of a leaf", "first leaf of orders", 464),
        ("the second slab of a leaf", "first leaf of orders", 592),
        ("an adopted slab", "commit 11", 160),
        ("the last adopted slab", "commit 13", 208),
    ];
    let mut cases = Vec::new();
    for (to, to_block, to_at) in at {
        for (from, from_block, from_at) in at {
            if to == from {
                continue;
            }
            cases.push(changed(&format!("{to} is {from}"), |store| {
                let source = store.place(from_block).clone();
                let reference = store.files[source.file].1[source.position + from_at..][..48].to_vec();
                let target = store.place(to_block).clone();
                store.files[target.file].1[target.position + to_at..][..48].copy_from_slice(&reference);
            }));
        }
        for (words, position) in [
            ("the header of its segment", 0u64),
            ("itself, as far as a reference can", u64::MAX),
            ("behind the end", 1 << 40),
            ("no multiple of 64", 4097),
        ] {
            cases.push(changed(&format!("{to} is {words}"), |store| {
                let target = store.place(to_block).clone();
                let position = if position == u64::MAX {
                    target.position as u64
                } else {
                    position
                };
                let field = target.position + to_at + 16;
                store.files[target.file].1[field..field + 8].copy_from_slice(&position.to_le_bytes());
            }));
        }
    }
    cases
}

/// A checkpoint that tells something else of its pages of the catalog than they say.
fn index() -> Vec<Case> {
    // Bits of logs of the third page, which has the fifth that it can have, and how many have names to be found by.
    let told = [
        ("more logs than it has", 0b101_0010_u128, 3),
        ("another log than it has", 0b10_0000, 1),
        ("a log that is found by no name", 0b1_0000, 0),
        ("all logs that a page can have", u128::MAX, 128),
        ("more names than logs", 0b1_0000, 2),
        ("no log", 0, 0),
    ];
    let mut cases = Vec::new();
    let old = without_index();
    let mut store = old.clone();
    let page = store.place("catalog page 2").position;
    let bytes = &mut store.files[SLABS].1[page..page + 104];
    bytes[64..72].copy_from_slice(&(u64::MAX / 128).to_le_bytes());
    bytes[96..104].fill(0xFF);
    bless(&mut store, &old);
    cases.push(Case::of(
        "a log has the last id that there is, without an index",
        store,
    ));
    for (words, logs, named) in told {
        cases.push(changed(
            &format!("a page of the catalog is told to have {words}"),
            |store| {
                let entry = store.place("checkpoint").position + PAGE_ENTRY_AT;
                let bytes = &mut store.files[SLABS].1[entry..entry + 32];
                bytes[8..12].copy_from_slice(&u32::to_le_bytes(named));
                bytes[16..32].copy_from_slice(&logs.to_le_bytes());
            },
        ));
    }
    for (words, name) in [
        ("no log's, in its place", b"queen"),
        ("no log's, out of its place", b"alpha"),
        ("another log's", b"audit"),
        ("one with a line break", b"qu\net"),
        ("no UTF-8", b"q\xFF\xFEet"),
    ] {
        cases.push(changed(
            &format!("a name that leads to a log is {words}"),
            |store| {
                rename(store, "slab of names", b"quiet", name);
            },
        ));
    }
    for (words, byte) in [("no name", 0), ("any name", 0xFF)] {
        cases.push(changed(
            &format!("the filter of the names passes {words}"),
            |store| {
                // The one block of the filter ends the body of the slab.
                let slab = store.place("slab of names").position;
                let bytes = &mut store.files[SLABS].1;
                let body_end = number(&bytes[slab + 96..slab + 100]) as usize;
                bytes[slab + body_end - 64..slab + body_end].fill(byte);
            },
        ));
    }
    cases
}

fn depths() -> Vec<Case> {
    [(2u8, 1), (40, 1), (41, 1), (200, 1), (10, 2)]
        .map(|(levels, step)| {
            let name = format!("a tree of {levels} lone nodes whose levels rise by {step}");
            Case::of(name, with_deep_tree(levels, step))
        })
        .to_vec()
}
