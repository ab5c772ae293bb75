//! The disk stands still, fails, forgets.

use std::collections::VecDeque;

use super::lab::Lab;
use super::puppet::{Puppet, Stream, answer, full_bitfield};
use super::simulated_disk::{SimulatedDisk, error};
use super::{Content, config, content, content_with_pieces, seconds};
use crate::bitfield::Bitfield;
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

fn count(events: &[Event], wanted: fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| wanted(event)).count()
}

fn failures(events: &[Event]) -> usize {
    count(events, |event| matches!(event, Event::DiskFailed(_)))
}

fn recoveries(events: &[Event]) -> usize {
    count(events, |event| matches!(event, Event::DiskRecovered))
}

#[test]
fn a_disk_that_takes_nothing_is_told_once_tried_less_and_less_and_never_checked_whole() {
    let content = content(5, 2_000_000);
    let mut lab = Lab::new(5);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(200_000);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done > 3;
    assert!(lab.run_until(seconds(30), some));
    let checks = lab.hosts[leech].disk.checks;
    lab.hosts[leech].disk.failing = true;
    lab.run_for(seconds(5));
    assert_eq!(lab.hosts[leech].torrent.state(), State::Stalled);
    // Trying again too early fails as before, and nothing is told.
    lab.retry_disk(leech);
    lab.run_for(seconds(600));
    let host = &lab.hosts[leech];
    assert_eq!((failures(&host.events), recoveries(&host.events)), (1, 0));
    // Tries after 20, 40, 80, 160 and 300 seconds; each brings a few blocks before the first fails.
    let refused = host.disk.refused;
    assert!((5..=200).contains(&refused), "{refused}");
    lab.hosts[leech].disk.failing = false;
    assert!(lab.run_until(seconds(400), |lab| lab.is_complete(leech)));
    let host = &lab.hosts[leech];
    assert_eq!(host.disk.contents(), content.bytes);
    assert_eq!(host.disk.checks, checks);
    assert_eq!((failures(&host.events), recoveries(&host.events)), (1, 1));
}

#[test]
fn a_sync_that_fails_is_done_again_before_the_torrent_is_complete() {
    let content = content(8, 100_000);
    let mut lab = Lab::new(8);
    let seed = lab.seed(config(1), &content);
    let leech = lab.magnet(config(2), &content);
    lab.hosts[leech].disk.failing_syncs = true;
    lab.introduce(leech, [seed]);
    lab.run_for(seconds(30));
    assert_eq!(lab.hosts[leech].torrent.state(), State::Stalled);
    lab.hosts[leech].disk.failing_syncs = false;
    lab.retry_disk(leech);
    assert!(lab.run_until(seconds(5), |lab| lab.is_complete(leech)));
    let events = &lab.hosts[leech].events;
    assert_eq!(count(events, |e| matches!(e, Event::Completed)), 1);
}

