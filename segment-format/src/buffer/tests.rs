use super::*;
use proptest::prelude::*;

fn stored(fields: &BufferFields<'_>) -> Vec<u8> {
    let mut out = vec![0xAA; fields.encoded_bytes().unwrap() as usize];
    assert_eq!(fields.encode(&mut out).unwrap() as usize, out.len());
    out
}

#[test]
fn a_plain_message_costs_its_value_and_eight_bytes_rounded_up() {
    for length in 0..40_u32 {
        let value = vec![7; length as usize];
        let fields = BufferFields::plain(ValueType::BYTES, &value);
        let bytes = stored(&fields);
        assert_eq!(bytes.len() as u32, plain_stored_bytes(length));
        assert_eq!(bytes.len() as u32, (length + 8).next_multiple_of(8));
        assert_eq!(
            bytes[..8],
            plain_header_word(length, ValueType::BYTES).to_le_bytes()
        );
        let view = BufferView::parse(&bytes).unwrap();
        assert_eq!(
            (view.value(), view.value_type(), view.count()),
            (&value[..], ValueType::BYTES, 1)
        );
        assert_eq!(
            (view.time_ms(), view.key(), view.headers().count()),
            (None, None, 0)
        );
        assert_eq!(view.stored_bytes(), plain_stored_bytes(length));
        view.validate().unwrap();
    }
}

#[test]
fn the_padding_of_a_buffer_is_written_as_zeros_over_whatever_was_there() {
    let key = b"abc".as_slice();
    let fields = BufferFields {
        key: Some(key),
        ..BufferFields::plain(ValueType::UTF8, b"x")
    };
    let bytes = stored(&fields);
    assert_eq!(bytes.len(), 24);
    assert_eq!(bytes[15], 0);
    assert_eq!(bytes[17..], [0; 7]);
}

#[test]
fn a_word_of_zeros_is_no_buffer() {
    for length in 0..64 {
        assert!(BufferView::parse(&vec![0; length]).is_err());
    }
}

#[test]
fn an_empty_key_differs_from_no_key() {
    let fields = BufferFields {
        key: Some(b""),
        ..BufferFields::plain(ValueType::UTF8, b"x")
    };
    let bytes = stored(&fields);
    assert_eq!(BufferView::parse(&bytes).unwrap().key(), Some(&b""[..]));
}

#[test]
fn a_type_beyond_one_byte_travels_in_the_extension() {
    for number in [256, u64::MAX] {
        let bytes = stored(&BufferFields::plain(ValueType::new(number), b"x"));
        let view = BufferView::parse(&bytes).unwrap();
        assert_eq!(view.value_type(), ValueType::new(number));
        view.validate().unwrap();
    }
    // Unknown types of one byte are read like any other.
    let bytes = stored(&BufferFields::plain(ValueType::new(254), b"x"));
    assert_eq!(
        (bytes.len(), BufferView::parse(&bytes).unwrap().value_type().get()),
        (16, 254)
    );
}

#[test]
fn what_exceeds_a_limit_is_refused_before_it_is_written() {
    let long_key = vec![0; KEY_MAX + 1];
    let long_header = vec![0; HEADERS_MAX];
    let headers = [(&b"n"[..], &long_header[..])];
    let plain = BufferFields::plain(ValueType::BYTES, b"x");
    let cases = [
        (
            BufferFields {
                key: Some(&long_key),
                ..plain
            },
            Rule::Limit,
        ),
        (
            BufferFields {
                headers: &headers,
                ..plain
            },
            Rule::Limit,
        ),
        (BufferFields { count: 0, ..plain }, Rule::Zero),
        (
            BufferFields {
                value_type: ValueType::new(0),
                ..plain
            },
            Rule::Kind,
        ),
        (
            BufferFields {
                value_type: ValueType::new(255),
                ..plain
            },
            Rule::Kind,
        ),
    ];
    for (fields, rule) in cases {
        assert_eq!(fields.encoded_bytes().unwrap_err().rule, rule);
        assert_eq!(fields.encode(&mut [0; 64]).unwrap_err().rule, rule);
    }
    assert_eq!(plain.encode(&mut [0; 15]).unwrap_err().rule, Rule::NoRoom);
}

