//! Asking for items (BEP 44), counts (BEP 33) and samples (BEP 51), and storing items.

use std::sync::Arc;

use super::network::*;
use crate::dht::item::mutable_target;
use crate::dht::{
    Config, Event, Item, LookupId, LookupReport, PeerKind, PeerPort, PutOptions, SecretKey,
};
use crate::id::InfoHash;
use crate::krpc::{Body, Extra, Family, ItemView, Message, Method, ResponseWriter};

fn key() -> SecretKey {
    SecretKey::from_seed(&[7; 32])
}

fn version(seq: i64) -> Item {
    let value = format!("i{seq}e");
    Item::mutable(&key(), b"salt", seq, value.as_bytes()).unwrap()
}

fn put(network: &mut Network, number: usize, item: Item, options: PutOptions) -> LookupReport {
    let now = network.now;
    let lookup = network.node(number).put_item(now, item, options);
    network.report(number, lookup)
}

fn get(network: &mut Network, number: usize, item: &Item) -> (Vec<Arc<Item>>, LookupReport) {
    let salt = item.version().map_or(Vec::new(), |v| v.salt.to_vec());
    let now = network.now;
    let lookup = network.node(number).get_item(now, item.target(), &salt);
    let report = network.report(number, lookup);
    (items(network, number, lookup), report)
}

fn items(network: &Network, number: usize, lookup: LookupId) -> Vec<Arc<Item>> {
    let events = network.members[number].events.iter();
    let found = events.filter_map(|event| match event {
        Event::ItemFound { lookup: id, item } if *id == lookup => Some(Arc::clone(item)),
        _ => None,
    });
    found.collect()
}

#[test]
fn an_immutable_item_is_stored_at_eight_nodes_and_found_from_any() {
    let mut network = Network::joined(21, 40);
    let item = Item::immutable(b"12:Hello World!").unwrap();
    let report = put(&mut network, 3, item.clone(), PutOptions::default());
    assert_eq!(
        (report.stored, report.errors.len(), report.seq),
        (8, 0, None)
    );
    for number in [9, 20, 39] {
        let (found, report) = get(&mut network, number, &item);
        assert_eq!(found, [Arc::new(item.clone())]);
        assert!(report.copies >= 7, "{report:?}");
    }
}

#[test]
fn a_mutable_item_is_updated_and_old_versions_are_refused() {
    let mut network = Network::joined(22, 40);
    assert_eq!(
        put(&mut network, 3, version(1), PutOptions::default()).stored,
        8
    );
    let cas = |cas| PutOptions {
        cas: Some(cas),
        keep: false,
    };
    let report = put(&mut network, 5, version(3), cas(2));
    assert_eq!((report.stored, &report.errors[..]), (0, &[(301, 8)][..]));
    assert_eq!(report.seq, Some(1), "what was found on the way");
    assert_eq!(put(&mut network, 5, version(3), cas(1)).stored, 8);
    let report = put(&mut network, 3, version(2), PutOptions::default());
    assert_eq!((report.stored, &report.errors[..]), (0, &[(302, 8)][..]));
    let (found, report) = get(&mut network, 30, &version(0));
    assert_eq!(found, [Arc::new(version(3))]);
    assert_eq!((report.seq, report.copies >= 7), (Some(3), true));
    let target = mutable_target(&key().public(), b"salt");
    let now = network.now;
    let lookup = network.node(30).get_item(now, target, b"other salt");
    network.report(30, lookup);
    assert!(items(&network, 30, lookup).is_empty());
    assert!(network.node(30).stats().bad_items >= 7);
}

#[test]
fn two_nodes_are_enough_to_store_and_find_an_item() {
    let mut network = Network::joined(23, 2);
    assert_eq!(
        put(&mut network, 0, version(1), PutOptions::default()).stored,
        1
    );
    let (found, _) = get(&mut network, 1, &version(1));
    assert_eq!(found, [Arc::new(version(1))], "from its own store");
    let (found, _) = get(&mut network, 0, &version(1));
    assert_eq!(found, [Arc::new(version(1))]);
}

