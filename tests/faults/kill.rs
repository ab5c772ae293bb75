//! `kill -9`, again and again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::content::{BLOCK, Content, Noise, to_usize};
use crate::lab::{Lab, address, setting, socket};
use crate::program::Program;
use crate::seeder::{Conduct, Ledger, Seeder};

/// What was verified so long before a kill must not be fetched again.
const KEPT_AFTER: Duration = Duration::from_secs(5);

/// The host of the program that is killed; the seeders have the ones below.
const VICTIM: u8 = 10;

/// Seeders of the download.
const SEEDERS: u8 = 3;

/// Longest time between two kills, in milliseconds; a kill comes at a random moment of it.
const LIFE_MAX: u64 = 4_000;

/// A seed for the moments of the kills: a run that failed is repeated with the seed it printed.
fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("TRACKLESS_FAULTS_SEED", clock.subsec_nanos().into());
    eprintln!("TRACKLESS_FAULTS_SEED={seed}");
    seed
}

/// Files that were found unreadable and moved aside.
fn moved_aside(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![state.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                pending.push(path);
            } else if text.contains(".bad") {
                found.push(text);
            }
        }
    }
    found
}

/// A download that is killed and started again.
struct Victim<'a> {
    lab: &'a Lab,
    ledger: &'a Ledger,
    arguments: Vec<String>,
    /// Verified bytes by time, over all its lives.
    verified: Vec<(Instant, u64)>,
    /// Blocks that were served before the last kill.
    served: BTreeSet<(u32, u32)>,
    /// Entries of the ledger that were looked at.
    looked_at: usize,
    /// Bytes that the promise covers at the last kill.
    kept: u64,
}

impl Victim<'_> {
    fn start(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.lab.trackless(VICTIM, &arguments)
    }

    /// Takes note of a life that ended at `end`; gives the bytes fetched again in it.
    fn bury(&mut self, life: &Program, end: Instant) -> u64 {
        let events = life.events();
        // Whoever knows the bytes that are there does not fetch them: the first number after the check
        // tells what was kept.
        let first = events.iter().find(|(_, event)| is_transfer(event));
        if let Some(found) = first.and_then(|(_, event)| event["bytes_done"].as_u64()) {
            let served = bytes_of(&self.served);
            eprintln!(
                "  {found} bytes verified within its first second, {served} served before it"
            );
            assert!(
                found >= self.kept,
                "{found} bytes were there after a kill, {} were verified {KEPT_AFTER:?} before it",
                self.kept
            );
        }
        let new_numbers = events
            .iter()
            .filter(|(_, event)| is_transfer(event))
            .filter_map(|(at, event)| Some((*at, event["bytes_done"].as_u64()?)));
        self.verified.extend(new_numbers);

        let ledger = self.ledger.served();
        let (mut again, mut twice) = (0, 0);
        let mut came = BTreeSet::new();
        for block in &ledger[self.looked_at..] {
            let key = (block.piece, block.offset);
            if !came.insert(key) {
                twice += u64::from(block.length);
            } else if self.served.contains(&key) {
                again += u64::from(block.length);
            }
        }
        eprintln!("  {twice} bytes were served twice within this life");
        let unsure = bytes_of(&self.served).saturating_sub(self.kept);
        assert!(
            again <= unsure,
            "{again} bytes fetched again, at most {unsure} were not verified in time"
        );
        self.looked_at = ledger.len();
        self.served.extend(came);
        self.kept = self
            .verified
            .iter()
            .filter(|(at, _)| *at + KEPT_AFTER <= end)
            .map(|&(_, bytes)| bytes)
            .max()
            .unwrap_or(0);
        again
    }
}

/// Whether an event tells how much is verified. While the disk is looked at nobody knows.
fn is_transfer(event: &Value) -> bool {
    event["event"] == "progress" && event["state"] == "downloading"
}

/// All blocks are full ones here.
fn bytes_of(blocks: &BTreeSet<(u32, u32)>) -> u64 {
    u64::try_from(blocks.len() * BLOCK).unwrap()
}

