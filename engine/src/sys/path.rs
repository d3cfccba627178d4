//! Names in directories, for files that nobody else may slip in or exchange.
//!
//! What callers may rely on:
//!
//! - the last name of a path is never followed if it is a link, and the directory that it stands in is not either: what
//!   is opened, renamed or removed stands where the path says. Directories above that one are the user's own matter;
//! - what is no regular file is refused before it is opened: opening a FIFO or a device has effects of its own;
//! - what is made has the mode that was asked for, whatever the umask takes away.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lanterman_format::weakened;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;

/// A name in a directory that is held open: whatever happens to the path meanwhile, the name is looked up there.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
}

impl<'a> Place<'a> {
    /// Finds the directory of `path` and holds it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a path without a name at its end, `NotADirectory` where the directory is a link or none at
    /// all, or what else the kernel answers.
    pub(crate) fn of(path: &'a Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no name"))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = open_directory(parent, OFlags::PATH)?;
        Ok(Self { directory, name })
    }

    /// Opens the name with `flags`, to which what keeps links from being followed is added.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn open(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // Without NONBLOCK the opening of a FIFO, put there after the look at it, would wait for ever.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | no_follow();
        loop {
            match fs::openat(&self.directory, self.name, flags, mode) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Looks at the name without opening it: a regular file, or nothing at all.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for anything else, saying what stands there, or what the kernel answers.
    pub(crate) fn check_regular(&self) -> io::Result<()> {
        if weakened!("links-followed") {
            return Ok(());
        }
        match fs::statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => check_regular(FileType::from_raw_mode(found.st_mode)),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the name, be it a file's or a link's; what a link leads to stays.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        Ok(fs::unlinkat(&self.directory, self.name, AtFlags::empty())?)
    }

    /// Gives the name's file the name `to`, never over an existing one.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, or what else the kernel answers.
    pub(crate) fn rename(&self, to: &Place<'_>) -> io::Result<()> {
        let renamed = fs::renameat_with(
            &self.directory,
            self.name,
            &to.directory,
            to.name,
            fs::RenameFlags::NOREPLACE,
        );
        match renamed {
            // Some file systems lack the flag. One process writes a store, so between look and rename nobody comes in.
            Err(Errno::INVAL | Errno::NOSYS) => {
                if fs::statat(&to.directory, to.name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Ok(fs::renameat(&self.directory, self.name, &to.directory, to.name)?)
            }
            other => Ok(other?),
        }
    }
}

fn no_follow() -> OFlags {
    if weakened!("links-followed") {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    }
}

/// Refuses what is no regular file, and says what it is.
///
/// # Errors
///
/// `InvalidInput`.
pub(crate) fn check_regular(found: FileType) -> io::Result<()> {
    let what = match found {
        FileType::RegularFile => return Ok(()),
        FileType::Symlink => "a symbolic link stands there, and links are not followed",
        FileType::Directory => "a directory stands there, not a file",
        FileType::Fifo => "a FIFO stands there, not a regular file",
        FileType::Socket => "a socket stands there, not a regular file",
        FileType::BlockDevice | FileType::CharacterDevice => "a device stands there, not a regular file",
        FileType::Unknown => "not a regular file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Opens a directory that is no link.
///
/// # Errors
///
/// `NotADirectory` for a link or anything else that is none, or what else the kernel answers.
pub(crate) fn open_directory(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC | no_follow();
    loop {
        match fs::open(path, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!(
                        "{} is not a directory of its own (links are not followed)",
                        path.display()
                    ),
                ));
            }
            other => return Ok(other?),
        }
    }
}

/// The names in a directory that is no link, in no order. Names that are not UTF-8 are left out.
///
/// # Errors
///
/// As [`open_directory`].
pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    let directory = open_directory(path, OFlags::RDONLY)?;
    let mut names = Vec::new();
    for entry in fs::Dir::new(directory)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// What stands at a path, its last name not followed; nothing when there is nothing.
///
/// # Errors
///
/// What the kernel answers, other than that there is nothing.
pub(crate) fn look(path: &Path) -> io::Result<Option<(FileType, u64)>> {
    // Without the slashes at its end: with them the kernel would follow a link all the same.
    let trimmed = path.components().as_path();
    match fs::statat(fs::CWD, trimmed, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some((
            FileType::from_raw_mode(found.st_mode),
            u64::try_from(found.st_size).unwrap_or(0),
        ))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory that its owner alone may enter.
///
/// # Errors
///
/// `AlreadyExists`, or what else the kernel answers.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let made = if weakened!("directory-mode-by-umask") {
        Mode::from_raw_mode(PERMISSIONS)
    } else {
        Mode::RWXU
    };
    fs::mkdir(path, made)?;
    if weakened!("directory-mode-by-umask") {
        return Ok(());
    }
    let outcome = restore_directory_mode(path);
    if outcome.is_err() {
        // It is empty and unknown to anybody; the first error is the one that matters.
        fs::rmdir(path).ok();
    }
    outcome
}

/// What the umask took away comes back. One that takes away from the owner too is rare, so mostly nothing is done.
fn restore_directory_mode(path: &Path) -> io::Result<()> {
    let directory = open_directory(path, OFlags::PATH)?;
    if fs::fstat(&directory)?.st_mode & PERMISSIONS == Mode::RWXU.as_raw_mode() {
        return Ok(());
    }
    // Through the descriptor: the path could lead to another directory by now. A descriptor that may not read cannot be
    // given to `fchmod`.
    let held = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(fs::chmod(held, Mode::RWXU)?)
}

/// Gives a file just made to its owner alone, where the umask or an access list of the directory left it otherwise.
///
/// # Errors
///
/// What the kernel answers.
pub(crate) fn restore_file_mode(file: BorrowedFd<'_>) -> io::Result<()> {
    let wanted = Mode::RUSR | Mode::WUSR;
    if weakened!("file-mode-by-umask") || fs::fstat(file)?.st_mode & PERMISSIONS == wanted.as_raw_mode() {
        return Ok(());
    }
    Ok(fs::fchmod(file, wanted)?)
}
