//! What already lies at the place of a torrent: adopted, repaired, or left alone.

use std::path::Path;

use super::*;

#[test]
fn a_check_finds_what_an_interrupted_download_left() {
    let files = [file("a", 100_000), file("b", 3_000), file("c", 90_000)];
    let mut bench = Bench::new(&files);
    // The last block only: the file has its full length, and a hole.
    bench.write_piece(5, [1]);
    for piece in [1, 3] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    bench.write_piece(0, [0]);
    let mut bench = bench.restart(&files);
    assert_eq!(bench.check(), Ok(vec![1, 3]));
    bench.download();
    bench.assert_complete(&files);
    let mut bench = bench.restart(&files);
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3, 4, 5]));
}

#[test]
fn a_download_interrupted_before_its_first_piece_goes_on() {
    let files = [file("a", 100_000)];
    let mut bench = Bench::new(&files);
    bench.write_piece(0, [0]);
    let mut bench = bench.restart(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn content_that_is_all_there_is_adopted_as_it_is() {
    let files = [file("a", 100_000), file("b", 3_000), file("empty", 0)];
    let mut bench = Bench::new(&files);
    for file in &files[..2] {
        bench.place(file.path, &file.content);
    }
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
    bench.assert_complete(&files);
}

#[test]
fn content_that_is_mostly_right_is_repaired_in_place() {
    let files = [file("a", 4 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    let mut damaged = files[0].content.clone();
    damaged[PIECE_LENGTH + 5] ^= 1;
    bench.place("a", &damaged);
    assert_eq!(bench.check(), Ok(vec![0, 2, 3]));
    bench.write_blocks(1);
    assert!(bench.verify(1));
    bench.assert_complete(&files);
}

#[test]
fn other_content_is_never_touched() {
    for other in [
        vec![5; 4 * PIECE_LENGTH],
        vec![5; 10],
        vec![5; 5 * PIECE_LENGTH],
    ] {
        let mut bench = Bench::new(&[file("a", 4 * PIECE_LENGTH)]);
        bench.place("a", &other);
        bench.check_occupied("a");
        assert_eq!(fs::read(bench.path("a")).unwrap(), other);
    }
}

#[test]
fn other_content_that_appears_during_a_download_is_never_touched() {
    let files = [file("a", 50_000)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.write_blocks(0);
    assert!(bench.verify(0));
    bench.place("a", b"mine");
    bench.write_blocks(1);
    let piece = bench.piece(1);
    let done = bench.run(Job::Verify {
        piece,
        blocks: false,
    });
    let Completion::Failed { error } = done else {
        panic!("{done:?}");
    };
    assert_eq!(error.kind, DiskErrorKind::Occupied);
    assert_eq!(fs::read(bench.path("a")).unwrap(), b"mine");
    // Out of the way, it goes on where it was.
    fs::remove_file(bench.path("a")).unwrap();
    assert_eq!(bench.check(), Ok(vec![0, 1]));
    bench.assert_complete(&files);
}

#[test]
fn a_small_file_whose_neighbour_is_missing_is_kept_and_compared_at_the_end() {
    let files = [file("a", 1_000), file("b", 1_000)];
    for (theirs, same) in [(files[0].content.clone(), true), (vec![9; 1_000], false)] {
        let mut bench = Bench::new(&files);
        bench.place("a", &theirs);
        assert_eq!(bench.check(), Ok(vec![]));
        bench.write_blocks(0);
        let piece = bench.piece(0);
        let done = bench.run(Job::Verify {
            piece,
            blocks: false,
        });
        assert_eq!(
            matches!(done, Completion::Verified { .. }),
            same,
            "{done:?}"
        );
        assert_eq!(fs::read(bench.path("a")).unwrap(), theirs);
        if same {
            bench.assert_complete(&files);
        }
    }
}

#[test]
fn space_that_was_set_aside_counts_as_nothing() {
    let files = [file("a", 4 * PIECE_LENGTH), file("b", 100)];
    let mut bench = Bench::new(&files);
    bench.place("a", &vec![0; 4 * PIECE_LENGTH]);
    bench.place("b", b"");
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    bench.assert_complete(&files);
}

#[test]
fn pieces_of_zeros_in_a_hole_are_right() {
    let mut zeros = file("z", 3 * PIECE_LENGTH);
    zeros.content.fill(0);
    let files = [zeros];
    let mut bench = Bench::new(&files);
    bench.place("z", b"");
    let hole = fs::File::options()
        .write(true)
        .open(bench.path("z"))
        .unwrap();
    hole.set_len(3 * 32_768).unwrap();
    assert_eq!(bench.check(), Ok(vec![0, 1, 2]));
}

#[test]
fn symbolic_links_in_the_way_are_not_followed() {
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"precious").unwrap();
    let files = [file("d/a", 40_000)];
    let attacks: [(&str, &Path); 4] = [
        ("t", outside.path()),
        ("t/d", outside.path()),
        ("t/d/a", &victim),
        ("part of t/d/a", &victim),
    ];
    for (link, target) in attacks {
        let mut bench = Bench::new(&files);
        let link = match link {
            "part of t/d/a" => bench.part("d/a"),
            other => bench.folder.path().join(other),
        };
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(bench.check().unwrap_err().kind, DiskErrorKind::Occupied);
        let block = bench.block(0, 0);
        let bytes = bench.bytes_of(block).to_vec();
        let done = bench.write(block, &bytes);
        assert!(matches!(done, Completion::Failed { .. }), "{done:?}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_folder_or_a_pipe_in_the_way_is_reported() {
    let mut bench = Bench::new(&[file("a", 40_000)]);
    fs::create_dir_all(bench.path("a")).unwrap();
    bench.check_occupied("a");

    let mut bench = Bench::new(&[file("a", 40_000)]);
    bench.place("x", b"");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bench.part("a"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert_eq!(bench.check().unwrap_err().kind, DiskErrorKind::Occupied);

    let mut bench = Bench::new(&[file("d/a", 40_000)]);
    bench.place("d", b"a file");
    assert_eq!(bench.check().unwrap_err().kind, DiskErrorKind::Occupied);
}

#[test]
fn empty_files_are_made_by_the_check() {
    let files = [file("a", 100), file("empty", 0), file("x/y/empty", 0)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    assert_eq!(fs::metadata(bench.path("empty")).unwrap().len(), 0);
    assert_eq!(fs::metadata(bench.path("x/y/empty")).unwrap().len(), 0);
    bench.place("empty", b"not any more");
    bench.check_occupied("empty");
    assert_eq!(fs::read(bench.path("empty")).unwrap(), b"not any more");
}

#[test]
fn a_torrent_of_empty_files_only_is_complete_at_once() {
    let files = [file("empty", 0)];
    let mut bench = Bench::new(&files);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.assert_complete(&files);
}

#[test]
fn two_torrents_with_a_file_of_one_name_do_not_write_into_each_other() {
    let (one, other) = ([file("a", 60_000)], [file("a", 70_000)]);
    let mut bench = Bench::new(&one);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.write_blocks(0);
    let part_of_one = bench.part("a");
    let before = fs::read(&part_of_one).unwrap();

    let mut bench = bench.restart(&other);
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    assert_eq!(fs::read(bench.path("a")).unwrap(), other[0].content);
    assert_eq!(fs::read(&part_of_one).unwrap(), before);

    let mut bench = bench.restart(&one);
    assert_eq!(bench.check().unwrap_err().kind, DiskErrorKind::Occupied);
    assert_eq!(fs::read(bench.path("a")).unwrap(), other[0].content);
    assert_eq!(fs::read(&part_of_one).unwrap(), before);
}
