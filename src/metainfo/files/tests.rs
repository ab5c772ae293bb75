//! Names from strangers, as they reach the disk.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::bencode::Writer;
use crate::metainfo::Info;

/// Safe paths of a torrent with the folder `root` and empty files of these paths.
fn paths_in(root: &[u8], files: &[Vec<&[u8]>]) -> Result<Vec<String>, MetainfoError> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.begin_dictionary().key("files").begin_list();
    for path in files {
        writer
            .begin_dictionary()
            .key("length")
            .integer(0)
            .key("path")
            .begin_list();
        for component in path {
            writer.bytes(component);
        }
        writer.end().end();
    }
    writer
        .end()
        .key("name")
        .bytes(root)
        .key("piece length")
        .integer(16384);
    writer.key("pieces").bytes(b"").end();
    let info = Info::parse(Bytes::from(out))?;
    Ok(info.files().all().iter().map(File::joined_path).collect())
}

/// Safe paths, without the folder `t` around them, for paths written with `/`.
#[track_caller]
fn check_paths(files: &[&str], expected: &[&str]) {
    let split: Vec<Vec<&[u8]>> = files
        .iter()
        .map(|path| path.split('/').map(str::as_bytes).collect())
        .collect();
    let paths = paths_in(b"t", &split).unwrap();
    let inside: Vec<_> = paths
        .iter()
        .map(|path| path.strip_prefix("t/").unwrap())
        .collect();
    assert_eq!(inside, expected);
}

/// The path of a single-file torrent with this name.
fn single_named(name: &[u8], name_utf8: Option<&[u8]>) -> String {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer
        .begin_dictionary()
        .key("length")
        .integer(0)
        .key("name")
        .bytes(name);
    if let Some(name) = name_utf8 {
        writer.key("name.utf-8").bytes(name);
    }
    writer
        .key("piece length")
        .integer(16384)
        .key("pieces")
        .bytes(b"")
        .end();
    let info = Info::parse(Bytes::from(out)).unwrap();
    assert_eq!(info.files().all()[0].path, [info.name()]);
    info.name().to_owned()
}

#[test]
fn paths_that_climb_stay_inside() {
    check_paths(
        &["../../etc/passwd", "a/../b", "./c"],
        &["__/__/etc/passwd", "a/__/b", "_/c"],
    );
    assert_eq!(paths_in(b"..", &[vec![b"x"]]).unwrap(), ["__/x"]);
    assert_eq!(single_named(b"..", None), "__");
    assert_eq!(single_named(b"../x", None), ".._x");
}

#[test]
fn absolute_paths_and_separators_inside_names_are_flattened() {
    let files = vec![
        vec![&b"/etc/passwd"[..]],
        vec![b"a\\b", b"C:\\x"],
        vec![b"//", b"x"],
    ];
    let paths = paths_in(b"/root", &files).unwrap();
    assert_eq!(paths, ["_root/_etc_passwd", "_root/a_b/C__x", "_root/__/x"]);
    assert_eq!(single_named(b"/etc/passwd", None), "_etc_passwd");
}

#[test]
fn nul_and_control_and_bidi_characters_are_replaced() {
    let bidi = "photo\u{202e}gpj.exe".as_bytes();
    let paths = paths_in(b"a\0b", &[vec![b"x\0", b"\x1b[2J"], vec![bidi]]).unwrap();
    assert_eq!(paths, ["a_b/x_/_[2J", "a_b/photo_gpj.exe"]);
}

#[test]
fn drive_letters_and_reserved_names_are_defused() {
    check_paths(
        &["C:/x", "CON/nul.txt", "com1"],
        &["C_/x", "_CON/_nul.txt", "_com1"],
    );
    assert_eq!(single_named(b"AUX", None), "_AUX");
}

