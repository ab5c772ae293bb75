//! From a magnet link to files, with nothing but one DHT node to start from.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use trackless::disk::hash::{collect, hash_pieces};
use trackless::disk::part_name;
use trackless::metainfo::build::InfoDraft;
use trackless::metainfo::{Info, Magnet};
use trackless::random::Random;
use trackless::session::{AddOptions, Config, Session, Source, TorrentHandle, TorrentStatus};
use trackless::swarm::State;

use crate::command::{PATIENCE, Running, run, start_node, stderr, stdout, text};

/// A session on a free loopback port.
async fn session(bootstrap: Option<SocketAddr>) -> Session {
    let mut config = Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
    config.bootstrap = bootstrap.iter().map(ToString::to_string).collect();
    Session::start(config).await.unwrap()
}

/// A session that knows the peers it is given and no others.
async fn session_without_dht() -> Session {
    let listen = vec![(Ipv4Addr::LOCALHOST, 0).into()];
    let config = Config {
        dht: false,
        ..Config::listening(listen)
    };
    Session::start(config).await.unwrap()
}

fn address_of(session: &Session) -> SocketAddr {
    session.listen_addresses()[0]
}

/// Waits for a state; the failure shows the last one.
#[track_caller]
fn within(
    torrent: &TorrentHandle,
    reached: impl FnMut(&TorrentStatus) -> bool,
) -> impl Future<Output = TorrentStatus> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, torrent.wait_for(reached)).await {
            Ok(Some(status)) => status,
            _ => panic!("{caller}: not reached, last state {:#?}", torrent.status()),
        }
    }
}

