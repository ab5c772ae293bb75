//! Torrents that must be accepted, and what is read from them; `refused` has those that must not.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::id::InfoHash;

mod refused;

/// Bencode of a text.
fn text(text: &str) -> String {
    format!("{}:{text}", text.len())
}

/// An info dictionary of a single file; `length`, `piece_length` and `pieces` are bencode.
fn single(length: &str, piece_length: &str, pieces: &str) -> String {
    format!("d6:length{length}4:name5:a.txt12:piece length{piece_length}6:pieces{pieces}e")
}

/// The bencode of this many piece hashes.
fn hashes(pieces: usize) -> String {
    text(&"a".repeat(20 * pieces))
}

/// An info dictionary of several files, each given as the inside of its dictionary.
fn folder(files: &[&str], pieces: usize) -> String {
    let files: String = files.iter().map(|file| format!("d{file}e")).collect();
    format!(
        "d5:filesl{files}e4:name1:f12:piece lengthi16384e6:pieces{}e",
        hashes(pieces)
    )
}

/// A .torrent file around an info dictionary.
fn torrent(info: &str) -> Vec<u8> {
    format!("d4:info{info}e").into_bytes()
}

#[track_caller]
fn check_accepted(info: &str) -> Info {
    let metainfo = Metainfo::parse(&torrent(info)).unwrap();
    let from_peers = Info::parse(Bytes::copy_from_slice(info.as_bytes())).unwrap();
    assert_eq!(metainfo.info.info_hash(), from_peers.info_hash());
    assert_eq!(metainfo.info.files(), from_peers.files());
    from_peers
}

fn hash(digits: &str) -> InfoHash {
    digits.parse().unwrap()
}

// Hashes in these tests were computed with Python's hashlib.

#[test]
fn a_single_file_is_read() {
    let info = check_accepted(&single("i40000e", "i32768e", &hashes(2)));
    assert_eq!(
        info.info_hash(),
        hash("6f55e41e716506ff291ae9323649ebda7cbdbd77")
    );
    assert_eq!(info.info_hash_v2(), None);
    assert_eq!(
        (info.name(), info.is_private(), info.source()),
        ("a.txt", false, None)
    );
    assert_eq!(info.files().all()[0].path, ["a.txt"]);
    assert_eq!(info.geometry().total_length(), 40_000);
    let last = info.geometry().piece(1).unwrap();
    assert_eq!(info.piece_hash(last), [b'a'; 20]);
}

#[test]
fn the_info_hash_is_of_the_bytes_as_received() {
    let unsorted = format!(
        "d4:name5:a.txt6:pieces{}6:lengthi40000e7:unknownld1:xi1eee12:piece lengthi032768ee",
        hashes(2)
    );
    let info = check_accepted(&unsorted);
    assert_eq!(
        info.info_hash(),
        hash("f89e74711f46df7110b11397917f93da04d7df7a")
    );
    assert_eq!(info.raw(), unsorted.as_bytes());
    assert_eq!(info.geometry().piece_length(), 32_768);
}

#[test]
fn each_piece_has_its_own_hash() {
    let pieces: String = ["a", "b", "c"].map(|letter| letter.repeat(20)).concat();
    let info = check_accepted(&single("i49152e", "i16384e", &text(&pieces)));
    let found: Vec<_> = info
        .geometry()
        .pieces()
        .map(|piece| info.piece_hash(piece))
        .collect();
    assert_eq!(found, [[b'a'; 20], [b'b'; 20], [b'c'; 20]]);
}

#[test]
fn a_hybrid_is_treated_by_its_v1_half() {
    let info = check_accepted(&format!(
        "d9:file treed5:a.txtd0:d6:lengthi40000eeee6:lengthi40000e12:meta versioni2e\
         4:name5:a.txt12:piece lengthi32768e6:pieces{}e",
        hashes(2)
    ));
    assert_eq!(
        info.info_hash(),
        hash("d2988865c1eaac6f7a817bdfed8419aa3ca4b8a7")
    );
    let v2 = info
        .info_hash_v2()
        .map(|hash| data_encoding::HEXLOWER.encode(&hash));
    let expected = "56c58f8a7d52c771c8d7059d9280e0afd81661c1308798b55d419ba812bc2441";
    assert_eq!(v2.as_deref(), Some(expected));
    assert_eq!(info.files().len(), 1);
}

