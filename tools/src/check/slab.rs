//! A slab: head, index, every group of its body, and every message in it.

use std::ops::Range;

use lanterman_format::buffer::{ValueType, walk};
use lanterman_format::large_value::LargeValue;
use lanterman_format::limits::COMPRESSED_SLAB_BYTES_MAX;
use lanterman_format::slab::SLAB_BODY_POSITION;
use lanterman_format::{
    BufferView, CompressedBatch, FormatError, Reference, ReferenceKind, SlabLayout, Summary,
};

use super::{Checker, Depth, finding_at};
use crate::check::report::{DamageKind, Finding};
use crate::problem::Problem;

impl Checker<'_> {
    /// Checks the slab that shows `offsets` of a log, with `skip` offsets of it hidden at its front.
    pub(super) fn slab(
        &mut self,
        log: u64,
        reference: &Reference,
        skip: u64,
        offsets: Range<u64>,
    ) -> Result<(), Problem> {
        if reference.kind == ReferenceKind::Lost {
            let name = self.report.name_of(log).unwrap_or_default();
            self.report.note(format!(
                "log {name:?}, offsets {}..{}: lost with a damaged part of the journal, as was accepted; they answer `damaged`",
                offsets.start, offsets.end
            ));
            return Ok(());
        }
        // No block: the offsets of the run are deleted.
        if reference.is_empty() {
            return Ok(());
        }
        self.live(reference);
        if let Some(log) = self.report.logs.get_mut(&log) {
            log.slabs += 1;
            log.slab_bytes = log.slab_bytes.saturating_add(reference.bytes.get());
        }
        if self.depth == Depth::Structure {
            return Ok(());
        }
        if let Some(offset_count) = self.whole_slabs.get(reference).copied() {
            self.shown_part(log, reference, offset_count, skip, &offsets);
            return Ok(());
        }
        let Some(bytes) = self.referred(reference, DamageKind::Slab, Some(log), Some(offsets.clone()))?
        else {
            return Ok(());
        };
        let layout = match self.try_decode(&bytes, reference, SlabLayout::parse) {
            Ok(layout) => layout,
            Err(rule) => {
                self.damaged_slab(DamageKind::Slab, log, reference, 0, offsets, rule.to_string());
                return Ok(());
            }
        };
        self.report.checked.slabs += 1;
        if !self.shown_part(log, reference, layout.offset_count(), skip, &offsets) {
            return Ok(());
        }
        if self.groups(log, reference, &bytes, &layout, skip, &offsets) {
            match count_messages(&bytes, &layout) {
                Ok(messages) => {
                    self.report.checked.messages += messages;
                    self.whole_slabs.insert(*reference, layout.offset_count());
                }
                Err(detail) => self.damaged_slab(DamageKind::Messages, log, reference, 0, offsets, detail),
            }
        }
        Ok(())
    }

    /// Whether a slab has the offsets that are shown of it.
    fn shown_part(
        &mut self,
        log: u64,
        reference: &Reference,
        offset_count: u64,
        skip: u64,
        offsets: &Range<u64>,
    ) -> bool {
        let shown = skip.checked_add(offsets.end - offsets.start);
        if shown.is_some_and(|shown| shown <= offset_count) {
            return true;
        }
        let detail = format!(
            "it has {offset_count} offsets, fewer than the {} that are shown",
            shown.unwrap_or(u64::MAX)
        );
        let kind = DamageKind::Disagreement;
        self.damaged_slab(kind, log, reference, 0, offsets.clone(), detail);
        false
    }

    /// Compares every group with its checksum; whether all fit.
    fn groups(
        &mut self,
        log: u64,
        reference: &Reference,
        bytes: &[u8],
        layout: &SlabLayout,
        skip: u64,
        offsets: &Range<u64>,
    ) -> bool {
        let mut broken: Option<(Range<usize>, FormatError)> = None;
        let mut whole = true;
        // One finding for groups next to each other.
        for group in 0..=layout.group_count() {
            let failed = match group < layout.group_count() {
                true => layout.verify_group(bytes, group).err(),
                false => None,
            };
            self.report.checked.slab_groups += u64::from(group < layout.group_count());
            let range = layout.group_range(group);
            match (failed, &mut broken) {
                (Some(_), Some((known, _))) => known.end = range.end,
                (Some(rule), None) => broken = Some((range, rule)),
                (None, _) => {
                    if let Some((range, rule)) = broken.take() {
                        whole = false;
                        let lost = lost_offsets(bytes, layout, skip, offsets, &range);
                        let at = range.start as u64;
                        self.damaged_slab(DamageKind::Messages, log, reference, at, lost, rule.to_string());
                    }
                }
            }
        }
        whole
    }

    fn damaged_slab(
        &mut self,
        kind: DamageKind,
        log: u64,
        reference: &Reference,
        at: u64,
        offsets: Range<u64>,
        detail: String,
    ) {
        let finding = finding_at(kind, reference, detail);
        let log = self.report.name_of(log);
        self.report.find(Finding {
            position: finding.position + at,
            log,
            offsets: Some(offsets),
            ..finding
        });
    }
}

