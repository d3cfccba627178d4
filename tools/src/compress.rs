//! `lanterman compress`: messages of a log are compressed together from now on.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lanterman::Compression;
use serde::Serialize;

use crate::amounts::parse_size;
use crate::cli::log_name;
use crate::editing::{close, open};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// Have the messages of a log compressed
///
/// From now on, wherever messages become a block of their own; what stands in blocks already stays as it is, and so does what
/// does not shrink. The newest messages are never compressed. The log is created if there is none.
///
/// Reading one message of a compressed log takes uncompressing those that stand with it. Programs that read the store must know
/// the codec.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman compress demo events\n  \
    lanterman compress demo events --codec zstd --level 9 --batch-bytes 256KiB\n  \
    lanterman compress demo events --off\n\n\
    Exit codes:\n  \
    0  the log is as asked for, durably\n  \
    1  the store is damaged\n  \
    2  the call was wrong, or the store is open for writing elsewhere")]
pub(crate) struct CompressCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// How it is compressed: lz4 is little work, zstd makes it smaller
    #[arg(long, value_enum, default_value = "lz4")]
    codec: CodecName,
    /// How much work zstd puts into it, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=19))]
    level: u8,
    /// How many bytes of messages are compressed together: 4KiB, 64KiB, 1MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64KiB")]
    batch_bytes: u64,
    /// Compress no more
    #[arg(long, conflicts_with_all = ["codec", "level", "batch_bytes"])]
    off: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CodecName {
    Lz4,
    Zstd,
}

#[derive(Serialize)]
struct Report<'a> {
    log: &'a str,
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    codec: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_bytes: Option<u32>,
}

pub(crate) fn run(call: &CompressCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let compression = match call.codec {
        CodecName::Lz4 => Compression::lz4(),
        CodecName::Zstd => Compression::zstd(call.level),
    };
    // What is more than can be said is more than is allowed.
    let batch_bytes = u32::try_from(call.batch_bytes).unwrap_or(u32::MAX);
    let compression = (!call.off).then(|| compression.with_batch_bytes(batch_bytes));
    let store = open(&call.store)?;
    store.set_compression(name, compression.as_ref())?;
    close(store);
    if call.json {
        output.json(&Report {
            log: name,
            compressed: compression.is_some(),
            codec: compression.map(|compression| compression.codec_name()),
            level: compression.and_then(|compression| compression.level()),
            batch_bytes: compression.map(|compression| compression.batch_bytes()),
        })?;
        return Ok(Outcome::Well);
    }
    match compression {
        Some(compression) => output.line(format_args!(
            "log {name:?} is compressed with {} from now on",
            compression.codec_name()
        ))?,
        None => output.line(format_args!("log {name:?} is not compressed any more"))?,
    }
    Ok(Outcome::Well)
}