#[test]
fn six_tebibytes_in_393216_pieces_are_accepted() {
    let info = check_accepted(&single("i6597069766656e", "i16777216e", &hashes(393_216)));
    assert_eq!(info.geometry().piece_count(), 393_216);
    assert_eq!(info.geometry().total_length(), 6 << 40);
    // What is kept is the raw bytes, shared: 20 bytes a piece and a little.
    assert!(info.raw().len() < 393_216 * 20 + 200);
}

#[test]
fn a_hundred_thousand_files_are_accepted() {
    let mut files = String::new();
    for index in 0..100_000 {
        let (top, name) = (
            format!("folder {}", index % 100),
            format!("file {index}.txt"),
        );
        write!(files, "d6:lengthi1e4:pathl{}{}ee", text(&top), text(&name)).unwrap();
    }
    let pieces = 100_000_usize.div_ceil(16 << 10);
    let info = check_accepted(&format!(
        "d5:filesl{files}e4:name4:many12:piece lengthi16384e6:pieces{}e",
        hashes(pieces)
    ));
    assert_eq!(info.files().wanted().count(), 100_000);
    assert_eq!(
        info.files().all()[99_999].joined_path(),
        "many/folder 99/file 99999.txt"
    );
    // What the paths hold on the heap, besides three 24-byte strings and a 40-byte record a file.
    let held: usize = info
        .files()
        .all()
        .iter()
        .flat_map(|f| &f.path)
        .map(String::capacity)
        .sum();
    assert!(held < 100_000 * 60, "{held}");
}

#[test]
fn empty_files_are_accepted() {
    let info = check_accepted(&folder(
        &[
            "6:lengthi0e4:pathl1:ae",
            "6:lengthi5e4:pathl1:be",
            "6:lengthi0e4:pathl1:ce",
        ],
        1,
    ));
    let lengths: Vec<u64> = info.files().all().iter().map(|file| file.length).collect();
    assert_eq!(lengths, [0, 5, 0]);
}

#[test]
fn a_torrent_of_empty_files_has_no_pieces() {
    let info = check_accepted(&folder(
        &["6:lengthi0e4:pathl1:ae", "6:lengthi0e4:pathl1:be"],
        0,
    ));
    assert_eq!((info.geometry().piece_count(), info.files().len()), (0, 2));
}

#[test]
fn pad_files_count_but_are_not_written() {
    let info = check_accepted(&folder(
        &[
            "6:lengthi16380e4:pathl1:ae",
            "4:attr1:p6:lengthi4e4:pathl4:.pad1:4e",
            "4:attr2:xh6:lengthi9e4:pathl1:be",
            "4:attr1:p6:lengthi4e4:pathl4:.pad1:4e",
        ],
        2,
    ));
    let wanted: Vec<_> = info
        .files()
        .wanted()
        .map(|(i, f)| (i, f.joined_path()))
        .collect();
    assert_eq!(wanted, [(0, "f/a".to_owned()), (2, "f/b".to_owned())]);
    assert_eq!(
        (info.files().wanted_length(), info.geometry().total_length()),
        (16_389, 16_397)
    );
    assert_eq!(info.geometry().file_range(2), Some(16_384..16_393));
}

#[test]
fn symbolic_links_are_never_made() {
    let info = check_accepted(&folder(
        &[
            "4:attr1:l6:lengthi0e4:pathl1:ae12:symlink pathl2:..2:..3:etce",
            "4:attr1:l6:lengthi3e4:pathl1:be12:symlink pathl2:..e",
            "6:lengthi3e4:pathl1:a1:ce",
        ],
        1,
    ));
    // Without content it is nothing, with content it is a file; where it leads is not even kept.
    let wanted: Vec<_> = info
        .files()
        .wanted()
        .map(|(_, file)| file.joined_path())
        .collect();
    assert_eq!(wanted, ["f/b", "f/a/c"]);
}

