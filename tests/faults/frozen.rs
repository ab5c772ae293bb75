//! The disk stops while everything else goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::Content;
use crate::lab::{Lab, PORT, address, setting};
use crate::leecher::Leecher;
use crate::program::Program;
use crate::seeder::{Conduct, Ledger, Seeder};
use crate::stranger::Stranger;

/// Host of the download.
const GETTER: u8 = 10;

/// Memory while the disk stands still: 16 MiB of blocks on their way to it, besides what a download takes.
const MEMORY_MAX: u64 = 64 << 20;

/// Bytes received that are not verified yet, at most: 16 MiB in unfinished writes and what was asked for
/// when they came to that.
const IN_FLIGHT_MAX: u64 = 32 << 20;

/// How long the disk stands still.
fn standstill() -> Duration {
    Duration::from_secs(setting("TRACKLESS_FROZEN", 20))
}

/// Scripted seeders at different addresses, which together send so many bytes a second.
fn seeders(content: &Arc<Content>, ledger: &Arc<Ledger>, rate: u64) -> (Vec<Seeder>, Vec<String>) {
    let seeders: Vec<Seeder> = (1..=3)
        .map(|host| Seeder::start(content, Conduct::limited(address(host), rate / 3), ledger))
        .collect();
    let arguments = seeders
        .iter()
        .flat_map(|seeder| ["--peer".to_owned(), seeder.address.to_string()])
        .collect();
    (seeders, arguments)
}

/// Looks at a process while a disk stands still: it answers, goes on telling, and does not grow.
#[track_caller]
fn watch(getter: &mut Program, ledger: &Ledger) {
    let start = Instant::now();
    let (told, mut highest) = (getter.events().len(), 0);
    let mut stranger = Stranger::at(address(50));
    while start.elapsed() < standstill() {
        assert!(getter.is_running(), "{}", getter.tail());
        highest = highest.max(getter.memory("VmRSS"));
        std::thread::sleep(Duration::from_millis(500));
    }
    let told = getter.events().len() - told;
    let in_flight = ledger.bytes() - getter.number("bytes_done");
    eprintln!(
        "frozen for {:?}: {} MiB of memory at most, {} KiB received and not verified, {told} lines told",
        standstill(),
        highest >> 20,
        in_flight >> 10
    );
    assert!(highest <= MEMORY_MAX, "{highest} bytes of memory");
    assert!(in_flight <= IN_FLIGHT_MAX, "{in_flight} bytes");
    let seconds = usize::try_from(standstill().as_secs()).unwrap();
    assert!(
        told >= seconds / 3,
        "{told} lines in {seconds} s: {}",
        getter.tail()
    );
    let answers = (0..3).any(|_| stranger.ping((address(GETTER), PORT).into()));
    assert!(answers, "its DHT node is silent");
}

#[test]
fn a_disk_that_stands_still_makes_nothing_grow_and_the_download_completes_after_it() {
    let Some(lab) = Lab::open() else { return };
    let Some(output) = lab.mount_disk("output", 256 << 20) else {
        return;
    };
    let content = Arc::new(Content::file(60, 96 << 20, 256 << 10));
    let ledger = Arc::default();
    let (seeders, peers) = seeders(&content, &ledger, 6 << 20);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let mut get = vec!["get", &torrent, "--json", "--seed", "--bootstrap", "none"];
    get.extend(["-o", output.to_str().unwrap()]);
    get.extend(peers.iter().map(String::as_str));
    let mut getter = lab.trackless(GETTER, &get);
    getter.wait_for_bytes(8 << 20);
    let piece = ledger.served()[0].piece;
    let frozen = lab.freeze(&output);
    watch(&mut getter, &ledger);
    let mut leecher = Leecher::new(&content, address(20), (address(GETTER), PORT).into());
    let answer = leecher.fetch(piece, 0, Duration::from_secs(12));
    eprintln!("a peer that asks for piece {piece}, verified long ago, meanwhile gets: {answer:?}");
    let connections: Vec<_> = seeders.iter().map(Seeder::connections).collect();
    drop(frozen);
    let done = getter.number("bytes_done");
    getter.wait_for_bytes(done + (8 << 20));
    eprintln!("connections that came and ended, by seeder: {connections:?}");
    seeders.iter().for_each(Seeder::lift_limit);
    getter.wait_for_event("done");
    getter.check_memory("download after the standstill", MEMORY_MAX);
    content.check(&lab.seen(&output));
    eprintln!("{} MiB served for 96 MiB", ledger.bytes() >> 20);
    assert!(ledger.bytes() < 128 << 20, "what came is not fetched again");
}

#[test]
fn a_state_folder_that_stands_still_does_not_hold_up_a_download() {
    let Some(lab) = Lab::open() else { return };
    let Some(state) = lab.mount_disk("state", 32 << 20) else {
        return;
    };
    let content = Arc::new(Content::file(61, 64 << 20, 256 << 10));
    let ledger = Arc::default();
    // It is not done before the end of the standstill.
    let rate = (48 << 20) / (standstill().as_secs() + 4);
    let (seeders, peers) = seeders(&content, &ledger, rate);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let output = lab.folder("output");
    let listen = crate::lab::socket(GETTER);
    let mut get = vec![
        "get",
        &torrent,
        "--json",
        "--bootstrap",
        "none",
        "--listen",
        &listen,
    ];
    get.extend([
        "-o",
        output.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    get.extend(peers.iter().map(String::as_str));
    let mut getter = lab.start(&[], &get);
    getter.wait_for_bytes(1 << 20);
    let before = getter.number("bytes_done");
    let frozen = lab.freeze(&state);
    watch(&mut getter, &ledger);
    let after = getter.number("bytes_done");
    eprintln!("{} KiB verified meanwhile", (after - before) >> 10);
    // Half of what the seeders send in that time.
    let expected = standstill().as_secs() * rate / 2;
    assert!(after - before > expected, "{before}, {after}, {expected}");
    drop(frozen);
    seeders.iter().for_each(Seeder::lift_limit);
    getter.wait_done();
    content.check(&output);
}
