//! Coming back after a stop or a crash.

use super::*;

fn files() -> [TestFile; 2] {
    [file("a", 3 * PIECE_LENGTH), file("b", 2 * PIECE_LENGTH + 9)]
}

fn options(resume: &Resume, clean: bool) -> Options {
    let mut resume = resume.clone();
    resume.clean = clean;
    Options {
        resume: Some(resume),
        wanted: None,
    }
}

/// Pieces 0, 1 and 3 are durable; piece 2 is written, not verified.
fn interrupted() -> (Bench, Resume) {
    let mut bench = Bench::new(&files());
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in [0, 3, 1] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    bench.write_blocks(2);
    assert_eq!(bench.storage.resume().pieces.count(), 0);
    assert!(bench.storage.needs_sync());
    bench.sync().unwrap();
    assert!(!bench.storage.needs_sync());
    let resume = bench.storage.resume();
    assert_eq!(resume.pieces.ones().collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(resume.stamps.len(), 2);
    (bench, resume)
}

/// Changes a byte of a file without changing its stamp: only who hashes can see it.
fn damage_secretly(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn what_is_vouched_for_is_not_hashed_again() {
    let (bench, resume) = interrupted();
    damage_secretly(&bench.part("a"), 5);
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    assert_eq!(bench.check(), Ok(vec![0, 1, 3]));
    assert_eq!(bench.storage.resume().pieces, resume.pieces);
}

#[test]
fn after_an_unclean_stop_what_is_not_vouched_for_is_hashed() {
    let (bench, resume) = interrupted();
    let mut bench = bench.restart_with(&files(), options(&resume, false));
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
    assert_eq!(bench.sync().unwrap(), [2]);
    bench.download();
    bench.assert_complete(&files());
}

#[test]
fn after_a_clean_stop_what_is_not_named_is_not_there() {
    let (bench, resume) = interrupted();
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    assert_eq!(bench.check(), Ok(vec![0, 1, 3]));
}

#[test]
fn files_that_differ_from_their_stamps_are_hashed() {
    let (mut bench, resume) = interrupted();
    // Written after the stamp was taken: the damage is seen.
    damage_secretly(&bench.part("a"), 5);
    bench.write_blocks(4);
    let again = fs::File::options().write(true).open(bench.part("a"));
    again.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    assert_eq!(bench.check(), Ok(vec![1, 2, 3, 4]));
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let (bench, resume) = interrupted();
    fs::remove_file(bench.part("a")).unwrap();
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    assert_eq!(bench.check(), Ok(vec![3]));
    bench.download();
    bench.assert_complete(&files());
}

#[test]
fn a_check_that_was_broken_off_leaves_no_trust_behind() {
    let (bench, resume) = interrupted();
    damage_secretly(&bench.part("a"), 5);
    let a = fs::File::options().write(true).open(bench.part("a"));
    a.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    bench.place("b", b"in the way");
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    bench.check_occupied("b");
    fs::remove_file(bench.path("b")).unwrap();
    assert_eq!(bench.check(), Ok(vec![1, 2, 3]));
}

#[test]
fn a_check_that_was_broken_off_does_not_make_an_unclean_stop_a_clean_one() {
    let (bench, resume) = interrupted();
    bench.place("b", b"in the way");
    let mut bench = bench.restart_with(&files(), options(&resume, false));
    bench.check_occupied("b");
    let resume = bench.storage.resume();
    assert!(!resume.clean);
    fs::remove_file(bench.path("b")).unwrap();
    let mut bench = bench.restart_with(&files(), options(&resume, resume.clean));
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
    bench.sync().unwrap();
    assert!(bench.storage.resume().clean);
}

#[test]
fn complete_content_needs_no_hashing_and_stays_vouched_for() {
    let mut bench = Bench::new(&files());
    bench.download();
    bench.sync().unwrap();
    let resume = bench.storage.resume();
    assert!(resume.pieces.is_full() && resume.clean);
    damage_secretly(&bench.path("a"), 5);
    let (info, root) = (Arc::clone(&bench.info), bench.folder.path().to_owned());
    assert!(vouched(&info, &root, &resume).unwrap().is_full());
    let mut bench = bench.restart_with(&files(), options(&resume, true));
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3, 4, 5]));
    bench.assert_complete(&[]);
    fs::write(bench.path("b"), b"").unwrap();
    let left = vouched(&info, &root, &resume).unwrap();
    assert_eq!(left.ones().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(vouched(&info, &root.join("no"), &resume).is_err());
}

#[test]
fn a_change_takes_pieces_out_of_what_is_kept_until_they_were_synced_again() {
    let (mut bench, _) = interrupted();
    let again = fs::File::options().write(true).open(bench.part("a"));
    again.unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(bench.inspect(), [0]);
    let kept = bench.storage.resume();
    assert_eq!(kept.pieces.ones().collect::<Vec<_>>(), [3]);
    assert_eq!(kept.stamps.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(bench.sync().unwrap(), [0, 1, 2]);
    assert_eq!(bench.storage.resume().pieces.count(), 4);
}

#[test]
fn many_files_are_made_durable_at_once() {
    let files: Vec<_> = (0..300)
        .map(|number| file(format!("{number}").leak(), 500 + number))
        .collect();
    let mut bench = Bench::new(&files);
    for file in &files {
        bench.place(file.path, &file.content);
    }
    let pieces = bench.info.geometry().piece_count();
    assert_eq!(bench.check(), Ok((0..pieces).collect()));
    assert_eq!(
        bench.sync().unwrap().len(),
        bench.info.geometry().pieces().len()
    );
    let resume = bench.storage.resume();
    assert!(resume.pieces.is_full() && resume.clean);
    assert_eq!(resume.stamps.len(), files.len());
    damage_secretly(&bench.path("7"), 5);
    let mut bench = bench.restart_with(&files, options(&resume, true));
    assert_eq!(bench.check(), Ok((0..pieces).collect()));
}

#[test]
fn resume_data_of_another_torrent_is_void() {
    let (bench, mut resume) = interrupted();
    resume.pieces = Bitfield::full(7);
    let mut bench = bench.restart_with(&files(), options(&resume, false));
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
}

#[test]
fn a_sync_apart_from_jobs_makes_the_same_durable() {
    let mut bench = Bench::new(&files());
    bench.write_blocks(0);
    assert!(bench.verify(0));
    let storage = bench.storage.clone();
    bench.runtime.block_on(storage.changed());
    bench.runtime.block_on(storage.sync()).unwrap();
    assert_eq!(storage.resume().pieces.count(), 1);
    bench.disk.clone().stop();
    assert!(bench.runtime.block_on(storage.sync()).is_err());
}
