//! Files that somebody changes, replaces or removes while they are in use.

use super::*;

/// A torrent of two files of three pieces each, complete and looked at once.
fn complete() -> (Bench, [TestFile; 2]) {
    let files = [file("a", 3 * PIECE_LENGTH), file("b", 3 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.download();
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    (bench, files)
}

/// Writes a file as somebody would a second later: the clock of files is too coarse to tell what
/// happens within some milliseconds apart.
fn overwrite(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before + Duration::from_secs(1)).unwrap();
}

#[track_caller]
fn assert_refused(bench: &Bench, piece: u32) {
    let error = bench.read(bench.block(piece, 0)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed, "{error}");
}

/// Block 0 of piece 1 cannot be written, and `a` is and stays as somebody made it.
#[track_caller]
fn assert_not_written(bench: &mut Bench, somebodys: &[u8]) {
    let block = bench.block(1, 0);
    let good = bench.bytes_of(block).to_vec();
    let done = bench.write(block, &good);
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Occupied);
    assert!(fs::read(bench.path("a")).unwrap() == somebodys);
}

/// A piece that completes a file is not verified, because somebody changed the file.
#[track_caller]
fn assert_gets_no_name(bench: &mut Bench, piece: u32) {
    let verify = Job::Verify {
        piece: bench.piece(piece),
        blocks: false,
    };
    let done = bench.run(verify);
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Changed);
}

/// What an earlier run left.
fn knowing(resume: Resume) -> Options {
    Options {
        resume: Some(resume),
        wanted: None,
    }
}

#[test]
fn what_jobs_write_is_no_change() {
    let files = [file("a", 3 * PIECE_LENGTH), file("b", 100)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in 0..4 {
        bench.write_blocks(piece);
        assert_eq!(bench.inspect(), Vec::<usize>::new());
        assert!(bench.verify(piece));
        assert_eq!(bench.inspect(), Vec::<usize>::new());
        bench.sync().unwrap();
        assert_eq!(bench.inspect(), Vec::<usize>::new());
    }
    bench.assert_complete(&files);
}

#[test]
fn a_file_written_to_by_others_is_not_served_until_it_was_checked_and_never_written_to() {
    let (mut bench, files) = complete();
    assert!(bench.read(bench.block(1, 0)).is_ok());
    let mut bytes = files[0].content.clone();
    bytes[PIECE_LENGTH + 7] ^= 1;
    overwrite(&bench.path("a"), &bytes);
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.inspect(), [0], "told until it was checked");
    assert_refused(&bench, 0);
    assert!(bench.read(bench.block(3, 0)).is_ok(), "another file");
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 2]));
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    assert!(bench.read(bench.block(0, 0)).is_ok());
    // Whatever it is now, it is somebody's.
    assert_not_written(&mut bench, &bytes);
    assert_eq!(bench.check(), Ok(vec![0, 2, 3, 4, 5]));
    assert_not_written(&mut bench, &bytes);
    // That is not forgotten.
    bench.sync().unwrap();
    let resume = bench.storage.resume();
    assert_eq!(resume.pieces.ones().collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(resume.stamps.keys().copied().collect::<Vec<_>>(), [1]);
    let mut bench = bench.restart_with(&files, knowing(resume));
    assert_eq!(bench.check(), Ok(vec![0, 2, 3, 4, 5]));
    assert_not_written(&mut bench, &bytes);
    let good = bench.bytes_of(bench.block(1, 0)).to_vec();
    // Put right, it is served again.
    overwrite(&bench.path("a"), &files[0].content);
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 1, 2]));
    assert!(bench.read(bench.block(1, 0)).unwrap() == good);
}

#[test]
fn a_file_written_to_by_others_that_nobody_checked_is_not_written_to_after_a_restart() {
    let (mut bench, files) = complete();
    bench.sync().unwrap();
    let mut bytes = files[0].content.clone();
    bytes[PIECE_LENGTH + 7] ^= 1;
    overwrite(&bench.path("a"), &bytes);
    assert_eq!(bench.inspect(), [0]);
    let resume = bench.storage.resume();
    let mut bench = bench.restart_with(&files, knowing(resume));
    assert_eq!(bench.check(), Ok(vec![0, 2, 3, 4, 5]));
    assert_not_written(&mut bench, &bytes);
}

