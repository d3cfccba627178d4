//! Programs that have handlers of SIGBUS and maps of their own beside a store, each in a process of its own.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lanterman::Store;

use super::dying::*;

const PAGE: usize = 4096;

/// Where this program's own map is, and how many faults its own handler has answered.
static OWN: AtomicUsize = AtomicUsize::new(0);
static ANSWERED: AtomicUsize = AtomicUsize::new(0);
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Maps one page of a file that has none, at `address` or anywhere: the first touch is a fault.
fn map_nothing(directory: &Path, address: usize) -> usize {
    let path = directory.join("empty");
    std::fs::write(&path, b"").unwrap();
    let file = File::open(&path).unwrap();
    let wanted = std::ptr::without_provenance_mut(address);
    let fixed = if address == 0 {
        0
    } else {
        libc::MAP_FIXED_NOREPLACE
    };
    // SAFETY: a new map, never over another one.
    let start = unsafe {
        libc::mmap(
            wanted,
            PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED | fixed,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(start, libc::MAP_FAILED);
    OWN.store(start.addr(), Ordering::SeqCst);
    start.addr()
}

fn touch(address: usize) -> u8 {
    let first = std::ptr::without_provenance::<u8>(address);
    // SAFETY: the address is mapped; if there is no page the handlers answer, or the process ends, as is tested.
    unsafe { first.read_volatile() }
}

/// Lays a page under the program's own map, as a program with such a handler does.
fn answer() {
    let own = std::ptr::without_provenance_mut(OWN.load(Ordering::SeqCst));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: replaces the one page that this program mapped itself.
    unsafe { libc::mmap(own, PAGE, libc::PROT_READ, flags, -1, 0) };
    ANSWERED.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn plain_handler(_: c_int) {
    answer();
}

extern "C" fn full_handler(signal: c_int, information: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel, or the handler that chains to this one, gives a pointer to it.
    let found = unsafe { &*information };
    // SAFETY: it comes from a fault, so it has an address.
    let address = unsafe { found.si_addr() }.addr();
    if address & !(PAGE - 1) == OWN.load(Ordering::SeqCst) {
        return answer();
    }
    let before = BEFORE.load(Ordering::SeqCst);
    assert!(before > 1, "a fault that is not ours has nobody to go to");
    // SAFETY: the number is the handler that was installed before, which takes these arguments.
    let before: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(before) };
    before(signal, information, context);
}

/// Sets what is done at the signal, and gives what was done before.
fn set(handler: usize, flags: c_int) -> usize {
    // SAFETY: zeros are an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    let mut before = action;
    // SAFETY: both are actions, and the handlers of these tests keep to what a handler may do.
    let answer = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) };
    assert_eq!(answer, 0);
    before.sa_sigaction
}

fn set_full_handler() {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = full_handler;
    BEFORE.store(
        set(handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK),
        Ordering::SeqCst,
    );
}

fn set_plain_handler() {
    let handler: extern "C" fn(c_int) = plain_handler;
    set(handler as usize, libc::SA_ONSTACK);
}

/// Opens the store, cuts a file of it, and sees that the store answers with errors.
fn lose_pages(path: &Path, victim: &str) {
    let store = open_mapped(options(), path);
    let snapshot = store.snapshot(DOOMED).unwrap();
    read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Verify);
    cut(&segment(path, victim), 0);
    assert!(read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Not).lost > 100);
}

#[test]
#[ignore = "run by its parent"]
fn child_with_a_handler() {
    let Some(directory) = directory() else { return };
    let (order, victim) = (setting("ORDER").unwrap(), setting("VICTIM").unwrap());
    let work = tempfile::tempdir().unwrap();
    let path = copy_store(&directory.join("template"), work.path());
    match &order[..] {
        "before" => set_full_handler(),
        "before-plain" => set_plain_handler(),
        // A store that maps something installs the handler of the process.
        _ => {
            let store = open_mapped(options(), &directory.join("template"));
            read_all(&mut store.log(OTHER).unwrap().cursor(0u64).unwrap(), Ask::Not);
            set_full_handler();
        }
    }
    lose_pages(&path, &victim);
    assert_eq!(
        ANSWERED.load(Ordering::SeqCst),
        0,
        "a fault of the store went to a handler of others"
    );
    assert_eq!(touch(map_nothing(&directory, 0)), 0);
    assert_eq!(
        ANSWERED.load(Ordering::SeqCst),
        1,
        "a fault of others did not come to their handler"
    );
}

#[test]
#[ignore = "run by its parent"]
fn child_with_a_fault_of_nobody() {
    let Some(directory) = directory() else { return };
    match &setting("DISPOSITION").unwrap()[..] {
        "default" => drop(set(libc::SIG_DFL, 0)),
        "ignored" => drop(set(libc::SIG_IGN, 0)),
        _ => {}
    }
    let store = open_mapped(options(), &directory.join("template"));
    read_all(&mut store.log(DOOMED).unwrap().cursor(0u64).unwrap(), Ask::Verify);
    if setting("SENT").is_some() {
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
    } else {
        touch(map_nothing(&directory, 0));
    }
}

#[test]
#[ignore = "run by its parent"]
fn child_that_takes_over_addresses() {
    let Some(directory) = directory() else { return };
    let path = directory.join("template");
    set_full_handler();
    let store = open_mapped(options(), &path);
    read_all(&mut store.log(DOOMED).unwrap().cursor(0u64).unwrap(), Ask::Verify);
    let maps: Vec<Range<usize>> = maps_of(&path);
    assert!(maps.len() > 1);
    store.close().unwrap();
    for (number, map) in maps.iter().enumerate() {
        assert_eq!(touch(map_nothing(&directory, map.start)), 0);
        assert_eq!(
            ANSWERED.load(Ordering::SeqCst),
            number + 1,
            "a range that is gone was taken for the store's"
        );
    }
}

#[test]
#[ignore = "run by its parent"]
fn child_with_many_stores() {
    let Some(directory) = directory() else { return };
    let victim = setting("VICTIM").unwrap();
    set_full_handler();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (directory, victim) = (&directory, &victim);
            scope.spawn(move || {
                for turn in 0..6 {
                    let work = tempfile::tempdir().unwrap();
                    let path = copy_store(&directory.join("template"), work.path());
                    if (thread + turn) % 2 == 0 {
                        lose_pages(&path, victim);
                    } else {
                        let store: Store = open_mapped(options(), &path);
                        let tally =
                            read_all(&mut store.log(DOOMED).unwrap().cursor(0u64).unwrap(), Ask::Check);
                        assert_eq!(tally.right, DOOMED_MESSAGES, "a store that lost nothing");
                    }
                }
            });
        }
    });
    assert_eq!(ANSWERED.load(Ordering::SeqCst), 0);
    assert_eq!(touch(map_nothing(&directory, 0)), 0);
    assert_eq!(ANSWERED.load(Ordering::SeqCst), 1);
}