#[test]
fn private_torrents_say_so_with_a_number() {
    let flagged = |value: &str| {
        let info = single("i1e", "i16384e", &hashes(1));
        let info = format!("{}7:private{value}e", info.strip_suffix('e').unwrap());
        check_accepted(&info).is_private()
    };
    assert!(flagged("i1e"));
    assert!(!flagged("i0e"));
    assert!(!flagged("1:1"));
}

fn parse_with(keys: &str) -> Metainfo {
    let info = single("i1e", "i16384e", &hashes(1));
    Metainfo::parse(format!("d4:info{info}{keys}e").as_bytes()).unwrap()
}

#[test]
fn tiers_of_trackers_are_preferred_to_a_single_one() {
    let (a, b, c) = (text("udp://a:1"), text("http://b/x"), text("udp://c:3"));
    let metainfo = parse_with(&format!(
        "8:announce{c}13:announce-listll{a}{b}el{c}eleli1e0:ee"
    ));
    assert_eq!(
        metainfo.trackers,
        [vec!["udp://a:1", "http://b/x"], vec!["udp://c:3"]]
    );
    let metainfo = parse_with(&format!("8:announce{c}13:announce-listle"));
    assert_eq!(metainfo.trackers, [["udp://c:3"]]);
    // Some files list the URLs without tiers.
    let metainfo = parse_with(&format!("13:announce-listl{a}{b}e"));
    assert_eq!(metainfo.trackers, [["udp://a:1"], ["http://b/x"]]);
    assert!(parse_with("8:announcele").trackers.is_empty());
}

#[test]
fn trackers_web_seeds_and_nodes_are_capped() {
    let mut keys = String::new();
    let urls: String = (0..10_000)
        .map(|index| text(&format!("http://t/{index}")))
        .collect();
    let nodes: String = (0..10_000)
        .map(|index| format!("l{}i1ee", text(&format!("n{index}"))))
        .collect();
    write!(
        keys,
        "13:announce-listll{urls}el{urls}ee5:nodesl{nodes}e8:url-listl{urls}e"
    )
    .unwrap();
    let metainfo = parse_with(&keys);
    assert_eq!(metainfo.trackers.iter().flatten().count(), TRACKERS_MAX);
    assert_eq!(metainfo.web_seeds.len(), WEB_SEEDS_MAX);
    assert_eq!(metainfo.nodes.len(), NODES_MAX);
}

#[test]
fn web_seeds_are_a_text_or_a_list() {
    let one = text("http://w/1");
    assert_eq!(
        parse_with(&format!("8:url-list{one}")).web_seeds,
        ["http://w/1"]
    );
    assert_eq!(
        parse_with(&format!("8:url-listl{one}i1e0:e")).web_seeds,
        ["http://w/1"]
    );
    assert!(parse_with("8:url-list0:").web_seeds.is_empty());
}

#[test]
fn nodes_are_pairs_of_host_and_port() {
    let good = format!(
        "l{}i6881eel{}i1eel{}i65535ee",
        text("router.example"),
        text("::1"),
        text("1.2.3.4")
    );
    let bad = "l1:ai0eel1:ai-1eel1:ai65536eel1:aeleli1ei1eel0:i1eel3:a\x1bbi1eel3:a/bi1ee1:a";
    let metainfo = parse_with(&format!("5:nodesl{good}{bad}e"));
    let expected = [("router.example", 6881), ("::1", 1), ("1.2.3.4", 65_535)];
    assert_eq!(
        metainfo.nodes,
        expected.map(|(host, port)| (host.to_owned(), port))
    );
}

