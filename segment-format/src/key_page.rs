//! Pages of key runs: which keys the messages of a range of offsets have, in the order of the keys.
//!
//! A run is a sequence of pages, each the value of one buffer in a slab: first its leaves, in order, then the inner pages that
//! lead to them, level by level, the last of which is the root, then the pages of a filter. Slabs and trees hold pages as
//! they hold messages, so that nothing of a run has to be in memory but the page that is looked at.
//!
//! Invariants: the entries of leaves rise by key, and fall by offset where keys are the same; an inner entry has the first key
//! of the page that it leads to. A page is checked while it is read: no length in it leads out of it.

use crate::convert::{index, part, read, wide};
use crate::error::{FormatError, Rule, Structure};
use core::cmp::Ordering;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

const RULES: Structure = Structure::KeyPage;
const HEADER_BYTES: usize = size_of::<RawKeyPage>();

/// A page is full when its entries take so many bytes; one entry may take more.
pub const KEY_PAGE_BYTES: usize = 4096 - 64;

/// The position of every entry whose number is a multiple of this is in the page's head, for bisection.
pub const RESTART_INTERVAL: usize = 8;

/// Length of a block of a filter: what one look at a key touches.
pub const FILTER_BLOCK_BYTES: usize = 64;

/// How many blocks a page of a filter has.
pub const FILTER_BLOCKS_PER_PAGE: u64 = 63;

/// Bits of a filter for each key. With six looks in blocks of 512 bits about one key in a hundred passes that is not there.
pub const FILTER_BITS_PER_KEY: u64 = 10;

/// How many bits of a block a key sets.
const FILTER_LOOKS: u32 = 6;

wire_struct! {
    struct RawKeyPage is "KeyPage", 16 bytes {
        0 kind: u8,
        1 reserved_1: u8,
        2 reserved_2: U16,
        4 entry_count: U32,
        8 prefix_bytes: U32,
        12 reserved_12: U32,
    }
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyPageKind {
    /// Keys and offsets.
    Leaf,
    /// The first keys of other pages, and their numbers.
    Inner,
    /// A part of a filter.
    Filter,
}

impl KeyPageKind {
    const fn code(self) -> u8 {
        match self {
            Self::Leaf => 1,
            Self::Inner => 2,
            Self::Filter => 3,
        }
    }
}

/// What a leaf says of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace {
    /// Its offset, counted from the base of the run.
    pub offset: u64,
    /// Bytes that its buffer takes in a slab.
    pub stored_bytes: u64,
    /// Whether it is a delete marker.
    pub is_marker: bool,
}

/// An entry of a page. Of an inner page, `number` is the number of a page and `size` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntry<'a> {
    prefix: &'a [u8],
    suffix: &'a [u8],
    number: u64,
    size: u64,
}

impl KeyEntry<'_> {
    /// Writes its key to `key`, in the place of what stands there.
    #[inline]
    pub fn copy_key(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix);
        key.extend_from_slice(self.suffix);
    }

    /// How its key compares with another one.
    #[inline]
    pub fn compare_key(&self, other: &[u8]) -> Ordering {
        let (front, rest) = other.split_at(self.prefix.len().min(other.len()));
        self.prefix.cmp(front).then_with(|| self.suffix.cmp(rest))
    }

    /// The page that an inner entry leads to.
    #[inline]
    pub const fn page(&self) -> u64 {
        self.number
    }

    /// What a leaf's entry says.
    #[inline]
    pub const fn place(&self) -> KeyPlace {
        KeyPlace {
            offset: self.number,
            stored_bytes: (self.size >> 1).saturating_mul(8),
            is_marker: self.size & 1 != 0,
        }
    }
}

/// Collects the entries of one page, which must come in order.
#[derive(Debug)]
pub struct KeyPageBuilder {
    kind: KeyPageKind,
    keys: Vec<u8>,
    /// Where each key ends, and what goes with it.
    entries: Vec<(usize, u64, u64)>,
}

impl KeyPageBuilder {
    /// An empty leaf.
    pub const fn leaf() -> Self {
        Self::new(KeyPageKind::Leaf)
    }

