//! Seeding with the built command: what it prints, what it keeps, what it refuses.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use trackless::id::InfoHash;

use crate::command::{
    PATIENCE, Running, run, start_seeder, start_seeder_with, stderr, stdout, text,
};

#[test]
fn the_magnet_link_is_the_first_line_and_the_torrent_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("a file.bin");
    fs::write(&file, vec![3; 100_000]).unwrap();
    let (path, state) = (file.to_str().unwrap(), home.path().join("own state"));
    let out = home.path().join("out.torrent");
    let arguments = [
        "seed",
        path,
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        "none",
        "--state-dir",
        state.to_str().unwrap(),
        "--torrent-out",
        out.to_str().unwrap(),
    ];
    let mut seeder = Running::start(home.path(), &arguments);
    let magnet = seeder.line();
    assert!(magnet.starts_with("magnet:?xt=urn:btih:"), "{magnet}");
    let ended = seeder.interrupt();
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("a file.bin: seeded for "), "{said}");
    assert!(said.contains("0 B sent"), "{said}");

    let shown = run(home.path(), &["show", "--json", out.to_str().unwrap()]);
    let shown = stdout(&shown);
    assert_eq!(text(shown.trim(), "name"), "a file.bin");
    let hash = text(shown.trim(), "info_hash");
    assert!(magnet.contains(&hash));
    let kept = state.join("torrents").join(format!("{hash}.torrent"));
    assert_eq!(fs::read(kept).unwrap(), fs::read(&out).unwrap());

    // The same command again, as after a restart of the machine.
    let mut seeder = Running::start(home.path(), &arguments);
    assert_eq!(seeder.line(), magnet);
    assert_eq!(seeder.interrupt().status.code(), Some(130));
    // What is not of this torrent is not touched.
    fs::write(&out, "somebody's work").unwrap();
    let refused = run(home.path(), &arguments);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.contains("--torrent-out") && !said.contains("--force"),
        "{said}"
    );
    assert_eq!(fs::read(&out).unwrap(), b"somebody's work");
}

#[test]
fn a_torrent_file_that_is_replaced_is_whole_or_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let (content, torrent) = (folder.join("content"), folder.join("content.torrent"));
    fs::write(&content, vec![5; 50_000]).unwrap();
    fs::write(&torrent, "old").unwrap();
    let (content, torrent) = (content.to_str().unwrap(), torrent.to_str().unwrap());
    let refused = run(home.path(), &["create", content, "-o", torrent]);
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(fs::read(torrent).unwrap(), b"old");
    let made = run(home.path(), &["create", content, "-o", torrent, "--force"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let shown = run(home.path(), &["show", torrent]);
    assert_eq!(shown.status.code(), Some(0));
    // Nothing else was left behind.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn a_torrent_is_seeded_from_the_folder_that_holds_its_content() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), vec![9; 70_000]).unwrap();
    let torrent = home.path().join("file.torrent");
    let (content, torrent) = (data.join("file"), torrent.to_str().unwrap());
    let made = run(
        home.path(),
        &["create", content.to_str().unwrap(), "-o", torrent],
    );
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));

    let data_text = data.to_str().unwrap();
    let common = ["--listen", "127.0.0.1:0", "--bootstrap", "none", "--json"];
    let arguments = [&["seed", torrent, "--data", data_text], &common[..]].concat();
    let mut seeder = Running::start(home.path(), &arguments);
    let line = seeder.line();
    assert_eq!(text(&line, "event"), "seeding");
    assert_eq!(text(&line, "name"), "file");
    seeder.line_with(&["progress"]);
    seeder.line_with(&["progress"]);
    let ended = seeder.interrupt();
    assert_eq!(ended.status.code(), Some(130));
    let printed = stdout(&ended);
    assert_eq!(text(printed.lines().last().unwrap(), "event"), "stopped");
    // Nobody can find it: whoever seeds is told so.
    let said = stderr(&ended);
    assert!(
        said.contains("--bootstrap HOST:PORT") && said.contains("--peer"),
        "{said}"
    );

    fs::write(data.join("file"), vec![8; 70_000]).unwrap();
    let ended = run(home.path(), &arguments);
    assert_eq!(ended.status.code(), Some(1));
    let failure = stdout(&ended);
    assert_eq!(text(failure.lines().last().unwrap(), "event"), "failed");
    assert!(
        failure.contains("another file lies at its place"),
        "{failure}"
    );
    assert!(failure.contains("--data DIR"), "{failure}");

    fs::remove_file(data.join("file")).unwrap();
    let ended = run(home.path(), &arguments);
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        stdout(&ended).contains("pieces are missing or wrong"),
        "{}",
        stdout(&ended)
    );

    fs::remove_dir(&data).unwrap();
    let ended = run(home.path(), &arguments);
    assert_eq!(ended.status.code(), Some(2));
    let printed = stdout(&ended);
    assert!(printed.contains("it does not exist"), "{printed}");
}

