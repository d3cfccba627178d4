//! Trees from parts of trees: what they answer, and that they stay low.

use std::cell::Cell;

use super::super::node::{Branch, Children};
use super::super::splice::THIN;
use super::*;

/// The slab of each offset and the place in it; zeros where the offsets are deleted.
type Flat = Vec<(u64, u64)>;

fn flat(tree: &Tree, source: &FakeNodes) -> Flat {
    let mut all = Flat::new();
    for placed in tree.slabs_from(source, 0) {
        let entry = placed.unwrap().entry;
        let slab = entry.reference().position.get();
        let place = |shown| {
            if slab == 0 {
                (0, 0)
            } else {
                (slab, entry.skip + shown)
            }
        };
        all.extend((0..entry.offset_count).map(place));
    }
    assert_eq!(all.len() as u64, tree.offset_end());
    all
}

/// Finds broken invariants of [`splice`](super::super::splice), and answers how many entries there are.
fn check_shape(tree: &Tree, source: &FakeNodes) -> usize {
    let Some(root) = &tree.root else { return 0 };
    let node = root.node(source, tree.expected()).unwrap();
    if let Children::Nodes(links) = node.children() {
        assert!(links.len() >= 2, "a root with one child");
        if links.len() == 2 {
            let counts = links.iter().map(|link| {
                let child = link.branch.node(source, link.expected(node.level(), 0));
                child.unwrap().children().len()
            });
            assert!(
                counts.sum::<usize>() > FAN_OUT,
                "two children of which one would do"
            );
        }
    }
    let entries = check_node(root, tree.expected(), source, [true, true]);
    assert!(entries >= THIN.saturating_pow(u32::from(node.level().saturating_sub(2))));
    entries
}

