//! Key runs as they are read: by key through their inner pages, or leaf after leaf.

use std::cmp::Ordering;
use std::ops::Range;

use lanterman_format::key_page::{self, KeyEntries, KeyEntriesPlace, KeyPageView};
use lanterman_format::{FormatError, Reference, Rule, Structure, ValueType};

use super::{KeyContext, KeyedPlace};
use crate::slab::SlabError;
use crate::sys::guard;
use crate::tree::{Tree, TreeError};

/// The keys of a range of a log's offsets. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KeyRun {
    /// What is told of it; `tree` in it is out of date.
    told: lanterman_format::KeyRun,
    pages: Tree,
}

impl KeyRun {
    /// A run whose pages were just written.
    pub(super) fn made(told: lanterman_format::KeyRun, pages: Tree) -> Self {
        KeyRun { told, pages }
    }

    /// A run that a checkpoint has.
    ///
    /// # Errors
    /// [`TreeError::Rule`] if what is told of it cannot be.
    pub(crate) fn stored(told: &lanterman_format::KeyRun) -> Result<Self, TreeError> {
        Ok(KeyRun {
            told: *told,
            pages: Tree::from_reference(told.tree, told.page_count, None)?,
        })
    }

    /// What is told of it where its tree is at `tree`.
    pub(crate) fn told(&self, tree: Reference) -> lanterman_format::KeyRun {
        lanterman_format::KeyRun { tree, ..self.told }
    }

    /// The tree over its pages.
    pub(crate) fn pages(&self) -> &Tree {
        &self.pages
    }

    /// The offsets of the log that it speaks of.
    pub(crate) fn offsets(&self) -> Range<u64> {
        self.told.first..self.told.end
    }

    pub(crate) fn level(&self) -> u32 {
        self.told.level
    }

    pub(crate) fn entries(&self) -> u64 {
        self.told.entries
    }

