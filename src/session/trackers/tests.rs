//! Torrents that share what a session has for announces.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::net::clock::{Clock, entropy};
use crate::net::names::Names;
use crate::net::udp_tracker::UdpTrackers;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What torrents share in a session with so many places.
fn session(places: usize) -> Shared {
    session_with(places, Names::default())
}

/// The same with names looked up by these.
fn session_with(places: usize, names: Names) -> Shared {
    let clock = Clock::start();
    let (udp, run) = UdpTrackers::new(None, clock, entropy());
    tokio::spawn(run);
    Shared {
        places: AnnouncePlaces::new(places),
        ..Shared::new(Trackers::with_names(udp, names), Heard::new(clock))
    }
}

/// A torrent with so many trackers, each a tier of its own, at this port.
fn torrent(shared: &Shared, number: u8, (tiers, port): (u8, u16)) -> Announcer {
    let url = |tier: u8| vec![format!("http://127.0.0.{}:{port}/announce", tier + 1)];
    let tiers: Vec<Vec<String>> = (0..tiers).map(url).collect();
    torrent_of(shared, number, &tiers)
}

/// A torrent with these trackers.
fn torrent_of(shared: &Shared, number: u8, tiers: &[Vec<String>]) -> Announcer {
    let identity = Identity {
        info_hash: InfoHash::new([number; 20]),
        peer_id: PeerId::new([2; 20]),
        listen: vec![(Ipv4Addr::LOCALHOST, 6881).into()],
    };
    let random = Random::from_seed(number.into());
    Announcer::new(shared.clone(), tiers, identity, random, Instant::ZERO)
}

/// Runs a torrent until each of its trackers has answered.
async fn run(mut torrent: Announcer) {
    let waits = |torrent: &Announcer| {
        let mut trackers = torrent.progress.trackers.iter();
        trackers.any(|tracker| tracker.answers == 0)
    };
    while waits(&torrent) {
        torrent.start_due(Instant::ZERO, Transferred::default());
        torrent.free_place();
        match torrent.news().await {
            News::Reply(reply) => drop(torrent.on_reply(Instant::ZERO, reply)),
            News::Turn | News::NetworkBack => {}
        }
    }
}

