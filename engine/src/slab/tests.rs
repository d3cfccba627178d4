//! Slabs from a source that can be damaged, be stale and fail.

#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small"
)]

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lanterman_format::{
    BlockIdentity, BlockKind, BufferFields, Generation, Histogram32, KeySketch, LogId, Offset, Position,
    Reference, SegmentId, SlabDescription, StoreId, Summary, ValueType, Version, slab,
};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

mod mapped;
mod pieces;

const STORE: StoreId = StoreId::from_bytes([5; 16]);

/// What a source answers: what a map shows, and what the disk holds.
#[derive(Debug)]
struct FakeSource {
    memory: SlabMemory,
    shown: Mutex<Vec<u8>>,
    stored: Mutex<Vec<u8>>,
    opens: AtomicUsize,
    rereads: AtomicUsize,
    is_failing: AtomicBool,
    /// What of the map cannot be brought in.
    broken: Range<usize>,
    kept: KeptSlabs,
}

impl FakeSource {
    fn new(bytes: &[u8], memory: SlabMemory) -> Self {
        Self {
            memory,
            shown: Mutex::new(bytes.to_vec()),
            stored: Mutex::new(bytes.to_vec()),
            opens: AtomicUsize::new(0),
            rereads: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            broken: 0..0,
            kept: KeptSlabs::new(0),
        }
    }

    fn keeping(mut self, bytes_max: usize) -> Self {
        self.kept = KeptSlabs::new(bytes_max);
        self
    }

    fn flip(&self, at: usize) {
        self.shown.lock()[at] ^= 4;
        self.stored.lock()[at] ^= 4;
    }

    fn fail(&self, reference: &Reference) -> Result<(), SlabError> {
        if self.is_failing.load(Ordering::Relaxed) {
            return Err(SlabError::read(reference, 0..1, io::Error::from_raw_os_error(5)));
        }
        Ok(())
    }

    fn opens(&self) -> usize {
        self.opens.load(Ordering::Relaxed)
    }

    fn rereads(&self) -> usize {
        self.rereads.load(Ordering::Relaxed)
    }
}

impl SlabSource for FakeSource {
    fn store_id(&self) -> StoreId {
        STORE
    }

    fn open(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        self.opens.fetch_add(1, Ordering::Relaxed);
        self.fail(reference)?;
        let bytes = self.shown.lock().clone();
        let range = 0..bytes.len();
        let bytes: SharedMemory = Arc::new(bytes);
        let bytes = match self.memory {
            SlabMemory::Mapped => SlabBytes::window_of_memory(bytes, self.broken.clone()),
            SlabMemory::Copied => SlabBytes::copied(bytes, range),
        };
        Ok(bytes.unwrap())
    }

    fn reread(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        self.rereads.fetch_add(1, Ordering::Relaxed);
        self.fail(reference)?;
        let bytes = self.stored.lock().clone();
        let range = 0..bytes.len();
        Ok(SlabBytes::copied(Arc::new(bytes), range).unwrap())
    }

    fn keep(&self, slab: &Arc<OpenSlab>) {
        self.kept.keep(slab);
    }
}

/// A slab, and where its buffers are.
struct Made {
    bytes: Vec<u8>,
    reference: Reference,
    positions: Vec<u32>,
    values: Vec<Vec<u8>>,
    counts: Vec<u64>,
}

fn identity() -> BlockIdentity {
    BlockIdentity {
        store: STORE,
        segment: SegmentId::new(3),
        generation: Generation::new(2),
        position: Position::new(8192),
        version: Version::new(77),
    }
}

