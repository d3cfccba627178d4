//! The tree against a plain list, and against files that lie.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small"
)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lanterman_format::{
    BlockIdentity, BlockKind, Crc, Generation, Histogram32, Histogram64, KeySketch, KeySketchBuilder,
    NodeEntry, NodeParts, Position, Reference, Sealed, SegmentId, StoreId, Summary, Version,
};
use parking_lot::Mutex;
use proptest::prelude::*;

mod keys;
mod splice;

use super::*;
use crate::slab::{SlabError, SlabHandle};

/// Nodes in a map, with a switch that makes every load fail.
#[derive(Debug, Default)]
struct FakeNodes {
    nodes: Mutex<HashMap<u64, NodeParts>>,
    loads: AtomicUsize,
    is_failing: AtomicBool,
    has_keys: AtomicBool,
}

impl FakeNodes {
    fn write(&self, parts: &NodeParts) -> Reference {
        let mut nodes = self.nodes.lock();
        let position = 1 + nodes.len() as u64;
        nodes.insert(position, parts.clone());
        node_reference(position)
    }

    fn put(&self, position: u64, parts: NodeParts) -> Reference {
        self.nodes.lock().insert(position, parts);
        node_reference(position)
    }

    fn checkpoint(&self, tree: &Tree) -> Reference {
        let mut writes = NodeWrites::default();
        let root = tree
            .write_dirty(&mut writes, &mut |_, parts: &NodeParts| {
                Ok::<_, Infallible>(self.write(parts))
            })
            .unwrap();
        writes.remember();
        root
    }

    fn count(&self) -> usize {
        self.nodes.lock().len()
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }
}

impl NodeSource for FakeNodes {
    fn load_node(&self, reference: &Reference) -> Result<NodeParts, TreeError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let missing = || {
            SlabError::Missing {
                reference: Box::new(*reference),
            }
            .into()
        };
        if self.is_failing.load(Ordering::Relaxed) {
            return Err(missing());
        }
        self.nodes
            .lock()
            .get(&reference.position.get())
            .cloned()
            .ok_or_else(missing)
    }

    fn holds(&self, _bytes: usize) {}

    fn count(&self, slab: &SlabHandle, offsets: std::ops::Range<u64>) -> Option<(Summary, KeySketch)> {
        let is_failing = self.is_failing.load(Ordering::Relaxed);
        let mut summary = summary_of(offsets.end - offsets.start);
        let keys = match self.has_keys.load(Ordering::Relaxed) {
            true => {
                summary.key_bytes = summary.messages * 8;
                keys::sketch_of(keys::keys_of(slab.reference().position.get(), offsets))
            }
            false => KeySketch::EMPTY,
        };
        (!is_failing).then_some((summary, keys))
    }
}

fn node_reference(position: u64) -> Reference {
    local(BlockKind::Node, position)
}

fn local(kind: BlockKind, position: u64) -> Reference {
    let identity = BlockIdentity {
        store: StoreId::default(),
        segment: SegmentId::new(7),
        generation: Generation::new(1),
        position: Position::new(position),
        version: Version::new(9),
    };
    Reference::local(
        kind,
        &identity,
        &Sealed {
            block_bytes: 512,
            header_crc: Crc::new(3),
        },
    )
}

fn summary_of(messages: u64) -> Summary {
    Summary {
        messages,
        value_bytes: messages.saturating_mul(10),
        ..Summary::default()
    }
}

fn histogram_of(messages: u64) -> Histogram32 {
    let mut histogram = Histogram32::default();
    for _ in 0..messages {
        histogram.add(10);
    }
    histogram
}

/// An entry of `offset_count` offsets whose slab is told from others by its position.
fn entry(offset_count: u64, slab: u64) -> SlabEntry {
    let slab = (slab != 0).then(|| Arc::new(SlabHandle::new(local(BlockKind::Slab, slab))));
    SlabEntry {
        offset_count,
        skip: slab.as_ref().map_or(0, |_| 3),
        slab,
        summary: summary_of(offset_count),
        keys: KeySketch::EMPTY,
    }
}

fn pushed(tree: &Tree, source: &FakeNodes, offset_count: u64, slab: u64) -> Tree {
    tree.push(source, entry(offset_count, slab), &histogram_of(offset_count))
        .unwrap()
}

