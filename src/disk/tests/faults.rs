//! Disks that are full or broken.

use rustix::io::Errno;

use super::*;

#[track_caller]
fn check_failed(done: Completion, kind: DiskErrorKind) {
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, kind, "{error}");
}

#[test]
fn a_failed_write_leaves_the_rest_usable_and_a_later_one_works() {
    for (errno, kind) in [
        (Errno::NOSPC, DiskErrorKind::Full),
        (Errno::IO, DiskErrorKind::Other),
        (Errno::ROFS, DiskErrorKind::Denied),
    ] {
        let files = [file("a", 3 * PIECE_LENGTH)];
        let mut bench = Bench::new(&files);
        assert_eq!(bench.check(), Ok(vec![]));
        bench.write_blocks(0);
        assert!(bench.verify(0));
        bench.write_piece(1, [0]);
        let (block, faults) = (bench.block(1, 1), bench.storage.clone());
        let faults = &faults.shared.files.faults;
        faults.write.store(errno.raw_os_error(), Ordering::Relaxed);
        let bytes = bench.bytes_of(block).to_vec();
        check_failed(bench.write(block, &bytes), kind);
        assert!(bench.read(bench.block(0, 0)).is_ok());
        assert_eq!(bench.sync().unwrap(), [0]);
        assert_eq!(bench.inspect(), Vec::<usize>::new());
        faults.write.store(0, Ordering::Relaxed);
        bench.write_piece(1, [1]);
        assert!(bench.verify(1), "nothing had to be written twice");
        bench.write_blocks(2);
        assert!(bench.verify(2));
        bench.assert_complete(&files);
    }
}

