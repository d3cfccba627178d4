//! Tests of pages of key runs: what is written is found again, and wrong pages are refused.

use super::*;

fn place(offset: u64) -> KeyPlace {
    KeyPlace {
        offset,
        stored_bytes: offset * 8,
        is_marker: offset.is_multiple_of(3),
    }
}

fn leaf(keys: &[(&[u8], u64)]) -> Vec<u8> {
    let mut builder = KeyPageBuilder::leaf();
    keys.iter()
        .for_each(|(key, offset)| builder.push_place(key, place(*offset)));
    builder.finish().unwrap()
}

fn key_of(entry: &KeyEntry<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    entry.copy_key(&mut key);
    key
}

#[test]
fn entries_are_found_as_they_were_pushed() {
    let keys: Vec<(Vec<u8>, u64)> = (0..200_u64)
        .map(|number| (format!("user {:03}", number / 2 * 2).into_bytes(), 1000 - number))
        .collect();
    let borrowed: Vec<(&[u8], u64)> = keys
        .iter()
        .map(|(key, offset)| (key.as_slice(), *offset))
        .collect();
    let page = leaf(&borrowed);
    let view = KeyPageView::leaf(&page).unwrap();
    let all: Vec<_> = view.entries().map(Result::unwrap).collect();
    assert_eq!(all.len(), keys.len());
    for (entry, (key, offset)) in all.iter().zip(&keys) {
        assert_eq!((&key_of(entry), entry.place()), (key, place(*offset)));
    }
    for wanted in 0..202_u64 {
        let wanted = format!("user {wanted:03}").into_bytes();
        let expected = keys
            .iter()
            .find(|(key, _)| *key >= wanted)
            .map(|(_, offset)| *offset);
        let found = view.entries_from(&wanted).unwrap().next();
        let found = found.map(|entry| entry.unwrap().place().offset);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&wanted));
    }
    assert_eq!(view.entries_from(b"").unwrap().count(), 200);
    assert_eq!(view.entries_from(b"v").unwrap().count(), 0);
}

#[test]
fn an_inner_page_leads_to_where_the_first_entry_may_be() {
    let mut builder = KeyPageBuilder::inner();
    // "m" goes on from page 1 over all of page 2.
    for (page, key) in [b"a", b"g", b"m", b"m", b"t"].iter().enumerate() {
        builder.push_page(*key, page as u64);
    }
    let page = builder.finish().unwrap();
    let view = KeyPageView::inner(&page).unwrap();
    let cases: [(&[u8], u64); 7] = [
        (b"", 0),
        (b"a", 0),
        (b"b", 0),
        (b"g", 0),
        (b"m", 1),
        (b"n", 3),
        (b"z", 4),
    ];
    for (key, expected) in cases {
        assert_eq!(
            view.page_for(key).unwrap(),
            expected,
            "{}",
            String::from_utf8_lossy(key)
        );
    }
    assert_eq!(KeyPageView::leaf(&page).unwrap_err().rule, Rule::Kind);
}

#[test]
fn empty_and_long_keys_have_their_place() {
    let long = vec![0xFF_u8; 64 << 10];
    let page = leaf(&[(b"", 5), (b"\0", 4), (&long, 3)]);
    let view = KeyPageView::leaf(&page).unwrap();
    let keys: Vec<_> = view.entries().map(|entry| key_of(&entry.unwrap())).collect();
    assert_eq!(keys, [b"".to_vec(), b"\0".to_vec(), long.clone()]);
    assert_eq!(view.entries_from(&long).unwrap().count(), 1);
    assert_eq!(view.entries_from(b"\0\0").unwrap().count(), 1);
}

#[test]
fn a_page_that_is_cut_or_changed_is_refused_or_read_within_its_bounds() {
    let page = leaf(&[(b"alpha", 300), (b"beta", 200), (b"beta", 1 << 40)]);
    for length in 0..page.len() {
        let cut = &page[..length];
        let failed = match KeyPageView::leaf(cut) {
            Err(_) => true,
            Ok(view) => view.entries().any(|entry| entry.is_err()),
        };
        assert!(failed, "cut to {length}");
    }
    for at in 0..page.len() {
        for bit in 0..8 {
            let mut changed = page.clone();
            changed[at] ^= 1 << bit;
            // No claim but that it ends, and without a panic.
            if let Ok(view) = KeyPageView::leaf(&changed) {
                assert!(view.entries().count() <= changed.len());
                let _ = view.entries_from(b"beta").map(Iterator::count);
                let _ = view.page_for(b"beta");
            }
        }
    }
}

#[test]
fn numbers_of_every_length_are_read_back_and_longer_ones_refused() {
    for bits in 0..64 {
        for number in [1_u64 << bits, (1 << bits) - 1, u64::MAX >> bits] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, number);
            assert_eq!(varint(&bytes, 0), Ok((number, bytes.len())));
        }
    }
    assert_eq!(varint(&[0xFF; 11], 0).unwrap_err().rule, Rule::Limit);
    assert_eq!(varint(&[0x80; 11], 0).unwrap_err().rule, Rule::Truncated);
    assert_eq!(varint(&[0x80], 0).unwrap_err().rule, Rule::Truncated);
}

#[test]
fn a_filter_has_what_was_added_and_little_else() {
    let hashes = |from: u64| (from..from + 5000).map(|number| key_hash(&number.to_le_bytes()));
    let mut filter = KeyFilterBuilder::new(5000, u64::MAX);
    hashes(0).for_each(|hash| filter.add(hash));
    let pages: Vec<_> = filter.pages().collect();
    let has = |hash| {
        let (page, block) = filter_place(hash, filter.block_count());
        filter_has(&pages[usize::try_from(page).unwrap()], block, hash).unwrap()
    };
    assert!(hashes(0).all(has));
    let wrong = hashes(1 << 32).filter(|hash| has(*hash)).count();
    assert!(wrong < 150, "{wrong} of 5000");
    assert_eq!(filter_has(&pages[0], 63, 1).unwrap_err().rule, Rule::Bounds);
    assert_eq!(
        filter_has(&pages[0][..100], 5, 1).unwrap_err().rule,
        Rule::Truncated
    );
    assert_eq!(KeyFilterBuilder::new(1 << 40, 10).block_count(), 10);
    assert_eq!(KeyFilterBuilder::new(0, 0).block_count(), 1);
}

#[test]
fn the_hash_of_a_key_is_the_published_one() {
    // Of no bytes and seed 0: https://github.com/Cyan4973/xxHash, sanity tests of XXH3_64bits.
    assert_eq!(key_hash(b""), 0x2D06_8005_38D3_94C2);
}
