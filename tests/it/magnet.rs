//! From a magnet link to files, with nothing but one DHT node to start from.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use trackless::disk::hash::{collect, hash_pieces};
use trackless::disk::part_name;
use trackless::metainfo::build::InfoDraft;
use trackless::metainfo::{Info, Magnet};
use trackless::random::Random;
use trackless::session::{AddOptions, Config, Session, Source, TorrentHandle, TorrentStatus};
use trackless::swarm::State;

use crate::command::{PATIENCE, run_quick, start_node, start_seeder, stderr, stdout, text};

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

/// What is seeded, and where a download goes; gone with the value.
struct Folders {
    _root: tempfile::TempDir,
    source: PathBuf,
    target: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| root.path().join(name));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        Self {
            _root: root,
            source,
            target,
        }
    }

    /// Makes [`FILES`] to seed.
    fn with_files(self) -> (Self, Arc<Info>) {
        write_content(&self.source, "content", &FILES);
        let info = info_of(&self.source.join("content"));
        (self, info)
    }

    /// Makes one file to seed.
    fn with_single(self) -> (Self, Arc<Info>) {
        fs::write(self.source.join("single"), vec![7; 300_000]).unwrap();
        let info = info_of(&self.source.join("single"));
        (self, info)
    }

    /// Seeds what was made.
    async fn seed(&self, session: &Session, info: &Arc<Info>) -> TorrentHandle {
        let options = AddOptions {
            output: self.source.clone(),
            ..AddOptions::default()
        };
        let source = Source::Info(Arc::clone(info));
        session.add(source, options).await.unwrap()
    }

    /// Downloads it from the DHT and these peers, by nothing but its info hash.
    async fn get(&self, session: &Session, info: &Info, peers: &[&Session]) -> TorrentHandle {
        let options = AddOptions {
            output: self.target.clone(),
            peers: peers.iter().map(|session| address_of(session)).collect(),
            ..AddOptions::default()
        };
        let source = Source::Magnet(Magnet::new(info.info_hash()));
        session.add(source, options).await.unwrap()
    }
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
    let (folders, info) = Folders::new().with_files();
    let node = session(None).await;
    let start = Some(address_of(&node));
    let seeder = session(start).await;
    let seeding = folders.seed(&seeder, &info).await;
    within(&seeding, |s| s.state == State::Seeding && s.dht.stored > 0).await;

    let downloader = session(start).await;
    let getting = folders.get(&downloader, &info, &[]).await;
    let done = within(&getting, |s| s.state == State::Seeding).await;
    assert_eq!(done.stats.pieces_done, info.geometry().piece_count());
    assert!(done.dht.peers_found >= 1);
    assert_eq!(getting.info().unwrap().raw(), info.raw());
    check_equal(&folders.source, &folders.target, "content", &FILES);

    for session in [downloader, seeder, node] {
        tokio::time::timeout(Duration::from_secs(10), session.stop())
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_given_by_the_user_is_enough_without_any_dht() {
    let (folders, info) = Folders::new().with_single();
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    folders.seed(&seeder, &info).await;
    let getting = folders.get(&downloader, &info, &[&seeder]).await;
    let done = within(&getting, |s| s.state == State::Seeding).await;
    assert!(!done.dht.enabled);
    let copy = fs::read(folders.target.join("single")).unwrap();
    assert_eq!(copy, vec![7; 300_000]);
    downloader.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_at_the_place_is_never_overwritten() {
    let (folders, info) = Folders::new().with_single();
    let place = folders.target.join("single");
    fs::write(&place, "something of the user's own").unwrap();
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    folders.seed(&seeder, &info).await;
    let getting = folders.get(&downloader, &info, &[&seeder]).await;
    within(&getting, |s| s.problem.is_some()).await;
    let kept = fs::read_to_string(place).unwrap();
    assert_eq!(kept, "something of the user's own");
    downloader.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_already_is_not_fetched_again() {
    let (folders, info) = Folders::new().with_files();
    let (source, target) = (&folders.source, &folders.target);
    fs::create_dir(target.join("content")).unwrap();
    let big = fs::read(source.join("content/big")).unwrap();
    let there = 2_000_000;
    let part = part_name("big", info.info_hash());
    fs::write(target.join("content").join(part), &big[..there]).unwrap();
    let (seeder, downloader) = (session_without_dht().await, session_without_dht().await);
    folders.seed(&seeder, &info).await;
    let getting = folders.get(&downloader, &info, &[&seeder]).await;
    let done = within(&getting, |s| s.state == State::Seeding).await;
    check_equal(source, target, "content", &FILES);
    let piece = u64::from(info.geometry().piece_length());
    let missing = info.geometry().total_length() - u64::try_from(there).unwrap();
    assert!(done.stats.downloaded <= missing + piece, "{:?}", done.stats);
    downloader.stop().await;
    seeder.stop().await;
}

/// A node, and a session that starts from it and repeats what failed at once.
async fn node_and_seeker() -> (Session, Session) {
    let node = session(None).await;
    let mut config = Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()]);
    config.bootstrap = vec![address_of(&node).to_string()];
    config.announce.dht_retry_min = Duration::from_millis(50);
    (node, Session::start(config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_announced_itself_does_not_count_itself_as_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    write_content(folder.path(), "content", &FILES);
    let info = info_of(&folder.path().join("content"));
    let (node, seeker) = node_and_seeker().await;
    let options = AddOptions {
        output: folder.path().join("target"),
        ..AddOptions::default()
    };
    let seeking = seeker.add(Source::Info(info), options).await.unwrap();
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
async fn a_torrent_without_metadata_is_searched_for_and_not_announced() {
    let (node, seeker) = node_and_seeker().await;
    let magnet = Magnet::new(trackless::id::InfoHash::new([3; 20]));
    let seeking = seeker
        .add(Source::Magnet(magnet), AddOptions::default())
        .await
        .unwrap();
    let status = within(&seeking, |s| s.dht.lookups >= 3 && s.dht.nodes_answered > 0).await;
    assert_eq!(status.dht.stored, 0, "{status:?}");
    let stored = node.dht().unwrap().status().await.stored;
    assert_eq!(stored, (0, 0));
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
    let folders = Folders::new();
    write_content(&folders.source, "content", &FILES);
    let homes = tempfile::tempdir().unwrap();
    let home = |name: &str| homes.path().join(name);
    let (_node, node) = start_node(&home("node"), "none");
    let content = folders.source.join("content");
    let bootstrap = ["--bootstrap", &node];
    let (seeder, magnet) = start_seeder(&home("seeder"), &content, &bootstrap);

    let target = folders.target.to_str().unwrap();
    let get = ["get", &magnet, "-o", target, "--timeout", "40s"];
    let got = run_quick(&home("getter"), &[&get, &bootstrap[..]].concat());
    assert_eq!(got.status.code(), Some(0), "{}", stderr(&got));
    for (file, _) in FILES {
        let path = folders.target.join("content").join(file);
        let path = path.to_str().unwrap();
        assert!(stdout(&got).lines().any(|line| line == path), "{file}");
    }
    check_equal(&folders.source, &folders.target, "content", &FILES);

    let again = [&get, &bootstrap[..], &["--json"]].concat();
    let again = run_quick(&home("getter"), &again);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let printed = stdout(&again);
    let last = printed.lines().last().unwrap();
    assert_eq!(text(last, "event"), "done");
    let bytes: usize = FILES.iter().map(|file| file.1).sum();
    assert_eq!(text(last, "bytes"), bytes.to_string());
    assert_eq!(text(last, "downloaded"), "0");
    let is_metadata = |line: &str| text(line, "event") == "metadata";
    assert!(printed.lines().any(is_metadata));

    let ended = seeder.interrupt();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
}