/// A slab of buffers of the given counts and value lengths.
fn make(messages: &[(u64, usize)]) -> Made {
    let identity = identity();
    let (mut body, mut positions, mut runs, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut histogram, mut offset) = (Histogram32::default(), 0);
    for (number, (count, length)) in messages.iter().enumerate() {
        let value = vec![number as u8; *length];
        let fields = BufferFields {
            count: *count,
            ..BufferFields::plain(ValueType::BYTES, &value)
        };
        let stored = fields.encoded_bytes().unwrap() as usize;
        positions.push((slab::SLAB_BODY_POSITION + body.len()) as u32);
        runs.push(offset as u32);
        let start = body.len();
        body.resize(start + stored, 0);
        fields.encode(&mut body[start..]).unwrap();
        histogram.add(*length as u32);
        offset += count;
        values.push(value);
    }
    let has_runs = messages.iter().any(|(count, _)| *count > 1);
    let body_end = (slab::SLAB_BODY_POSITION + body.len()) as u32;
    let mut head = [0; slab::SLAB_BODY_POSITION];
    let mut trailer = vec![0; slab::trailer_bytes(body_end, positions.len() as u32, 0) as usize];
    let description = SlabDescription {
        log: LogId::new(4),
        first_offset: Offset::new(1000),
        offset_count: offset,
        summary: Summary::default(),
        histogram,
        is_compressed: false,
        keys: KeySketch::EMPTY,
    };
    let runs = has_runs.then_some(runs.as_slice());
    let sealed = slab::seal(
        &mut head,
        &body,
        &mut trailer,
        &positions,
        runs,
        &description,
        &identity,
    )
    .unwrap();
    let mut bytes = [&head[..], &body, &trailer].concat();
    bytes.truncate(sealed.block_bytes as usize);
    let reference = Reference::local(BlockKind::Slab, &identity, &sealed);
    Made {
        bytes,
        reference,
        positions,
        values,
        counts: messages.iter().map(|message| message.0).collect(),
    }
}

/// Two hundred messages of 200 bytes: eleven groups.
fn plain() -> Made {
    make(&[(1, 200); 200])
}

fn context(source: &FakeSource, verify: Verify) -> ReadContext<'_> {
    ReadContext { source, verify }
}

fn damage(error: &SlabError) -> &SlabDamage {
    match error {
        SlabError::Damaged(damage) => damage,
        other => panic!("{other}"),
    }
}

fn walked(slab: &OpenSlab, offsets: Range<u64>, context: ReadContext<'_>) -> Vec<(u64, Vec<u8>)> {
    let walk = slab.walk(offsets, context).unwrap();
    walk.map(|step| {
        step.map(|step| (step.relative_offset, step.buffer.value().to_vec()))
            .unwrap()
    })
    .collect()
}

