//! What the subcommands that edit logs have in common: opening the store, asking who is at the terminal, and telling
//! what was destroyed.

use std::fmt;
use std::io::{self, BufRead, IsTerminal};
use std::ops::Range;
use std::path::Path;

use lanterman::{BlockPlace, DeletionPlan, DeletionReceipt, Options, Store};
use serde::Serialize;

use crate::output::{Output, ask, complain};
use crate::problem::Problem;

/// Longest answer that is taken from a terminal; what is longer is no `yes`.
const ANSWER_BYTES_MAX: u64 = 64;

/// Opens a store that is there, to edit it.
pub(crate) fn open(path: &Path) -> Result<Store, Problem> {
    Ok(Options::new().create(false).open_copying(path)?)
}

/// Opens a store to find out what an edit would do; nothing can be written.
pub(crate) fn open_for_planning(path: &Path) -> Result<Store, Problem> {
    Ok(Options::new().read_only(true).open_copying(path)?)
}

/// Closes a store after an edit, which is on disk by then.
pub(crate) fn close(store: Store) {
    if let Err(error) = store.close() {
        complain(&format_args!(
            "what was done is on disk, but closing the store failed: {error}"
        ));
    }
}

/// What is or would be destroyed of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Destruction {
    log: String,
    first: u64,
    end: u64,
    messages: u64,
    /// Of keys and values.
    bytes: u64,
    /// Whether both counts are exact, and not estimated for a part of a slab that cannot be read.
    exact: bool,
    /// The places on the disk that held it, once it is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<BlockRow>,
    /// The version from which on it is gone; none for a plan.
    version: Option<u64>,
    dry_run: bool,
}

/// A place on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BlockRow {
    segment: u64,
    position: u64,
    bytes: u64,
    /// A node of the log's tree, in the place of all that it leads to.
    node: bool,
}

impl BlockRow {
    fn of(place: &BlockPlace) -> Self {
        BlockRow {
            segment: place.segment.get(),
            position: place.position.get(),
            bytes: place.bytes,
            node: place.is_node,
        }
    }
}

impl Destruction {
    /// A plan for `offsets` of a log.
    pub(crate) fn planned(log: &str, offsets: Range<u64>, messages: u64, bytes: u64, exact: bool) -> Self {
        Destruction {
            log: log.to_owned(),
            first: offsets.start,
            end: offsets.end,
            messages,
            bytes,
            exact,
            blocks: Vec::new(),
            version: None,
            dry_run: true,
        }
    }

    /// Tells it, with a verb for what is done to the messages: its infinitive, and the form that says it was done.
    pub(crate) fn tell(&self, verb: Verb, json: bool, output: &mut Output) -> Result<(), Problem> {
        if json {
            return output.json(self);
        }
        match self.version {
            Some(version) => output.line(format_args!("{} {self}; version {version}", verb.done)),
            None => output.line(format_args!("would {} {self}; nothing was changed", verb.plan)),
        }
    }

    /// Whether it destroys nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.messages == 0 && self.exact
    }
}

/// How an edit is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verb {
    pub(crate) plan: &'static str,
    pub(crate) done: &'static str,
}

impl From<DeletionPlan> for Destruction {
    fn from(plan: DeletionPlan) -> Self {
        Self::planned(&plan.log, plan.offsets, plan.messages, plan.bytes, plan.is_exact)
    }
}

impl From<DeletionReceipt> for Destruction {
    fn from(receipt: DeletionReceipt) -> Self {
        let version = Some(receipt.version.get());
        let blocks = receipt.blocks.iter().map(BlockRow::of).collect();
        let plan = Self::planned(
            &receipt.log,
            receipt.offsets,
            receipt.messages,
            receipt.bytes,
            receipt.is_exact,
        );
        Destruction {
            version,
            blocks,
            dry_run: false,
            ..plan
        }
    }
}

impl fmt::Display for Destruction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = if self.exact { "" } else { "about " };
        write!(
            formatter,
            "{about}{} messages, {} bytes, of log {:?}, offsets {}..{}",
            self.messages, self.bytes, self.log, self.first, self.end
        )
    }
}

/// Asks before something is destroyed, where a person is at the terminal; only `yes` goes on.
///
/// Programs are not asked: neither where standard input comes from elsewhere nor where standard output goes elsewhere.
pub(crate) fn confirm(yes: bool, verb: Verb, plan: &impl fmt::Display) -> Result<(), Problem> {
    if yes || !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Ok(());
    }
    ask(&format_args!(
        "about to {} {plan}; this cannot be undone.\nType yes to go on: ",
        verb.plan
    ));
    if is_yes(io::stdin().lock())? {
        return Ok(());
    }
    Err(Problem::Refused(
        "the answer was not yes: nothing was changed".to_owned(),
    ))
}

fn is_yes(answers: impl BufRead) -> Result<bool, Problem> {
    let mut answer = Vec::new();
    io::Read::take(answers, ANSWER_BYTES_MAX)
        .read_until(b'\n', &mut answer)
        .map_err(|error| Problem::io("read", Path::new("standard input"), error))?;
    Ok(answer.trim_ascii() == b"yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for yes in ["yes\n", "yes", " yes \r\n", "yes\nno\n"] {
            assert!(is_yes(yes.as_bytes()).unwrap(), "{yes:?}");
        }
        let long = format!("{}yes\n", " ".repeat(100));
        for no in [
            "",
            "\n",
            "y\n",
            "Yes\n",
            "no\n",
            "yes please\n",
            "no\nyes\n",
            &long,
        ] {
            assert!(!is_yes(no.as_bytes()).unwrap(), "{no:?}");
        }
    }

    #[test]
    fn counts_that_are_estimated_say_so() {
        let mut plan = Destruction::planned("a\"b", 3..9, 5, 100, true);
        assert_eq!(
            plan.to_string(),
            "5 messages, 100 bytes, of log \"a\\\"b\", offsets 3..9"
        );
        plan.exact = false;
        assert!(plan.to_string().starts_with("about 5 messages"));
        plan.messages = 0;
        assert!(!plan.is_nothing());
    }
}
