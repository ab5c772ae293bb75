//! Size of the pipeline, lost and late blocks, snubs.

use super::*;
use crate::metainfo::Geometry;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn blocks(count: u64) -> Vec<BlockRef> {
    let geometry = Geometry::new(16384, [16384 * count]).unwrap();
    geometry
        .pieces()
        .map(|piece| geometry.block(piece, 0).unwrap())
        .collect()
}

/// Lets a peer of `blocks_per_second` and this latency answer a pipeline that is always kept full;
/// returns the pipeline's size every second.
fn run(latency_millis: u64, blocks_per_second: u64, seconds: u64) -> Vec<usize> {
    let config = Config::default();
    let all = blocks(seconds * blocks_per_second + 1000);
    let mut requests = Requests::new();
    requests.on_unchoked(at(0), &config);
    let mut next = 0;
    let mut due: VecDeque<(Instant, BlockRef)> = VecDeque::new();
    let mut free_at = at(0);
    let gap = Duration::from_micros(1_000_000 / blocks_per_second);
    let mut sizes = Vec::new();
    for milli in 0..seconds * 1000 {
        let now = at(milli);
        while due.front().is_some_and(|(when, _)| *when <= now) {
            let (when, block) = due.pop_front().unwrap();
            requests.on_block(when.max(now), block).unwrap();
        }
        for _ in 0..requests.room(now, &config, Some(2000)) {
            requests.push(now, all[next], false);
            free_at = free_at.max(now + Duration::from_millis(latency_millis)) + gap;
            due.push_back((free_at, all[next]));
            next += 1;
        }
        if milli % 1000 == 999 {
            sizes.push(requests.outstanding.len());
        }
    }
    sizes
}

#[test]
fn the_pipeline_settles_at_a_second_of_work_and_the_latency() {
    let sizes = run(100, 50, 20);
    let last = *sizes.last().unwrap();
    assert!((50..=62).contains(&last), "{sizes:?}");
}

#[test]
fn a_fast_peer_fills_the_largest_pipeline_within_a_second() {
    let sizes = run(1, 10_000, 2);
    assert!(sizes[0] >= 500, "{sizes:?}");
}

#[test]
fn a_fast_peer_far_away_fills_the_largest_pipeline_within_three_seconds() {
    let sizes = run(200, 5_000, 3);
    assert_eq!(sizes[2], 512, "{sizes:?}");
}

#[test]
fn the_peers_own_queue_limits_the_pipeline() {
    let config = Config::default();
    let mut requests = Requests::new();
    requests.on_unchoked(at(0), &config);
    for &block in &blocks(2000) {
        requests.push(at(0), block, false);
        requests.on_block(at(1), block).unwrap();
    }
    assert_eq!(requests.room(at(1), &config, None), 250);
    assert_eq!(requests.room(at(1), &config, Some(512)), 511);
    assert_eq!(requests.room(at(1), &config, Some(20)), 19);
    assert_eq!(requests.room(at(1), &config, Some(1)), 1);
    assert_eq!(requests.room(at(1), &config, Some(u32::MAX)), 512);
}

#[test]
fn blocks_are_matched_in_any_order() {
    let all = blocks(10);
    let mut requests = Requests::new();
    for &block in &all {
        assert!(requests.push(at(0), block, false));
        assert!(!requests.push(at(0), block, false), "asked only once");
    }
    for &block in all.iter().rev() {
        let wanted = Arrival::Wanted { unsnubbed: false };
        assert_eq!(requests.on_block(at(5), block), Ok(wanted));
    }
    assert_eq!(requests.outstanding().count(), 0);
    assert_eq!(requests.rate().total(), 10 * 16384);
    assert_eq!(requests.on_block(at(5), all[0]), Ok(Arrival::Unwanted));
}

#[test]
fn a_block_given_up_is_still_welcome_once() {
    let all = blocks(3);
    let config = Config::default();
    let mut requests = Requests::new();
    for &block in &all {
        requests.push(at(0), block, false);
    }
    assert!(requests.cancel(all[1]));
    assert!(!requests.cancel(all[1]));
    assert_eq!(requests.handle_timeout(at(60_000), &config).lost.len(), 2);
    requests.push(at(60_000), all[0], false);
    assert_eq!(requests.on_choked(false), [all[0]]);
    for &block in &all {
        let arrival = requests.on_block(at(60_001), block).unwrap();
        assert!(matches!(arrival, Arrival::Wanted { .. }));
    }
}

#[test]
fn what_may_still_come_is_bounded() {
    let all = blocks(5000);
    let mut requests = Requests::new();
    for &block in &all {
        requests.push(at(0), block, false);
        requests.cancel(block);
    }
    assert_eq!(requests.recent.len(), RECENT_MAX);
    assert_eq!(requests.on_block(at(1), all[0]), Ok(Arrival::Unwanted));
}

#[test]
fn a_hundred_unwanted_blocks_are_suffered() {
    let all = blocks(1);
    let mut requests = Requests::new();
    for _ in 0..UNWANTED_MAX {
        assert_eq!(requests.on_block(at(0), all[0]), Ok(Arrival::Unwanted));
    }
    let error = requests.on_block(at(0), all[0]).unwrap_err();
    assert!(matches!(error, ProtocolError::TooMany { .. }));
}

#[test]
fn a_peer_that_stalls_is_snubbed_and_then_loses_its_requests() {
    let config = Config::default();
    let all = blocks(4);
    let mut requests = Requests::new();
    requests.on_unchoked(at(0), &config);
    assert_eq!(requests.deadline(&config), None);
    for &block in &all[..3] {
        requests.push(at(1_000), block, false);
    }
    requests.on_block(at(2_000), all[0]).unwrap();
    assert_eq!(requests.deadline(&config), Some(at(22_000)));
    assert_eq!(
        requests.handle_timeout(at(21_999), &config),
        Overdue::default()
    );
    assert!(requests.handle_timeout(at(22_000), &config).snubbed);
    assert!(
        !requests.handle_timeout(at(22_000), &config).snubbed,
        "told once"
    );
    assert_eq!(requests.room(at(22_000), &config, None), 0);
    assert_eq!(requests.deadline(&config), Some(at(61_000)));
    let overdue = requests.handle_timeout(at(61_000), &config);
    assert_eq!(
        (overdue.lost.as_slice(), overdue.snubbed),
        (&all[1..3], false)
    );
    assert_eq!(
        requests.room(at(61_000), &config, None),
        1,
        "it may try one"
    );
    requests.push(at(61_000), all[3], false);
    let arrival = requests.on_block(at(62_000), all[3]);
    assert_eq!(arrival, Ok(Arrival::Wanted { unsnubbed: true }));
    assert!(!requests.is_snubbed());
}
