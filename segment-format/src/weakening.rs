//! Deliberate defects, with which the tests themselves are tested: a promise that no test would miss is not tested.
//!
//! A place that upholds a promise asks [`weakened!`](crate::weakened) whether it is to fail in its duty: whether to leave
//! out a sync, a checksum, a fence. In every ordinary build the answer is the constant `false`, and nothing is left of
//! the question. Under `--cfg lanterman_weakened` the environment's variable `LANTERMAN_WEAKENING` names the one defect
//! that is on; without it none is. The list of all defects, each with the test that must go red, is
//! `engine/weakenings.txt`.

/// Whether the defect `name` is switched on. Asked through [`weakened!`](crate::weakened).
#[cfg(lanterman_weakened)]
#[must_use]
pub fn is_on(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("LANTERMAN_WEAKENING").ok());
    chosen.as_deref() == Some(name)
}

/// No defect is ever switched on in an ordinary build.
#[cfg(not(lanterman_weakened))]
#[inline(always)]
#[must_use]
pub const fn is_on(_name: &str) -> bool {
    false
}

/// Whether the deliberate defect with this name is switched on: never, but in tests of the tests.
#[doc(hidden)]
#[macro_export]
macro_rules! weakened {
    ($name:literal) => {
        $crate::weakening::is_on($name)
    };
}
