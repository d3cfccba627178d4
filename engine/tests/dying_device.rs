//! Promise: a file that another program cuts short, or a device that cannot be read, gives errors to the reads that it
//! concerns and to no others. No process dies, wrong bytes never pass for right ones once the store was asked, and whoever
//! has a handler of SIGBUS of his own keeps it. Shown in child processes, which a wrong store would kill.
//!
//! `LANTERMAN_DEEP` makes the random part longer, `LANTERMAN_SEED` replays one run of it.
#![allow(
    unsafe_code,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking and print their seed; they play programs with handlers and maps of their own"
)]

mod dying;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dying::*;
use lanterman::{Durability, Error, KeptMessage, Store, Verify, check_bytes};

/// A generator of numbers that repeats itself from its seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

fn seed() -> u64 {
    let chosen = std::env::var("LANTERMAN_SEED").ok();
    let seed = chosen.map_or_else(|| u64::from(std::process::id()), |text| text.parse().unwrap());
    eprintln!("LANTERMAN_SEED={seed}");
    seed
}

/// A store, its segments of the doomed log, and the directory that goes with it.
fn prepared() -> (tempfile::TempDir, Vec<Victim>) {
    let directory = tempfile::tempdir().unwrap();
    let victims = make_store(&directory.path().join("template"));
    (directory, victims)
}

// ---- Eight readers.

/// Where a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Everything,
    BetweenPages,
    WithinAPage,
}

struct Round<'a> {
    store: &'a Store,
    ask: Ask,
    is_cut: &'a AtomicBool,
    lost: &'a AtomicU64,
    passes: &'a AtomicU64,
}

impl Round<'_> {
    /// Reads again and again until a whole pass began after the cut.
    fn repeat(&self, mut pass: impl FnMut() -> Tally) {
        loop {
            let is_last = self.is_cut.load(Ordering::Acquire);
            let tally = pass();
            self.passes.fetch_add(1, Ordering::Release);
            if is_last {
                self.lost.fetch_add(tally.lost, Ordering::Relaxed);
                return;
            }
        }
    }

    fn scan(&self, log: &str, ask: Ask) {
        let log = self.store.log(log).unwrap();
        self.repeat(|| read_all(&mut log.cursor(0u64).unwrap(), ask));
    }

    fn jump(&self, mut numbers: Numbers) {
        let snapshot = self.store.snapshot(DOOMED).unwrap();
        let mut cursor = snapshot.cursor(0u64).unwrap();
        self.repeat(|| {
            let mut tally = Tally::default();
            for _ in 0..2_000 {
                let offset = numbers.below(DOOMED_MESSAGES);
                match cursor.get(offset) {
                    Ok(message) => {
                        let is_right = message.value() == value(offset);
                        let asked = if self.ask == Ask::Verify {
                            message.verify()
                        } else {
                            message.check()
                        };
                        assert!(
                            is_right || asked.is_err(),
                            "wrong bytes at {offset} passed for right ones"
                        );
                        tally.lost += u64::from(asked.is_err());
                    }
                    Err(error) => {
                        offsets_of(&error);
                        tally.lost += 1;
                    }
                }
            }
            tally
        });
    }

    /// Holds a snapshot and iterates; the iterator ends at each error.
    fn iterate(&self) {
        let snapshot = self.store.snapshot(DOOMED).unwrap();
        self.repeat(|| {
            let mut tally = Tally::default();
            let mut next = 0;
            let mut suspect = None;
            while next < DOOMED_MESSAGES {
                for message in snapshot.range(next..).unwrap() {
                    match message {
                        Ok(message) => {
                            assert!(
                                suspect.is_none(),
                                "wrong bytes at {suspect:?} passed for right ones"
                            );
                            let is_right = message.value() == &value(next)[..];
                            suspect = (!is_right).then_some(next);
                            next += 1;
                        }
                        Err(error) => {
                            suspect = None;
                            tally.lost += 1;
                            next = next.max(offsets_of(&error).end);
                        }
                    }
                }
                assert!(
                    suspect.is_none(),
                    "wrong bytes at {suspect:?} passed for right ones"
                );
            }
            tally
        });
    }

    /// Keeps messages from before the cut, and looks at them again and again.
    fn hold(&self) {
        let snapshot = self.store.snapshot(DOOMED).unwrap();
        let kept: Vec<KeptMessage> = snapshot.range(..).unwrap().map_while(Result::ok).collect();
        self.repeat(|| {
            let mut tally = Tally::default();
            for message in &kept {
                let is_right = message.value() == &value(message.offset().get())[..];
                let asked = message.check();
                // Asked later, it may have been lost meanwhile, by the look of another reader.
                assert!(asked.is_ok() || check_bytes(message.value()).is_err());
                assert!(is_right || asked.is_err(), "kept bytes were lost without a word");
                tally.lost += u64::from(asked.is_err());
            }
            tally
        });
    }

    fn append(&self) {
        let mut writer = self.store.writer(OTHER).unwrap();
        let began = writer.next_offset().get();
        let mut number = began;
        self.repeat(|| {
            for _ in 0..50 {
                assert_eq!(writer.append(&value(number)).unwrap().get(), number);
                number += 1;
            }
            let durability = [Durability::Process, Durability::Disk][number as usize / 50 % 2];
            writer.commit(durability).unwrap();
            Tally::default()
        });
        self.store.checkpoint().unwrap();
    }
}

