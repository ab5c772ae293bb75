//! Finding and hashing content to make a torrent of.

use super::*;

#[test]
fn of_content_that_was_hashed_only_what_changed_since_is_hashed_again() {
    let files = [file("a", 2 * PIECE_LENGTH), file("b", 2 * PIECE_LENGTH)];
    let bench = Bench::new(&files);
    for file in &files {
        bench.place(file.path, &file.content);
    }
    let found = hash::collect(&bench.path("")).unwrap();
    let resume = found.resume(&bench.info);
    // The damage of `b` can be seen by nobody who does not read it.
    for (path, seconds) in [("a", 1), ("b", 0)] {
        let (path, before) = (bench.path(path), fs::metadata(bench.path(path)).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[PIECE_LENGTH] ^= 1;
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let time = before.modified().unwrap() + Duration::from_secs(seconds);
        file.set_modified(time).unwrap();
    }
    let options = Options {
        resume: Some(resume),
        wanted: None,
    };
    let mut bench = bench.restart_with(&files, options);
    assert_eq!(bench.check(), Ok(vec![0, 2, 3]));
    assert_eq!(bench.storage.resume().pieces.count(), 0, "not durable yet");
}

#[test]
fn pieces_are_hashed_across_files_and_changes_are_noticed() {
    let folder = TempDir::new().unwrap();
    let all = content(3 * PIECE_LENGTH + 77, 3);
    let (first, second) = all.split_at(PIECE_LENGTH + 1_000);
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("d/2"), second).unwrap();
    fs::write(folder.path().join("1"), first).unwrap();
    fs::write(folder.path().join("d/empty"), b"").unwrap();
    std::os::unix::fs::symlink("1", folder.path().join("link")).unwrap();
    let found = hash::collect(folder.path()).unwrap();
    let names: Vec<_> = found.files.iter().map(|f| f.components.join("/")).collect();
    assert_eq!(names, ["1", "d/2", "d/empty"]);
    assert!(!found.single && found.skipped.len() == 1);
    assert!(folder.path().ends_with(&found.name));

    let files: Vec<_> = found
        .files
        .into_iter()
        .map(|f| (f.path, f.length))
        .collect();
    let piece_length = u32::try_from(PIECE_LENGTH).unwrap();
    for threads in [1, 4] {
        let done = AtomicU64::new(0);
        let progress = |bytes| {
            done.fetch_add(bytes, Ordering::Relaxed);
        };
        let hashes = hash::hash_pieces(&files, piece_length, threads, &progress).unwrap();
        let expected: Vec<_> = all
            .chunks(PIECE_LENGTH)
            .flat_map(|piece| Sha1::digest(piece).to_vec())
            .collect();
        assert_eq!(hashes, expected);
        assert_eq!(done.into_inner(), u64::try_from(all.len()).unwrap());
    }
    for (bytes, kind) in [
        (vec![0; 5], DiskErrorKind::Truncated),
        (vec![0; 200_000], DiskErrorKind::Other),
    ] {
        fs::write(folder.path().join("1"), bytes).unwrap();
        let error = hash::hash_pieces(&files, piece_length, 2, &|_| ()).unwrap_err();
        assert_eq!(error.kind, kind);
    }
}

#[test]
fn names_that_are_not_utf8_are_refused_in_words() {
    use std::os::unix::ffi::OsStrExt;
    let folder = TempDir::new().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(folder.path().join(name), b"x").unwrap();
    let error = hash::collect(folder.path()).unwrap_err();
    assert!(error.message.contains("UTF-8"), "{error}");
    let single = folder.path().join("one");
    fs::write(&single, b"x").unwrap();
    let found = hash::collect(&single).unwrap();
    assert!(found.single && found.name == "one");
    assert_eq!(found.root, folder.path().canonicalize().unwrap());
}
