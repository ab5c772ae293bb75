//! Torrent files that break the rules, given to the built command: refused in one sentence, or made safe.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::command::{run, stderr, stdout};

/// A string as it is written: `4:spam`.
fn text(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// The info dictionary of a single file of these values, in the order of its keys.
fn single(length: &str, piece_length: &str, pieces: &[u8]) -> Vec<u8> {
    let front = format!("d6:length{length}4:name1:a12:piece length{piece_length}6:pieces");
    [front.as_bytes(), pieces, b"e"].concat()
}

/// The info dictionary of a folder of empty files, whose paths are lists of names.
fn folder(name: &[u8], paths: &[&[&[u8]]]) -> Vec<u8> {
    let mut info = b"d5:filesl".to_vec();
    for path in paths {
        info.extend(b"d6:lengthi0e4:pathl");
        path.iter().for_each(|name| info.extend(text(name)));
        info.extend(b"ee");
    }
    info.extend(b"e4:name");
    info.extend(text(name));
    info.extend(b"12:piece lengthi16384e6:pieces0:e");
    info
}

/// A torrent file around an info dictionary.
fn write(home: &Path, info: &[u8]) -> String {
    let path = home.join("hostile.torrent");
    fs::write(&path, [b"d4:info", info, b"e"].concat()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Both `show` and `get` refuse the file with one sentence that a terminal can bear.
#[track_caller]
fn check_refused(what: &str, info: &[u8]) {
    let home = tempfile::tempdir().unwrap();
    let torrent = write(home.path(), info);
    let output = home.path().join("output");
    let to = output.to_str().unwrap();
    for arguments in [
        &["show", &torrent][..],
        &["get", &torrent, "-o", to, "--bootstrap", "none"],
        &["verify", &torrent, to],
    ] {
        let ended = run(home.path(), arguments);
        let said = stderr(&ended);
        assert!(matches!(ended.status.code(), Some(1 | 2)), "{what}: {said}");
        assert_eq!(stdout(&ended), "", "{what}");
        let is_sentence = |line: &&str| !line.is_empty() && !line.starts_with("hint: ");
        let sentences: Vec<&str> = said.lines().filter(is_sentence).collect();
        assert_eq!(sentences.len(), 1, "{what}: {said}");
        assert!(said.len() <= 1_024, "{what}: {} bytes", said.len());
        let is_plain = said.chars().all(|c| c == '\n' || !c.is_control());
        assert!(is_plain, "{what}: {said:?}");
    }
    assert!(!output.exists(), "{what}: nothing was made");
}

#[test]
fn numbers_that_make_no_torrent_are_refused_in_one_sentence() {
    let one = text(&[b'x'; 20]);
    for length in ["i0e", "i-1e", "i9223372036854775807e", "5:16384", "i16383e"] {
        check_refused(length, &single("i1e", length, &one));
    }
    for (length, pieces) in [
        ("i-1e", 1),
        ("i18446744073709551615e", 1),
        ("i18446744073709551617e", 1),
        ("i9223372036854775807e", 1),
        ("i16385e", 1),
        ("i16384e", 2),
        ("i16384e", 0),
    ] {
        check_refused(
            length,
            &single(length, "i16384e", &text(&one[3..].repeat(pieces))),
        );
    }
    check_refused(
        "19 bytes of hashes",
        &single("i1e", "i16384e", &text(&[1; 19])),
    );
    let most = b"d6:lengthi9223372036854775807e4:pathl1:aee".repeat(3);
    let rest = b"e4:name1:a12:piece lengthi16384e6:pieces0:e";
    check_refused(
        "a sum that overflows",
        &[b"d5:filesl", &most[..], rest].concat(),
    );
    let both = b"d5:filesld6:lengthi1e4:pathl1:aeee6:lengthi1e4:name1:a12:piece lengthi16384e\
        6:pieces20:xxxxxxxxxxxxxxxxxxxxe";
    check_refused("length and files", both);
    let v2 = b"d9:file treed5:a.txtd0:d6:lengthi1eeee12:meta versioni2e4:name5:a.txt\
        12:piece lengthi16384ee";
    check_refused("v2 only", v2);
}

#[test]
fn bombs_are_refused_in_one_sentence() {
    let huge = format!("i{}e", "1".repeat(1_000_000));
    check_refused("a million digits", &single(&huge, "i16384e", b"0:"));
    for (what, bytes) in [
        ("nested lists", b"l".repeat(1_000_000)),
        ("nested dictionaries", b"d1:a".repeat(300_000)),
        (
            "a string of many digits",
            [&b"d4:name"[..], &b"9".repeat(1_000_000), b":a"].concat(),
        ),
        ("a string beyond the end", b"d4:name4294967295:ae".to_vec()),
        (
            "empty lists",
            [&b"d1:al"[..], &b"le".repeat(3_000_000), b"ee"].concat(),
        ),
        ("34 MB", vec![b'l'; 34 << 20]),
    ] {
        check_refused(what, &bytes);
    }
    let level: &[u8] = b"d";
    let deep: Vec<&[u8]> = vec![level; 20_000];
    check_refused("20,000 folders", &folder(b"a", &[&deep]));
}

/// Files and links below a folder, links not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Names that lead out of a folder or upset whoever lists it. A torrent of empty files is fetched without
/// any peer.
#[test]
fn whatever_files_are_called_they_lie_in_the_chosen_folder() {
    let long = [b'n'; 300];
    let paths: [&[&[u8]]; 16] = [
        &[b"..", b"..", b"escaped"],
        &[b"/", b"etc", b"escaped"],
        &[b"/tmp/escaped"],
        &[b"a/../../escaped"],
        &[b"a\\..\\escaped"],
        &[b"C:", b"escaped"],
        &[b"C:\\escaped"],
        &[b"CON"],
        &[b"nul\0escaped"],
        &[b"\x1b[2Jcontrol\r\n"],
        &["\u{202e}txt.exe".as_bytes()],
        &[b"\xff\xfe"],
        &[&long],
        &[b"same"],
        &[b"same"],
        &[b"same", b"below"],
    ];
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in [&b".."[..], b"../escaped", b"/", b"plain"] {
        let torrent = write(home.path(), &folder(name, &paths));
        let output = home.path().join("output");
        let before = below(home.path()).len();
        let arguments = ["get", &torrent, "-o", output.to_str().unwrap()];
        let ended = run(home.path(), &[&arguments[..], &["--no-dht"]].concat());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(0), "{said}");
        assert!(
            !said.contains('\x1b') && !stdout(&ended).contains('\x1b'),
            "{said}"
        );
        let made = below(&output);
        assert_eq!(made.len(), paths.len(), "{made:#?}");
        for path in &made {
            let name = path.file_name().unwrap().to_str().expect("it is UTF-8");
            assert!(name.len() <= 255, "{name}");
            let is_bad = |c: char| c.is_control() || c == '\u{202e}' || c == '\\';
            assert!(!name.contains(is_bad), "{name:?}");
        }
        fs::remove_dir_all(&output).unwrap();
        // The state folder has its own files.
        let state = |path: &PathBuf| path.starts_with(home.path().join("state"));
        let others = below(home.path())
            .iter()
            .filter(|path| !state(path))
            .count();
        assert!(others <= before, "{:#?}", below(home.path()));
    }
    assert!(below(&outside).is_empty());
    assert!(!Path::new("/tmp/escaped").exists() && !Path::new("/etc/escaped").exists());
}

#[test]
fn links_that_lie_in_the_chosen_folder_already_lead_nowhere() {
    let home = tempfile::tempdir().unwrap();
    let (outside, output) = (home.path().join("outside"), home.path().join("output"));
    fs::create_dir_all(output.join("folder")).unwrap();
    fs::create_dir(&outside).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, b"untouched").unwrap();
    symlink(&outside, output.join("folder/sub")).unwrap();
    let paths: [&[&[u8]]; 1] = [&[b"sub", b"new"]];
    let torrent = write(home.path(), &folder(b"folder", &paths));
    let get = |torrent: &str| {
        let arguments = ["get", torrent, "-o", output.to_str().unwrap(), "--no-dht"];
        run(home.path(), &arguments)
    };
    let ended = get(&torrent);
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    assert_eq!(below(&outside), std::slice::from_ref(&victim));
    // A link in the place of a file itself, and one in the place of the incomplete file.
    fs::remove_file(output.join("folder/sub")).unwrap();
    let paths: [&[&[u8]]; 1] = [&[b"file"]];
    let torrent = write(home.path(), &folder(b"folder", &paths));
    symlink(&victim, output.join("folder/file")).unwrap();
    let ended = get(&torrent);
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    let link = fs::symlink_metadata(output.join("folder/file")).unwrap();
    assert!(link.file_type().is_symlink(), "it is as it was");
}