const KEY_MAX: usize = crate::limits::KEY_BYTES_MAX as usize;
const HEADERS_MAX: usize = crate::limits::HEADERS_BYTES_MAX as usize;

#[test]
fn the_largest_key_and_headers_fit_together() {
    let key = vec![1; KEY_MAX];
    let header = vec![2; HEADERS_MAX - 4 - 8 - 1];
    let headers = [(&b"n"[..], &header[..])];
    let fields = BufferFields {
        key: Some(&key),
        headers: &headers,
        time_ms: Some(-1),
        count: 2,
        ..BufferFields::plain(ValueType::new(1 << 40), b"value")
    };
    let bytes = stored(&fields);
    let view = BufferView::parse(&bytes).unwrap();
    view.validate().unwrap();
    assert_eq!(view.headers().collect::<Vec<_>>(), headers);
}

#[test]
fn hostile_lengths_and_flags_are_refused() {
    let parse = |header: [u8; 8]| {
        let mut bytes = header.to_vec();
        bytes.resize(64, 0);
        BufferView::parse(&bytes)
            .and_then(|view| view.validate())
            .unwrap_err()
            .rule
    };
    assert_eq!(
        parse([57, 0, 0, 0, 0, 0, 0, 1]),
        Rule::Truncated,
        "one byte more than there is"
    );
    assert_eq!(parse([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1]), Rule::Limit);
    assert_eq!(
        parse([0, 0, 0, 0, 0xFF, 0xFF, 1, 1]),
        Rule::Truncated,
        "extension longer than all"
    );
    assert_eq!(
        parse([0, 0, 0, 0, 1, 0, 0, 1]),
        Rule::Flags,
        "an extension that no flag speaks of"
    );
    assert_eq!(
        parse([0, 0, 0, 0, 1, 0, 3, 1]),
        Rule::Bounds,
        "two fields in room for one"
    );
    assert_eq!(parse([0, 0, 0, 0, 1, 0, 2, 1]), Rule::Zero, "a count of 0");
    assert_eq!(parse([0, 0, 0, 0, 1, 0, 32, 1]), Rule::Flags);
    assert_eq!(
        parse([0, 0, 0, 0, 1, 0, 4, 1]),
        Rule::Flags,
        "extended type without type 255"
    );
    assert_eq!(
        parse([0, 0, 0, 0, 0, 0, 0, 255]),
        Rule::Flags,
        "type 255 without its flag"
    );
    assert_eq!(parse([0, 0, 0, 0, 1, 0, 4, 255]), Rule::Kind, "extended type 0");
    assert_eq!(
        parse([0, 0, 0, 0, 2, 0, 8, 1]),
        Rule::Bounds,
        "a word of the extension unused"
    );
    assert_eq!(
        parse([0, 0, 0, 0, 1, 0, 16, 1]),
        Rule::Zero,
        "no header in spite of the flag"
    );
}