const POLICIES: [Verify; 3] = [Verify::Once, Verify::Always, Verify::Never];
const MEMORIES: [SlabMemory; 2] = [SlabMemory::Mapped, SlabMemory::Copied];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_message_is_found_and_walked_under_every_policy(
        messages in proptest::collection::vec((1_u64..4, 0_usize..3000), 1..60),
        is_plain: bool,
        from in 0.0..1.0,
        to in 0.0..1.0,
    ) {
        let messages: Vec<_> =
            messages.iter().map(|(count, length)| (if is_plain { 1 } else { *count }, *length)).collect();
        let made = make(&messages);
        let total: u64 = made.counts.iter().sum();
        let owners: Vec<usize> = (0..messages.len())
            .flat_map(|entry| std::iter::repeat_n(entry, made.counts[entry] as usize))
            .collect();
        for memory in MEMORIES {
            for verify in POLICIES {
                let source = FakeSource::new(&made.bytes, memory);
                let slab = OpenSlab::open(&made.reference, &source).unwrap();
                let context = context(&source, verify);
                for (offset, entry) in owners.iter().enumerate().rev().step_by(3) {
                    let found = slab.find(offset as u64).unwrap();
                    prop_assert_eq!((found.entry as usize, found.position), (*entry, made.positions[*entry]));
                    prop_assert_eq!(owners.iter().position(|owner| owner == entry), Some(found.first_offset as usize));
                    prop_assert_eq!(slab.position_of_entry(found.entry), Some(found.position));
                    prop_assert_eq!(slab.message(offset as u64, context).unwrap().value(), &made.values[*entry]);
                }
                let is_outside = matches!(slab.find(total), Err(SlabError::Outside { .. }));
                prop_assert!(is_outside);
                let (from, to) = ((total as f64 * from) as u64, (total as f64 * to) as u64);
                let offsets = from.min(to)..from.max(to);
                let seen: Vec<_> = walked(&slab, offsets.clone(), context).into_iter().map(|(_, value)| value).collect();
                let mut wanted: Vec<usize> = owners[offsets.start as usize..offsets.end as usize].to_vec();
                wanted.dedup();
                let wanted: Vec<_> = wanted.into_iter().map(|entry| made.values[entry].clone()).collect();
                prop_assert_eq!(seen, wanted);
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_read_as_a_message(at in 0.0..1.0, bit in 0_u8..8) {
        let made = plain();
        let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
        let at = (made.bytes.len() as f64 * at) as usize;
        source.shown.lock()[at] ^= 1 << bit;
        source.stored.lock()[at] ^= 1 << bit;
        let Ok(slab) = OpenSlab::open(&made.reference, &source) else { return Ok(()) };
        let walk = slab.walk(0..200, context(&source, Verify::Once)).unwrap();
        let mut errors = 0;
        for (index, step) in walk.enumerate() {
            match step {
                Ok(step) => prop_assert_eq!(step.buffer.value(), &made.values[index]),
                Err(error) => {
                    errors += 1;
                    prop_assert!(damage(&error).range.contains(&at));
                }
            }
        }
        prop_assert_eq!(errors, 1);
    }
}

#[test]
fn damage_names_its_group_and_spares_the_others() {
    let made = plain();
    for memory in [SlabMemory::Mapped, SlabMemory::Copied] {
        let source = FakeSource::new(&made.bytes, memory);
        let slab = OpenSlab::open(&made.reference, &source).unwrap();
        source.flip(3 * 4096 + 100);
        let slab_after = OpenSlab::open(&made.reference, &source).unwrap();
        for verify in [Verify::Once, Verify::Always] {
            let context = context(&source, verify);
            for (entry, position) in made.positions.iter().enumerate() {
                let touches = *position < 4 * 4096 && position + 208 > 3 * 4096;
                match slab_after.message_at(*position, context) {
                    Ok(buffer) => assert!(!touches && buffer.value() == made.values[entry]),
                    Err(error) => {
                        assert!(touches);
                        assert_eq!(damage(&error).group, Some(3));
                        assert_eq!(damage(&error).range, 3 * 4096..4 * 4096);
                        assert_eq!(damage(&error).reference, made.reference);
                    }
                }
            }
            assert!(slab_after.verify_groups(0..3, &source).is_ok());
            assert!(slab_after.verify_groups(0..4, &source).is_err());
        }
        // Bytes taken before the flip are a copy here, and stay good.
        assert_eq!(walked(&slab, 0..200, context(&source, Verify::Once)).len(), 200);
    }
}

#[test]
fn pages_that_cannot_be_brought_in_are_an_error_of_their_messages_only_and_never_touched() {
    let made = plain();
    let mut source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    source.broken = 5 * 4096..6 * 4096;
    // Were they touched first, they would be damage, or wrong bytes where nothing is verified.
    source.shown.lock()[source.broken.clone()].fill(0xee);
    for verify in POLICIES {
        let slab = OpenSlab::open(&made.reference, &source).unwrap();
        let context = context(&source, verify);
        for (offset, position) in made.positions.iter().enumerate() {
            let touches = *position < 6 * 4096 && position + 208 > 5 * 4096;
            match slab.message(offset as u64, context) {
                Ok(buffer) => assert!(!touches && buffer.value() == made.values[offset]),
                Err(error) => assert!(touches && matches!(error, SlabError::Read { .. }), "{error}"),
            }
        }
        let mut walk = slab.walk(0..200, context).unwrap();
        let before = walk.by_ref().take_while(Result::is_ok).count();
        assert_eq!(
            before,
            made.positions
                .iter()
                .filter(|position| **position + 208 <= 5 * 4096)
                .count()
        );
    }
    source.broken = 0..1;
    assert!(matches!(
        OpenSlab::open(&made.reference, &source),
        Err(SlabError::Read { .. })
    ));
    source.broken = made.bytes.len() - 1..made.bytes.len();
    assert!(matches!(
        OpenSlab::open(&made.reference, &source),
        Err(SlabError::Read { .. })
    ));
}

#[test]
fn a_walk_gives_all_that_is_before_the_damage_and_then_ends() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    source.flip(7 * 4096 + 1);
    let slab = OpenSlab::open(&made.reference, &source).unwrap();
    let mut walk = slab.walk(0..200, context(&source, Verify::Once)).unwrap();
    let before: Vec<_> = walk
        .by_ref()
        .map_while(Result::ok)
        .map(|step| step.position)
        .collect();
    let whole = made
        .positions
        .iter()
        .take_while(|position| **position + 208 <= 7 * 4096);
    assert_eq!(before, whole.copied().collect::<Vec<_>>());
    assert!(walk.next().is_none());
}

#[test]
fn without_verification_damage_goes_unseen_but_not_in_the_index() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    source.flip(made.positions[9] as usize + 100);
    let slab = OpenSlab::open(&made.reference, &source).unwrap();
    assert!(
        slab.message_at(made.positions[9], context(&source, Verify::Never))
            .is_ok()
    );
    assert!(
        slab.message_at(made.positions[9], context(&source, Verify::Once))
            .is_err()
    );
    source.flip(made.bytes.len() - 1);
    assert!(OpenSlab::open(&made.reference, &source).is_err());
}

