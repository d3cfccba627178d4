//! Promise: log names never become paths, a directory that is no store is never written into, and a newer format is
//! refused by name. Shown with hostile names and foreign directories, whose contents are compared before and after.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lanterman::{Durability, Error, ErrorKind, Options, Store};

fn tree(path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            tree(&path, found);
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
}

fn names_in(path: &Path) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    tree(path, &mut found);
    found.into_keys().collect()
}

#[test]
fn hostile_names_are_names_like_any_other_or_refused_and_never_paths() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_copying(directory.path().join("store")).unwrap();
    let longest = "x".repeat(255);
    let taken = [
        "..",
        ".",
        "/",
        "//",
        "../../etc/passwd",
        "a/../b",
        "/tmp/evil",
        "C:\\evil",
        "con",
        "nul",
        "CON",
        "con ",
        "a.",
        "~",
        "$HOME",
        "*",
        "?",
        "|",
        "<>",
        "\"",
        "'",
        "`id`",
        "%00",
        "%2e%2e",
        "-rf",
        "\u{202e}txt",
        "\u{e9}",
        "e\u{301}",
        "\u{1F4A9}",
        "root",
        "lock",
        "segments",
        "0000000000000001.journal",
        " ",
        "name",
        "NAME",
        longest.as_str(),
    ];
    for name in taken {
        let mut writer = store.writer(name).unwrap();
        writer.append(name.as_bytes()).unwrap();
        writer.commit(Durability::Disk).unwrap();
    }
    let too_long = "x".repeat(256);
    let wide = "\u{e9}".repeat(128);
    for name in [
        "",
        "\0",
        "a\0b",
        "a\nb",
        "\r",
        "\t",
        "\u{7f}",
        "\u{85}",
        "\u{1b}[31m",
        too_long.as_str(),
        wide.as_str(),
    ] {
        let error = store.writer(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FixTheCall, "{name:?}");
        assert!(
            store.create_log(name).is_err() && store.log(name).is_err() && store.snapshot(name).is_err(),
            "{name:?}"
        );
        assert!(
            store
                .transaction(|transaction| transaction.append(name, b"x"))
                .is_err(),
            "{name:?}"
        );
    }
    assert_eq!(store.logs().len(), taken.len());
    drop(store);
    let store = Store::open_copying(directory.path().join("store")).unwrap();
    for name in taken {
        let mut cursor = store.log(name).unwrap().cursor(0u64).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().value(), name.as_bytes());
    }
    drop(store);
    let kinds = [
        ".journal", ".slabs", ".free", "lock", "root", "readers", "segments", "store",
    ];
    for path in names_in(directory.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            kinds.iter().any(|kind| name.ends_with(kind)),
            "a file of another kind: {}",
            path.display()
        );
    }
}

#[test]
fn a_directory_that_is_no_store_is_refused_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    for (number, foreign) in ["notes.txt", "segment", "root.bak", ".hidden"].iter().enumerate() {
        let path = directory.path().join(format!("foreign-{number}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(foreign), b"mine").unwrap();
        let before = names_in(&path);
        for read_only in [false, true] {
            let error = Options::new()
                .read_only(read_only)
                .open_copying(&path)
                .unwrap_err();
            assert!(matches!(error, Error::NotAStore { .. }), "{foreign}: {error}");
        }
        assert_eq!(names_in(&path), before);
    }
    let file = directory.path().join("file");
    std::fs::write(&file, b"mine").unwrap();
    assert!(matches!(
        Store::open_copying(&file).unwrap_err(),
        Error::NotAStore { .. }
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}

#[test]
fn what_does_not_exist_is_not_made_by_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nothing");
    assert!(matches!(
        Options::new().read_only(true).open_copying(&path).unwrap_err(),
        Error::NoStore { .. }
    ));
    assert!(matches!(
        Options::new().create(false).open_copying(&path).unwrap_err(),
        Error::NoStore { .. }
    ));
    assert!(!path.exists());
    let store = Store::open_copying(&path).unwrap();
    assert!(matches!(
        store.log("nobody").unwrap_err(),
        Error::UnknownLog { .. }
    ));
    assert!(matches!(
        store.snapshot("nobody").unwrap_err(),
        Error::UnknownLog { .. }
    ));
}

#[test]
fn a_newer_format_is_refused_by_name_and_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(Store::open_copying(&path).unwrap());
    let mut root = std::fs::read(path.join("root")).unwrap();
    for slot in root.chunks_mut(4096) {
        // The major version stands behind the magic of eight bytes.
        slot[8] = 99;
        slot[9] = 0;
        let crc = lanterman_format::checksum::crc32(0, &slot[..4092]);
        slot[4092..].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(path.join("root"), &root).unwrap();
    let mut before = BTreeMap::new();
    tree(&path, &mut before);
    let error = Store::open_copying(&path).unwrap_err();
    assert!(
        matches!(error, Error::NewerFormat { found_major: 99, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::FixTheCall);
    let mut after = BTreeMap::new();
    tree(&path, &mut after);
    assert!(before == after, "a store of a newer format was changed");
}