#[test]
fn a_disk_that_cannot_be_looked_at_is_looked_at_again() {
    let content = content(9, 100_000);
    let mut disk = SimulatedDisk::holding(&content);
    disk.failing_checks = true;
    let mut puppet = Puppet::with_disk(config(200), &content, disk);
    assert_eq!(puppet.torrent.state(), State::Stalled);
    puppet.pass(seconds(25));
    assert_eq!(puppet.torrent.state(), State::Stalled);
    puppet.disk.failing_checks = false;
    puppet.pass(seconds(25));
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(failures(&puppet.events), 1);
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
    assert_eq!(puppet.torrent.state(), State::Stalled);
    assert_eq!(puppet.torrent.stats(puppet.now).pieces_done, 6);
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

fn request(content: &Content, index: u32) -> Message {
    let geometry = content.info.geometry();
    let block = geometry.block(geometry.piece(index).unwrap(), 0).unwrap();
    Message::Request {
        index,
        offset: 0,
        length: block.length,
    }
}

/// A seed and a peer that it serves.
fn serving(content: &Content) -> (Puppet, Stream) {
    let mut puppet = Puppet::seed(content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[Message::Interested]);
    puppet.pass(seconds(11));
    assert!(puppet.hear(&mut peer).contains(&Message::Unchoke));
    (puppet, peer)
}

fn blocks(heard: &[Message]) -> usize {
    let pieces = heard.iter().filter(|m| matches!(m, Message::Piece { .. }));
    pieces.count()
}

#[test]
fn a_piece_that_cannot_be_read_is_looked_at_again_and_not_served_if_it_is_bad() {
    let content = content(7, 200_000);
    let (mut puppet, mut peer) = serving(&content);
    // Another connection finds that the file is damaged.
    let other = puppet.connect(2).unwrap();
    puppet.say(&other, &[Message::Interested]);
    let piece = content.info.geometry().piece(3).unwrap();
    let block = content.info.geometry().block(piece, 0).unwrap();
    puppet.disk.damage(piece);
    let now = puppet.now;
    puppet
        .torrent
        .handle_upload_failed(now, other.id, block, error());
    puppet.drain();
    assert_eq!(puppet.torrent.state(), State::Downloading);
    assert_eq!(puppet.torrent.stats(now).pieces_done, 6);
    assert_eq!(puppet.disk.checks, 1, "only the piece is hashed");
    puppet.say(&peer, &[request(&content, 3)]);
    let heard = puppet.hear(&mut peer);
    assert_eq!(blocks(&heard), 0, "{heard:?}");
    // The peer believes that we have it; there is no message to take that back.
    assert_eq!(puppet.closed(&peer), Some(Reason::ContentLost));
    // Somebody has it still.
    let mut seed = puppet.connect(3).unwrap();
    puppet.say(&seed, &[full_bitfield(&content), Message::Unchoke]);
    let asked = puppet.hear(&mut seed);
    let answers: Vec<_> = asked.iter().filter_map(|r| answer(&content, r)).collect();
    assert_eq!(answers.len(), 2);
    puppet.say(&seed, &answers);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(puppet.disk.contents(), content.bytes);
}

#[test]
fn a_piece_that_could_not_be_read_once_is_served_again_when_it_is_right() {
    let content = content(10, 200_000);
    let (mut puppet, mut peer) = serving(&content);
    let other = puppet.connect(2).unwrap();
    let piece = content.info.geometry().piece(3).unwrap();
    let block = content.info.geometry().block(piece, 0).unwrap();
    puppet.disk.stopped = true;
    let now = puppet.now;
    puppet
        .torrent
        .handle_upload_failed(now, other.id, block, error());
    puppet.drain();
    assert_eq!(puppet.closed(&other), Some(Reason::Reset));
    // It waits with what was asked of it.
    puppet.say(&peer, &[request(&content, 3), request(&content, 4)]);
    assert_eq!(blocks(&puppet.hear(&mut peer)), 1);
    puppet.restart_disk();
    assert_eq!(blocks(&puppet.hear(&mut peer)), 1);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(puppet.closed(&peer), None);
}

#[test]
fn pieces_that_cannot_be_read_are_tried_again_less_and_less_until_they_can() {
    let content = content(10, 200_000);
    let (mut puppet, peer) = serving(&content);
    let geometry = content.info.geometry();
    puppet.disk.failing_reads = true;
    for index in [3, 4] {
        let block = geometry.block(geometry.piece(index).unwrap(), 0).unwrap();
        let now = puppet.now;
        puppet
            .torrent
            .handle_upload_failed(now, peer.id, block, error());
        puppet.drain();
    }
    let done = |puppet: &Puppet| puppet.torrent.stats(puppet.now).pieces_done;
    assert_eq!((done(&puppet), puppet.disk.refused), (5, 2));
    puppet.pass(seconds(3600));
    assert_eq!(done(&puppet), 5);
    let refused = puppet.disk.refused;
    assert!((12..=20).contains(&refused), "{refused} times in an hour");
    // The first that can be read brings the others along.
    puppet.disk.failing_reads = false;
    puppet.pass(seconds(301));
    assert_eq!(done(&puppet), 7);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    let mut other = puppet.connect(2).unwrap();
    puppet.say(&other, &[Message::Interested]);
    puppet.pass(seconds(11));
    puppet.say(&other, &[request(&content, 3), request(&content, 4)]);
    assert_eq!(blocks(&puppet.hear(&mut other)), 2);
}

#[test]
fn a_piece_that_could_not_be_read_and_came_from_others_is_tried_no_more() {
    let content = content(10, 200_000);
    let (mut puppet, peer) = serving(&content);
    let geometry = content.info.geometry();
    let block = geometry.block(geometry.piece(3).unwrap(), 0).unwrap();
    puppet.disk.failing_reads = true;
    let now = puppet.now;
    puppet
        .torrent
        .handle_upload_failed(now, peer.id, block, error());
    puppet.drain();
    puppet.disk.failing_reads = false;
    let mut seed = puppet.connect(3).unwrap();
    puppet.say(&seed, &[full_bitfield(&content), Message::Unchoke]);
    let asked = puppet.hear(&mut seed);
    let answers: Vec<_> = asked.iter().filter_map(|r| answer(&content, r)).collect();
    puppet.say(&seed, &answers);
    assert_eq!(puppet.torrent.state(), State::Seeding);
    puppet.pass(seconds(60));
    assert_eq!(puppet.torrent.stats(puppet.now).pieces_done, 7);
    assert_eq!(puppet.disk.refused, 1);
}

#[test]
fn files_are_looked_at_every_five_seconds_while_somebody_wants_something() {
    let content = content(11, 200_000);
    let (mut puppet, peer) = serving(&content);
    let before = puppet.disk.inspections;
    puppet.pass(seconds(60));
    assert_eq!(puppet.disk.inspections, before + 12);
    puppet.say(&peer, &[Message::NotInterested]);
    puppet.pass(seconds(10));
    let before = puppet.disk.inspections;
    puppet.pass(seconds(30));
    assert_eq!(puppet.disk.inspections, before);
}

#[test]
fn pieces_of_a_file_that_changed_are_not_served_until_they_were_hashed() {
    let content = content(12, 200_000);
    let (mut puppet, mut peer) = serving(&content);
    let geometry = content.info.geometry();
    puppet.disk.damage(geometry.piece(2).unwrap());
    puppet.disk.changed = vec![0, 7];
    puppet.disk.stopped = true;
    puppet.pass(seconds(6));
    puppet.restart_disk_once();
    // Now the check is under way, and nothing of the file is served.
    puppet.say(&peer, &[request(&content, 2), request(&content, 5)]);
    assert_eq!(blocks(&puppet.hear(&mut peer)), 0);
    assert_eq!(puppet.torrent.stats(puppet.now).pieces_done, 0);
    let mut knows = puppet.connect(3).unwrap();
    let mut there = Bitfield::new(geometry.piece_count());
    there.insert(2);
    puppet.say(
        &knows,
        &[Message::Bitfield(there.to_wire()), Message::Interested],
    );
    assert!(
        !puppet
            .hear(&mut knows)
            .iter()
            .any(|m| matches!(m, Message::Bitfield(_)))
    );
    puppet.restart_disk();
    assert_eq!(puppet.torrent.stats(puppet.now).pieces_done, 6);
    assert_eq!(puppet.torrent.state(), State::Downloading);
    assert_eq!(puppet.closed(&peer), Some(Reason::ContentLost));
    // Who came meanwhile learns what is there.
    let haves = puppet.hear(&mut knows);
    let haves = haves.iter().filter(|m| matches!(m, Message::Have { .. }));
    assert_eq!(haves.count(), 6);
    let lost = |e: &Event| matches!(e, Event::PiecesLost { pieces: 1 });
    assert_eq!(count(&puppet.events, lost), 1);
    // Looking again finds nothing new.
    puppet.pass(seconds(10));
    assert_eq!(count(&puppet.events, lost), 1);
}

#[test]
fn a_file_that_changed_before_it_was_synced_is_checked_and_fetched_before_the_torrent_is_complete()
{
    let content = content(12, 200_000);
    let mut puppet = Puppet::leech(&content);
    let mut peer = puppet.connect(1).unwrap();
    puppet.say(&peer, &[full_bitfield(&content), Message::Unchoke]);
    let mut answers = VecDeque::new();
    let mut step = |puppet: &mut Puppet| {
        let heard = puppet.hear(&mut peer);
        answers.extend(heard.iter().filter_map(|heard| answer(&content, heard)));
        puppet.say(&peer, answers.pop_front().as_slice());
    };
    for _ in 0..7 {
        step(&mut puppet);
    }
    let have = puppet.torrent.have().unwrap();
    let cut = have.ones().next().unwrap();
    puppet
        .disk
        .damage(content.info.geometry().piece(cut).unwrap());
    puppet.disk.changed = vec![0];
    for _ in 0..100 {
        step(&mut puppet);
    }
    assert_eq!(puppet.torrent.state(), State::Seeding);
    assert_eq!(puppet.disk.contents(), content.bytes);
    let completed = |e: &Event| matches!(e, Event::Completed);
    assert_eq!(count(&puppet.events, completed), 1);
    let lost = |e: &Event| matches!(e, Event::PiecesLost { pieces: 1 });
    assert_eq!(count(&puppet.events, lost), 1);
    // Nobody wanted anything of us, so nobody looked but the sync.
    assert_eq!(puppet.disk.inspections, 0);
}

#[test]
fn content_that_went_and_came_back_is_served_again_although_nobody_is_there() {
    let content = content(12, 200_000);
    let (mut puppet, peer) = serving(&content);
    let there = puppet.disk.bytes.clone();
    for piece in content.info.geometry().pieces() {
        puppet.disk.damage(piece);
    }
    puppet.disk.changed = vec![0];
    puppet.pass(seconds(10));
    assert_eq!(puppet.torrent.stats(puppet.now).pieces_done, 0);
    assert_eq!(puppet.closed(&peer), Some(Reason::ContentLost));
    puppet.disk.bytes = there;
    puppet.disk.changed = vec![0];
    puppet.pass(seconds(10));
    assert_eq!(puppet.torrent.state(), State::Seeding);
    // And then there is no reason to go on looking.
    let before = puppet.disk.inspections;
    puppet.pass(seconds(60));
    assert_eq!(puppet.disk.inspections, before);
}

#[test]
fn a_file_that_is_gone_under_a_download_is_checked_at_once_and_fetched_again() {
    let content = content(13, 2_000_000);
    let mut lab = Lab::new(13);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(200_000);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done > 3;
    assert!(lab.run_until(seconds(30), some));
    lab.hosts[leech].disk.lose_everything();
    assert!(lab.run_until(seconds(40), |lab| lab.is_complete(leech)));
    let host = &lab.hosts[leech];
    assert_eq!(host.disk.contents(), content.bytes);
    assert_eq!((failures(&host.events), recoveries(&host.events)), (1, 1));
    assert_eq!(
        count(&host.events, |e| matches!(e, Event::PiecesLost { .. })),
        1
    );
}

#[test]
fn a_disk_that_stands_still_for_minutes_loses_no_peer() {
    let content = content(14, 4_000_000);
    let mut lab = Lab::new(14);
    let seeds: Vec<_> = (1..=4)
        .map(|number| lab.seed(config(number), &content))
        .collect();
    let leech = lab.with_info(small(9), &content, SimulatedDisk::empty());
    lab.introduce(leech, seeds);
    let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done > 3;
    assert!(lab.run_until(seconds(30), some));
    lab.hosts[leech].disk.stopped = true;
    lab.run_for(seconds(600));
    let stats = lab.hosts[leech].torrent.stats(lab.now);
    assert_eq!(stats.peers_connected, 4, "{stats:?}");
    lab.restart_disk(leech);
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(leech)));
    // Nothing was given up meanwhile; a few blocks are the endgame's.
    let wasted = lab.hosts[leech].torrent.stats(lab.now).wasted;
    assert!(wasted < 8 << 14, "{wasted}");
}
