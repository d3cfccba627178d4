//! Promise: nothing that somebody plants where the store makes, opens, renames or removes something leads it astray: links
//! are not followed, files with a second name are not written, FIFOs and devices are not opened. Shown with each of
//! them at every such path, and a directory outside whose content, names and modes must stay as they were.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

#[path = "common/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use lanterman::{Background, Durability, Error, Options, Store};
use processes::{skip, within};

/// Longer than any of this takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    LinkToFile,
    LinkToDirectory,
    LinkToNothing,
    HardLink,
    Fifo,
    Socket,
    Device,
    Directory,
}

const PLANTS: [Plant; 8] = [
    Plant::LinkToFile,
    Plant::LinkToDirectory,
    Plant::LinkToNothing,
    Plant::HardLink,
    Plant::Fifo,
    Plant::Socket,
    Plant::Device,
    Plant::Directory,
];

/// A directory with a store, and one outside that nothing may touch.
struct Scene {
    _directory: tempfile::TempDir,
    store: PathBuf,
    outside: PathBuf,
}

impl Scene {
    fn new() -> Self {
        // In memory where that can be had: hundreds of stores are made, and no power cut is played here.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
        let (store, outside) = (directory.path().join("store"), directory.path().join("outside"));
        std::fs::create_dir_all(outside.join("directory")).unwrap();
        for canary in ["canary", "directory/canary"] {
            std::fs::write(outside.join(canary), vec![b'c'; 100_000]).unwrap();
            std::fs::set_permissions(outside.join(canary), PermissionsExt::from_mode(0o640)).unwrap();
        }
        Scene {
            _directory: directory,
            store,
            outside,
        }
    }

    /// With a store in it that has a journal, slabs, a spare and a table of readers.
    fn with_store() -> Self {
        static FIRST: OnceLock<Scene> = OnceLock::new();
        let first = FIRST.get_or_init(|| {
            let scene = Scene::new();
            work(&scene.store).unwrap();
            scene
        });
        let scene = Scene::new();
        let copied = Command::new("cp")
            .args(["-a", "--"])
            .args([&first.store, &scene.store])
            .status();
        assert!(copied.unwrap().success());
        scene
    }

    /// Names, contents and modes of all that is outside.
    fn outside(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.outside.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let content = if metadata.is_file() {
                    std::fs::read(&path).unwrap()
                } else {
                    Vec::new()
                };
                if metadata.is_dir() {
                    waiting.push(path.clone());
                }
                found.insert(path, (metadata.mode(), content));
            }
        }
        found
    }

    /// Puts something at `path`; `false` where the machine does not allow it.
    fn plant(&self, plant: Plant, path: &Path) -> bool {
        match plant {
            Plant::LinkToFile => symlink(self.outside.join("canary"), path).unwrap(),
            Plant::LinkToDirectory => symlink(self.outside.join("directory"), path).unwrap(),
            Plant::LinkToNothing => symlink(self.outside.join("nothing"), path).unwrap(),
            Plant::HardLink => std::fs::hard_link(self.outside.join("canary"), path).unwrap(),
            Plant::Fifo => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Plant::Socket => drop(UnixListener::bind(path).unwrap()),
            Plant::Device => {
                let made = Command::new("mknod")
                    .arg(path)
                    .args(["c", "1", "7"])
                    .output()
                    .unwrap();
                if !made.status.success() {
                    return false;
                }
            }
            Plant::Directory => std::fs::create_dir(path).unwrap(),
        }
        true
    }
}

fn options() -> Options {
    Options::new()
        .background(Background::Manual)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 128 << 10)
        .journal_segment_bytes(64 << 10, 64 << 10)
}

/// Opens, fills slabs and journals, makes checkpoints so that segments are retired and used again.
fn work(path: &Path) -> Result<(), Error> {
    let store = options().open_copying(path)?;
    work_on(&store)?;
    // Segments of slabs are opened when they are first read.
    for message in store.snapshot("log")?.range(..)? {
        message?;
    }
    store.close()
}

fn work_on(store: &Store) -> Result<(), Error> {
    let mut writer = store.writer("log")?;
    for round in 0..3u8 {
        for _ in 0..30 {
            writer.append(&[round; 3000])?;
            writer.commit(Durability::Process)?;
        }
        writer.commit(Durability::Disk)?;
        store.checkpoint()?;
    }
    Ok(())
}

/// What is allowed: an error that names the place, or success without it.
#[track_caller]
fn judge(outcome: Result<(), Error>, name: &str, plant: Plant, must_fail: bool) {
    match outcome {
        Ok(()) => assert!(
            !must_fail,
            "{plant:?} at {name} was taken for one of the store's own"
        ),
        Err(error) => {
            let text = error.to_string();
            let named = name.rsplit('/').next().unwrap();
            let is_named = text.contains(named) || matches!(error, Error::NotAStore { .. });
            assert!(is_named, "{plant:?} at {name}: {text}");
        }
    }
}

