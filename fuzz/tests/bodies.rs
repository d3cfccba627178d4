//! Promise: no bytes make a decoder or an opening store panic, hang or give wrong bytes. Shown by running every fuzz body
//! over the saved corpus and over inputs from fixed seeds; a planted mistake shows that this way finds mistakes.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test's numbers are small, and it fails by panicking"
)]

use std::panic::catch_unwind;
use std::path::Path;

use lanterman_fuzz::choices::Seeded;
use lanterman_fuzz::{TARGETS, Target, canary, model};

/// The input of a seed: any bytes, or few different ones, which gets further into decoders.
fn input(seed: u64, bytes_max: u64) -> Vec<u8> {
    let mut seeded = Seeded::new(seed);
    let bytes = seeded.below(bytes_max + 1) as usize;
    let sparse = seeded.below(2) == 0;
    let mut input = seeded.bytes(bytes);
    if sparse {
        let mut numbers = Seeded::new(!seed);
        input
            .iter_mut()
            .for_each(|byte| *byte = if numbers.below(8) == 0 { *byte % 17 } else { 0 });
    }
    input
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

fn over_corpus_and_seeds(target: &Target) {
    let saved = corpus(target.name);
    assert!(!saved.is_empty(), "target {} has no corpus", target.name);
    for (file, input) in saved {
        assert!(
            catch_unwind(|| (target.body)(&input)).is_ok(),
            "target {}: {file} fails",
            target.name
        );
    }
    for seed in 0..target.seeds {
        let input = input(seed, target.input_bytes_max);
        assert!(
            catch_unwind(|| (target.body)(&input)).is_ok(),
            "target {}: seed {seed} fails",
            target.name
        );
    }
}

#[test]
fn no_decoder_panics_over_corpus_and_seeds() {
    TARGETS
        .iter()
        .filter(|target| target.name != "open_mutated")
        .for_each(over_corpus_and_seeds);
}

#[test]
fn a_store_with_changed_files_gives_errors_or_the_same_answers() {
    TARGETS
        .iter()
        .filter(|target| target.name == "open_mutated")
        .for_each(over_corpus_and_seeds);
}

#[test]
fn the_saved_decisions_of_the_model_hold() {
    for (file, input) in corpus("model") {
        let done = catch_unwind(|| model::run(&input)).unwrap_or_else(|_| panic!("{file} fails"));
        // Those that were written by hand reach what they are there for.
        let reaches = |part: &str| file.contains(part);
        assert!(!reaches("keyed") || done.compacted > 100, "{file}: {done:?}");
        assert!(!reaches("constrained") || done.refused > 0, "{file}: {done:?}");
        let messages = if reaches("zstd") || reaches("lz4") { 100 } else { 0 };
        assert!(done.messages >= messages, "{file}: {done:?}");
    }
}

#[test]
fn a_planted_mistake_is_found() {
    let found = (0..5000).find(|seed| catch_unwind(|| canary::wrong_decoder(&input(*seed, 300))).is_err());
    assert!(found.is_some(), "the harness looks at nothing");
}

/// Run by hand when the format changes: `cargo test -p lanterman-fuzz --test bodies -- --ignored`.
/// Seeds of what keyed logs have.
fn save_keys(save: &dyn Fn(&str, &str, &[u8])) {
    use lanterman_format::compressed_batch::{self, Codec};
    use lanterman_format::key_page::{KeyFilterBuilder, KeyPageBuilder, KeyPlace};
    use lanterman_format::large_value::{LargeValue, ValuePart};
    use lanterman_format::settings::{KeyedSettings, Settings};
    use lanterman_format::{BufferFields, ValueType};

    let keyed = Settings {
        keyed: Some(KeyedSettings {
            space_amplification_percent: 150,
            marker_grace_ms: 1000,
        }),
        ..Settings::default()
    };
    save("settings", "keyed", &keyed.encode().unwrap());
    let mut leaf = KeyPageBuilder::leaf();
    let mut inner = KeyPageBuilder::inner();
    for number in 0..40_u64 {
        let key = format!("key {:02}", number / 3);
        let place = KeyPlace {
            offset: 100 - number,
            stored_bytes: number * 8,
            is_marker: number == 7,
        };
        leaf.push_place(key.as_bytes(), place);
        inner.push_page(key.as_bytes(), number);
    }
    let large = LargeValue {
        value_type: ValueType::BYTES,
        parts: vec![ValuePart::of(b"abc", 9), ValuePart::of(b"defg", 2)],
    };
    save("large_value", "two", &large.encode().unwrap());
    for codec in [Codec::Lz4, Codec::Zstd] {
        let fields = BufferFields::plain(ValueType::UTF8, b"messages that are alike");
        let mut body = vec![0; 32 * 20];
        for out in body.chunks_mut(32) {
            fields.encode(out).unwrap();
        }
        let value = compressed_batch::compress(codec, 1, &body).unwrap().unwrap();
        save(
            "compressed_batch",
            &format!("{codec:?}"),
            &[&[19], &value[..]].concat(),
        );
        save(
            "compressed_batch",
            &format!("{codec:?}-bare"),
            &[&[19], &value[16..]].concat(),
        );
    }
    save("key_page", "leaf", &leaf.finish().unwrap());
    save("key_page", "inner", &inner.finish().unwrap());
    let mut filter = KeyFilterBuilder::new(100, 2);
    (0..100).for_each(|number: u64| filter.add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    save("key_page", "filter", &filter.pages().next().unwrap());
}

/// Decisions of the model that lead straight to keys, rules and compression; the numbers are those of the acts.
fn save_decisions(save: &dyn Fn(&str, &str, &[u8])) {
    const COMMIT_ALL: &[u8] = &[18, 0];
    const CHECKPOINT: &[u8] = &[27];
    const STEP: &[u8] = &[28];
    const COMPACT: &[u8] = &[59, 0];
    const LOOK_UP: &[u8] = &[61, 0, 0];
    // A power cut that loses what is not synced, and the store opened again.
    const CRASH: &[u8] = &[37, 1, 0, 0, 0, 0];
    let begin: &[u8] = &[0, 0];
    let put = |seed: u8| [44, 0, 0, seed, 99];
    let put_in_a_transaction = |seed: u8| [&[51, 0, 0, seed, 11][..], &[0; 12]].concat();
    let snapshot = |number: u8| [21, number];
    let mut keyed = [begin, &[53, 1, 4]].concat();
    for seed in 0..8 {
        keyed.extend(put(seed));
        // Many of many keys.
        keyed.extend([48, 0, 0, seed, 1, 99]);
        keyed.extend([COMMIT_ALL, CHECKPOINT, STEP, LOOK_UP].concat());
        keyed.extend(snapshot(1));
        keyed.extend([COMPACT, LOOK_UP, &[22, 0]].concat());
        keyed.extend(if seed % 3 == 2 { CRASH } else { &[] });
    }
    save("model", "keyed", &keyed);
    for set in 0..8 {
        let mut constrained = [begin, &[30, 2, 55, 2, set]].concat();
        for seed in 0..4 {
            constrained.extend(put(seed));
            constrained.extend([49, 0, 0, seed, 9]);
            constrained.extend(put_in_a_transaction(seed));
            constrained.extend([COMMIT_ALL, if seed == 2 { CRASH } else { &[] }].concat());
        }
        save("model", &format!("constrained-{set}"), &constrained);
    }
    for (name, compression) in [("lz4", 2), ("zstd", 6)] {
        // Keyed as well, so that compactions write compressed slabs anew.
        let mut compressed = [begin, &[53, 3, 4, 58, 3, 3 << 4 | compression]].concat();
        for seed in 0..6 {
            compressed.extend(put(seed));
            compressed.extend([COMMIT_ALL, CHECKPOINT, STEP, &[26, 3, 1, 2, 3, 5, 8, 13, 21, 34]].concat());
            compressed.extend(if seed % 2 == 1 { COMPACT } else { LOOK_UP });
            compressed.extend(if seed == 3 { &[58, 3, 0] } else { CRASH });
        }
        save("model", name, &compressed);
    }
}

#[test]
#[ignore = "writes the corpus, from a store of the present format"]
fn the_corpus_is_made_from_a_small_store() {
    use lanterman_format::block::{BlockKind, Place, decode_block_header};
    use lanterman_format::ids::{Position, Version};
    use lanterman_format::segment::SegmentHeader;
    use lanterman_format::settings::{ConstraintSettings, Retention, Settings, SnapshotSettings};
    let save = |target: &str, name: &str, bytes: &[u8]| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    };
    let mut counts = std::collections::HashMap::new();
    for (path, bytes) in lanterman_fuzz::store::golden_files() {
        if path.ends_with("root") {
            save("root_slots", "golden", &bytes);
            continue;
        }
        let Some(header) = SegmentHeader::decode(&bytes, None).valid() else {
            continue;
        };
        save(
            "segment_header",
            &format!("golden-{}", header.segment),
            &bytes[..160],
        );
        for scanned in lanterman_format::scan::scan_from(&bytes, &header, Position::new(4096)) {
            let Some(found) = scanned.found.valid() else {
                continue;
            };
            let target = match found.kind {
                BlockKind::Commit => "commit",
                BlockKind::Slab => "slab",
                BlockKind::Node => "tree_node",
                BlockKind::Checkpoint => "checkpoint",
                BlockKind::Gathered => "gathered_tails",
                BlockKind::CatalogPage => "catalog_page",
                _ => continue,
            };
            let count: &mut u32 = counts.entry(target).or_default();
            let start = scanned.position.get() as usize;
            let block = &bytes[start..start + found.block_bytes as usize];
            if *count < 3 && block.len() < 20_000 {
                *count += 1;
                save(target, &format!("golden-{count}"), &block[64..]);
                save("block_header", target, &block[..64]);
            }
            if target == "gathered_tails" {
                save(target, "golden", &block[64..128]);
                // The first of the slabs that are gathered stands right behind.
                let place = Place {
                    store: found.identity.store,
                    segment: found.identity.segment,
                    generation: found.identity.generation,
                    position: Position::new(scanned.position.get() + 128),
                };
                if let Some(slab) = decode_block_header(&block[128..], &place).valid() {
                    save("slab", "gathered", &block[192..128 + slab.block_bytes as usize]);
                }
            }
        }
        if bytes.len() <= 64 << 10 {
            save("segment_scan", "golden", &bytes[..bytes.len().min(24 << 10)]);
        }
    }
    save(
        "buffer",
        "plain",
        &[5, 0, 0, 0, 0, 0, 0, 1, 104, 101, 108, 108, 111, 0, 0, 0],
    );
    let retention = Retention {
        max_age_ms: Some(86_400_000),
        max_value_bytes: Some(1 << 30),
        max_messages: None,
    };
    let snapshot = SnapshotSettings {
        label: "monday".to_owned(),
        version: Version::new(7),
        time_ms: 1_700_000_000_000,
        automatic: false,
    };
    let constraints = ConstraintSettings {
        version: 2,
        document: r#"{"rules":[{"name":"keyed","require":"key"}]}"#.to_owned(),
    };
    for (name, retention, snapshot, constraints) in [
        ("retention", retention, None, None),
        ("snapshot", Retention::default(), Some(snapshot.clone()), None),
        ("both", retention, Some(snapshot), None),
        ("constraints", Retention::default(), None, Some(constraints)),
    ] {
        let settings = Settings {
            retention,
            snapshot,
            constraints,
            ..Settings::default()
        };
        save("settings", name, &settings.encode().unwrap());
    }
    save_keys(&save);
    save_decisions(&save);
    save("names", "file", b"0000000000000001.journal");
    save("names", "path", "../\u{e9}/log".as_bytes());
    for seed in 0..3 {
        save(
            "open_mutated",
            &format!("seed-{seed}"),
            &Seeded::new(seed).bytes(24),
        );
        save("model", &format!("seed-{seed}"), &Seeded::new(seed).bytes(900));
    }
    save("canary", "small", &[3, 1, 2, 3]);
}
