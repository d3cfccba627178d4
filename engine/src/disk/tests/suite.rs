//! What every disk does.

use super::*;

#[test]
fn a_file_is_created_once_and_reads_back_what_was_written() {
    on_every_disk(|disk, root| {
        let path = root.join("file");
        assert_eq!(
            disk.open(&path, OpenMode::ReadWrite).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(
            disk.open(&path, OpenMode::CreateNew).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(file.bytes().unwrap(), 0);
        for (position, bytes, sync) in [
            (0, &pattern(8192, 1)[..], Sync::Data),
            (8192, &pattern(4096, 2)[..100], Sync::Data),
            (8292, &pattern(4096, 3)[3..50], Sync::No),
            (4096, &pattern(4096, 4)[..], Sync::No),
            (20_000, &b"far behind"[..], Sync::No),
        ] {
            file.write_at(position, bytes, sync).unwrap();
            let mut back = vec![0; bytes.len()];
            assert_eq!(read_full_at(&*file, position, &mut back).unwrap(), bytes.len());
            assert_eq!(back, bytes);
        }
        file.sync_data().unwrap();
        let all = contents(&*disk.open(&path, OpenMode::Read).unwrap());
        assert_eq!(all.len(), 20_010);
        assert_eq!(all[..4096], pattern(8192, 1)[..4096]);
        assert_eq!(all[4096..8192], pattern(4096, 4)[..]);
        assert!(all[8339..20_000].iter().all(|&byte| byte == 0));
        assert_eq!(file.read_at(20_010, &mut [0; 8]).unwrap(), 0);
        file.write_at(0, &[], Sync::Data).unwrap();
    });
}

#[test]
fn direct_reads_and_plain_reads_see_the_same_bytes() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        file.reserve(0..65_536).unwrap();
        let bytes = pattern(65_536, 5);
        file.write_at(0, &bytes, Sync::Data).unwrap();
        file.write_at(4096, b"over it", Sync::No).unwrap();
        let mut direct = AlignedBuffer::new(65_536).unwrap();
        let mut done = 0;
        while done < direct.len() {
            done += file.read_direct_at(done as u64, &mut direct[done..]).unwrap();
        }
        assert_eq!(direct[..], contents(&*file)[..]);
        assert_eq!(&direct[4096..4103], b"over it");
        assert_eq!(file.read_direct_at(1, &mut direct[..5]).unwrap(), 5);
        assert_eq!(direct[..5], bytes[1..6]);
    });
}

#[test]
fn a_reservation_lengthens_with_zeros_and_never_shrinks() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        file.write_at(0, b"first", Sync::No).unwrap();
        file.reserve(0..1 << 20).unwrap();
        assert_eq!(file.bytes().unwrap(), 1 << 20);
        file.reserve(0..4096).unwrap();
        file.reserve(0..0).unwrap();
        let all = contents(&*file);
        assert_eq!(all.len(), 1 << 20);
        assert_eq!(&all[..5], b"first");
        assert!(all[5..].iter().all(|&byte| byte == 0));
        assert!(file.reserve(0..u64::MAX).is_err());
        assert_eq!(file.bytes().unwrap(), 1 << 20);
    });
}

#[test]
fn a_punched_range_reads_as_zeros_and_keeps_the_length() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        let mut expected = pattern(32_768, 6).to_vec();
        file.write_at(0, &expected, Sync::Data).unwrap();
        if let Err(error) = file.punch(4096..20_000) {
            return skip("punching", &error);
        }
        expected[4096..20_000].fill(0);
        assert_eq!(contents(&*file), expected);
        file.punch(100..100).unwrap();
        #[allow(
            clippy::reversed_empty_ranges,
            reason = "The point is that the mistake is refused."
        )]
        let reversed = 8192..4096;
        assert!(file.punch(reversed).is_err());
        assert_eq!(contents(&*file), expected);
    });
}

#[test]
fn a_map_shows_what_is_written_after_it_was_made() {
    on_every_disk(|disk, root| {
        let path = root.join("file");
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.reserve(0..1 << 20).unwrap();
        let map = file.map(1 << 20).unwrap();
        map.populate(0..1 << 20).unwrap();
        assert_eq!(map.slice(0..4096).unwrap(), [0; 4096]);
        let bytes = pattern(1 << 20, 7);
        // Direct writes go past the pages that the map has just cached.
        file.write_at(0, &bytes[..65_536], Sync::Data).unwrap();
        assert_eq!(map.slice(0..65_536).unwrap(), &bytes[..65_536]);
        let mut writer = disk.bulk_writer(4).unwrap();
        writer.submit(&file, 65_536, shared(pattern(1 << 20, 7)), 65_536..1 << 20, 1);
        reap_all(&mut *writer);
        assert_eq!(map.len(), 1 << 20);
        assert_eq!(map[..], bytes[..]);
        for advice in [
            Advice::Random,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::Normal,
            Advice::DontNeed,
        ] {
            map.advise(4096..500_000, advice).unwrap();
            file.advise(4096..500_000, advice).unwrap();
        }
        // Kernels before 5.4 do not know this one.
        map.advise(5..10, Advice::Cold).ok();
        file.advise(0..0, Advice::DontNeed).unwrap();
        assert_eq!(map[..], bytes[..]);
        disk.unlink(&path).unwrap();
        drop(file);
        assert_eq!(map[..], bytes[..]);
    });
}

