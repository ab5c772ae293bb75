//! Files that change under a seeder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::content::{BLOCK, Content};
use crate::lab::{Lab, PORT, address, get};
use crate::leecher::{Answer, Leecher};
use crate::program::Program;
use crate::seeder::{Conduct, Ledger, Seeder};

/// Host of the seeder.
const SEEDER: u8 = 10;

/// Bytes in a piece.
const PIECE: usize = 64 << 10;

/// A piece near the end of the file, which the damage hits.
const LATE: u32 = 60;

/// Something to seed.
fn content() -> Content {
    Content::file(3, 64 * PIECE, PIECE)
}

/// A seeder of the content, and the path of its file.
fn seed(lab: &Lab, content: &Content) -> (Program, PathBuf) {
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let data_text = data.to_str().unwrap();
    let arguments = [
        "seed",
        &torrent,
        "--data",
        data_text,
        "--json",
        "--bootstrap",
        "none",
    ];
    let mut seeder = lab.trackless(SEEDER, &arguments);
    seeder.wait_for_event("seeding");
    (seeder, data.join(&content.name))
}

fn leecher(content: &Content) -> Leecher<'_> {
    Leecher::new(content, address(20), (address(SEEDER), PORT).into())
}

/// Bytes that are not the content's, of the same length.
fn other_bytes(content: &Content) -> Vec<u8> {
    Content::file(4, content.bytes.len(), PIECE).bytes
}

/// Damages the file of a seeder in a way that is seen before or while it is read: nothing wrong may
/// be served at all. Then mends it.
#[track_caller]
fn check_nothing_bad_is_served(damage: fn(&Path, &Content), mend: fn(&Path, &Content)) {
    let Some(lab) = Lab::open() else { return };
    let content = content();
    let (mut seeder, file) = seed(&lab, &content);
    let mut leecher = leecher(&content);
    leecher.fetch_until(LATE, 0, Answer::Right);
    damage(&file, &content);
    let before = leecher.fetch_until_refused(LATE, 0);
    assert!(!before.contains(&Answer::Wrong), "{before:?}");
    // Not a moment only: it goes on being refused.
    for _ in 0..5 {
        let answer = leecher.fetch(LATE, 0, Duration::from_secs(1));
        assert!(
            matches!(answer, Answer::Nothing | Answer::Closed),
            "{answer:?}"
        );
    }
    mend(&file, &content);
    let before = leecher.fetch_until(LATE, 0, Answer::Right);
    assert!(!before.contains(&Answer::Wrong), "{before:?}");
    leecher.fetch_until(1, 0, Answer::Right);
    assert!(seeder.is_running(), "{}", seeder.tail());
}

/// Writes the content again, under the same inode if there is one.
fn write_again(path: &Path, content: &Content) {
    fs::write(path, &content.bytes).unwrap();
}

#[test]
fn a_file_that_is_cut_under_a_seeder_is_never_padded_and_served_again_once_it_is_whole() {
    check_nothing_bad_is_served(
        |path, _| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(u64::try_from(40 * PIECE).unwrap()).unwrap();
        },
        write_again,
    );
}

#[test]
fn a_file_that_is_deleted_under_a_seeder_is_not_served_until_it_is_back() {
    check_nothing_bad_is_served(|path, _| fs::remove_file(path).unwrap(), write_again);
}

#[test]
fn a_file_that_is_replaced_under_a_seeder_is_not_served_until_it_is_back() {
    check_nothing_bad_is_served(
        |path, content| {
            fs::rename(path, path.with_extension("kept")).unwrap();
            let other = path.with_extension("other");
            fs::write(&other, other_bytes(content)).unwrap();
            fs::rename(other, path).unwrap();
        },
        |path, _| fs::rename(path.with_extension("kept"), path).unwrap(),
    );
}

#[test]
fn a_folder_that_is_gone_under_a_seeder_is_an_error_that_ends_when_it_is_back() {
    check_nothing_bad_is_served(
        |path, _| {
            let folder = path.parent().unwrap();
            fs::rename(folder, folder.with_extension("away")).unwrap();
        },
        |path, _| {
            let folder = path.parent().unwrap();
            fs::rename(folder.with_extension("away"), folder).unwrap();
        },
    );
}

/// Damages what a download has written in its middle; it completes all the same, with the right content.
#[track_caller]
fn check_download_survives(seed: u64, damage: fn(&Path)) {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(seed, 16 << 20, PIECE));
    let ledger = Arc::<Ledger>::default();
    let source = Seeder::start(&content, Conduct::limited(address(1), 4 << 20), &ledger);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let (output, peer) = (lab.folder("output"), source.address.to_string());
    let mut getter = lab.trackless(SEEDER, &get(&torrent, &peer, &output));
    getter.wait_for_bytes(6 << 20);
    damage(&output);
    source.lift_limit();
    getter.wait_done();
    content.check(&output);
    let again = ledger.bytes() - (16 << 20);
    eprintln!("{again} bytes fetched again");
}

#[test]
fn a_download_whose_file_is_cut_completes() {
    check_download_survives(62, |output| {
        let entry = fs::read_dir(output).unwrap().flatten().next().unwrap();
        let file = fs::OpenOptions::new().write(true).open(entry.path());
        file.unwrap().set_len(1 << 20).unwrap();
    });
}

#[test]
fn a_download_whose_file_is_deleted_completes() {
    check_download_survives(63, |output| {
        let entry = fs::read_dir(output).unwrap().flatten().next().unwrap();
        fs::remove_file(entry.path()).unwrap();
    });
}

#[test]
fn a_download_whose_folder_is_deleted_completes() {
    check_download_survives(64, |output| fs::remove_dir_all(output).unwrap());
}

#[test]
fn a_piece_that_is_overwritten_under_a_seeder_is_found_out_and_the_others_are_served() {
    let Some(lab) = Lab::open() else { return };
    let content = content();
    let (mut seeder, file) = seed(&lab, &content);
    let mut leecher = leecher(&content);
    leecher.fetch_until(LATE, 0, Answer::Right);
    // The same inode, the same length: only the time tells.
    let mut bytes = content.bytes.clone();
    let start = usize::try_from(LATE).unwrap() * PIECE;
    bytes[start..start + BLOCK].fill(0x55);
    fs::write(&file, bytes).unwrap();
    let before = leecher.fetch_until_refused(LATE, 0);
    eprintln!("{} bad blocks before it was seen", before.len());
    leecher.fetch_until(1, 0, Answer::Right);
    for _ in 0..5 {
        let answer = leecher.fetch(LATE, 0, Duration::from_secs(1));
        assert!(
            matches!(answer, Answer::Nothing | Answer::Closed),
            "{answer:?}"
        );
    }
    write_again(&file, &content);
    let before = leecher.fetch_until(LATE, 0, Answer::Right);
    assert!(!before.contains(&Answer::Wrong), "{before:?}");
    assert!(seeder.is_running(), "{}", seeder.tail());
}
