//! Numbers of different keys: of any range, after any cut, join and return from the disk.

use std::collections::HashSet;
use std::ops::Range;

use super::*;

/// Keys of the offsets of a slab: each its own, but for every fourth, which all slabs share.
pub(super) fn keys_of(slab: u64, offsets: Range<u64>) -> impl Iterator<Item = u64> {
    offsets.map(move |offset| match offset % 4 {
        0 => offset,
        _ => slab << 32 | offset,
    })
}

pub(super) fn sketch_of(keys: impl Iterator<Item = u64>) -> KeySketch {
    let mut builder = KeySketchBuilder::new();
    keys.for_each(|key| builder.insert(&key.to_le_bytes()));
    builder.finish()
}

/// A slab that is shown whole.
fn keyed(offset_count: u64, slab: u64) -> SlabEntry {
    SlabEntry {
        skip: 0,
        summary: Summary {
            key_bytes: offset_count * 8,
            ..summary_of(offset_count)
        },
        keys: sketch_of(keys_of(slab, 0..offset_count)),
        ..entry(offset_count, slab)
    }
}

fn with_keys() -> FakeNodes {
    let source = FakeNodes::default();
    source.has_keys.store(true, Ordering::Relaxed);
    source
}

fn grown(tree: Tree, source: &FakeNodes, slabs: Range<u64>) -> Tree {
    slabs.fold(tree, |tree, slab| {
        tree.push(source, keyed(40, slab), &histogram_of(40)).unwrap()
    })
}

fn counted(tree: &Tree, source: &FakeNodes, range: Range<u64>) -> Option<u64> {
    let mut tally = KeyTally::new();
    tree.add_keys(source, range, &mut tally).unwrap();
    tally.estimate()
}

/// The number of keys of whole slabs, and of a part of one.
fn exact(whole: Range<u64>, part: (u64, Range<u64>)) -> u64 {
    let keys = whole
        .flat_map(|slab| keys_of(slab, 0..40))
        .chain(keys_of(part.0, part.1));
    keys.collect::<HashSet<_>>().len() as u64
}

fn assert_about(found: Option<u64>, expected: u64) {
    let found = found.expect("the keys are known");
    assert!(
        found.abs_diff(expected) <= expected / 10 + 1,
        "{found} for {expected}"
    );
}

#[test]
fn a_range_of_any_size_tells_how_many_keys_it_has_from_few_nodes() {
    let source = with_keys();
    let tree = grown(Tree::EMPTY, &source, 1..1000);
    let root = source.checkpoint(&tree);
    let level = tree.level;
    for found in [
        tree.clone(),
        Tree::from_reference(root, tree.offset_end(), level).unwrap(),
    ] {
        let before = source.loads();
        assert_about(counted(&found, &source, 0..u64::MAX), exact(1..1000, (1, 0..0)));
        assert_about(
            counted(&found, &source, 400..400 + 40 * 500),
            exact(11..511, (1, 0..0)),
        );
        assert_about(
            counted(&found, &source, 0..40 * 300 + 20),
            exact(1..301, (301, 0..20)),
        );
        assert_about(counted(&found, &source, 17..40), exact(1..1, (1, 17..40)));
        assert_eq!(counted(&found, &source, 5..5), Some(0));
        // The root, and at most two leaves a range.
        assert!(source.loads() - before <= 1 + 4, "{}", source.loads() - before);
    }
}

#[test]
fn cuts_and_joins_keep_the_keys_of_what_is_shown() {
    let source = with_keys();
    let tree = grown(Tree::EMPTY, &source, 1..600);
    // What is cut off a slab leaves the keys that are read anew where it is the greater part.
    let front = tree.slice(&source, 35..40 * 200 + 5).unwrap();
    assert_about(counted(&front, &source, 0..5), exact(1..1, (1, 35..40)));
    let first = front.slice(&source, 0..5).unwrap();
    assert_about(counted(&first, &source, 0..u64::MAX), exact(1..1, (1, 35..40)));
    let back = tree.slice(&source, 40 * 400..40 * 500).unwrap();
    let joined = front.join(&source, &back).unwrap();
    let expected = (2..201)
        .chain(401..501)
        .flat_map(|slab| keys_of(slab, 0..40))
        .chain(keys_of(1, 35..40))
        .chain(keys_of(201, 0..5));
    let expected = expected.collect::<HashSet<_>>().len() as u64;
    assert_about(counted(&joined, &source, 0..u64::MAX), expected);
    source.checkpoint(&joined);
    let (deleted, _) = tree.delete(&source, 40..40 * 598).unwrap();
    assert_about(counted(&deleted, &source, 0..u64::MAX), exact(1..2, (599, 0..40)));
    source.checkpoint(&deleted);
}

#[test]
fn what_is_pushed_later_counts_whether_somebody_had_asked_or_not() {
    let source = with_keys();
    let mut tree = grown(Tree::EMPTY, &source, 1..200);
    assert_about(counted(&tree, &source, 0..u64::MAX), exact(1..200, (1, 0..0)));
    tree = grown(tree, &source, 200..400);
    assert_about(counted(&tree, &source, 0..u64::MAX), exact(1..400, (1, 0..0)));
}

#[test]
fn keys_that_nobody_looked_at_make_the_number_unknown_where_they_count() {
    let source = with_keys();
    let unknown = SlabEntry {
        keys: KeySketch::EMPTY,
        ..keyed(40, 1)
    };
    let tree = Tree::EMPTY.push(&source, unknown, &histogram_of(40)).unwrap();
    let tree = grown(tree, &source, 2..300);
    assert_eq!(counted(&tree, &source, 0..u64::MAX), None);
    let reference = source.checkpoint(&tree);
    let tree = Tree::from_reference(reference, tree.offset_end(), tree.level).unwrap();
    assert_eq!(counted(&tree, &source, 0..40 * 150), None);
    assert_about(counted(&tree, &source, 40..40 * 250), exact(2..251, (1, 0..0)));
    // A part of it is read.
    assert_about(counted(&tree, &source, 0..20), 20);
}

#[test]
fn a_range_of_times_counts_the_keys_of_what_lies_in_it() {
    let source = with_keys();
    let timed = |slab: u64| {
        let mut entry = keyed(40, slab);
        entry.summary.time_min_ms = slab as i64 * 10;
        entry.summary.time_max_ms = slab as i64 * 10 + 9;
        entry
    };
    let tree = (1..500).fold(Tree::EMPTY, |tree, slab| {
        tree.push(&source, timed(slab), &histogram_of(40)).unwrap()
    });
    let between = |from: i64, to: i64| {
        let mut tally = KeyTally::new();
        tree.add_keys_between(&source, &(from..=to), &mut tally).unwrap();
        tally.estimate()
    };
    assert_about(between(0, i64::MAX), exact(1..500, (1, 0..0)));
    assert_about(between(100, 1999), exact(10..200, (1, 0..0)));
    // A slab of which a part of the time lies in the range counts with all of its keys.
    assert_about(between(15, 25), exact(1..3, (1, 0..0)));
    assert_eq!(between(0, 5), Some(0));
}

#[test]
fn keys_of_nodes_without_any_cost_nothing() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 300);
    source.checkpoint(&tree);
    let nodes = source.nodes.lock();
    let plain = |parts: &NodeParts| 448 + parts.entries.len() * 128;
    assert!(nodes.values().all(|parts| parts.encoded_bytes() == plain(parts)));
    assert_eq!(counted(&tree, &source, 0..u64::MAX), Some(0));
}