/// `at_edge` says whether the node is at the left and at the right edge of the tree.
fn check_node(
    branch: &Branch,
    expected: super::super::node::Expected,
    source: &FakeNodes,
    at_edge: [bool; 2],
) -> usize {
    let node = branch.node(source, expected).unwrap();
    let count = node.children().len();
    assert!(
        count >= THIN || at_edge != [false, false],
        "a node of {count} children at level {} within the tree",
        node.level()
    );
    let child_at_edge = |index: usize| [at_edge[0] && index == 0, at_edge[1] && index + 1 == count];
    match node.children() {
        Children::Slabs(entries) => entries.len(),
        Children::Nodes(links) => links
            .iter()
            .enumerate()
            .map(|(index, link)| {
                let expected = link.expected(node.level(), node.start_of(index));
                check_node(&link.branch, expected, source, child_at_edge(index))
            })
            .sum(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u16),
    Delete(f64, f64),
    /// Deletes a few offsets at each of many places.
    DeleteSome(u8),
    Keep(f64, f64),
    /// Puts a part of the tree itself somewhere.
    Insert(f64, f64, f64),
    Double,
    Reload,
    /// A checkpoint, and letting go of what it wrote.
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let part = || 0.0..1.0;
    let step = prop_oneof![
        3 => (1_u16..900).prop_map(Step::Push),
        4 => (part(), part()).prop_map(|(from, to)| Step::Delete(from, to)),
        1 => (1_u8..40).prop_map(Step::DeleteSome),
        2 => (part(), part()).prop_map(|(from, to)| Step::Keep(from, to)),
        4 => (part(), part(), part()).prop_map(|(from, to, at)| Step::Insert(from, to, at)),
        2 => Just(Step::Double),
        2 => Just(Step::Reload),
        2 => Just(Step::Trim),
    ];
    proptest::collection::vec(step, 1..25)
}

fn range_of(count: u64, from: f64, to: f64) -> std::ops::Range<u64> {
    let at = |part: f64| (count as f64 * part) as u64;
    at(from.min(to))..at(from.max(to))
}

fn indices(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}

fn delete(tree: &Tree, model: &mut Flat, source: &FakeNodes, range: std::ops::Range<u64>) -> Tree {
    let (deleted, held) = tree.delete(source, range.clone()).unwrap();
    let live = |place: &&(u64, u64)| place.0 != 0;
    let expected = model[indices(&range)].iter().filter(live).count();
    assert_eq!(held.summary.messages, expected as u64);
    assert!(held.is_exact);
    model[indices(&range)].fill((0, 0));
    deleted
}

fn apply(step: &Step, tree: &Tree, model: &mut Flat, source: &FakeNodes, slab: &mut u64) -> Tree {
    let end = tree.offset_end();
    match step {
        Step::Push(many) => (0..*many).fold(tree.clone(), |tree, _| {
            *slab += 1;
            model.extend([(*slab, 3), (*slab, 4)]);
            pushed(&tree, source, 2, *slab)
        }),
        Step::Delete(from, to) => delete(tree, model, source, range_of(end, *from, *to)),
        Step::DeleteSome(every) => {
            let starts = (0..end.saturating_sub(3))
                .step_by(usize::from(*every) * 7 + 5)
                .take(60);
            starts.fold(tree.clone(), |tree, start| {
                delete(&tree, model, source, start..start + 3)
            })
        }
        Step::Keep(from, to) => {
            let range = range_of(end, *from, *to);
            *model = model[indices(&range)].to_vec();
            tree.slice(source, range).unwrap()
        }
        Step::Insert(from, to, at) => {
            let range = range_of(end, *from, *to);
            let part = tree.slice(source, range.clone()).unwrap();
            let copied = model[indices(&range)].to_vec();
            let at = range_of(end, 0.0, *at).end;
            model.splice(at as usize..at as usize, copied);
            tree.replace(source, at..at, &part).unwrap()
        }
        Step::Double if end < 20_000 => {
            model.extend(model.clone());
            tree.join(source, tree).unwrap()
        }
        Step::Double => tree.clone(),
        Step::Trim => {
            source.checkpoint(tree);
            tree.trimmed()
        }
        Step::Reload => Tree::from_reference(source.checkpoint(tree), end, None).unwrap(),
    }
}

proptest! {
    // What fails is printed whole; a file of it would only be left behind by those who try deliberate defects.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn a_tree_of_parts_answers_as_a_list_does_and_stays_low(steps in steps()) {
        let source = FakeNodes::default();
        let (mut tree, mut model, mut slab) = (Tree::EMPTY, Flat::new(), 0);
        let mut history = vec![(tree.clone(), model.clone())];
        for step in &steps {
            tree = apply(step, &tree, &mut model, &source, &mut slab);
            check_shape(&tree, &source);
            history.push((tree.clone(), model.clone()));
        }
        for (tree, model) in &history {
            prop_assert_eq!(&flat(tree, &source), model);
        }
    }
}

#[test]
fn small_parts_of_large_trees_put_together_again_and_again_do_not_raise_a_tree() {
    let source = FakeNodes::default();
    let mut tree = tree_of(&source, 40);
    for _ in 0..12 {
        for _ in 0..300 {
            let end = tree.offset_end();
            // Around the middle, where the root's children meet.
            let part = tree.slice(&source, end / 2 - 3..end / 2 + 4).unwrap();
            tree = tree.join(&source, &part).unwrap();
        }
        check_shape(&tree, &source);
        let end = tree.offset_end();
        tree = tree.slice(&source, end / 2 - 9..end / 2 + 9).unwrap();
        check_shape(&tree, &source);
        assert_eq!(tree.level, Some(0));
    }
}

#[test]
fn deleting_most_of_a_large_tree_piece_by_piece_leaves_a_low_one() {
    let source = FakeNodes::default();
    let per_leaf = 2 * FAN_OUT as u64;
    let mut tree = tree_of(&source, 300 * FAN_OUT as u64);
    let end = tree.offset_end();
    assert_eq!(tree.level, Some(2));
    // From the middle of every other leaf to the middle of the next one.
    for start in (per_leaf / 2..end - 2 * per_leaf).step_by(2 * per_leaf as usize) {
        tree = tree.delete(&source, start..start + 2 * per_leaf - 4).unwrap().0;
    }
    let entries = check_shape(&tree, &source);
    assert!(entries < 4 * 300, "{entries} entries");
    assert_eq!(tree.level, Some(1));
    // Whoever joins it to another finds nothing thin within.
    let twice = tree.join(&source, &tree).unwrap();
    check_shape(&twice, &source);
}