    /// An empty inner page.
    pub const fn inner() -> Self {
        Self::new(KeyPageKind::Inner)
    }

    const fn new(kind: KeyPageKind) -> Self {
        Self {
            kind,
            keys: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Whether it has no entry.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one more entry belongs to the next page.
    pub const fn is_full(&self) -> bool {
        let fixed = self.entries.len().saturating_mul(8);
        self.keys.len().saturating_add(fixed) >= KEY_PAGE_BYTES
    }

    /// The first key.
    pub fn first_key(&self) -> &[u8] {
        let end = self.entries.first().map_or(0, |(end, _, _)| *end);
        self.keys.get(..end).unwrap_or_default()
    }

    /// Adds a message to a leaf.
    pub fn push_place(&mut self, key: &[u8], place: KeyPlace) {
        let size = (place.stored_bytes / 8) << 1 | u64::from(place.is_marker);
        self.push(key, place.offset, size);
    }

    /// Adds a page to an inner one.
    pub fn push_page(&mut self, key: &[u8], page: u64) {
        self.push(key, page, 0);
    }

    fn push(&mut self, key: &[u8], number: u64, size: u64) {
        self.keys.extend_from_slice(key);
        self.entries.push((self.keys.len(), number, size));
    }

    /// Ends the page: its bytes. The builder is empty then.
    ///
    /// # Errors
    ///
    /// [`Rule::Limit`] for a page that is longer than a block may be.
    pub fn finish(&mut self) -> Result<Vec<u8>, FormatError> {
        let starts = core::iter::once(0).chain(self.entries.iter().map(|(end, _, _)| *end));
        let key_at = |start: usize, end: usize| self.keys.get(start..end).unwrap_or_default();
        let last_start = starts
            .clone()
            .nth(self.entries.len().saturating_sub(1))
            .unwrap_or(0);
        let (first, last) = (self.first_key(), key_at(last_start, self.keys.len()));
        let prefix = first
            .iter()
            .zip(last)
            .take_while(|(one, other)| one == other)
            .count();
        let raw = RawKeyPage {
            kind: self.kind.code(),
            reserved_1: 0,
            reserved_2: U16::ZERO,
            entry_count: U32::new(crate::convert::narrow(self.entries.len(), RULES, 4)?),
            prefix_bytes: U32::new(crate::convert::narrow(prefix, RULES, 8)?),
            reserved_12: U32::ZERO,
        };
        let mut page = Vec::with_capacity(KEY_PAGE_BYTES);
        page.extend_from_slice(raw.as_bytes());
        let restarts_at = page.len();
        let restarts = self.entries.len().div_ceil(RESTART_INTERVAL).saturating_mul(4);
        page.resize(restarts_at.saturating_add(restarts), 0);
        page.extend_from_slice(first.get(..prefix).unwrap_or_default());
        for (entry, (start, (end, number, size))) in starts.zip(&self.entries).enumerate() {
            if entry.is_multiple_of(RESTART_INTERVAL) {
                let slot = entry
                    .wrapping_div(RESTART_INTERVAL)
                    .saturating_mul(4)
                    .saturating_add(restarts_at);
                let position = crate::convert::narrow(page.len(), RULES, wide(slot))?;
                crate::convert::put(&mut page, slot, &position.to_le_bytes(), RULES)?;
            }
            let suffix = key_at(start, *end).get(prefix..).unwrap_or_default();
            push_varint(&mut page, wide(suffix.len()));
            page.extend_from_slice(suffix);
            push_varint(&mut page, *number);
            if self.kind == KeyPageKind::Leaf {
                push_varint(&mut page, *size);
            }
        }
        self.keys.clear();
        self.entries.clear();
        Ok(page)
    }
}

/// A leaf or an inner page.
#[derive(Clone, Copy, Debug)]
pub struct KeyPageView<'a> {
    bytes: &'a [u8],
    is_leaf: bool,
    entry_count: u32,
    prefix: &'a [u8],
    entries_at: usize,
}

impl<'a> KeyPageView<'a> {
    /// Reads the head of a leaf.
    ///
    /// # Errors
    ///
    /// The rule that is broken.
    pub fn leaf(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse(bytes, KeyPageKind::Leaf)
    }