#[test]
fn a_download_that_is_killed_again_and_again_loses_only_its_last_seconds() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise::new(seed());
    let kills = setting("TRACKLESS_KILLS", 8);
    let content = Arc::new(Content::file(1, 64 << 20, 256 << 10));
    let total = u64::try_from(content.bytes.len()).unwrap();
    // About two thirds are there after the last kill.
    let rate = total * 2_000 / 3 / (kills * LIFE_MAX / 2) / u64::from(SEEDERS);
    let ledger = Arc::new(Ledger::default());
    let seeders: Vec<Seeder> = (1..=SEEDERS)
        .map(|host| Seeder::start(&content, Conduct::limited(address(host), rate), &ledger))
        .collect();
    let output = lab.folder("output");
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let mut arguments = vec!["get".to_owned(), torrent, "--json".to_owned()];
    arguments.extend(["-o".to_owned(), output.to_str().unwrap().to_owned()]);
    arguments.extend(["--bootstrap".to_owned(), "none".to_owned()]);
    for seeder in &seeders {
        arguments.extend(["--peer".to_owned(), seeder.address.to_string()]);
    }
    let mut victim = Victim {
        lab: &lab,
        ledger: &ledger,
        arguments,
        verified: Vec::new(),
        served: BTreeSet::new(),
        looked_at: 0,
        kept: 0,
    };
    for number in 1..=kills {
        let mut life = victim.start();
        std::thread::sleep(Duration::from_millis(noise.below(LIFE_MAX)));
        assert!(life.is_running(), "it ended by itself:\n{}", life.tail());
        if number % 4 == 0 {
            // It is saving its state when the kill comes.
            life.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(noise.below(10)));
        }
        life.kill();
        let again = victim.bury(&life, Instant::now());
        eprintln!(
            "kill {number}: {again} bytes fetched again since the one before, {} of {} served were \
             verified {} s before it",
            victim.kept,
            bytes_of(&victim.served),
            KEPT_AFTER.as_secs()
        );
        assert_eq!(moved_aside(&lab.state_folder(VICTIM)), [""; 0]);
    }
    let mut life = victim.start();
    seeders.iter().for_each(Seeder::lift_limit);
    life.wait_done();
    let again = victim.bury(&life, Instant::now());
    eprintln!("last life: {again} bytes fetched again");
    eprintln!(
        "{} bytes served for {total} bytes of content",
        ledger.bytes()
    );
    content.check(&output);
    let pieces: BTreeSet<u32> = ledger.served().iter().map(|block| block.piece).collect();
    assert_eq!(pieces.len(), content.pieces());
    assert_eq!(to_usize(*pieces.last().unwrap()) + 1, content.pieces());
}

#[test]
fn a_state_file_is_the_old_or_the_new_one_wherever_a_kill_strikes() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise::new(seed());
    // Whoever starts again and again asks more often than it should.
    let other = ["node", "--json", "--bootstrap", "none", "--no-throttle"];
    let mut other = lab.trackless(1, &other);
    other.wait_for_event("listening");
    let entry = socket(1);
    let arguments = [
        "node",
        "--json",
        "--bootstrap",
        &entry,
        "--stats-interval",
        "20ms",
    ];
    let file = lab.state_folder(VICTIM).join("dht.state");
    let mut id = None;
    for round in 0..setting("TRACKLESS_KILLS", 16) {
        let mut node = lab.trackless(VICTIM, &arguments);
        let found = node.wait_for_event("listening")["node_id"].clone();
        assert_eq!(
            *id.get_or_insert_with(|| found.clone()),
            found,
            "round {round}"
        );
        // Without a contact there is nothing to save.
        node.wait_for("a contact", |event| event["contacts"].as_u64() > Some(0));
        node.signal(Signal::TERM);
        if round == 0 {
            assert_eq!(node.wait(Duration::from_secs(10)), Some(130));
        } else {
            std::thread::sleep(Duration::from_micros(noise.below(8_000)));
            node.kill();
        }
        let bytes = fs::read(&file).unwrap();
        assert!(crate::bencode::is_whole(&bytes), "round {round}: {bytes:?}");
        assert_eq!(moved_aside(&lab.state_folder(VICTIM)), [""; 0]);
    }
}
