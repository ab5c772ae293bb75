//! Disks that are full or may not be written to.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::content::Content;
use crate::lab::{Lab, address, eventually, get, skip, socket};
use crate::seeder::{Conduct, Ledger, Seeder};

/// Hosts of the scripted seeder, of the download, and of one that fetches from it.
const SEEDER: u8 = 1;
/// See [`SEEDER`].
const GETTER: u8 = 10;
/// See [`SEEDER`].
const OTHER: u8 = 11;

/// Whether an event says that the disk takes nothing.
fn stands_still(event: &Value) -> bool {
    event["state"] == "stalled" || event["state"] == "failed"
}

/// Fills a file system up to its end.
fn fill(lab: &Lab, file: &Path) {
    // It ends with an error, when the disk is full.
    let script = format!("cat /dev/zero > {}", file.display());
    assert!(!lab.run(&["sh", "-c", &script]));
}

/// Lines that speak of a full disk.
fn complaints(errors: &[String]) -> Vec<&String> {
    let is_about = |line: &&String| line.to_lowercase().contains("no space");
    errors.iter().filter(is_about).collect()
}

#[test]
fn a_full_disk_stops_the_writing_only_and_is_said_once_and_freed_space_is_used() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::folder(5, 16, 2 << 20, 256 << 10));
    let ledger = Arc::default();
    let seeder = Seeder::start(&content, Conduct::honest(address(SEEDER)), &ledger);
    let output = lab.mount_memory("output", "40m");
    let ballast = lab.seen(&output).join("ballast");
    fs::write(&ballast, vec![1; 28 << 20]).unwrap();
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    let arguments = ["get", &torrent, "--json", "--seed", "--bootstrap", "none"];
    let to = ["-o", output.to_str().unwrap(), "--peer", &peer];
    let mut getter = lab.trackless(GETTER, &[&arguments[..], &to].concat());
    // Whether space is set aside or not: some of the files fit.
    let full = getter.wait_for("the full disk", |event| {
        stands_still(event) && event["bytes_done"].as_u64() > Some(0)
    });
    let done = full["bytes_done"].as_u64().unwrap();

    // What is there is served meanwhile, to one that is told of nobody else.
    let copy = lab.folder("copy");
    let first = socket(GETTER);
    let to = ["-o", copy.to_str().unwrap(), "--no-pex", "--peer", &first];
    let mut other = lab.trackless(OTHER, &[&arguments[..], &to].concat());
    other.wait_for_bytes(done);
    assert!(
        !complaints(&getter.errors()).is_empty(),
        "{}",
        getter.tail()
    );

    fs::remove_file(&ballast).unwrap();
    getter.wait_for_event("done");
    other.wait_for_event("done");
    content.check(&lab.seen(&output));
    content.check(&copy);
    let errors = getter.errors();
    assert_eq!(complaints(&errors).len(), 1, "{errors:#?}");
    assert!(
        ledger.bytes() < 64 << 20,
        "{} bytes fetched",
        ledger.bytes()
    );
}

#[test]
fn a_full_state_folder_does_not_stop_a_download_and_is_said_a_few_times_at_most() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(6, 16 << 20, 256 << 10));
    let conduct = Conduct::limited(address(SEEDER), 2 << 20);
    let seeder = Seeder::start(&content, conduct, &Arc::default());
    let mut node = lab.trackless(OTHER, &["node", "--json", "--bootstrap", "none"]);
    node.wait_for_event("listening");
    let state = lab.mount_memory("state", "1m");
    let (entry, peer, listen) = (socket(OTHER), seeder.address.to_string(), socket(GETTER));
    let output = lab.folder("output");
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let arguments = [
        &["get", &torrent, "--json", "-o", output.to_str().unwrap()][..],
        &["--bootstrap", &entry, "--peer", &peer, "--listen", &listen],
        &["--state-dir", state.to_str().unwrap()],
    ]
    .concat();
    let mut getter = lab.start(&[], &arguments);
    getter.wait_for_bytes(1);
    let ballast = lab.seen(&state).join("ballast");
    fill(&lab, &ballast);
    getter.wait_for_bytes(8 << 20);
    getter.signal(Signal::TERM);
    assert_eq!(getter.wait(Duration::from_secs(10)), Some(130));

    // The next one starts with a folder that is full already.
    let mut getter = lab.start(&[], &arguments);
    getter.wait_done();
    content.check(&output);
    let errors = getter.errors();
    assert!(errors.len() <= 4, "{errors:#?}");

    fs::remove_file(ballast).unwrap();
    let mut getter = lab.start(&[], &arguments);
    getter.wait_done();
    assert_eq!(getter.errors(), [""; 0], "nothing is wrong any more");
}

#[test]
fn a_download_into_a_read_only_folder_ends_in_words_and_goes_on_when_it_may_write() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(7, 4 << 20, 256 << 10));
    let seeder = Seeder::start(&content, Conduct::honest(address(SEEDER)), &Arc::default());
    let output = lab.mount_memory("output", "40m");
    let text = output.to_str().unwrap();
    assert!(lab.run(&["mount", "-o", "remount,ro", text]));
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    let arguments = get(&torrent, &peer, &output);
    let mut getter = lab.trackless(GETTER, &arguments);
    assert_eq!(
        getter.wait(Duration::from_secs(30)),
        Some(1),
        "{}",
        getter.tail()
    );
    let failed = getter.wait_for_event("failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains(text), "the folder is named: {reason}");
    assert!(failed["hint"].as_str().unwrap().contains("-o"), "{failed}");

    assert!(lab.run(&["mount", "-o", "remount,rw", text]));
    lab.trackless(GETTER, &arguments).wait_done();
    content.check(&lab.seen(&output));
}

#[test]
fn a_file_that_may_not_be_written_any_more_costs_nothing_that_was_verified() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(8, 16 << 20, 256 << 10));
    let ledger = Arc::<Ledger>::default();
    let conduct = Conduct::limited(address(SEEDER), 4 << 20);
    let seeder = Seeder::start(&content, conduct, &ledger);
    let output = lab.mount_memory("output", "40m");
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    let arguments = get(&torrent, &peer, &output);
    let mut getter = lab.trackless(GETTER, &arguments);
    getter.wait_for_bytes(4 << 20);
    let part = fs::read_dir(lab.seen(&output))
        .unwrap()
        .flatten()
        .next()
        .unwrap();
    let part = output.join(part.file_name());
    if !lab.run(&["chattr", "+i", part.to_str().unwrap()]) {
        return skip("a file system in memory with chattr +i");
    }
    eventually("it notices", Duration::from_secs(60), || {
        !getter.is_running() || getter.progress().is_some_and(|event| stands_still(&event))
    });
    let kept = getter.number("bytes_done");
    assert!(lab.run(&["chattr", "-i", part.to_str().unwrap()]));
    if !getter.is_running() {
        assert_eq!(getter.wait(Duration::from_secs(10)), Some(1));
        let failed = getter.wait_for_event("failed");
        assert!(
            failed["reason"]
                .as_str()
                .unwrap()
                .contains(output.to_str().unwrap()),
            "{failed}"
        );
        getter = lab.trackless(GETTER, &arguments);
    }
    getter.wait_done();
    content.check(&lab.seen(&output));
    let again = ledger.bytes().saturating_sub(16 << 20);
    eprintln!("{again} bytes fetched again, {kept} were verified");
    assert!(again <= (16 << 20) - kept, "{again}");
}
