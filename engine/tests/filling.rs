//! Promise: filling a message in place keeps nobody waiting. A transaction over its log is refused meanwhile, also one
//! that the filling code itself begins.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use lanterman::{Error, Store};

#[test]
fn a_transaction_begun_while_a_message_is_filled_is_refused_and_goes_through_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_copying(directory.path().join("store")).unwrap();
    let mut writer = store.writer("log").unwrap();
    let mut message = writer.reserve(5).unwrap();
    let refused = message
        .fill(|bytes| {
            bytes.copy_from_slice(b"fills");
            store.transaction(|transaction| transaction.append("log", b"meanwhile"))
        })
        .unwrap();
    assert!(matches!(refused, Err(Error::Reserved { .. })));
    message.publish().unwrap();
    let receipt = store
        .transaction(|transaction| transaction.append("log", b"afterwards"))
        .unwrap();
    assert_eq!(receipt.offsets.get("log"), Some(&(1..2)));
}
