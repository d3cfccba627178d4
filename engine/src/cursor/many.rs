//! Many messages by their offsets, which come from memory and from the disk side by side: what leads to each is asked for before the
//! first is waited for.
//!
//! All of it is a hint. What cannot be had this way is asked for by [`Cursor::get`], which says why.

use lanterman_format::weakened;

use super::{Cursor, deleted_outside_the_tree, find_slab};
use crate::error::Result;
use crate::found::FoundSlab;
use crate::log::Root;
use crate::message::{Keeper, KeptMessage, Message};
use crate::slab::Opened;

/// How many are on their way at once: a device that is asked for 32 pages at random gives four times as many as one that is asked
/// for one after the other (design figures of cold reads), and their first cache lines fit into the first level.
const AT_ONCE: usize = 32;

/// A slab that is open, and where in it a message is, counted from the slab's first.
type OpenedAt<'a> = Option<(Opened<'a>, u64)>;

impl Cursor {
    /// The messages at `offsets`, in the order asked for.
    ///
    /// # Errors
    /// As [`get`](Self::get), for the first that fails.
    pub(crate) fn get_many(&mut self, offsets: &[u64]) -> Result<Vec<KeptMessage>> {
        let mut messages = Vec::with_capacity(offsets.len());
        for some in offsets.chunks(AT_ONCE) {
            if self.trims != self.core.source.index_memory().trims() {
                self.take_trimmed_root();
            }
            let root = self.root.clone();
            let found = self.find_many(&root, some);
            for (offset, opened) in some.iter().zip(self.bring_in_many(&found, some)) {
                let message = opened.as_ref().and_then(|(slab, relative)| {
                    let slab = slab.counted();
                    let buffer = slab.message(*relative, self.core.read_context()).ok()?;
                    let message = Message::new(*offset, buffer, Keeper::Slab(slab));
                    let is_one = !buffer.is_hidden() || weakened!("hidden-among-many");
                    is_one.then(|| KeptMessage::from(&message))
                });
                messages.push(match message {
                    Some(message) => message,
                    None => KeptMessage::from(&self.get(*offset)?),
                });
            }
        }
        Ok(messages)
    }

    /// The slabs that hold the messages, which are asked for what opening them takes; none for a message that is in no slab.
    fn find_many<'a>(&self, root: &'a Root, offsets: &[u64]) -> Vec<Option<FoundSlab<'a>>> {
        let end = self.limit().min(root.end());
        let find = |offset: &u64| {
            let is_in_slab = *offset < end
                && deleted_outside_the_tree(root, *offset).is_none()
                && root.chunk_at(*offset).is_none();
            let found = is_in_slab.then(|| find_slab(&self.core, &self.log, root, *offset));
            let found = found?.ok()?;
            if found.handle.opened().is_none() {
                self.core.source.announce(found.handle.reference());
            }
            Some(found)
        };
        offsets.iter().map(find).collect()
    }

    /// Opens the slabs, and has what is wanted of each brought in; none for what must be made first.
    fn bring_in_many<'a>(&self, found: &[Option<FoundSlab<'a>>], offsets: &[u64]) -> Vec<OpenedAt<'a>> {
        let open = |(found, offset): (&Option<FoundSlab<'a>>, &u64)| {
            let found = found.as_ref()?;
            let slab = found.handle.open(self.core.source.as_ref()).ok()?;
            if slab.layout().is_compressed() {
                return None;
            }
            let relative = found.relative(*offset);
            slab.foresee_index(relative);
            Some((slab, relative))
        };
        let opened: Vec<OpenedAt<'a>> = found.iter().zip(offsets).map(open).collect();
        for (slab, relative) in opened.iter().flatten() {
            slab.announce(*relative);
        }
        opened
    }
}