#[test]
fn a_stale_page_of_the_body_is_replaced_by_what_the_disk_holds() {
    let made = plain();
    for verify in [Verify::Once, Verify::Always] {
        let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
        source.shown.lock()[2 * 4096..3 * 4096].fill(0);
        let slab = OpenSlab::open(&made.reference, &source).unwrap();
        let context = context(&source, verify);
        let first = slab.message_at(made.positions[0], context).unwrap();
        assert_eq!(source.rereads(), 0);
        let seen = walked(&slab, 0..200, context);
        assert!(
            seen.iter()
                .zip(&made.values)
                .all(|((_, seen), value)| seen == value)
        );
        assert_eq!(seen.len(), 200);
        for (entry, position) in made.positions.iter().enumerate() {
            assert_eq!(
                slab.message_at(*position, context).unwrap().value(),
                made.values[entry]
            );
        }
        assert_eq!(source.rereads(), 1, "the copy is used from then on");
        assert_eq!(slab.held_bytes(), made.bytes.len());
        assert_eq!(first.value(), made.values[0], "what was lent before stays");
        let lent = slab.lend(first.value()).unwrap();
        assert_eq!(lent, made.values[0]);
    }
}

#[test]
fn a_stale_page_of_the_header_or_index_is_replaced_by_what_the_disk_holds() {
    let made = make(&[(1, 10), (1, 300), (1, 20)].repeat(100));
    for at in [10, 100, 200, made.bytes.len() - 1] {
        let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
        source.shown.lock()[at] ^= 1;
        let handle = SlabHandle::new(made.reference);
        let slab = handle.open(&source).unwrap();
        assert_eq!(slab.memory(), SlabMemory::Copied);
        assert_eq!(walked(&slab, 0..300, context(&source, Verify::Once)).len(), 300);
        assert_eq!((source.opens(), source.rereads()), (1, 1));
        source.stored.lock()[at] ^= 1;
        assert!(matches!(
            OpenSlab::open(&made.reference, &source),
            Err(SlabError::Damaged(_))
        ));
    }
}

#[test]
fn a_walk_that_was_left_is_taken_up_also_over_a_stale_page() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    source.shown.lock()[5 * 4096..6 * 4096].fill(0);
    let slab = OpenSlab::open(&made.reference, &source).unwrap();
    let context = context(&source, Verify::Once);
    let mut place = slab.walk(0..200, context).unwrap().place();
    for value in &made.values {
        let mut walk = SlabWalk::resume(&slab, place, context);
        assert_eq!(walk.next().unwrap().unwrap().buffer.value(), value);
        place = walk.place();
    }
    assert!(SlabWalk::resume(&slab, place, context).next().is_none());
}