#[test]
fn an_item_that_is_kept_outlives_those_who_stored_it_and_one_that_is_not_is_forgotten() {
    let mut network = Network::joined(24, 60);
    let kept = PutOptions {
        cas: None,
        keep: true,
    };
    let other = Item::immutable(b"5:other").unwrap();
    assert_eq!(put(&mut network, 3, version(1), kept).stored, 8);
    assert_eq!(
        put(&mut network, 3, other.clone(), PutOptions::default()).stored,
        8
    );
    let holders: Vec<_> = (0..60)
        .filter(|number| network.members[*number].node.stored_items() > 0 && *number != 3)
        .collect();
    network.dead.extend(holders.iter().take(5));
    network.run_for(secs(3 * 3600));
    let asker = (0..60).find(|number| !holders.contains(number) && *number != 3);
    let (found, report) = get(&mut network, asker.unwrap(), &version(1));
    assert_eq!(found, [Arc::new(version(1))]);
    assert!(report.copies >= 7, "{report:?}");
    assert!(get(&mut network, asker.unwrap(), &other).0.is_empty());
    network.node(3).withdraw_item(&version(1).target());
    network.run_for(secs(3 * 3600));
    assert!(get(&mut network, asker.unwrap(), &version(1)).0.is_empty());
}

#[test]
fn a_newer_version_ends_the_republication_of_an_older_one() {
    let mut network = Network::joined(25, 30);
    let kept = PutOptions {
        cas: None,
        keep: true,
    };
    put(&mut network, 3, version(1), kept);
    put(&mut network, 5, version(2), kept);
    network.run_for(secs(3 * 3600));
    assert!(network.node(3).own_items.next().is_none());
    assert!(network.node(5).own_items.next().is_some());
    assert_eq!(get(&mut network, 20, &version(0)).1.seq, Some(2));
}

/// Answers every query of a lone node with an item, until it asks no more.
fn answer_with(single: &mut Single, item: impl Fn(usize) -> ItemView<'static>) {
    let mut answered = 0;
    loop {
        let sent = single.sent();
        if sent.is_empty() {
            return;
        }
        for transmit in sent {
            let Some(transaction) = query_transaction(&transmit.payload) else {
                continue;
            };
            let mut out = Vec::new();
            ResponseWriter {
                extra: Extra::Item(item(answered)),
                token: Some(b"token"),
                ..bare_response(&transaction, single.friends[&transmit.to])
            }
            .write(&mut out);
            single.receive(transmit.to, &out);
            answered += 1;
        }
    }
}

#[test]
fn lies_about_an_item_are_counted_and_never_told() {
    let mut single = Single::new(Config::default());
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(5));
    single.events();
    let good = Box::leak(Box::new(version(5)));
    let view = good.view();
    let lookup = single.node.get_item(single.now, good.target(), b"salt");
    answer_with(&mut single, |answered| match answered % 4 {
        0 => ItemView {
            seq: Some(i64::MAX),
            ..view
        },
        1 => ItemView {
            value: Some(b"i6e"),
            seq: Some(6),
            ..view
        },
        2 => ItemView {
            key: None,
            seq: Some(9),
            ..view
        },
        _ => view,
    });
    let mut found = Vec::new();
    let mut report = LookupReport::default();
    for event in single.events() {
        match event {
            Event::ItemFound { lookup: id, item } if id == lookup => found.push(item),
            Event::LookupDone { report: done, .. } => report = done,
            _ => {}
        }
    }
    assert_eq!(found, [Arc::new(good.clone())]);
    assert_eq!((report.seq, report.copies), (Some(5), 2));
    assert_eq!(single.node.stats().bad_items, 6);
}

/// The version that a query says its sender has.
fn told_seq(payload: &[u8]) -> Option<i64> {
    match Message::decode(payload).unwrap().body {
        Body::Query(query) => match query.method {
            Method::Get { seq, .. } => seq,
            method => panic!("{method:?}"),
        },
        body => panic!("{body:?}"),
    }
}

