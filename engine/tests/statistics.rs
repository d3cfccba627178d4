//! Promise: what a log, or any range of its offsets or times, holds is known without reading it: counts, bytes and types of
//! a range of offsets are exact whatever was deleted, forked or put together, and after opening; those of a range of times
//! are off by what the slabs at its two ends hold, at most.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::BTreeSet;

use common::model::Random;
use common::{MovedClock, lives, memory, open_on, small};
use lanterman::{Durability, LogSummary, NewMessage, Snapshot, Store, ValueType};

/// Length of value and key, and the type, of the message at each offset that is there.
type Model = Vec<Option<(usize, usize, u64)>>;

fn append(store: &Store, random: &mut Random, name: &str, model: &mut Model, count: u64) {
    let mut writer = store.writer(name).unwrap();
    for _ in 0..count {
        let value = vec![7; random.below(900) as usize];
        let key = vec![8; random.below(20) as usize];
        let number = [1, 2, 6, 40, 1_000][random.below(5) as usize];
        let message = NewMessage::new(&value)
            .key(&key)
            .value_type(ValueType::new(number));
        writer.append_message(&message).unwrap();
        model.push(Some((value.len(), key.len(), number)));
    }
    writer.commit(Durability::Disk).unwrap();
}

fn check(snapshot: &Snapshot, model: &Model, range: std::ops::Range<usize>) {
    let found = snapshot.summary_of(range.start as u64..range.end as u64).unwrap();
    let held: Vec<_> = model[range.clone()].iter().flatten().collect();
    let values: usize = held.iter().map(|(value, _, _)| value).sum();
    let keys: usize = held.iter().map(|(_, key, _)| key).sum();
    assert_eq!(
        (found.messages(), found.value_bytes(), found.key_bytes()),
        (held.len() as u64, values as u64, keys as u64),
        "{range:?}"
    );
    assert!(found.is_exact(), "{range:?}");
    let behind_start = range
        .end
        .saturating_sub(range.start.max(snapshot.start().get() as usize));
    assert_eq!(found.deleted(), (behind_start - held.len()) as u64, "{range:?}");
    for (_, _, number) in held {
        let is_named = found.value_types().any(|known| known.get() == *number);
        assert!(
            is_named || (*number > 62 && found.has_other_value_types()),
            "{range:?}: {number}"
        );
    }
}

fn check_ranges(store: &Store, random: &mut Random, name: &str, model: &Model) {
    let snapshot = store.snapshot(name).unwrap();
    check(&snapshot, model, 0..model.len());
    for _ in 0..30 {
        let start = random.below(model.len() as u64 + 1) as usize;
        let end = start + random.below((model.len() - start) as u64 + 1) as usize;
        check(&snapshot, model, start..end);
    }
}

#[test]
fn ranges_of_offsets_are_counted_exactly_whatever_became_of_the_log() {
    for seed in 1..8 {
        let mut random = Random::from_seed(seed);
        let disk = memory();
        let store = open_on(disk.clone());
        let mut model = Model::new();
        for turn in 0..6 {
            append(&store, &mut random, "events", &mut model, 250);
            let first = random.below(model.len() as u64);
            let end = (first + random.below(60)).min(model.len() as u64);
            store.delete("events", first..end).unwrap();
            model[first as usize..end as usize].fill(None);
            check_ranges(&store, &mut random, "events", &model);
            if turn == 3 {
                store.checkpoint().unwrap();
                store.collect().unwrap();
            }
        }
        store.fork("events", "fork").unwrap();
        let taken = model.len() as u64 / 3;
        store.splice("fork", "events", taken..taken * 2).unwrap();
        let mut of_fork = model.clone();
        of_fork.extend_from_slice(&model[taken as usize..taken as usize * 2]);
        check_ranges(&store, &mut random, "fork", &of_fork);
        for (_, store) in lives(&disk, store) {
            check_ranges(&store, &mut random, "events", &model);
            check_ranges(&store, &mut random, "fork", &of_fork);
        }
    }
}

#[test]
fn a_range_behind_the_end_is_refused_and_one_before_the_start_is_empty() {
    let store = open_on(memory());
    let mut model = Model::new();
    append(&store, &mut Random::from_seed(1), "events", &mut model, 20);
    store.delete("events", 0..10).unwrap();
    let snapshot = store.snapshot("events").unwrap();
    assert!(snapshot.summary_of(5..21).is_err());
    for range in [0..7, 3..3, 20..20] {
        let found = snapshot.summary_of(range).unwrap();
        assert_eq!((found.messages(), found.deleted()), (0, 0));
    }
    #[allow(clippy::reversed_empty_ranges, reason = "that is the case")]
    let reversed = snapshot.summary_of(15..12).unwrap();
    assert_eq!(reversed.messages(), 0);
    assert_eq!(snapshot.summary_of(..).unwrap().messages(), 10);
}