/// A tree of `count` entries of two offsets each, and slabs 1, 2, 3 and so on.
fn tree_of(source: &FakeNodes, count: u64) -> Tree {
    (1..=count).fold(Tree::EMPTY, |tree, slab| pushed(&tree, source, 2, slab))
}

/// Offsets and slab of each entry.
type Model = Vec<(u64, u64)>;

fn contents(tree: &Tree, source: &FakeNodes, from: u64) -> Model {
    let mut all = Model::new();
    let mut expected_first = None;
    for placed in tree.slabs_from(source, from) {
        let placed = placed.unwrap();
        assert!(expected_first.is_none_or(|first| first == placed.first_offset));
        expected_first = Some(placed.end_offset());
        all.push((placed.entry.offset_count, placed.entry.reference().position.get()));
    }
    if let Some(end) = expected_first {
        assert_eq!(end, tree.offset_end());
    }
    all
}

fn total(model: &Model) -> u64 {
    model.iter().map(|(count, _)| count).sum()
}

fn truncated(model: &Model, end: u64) -> Model {
    let mut left = end;
    let mut kept = Model::new();
    for (count, slab) in model {
        if left == 0 {
            break;
        }
        kept.push((left.min(*count), *slab));
        left -= left.min(*count);
    }
    kept
}

fn assert_is(tree: &Tree, source: &FakeNodes, model: &Model) {
    assert_eq!(tree.offset_end(), total(model));
    assert_eq!(tree.is_empty(), model.is_empty());
    assert_eq!(contents(tree, source, 0), *model);
    let mut first = 0;
    for (index, (count, slab)) in model.iter().enumerate() {
        for offset in [first, first + count - 1] {
            let found = tree.find(source, offset).unwrap().unwrap();
            assert_eq!((found.first_offset, found.entry.offset_count), (first, *count));
            assert_eq!(found.entry.reference().position.get(), *slab);
            assert_eq!(
                found.offset_in_slab(offset),
                Some(found.entry.skip + offset - first)
            );
        }
        if index % 50 == 7 {
            assert_eq!(contents(tree, source, first + count - 1), model[index..]);
        }
        first += count;
    }
    assert!(tree.find(source, first).unwrap().is_none());
    assert!(tree.find(source, u64::MAX).unwrap().is_none());
    assert!(contents(tree, source, first).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Push(u64),
    PushDeleted(u64),
    PushMany(u16),
    Truncate(f64),
    Checkpoint,
    Reload,
    Unload,
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u64..9).prop_map(Step::Push),
        1 => (1_u64..900).prop_map(Step::PushDeleted),
        2 => (1_u16..300).prop_map(Step::PushMany),
        1 => (0.0..1.0).prop_map(Step::Truncate),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reload),
        1 => Just(Step::Unload),
        1 => Just(Step::Trim),
    ];
    proptest::collection::vec(step, 1..20)
}