    /// Stored bytes of its messages, and of those among them that others of the run supersede.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.told.stored_bytes, self.told.superseded_bytes)
    }

    /// The same run without what was loaded of it.
    pub(crate) fn trimmed(&self) -> Self {
        KeyRun {
            told: self.told,
            pages: self.pages.trimmed(),
        }
    }

    /// The same run as far as it speaks of `offsets`; `None` if it speaks of none of them.
    pub(crate) fn within(&self, offsets: &Range<u64>) -> Option<Self> {
        let first = self.told.first.max(offsets.start);
        let end = self.told.end.min(offsets.end);
        let told = lanterman_format::KeyRun {
            first,
            end,
            ..self.told
        };
        (first < end).then(|| KeyRun {
            told,
            pages: self.pages.clone(),
        })
    }

    /// The same run where it is known that there is nothing more in `offsets`, which stand beside its own and of which it is to
    /// speak too.
    pub(crate) fn covering(&self, offsets: &Range<u64>) -> Self {
        let told = lanterman_format::KeyRun {
            first: self.told.first.min(offsets.start),
            end: self.told.end.max(offsets.end),
            ..self.told
        };
        KeyRun {
            told,
            pages: self.pages.clone(),
        }
    }

    /// Calls `look` with a page.
    fn page<T>(
        &self,
        number: u64,
        context: KeyContext<'_>,
        look: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, TreeError> {
        let lost = || SlabError::Missing {
            reference: Box::new(Reference::EMPTY),
        };
        let placed = self.pages.find(context.nodes, number)?.ok_or_else(lost)?;
        let relative = number
            .saturating_sub(placed.first_offset)
            .saturating_add(placed.entry.skip);
        let handle = placed.entry.slab.as_ref().ok_or_else(lost)?;
        let slab = handle.open(context.read.source)?;
        let buffer = slab.message(relative, context.read)?;
        let found = match buffer.value_type() == ValueType::KEY_PAGE {
            true => look(buffer.value()),
            false => Err(page_rule(
                Rule::Kind,
                ValueType::KEY_PAGE.get(),
                buffer.value_type().get(),
            )),
        };
        if guard::any_lost() {
            slab.check_buffer(buffer)?;
        }
        let whole = 0..usize::try_from(slab.reference().bytes.get()).unwrap_or(usize::MAX);
        Ok(found.map_err(|error| SlabError::damaged(slab.reference(), None, whole, error))?)
    }

    /// Calls `found` with the places of a key's messages, the newest first, until it says `false`. Tells whether it did.
    pub(crate) fn each_place(
        &self,
        key: &[u8],
        context: KeyContext<'_>,
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, TreeError> {
        let hash = key_page::key_hash(key);
        let (page, block) = key_page::filter_place(hash, self.told.filter_blocks);
        let filter = self.told.filter_page.saturating_add(page);
        if !self.page(filter, context, |page| key_page::filter_has(page, block, hash))? {
            return Ok(false);
        }
        let mut leaf = self.leaf_for(key, context)?;
        while leaf < self.told.leaf_count {
            let offsets = self.offsets();
            let base = self.told.base;
            let ended = self.page(leaf, context, |page| {
                for entry in KeyPageView::leaf(page)?.entries_from(key)? {
                    let entry = entry?;
                    if entry.compare_key(key) != Ordering::Equal {
                        return Ok(Some(false));
                    }
                    let offset = base.saturating_add(entry.place().offset);
                    if offsets.contains(&offset) && !found(offset) {
                        return Ok(Some(true));
                    }
                }
                Ok(None)
            })?;
            if let Some(stopped) = ended {
                return Ok(stopped);
            }
            leaf = leaf.saturating_add(1);
        }
        Ok(false)
    }

    /// The leaf in which the first entry is whose key is not less, or the one before it.
    fn leaf_for(&self, key: &[u8], context: KeyContext<'_>) -> Result<u64, TreeError> {
        let mut number = self.told.root_page;
        while number >= self.told.leaf_count {
            number = self.page(number, context, |page| {
                let next = KeyPageView::inner(page)?.page_for(key)?;
                // Pages lead to pages before them, which ends every descent.
                if next >= number {
                    return Err(page_rule(Rule::Order, number, next));
                }
                Ok(next)
            })?;
        }
        Ok(number)
    }
}

fn page_rule(rule: Rule, expected: u64, found: u64) -> FormatError {
    FormatError {
        structure: Structure::KeyPage,
        rule,
        at: 0,
        expected,
        found,
    }
}

/// Goes through the entries of a run.
#[derive(Debug)]
pub(crate) struct RunCursor {
    run: KeyRun,
    /// The leaf behind the one that is gone through.
    next_leaf: u64,
    /// A copy of the leaf, and the place in it.
    leaf: Vec<u8>,
    place: Option<KeyEntriesPlace>,
    /// Keys before this one are passed over, until one is not.
    from: Option<Vec<u8>>,
}

impl RunCursor {
    /// From the first key on that is not less than `from`.
    pub(crate) fn new(run: KeyRun, from: Option<Vec<u8>>) -> Self {
        RunCursor {
            run,
            next_leaf: 0,
            leaf: Vec::new(),
            place: None,
            from,
        }
    }

    /// Puts the next entry into `place`; says whether there was one.
    pub(super) fn next(
        &mut self,
        context: KeyContext<'_>,
        place: &mut KeyedPlace,
    ) -> Result<bool, TreeError> {
        loop {
            if self.place.is_none() && !self.load(context)? {
                return Ok(false);
            }
            match self.step(place) {
                Ok(Some(true)) => return Ok(true),
                Ok(Some(false)) => {}
                Ok(None) => self.place = None,
                // It was whole when it was loaded: whoever wrote the page wrote it wrong.
                Err(error) => {
                    let number = self.next_leaf.saturating_sub(1);
                    return self.run.page(number, context, |_| Err(error));
                }
            }
        }
    }

    fn load(&mut self, context: KeyContext<'_>) -> Result<bool, TreeError> {
        if let Some(from) = &self.from
            && self.next_leaf == 0
        {
            self.next_leaf = self.run.leaf_for(from, context)?;
        }
        if self.next_leaf >= self.run.told.leaf_count {
            return Ok(false);
        }
        let (leaf, from) = (&mut self.leaf, self.from.as_deref());
        let place = self.run.page(self.next_leaf, context, |page| {
            leaf.clear();
            leaf.extend_from_slice(page);
            let view = KeyPageView::leaf(page)?;
            Ok(match from {
                Some(from) => view.entries_from(from)?.place(),
                None => view.entries().place(),
            })
        })?;
        self.place = Some(place);
        self.next_leaf = self.next_leaf.saturating_add(1);
        Ok(true)
    }

    /// One entry: `None` at the end of the leaf, `false` for one of which the run does not speak.
    fn step(&mut self, found: &mut KeyedPlace) -> Result<Option<bool>, FormatError> {
        let Some(at) = self.place else { return Ok(None) };
        let mut entries = KeyEntries::resume(&self.leaf, at);
        let Some(entry) = entries.next().transpose()? else {
            return Ok(None);
        };
        self.place = Some(entries.place());
        let told = entry.place();
        let offset = self.run.told.base.saturating_add(told.offset);
        if !self.run.offsets().contains(&offset) {
            return Ok(Some(false));
        }
        entry.copy_key(&mut found.key);
        found.offset = offset;
        found.stored_bytes = told.stored_bytes;
        found.is_marker = told.is_marker;
        found.is_large = false;
        Ok(Some(true))
    }
}
