//! The disk stands still, fails, forgets.

use super::lab::Lab;
use super::puppet::{Puppet, answer, full_bitfield};
use super::simulated_disk::{SimulatedDisk, error};
use super::{config, content, content_with_pieces, seconds};
use crate::swarm::{Action, Config, Event, Reason, State};
use crate::wire::Message;

fn small(number: u8) -> Config {
    Config {
        disk_jobs_max: 64,
        disk_bytes_max: 256 << 10,
        ..config(number)
    }
}

#[test]
fn a_disk_that_stands_still_stops_the_peers_and_both_recover() {
    let content = content(1, 4_000_000);
    let mut lab = Lab::new(1);
    let seeds: Vec<_> = (1..=4)
        .map(|number| lab.seed(config(number), &content))
        .collect();
    let leech = lab.with_info(small(9), &content, SimulatedDisk::empty());
    lab.introduce(leech, seeds);
    let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done > 3;
    assert!(lab.run_until(seconds(30), some));
    lab.hosts[leech].disk.stopped = true;
    lab.run_for(seconds(30));
    let host = &lab.hosts[leech];
    assert!(!lab.is_complete(leech));
    assert!(host.pauses.0 > host.pauses.1, "reading goes on");
    assert!(host.disk.jobs_peak <= 64, "{} jobs", host.disk.jobs_peak);
    assert!(
        host.disk.bytes_peak <= 256 << 10,
        "{} bytes",
        host.disk.bytes_peak
    );
    let held = (host.disk.jobs, host.disk.bytes_waiting);
    lab.run_for(seconds(10));
    let host = &lab.hosts[leech];
    assert_eq!(held, (host.disk.jobs, host.disk.bytes_waiting));
    lab.restart_disk(leech);
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(leech)));
    let host = &lab.hosts[leech];
    assert_eq!(host.pauses.0, host.pauses.1);
    assert_eq!(host.disk.contents(), content.bytes);
}

#[test]
fn limits_of_the_disk_hold_even_if_the_driver_goes_on_reading() {
    let content = content_with_pieces(2, 2_000_000, 16 << 10);
    let mut puppet = Puppet::with_disk(small(9), &content, SimulatedDisk::empty());
    let mut peers: Vec<_> = (1..=8)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    for peer in &peers {
        puppet.say(peer, &[full_bitfield(&content), Message::Unchoke]);
    }
    puppet.disk.stopped = true;
    for _ in 0..40 {
        for peer in &mut peers {
            let answers: Vec<_> = puppet
                .hear(peer)
                .iter()
                .filter_map(|heard| answer(&content, heard))
                .collect();
            puppet.say(peer, &answers);
        }
    }
    assert!(
        puppet
            .actions
            .iter()
            .any(|a| matches!(a, Action::PauseReading))
    );
    assert!(
        puppet.disk.jobs_peak <= 64,
        "{} jobs",
        puppet.disk.jobs_peak
    );
    assert!(
        puppet.disk.bytes_peak <= 256 << 10,
        "{}",
        puppet.disk.bytes_peak
    );
    assert!(puppet.disk.jobs_peak > 20, "{} jobs", puppet.disk.jobs_peak);
    puppet.restart_disk();
    for _ in 0..400 {
        for peer in &mut peers {
            let answers: Vec<_> = puppet
                .hear(peer)
                .iter()
                .filter_map(|heard| answer(&content, heard))
                .collect();
            puppet.say(peer, &answers);
        }
    }
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(puppet.disk.contents(), content.bytes);
}

#[test]
fn requests_go_on_when_a_disk_that_was_nearly_full_of_work_is_done() {
    let content = content(4, 2 << 20);
    let mut puppet = Puppet::with_disk(small(9), &content, SimulatedDisk::empty());
    let mut peers: Vec<_> = (1..=3)
        .map(|number| puppet.connect(number).unwrap())
        .collect();
    for peer in &peers {
        puppet.say(peer, &[full_bitfield(&content), Message::Unchoke]);
    }
    puppet.disk.stopped = true;
    // Twelve blocks in all, four a peer: three quarters of the bytes, and nobody owes anything.
    for peer in &mut peers {
        let requests = puppet.hear(peer);
        let blocks: Vec<_> = requests
            .iter()
            .filter_map(|r| answer(&content, r))
            .collect();
        let before = puppet.disk.bytes_waiting;
        assert_eq!(blocks.len(), 4);
        // All in one segment, so that no request follows before the last of them.
        puppet.say(peer, &blocks);
        assert_eq!(puppet.disk.bytes_waiting, before + 4 * (16 << 10));
    }
    let paused = puppet
        .actions
        .iter()
        .any(|a| matches!(a, Action::PauseReading));
    for peer in &mut peers {
        puppet.hear(peer);
    }
    assert!(!paused, "that is another test");
    puppet.restart_disk();
    let owed = &mut peers[2];
    let asked = puppet.hear(owed);
    assert!(
        asked
            .iter()
            .any(|heard| matches!(heard, Message::Request { .. })),
        "the last peer is asked for nothing more: {asked:?}"
    );
}