#[test]
fn empty_names_are_dropped_or_replaced() {
    check_paths(&["a//b", "", "/"], &["a/b", "unnamed", "unnamed~2"]);
    assert_eq!(paths_in(b"t", &[vec![]]).unwrap(), ["t/unnamed"]);
    // A torrent without a name is called by its info hash.
    let name = single_named(b"", None);
    assert_eq!(name.len(), 40);
    assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[test]
fn long_names_are_shortened_and_stay_apart() {
    let long = |last: u8| [&[b'x'; 400][..], &[last], b".txt"].concat();
    let (first, second) = (long(b'1'), long(b'2'));
    let paths = paths_in(&first, &[vec![&first], vec![&second]]).unwrap();
    assert_ne!(paths[0], paths[1]);
    for path in &paths {
        assert!(
            path.split('/')
                .all(|name| name.len() == 255 && name.contains('~'))
        );
        assert!(path.ends_with(".txt"));
    }
    assert_eq!(
        paths,
        paths_in(&first, &[vec![&first], vec![&second]]).unwrap()
    );
}

#[test]
fn valid_utf8_variants_are_preferred() {
    assert_eq!(single_named(b"caf\xe9", Some("café".as_bytes())), "café");
    assert_eq!(single_named(b"plain", Some(b"caf\xe9")), "plain");
    assert_eq!(single_named(b"plain", Some(b"")), "plain");
    assert_eq!(single_named(b"caf\xe9", None), "caf\u{fffd}");
    let parse = |variant: &str| {
        let info = format!(
            "d5:filesld6:lengthi0e4:pathl1:ae10:path.utf-8{variant}ee4:name1:t12:piece length\
             i16384e6:pieces0:e"
        );
        Info::parse(info.into()).unwrap().files().all()[0].joined_path()
    };
    assert_eq!(parse("l2:é1:be"), "t/é/b");
    assert_eq!(parse("le"), "t/a");
    assert_eq!(parse("li1ee"), "t/a");
    assert_eq!(parse("1:b"), "t/a");
    assert_eq!(parse("l2:..e"), "t/__");
}

#[test]
fn files_of_one_path_are_numbered_apart() {
    check_paths(
        &["a.txt", "a.txt", "a~2.txt", "a.txt", "b/c", "b/c"],
        &["a.txt", "a~2.txt", "a~2~2.txt", "a~3.txt", "b/c", "b/c~2"],
    );
    // Names that become one by cleaning.
    check_paths(&["x\u{1}", "x\u{2}"], &["x_", "x_~2"]);
}

#[test]
fn a_file_never_lies_where_a_folder_is_needed() {
    check_paths(
        &["a", "a/b", "a/c", "a/b/d"],
        &["a", "a~2/b", "a~2/c", "a~2/b~2/d"],
    );
    check_paths(&["a/b", "a", "a/c"], &["a/b", "a~2", "a/c"]);
    check_paths(
        &["a", "a/b", "a~2/x", "a~2"],
        &["a", "a~2/b", "a~2~2/x", "a~2~3"],
    );
}

#[test]
fn upper_and_lower_case_are_different_names() {
    check_paths(&["A", "a"], &["A", "a"]);
}

#[test]
fn twenty_thousand_levels_of_folders_are_refused() {
    let path = vec![&b"a"[..]; 20_000];
    assert_eq!(paths_in(b"t", &[path]), Err(MetainfoError::PathLevels));
    // Not even if the names come to nothing.
    let path = vec![&b""[..]; 20_000];
    assert_eq!(paths_in(b"t", &[path]), Err(MetainfoError::PathLevels));
    let path = vec![&b"a"[..]; PATH_LEVELS_MAX];
    assert!(paths_in(b"t", std::slice::from_ref(&path)).is_ok());
    let path = vec![&b"a"[..]; PATH_LEVELS_MAX + 1];
    assert_eq!(paths_in(b"t", &[path]), Err(MetainfoError::PathLevels));
}

#[test]
fn paths_longer_than_systems_take_are_refused() {
    let name = [b'x'; 255];
    assert_eq!(
        paths_in(b"t", &[vec![&name[..]; 13]]),
        Err(MetainfoError::PathLength)
    );
    assert!(paths_in(b"t", &[vec![&name[..]; 11]]).is_ok());
}

#[test]
fn all_paths_together_have_a_limit() {
    // 4 KB of input a file would otherwise make 400 MB of paths.
    let root = [b'r'; 255];
    let needed = PATHS_LENGTH_MAX / 258 + 2;
    let files: Vec<Vec<&[u8]>> = vec![vec![b"a"]; needed];
    assert_eq!(paths_in(&root, &files), Err(MetainfoError::PathLength));
    assert!(paths_in(&root, &files[..needed / 2]).is_ok());
}

#[test]
fn a_hundred_thousand_namesakes_are_kept_apart() {
    let files: Vec<Vec<&[u8]>> = vec![vec![b"same", b"same"]; 100_000];
    let paths = paths_in(b"t", &files).unwrap();
    let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
    assert_eq!(distinct.len(), 100_000);
    assert_eq!(paths[99_999], "t/same/same~100000");
}

#[test]
fn long_namesakes_are_kept_apart_without_retrying() {
    // All are cut to one beginning; the hash in the name keeps the search for a free one short.
    let names: Vec<Vec<u8>> = (0..20_000)
        .map(|index| format!("{}{index:05}", "x".repeat(250)).into_bytes())
        .collect();
    let files: Vec<Vec<&[u8]>> = names
        .iter()
        .flat_map(|name| [vec![&name[..]], vec![&name[..]]])
        .collect();
    let paths = paths_in(b"t", &files).unwrap();
    let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
    assert_eq!(distinct.len(), 40_000);
}

#[test]
fn pad_files_take_no_names() {
    let info = b"d5:filesld4:attr1:p6:lengthi0e4:pathl1:aeed6:lengthi0e4:pathl1:aeee4:name1:t\
                 12:piece lengthi16384e6:pieces0:e";
    let info = Info::parse(Bytes::from_static(info)).unwrap();
    let wanted: Vec<_> = info
        .files()
        .wanted()
        .map(|(_, file)| file.joined_path())
        .collect();
    assert_eq!(wanted, ["t/a"]);
}

proptest! {
    #[test]
    fn no_two_files_meet_and_none_leaves_the_folder(
        files in prop::collection::vec(
            prop::collection::vec(
                prop_oneof![
                    "[ab]|a~2|a~2~2|\\.\\.|\\.|",
                    "[a/\\\\\u{0}\u{1}:.]{0,3}",
                    prop::string::string_regex("(\\PC|\\x00|/){0,400}").unwrap(),
                ],
                0..4,
            ),
            1..12,
        ),
    ) {
        let raw: Vec<Vec<&[u8]>> = files
            .iter()
            .map(|path| path.iter().map(String::as_bytes).collect())
            .collect();
        let paths = paths_in(b"t", &raw).unwrap();
        for path in &paths {
            for name in path.split('/') {
                prop_assert!(!name.is_empty() && name.len() <= 255);
                prop_assert!(name != "." && name != "..");
                prop_assert!(!name.contains(['\\', '\0']));
            }
            prop_assert!(path.starts_with("t/"));
        }
        for (index, path) in paths.iter().enumerate() {
            for other in paths.iter().skip(index + 1) {
                prop_assert_ne!(path, other);
                let inside = |inner: &str, outer: &str| {
                    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
                };
                prop_assert!(!inside(other, path) && !inside(path, other));
            }
        }
        prop_assert_eq!(paths, paths_in(b"t", &raw).unwrap());
    }
}
