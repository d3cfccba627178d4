//! A persistent map from numbers to values: a copy is one count, and whoever changes the map copies the few nodes on the way
//! that somebody else holds too.
//!
//! A tree by the digits of the number, for numbers that are given out one after the other: a step down is an index, where a
//! balanced tree compares at twice as many nodes, each of them another cache line.
//!
//! Invariants:
//! - all leaves are at the same depth, which the largest number ever put in decides;
//! - no node but the root is without a value below it.

use std::sync::Arc;

use lanterman_format::weakened;

/// Digits of a leaf's number.
const LEAF_BITS: u32 = 4;
/// Digits of a node above: such a node is about as large as a leaf of what the catalog tells of a log.
const INNER_BITS: u32 = 6;
const LEAF_SLOTS: usize = 1 << LEAF_BITS;
const INNER_SLOTS: usize = 1 << INNER_BITS;

#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "every node is behind a count of its own; another box would be another cache line on the way"
)]
enum Node<V> {
    Inner([Option<Arc<Node<V>>>; INNER_SLOTS]),
    Leaf([Option<V>; LEAF_SLOTS]),
}

/// Values by number, in the order of the numbers.
#[derive(Debug, Clone)]
pub(crate) struct NumberMap<V> {
    root: Option<Arc<Node<V>>>,
    /// Nodes on the way to a leaf.
    depth: u32,
}

impl<V> Default for NumberMap<V> {
    fn default() -> Self {
        NumberMap { root: None, depth: 0 }
    }
}

/// Where below a node of that many levels above the leaves the number is.
fn slot(number: u64, levels: u32) -> usize {
    let (shift, slots) = match levels.checked_sub(1) {
        Some(below) => (
            LEAF_BITS.saturating_add(below.saturating_mul(INNER_BITS)),
            INNER_SLOTS,
        ),
        None => (0, LEAF_SLOTS),
    };
    let digits = number.checked_shr(shift).unwrap_or(0) & (slots as u64).saturating_sub(1);
    usize::try_from(digits).unwrap_or(0)
}

impl<V> Node<V> {
    fn empty(levels: u32) -> Self {
        match levels {
            0 => Node::Leaf(std::array::from_fn(|_| None)),
            _ => Node::Inner(std::array::from_fn(|_| None)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Inner(children) => children.iter().all(Option::is_none),
            Node::Leaf(values) => values.iter().all(Option::is_none),
        }
    }
}

impl<V> NumberMap<V> {
    /// Whether a tree of this depth has a place for the number.
    fn reaches(&self, number: u64) -> bool {
        let bits = LEAF_BITS.saturating_add(self.depth.saturating_mul(INNER_BITS));
        number.checked_shr(bits).unwrap_or(0) == 0
    }

    pub(crate) fn get(&self, number: u64) -> Option<&V> {
        if !self.reaches(number) {
            return None;
        }
        let mut levels = self.depth;
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Inner(children) => node = children.get(slot(number, levels))?.as_deref()?,
                Node::Leaf(values) => return values.get(slot(number, levels))?.as_ref(),
            }
            levels = levels.saturating_sub(1);
        }
    }

    /// All values, by rising numbers.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        Values {
            above: Vec::new(),
            leaf: [].iter(),
            root: self.root.as_deref(),
        }
    }
}

impl<V: Clone> NumberMap<V> {
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut V> {
        if !self.reaches(number) {
            return None;
        }
        let mut levels = self.depth;
        let mut node = self.root.as_mut()?;
        loop {
            match Arc::make_mut(node) {
                Node::Inner(children) => node = children.get_mut(slot(number, levels))?.as_mut()?,
                Node::Leaf(values) => return values.get_mut(slot(number, levels))?.as_mut(),
            }
            levels = levels.saturating_sub(1);
        }
    }

    /// Puts a value in the place of the one that the number has, if any.
    pub(crate) fn insert(&mut self, number: u64, value: V) {
        while !self.reaches(number) {
            if let Some(root) = self.root.take() {
                let mut children = std::array::from_fn(|_| None);
                if let Some(first) = children.first_mut() {
                    *first = Some(root);
                }
                self.root = Some(Arc::new(Node::Inner(children)));
            }
            self.depth = self.depth.saturating_add(1);
        }
        let mut levels = self.depth;
        let mut place = &mut self.root;
        loop {
            let node = place.get_or_insert_with(|| Arc::new(Node::empty(levels)));
            match Arc::make_mut(node) {
                Node::Inner(children) => match children.get_mut(slot(number, levels)) {
                    Some(child) => place = child,
                    None => return,
                },
                Node::Leaf(values) => {
                    if let Some(known) = values.get_mut(slot(number, levels)) {
                        *known = Some(value);
                    }
                    return;
                }
            }
            levels = levels.saturating_sub(1);
        }
    }