fn one_round(directory: &Path, victims: &[String], numbers: &mut Numbers) {
    let work = tempfile::tempdir().unwrap();
    let path = copy_store(&directory.join("template"), work.path());
    let victim = segment(&path, &victims[numbers.below(victims.len() as u64) as usize]);
    let bytes = std::fs::metadata(&victim).unwrap().len();
    let kind = [Cut::Everything, Cut::BetweenPages, Cut::WithinAPage][numbers.below(3) as usize];
    let to = match kind {
        Cut::Everything => 0,
        Cut::BetweenPages => numbers.below(bytes / 4096) * 4096,
        Cut::WithinAPage => numbers.below(bytes / 4096) * 4096 + 1 + numbers.below(4095),
    };
    // Within a page the system zeros bytes without a fault, and only the checksum can tell.
    let ask = if kind == Cut::WithinAPage {
        Ask::Verify
    } else {
        Ask::Check
    };
    let wait_passes = [0, 1, 8, 20][numbers.below(4) as usize];
    let wait = Duration::from_micros(numbers.below(3_000));
    eprintln!(
        "{} of {bytes} bytes cut to {to} after {wait_passes} passes",
        victim.display()
    );
    let store = open_mapped(options(), &path);
    let (is_cut, lost, passes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let round = Round {
        store: &store,
        ask,
        is_cut: &is_cut,
        lost: &lost,
        passes: &passes,
    };
    std::thread::scope(|scope| {
        let round = &round;
        scope.spawn(|| round.scan(DOOMED, ask));
        scope.spawn(|| round.scan(DOOMED, if ask == Ask::Check { Ask::Not } else { ask }));
        let (first, second) = (numbers.below(u64::MAX), numbers.below(u64::MAX));
        scope.spawn(move || round.jump(Numbers(first)));
        scope.spawn(move || round.jump(Numbers(second)));
        if ask == Ask::Check {
            scope.spawn(|| round.iterate());
            scope.spawn(|| round.hold());
            scope.spawn(|| round.hold());
        } else {
            scope.spawn(|| round.scan(DOOMED, ask));
            scope.spawn(|| round.scan(DOOMED, ask));
            scope.spawn(|| round.scan(DOOMED, ask));
        }
        scope.spawn(|| {
            round.repeat(|| {
                let tally = read_all(&mut store.log(OTHER).unwrap().cursor(0u64).unwrap(), Ask::Verify);
                assert_eq!(tally.lost, 0, "the other log lost messages");
                assert!(tally.right >= OTHER_MESSAGES);
                Tally::default()
            });
        });
        // Eight readers, and one who writes.
        scope.spawn(|| round.append());
        while passes.load(Ordering::Acquire) < wait_passes {
            std::thread::yield_now();
        }
        let began = Instant::now();
        while began.elapsed() < wait {
            std::hint::spin_loop();
        }
        cut(&victim, to);
        is_cut.store(true, Ordering::Release);
    });
    if kind == Cut::Everything {
        assert!(
            lost.load(Ordering::Relaxed) > 300,
            "only {lost:?} reads of a lost segment gave errors"
        );
    }
    drop(store);
    // What was appended meanwhile is there.
    let store = options().open_copying(&path).unwrap();
    let tally = read_all(&mut store.log(OTHER).unwrap().cursor(0u64).unwrap(), Ask::Verify);
    assert!(tally.lost == 0 && tally.right > OTHER_MESSAGES);
}

#[test]
#[ignore = "run by its parent"]
fn child_with_eight_readers() {
    let Some(directory) = directory() else { return };
    let victims: Vec<String> = setting("VICTIMS")
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    let mut numbers = Numbers(setting("SEED").unwrap().parse().unwrap());
    for round in 0..setting("ROUNDS").unwrap().parse::<u32>().unwrap() {
        eprintln!("round {round}");
        one_round(&directory, &victims, &mut numbers);
    }
}

#[test]
fn a_file_cut_short_under_eight_readers_gives_errors_to_its_own_reads_alone() {
    let (directory, victims) = prepared();
    let rounds = if std::env::var_os("LANTERMAN_DEEP").is_some() {
        "300"
    } else {
        "24"
    };
    let settings = [
        (
            "VICTIMS",
            victims
                .iter()
                .map(|victim| &victim.name[..])
                .collect::<Vec<_>>()
                .join(","),
        ),
        ("SEED", seed().to_string()),
        ("ROUNDS", rounds.to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &value[..])).collect();
    succeeds_in_a_child("child_with_eight_readers", directory.path(), &settings);
}

// ---- One reader, step by step.

#[test]
#[ignore = "run by its parent"]
fn child_that_reads_what_is_cut() {
    let Some(directory) = directory() else { return };
    let victim = setting("VICTIM").unwrap();
    for to in [0, 20 * 4096, 33 * 4096, 47 * 4096] {
        for is_warm in [false, true] {
            read_what_is_cut(&directory, &victim, to, is_warm);
        }
    }
}

/// Cuts a segment between two pages, so that there is a message of which one part is left.
fn read_what_is_cut(directory: &Path, victim: &str, to: u64, is_warm: bool) {
    let work = tempfile::tempdir_in(directory).unwrap();
    let path = copy_store(&directory.join("template"), work.path());
    let store = open_mapped(options().read_only(is_warm), &path);
    let snapshot = store.snapshot(DOOMED).unwrap();
    if is_warm {
        let tally = read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Verify);
        assert_eq!(tally.right, DOOMED_MESSAGES);
    }
    let kept: Vec<KeptMessage> = match is_warm {
        true => snapshot.range(..).unwrap().map(Result::unwrap).collect(),
        false => Vec::new(),
    };
    let victim = segment(&path, victim);
    let whole = std::fs::read(&victim).unwrap();
    cut(&victim, to);
    let tallies =
        [Ask::Not, Ask::Check, Ask::Verify].map(|ask| read_all(&mut snapshot.cursor(0u64).unwrap(), ask));
    let tally = tallies[0];
    assert!(
        tally.lost > 100 && tally.right + tally.lost == DOOMED_MESSAGES,
        "{tallies:?}"
    );
    assert!(tallies.iter().all(|other| *other == tally), "{tallies:?}");
    assert!(
        !is_warm || tally.damaged == 0,
        "a lost page is no damage of the file: {tallies:?}"
    );
    for message in &kept {
        let is_right = message.value() == &value(message.offset().get())[..];
        assert_eq!(is_right, message.check().is_ok(), "kept: {message:?}");
    }
    let asked: Vec<u64> = (0..DOOMED_MESSAGES).collect();
    assert!(snapshot.get_many(&asked).is_err());
    let lost = asked.iter().filter(|offset| match snapshot.get(**offset) {
        Ok(message) => {
            let is_right = message.value() == &value(**offset)[..];
            assert_eq!(is_right, message.check().is_ok(), "{offset}");
            !is_right
        }
        Err(_) => true,
    });
    assert_eq!(lost.count() as u64, tally.lost);
    // The file comes back under the map: what was lost there stays lost until the store is opened again.
    std::fs::write(&victim, whole).unwrap();
    let again = read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Verify);
    assert_eq!(again.right + again.lost, DOOMED_MESSAGES);
    assert!(
        !is_warm || again == tally,
        "zeros of ours must not be taken for the file: {again:?}"
    );
    drop((kept, snapshot, store));
    let store = open_mapped(options(), &path);
    let tally = read_all(&mut store.log(DOOMED).unwrap().cursor(0u64).unwrap(), Ask::Verify);
    assert_eq!(tally.right, DOOMED_MESSAGES);
}

