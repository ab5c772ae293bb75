//! Torrents that exchange pieces.

use super::lab::{Host, Lab, Manners};
use super::simulated_disk::SimulatedDisk;
use super::{config, content, content_with_pieces, seconds};
use crate::swarm::{Config, Event, PieceOrder, State};

/// Block length in bytes, as a number of payload.
const BLOCK: u64 = 16 << 10;

#[test]
fn a_magnet_link_and_one_seed_are_enough() {
    let content = content(1, 500_000);
    let mut lab = Lab::new(1);
    let seed = lab.seed(config(1), &content);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    assert!(lab.run_until(seconds(30), |lab| lab.is_complete(leech)));
    assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
    let stats = lab.hosts[leech].torrent.stats(lab.now);
    assert_eq!(stats.bytes_done, 500_000);
    assert_eq!((stats.downloaded, stats.wasted), (500_000, 0));
    let events = &lab.hosts[leech].events;
    let completed = events.iter().filter(|e| matches!(e, Event::Completed));
    assert_eq!(completed.count(), 1);
    assert!(events.iter().any(|e| matches!(e, Event::MetadataReady(_))));
}

#[test]
fn several_seeds_each_give_something() {
    let content = content(2, 4_000_000);
    let mut lab = Lab::new(2);
    let seeds: Vec<_> = (1..=4)
        .map(|number| lab.seed(config(number), &content))
        .collect();
    for &seed in &seeds {
        lab.hosts[seed].uplink = Some(200_000);
    }
    let leech = lab.magnet(config(9), &content);
    lab.introduce(leech, seeds.clone());
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(leech)));
    assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
    for seed in seeds {
        assert!(
            lab.hosts[seed].blocks_sent > 20,
            "{}",
            lab.hosts[seed].blocks_sent
        );
    }
}

#[test]
fn twenty_leechers_and_one_seed_all_complete_and_all_give() {
    let content = content(3, 12_000_000);
    let mut lab = Lab::new(3);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(400_000);
    let leechers: Vec<_> = (2..=21)
        .map(|number| lab.magnet(config(number), &content))
        .collect();
    for &leech in &leechers {
        lab.hosts[leech].uplink = Some(400_000);
        lab.introduce(
            leech,
            leechers.iter().copied().filter(|&other| other != leech),
        );
        lab.introduce(leech, [seed]);
    }
    let all = |lab: &Lab| leechers.iter().all(|&leech| lab.is_complete(leech));
    assert!(
        lab.run_until(seconds(300), all),
        "not complete after five minutes"
    );
    let mut wasted = 0;
    for &leech in &leechers {
        let host = &lab.hosts[leech];
        assert_eq!(host.disk.contents(), content.bytes);
        assert!(host.blocks_sent > 0, "host {leech} gave nothing");
        wasted += host.torrent.stats(lab.now).wasted;
    }
    // The endgame may ask for a few blocks twice; one in twenty is far too many.
    assert!(wasted < 20 * 12_000_000 / 20, "{wasted} at {:?}", lab.now);
    assert!(
        lab.hosts[seed].blocks_sent < 20 * 733 / 2,
        "the seed carried it all"
    );
}

#[test]
fn the_blocks_of_a_peer_that_leaves_in_mid_piece_are_asked_of_others() {
    let content = content_with_pieces(6, 2_000_000, 256 << 10);
    let mut lab = Lab::new(6);
    let good = lab.seed(config(1), &content);
    let gone = lab.seed(config(2), &content);
    lab.hosts[good].uplink = Some(100_000);
    lab.hosts[gone].manners = Manners::LeavesAfter(5);
    let leech = lab.magnet(config(9), &content);
    lab.introduce(leech, [good, gone]);
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(leech)));
    assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
    assert_eq!(lab.hosts[leech].torrent.stats(lab.now).wasted, 0);
}

/// A good peer alone needs 20 seconds for the content; one more gives (nearly) nothing.
fn finishes_beside(slow: impl Fn(&mut Host), order: PieceOrder) {
    let content = content_with_pieces(7, 2_000_000, 256 << 10);
    for seed in 0..6 {
        let mut lab = Lab::new(seed);
        let good = lab.seed(config(1), &content);
        lab.hosts[good].uplink = Some(100_000);
        let bad = lab.seed(config(2), &content);
        slow(&mut lab.hosts[bad]);
        let config = Config { order, ..config(9) };
        let leech = lab.with_info(config, &content, SimulatedDisk::empty());
        lab.introduce(leech, [good, bad]);
        let done = lab.run_until(seconds(30), |lab| lab.is_complete(leech));
        let stats = lab.hosts[leech].torrent.stats(lab.now);
        assert!(done, "seed {seed}, {order:?}: {stats:?}");
        assert_eq!(lab.hosts[leech].disk.contents(), content.bytes);
        assert!(stats.wasted < 4 * BLOCK, "{}", stats.wasted);
    }
}

#[test]
fn a_peer_that_stalls_after_unchoke_does_not_hold_up_the_finish() {
    let stalls = |host: &mut Host| host.manners = Manners::StallsAfter(0);
    finishes_beside(stalls, PieceOrder::RarestFirst);
    finishes_beside(stalls, PieceOrder::Sequential);
}

#[test]
fn a_peer_that_sends_one_block_a_minute_does_not_hold_up_the_finish() {
    let trickles = |host: &mut Host| host.uplink = Some((16 << 10) / 60);
    finishes_beside(trickles, PieceOrder::RarestFirst);
    finishes_beside(trickles, PieceOrder::Sequential);
}

