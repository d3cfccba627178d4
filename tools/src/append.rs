//! `lanterman append`: messages from files or standard input to the end of a log.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use lanterman::{Durability, NewMessage, Options, Store, Writer};
use lanterman_format::LogName;
use lanterman_format::limits::{VALUE_BYTES_DEFAULT_MAX, VALUE_BYTES_MAX};
use serde::Serialize;

use crate::cli::{log_name, parse_delimiter};
use crate::messages::{Messages, Refusal};
use crate::output::{Output, complain};
use crate::problem::{Outcome, Problem};
use crate::progress::Progress;

/// Progress is told in steps of this many bytes.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// Append messages to a log, from files or standard input
///
/// One message a line: the bytes up to each newline, whatever they are. They need not be UTF-8, a carriage return
/// before the newline stays, an empty line is an empty message, and a last line without a newline counts. The store is
/// created if there is none, and so is the log. Input of any length streams through bounded memory.
///
/// The last line of the output is `appended N messages, B bytes, offsets A..E`, where B counts the bytes of keys and
/// values, and E is the offset behind the last message.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman append demo events README.md\n  \
    journalctl -f -o cat | lanterman append /var/lib/app-store system --commit-every 100 --acks\n  \
    find . -type f -print0 | lanterman append demo files --null\n  \
    lanterman append demo pictures --whole *.png\n  \
    lanterman append demo films --whole --key dusk dusk.mkv\n  \
    lanterman append demo users --key-delimiter : /etc/passwd\n\n\
    Exit codes:\n  \
    0  everything was appended, and lasts as --durability says\n  \
    1  a message was refused because it exceeds the limit (those before it were appended), or the store is damaged\n  \
    2  the call was wrong or could not be carried out: no such file, the store is open for writing elsewhere, the\n     \
    directory is no store, the disk is full")]
pub(crate) struct AppendCall {
    /// The store's directory; created if there is none
    store: PathBuf,
    /// Name of the log: 1 to 255 bytes of UTF-8 without control characters
    log: OsString,
    /// Files to read, one after the other; `-` or none is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Messages end with a NUL byte and not with a newline
    #[arg(long, conflicts_with = "whole")]
    null: bool,
    /// Each file is one message; one over 1 MiB is kept in parts and may have any length, unless --limit is given
    #[arg(long)]
    whole: bool,
    /// What stands before the first C of a message becomes its key; a message without C has none (\t is a tab)
    #[arg(long, value_name = "C", value_parser = parse_delimiter)]
    key_delimiter: Option<u8>,
    /// The key of each message
    #[arg(long, value_name = "K", requires = "whole", conflicts_with_all = ["key_delimiter", "limit"])]
    key: Option<OsString>,
    /// Commit after every N messages, and at the end; otherwise only at the end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    commit_every: Option<u64>,
    /// What a commit waits for
    #[arg(long, value_enum, default_value_t = Level::Disk)]
    durability: Level,
    /// Print `durable N` as soon as the first N messages of the log are on disk, on a line of its own, flushed
    #[arg(long)]
    acks: bool,
    /// Longest message taken, in bytes; at most 268435456, and 67108864 if it is not given
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=u64::from(VALUE_BYTES_MAX)))]
    limit: Option<u64>,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// The disk: neither a killed process nor a power cut loses what was committed
    Disk,
    /// The operating system: a killed process loses nothing, a power cut may
    Process,
    /// Nothing: only closing the store at the end makes the messages last
    None,
}

#[derive(Serialize)]
struct Ack {
    durable: u64,
}

#[derive(Serialize)]
struct Report {
    messages: u64,
    bytes: u64,
    first_offset: u64,
    end_offset: u64,
    durable_end: u64,
}

/// One call under way.
struct Appending<'a> {
    call: &'a AppendCall,
    output: &'a mut Output,
    writer: Writer,
    progress: Progress,
    first_offset: u64,
    messages: u64,
    bytes: u64,
    shown_bytes: u64,
    uncommitted: u64,
    acknowledged: u64,
}

pub(crate) fn run(call: &AppendCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    // Before anything is created: a wrong call leaves nothing behind.
    LogName::parse(name).map_err(lanterman::Error::from)?;
    let total_bytes = check_files(call)?;
    let store = Options::new()
        .message_bytes_max(call.limit())
        .open_copying(&call.store)?;
    let writer = store.writer(name)?;
    let (first_offset, acknowledged) = (writer.next_offset().get(), writer.durable_end().get());
    let mut appending = Appending {
        call,
        output,
        writer,
        progress: Progress::new("appending", total_bytes),
        first_offset,
        messages: 0,
        bytes: 0,
        shown_bytes: 0,
        uncommitted: 0,
        acknowledged,
    };
    let outcome = appending.all_files();
    // What stands before a refused message was appended, and is kept.
    let kept = appending.commit();
    appending.progress.finish();
    let report = appending.report();
    drop(appending);
    close(store, call.durability)?;
    // Also where a message was refused: those before it are in the log. Where a commit failed, its error says which are.
    if kept.is_ok() {
        tell(output, call.json, &report)?;
    }
    outcome.and(kept).map(|()| Outcome::Well)
}