/// Runs `work` with each plant at `name`, which is free or freed; says how many were tried.
fn with_every_plant(
    name: &str,
    must_fail: bool,
    scene: impl Fn() -> Scene,
    work: impl Fn(&Scene) -> Result<(), Error>,
) -> usize {
    let mut tried = 0;
    for plant in PLANTS {
        if name == "segments" && plant == Plant::Directory {
            continue;
        }
        let scene = scene();
        let path = scene.store.join(name);
        if !scene.plant(plant, &path) {
            skip(&format!("{plant:?} at {name}"), "it cannot be made here");
            continue;
        }
        let before = scene.outside();
        let outcome = within(PATIENCE, &format!("{plant:?} at {name}"), || work(&scene));
        assert!(
            scene.outside() == before,
            "{plant:?} at {name}: something outside was changed"
        );
        judge(outcome, name, plant, must_fail);
        tried += 1;
    }
    tried
}

fn files_in(path: &Path) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Moves what stands at `name` outside, so that a link to it would serve perfectly well.
fn without(name: &str) -> Scene {
    let scene = Scene::with_store();
    let path = scene.store.join(name);
    if path.is_dir() {
        std::fs::rename(&path, scene.outside.join("moved")).unwrap();
    } else {
        std::fs::remove_file(&path).unwrap();
    }
    scene
}

#[test]
fn nothing_planted_where_a_store_is_made_is_followed() {
    let empty = || {
        let scene = Scene::new();
        std::fs::create_dir(&scene.store).unwrap();
        scene
    };
    let make = |scene: &Scene| work(&scene.store);
    for name in ["lock", "segments"] {
        with_every_plant(name, true, empty, make);
    }
    for name in ["root.new", "readers"] {
        with_every_plant(name, false, empty, make);
    }
    // A root makes a store of the directory, which then lacks its segments.
    with_every_plant("root", true, empty, |scene| {
        make(scene).inspect_err(|error| assert!(matches!(error, Error::NotAStore { .. })))
    });
    for name in ["1.free", "1.journal", "1.slabs", "2.free", "2.slabs", "2.journal"] {
        let (number, kind) = name.split_once('.').unwrap();
        let name = format!("segments/{number:0>16}.{kind}");
        let scene = || {
            let scene = empty();
            std::fs::create_dir(scene.store.join("segments")).unwrap();
            scene
        };
        with_every_plant(&name, false, scene, make);
    }
}

#[test]
fn a_link_in_place_of_the_directory_itself_is_refused() {
    for plant in PLANTS {
        if plant == Plant::Directory {
            continue;
        }
        let scene = Scene::new();
        if !scene.plant(plant, &scene.store) {
            skip(&format!("{plant:?}"), "it cannot be made here");
            continue;
        }
        let before = scene.outside();
        let outcome = within(PATIENCE, &format!("{plant:?}"), || work(&scene.store));
        judge(outcome, "store", plant, true);
        assert!(
            scene.outside() == before,
            "{plant:?}: something outside was changed"
        );
    }
    // Also with a slash behind it, which the kernel takes for leave to follow.
    let scene = Scene::with_store();
    let link = scene.outside.join("link");
    symlink(&scene.store, &link).unwrap();
    for name in ["link", "link/", "link/."] {
        let error = work(&scene.outside.join(name)).unwrap_err();
        assert!(matches!(error, Error::NotAStore { .. }), "{name}: {error}");
    }
    // What lies above the store's directory is the user's own matter.
    symlink(scene.store.parent().unwrap(), scene.outside.join("parent")).unwrap();
    work(&scene.outside.join("parent/store")).unwrap();
    work(&scene.outside.join("parent/fresh")).unwrap();
}

#[test]
fn nothing_planted_in_place_of_a_store_s_own_file_is_taken_for_it() {
    let names = files_in(&Scene::with_store().store.join("segments"));
    let newest = |kind: &str| {
        let of_kind = names.iter().filter(|name| name.ends_with(kind));
        format!("segments/{}", of_kind.max().unwrap())
    };
    let open = |scene: &Scene| work(&scene.store);
    let mut tried = 0;
    for name in ["lock".to_owned(), "root".to_owned(), "segments".to_owned()] {
        tried += with_every_plant(&name, true, || without(&name), open);
    }
    for name in [newest(".journal"), newest(".slabs")] {
        tried += with_every_plant(&name, true, || without(&name), open);
    }
    for name in ["readers".to_owned(), newest(".free")] {
        tried += with_every_plant(&name, false, || without(&name), open);
    }
    assert!(tried >= 40, "only {tried} plants were tried");
}

