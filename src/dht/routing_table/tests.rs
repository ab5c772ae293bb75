use proptest::prelude::*;

use super::*;

const OWN: NodeId = NodeId::new([0; 20]);

fn table() -> RoutingTable<4> {
    RoutingTable::new(OWN, &Config::default())
}

/// A node whose id begins with this byte, at an address made of it and `number`.
fn node(first: u8, number: u8) -> ContactInfo {
    let mut id = [number; 20];
    id[0] = first;
    ContactInfo {
        id: NodeId::new(id),
        address: ([10, 0, first, number], 6881).into(),
    }
}

fn insert(table: &mut RoutingTable<4>, info: ContactInfo) -> Inserted {
    let inserted = table.insert(0, &info, None, false);
    check_invariants(table);
    inserted
}

/// Three queries in a row without an answer.
fn fail(table: &mut RoutingTable<4>, info: &ContactInfo) {
    for _ in 0..3 {
        table.on_failure(0, info);
    }
}

#[track_caller]
fn check_invariants(table: &RoutingTable<4>) {
    let last = table.buckets.len() - 1;
    let mut covered = 0;
    for bucket in 0..=last {
        let range = table.range(bucket);
        assert_eq!(range.start, covered);
        covered = range.end;
        assert!(range.len() <= table.bucket_size);
        for contact in &table.contacts[range] {
            assert_eq!(bucket_index(&table.own, contact.id(), last), bucket);
        }
    }
    assert_eq!(covered, table.contacts.len());
    let mut ids: Vec<_> = table.contacts.iter().map(|contact| *contact.id()).collect();
    let mut addresses: Vec<_> = table.contacts.iter().map(Contact::address).collect();
    ids.sort_unstable();
    ids.dedup();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!((ids.len(), addresses.len()), (covered, covered));
}

fn closest(table: &RoutingTable<4>, target: NodeId, max: usize) -> Vec<NodeId> {
    let mut out = Vec::new();
    table.closest(0, &target, max, Choice::Good, None, &mut out);
    out.into_iter().map(|info| info.id).collect()
}

/// A table whose far bucket is full.
fn full() -> RoutingTable<4> {
    let mut table = table();
    for number in 0..8 {
        assert_eq!(
            insert(&mut table, node(0x80 | number, number)),
            Inserted::Added
        );
    }
    assert_eq!(insert(&mut table, node(1, 1)), Inserted::Added, "splits");
    table
}

#[test]
fn a_full_bucket_is_split_only_around_our_own_id() {
    let mut table = full();
    assert_eq!(table.buckets.len(), 2);
    assert_eq!(insert(&mut table, node(0x99, 1)), Inserted::Waiting);
    for number in 2..=9 {
        assert_eq!(insert(&mut table, node(number, number)), Inserted::Added);
    }
    assert!(table.buckets.len() > 2);
}

#[test]
fn all_bits_of_the_id_space_can_be_split() {
    let mut table = table();
    for number in 0..200u8 {
        let mut id = [0; 20];
        id[19] = number;
        let info = ContactInfo {
            id: NodeId::new(id),
            address: ([10, 0, 0, number], 1).into(),
        };
        insert(&mut table, info);
    }
    assert!(table.buckets.len() <= BUCKETS_MAX);
    assert!(table.len() > 24);
}

#[test]
fn a_long_lived_contact_keeps_its_place_while_it_answers() {
    let mut table = full();
    for number in 0..50 {
        assert_eq!(
            insert(&mut table, node(0xc0 | number, 100)),
            Inserted::Waiting
        );
    }
    for number in 0..8 {
        assert!(table.find_exact(&node(0x80 | number, number)).is_some());
    }
}

#[test]
fn a_contact_that_failed_three_times_gives_way_to_a_replacement() {
    let mut table = full();
    let newcomer = node(0xff, 9);
    insert(&mut table, newcomer);
    let failing = node(0x83, 3);
    assert_eq!(table.on_failure(0, &failing), None);
    assert_eq!(table.on_failure(0, &failing), None);
    assert!(table.find_exact(&failing).is_some());
    assert_eq!(table.on_failure(0, &failing), Some(newcomer));
    assert!(table.find_exact(&failing).is_none());
    assert!(table.find_exact(&newcomer).is_some());
    check_invariants(&table);
}

