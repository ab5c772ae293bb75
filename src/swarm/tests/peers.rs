//! Addresses, dials, and who may be connected.

use super::lab::Lab;
use super::puppet::Puppet;
use super::simulated_disk::SimulatedDisk;
use super::{config, content, seconds};
use crate::swarm::{Config, DialError, PeerSource, Reason, State};
use crate::wire::ProtocolError;

#[test]
fn ten_thousand_addresses_are_cut_to_three_thousand() {
    let content = content(1, 100_000);
    let mut puppet = Puppet::leech(&content);
    let addresses: Vec<_> = (1..=10_000).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    let known = puppet.torrent.stats(puppet.now).peers_known;
    assert_eq!(known, 2_250);
    puppet.add_peers(PeerSource::Magnet, &addresses[5_000..]);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_known, 3_000);
    // What the user names always finds room.
    puppet.add_peers(PeerSource::User, &[Puppet::address(20_000)]);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_known, 3_000);
    let first = puppet.dials()[0];
    let now = puppet.now;
    puppet
        .torrent
        .handle_dial_failed(now, first, DialError::Refused);
    puppet.drain();
    assert_eq!(puppet.dials().last(), Some(&Puppet::address(20_000)));
}

#[test]
fn dials_stay_within_their_limit_and_nothing_wakes_meanwhile() {
    let content = content(2, 100_000);
    let mut puppet = Puppet::magnet(config(9), &content);
    let addresses: Vec<_> = (1..=100).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    assert_eq!(puppet.dials().len(), 16);
    assert!(puppet.torrent.poll_timeout().is_none());
    for (count, address) in addresses.iter().enumerate() {
        let next = puppet.dials()[count.min(puppet.dials().len() - 1)];
        assert!(addresses.contains(&next), "{address}");
        let now = puppet.now;
        puppet
            .torrent
            .handle_dial_failed(now, next, DialError::TimedOut);
        puppet.drain();
    }
    assert_eq!(puppet.dials().len(), 100);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_dialling, 0);
    puppet.pass(seconds(61));
    assert_eq!(puppet.dials().len(), 116);
}

#[test]
fn connections_stay_within_their_limit() {
    let content = content(3, 100_000);
    let limited = Config {
        peers_max: 5,
        ..config(9)
    };
    let mut puppet = Puppet::with_disk(limited, &content, SimulatedDisk::empty());
    let addresses: Vec<_> = (1_000..1_100).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    assert_eq!(puppet.dials().len(), 5);
    let streams: Vec<_> = (1..=9).map(|number| puppet.connect(number)).collect();
    let taken = streams.iter().filter(|stream| stream.is_some()).count();
    assert_eq!(taken, 5);
    assert_eq!(puppet.torrent.stats(puppet.now).peers_connected, 5);
    // Those that have been idle for long make room.
    puppet.pass(seconds(70));
    assert!(puppet.connect(20).is_some());
    assert_eq!(puppet.torrent.stats(puppet.now).peers_connected, 5);
    let oldest = streams[0].as_ref().unwrap();
    assert_eq!(puppet.closed(oldest), Some(Reason::Replaced));
}

#[test]
fn dead_addresses_do_not_count_as_peers_to_come() {
    let content = content(4, 100_000);
    let mut puppet = Puppet::magnet(config(9), &content);
    let addresses: Vec<_> = (1..=60).map(Puppet::address).collect();
    puppet.add_peers(PeerSource::Dht, &addresses);
    let wants = |puppet: &Puppet| {
        let wants = puppet.actions.iter().filter_map(|action| match action {
            crate::swarm::Action::WantPeers(wants) => Some(*wants),
            _ => None,
        });
        wants.last()
    };
    assert_eq!(wants(&puppet), Some(false));
    let now = puppet.now;
    for number in 0..60 {
        let address = puppet.dials()[number];
        puppet
            .torrent
            .handle_dial_failed(now, address, DialError::Refused);
        puppet.drain();
    }
    assert_eq!(wants(&puppet), Some(true));
}

#[test]
fn a_connection_to_ourselves_is_closed_and_never_tried_again() {
    let content = content(5, 100_000);
    let mut lab = Lab::new(5);
    let host = lab.magnet(config(1), &content);
    lab.introduce(host, [host]);
    lab.run_for(seconds(10));
    let ourselves = Reason::Protocol(ProtocolError::Ourselves);
    assert!(
        lab.hosts[host].closed.contains(&ourselves),
        "{:?}",
        lab.hosts[host].closed
    );
    lab.introduce(host, [host]);
    lab.run_for(seconds(4_000));
    assert_eq!(lab.hosts[host].dials, 1);
}

#[test]
fn two_peers_that_dial_each_other_keep_one_connection() {
    for seed in 0..6 {
        let content = content(6, 3_000_000);
        let mut lab = Lab::new(seed);
        let first = lab.with_info(config(1), &content, SimulatedDisk::empty());
        let second = lab.with_info(config(2), &content, SimulatedDisk::empty());
        lab.run_for(seconds(1));
        lab.introduce(first, [second]);
        if seed % 2 == 1 {
            lab.run_for(std::time::Duration::from_millis(10 * seed));
        }
        lab.introduce(second, [first]);
        lab.run_for(seconds(5));
        for host in [first, second] {
            let stats = lab.hosts[host].torrent.stats(lab.now);
            assert_eq!(stats.peers_connected, 1, "{seed}: {stats:?}");
            assert_eq!(stats.peers_dialling, 0, "{seed}: {stats:?}");
        }
        // The connection that stays is not doubted every minute.
        let dials = lab.hosts[first].dials + lab.hosts[second].dials;
        lab.run_for(seconds(600));
        assert_eq!(
            lab.hosts[first].dials + lab.hosts[second].dials,
            dials,
            "{seed}"
        );
        assert_eq!(lab.hosts[first].torrent.stats(lab.now).peers_connected, 1);
    }
}

#[test]
fn a_dial_that_ends_while_the_disk_is_checked_is_kept() {
    let content = content(7, 300_000);
    let mut puppet = Puppet::leech(&content);
    puppet.disk.stopped = true;
    let mut puppet = {
        let disk = puppet.disk;
        Puppet::with_disk(config(9), &content, disk)
    };
    assert_eq!(puppet.torrent.state(), State::Checking);
    let mut peer = puppet.connect(1).expect("it will be of use in a moment");
    puppet.say(&peer, &[super::puppet::full_bitfield(&content)]);
    puppet.restart_disk();
    let heard = puppet.hear(&mut peer);
    assert!(
        heard.contains(&crate::wire::Message::Interested),
        "{heard:?}"
    );
}

#[test]
fn a_lost_peer_is_dialled_again() {
    let content = content(8, 1_000_000);
    let mut lab = Lab::new(8);
    let seed = lab.seed(config(1), &content);
    lab.hosts[seed].uplink = Some(50_000);
    let leech = lab.magnet(config(2), &content);
    lab.introduce(leech, [seed]);
    lab.run_for(seconds(5));
    lab.cut(leech);
    lab.run_for(seconds(5));
    assert_eq!(lab.hosts[leech].torrent.stats(lab.now).peers_connected, 0);
    assert!(lab.run_until(seconds(120), |lab| lab.is_complete(leech)));
}