#[test]
fn the_files_themselves_reached_through_links_are_refused_and_stay_as_they_are() {
    let names = files_in(&Scene::with_store().store.join("segments"));
    let mut all = vec!["lock".to_owned(), "root".to_owned(), "readers".to_owned()];
    all.extend(names.iter().map(|name| format!("segments/{name}")));
    // Nothing need be in the oldest segments of slabs any more, and then nobody opens them.
    let mut refused_slabs = 0;
    for name in &all {
        for hard in [false, true] {
            let scene = Scene::with_store();
            let (path, moved) = (scene.store.join(name), scene.outside.join("moved"));
            if hard {
                std::fs::hard_link(&path, &moved).unwrap();
            } else {
                std::fs::rename(&path, &moved).unwrap();
                symlink(&moved, &path).unwrap();
            }
            let before = scene.outside();
            let outcome = within(PATIENCE, name, || work(&scene.store));
            assert!(
                scene.outside() == before,
                "{name}, hard link {hard}: it was written through the link"
            );
            let is_needed = name == "lock" || name == "root" || name.ends_with(".journal");
            let plant = if hard { Plant::HardLink } else { Plant::LinkToFile };
            refused_slabs += usize::from(name.ends_with(".slabs") && outcome.is_err());
            judge(outcome, name, plant, is_needed);
        }
    }
    assert!(refused_slabs >= 2, "slabs were refused {refused_slabs} times");
    let scene = Scene::with_store();
    let moved = scene.outside.join("moved");
    std::fs::rename(scene.store.join("segments"), &moved).unwrap();
    symlink(&moved, scene.store.join("segments")).unwrap();
    let before = scene.outside();
    let error = work(&scene.store).unwrap_err();
    assert!(error.to_string().contains("segments"), "{error}");
    assert!(scene.outside() == before);
}

/// What is planted while the store is open, at the names that come next.
#[test]
fn nothing_planted_under_the_next_names_of_an_open_store_is_followed() {
    for ahead in 1..=3 {
        for kind in ["journal", "slabs", "free"] {
            for plant in PLANTS {
                let scene = Scene::with_store();
                let store = options().open_copying(&scene.store).unwrap();
                let names = files_in(&scene.store.join("segments"));
                let newest = names
                    .iter()
                    .map(|name| u64::from_str_radix(&name[..16], 16).unwrap())
                    .max()
                    .unwrap();
                let name = format!("segments/{:016x}.{kind}", newest + ahead);
                if !scene.plant(plant, &scene.store.join(&name)) {
                    continue;
                }
                let before = scene.outside();
                let outcome = within(PATIENCE, &name, || work_on(&store));
                judge(outcome, &name, plant, false);
                drop(store);
                assert!(
                    scene.outside() == before,
                    "{plant:?} at {name}: something outside was changed"
                );
            }
        }
    }
}

/// The directory of segments is exchanged for a link while the store is open.
#[test]
fn a_directory_exchanged_for_a_link_under_an_open_store_is_noticed() {
    let scene = Scene::with_store();
    let store = options().open_copying(&scene.store).unwrap();
    let moved = scene.outside.join("moved");
    std::fs::rename(scene.store.join("segments"), &moved).unwrap();
    symlink(&moved, scene.store.join("segments")).unwrap();
    let names = files_in(&moved);
    let error = work_on(&store).unwrap_err();
    assert!(error.to_string().contains("segments"), "{error}");
    drop(store);
    assert_eq!(
        files_in(&moved),
        names,
        "files were made or removed behind the link"
    );
}

/// Everything that a store makes is for its owner alone, whatever the umask takes away or leaves.
#[test]
fn directories_are_0700_and_files_0600_whatever_the_umask() {
    if let Some(place) = processes::place_of_child() {
        work(&place.join("store")).unwrap();
        let reader = Options::new().read_only(true).open_copying(place.join("store"));
        assert!(reader.unwrap().log("log").is_ok());
        return;
    }
    for umask in ["0", "0777", "022", "0277"] {
        let place = tempfile::tempdir().unwrap();
        let status = processes::child(
            &format!("umask {umask}; exec \"$0\" \"$@\""),
            "directories_are_0700_and_files_0600_whatever_the_umask",
            place.path(),
        )
        .status()
        .unwrap();
        assert!(status.success(), "umask {umask}: the child failed");
        let store = place.path().join("store");
        let mode = |path: &Path| path.symlink_metadata().unwrap().mode() & 0o7777;
        assert_eq!(
            (mode(&store), mode(&store.join("segments"))),
            (0o700, 0o700),
            "umask {umask}"
        );
        let mut files = vec![store.join("lock"), store.join("root"), store.join("readers")];
        let segments = store.join("segments");
        files.extend(files_in(&segments).iter().map(|name| segments.join(name)));
        assert!(files.len() >= 6, "umask {umask}: {files:?}");
        for file in files {
            assert_eq!(mode(&file), 0o600, "umask {umask}: {}", file.display());
        }
    }
}
