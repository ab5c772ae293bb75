//! A wall clock that jumps by weeks, and a machine that sleeps.
//!
//! The wall clock of one program is moved by a library that is loaded before all others; the clock of the
//! machine is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use crate::content::Content;
use crate::lab::{Lab, PORT, address, get, skip};
use crate::program::Program;
use crate::seeder::{Conduct, Ledger, Seeder};
use crate::stranger::Stranger;

/// Hosts of the scripted seeder, of the node, and of the download.
const SEEDER: u8 = 1;
/// See [`SEEDER`].
const NODE: u8 = 2;
/// See [`SEEDER`].
const GETTER: u8 = 10;

/// A day in seconds.
const DAY: i64 = 86_400;

/// A `clock_gettime` that adds what stands in a file to the wall clock.
const LIBRARY: &str = r#"
use std::ffi::{c_int, c_long};
#[repr(C)]
pub struct Timespec { seconds: i64, nanoseconds: i64 }
unsafe extern "C" { fn syscall(number: c_long, ...) -> c_long; }
#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(not(target_arch = "x86_64"))]
const CLOCK_GETTIME: c_long = 113;
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let result = unsafe { syscall(CLOCK_GETTIME, clock, time) };
    if result == 0 && clock == 0 {
        let jump = std::env::var_os("WALL_CLOCK_JUMP").and_then(|path| std::fs::read_to_string(path).ok());
        let jump: i64 = jump.and_then(|text| text.parse().ok()).unwrap_or(0);
        unsafe { (*time).seconds += jump };
    }
    result as c_int
}
"#;

/// The wall clock of the programs started with it.
struct WallClock {
    arguments: [String; 3],
    jump: PathBuf,
}

impl WallClock {
    /// One that is right; `None` where it cannot be moved: then the reason was printed.
    fn right(lab: &Lab) -> Option<Self> {
        let folder = lab.folder("clock");
        let (source, library) = (folder.join("clock.rs"), folder.join("clock.so"));
        fs::write(&source, LIBRARY).unwrap();
        let built = Command::new("rustc")
            .args(["--edition=2024", "--crate-type=cdylib", "-o"])
            .args([&library, &source])
            .output();
        if !built.as_ref().is_ok_and(|built| built.status.success()) {
            eprintln!("{built:?}");
            skip("rustc, to build a library");
            return None;
        }
        let clock = Self {
            arguments: [
                "env".to_owned(),
                format!("LD_PRELOAD={}", library.display()),
                format!("WALL_CLOCK_JUMP={}", folder.join("jump").display()),
            ],
            jump: folder.join("jump"),
        };
        clock.jump(0);
        Some(clock)
    }

    /// Sets it apart from the right time by so many seconds.
    fn jump(&self, seconds: i64) {
        // A reader sees the old number or the new one.
        let new = self.jump.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, &self.jump).unwrap();
    }

    /// What starts a program with it.
    fn by(&self) -> [&str; 3] {
        self.arguments.each_ref().map(String::as_str)
    }

    /// The time at which a program with this clock says that it makes a torrent.
    fn time_of_creation(&self, lab: &Lab, name: &str) -> i64 {
        let folder = lab.folder("created");
        let (content, torrent) = (folder.join("content"), folder.join(name));
        fs::write(&content, b"content").unwrap();
        let paths = [&content, &torrent].map(|path| path.to_str().unwrap().to_owned());
        let create = ["create", &paths[0], "-o", &paths[1]];
        assert_eq!(
            lab.start(&self.by(), &create).wait(Duration::from_secs(60)),
            Some(0)
        );
        let bytes = fs::read(&torrent).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let rest = text.split("13:creation datei").nth(1).unwrap();
        rest.split('e').next().unwrap().parse().unwrap()
    }
}

/// A download from a slow seeder.
fn arguments(lab: &Lab, content: &Content, seeder: &Seeder, output: &Path) -> Vec<String> {
    let torrent = content.write_torrent(&lab.folder("torrents"));
    let peer = seeder.address.to_string();
    get(&torrent, &peer, output).map(str::to_owned).to_vec()
}

