//! Content that is touched while it is being made available.

use std::fs;
use std::net::Ipv4Addr;

use super::*;
use crate::cli::args::LogFormat;
use crate::session::Config;

/// Longer than anything here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const QUIET: Global = Global {
    json: false,
    verbose: 0,
    quiet: 1,
    log_format: LogFormat::Text,
    config: None,
};

/// Changes a byte of a file, whose time of change gets so much later.
fn edit(path: &Path, later: Duration) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(before + later).unwrap();
}

/// Hashes content, has it changed, and gives the pieces that a session does not serve.
#[track_caller]
fn check_missing(change: impl Fn(&Path)) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![7; 100_000]).unwrap();
    let prepared = prepare(&path, None, &QUIET).unwrap();
    change(&path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config {
            dht: false,
            ..Config::listening(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        };
        let session = Session::start(config).await.unwrap();
        let source = Source::Info(Arc::clone(&prepared.metainfo.info));
        let options = prepared.add_options(Vec::new());
        let torrent = session.add(source, options).await.unwrap();
        let checked = torrent.wait_for(|status| status.state != State::Checking);
        let status = tokio::time::timeout(PATIENCE, checked).await.unwrap();
        session.stop().await;
        let stats = status.unwrap().stats;
        stats.pieces - stats.pieces_done
    })
}

#[test]
fn a_file_that_another_program_changes_after_it_was_hashed_is_not_vouched_for() {
    assert_eq!(check_missing(|path| edit(path, Duration::from_secs(1))), 1);
}

#[test]
fn content_that_was_hashed_a_moment_ago_is_not_read_again() {
    // Only who reads it could see this.
    assert_eq!(check_missing(|path| edit(path, Duration::ZERO)), 0);
}
