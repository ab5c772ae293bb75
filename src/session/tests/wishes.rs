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
