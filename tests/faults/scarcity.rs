//! Too few descriptors, and no network for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::content::Content;
use crate::lab::{Lab, PORT, address, get, run, setting, socket};
use crate::leecher::{Answer, Leecher};
use crate::seeder::{Conduct, Seeder};
use crate::wire::Wire;

/// Host of the seeder and of the download.
const SEEDER: u8 = 1;
/// See [`SEEDER`].
const GETTER: u8 = 10;

/// How long a download may take while strangers hold the descriptors. Ours: whenever it finds none for a file it
/// waits for 10 s, and longer after the second time in a row. How often it does is chance; 16 to 120 s were seen.
const SQUEEZED_PATIENCE: Duration = Duration::from_secs(240);

/// Starts a program with so few descriptors. 64 are less than the files and the connections here need.
const SCARCE: [&str; 2] = ["prlimit", "--nofile=64:64"];

#[test]
fn with_few_descriptors_a_torrent_of_many_files_is_seeded_and_fetched_all_the_same() {
    let Some(lab) = Lab::open() else { return };
    let content = Content::folder(30, 300, 40_000, 64 << 10);
    let data = lab.folder("data");
    content.write(&data);
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let data = data.to_str().unwrap();
    let seed = [
        "seed",
        &torrent,
        "--data",
        data,
        "--json",
        "--bootstrap",
        "none",
    ];
    let mut seeder = lab.trackless_under(&SCARCE, SEEDER, &seed);
    seeder.wait_for_event("seeding");
    let (output, peer) = (lab.folder("output"), socket(SEEDER));
    let arguments = get(&torrent, &peer, &output);
    let mut getter = lab.trackless_under(&SCARCE, GETTER, &arguments);
    getter.wait_done();
    content.check(&output);
    assert!(seeder.is_running());
}

#[test]
fn connections_that_take_all_descriptors_do_not_stop_a_download() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::folder(31, 300, 40_000, 64 << 10));
    let conduct = Conduct::limited(address(SEEDER), 2 << 20);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let (output, peer) = (lab.folder("output"), seeder.address.to_string());
    let arguments = get(&torrent, &peer, &output);
    let mut getter = lab.trackless_under(&SCARCE, GETTER, &arguments);
    getter.wait_for_bytes(1);
    // Each at an address of its own, so that they are not one stranger.
    let to = (address(GETTER), PORT).into();
    let idle: Vec<Wire> = (100..200)
        .filter_map(|host| Wire::dial(address(host).into(), to).ok())
        .collect();
    assert!(idle.len() > 64, "{}", idle.len());
    assert_eq!(getter.wait(SQUEEZED_PATIENCE), Some(0), "{}", getter.tail());
    content.check(&output);
    let warnings = getter.errors().len();
    assert!(warnings <= 20, "{warnings} lines:\n{}", getter.tail());
}

#[test]
fn a_download_without_network_waits_quietly_and_goes_on_within_a_minute() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(32, 24 << 20, 256 << 10));
    let conduct = Conduct::limited(address(SEEDER), 3 << 20);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let mut node = lab.trackless(2, &["node", "--json", "--bootstrap", "none"]);
    node.wait_for_event("listening");
    let (output, peer, entry) = (lab.folder("output"), seeder.address.to_string(), socket(2));
    let get = [
        "get",
        &torrent,
        "--json",
        "--bootstrap",
        &entry,
        "--peer",
        &peer,
        "-o",
    ];
    let get = [&get[..], &[output.to_str().unwrap(), "--seed"]].concat();
    let mut getter = lab.trackless(GETTER, &get);
    getter.wait_for_bytes(4 << 20);

    assert!(run("ip", &["link", "set", "lo", "down"]));
    let outage = Duration::from_secs(setting("TRACKLESS_OUTAGE", 12));
    let (down, busy) = (
        Instant::now(),
        getter.processor_time() + node.processor_time(),
    );
    getter.wait_for("a rate of 0", |event| event["down_rate"] == 0);
    std::thread::sleep(outage.saturating_sub(down.elapsed()));
    let busy = getter.processor_time() + node.processor_time() - busy;
    eprintln!("{busy:?} of processor time in {outage:?} without network");
    assert!(busy < outage / 4, "a busy loop: {busy:?}");
    assert!(run("ip", &["link", "set", "lo", "up"]));

    let up = Instant::now();
    let done = getter.number("bytes_done");
    getter.wait_for_bytes(done + 1);
    eprintln!("it goes on {:?} after the network is back", up.elapsed());
    assert!(up.elapsed() < Duration::from_secs(60));
    getter.wait_for_event("done");
    content.check(&output);
    // Strangers reach it as before.
    let mut leecher = Leecher::new(&content, address(20), (address(GETTER), PORT).into());
    leecher.fetch_until(0, 0, Answer::Right);
    assert!(node.is_running());
}