/// The first message of which the cut leaves the beginning.
fn halved_by(directory: &Path, victim: &str, to: u64) -> Option<u64> {
    let work = tempfile::tempdir_in(directory).unwrap();
    let path = copy_store(&directory.join("template"), work.path());
    let snapshot = open_mapped(options(), &path).snapshot(DOOMED).unwrap();
    let kept: Vec<KeptMessage> = snapshot.range(..).unwrap().map(Result::unwrap).collect();
    cut(&segment(&path, victim), to);
    let halved = kept.iter().find(|message| {
        let wanted = value(message.offset().get());
        message.value()[..8] == wanted[..8] && message.value() != &wanted[..]
    });
    halved.map(|message| message.offset().get())
}

#[test]
#[ignore = "run by its parent"]
fn child_that_loses_what_it_was_lent() {
    let Some(directory) = directory() else { return };
    let victim = setting("VICTIM").unwrap();
    let mut found = 0;
    for to in [20 * 4096, 33 * 4096, 47 * 4096] {
        let Some(halved) = halved_by(&directory, &victim, to) else {
            continue;
        };
        let work = tempfile::tempdir_in(&directory).unwrap();
        let path = copy_store(&directory.join("template"), work.path());
        let snapshot = open_mapped(options(), &path).snapshot(DOOMED).unwrap();
        read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Verify);
        // Stand within the slab, so that nothing but the message itself is touched once the file is cut.
        let mut cursor = snapshot.cursor(halved - 2).unwrap();
        let mut messages = snapshot.range(halved - 2..=halved).unwrap();
        for offset in [halved - 2, halved - 1] {
            assert_eq!(cursor.next().unwrap().unwrap().value(), value(offset));
            assert_eq!(messages.next().unwrap().unwrap().value(), &value(offset)[..]);
        }
        cut(&segment(&path, &victim), to);
        let kept = messages.next().unwrap().unwrap();
        let message = cursor.next().unwrap().unwrap();
        assert!(message.value() != value(halved), "the look that loses the page");
        assert!(message.check().is_err() && message.verify().is_err());
        assert!(kept.value() == message.value() && kept.check().is_err());
        for _ in 0..2 {
            let error = cursor.next().unwrap_err();
            assert!(offsets_of(&error).contains(&halved), "{error}");
            assert_eq!(cursor.offset().get(), halved);
        }
        // The iterator is at its end, and tells of its last message all the same.
        assert!(offsets_of(&messages.next().unwrap().unwrap_err()).contains(&halved));
        assert!(messages.next().is_none());
        found += 1;
    }
    assert!(found > 0, "no cut goes through a message");
}