    /// Reads the head of an inner page.
    ///
    /// # Errors
    ///
    /// The rule that is broken.
    pub fn inner(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::parse(bytes, KeyPageKind::Inner)
    }

    fn parse(bytes: &'a [u8], kind: KeyPageKind) -> Result<Self, FormatError> {
        let raw = header(bytes, kind)?;
        let entry_count = raw.entry_count.get();
        RULES.require(entry_count != 0, Rule::Zero, 4, 1, 0)?;
        let restarts = index(entry_count).div_ceil(RESTART_INTERVAL).saturating_mul(4);
        let prefix_at = HEADER_BYTES.saturating_add(restarts);
        let prefix = part(bytes, prefix_at, index(raw.prefix_bytes.get()), RULES)?;
        Ok(Self {
            bytes,
            is_leaf: kind == KeyPageKind::Leaf,
            entry_count,
            prefix,
            entries_at: prefix_at.saturating_add(prefix.len()),
        })
    }

    /// Its entries from the first on.
    pub const fn entries(&self) -> KeyEntries<'a> {
        KeyEntries {
            page: *self,
            at: self.entries_at,
            left: self.entry_count,
        }
    }

    /// Its entries from the first one on whose key is not less than `key`.
    ///
    /// # Errors
    ///
    /// The rule that an entry on the way breaks.
    pub fn entries_from(&self, key: &[u8]) -> Result<KeyEntries<'a>, FormatError> {
        let mut entries = self.last_restart_before(key)?;
        while let Some((entry, behind)) = entries.peek()? {
            if entry.compare_key(key) != Ordering::Less {
                break;
            }
            entries.pass(behind);
        }
        Ok(entries)
    }

    /// The page that an inner page leads to for `key`: the one in which the first entry is whose key is not less, or the one
    /// before it.
    ///
    /// # Errors
    ///
    /// The rule that an entry on the way breaks.
    pub fn page_for(&self, key: &[u8]) -> Result<u64, FormatError> {
        let mut entries = self.last_restart_before(key)?;
        let mut found = None;
        while let Some((entry, behind)) = entries.peek()? {
            if found.is_some() && entry.compare_key(key) != Ordering::Less {
                break;
            }
            found = Some(entry.page());
            entries.pass(behind);
        }
        found.ok_or(RULES.breaks(Rule::Zero, 4, 1, 0))
    }

    /// The entries from the last restart on whose key is less, or from the first: what stands before them is less too.
    fn last_restart_before(&self, key: &[u8]) -> Result<KeyEntries<'a>, FormatError> {
        let restarts = index(self.entry_count).div_ceil(RESTART_INTERVAL);
        let (mut low, mut high) = (0, restarts);
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            match self.restart(middle)?.peek()? {
                Some((entry, _)) if entry.compare_key(key) == Ordering::Less => low = middle,
                _ => high = middle,
            }
        }
        self.restart(low)
    }

    fn restart(&self, restart: usize) -> Result<KeyEntries<'a>, FormatError> {
        let slot = restart.saturating_mul(4).saturating_add(HEADER_BYTES);
        let position: U32 = read(self.bytes, slot, RULES)?;
        let at = index(position.get());
        let (least, found) = (wide(self.entries_at), wide(at));
        RULES.require(at >= self.entries_at, Rule::Bounds, wide(slot), least, found)?;
        let before = u32::try_from(restart.saturating_mul(RESTART_INTERVAL)).unwrap_or(u32::MAX);
        Ok(KeyEntries {
            page: *self,
            at,
            left: self.entry_count.saturating_sub(before),
        })
    }
}

/// Where the entries of a page go on, without the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEntriesPlace {
    at: usize,
    left: u32,
    is_leaf: bool,
    /// Where the bytes stand with which all keys begin.
    prefix_at: usize,
    prefix_end: usize,
}