#[test]
fn sizes_and_percentiles_are_those_of_the_values_to_a_factor_of_two() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for number in 0..100usize {
        writer
            .append(&vec![1; if number < 90 { 100 } else { 5_000 }])
            .unwrap();
    }
    let found = store.snapshot("events").unwrap().summary().unwrap();
    assert_eq!(found.distinct_keys(), Some(0));
    assert_eq!(found.value_sizes().collect::<Vec<_>>(), [(127, 90), (8_191, 10)]);
    assert_eq!(found.value_bytes_percentile(90), Some(127));
    assert_eq!(found.value_bytes_percentile(91), Some(8_191));
    let none: Option<LogSummary> = store
        .create_log("empty")
        .ok()
        .and_then(|()| store.snapshot("empty").ok()?.summary().ok());
    assert_eq!(none.and_then(|none| none.value_bytes_percentile(50)), None);
}

const BEGIN_MS: i64 = 1_700_000_000_000;
/// Messages of 100 bytes in a slab of 64 KiB.
const SLAB_MESSAGES: i64 = 620;

#[test]
fn ranges_of_times_are_right_but_for_the_slabs_at_their_ends() {
    let disk = memory();
    let clock = MovedClock::at(BEGIN_MS);
    let open = || {
        let options = small().clock(clock.clone()).disk(disk.clone());
        options.open_copying(common::PATH).unwrap()
    };
    let store = open();
    let count = 12_000i64;
    let mut writer = store.writer("events").unwrap();
    for number in 0..count {
        clock.set(BEGIN_MS + number * 10);
        writer.append(&[3; 100]).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    let check = |store: &Store| {
        let snapshot = store.snapshot("events").unwrap();
        let everything = snapshot.summary_between(i64::MIN..=i64::MAX).unwrap();
        assert_eq!(everything.messages(), count as u64);
        let before = snapshot.summary_between(0..=BEGIN_MS - 1).unwrap();
        assert_eq!((before.messages(), before.is_exact()), (0, true));
        let mut random = Random::from_seed(5);
        for _ in 0..50 {
            let first = random.below(count as u64) as i64;
            let last = first + random.below((count - first) as u64) as i64;
            let times_ms = BEGIN_MS + first * 10..=BEGIN_MS + last * 10;
            let found = snapshot.summary_between(times_ms).unwrap().messages() as i64;
            let wrong = (found - (last - first + 1)).abs();
            assert!(wrong <= 2 * SLAB_MESSAGES, "{first} to {last}: {found}");
        }
        // Each message lies in one of the parts.
        let parts = (0..10).map(|part| {
            let begin = BEGIN_MS + part * count;
            let times_ms = begin..=begin + count - 1;
            snapshot.summary_between(times_ms).unwrap().messages() as i64
        });
        let wrong = (parts.sum::<i64>() - count).abs();
        assert!(wrong <= SLAB_MESSAGES, "off by {wrong}");
    };
    check(&store);
    store.close().unwrap();
    check(&open());
}

/// The number of the key of each message, if it is there and has one.
type Keys = Vec<Option<u64>>;

fn append_keys(store: &Store, random: &mut Random, name: &str, keys: &mut Keys, count: u64) {
    let mut writer = store.writer(name).unwrap();
    for _ in 0..count {
        let key = (random.below(5) > 0).then(|| random.below(3_000));
        let bytes = key.map(u64::to_be_bytes);
        let mut message = NewMessage::new(&[7; 100]);
        if let Some(bytes) = &bytes {
            message = message.key(bytes);
        }
        writer.append_message(&message).unwrap();
        keys.push(key);
    }
    writer.commit(Durability::Disk).unwrap();
}

/// `cut` keys of what was deleted at the edges of slabs may be there.
fn check_keys(store: &Store, seed: u64, random: &mut Random, name: &str, keys: &Keys, cut: u64) {
    let snapshot = store.snapshot(name).unwrap();
    let length = keys.len() as u64;
    for number in 0..20 {
        let start = if number == 0 { 0 } else { random.below(length + 1) };
        let range = match number {
            0 => 0..length,
            _ => start..start + random.below(length - start + 1),
        };
        let held = keys[range.start as usize..range.end as usize].iter().flatten();
        let expected = held.collect::<BTreeSet<_>>().len() as u64;
        let found = snapshot
            .summary_of(range.clone())
            .unwrap()
            .distinct_keys()
            .unwrap();
        // Three standard errors, and of a few keys hardly any.
        let (least, most) = (expected * 90 / 100, (expected + cut) * 110 / 100 + 2);
        assert!(
            (least..=most).contains(&found),
            "seed {seed}, {name}, {range:?}: {found} for {expected}"
        );
    }
    let ever = snapshot.summary_between(i64::MIN..=i64::MAX).unwrap();
    assert_eq!(ever.distinct_keys(), snapshot.summary().unwrap().distinct_keys());
}

#[test]
fn any_range_tells_about_how_many_different_keys_it_has_whatever_became_of_the_log() {
    for seed in 1..4 {
        let mut random = Random::from_seed(seed);
        let disk = memory();
        let store = open_on(disk.clone());
        let mut keys = Keys::new();
        append_keys(&store, &mut random, "events", &mut keys, 6_000);
        check_keys(&store, seed, &mut random, "events", &keys, 0);
        store.checkpoint().unwrap();
        append_keys(&store, &mut random, "events", &mut keys, 3_000);
        check_keys(&store, seed, &mut random, "events", &keys, 0);
        store.fork("events", "fork").unwrap();
        store.splice("fork", "events", 1_000..5_000).unwrap();
        let mut of_fork = keys.clone();
        of_fork.extend_from_slice(&keys[1_000..5_000]);
        store.delete("events", 2_000..7_000).unwrap();
        keys[2_000..7_000].fill(None);
        // A slab has 64 KiB, and some 480 messages of this size.
        let cut = 2 * 240;
        check_keys(&store, seed, &mut random, "events", &keys, cut);
        check_keys(&store, seed, &mut random, "fork", &of_fork, cut);
        for (_, store) in lives(&disk, store) {
            check_keys(&store, seed, &mut random, "events", &keys, cut);
            check_keys(&store, seed, &mut random, "fork", &of_fork, cut);
        }
    }
}

#[test]
fn messages_in_memory_are_counted_by_their_own_times() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for time_ms in [50, 10, 30, 20, 40] {
        writer
            .append_message(&NewMessage::new(b"value").time_ms(time_ms))
            .unwrap();
    }
    let snapshot = store.snapshot("events").unwrap();
    let found = snapshot.summary_between(20..=40).unwrap();
    assert_eq!((found.messages(), found.is_exact()), (3, true));
}

