//! Comparing content with a torrent.

use super::*;

/// Verifies, and looks that nothing was changed; gives bad and missing pieces and whole files.
#[track_caller]
fn check_verify(bench: &Bench, threads: usize) -> (Vec<u32>, Vec<u32>, Vec<bool>) {
    let list = |folder: &TempDir| {
        let mut paths: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        paths.extend(fs::read_dir(folder.path().join("t")).into_iter().flatten());
        let mut paths: Vec<_> = paths.into_iter().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let before = list(&bench.folder);
    let bytes = AtomicU64::new(0);
    let progress = |count| {
        bytes.fetch_add(count, Ordering::Relaxed);
    };
    let found = verify(&bench.info, bench.folder.path(), threads, &progress).unwrap();
    let geometry = bench.info.geometry();
    assert_eq!(bytes.into_inner(), geometry.total_length());
    assert_eq!(found.pieces, geometry.piece_count());
    assert_eq!(list(&bench.folder), before);
    let whole = found.bad.is_empty() && found.missing.is_empty();
    assert!(!found.is_complete() || whole);
    let numbers = |pieces: Vec<PieceIndex>| pieces.iter().map(|piece| piece.get()).collect();
    (numbers(found.bad), numbers(found.missing), found.files)
}

#[test]
fn bad_and_missing_pieces_and_whole_files_are_told_apart() {
    let files = [
        file("a", 3 * PIECE_LENGTH),
        file("b/c", PIECE_LENGTH + 10),
        pad(PIECE_LENGTH - 10),
        file("d", PIECE_LENGTH),
        file("empty", 0),
    ];
    for threads in [1, 3] {
        let bench = Bench::new(&files);
        let none = vec![false, false, true, false, false];
        assert_eq!(
            check_verify(&bench, threads),
            (vec![], vec![0, 1, 2, 3, 4, 5], none)
        );
        for file in files.iter().filter(|file| !file.path.is_empty()) {
            bench.place(file.path, &file.content);
        }
        assert_eq!(
            check_verify(&bench, threads),
            (vec![], vec![], vec![true; 5])
        );
        let mut damaged = files[0].content.clone();
        damaged[PIECE_LENGTH] ^= 1;
        bench.place("a", &damaged);
        bench.place("b/c", &files[1].content[..PIECE_LENGTH + 9]);
        bench.place("d", &[&files[3].content[..], b"more"].concat());
        bench.place("empty", b"not");
        assert_eq!(
            check_verify(&bench, threads),
            (vec![1], vec![4], vec![false, false, true, false, false])
        );
    }
}

#[test]
fn an_incomplete_file_is_read_and_what_was_never_written_to_it_is_missing() {
    let files = [file("a", 5 * PIECE_LENGTH), file("b", 2 * PIECE_LENGTH)];
    let mut bench = Bench::new(&files);
    bench.write_blocks(0);
    bench.write_blocks(4);
    let block = bench.block(2, 0);
    bench.write(block, &[7; 16384]);
    for piece in [5, 6] {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    assert_eq!(
        check_verify(&bench, 2),
        (vec![2], vec![1, 3], vec![false, true])
    );
    bench.place("a", &files[0].content);
    assert_eq!(check_verify(&bench, 2), (vec![], vec![], vec![true; 2]));
}

#[test]
fn a_link_below_the_folder_is_not_the_content_and_a_folder_that_is_not_there_is_an_error() {
    let files = [file("a", PIECE_LENGTH)];
    let bench = Bench::new(&files);
    bench.place("elsewhere", &files[0].content);
    std::os::unix::fs::symlink("elsewhere", bench.path("a")).unwrap();
    assert_eq!(check_verify(&bench, 1), (vec![], vec![0], vec![false]));
    let nowhere = bench.folder.path().join("nowhere");
    let error = verify(&bench.info, &nowhere, 1, &|_| ()).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Missing);
}