/// Answers an announce once so many have begun, and any others that could begin beside it.
async fn answer(mut stream: TcpStream, begun: watch::Sender<usize>, wanted: usize) {
    let mut head = [0; 1_024];
    assert!(stream.read(&mut head).await.unwrap() > 0);
    let mut seen = begun.subscribe();
    seen.wait_for(|begun| *begun >= wanted).await.unwrap();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde";
    stream.write_all(body.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn announces_of_all_torrents_share_the_places_and_each_gets_its_turn() {
    const PLACES: usize = 3;
    const TORRENTS: u8 = 4;
    const TIERS: u8 = 3;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = session(PLACES);
    let places = shared.places.clone();
    let mut torrents = JoinSet::new();
    for number in 0..TORRENTS {
        torrents.spawn(run(torrent(&shared, number, (TIERS, port))));
    }
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let total = usize::from(TORRENTS * TIERS);
    let (count, counted) = (Arc::clone(&open), Arc::clone(&most));
    let serving = tokio::spawn(async move {
        let begun = watch::Sender::new(0);
        for number in 1..=total {
            let (stream, _) = listener.accept().await.unwrap();
            begun.send_replace(number);
            let now = count.fetch_add(1, Ordering::SeqCst) + 1;
            counted.fetch_max(now, Ordering::SeqCst);
            let (begun, count) = (begun.clone(), Arc::clone(&count));
            let wanted = number.next_multiple_of(PLACES);
            tokio::spawn(async move {
                answer(stream, begun, wanted).await;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    while let Some(ended) = torrents.join_next().await {
        ended.unwrap();
    }
    serving.await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), PLACES);
    assert_eq!(places.free.available_permits(), PLACES);
}

#[tokio::test]
async fn the_turn_of_a_torrent_that_is_gone_passes_to_the_next() {
    let shared = session(1);
    let places = shared.places.clone();
    let held = places.take().unwrap();
    let mut torrents = [1, 2].map(|number| torrent(&shared, number, (1, 9)));
    for torrent in &mut torrents {
        torrent.start_due(Instant::ZERO, Transferred::default());
        assert_eq!(torrent.poll_timeout(), None, "it waits for its turn");
        // It stands in the queue from the first look on.
        let looked = tokio::time::timeout(Duration::ZERO, torrent.news()).await;
        assert!(looked.is_err());
    }
    let [first, mut second] = torrents;
    drop(held);
    drop(first);
    assert!(matches!(second.news().await, News::Turn));
    assert!(places.take().is_none());
    second.free_place();
    assert!(
        places.take().is_some(),
        "a place that is not needed is free"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_is_silent_gives_its_place_up() {
    let places = AnnouncePlaces::new(1);
    let place = Arc::new(places.take().unwrap());
    let announce = tokio::spawn(with_place(place, std::future::pending::<()>()));
    assert!(places.wait().await.is_some());
    assert!(!announce.is_finished());
    announce.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_torrent_does_not_wait_for_places() {
    let shared = session(1);
    let places = shared.places.clone();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut torrent = torrent(&shared, 1, (1, port));
    torrent.start_due(Instant::ZERO, Transferred::default());
    assert_eq!(torrent.open.len(), 1);
    places.free.forget_permits(1);
    torrent.stop(Instant::ZERO, Transferred::default()).await;
}

/// The next reply, which is given to the torrent.
async fn reply(torrent: &mut Announcer, now: Instant) {
    loop {
        if let News::Reply(reply) = torrent.news().await {
            torrent.on_reply(now, reply);
            return;
        }
    }
}

#[tokio::test]
async fn an_answer_to_one_torrent_tells_the_others_that_the_network_is_back() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = session_with(2, Names::new(|_| Err(std::io::ErrorKind::Other.into())));
    let named = [vec!["http://tracker.example/announce".to_owned()]];
    let mut waiting = torrent_of(&shared, 1, &named);
    let mut now = Instant::ZERO;
    // Many failures, and never a pause of more than 45 s.
    for _ in 0..8 {
        waiting.start_due(now, Transferred::default());
        reply(&mut waiting, now).await;
        let next = waiting.poll_timeout().unwrap();
        assert!(next <= now + Duration::from_secs(45));
        now = next;
    }
    waiting.start_due(now, Transferred::default());
    reply(&mut waiting, now).await;
    let mut answered = torrent(&shared, 2, (1, port));
    answered.start_due(now, Transferred::default());
    let begun = watch::Sender::new(1);
    let serve = async { answer(listener.accept().await.unwrap().0, begun, 1).await };
    tokio::join!(serve, reply(&mut answered, now));
    assert!(matches!(waiting.news().await, News::NetworkBack));
    waiting.on_network_back(now);
    assert_eq!(waiting.poll_timeout(), Some(now));
}

#[tokio::test]
async fn what_one_family_lacks_does_not_hide_what_the_other_one_says() {
    let shared = session(1);
    for silent_first in [true, false] {
        let mut torrent = torrent(&shared, 1, (1, 9));
        torrent.start_due(Instant::ZERO, Transferred::default());
        torrent.helpers.shutdown().await;
        let (&tracker, _) = torrent.open.first_key_value().unwrap();
        torrent.open.get_mut(&tracker).unwrap().left = 2;
        let mut errors = [
            TrackerError::TimedOut,
            TrackerError::Local("no route".to_owned()),
        ];
        if !silent_first {
            errors.reverse();
        }
        for error in errors {
            let url = String::new();
            let result = Err(error);
            torrent.on_reply(
                Instant::ZERO,
                Reply {
                    tracker,
                    number: 1,
                    url,
                    result,
                },
            );
        }
        let failure = torrent.progress.trackers[0].failure.clone().unwrap();
        assert_eq!(failure, TrackerError::TimedOut.to_string());
    }
}

#[tokio::test]
async fn a_reply_to_an_earlier_announce_brings_peers_and_does_not_end_the_next_one() {
    let mut torrent = torrent(&session(1), 1, (1, 9));
    let answer = Answer::decode(b"d8:intervali60e5:peers6:\x01\x02\x03\x04\0\x50e", HERE).unwrap();
    let reply = |tracker, number, result| Reply {
        tracker,
        number,
        url: String::new(),
        result,
    };
    let mut now = Instant::ZERO;
    for number in 1..=2 {
        torrent.start_due(now, Transferred::default());
        torrent.helpers.shutdown().await;
        let (&tracker, open) = torrent.open.first_key_value().unwrap();
        assert_eq!(open.number, number);
        if number == 1 {
            torrent.on_reply(now, reply(tracker, 1, Ok(answer.clone())));
            now = torrent.poll_timeout().unwrap();
            continue;
        }
        // The first was made from two addresses, and these are what the second one of them brings at last.
        let failed = reply(tracker, 1, Err(TrackerError::TimedOut));
        assert_eq!(torrent.on_reply(now, failed), Found::default());
        let found = torrent.on_reply(now, reply(tracker, 1, Ok(answer.clone())));
        assert_eq!(found.peers, answer.peers);
        assert!(torrent.progress.trackers[0].is_asked);
        torrent.on_reply(now, reply(tracker, 2, Ok(answer.clone())));
        assert!(!torrent.progress.trackers[0].is_asked);
        assert_eq!(torrent.progress.trackers[0].answers, 2);
    }
}

#[tokio::test]
async fn a_private_torrent_that_changes_its_tracker_says_so_and_hears_the_new_one_only() {
    let mut torrent = torrent(&session(9), 1, (2, 9));
    torrent.set_private(Instant::ZERO);
    let answer = Answer::decode(b"d8:intervali60e5:peers6:\x01\x02\x03\x04\0\x50e", HERE).unwrap();
    let mut now = Instant::ZERO;
    let mut asked = Vec::new();
    for (result, has_switched) in [
        (Ok(answer.clone()), false),
        (Err(TrackerError::TimedOut), false),
        (Ok(answer.clone()), true),
        (Ok(answer.clone()), false),
    ] {
        now = now.max(torrent.poll_timeout().unwrap());
        torrent.start_due(now, Transferred::default());
        torrent.helpers.shutdown().await;
        assert_eq!(torrent.open.len(), 1, "one at a time");
        let (&tracker, open) = torrent.open.first_key_value().unwrap();
        let reply = Reply {
            tracker,
            number: open.number,
            url: String::new(),
            result,
        };
        asked.push(tracker);
        assert_eq!(torrent.on_reply(now, reply).has_switched, has_switched);
    }
    assert_eq!(asked[0], asked[1]);
    assert_eq!(asked[2], asked[3]);
    assert_ne!(asked[0], asked[2]);
    // What the former one brings at last is nobody's business any more.
    let late = Reply {
        tracker: asked[0],
        number: 1,
        url: String::new(),
        result: Ok(answer),
    };
    assert_eq!(torrent.on_reply(now, late), Found::default());
}