#[test]
fn what_was_checked_in_a_map_is_not_taken_as_checked_in_the_copy_beside_it() {
    let made = make(&[(1, 200); 400]);
    let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    source.shown.lock()[18 * 4096] ^= 1;
    source.stored.lock()[2 * 4096] ^= 1;
    let slab = OpenSlab::open(&made.reference, &source).unwrap();
    let context = context(&source, Verify::Once);
    let mut walk = slab.walk(0..400, context).unwrap();
    walk.next().unwrap().unwrap();
    let place = walk.place();
    assert!(slab.message(360, context).is_ok(), "read past the map");
    assert_eq!(source.rereads(), 1);
    let steps: Vec<_> = SlabWalk::resume(&slab, place, context).collect();
    let (last, before) = steps.split_last().unwrap();
    let values = before.iter().map(|step| step.as_ref().unwrap().buffer.value());
    assert!(values.eq(&made.values[1..=before.len()]));
    assert_eq!(damage(last.as_ref().unwrap_err()).group, Some(2));
    // A walk that was not left goes on in the bytes that it checked, as far as it checked them.
    let rest: Vec<_> = walk
        .map_while(Result::ok)
        .map(|step| step.buffer.value())
        .collect();
    assert!(rest.len() > before.len());
    assert!(rest.iter().eq(&made.values[1..=rest.len()]));
}

#[test]
fn a_buffer_is_never_read_half_checked_in_the_map_and_half_in_the_copy() {
    let made = make(&[(1, 200); 400]);
    for border in [3 * 4096, 16 * 4096_u32] {
        let across = made
            .positions
            .iter()
            .rposition(|position| *position < border)
            .unwrap();
        assert!(made.positions[across] + 100 < border && made.positions[across] + 208 > border);
        for is_walked in [false, true] {
            let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
            source.shown.lock()[border as usize] ^= 1;
            source.stored.lock()[made.positions[across] as usize + 50] ^= 1;
            let slab = OpenSlab::open(&made.reference, &source).unwrap();
            let context = context(&source, Verify::Once);
            let error = if is_walked {
                slab.walk(0..400, context).unwrap().find_map(Result::err).unwrap()
            } else {
                slab.message(across as u64, context).unwrap_err()
            };
            assert_eq!(damage(&error).group, Some(border / 4096 - 1));
        }
    }
}

#[test]
fn a_reference_that_is_not_the_slabs_own_is_refused() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Copied);
    let mut other = made.reference;
    other.header_crc = lanterman_format::Crc::new(other.header_crc.get() ^ 1);
    assert!(matches!(
        OpenSlab::open(&other, &source),
        Err(SlabError::Damaged(_))
    ));
    let mut other = made.reference;
    other.generation = Generation::new(9);
    assert!(matches!(
        OpenSlab::open(&other, &source),
        Err(SlabError::Damaged(_))
    ));
    let mut other = made.reference;
    other.version = Version::new(9);
    assert!(matches!(
        OpenSlab::open(&other, &source),
        Err(SlabError::Damaged(_))
    ));
    let mut other = made.reference;
    other.bytes = other.bytes.checked_sub(64).unwrap();
    assert!(matches!(
        OpenSlab::open(&other, &source),
        Err(SlabError::Damaged(_))
    ));
    assert!(matches!(
        OpenSlab::open(&Reference::EMPTY, &source),
        Err(SlabError::NotHere { .. })
    ));
}

#[test]
fn bytes_that_end_early_or_are_zero_are_damage() {
    let made = plain();
    for length in [0, 1, 63, 64, 255, 256, 4096, made.bytes.len() - 1] {
        let source = FakeSource::new(&made.bytes[..length], SlabMemory::Mapped);
        assert!(
            matches!(
                OpenSlab::open(&made.reference, &source),
                Err(SlabError::Damaged(_))
            ),
            "{length}"
        );
    }
    let source = FakeSource::new(&vec![0; made.bytes.len()], SlabMemory::Mapped);
    assert!(matches!(
        OpenSlab::open(&made.reference, &source),
        Err(SlabError::Damaged(_))
    ));
}

