//! Whole sessions on loopback.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::*;
use crate::disk::hash::hash_pieces;
use crate::metainfo::build::InfoDraft;
use crate::swarm::State;

mod resuming;
mod wishes;

/// Longer than anything here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a session on a free loopback port that knows the peers it is given and no others.
fn config() -> Config {
    Config {
        dht: false,
        ..Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()])
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

/// Writes `length` bytes as `folder/name`, and makes a torrent of them.
fn content(folder: &Path, name: &str, length: usize) -> Arc<Info> {
    let mut bytes = vec![0; length];
    Random::from_seed(7).fill(&mut bytes);
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
    let length = u64::try_from(length).unwrap();
    let files = [(folder.join(name), length)];
    let draft = InfoDraft {
        name: name.to_owned(),
        piece_length: 32 << 10,
        files: vec![(Vec::new(), length)],
        single: true,
        ..InfoDraft::default()
    };
    let hashes = hash_pieces(&files, 32 << 10, 1, &|_| {}).unwrap();
    Arc::new(Info::parse(draft.encode(&hashes)).unwrap())
}

/// A session that seeds this content from this folder.
async fn seeder(config: Config, folder: &Path, info: &Arc<Info>) -> (Session, TorrentHandle) {
    let session = Session::start(config).await.unwrap();
    let options = AddOptions {
        output: folder.to_owned(),
        ..AddOptions::default()
    };
    let torrent = session
        .add(Source::Info(Arc::clone(info)), options)
        .await
        .unwrap();
    within(&torrent, |s| s.state == State::Seeding).await;
    (session, torrent)
}

/// A magnet link without anything but the info hash.
fn magnet(info: &Info) -> Source {
    Source::Magnet(Magnet::new(info.info_hash()))
}

#[test]
fn a_port_is_announced_only_if_all_addresses_have_it() {
    let port = |listen: &[&str]| {
        let listen: Vec<SocketAddr> = listen.iter().map(|a| a.parse().unwrap()).collect();
        shared_port(&listen)
    };
    assert_eq!(port(&["0.0.0.0:1", "[::]:1"]), Some(1));
    assert_eq!(port(&["0.0.0.0:1", "[::]:2"]), None);
    assert_eq!(port(&[]), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_of_which_only_the_metadata_is_wanted_ends_with_it_and_touches_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let info = content(&source, "file", 100_000);
    let (seeder, seeding) = seeder(config(), &source, &info).await;
    let session = Session::start(config()).await.unwrap();
    let target = folder.path().join("target");
    let options = || AddOptions {
        output: target.clone(),
        peers: seeder.listen_addresses(),
        metadata_only: true,
        ..AddOptions::default()
    };
    let torrent = session.add(magnet(&info), options()).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, torrent.ended())
        .await
        .unwrap();
    assert_eq!(ended, Ended::MetadataKnown);
    assert_eq!(torrent.info().unwrap().raw(), info.raw());
    assert!(!target.exists());
    // Its info hash is free again, also for one whose metadata is known from the start.
    let known = Source::Info(Arc::clone(&info));
    let torrent = session.add(known, options()).await.unwrap();
    assert_eq!(torrent.ended().await, Ended::MetadataKnown);
    assert!(!target.exists());
    assert!(seeding.status().ended.is_none());
    session.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_is_stopped_can_be_added_again() {
    let folder = tempfile::tempdir().unwrap();
    let info = content(folder.path(), "file", 100_000);
    let (session, torrent) = seeder(config(), folder.path(), &info).await;
    assert!(torrent.status().seeding_for.is_some());
    assert_eq!(torrent.stop().await, Ended::Stopped);
    assert_eq!(torrent.status().ended, Some(Ended::Stopped));
    // A second time there is nothing to end.
    assert_eq!(torrent.stop().await, Ended::Stopped);
    let again = session
        .add(magnet(&info), AddOptions::default())
        .await
        .unwrap();
    session.stop().await;
    assert_eq!(again.ended().await, Ended::Stopped);
}

/// Adds a torrent that is fetched from these sessions.
async fn fetch(
    session: &Session,
    source: Source,
    output: &Path,
    from: &[&Session],
) -> TorrentHandle {
    let options = AddOptions {
        output: output.to_owned(),
        peers: from
            .iter()
            .flat_map(|peer| peer.listen_addresses())
            .collect(),
        ..AddOptions::default()
    };
    session.add(source, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_silent_streams_do_not_keep_an_honest_peer_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let info = content(&source, "file", 100_000);
    let (seeder, _) = seeder(config(), &source, &info).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let stream = tokio::net::TcpStream::connect(seeder.listen_addresses()[0]).await;
        silent.push(stream.unwrap());
    }
    let session = Session::start(config()).await.unwrap();
    let target = folder.path().join("target");
    let torrent = fetch(&session, magnet(&info), &target, &[&seeder]).await;
    within(&torrent, |s| s.state == State::Seeding).await;
    let counters = seeder.counters();
    assert!(counters.handshakes_replaced >= 100, "{counters:?}");
    assert!(counters.routed >= 1, "{counters:?}");
    assert!(torrent.status().counters.accepted <= 1);
    session.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_low_download_limit_blocks_are_asked_for_twice_in_the_endgame_only() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let length = 400_000;
    let info = content(&source, "file", length);
    let mut seeders = Vec::new();
    for _ in 0..3 {
        seeders.push(seeder(config(), &source, &info).await.0);
    }
    let limit = 128 << 10;
    let limited = Config {
        download_limit: Some(limit),
        ..config()
    };
    let clock = Clock::start();
    let session = Session::start(limited).await.unwrap();
    let target = folder.path().join("target");
    let from: Vec<&Session> = seeders.iter().collect();
    let torrent = fetch(&session, magnet(&info), &target, &from).await;
    let done = within(&torrent, |s| s.state == State::Seeding).await;
    let took = clock.now().saturating_since(crate::time::Instant::ZERO);
    let endgame = 3 * 2 * u64::from(crate::metainfo::BLOCK_LENGTH);
    assert!(done.stats.wasted <= endgame, "{:?}", done.stats);
    let length = u64::try_from(length).unwrap();
    // However slow this machine is, that much time was needed: payload alone, less one burst.
    let needed = Duration::from_millis((length - (17 << 10)) * 1_000 / limit);
    assert!(took >= needed, "{took:?} of {needed:?}");
    // Lifting the limit is possible while everything runs.
    session.set_limits(None, None);
    session.stop().await;
    for seeder in seeders {
        seeder.stop().await;
    }
}