/// Writes files of random bytes under `root/name`.
pub(crate) fn write_content(root: &Path, name: &str, files: &[(&str, usize)]) {
    let mut random = Random::from_seed(7);
    for (file, length) in files {
        let path = root.join(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = vec![0; *length];
        random.fill(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

/// The files every test here moves: several pieces, an empty file, nested folders, several scripts.
pub(crate) const FILES: [(&str, usize); 5] = [
    ("big", 3_000_000),
    ("empty", 0),
    ("folder/inner/one byte", 1),
    ("folder/größe – 大きさ – размер", 40_000),
    ("folder/exactly one block", 16_384),
];

/// Hashes a file or folder.
fn info_of(path: &Path) -> Arc<Info> {
    let content = collect(path).unwrap();
    let piece_length = 1 << 16;
    let draft = InfoDraft {
        name: content.name.clone(),
        piece_length,
        single: content.single,
        files: content
            .files
            .iter()
            .map(|f| (f.components.clone(), f.length))
            .collect(),
        private: false,
        source: None,
    };
    let files: Vec<_> = content
        .files
        .into_iter()
        .map(|file| (file.path, file.length))
        .collect();
    let hashes = hash_pieces(&files, piece_length, 2, &|_| {}).unwrap();
    Arc::new(Info::parse(draft.encode(&hashes)).unwrap())
}

/// Whether the files are the same in both folders.
#[track_caller]
pub(crate) fn check_equal(left: &Path, right: &Path, name: &str, files: &[(&str, usize)]) {
    for (file, length) in files {
        let read = |root: &Path| fs::read(root.join(name).join(file)).unwrap();
        let bytes = read(right);
        assert_eq!(bytes.len(), *length, "{file}");
        assert!(bytes == read(left), "{file} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_magnet_link_and_one_node_are_enough_to_get_verified_files() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    write_content(&source, "content", &FILES);
    let info = info_of(&source.join("content"));

    let node = session(None).await;
    let start = Some(address_of(&node));
    let seeder = session(start).await;
    let options = AddOptions {
        output: source.clone(),
        ..AddOptions::default()
    };
    let seeding = seeder
        .add(Source::Info(Arc::clone(&info)), options)
        .await
        .unwrap();
    within(&seeding, |s| s.state == State::Seeding && s.dht.stored > 0).await;

    let downloader = session(start).await;
    let magnet = Magnet::new(info.info_hash());
    let options = AddOptions {
        output: target.clone(),
        ..AddOptions::default()
    };
    let getting = downloader
        .add(Source::Magnet(magnet), options)
        .await
        .unwrap();
    let done = within(&getting, |s| s.state == State::Seeding).await;
    assert_eq!(done.stats.pieces_done, info.geometry().piece_count());
    assert!(done.dht.peers_found >= 1);
    assert_eq!(getting.info().unwrap().raw(), info.raw());
    check_equal(&source, &target, "content", &FILES);

    for session in [downloader, seeder, node] {
        tokio::time::timeout(Duration::from_secs(10), session.stop())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_given_by_the_user_is_enough_without_any_dht() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("single"), vec![7; 300_000]).unwrap();
    let info = info_of(&source.join("single"));
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    let options = AddOptions {
        output: source.clone(),
        assume_complete: true,
        ..AddOptions::default()
    };
    seeder
        .add(Source::Info(Arc::clone(&info)), options)
        .await
        .unwrap();
    let options = AddOptions {
        output: target.clone(),
        peers: vec![address_of(&seeder)],
        ..AddOptions::default()
    };
    let magnet = Magnet::new(info.info_hash());
    let getting = downloader
        .add(Source::Magnet(magnet), options)
        .await
        .unwrap();
    let done = within(&getting, |s| s.state == State::Seeding).await;
    assert!(!done.dht.enabled);
    assert_eq!(fs::read(target.join("single")).unwrap(), vec![7; 300_000]);
    downloader.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_at_the_place_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    fs::write(source.join("single"), vec![7; 300_000]).unwrap();
    fs::write(target.join("single"), "something of the user's own").unwrap();
    let info = info_of(&source.join("single"));
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    let options = AddOptions {
        output: source.clone(),
        ..AddOptions::default()
    };
    seeder
        .add(Source::Info(Arc::clone(&info)), options)
        .await
        .unwrap();
    let options = AddOptions {
        output: target.clone(),
        peers: vec![address_of(&seeder)],
        ..AddOptions::default()
    };
    let magnet = Magnet::new(info.info_hash());
    let getting = downloader
        .add(Source::Magnet(magnet), options)
        .await
        .unwrap();
    within(&getting, |s| s.problem.is_some()).await;
    let kept = fs::read_to_string(target.join("single")).unwrap();
    assert_eq!(kept, "something of the user's own");
    downloader.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_already_is_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    write_content(&source, "content", &FILES);
    fs::create_dir_all(target.join("content")).unwrap();
    let big = fs::read(source.join("content/big")).unwrap();
    let there = 2_000_000;
    let info = info_of(&source.join("content"));
    let part = part_name("big", info.info_hash());
    fs::write(target.join("content").join(part), &big[..there]).unwrap();
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    let options = AddOptions {
        output: source.clone(),
        ..AddOptions::default()
    };
    seeder
        .add(Source::Info(Arc::clone(&info)), options)
        .await
        .unwrap();
    let options = AddOptions {
        output: target.clone(),
        peers: vec![address_of(&seeder)],
        ..AddOptions::default()
    };
    let magnet = Magnet::new(info.info_hash());
    let getting = downloader
        .add(Source::Magnet(magnet), options)
        .await
        .unwrap();
    let done = within(&getting, |s| s.state == State::Seeding).await;
    check_equal(&source, &target, "content", &FILES);
    let piece = u64::from(info.geometry().piece_length());
    let missing = info.geometry().total_length() - u64::try_from(there).unwrap();
    assert!(done.stats.downloaded <= missing + piece, "{:?}", done.stats);
    downloader.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_announced_itself_does_not_count_itself_as_a_peer() {
    let node = session(None).await;
    let mut config = Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
    config.bootstrap = vec![address_of(&node).to_string()];
    config.announce.dht_retry_min = Duration::from_millis(50);
    let seeker = Session::start(config).await.unwrap();
    let magnet = Magnet::new(trackless::id::InfoHash::new([3; 20]));
    let seeking = seeker
        .add(Source::Magnet(magnet), AddOptions::default())
        .await
        .unwrap();
    let status = within(&seeking, |s| s.dht.lookups >= 3).await;
    assert_eq!(status.dht.stored, 1, "{status:?}");
    assert_eq!(
        (status.dht.peers_found, status.stats.peers_known),
        (0, 0),
        "{status:?}"
    );
    seeker.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_is_added_once_and_two_sessions_do_not_share_a_state_directory() {
    let folder = tempfile::tempdir().unwrap();
    let config = || Config {
        state_dir: Some(folder.path().to_owned()),
        ..Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()])
    };
    let session = Session::start(config()).await.unwrap();
    let second = Session::start(config()).await.unwrap_err();
    assert!(
        second.to_string().contains("in use by another trackless"),
        "{second}"
    );
    let magnet = Magnet::new(trackless::id::InfoHash::new([3; 20]));
    let add = || session.add(Source::Magnet(magnet.clone()), AddOptions::default());
    add().await.unwrap();
    let again = add().await.unwrap_err();
    assert!(
        again.to_string().contains("already in this session"),
        "{again}"
    );
    session.stop().await;
    Session::start(config()).await.unwrap().stop().await;
}

#[test]
fn the_command_gets_what_another_seeds_through_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let home = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let (source, target) = (home("source"), home("target"));
    write_content(&source, "content", &FILES);
    let (_node, node) = start_node(&home("node"), "none");
    let content = source.join("content");
    let common = ["--listen", "127.0.0.1:0", "--bootstrap", &node];
    let mut seeder = Running::start(
        &home("seeder"),
        &[&["seed", content.to_str().unwrap(), "--json"], &common[..]].concat(),
    );
    let line = seeder.line();
    assert_eq!(text(&line, "event"), "seeding");
    let magnet = text(&line, "magnet");
    // The announce is stored before the downloader asks, so that no retry is waited for.
    seeder.line_with(&["progress", "\"stored\":1"]);

    let target_text = target.to_str().unwrap();
    let got = run(
        &home("getter"),
        &[
            &["get", &magnet, "-o", target_text, "--timeout", "40s"],
            &common[..],
        ]
        .concat(),
    );
    assert_eq!(got.status.code(), Some(0), "{}", stderr(&got));
    for (file, _) in FILES {
        let path = target.join("content").join(file);
        assert!(
            stdout(&got)
                .lines()
                .any(|line| line == path.to_str().unwrap()),
            "{file}"
        );
    }
    check_equal(&source, &target, "content", &FILES);

    let again = run(
        &home("getter"),
        &[
            &[
                "get",
                &magnet,
                "-o",
                target_text,
                "--timeout",
                "40s",
                "--json",
            ],
            &common[..],
        ]
        .concat(),
    );
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let printed = stdout(&again);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "done");
    assert_eq!(
        text(last, "bytes"),
        FILES.iter().map(|f| f.1).sum::<usize>().to_string()
    );
    assert!(
        printed
            .lines()
            .any(|line| text(line, "event") == "metadata")
    );

    let ended = seeder.interrupt();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
}