#[test]
fn counters_say_what_was_committed_written_and_held() {
    let store = open_on(memory());
    assert_eq!(store.counters().versions_written, 0);
    let mut model = Model::new();
    append(&store, &mut Random::from_seed(1), "events", &mut model, 500);
    let mut writer = store.writer("events").unwrap();
    writer.append(b"one more").unwrap();
    writer.commit(Durability::Process).unwrap();
    // There is nothing to commit.
    writer.commit(Durability::Process).unwrap();
    store
        .transaction(|transaction| {
            transaction.append("events", b"first")?;
            transaction.append("other", b"second")
        })
        .unwrap();
    let held = store.snapshot("events").unwrap();
    let syncs = store.counters().syncs;
    writer.append(b"appended and not committed").unwrap();
    assert_eq!(store.counters().messages_appended, 504);
    assert_eq!(store.counters().syncs, syncs, "an append syncs nothing");
    store.delete("events", 0..400).unwrap();
    store.checkpoint().unwrap();
    let counters = store.counters();
    // The edit commits what was appended before it.
    assert_eq!(counters.messages_committed, 504);
    assert_eq!(counters.messages_appended, 504);
    // Each durable version is one, each checkpoint two and those of its blocks.
    assert!(counters.syncs >= 3 + 2, "{} syncs", counters.syncs);
    assert_eq!((counters.commits, counters.groups), (4, 4));
    assert_eq!(counters.group_sizes, [4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        (counters.versions_written, counters.durable_versions_written),
        (4, 3)
    );
    assert_eq!((counters.checkpoints, counters.pins), (1, 1));
    assert_eq!(counters.collected_bytes, 0);
    drop(held);
    let collected = store.collect().unwrap();
    let counters = store.counters();
    assert_eq!(
        counters.collected_bytes,
        collected.punched_bytes + collected.segment_bytes
    );
    assert!(counters.collected_bytes > 0 && counters.pins == 0);
    let text = counters.to_prometheus();
    let named = |line: &&str| line.starts_with("lanterman_");
    // 29 numbers, and a histogram of eight sizes with its sum and count.
    assert_eq!(text.lines().filter(named).count(), 29 + 8 + 2);
    assert!(text.contains("\nlanterman_commit_group_commits_bucket{le=\"+Inf\"} 4\n"));
    assert!(text.contains("\nlanterman_messages_committed_total 504\n"));
}