#[test]
fn a_message_that_is_lost_while_it_is_lent_is_told_by_the_next_call() {
    let (directory, victims) = prepared();
    let settings = [("VICTIM", &victims[0].name[..])];
    succeeds_in_a_child("child_that_loses_what_it_was_lent", directory.path(), &settings);
}

#[test]
#[ignore = "run by its parent"]
fn child_that_loses_the_end_of_a_slab() {
    let Some(directory) = directory() else { return };
    let victim = setting("VICTIM").unwrap();
    let begin: u64 = setting("FIRST").unwrap().parse().unwrap();
    let open = |into: &tempfile::TempDir| {
        let path = copy_store(&directory.join("template"), into.path());
        let snapshot = open_mapped(options(), &path).snapshot(DOOMED).unwrap();
        (segment(&path, &victim), snapshot)
    };
    // Where the slab ends is what the error of a slab that cannot be opened says.
    let work = tempfile::tempdir_in(&directory).unwrap();
    let (file, snapshot) = open(&work);
    cut(&file, 0);
    let end = offsets_of(&snapshot.get(begin).unwrap_err()).end;
    assert!(end > begin + 1 && end < DOOMED_MESSAGES);

    let work = tempfile::tempdir_in(&directory).unwrap();
    let (file, snapshot) = open(&work);
    let mut cursor = snapshot.cursor(end - 1).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().value(), value(end - 1));
    cut(&file, 0);
    let next = offsets_of(&cursor.next().unwrap_err());
    assert_eq!(next.start, end, "the slab behind cannot be opened");
    // Nothing is known to be lost until somebody touches what was mapped before.
    assert!(snapshot.get(end - 1).is_err());
    let lent = offsets_of(&cursor.seek(next.end).unwrap_err());
    assert_eq!(lent, end - 1..end, "what was lent is lost too");
    assert_eq!(cursor.offset().get(), end - 1);
    cursor.seek(next.end).unwrap();
    assert_eq!(cursor.offset().get(), next.end);
}

