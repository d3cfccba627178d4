//! Promise: what is set of a log stays set, whoever sets something else of it at the same time.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{memory, open_on};
use lanterman::{Compression, Retention};

const LOG: &str = "events";
const ROUNDS: u32 = 1_000;

#[test]
fn settings_that_threads_set_at_the_same_time_are_all_there() {
    let disk = memory();
    let store = open_on(disk.clone());
    store.create_log(LOG).unwrap();
    let age = |round: u32| Duration::from_secs(u64::from(round));
    // Each thread sets what no other one sets, and finds it again each time.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..ROUNDS {
                store
                    .set_retention(LOG, Some(&Retention::new().max_age(age(round))))
                    .unwrap();
                let kept = store.log(LOG).unwrap().retention();
                assert_eq!(kept.and_then(|kept| kept.max_age), Some(age(round)));
            }
        });
        scope.spawn(|| {
            for round in 1..ROUNDS {
                let compression = Compression::lz4().with_batch_bytes(round);
                store.set_compression(LOG, Some(&compression)).unwrap();
                assert_eq!(store.log(LOG).unwrap().compression(), Some(compression));
            }
        });
    });
    store.close().unwrap();
    let log = open_on(disk).log(LOG).unwrap();
    assert_eq!(
        log.compression(),
        Some(Compression::lz4().with_batch_bytes(ROUNDS - 1))
    );
    assert_eq!(
        log.retention().and_then(|kept| kept.max_age),
        Some(age(ROUNDS - 1))
    );
}
