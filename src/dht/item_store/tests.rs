use proptest::prelude::*;

use super::*;
use crate::bencode::Writer;

const OWN: NodeId = NodeId::new([0; 20]);
const LIFETIME: Duration = Duration::from_secs(2 * 3600);

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn item(number: u32, length: usize) -> Item {
    let mut text = vec![0; length];
    text[..4].copy_from_slice(&number.to_be_bytes());
    let mut value = Vec::new();
    Writer::new(&mut value).bytes(&text);
    Item::immutable(&value).unwrap()
}

fn from(network: u8) -> SocketAddr {
    ([20, 1, network, 1], 1).into()
}

fn store() -> ItemStore {
    ItemStore::new(700, 1 << 20, LIFETIME)
}

#[test]
fn an_item_lives_two_hours_after_it_was_put_last() {
    let mut store = store();
    let target = item(1, 4).target();
    store.put(at(0), item(1, 4), &from(1), &OWN);
    assert!(store.get(at(7200), &target).is_some());
    assert!(store.get(at(7201), &target).is_none());
    store.refresh(at(7200), &target, &from(2));
    assert!(store.get(at(14_400), &target).is_some());
    store.expire(at(14_460));
    assert_eq!((store.len(), store.memory_bytes()), (0, 0));
    assert_eq!(store.next_expiry(), None);
}

#[test]
fn items_and_bytes_are_bounded() {
    let mut store = store();
    for number in 0..5000 {
        store.put(at(0), item(number, 4), &from(1), &OWN);
        assert!(store.len() <= 700);
    }
    let mut store = ItemStore::new(700, 100_000, LIFETIME);
    for number in 0..700 {
        store.put(at(0), item(number, 900), &from(1), &OWN);
        assert!(store.memory_bytes() <= 100_000);
    }
    assert!(store.len() > 60);
    let mut none = ItemStore::new(0, 100_000, LIFETIME);
    assert_eq!(none.put(at(0), item(1, 4), &from(1), &OWN), 0);
    assert_eq!(none.len(), 0);
}

#[test]
fn a_flood_from_one_network_pushes_out_its_own_items() {
    let mut store = store();
    let useful: Vec<_> = (0..50).map(|number| item(number, 8)).collect();
    for (number, item) in useful.iter().enumerate() {
        let by = from(u8::try_from(100 + number).unwrap());
        store.put(at(0), item.clone(), &by, &OWN);
    }
    for number in 1000..20_000 {
        store.put(at(1), item(number, 8), &from(1), &OWN);
    }
    for item in &useful {
        assert!(store.get(at(1), &item.target()).is_some());
    }
}

#[test]
fn what_several_networks_want_and_what_is_near_us_stays() {
    let mut store = ItemStore::new(64, 1 << 20, LIFETIME);
    let wanted = item(1, 8);
    for network in 1..4 {
        store.put(at(0), wanted.clone(), &from(network), &OWN);
    }
    let mut crowd: Vec<_> = (2..400).map(|number| item(number, 8)).collect();
    crowd.sort_by_key(|item| item.target().distance(&OWN));
    let nearest = crowd.remove(0);
    store.put(at(0), nearest.clone(), &from(9), &OWN);
    for item in crowd {
        store.put(at(1), item, &from(9), &OWN);
    }
    assert!(store.get(at(1), &wanted.target()).is_some());
    assert!(store.get(at(1), &nearest.target()).is_some());
}

proptest! {
    #[test]
    fn the_sum_of_bytes_is_right_after_any_calls(
        calls in prop::collection::vec((0..40u32, 4..300usize, 0..5u8, 0..4000u64), 1..200),
    ) {
        let mut store = ItemStore::new(24, 6_000, LIFETIME);
        let mut now = 0;
        for (number, length, network, wait) in calls {
            now += wait;
            store.put(at(now), item(number, length), &from(network), &OWN);
            if wait % 3 == 0 {
                store.expire(at(now));
            }
            let sum: usize = store.items.values().map(Stored::bytes).sum();
            prop_assert_eq!(sum, store.bytes);
            prop_assert!(store.len() <= 24 && store.bytes <= 6_000);
            prop_assert!(store.get(at(now), &item(number, length).target()).is_some());
        }
    }
}