#[test]
fn seeking_away_from_a_lost_slab_tells_once_of_the_message_that_was_lent_before_it() {
    let (directory, victims) = prepared();
    let first = victims[0].first.to_string();
    let settings = [("VICTIM", &victims[0].name[..]), ("FIRST", &first[..])];
    succeeds_in_a_child("child_that_loses_the_end_of_a_slab", directory.path(), &settings);
}

#[test]
fn every_read_of_a_lost_segment_is_an_error_until_the_store_is_opened_again() {
    let (directory, victims) = prepared();
    let settings = [("VICTIM", &victims[0].name[..])];
    succeeds_in_a_child("child_that_reads_what_is_cut", directory.path(), &settings);
}

#[test]
#[ignore = "run by its parent"]
fn child_without_a_guard() {
    let Some(directory) = directory() else { return };
    let path = directory.join("template");
    let number = |name| setting(name).unwrap().parse::<u64>().unwrap();
    let (first, end) = (number("FIRST"), number("END"));
    let store = open_mapped(options().guard_maps(false), &path);
    let mut cursor = store.log(DOOMED).unwrap().cursor(0u64).unwrap();
    // Maps the segment by its first slab; of the last ones nothing has been touched.
    assert_eq!(cursor.get(first).unwrap().value(), value(first));
    let from = if setting("WARM").is_some() {
        first
    } else {
        first + (end - first) / 2
    };
    cut(&segment(&path, &setting("VICTIM").unwrap()), 0);
    for offset in from..end {
        let error = cursor.get(offset).unwrap_err();
        assert!(
            matches!(error, Error::Unreadable(_)) && offsets_of(&error).contains(&offset),
            "{error}"
        );
    }
}

#[test]
fn pages_are_asked_for_before_they_are_touched_so_that_a_first_read_needs_no_guard() {
    let (directory, victims) = prepared();
    let (first, end) = (victims[0].first.to_string(), victims[0].end.to_string());
    let settings = [("VICTIM", &victims[0].name[..]), ("FIRST", &first), ("END", &end)];
    succeeds_in_a_child("child_without_a_guard", directory.path(), &settings);
}

#[test]
fn without_a_guard_a_lost_page_ends_the_process_as_the_documentation_says() {
    let (directory, victims) = prepared();
    let (first, end) = (victims[0].first.to_string(), victims[0].end.to_string());
    let settings = [
        ("VICTIM", &victims[0].name[..]),
        ("FIRST", &first),
        ("END", &end),
        ("WARM", "yes"),
    ];
    let status = in_a_child("child_without_a_guard", directory.path(), &settings);
    assert_died_of_the_fault(status);
}

#[test]
#[ignore = "run by its parent"]
fn child_that_forks() {
    let Some(directory) = directory() else { return };
    let path = directory.join("template");
    let store = open_mapped(options(), &path);
    let snapshot = store.snapshot(DOOMED).unwrap();
    read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Verify);
    cut(&segment(&path, &setting("VICTIM").unwrap()), 0);
    // SAFETY: the child process reads, compares and exits; it waits for no thread that it has not.
    let child = unsafe { libc::fork() };
    let tally = read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Check);
    let is_right = tally.lost > 300 && tally.right + tally.lost == DOOMED_MESSAGES;
    if child == 0 {
        // SAFETY: ends the process without running what its parent will run.
        unsafe { libc::_exit(i32::from(!is_right)) };
    }
    let mut status = 0;
    // SAFETY: `status` is room for one number.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(is_right && status == 0, "the forked process ended with {status}");
}

#[test]
fn a_forked_process_reads_on_and_gets_errors_too() {
    if has_sanitizer() {
        eprintln!("skipped: sanitizers end forked processes of several threads");
        return;
    }
    let (directory, victims) = prepared();
    succeeds_in_a_child(
        "child_that_forks",
        directory.path(),
        &[("VICTIM", &victims[0].name)],
    );
}

#[test]
#[ignore = "run by its parent"]
fn child_whose_table_of_readers_is_cut() {
    let Some(directory) = directory() else { return };
    let path = directory.join("template");
    let copying = setting("COPYING").is_some();
    let store = if copying {
        options().open_copying(&path).unwrap()
    } else {
        open_mapped(options(), &path)
    };
    let mut writer = store.writer(OTHER).unwrap();
    writer.append(&value(OTHER_MESSAGES)).unwrap();
    writer.commit(Durability::Process).unwrap();
    cut(&path.join("readers"), 0);
    for number in OTHER_MESSAGES + 1..OTHER_MESSAGES + 100 {
        writer.append(&value(number)).unwrap();
        writer.commit(Durability::Process).unwrap();
    }
    store.checkpoint().unwrap();
    drop(writer);
    store.close().unwrap();
    let store = options().open_copying(&path).unwrap();
    let tally = read_all(&mut store.log(OTHER).unwrap().cursor(0u64).unwrap(), Ask::Verify);
    assert_eq!(tally.right, OTHER_MESSAGES + 100);
}

