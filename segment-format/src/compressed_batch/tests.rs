use super::*;
use crate::buffer::BufferFields;
use proptest::prelude::*;

const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

fn stored(fields: &BufferFields<'_>) -> Vec<u8> {
    let mut out = vec![0; fields.encoded_bytes().unwrap() as usize];
    fields.encode(&mut out).unwrap();
    out
}

fn body_of(values: &[Vec<u8>]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| stored(&BufferFields::plain(ValueType::BYTES, value)))
        .collect()
}

/// The buffer that holds a value as a batch of `count` messages.
fn batch_of(value: &[u8], count: u64) -> Vec<u8> {
    stored(&BufferFields {
        count,
        ..BufferFields::plain(ValueType::COMPRESSED_BATCH, value)
    })
}

fn uncompressed(buffer: &[u8]) -> Result<Vec<u8>, FormatError> {
    let buffer = BufferView::parse(buffer)?;
    CompressedBatch::parse(&buffer)?.to_body()
}

fn sample() -> (Vec<u8>, u64) {
    let values: Vec<_> = (0..100_u8).map(|number| vec![number / 10; 60]).collect();
    (body_of(&values), 100)
}

#[test]
fn what_was_compressed_comes_back() {
    let (body, count) = sample();
    for codec in CODECS {
        let value = compress(codec, 3, &body).unwrap().unwrap();
        assert!(
            value.len() * 2 < body.len(),
            "{codec:?}: {} of {}",
            value.len(),
            body.len()
        );
        let buffer = batch_of(&value, count);
        let view = BufferView::parse(&buffer).unwrap();
        let batch = CompressedBatch::parse(&view).unwrap();
        assert_eq!((batch.codec(), batch.body_bytes() as usize), (codec, body.len()));
        let mut out = vec![0xEE; body.len()];
        let mut positions = Vec::new();
        batch
            .uncompress(&mut out, |position| positions.push(position))
            .unwrap();
        assert_eq!(out, body);
        assert_eq!(
            positions,
            (0..100).map(|number| number * 72).collect::<Vec<u32>>()
        );
    }
}

#[test]
fn what_hardly_shrinks_is_not_compressed() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(4096)
    .collect();
    for codec in CODECS {
        assert_eq!(
            compress(codec, 3, &body_of(std::slice::from_ref(&noise))),
            Ok(None)
        );
        assert_eq!(compress(codec, 3, &[]), Ok(None));
    }
}

#[test]
fn too_long_a_body_is_refused_before_any_work() {
    let body = vec![0; COMPRESSED_BATCH_BYTES_MAX as usize + 8];
    assert_eq!(compress(Codec::Lz4, 1, &body).unwrap_err().rule, Rule::Limit);
}

#[test]
fn hostile_headers_are_refused() {
    let (body, count) = sample();
    let value = compress(Codec::Lz4, 1, &body).unwrap().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut value = value.clone();
        value[at..at + bytes.len()].copy_from_slice(bytes);
        uncompressed(&batch_of(&value, count)).unwrap_err().rule
    };
    assert_eq!(with(0, &[0]), Rule::Kind);
    assert_eq!(with(0, &[3]), Rule::Kind);
    assert_eq!(with(1, &[1]), Rule::Reserved);
    assert_eq!(with(2, &[1]), Rule::Reserved);
    assert_eq!(with(12, &[1]), Rule::Reserved);
    assert_eq!(with(4, &u32::MAX.to_le_bytes()), Rule::Limit);
    assert_eq!(with(4, &7_204_u32.to_le_bytes()), Rule::Alignment);
    assert_eq!(
        with(4, &0_u32.to_le_bytes()),
        Rule::Count,
        "fewer bytes than headers of buffers"
    );
    assert_eq!(
        with(4, &(body.len() as u32 - 8).to_le_bytes()),
        Rule::Count,
        "longer than it says"
    );
    assert_eq!(
        with(4, &(body.len() as u32 + 8).to_le_bytes()),
        Rule::Count,
        "shorter than it says"
    );
    assert_eq!(with(8, &[0x55]), Rule::Checksum);
    assert_eq!(
        uncompressed(&batch_of(&value[..8], count)).unwrap_err().rule,
        Rule::Truncated
    );
    for wrong in [count - 1, count + 1] {
        assert_eq!(
            uncompressed(&batch_of(&value, wrong)).unwrap_err().rule,
            Rule::Count
        );
    }
    let plain = stored(&BufferFields::plain(ValueType::BYTES, &value));
    assert_eq!(uncompressed(&plain).unwrap_err().rule, Rule::Kind);
}

#[test]
fn what_may_not_be_in_a_batch_is_refused() {
    let filler = vec![7; 400];
    let counted = |value_type, count| BufferFields {
        count,
        ..BufferFields::plain(value_type, &filler)
    };
    let cases = [
        (counted(ValueType::TOMBSTONES, 1), Rule::Kind),
        (counted(ValueType::COMPRESSED_BATCH, 1), Rule::Kind),
        (counted(ValueType::BYTES, 2), Rule::Count),
    ];
    for (fields, rule) in cases {
        let value = compress(Codec::Lz4, 1, &stored(&fields)).unwrap().unwrap();
        assert_eq!(
            uncompressed(&batch_of(&value, 1)).unwrap_err().rule,
            rule,
            "{fields:?}"
        );
    }
    // A buffer that is cut off, under a good checksum.
    let whole = stored(&counted(ValueType::BYTES, 1));
    let value = compress(Codec::Lz4, 1, &whole[..whole.len() - 8])
        .unwrap()
        .unwrap();
    assert_eq!(
        uncompressed(&batch_of(&value, 1)).unwrap_err().rule,
        Rule::Truncated
    );
}

proptest! {
    #[test]
    fn any_body_that_shrinks_comes_back(
        values in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..200), 1..60)
    ) {
        let body = body_of(&values);
        for codec in CODECS {
            if let Some(value) = compress(codec, 1, &body).unwrap() {
                prop_assert_eq!(&uncompressed(&batch_of(&value, values.len() as u64)).unwrap(), &body);
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(at in 0_usize..400, flip in 1_u8..) {
        let (body, count) = sample();
        for codec in CODECS {
            let mut value = compress(codec, 1, &body).unwrap().unwrap();
            let at = at % value.len();
            value[at] ^= flip;
            prop_assert!(uncompressed(&batch_of(&value, count)).map_or(true, |found| found == body));
        }
    }
}