fn apply(step: &Step, tree: &Tree, model: &mut Model, source: &FakeNodes, slab: &mut u64) -> Tree {
    let mut push = |tree: &Tree, model: &mut Model, count| {
        *slab += 1;
        model.push((count, *slab));
        pushed(tree, source, count, *slab)
    };
    match step {
        Step::Push(count) => push(tree, model, *count),
        Step::PushDeleted(count) => {
            model.push((*count, 0));
            pushed(tree, source, *count, 0)
        }
        Step::PushMany(many) => (0..*many).fold(tree.clone(), |tree, _| push(&tree, model, 2)),
        Step::Truncate(part) => {
            let end = (total(model) as f64 * part) as u64;
            *model = truncated(model, end);
            tree.truncate_to(source, end).unwrap()
        }
        Step::Checkpoint => {
            source.checkpoint(tree);
            tree.clone()
        }
        Step::Reload => Tree::from_reference(source.checkpoint(tree), tree.offset_end(), None).unwrap(),
        Step::Unload => tree.unloaded().unwrap_or_else(|| tree.clone()),
        Step::Trim => tree.trimmed(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_tree_answers_as_a_list_does_and_old_trees_stay_what_they_were(steps in steps()) {
        let source = FakeNodes::default();
        let (mut tree, mut model, mut slab) = (Tree::EMPTY, Model::new(), 0);
        let mut history = vec![(tree.clone(), model.clone())];
        for step in &steps {
            tree = apply(step, &tree, &mut model, &source, &mut slab);
            history.push((tree.clone(), model.clone()));
        }
        for (tree, model) in &history {
            assert_is(tree, &source, model);
        }
    }

    #[test]
    fn a_summary_of_whole_entries_is_the_sum_of_theirs(
        counts in proptest::collection::vec(1_u64..6, 1..400),
        from in 0.0..1.0,
        to in 0.0..1.0,
        is_reloaded: bool,
    ) {
        let source = FakeNodes::default();
        let mut tree = Tree::EMPTY;
        let mut starts = vec![0];
        for (slab, count) in counts.iter().enumerate() {
            tree = pushed(&tree, &source, *count, slab as u64 + 1);
            starts.push(tree.offset_end());
        }
        if is_reloaded {
            tree = Tree::from_reference(source.checkpoint(&tree), tree.offset_end(), None).unwrap();
        }
        let pick = |part: f64| starts[((starts.len() - 1) as f64 * part) as usize];
        let range = pick(from).min(pick(to))..pick(from).max(pick(to));
        let count = range.end - range.start;
        let sum = tree.summary(&source, range).unwrap();
        prop_assert!(sum.is_exact);
        prop_assert_eq!(sum.summary.messages, count);
        prop_assert_eq!(sum.summary.value_bytes, count * 10);
        let sizes: u64 = sum.histogram.buckets.iter().sum();
        prop_assert!(sizes.abs_diff(count) <= 4, "{} sizes of {} messages", sizes, count);
    }
}

#[test]
fn three_levels_are_filled_searched_written_and_read_back() {
    let source = FakeNodes::default();
    let count = (FAN_OUT * FAN_OUT + 5) as u64;
    let tree = tree_of(&source, count);
    let model: Model = (1..=count).map(|slab| (2, slab)).collect();
    assert_is(&tree, &source, &model);
    let root = source.checkpoint(&tree);
    assert_eq!(source.count(), FAN_OUT + 1 + 1 + 2);
    let reloaded = Tree::from_reference(root, tree.offset_end(), Some(2)).unwrap();
    assert_is(&reloaded, &source, &model);
    let cut = reloaded.truncate_to(&source, 2 * FAN_OUT as u64).unwrap();
    assert_is(&cut, &source, &model[..FAN_OUT].to_vec());
    assert_eq!(cut.level, Some(0), "roots with one child are taken off");
    assert_is(&reloaded, &source, &model);
}

#[test]
fn a_search_in_a_reloaded_tree_loads_one_node_a_level_and_once() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 1000);
    let reloaded = Tree::from_reference(source.checkpoint(&tree), 2000, None).unwrap();
    assert_eq!(source.loads(), 0);
    for _ in 0..3 {
        reloaded.find(&source, 777).unwrap().unwrap();
        reloaded.clone().find(&source, 776).unwrap().unwrap();
    }
    assert_eq!(source.loads(), 2);
}

#[test]
fn a_tree_lets_go_of_all_but_its_right_end_and_takes_slabs_there_without_a_disk() {
    let source = FakeNodes::default();
    let count = (FAN_OUT * FAN_OUT + 5) as u64;
    let tree = tree_of(&source, count);
    source.checkpoint(&tree);
    let mut model: Model = (1..=count).map(|slab| (2, slab)).collect();
    let trimmed = tree.trimmed();
    source.is_failing.store(true, Ordering::Relaxed);
    let grown = pushed(&trimmed, &source, 2, 70_000);
    assert!(trimmed.find(&source, 0).is_err(), "the first leaf was let go of");
    assert!(tree.find(&source, 0).is_ok(), "other trees keep what they have");
    source.is_failing.store(false, Ordering::Relaxed);
    assert_is(&trimmed, &source, &model);
    assert_eq!(
        source.loads(),
        1 + FAN_OUT + 1,
        "a failure, all leaves, and a node over them"
    );
    assert_is(&trimmed.trimmed(), &source, &model);
    model.push((2, 70_000));
    assert_is(&grown, &source, &model);
    let before = source.count();
    let root = source.checkpoint(&grown.trimmed());
    assert_eq!(
        source.count(),
        before + 3,
        "what is on the disk is not written again"
    );
    assert_is(
        &Tree::from_reference(root, 2 * count + 2, None).unwrap(),
        &source,
        &model,
    );
}

