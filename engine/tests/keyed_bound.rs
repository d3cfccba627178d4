//! Promise: however long puts go on, whatever keys come, the background keeps the messages of a keyed log to their bound, and
//! what it has left of those that are superseded is still there for who deletes what superseded them.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;

use common::model::Random;
use common::{MovedClock, memory, small};
use lanterman::{Durability, Keyed, NewMessage};

const LOG: &str = "table";
const KEYS: u64 = 3_000;
/// What may wait in memory beside what the bound is about: a slab, with some hundred messages.
const IN_MEMORY: u64 = (64 << 10) / 128;

#[test]
fn the_bound_holds_for_keys_in_any_order_and_older_messages_come_back_when_newer_ones_are_deleted() {
    let clock = MovedClock::at(1_700_000_000_000);
    let store = small()
        .clock(clock.clone())
        .disk(memory())
        .open_copying(common::PATH)
        .unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut writer = store.writer(LOG).unwrap();
    let mut random = Random::from_seed(7);
    let mut seen = std::collections::HashSet::new();
    for number in 1..=60_000_u64 {
        let key = random.below(KEYS);
        seen.insert(key);
        let key = format!("key {key:08}");
        writer
            .append_message(&NewMessage::new(&[1; 100]).key(key.as_bytes()))
            .unwrap();
        if number % 200 != 0 {
            continue;
        }
        writer.commit(Durability::Disk).unwrap();
        // A thousand puts a second: the background has the time that it may take.
        clock.pass(200);
        while store.step().unwrap() {}
        let in_log = store.log(LOG).unwrap().snapshot().summary().unwrap().messages();
        let most = seen.len() as u64 * 3 / 2 + IN_MEMORY;
        // A look comes once a second, and a step or two behind it.
        assert!(
            in_log <= most + 2_000,
            "{in_log} messages of {} keys after {number}",
            seen.len()
        );
    }
    assert!(store.counters().compaction_removed_bytes > 0);
    drop(writer);
    // What is left of the log without its newest messages is a table as well.
    let mut left = BTreeMap::new();
    let snapshot = store.log(LOG).unwrap().snapshot();
    let deleted = snapshot.end().get() - 4_000;
    for message in snapshot.range(..deleted).unwrap() {
        let message = message.unwrap();
        left.insert(message.key().unwrap().to_vec(), message.offset().get());
    }
    store.delete(LOG, deleted..).unwrap();
    let after = store.log(LOG).unwrap().snapshot();
    for key in 0..KEYS {
        let key = format!("key {key:08}").into_bytes();
        let found = after.get_key(&key).unwrap().map(|message| message.offset().get());
        assert_eq!(
            found,
            left.get(&key).copied(),
            "{}",
            String::from_utf8_lossy(&key)
        );
    }
    assert_eq!(after.scan_keys(..).unwrap().count(), left.len());
}
