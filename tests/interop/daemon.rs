//! Transmission as seeder and as downloader, by magnet link only, through a DHT of sixteen nodes of
//! which it is told one.
//!
//! Its timers (libtransmission 3.00 and the DHT library it brings along): after the first contact it
//! asks one of its nodes, chosen at random, every 5 to 15 s. It uses its DHT when four nodes answered
//! and nine are known: the first answer of ours names eight more, and three further nodes have to be
//! hit, which takes half a minute, and in one of a million runs three. A torrent is looked for within
//! 20 s of being added, and announced 10 to 20 s after the nodes answered. A peer that was found is
//! asked at the next of the rounds that come every 10 s.
//!
//! Below that number of nodes there is no test: it would neither search nor announce. Over IPv6 one test
//! has both directions, because most of its time is the wait for nodes.
//!
//! Tests begin in the order of their names. These take two minutes each, hardly any of it on a core, so their
//! module has a name that comes before most.

use std::time::Instant;

use crate::content::EmptyFiles;
use crate::lab::{Family, Lab};
use crate::matrix::{CASES, Original, check_fetched, report, seed};
use crate::transmission::{TRANSFER_PATIENCE, Transmission, open};

/// A lab in which there is little to do but wait for timers of its DHT.
fn open_to_wait(family: Family) -> Option<Lab> {
    open(family).map(Lab::beside_others)
}

#[test]
fn files_and_folders_are_fetched_from_transmission_through_sixteen_nodes() {
    let Some(lab) = open_to_wait(Family::V4) else {
        return;
    };
    let _dht = lab.dht(16);
    let transmission = Transmission::start(&lab);
    let originals = CASES.map(|case| Original::make(&lab, case));
    for original in &originals {
        transmission.add_seed(original);
    }
    for original in &originals {
        transmission.wait_until("it has checked the content", || transmission.has(original));
    }
    let sources = originals.each_ref().map(Original::source);
    check_fetched(&lab, &sources, TRANSFER_PATIENCE);
}

#[test]
fn transmission_fetches_files_and_folders_through_sixteen_nodes() {
    let Some(lab) = open_to_wait(Family::V4) else {
        return;
    };
    let _dht = lab.dht(16);
    let transmission = Transmission::start(&lab);
    let originals = CASES.map(|case| Original::make(&lab, case));
    // It searches once in 25 minutes, so whoever it is to find has announced before.
    let _seeder = seed(&lab, &originals.each_ref());
    let started = Instant::now();
    let folder = |number: usize| lab.folder(&format!("fetched-{number}"));
    for (number, original) in originals.iter().enumerate() {
        transmission.add_magnet(original, &folder(number));
    }
    for original in &originals {
        transmission.wait_until("it has everything", || transmission.has(original));
        report("transmission fetched", &original.path, started);
    }
    transmission.finish();
    // Versions before 4.1 never make empty files (their issue 417).
    for (number, original) in originals.iter().enumerate() {
        original.check_copy(&folder(number), EmptyFiles::Optional);
    }
}

#[test]
fn a_file_is_fetched_from_transmission_and_another_by_it_through_sixteen_nodes_over_ipv6() {
    let Some(lab) = open_to_wait(Family::V6) else {
        return;
    };
    let _dht = lab.dht(16);
    let transmission = Transmission::start(&lab);
    let [theirs, ours, ..] = CASES.map(|case| Original::make(&lab, case));
    let _seeder = seed(&lab, &[&ours]);
    transmission.add_seed(&theirs);
    let folder = lab.folder("fetched-by-transmission");
    let started = Instant::now();
    transmission.add_magnet(&ours, &folder);
    check_fetched(&lab, &[theirs.source()], TRANSFER_PATIENCE);
    transmission.wait_until("it has everything", || transmission.has(&ours));
    report("transmission fetched", &ours.path, started);
    transmission.finish();
    ours.check_copy(&folder, EmptyFiles::Optional);
}
