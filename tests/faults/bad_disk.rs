//! A disk that cannot be read in some places (EIO).

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::content::{BLOCK, Content, to_usize};
use crate::lab::{Lab, PORT, address, run};
use crate::leecher::{Answer, Leecher};

/// Host of the seeder.
const SEEDER: u8 = 10;

/// Bytes in a piece.
const PIECE: usize = 64 << 10;

/// A piece that can be read all the time.
const EARLY: u32 = 1;

/// A piece that cannot be read for a while.
const LATE: u32 = 60;

/// Where the first block of a piece lies in the image of a disk.
fn place(image: &[u8], content: &Content, piece: u32) -> usize {
    let start = to_usize(piece) * PIECE;
    let block = &content.bytes[start..start + 1_024];
    // File systems put data at multiples of their block length, which is 1 KiB at least.
    let mut blocks = image.chunks(1_024);
    blocks.position(|found| found == block).unwrap() * 1_024
}

/// Makes the system forget what it has read of a file, which must not have been written to lately.
fn forget(path: &Path) {
    let file = fs::File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

/// Tells the device in whose file the length has changed.
fn resize(image: &Path) {
    let script = format!("losetup -c $(losetup -n -O NAME -j '{}')", image.display());
    assert!(run("sh", &["-c", &script]), "losetup is here");
}

#[test]
fn a_part_of_a_disk_that_cannot_be_read_is_not_served_and_costs_the_rest_nothing() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::file(90, 64 * PIECE, PIECE);
    let Some(disk) = lab.mount_disk("disk", 64 << 20) else {
        return;
    };
    content.write(&lab.seen(&disk));
    let file = lab.seen(&disk).join(&content.name);
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let read_only = ["mount", "-o", "remount,ro", disk.to_str().unwrap()];
    assert!(lab.run(&read_only));
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let data = disk.to_str().unwrap();
    let arguments = ["seed", &torrent, "--data", data, "--json"];
    let mut seeder = lab.trackless(SEEDER, &[&arguments[..], &["--bootstrap", "none"]].concat());
    seeder.wait_for_event("seeding");
    let mut leecher = Leecher::new(&content, address(20), (address(SEEDER), PORT).into());
    leecher.fetch_until(LATE, 0, Answer::Right);
    leecher.fetch_until(EARLY, 0, Answer::Right);

    // What lies beyond the end of the device cannot be read.
    let image = lab.image("disk");
    let whole = fs::read(&image).unwrap();
    let end = place(&whole, &content, LATE);
    assert!(
        place(&whole, &content, EARLY) + BLOCK <= end,
        "it lies before"
    );
    let length = u64::try_from(end).unwrap();
    let opened = fs::OpenOptions::new().write(true).open(&image).unwrap();
    opened.set_len(length).unwrap();
    resize(&image);
    forget(&file);
    let cannot_be_read = fs::read(&file).map(|_| ()).unwrap_err();
    assert_eq!(cannot_be_read.raw_os_error(), Some(5), "EIO");
    let before = leecher.fetch_until_refused(LATE, 0);
    assert!(!before.contains(&Answer::Wrong), "{before:?}");
    leecher.fetch_until(EARLY, 0, Answer::Right);
    for _ in 0..3 {
        let answer = leecher.fetch(LATE, 0, Duration::from_secs(1));
        assert!(
            matches!(answer, Answer::Nothing | Answer::Closed),
            "{answer:?}"
        );
    }
    let busy = seeder.processor_time();
    std::thread::sleep(Duration::from_secs(5));
    let busy = seeder.processor_time() - busy;
    assert!(
        busy < Duration::from_secs(2),
        "a busy loop: {busy:?} in 5 s"
    );
    assert!(seeder.is_running(), "{}", seeder.tail());

    fs::write(&image, &whole).unwrap();
    resize(&image);
    forget(&file);
    let before = leecher.fetch_until(LATE, 0, Answer::Right);
    assert!(!before.contains(&Answer::Wrong), "{before:?}");
    let lines = seeder.errors().len();
    assert!(lines <= 5, "{lines} lines: {}", seeder.tail());
}
