//! The process's handler of SIGBUS: faults of guarded maps end here, all others go on to whom they went before.
//!
//! It is installed once, when the first guarded map is made, and stays. The handler found then is called for every
//! signal that is none of ours, with the same arguments; where there was none, the signal does what it does by default.
//! Everything that the handler does is safe within a signal: atomics, and system calls made directly.
#![allow(
    unsafe_code,
    reason = "A signal handler is installed, gets raw pointers, and calls the one that was there before."
)]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use lanterman_format::weakened;
use libc::{
    SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, siginfo_t,
};

use super::guard;

/// Causes of a fault by the thread that gets the signal: alignment, no such page, a failed read, broken memory. What else
/// arrives was sent by somebody and comes with no address.
const FAULTS: std::ops::RangeInclusive<c_int> = 1..=libc::BUS_MCEERR_AR;

/// The handler that was there before, and its flags. Written before ours can be called, and by ours.
static PREVIOUS_HANDLER: AtomicUsize = AtomicUsize::new(SIG_DFL);
static PREVIOUS_FLAGS: AtomicI32 = AtomicI32::new(0);
/// Size of a page of the processor, which may be a multiple of ours.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(super::PAGE_BYTES);
static INSTALLED: AtomicBool = AtomicBool::new(false);
static INSTALLING: Mutex<()> = Mutex::new(());

type PlainHandler = extern "C" fn(c_int);
type FullHandler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// Installs the handler unless it was installed before.
///
/// # Errors
///
/// What the kernel answers.
pub(super) fn install() -> io::Result<()> {
    if INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if INSTALLED.load(Ordering::Acquire) {
        return Ok(());
    }
    let before = exchange(None)?;
    let mut action = before;
    let handler: FullHandler = on_signal;
    action.sa_sigaction = handler as usize;
    // What the earlier handler wished for itself is kept: its mask, and whether it may be interrupted by its own signal.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (before.sa_flags & (SA_NODEFER | SA_RESTART));
    remember(&before);
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::Release);
    let replaced = exchange(Some(&action))?;
    if replaced.sa_sigaction != before.sa_sigaction {
        // Somebody installed another one between the two calls.
        remember(&replaced);
    }
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

fn remember(before: &libc::sigaction) {
    if weakened!("handler-unchained") {
        PREVIOUS_HANDLER.store(SIG_IGN, Ordering::Release);
        return;
    }
    PREVIOUS_FLAGS.store(before.sa_flags, Ordering::Relaxed);
    PREVIOUS_HANDLER.store(before.sa_sigaction, Ordering::Release);
}

/// Sets what is done at the signal, or nothing, and gives what was done before.
fn exchange(action: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `action` is null or an action whose handler is `on_signal`, which keeps to what a handler may do, or the
    // default; `before` is room for one.
    if unsafe { libc::sigaction(SIGBUS, action, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled all of `before`.
    Ok(unsafe { before.assume_init() })
}

extern "C" fn on_signal(signal: c_int, information: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler installed with SA_SIGINFO a pointer to this; and so must whoever chains to us.
    let found = unsafe { &*information };
    let is_fault = FAULTS.contains(&found.si_code);
    if is_fault && found.si_code != libc::BUS_ADRALN {
        // SAFETY: with these codes the kernel gives an address.
        let address = unsafe { found.si_addr() };
        if guard::absorb(address.addr(), PAGE_BYTES.load(Ordering::Acquire)) {
            return;
        }
    }
    hand_on(signal, information, context, is_fault);
}

/// Does what would be done if we were not there.
fn hand_on(signal: c_int, information: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    let handler = PREVIOUS_HANDLER.load(Ordering::Acquire);
    let flags = PREVIOUS_FLAGS.load(Ordering::Relaxed);
    if flags & SA_RESETHAND != 0 {
        PREVIOUS_HANDLER.store(SIG_DFL, Ordering::Release);
    }
    match handler {
        // The kernel does not let a fault be ignored either.
        SIG_IGN if !is_fault => {}
        SIG_DFL | SIG_IGN => die(signal, is_fault),
        _ if flags & SA_SIGINFO != 0 => {
            // SAFETY: the process installed this number as a handler with SA_SIGINFO, so it is a function of this type.
            let full = unsafe { transmute::<usize, FullHandler>(handler) };
            full(signal, information, context);
        }
        _ => {
            // SAFETY: the process installed this number as a handler without SA_SIGINFO: a function of this type.
            let plain = unsafe { transmute::<usize, PlainHandler>(handler) };
            plain(signal);
        }
    }
}

/// The default of the signal: the end of the process, at the instruction that faulted.
fn die(signal: c_int, is_fault: bool) {
    // SAFETY: all fields of the action may be zero, which is the default without flags and with an empty mask.
    let default = unsafe { std::mem::zeroed::<libc::sigaction>() };
    if exchange(Some(&default)).is_err() {
        // SAFETY: ends the process; nothing else is left to do.
        unsafe { libc::abort() };
    }
    // Returning runs the faulting instruction once more. A signal that was sent must be sent again.
    if !is_fault {
        // SAFETY: the call may be made within a signal and touches no memory.
        unsafe { libc::raise(signal) };
    }
}
