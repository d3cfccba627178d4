//! Pieces of a compressed slab: what a reader of one of its offsets reads in.
//!
//! A slab with compressed batches is no slab whose messages can be lent. Each batch, once it is needed, becomes an open slab of
//! its own in memory, with the batch's messages alone; buffers that were left as they are are read in the slab itself. Of a
//! slab without batches the one piece is the slab. So whoever goes through messages asks for pieces, and what is behind
//! an offset is the same to him.
//!
//! Invariants: a piece in memory was whole when it was made (checksums of the slab's groups, then that of the batch), and
//! nothing of it can be lost under a map; pieces are kept by who reads in them, and within the source's budget.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use lanterman_format::buffer::walk;
use lanterman_format::limits::COMPRESSED_SLAB_BYTES_MAX;
use lanterman_format::slab::{EntryPlace, SLAB_BODY_POSITION, SlabDescription, seal, trailer_bytes};
use lanterman_format::weakened;
use lanterman_format::{
    BufferView, CompressedBatch, Histogram32, KeySketch, Offset, SlabLayout, Structure, Summary, ValueType,
};
use parking_lot::Mutex;

use super::open::broken_bounds;
use super::{OpenSlab, ReadContext, SlabBytes, SlabError, SlabWalk, WalkPlace};

/// Where the body of a slab begins.
const BODY: u32 = 256;
const _: () = assert!(BODY as usize == SLAB_BODY_POSITION);

/// Where some offsets of a slab are read.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) slab: Arc<OpenSlab>,
    /// The offset of the whole slab that the piece calls 0.
    pub(crate) first: u64,
    /// The first offset of the whole slab that is not read in the piece.
    pub(crate) end: u64,
}

/// The batches of one slab that are uncompressed now, by the number of their entry.
#[derive(Debug, Default)]
pub(super) struct Uncompressed {
    batches: Mutex<HashMap<u32, Weak<OpenSlab>>>,
}