#[test]
fn positions_that_are_no_buffers_give_errors() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Copied);
    let slab = OpenSlab::open(&made.reference, &source).unwrap();
    for verify in POLICIES {
        for position in [
            slab.layout().body_end(),
            u32::MAX,
            u32::MAX - 7,
            made.bytes.len() as u32,
        ] {
            assert!(
                slab.message_at(position, context(&source, verify)).is_err(),
                "{position}"
            );
        }
        for position in (0..made.bytes.len() as u32).step_by(8) {
            // Whatever stands there is parsed within bounds, or refused.
            let _ = slab
                .message_at(position, context(&source, verify))
                .map(|buffer| buffer.value().len());
        }
    }
    assert!(slab.walk(0..201, context(&source, Verify::Once)).is_err());
    assert!(
        slab.walk(200..200, context(&source, Verify::Once))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_failed_open_or_reread_is_not_remembered() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    let handle = SlabHandle::new(made.reference);
    source.is_failing.store(true, Ordering::Relaxed);
    assert!(matches!(handle.open(&source), Err(SlabError::Read { .. })));
    source.is_failing.store(false, Ordering::Relaxed);
    source.shown.lock()[4096] ^= 1;
    let slab = handle.open(&source).unwrap();
    source.is_failing.store(true, Ordering::Relaxed);
    let context = context(&source, Verify::Once);
    assert!(matches!(
        slab.walk(0..200, context).unwrap().find_map(Result::err),
        Some(SlabError::Read { .. })
    ));
    source.is_failing.store(false, Ordering::Relaxed);
    assert_eq!(walked(&slab, 0..200, context).len(), 200);
}

#[test]
fn a_mapped_slab_stays_open_and_a_copy_only_as_long_as_somebody_keeps_it() {
    let made = plain();
    let mapped = FakeSource::new(&made.bytes, SlabMemory::Mapped);
    let handle = SlabHandle::new(made.reference);
    for _ in 0..3 {
        assert!(matches!(handle.open(&mapped).unwrap(), Opened::Mapped(_)));
    }
    assert_eq!(mapped.opens(), 1);

    for memory in [SlabMemory::Copied] {
        let unkept = FakeSource::new(&made.bytes, memory);
        let handle = SlabHandle::new(made.reference);
        let reader = handle.open(&unkept).unwrap().share();
        assert!(Arc::ptr_eq(&reader, &handle.open(&unkept).unwrap().share()));
        assert_eq!(unkept.opens(), 1);
        drop(reader);
        assert!(handle.opened().is_none());
        drop(handle.open(&unkept).unwrap());
        assert_eq!(unkept.opens(), 2);

        let keeping = FakeSource::new(&made.bytes, memory).keeping(made.bytes.len());
        let handle = SlabHandle::new(made.reference);
        for _ in 0..3 {
            drop(handle.open(&keeping).unwrap());
        }
        assert_eq!(keeping.opens(), 1);
        assert_eq!(keeping.kept.bytes(), made.bytes.len());
    }
}

#[test]
fn kept_slabs_stay_within_their_budget_and_used_ones_stay_longer() {
    let made = plain();
    let source = FakeSource::new(&made.bytes, SlabMemory::Copied).keeping(made.bytes.len() * 2 + 5);
    let handles: Vec<_> = (0..5).map(|_| SlabHandle::new(made.reference)).collect();
    for handle in &handles {
        drop(handle.open(&source).unwrap());
        drop(handles[0].open(&source).unwrap());
        assert!(source.kept.bytes() <= made.bytes.len() * 2);
    }
    assert!(handles[0].opened().is_some());
    assert!(handles[3].opened().is_none());
    assert_eq!(source.opens(), 5);
}

#[test]
fn threads_that_open_and_read_together_all_read_the_same() {
    let made = plain();
    for memory in MEMORIES {
        let source = FakeSource::new(&made.bytes, memory);
        if memory == SlabMemory::Mapped {
            source.shown.lock()[6 * 4096] ^= 1;
        }
        let handle = SlabHandle::new(made.reference);
        std::thread::scope(|scope| {
            for start in 0..4_u64 {
                let (handle, source, made) = (&handle, &source, &made);
                scope.spawn(move || {
                    for step in 0..400 {
                        let offset = (start * 50 + step * 7) % 200;
                        let slab = handle.open(source).unwrap();
                        let buffer = slab.message(offset, context(source, Verify::Once)).unwrap();
                        assert_eq!(buffer.value(), made.values[offset as usize]);
                    }
                    let slab = handle.open(source).unwrap().share();
                    assert_eq!(walked(&slab, 0..200, context(source, Verify::Once)).len(), 200);
                });
            }
        });
    }
}