/// A node of another program, and a stranger that has a token from before a jump.
#[test]
fn tokens_and_stored_peers_outlive_jumps_of_the_wall_clock() {
    let Some(lab) = Lab::open() else { return };
    let Some(clock) = WallClock::right(&lab) else {
        return;
    };
    let now = clock.time_of_creation(&lab, "now");
    clock.jump(40 * DAY);
    let then = clock.time_of_creation(&lab, "then");
    assert!((then - now - 40 * DAY).abs() < 600, "{now}, {then}");
    clock.jump(0);

    let node = ["node", "--json", "--bootstrap", "none"];
    let mut node = lab.trackless_under(&clock.by(), NODE, &node);
    node.wait_for_event("listening");
    let to = (address(NODE), PORT).into();
    let mut stranger = Stranger::at(address(50));
    assert!(stranger.announce(to, &[1; 20], 6_881));
    let (token, _) = stranger.peers(to, &[2; 20]).unwrap();
    for (port, days) in (7_001..).zip([40, -80, 0]) {
        clock.jump(days * DAY);
        assert!(stranger.announce_with(to, &[2; 20], port, &token), "{days}");
        let (_, peers) = stranger.peers(to, &[1; 20]).unwrap();
        assert_eq!(peers, [(address(50), 6_881).into()], "{days} days");
        let (_, peers) = stranger.peers(to, &[2; 20]).unwrap();
        assert!(peers.contains(&(address(50), port).into()), "{days} days");
    }
    let busy = node.processor_time();
    std::thread::sleep(Duration::from_secs(3));
    let busy = node.processor_time() - busy;
    assert!(
        busy < Duration::from_millis(500),
        "a busy loop: {busy:?} in 3 s"
    );
}

#[test]
fn a_download_goes_on_through_jumps_of_the_wall_clock_and_keeps_what_it_has() {
    let Some(lab) = Lab::open() else { return };
    let Some(clock) = WallClock::right(&lab) else {
        return;
    };
    let content = Arc::new(Content::file(96, 16 << 20, 64 << 10));
    let ledger = Arc::<Ledger>::default();
    let conduct = Conduct::limited(address(SEEDER), 2 << 20);
    let seeder = Seeder::start(&content, conduct, &ledger);
    let output = lab.folder("output");
    let arguments = arguments(&lab, &content, &seeder, &output);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = || lab.trackless_under(&clock.by(), GETTER, &arguments);
    let mut getter = start();
    getter.wait_for_bytes(1 << 20);
    for days in [40, -80, 0, 20] {
        clock.jump(days * DAY);
        let done = getter.number("bytes_done");
        getter.wait_for_bytes(done + (1 << 20));
    }
    getter.signal(Signal::TERM);
    assert_eq!(
        getter.wait(Duration::from_secs(10)),
        Some(130),
        "{}",
        getter.tail()
    );
    let verified = getter.number("bytes_done");
    clock.jump(-60 * DAY);
    let mut getter = start();
    seeder.lift_limit();
    getter.wait_done();
    content.check(&output);
    let again = ledger.bytes().saturating_sub(16 << 20);
    eprintln!("{verified} bytes were verified, {again} fetched again");
    assert!(again <= 4 << 20, "{again}");
}

/// Lets a program sleep.
fn sleep(program: &Program, time: Duration) {
    program.signal(Signal::STOP);
    std::thread::sleep(time);
    program.signal(Signal::CONT);
}

#[test]
fn a_download_and_a_node_go_on_after_a_sleep() {
    let Some(lab) = Lab::open() else { return };
    let content = Arc::new(Content::file(97, 16 << 20, 64 << 10));
    let conduct = Conduct::limited(address(SEEDER), 4 << 20);
    let ledger = Arc::<Ledger>::default();
    let seeder = Seeder::start(&content, conduct, &ledger);
    let mut node = lab.trackless(NODE, &["node", "--json", "--bootstrap", "none"]);
    node.wait_for_event("listening");
    let to = (address(NODE), PORT).into();
    let mut stranger = Stranger::at(address(50));
    let (token, _) = stranger.peers(to, &[2; 20]).unwrap();
    let output = lab.folder("output");
    let arguments = arguments(&lab, &content, &seeder, &output);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut getter = lab.trackless(GETTER, &arguments);
    getter.wait_for_bytes(2 << 20);
    // Longer than most of their timers.
    sleep(&getter, Duration::from_secs(12));
    sleep(&node, Duration::from_secs(3));
    assert!(stranger.announce_with(to, &[2; 20], 7_001, &token));
    getter.wait_done();
    content.check(&output);
    let twice = ledger.bytes().saturating_sub(16 << 20);
    assert!(twice <= 2 << 20, "{twice} bytes fetched twice");
    assert!(node.is_running(), "{}", node.tail());
}
