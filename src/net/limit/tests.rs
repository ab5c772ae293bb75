//! The bucket against a naive model, and streams that compete for tokens.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

/// What passes in `micros` at this rate, rounded up, and a burst.
fn allowed(bucket: &Bucket, micros: u64) -> u64 {
    (bucket.rate * micros).div_ceil(1_000_000) + bucket.burst()
}

#[test]
fn a_full_bucket_gives_a_burst_and_then_its_rate() {
    let mut bucket = Bucket::new(1 << 20, at(0));
    let mut burst = 0;
    while let Ok(granted) = bucket.take(at(0), u64::MAX) {
        burst += granted;
    }
    assert!(burst <= bucket.burst() && burst + bucket.quantum() > bucket.burst());
    let mut now = at(0);
    let mut passed = 0;
    while now < at(10_000_000) {
        match bucket.take(now, u64::MAX) {
            Ok(granted) => passed += granted,
            Err(next) => {
                assert!(next > now, "asking again helps only later");
                now = next;
            }
        }
    }
    let expected = 10 << 20;
    assert!(passed.abs_diff(expected) <= bucket.burst(), "{passed}");
}

#[test]
fn a_burst_is_a_tenth_of_a_second_or_one_block() {
    assert_eq!(Bucket::new(10 << 20, at(0)).burst(), 1 << 20);
    assert_eq!(Bucket::new(2 << 10, at(0)).burst(), BURST_MIN);
    for rate in [0, 1, 1 << 10, 1 << 14, 1 << 20, 1 << 30, u64::MAX] {
        let bucket = Bucket::new(rate, at(0));
        assert!(bucket.quantum() <= bucket.burst(), "{rate}");
        assert!(bucket.rate >= RATE_MIN);
    }
}

#[test]
fn tokens_given_back_pass_again_and_are_not_hoarded() {
    let mut bucket = Bucket::new(1 << 10, at(0));
    while bucket.take(at(0), 1 << 10).is_ok() {}
    assert!(bucket.take(at(0), 1 << 10).is_err());
    bucket.refund(1 << 10);
    assert_eq!(bucket.take(at(0), 1 << 10), Ok(1 << 10));
    for _ in 0..100 {
        bucket.refund(1 << 20);
    }
    assert_eq!(bucket.level, bucket.capacity());
}

#[test]
fn what_passed_unasked_is_waited_for() {
    let mut bucket = Bucket::new(10 << 10, at(0));
    bucket.charge(at(0), bucket.burst() + (100 << 10));
    let Err(next) = bucket.take(at(0), 1) else {
        panic!("there is nothing left")
    };
    assert!(next >= at(10_000_000) && next < at(10_001_000), "{next:?}");
}

proptest! {
    /// Random calls against a list of everything that was granted: every window of it is within the
    /// limit, and who asks when told to, is served.
    #[test]
    fn no_span_of_time_passes_more_than_the_limit_allows(
        rate in RATE_MIN..100_000_000,
        calls in prop::collection::vec((0u64..200_000, 0u64..300_000, 0u64..100), 1..150),
    ) {
        let mut bucket = Bucket::new(rate, at(0));
        let mut now = 0;
        let mut granted: Vec<(u64, u64)> = Vec::new();
        for (pause, wanted, unused) in calls {
            now += pause;
            let taken = match bucket.take(at(now), wanted) {
                Ok(taken) => taken,
                Err(next) => {
                    now = next.as_micros();
                    let again = bucket.take(at(now), wanted);
                    prop_assert!(again.is_ok(), "asked when told to");
                    again.unwrap_or(0)
                }
            };
            prop_assert!(taken <= wanted.min(bucket.quantum()));
            prop_assert!(taken > 0 || wanted == 0);
            let back = taken * unused / 100;
            bucket.refund(back);
            granted.push((now, taken - back));
        }
        for (first, &(since, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for &(until, bytes) in &granted[first..] {
                sum += bytes;
                prop_assert!(sum <= allowed(&bucket, until - since));
            }
        }
    }
}

/// Streams that take what they get for some seconds of paused time; what each of them got.
async fn compete(limiter: &Limiter, wanted: &[usize], seconds: u64) -> BTreeMap<usize, usize> {
    let mut streams = tokio::task::JoinSet::new();
    for (stream, &wanted) in wanted.iter().enumerate() {
        let limiter = limiter.clone();
        streams.spawn(async move {
            let mut got = 0;
            let take = async {
                loop {
                    got += limiter.acquire(wanted).await;
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(seconds), take).await;
            (stream, got)
        });
    }
    streams.join_all().await.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn streams_get_equal_shares_and_together_the_limit() {
    let rate = 1 << 20;
    let limiter = Limiter::new(Clock::start(), Some(rate));
    let got = compete(&limiter, &[1 << 20; 20], 10).await;
    let quantum = 1 << 14;
    let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
    assert!(most - least <= 2 * quantum, "{got:?}");
    let total = u64::try_from(got.values().sum::<usize>()).unwrap();
    assert!(total.abs_diff(10 * rate) <= rate / 5, "{total}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_small_messages_is_not_starved_by_those_of_blocks() {
    let limiter = Limiter::new(Clock::start(), Some(64 << 10));
    let mut wanted = [1 << 20; 10];
    wanted[4] = 100;
    let got = compete(&limiter, &wanted, 10).await;
    // As many turns as the others had: each of theirs is a quantum.
    assert!(got[&4] / 100 + 2 >= got[&0] / (2 << 10), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_waits_and_a_new_one_holds_at_once() {
    let clock = Clock::start();
    let limits = Limits::new(clock, None, Some(RATE_MIN));
    for _ in 0..1_000 {
        assert_eq!(limits.download.acquire(1 << 20).await, 1 << 20);
    }
    limits.download.refund(5);
    limits.download.charge(5);
    assert_eq!(clock.now(), Instant::ZERO);
    limits.download.set(Some(1 << 20));
    limits.download.charge(2 << 20);
    limits.download.acquire(1).await;
    assert!(clock.now() > at(1_800_000));
    assert!(limits.upload.is_limited());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_goes_on_when_the_limit_is_raised_or_lifted() {
    let clock = Clock::start();
    for rate in [Some(100 << 20), None] {
        let limiter = Limiter::new(clock, Some(RATE_MIN));
        let begun = clock.now();
        limiter.charge(1 << 20);
        let raise = async {
            tokio::task::yield_now().await;
            limiter.set(rate);
        };
        let (granted, ()) = tokio::join!(limiter.acquire(100), raise);
        assert_eq!(granted, 100);
        assert!(clock.now() < begun + Duration::from_secs(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_while_it_waits_passes_the_turn_on() {
    let limiter = Limiter::new(Clock::start(), Some(RATE_MIN));
    limiter.charge(100 << 10);
    let waits = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(1).await }
    });
    tokio::task::yield_now().await;
    waits.abort();
    assert_eq!(limiter.acquire(1).await, 1);
}
