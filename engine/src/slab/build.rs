//! Making a slab of stored messages and runs of deleted ones, message by message: for parts of which something was
//! deleted. Chunks of whole messages are sealed where they lie (`region::chunk`), without a copy.

use std::ops::RangeInclusive;

use lanterman_format::block::{BlockIdentity, BlockKind};
use lanterman_format::ids::{LogId, Offset};
use lanterman_format::settings::CompressionSettings;
use lanterman_format::slab::{SLAB_BODY_POSITION, SlabDescription, seal, trailer_bytes};
use lanterman_format::{
    BufferFields, FormatError, Histogram32, KeySketch, KeySketchBuilder, Reference, Structure, Summary,
    ValueType, buffer,
};

use super::compress::compress_body;

/// Collects what a slab is to hold.
#[derive(Debug)]
pub(crate) struct SlabBuilder {
    log: LogId,
    first_offset: u64,
    body: Vec<u8>,
    positions: Vec<u32>,
    /// The first offset of each buffer, counted from the slab's first.
    firsts: Vec<u32>,
    has_runs: bool,
    /// Deleted offsets at the end, not in the body yet.
    deleted: u64,
    offset_count: u64,
    summary: Summary,
    histogram: Histogram32,
    /// How its messages are to be compressed.
    compression: Option<CompressionSettings>,
    /// Some of its buffers are compressed batches.
    is_compressed: bool,
    keys: KeySketchBuilder,
}

/// A slab that was made in memory.
#[derive(Debug, Clone)]
pub(crate) struct BuiltSlab {
    pub(crate) reference: Reference,
    /// Its length without the padding behind it.
    pub(crate) stored_bytes: u64,
    pub(crate) summary: Summary,
    pub(crate) histogram: Histogram32,
    pub(crate) keys: KeySketch,
}

impl SlabBuilder {
    /// A slab of the messages of `log` from `first_offset` on. Messages without a time of their own were appended in
    /// `times_ms`.
    pub(crate) fn new(log: LogId, first_offset: u64, times_ms: RangeInclusive<i64>) -> Self {
        SlabBuilder {
            log,
            first_offset,
            body: Vec::new(),
            positions: Vec::new(),
            firsts: Vec::new(),
            has_runs: false,
            deleted: 0,
            offset_count: 0,
            summary: Summary {
                time_min_ms: *times_ms.start(),
                time_max_ms: *times_ms.end(),
                ..Summary::EMPTY
            },
            histogram: Histogram32::default(),
            compression: None,
            is_compressed: false,
            keys: KeySketchBuilder::new(),
        }
    }

    /// Has its messages compressed together, as far as they shrink.
    pub(crate) fn compressed(self, compression: Option<CompressionSettings>) -> Self {
        SlabBuilder { compression, ..self }
    }

