//! Tests of the world: a handful of hosts that come, go and mislead.

use std::time::Duration;

use trackless::dht::{Config, LookupReport};
use trackless::id::{ID_LENGTH, NodeId};

use super::*;
use crate::host::DATAGRAM_PORT;
use crate::nat::{NatConfig, NatKind};

/// A world of so many DHT nodes that all know the first one, after a minute.
fn dht_world(nodes: u32, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(Seeds::new(1), PartsPerMillion(0));
    for _ in 0..nodes {
        world.add_host(AccessRates::FAST);
    }
    prepare(&mut world);
    for host in (0..nodes).map(HostId) {
        world.start_dht(host, Config::default());
        if host.0 > 0 {
            bootstrap(&mut world, host);
        }
    }
    pass(&mut world, 60);
    world
}

fn bootstrap(world: &mut World, host: HostId) {
    let first = HostId(0).address(DATAGRAM_PORT);
    world.dht(host, |node, now| node.bootstrap(now, &[first]));
}

fn pass(world: &mut World, seconds: u64) {
    let until = world.now() + Duration::from_secs(seconds);
    world.pass_until(until);
}

/// How a ping of a host by another one ends.
fn ping(world: &mut World, from: HostId, to: HostId) -> LookupReport {
    world.dht(from, |node, now| node.ping(now, to.address(DATAGRAM_PORT)));
    let until = world.now() + Duration::from_secs(20);
    while let Some(notice) = world.next(until) {
        if let Notice::Dht { host, event } = notice
            && host == from
            && let dht::Event::LookupDone { report, .. } = event
        {
            return report;
        }
    }
    panic!("a ping ends");
}

#[test]
fn a_host_that_left_is_silent_and_comes_back_as_who_it_was() {
    for departure in [Departure::Graceful, Departure::Crash] {
        let mut world = dht_world(6, |_| ());
        let (id, other) = (world.dht_of(HostId(3)).id(), world.dht_of(HostId(4)).id());
        let kept = world.leave(HostId(3), departure).unwrap();
        assert_eq!(kept.contacts.is_empty(), departure == Departure::Crash);
        assert!(world.dht(HostId(3), |_, _| ()).is_none());
        assert_eq!(ping(&mut world, HostId(1), HostId(3)).answered, 0);

        world.start_dht(HostId(3), Config::default());
        assert_ne!(world.dht_of(HostId(3)).id(), id, "a new run draws anew");
        world.dht(HostId(3), |node, now| node.restore(now, &kept));
        assert_eq!(world.dht_of(HostId(3)).id(), id);
        bootstrap(&mut world, HostId(3));
        pass(&mut world, 60);
        assert_eq!(ping(&mut world, HostId(1), HostId(3)).answered, 1);
        assert_eq!(world.dht_of(HostId(4)).id(), other);
    }
}

#[test]
fn a_node_behind_a_gateway_joins_and_is_not_reached_by_strangers() {
    let mut world = dht_world(6, |world| {
        let config = NatConfig::of(NatKind::PortRestricted);
        world.network_mut().put_behind(HostId(5), config);
    });
    assert!(world.dht_of(HostId(5)).node().contact_count() > 0);
    let newcomer = world.add_host(AccessRates::FAST);
    world.start_dht(newcomer, Config::default());
    assert_eq!(ping(&mut world, newcomer, HostId(5)).answered, 0);
    assert_eq!(ping(&mut world, newcomer, HostId(4)).answered, 1);
    assert!(world.network().totals().filtered > 0);
}

#[test]
fn a_mute_node_disappears_from_the_tables_of_others() {
    let mut world = dht_world(6, |_| ());
    let mute = world.dht_of(HostId(5)).id();
    let knows = |world: &World| {
        let node = world.dht_of(HostId(1)).node();
        let closest = node.closest(trackless::krpc::Family::V4, mute);
        closest.iter().any(|contact| contact.id == mute)
    };
    assert!(knows(&world));
    world.corrupt_dht(HostId(5), NodeConduct::Mute);
    pass(&mut world, 30 * 60);
    assert!(!knows(&world));
}

#[test]
fn the_id_of_a_configuration_is_used() {
    let mut world = World::new(Seeds::new(1), PartsPerMillion(0));
    let host = world.add_host(AccessRates::FAST);
    let id = NodeId::new([7; ID_LENGTH]);
    let mut config = Config::default();
    config.locals[0].id = Some(id);
    world.start_dht(host, config);
    assert_eq!(world.dht_of(host).id(), id);
}

#[test]
fn both_queues_give_the_same_run() {
    let hash = |kind: QueueKind| {
        let mut world = World::with_queue(Seeds::new(1), PartsPerMillion(20_000), kind.build());
        for _ in 0..30 {
            let host = world.add_host(AccessRates::FAST);
            world.start_dht(host, Config::default());
            bootstrap(&mut world, host);
        }
        pass(&mut world, 3_600);
        world.network().trace_hash()
    };
    assert_eq!(hash(QueueKind::Heap), hash(QueueKind::Wheel));
}
