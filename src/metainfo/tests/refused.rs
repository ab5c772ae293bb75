//! The rows "torrent file" of the hostile inputs that are refused, each with one sentence.

use super::*;
use crate::bencode::ScanError;

/// The same verdict must come for a file and for metadata from peers.
#[track_caller]
fn check_refused(info: &str, expected: MetainfoError) {
    let from_peers = Info::parse(Bytes::copy_from_slice(info.as_bytes())).map(|_| ());
    assert_eq!(from_peers, Err(expected.clone()), "{info}");
    let from_file = Metainfo::parse(&torrent(info)).map(|_| ());
    if matches!(expected, MetainfoError::Bencode(_)) {
        // Offsets differ in a file.
        assert!(
            matches!(from_file, Err(MetainfoError::Bencode(_))),
            "{info}"
        );
    } else {
        assert_eq!(from_file, Err(expected), "{info}");
    }
}

#[test]
fn a_v2_only_torrent_is_refused_in_words() {
    let v2 = "d9:file treed5:a.txtd0:d6:lengthi1eeee12:meta versioni2e4:name5:a.txt\
              12:piece lengthi16384ee";
    check_refused(v2, MetainfoError::V2Only);
    assert!(
        MetainfoError::V2Only
            .to_string()
            .contains("v2-only torrent (BEP 52)")
    );
}

#[test]
fn keys_that_every_torrent_has_are_missed() {
    let missing = |key| MetainfoError::Missing { key };
    check_refused("de", missing("name"));
    check_refused("d4:name1:ae", missing("piece length"));
    check_refused("d4:name1:a6:pieces0:e", missing("piece length"));
    check_refused(
        "d4:name1:a12:piece lengthi16384e6:pieces0:e",
        missing("length"),
    );
    check_refused(
        "d6:lengthi0e4:name1:a12:piece lengthi16384ee",
        missing("pieces"),
    );
    check_refused(&folder(&["4:pathl1:ae"], 0), missing("length"));
    check_refused(&folder(&["6:lengthi1e"], 1), missing("path"));
    assert_eq!(Metainfo::parse(b"de").err(), Some(missing("info")));
}

#[test]
fn values_of_another_kind_are_refused() {
    let kind = |key| MetainfoError::Kind { key };
    check_refused(&single("1:1", "i16384e", &hashes(1)), kind("length"));
    check_refused(&single("i1e", "5:16384", &hashes(1)), kind("piece length"));
    check_refused(&single("i1e", "i16384e", "le"), kind("pieces"));
    check_refused(&single("i1e", "i16384e", "li97ei97ee"), kind("pieces"));
    check_refused("d4:nameli1eee", kind("name"));
    check_refused("d5:filesde4:name1:ae", kind("files"));
    check_refused(&folder(&["6:lengthi1e4:path1:a"], 1), kind("path"));
    check_refused(&folder(&["6:lengthi1e4:pathli1ee"], 1), kind("path"));
    let list = format!(
        "d5:filesli1ee4:name1:a12:piece lengthi16384e6:pieces{}e",
        hashes(1)
    );
    check_refused(&list, kind("files"));
    for info in ["i1e", "l4:spame", "1:a"] {
        assert_eq!(Metainfo::parse(&torrent(info)).err(), Some(kind("info")));
        let from_peers = Info::parse(Bytes::copy_from_slice(info.as_bytes()));
        assert_eq!(from_peers.err(), Some(MetainfoError::NotADictionary));
    }
    assert_eq!(
        Metainfo::parse(b"le").err(),
        Some(MetainfoError::NotADictionary)
    );
}

#[test]
fn what_decides_the_content_stands_there_once() {
    let twice = |key| MetainfoError::Duplicate { key };
    let good = single("i1e", "i16384e", &hashes(1));
    let both = format!("d4:info{good}4:info{good}e");
    assert_eq!(Metainfo::parse(both.as_bytes()).err(), Some(twice("info")));
    for (key, value) in [
        ("name", "1:b".to_owned()),
        ("length", "i1e".to_owned()),
        ("piece length", "i16384e".to_owned()),
        ("pieces", hashes(1)),
    ] {
        let info = format!("{}{}{value}e", good.strip_suffix('e').unwrap(), text(key));
        check_refused(&info, twice(key));
    }
    check_refused("d5:filesle5:filesle4:name1:ae", twice("files"));
    check_refused(
        &folder(&["6:lengthi1e6:lengthi1e4:pathl1:ae"], 1),
        twice("length"),
    );
    check_refused(
        &folder(&["6:lengthi1e4:pathl1:ae4:pathl1:be"], 1),
        twice("path"),
    );
}

#[test]
fn piece_lengths_outside_the_limits_are_refused() {
    for length in [
        0,
        -1,
        i64::MIN,
        1,
        16_383,
        (64 << 20) + 1,
        1 << 32,
        i64::MAX,
    ] {
        let info = single("i1e", &format!("i{length}e"), &hashes(1));
        check_refused(&info, MetainfoError::PieceLength { length });
    }
    for length in [16 << 10, 20_000, 16 << 20, 64 << 20] {
        let info = check_accepted(&single("i1e", &format!("i{length}e"), &hashes(1)));
        assert_eq!(info.geometry().piece_length(), length);
    }
}