#[test]
fn remarks_are_made_fit_for_a_terminal() {
    let metainfo = parse_with(&format!(
        "7:comment{}10:created by{}13:creation datei-5e",
        text("two\nlines\x1b[31m"),
        text("x\0y")
    ));
    assert_eq!(metainfo.comment.as_deref(), Some("two lines[31m"));
    assert_eq!(metainfo.created_by.as_deref(), Some("xy"));
    assert_eq!(metainfo.creation_date, Some(-5));
    let metainfo = parse_with(&format!("7:comment{}", text(&"c".repeat(1_000_000))));
    assert_eq!(
        metainfo.comment.map(|comment| comment.len()),
        Some(COMMENT_LENGTH_MAX)
    );
}

#[test]
fn what_is_wrong_beside_the_info_dictionary_does_no_harm() {
    let metainfo = parse_with("8:announcei1e13:announce-list1:x7:commentle5:nodesi1e8:url-listde");
    assert!(metainfo.trackers.is_empty() && metainfo.nodes.is_empty());
    assert!(metainfo.web_seeds.is_empty() && metainfo.comment.is_none());
}

#[test]
fn a_written_file_is_read_back_with_the_same_info_dictionary() {
    // Unsorted on purpose: encoding it again would change the hash.
    let info = format!(
        "d4:name1:a6:lengthi1e12:piece lengthi16384e6:pieces{}e",
        hashes(1)
    );
    let mut metainfo = Metainfo::new(Arc::new(check_accepted(&info)));
    let check = |metainfo: &Metainfo| {
        let bytes = metainfo.encode();
        let read = Metainfo::parse(&bytes).unwrap();
        assert_eq!(read.encode(), bytes);
        assert_eq!(read.info.raw(), metainfo.info.raw());
        assert_eq!(format!("{read:?}"), format!("{metainfo:?}"));
        let keys: Vec<Vec<u8>> = bencode::read(&bytes, &Limits::METAINFO)
            .unwrap()
            .as_dictionary()
            .unwrap()
            .iter()
            .map(|(key, _)| key.to_vec())
            .collect();
        assert!(keys.is_sorted(), "{keys:?}");
    };
    check(&metainfo);
    metainfo.trackers = vec![vec!["udp://a:1".to_owned()]];
    check(&metainfo);
    metainfo
        .trackers
        .push(vec!["udp://b:1".to_owned(), "udp://c:1".to_owned()]);
    metainfo.web_seeds = vec!["http://w/".to_owned()];
    metainfo.nodes = vec![("host".to_owned(), 1), ("::1".to_owned(), 2)];
    metainfo.comment = Some("remark".to_owned());
    metainfo.created_by = Some("program".to_owned());
    metainfo.creation_date = Some(1_700_000_000);
    check(&metainfo);
}

#[test]
fn the_magnet_link_of_a_torrent_leads_to_it() {
    let mut metainfo = parse_with("");
    metainfo.trackers = vec![vec!["udp://a:1".to_owned()], vec!["udp://a:1".to_owned()]];
    metainfo.web_seeds = vec!["http://w/".to_owned()];
    let magnet = metainfo.magnet();
    assert_eq!(magnet.info_hash, metainfo.info.info_hash());
    assert_eq!(magnet.name.as_deref(), Some("a.txt"));
    assert_eq!(magnet.trackers, ["udp://a:1"]);
    assert_eq!(magnet.web_seeds, ["http://w/"]);
    assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_torrent_or_refused(bytes: Vec<u8>) {
        let _ = Metainfo::parse(&bytes);
        let _ = Info::parse(bytes.into());
    }

    #[test]
    fn a_torrent_with_damaged_bytes_is_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let files = [
            "4:attr1:p6:lengthi4e4:pathl4:.pad1:4e",
            "6:lengthi5e4:pathl1:a1:be10:path.utf-8l1:ce",
        ];
        let mut bytes = torrent(&folder(&files, 1));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(metainfo) = Metainfo::parse(&bytes) {
            prop_assert!(Metainfo::parse(&metainfo.encode()).is_ok());
        }
    }
}
