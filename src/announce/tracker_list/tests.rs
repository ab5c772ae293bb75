use super::super::tracker::INTERVAL_DEFAULT;
use super::*;

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn list(tiers: &[&[&str]]) -> TrackerList {
    let tiers: Vec<Vec<String>> = tiers
        .iter()
        .map(|tier| {
            let url = |name: &&str| format!("http://{name}.example/announce");
            tier.iter().map(url).collect()
        })
        .collect();
    TrackerList::new(&tiers, &mut Random::from_seed(1), at(0))
}

fn answer() -> Answer {
    Answer {
        interval: INTERVAL_DEFAULT,
        interval_min: None,
        peers: Vec::new(),
        seeds: None,
        leechers: None,
        completed: None,
        external_ip: None,
        warning: None,
        tracker_id: None,
    }
}

/// The first part of a tracker's name, and the event, of everything that is due.
fn due(list: &mut TrackerList, secs: u64) -> Vec<(String, TrackerEvent, TrackerId)> {
    std::iter::from_fn(|| list.poll_due(at(secs)))
        .map(|due| {
            let name = due.url.host().split('.').next().unwrap().to_owned();
            (name, due.event, due.tracker)
        })
        .collect()
}

fn names(due: &[(String, TrackerEvent, TrackerId)]) -> Vec<&str> {
    due.iter().map(|(name, _, _)| name.as_str()).collect()
}

#[test]
fn every_tier_is_asked_at_once_and_only_its_first_tracker() {
    let mut list = list(&[&["a1", "a2", "a3"], &["b"], &["c"]]);
    let first = due(&mut list, 0);
    assert_eq!(first.len(), 3);
    assert!(first[0].0.starts_with('a'));
    assert_eq!(names(&first)[1..], ["b", "c"]);
    assert!(
        first
            .iter()
            .all(|(_, event, _)| *event == TrackerEvent::Started)
    );
    assert!(due(&mut list, 3).is_empty());
}

#[test]
fn a_tier_is_shuffled_once() {
    let order = |seed| {
        let urls: Vec<String> = (0..20).map(|n| format!("udp://t{n}.example:1")).collect();
        let list = TrackerList::new(&[urls], &mut Random::from_seed(seed), at(0));
        list.tiers[0].order.clone()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_ne!(order(1), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_silent_tracker_holds_up_neither_its_tier_nor_the_others() {
    let mut list = list(&[&["a1", "a2"], &["b"]]);
    let first = due(&mut list, 0);
    list.handle_answer(at(1), first[1].2, &answer());
    assert_eq!(list.poll_timeout(), Some(at(4)));
    let second = due(&mut list, 4);
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].0, first[0].0);
    list.handle_answer(at(5), second[0].2, &answer());
    // The silent one fails at last: nothing follows from that, and next time the other one is first.
    list.handle_failure(at(30), first[0].2, &TrackerError::TimedOut, Network::Up);
    assert!(due(&mut list, 1_800).is_empty());
    let next = due(&mut list, 1_805);
    assert_eq!(names(&next), [second[0].0.as_str(), "b"]);
    assert_eq!(next[0].1, TrackerEvent::Regular);
}

#[test]
fn one_that_fails_is_followed_by_the_next_at_once() {
    let mut list = list(&[&["a1", "a2", "a3"]]);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let one = due(&mut list, 0);
        assert_eq!(one.len(), 1);
        list.handle_failure(at(0), one[0].2, &TrackerError::Status(500), Network::Up);
        asked.push(one[0].0.clone());
    }
    asked.sort();
    assert_eq!(asked, ["a1", "a2", "a3"]);
    assert_eq!(list.poll_timeout(), Some(at(15)));
}

#[test]
fn a_tier_that_fails_is_tried_again_less_and_less_often() {
    let mut list = list(&[&["a"]]);
    let mut times = Vec::new();
    while let Some(wake) = list.poll_timeout().filter(|wake| *wake < at(8_000)) {
        let due = list.poll_due(wake).unwrap();
        assert_eq!(due.event, TrackerEvent::Started);
        times.push(wake.as_secs());
        list.handle_failure(wake, due.tracker, &TrackerError::TimedOut, Network::Up);
    }
    assert_eq!(
        times,
        [0, 15, 45, 105, 225, 465, 945, 1905, 3705, 5505, 7305]
    );
    list.on_network_back(at(7_500));
    assert!(due(&mut list, 7_500).is_empty(), "it was never away");
}