#[test]
fn a_checkpoint_writes_only_the_path_that_changed() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 1000);
    assert_eq!(tree.reference(), None);
    let root = source.checkpoint(&tree);
    assert_eq!(tree.reference(), Some(root));
    let before = source.count();
    assert_eq!(source.checkpoint(&tree), root);
    assert_eq!(source.count(), before);
    let tree = pushed(&tree, &source, 2, 5000);
    assert_eq!(tree.reference(), None);
    source.checkpoint(&tree);
    assert_eq!(source.count(), before + 2);
    assert_eq!(source.checkpoint(&Tree::EMPTY), Reference::EMPTY);
}

#[test]
fn a_full_leaf_is_not_written_again_when_its_neighbour_begins() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, FAN_OUT as u64);
    source.checkpoint(&tree);
    let tree = pushed(&tree, &source, 2, 999);
    source.checkpoint(&tree);
    assert_eq!(source.count(), 1 + 2);
}

#[test]
fn trees_that_share_nodes_write_them_once_in_a_checkpoint() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 1000);
    let fork = pushed(&tree, &source, 2, 5000);
    let mut writes = NodeWrites::default();
    let mut write = |_, parts: &NodeParts| Ok::<_, Infallible>(source.write(parts));
    tree.write_dirty(&mut writes, &mut write).unwrap();
    fork.write_dirty(&mut writes, &mut write).unwrap();
    assert_eq!(writes.len(), source.count());
    assert_eq!(source.count(), 8 + 1 + 2);
}

#[test]
fn places_of_a_checkpoint_that_failed_are_forgotten() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 300);
    let mut writes = NodeWrites::default();
    let mut left = 2;
    let mut write = |_, parts: &NodeParts| {
        left -= 1;
        if left < 0 {
            Err("full")
        } else {
            Ok(source.write(parts))
        }
    };
    assert_eq!(tree.write_dirty(&mut writes, &mut write), Err("full"));
    assert_eq!(writes.len(), 2);
    drop(writes);
    assert_eq!(tree.reference(), None);
    let before = source.count();
    let root = source.checkpoint(&tree);
    assert_eq!(source.count(), before + 4);
    let model: Model = (1..=300).map(|slab| (2, slab)).collect();
    assert_is(&Tree::from_reference(root, 600, None).unwrap(), &source, &model);
}

#[test]
fn a_failed_load_is_an_error_once_and_not_for_good() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 300);
    let tree = Tree::from_reference(source.checkpoint(&tree), 600, None).unwrap();
    source.is_failing.store(true, Ordering::Relaxed);
    let failed = tree.find(&source, 5).map(|_| ()).map_err(within);
    assert!(matches!(
        failed,
        Err((offsets, TreeError::Fetch(SlabError::Missing { .. }))) if offsets == (0..600)
    ));
    assert!(tree.push(&source, entry(1, 1), &histogram_of(1)).is_err());
    assert!(tree.truncate_to(&source, 5).is_err());
    let mut slabs = tree.slabs_from(&source, 0);
    assert!(slabs.next().unwrap().is_err());
    assert_eq!(slabs.next_offset(), 600);
    assert!(slabs.next().is_none());
    source.is_failing.store(false, Ordering::Relaxed);
    assert_eq!(contents(&tree, &source, 0).len(), 300);
}

#[test]
fn a_damaged_leaf_hides_only_its_own_offsets() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 3 * FAN_OUT as u64);
    let tree = Tree::from_reference(source.checkpoint(&tree), tree.offset_end(), None).unwrap();
    let middle = tree
        .find(&source, 2 * FAN_OUT as u64)
        .unwrap()
        .map(|placed| placed.first_offset)
        .unwrap();
    let tree = tree.unloaded().unwrap();
    // Leaves are written first and in order, so the middle one is at position 2.
    source.nodes.lock().remove(&2);
    let mut slabs = tree.slabs_from(&source, 0);
    let before: Vec<_> = slabs.by_ref().map_while(Result::ok).collect();
    assert_eq!(before.last().unwrap().end_offset(), middle);
    assert_eq!(slabs.next_offset(), 2 * middle);
    let after: Vec<_> = slabs.map(Result::unwrap).collect();
    assert_eq!((before.len(), after.len()), (FAN_OUT, FAN_OUT));
    assert_eq!(after[0].first_offset, 2 * middle);
}

