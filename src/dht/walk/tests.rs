use super::*;
use crate::dht::{Config, Local};
use crate::random::Random;

const TARGET: NodeId = NodeId::new([0; 20]);

/// A node at this distance from the target; the smaller the closer.
fn node(distance: u8) -> ContactInfo {
    let mut id = [0; 20];
    id[19] = distance;
    ContactInfo {
        id: NodeId::new(id),
        address: ([10, 0, 0, distance], 6881).into(),
    }
}

fn walk(config: &Config) -> Walk {
    let own = NodeId::new([0xff; 20]);
    let local = Local {
        address: "10.9.9.9:9".parse().unwrap(),
        id: Some(own),
    };
    let mut random = Random::from_seed(1);
    let mut table = LocalTable::new(LocalId(0), &local, config, &mut random);
    table.insert(0, &node(200), None, false);
    Walk::new(Instant::ZERO, config, &table, TARGET)
}

/// Asks as many as the walk wants to, and returns their distances.
fn ask(walk: &mut Walk) -> Vec<u8> {
    let mut asked = Vec::new();
    while let Next::Ask(contact) = walk.next() {
        walk.on_asked(contact.address);
        asked.push(contact.id.as_bytes()[19]);
    }
    asked
}

/// Asks as many a second time as the walk wants to, and returns their distances.
fn ask_again(walk: &mut Walk) -> Vec<u8> {
    let mut asked = Vec::new();
    while let Next::AskAgain(contact) = walk.next() {
        walk.on_asked_again(contact.address);
        asked.push(contact.id.as_bytes()[19]);
    }
    asked
}

fn answer(walk: &mut Walk, distance: u8) {
    let info = node(distance);
    walk.on_answer(info.address, info.id, Some(&[distance]));
}

fn name(walk: &mut Walk, distances: impl IntoIterator<Item = u8>) {
    let namer = "10.0.0.200:1".parse().unwrap();
    walk.on_named(distances.into_iter().map(node), namer, 2);
}

#[test]
fn without_a_contact_there_is_nobody_to_ask() {
    let config = Config::default();
    let table = LocalTable::new(
        LocalId(0),
        &Local::default(),
        &config,
        &mut Random::from_seed(1),
    );
    let walk = Walk::new(Instant::ZERO, &config, &table, TARGET);
    assert_eq!(walk.phase, Phase::Waiting);
}

#[test]
fn the_closest_are_asked_four_at_a_time() {
    let mut walk = walk(&Config::default());
    assert_eq!(ask(&mut walk), [200]);
    answer(&mut walk, 200);
    name(&mut walk, 1..=10);
    assert_eq!(ask(&mut walk), [1, 2, 3, 4]);
    answer(&mut walk, 2);
    assert_eq!(ask(&mut walk), [5]);
}

#[test]
fn the_search_ends_when_the_eight_closest_have_answered() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    answer(&mut walk, 200);
    name(&mut walk, 1..=12);
    for distance in 1..=8 {
        ask(&mut walk);
        answer(&mut walk, distance);
    }
    assert_eq!(walk.next(), Next::Finished);
    let closest: Vec<_> = walk.closest().map(|info| info.id.as_bytes()[19]).collect();
    assert_eq!(closest, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(walk.closest_hop().map(|(_, hop)| hop), Some(2));
    let tokens: Vec<_> = walk
        .announce_to()
        .map(|storage| storage.token.to_vec())
        .collect();
    assert_eq!(tokens[7], [8]);
}

#[test]
fn a_stalled_candidate_gives_its_place_to_another_and_blocks_nothing() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    answer(&mut walk, 200);
    for distance in 1..=12 {
        let namer = ([10, 0, 1, distance], 1).into();
        walk.on_named([node(distance)].into_iter(), namer, 2);
    }
    assert_eq!(ask(&mut walk), [1, 2, 3, 4]);
    for distance in 1..=3 {
        walk.on_stalled(node(distance).address);
    }
    assert_eq!(ask_again(&mut walk), [1, 2, 3]);
    assert_eq!(ask(&mut walk), [5, 6, 7]);
    for distance in 4..=11 {
        answer(&mut walk, distance);
        ask(&mut walk);
    }
    assert_eq!(
        walk.next(),
        Next::Wait,
        "for a second answer of the closest"
    );
    for distance in 1..=3 {
        walk.on_stalled(node(distance).address);
    }
    assert_eq!(walk.next(), Next::Finished, "each is asked twice at most");
    assert_eq!(walk.unanswered().count(), 3);
}