#[test]
fn space_that_is_set_aside_is_no_change_of_the_file() {
    let files = [file("a", 64 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    fs::create_dir_all(bench.part("a").parent().unwrap()).unwrap();
    fs::write(bench.part("a"), &files[0].content[..PIECE_LENGTH]).unwrap();
    let part = fs::File::options().write(true).open(bench.part("a"));
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    part.unwrap().set_modified(long_ago).unwrap();
    assert_eq!(bench.check(), Ok(vec![0]));
    // The file is opened to be written, and nothing is written.
    let (block, faults) = (bench.block(1, 0), bench.storage.clone());
    let faults = &faults.shared.files.faults;
    faults
        .write
        .store(Errno::IO.raw_os_error(), Ordering::Relaxed);
    let bytes = bench.bytes_of(block).to_vec();
    check_failed(bench.write(block, &bytes), DiskErrorKind::Other);
    assert_eq!(bench.inspect(), Vec::<usize>::new());
}

#[test]
fn what_could_not_be_made_durable_is_in_doubt_until_it_was_read_again() {
    let files = [file("a", 3 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.write_blocks(0);
    assert!(bench.verify(0));
    assert_eq!(bench.sync().unwrap(), [0]);
    bench.write_blocks(1);
    assert!(bench.verify(1));
    let faults = bench.storage.clone();
    let faults = &faults.shared.files.faults;
    let io = Errno::IO.raw_os_error();
    faults.sync.store(io, Ordering::Relaxed);
    assert_eq!(bench.sync().unwrap_err().kind, DiskErrorKind::Other);
    assert_eq!(bench.storage.resume().pieces.count(), 0);
    assert_eq!(bench.inspect(), [0]);
    let error = bench.read(bench.block(1, 0)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed);
    faults.sync.store(0, Ordering::Relaxed);
    assert_eq!(bench.check_files(&[0]), (vec![0, 1, 2], vec![0, 1]));
    assert_eq!(bench.sync().unwrap(), [0, 1]);
    assert!(bench.read(bench.block(1, 0)).is_ok());
}

#[test]
fn a_bad_spot_costs_its_piece_and_a_disk_that_cannot_be_read_fails_the_check() {
    let files = [file("a", 4 * PIECE_LENGTH), file("b", PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    for file in &files {
        bench.place(file.path, &file.content);
    }
    let faults = bench.storage.clone();
    let unreadable = &faults.shared.files.faults.unreadable;
    let spot = u64::try_from(2 * PIECE_LENGTH + 5).unwrap();
    *unreadable.lock().unwrap() = Some((0, spot..spot + 1));
    assert_eq!(bench.check(), Ok(vec![0, 1, 3, 4]));
    assert_eq!(bench.inspect(), Vec::<usize>::new());
    assert!(bench.read(bench.block(1, 0)).is_ok());
    bench.write_blocks(2);
    assert!(bench.verify(2));
    *unreadable.lock().unwrap() = None;
    bench.assert_complete(&files);

    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.place("a", &files[0].content);
    let faults = bench.storage.clone();
    let unreadable = &faults.shared.files.faults.unreadable;
    *unreadable.lock().unwrap() = Some((0, 0..u64::MAX));
    assert_eq!(bench.check().unwrap_err().kind, DiskErrorKind::Other);
    *unreadable.lock().unwrap() = None;
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
}

#[test]
fn no_space_is_set_aside_for_a_file_that_does_not_fit() {
    use std::os::unix::fs::MetadataExt;
    let pieces = 64;
    let files = [file("a", pieces * PIECE_LENGTH)];
    let whole = u64::try_from(files[0].content.len()).unwrap();
    let limits = [
        (Some(whole - 1), 0),
        // A file system that finds out by itself, and keeps what it had found before.
        (None, Errno::NOSPC.raw_os_error()),
    ];
    for (room, errno) in limits {
        let mut bench = Bench::new(&files);
        let faults = bench.storage.clone();
        let faults = &faults.shared.files.faults;
        *faults.room.lock().unwrap() = room;
        faults.allocate.store(errno, Ordering::Relaxed);
        assert_eq!(bench.check(), Ok(vec![]));
        bench.write_blocks(3);
        assert!(bench.verify(3));
        let status = fs::metadata(bench.part("a")).unwrap();
        assert!(status.blocks() * 512 < whole / 2, "{room:?}");
        // What fits is written all the same.
        bench.download();
        bench.assert_complete(&files);
        assert_eq!(bench.inspect(), Vec::<usize>::new());
    }
}

#[test]
fn an_output_folder_that_can_never_be_made_is_told_apart() {
    let files = [file("a", 100)];
    let info = info(&files);
    let disk = Disk::start(1).unwrap();
    let (sender, mut completions) = mpsc::channel(10);
    let root = PathBuf::from("/proc/nope/deeper");
    let storage = disk.open(Arc::clone(&info), root, sender);
    let block = info
        .geometry()
        .block(info.geometry().piece(0).unwrap(), 0)
        .unwrap();
    let data = Payload::from(Bytes::copy_from_slice(&files[0].content));
    storage.submit(JobId(1), Job::Write { block, data });
    let (_, done) = completions.blocking_recv().unwrap();
    check_failed(done, DiskErrorKind::Unusable);
    disk.stop();
}

#[test]
fn a_job_that_a_stopped_disk_refuses_is_not_counted() {
    let mut bench = Bench::new(&[file("a", 100)]);
    bench.disk.clone().stop();
    assert!(bench.sync().is_err());
    let unfinished = &bench.storage.shared.unfinished;
    assert_eq!(unfinished.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_with_another_name_elsewhere_is_read_but_not_repaired() {
    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    let mut damaged = files[0].content.clone();
    damaged[0] ^= 1;
    bench.place("a", &damaged);
    let twin = bench.folder.path().join("twin");
    fs::hard_link(bench.path("a"), &twin).unwrap();
    assert_eq!(bench.check(), Ok(vec![1, 2, 3]));
    assert!(bench.read(bench.block(1, 0)).is_ok());
    let block = bench.block(0, 0);
    let bytes = bench.bytes_of(block).to_vec();
    check_failed(bench.write(block, &bytes), DiskErrorKind::Occupied);
    assert_eq!(fs::read(&twin).unwrap(), damaged);
}

#[test]
fn a_rename_by_way_of_a_second_name_replaces_nothing() {
    use super::super::open::{Access, Folder};
    let folder = TempDir::new().unwrap();
    let opened = Folder::open(folder.path(), &[], Access::Read).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("from"), b"ours").unwrap();
    fs::write(path("taken"), b"theirs").unwrap();
    let renamed = opened.rename_by_link("from", "taken").unwrap();
    assert_eq!(renamed, Err(Errno::EXIST));
    assert_eq!(opened.rename_by_link("from", "free").unwrap(), Ok(()));
    assert_eq!(fs::read(path("free")).unwrap(), b"ours");
    assert_eq!(fs::read(path("taken")).unwrap(), b"theirs");
    assert!(!path("from").exists());
    fs::write(path("empty"), b"").unwrap();
    opened.replace_empty("free", "empty").unwrap();
    assert_eq!(fs::read(path("empty")).unwrap(), b"ours");
    let error = opened.replace_empty("empty", "taken").unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Occupied);
    assert_eq!(fs::read(path("taken")).unwrap(), b"theirs");
    assert_eq!(fs::read(path("empty")).unwrap(), b"ours");
}