/// Lets all that is due fail in this way; the seconds.
fn fail_until(list: &mut TrackerList, until: u64, error: &TrackerError) -> Vec<u32> {
    let mut times = Vec::new();
    while let Some(wake) = list.poll_timeout().filter(|wake| *wake <= at(until)) {
        while let Some(due) = list.poll_due(wake) {
            times.push(wake.as_secs());
            list.handle_failure(wake, due.tracker, error, Network::Unknown);
        }
    }
    times
}

#[test]
fn what_fails_while_there_is_no_network_is_tried_each_minute_and_lengthens_no_pause() {
    for error in [
        TrackerError::Local("no route".to_owned()),
        TrackerError::Lookup("no server".to_owned()),
    ] {
        let mut list = list(&[&["a"]]);
        let times = fail_until(&mut list, 3_600, &error);
        assert_eq!(times[..5], [0, 15, 45, 90, 135]);
        list.on_network_back(at(3_601));
        let first = due(&mut list, 3_601);
        // With a network the same says something of the tracker, for the first time.
        list.handle_failure(at(3_601), first[0].2, &error, Network::Up);
        assert_eq!(list.poll_timeout(), Some(at(3_616)));
        let second = due(&mut list, 3_616);
        list.handle_failure(at(3_616), second[0].2, &error, Network::Up);
        assert_eq!(list.poll_timeout(), Some(at(3_646)));
    }
}

#[test]
fn a_tracker_that_was_silent_while_nobody_was_heard_is_asked_once_the_network_is_back() {
    let mut list = list(&[&["a"]]);
    fail_until(&mut list, 4_000, &TrackerError::TimedOut);
    assert_eq!(list.poll_timeout(), Some(at(5_505)));
    list.on_network_back(at(4_000));
    let asked = due(&mut list, 4_000);
    // If it is dead, it has one try for each return of the network and no more.
    list.handle_failure(at(4_000), asked[0].2, &TrackerError::TimedOut, Network::Up);
    list.on_network_back(at(4_100));
    assert_eq!(list.poll_timeout(), Some(at(5_800)));
}

#[test]
fn refusals_wait_a_minute() {
    let mut list = list(&[&["a"]]);
    let first = due(&mut list, 0);
    list.handle_failure(
        at(0),
        first[0].2,
        &TrackerError::Refused("no".to_owned()),
        Network::Up,
    );
    assert_eq!(list.poll_timeout(), Some(at(60)));
    let status = list.statuses().next().unwrap();
    assert_eq!(status.failure.as_deref(), Some("it says: no"));
}

#[test]
fn the_interval_is_kept_and_the_shorter_one_only_while_peers_are_wanted() {
    let mut list = list(&[&["a"]]);
    let first = due(&mut list, 0);
    let said = Answer {
        interval_min: Some(Duration::from_secs(300)),
        ..answer()
    };
    list.handle_answer(at(0), first[0].2, &said);
    assert_eq!(list.poll_timeout(), Some(at(1_800)));
    list.set_wants_peers(true);
    assert_eq!(list.poll_timeout(), Some(at(300)));
    assert!(due(&mut list, 299).is_empty());
    assert_eq!(due(&mut list, 300).len(), 1);
}

#[test]
fn a_min_interval_that_is_longer_than_the_interval_is_kept_too() {
    let mut list = list(&[&["a"]]);
    let first = due(&mut list, 0);
    let said = Answer {
        interval: Duration::from_secs(60),
        interval_min: Some(Duration::from_secs(1_800)),
        ..answer()
    };
    list.handle_answer(at(0), first[0].2, &said);
    list.set_wants_peers(true);
    assert_eq!(list.poll_timeout(), Some(at(1_800)));
}

#[test]
fn completion_is_told_once_and_only_to_those_who_knew_us_otherwise() {
    let mut list = list(&[&["a"], &["b"]]);
    let first = due(&mut list, 0);
    list.handle_answer(at(0), first[0].2, &answer());
    list.set_complete(at(100), true);
    let told = due(&mut list, 100);
    // The other one still has its `started` under way.
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, TrackerEvent::Completed);
    list.handle_answer(at(101), told[0].2, &answer());
    list.handle_answer(at(102), first[1].2, &answer());
    let late = due(&mut list, 102);
    assert_eq!(
        (late[0].0.as_str(), late[0].1),
        ("b", TrackerEvent::Completed)
    );
    list.handle_failure(at(103), late[0].2, &TrackerError::TimedOut, Network::Up);
    let again = due(&mut list, 118);
    assert_eq!(again[0].1, TrackerEvent::Completed);
    list.handle_answer(at(118), again[0].2, &answer());
    let regular = due(&mut list, 5_000);
    assert!(
        regular
            .iter()
            .all(|(_, event, _)| *event == TrackerEvent::Regular)
    );
}