#[test]
fn an_answer_in_between_forgives_the_failures() {
    let mut table = full();
    let lossy = node(0x83, 3);
    for _ in 0..10 {
        table.on_failure(0, &lossy);
        table.on_failure(0, &lossy);
        assert_eq!(insert(&mut table, lossy), Inserted::Known);
    }
}

#[test]
fn a_bad_contact_without_replacement_goes_if_others_are_good() {
    let mut table = full();
    let gone = node(0x80, 0);
    fail(&mut table, &gone);
    assert_eq!(table.len(), 8);
    check_invariants(&table);
}

#[test]
fn the_last_contacts_stay_when_the_network_is_down() {
    let mut table = full();
    let infos: Vec<_> = table.contacts.iter().map(Contact::info).collect();
    for _ in 0..3 {
        for info in &infos {
            table.on_failure(0, info);
        }
    }
    // The first to fail went while the others were good; those that failed together are kept.
    assert!(table.len() >= 1);
    assert!(!table.has_good(0));
    let mut any = Vec::new();
    table.closest(0, &OWN, 8, Choice::Any, None, &mut any);
    assert!(!any.is_empty());
    table.closest(0, &OWN, 8, Choice::NotBad, None, &mut Vec::new());
}

#[test]
fn a_newcomer_takes_the_place_of_a_bad_contact() {
    let mut table = table();
    let lonely = node(0x80, 0);
    insert(&mut table, lonely);
    fail(&mut table, &lonely);
    assert_eq!(table.len(), 1, "all we have");
    for number in 1..=8 {
        insert(&mut table, node(0x80 | number, number));
    }
    assert!(table.find_exact(&lonely).is_none());
    assert_eq!(table.len(), 8);
}

#[test]
fn one_address_has_one_entry_and_the_newer_id_wins() {
    let mut table = full();
    let old = node(0x81, 1);
    let new = ContactInfo {
        id: node(0x55, 5).id,
        ..old
    };
    assert_eq!(insert(&mut table, new), Inserted::Added);
    assert!(table.find_exact(&old).is_none());
}

#[test]
fn one_global_ip_has_one_entry_and_private_ones_are_told_apart_by_port() {
    let mut table = table();
    let at = |first, address: &str| ContactInfo {
        id: node(first, 1).id,
        address: address.parse().unwrap(),
    };
    assert_eq!(insert(&mut table, at(0x81, "9.9.9.9:1")), Inserted::Added);
    assert_eq!(insert(&mut table, at(0x82, "9.9.9.9:2")), Inserted::Refused);
    assert_eq!(insert(&mut table, at(0x83, "127.0.0.1:1")), Inserted::Added);
    assert_eq!(insert(&mut table, at(0x84, "127.0.0.1:2")), Inserted::Added);
    let first = at(0x81, "9.9.9.9:1");
    fail(&mut table, &first);
    assert_eq!(insert(&mut table, at(0x82, "9.9.9.9:2")), Inserted::Added);
}

#[test]
fn an_id_belongs_to_its_first_address_until_that_is_bad() {
    let mut table = full();
    let moved = ContactInfo {
        address: "10.7.7.7:7".parse().unwrap(),
        ..node(0x81, 1)
    };
    assert_eq!(insert(&mut table, moved), Inserted::Refused);
    assert!(!table.wants(&moved));
    let alone = node(1, 1);
    assert!(!table.wants(&ContactInfo {
        address: moved.address,
        ..alone
    }));
}

#[test]
fn only_nodes_for_which_there_is_a_place_are_wanted() {
    let table = full();
    assert!(!table.wants(&node(0x99, 9)), "its bucket is full");
    assert!(table.wants(&node(2, 2)));
    assert!(!table.wants(&ContactInfo {
        id: OWN,
        ..node(2, 2)
    }));
    let id_changed = ContactInfo {
        id: node(0x99, 9).id,
        ..node(0x81, 1)
    };
    assert!(table.wants(&id_changed));
}

#[test]
fn silent_contacts_are_checked_before_they_become_questionable() {
    let mut table = full();
    let mut due = Vec::new();
    assert_eq!(table.due_checks(0, &mut due), Some(784));
    assert!(due.is_empty());
    table.on_query(500, &node(0x81, 1));
    table.on_failure(500, &node(0x82, 2));
    assert_eq!(table.due_checks(600, &mut due), Some(784));
    assert_eq!(due, [node(0x82, 2)]);
    due.clear();
    assert_eq!(table.due_checks(800, &mut due), Some(1284));
    assert_eq!(due.len(), 8);
}