/// Looks whether the files can be read, and how much there is; nothing is opened, so that a pipe loses nothing.
fn check_files(call: &AppendCall) -> Result<Option<u64>, Problem> {
    let mut total = (!call.files.is_empty()).then_some(0u64);
    for path in &call.files {
        if path == Path::new("-") {
            total = None;
            continue;
        }
        let found = path
            .metadata()
            .map_err(|source| Problem::io("read", path, source))?;
        if found.is_dir() {
            return Err(Problem::Call(format!(
                "cannot read {}: it is a directory",
                path.display()
            )));
        }
        total = total
            .filter(|_| found.is_file())
            .map(|total| total.saturating_add(found.len()));
    }
    Ok(total)
}

fn close(store: Store, level: Level) -> Result<(), Problem> {
    match store.close() {
        Ok(()) => Ok(()),
        // Everything was committed to the disk; only the next opening has more to read.
        Err(error) if level == Level::Disk => {
            complain(&format_args!(
                "all that was committed is on disk, but closing the store failed: {error}"
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(output: &mut Output, json: bool, report: &Report) -> Result<(), Problem> {
    if json {
        return output.json(report);
    }
    let Report {
        messages,
        bytes,
        first_offset,
        end_offset,
        ..
    } = report;
    output.line(format_args!(
        "appended {messages} messages, {bytes} bytes, offsets {first_offset}..{end_offset}"
    ))
}

impl AppendCall {
    fn limit(&self) -> u64 {
        self.limit.unwrap_or(u64::from(VALUE_BYTES_DEFAULT_MAX))
    }
}

/// A source whose bytes are counted as they come.
struct Counted<'a, S> {
    source: S,
    progress: &'a mut Progress,
    bytes: u64,
}

impl<S: Read> Read for Counted<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(out)?;
        self.bytes += read as u64;
        self.progress.advance(read as u64);
        Ok(read)
    }
}

impl Appending<'_> {
    fn all_files(&mut self) -> Result<(), Problem> {
        let call = self.call;
        if call.files.is_empty() {
            return self.one_source(io::stdin().lock(), "standard input");
        }
        for path in &call.files {
            if path == Path::new("-") {
                self.one_source(io::stdin().lock(), "standard input")?;
                continue;
            }
            let file = File::open(path).map_err(|source| Problem::io("open", path, source))?;
            self.one_source(file, &path.display().to_string())?;
        }
        Ok(())
    }

    fn one_source(&mut self, source: impl Read, name: &str) -> Result<(), Problem> {
        if self.call.whole {
            return self.whole(source, name);
        }
        let limit = usize::try_from(self.call.limit()).unwrap_or(usize::MAX);
        // The key counts against the line too: a line is never longer than both limits together.
        let key_bytes = self
            .call
            .key_delimiter
            .map_or(0, |_| lanterman_format::limits::KEY_BYTES_MAX as usize + 1);
        let delimiter = if self.call.null { 0 } else { b'\n' };
        let mut messages = Messages::new(source, delimiter, limit.saturating_add(key_bytes));
        let mut line = 0u64;
        loop {
            line += 1;
            match messages.next() {
                Ok(Some(message)) => self
                    .one(message)
                    .map_err(|problem| self.at_line(problem, name, line))?,
                Ok(None) => return Ok(()),
                Err(Refusal::TooLong) => return Err(self.too_long(name, line)),
                Err(Refusal::Read(error)) => return Err(Problem::io("read", Path::new(name), error)),
            }
        }
    }

    /// All of a source as one message.
    fn whole(&mut self, source: impl Read, name: &str) -> Result<(), Problem> {
        if self.call.limit.is_none() && self.call.key_delimiter.is_none() {
            return self.of_any_length(source, name);
        }
        let mut bytes = Vec::new();
        let most = self.call.limit().saturating_add(1);
        source
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| Problem::io("read", Path::new(name), error))?;
        if bytes.len() as u64 == most {
            return Err(self.refused(&format!("{name} has more than {} bytes", self.call.limit())));
        }
        self.one(&bytes).map_err(|problem| match problem {
            Problem::Store(lanterman::Error::TooLarge { .. }) => self.refused(&format!("{name}: {problem}")),
            other => other,
        })
    }

    /// All of a source as one message, which need not fit in memory.
    fn of_any_length(&mut self, source: impl Read, name: &str) -> Result<(), Problem> {
        let mut counted = Counted {
            source,
            progress: &mut self.progress,
            bytes: 0,
        };
        let message = match &self.call.key {
            Some(key) => NewMessage::new(&[]).key(key.as_encoded_bytes()),
            None => NewMessage::new(&[]),
        };
        let appended = self.writer.append_large(&message, &mut counted);
        let bytes = counted.bytes;
        match appended {
            Ok(_) => {}
            Err(lanterman::Error::ValueSource { source, .. }) => {
                let again = io::Error::new(source.kind(), source.to_string());
                return Err(Problem::io("read", Path::new(name), again));
            }
            Err(error) => return Err(self.with_watermark(error)),
        }
        self.bytes += bytes;
        self.shown_bytes = self.bytes;
        self.appended_one()
    }

    #[inline]
    fn one(&mut self, message: &[u8]) -> Result<(), Problem> {
        let appended = match self
            .call
            .key_delimiter
            .and_then(|delimiter| memchr::memchr(delimiter, message))
        {
            None => {
                self.bytes += message.len() as u64;
                self.writer.append(message)
            }
            Some(at) => {
                let (key, rest) = message.split_at(at);
                let value = rest.get(1..).unwrap_or_default();
                self.bytes += (key.len() + value.len()) as u64;
                self.writer.append_message(&NewMessage::new(value).key(key))
            }
        };
        if let Err(error) = appended {
            return Err(self.with_watermark(error));
        }
        self.appended_one()?;
        if self.bytes - self.shown_bytes >= PROGRESS_STEP_BYTES {
            self.progress.advance(self.bytes - self.shown_bytes);
            self.shown_bytes = self.bytes;
        }
        Ok(())
    }

    #[inline]
    fn appended_one(&mut self) -> Result<(), Problem> {
        self.messages += 1;
        self.uncommitted += 1;
        match self.call.commit_every {
            Some(every) if self.uncommitted >= every => self.commit(),
            _ => Ok(()),
        }
    }

    fn commit(&mut self) -> Result<(), Problem> {
        self.uncommitted = 0;
        let durability = match self.call.durability {
            Level::Disk => Durability::Disk,
            Level::Process => Durability::Process,
            Level::None => return Ok(()),
        };
        if let Err(error) = self.writer.commit(durability) {
            return Err(self.with_watermark(error));
        }
        let durable = self.writer.durable_end().get();
        if self.call.acks && durable > self.acknowledged {
            self.acknowledged = durable;
            self.acknowledge(durable)?;
        }
        Ok(())
    }

    /// Says at once what is on disk. That nobody listens any more is no reason to leave input behind.
    fn acknowledge(&mut self, durable: u64) -> Result<(), Problem> {
        let told = if self.call.json {
            self.output.json(&Ack { durable })
        } else {
            self.output.line(format_args!("durable {durable}"))
        };
        match told.and_then(|()| self.output.flush()) {
            Err(Problem::PipeClosed) => Ok(()),
            other => other,
        }
    }

    fn report(&self) -> Report {
        Report {
            messages: self.messages,
            bytes: self.bytes,
            first_offset: self.first_offset,
            end_offset: self.writer.next_offset().get(),
            durable_end: self.writer.durable_end().get(),
        }
    }

    fn too_long(&self, name: &str, line: u64) -> Problem {
        self.refused(&format!(
            "line {line} of {name} is longer than a message may be, {} bytes",
            self.call.limit()
        ))
    }

    fn at_line(&self, problem: Problem, name: &str, line: u64) -> Problem {
        match problem {
            Problem::Store(lanterman::Error::TooLarge {
                part, limit_bytes, ..
            }) => self.refused(&format!(
                "the {part} in line {line} of {name} is longer than the limit, {limit_bytes} bytes"
            )),
            other => other,
        }
    }

    fn refused(&self, what: &str) -> Problem {
        Problem::Refused(format!(
            "{what}; the {} messages before it were appended (--limit sets the limit)",
            self.messages
        ))
    }

    /// What is on disk all the same.
    fn with_watermark(&self, error: lanterman::Error) -> Problem {
        match error {
            lanterman::Error::TooLarge { .. } => error.into(),
            error => {
                let durable = self.writer.durable_end();
                Problem::StoreWith {
                    error,
                    context: format!("the log's messages below offset {durable} are on disk"),
                }
            }
        }
    }
}
