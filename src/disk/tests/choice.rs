//! Choosing files.

use super::*;

fn files() -> [TestFile; 4] {
    [
        file("a", PIECE_LENGTH + 1_000),
        file("b", 2 * PIECE_LENGTH),
        file("c", 500),
        file("e", 0),
    ]
}

fn wanted(numbers: &[u32]) -> Bitfield {
    let mut wanted = Bitfield::new(4);
    for &number in numbers {
        wanted.insert(number);
    }
    wanted
}

fn choose(numbers: &[u32]) -> Options {
    Options {
        wanted: Some(wanted(numbers)),
        resume: None,
    }
}

#[test]
fn of_files_that_are_not_wanted_only_what_their_neighbours_need_is_kept() {
    let files = files();
    let mut bench = Bench::with(&files, TempDir::new().unwrap(), choose(&[0]));
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in 0..2 {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    assert_eq!(fs::read(bench.path("a")).unwrap(), files[0].content);
    assert!(bench.part("b").exists() && !bench.path("b").exists());
    for absent in ["c", "e"] {
        assert!(!bench.path(absent).exists() && !bench.part(absent).exists());
    }
    let mut bench = bench.restart_with(&files, choose(&[0]));
    assert_eq!(bench.check(), Ok(vec![0, 1]));
    // All of them after all.
    bench.storage.set_wanted(None);
    for piece in 2..4 {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    bench.sync().unwrap();
    bench.assert_complete(&files);
}

#[test]
fn an_unwanted_file_that_becomes_complete_gets_its_name_only_when_it_is_wanted() {
    let files = files();
    let mut bench = Bench::with(&files, TempDir::new().unwrap(), choose(&[1]));
    assert_eq!(bench.check(), Ok(vec![]));
    bench.download();
    assert_eq!(fs::read(bench.path("b")).unwrap(), files[1].content);
    for name in ["a", "c"] {
        assert!(bench.part(name).exists() && !bench.path(name).exists());
    }
    let mut bench = bench.restart_with(&files, choose(&[1]));
    assert_eq!(bench.check(), Ok(vec![0, 1, 2, 3]));
    assert!(!bench.path("a").exists());
    bench.storage.set_wanted(Some(&wanted(&[0, 1, 2, 3])));
    bench.sync().unwrap();
    bench.assert_complete(&files);
}

#[test]
fn whatever_lies_at_the_place_of_an_unwanted_file_is_no_obstacle() {
    let files = files();
    let mut bench = Bench::with(&files, TempDir::new().unwrap(), choose(&[0]));
    bench.place("b", &[7; 2 * PIECE_LENGTH]);
    bench.place("c", b"other");
    assert_eq!(bench.check(), Ok(vec![]));
    for piece in 0..2 {
        bench.write_blocks(piece);
        assert!(bench.verify(piece));
    }
    assert_eq!(fs::read(bench.path("a")).unwrap(), files[0].content);
    assert_eq!(fs::read(bench.path("b")).unwrap(), [7; 2 * PIECE_LENGTH]);
    assert_eq!(fs::read(bench.path("c")).unwrap(), b"other");
}

#[test]
fn an_unwanted_file_that_is_there_is_recognised() {
    let files = files();
    let mut bench = Bench::with(&files, TempDir::new().unwrap(), choose(&[0]));
    bench.place("b", &files[1].content);
    bench.place("c", &files[2].content);
    assert_eq!(bench.check(), Ok(vec![2, 3]));
    bench.download();
    assert_eq!(fs::read(bench.path("a")).unwrap(), files[0].content);
}

#[test]
fn a_large_wanted_file_gets_its_space_at_once_and_an_unwanted_one_does_not() {
    use std::os::unix::fs::MetadataExt;
    let pieces = 64;
    let files = [
        file("a", pieces * PIECE_LENGTH),
        file("b", pieces * PIECE_LENGTH),
    ];
    let mut bench = Bench::with(&files, TempDir::new().unwrap(), choose(&[0]));
    bench.write_blocks(3);
    bench.write_blocks(70);
    let status = |name: &str| fs::metadata(bench.part(name)).unwrap();
    let length = u64::try_from(4 * PIECE_LENGTH).unwrap();
    assert_eq!(status("a").len(), length, "as far as it was written");
    assert!(status("b").blocks() * 512 < 2 * length);
    let whole = u64::try_from(pieces * PIECE_LENGTH).unwrap();
    // Not every file system can set space aside.
    let allocated = status("a").blocks() * 512;
    assert!(allocated >= whole || allocated < 2 * length);
    let mut bench = bench.restart(&files);
    assert_eq!(bench.check(), Ok(vec![3, 70]));
}
