use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A throttle with its counters.
struct Bench {
    throttle: Throttle,
    counters: Counters,
}

impl Bench {
    fn new() -> Self {
        Self {
            throttle: Throttle::new(&ThrottleConfig::default()),
            counters: Counters::default(),
        }
    }

    fn asks(&mut self, millis: u64, from: &str) -> bool {
        self.standing(millis, from).is_some()
    }

    fn standing(&mut self, millis: u64, from: &str) -> Option<Standing> {
        let from = address(from);
        self.throttle.admit(at(millis), &from, &mut self.counters)
    }

    fn drops(&self, millis: u64, from: &str, payload: &[u8], is_asking: bool) -> bool {
        let from = address(from);
        self.throttle
            .drops(at(millis), &from, payload, || is_asking)
    }

    /// Answers a stranger with so many bytes if it may have them.
    fn answers(&mut self, millis: u64, to: &str, length: usize) -> bool {
        let to = address(to);
        let may = self.throttle.has_bytes(at(millis), &to);
        if may {
            self.throttle
                .on_sent(at(millis), &to, length, &mut self.counters);
        }
        may
    }
}

const ALICE: &str = "8.8.8.8:1";

#[test]
fn fifty_queries_at_once_and_five_a_second_are_answered_for_ever() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        assert!(bench.asks(0, ALICE));
    }
    for query in 1..=10_000 {
        assert!(bench.asks(query * 200, ALICE));
    }
    assert_eq!(bench.counters.sources_silenced, 0);
}

#[test]
fn whoever_asks_more_is_not_listened_to_for_five_minutes() {
    let mut bench = Bench::new();
    let answered = (0..100).filter(|_| bench.asks(1000, ALICE)).count();
    assert_eq!((answered, bench.counters.sources_silenced), (50, 1));
    assert!(bench.drops(1001, ALICE, b"anything", false));
    assert!(!bench.drops(1001, "8.8.8.9:1", b"anything", false));
    let last = 1000 + 5 * 60 * 1000 - 1;
    assert!(!bench.asks(last, ALICE), "asking on changes nothing");
    assert!(bench.drops(last, ALICE, b"anything", false));
    assert!(!bench.drops(last + 1, ALICE, b"anything", false));
    let answered = (0..100).filter(|_| bench.asks(last + 1, ALICE)).count();
    assert_eq!(answered, 50);
}

#[test]
fn an_answer_to_a_query_of_ours_is_read_from_a_silenced_host_but_no_query() {
    let mut bench = Bench::new();
    while bench.asks(0, ALICE) {}
    assert!(!bench.drops(1, ALICE, b"d...1:y1:re", true));
    assert!(bench.drops(1, ALICE, b"d...1:y1:re", false));
    assert!(bench.drops(1, ALICE, b"d...1:y1:qe", true));
}

#[test]
fn a_global_host_has_one_budget_and_private_ones_have_one_for_each_port() {
    let mut bench = Bench::new();
    let answered = (1..=100).filter(|port| bench.asks(0, &format!("9.9.9.9:{port}")));
    assert_eq!(answered.count(), 50);
    for ip in ["127.0.0.1", "10.0.0.1", "[fd00::1]"] {
        assert!((1..=100).all(|port| bench.asks(0, &format!("{ip}:{port}"))));
    }
}

#[test]
fn the_answers_to_one_stranger_share_four_kibibytes_a_second() {
    let mut bench = Bench::new();
    let mut bytes = 0;
    for millis in 0..60_000 {
        if bench.answers(millis, ALICE, 500) {
            bytes += 500;
        }
    }
    // A second's worth at once, and the last answer may go beyond.
    assert!((60 * 4096..=61 * 4096 + 500).contains(&bytes), "{bytes}");
}

#[test]
fn the_strangers_of_a_network_share_thirty_two_kibibytes_a_second() {
    for prefix in ["8.8.8.", "2a00::"] {
        let mut bench = Bench::new();
        let mut bytes = 0;
        for millis in 0..10_000 {
            let to = match prefix {
                "2a00::" => format!("[2a00::{:x}]:1", millis % 250),
                prefix => format!("{prefix}{}:1", millis % 250),
            };
            if bench.answers(millis, &to, 1000) {
                bytes += 1000;
            }
        }
        assert!(
            (10 * 32_768..=11 * 32_768 + 1000).contains(&bytes),
            "{bytes}"
        );
        assert!(!bench.answers(9_999, "8.8.8.251:1", 1) || prefix != "8.8.8.");
        assert!(bench.answers(9_999, "8.8.9.1:1", 1000), "another network");
    }
}

#[test]
fn whoever_proved_its_address_is_known_for_five_minutes() {
    let mut bench = Bench::new();
    assert_eq!(bench.standing(0, ALICE), Some(Standing::Stranger));
    let alice = address(ALICE);
    bench.throttle.on_proof(at(0), &alice, &mut bench.counters);
    assert_eq!(bench.standing(0, ALICE), Some(Standing::Known));
    assert_eq!(bench.standing(299_999, "8.8.8.8:2"), Some(Standing::Known));
    assert_eq!(bench.standing(300_000, ALICE), Some(Standing::Stranger));
}

#[test]
fn a_hundred_thousand_forged_sources_do_not_free_a_silenced_host() {
    let mut bench = Bench::new();
    while bench.asks(0, ALICE) {}
    for number in 0..100_000u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let from = SocketAddr::from(([20 + a, b, c, 1], 9));
        let standing = bench.throttle.admit(at(1), &from, &mut bench.counters);
        assert_eq!(standing, Some(Standing::Stranger));
        bench
            .throttle
            .on_sent(at(1), &from, 500, &mut bench.counters);
    }
    assert!(bench.drops(1, ALICE, b"anything", false));
    let counters = &bench.counters;
    assert!(counters.sources_forgotten > 150_000, "hosts and networks");
    assert!(bench.throttle.memory_bytes() < 2 << 20);
    bench.throttle.sweep(at(400_000));
    assert!(bench.throttle.memory_bytes() < 1000);
}

#[test]
fn a_configuration_of_zeros_lets_nearly_nothing_through_and_breaks_nothing() {
    let config = ThrottleConfig {
        queries_per_second: 0,
        burst: 0,
        silence: Duration::ZERO,
        stranger_bytes_per_second: 0,
        network_bytes_per_second: 0,
        stranger_peers_max: 0,
        sources_max: 0,
    };
    let mut bench = Bench {
        throttle: Throttle::new(&config),
        counters: Counters::default(),
    };
    assert!(bench.asks(0, ALICE));
    assert!(!bench.asks(0, ALICE));
    assert!(bench.answers(0, ALICE, 100) && !bench.answers(0, ALICE, 100));
}
