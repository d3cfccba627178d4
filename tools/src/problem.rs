//! Why a call did not end well, and what the shell is told.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lanterman::ErrorKind;

/// How a call ended that could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Well,
    /// Damage was found, or something was refused, and it was told.
    Found,
}

impl Outcome {
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Outcome::Well => ExitCode::SUCCESS,
            Outcome::Found => ExitCode::from(1),
        }
    }
}

/// Why a call was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Nobody reads the output any more, which is no failure.
    #[error("the output was closed")]
    PipeClosed,
    /// The call was wrong.
    #[error("{0}")]
    Call(String),
    /// What was given was refused, by a limit of the store.
    #[error("{0}")]
    Refused(String),
    /// The system refused an operation on a file.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The store's own error.
    #[error("{0}")]
    Store(#[from] lanterman::Error),
    /// The store's own error, with what the user needs to know beside it.
    #[error("{error} ({context})")]
    StoreWith {
        /// The error.
        error: lanterman::Error,
        /// What holds all the same.
        context: String,
    },
}

impl Problem {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Problem::Io {
            operation,
            path: path.to_path_buf(),
            source,
        }
    }

    /// 1 where damage or a refusal was met, 2 where the call was wrong or could not be carried out.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let code = match self {
            Problem::PipeClosed => 0,
            Problem::Refused(_) => 1,
            Problem::Store(error) | Problem::StoreWith { error, .. } => store_exit_code(error),
            Problem::Call(_) | Problem::Io { .. } => 2,
        };
        ExitCode::from(code)
    }
}

fn store_exit_code(error: &lanterman::Error) -> u8 {
    match error {
        lanterman::Error::TooLarge { .. } => 1,
        other if other.kind() == ErrorKind::RestoreData => 1,
        _ => 2,
    }
}