#[test]
fn content_that_was_there_from_the_start_is_not_completed() {
    let mut list = list(&[&["a"]]);
    list.set_complete(at(0), true);
    let first = due(&mut list, 0);
    assert_eq!(first[0].1, TrackerEvent::Started);
    list.handle_answer(at(0), first[0].2, &answer());
    assert!(due(&mut list, 100).is_empty());
}

#[test]
fn the_end_is_told_to_those_who_may_know_of_us() {
    let mut list = list(&[&["a"], &["b"], &["c"]]);
    let first = due(&mut list, 0);
    let said = Answer {
        tracker_id: Some(b"id".to_vec()),
        ..answer()
    };
    list.handle_answer(at(0), first[0].2, &said);
    list.handle_failure(at(0), first[1].2, &TrackerError::TimedOut, Network::Up);
    let told = list.stop();
    let hosts: Vec<&str> = told.iter().map(|due| due.url.host()).collect();
    assert_eq!(hosts, ["a.example", "c.example"]);
    assert!(
        told.iter()
            .all(|due| due.event == TrackerEvent::Stopped && due.peers_wanted == 0)
    );
    assert_eq!(told[0].tracker_id.as_deref(), Some(&b"id"[..]));
    assert_eq!(
        (list.poll_timeout(), list.poll_due(at(9_999))),
        (None, None)
    );
}

#[test]
fn a_hundred_trackers_are_asked_a_few_at_a_time() {
    let names: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
    let tiers: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    let tiers: Vec<&[&str]> = tiers.iter().map(|tier| &tier[..]).collect();
    let mut list = list(&tiers);
    let mut asked = 0;
    while asked < 100 {
        let some = due(&mut list, 0);
        assert!(!some.is_empty() && some.len() <= UNDER_WAY_MAX);
        assert!(some.len() < UNDER_WAY_MAX || list.poll_timeout().is_none());
        asked += some.len();
        for (_, _, id) in some {
            list.handle_answer(at(0), id, &answer());
        }
    }
    assert_eq!(asked, 100);
}

#[test]
fn trackers_that_answer_come_before_those_that_do_not() {
    let mut list = list(&[&["dead1"], &["dead2"], &["good"]]);
    let first = due(&mut list, 0);
    assert_eq!(names(&first), ["dead1", "dead2", "good"]);
    for dead in &first[..2] {
        list.handle_failure(at(0), dead.2, &TrackerError::TimedOut, Network::Up);
    }
    list.handle_answer(at(0), first[2].2, &answer());
    assert_eq!(names(&due(&mut list, 1_800)), ["good", "dead1", "dead2"]);
}

#[test]
fn what_is_no_tracker_is_told_and_never_asked() {
    let tiers = [vec![
        "wss://t.example/".to_owned(),
        "http://127.0.0.1:631/".to_owned(),
    ]];
    let mut list = TrackerList::new(&tiers, &mut Random::from_seed(1), at(0));
    assert!(list.is_empty() && list.poll_due(at(0)).is_none());
    assert!(list.statuses().all(|status| status.failure.is_some()));
    assert!(list.stop().is_empty());
}

#[test]
fn an_answer_to_nothing_is_ignored() {
    let mut list = list(&[&["a"]]);
    list.handle_answer(at(0), TrackerId(0), &answer());
    list.handle_failure(at(0), TrackerId(7), &TrackerError::TimedOut, Network::Up);
    assert_eq!(due(&mut list, 0)[0].1, TrackerEvent::Started);
}