#[test]
fn a_folder_of_torrents_is_seeded_but_for_those_whose_content_is_not_there() {
    let home = tempfile::tempdir().unwrap();
    let (data, torrents) = (home.path().join("data"), home.path().join("torrents"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&torrents).unwrap();
    let arguments = [
        "seed",
        torrents.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        "none",
    ];
    let refused = run(home.path(), &arguments);
    assert_eq!(refused.status.code(), Some(2));
    let said = stderr(&refused);
    assert!(said.contains("there is no .torrent file in"), "{said}");

    let count = 25_u8;
    for number in 0..count {
        let content = data.join(format!("file {number:02}"));
        fs::write(&content, vec![number; 20_000]).unwrap();
        let out = torrents.join(format!("{number:02}.torrent"));
        let create = [
            "create",
            content.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
        ];
        let made = run(home.path(), &create);
        assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    }
    fs::write(torrents.join("notes.txt"), "not a torrent").unwrap();
    fs::remove_file(data.join("file 07")).unwrap();
    let mut seeder = Running::start(home.path(), &arguments);
    for _ in 1..count {
        let line = seeder.line();
        assert!(line.starts_with("magnet:?xt=urn:btih:"), "{line}");
        assert!(!line.contains("file%2007"), "{line}");
    }
    let ended = seeder.interrupt();
    assert_eq!(ended.status.code(), Some(130));
    let said = stderr(&ended);
    assert!(said.contains("file 07: "), "{said}");
    // Each of so many is not told about.
    assert!(!said.contains("file 08"), "{said}");
}

#[test]
fn content_that_was_seeded_before_is_not_hashed_again_unless_it_changed() {
    let home = tempfile::tempdir().unwrap();
    let content = home.path().join("content");
    fs::create_dir(&content).unwrap();
    fs::write(content.join("a"), vec![1; 100_000]).unwrap();
    let seed = || {
        let flags = ["--bootstrap", "none", "-vv"];
        let (mut seeder, magnet) = start_seeder_with(home.path(), &content, &flags);
        seeder.line_with(&["progress", "\"state\":\"seeding\""]);
        let ended = seeder.interrupt();
        (magnet, stderr(&ended).contains("known from an earlier run"))
    };
    let (magnet, known) = seed();
    assert!(!known);
    assert_eq!(seed(), (magnet.clone(), true));
    fs::write(content.join("a"), vec![2; 100_000]).unwrap();
    let (changed, known) = seed();
    assert!(changed != magnet && !known);
    // One file more is another torrent.
    fs::write(content.join("b"), "new").unwrap();
    let (more, known) = seed();
    assert!(more != changed && !known);
}

#[test]
fn a_second_process_on_one_state_directory_is_told_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "x").unwrap();
    let path = home.path().join("file");
    let arguments = [
        "seed",
        path.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--bootstrap",
        "none",
    ];
    let mut first = Running::start(home.path(), &arguments);
    first.line();
    let second = run(home.path(), &arguments);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("in use by another trackless"),
        "{}",
        stderr(&second)
    );
    assert!(stderr(&second).contains("hint: "), "{}", stderr(&second));
    assert!(
        stderr(&second).contains("--state-dir"),
        "{}",
        stderr(&second)
    );
}

/// Message ids of BEP 3.
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;

/// Connects as a stranger that has nothing; gives the first message that says what the seeder has: its id and
/// what follows.
fn first_shown(magnet: &str) -> (u8, Vec<u8>) {
    let (_, address) = magnet.split_once("x.pe=").unwrap();
    let (_, hash) = magnet.split_once("btih:").unwrap();
    let hash: InfoHash = hash[..40].parse().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let hello = [
        b"\x13BitTorrent protocol",
        &[0; 8][..],
        hash.as_bytes(),
        &[7; 20],
    ]
    .concat();
    stream.write_all(&hello).unwrap();
    stream.read_exact(&mut [0; 68]).unwrap();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut message).unwrap();
        if let Some((&id, rest)) = message.split_first()
            && [HAVE, BITFIELD].contains(&id)
        {
            return (id, rest.to_vec());
        }
    }
}

#[test]
fn a_super_seed_shows_a_stranger_single_pieces_and_gives_a_download_everything() {
    let home = tempfile::tempdir().unwrap();
    let content = home.path().join("content");
    fs::write(&content, vec![6; 1 << 20]).unwrap();
    let plain = home.path().join("plain");
    let (seeder, magnet) = start_seeder(&plain, &content, &["--no-dht"]);
    let (id, pieces) = first_shown(&magnet);
    assert_eq!((id, pieces[0]), (BITFIELD, 0xff));
    assert_eq!(seeder.interrupt().status.code(), Some(130));

    let flags = ["--no-dht", "--super-seed"];
    let (seeder, magnet) = start_seeder(&home.path().join("super"), &content, &flags);
    let (id, piece) = first_shown(&magnet);
    assert_eq!((id, piece.len()), (HAVE, 4));
    let target = home.path().join("target");
    let get = ["get", &magnet, "-o", target.to_str().unwrap()];
    let flags = ["--listen", "127.0.0.1:0", "--no-dht", "--timeout", "50s"];
    let got = run(&home.path().join("getter"), &[&get[..], &flags].concat());
    assert_eq!(got.status.code(), Some(0), "{}", stderr(&got));
    assert_eq!(fs::read(target.join("content")).unwrap(), vec![6; 1 << 20]);
    assert_eq!(seeder.interrupt().status.code(), Some(130));
}

#[test]
fn seeding_ends_by_itself_with_its_bound() {
    let home = tempfile::tempdir().unwrap();
    let content = home.path().join("content");
    fs::write(&content, vec![7; 50_000]).unwrap();
    let arguments = ["seed", content.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let flags = [
        "--bootstrap",
        "none",
        "--seed-ratio",
        "9",
        "--seed-time",
        "100ms",
    ];
    let ended = run(home.path(), &[&arguments[..], &flags].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("seeded for"), "{}", stderr(&ended));
    let ended = run(home.path(), &[&arguments[..], &flags, &["--json"]].concat());
    let printed = stdout(&ended);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "stopped");
    assert_eq!(text(last, "uploaded_total"), "0");
}
