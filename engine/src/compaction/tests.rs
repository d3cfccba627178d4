//! Steps of compactions beside edits, which no caller can time.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use crate::disk::MemoryDisk;
use crate::{Background, Error, Keyed, NewMessage, Options, Store};

const LOG: &str = "table";

fn store_with(keys: &[&[u8]]) -> Store {
    let store = Options::new()
        .background(Background::Manual)
        .disk(Arc::new(MemoryDisk::new()))
        .open_copying("/store")
        .unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut writer = store.writer(LOG).unwrap();
    for key in keys {
        writer
            .append_message(&NewMessage::new(b"value").key(key))
            .unwrap();
    }
    drop(writer);
    store
}

#[test]
fn a_step_is_refused_if_what_supersedes_was_deleted_since_the_look() {
    let store = store_with(&[b"a", b"a", b"b"]);
    let core = store.core();
    let log = core.find_log(LOG).unwrap();
    let keyed = core.check_keyed(&log).unwrap();
    core.seal_newest(&log).unwrap();
    let mut work = core.begin_compaction(&log, &keyed, 0).unwrap().unwrap();
    store.delete(LOG, 1..2).unwrap();
    let stepped = core.compaction_step(&mut work);
    assert!(matches!(stepped, Err(Error::Changed { .. })), "{stepped:?}");
    let found = store.log(LOG).unwrap().get_key(b"a").unwrap().unwrap();
    assert_eq!(found.offset().get(), 0);
    assert_eq!(store.compact(LOG).unwrap().removed, 0);
}

#[test]
fn an_append_between_the_look_and_the_step_is_no_reason_to_begin_anew() {
    let store = store_with(&[b"a", b"a"]);
    let core = store.core();
    let log = core.find_log(LOG).unwrap();
    let keyed = core.check_keyed(&log).unwrap();
    core.seal_newest(&log).unwrap();
    let mut work = core.begin_compaction(&log, &keyed, 0).unwrap().unwrap();
    let mut writer = store.writer(LOG).unwrap();
    writer
        .append_message(&NewMessage::new(b"newer").key(b"a"))
        .unwrap();
    assert_eq!(core.compaction_step(&mut work).unwrap().receipt.removed, 1);
    let found = store.log(LOG).unwrap().get_key(b"a").unwrap().unwrap();
    assert_eq!(found.value().as_ref(), b"newer");
}