#[test]
fn pieces_are_whole_hashes() {
    for length in [1, 19, 21, 39] {
        let info = single("i1e", "i16384e", &text(&"a".repeat(length)));
        check_refused(&info, MetainfoError::PieceHashes { length });
    }
}

#[test]
fn there_are_as_many_hashes_as_pieces() {
    for (length, found, expected) in [(16_385, 1, 2), (16_384, 2, 1), (1, 0, 1), (0, 1, 0)] {
        let info = single(&format!("i{length}e"), "i16384e", &hashes(found));
        check_refused(&info, MetainfoError::PieceCount { found, expected });
    }
}

#[test]
fn negative_and_unrepresentable_lengths_are_refused() {
    let info = single("i-1e", "i16384e", &hashes(1));
    check_refused(&info, MetainfoError::FileLength { length: -1 });
    let info = folder(&["6:lengthi-5e4:pathl1:ae", "6:lengthi5e4:pathl1:be"], 0);
    check_refused(&info, MetainfoError::FileLength { length: -5 });
    // 2^64 - 1, and 2^64 + 1, which must not be taken for 1.
    for length in ["i18446744073709551615e", "i18446744073709551617e"] {
        let info = single(length, "i16384e", &hashes(1));
        check_refused(&info, ScanError::Integer { offset: 9 }.into());
    }
}

#[test]
fn sums_that_overflow_or_pass_2_to_the_53_are_refused() {
    let file = |length: i64| format!("6:lengthi{length}e4:pathl1:ae");
    let (half, most) = (file(1 << 52), file(i64::MAX));
    check_refused(
        &folder(&[&most, &most, &file(2)], 0),
        MetainfoError::TotalLength,
    );
    check_refused(&folder(&[&half, &half], 0), MetainfoError::TotalLength);
    check_refused(
        &single("i9007199254740992e", "i16384e", ""),
        truncated_kind(),
    );
    check_refused(
        &single("i9007199254740992e", "i16384e", "0:"),
        MetainfoError::TotalLength,
    );
    let info = single("i9007199254740991e", "i67108864e", "0:");
    check_refused(
        &info,
        MetainfoError::PieceCount {
            found: 0,
            expected: 1 << 27,
        },
    );
}

/// What a dictionary with a key but no value is refused with.
fn truncated_kind() -> MetainfoError {
    let info = single("i9007199254740992e", "i16384e", "");
    ScanError::Key {
        offset: info.len() - 1,
    }
    .into()
}

#[test]
fn length_and_files_exclude_each_other() {
    let info = folder(&["6:lengthi1e4:pathl1:ae"], 1);
    let both = format!("{}6:lengthi1ee", info.strip_suffix('e').unwrap());
    check_refused(&both, MetainfoError::LengthAndFiles);
}

#[test]
fn a_folder_without_files_is_refused() {
    check_refused(&folder(&[], 0), MetainfoError::NoFiles);
}

#[test]
fn nesting_bombs_are_refused() {
    let bomb = "l".repeat(60_000) + &"e".repeat(60_000);
    let too_deep = MetainfoError::Bencode(ScanError::TooDeep { max: 100 });
    assert_eq!(
        Metainfo::parse(bomb.as_bytes()).err(),
        Some(too_deep.clone())
    );
    check_refused(&format!("d1:a{bomb}e"), too_deep.clone());
    check_refused(
        &("d1:a".repeat(60_000) + &"e".repeat(60_000)),
        too_deep.clone(),
    );
    check_refused(&"l".repeat(1_000_000), too_deep);
}

#[test]
fn string_length_bombs_are_refused() {
    let wrong = MetainfoError::from(ScanError::StringLength { offset: 7 });
    for length in [
        "4294967296",
        "18446744073709551615",
        "18446744073709551625",
        "99999999999999",
    ] {
        check_refused(&format!("d4:name{length}:abce"), wrong.clone());
    }
    check_refused(&format!("d4:name{}:abce", "9".repeat(1_000_000)), wrong);
}

#[test]
fn million_digit_integers_are_refused() {
    let info = single(
        &format!("i{}e", "1".repeat(1_000_000)),
        "i16384e",
        &hashes(1),
    );
    check_refused(&info, ScanError::Integer { offset: 9 }.into());
}

#[test]
fn millions_of_empty_containers_are_refused() {
    let info = format!("d1:al{}ee", "le".repeat(2_600_000));
    check_refused(&info, ScanError::TooManyTokens { max: 2_500_000 }.into());
    let info = format!("d1:al{}ee", "de".repeat(2_600_000));
    check_refused(&info, ScanError::TooManyTokens { max: 2_500_000 }.into());
}

#[test]
fn files_over_32_mib_are_refused() {
    let bytes = vec![b'l'; (32 << 20) + 1];
    let too_long = ScanError::TooLong {
        length: bytes.len(),
        max: 32 << 20,
    };
    assert_eq!(Metainfo::parse(&bytes).err(), Some(too_long.into()));
}

#[test]
fn data_behind_the_torrent_is_refused() {
    let info = single("i1e", "i16384e", &hashes(1));
    check_refused(
        &format!("{info}x"),
        ScanError::Trailing { offset: info.len() }.into(),
    );
}