#[test]
fn a_refresh_looks_for_an_id_of_its_bucket() {
    let mut table = full();
    let mut random = Random::from_seed(1);
    assert_eq!(table.due_refresh(899, &mut random), None);
    assert_eq!(table.next_refresh(), Some(900));
    let target = table.due_refresh(900, &mut random).unwrap();
    assert_eq!(OWN.common_prefix(&target), 0);
    assert_eq!(
        table.due_refresh(900, &mut random),
        Some(OWN),
        "the last bucket is our own"
    );
    assert_eq!(table.due_refresh(900, &mut random), None);
    assert_eq!(table.next_refresh(), Some(1800));
}

#[test]
fn targets_in_the_last_five_buckets_are_close_to_our_own_id() {
    let mut table = table();
    for bucket in 0..7 {
        for number in 1..=8 {
            insert(&mut table, node(0x80 >> bucket, number));
        }
    }
    assert_eq!(table.buckets.len(), 7);
    let far = (0..7).map(|bucket| table.is_far(&node(0x80 >> bucket, 9).id));
    let far: Vec<_> = far.collect();
    assert_eq!(far, [true, true, true, false, false, false, false]);
    assert!(!table.is_far(&OWN));
    let small = full();
    assert!(small.is_far(&node(0x80, 9).id), "half of all nodes");
    assert!(!small.is_far(&OWN));
}

#[test]
fn a_full_bucket_whose_contacts_answer_needs_no_refresh_one_with_room_does() {
    let mut table = full();
    table.insert(800, &node(0x81, 1), None, false);
    table.insert(800, &node(1, 1), None, false);
    assert_eq!(
        table.due_refresh(1000, &mut Random::from_seed(1)),
        Some(OWN)
    );
    assert_eq!(table.due_refresh(1000, &mut Random::from_seed(1)), None);
}

#[test]
fn failing_and_silent_contacts_are_not_handed_out() {
    let mut table = full();
    assert_eq!(closest(&table, OWN, 20).len(), 9);
    table.on_failure(0, &node(0x81, 1));
    assert_eq!(
        closest(&table, OWN, 20).len(),
        9,
        "one lost packet hides nobody"
    );
    table.on_failure(0, &node(0x81, 1));
    assert_eq!(closest(&table, OWN, 20).len(), 8);
    let mut out = Vec::new();
    table.closest(901, &OWN, 20, Choice::Good, None, &mut out);
    assert!(out.is_empty());
    table.closest(901, &OWN, 20, Choice::NotBad, None, &mut out);
    assert_eq!(out.len(), 9);
}

proptest! {
    #[test]
    fn the_closest_are_those_a_full_sort_finds(
        seed in any::<u64>(),
        count in 0..300usize,
        max in 1..20usize,
        near in any::<bool>(),
    ) {
        let mut random = Random::from_seed(seed);
        let own = NodeId::new(random.bytes());
        let mut table = RoutingTable::<4>::new(own, &Config::default());
        for number in 0..count {
            let mut id = NodeId::new(random.bytes());
            for bit in 0..random.below(20) {
                id = id.with_bit(bit, own.bit(bit));
            }
            let number = u16::try_from(number).unwrap();
            let [high, low] = number.to_be_bytes();
            table.insert(0, &ContactInfo { id, address: ([10, 0, high, low], 1).into() }, None, false);
        }
        check_invariants(&table);
        let mut target = NodeId::new(random.bytes());
        if near {
            for bit in 0..random.below(160) {
                target = target.with_bit(bit, own.bit(bit));
            }
        }
        let mut sorted: Vec<_> = table.contacts.iter().map(|contact| *contact.id()).collect();
        sorted.sort_by_key(|id| id.distance(&target));
        sorted.truncate(max);
        prop_assert_eq!(closest(&table, target, max), sorted);
    }

    #[test]
    fn any_series_of_changes_keeps_the_table_in_order(
        changes in prop::collection::vec((0..5u8, any::<u8>(), 0..4u8), 1..300),
    ) {
        let mut table = table();
        for (now, (change, first, number)) in (0..).zip(changes) {
            let info = node(first >> (number * 2), number);
            match change {
                0..=2 => drop(table.insert(now, &info, None, false)),
                3 => drop(table.on_failure(now, &info)),
                _ => table.remove(&info),
            }
            check_invariants(&table);
        }
    }
}
