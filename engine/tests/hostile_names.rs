//! Promise: whatever a log is called, its name never becomes a path: it is refused, or it is a name like any other and comes
//! back byte for byte. Shown with some 250 names, in a store that is opened again from its journal and from a checkpoint.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

#[path = "common/hostile_names.rs"]
mod hostile_names;

use std::collections::BTreeSet;
use std::path::Path;

use lanterman::{Durability, Error, ErrorKind, Options, Store};

fn files(path: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        }
        found.insert(path.to_str().unwrap().to_owned());
    }
}

fn check_all(store: &Store, names: &[String]) {
    let mut sorted: Vec<_> = names.to_vec();
    sorted.sort();
    let listed: Vec<_> = store.logs().into_iter().map(|log| log.name).collect();
    assert_eq!(listed, sorted);
    for name in names {
        let log = store.log(name).unwrap();
        let message = log.snapshot().get(0u64).unwrap();
        assert_eq!(message.value(), name.as_bytes(), "{name:?}");
        assert_eq!(log.information().end.get(), 1, "{name:?}");
    }
}

#[test]
fn whatever_a_log_is_called_its_name_never_becomes_a_path() {
    let names = hostile_names::allowed();
    assert!(names.len() + hostile_names::refused().len() >= 200);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Options::new().open_copying(&path).unwrap();
    for name in &names {
        let mut writer = store.writer(name).unwrap();
        writer.append(name.as_bytes()).unwrap();
        writer.commit(Durability::Process).unwrap();
    }
    store.commit_all(Durability::Disk).unwrap();
    check_all(&store, &names);
    // From the journal alone, as a reader beside it; then from the checkpoint that closing makes.
    check_all(
        &Options::new().read_only(true).open_copying(&path).unwrap(),
        &names,
    );
    store.close().unwrap();
    let store = Options::new().open_copying(&path).unwrap();
    check_all(&store, &names);
    for name in hostile_names::refused() {
        let errors = [
            store.writer(&name).err(),
            store.create_log(&name).err(),
            store.log(&name).err(),
            store.snapshot(&name).err(),
            store
                .transaction(|transaction| transaction.append(&name, b"x"))
                .err(),
        ];
        for error in errors {
            let error = error.unwrap_or_else(|| panic!("{name:?} was taken"));
            assert!(matches!(error, Error::InvalidName(_)), "{name:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::FixTheCall);
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
        }
    }
    store.close().unwrap();
    let mut found = BTreeSet::new();
    files(directory.path(), &mut found);
    for path in found {
        let name = path.rsplit('/').next().unwrap();
        let is_segment = lanterman_format::name::parse_segment_file_name(name).is_some();
        let known = ["store", "lock", "root", "readers", "segments"];
        assert!(is_segment || known.contains(&name), "{path} was made");
    }
}