/// Memory that a batch was uncompressed into.
struct Body(Vec<u8>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl OpenSlab {
    /// The piece that has the first of `offsets`, counted from the slab's first; it ends with them at the latest.
    ///
    /// # Errors
    ///
    /// [`SlabError::Outside`] if the slab does not have them all; as of [`message`](Self::message); [`SlabError::Damaged`] for a batch that is none, or that this program cannot
    /// uncompress.
    pub(crate) fn piece(
        self: &Arc<Self>,
        offsets: Range<u64>,
        context: ReadContext<'_>,
    ) -> Result<Piece, SlabError> {
        self.check_within(&offsets)?;
        let itself = |end| Piece {
            slab: Arc::clone(self),
            first: 0,
            end: offsets.end.min(end),
        };
        if !self.layout().is_compressed() {
            return Ok(itself(self.layout().offset_count()));
        }
        let place = self.find(offsets.start)?;
        let buffer = self.message_at(place.position, context)?;
        let is_batch = buffer.value_type() == ValueType::COMPRESSED_BATCH;
        let end = match is_batch {
            true => place.first_offset.saturating_add(buffer.count()),
            false => self.end_of_plain(place, context)?,
        };
        if end <= offsets.start {
            // The index gives an entry more offsets than it has, or does not rise.
            let error = broken_bounds(place.position, end, offsets.start);
            return Err(self.bad_buffer(place.position, error));
        }
        if !is_batch {
            return Ok(itself(end));
        }
        let known = self
            .uncompressed
            .batches
            .lock()
            .get(&place.entry)
            .and_then(Weak::upgrade);
        let slab = match known {
            Some(known) => {
                known.set_used();
                known
            }
            None => self.uncompress(place, buffer, context)?,
        };
        let first = match weakened!("piece-from-its-start") {
            true => 0,
            false => place.first_offset,
        };
        let end = end.min(offsets.end);
        Ok(Piece { slab, first, end })
    }

    /// The first offset of the next batch behind an entry that is none.
    fn end_of_plain(&self, from: EntryPlace, context: ReadContext<'_>) -> Result<u64, SlabError> {
        let layout = self.layout();
        // By entries, of which there are no more than the body has bytes: of offsets a head may promise any number.
        for entry in from.entry.saturating_add(1)..layout.entry_count() {
            let next = self.entry(entry)?;
            let buffer = self.message_at(next.position, context)?;
            if buffer.value_type() == ValueType::COMPRESSED_BATCH {
                return Ok(next.first_offset);
            }
        }
        Ok(layout.offset_count())
    }

    /// Adds a piece to what was uncompressed of the slab before.
    ///
    /// # Errors
    ///
    /// [`SlabError::Damaged`] if that is more than a slab may have.
    fn check_uncompressed(&self, piece: &Piece, bytes: &mut u64) -> Result<(), SlabError> {
        if !std::ptr::eq(self, &*piece.slab) {
            *bytes = bytes.saturating_add(u64::from(piece.slab.layout().body_end()));
        }
        let limit = u64::from(COMPRESSED_SLAB_BYTES_MAX);
        if *bytes <= limit {
            return Ok(());
        }
        let error = crate::rules::too_long(Structure::CompressedBatch, limit, *bytes);
        let whole = 0..self.layout().body_end() as usize;
        Err(SlabError::damaged(self.reference(), None, whole, error))
    }

    #[cold]
    fn uncompress(
        &self,
        place: EntryPlace,
        buffer: BufferView<'_>,
        context: ReadContext<'_>,
    ) -> Result<Arc<OpenSlab>, SlabError> {
        let at = place.position as usize;
        let range = at..at.saturating_add(buffer.stored_bytes() as usize);
        let made = self.batch_as_slab(place, buffer, context);
        // Asked after the bytes were looked at, and before what came of them is believed.
        self.check_buffer(buffer)?;
        let slab = made.map_err(|error| SlabError::damaged(self.reference(), None, range, error))?;
        let slab = Arc::new(slab);
        let mut batches = self.uncompressed.batches.lock();
        batches.retain(|_, batch| batch.strong_count() > 0);
        batches.insert(place.entry, Arc::downgrade(&slab));
        drop(batches);
        context.source.keep(&slab);
        Ok(slab)
    }

    /// The messages of a batch as a slab in memory.
    fn batch_as_slab(
        &self,
        place: EntryPlace,
        buffer: BufferView<'_>,
        context: ReadContext<'_>,
    ) -> Result<OpenSlab, lanterman_format::FormatError> {
        let batch = CompressedBatch::parse(&buffer)?;
        let body_bytes = batch.body_bytes() as usize;
        let body_end = u32::try_from(body_bytes.saturating_add(SLAB_BODY_POSITION)).unwrap_or(u32::MAX);
        let entries = u32::try_from(buffer.count()).unwrap_or(u32::MAX);
        let length = (body_end as usize).saturating_add(trailer_bytes(body_end, entries, 0) as usize);
        // Values begin at multiples of eight bytes; the heap promises less.
        let mut memory = vec![0; length.saturating_add(8)];
        let start = memory.as_ptr().align_offset(8).min(8);
        let image = memory
            .get_mut(start..start.saturating_add(length))
            .unwrap_or_default();
        let no_room = crate::rules::too_long(Structure::CompressedBatch, length as u64, body_bytes as u64);
        let (head, rest) = image.split_at_mut_checked(SLAB_BODY_POSITION).ok_or(no_room)?;
        let (body, trailer) = rest.split_at_mut_checked(body_bytes).ok_or(no_room)?;
        let mut positions = Vec::with_capacity(entries as usize);
        batch.uncompress(body, |position| {
            positions.push(position.saturating_add(BODY));
        })?;
        let description = self.describe(place, buffer.count(), body)?;
        let identity = self.layout().header().identity;
        let sealed = seal(head, body, trailer, &positions, None, &description, &identity)?;
        let layout = SlabLayout::parse(image, &self.reference().place(context.source.store_id()))
            .into_result(Structure::Slab)?;
        let range = start..start.saturating_add(sealed.block_bytes as usize);
        let bytes = SlabBytes::copied(Arc::new(Body(memory)), range).ok_or(no_room)?;
        Ok(OpenSlab::uncompressed(*self.reference(), layout, bytes))
    }

    fn describe(
        &self,
        place: EntryPlace,
        count: u64,
        body: &[u8],
    ) -> Result<SlabDescription, lanterman_format::FormatError> {
        let mut summary = Summary::EMPTY;
        let mut histogram = Histogram32::default();
        for step in walk(body) {
            let (_, message) = step?;
            summary.add_buffer(&message);
            histogram.add(u32::try_from(message.value().len()).unwrap_or(u32::MAX));
        }
        Ok(SlabDescription {
            log: self.layout().log(),
            first_offset: Offset::new(
                self.layout()
                    .first_offset()
                    .get()
                    .saturating_add(place.first_offset),
            ),
            offset_count: count,
            summary,
            histogram,
            keys: KeySketch::EMPTY,
            is_compressed: false,
        })
    }

    /// Goes through the messages at `offsets`, counted from the slab's first, whatever is compressed.
    pub(crate) fn buffers<'a>(
        self: &'a Arc<Self>,
        offsets: Range<u64>,
        context: ReadContext<'a>,
    ) -> Buffers<'a> {
        Buffers {
            slab: self,
            context,
            at: offsets.start,
            end: offsets.end,
            inside: None,
            bytes: 0,
        }
    }
}

/// A walk through some offsets of a slab, from piece to piece. After an error it is at its end.
#[derive(Debug)]
pub(crate) struct Buffers<'a> {
    slab: &'a Arc<OpenSlab>,
    context: ReadContext<'a>,
    /// The first offset that is not in the piece that is being read.
    at: u64,
    end: u64,
    inside: Option<(Piece, WalkPlace)>,
    /// What was uncompressed so far.
    bytes: u64,
}

