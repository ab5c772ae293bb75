//! What becomes of a torrent whose wishes cannot be met, and of files that nobody wants.

use super::*;
use crate::metainfo::SelectionError;
use crate::swarm::DiskErrorKind;

/// A torrent of three files in a folder, each of several pieces.
fn folder_content(folder: &Path) -> Arc<Info> {
    let names = ["a", "b", "c"];
    let length = 100_000;
    let mut files = Vec::new();
    fs::create_dir_all(folder.join("content")).unwrap();
    for (seed, name) in (0..).zip(names) {
        let mut bytes = vec![0; length];
        Random::from_seed(seed).fill(&mut bytes);
        let path = folder.join("content").join(name);
        fs::write(&path, bytes).unwrap();
        files.push((path, u64::try_from(length).unwrap()));
    }
    let piece_length = 32 << 10;
    let draft = InfoDraft {
        name: "content".to_owned(),
        piece_length,
        files: (files.iter().zip(names))
            .map(|((_, length), name)| (vec![name.to_owned()], *length))
            .collect(),
        single: false,
        ..InfoDraft::default()
    };
    let hashes = hash_pieces(&files, piece_length, 1, &|_| {}).unwrap();
    Arc::new(Info::parse(draft.encode(&hashes)).unwrap())
}

/// Adds a torrent that is fetched from a seeder with these wishes.
async fn fetch_with(
    session: &Session,
    seeder: &Session,
    info: &Info,
    output: &Path,
    files: &str,
) -> TorrentHandle {
    let options = AddOptions {
        output: output.to_owned(),
        peers: seeder.listen_addresses(),
        files: FileSelection::parse(files).unwrap(),
        sequential: true,
        ..AddOptions::default()
    };
    session.add(magnet(info), options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_wanted_files_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let info = folder_content(&source);
    let (seeder, _) = seeder(config(), &source, &info).await;
    let session = Session::start(config()).await.unwrap();
    let torrent = fetch_with(&session, &seeder, &info, &target, "1").await;
    let done = within(&torrent, |s| s.state == State::Seeding).await;
    let expected = u64::from(info.geometry().piece_length())
        * u64::try_from(info.geometry().pieces_of_file(1).len()).unwrap();
    assert_eq!(done.stats.bytes_wanted, expected);
    assert!(done.stats.downloaded <= expected, "{:?}", done.stats);
    let file = Path::new("content/b");
    assert!(fs::read(target.join(file)).unwrap() == fs::read(source.join(file)).unwrap());
    session.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_that_names_no_file_ends_the_torrent_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let info = folder_content(&source);
    let (seeder, _) = seeder(config(), &source, &info).await;
    let session = Session::start(config()).await.unwrap();
    let torrent = fetch_with(&session, &seeder, &info, &target, "7").await;
    let ended = tokio::time::timeout(PATIENCE, torrent.ended()).await;
    assert_eq!(ended.unwrap(), Ended::Failed);
    let problem = torrent.status().problem;
    let is_named = |error: &SelectionError| error.to_string().contains("no file 7");
    assert!(
        matches!(&problem, Some(Problem::Selection(error)) if is_named(error)),
        "{problem:?}"
    );
    assert!(!target.join("content/a").exists());
    session.stop().await;
    seeder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_can_never_be_made_ends_the_torrent() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let info = folder_content(&source);
    let (seeder, _) = seeder(config(), &source, &info).await;
    let session = Session::start(config()).await.unwrap();
    let never = Path::new("/proc/nope/deeper");
    let torrent = fetch_with(&session, &seeder, &info, never, "0-2").await;
    let ended = tokio::time::timeout(PATIENCE, torrent.ended()).await;
    assert_eq!(ended.unwrap(), Ended::Failed);
    let problem = torrent.status().problem;
    assert!(
        matches!(&problem, Some(Problem::Disk(error)) if error.kind == DiskErrorKind::Unusable),
        "{problem:?}"
    );
    session.stop().await;
    seeder.stop().await;
}

/// Asks the DHT for peers of a torrent until the answer is as it should be.
async fn search_until(dht: &DhtHandle, info: &Info, is_right: impl Fn(&[SocketAddr]) -> bool) {
    let searched = tokio::time::timeout(PATIENCE, async {
        loop {
            let (mut found, mut answered) = (Vec::new(), 0);
            let mut lookup = dht.find_peers(info.info_hash()).await;
            while let Some(event) = lookup.next().await {
                match event {
                    crate::dht::Event::PeersFound { peers, .. } => found.extend(peers),
                    crate::dht::Event::LookupDone { report, .. } => answered = report.answered,
                    _ => {}
                }
            }
            if answered > 0 && is_right(&found) {
                return;
            }
        }
    });
    searched.await.expect("the answer never became right");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_that_was_stopped_is_named_no_longer_by_our_own_node() {
    let folder = tempfile::tempdir().unwrap();
    let info = content(folder.path(), "file", 100_000);
    // Nobody else can store the announce, and the asker may ask as often as it likes.
    let with_dht = || {
        let mut config = config();
        config.dht = true;
        config.node.throttle = None;
        config
    };
    let (session, torrent) = seeder(with_dht(), folder.path(), &info).await;
    let address = session.listen_addresses()[0];
    let mut asking = with_dht();
    asking.bootstrap = vec![address.to_string()];
    asking.node.read_only = true;
    let asker = Session::start(asking).await.unwrap();
    let dht = asker.dht().unwrap();
    search_until(dht, &info, |peers| peers == [address]).await;
    torrent.stop().await;
    search_until(dht, &info, <[_]>::is_empty).await;
    asker.stop().await;
    session.stop().await;
}