#[test]
fn a_peer_that_stalls_in_the_middle_does_not_hold_up_the_finish() {
    let stalls = |host: &mut Host| {
        host.manners = Manners::StallsAfter(20);
        host.uplink = Some(100_000);
    };
    finishes_beside(stalls, PieceOrder::RarestFirst);
}

#[test]
fn in_sequential_order_the_beginning_comes_first() {
    let content = content_with_pieces(14, 4_000_000, 64 << 10);
    let mut lab = Lab::new(14);
    let seeds: Vec<_> = (1..=4)
        .map(|number| lab.seed(config(number), &content))
        .collect();
    for &seed in &seeds {
        lab.hosts[seed].uplink = Some(100_000);
    }
    let config = Config {
        order: PieceOrder::Sequential,
        ..config(9)
    };
    let leech = lab.with_info(config, &content, SimulatedDisk::empty());
    lab.introduce(leech, seeds);
    for done in [10, 20, 30, 40, 50] {
        let some = |lab: &Lab| lab.hosts[leech].torrent.stats(lab.now).pieces_done >= done;
        assert!(lab.run_until(seconds(20), some));
        // Each peer is a second ahead, which is a piece and a half.
        let have = lab.hosts[leech].torrent.have().unwrap();
        let first_gap = have.zeros().next().unwrap();
        let last = have.ones().last().unwrap();
        assert!(last < first_gap + 10, "{first_gap} {last}");
    }
    assert!(lab.run_until(seconds(20), |lab| lab.is_complete(leech)));
}

#[test]
fn a_torrent_without_content_is_complete_at_once() {
    let content = content(8, 0);
    let mut lab = Lab::new(8);
    let seed = lab.seed(config(1), &content);
    let leech = lab.magnet(config(2), &content);
    lab.run_for(seconds(1));
    assert!(lab.is_complete(seed));
    lab.introduce(leech, [seed]);
    assert!(lab.run_until(seconds(5), |lab| lab.is_complete(leech)));
}

#[test]
fn two_seeds_part() {
    let content = content(9, 100_000);
    let mut lab = Lab::new(9);
    let seed = lab.seed(config(1), &content);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    assert!(lab.run_until(seconds(30), |lab| lab.is_complete(leech)));
    lab.run_for(seconds(1));
    for host in [seed, leech] {
        assert_eq!(lab.hosts[host].torrent.stats(lab.now).peers_connected, 0);
    }
}

#[test]
fn a_piece_that_one_leecher_gets_is_told_to_the_others() {
    let content = content(10, 1_000_000);
    let mut lab = Lab::new(10);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(100_000);
    let silent = Config {
        pex: false,
        ..config(2)
    };
    let first = lab.magnet(silent, &content);
    let second = lab.magnet(config(3), &content);
    lab.introduce(first, [seed]);
    lab.introduce(second, [first]);
    // The second knows the first only, so all that it gets went through it.
    assert!(lab.run_until(seconds(60), |lab| lab.is_complete(second)));
    assert_eq!(lab.hosts[second].disk.contents(), content.bytes);
    let sent = lab.hosts[seed].blocks_sent;
    assert!(sent <= 64, "{sent}");
}

#[test]
fn a_seed_serves_more_peers_than_it_has_slots_in_turn() {
    let content = content(11, 2_000_000);
    let mut lab = Lab::new(11);
    let mut few = config(1);
    few.unchoke_slots = 2;
    let seed = lab.seed(few, &content);
    lab.hosts[seed].uplink = Some(20_000);
    let leechers: Vec<_> = (2..=8)
        .map(|number| lab.magnet(config(number), &content))
        .collect();
    for &leech in &leechers {
        lab.introduce(leech, [seed]);
    }
    lab.run_for(seconds(300));
    for &leech in &leechers {
        let stats = lab.hosts[leech].torrent.stats(lab.now);
        assert!(stats.downloaded > 0, "host {leech} was never served");
    }
    let unchoked = lab.hosts[seed].torrent.stats(lab.now).peers_unchoked;
    assert!(unchoked <= 3, "{unchoked}");
}

#[test]
fn a_peer_that_comes_while_the_disk_is_checked_learns_what_is_there() {
    let content = content(12, 300_000);
    let mut lab = Lab::new(12);
    let leech = lab.magnet(config(2), &content);
    let seed = lab.seed(config(1), &content);
    let mut slow = SimulatedDisk::holding(&content);
    slow.delay = seconds(5);
    let late = lab.with_info(config(3), &content, slow);
    lab.hosts[seed].online = false;
    lab.introduce(leech, [late]);
    assert!(lab.run_until(seconds(20), |lab| lab.is_complete(leech)));
    assert_eq!(lab.hosts[late].torrent.state(), State::Seeding);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let content = content(13, 1_000_000);
    let run = |seed| {
        let mut lab = Lab::new(seed);
        let hosts: Vec<_> = (1..=5)
            .map(|number| lab.magnet(config(number), &content))
            .collect();
        let seed = lab.seed(config(9), &content);
        lab.hosts[seed].uplink = Some(300_000);
        for &host in &hosts {
            lab.introduce(host, hosts.clone());
            lab.introduce(host, [seed]);
        }
        assert!(lab.run_until(seconds(100), |lab| {
            hosts.iter().all(|&h| lab.is_complete(h))
        }));
        let digests: Vec<_> = (0..lab.hosts.len()).map(|host| lab.digest(host)).collect();
        (digests, lab.now)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}
