use std::time::Duration;

use super::*;
use crate::dht::LookupReport;
use crate::net::clock::entropy;
use crate::net::udp::bind_udp;

/// Longer than anything here takes; ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_node_without_contacts_says_why() {
    let mut status = DhtStatus::default();
    let check = |status: &DhtStatus, expected: &str| {
        assert_eq!(status.trouble().as_deref(), Some(expected));
    };
    check(&status, "no node to start from is known");
    status.bootstrap_addresses = 1;
    check(&status, "nobody has been asked yet");
    let name = |name: &str, resolution| (name.to_owned(), resolution);
    status.bootstrap_names = vec![
        name("a:1", Resolution::Failed("no such name".to_owned())),
        name("b:1", Resolution::Pending),
        name("c:1", Resolution::Found(2)),
        name("d:1", Resolution::Found(0)),
    ];
    let names = "a:1 was not found: no such name; b:1 is still being looked up; \
                 d:1 has no address of a family that is used here";
    check(&status, names);
    status.send_failed = Some("network is unreachable".to_owned());
    status.stats.queries_sent = 3;
    status.stats.timeouts = 2;
    let rest = "datagrams are not sent: network is unreachable; \
                3 queries sent, 0 answered, 2 without an answer in time";
    check(&status, &format!("{names}; {rest}"));
    status.contacts = 1;
    assert_eq!(status.trouble(), None);
}

#[test]
fn a_datagram_the_system_does_not_send_is_counted_by_reason() {
    let mut dropped = Dropped::default();
    let errors = [
        rustix::io::Errno::NETUNREACH,
        rustix::io::Errno::HOSTUNREACH,
        rustix::io::Errno::ADDRNOTAVAIL,
        rustix::io::Errno::PERM,
        rustix::io::Errno::ACCESS,
        rustix::io::Errno::NOBUFS,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::INVAL,
    ];
    for errno in errors {
        dropped.on_refused(&errno.into());
    }
    let expected = Dropped {
        refused: 8,
        unreachable: 3,
        forbidden: 2,
        no_buffer: 2,
        ..Dropped::default()
    };
    assert_eq!(dropped, expected);
    let status = DhtStatus {
        dropped,
        ..DhtStatus::default()
    };
    let named: Vec<_> = status.counters().collect();
    assert!(named.contains(&("received", 0)) && named.contains(&("dropped_refused", 8)));
}

#[tokio::test]
async fn a_slow_reader_misses_some_peers_but_never_the_end() {
    let (mut lookup, mut slot) = Lookup::pair();
    let (id, info_hash) = (LookupId(1), InfoHash::new([1; 20]));
    let peers = |port| vec![SocketAddr::from(([127, 0, 0, 1], port)); 100];
    let mut lost = 0;
    let rounds = 300;
    for port in 0..rounds {
        lost += slot.on_peers(id, info_hash, peers(port));
    }
    assert!(slot.backlog.len() <= LOOKUP_BACKLOG_MAX);
    lost += slot.on_done(Event::LookupDone {
        lookup: id,
        report: LookupReport::default(),
    });
    let mut read = 0;
    let mut done = false;
    while let Some(event) = lookup.next().await {
        assert!(!done, "the end is the last event");
        match event {
            Event::PeersFound { peers, .. } => read += peers.len(),
            event => done = matches!(event, Event::LookupDone { .. }),
        }
    }
    assert!(done);
    assert_eq!(read + lost, 100 * usize::from(rounds));
    assert!(lost > 0 && read >= 100 * (LOOKUP_EVENTS_MAX - 1));
}

#[tokio::test]
async fn what_a_slow_reader_could_not_take_comes_with_the_next_peers() {
    let (mut lookup, mut slot) = Lookup::pair();
    let (id, info_hash) = (LookupId(1), InfoHash::new([1; 20]));
    let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for port in 0..300 {
        assert_eq!(slot.on_peers(id, info_hash, vec![peer(port)]), 0);
    }
    lookup.next().await;
    slot.on_peers(id, info_hash, vec![peer(300)]);
    drop(slot);
    let mut last = 1;
    while let Some(Event::PeersFound { peers, .. }) = lookup.next().await {
        for found in peers {
            assert_eq!(found, peer(last));
            last += 1;
        }
    }
    assert_eq!(last, 301);
}

/// A node on loopback that starts from these hosts.
fn node_from(bootstrap: &[&str]) -> DhtHandle {
    let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = DhtConfig {
        node: dht::Config::default(),
        bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
        snapshot: None,
    };
    spawn(vec![socket], config, Clock::start(), entropy()).unwrap()
}

/// Waits until the status of a node is as wanted.
async fn status_when(node: &DhtHandle, wanted: impl Fn(&DhtStatus) -> bool) -> DhtStatus {
    let wait = async {
        loop {
            let status = node.status().await;
            if wanted(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test]
async fn a_dead_bootstrap_node_is_told_by_the_queries_it_left_unanswered() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = closed.local_addr().unwrap().to_string();
    drop(closed);
    let dht = node_from(&[&dead]);
    let status = status_when(&dht, |status| status.stats.bootstrap_timeouts > 0).await;
    assert_eq!((status.contacts, status.bootstrap_addresses), (0, 1));
    assert!(status.stats.bootstrap_queries >= 1 && status.stats.bootstrap_responses == 0);
    let trouble = status.trouble().unwrap();
    assert!(trouble.contains(" 0 answered"), "{trouble}");
    dht.stop().await;
}

#[tokio::test]
async fn a_name_without_a_usable_address_and_datagrams_that_are_not_sent_are_told() {
    // A socket on loopback cannot send to an address in the reserved range: nothing leaves.
    let dht = node_from(&["240.0.0.1:9", "[::1]:9", "no port"]);
    let status = status_when(&dht, |status| {
        status.send_failed.is_some() && status.bootstrap_failed.is_some()
    })
    .await;
    assert!(status.dropped.refused >= 1);
    let [(name, Resolution::Failed(_))] = status.bootstrap_names.as_slice() else {
        panic!("{status:?}");
    };
    assert_eq!(name, "no port");
    assert_eq!(status.bootstrap_addresses, 1, "no IPv6 is used");
    let trouble = status.trouble().unwrap();
    assert!(trouble.starts_with("no port was not found: "), "{trouble}");
    assert!(trouble.contains("; datagrams are not sent: "), "{trouble}");
    dht.stop().await;
}
