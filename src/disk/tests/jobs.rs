//! Jobs: writing, verifying, reading, syncing, and their faults.

use super::*;
use crate::metainfo::BLOCK_LENGTH;

#[test]
fn what_was_written_is_verified_read_and_gets_its_name() {
    let files = [
        file("a", 100_000),
        file("b/c", 5_000),
        file("b/d/e", 40_000),
    ];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.write_blocks(0);
    assert!(bench.verify(0));
    assert!(bench.part("a").exists() && !bench.path("a").exists());
    bench.download();
    bench.assert_complete(&files);
    let geometry = bench.info.geometry().clone();
    for block in geometry.pieces().flat_map(|piece| geometry.blocks(piece)) {
        assert!(bench.read(block).unwrap() == bench.bytes_of(block));
    }
    let (block, for_connection) = (bench.block(1, 1), crate::swarm::ConnectionId(9));
    let job = Job::Read {
        block,
        for_connection,
    };
    match bench.run(job) {
        Completion::Read { data, .. } => assert!(data == bench.bytes_of(block)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_in_any_order_and_twice_give_the_same_piece() {
    for order in [
        vec![0, 1],
        vec![1, 0],
        vec![0, 0, 1],
        vec![1, 0, 1],
        vec![0, 1, 0],
    ] {
        let mut bench = Bench::new(&[file("a", 40_000)]);
        bench.write_piece(0, order.clone());
        assert!(bench.verify(0), "{order:?}");
    }
}

#[test]
fn a_bad_piece_is_found_and_right_after_it_was_written_again() {
    let files = [file("a", 70_000)];
    let mut bench = Bench::new(&files);
    bench.write_blocks(0);
    let block = bench.block(0, 1);
    let length = usize::try_from(BLOCK_LENGTH).unwrap();
    bench.write(block, &vec![1; length]);
    assert!(!bench.verify(0));
    bench.write_piece(0, [1]);
    assert!(bench.verify(0), "the good block was kept");
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn a_piece_whose_bytes_are_gone_is_a_failure_and_not_a_bad_piece() {
    let mut bench = Bench::new(&[file("a", 100_000)]);
    bench.write_blocks(0);
    let piece = bench.piece(1);
    let done = bench.run(Job::Verify {
        piece,
        blocks: false,
    });
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Truncated);
}

#[test]
fn many_pieces_at_once_keep_their_hashes_apart() {
    let mut bench = Bench::new(&[file("a", 40 * PIECE_LENGTH)]);
    for number in 0..2 {
        for piece in 0..40 {
            bench.write_piece(piece, [number]);
        }
    }
    for piece in 0..40 {
        assert!(bench.verify(piece), "piece {piece}");
    }
    assert!(bench.path("a").exists());
}

#[test]
fn pad_files_never_touch_the_disk() {
    let files = [
        file("a", 20_000),
        pad(PIECE_LENGTH - 20_000),
        file("b", 20_000),
    ];
    let mut bench = Bench::new(&files);
    bench.download();
    bench.assert_complete(&files);
    assert_eq!(fs::read_dir(bench.path("")).unwrap().count(), 2);
    let block = bench.block(0, 1);
    assert!(bench.read(block).unwrap() == bench.bytes_of(block));
    let mut bench = bench.restart(&files);
    assert_eq!(bench.check(), Ok(vec![0, 1]));
}

#[test]
fn a_folder_that_cannot_be_written_is_reported() {
    // Root may write anywhere.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut bench = Bench::new(&[file("a", 40_000)]);
    let mut permissions = fs::metadata(bench.folder.path()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(bench.folder.path(), permissions).unwrap();
    let block = bench.block(0, 0);
    let bytes = bench.bytes_of(block).to_vec();
    let done = bench.write(block, &bytes);
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Denied);
}

#[test]
fn a_file_cut_short_or_removed_is_never_padded() {
    let files = [file("a", 100_000)];
    let mut bench = Bench::new(&files);
    bench.download();
    let block = bench.block(1, 0);
    assert!(bench.read(block).is_ok());
    let cut = fs::File::options().write(true).open(bench.path("a"));
    cut.unwrap().set_len(40_000).unwrap();
    let error = bench.read(block).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Truncated);
    // What is left of it is not served either before it was checked.
    let error = bench.read(bench.block(0, 0)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Changed);
    fs::remove_file(bench.path("a")).unwrap();
    let mut bench = bench.restart(&files);
    let error = bench.read(bench.block(0, 0)).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Missing);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn a_sync_names_each_piece_once_and_only_verified_ones() {
    let mut bench = Bench::new(&[file("a", 70_000), file("b", 70_000)]);
    bench.write_blocks(0);
    bench.write_blocks(2);
    bench.write_blocks(4);
    assert!(bench.verify(2));
    assert!(bench.verify(0));
    assert_eq!(bench.sync().unwrap(), [2, 0]);
    assert_eq!(bench.sync().unwrap(), Vec::<u32>::new());
    assert!(bench.verify(4));
    assert_eq!(bench.sync().unwrap(), [4]);
}

#[test]
fn names_too_long_for_a_suffix_and_names_that_look_incomplete_do_not_meet() {
    let long: &'static str = "n".repeat(250).leak();
    let twin: &'static str = format!("{}x", "n".repeat(249)).leak();
    let files = [
        file(long, 20_000),
        file(twin, 20_000),
        file("x", 20_000),
        file("x.trackless-part", 20_000),
        file("x~.trackless-part/y", 20_000),
    ];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    let last = bench.info.geometry().piece_count() - 1;
    for piece in (0..=last).rev() {
        bench.write_blocks(piece);
    }
    bench.download();
    for file in &files {
        let found = fs::read(bench.path(file.path)).unwrap();
        assert!(found == file.content, "{}", file.path);
    }
    assert_eq!(fs::read_dir(bench.path("")).unwrap().count(), 5);
}

#[test]
fn many_small_files_need_few_descriptors() {
    let files: Vec<_> = (0..300)
        .map(|number| file(format!("{}/{number}", number % 7).leak(), 700 + number))
        .collect();
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    bench.assert_complete(&files);
    let mut bench = bench.restart(&files);
    let pieces = bench.info.geometry().piece_count();
    assert_eq!(bench.check(), Ok((0..pieces).collect()));
}

#[test]
fn jobs_after_the_stop_fail_and_do_not_hang() {
    let mut bench = Bench::new(&[file("a", 100)]);
    bench.disk.clone().stop();
    assert!(bench.check().is_err());
    assert!(bench.read(bench.block(0, 0)).is_err());
}