#[test]
fn a_cut_entry_shows_the_front_of_its_slab_and_a_part_of_its_counts() {
    let source = FakeNodes::default();
    let tree = pushed(&Tree::EMPTY, &source, 100, 1);
    let cut = tree.truncate_to(&source, 25).unwrap();
    let found = cut.find(&source, 24).unwrap().unwrap();
    assert_eq!((found.entry.skip, found.entry.offset_count), (3, 25));
    assert_eq!(found.entry.summary.messages, 25);
    let sum = cut.summary(&source, 0..25).unwrap();
    assert_eq!(
        (sum.summary.value_bytes, sum.histogram.buckets.iter().sum::<u64>()),
        (250, 25)
    );
    assert!(cut.summary(&source, 0..10).unwrap().is_exact);
    source.is_failing.store(true, Ordering::Relaxed);
    let estimate = cut.summary(&source, 0..10).unwrap();
    assert!(!estimate.is_exact);
    assert_eq!(estimate.summary.messages, 10);
    assert_eq!(tree.summary(&source, 0..100).unwrap().summary.messages, 100);
}

#[test]
fn entries_without_offsets_and_more_than_2_to_the_64_are_refused() {
    let source = FakeNodes::default();
    let no_sizes = Histogram32::default();
    assert!(matches!(
        Tree::EMPTY.push(&source, entry(0, 1), &no_sizes),
        Err(TreeError::NoOffsets)
    ));
    let tree = Tree::EMPTY.push(&source, entry(u64::MAX, 0), &no_sizes).unwrap();
    assert!(matches!(
        tree.push(&source, entry(1, 1), &no_sizes),
        Err(TreeError::Full)
    ));
    assert_eq!(tree.find(&source, u64::MAX - 1).unwrap().unwrap().first_offset, 0);
}

fn hostile_leaf(ends: &[u64]) -> NodeParts {
    hostile(
        0,
        ends.iter().map(|end| (*end, local(BlockKind::Slab, 1))).collect(),
    )
}

fn hostile(level: u8, children: Vec<(u64, Reference)>) -> NodeParts {
    let entries = children
        .into_iter()
        .map(|(offset_end, reference)| NodeEntry {
            offset_end,
            skip: 0,
            reference,
            summary: Summary::default(),
            keys: KeySketch::EMPTY,
        })
        .collect();
    NodeParts {
        level,
        entries,
        summary: Summary::default(),
        histogram: Histogram64::default(),
    }
}

/// The offsets that a failed load names, and what is wrong with the node.
fn within(error: TreeError) -> (std::ops::Range<u64>, TreeError) {
    match error {
        TreeError::Within { offsets, error } => (offsets, *error),
        other => panic!("no offsets: {other}"),
    }
}

#[track_caller]
fn assert_refused(source: &FakeNodes, root: Reference, offset_count: u64, wanted: NodeRule) {
    let tree = Tree::from_reference(root, offset_count, None).unwrap();
    let rule = |error| match within(error).1 {
        TreeError::Rule { rule, .. } => rule,
        other => panic!("{other}"),
    };
    assert_eq!(tree.find(source, 0).map(|_| ()).map_err(rule), Err(wanted));
    assert_eq!(
        tree.push(source, entry(1, 1), &histogram_of(1))
            .map(|_| ())
            .map_err(rule),
        Err(wanted)
    );
    assert_eq!(tree.truncate_to(source, 1).map(|_| ()).map_err(rule), Err(wanted));
    let walked: Vec<_> = tree.slabs_from(source, 0).take(10).collect();
    assert!(walked.iter().any(Result::is_err));
}

#[test]
fn a_node_that_is_its_own_child_is_refused() {
    let source = FakeNodes::default();
    let root = source.put(1, hostile(3, vec![(10, node_reference(1))]));
    assert_refused(&source, root, 10, NodeRule::Level);
}

#[test]
fn two_nodes_that_are_each_others_children_are_refused() {
    let source = FakeNodes::default();
    let root = source.put(1, hostile(3, vec![(10, node_reference(2))]));
    source.put(2, hostile(2, vec![(10, node_reference(1))]));
    assert_refused(&source, root, 10, NodeRule::Level);
}