#[test]
fn a_map_is_refused_beyond_the_file_and_so_are_ranges_beyond_the_map() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        assert!(file.map(0).is_err());
        assert_eq!(file.map(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        file.reserve(0..8192).unwrap();
        assert!(file.map(8193).is_err());
        assert!(file.map(u64::MAX).is_err());
        let map = file.map(5000).unwrap();
        assert!(map.slice(0..5001).is_none());
        assert!(map.slice(5000..5000).is_some());
        assert!(map.populate(1..5001).is_err());
        map.populate(4999..5000).unwrap();
        map.populate(3..3).unwrap();
        assert!(map.advise(0..usize::MAX, Advice::Random).is_err());
        assert!(map.protect_none(4096..9000).is_err());
        map.protect_none(4096..5000).unwrap();
        assert_eq!(map.slice(0..4096).unwrap().len(), 4096);
    });
}

#[test]
fn names_are_listed_renamed_and_removed_and_never_overwritten() {
    on_every_disk(|disk, root| {
        let directory = root.join("segments");
        disk.create_directory(&directory).unwrap();
        assert_eq!(
            disk.create_directory(&directory).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(disk.create_directory(&root.join("no/parent")).is_err());
        assert!(disk.open(&root.join("no/parent"), OpenMode::CreateNew).is_err());
        let file = disk.open(&directory.join("one"), OpenMode::CreateNew).unwrap();
        file.write_at(0, b"one", Sync::No).unwrap();
        disk.open(&directory.join("two"), OpenMode::CreateNew).unwrap();
        let (one, two, three) = (
            directory.join("one"),
            directory.join("two"),
            directory.join("three"),
        );
        assert_eq!(
            disk.rename(&one, &two).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        disk.rename(&one, &three).unwrap();
        assert_eq!(
            disk.rename(&one, &directory.join("four")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        disk.unlink(&two).unwrap();
        assert_eq!(disk.unlink(&two).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.sync_directory(&directory).unwrap();
        assert_eq!(disk.list(&directory).unwrap(), ["three"]);
        assert!(disk.exists(&three).unwrap());
        assert!(!disk.exists(&one).unwrap());
        let found = disk.metadata(&three).unwrap().unwrap();
        assert_eq!((found.kind, found.bytes), (PathKind::File, 3));
        assert_eq!(
            disk.metadata(&directory).unwrap().unwrap().kind,
            PathKind::Directory
        );
        file.write_at(3, b" still", Sync::No).unwrap();
        assert_eq!(
            contents(&*disk.open(&three, OpenMode::Read).unwrap()),
            b"one still"
        );
        assert!(disk.open(&directory, OpenMode::Read).is_err());
        assert!(disk.list(&root.join("nowhere")).is_err());
        assert!(disk.sync_directory(&root.join("nowhere")).is_err());
        assert!(disk.free_bytes(root).unwrap() > 0);
    });
}

#[test]
fn a_file_opened_for_reading_cannot_be_written() {
    on_every_disk(|disk, root| {
        let path = root.join("file");
        disk.open(&path, OpenMode::CreateNew)
            .unwrap()
            .write_at(0, b"kept", Sync::No)
            .unwrap();
        let file = disk.open(&path, OpenMode::Read).unwrap();
        assert!(file.write_at(0, b"lost", Sync::No).is_err());
        assert!(file.write_at(0, &pattern(4096, 1), Sync::Data).is_err());
        assert!(file.reserve(0..4096).is_err());
        assert!(file.punch(0..4096).is_err());
        assert_eq!(contents(&*file), b"kept");
    });
}

#[test]
fn a_lock_is_held_once_and_free_when_dropped() {
    on_every_disk(|disk, root| {
        let path = root.join("lock");
        let held = disk.lock(&path).unwrap().unwrap();
        assert!(disk.lock(&path).unwrap().is_none());
        assert!(disk.lock(&root.join("other")).unwrap().is_some());
        drop(held);
        assert!(disk.lock(&path).unwrap().is_some());
        assert_eq!(disk.metadata(&path).unwrap().unwrap().kind, PathKind::File);
    });
}

#[test]
fn a_shared_table_shows_words_and_locks_to_every_opening() {
    on_every_disk(|disk, root| {
        let path = root.join("readers");
        let one = disk.open_shared(&path, 512).unwrap();
        let two = disk.open_shared(&path, 512).unwrap();
        assert_eq!((one.words(), one.load(511), one.load(512)), (512, Some(0), None));
        assert!(one.store(511, 7));
        assert!(!one.store(512, 7));
        assert_eq!(two.load(511), Some(7));
        assert_eq!(two.compare_exchange(511, 6, 9), Some(Err(7)));
        assert_eq!(two.compare_exchange(511, 7, 9), Some(Ok(7)));
        assert_eq!(two.compare_exchange(512, 7, 9), None);
        assert_eq!(one.load(511), Some(9));
        let slot = one.try_lock_slot(3).unwrap().unwrap();
        assert!(one.try_lock_slot(3).unwrap().is_none());
        assert!(two.try_lock_slot(3).unwrap().is_none());
        let neighbour = two.try_lock_slot(4).unwrap().unwrap();
        for table in [&one, &two] {
            assert!(table.slot_is_locked(3).unwrap());
            assert!(table.slot_is_locked(4).unwrap());
            assert!(!table.slot_is_locked(5).unwrap());
        }
        drop(slot);
        assert!(!two.slot_is_locked(3).unwrap());
        assert!(two.try_lock_slot(3).unwrap().is_some());
        drop((one, two));
        let again = disk.open_shared(&path, 512).unwrap();
        assert_eq!(again.load(511), Some(9));
        assert!(again.slot_is_locked(4).unwrap());
        drop(neighbour);
        assert!(!again.slot_is_locked(4).unwrap());
        assert!(disk.open_shared(&root.join("none"), 0).is_err());
    });
}

fn reap_all(writer: &mut dyn BulkWriter) -> Vec<u64> {
    let mut completions = Vec::new();
    while writer.in_flight() > 0 {
        writer.reap(true, &mut completions);
    }
    completions
        .into_iter()
        .map(|completion| {
            completion.result.unwrap();
            completion.token
        })
        .collect()
}

#[test]
fn bulk_writes_of_any_size_and_alignment_arrive_and_each_is_reported_once() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        let image = pattern(6 << 20, 8);
        file.reserve(0..7 << 20).unwrap();
        let bytes = shared(pattern(6 << 20, 8));
        for depth in [1, 3, 64] {
            file.punch(0..7 << 20).ok();
            let mut writer = disk.bulk_writer(depth).unwrap();
            let cuts = [
                0,
                4096,
                1 << 20,
                (3 << 20) + 8192,
                (3 << 20) + 8193,
                4 << 20,
                6 << 20,
            ];
            for (token, cut) in cuts.windows(2).enumerate() {
                writer.submit(
                    &file,
                    cut[0] as u64,
                    Arc::clone(&bytes),
                    cut[0]..cut[1],
                    token as u64,
                );
            }
            assert_eq!(writer.in_flight(), 6);
            let mut tokens = reap_all(&mut *writer);
            tokens.sort_unstable();
            assert_eq!(tokens, [0, 1, 2, 3, 4, 5]);
            assert_eq!(writer.in_flight(), 0);
            let mut nothing = Vec::new();
            writer.reap(true, &mut nothing);
            assert!(nothing.is_empty());
            assert_eq!(contents(&*file)[..6 << 20], image[..]);
        }
        file.sync_data().unwrap();
    });
}

#[test]
fn a_failed_bulk_write_is_reported_with_its_token_and_harms_no_other() {
    on_every_disk(|disk, root| {
        let path = root.join("file");
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        let reading = disk.open(&path, OpenMode::Read).unwrap();
        let mut writer = disk.bulk_writer(4).unwrap();
        let bytes = shared(pattern(3 << 20, 9));
        writer.submit(&file, 0, Arc::clone(&bytes), 0..3 << 20, 10);
        writer.submit(&reading, 0, Arc::clone(&bytes), 0..3 << 20, 11);
        writer.submit(&file, 0, Arc::clone(&bytes), 0..(3 << 20) + 1, 12);
        writer.submit(&file, u64::MAX - 5, Arc::clone(&bytes), 0..4096, 13);
        writer.submit(&file, 0, Arc::clone(&bytes), 7..7, 14);
        let mut completions = Vec::new();
        while writer.in_flight() > 0 {
            writer.reap(true, &mut completions);
        }
        completions.sort_by_key(|completion| completion.token);
        let outcomes: Vec<(u64, bool)> = completions
            .iter()
            .map(|completion| (completion.token, completion.result.is_ok()))
            .collect();
        assert_eq!(
            outcomes,
            [(10, true), (11, false), (12, false), (13, false), (14, true)]
        );
        assert_eq!(contents(&*file)[..], (*bytes).as_ref()[..]);
    });
}

#[test]
fn dropping_a_bulk_writer_finishes_what_it_took_and_frees_the_bytes() {
    on_every_disk(|disk, root| {
        let file = disk.open(&root.join("file"), OpenMode::CreateNew).unwrap();
        let bytes = shared(pattern(8 << 20, 10));
        let mut writer = disk.bulk_writer(2).unwrap();
        writer.submit(&file, 0, Arc::clone(&bytes), 0..8 << 20, 1);
        drop(writer);
        assert_eq!(Arc::strong_count(&bytes), 1);
        assert_eq!(contents(&*file)[..], (*bytes).as_ref()[..]);
    });
}
