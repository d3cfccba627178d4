//! Small real file systems in image files on loop devices, for tests that fill them up or cut their power.
//!
//! They are mounted in a mount namespace of the test's own thread and those that it starts: when the test ends, however it
//! ends, nothing is left mounted.
#![allow(
    dead_code,
    unreachable_pub,
    unsafe_code,
    clippy::unwrap_used,
    reason = "each test uses a part of this; leaving the namespace of mounts and the ioctl of the power cut have no safe wrapper"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `FS_IOC_SHUTDOWN`, which ext4 and XFS know, and its way that writes out nothing more, not even the file system's log.
const SHUTDOWN: u64 = 0x8004_587d;
const WITHOUT_LOG_FLUSH: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

/// An image with a file system, mounted until it is dropped.
#[derive(Debug)]
pub struct LoopDisk {
    directory: tempfile::TempDir,
    is_mounted: bool,
}

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    // Without these three, mkfs.xfs refuses to make anything as small as a test wants it.
    command.envs([("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")]);
    let output = command
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", told.trim()))
}

/// A namespace of mounts for this thread and those that it starts from now on.
fn leave_namespace() -> Result<(), String> {
    // SAFETY: the only effect of this flag on the process is that this thread no longer shares its working directory and
    // umask, which no test changes, with the others.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if left != 0 {
        return Err(format!(
            "a namespace of mounts: {}",
            std::io::Error::last_os_error()
        ));
    }
    call("mount", &["--make-rprivate", "/"])
}

impl LoopDisk {
    /// Makes and mounts a file system of that many MiB.
    ///
    /// # Errors
    ///
    /// Why this machine cannot do that: a reason to skip, not to fail.
    pub fn new(kind: FileSystem, mebibytes: u64) -> Result<Self, String> {
        leave_namespace()?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut disk = LoopDisk {
            directory,
            is_mounted: false,
        };
        let image = disk.image();
        call("truncate", &["-s", &format!("{mebibytes}M"), &image])?;
        match kind {
            FileSystem::Ext4 => call("mkfs.ext4", &["-q", "-m", "0", &image])?,
            FileSystem::Xfs => call("mkfs.xfs", &["-q", "-f", &image])?,
        }
        std::fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> String {
        self.directory.path().join("image").to_str().unwrap().to_owned()
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn mount(&mut self) -> Result<(), String> {
        call(
            "mount",
            &["-o", "loop", &self.image(), self.path().to_str().unwrap()],
        )?;
        self.is_mounted = true;
        Ok(())
    }

    /// A handle by which its power is cut.
    pub fn switch(&self) -> PowerSwitch {
        PowerSwitch(File::open(self.path()).unwrap())
    }

    /// Unmounts and mounts again, as a machine does that is switched on: the file system's own log is replayed. Nothing of
    /// it may be open.
    pub fn restart(&mut self) {
        // The kernel lets go of a ring, and of the files in it, some time after the program did.
        let mut attempts = 0;
        while let Err(why) = call("umount", &[self.path().to_str().unwrap()]) {
            attempts += 1;
            assert!(attempts < 1000, "{why}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.is_mounted = false;
        self.mount().unwrap();
    }

    /// Takes all free space but `left` bytes with a file of that name.
    pub fn fill_with(&self, name: &str, left: u64) {
        let file = File::create(self.path().join(name)).unwrap();
        let mut step = self.free_bytes().saturating_sub(left);
        let mut taken = 0;
        while step >= 4096 {
            if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, step).is_ok() {
                taken += step;
                step = self.free_bytes().saturating_sub(left).min(step);
            } else {
                step /= 2;
            }
        }
    }

    pub fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).unwrap();
        found.f_bavail * found.f_frsize
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            // Also when a failing test still has files open in it; then it goes with the last of them.
            let _ignored = call("umount", &["-l", self.path().to_str().unwrap()]);
        }
    }
}

/// Cuts the power of a file system: what it did not write out yet is lost, and from then on every call fails.
#[derive(Debug)]
pub struct PowerSwitch(File);

impl PowerSwitch {
    pub fn cut(self) {
        let way = WITHOUT_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the kernel reads one 32-bit number through the pointer, which is valid for the
        // length of the call.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), SHUTDOWN, &raw const way) };
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Whether the path is on a file system of its own.
pub fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().unwrap().dev();
    device(path) != device(path.parent().unwrap())
}