#[test]
fn a_damaged_leaf_is_in_the_way_of_no_cut_that_leaves_it_whole() {
    let source = FakeNodes::default();
    let made = tree_of(&source, 3 * FAN_OUT as u64);
    let per_leaf = 2 * FAN_OUT as u64;
    let root = source.checkpoint(&made);
    // Leaves are written before their root, from left to right.
    source.nodes.lock().remove(&2).unwrap();
    let tree = Tree::from_reference(root, made.offset_end(), None).unwrap();
    let damaged = per_leaf..2 * per_leaf;
    for range in [
        0..per_leaf,
        per_leaf / 2..per_leaf,
        2 * per_leaf..2 * per_leaf + 9,
        0..2 * per_leaf,
        per_leaf..3 * per_leaf,
        per_leaf..2 * per_leaf,
    ] {
        let (deleted, _) = tree.delete(&source, range.clone()).unwrap();
        assert_eq!(deleted.offset_end(), tree.offset_end());
        for offset in 0..tree.offset_end() {
            let found = deleted.find(&source, offset);
            match range.contains(&offset) {
                true => assert!(
                    found.unwrap().unwrap().entry.slab.is_none(),
                    "{offset} of {range:?}"
                ),
                false if damaged.contains(&offset) => assert!(found.is_err()),
                false => assert!(
                    found.unwrap().unwrap().entry.slab.is_some(),
                    "{offset} of {range:?}"
                ),
            }
        }
    }
    let error = tree.delete(&source, per_leaf + 3..per_leaf + 5).unwrap_err();
    assert!(
        error.to_string().contains("offsets 256..512 of the tree"),
        "{error}"
    );
}

#[test]
fn what_replacing_makes_a_checkpoint_write_is_known_before() {
    let block = |bytes: usize| (bytes as u64).next_multiple_of(4096);
    for entries in [1_u64, 100, 128, 129, 1000, 17_000] {
        let source = FakeNodes::default();
        let mut tree = tree_of(&source, entries);
        source.checkpoint(&tree);
        let mut at = 1_u64;
        for round in 0..40_u64 {
            assert_eq!(tree.unwritten_bytes(&source, &[]).unwrap(), 0);
            // Some replacements before a checkpoint, as a step of a compaction has; of one slab or several.
            let mut replaced = Vec::new();
            for _ in 0..round % 5 {
                at = at.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(round);
                let first = (at >> 33) % entries * 2;
                replaced.push(first..(first + 2 + round % 3 * 2).min(entries * 2));
            }
            // What all of them make it write is known, and what one more does.
            let told = tree.unwritten_bytes(&source, &replaced).unwrap();
            for offsets in replaced {
                let (first, end) = (offsets.start, offsets.end);
                let alone = tree
                    .unwritten_bytes(&source, std::slice::from_ref(&offsets))
                    .unwrap();
                let with = Tree::of(entry(end - first, 100_000 + round), &histogram_of(end - first));
                tree = tree.replace(&source, first..end, &with.unwrap()).unwrap();
                let made = tree.unwritten_bytes(&source, &[]).unwrap();
                assert!(
                    made <= told.min(alone),
                    "{made} of {told} bytes, {alone} for the last, of {entries} entries in round {round}"
                );
            }
            let written = Cell::new(0);
            let mut writes = NodeWrites::default();
            tree.write_dirty(&mut writes, &mut |_, parts: &NodeParts| {
                written.set(written.get() + block(parts.encoded_bytes()));
                Ok::<_, ()>(source.write(parts))
            })
            .unwrap();
            writes.remember();
            assert!(written.get() <= told, "{} of {told} bytes", written.get());
        }
    }
}
