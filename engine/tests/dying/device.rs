//! A device that fails: a file system in an image behind a loop device, whose image is cut short.

use std::path::{Path, PathBuf};
use std::process::Command;

use lanterman::Error;

use super::dying::*;

const MOUNTED: &str = "device";
const IMAGE: &str = "image";

/// A mounted file system with a copy of the store, until it is dropped.
pub(super) struct Device(PathBuf);

fn works(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

impl Device {
    /// Nothing where this may not be done.
    pub(super) fn mount(directory: &Path) -> Option<Self> {
        let (image, mounted) = (directory.join(IMAGE), directory.join(MOUNTED));
        let (image, at) = (image.to_str().unwrap(), mounted.to_str().unwrap());
        std::fs::create_dir(&mounted).unwrap();
        let is_made = works("truncate", &["-s", "32M", image])
            && works("mkfs.ext4", &["-q", image])
            && works("mount", &["-o", "loop", image, at]);
        if !is_made {
            return None;
        }
        let device = Self(mounted.clone());
        copy_store(&directory.join("template"), &mounted);
        // A new mount knows no pages of it.
        run("umount", &[at]);
        run("mount", &["-o", "loop,ro", image, at]);
        Some(device)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        works("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
#[ignore = "run by its parent"]
fn child_on_a_failing_device() {
    let Some(directory) = directory() else { return };
    let path = directory.join(MOUNTED).join("store");
    let warm = open_mapped(options().read_only(true), &path);
    let warm = warm.snapshot(DOOMED).unwrap();
    assert_eq!(
        read_all(&mut warm.cursor(0u64).unwrap(), Ask::Verify).right,
        DOOMED_MESSAGES
    );
    let cold = open_mapped(options().read_only(true), &path);
    let cold = cold.snapshot(DOOMED).unwrap();
    let copying = options().read_only(true).open_copying(&path).unwrap();
    let copying = copying.snapshot(DOOMED).unwrap();
    for snapshot in [&cold, &copying] {
        assert!(snapshot.get(0u64).is_ok());
    }
    let elsewhere = open_mapped(options(), &directory.join("template"));
    forget_pages(&path);
    cut(&directory.join(IMAGE), 4096);
    for snapshot in [&warm, &cold, &copying] {
        let tally = read_all(&mut snapshot.cursor(0u64).unwrap(), Ask::Not);
        assert!(tally.lost > DOOMED_MESSAGES / 2, "{tally:?}");
        assert_eq!(tally.right + tally.lost, DOOMED_MESSAGES);
        let error = snapshot.get(DOOMED_MESSAGES / 2).unwrap_err();
        let Error::Unreadable(lost) = &error else {
            panic!("a device that fails gives {error}");
        };
        assert_eq!(lost.source.raw_os_error(), Some(libc::EIO), "{error}");
    }
    let log = elsewhere.log(DOOMED).unwrap();
    let tally = read_all(&mut log.cursor(0u64).unwrap(), Ask::Verify);
    assert_eq!(tally.right, DOOMED_MESSAGES);
}
