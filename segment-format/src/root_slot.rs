//! The two slots of the `root` file: where the newest checkpoint is.
//!
//! Invariants: a slot is whole or refused; a slot's number is part of it, so that one slot never passes for the other;
//! magic, version and checksum never move, in any version of the format.

use crate::block::BlockKind;
use crate::checksum::crc32;
use crate::convert::{part, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{Position, SegmentId, Sequence, StoreId, Version};
use crate::reference::{RawReference, Reference};
use crate::version::FormatVersion;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U16, U32, U64};

/// Length of a slot.
pub const ROOT_SLOT_BYTES: usize = 4096;

/// Number of slots in the `root` file.
pub const ROOT_SLOTS: u32 = 2;

const MAGIC: [u8; 8] = *b"LNTNROOT";
const CRC_AT: usize = 4092;
const RULES: Structure = Structure::RootSlot;

wire_struct! {
    struct RawRootSlot is "RootSlot", 4096 bytes {
        0 magic: [u8; 8],
        8 major: U16,
        10 minor: U16,
        12 slot: U32,
        16 store_id: [u8; 16],
        32 sequence: U64,
        40 version: U64,
        48 checkpoint: RawReference,
        96 journal_segment: U64,
        104 journal_position: U64,
        112 next_segment: U64,
        120 time_ms: I64,
        128 reserved: [u8; 3964],
        4092 crc: U32,
    }
}

/// A root slot: names the newest checkpoint, and where in the journal the versions behind it begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootSlot {
    /// Version of the format that the store was written with.
    pub format: FormatVersion,
    /// The store's id.
    pub store: StoreId,
    /// The greater one of two valid slots is the newer one.
    pub sequence: Sequence,
    /// Version of the checkpoint; 0 in a store that has none.
    pub version: Version,
    /// The checkpoint; empty in a store that has none.
    pub checkpoint: Reference,
    /// Journal segment in which the block of the next version stands or will stand.
    pub journal_segment: SegmentId,
    /// Position of that block.
    pub journal_position: Position,
    /// No segment of this or a greater id existed when the slot was written.
    pub next_segment: SegmentId,
    /// When the slot was written, for people.
    pub time_ms: i64,
}