    pub(crate) fn remove(&mut self, number: u64) {
        if self.get(number).is_some() {
            remove_below(&mut self.root, number, self.depth);
        }
    }
}

/// Takes a number out that is there, and nodes that have nothing left.
fn remove_below<V: Clone>(place: &mut Option<Arc<Node<V>>>, number: u64, levels: u32) {
    let Some(node) = place else { return };
    let node = Arc::make_mut(node);
    match node {
        Node::Inner(children) => {
            if let Some(child) = children.get_mut(slot(number, levels)) {
                remove_below(child, number, levels.saturating_sub(1));
            }
        }
        Node::Leaf(values) => {
            if let Some(value) = values.get_mut(slot(number, levels)) {
                *value = None;
            }
        }
    }
    if node.is_empty() && !weakened!("empty-nodes-kept") {
        *place = None;
    }
}

/// What is left of a walk.
struct Values<'a, V> {
    above: Vec<std::slice::Iter<'a, Option<Arc<Node<V>>>>>,
    leaf: std::slice::Iter<'a, Option<V>>,
    root: Option<&'a Node<V>>,
}

impl<'a, V> Iterator for Values<'a, V> {
    type Item = &'a V;

    fn next(&mut self) -> Option<&'a V> {
        loop {
            if let Some(value) = self.leaf.by_ref().flatten().next() {
                return Some(value);
            }
            let node = match self.root.take() {
                Some(root) => root,
                None => {
                    let children = self.above.last_mut()?;
                    let Some(child) = children.flatten().next() else {
                        self.above.pop();
                        continue;
                    };
                    child
                }
            };
            match node {
                Node::Inner(children) => self.above.push(children.iter()),
                Node::Leaf(values) => self.leaf = values.iter(),
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Numbers of all sizes, near each other and far apart.
    fn number(random: &mut impl FnMut() -> u64) -> u64 {
        let bits = random() % 64;
        let number = random() & (u64::MAX >> bits);
        if random().is_multiple_of(2) {
            number % 100
        } else {
            number
        }
    }

    fn random_from(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    fn assert_same(map: &NumberMap<u64>, model: &BTreeMap<u64, u64>, seed: u64) {
        assert!(map.values().eq(model.values()), "seed {seed:#x}");
        for (number, value) in model {
            assert_eq!(map.get(*number), Some(value), "seed {seed:#x}");
        }
    }

    #[test]
    fn it_has_what_a_usual_map_has_and_copies_stay_as_they_were() {
        let seed = 0x6c6f_6773_0000_0001;
        let mut random = random_from(seed);
        let (mut map, mut model) = (NumberMap::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for turn in 0..20_000_u64 {
            let at = number(&mut random);
            match random() % 4 {
                0 => {
                    map.remove(at);
                    model.remove(&at);
                }
                1 => {
                    if let Some(value) = map.get_mut(at) {
                        *value = turn;
                    }
                    if let Some(value) = model.get_mut(&at) {
                        *value = turn;
                    }
                }
                _ => {
                    map.insert(at, turn);
                    model.insert(at, turn);
                }
            }
            assert_eq!(map.get(at), model.get(&at), "seed {seed:#x}, turn {turn}");
            if turn.is_multiple_of(2_000) {
                copies.push((map.clone(), model.clone()));
            }
        }
        assert_same(&map, &model, seed);
        copies
            .iter()
            .for_each(|(map, model)| assert_same(map, model, seed));
    }

    #[test]
    fn a_map_from_which_all_was_removed_holds_no_nodes() {
        let mut map = NumberMap::default();
        for number in (0..5_000).chain([u64::MAX, 1 << 40]) {
            map.insert(number, number);
        }
        for number in (0..5_000).chain([u64::MAX, 1 << 40]) {
            map.remove(number);
        }
        assert!(map.root.is_none());
        assert_eq!(map.values().count(), 0);
    }
}
