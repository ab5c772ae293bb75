use super::*;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);
const C: ConnectionId = ConnectionId(3);

fn content() -> Bytes {
    (0..40_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 2])
        .collect::<Vec<u8>>()
        .into()
}

fn fetch() -> MetadataFetch {
    MetadataFetch::new(InfoHash::new(Sha1::digest(content()).into()))
}

fn part_of(content: &Bytes, part: u32) -> Bytes {
    let start = usize::try_from(part * METADATA_PART_LENGTH).unwrap();
    let end = (start + usize::try_from(METADATA_PART_LENGTH).unwrap()).min(content.len());
    content.slice(start..end)
}

/// Answers requests, each peer with its own content, until something comes out.
fn run(fetch: &mut MetadataFetch, answers: &[(ConnectionId, Bytes)]) -> Vec<Progress> {
    let mut results = Vec::new();
    for second in 0..100 {
        let now = Instant::ZERO + Duration::from_secs(second);
        for (id, part) in fetch.requests(now) {
            let Some((_, content)) = answers.iter().find(|(peer, _)| *peer == id) else {
                continue;
            };
            let total = u32::try_from(content.len()).unwrap();
            match fetch.handle_data(id, part, total, &part_of(content, part)) {
                Progress::Pending => {}
                done @ Progress::Complete(_) => {
                    results.push(done);
                    return results;
                }
                liar @ Progress::Liar(_) => results.push(liar),
            }
        }
    }
    results
}

#[test]
fn parts_come_from_several_peers() {
    let mut fetch = fetch();
    fetch.add_source(A, 40_000);
    fetch.add_source(B, 40_000);
    let asked = fetch.requests(Instant::ZERO);
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().any(|(id, _)| *id == A) && asked.iter().any(|(id, _)| *id == B));
    assert!(fetch.requests(Instant::ZERO).is_empty());
    fetch.remove_source(B);
    assert!(fetch.requests(Instant::ZERO).iter().all(|(id, _)| *id == A));
    let mut last = Progress::Pending;
    for part in 0..3 {
        last = fetch.handle_data(A, part, 40_000, &part_of(&content(), part));
    }
    assert_eq!(last, Progress::Complete(content()));
}

#[test]
fn a_liar_among_three_is_found_and_the_others_finish() {
    let mut fetch = fetch();
    for id in [A, B, C] {
        fetch.add_source(id, 40_000);
    }
    let wrong = Bytes::from(vec![7; 40_000]);
    let results = run(&mut fetch, &[(A, wrong), (B, content()), (C, content())]);
    assert_eq!(results, [Progress::Liar(A), Progress::Complete(content())]);
    fetch.add_source(A, 40_000);
    assert!(!fetch.sources.contains_key(&A));
}

#[test]
fn wrong_lengths_do_not_hold_up_the_right_one() {
    let mut fetch = fetch();
    fetch.add_source(A, 39_999);
    fetch.add_source(B, 40_000);
    let results = run(
        &mut fetch,
        &[(A, Bytes::from(vec![7; 39_999])), (B, content())],
    );
    assert_eq!(results.last(), Some(&Progress::Complete(content())));
}

#[test]
fn lengths_that_are_believed_are_bounded() {
    let mut fetch = fetch();
    for number in 1..=1_000 {
        fetch.add_source(ConnectionId(u64::from(number)), number);
    }
    fetch.requests(Instant::ZERO);
    assert_eq!(fetch.assemblies.len(), ASSEMBLIES_MAX);
    for number in 1..=1_000 {
        fetch.remove_source(ConnectionId(number));
    }
    assert!(fetch.sources.is_empty());
    fetch.add_source(ConnectionId(2_000), 40_000);
    fetch.requests(Instant::ZERO);
    assert!(
        fetch
            .assemblies
            .iter()
            .any(|assembly| assembly.length == 40_000)
    );
}

#[test]
fn a_peer_that_rejects_for_ever_is_left_alone_for_a_minute_at_a_time() {
    let mut fetch = fetch();
    fetch.add_source(A, 40_000);
    let mut asked = Vec::new();
    for second in 0..1_000 {
        let now = Instant::ZERO + Duration::from_secs(second);
        let requests = fetch.requests(now);
        if !requests.is_empty() {
            asked.push(second);
        }
        for (id, part) in requests {
            fetch.handle_reject(now, id, part);
        }
    }
    assert_eq!(asked[..6], [0, 5, 10, 70, 75, 80]);
    fetch.add_source(B, 40_000);
    let results = run(&mut fetch, &[(B, content())]);
    assert_eq!(results, [Progress::Complete(content())]);
}

#[test]
fn a_part_that_does_not_come_is_asked_of_another_peer() {
    let mut fetch = fetch();
    fetch.add_source(A, 40_000);
    assert_eq!(fetch.requests(Instant::ZERO).len(), 3);
    fetch.add_source(B, 40_000);
    assert_eq!(fetch.poll_timeout(), Some(Instant::ZERO + PART_TIMEOUT));
    let again = fetch.requests(Instant::ZERO + PART_TIMEOUT);
    assert_eq!(again, [(B, 0), (B, 1), (B, 2)]);
}

#[test]
fn parts_nobody_asked_for_are_ignored() {
    let mut fetch = fetch();
    fetch.add_source(A, 40_000);
    fetch.requests(Instant::ZERO);
    let short = content().slice(..10);
    for (id, part, total, data) in [
        (B, 0, 40_000, part_of(&content(), 0)),
        (A, 3, 40_000, Bytes::new()),
        (A, u32::MAX, 40_000, Bytes::new()),
        (A, 0, 40_001, part_of(&content(), 0)),
        (A, 0, 40_000, short),
    ] {
        assert_eq!(fetch.handle_data(id, part, total, &data), Progress::Pending);
    }
    assert_eq!(fetch.parts(), (0, 3));
}