#[test]
fn a_table_of_readers_that_is_cut_stops_nobody() {
    for settings in [&[][..], &[("COPYING", "yes")]] {
        let (directory, _) = prepared();
        succeeds_in_a_child("child_whose_table_of_readers_is_cut", directory.path(), settings);
    }
}

// ---- Zeros without a fault.

#[test]
fn bytes_zeroed_without_a_fault_are_found_by_verifying_after_the_read() {
    for verify in [Verify::Once, Verify::Always, Verify::Never] {
        let (directory, victims) = prepared();
        let path = directory.path().join("template");
        let store = open_mapped(options().verify(verify), &path);
        let mut cursor = store.log(DOOMED).unwrap().cursor(0u64).unwrap();
        assert_eq!(read_all(&mut cursor, Ask::Verify).right, DOOMED_MESSAGES);
        let victim = segment(&path, &victims[0].name);
        let arguments = [
            "--punch-hole",
            "--offset",
            "40960",
            "--length",
            "12288",
            victim.to_str().unwrap(),
        ];
        run("fallocate", &arguments);
        let mut wrong = 0;
        for offset in 0..DOOMED_MESSAGES {
            match cursor.get(offset) {
                Ok(message) => {
                    let is_right = message.value() == value(offset);
                    assert!(
                        is_right || verify != Verify::Always,
                        "checked at this very read: {offset}"
                    );
                    assert_eq!(is_right, message.verify().is_ok() && is_right);
                    assert!(is_right || message.verify().is_err(), "{offset} passed for right");
                    wrong += u64::from(!is_right);
                }
                Err(error) => {
                    offsets_of(&error);
                    wrong += 1;
                }
            }
        }
        assert!(
            wrong > 5,
            "{verify:?}: a hole of three pages touched {wrong} messages"
        );
    }
}

// ---- Other handlers of SIGBUS.

#[path = "dying/foreign.rs"]
mod foreign;

#[test]
fn faults_of_others_go_to_their_handlers_whoever_came_first() {
    let (directory, victims) = prepared();
    for order in ["before", "before-plain", "after"] {
        let settings = [("VICTIM", &victims[0].name[..]), ("ORDER", order)];
        succeeds_in_a_child("foreign::child_with_a_handler", directory.path(), &settings);
    }
}

#[test]
fn a_fault_that_is_nobodys_ends_the_process_by_its_signal() {
    let (directory, _) = prepared();
    for disposition in ["runtime", "default", "ignored"] {
        let settings = [("DISPOSITION", disposition)];
        let status = in_a_child(
            "foreign::child_with_a_fault_of_nobody",
            directory.path(),
            &settings,
        );
        assert_died_of_the_fault(status);
    }
}

#[test]
fn a_signal_that_was_sent_does_what_it_did_without_a_store() {
    let (directory, _) = prepared();
    let sent = |disposition| {
        let settings = [("DISPOSITION", disposition), ("SENT", "yes")];
        in_a_child(
            "foreign::child_with_a_fault_of_nobody",
            directory.path(),
            &settings,
        )
    };
    assert_died_of_the_fault(sent("default"));
    assert!(sent("ignored").success());
}

#[test]
fn a_range_that_was_unmapped_is_nobodys() {
    let (directory, _) = prepared();
    succeeds_in_a_child("foreign::child_that_takes_over_addresses", directory.path(), &[]);
}

#[test]
fn stores_come_and_go_in_many_threads_while_pages_are_lost() {
    let (directory, victims) = prepared();
    succeeds_in_a_child(
        "foreign::child_with_many_stores",
        directory.path(),
        &[("VICTIM", &victims[0].name)],
    );
}

// ---- A device that fails.

#[path = "dying/device.rs"]
mod device;

#[test]
fn a_device_that_cannot_be_read_gives_errors_under_maps_and_copies() {
    let (directory, _) = prepared();
    let Some(device) = device::Device::mount(directory.path()) else {
        eprintln!("skipped: no loop device may be mounted here");
        return;
    };
    succeeds_in_a_child("device::child_on_a_failing_device", directory.path(), &[]);
    drop(device);
}
