//! Pieces of compressed slabs: found, shared, and held to their limits whatever a file says.

use lanterman_format::Rule;
use lanterman_format::compressed_batch::{Codec, compress};

use super::*;

/// A slab of one batch for each list of values; `claims` are the first offsets that its index gives them.
fn make_compressed(
    batches: &[Vec<Vec<u8>>],
    claims: Option<&[u32]>,
    offset_count: u64,
) -> (Vec<u8>, Reference) {
    let identity = identity();
    let (mut body, mut positions, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    let mut offset = 0;
    let push = |body: &mut Vec<u8>, fields: &BufferFields<'_>| {
        let start = body.len();
        body.resize(start + fields.encoded_bytes().unwrap() as usize, 0);
        fields.encode(&mut body[start..]).unwrap();
    };
    for values in batches {
        let mut inner = Vec::new();
        for value in values {
            push(&mut inner, &BufferFields::plain(ValueType::BYTES, value));
        }
        let batch = compress(Codec::Lz4, 0, &inner).unwrap().unwrap();
        positions.push((slab::SLAB_BODY_POSITION + body.len()) as u32);
        firsts.push(offset);
        let fields = BufferFields {
            count: values.len() as u64,
            ..BufferFields::plain(ValueType::COMPRESSED_BATCH, &batch)
        };
        push(&mut body, &fields);
        offset += values.len() as u32;
    }
    let body_end = (slab::SLAB_BODY_POSITION + body.len()) as u32;
    let mut head = [0; slab::SLAB_BODY_POSITION];
    let mut trailer = vec![0; slab::trailer_bytes(body_end, positions.len() as u32, 0) as usize];
    let description = SlabDescription {
        log: LogId::new(4),
        first_offset: Offset::new(1000),
        offset_count,
        summary: Summary::default(),
        histogram: Histogram32::default(),
        is_compressed: true,
        keys: KeySketch::EMPTY,
    };
    let runs = (offset_count > positions.len() as u64).then_some(claims.unwrap_or(&firsts));
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
    (bytes, Reference::local(BlockKind::Slab, &identity, &sealed))
}

fn rule(error: &SlabError) -> Rule {
    damage(error).error.rule
}

#[test]
fn readers_of_a_batch_share_its_piece_for_as_long_as_one_holds_it() {
    let batches = [vec![vec![1; 300]; 20], vec![vec![2; 300]; 20]];
    let (bytes, reference) = make_compressed(&batches, None, 40);
    let source = FakeSource::new(&bytes, SlabMemory::Mapped);
    let slab = Arc::new(OpenSlab::open(&reference, &source).unwrap());
    let context = context(&source, Verify::Once);
    let one = slab.piece(3..40, context).unwrap();
    let same = slab.piece(19..20, context).unwrap();
    let other = slab.piece(20..40, context).unwrap();
    assert!(Arc::ptr_eq(&one.slab, &same.slab) && !Arc::ptr_eq(&one.slab, &other.slab));
    assert_eq!((one.first, one.end, other.first, other.end), (0, 20, 20, 40));
    let message = other.slab.message(7, context).unwrap();
    assert_eq!(
        (message.value(), message.value().as_ptr().align_offset(8)),
        (&[2; 300][..], 0)
    );
    // Nobody keeps what nobody reads in, without a budget.
    let gone = Arc::downgrade(&one.slab);
    drop((one, same));
    assert!(gone.upgrade().is_none());
    let source = FakeSource::new(&bytes, SlabMemory::Copied).keeping(1 << 20);
    let slab = Arc::new(OpenSlab::open(&reference, &source).unwrap());
    let kept = Arc::downgrade(
        &slab
            .piece(0..1, super::context(&source, Verify::Once))
            .unwrap()
            .slab,
    );
    assert!(kept.upgrade().is_some());
}

#[test]
fn a_slab_that_claims_to_be_huge_uncompressed_is_read_message_by_message_and_never_held_whole() {
    // 75 MiB in a file of 300 KiB.
    let batches = vec![vec![vec![0; 15 << 20]]; 5];
    let (bytes, reference) = make_compressed(&batches, None, 5);
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    let source = FakeSource::new(&bytes, SlabMemory::Copied);
    let slab = Arc::new(OpenSlab::open(&reference, &source).unwrap());
    let context = context(&source, Verify::Once);
    for offset in 0..5 {
        let piece = slab.piece(offset..offset + 1, context).unwrap();
        assert_eq!(piece.slab.message(0, context).unwrap().value().len(), 15 << 20);
    }
    assert_eq!(rule(&Pieces::of(&slab, context).unwrap_err()), Rule::Limit);
    let mut buffers = slab.buffers(0..5, context);
    (0..4).for_each(|_| assert!(buffers.next().unwrap().is_some()));
    assert_eq!(rule(&buffers.next().unwrap_err()), Rule::Limit);
}

#[test]
fn an_index_that_gives_a_batch_more_offsets_than_it_has_is_damage_and_no_endless_walk() {
    let batches = [vec![vec![1; 300]; 20], vec![vec![2; 300]; 20]];
    for (claims, lost) in [([0, 30], 25), ([0, 20], 45)] {
        let (bytes, reference) = make_compressed(&batches, Some(&claims), 50);
        let source = FakeSource::new(&bytes, SlabMemory::Copied);
        let slab = Arc::new(OpenSlab::open(&reference, &source).unwrap());
        let context = context(&source, Verify::Once);
        let refused = slab.piece(lost..50, context).unwrap_err();
        assert_eq!(rule(&refused), Rule::Bounds);
        let mut buffers = slab.buffers(0..50, context);
        let mut read = 0;
        let refused = loop {
            match buffers.next() {
                Ok(Some(_)) => read += 1,
                Ok(None) => panic!("nothing told of the missing offsets"),
                Err(error) => break error,
            }
        };
        assert!(read <= 40, "{read} messages");
        assert_eq!(rule(&refused), Rule::Bounds);
    }
}
