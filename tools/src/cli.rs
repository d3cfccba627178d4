//! The command line.

use std::ffi::{OsStr, OsString};

use clap::{Parser, Subcommand};

use crate::problem::Problem;

/// Works with Lanterman stores: directories that hold many append-only logs.
#[derive(Debug, Parser)]
#[command(
    name = "lanterman",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 all is well; 1 damage was found, or something was refused; 2 the call was wrong, or could not be carried out.\n\
                  `lanterman COMMAND --help` tells more, with examples."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append messages to a log, from files or standard input
    Append(crate::append::AppendCall),
    /// Read messages of a log, byte for byte what went in
    Read(crate::read::ReadCall),
    /// List the logs of a store
    Logs(crate::logs::LogsCall),
    /// Show what a log, or a part of it, holds: counts, sizes, types, rates
    Stats(crate::stats::StatsCall),
    /// Set what a log demands of messages that are appended to it
    Constrain(crate::constrain::ConstrainCall),
    /// Show what a log demands of messages that are appended to it
    Constraints(crate::constrain::ConstraintsCall),
    /// List the messages of a log that its rules would not let in today
    Check(crate::constrain::CheckCall),
    /// Make a log keyed: a table of the newest message of each key
    Keyed(crate::keyed::KeyedCall),
    /// Print the newest message of a key
    Get(crate::keyed::GetCall),
    /// Remove the messages of a keyed log that newer ones supersede
    Compact(crate::keyed::CompactCall),
    /// Have the messages of a log compressed from now on
    Compress(crate::compress::CompressCall),
    /// Delete a range of offsets of a log
    Delete(crate::delete::DeleteCall),
    /// Keep the newest part of a log, and delete what is older
    Retain(crate::retain::RetainCall),
    /// Make a new log with everything that another one has
    Fork(crate::fork::ForkCall),
    /// Put everything that a log has behind the end of another one
    Concat(crate::concat::ConcatCall),
    /// Make, list and drop named snapshots
    Snapshot(crate::snapshot::SnapshotCall),
    /// Drop a log with all its messages
    Drop(crate::drop_log::DropCall),
    /// Give back the space of what was deleted or superseded
    Gc(crate::gc::GcCall),
    /// Show what a store, or one of its segment files, is made of
    Inspect(crate::inspect::InspectCall),
    /// Check every checksum of a store, and that its structures fit each other
    Verify(crate::verify::VerifyCall),
    /// Plan what can be done about damage, and do it if told so
    Repair(crate::repair::RepairCall),
}

/// The name of a log as the library takes it.
pub(crate) fn log_name(given: &OsStr) -> Result<&str, Problem> {
    given.to_str().ok_or_else(|| {
        Problem::Call(format!(
            "not a log name: a log name must be UTF-8, and {:?} is not",
            OsString::from(given)
        ))
    })
}

/// A delimiter of one byte.
pub(crate) fn parse_delimiter(given: &str) -> Result<u8, String> {
    match (given, given.as_bytes()) {
        ("\\t", _) => Ok(b'\t'),
        ("\\0", _) => Ok(0),
        (_, [byte]) => Ok(*byte),
        _ => Err("it must be one ASCII character, or \\t for a tab".to_owned()),
    }
}