#[test]
fn a_level_that_lies_is_refused() {
    let source = FakeNodes::default();
    let leaf = source.put(2, hostile_leaf(&[10]));
    let root = source.put(1, hostile(2, vec![(10, leaf)]));
    assert_refused(&source, root, 10, NodeRule::Level);
    let root = source.put(1, hostile(LEVEL_MAX + 1, vec![(10, leaf)]));
    assert_refused(&source, root, 10, NodeRule::Level);
    let root = source.put(1, hostile(u8::MAX, vec![(10, leaf)]));
    assert_refused(&source, root, 10, NodeRule::Level);
}

#[test]
fn a_wrong_level_given_with_the_root_is_refused() {
    let source = FakeNodes::default();
    let leaf = source.put(2, hostile_leaf(&[10]));
    let tree = Tree::from_reference(leaf, 10, Some(1)).unwrap();
    let found = tree.find(&source, 0).map(|_| ()).map_err(|error| within(error).1);
    assert!(matches!(
        found,
        Err(TreeError::Rule {
            rule: NodeRule::Level,
            ..
        })
    ));
}

#[test]
fn ends_that_do_not_rise_are_refused() {
    let source = FakeNodes::default();
    for ends in [&[5, 5, 10][..], &[5, 4, 10], &[0, 10]] {
        let root = source.put(1, hostile_leaf(ends));
        assert_refused(&source, root, 10, NodeRule::OffsetEnd);
    }
}

#[test]
fn a_node_with_other_offsets_than_its_parent_says_is_refused() {
    let source = FakeNodes::default();
    let root = source.put(1, hostile_leaf(&[5, 9]));
    assert_refused(&source, root, 10, NodeRule::OffsetCount);
    let leaf = source.put(2, hostile_leaf(&[u64::MAX]));
    let root = source.put(1, hostile(1, vec![(10, leaf)]));
    assert_refused(&source, root, 10, NodeRule::OffsetCount);
}

#[test]
fn a_node_without_entries_or_with_too_many_is_refused() {
    let source = FakeNodes::default();
    let root = source.put(1, hostile_leaf(&[]));
    assert_refused(&source, root, 10, NodeRule::EntryCount);
    let many: Vec<u64> = (1..=FAN_OUT as u64 + 1).collect();
    let root = source.put(1, hostile_leaf(&many));
    assert_refused(&source, root, FAN_OUT as u64 + 1, NodeRule::EntryCount);
}

#[test]
fn an_entry_that_hides_beyond_64_bits_or_a_part_of_a_node_is_refused() {
    let source = FakeNodes::default();
    let mut leaf = hostile_leaf(&[10]);
    leaf.entries[0].skip = u64::MAX - 9;
    let root = source.put(1, leaf);
    assert_refused(&source, root, 10, NodeRule::Skip);
    let leaf = source.put(2, hostile_leaf(&[10]));
    let mut inner = hostile(1, vec![(10, leaf)]);
    inner.entries[0].skip = 1;
    let root = source.put(1, inner);
    assert_refused(&source, root, 10, NodeRule::Skip);
}

#[test]
fn an_inner_node_over_nothing_is_refused() {
    let source = FakeNodes::default();
    let root = source.put(1, hostile(1, vec![(10, Reference::EMPTY)]));
    assert_refused(&source, root, 10, NodeRule::Child);
}

#[test]
fn a_root_that_is_empty_has_no_offsets_and_another_has_some() {
    assert!(
        Tree::from_reference(Reference::EMPTY, 0, None)
            .unwrap()
            .is_empty()
    );
    assert!(Tree::from_reference(Reference::EMPTY, 1, None).is_err());
    assert!(Tree::from_reference(node_reference(1), 0, None).is_err());
}

#[test]
fn threads_that_load_the_same_tree_all_find_the_same() {
    let source = FakeNodes::default();
    let tree = tree_of(&source, 1000);
    let tree = Tree::from_reference(source.checkpoint(&tree), 2000, None).unwrap();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let (tree, source) = (tree.clone(), &source);
            scope.spawn(move || {
                for step in 0..2000 {
                    let offset = (start * 500 + step * 7) % 2000;
                    let found = tree.find(source, offset).unwrap().unwrap();
                    assert_eq!(found.entry.reference().position.get(), offset / 2 + 1);
                }
            });
        }
    });
}

#[test]
fn an_entry_with_its_handle_stays_small() {
    let bytes = size_of::<SlabEntry>() + size_of::<SlabHandle>() + 2 * size_of::<usize>();
    // 8 of them for how often it was read cold (decision 15).
    assert!(bytes <= 208, "{bytes} bytes");
}
