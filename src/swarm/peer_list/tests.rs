use super::*;

fn list(max: usize) -> PeerList {
    PeerList::new(max, Duration::from_secs(60), Random::from_seed(1))
}

fn peer(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], number))
}

/// Hosts of a private network, one address each.
fn far(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 6881))
}

fn global(number: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([8, 8, 8, number], port))
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

#[test]
fn trusted_sources_are_dialled_first_and_each_address_once() {
    let mut list = list(100);
    list.add(at(0), PeerSource::Dht, peer(1));
    list.add(at(0), PeerSource::User, peer(2));
    list.add(at(0), PeerSource::Dht, peer(2));
    assert_eq!(list.next_dial(at(0)), Some(peer(2)));
    assert_eq!(list.next_dial(at(0)), Some(peer(1)));
    assert_eq!(list.next_dial(at(0)), None);
    assert_eq!(list.dialling(), 2);
}

#[test]
fn a_failing_address_waits_longer_each_time_and_is_forgotten_in_the_end() {
    let mut list = list(100);
    list.add(at(0), PeerSource::Dht, peer(1));
    let mut now = at(0);
    let mut waits = Vec::new();
    while list.next_dial(now).is_some() {
        list.handle_dial_failed(now, peer(1), DialError::TimedOut);
        assert_eq!(list.next_dial(now), None);
        if let Some(next) = list.next_dial_at() {
            waits.push(next.saturating_since(now).as_secs());
            now = next;
        }
    }
    assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    assert_eq!((list.len(), list.dialling()), (0, 0));
}

#[test]
fn a_dial_that_could_not_be_tried_is_no_failure_and_rests_all_dialling() {
    let mut list = list(100);
    for port in 1..=9 {
        list.add(at(0), PeerSource::Dht, peer(port));
    }
    for round in 0..100 {
        let now = at(round * 5);
        let address = list.next_dial(now).unwrap();
        list.handle_dial_failed(now, address, DialError::Local);
        assert_eq!(list.next_dial(now), None);
        assert_eq!(list.next_dial_at(), Some(at(round * 5 + 5)));
    }
    assert_eq!((list.len(), list.dialling()), (9, 0));
    assert_eq!(list.due(at(1_000), 9), 9);
}

#[test]
fn an_established_connection_forgives_failures() {
    let mut list = list(100);
    list.add(at(0), PeerSource::Dht, peer(1));
    list.next_dial(at(0));
    list.handle_dial_failed(at(0), peer(1), DialError::TimedOut);
    list.next_dial(at(60));
    list.handle_connected(peer(1));
    list.handle_established(peer(1));
    list.handle_disconnected(at(100), peer(1));
    assert_eq!(list.next_dial_at(), Some(at(160)));
}

#[test]
fn addresses_stay_within_their_bounds() {
    let mut list = list(100);
    for port in 1..=1_000 {
        list.add(at(0), PeerSource::Dht, far(port));
    }
    assert_eq!(list.len(), 75);
    for port in 1_001..=2_000 {
        list.add(at(0), PeerSource::Magnet, far(port));
    }
    assert_eq!(list.len(), 100);
    let failed = list.next_dial(at(0)).unwrap();
    list.handle_dial_failed(at(0), failed, DialError::TimedOut);
    list.add(at(0), PeerSource::User, far(3_000));
    assert_eq!(list.len(), 100);
    assert_eq!(list.next_dial(at(0)), Some(far(3_000)));
    let counted: usize = list.sources.values().sum();
    assert_eq!((counted, list.hosts.len()), (100, 100));
}

#[test]
fn a_ban_hits_a_host_of_the_internet_but_one_port_of_a_private_one() {
    let mut list = list(100);
    for address in [global(1, 1), global(1, 2), global(2, 1), peer(1), peer(2)] {
        list.add(at(0), PeerSource::Dht, address);
    }
    list.ban(global(1, 1));
    list.ban(peer(1));
    assert!(list.is_banned(global(1, 9)) && list.is_banned(peer(1)));
    assert!(!list.is_banned(global(2, 1)) && !list.is_banned(peer(2)));
    let six = |text: &str| text.parse::<SocketAddr>().unwrap();
    list.ban(six("[2001:470:1:2::1]:6881"));
    assert!(list.is_banned(six("[2001:470:1:2:9::5]:7")));
    assert!(!list.is_banned(six("[2001:470:1:3::1]:6881")));
    list.add(at(0), PeerSource::User, global(1, 3));
    assert_eq!(list.len(), 2);
    assert_eq!(list.due(at(0), 9), 2);
}

#[test]
fn bans_are_bounded() {
    let mut list = list(100);
    for port in 1..=1_500 {
        list.ban(peer(port));
    }
    assert_eq!(list.banned.len(), BANNED_MAX);
    assert!(list.is_banned(peer(1_500)) && !list.is_banned(peer(1)));
}

#[test]
fn ourselves_are_never_dialled_again() {
    let mut list = list(100);
    list.add(at(0), PeerSource::Dht, peer(1));
    list.next_dial(at(0));
    list.handle_connected(peer(1));
    list.forbid(peer(1));
    list.add(at(0), PeerSource::Dht, peer(1));
    assert_eq!((list.len(), list.dialling()), (0, 0));
}

#[test]
fn one_host_does_not_fill_the_list_but_the_user_may_name_what_he_likes() {
    let mut list = list(100);
    for port in 1..=1_000 {
        list.add(at(0), PeerSource::Dht, global(1, port));
        list.add(at(0), PeerSource::Magnet, peer(port));
    }
    assert_eq!(list.len(), HOST_ADDRESSES_MAX + 50);
    list.add(at(0), PeerSource::User, global(1, 2_000));
    assert_eq!(list.len(), HOST_ADDRESSES_MAX + 51);
    // What is forgotten makes room.
    list.ban(global(1, 1));
    assert_eq!((list.len(), list.hosts.len()), (50, 1));
}

#[test]
fn a_postponed_address_comes_back_without_a_failure() {
    let mut list = list(100);
    list.add(at(0), PeerSource::Dht, peer(1));
    list.next_dial(at(0));
    assert_eq!(list.dialling_to(Host::of(peer(1))), 1);
    list.postpone(at(0), peer(1));
    list.postpone(at(5), peer(1));
    assert_eq!((list.dialling(), list.next_dial_at()), (0, Some(at(10))));
    assert_eq!(list.next_dial(at(10)), Some(peer(1)));
}