#[test]
fn a_late_answer_still_counts_while_the_walk_goes_on() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    answer(&mut walk, 200);
    name(&mut walk, 1..=4);
    ask(&mut walk);
    walk.on_stalled(node(1).address);
    assert_eq!(ask_again(&mut walk), [1]);
    answer(&mut walk, 1);
    assert_eq!(walk.closest().next(), Some(node(1)));
}

#[test]
fn a_candidate_that_is_not_among_the_closest_is_asked_once() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    name(&mut walk, 1..=8);
    walk.on_stalled(node(200).address);
    assert!(ask_again(&mut walk).is_empty());
    walk.on_stalled(node(8).address);
    assert!(ask_again(&mut walk).is_empty(), "nobody asked it");
}

#[test]
fn a_candidate_that_comes_among_the_closest_later_is_asked_a_second_time_then() {
    for is_given_up in [false, true] {
        let mut walk = walk(&Config::default());
        ask(&mut walk);
        name(&mut walk, 20..=29);
        answer(&mut walk, 200);
        assert_eq!(ask(&mut walk), [20, 21, 22, 23]);
        for distance in 1..=8 {
            let namer = ([10, 0, 1, distance], 1).into();
            walk.on_named([node(distance)].into_iter(), namer, 3);
        }
        walk.on_stalled(node(20).address);
        if is_given_up {
            walk.on_silent(node(20).address);
        }
        assert!(ask_again(&mut walk).is_empty(), "eight are closer");
        for distance in 21..=23 {
            answer(&mut walk, distance);
        }
        for distance in 1..=8 {
            ask(&mut walk);
            if distance > 1 {
                answer(&mut walk, distance);
            }
        }
        walk.on_stalled(node(1).address);
        assert_eq!(ask_again(&mut walk), [1]);
        walk.on_stalled(node(1).address);
        assert_eq!(
            ask_again(&mut walk),
            [20],
            "one of the eight was silent twice"
        );
        assert_eq!(walk.next(), Next::Wait);
        answer(&mut walk, 20);
        assert_eq!(walk.next(), Next::Finished);
        let sighting = |distance| walk.nearest().find(|(id, _)| **id == node(distance).id);
        assert_eq!(sighting(20), Some((&node(20).id, Sighting::Late)));
        assert_eq!(sighting(1), Some((&node(1).id, Sighting::SilentTwice)));
    }
}

#[test]
fn a_second_answer_counts_like_a_first() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    answer(&mut walk, 200);
    name(&mut walk, 1..=8);
    ask(&mut walk);
    walk.on_stalled(node(1).address);
    assert_eq!(ask_again(&mut walk), [1]);
    for distance in 2..=8 {
        ask(&mut walk);
        answer(&mut walk, distance);
    }
    assert_eq!(walk.next(), Next::Wait);
    answer(&mut walk, 1);
    assert_eq!(walk.next(), Next::Finished);
    assert_eq!(walk.closest().next(), Some(node(1)));
}

#[test]
fn as_long_as_nobody_answered_stalled_candidates_are_waited_for() {
    let mut walk = walk(&Config::default());
    ask(&mut walk);
    walk.on_stalled(node(200).address);
    assert_eq!(ask_again(&mut walk), [200]);
    assert_eq!(walk.next(), Next::Wait);
    walk.on_stalled(node(200).address);
    assert_eq!(walk.next(), Next::Wait);
    walk.on_silent(node(200).address);
    assert_eq!(walk.next(), Next::Finished);
}