/// Entries of a page, in order. The iteration ends behind the first error.
#[derive(Clone, Debug)]
pub struct KeyEntries<'a> {
    page: KeyPageView<'a>,
    at: usize,
    left: u32,
}

impl<'a> KeyEntries<'a> {
    /// Where the next entry stands, for [`Self::resume`].
    #[inline]
    pub const fn place(&self) -> KeyEntriesPlace {
        let prefix_end = self.page.entries_at;
        KeyEntriesPlace {
            at: self.at,
            left: self.left,
            is_leaf: self.page.is_leaf,
            prefix_at: prefix_end.saturating_sub(self.page.prefix.len()),
            prefix_end,
        }
    }

    /// Goes on at a place that [`Self::place`] gave for the same page, of which nothing is checked once more.
    #[inline]
    #[must_use]
    pub fn resume(page: &'a [u8], place: KeyEntriesPlace) -> Self {
        Self {
            page: KeyPageView {
                bytes: page,
                is_leaf: place.is_leaf,
                entry_count: place.left,
                prefix: page.get(place.prefix_at..place.prefix_end).unwrap_or_default(),
                entries_at: place.prefix_end,
            },
            at: place.at,
            left: place.left,
        }
    }

    #[inline]
    fn pass(&mut self, behind: usize) {
        self.at = behind;
        self.left = self.left.saturating_sub(1);
    }

    #[inline]
    fn peek(&self) -> Result<Option<(KeyEntry<'a>, usize)>, FormatError> {
        if self.left == 0 {
            return Ok(None);
        }
        let bytes = self.page.bytes;
        let (length, at) = varint(bytes, self.at)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let suffix = part(bytes, at, length, RULES)?;
        let (number, at) = varint(bytes, at.saturating_add(length))?;
        let (size, at) = if self.page.is_leaf {
            varint(bytes, at)?
        } else {
            (0, at)
        };
        let entry = KeyEntry {
            prefix: self.page.prefix,
            suffix,
            number,
            size,
        };
        Ok(Some((entry, at)))
    }
}

impl<'a> Iterator for KeyEntries<'a> {
    type Item = Result<KeyEntry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.peek() {
            Ok(None) => None,
            Ok(Some((entry, behind))) => {
                self.pass(behind);
                Some(Ok(entry))
            }
            Err(error) => {
                self.left = 0;
                Some(Err(error))
            }
        }
    }
}

/// The number that stands for a key in filters: XXH3 with 64 bits and the seed 0
/// (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// A filter that is being made: a Bloom filter in which all bits of a key are in one block (Putze, Sanders, Singler,
/// Cache-, Hash- and Space-Efficient Bloom Filters, 2007).
#[derive(Debug)]
pub struct KeyFilterBuilder {
    blocks: Vec<[u8; FILTER_BLOCK_BYTES]>,
}

impl KeyFilterBuilder {
    /// A filter for about `keys` keys, of at most `blocks_max` blocks.
    pub fn new(keys: u64, blocks_max: u64) -> Self {
        let bits = keys.saturating_mul(FILTER_BITS_PER_KEY);
        let blocks = bits.div_ceil(wide(FILTER_BLOCK_BYTES).saturating_mul(8));
        let blocks = usize::try_from(blocks.clamp(1, blocks_max.max(1))).unwrap_or(1);
        Self {
            blocks: vec![[0; FILTER_BLOCK_BYTES]; blocks],
        }
    }

    /// How many blocks it has.
    pub fn block_count(&self) -> u64 {
        wide(self.blocks.len())
    }

    /// Adds a key.
    pub fn add(&mut self, hash: u64) {
        let block = usize::try_from(filter_block(hash, self.block_count())).unwrap_or(0);
        if let Some(block) = self.blocks.get_mut(block) {
            for bit in filter_bits(hash) {
                if let Some(byte) = block.get_mut(bit >> 3) {
                    *byte |= 1 << (bit & 7);
                }
            }
        }
    }