#[test]
fn nodes_are_told_the_version_that_was_found_and_those_that_have_it_count() {
    let mut single = Single::new(Config::default());
    for number in 1..=8 {
        single.befriend(far_id(number), address(usize::from(number)));
    }
    single.live(secs(5));
    single.events();
    let good = version(5);
    single.node.get_item(single.now, good.target(), b"salt");
    let mut asked = Vec::new();
    let mut queue = std::collections::VecDeque::from(single.sent());
    while let Some(transmit) = queue.pop_front() {
        let seq = told_seq(&transmit.payload);
        let item = match seq {
            None => good.view(),
            Some(_) => ItemView {
                seq: Some(5),
                ..ItemView::default()
            },
        };
        asked.push(seq);
        let mut out = Vec::new();
        ResponseWriter {
            extra: Extra::Item(item),
            ..bare_response(
                &query_transaction(&transmit.payload).unwrap(),
                single.friends[&transmit.to],
            )
        }
        .write(&mut out);
        single.receive(transmit.to, &out);
        queue.extend(single.sent());
    }
    // Four were asked before the first one answered.
    let told = asked.iter().filter(|seq| **seq == Some(5)).count();
    assert_eq!((asked.len(), told), (8, 4), "{asked:?}");
    let report = single.events().into_iter().find_map(|event| match event {
        Event::LookupDone { report, .. } => Some(report),
        _ => None,
    });
    let report = report.unwrap();
    assert_eq!((report.seq, report.copies), (Some(5), 8));
}

#[test]
fn a_scrape_counts_the_seeds_and_peers_of_a_torrent_once_each() {
    let mut network = Network::joined(26, 60);
    for number in 0..30 {
        let kind = if number < 10 {
            PeerKind::Seed
        } else {
            PeerKind::Peer
        };
        let now = network.now;
        let node = network.node(number);
        let lookup = node.announce_as(now, TORRENT, PeerPort::Explicit(7), kind);
        network.report(number, lookup);
    }
    let now = network.now;
    let lookup = network.node(50).scrape(now, TORRENT);
    let report = network.report(50, lookup);
    let scrape = report.scrape.unwrap();
    assert!(scrape.filters >= 7, "{scrape:?}");
    // All have one IP address in these tests, and what it said last counts: it is a peer.
    assert_eq!((scrape.seeds, scrape.peers), (0, 1));
    let lookup = network.node(50).find_peers(now, TORRENT);
    assert_eq!(network.report(50, lookup).scrape, None);
}

#[test]
fn samples_are_told_node_by_node() {
    let mut network = Network::joined(27, 30);
    for number in 0..10u8 {
        let now = network.now;
        let node = network.node(usize::from(number));
        let lookup = node.announce(now, InfoHash::new([number * 20; 20]), PeerPort::Implied);
        network.report(usize::from(number), lookup);
    }
    let now = network.now;
    let lookup = network.node(20).sample_infohashes(now, TORRENT.as_target());
    let report = network.report(20, lookup);
    let events = network.members[20].events.iter();
    let samples: Vec<_> = events
        .filter_map(|event| match event {
            Event::SamplesFound {
                lookup: id,
                info_hashes,
                num,
                ..
            } if *id == lookup => Some((info_hashes, *num)),
            _ => None,
        })
        .collect();
    assert_eq!(samples.len(), usize::try_from(report.answered).unwrap());
    for (info_hashes, num) in &samples {
        assert_eq!(u64::try_from(info_hashes.len()).unwrap(), *num);
    }
    let mut all: Vec<_> = samples.iter().flat_map(|(hashes, _)| *hashes).collect();
    all.sort();
    all.dedup();
    assert!(all.len() >= 5, "{} of 10", all.len());
}

#[test]
fn the_size_of_the_network_is_estimated_from_lookups() {
    let mut network = Network::joined(28, 200);
    network.loss_per_mille = 20;
    assert!(network.node(7).estimate(Family::V6).is_none());
    for number in 0..24u8 {
        let now = network.now;
        let target = InfoHash::new([number * 10; 20]);
        let lookup = network.node(7).find_node(now, target.as_target());
        network.report(7, lookup);
    }
    let estimate = network.node(7).estimate(Family::V4).unwrap();
    assert!((140..280).contains(&estimate.nodes), "{estimate:?}");
    assert!(estimate.lookups >= 16);
}