#[test]
fn a_file_that_was_replaced_is_not_read_through_the_old_descriptor() {
    let (mut bench, files) = complete();
    assert!(bench.read(bench.block(0, 0)).is_ok());
    let other = bench.folder.path().join("other");
    fs::write(&other, content(3 * PIECE_LENGTH, 99)).unwrap();
    fs::rename(&other, bench.path("a")).unwrap();
    assert_eq!(bench.inspect(), [0]);
    assert_refused(&bench, 0);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![]));
    // The same content under another number of the file is as good as the old.
    fs::write(&other, &files[0].content).unwrap();
    fs::rename(&other, bench.path("a")).unwrap();
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 1, 2]));
    assert!(bench.read(bench.block(0, 0)).is_ok());
}

#[test]
fn a_file_cut_short_is_repaired_if_the_rest_is_right() {
    let (mut bench, files) = complete();
    let cut = fs::File::options().write(true).open(bench.path("a"));
    cut.unwrap().set_len(40_000).unwrap();
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0]));
    for piece in [1, 2] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    bench.assert_complete(&files);
    assert_eq!(bench.inspect(), Vec::<usize>::new());
}

/// Cuts an incomplete file as somebody else would.
fn cut(bench: &Bench, length: usize) {
    let file = fs::File::options().write(true).open(bench.part("a"));
    let length = u64::try_from(length).unwrap();
    file.unwrap().set_len(length).unwrap();
}

#[test]
fn a_file_that_was_cut_takes_no_write_that_would_hide_it() {
    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in [0, 1] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    cut(&bench, PIECE_LENGTH + 100);
    let block = bench.block(2, 0);
    let bytes = bench.bytes_of(block).to_vec();
    let Completion::Failed { error } = bench.write(block, &bytes) else {
        panic!("it was written");
    };
    assert_eq!(error.kind, DiskErrorKind::Changed);
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2, 3], vec![0]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn a_file_that_was_cut_after_its_end_was_written_gets_no_name() {
    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in [3, 0, 1] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    cut(&bench, 2 * PIECE_LENGTH);
    bench.write_blocks(2);
    assert_gets_no_name(&mut bench, 2);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2, 3], vec![0, 1, 2]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn a_sync_tells_of_a_file_that_was_cut_and_that_gets_no_name_before_it_was_checked() {
    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in [0, 1, 2] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    cut(&bench, PIECE_LENGTH);
    let Completion::Synced { changed, .. } = bench.run(Job::Sync) else {
        panic!("it was not synced");
    };
    assert_eq!(changed, [0]);
    // The last piece makes the file as long as it should be.
    bench.write_blocks(3);
    assert_gets_no_name(&mut bench, 3);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2, 3], vec![0, 3]));
    bench.download();
    assert_eq!(bench.sync(), Ok(vec![0, 3, 1, 2]));
    bench.assert_complete(&files);
}