    /// Its pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let per_page = usize::try_from(FILTER_BLOCKS_PER_PAGE).unwrap_or(1);
        self.blocks.chunks(per_page).map(|blocks| {
            let raw = RawKeyPage {
                kind: KeyPageKind::Filter.code(),
                reserved_1: 0,
                reserved_2: U16::ZERO,
                entry_count: U32::new(u32::try_from(blocks.len()).unwrap_or(u32::MAX)),
                prefix_bytes: U32::ZERO,
                reserved_12: U32::ZERO,
            };
            let mut page = raw.as_bytes().to_vec();
            blocks.iter().for_each(|block| page.extend_from_slice(block));
            page
        })
    }
}

/// The page of a filter of `blocks` blocks that a key is in, counted from the first page, and the block in it.
pub fn filter_place(hash: u64, blocks: u64) -> (u64, u64) {
    let block = filter_block(hash, blocks);
    (
        block.wrapping_div(FILTER_BLOCKS_PER_PAGE),
        block.wrapping_rem(FILTER_BLOCKS_PER_PAGE),
    )
}

/// Whether the key may be there, by the block of a filter's page.
///
/// # Errors
///
/// The rule that the page breaks.
pub fn filter_has(page: &[u8], block: u64, hash: u64) -> Result<bool, FormatError> {
    let raw = header(page, KeyPageKind::Filter)?;
    let count = u64::from(raw.entry_count.get());
    RULES.require(block < count, Rule::Bounds, 4, count, block)?;
    let at = usize::try_from(block)
        .unwrap_or(usize::MAX)
        .saturating_mul(FILTER_BLOCK_BYTES)
        .saturating_add(HEADER_BYTES);
    let block = part(page, at, FILTER_BLOCK_BYTES, RULES)?;
    Ok(filter_bits(hash).all(|bit| {
        block
            .get(bit >> 3)
            .is_some_and(|byte| byte & (1 << (bit & 7)) != 0)
    }))
}

/// The upper half of the hash chooses the block, without a division.
fn filter_block(hash: u64, blocks: u64) -> u64 {
    let scaled = u128::from(hash >> 32).saturating_mul(u128::from(blocks)) >> 32;
    u64::try_from(scaled).unwrap_or(0)
}

/// The bits of a block that a key sets: nine bits of a product for each, so that they do not hang together.
fn filter_bits(hash: u64) -> impl Iterator<Item = usize> {
    // An odd number without a pattern: 2^64 divided by the golden ratio.
    let spread = (hash & u64::from(u32::MAX))
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..FILTER_LOOKS).map(move |look| {
        let bits = spread >> (10_u32.saturating_mul(look)) & 511;
        usize::try_from(bits).unwrap_or(0)
    })
}

fn header(bytes: &[u8], kind: KeyPageKind) -> Result<RawKeyPage, FormatError> {
    let raw: RawKeyPage = read(bytes, 0, RULES)?;
    let (expected, found) = (u64::from(kind.code()), u64::from(raw.kind));
    RULES.require(expected == found, Rule::Kind, 0, expected, found)?;
    let reserved =
        u64::from(raw.reserved_1) | u64::from(raw.reserved_2.get()) | u64::from(raw.reserved_12.get());
    RULES.require(reserved == 0, Rule::Reserved, 1, 0, reserved)?;
    Ok(raw)
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A number in base 128, and where it ends.
#[inline]
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), FormatError> {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(byte) = rest.first()
        && *byte < 0x80
    {
        return Ok((u64::from(*byte), at.saturating_add(1)));
    }
    let mut number = 0_u64;
    for (place, byte) in (0_u32..).zip(rest.iter().take(10)) {
        let bits = u64::from(byte & 0x7F);
        let shift = place.saturating_mul(7);
        let moved = bits << shift;
        RULES.require(moved >> shift == bits, Rule::Limit, wide(at), u64::MAX, bits)?;
        number |= moved;
        if byte & 0x80 == 0 {
            let used = usize::try_from(place).unwrap_or(0).saturating_add(1);
            return Ok((number, at.saturating_add(used)));
        }
    }
    Err(RULES.breaks(Rule::Truncated, wide(at), 10, wide(rest.len())))
}

#[cfg(test)]
mod tests;
