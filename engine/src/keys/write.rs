//! Making a run: entries come in order, pages go out slab by slab.

use lanterman_format::key_page::{KeyFilterBuilder, KeyPageBuilder, KeyPlace, key_hash};
use lanterman_format::{BufferFields, FormatError, Histogram32, LogId, Reference, ValueType};

use super::{KeyRun, KeyedPlace};
use crate::error::{Error, Result};
use crate::slab::SlabBuilder;
use crate::tree::{NodeSource, SlabEntry, Tree};

/// Pages are put into slabs of about this size: small ones come whole where slabs are read by copying.
const PAGE_SLAB_BYTES: usize = 256 << 10;

/// A filter has at most so many blocks: 16 MiB, enough for thirteen million keys. Runs of more keys let more pass, which costs
/// time and no truth.
const FILTER_BLOCKS_MAX: u64 = (16 << 20) / 64;

/// Writes a slab of so many pages, and gives the entry that shows it.
pub(super) type PageSlab<'a> = dyn FnMut(SlabBuilder, u64) -> Result<(SlabEntry, Histogram32)> + 'a;

/// A run in the making.
pub(crate) struct RunWriter<'a> {
    log: LogId,
    now_ms: i64,
    nodes: &'a dyn NodeSource,
    write: &'a mut PageSlab<'a>,
    base: u64,
    builder: SlabBuilder,
    in_builder: u64,
    bytes_in_builder: usize,
    pages: Tree,
    leaf: KeyPageBuilder,
    /// First key and number of each leaf.
    first_keys: Vec<(Vec<u8>, u64)>,
    filter: KeyFilterBuilder,
    entries: u64,
    bytes: u64,
    superseded: u64,
    last_key: Option<Vec<u8>>,
}

impl<'a> RunWriter<'a> {
    /// A run of at most `entries_max` messages of `log`, of which `base` is not behind the first.
    pub(crate) fn new(
        log: LogId,
        base: u64,
        entries_max: u64,
        now_ms: i64,
        nodes: &'a dyn NodeSource,
        write: &'a mut PageSlab<'a>,
    ) -> Self {
        RunWriter {
            log,
            now_ms,
            nodes,
            write,
            base,
            builder: SlabBuilder::new(log, 0, now_ms..=now_ms),
            in_builder: 0,
            bytes_in_builder: 0,
            pages: Tree::EMPTY,
            leaf: KeyPageBuilder::leaf(),
            first_keys: Vec::new(),
            filter: KeyFilterBuilder::new(entries_max, FILTER_BLOCKS_MAX),
            entries: 0,
            bytes: 0,
            superseded: 0,
            last_key: None,
        }
    }