impl RootSlot {
    /// Writes slot number `slot`.
    pub fn encode(&self, slot: u32, out: &mut [u8; ROOT_SLOT_BYTES]) {
        let mut raw = RawRootSlot {
            magic: MAGIC,
            major: U16::new(self.format.major),
            minor: U16::new(self.format.minor),
            slot: U32::new(slot),
            store_id: *self.store.bytes(),
            sequence: U64::new(self.sequence.get()),
            version: U64::new(self.version.get()),
            checkpoint: self.checkpoint.to_raw(),
            journal_segment: U64::new(self.journal_segment.get()),
            journal_position: U64::new(self.journal_position.get()),
            next_segment: U64::new(self.next_segment.get()),
            time_ms: I64::new(self.time_ms),
            reserved: [0; 3964],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(
            raw.as_bytes()
                .get(..CRC_AT)
                .map_or(0, |covered| crc32(0, covered)),
        );
        out.copy_from_slice(raw.as_bytes());
    }

    /// Reads slot number `slot`.
    pub fn decode(bytes: &[u8], slot: u32) -> Found<Self> {
        let bytes = match part(bytes, 0, ROOT_SLOT_BYTES, RULES) {
            Ok(bytes) => bytes,
            Err(error) => return Found::Invalid(error),
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Empty;
        }
        Found::Valid(()).and_then(|()| decode_written(bytes, slot))
    }
}

fn decode_written(bytes: &[u8], slot: u32) -> Result<RootSlot, FormatError> {
    let raw: RawRootSlot = read(bytes, 0, RULES)?;
    check_page(RULES, bytes, &MAGIC)?;
    let format = FormatVersion {
        major: raw.major.get(),
        minor: raw.minor.get(),
    };
    check_version(RULES, format)?;
    let found_slot = u64::from(raw.slot.get());
    RULES.require(
        raw.slot.get() == slot,
        Rule::Identity,
        12,
        u64::from(slot),
        found_slot,
    )?;
    check_reserved(RULES, format, &raw.reserved, 128)?;
    RULES.require(raw.sequence.get() != 0, Rule::Zero, 32, 1, 0)?;
    let position = raw.journal_position.get();
    RULES.require(
        position.is_multiple_of(4096),
        Rule::Alignment,
        104,
        4096,
        position,
    )?;
    let checkpoint = Reference::from_raw_to(&raw.checkpoint, BlockKind::Checkpoint, 48)?;
    // A store without a checkpoint is at version 0, and only that one.
    let version = raw.version.get();
    RULES.require(
        checkpoint.is_empty() == (version == 0),
        Rule::Count,
        40,
        0,
        version,
    )?;
    Ok(RootSlot {
        format,
        store: StoreId::from_bytes(raw.store_id),
        sequence: Sequence::new(raw.sequence.get()),
        version: Version::new(version),
        checkpoint,
        journal_segment: SegmentId::new(raw.journal_segment.get()),
        journal_position: Position::new(position),
        next_segment: SegmentId::new(raw.next_segment.get()),
        time_ms: raw.time_ms.get(),
    })
}

/// Checksum and magic number of a page of 4 KiB. The checksum decides; where it fails, the magic number only tells
/// which words to use.
pub(crate) fn check_page(rules: Structure, bytes: &[u8], magic: &[u8; 8]) -> Result<(), FormatError> {
    let stored: U32 = read(bytes, CRC_AT, rules)?;
    let computed = crc32(0, part(bytes, 0, CRC_AT, rules)?);
    let found: [u8; 8] = read(bytes, 0, rules)?;
    let (expected_magic, found_magic) = (u64::from_le_bytes(*magic), u64::from_le_bytes(found));
    rules.require(found == *magic, Rule::Magic, 0, expected_magic, found_magic)?;
    let (expected, found) = (u64::from(computed), u64::from(stored.get()));
    let holds = expected == found || crate::weakened!("page-unchecked");
    rules.require(holds, Rule::Checksum, wide(CRC_AT), expected, found)
}

/// Whether this crate reads the version at byte 8 of a page.
pub(crate) fn check_version(rules: Structure, format: FormatVersion) -> Result<(), FormatError> {
    let (expected, found) = (u64::from(FormatVersion::CURRENT.major), u64::from(format.major));
    rules.require(found <= expected, Rule::NewerVersion, 8, expected, found)?;
    rules.require(format.is_readable(), Rule::Kind, 8, expected, found)
}

/// Reserved bytes are zero, unless a newer minor version gave them a meaning that may be ignored.
pub(crate) fn check_reserved(
    rules: Structure,
    format: FormatVersion,
    reserved: &[u8],
    at: u64,
) -> Result<(), FormatError> {
    let stray = reserved.iter().find(|byte| **byte != 0);
    match stray {
        Some(byte) if format.is_writable() => Err(rules.breaks(Rule::Reserved, at, 0, u64::from(*byte))),
        _ => Ok(()),
    }
}

/// The newest valid one of both slots; `None` if neither is valid.
///
/// # Errors
///
/// [`Rule::NewerVersion`] if either slot is whole but of a newer version: then the other one, however valid, is not the
/// newest root, and a program of this version must leave the store alone.
pub fn choose(first: &Found<RootSlot>, second: &Found<RootSlot>) -> Result<Option<RootSlot>, FormatError> {
    let mut newest: Option<RootSlot> = None;
    for found in [first, second] {
        match found {
            Found::Invalid(error) if error.rule == Rule::NewerVersion => return Err(*error),
            Found::Valid(slot) if newest.is_none_or(|other| other.sequence < slot.sequence) => {
                newest = Some(*slot)
            }
            Found::Valid(_) | Found::Empty | Found::Invalid(_) => {}
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Sealed;
    use crate::ids::Crc;
    use crate::testing::{STORE, assert_flips_and_truncations_are_refused, identity};

    fn slot(sequence: u64) -> RootSlot {
        let sealed = Sealed {
            block_bytes: 192,
            header_crc: Crc::new(7),
        };
        RootSlot {
            format: FormatVersion::CURRENT,
            store: STORE,
            sequence: Sequence::new(sequence),
            version: Version::new(77),
            checkpoint: Reference::local(BlockKind::Checkpoint, &identity(), &sealed),
            journal_segment: SegmentId::new(9),
            journal_position: Position::new(8192),
            next_segment: SegmentId::new(11),
            time_ms: -3,
        }
    }

    fn encoded(slot: &RootSlot, number: u32) -> [u8; ROOT_SLOT_BYTES] {
        let mut out = [0xEE; ROOT_SLOT_BYTES];
        slot.encode(number, &mut out);
        out
    }

    fn blessed(mut bytes: [u8; ROOT_SLOT_BYTES]) -> Found<RootSlot> {
        let crc = crc32(0, &bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        RootSlot::decode(&bytes, 0)
    }

    #[test]
    fn what_is_written_is_read() {
        let empty = RootSlot {
            version: Version::ZERO,
            checkpoint: Reference::EMPTY,
            ..slot(1)
        };
        for slot in [slot(4), empty] {
            for number in 0..ROOT_SLOTS {
                assert_eq!(
                    RootSlot::decode(&encoded(&slot, number), number),
                    Found::Valid(slot)
                );
            }
        }
    }

    #[test]
    fn no_slot_passes_for_the_other_one() {
        let found = RootSlot::decode(&encoded(&slot(4), 0), 1);
        assert!(matches!(
            found,
            Found::Invalid(FormatError {
                rule: Rule::Identity,
                ..
            })
        ));
    }

    #[test]
    fn a_flipped_bit_or_a_cut_end_is_refused() {
        assert_flips_and_truncations_are_refused(&encoded(&slot(4), 0), |bytes| RootSlot::decode(bytes, 0));
    }

    #[test]
    fn a_newer_major_version_is_named_whatever_else_it_changed() {
        let mut bytes = encoded(&slot(4), 0);
        bytes[8] = 2;
        bytes[200] = 1;
        let newer = blessed(bytes);
        assert!(matches!(
            newer,
            Found::Invalid(FormatError {
                rule: Rule::NewerVersion,
                found: 2,
                ..
            })
        ));
        let older = Found::Valid(slot(9));
        assert_eq!(choose(&older, &newer).unwrap_err().rule, Rule::NewerVersion);
        assert_eq!(choose(&newer, &older).unwrap_err().rule, Rule::NewerVersion);
    }

    #[test]
    fn a_newer_minor_version_is_read_but_not_written() {
        let mut bytes = encoded(&slot(4), 0);
        bytes[10] = 1;
        bytes[200] = 1;
        let found = blessed(bytes).valid().unwrap();
        assert!(found.format.is_readable() && !found.format.is_writable());
        // In a known version the same byte breaks a rule.
        bytes[10] = 0;
        assert!(matches!(
            blessed(bytes),
            Found::Invalid(FormatError {
                rule: Rule::Reserved,
                ..
            })
        ));
    }

    #[test]
    fn rules_behind_a_fitting_checksum_are_checked() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = encoded(&slot(4), 0);
            bytes[at..at + value.len()].copy_from_slice(value);
            match blessed(bytes) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        assert_eq!(with(0, b"X"), Rule::Magic);
        assert_eq!(with(8, &[0]), Rule::Kind);
        assert_eq!(with(32, &[0; 8]), Rule::Zero);
        assert_eq!(with(40, &[0; 8]), Rule::Count, "a checkpoint of version 0");
        assert_eq!(with(49, &[2]), Rule::Kind, "no checkpoint");
        assert_eq!(with(104, &[1]), Rule::Alignment);
    }

    #[test]
    fn the_newest_valid_slot_is_chosen() {
        let (old, new) = (Found::Valid(slot(4)), Found::Valid(slot(5)));
        let damaged = Found::Invalid(RULES.breaks(Rule::Checksum, 0, 0, 0));
        assert_eq!(choose(&old, &new), Ok(Some(slot(5))));
        assert_eq!(choose(&new, &old), Ok(Some(slot(5))));
        assert_eq!(choose(&damaged, &old), Ok(Some(slot(4))));
        assert_eq!(choose(&old, &Found::Empty), Ok(Some(slot(4))));
        assert_eq!(choose(&damaged, &Found::Empty), Ok(None));
    }
}
