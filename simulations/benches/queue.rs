//! What an entry costs in each queue: `cargo bench -p trackless-sim --bench queue`.
//!
//! The hold model: the queue keeps its length, each step takes the next entry and queues another.
//! Delays are those of a DHT: two of three entries are datagrams (20 to 200 ms), one of three a
//! time-out (2 s), one of a hundred a refresh (15 min).

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use trackless::random::Random;
use trackless::time::Instant;
use trackless_sim::time::{Entry, Queue, QueueKind};

/// What an entry carries: as much as a datagram does.
type Happening = [u64; 6];

/// Steps of a sample.
const STEPS: u64 = 20_000;

fn main() {
    divan::main();
}

fn delay(random: &mut Random) -> Duration {
    let micros = match random.below(100) {
        0 => 900_000_000,
        1..=33 => 2_000_000,
        _ => 20_000 + random.below(180_000),
    };
    Duration::from_micros(u64::from(micros))
}

/// A queue of so many entries after it has settled, and the next sequence number.
fn settled(kind: QueueKind, pending: u64) -> (Box<dyn Queue<Happening>>, Random, u64) {
    let mut queue = kind.build();
    let mut random = Random::from_seed(1);
    for sequence in 0..pending {
        queue.push(Entry {
            at: Instant::ZERO + delay(&mut random),
            sequence,
            happening: [sequence; 6],
        });
    }
    let mut sequence = pending;
    hold(queue.as_mut(), &mut random, &mut sequence, pending);
    (queue, random, sequence)
}

fn hold(queue: &mut dyn Queue<Happening>, random: &mut Random, sequence: &mut u64, steps: u64) {
    for _ in 0..steps {
        let Some(entry) = queue.pop() else { return };
        queue.push(Entry {
            at: entry.at + delay(random),
            sequence: *sequence,
            happening: entry.happening,
        });
        *sequence += 1;
    }
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 20)]
fn heap(bencher: Bencher<'_, '_>, pending: u64) {
    check(bencher, QueueKind::Heap, pending);
}

#[divan::bench(args = [10_000, 100_000, 1_000_000], sample_count = 20)]
fn wheel(bencher: Bencher<'_, '_>, pending: u64) {
    check(bencher, QueueKind::Wheel, pending);
}

fn check(bencher: Bencher<'_, '_>, kind: QueueKind, pending: u64) {
    let (mut queue, mut random, mut sequence) = settled(kind, pending);
    bencher
        .counter(ItemsCount::new(STEPS))
        .bench_local(|| hold(queue.as_mut(), &mut random, &mut sequence, STEPS));
}