    /// Adds stored buffers; runs of deleted messages among them stay such.
    ///
    /// # Errors
    /// The rule that a buffer breaks; limits of a slab.
    pub(crate) fn push_stored(&mut self, stored: &[u8]) -> Result<(), FormatError> {
        for found in buffer::walk(stored) {
            let (position, message) = found?;
            if message.value_type() == ValueType::TOMBSTONES {
                self.push_deleted(message.count());
                continue;
            }
            self.end_run()?;
            let from = position as usize;
            let bytes = stored.get(from..from.saturating_add(message.stored_bytes() as usize));
            self.begin_buffer(message.count())?;
            self.body.extend_from_slice(bytes.unwrap_or_default());
            self.summary.add_buffer(&message);
            message.key().into_iter().for_each(|key| self.keys.insert(key));
            self.histogram
                .add(u32::try_from(message.value().len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// Messages without a time of their own may have been appended in `times_ms` too.
    pub(crate) fn widen_times(&mut self, times_ms: RangeInclusive<i64>) {
        self.summary.time_min_ms = self.summary.time_min_ms.min(*times_ms.start());
        self.summary.time_max_ms = self.summary.time_max_ms.max(*times_ms.end());
    }

    /// Adds deleted messages.
    pub(crate) fn push_deleted(&mut self, count: u64) {
        self.deleted = self.deleted.saturating_add(count);
    }

    fn end_run(&mut self) -> Result<(), FormatError> {
        let count = std::mem::take(&mut self.deleted);
        if count == 0 {
            return Ok(());
        }
        let run = BufferFields {
            count,
            ..BufferFields::plain(ValueType::TOMBSTONES, &[])
        };
        self.begin_buffer(count)?;
        let from = self.body.len();
        self.body
            .resize(from.saturating_add(run.encoded_bytes()? as usize), 0);
        run.encode(self.body.get_mut(from..).unwrap_or_default())?;
        self.summary.deleted = self.summary.deleted.saturating_add(count);
        Ok(())
    }

    fn begin_buffer(&mut self, count: u64) -> Result<(), FormatError> {
        let limit = |found| too_long(u64::from(u32::MAX), found);
        let position = self.body.len().saturating_add(SLAB_BODY_POSITION) as u64;
        self.positions
            .push(u32::try_from(position).map_err(|_| limit(position))?);
        self.firsts
            .push(u32::try_from(self.offset_count).map_err(|_| limit(self.offset_count))?);
        self.has_runs |= count > 1;
        self.offset_count = self.offset_count.saturating_add(count);
        Ok(())
    }

    /// Ends the content; gives the room in bytes that [`Self::finish`] needs.
    ///
    /// # Errors
    /// Limits of a slab.
    pub(crate) fn end(&mut self) -> Result<usize, FormatError> {
        self.end_run()?;
        if let Some(compression) = self.compression.take()
            && let Some(compressed) = compress_body(&self.body, &compression)?
        {
            self.has_runs |= compressed.has_runs;
            self.is_compressed = true;
            (self.body, self.positions) = (compressed.body, compressed.positions);
            self.firsts = compressed.firsts;
        }
        let end = self.body.len().saturating_add(SLAB_BODY_POSITION) as u64;
        let body_end = u32::try_from(end).map_err(|_| too_long(u64::from(u32::MAX), end))?;
        let entries = u32::try_from(self.positions.len()).unwrap_or(u32::MAX);
        let sketch = u32::try_from(self.keys.finish().bytes().len()).unwrap_or(u32::MAX);
        let trailer = trailer_bytes(body_end, entries, sketch);
        Ok(usize::try_from(body_end.saturating_add(trailer)).unwrap_or(usize::MAX))
    }

    /// Writes the slab into `out`, which is as long as [`Self::end`] said.
    ///
    /// # Errors
    /// What sealing refuses, such as a slab without a message.
    pub(crate) fn finish(&self, identity: &BlockIdentity, out: &mut [u8]) -> Result<BuiltSlab, FormatError> {
        let no_room = too_long(out.len() as u64, self.body.len() as u64);
        let (head, rest) = out.split_at_mut_checked(SLAB_BODY_POSITION).ok_or(no_room)?;
        let (body, trailer) = rest.split_at_mut_checked(self.body.len()).ok_or(no_room)?;
        body.copy_from_slice(&self.body);
        let description = SlabDescription {
            log: self.log,
            first_offset: Offset::new(self.first_offset),
            offset_count: self.offset_count,
            summary: self.summary,
            histogram: self.histogram,
            is_compressed: self.is_compressed,
            keys: self.keys.finish(),
        };
        let runs = self.has_runs.then_some(self.firsts.as_slice());
        let sealed = seal(head, body, trailer, &self.positions, runs, &description, identity)?;
        Ok(BuiltSlab {
            reference: Reference::local(BlockKind::Slab, identity, &sealed),
            stored_bytes: u64::from(sealed.block_bytes),
            summary: self.summary,
            histogram: self.histogram,
            keys: description.keys,
        })
    }
}

fn too_long(limit: u64, found: u64) -> FormatError {
    crate::rules::too_long(Structure::Slab, limit, found)
}