#[test]
fn a_failing_disk_stops_the_torrent_until_it_is_tried_again() {
    let content = content(5, 2_000_000);
    let mut lab = Lab::new(5);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(200_000);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done > 3;
    assert!(lab.run_until(seconds(30), some));
    lab.hosts[leech].disk.failing = true;
    lab.run_for(seconds(10));
    assert_eq!(lab.hosts[leech].torrent.state(), State::Failed);
    let failures = |lab: &Lab| {
        let events = lab.hosts[leech].events.iter();
        events.filter(|e| matches!(e, Event::DiskFailed(_))).count()
    };
    assert_eq!(failures(&lab), 1);
    // Trying again too early is told once more, and nothing else happens.
    lab.retry_disk(leech);
    lab.run_for(seconds(10));
    assert_eq!(failures(&lab), 2);
    let checks = lab.hosts[leech].disk.checks;
    lab.hosts[leech].disk.failing = false;
    lab.retry_disk(leech);
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(leech)));
    assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
    assert_eq!(lab.hosts[leech].disk.checks, checks + 1);
}

#[test]
fn a_full_disk_does_not_end_the_uploads() {
    let content = content(6, 200_000);
    let mut disk = SimulatedDisk::holding(&content);
    disk.damage(content.info.geometry().piece(6).unwrap());
    let mut puppet = Puppet::with_disk(config(200), &content, disk);
    puppet.disk.failing = true;
    let mut seed = puppet.connect(1).unwrap();
    puppet.say(&seed, &[full_bitfield(&content), Message::Unchoke]);
    let requests = puppet.hear(&mut seed);
    let blocks: Vec<_> = requests
        .iter()
        .filter_map(|r| answer(&content, r))
        .collect();
    assert!(!blocks.is_empty());
    puppet.say(&seed, &blocks);
    assert_eq!(puppet.torrent.state(), State::Failed);
    assert!(puppet.hear(&mut seed).contains(&Message::NotInterested));
    for number in [3, 4] {
        let mut peer = puppet.connect(number).expect("seeding goes on");
        puppet.say(&peer, &[Message::Interested]);
        puppet.pass(seconds(11));
        let geometry = content.info.geometry();
        let block = geometry.block(geometry.piece(0).unwrap(), 0).unwrap();
        let request = Message::Request {
            index: 0,
            offset: 0,
            length: block.length,
        };
        puppet.say(&peer, &[request]);
        let heard = puppet.hear(&mut peer);
        assert!(
            heard.iter().any(|m| matches!(m, Message::Piece { .. })),
            "{heard:?}"
        );
    }
}

#[test]
fn nothing_known_to_be_bad_is_served() {
    let content = content(7, 200_000);
    let mut puppet = Puppet::seed(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[Message::Interested]);
    puppet.pass(seconds(11));
    assert!(puppet.hear(&mut peer).contains(&Message::Unchoke));
    // Another connection finds that the file is damaged.
    let other = puppet.connect(2).unwrap();
    puppet.say(&other, &[Message::Interested]);
    let geometry = content.info.geometry();
    let piece = geometry.piece(3).unwrap();
    let block = geometry.block(piece, 0).unwrap();
    puppet.disk.damage(piece);
    let now = puppet.now;
    puppet
        .torrent
        .handle_upload_failed(now, other.id, block, error());
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Failed);
    puppet.torrent.retry_disk(now);
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Downloading);
    assert_eq!(puppet.torrent.stats(now).pieces_done, 6);
    let request = Message::Request {
        index: 3,
        offset: 0,
        length: block.length,
    };
    puppet.say(&peer, &[request]);
    let heard = puppet.hear(&mut peer);
    assert!(
        !heard.iter().any(|m| matches!(m, Message::Piece { .. })),
        "{heard:?}"
    );
    // The peer believes that we have it; there is no message to take that back.
    assert_eq!(puppet.closed(&peer), Some(Reason::Reset));
}