    /// Adds a message: its key is greater than the last one, or the same and the offset less.
    ///
    /// # Errors
    /// As of writing a slab.
    pub(crate) fn push(&mut self, place: &KeyedPlace) -> Result<()> {
        if self.leaf.is_full() {
            self.end_leaf()?;
        }
        match &mut self.last_key {
            Some(last) if *last == place.key => {
                self.superseded = self.superseded.saturating_add(place.stored_bytes);
            }
            last => {
                self.filter.add(key_hash(&place.key));
                let last = last.get_or_insert_with(Vec::new);
                last.clear();
                last.extend_from_slice(&place.key);
            }
        }
        let told = KeyPlace {
            offset: place.offset.saturating_sub(self.base),
            stored_bytes: place.stored_bytes,
            is_marker: place.is_marker,
        };
        self.leaf.push_place(&place.key, told);
        self.entries = self.entries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(place.stored_bytes);
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<()> {
        let first_key = self.leaf.first_key().to_vec();
        let page = self.leaf.finish().map_err(unmade)?;
        let number = self.put(&page)?;
        self.first_keys.push((first_key, number));
        Ok(())
    }

    /// Puts a page behind the others; gives its number.
    fn put(&mut self, page: &[u8]) -> Result<u64> {
        let number = self.pages.offset_end().saturating_add(self.in_builder);
        let fields = BufferFields::plain(ValueType::KEY_PAGE, page);
        let mut stored = vec![0; fields.encoded_bytes().map_err(unmade)? as usize];
        fields.encode(&mut stored).map_err(unmade)?;
        self.builder.push_stored(&stored).map_err(unmade)?;
        self.in_builder = self.in_builder.saturating_add(1);
        self.bytes_in_builder = self.bytes_in_builder.saturating_add(stored.len());
        if self.bytes_in_builder >= PAGE_SLAB_BYTES {
            self.end_slab()?;
        }
        Ok(number)
    }

    fn end_slab(&mut self) -> Result<()> {
        let count = std::mem::take(&mut self.in_builder);
        if count == 0 {
            return Ok(());
        }
        let behind = self.pages.offset_end().saturating_add(count);
        let next = SlabBuilder::new(self.log, behind, self.now_ms..=self.now_ms);
        let builder = std::mem::replace(&mut self.builder, next);
        self.bytes_in_builder = 0;
        let (entry, histogram) = (self.write)(builder, count)?;
        let pushed = self.pages.push(self.nodes, entry, &histogram);
        self.pages = pushed.map_err(|_| Error::Internal {
            what: "the tree of a key run takes another slab",
        })?;
        Ok(())
    }

    /// Ends the run, which speaks of the offsets `first..end`; none if it has no entry.
    ///
    /// # Errors
    /// As of writing a slab.
    pub(crate) fn finish(mut self, first: u64, end: u64, level: u32) -> Result<Option<KeyRun>> {
        if !self.leaf.is_empty() {
            self.end_leaf()?;
        }
        let leaf_count = self.first_keys.len() as u64;
        let mut row = std::mem::take(&mut self.first_keys);
        while row.len() > 1 {
            row = self.inner_row(&row)?;
        }
        let Some((_, root_page)) = row.pop() else {
            return Ok(None);
        };
        let filter_page = self.pages.offset_end().saturating_add(self.in_builder);
        let filter = std::mem::replace(&mut self.filter, KeyFilterBuilder::new(0, 1));
        for page in filter.pages() {
            self.put(&page)?;
        }
        self.end_slab()?;
        let told = lanterman_format::KeyRun {
            base: self.base,
            first,
            end,
            entries: self.entries,
            stored_bytes: self.bytes,
            superseded_bytes: self.superseded,
            page_count: self.pages.offset_end(),
            leaf_count,
            root_page,
            filter_page,
            filter_blocks: filter.block_count(),
            level,
            tree: Reference::EMPTY,
        };
        Ok(Some(KeyRun::made(told, self.pages)))
    }

    /// The pages over a row of pages.
    fn inner_row(&mut self, row: &[(Vec<u8>, u64)]) -> Result<Vec<(Vec<u8>, u64)>> {
        let mut above = Vec::new();
        let mut inner = KeyPageBuilder::inner();
        let mut in_page = 0_u32;
        for (key, number) in row {
            // Two at least, so that each row is shorter than the one below.
            if inner.is_full() && in_page > 1 {
                self.end_inner(&mut inner, &mut above)?;
                in_page = 0;
            }
            inner.push_page(key, *number);
            in_page = in_page.saturating_add(1);
        }
        self.end_inner(&mut inner, &mut above)?;
        Ok(above)
    }

    fn end_inner(&mut self, inner: &mut KeyPageBuilder, above: &mut Vec<(Vec<u8>, u64)>) -> Result<()> {
        let first_key = inner.first_key().to_vec();
        let page = inner.finish().map_err(unmade)?;
        let number = self.put(&page)?;
        above.push((first_key, number));
        Ok(())
    }
}

fn unmade(_: FormatError) -> Error {
    Error::Internal {
        what: "keys of messages make pages",
    }
}