#[test]
fn one_answer_adds_no_more_than_two_buckets() {
    let mut walk = walk(&Config::default());
    name(&mut walk, 1..=100);
    assert_eq!(walk.candidates.len(), 1 + 16);
}

#[test]
fn candidates_are_bounded_and_the_farthest_give_way() {
    let config = Config {
        lookup_candidates_max: 10,
        ..Config::default()
    };
    let mut walk = walk(&config);
    assert_eq!(ask(&mut walk), [200]);
    name(&mut walk, 100..110);
    name(&mut walk, 120..130);
    name(&mut walk, 50..53);
    let distances: Vec<_> = walk
        .candidates
        .iter()
        .map(|c| c.info.id.as_bytes()[19])
        .collect();
    assert_eq!(distances, [50, 51, 52, 100, 101, 102, 103, 104, 105, 200]);
}

#[test]
fn we_are_no_candidate_and_neither_is_the_other_family() {
    let mut walk = walk(&Config::default());
    walk.add(
        ContactInfo {
            id: NodeId::new([0xff; 20]),
            ..node(1)
        },
        1,
        None,
    );
    walk.add(
        ContactInfo {
            address: "10.9.9.9:9".parse().unwrap(),
            ..node(2)
        },
        1,
        None,
    );
    walk.add(
        ContactInfo {
            address: "[fd00::1]:9".parse().unwrap(),
            ..node(3)
        },
        1,
        None,
    );
    assert_eq!(walk.candidates.len(), 1);
}

#[test]
fn one_node_under_two_addresses_counts_once() {
    let mut walk = walk(&Config::default());
    let other = ContactInfo {
        address: "10.0.7.7:7".parse().unwrap(),
        ..node(1)
    };
    walk.add(node(1), 1, None);
    walk.add(other, 1, None);
    ask(&mut walk);
    walk.on_answer(node(1).address, node(1).id, None);
    walk.on_answer(other.address, other.id, None);
    assert_eq!(walk.closest().count(), 1);
}

#[test]
fn the_queries_of_a_walk_are_limited() {
    let mut walk = walk(&Config::default());
    let mut queries = 0;
    for round in 0..60u8 {
        let namer = "10.0.0.200:1".parse().unwrap();
        let closer = (0..16u8).map(|number| {
            let mut id = [0; 20];
            (id[18], id[19]) = (200 - round, number);
            ContactInfo {
                id: NodeId::new(id),
                address: ([10, 1, round, number], 1).into(),
            }
        });
        walk.on_named(closer, namer, 2);
        while let Next::Ask(contact) = walk.next() {
            queries += 1;
            walk.on_asked(contact.address);
            walk.on_answer(contact.address, contact.id, None);
        }
    }
    assert_eq!(queries, 96);
    assert_eq!(walk.next(), Next::Finished);
}

/// A node at a global address whose id, close to the target, does not follow from it.
fn unbound(distance: u8) -> ContactInfo {
    ContactInfo {
        address: ([20, 1, distance, 1], 6881).into(),
        ..node(distance)
    }
}

/// Of 30 nodes that all answer, the nearest twenty have ids that do not follow from their
/// addresses. Gives how many were asked, and the distances of those chosen.
fn chosen_by(id_binding: IdBinding) -> (usize, Vec<u8>) {
    let config = Config {
        id_binding,
        ..Config::default()
    };
    let mut walk = walk(&config);
    let namer = "10.0.0.200:1".parse().unwrap();
    walk.on_named((1..=10).map(unbound), namer, 2);
    walk.on_named((11..=20).map(unbound), namer, 2);
    walk.on_named((21..=30).map(node), namer, 2);
    let mut asked = 0;
    while let Next::Ask(contact) = walk.next() {
        asked += 1;
        walk.on_asked(contact.address);
        walk.on_answer(contact.address, contact.id, Some(b"t"));
    }
    assert_eq!(walk.next(), Next::Finished);
    let chosen = walk.announce_to();
    let chosen = chosen.map(|storage| storage.info.id.as_bytes()[19]);
    (asked, chosen.collect())
}

