//! Standard output through one large buffer; a closed pipe ends the call quietly.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use serde::Serialize;

use crate::problem::Problem;
use crate::text::{Visible, VisibleJson};

/// Large enough that its cost is that of copying.
const BUFFER_BYTES: usize = 256 << 10;

/// Where answers go.
pub(crate) struct Output {
    target: Box<dyn Write>,
    buffer: Vec<u8>,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        // The library's own handle looks for newlines in all that it is given, and buffers behind the last one.
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Self::to(Box::new(std::fs::File::from(descriptor))),
            Err(_) => Self::to(Box::new(io::stdout())),
        }
    }

    pub(crate) fn to(target: Box<dyn Write>) -> Self {
        Output {
            target,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Adds bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        if bytes.len() > self.buffer.capacity() - self.buffer.len() {
            return self.bytes_slowly(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    #[cold]
    fn bytes_slowly(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.empty()?;
        if bytes.len() >= BUFFER_BYTES {
            return self.target.write_all(bytes).map_err(problem_of);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds a line of text, or several.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Problem> {
        writeln!(self, "{}", Visible(line)).map_err(problem_of)
    }

    /// Adds a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Problem> {
        let mut serializer = serde_json::Serializer::with_formatter(&mut *self, VisibleJson);
        value
            .serialize(&mut serializer)
            .map_err(|error| problem_of(error.into()))?;
        self.bytes(b"\n")
    }

    /// Hands over everything.
    pub(crate) fn flush(&mut self) -> Result<(), Problem> {
        self.empty()?;
        self.target.flush().map_err(problem_of)
    }

    /// Whether nothing waits to be handed over.
    pub(crate) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    fn empty(&mut self) -> Result<(), Problem> {
        let outcome = self.target.write_all(&self.buffer);
        // Cleared in any case: what failed once is not written again when the call ends.
        self.buffer.clear();
        outcome.map_err(problem_of)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.bytes(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(Problem::Io { source, .. }) => Err(source),
            Err(_) => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

fn problem_of(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Problem::PipeClosed,
        _ => Problem::io("write", Path::new("standard output"), error),
    }
}

/// Says on standard error what went wrong. Where that is closed too, there is nobody to tell.
pub(crate) fn complain(what: &impl std::fmt::Display) {
    let _ignored = writeln!(io::stderr(), "lanterman: {}", Visible(what));
}

/// Puts a question on standard error, where it is no part of the answer.
pub(crate) fn ask(question: &impl std::fmt::Display) {
    let _ignored = write!(io::stderr(), "lanterman: {}", Visible(question));
}

/// Says on standard error how the tool is called, in the words of who took the call apart.
pub(crate) fn complain_usage(text: &str) {
    let _ignored = write!(io::stderr(), "{}", Visible(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_come_out_in_order_however_large_they_are() {
        let shared = Shared::default();
        let mut output = Output::to(Box::new(shared.clone()));
        let large = vec![7u8; BUFFER_BYTES + 1];
        let mut expected = Vec::new();
        for part in [&b"one"[..], &large, b"two", &large[..BUFFER_BYTES - 2], b"three"] {
            output.bytes(part).unwrap();
            expected.extend_from_slice(part);
        }
        output.flush().unwrap();
        assert!(*shared.0.lock().unwrap() == expected, "the bytes differ");
    }

    #[test]
    fn a_closed_pipe_is_told_apart_from_a_failure() {
        let mut output = Output::to(Box::new(Closed));
        output.line("text").unwrap();
        assert!(matches!(output.flush(), Err(Problem::PipeClosed)));
        // Nothing is left that would be tried again.
        assert!(output.flush().is_ok());
    }
}
