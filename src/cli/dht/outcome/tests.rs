use super::*;
use crate::cli::dht::operation::{Signing, Sought};
use crate::dht::SecretKey;
use crate::id::NodeId;

const TORRENT: InfoHash = InfoHash::new([1; 20]);

fn outcome() -> Outcome {
    let mut outcome = Outcome {
        peers: ["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1"]
            .map(|p| p.parse().unwrap())
            .into(),
        rtt: Some(Duration::from_millis(250)),
        ..Outcome::default()
    };
    outcome.sort_peers();
    outcome
}

fn report() -> LookupReport {
    LookupReport {
        queries: 9,
        answered: 7,
        timed_out: 2,
        hops: 3,
        closest: vec![ContactInfo {
            id: NodeId::new([0xab; 20]),
            address: "[2a00::1]:6881".parse().unwrap(),
        }],
        stored: 5,
        duration: Duration::from_millis(1_500),
        ..LookupReport::default()
    }
}

#[test]
fn a_result_has_the_keys_that_programs_rely_on() {
    let value = outcome().result_json(
        &Operation::Announce(TORRENT, 1, crate::dht::PeerKind::Peer),
        &report(),
    );
    assert_eq!(value["event"], "result");
    assert_eq!(value["queries"], 9);
    assert_eq!(value["hops"], 3);
    assert_eq!(value["seconds"], 1.5);
    assert_eq!(value["peers"], json!(["10.0.0.1:1", "10.0.0.2:1"]));
    assert_eq!(value["stored"], 5);
    let nodes = json!([{"id": "ab".repeat(20), "address": "[2a00::1]:6881"}]);
    assert_eq!(value["nodes"], nodes);
    assert_eq!(
        outcome().result_json(&Operation::Ping("10.0.0.1:1".parse().unwrap()), &report())["rtt"],
        0.25
    );
}

#[test]
fn a_summary_tells_who_answered_and_how_far_the_closest_is() {
    assert_eq!(
        outcome().lookup_text(&Operation::GetPeers(TORRENT), &report()),
        "7 queries answered, 2 not in time; the closest is 3 hops away; 1.5s, 2 peers found"
    );
    let all_answered = LookupReport {
        timed_out: 0,
        hops: 1,
        ..report()
    };
    assert_eq!(
        outcome().lookup_text(&Operation::FindNode(NodeId::new([1; 20])), &all_answered),
        "7 queries answered; the closest is 1 hop away; 1.5s"
    );
}

#[test]
fn a_step_has_the_node_its_round_trip_and_the_hop() {
    let mut step = Step {
        id: None,
        address: "10.0.0.1:1".parse().unwrap(),
        method: "get_peers",
        hop: 2,
        rtt: Some(Duration::from_millis(20)),
        nodes: 8,
        peers: 1,
        error: None,
    };
    let value = step_json(&step);
    assert_eq!(value["event"], "query");
    assert_eq!(
        (&value["to"], &value["hop"]),
        (&json!("10.0.0.1:1"), &json!(2))
    );
    assert_eq!(value["rtt"], 0.02);
    assert_eq!(
        step_text(&step),
        "hop 2 get_peers 10.0.0.1:1: 8 nodes, 1 peer in 20.0 ms"
    );
    step.rtt = None;
    assert!(step_json(&step)["rtt"].is_null());
    assert!(step_text(&step).ends_with("no answer"));
    step.error = Some((203, "bad\ntoken".to_owned()));
    assert!(step_text(&step).ends_with("error 203: bad\\u{a}token"));
}

#[test]
fn nobody_answering_and_no_time_left_are_different_ends() {
    let nobody = outcome().nobody_answered(&Operation::GetPeers(TORRENT), &report());
    assert_eq!(
        (nobody.exit, nobody.message.as_str()),
        (Exit::Failed, "no node answered: 9 queries sent")
    );
    assert!(nobody.hint.is_some());
    let mut dead = outcome();
    dead.status.stats.bootstrap_queries = 2;
    dead.status.bootstrap_failed = Some("a.example:1: no such host".to_owned());
    assert_eq!(
        dead.nobody_answered(&Operation::FindNode(NodeId::new([1; 20])), &report())
            .message,
        "no node answered: 2 queries to bootstrap nodes sent, none was answered; a.example:1: \
         no such host"
    );
    let late = outcome().timed_out(&Operation::GetPeers(TORRENT), Duration::from_secs(30));
    assert_eq!(late.exit, Exit::TimedOut);
    assert_eq!(
        late.message,
        "gave up after 30.0s: 0 nodes answered, 2 peers found"
    );
}

fn sought(key: Option<[u8; 32]>) -> Operation {
    Operation::Get(Sought {
        target: NodeId::new([1; 20]),
        key,
        salt: "s".to_owned(),
    })
}

fn put(cas: Option<i64>) -> (Operation, Outcome) {
    let key = SecretKey::from_seed(&[1; 32]);
    let stored = Item::mutable(&key, b"s", 7, b"3:old").unwrap();
    let operation = Operation::Put(Box::new(Put {
        value: b"3:new".to_vec(),
        signing: Some(Signing::new(key, "s", Some(3), cas)),
        is_withdrawal: false,
    }));
    let outcome = Outcome {
        item: Some(Arc::new(stored)),
        seq: Some(3),
        ..Outcome::default()
    };
    (operation, outcome)
}

#[test]
fn an_item_is_told_to_read_and_byte_for_byte() {
    let (_, outcome) = put(None);
    let value = outcome.result_json(&sought(None), &report());
    assert_eq!((&value["value"], &value["seq"]), (&json!("old"), &json!(7)));
    assert_eq!(value["bencoded"], HEXLOWER.encode(b"3:old"));
    assert_eq!(value["salt"], "s");
    assert!(value["key"].as_str().is_some_and(|key| key.len() == 64));
    let nothing = Outcome::default().result_json(&sought(None), &report());
    assert!(nothing["value"].is_null() && nothing["seq"].is_null());
    let failure = Outcome::default().emptiness(&sought(None), &report());
    assert_eq!(failure.map(|failure| failure.exit), Some(Exit::Failed));
    assert!(outcome.emptiness(&sought(None), &report()).is_none());
}

#[test]
fn who_did_not_store_an_item_says_why() {
    let refused = |code| LookupReport {
        stored: 0,
        errors: vec![(code, 8)],
        ..report()
    };
    let check = |cas, code, part: &str| {
        let (operation, outcome) = put(cas);
        let failure = outcome.emptiness(&operation, &refused(code)).unwrap();
        assert!(failure.message.contains(part), "{}", failure.message);
        assert!(failure.hint.is_some());
    };
    check(
        Some(6),
        301,
        "the stored version has number 7, and --cas is 6",
    );
    check(None, 302, "the stored version has number 7, this one 3");
    check(None, 203, "no node stored the item");
    let (operation, outcome) = put(None);
    assert!(outcome.emptiness(&operation, &report()).is_none());
    let value = outcome.result_json(&operation, &report());
    assert_eq!((&value["stored"], &value["seq"]), (&json!(5), &json!(3)));
}

#[test]
fn what_two_lookups_cost_is_told_together() {
    let mut outcome = Outcome::default();
    outcome.on_done(report());
    outcome.on_done(report());
    let report = outcome.report.unwrap();
    assert_eq!(
        (report.queries, report.answered, report.timed_out),
        (18, 14, 4)
    );
    assert_eq!(report.duration, Duration::from_secs(3));
}
