//! What programs take that have nothing to do.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use crate::content::{roomy_folder, write_noise};
use crate::lab::Lab;
use crate::process::{cpu_times, kibibytes};
use crate::table::Spread;

const NODE: u8 = 40;
const SEEDER: u8 = 41;

/// Torrents of one process.
const TORRENTS: u64 = 5_000;

/// Bytes of the one file of each.
const LENGTH: usize = 16 << 10;

/// How long a program is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Measures and prints the table.
pub(crate) fn print(lab: &Lab, rounds: u64, percent: u64) {
    let mut starts = Vec::new();
    let mut resident = 0;
    for _ in 0..rounds {
        let started = Instant::now();
        let mut node = lab.trackless(NODE, &["node", "--bootstrap", "none"]);
        node.wait_for("its address", |line| line.contains(&lab.address(NODE)));
        starts.push(started.elapsed().as_secs_f64() * 1_000.0);
        std::thread::sleep(Duration::from_secs(1));
        resident = resident.max(kibibytes(node.id(), "VmHWM:"));
    }
    println!("\nIdle\n");
    println!(
        "A node listens {} ms after its start and takes {:.1} MiB at its peak.",
        Spread::of(starts),
        mebibytes(resident)
    );
    torrents(lab, (TORRENTS * percent / 100).max(1));
}

/// Seeds many torrents and looks what that takes.
fn torrents(lab: &Lab, count: u64) {
    let folder = roomy_folder((count * 32) << 10);
    let (data, torrents) = (folder.path().join("data"), folder.path().join("torrents"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&torrents).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for number in 0..count {
        let name = format!("{number:05}");
        write_noise(
            &data.join(&name),
            u64::try_from(LENGTH).unwrap(),
            &mut state,
        );
        let content = fs::read(data.join(&name)).unwrap();
        let mut torrent = format!("d4:infod6:lengthi{LENGTH}e4:name5:{name}").into_bytes();
        torrent.extend_from_slice(format!("12:piece lengthi{LENGTH}e6:pieces20:").as_bytes());
        torrent.extend_from_slice(&Sha1::digest(content));
        torrent.extend_from_slice(b"ee");
        fs::write(torrents.join(name + ".torrent"), torrent).unwrap();
    }
    eprintln!("idle: seeding {count} torrents");
    let arguments = [
        "seed",
        torrents.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--bootstrap",
        "none",
    ];
    let started = Instant::now();
    let mut seeder = lab.trackless(SEEDER, &arguments);
    for _ in 0..count {
        seeder.wait_for("a torrent", |line| line.contains("magnet:"));
    }
    let loaded = started.elapsed().as_secs_f64();
    let cpu = || cpu_times(seeder.id()).map_or(0.0, |(user, system)| user + system);
    let loading = cpu();
    std::thread::sleep(WATCHED);
    let idling = (cpu() - loading) / WATCHED.as_secs_f64() * 100.0;
    let mut line = format!("{count} torrents were there after {loaded:.1} s ");
    let now = mebibytes(kibibytes(seeder.id(), "VmRSS:"));
    let peak = mebibytes(kibibytes(seeder.id(), "VmHWM:"));
    let _ = write!(
        line,
        "and {loading:.1} CPU s; they take {now:.0} MiB (peak {peak:.0}) and {idling:.1} % of a core."
    );
    println!("{line}");
}

fn mebibytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap()) / 1_024.0
}