#[test]
fn without_bep_42_the_eight_closest_are_all_that_counts() {
    assert_eq!(chosen_by(IdBinding::Off), (8, (1..=8).collect()));
}

#[test]
fn in_the_time_of_grace_a_walk_ends_with_the_sixteen_closest_of_all() {
    assert_eq!(chosen_by(IdBinding::Prefer), (16, (1..=8).collect()));
}

#[test]
fn enforced_a_walk_goes_on_to_eight_that_comply_and_stores_there_only() {
    assert_eq!(chosen_by(IdBinding::Enforce), (28, (21..=28).collect()));
}

/// A liar names 12 nodes that are not there, closer than the 16 that somebody else has named; returns which of
/// the 12 are asked.
fn asked_of_a_liar(also_named: &[u8]) -> Vec<u8> {
    let mut walk = walk(&Config::default());
    let honest = "10.0.0.201:1".parse().unwrap();
    walk.on_named((101..=116).map(node), honest, 2);
    let mut asked = Vec::new();
    let mut has_lied = false;
    while let Next::Ask(contact) = walk.next() {
        walk.on_asked(contact.address);
        let distance = contact.id.as_bytes()[19];
        asked.push(distance);
        if distance > 12 {
            walk.on_answer(contact.address, contact.id, None);
        } else {
            walk.on_stalled(contact.address);
            walk.on_failed(contact.address);
        }
        if asked.len() >= 4 && !std::mem::replace(&mut has_lied, true) {
            name(&mut walk, 1..=12);
            walk.on_named(also_named.iter().copied().map(node), honest, 2);
        }
    }
    asked.retain(|distance| *distance <= 12);
    asked
}

#[test]
fn who_names_nodes_that_do_not_answer_is_not_believed() {
    assert_eq!(
        asked_of_a_liar(&[]),
        [1, 2, 12],
        "the last is its second chance"
    );
    // What an honest node names, too, is asked.
    assert_eq!(asked_of_a_liar(&[7, 9]), [1, 2, 7, 9, 12]);
}

#[test]
fn who_named_nodes_that_answer_everybody_but_us_is_believed_again() {
    let mut walk = walk(&Config::default());
    let honest = "10.0.0.201:1".parse().unwrap();
    let path = "10.0.0.202:1".parse().unwrap();
    walk.on_named((101..=116).map(node), path, 2);
    let mut asked = Vec::new();
    let mut has_named = false;
    while let Next::Ask(contact) = walk.next() {
        walk.on_asked(contact.address);
        let distance = contact.id.as_bytes()[19];
        asked.push(distance);
        // The four closest drop what we ask.
        if distance <= 4 {
            walk.on_stalled(contact.address);
            walk.on_failed(contact.address);
        } else {
            walk.on_answer(contact.address, contact.id, None);
        }
        if !std::mem::replace(&mut has_named, true) {
            walk.on_named((1..=12).map(node), honest, 2);
        }
    }
    for distance in 5..=12 {
        assert!(asked.contains(&distance), "{distance} in {asked:?}");
    }
}

#[test]
fn while_liars_are_about_each_namer_is_tried_with_one_node() {
    let mut walk = walk(&Config::default());
    let liar = |number: u16| SocketAddr::from(([10, 0, 1, 1], number));
    // Three that are silent: somebody lies.
    walk.on_named([60, 61, 62].map(node).into_iter(), liar(1), 2);
    for distance in [60, 61, 62] {
        let address = node(distance).address;
        walk.on_asked(address);
        walk.on_stalled(address);
        walk.on_failed(address);
    }
    for number in [2, 3] {
        let first = u8::try_from(10 * number).unwrap();
        let named = (first..first + 4).map(node);
        walk.on_named(named, liar(number), 2);
    }
    let mut asked = ask(&mut walk);
    asked.retain(|distance| *distance < 60);
    assert_eq!(asked, [20, 30], "one that each of them named");
    // One that is there speaks for the others.
    answer(&mut walk, 20);
    let asked = ask(&mut walk);
    assert_eq!(asked[..1], [21]);
}
