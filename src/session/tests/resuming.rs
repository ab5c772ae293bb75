//! Coming back with a state directory.

use super::*;

/// Settings of a session that keeps state in this folder.
fn keeping(folder: &Path) -> Config {
    Config {
        state_dir: Some(folder.join("state")),
        ..config()
    }
}

/// Flips a byte and puts the time of the last change back: only who hashes can see it.
fn damage_secretly(path: &Path) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_magnet_link_needs_neither_peers_nor_hashing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let info = content(&source, "file", 300_000);
    let (seeder, _) = seeder(config(), &source, &info).await;
    let session = Session::start(keeping(folder.path())).await.unwrap();
    let torrent = fetch(&session, magnet(&info), &target, &[&seeder]).await;
    assert_eq!(torrent.earlier(), Totals::default());
    within(&torrent, |s| s.state == State::Seeding).await;
    session.stop().await;
    seeder.stop().await;

    damage_secretly(&target.join("file"));
    let session = Session::start(keeping(folder.path())).await.unwrap();
    let torrent = fetch(&session, magnet(&info), &target, &[]).await;
    within(&torrent, |s| s.state == State::Seeding).await;
    assert_eq!(torrent.info().unwrap().raw(), info.raw());
    assert!(torrent.earlier().downloaded >= 300_000);
    torrent.stop().await;
    // Elsewhere nothing is known, and what lies there is hashed.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(target.join("file"), other.join("file")).unwrap();
    let torrent = fetch(&session, magnet(&info), &other, &[]).await;
    let status = within(&torrent, |s| s.state == State::Downloading).await;
    assert_eq!(status.stats.pieces_done, status.stats.pieces - 1);
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_between_two_runs_is_hashed() {
    let folder = tempfile::tempdir().unwrap();
    let info = content(folder.path(), "file", 300_000);
    let (session, _) = seeder(keeping(folder.path()), folder.path(), &info).await;
    session.stop().await;
    let path = folder.path().join("file");
    damage_secretly(&path);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let session = Session::start(keeping(folder.path())).await.unwrap();
    let torrent = fetch(&session, magnet(&info), folder.path(), &[]).await;
    let status = within(&torrent, |s| s.state == State::Downloading).await;
    assert_eq!(status.stats.pieces_done, status.stats.pieces - 1);
    session.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_resume_data_is_put_aside_and_the_content_hashed() {
    let folder = tempfile::tempdir().unwrap();
    let info = content(folder.path(), "file", 300_000);
    let (session, _) = seeder(keeping(folder.path()), folder.path(), &info).await;
    session.stop().await;
    let resume = folder.path().join("state/resume");
    let path = resume.join(format!("{}.resume", info.info_hash()));
    for garbage in [&b""[..], b"garbage", b"d5:cleani1ee"] {
        assert!(path.exists());
        fs::write(&path, garbage).unwrap();
        let (session, _) = seeder(keeping(folder.path()), folder.path(), &info).await;
        session.stop().await;
    }
    let kept = fs::read_dir(&resume).unwrap().count();
    assert_eq!(kept, 1 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_forgets_torrents_that_were_not_used_for_long_and_no_content() {
    let folder = tempfile::tempdir().unwrap();
    let info = content(folder.path(), "file", 100_000);
    let kept = |name: &str, ending: &str| {
        let name = format!("state/{name}/{}.{ending}", info.info_hash());
        folder.path().join(name)
    };
    let kept = [kept("resume", "resume"), kept("torrents", "torrent")];
    let age = || {
        for path in &kept {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    };
    let (session, _) = seeder(keeping(folder.path()), folder.path(), &info).await;
    session.stop().await;
    // Using it is what counts, not when it was written.
    age();
    let state = StateDir::open(&folder.path().join("state")).unwrap();
    state.mark_used(info.info_hash(), net::clock::wall_time());
    drop(state);
    let session = Session::start(keeping(folder.path())).await.unwrap();
    assert!(kept.iter().all(|path| path.is_file()));
    session.stop().await;
    age();
    let session = Session::start(keeping(folder.path())).await.unwrap();
    assert!(!kept.iter().any(|path| path.exists()));
    assert!(folder.path().join("file").is_file());
    session.stop().await;
}