#[test]
fn what_an_earlier_sync_saw_is_told_by_the_next_one() {
    let (mut bench, files) = complete();
    bench.sync().unwrap();
    let file = fs::File::options().write(true).open(bench.path("a"));
    file.unwrap().set_len(40_000).unwrap();
    // As after a sync that nobody waited for.
    bench.storage.shared.files.marks.doubt(0);
    let Completion::Synced { changed, .. } = bench.run(Job::Sync) else {
        panic!("it was not synced");
    };
    assert_eq!(changed, [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn a_folder_that_is_gone_fails_no_sync_and_is_told_as_a_change() {
    let files = [file("d/a", 3 * PIECE_LENGTH), file("d/b", 2 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.download();
    fs::remove_dir_all(bench.path("d")).unwrap();
    let Completion::Synced { changed, .. } = bench.run(Job::Sync) else {
        panic!("it was not synced");
    };
    assert_eq!(changed, [0, 1]);
    assert_eq!(bench.storage.resume().pieces.count(), 0);
    assert_eq!(bench.check_files(&[0, 1]), (vec![0, 1, 2, 3, 4], vec![]));
    bench.download();
    bench.sync().unwrap();
    bench.assert_complete(&files);
}

#[test]
fn a_file_in_doubt_keeps_its_neighbours_from_no_name() {
    let files = [file("a", 100), file("b", 200), file("c", 300)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.write_blocks(0);
    bench.storage.shared.files.marks.doubt(0);
    assert_gets_no_name(&mut bench, 0);
    assert!(bench.path("b").is_file() && bench.path("c").is_file());
    assert!(!bench.path("a").exists());
    assert_eq!(bench.check_files(&[0]), (vec![0], vec![0]));
    bench.assert_complete(&files);
}

#[test]
fn a_file_that_was_removed_is_fetched_again() {
    let (mut bench, files) = complete();
    fs::remove_file(bench.path("a")).unwrap();
    assert_eq!(bench.inspect(), [0]);
    assert_refused(&bench, 1);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![]));
    for piece in 0..3 {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    bench.assert_complete(&files);
}

#[test]
fn a_file_or_folder_that_comes_back_is_noticed() {
    let files = [file("d/a", 3 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.download();
    let (folder, away) = (bench.path("d"), bench.path("away"));
    for _ in 0..2 {
        fs::rename(&folder, &away).unwrap();
        assert_eq!(bench.inspect(), [0]);
        assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![]));
        assert_eq!(bench.inspect(), Vec::<usize>::new());
        fs::rename(&away, &folder).unwrap();
        assert_eq!(bench.inspect(), [0]);
        assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 1, 2]));
        assert_eq!(bench.inspect(), Vec::<usize>::new());
        assert!(bench.read(bench.block(1, 0)).is_ok());
    }
}

#[test]
fn something_else_that_was_there_before_is_no_change() {
    let files = [file("a", 1_000), file("b", PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.place("a", &[9; 1_000]);
    assert_eq!(bench.check(), Ok(vec![]));
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    bench.write_blocks(0);
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    let block = bench.block(0, 1);
    assert!(bench.read(block).unwrap() == bench.bytes_of(block));
    assert_eq!(fs::read(bench.path("a")).unwrap(), [9; 1_000]);
}

#[test]
fn an_incomplete_file_that_was_removed_makes_nobody_guilty_of_a_bad_piece() {
    let files = [file("a", 3 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.write_blocks(0);
    assert!(bench.verify(0));
    bench.write_piece(1, [0]);
    fs::remove_file(bench.part("a")).unwrap();
    assert_eq!(bench.inspect(), [0]);
    bench.write_piece(1, [1]);
    let piece = bench.piece(1);
    let done = bench.run(Job::Verify {
        piece,
        blocks: false,
    });
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Changed);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn pieces_that_a_changed_file_shares_are_checked_with_its_neighbours() {
    let files = [
        file("a", 1_000),
        pad(24),
        file("b", PIECE_LENGTH),
        file("c", 3 * PIECE_LENGTH),
    ];
    let mut bench = Bench::new(&files);
    bench.download();
    let mut bytes = files[2].content.clone();
    bytes[PIECE_LENGTH - 1] ^= 1;
    overwrite(&bench.path("b"), &bytes);
    assert_eq!(bench.inspect(), [2]);
    assert_eq!(bench.check_files(&[2]), (vec![0, 1], vec![0]));
    assert!(bench.read(bench.block(0, 0)).is_ok());
    assert!(bench.read(bench.block(2, 0)).is_ok());
}

#[test]
fn a_check_of_everything_believes_only_files_that_are_as_they_were() {
    let (mut bench, files) = complete();
    let mut bytes = files[1].content.clone();
    bytes[0] ^= 1;
    overwrite(&bench.path("b"), &bytes);
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 4, 5]));
    assert_eq!(bench.storage.checked(), (6, 6));
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    let have = bench.storage.resume().pieces;
    assert_eq!(have.count(), 0, "nothing was synced");
}

#[test]
fn a_link_in_place_of_a_file_is_a_change_and_not_followed() {
    let (mut bench, files) = complete();
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::write(&elsewhere, &files[0].content).unwrap();
    fs::remove_file(bench.path("a")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bench.path("a")).unwrap();
    assert_eq!(bench.inspect(), [0]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![]));
    for piece in 0..2 {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), files[0].content);
}