#[test]
fn a_private_torrent_asks_one_tracker_at_a_time_tier_by_tier() {
    let mut list = list(&[&["a"], &["b"], &["c"]]);
    assert!(list.keep_to_one(at(0)).is_empty());
    assert_eq!(list.current(), None);
    let first = due(&mut list, 0);
    assert_eq!(names(&first), ["a"]);
    assert_eq!(list.poll_timeout(), None, "nobody is asked beside it");
    assert!(due(&mut list, 29).is_empty());
    list.handle_failure(at(30), first[0].2, &TrackerError::TimedOut, Network::Up);
    let second = due(&mut list, 30);
    assert_eq!(names(&second), ["b"]);
    list.handle_answer(at(31), second[0].2, &answer());
    assert_eq!(list.current(), Some(second[0].2));
    // It is left only when it fails, and then the others come in their order.
    let regular = due(&mut list, 1_831);
    assert_eq!(names(&regular), ["b"]);
    let mut asked = Vec::new();
    let mut next = regular;
    while let Some((name, _, id)) = next.pop() {
        asked.push(name);
        list.handle_failure(at(1_840), id, &TrackerError::Status(500), Network::Up);
        next = due(&mut list, 1_840);
        assert!(next.len() <= 1);
    }
    assert_eq!(asked, ["b", "a", "c"]);
    assert_eq!(list.poll_timeout(), Some(at(1_855)));
    assert_eq!(list.current(), None);
}

#[test]
fn a_torrent_that_proves_to_be_private_keeps_to_the_tracker_that_answered() {
    let mut list = list(&[&["a"], &["b"], &["c"]]);
    let first = due(&mut list, 0);
    list.handle_answer(at(1), first[1].2, &answer());
    assert_eq!(list.keep_to_one(at(2)), [first[0].2, first[2].2]);
    assert_eq!(list.current(), Some(first[1].2));
    assert!(list.statuses().all(|status| !status.is_asked));
    // What those say that were given up counts for nothing.
    list.handle_answer(at(3), first[0].2, &answer());
    assert_eq!(list.current(), Some(first[1].2));
    assert_eq!(list.poll_timeout(), Some(at(1_801)));
    assert_eq!(names(&due(&mut list, 1_801)), ["b"]);
}

#[test]
fn a_torrent_that_proves_to_be_private_waits_for_the_first_that_is_asked() {
    let mut list = list(&[&["a"], &["b"]]);
    let first = due(&mut list, 0);
    assert_eq!(list.keep_to_one(at(2)), [first[1].2]);
    assert!(due(&mut list, 20).is_empty());
    list.handle_failure(at(30), first[0].2, &TrackerError::TimedOut, Network::Up);
    assert_eq!(names(&due(&mut list, 30)), ["b"]);
}

/// The names of those that are told that we leave.
fn farewells(list: &mut TrackerList) -> Vec<String> {
    let told = std::iter::from_fn(|| list.poll_farewell());
    told.map(|due| {
        assert_eq!(due.event, TrackerEvent::Stopped);
        due.url.host().to_owned()
    })
    .collect()
}

#[test]
fn a_torrent_that_proves_to_be_private_leaves_the_trackers_that_know_of_it_at_once() {
    let mut list = list(&[&["a"], &["b"], &["c"]]);
    let first = due(&mut list, 0);
    for one in &first[..2] {
        list.handle_answer(at(1), one.2, &answer());
    }
    assert!(farewells(&mut list).is_empty());
    assert_eq!(list.keep_to_one(at(2)), [first[2].2]);
    assert_eq!(list.poll_timeout(), Some(at(2)));
    assert_eq!(farewells(&mut list), ["b.example"]);
    list.on_left(first[1].2);
    // The one that was given up answers after all.
    list.on_late_answer(at(3), first[2].2);
    assert_eq!(list.poll_timeout(), Some(at(3)));
    assert_eq!(farewells(&mut list), ["c.example"]);
    assert_eq!(list.poll_timeout(), Some(at(1_801)));
    // Whom we left we come to as a stranger.
    let kept = due(&mut list, 1_801);
    list.handle_failure(at(1_802), kept[0].2, &TrackerError::TimedOut, Network::Up);
    let next = due(&mut list, 1_802);
    assert_eq!(
        (next[0].0.as_str(), next[0].1),
        ("b", TrackerEvent::Started)
    );
    // At the end those hear of it that may know of us, also those for which it is not sure that they were told.
    let told: Vec<_> = list.stop().into_iter().map(|due| due.tracker).collect();
    assert_eq!(told, [0, 1, 2].map(TrackerId));
}

#[test]
fn a_tracker_that_is_asked_again_is_not_left() {
    let mut list = list(&[&["a"], &["b"]]);
    let first = due(&mut list, 0);
    list.keep_to_one(at(1));
    list.handle_failure(at(2), first[0].2, &TrackerError::TimedOut, Network::Up);
    assert_eq!(names(&due(&mut list, 2)), ["b"]);
    list.on_late_answer(at(3), first[1].2);
    assert!(farewells(&mut list).is_empty());
    assert_eq!(list.poll_timeout(), None);
}