/// A buffer met on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// The offset of its first message, counted from the slab's first. It may lie before the walk's start, and the buffer may
    /// reach beyond the walk's end, if it stands for several messages.
    pub(crate) relative_offset: u64,
    pub(crate) buffer: BufferView<'a>,
    /// Where it stands in its piece.
    position: u32,
    piece: &'a OpenSlab,
    context: ReadContext<'a>,
}

impl<'a> Stored<'a> {
    /// The stored bytes, header included.
    ///
    /// # Errors
    ///
    /// As of [`OpenSlab::message_at`].
    pub(crate) fn bytes(&self) -> Result<&'a [u8], SlabError> {
        self.piece
            .stored_at(self.position, self.buffer.stored_bytes(), self.context)
    }
}

impl Buffers<'_> {
    /// The next buffer; `None` behind the last one.
    ///
    /// # Errors
    ///
    /// As of [`OpenSlab::piece`] and [`SlabWalk::step`].
    pub(crate) fn next(&mut self) -> Result<Option<Stored<'_>>, SlabError> {
        while self.inside.as_ref().is_none_or(|(_, place)| place.is_at_end()) {
            if self.at >= self.end {
                return Ok(None);
            }
            let at = std::mem::replace(&mut self.at, self.end);
            let piece = self.slab.piece(at..self.end, self.context)?;
            self.slab.check_uncompressed(&piece, &mut self.bytes)?;
            let end = piece.end;
            let own = at.saturating_sub(piece.first)..end.saturating_sub(piece.first);
            let place = piece.slab.walk(own, self.context)?.place();
            self.at = end;
            self.inside = Some((piece, place));
        }
        let Some((piece, place)) = &mut self.inside else {
            return Ok(None);
        };
        let mut walk = SlabWalk::resume(&piece.slab, *place, self.context);
        let stepped = walk.step();
        *place = walk.place();
        if stepped.is_err() {
            self.at = self.end;
        }
        Ok(stepped?.map(|walked| Stored {
            relative_offset: walked.relative_offset.saturating_add(piece.first),
            buffer: walked.buffer,
            position: walked.position,
            piece: &piece.slab,
            context: self.context,
        }))
    }
}

/// All pieces of a slab, held at once: for who comes back to its messages in no order.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    slab: Arc<OpenSlab>,
    pieces: Arc<[Piece]>,
}

impl Pieces {
    /// Those of `slab`; takes memory for all of it if it is compressed.
    ///
    /// # Errors
    ///
    /// As of [`OpenSlab::piece`].
    pub(crate) fn of(slab: &Arc<OpenSlab>, context: ReadContext<'_>) -> Result<Self, SlabError> {
        let (mut pieces, mut at, mut bytes) = (Vec::new(), 0, 0);
        while at < slab.layout().offset_count() {
            let piece = slab.piece(at..slab.layout().offset_count(), context)?;
            slab.check_uncompressed(&piece, &mut bytes)?;
            at = piece.end;
            pieces.push(piece);
        }
        Ok(Pieces {
            slab: Arc::clone(slab),
            pieces: pieces.into(),
        })
    }

    /// The slab.
    pub(crate) fn slab(&self) -> &OpenSlab {
        &self.slab
    }

    /// Calls `look` with every buffer: its offset, counted from the slab's first, and its position in its piece.
    ///
    /// # Errors
    ///
    /// As of [`SlabWalk::step`].
    pub(crate) fn each<'a>(
        &'a self,
        context: ReadContext<'a>,
        mut look: impl FnMut(u64, u32, BufferView<'a>),
    ) -> Result<(), SlabError> {
        let mut begin = 0_u64;
        for piece in self.pieces.iter() {
            let own = begin.saturating_sub(piece.first)..piece.end.saturating_sub(piece.first);
            begin = piece.end;
            let mut walk = piece.slab.walk(own, context)?;
            while let Some(walked) = walk.step()? {
                let relative = walked.relative_offset.saturating_add(piece.first);
                look(relative, walked.position, walked.buffer);
            }
        }
        Ok(())
    }

    /// The buffer at `position` of the piece that has `relative_offset`, as [`each`](Self::each) told them.
    ///
    /// # Errors
    ///
    /// As of [`OpenSlab::message_at`].
    #[inline]
    pub(crate) fn message(
        &self,
        relative_offset: u64,
        position: u32,
        context: ReadContext<'_>,
    ) -> Result<BufferView<'_>, SlabError> {
        let number = match self.pieces.len() {
            1 => 0,
            _ => self.pieces.partition_point(|piece| piece.end <= relative_offset),
        };
        let slab = self.pieces.get(number).map_or(&self.slab, |piece| &piece.slab);
        slab.message_at(position, context)
    }
}
