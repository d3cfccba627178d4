//! Runs many cases on all processors; a panic or a hang names its case.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A case that takes so long hangs. No claim about speed: a case takes milliseconds.
const HANGING: Duration = Duration::from_secs(120);

/// What each thread is at.
#[derive(Default)]
struct Board {
    at: Mutex<Vec<(u64, String)>>,
}

/// Ends the process when a thread stays with one case for too long.
fn watch(board: &Arc<Board>) {
    let weak = Arc::downgrade(board);
    std::thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some(board) = weak.upgrade() {
            let now = board.at.lock().clone();
            let hanging = now.iter().find(|case| !case.1.is_empty() && seen.contains(*case));
            if let Some((_, case)) = hanging {
                eprintln!("this case hangs: {case}");
                std::process::abort();
            }
            seen = now;
            drop(board);
            std::thread::park_timeout(HANGING);
        }
    });
}

/// Runs `check` on every case, on all processors; gives for how many it said yes. A case that panics does not keep the
/// others from running; `name` says how to run it alone.
pub(crate) fn run_all<C: Sync>(
    cases: &[C],
    name: impl Fn(&C) -> String + Sync,
    check: impl Fn(&C) -> bool + Sync,
) -> usize {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let board = Arc::new(Board::default());
    board.at.lock().resize(threads, (0, String::new()));
    watch(&board);
    let (next, count) = (AtomicU64::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (board, next, count, failed, name, check) = (&board, &next, &count, &failed, &name, &check);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number as usize) else {
                        break;
                    };
                    board.at.lock()[thread] = (number, name(case));
                    match catch_unwind(AssertUnwindSafe(|| check(case))) {
                        Ok(said_yes) => {
                            count.fetch_add(usize::from(said_yes), Ordering::Relaxed);
                        }
                        Err(_) => {
                            eprintln!("the case that failed: {}", name(case));
                            failed.lock().push(name(case));
                        }
                    }
                }
                board.at.lock()[thread].1.clear();
            });
        }
    });
    let failed = failed.into_inner();
    let some = failed.get(..failed.len().min(20)).unwrap_or_default();
    assert!(
        failed.is_empty(),
        "{} cases failed, such as {some:#?}",
        failed.len()
    );
    count.into_inner()
}
