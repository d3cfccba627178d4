//! The layout of every structure as data, for the test that compares it with SPEC.md. No part of the public interface.

/// One field of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// The field's name.
    pub name: &'static str,
    /// Its first byte within the structure.
    pub offset: usize,
    /// Its width.
    pub bytes: usize,
}

/// One structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// The structure's name, as in the headings of SPEC.md.
    pub name: &'static str,
    /// Its size.
    pub bytes: usize,
    /// Its fields in order.
    pub fields: &'static [FieldLayout],
}

/// Every structure of the format.
pub const ALL: &[StructLayout] = &[
    crate::reference::RawReference::LAYOUT,
    crate::root_slot::RawRootSlot::LAYOUT,
    crate::segment::RawSegmentHeader::LAYOUT,
    crate::block::RawBlockHeader::LAYOUT,
    crate::block::RawIdentity::LAYOUT,
    crate::commit::RawCommitHeader::LAYOUT,
    crate::commit::RawFrame::LAYOUT,
    crate::commit::RawAdoption::LAYOUT,
    crate::commit::RawChange::LAYOUT,
    crate::commit::RawCreateLog::LAYOUT,
    crate::commit::RawDeleteRange::LAYOUT,
    crate::commit::RawRetain::LAYOUT,
    crate::commit::RawFork::LAYOUT,
    crate::commit::RawSplice::LAYOUT,
    crate::commit::RawReplace::LAYOUT,
    crate::summary::RawSummary::LAYOUT,
    crate::slab::RawSlabHeader::LAYOUT,
    crate::slab::RawRun::LAYOUT,
    crate::buffer::RawBuffer::LAYOUT,
    crate::node::RawNodeHeader::LAYOUT,
    crate::node::RawNodeEntry::LAYOUT,
    crate::catalog::RawPageHeader::LAYOUT,
    crate::catalog::RawCatalogEntry::LAYOUT,
    crate::checkpoint::RawCheckpoint::LAYOUT,
    crate::checkpoint::RawSegmentEntry::LAYOUT,
    crate::catalog::index::RawPageEntry::LAYOUT,
    crate::gathered::RawGathered::LAYOUT,
    crate::settings::RawSetting::LAYOUT,
    crate::settings::RawRetention::LAYOUT,
    crate::settings::RawConstraints::LAYOUT,
    crate::settings::RawSnapshot::LAYOUT,
    crate::settings::RawKeyed::LAYOUT,
    crate::settings::RawKeyRun::LAYOUT,
    crate::settings::RawCompression::LAYOUT,
    crate::key_page::RawKeyPage::LAYOUT,
    crate::large_value::RawLargeValue::LAYOUT,
    crate::large_value::RawValuePart::LAYOUT,
    crate::compressed_batch::RawCompressedBatch::LAYOUT,
];
