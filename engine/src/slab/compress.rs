//! Compressing the body of a slab that is being made: messages that follow each other become batches.

use std::ops::Range;

use lanterman_format::compressed_batch::compress;
use lanterman_format::limits::{COMPRESSED_BATCH_BYTES_MAX, COMPRESSED_SLAB_BYTES_MAX};
use lanterman_format::settings::CompressionSettings;
use lanterman_format::slab::SLAB_BODY_POSITION;
use lanterman_format::{BufferFields, BufferView, FormatError, Structure, ValueType, buffer};

/// A body with batches in it, and where its buffers are.
#[derive(Debug, Default)]
pub(super) struct CompressedBody {
    pub(super) body: Vec<u8>,
    /// From the slab's beginning.
    pub(super) positions: Vec<u32>,
    /// The first offset of each buffer, counted from the slab's first.
    pub(super) firsts: Vec<u32>,
    /// Some buffer takes more than one offset.
    pub(super) has_runs: bool,
    offset_count: u64,
    batch_count: u64,
}

/// Messages that wait to become a batch: a range of the old body.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Range<usize>,
    count: u64,
}

/// The body with its messages in batches; `None` if none of them shrinks. Runs of deleted messages, and what does not shrink,
/// stay as they are; so does a body that is longer than a slab with batches may be.
///
/// # Errors
///
/// The rule that a buffer breaks, limits of a slab, or that this program lacks the codec.
pub(super) fn compress_body(
    body: &[u8],
    settings: &CompressionSettings,
) -> Result<Option<CompressedBody>, FormatError> {
    if body.len() > COMPRESSED_SLAB_BYTES_MAX as usize {
        return Ok(None);
    }
    let mut made = CompressedBody::default();
    let mut waiting = Waiting::default();
    let limit = COMPRESSED_BATCH_BYTES_MAX as usize;
    for found in buffer::walk(body) {
        let (position, message) = found?;
        let start = position as usize;
        let bytes = start..start.saturating_add(message.stored_bytes() as usize);
        let is_alone =
            message.count() > 1 || message.value_type() == ValueType::TOMBSTONES || bytes.len() > limit;
        if is_alone || waiting.bytes.len().saturating_add(bytes.len()) > limit {
            made.push_batch(body, &mut waiting, settings)?;
        }
        if is_alone {
            made.push(body.get(bytes).unwrap_or_default(), message.count())?;
            continue;
        }
        if waiting.count == 0 {
            waiting.bytes = bytes.clone();
        }
        waiting.bytes.end = bytes.end;
        waiting.count = waiting.count.saturating_add(1);
        if waiting.bytes.len() >= settings.batch_bytes as usize {
            made.push_batch(body, &mut waiting, settings)?;
        }
    }
    made.push_batch(body, &mut waiting, settings)?;
    Ok((made.batch_count > 0).then_some(made))
}

impl CompressedBody {
    /// Adds what waits, as a batch if it shrinks.
    fn push_batch(
        &mut self,
        body: &[u8],
        waiting: &mut Waiting,
        settings: &CompressionSettings,
    ) -> Result<(), FormatError> {
        let Waiting { bytes, count } = std::mem::take(waiting);
        if count == 0 {
            return Ok(());
        }
        let messages = body.get(bytes).unwrap_or_default();
        let Some(batch) = compress(settings.codec, settings.level, messages)? else {
            for found in buffer::walk(messages) {
                let (position, message) = found?;
                self.push(stored(messages, position, &message), 1)?;
            }
            return Ok(());
        };
        let fields = BufferFields {
            count,
            ..BufferFields::plain(ValueType::COMPRESSED_BATCH, &batch)
        };
        let mut encoded = vec![0; fields.encoded_bytes()? as usize];
        fields.encode(&mut encoded)?;
        self.push(&encoded, count)?;
        self.batch_count = self.batch_count.saturating_add(1);
        Ok(())
    }

    fn push(&mut self, stored: &[u8], count: u64) -> Result<(), FormatError> {
        let too_long = |found| crate::rules::too_long(Structure::Slab, u64::from(u32::MAX), found);
        let position = self.body.len().saturating_add(SLAB_BODY_POSITION) as u64;
        self.positions
            .push(u32::try_from(position).map_err(|_| too_long(position))?);
        self.firsts
            .push(u32::try_from(self.offset_count).map_err(|_| too_long(self.offset_count))?);
        self.body.extend_from_slice(stored);
        self.has_runs |= count > 1;
        self.offset_count = self.offset_count.saturating_add(count);
        Ok(())
    }
}

fn stored<'a>(messages: &'a [u8], position: u32, message: &BufferView<'_>) -> &'a [u8] {
    let start = position as usize;
    let end = start.saturating_add(message.stored_bytes() as usize);
    messages.get(start..end).unwrap_or_default()
}