/// The offsets of the log whose messages touch a range of the slab's bytes.
fn lost_offsets(
    bytes: &[u8],
    layout: &SlabLayout,
    skip: u64,
    offsets: &Range<u64>,
    range: &Range<usize>,
) -> Range<u64> {
    let position = |offset: u64| {
        let relative = skip + (offset - offsets.start);
        layout
            .position_of(bytes, relative)
            .map_or(layout.body_end() as usize, |position| position as usize)
    };
    // Positions rise with offsets: the last message that begins at or before the range, to the last that begins in it.
    let first_behind = |limit: usize| {
        let (mut low, mut high) = (offsets.start, offsets.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if position(middle) < limit {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    };
    let end = first_behind(range.end);
    let begin = first_behind(range.start + 1).saturating_sub(1).max(offsets.start);
    begin.min(end)..end
}

fn count_message(buffer: &BufferView<'_>, summary: &mut Summary) -> Result<(), String> {
    if buffer.value_type() == ValueType::BY_REFERENCE {
        LargeValue::decode(buffer.value()).map_err(|rule| rule.to_string())?;
    }
    summary.add_buffer(buffer);
    Ok(())
}

/// The messages of a compressed batch.
fn count_batch(buffer: &BufferView<'_>, summary: &mut Summary, uncompressed: &mut u64) -> Result<(), String> {
    let batch = CompressedBatch::parse(buffer).map_err(|rule| rule.to_string())?;
    *uncompressed = uncompressed.saturating_add(u64::from(batch.body_bytes()));
    if *uncompressed > u64::from(COMPRESSED_SLAB_BYTES_MAX) {
        return Err(format!(
            "its batches hold more than {COMPRESSED_SLAB_BYTES_MAX} bytes, uncompressed"
        ));
    }
    for step in walk(&batch.to_body().map_err(|rule| rule.to_string())?) {
        let (_, message) = step.map_err(|rule| rule.to_string())?;
        message.validate().map_err(|rule| rule.to_string())?;
        count_message(&message, summary)?;
    }
    Ok(())
}

/// Walks over the messages: each is whole, stands where the index says, and together they are what the head says.
fn count_messages(bytes: &[u8], layout: &SlabLayout) -> Result<u64, String> {
    let body = bytes
        .get(SLAB_BODY_POSITION..layout.body_end() as usize)
        .unwrap_or_default();
    let body_position = u32::try_from(SLAB_BODY_POSITION).unwrap_or(u32::MAX);
    let mut summary = Summary::EMPTY;
    let (mut entries, mut offsets, mut uncompressed) = (0u32, 0u64, 0u64);
    for step in walk(body) {
        let (position, buffer) = step.map_err(|rule| rule.to_string())?;
        buffer.validate().map_err(|rule| rule.to_string())?;
        let indexed = layout.position_of(bytes, offsets);
        if indexed != position.checked_add(body_position) {
            return Err(format!(
                "the index leads to another place than message {offsets} of the slab"
            ));
        }
        match buffer.value_type() {
            ValueType::COMPRESSED_BATCH if layout.is_compressed() => {
                count_batch(&buffer, &mut summary, &mut uncompressed)?;
            }
            ValueType::COMPRESSED_BATCH => {
                return Err("it has a compressed batch, and its head says that there are none".to_owned());
            }
            _ => count_message(&buffer, &mut summary)?,
        }
        entries = entries.saturating_add(1);
        offsets = offsets.saturating_add(buffer.count());
    }
    let known = layout.summary();
    let same = (summary.messages, summary.value_bytes, summary.key_bytes)
        == (known.messages, known.value_bytes, known.key_bytes);
    if entries != layout.entry_count() || offsets != layout.offset_count() || !same {
        return Err(format!(
            "its head speaks of {} messages, it holds {offsets}",
            layout.offset_count()
        ));
    }
    Ok(summary.messages.saturating_sub(summary.parts))
}
