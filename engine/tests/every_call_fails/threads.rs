//! The same with threads that share groups of commits, and the helper in the background: which operation meets the
//! fault is then a matter of chance.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk};
use lanterman::{Background, Durability, Error};

use crate::cases::run_all;
use crate::common::{PATH, check_values, memory, open_on, small, value};
use crate::workload::Dice;
use crate::{FAULTS, is_deep};

const LOGS: [&str; 4] = ["a", "b", "c", "d"];

struct Case {
    number: u64,
    fault: Fault,
}

impl Case {
    fn name(&self) -> String {
        format!("operation {} of threads: {:?}", self.number, self.fault)
    }
}

/// Four writers commit as often as they can; gives what each was told is durable, and how much it appended.
fn work(faulty: &Arc<FaultyDisk>) -> Option<Vec<(u64, u64)>> {
    let options = small()
        .background(Background::Thread)
        .disk(Arc::<FaultyDisk>::clone(faulty));
    let store = options.open_copying(PathBuf::from(PATH)).ok()?;
    // Whether the store has said so to anybody. A sync of the background may have failed a moment before the store knows,
    // and a commit whose own sync was good may be acknowledged in between.
    let told_of_poison = AtomicBool::new(false);
    let ends = std::thread::scope(|scope| {
        let handles = LOGS.map(|name| {
            let (store, told_of_poison) = (&store, &told_of_poison);
            scope.spawn(move || {
                let Ok(mut writer) = store.writer(name) else {
                    return (0, 0);
                };
                let (mut told, mut appended) = (0, 0);
                for round in 0..25 {
                    for _ in 0..8 {
                        appended += u64::from(writer.append(&value(appended)).is_ok());
                    }
                    // Asked before the commit begins: a failure while it runs may come after its own sync.
                    let was_poisoned = told_of_poison.load(Ordering::SeqCst);
                    let outcome = if round % 3 == 0 {
                        writer
                            .commit_async(Durability::Disk)
                            .and_then(|future| future.wait())
                    } else {
                        writer.commit(Durability::Disk)
                    };
                    if outcome.is_ok() && writer.durable_end().get() == appended {
                        assert!(
                            !was_poisoned || told == appended,
                            "acknowledged after a failed sync"
                        );
                        told = appended;
                    }
                    if matches!(outcome, Err(Error::Poisoned { .. })) {
                        told_of_poison.store(true, Ordering::SeqCst);
                    }
                }
                (told, appended)
            })
        });
        handles.map(|handle| handle.join().unwrap())
    });
    let closed = store.close();
    assert!(
        faulty.failed_syncs() == 0 || closed.is_err(),
        "closing well after a failed sync"
    );
    Some(ends.into())
}

fn strike(case: &Case) -> bool {
    let memory = memory();
    let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&memory)));
    faulty.fail_at(case.number, case.fault);
    let ends = work(&faulty).unwrap_or_else(|| vec![(0, 0); LOGS.len()]);
    faulty.clear_faults();
    let cut = memory.crash_image(|_, _| Fate::Lost).unwrap();
    for disk in [Arc::new(cut) as Arc<dyn Disk>, memory] {
        let store = open_on(disk);
        assert_eq!(store.path(), Path::new(PATH));
        for (log, (told, appended)) in LOGS.iter().zip(&ends) {
            let end = check_values(&store, log, 0);
            assert!(end >= *told, "log {log}: {end} of {told} acknowledged messages");
            assert!(end <= *appended, "log {log}: {end} of {appended} messages");
        }
    }
    faulty.fired() > 0
}

#[test]
fn a_fault_under_threads_that_share_commits_costs_nothing_that_was_acknowledged() {
    let mut dice = Dice::new(7);
    let honest: Vec<_> = FAULTS
        .into_iter()
        .filter(|fault| *fault != Fault::SyncLies)
        .collect();
    let all: Vec<_> = (0..if is_deep() { 4_000 } else { 60 })
        .map(|_| Case {
            number: dice.below(160),
            fault: honest[dice.below(honest.len() as u64) as usize],
        })
        .collect();
    let struck = run_all(&all, Case::name, strike);
    eprintln!("threads: {struck} of {} struck", all.len());
    assert!(struck * 4 > all.len(), "only {struck} struck");
}