#[test]
fn hostile_keys_and_headers_answer_nothing_and_do_not_validate() {
    let header = [0, 0, 0, 0, 2, 0, 8 | 16, 1];
    let with = |extension: [u32; 4]| {
        let mut bytes = header.to_vec();
        bytes.extend(extension.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    };
    let key_too_long = with([13, 0, 0, 0]);
    let view = BufferView::parse(&key_too_long).unwrap();
    assert_eq!((view.key(), view.headers().count()), (None, 0));
    assert_eq!(view.validate().unwrap_err().rule, Rule::Truncated);
    let key_over_limit = with([u32::MAX, 0, 0, 0]);
    assert_eq!(
        BufferView::parse(&key_over_limit)
            .unwrap()
            .validate()
            .unwrap_err()
            .rule,
        Rule::Limit
    );
    let too_many = with([0, u32::MAX, 0, 0]);
    let view = BufferView::parse(&too_many).unwrap();
    assert_eq!(view.headers().count(), 1);
    assert_eq!(view.validate().unwrap_err().rule, Rule::Count);
    let too_long = with([0, 1, u32::MAX, u32::MAX]);
    let view = BufferView::parse(&too_long).unwrap();
    assert_eq!(
        (view.headers().count(), view.validate().unwrap_err().rule),
        (0, Rule::Count)
    );
}

#[test]
fn a_walk_ends_with_the_body_or_behind_the_first_error() {
    let mut body = Vec::new();
    for value in [&b"one"[..], b"", b"twelve bytes"] {
        body.extend(stored(&BufferFields::plain(ValueType::BYTES, value)));
    }
    let positions: Vec<u32> = walk(&body).map(|step| step.unwrap().0).collect();
    assert_eq!(positions, [0, 16, 24]);
    for end in 0..body.len() {
        let whole = positions
            .iter()
            .skip(1)
            .chain([&48])
            .filter(|next| **next as usize <= end)
            .count();
        let torn = usize::from(!matches!(end, 0 | 16 | 24));
        let steps: Vec<_> = walk(&body[..end]).collect();
        assert_eq!(
            steps.iter().filter(|step| step.is_ok()).count(),
            whole,
            "cut at {end}"
        );
        assert_eq!(steps.len(), whole + torn, "cut at {end}");
    }
    body[23] = 0;
    body.truncate(24);
    let error = walk(&body).last().unwrap().unwrap_err();
    assert_eq!((error.rule, error.at), (Rule::Zero, 16 + 7));
}

prop_compose! {
    fn any_parts()(
        number in prop_oneof![1_u64..255, 256_u64..=u64::MAX],
        time_ms in any::<Option<i64>>(),
        count in prop_oneof![Just(1_u64), 1..=u64::MAX],
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
        headers in proptest::collection::vec((
            proptest::collection::vec(any::<u8>(), 0..9),
            proptest::collection::vec(any::<u8>(), 0..9),
        ), 0..4),
        value in proptest::collection::vec(any::<u8>(), 0..100),
    ) -> Parts {
        Parts { number, time_ms, count, key, headers, value }
    }
}

#[derive(Debug)]
struct Parts {
    number: u64,
    time_ms: Option<i64>,
    count: u64,
    key: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    value: Vec<u8>,
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(parts in any_parts(), behind in proptest::collection::vec(any::<u8>(), 0..20)) {
        let headers: Vec<(&[u8], &[u8])> =
            parts.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let fields = BufferFields {
            value_type: ValueType::new(parts.number),
            time_ms: parts.time_ms,
            count: parts.count,
            key: parts.key.as_deref(),
            headers: &headers,
            value: &parts.value,
        };
        let mut bytes = stored(&fields);
        let length = bytes.len();
        bytes.extend(behind);
        let view = BufferView::parse(&bytes).unwrap();
        view.validate().unwrap();
        prop_assert_eq!(view.stored_bytes() as usize, length);
        prop_assert_eq!(view.value_type().get(), parts.number);
        prop_assert_eq!(view.time_ms(), parts.time_ms);
        prop_assert_eq!(view.count(), parts.count);
        prop_assert_eq!(view.key(), parts.key.as_deref());
        prop_assert_eq!(view.headers().collect::<Vec<_>>(), headers);
        prop_assert_eq!(view.value(), &parts.value[..]);
        for cut in 0..length.saturating_sub(7) {
            prop_assert!(BufferView::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_a_walk_panic_or_leave_its_body(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut end = 0;
        for (position, view) in walk(&body).flatten() {
            prop_assert_eq!(position, end);
            end = position + view.stored_bytes();
            prop_assert!(end as usize <= body.len());
            view.headers().for_each(drop);
            let _unused = (view.key(), view.validate());
        }
    }
}
